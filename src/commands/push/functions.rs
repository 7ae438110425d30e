//! The functions of a push: looked at before slow work, and brought to their images once all of these are whole in the
//! registry.

use std::collections::HashMap;
use std::time::Duration;

use super::target::Reached;
use crate::aws::Access;
use crate::aws::ecr::host::RegistryHost;
use crate::aws::lambda::Lambda;
use crate::aws::lambda::function::Function;
use crate::config::Destination;
use crate::deploy::{self, Asked, Deployment, Patience, check, plan};
use crate::event::run::Phase;
use crate::event::{Event, FunctionResult, ImageResult, Session};
use crate::image::result as result_file;
use crate::oci::Digest;
use crate::platform::Architecture;
use crate::problem::{Problem, Result, together};
use crate::store::Store;

/// Where the functions of each destination are.
pub(super) struct Functions<'a> {
    destinations: &'a [Destination],
    /// In the order of the destinations; absent where there are none.
    places: Vec<Option<Place>>,
    /// Each function as it was found, in the order of [`Functions::each`]; absent where it is to be made.
    found: Vec<Option<Function>>,
}

#[derive(Clone)]
struct Place {
    lambda: Lambda,
    /// `HOST/REPOSITORY` by the name that Lambda takes.
    repository: String,
}

/// An image that is pushed.
pub(super) struct Pushed {
    pub result: ImageResult,
    pub architecture: Architecture,
    /// Whether its result file tells of it.
    pub written: Result<()>,
}

impl<'a> Functions<'a> {
    /// Finds and checks the functions. `architectures` of images are given where they are known already.
    ///
    /// # Errors
    /// All that would stop any of them later.
    pub(super) async fn prepare(
        destinations: &'a [Destination],
        reached: &[Reached],
        architectures: &[Option<Architecture>],
        session: &Session,
    ) -> Result<Self> {
        let mut known: HashMap<String, Lambda> = HashMap::new();
        let mut places = Vec::new();
        for (destination, reached) in destinations.iter().zip(reached) {
            if destination.functions.is_empty() {
                places.push(None);
                continue;
            }
            let shown = reached.target.client.origin().name();
            // By way of the environment a FIPS name may be used for pushing; functions take it by the plain one.
            let host = RegistryHost::parse(shown).map(|host| host.for_lambda());
            let host = host.map_or_else(|| check::registry(shown), Ok)?;
            destination.functions.iter().try_for_each(|asked| check::region(&asked.function, &host))?;
            let key = format!("{:?} {}", destination.aws, host.region());
            let lambda = match known.get(&key) {
                Some(lambda) => lambda.clone(),
                None => Lambda::beside(&Access::load(&destination.aws).await?, &host),
            };
            known.insert(key, lambda.clone());
            places.push(Some(Place { lambda, repository: format!("{host}/{}", reached.target.repository) }));
        }
        let mut functions = Self { destinations, places, found: Vec::new() };
        let all: Vec<_> = functions
            .each()
            .map(|(index, place, asked)| {
                (place.lambda.clone(), asked.clone(), architectures.get(index).copied().flatten())
            })
            .collect();
        functions.found = check::preflight(&all, session).await?;
        Ok(functions)
    }

    /// Every function with the number of its destination and its place, in the order of the destinations.
    fn each(&self) -> impl Iterator<Item = (usize, &Place, &Asked)> {
        let places = self.places.iter().zip(self.destinations).enumerate();
        let placed = places.filter_map(|(index, (place, destination))| Some((index, place.as_ref()?, destination)));
        placed.flat_map(|(index, place, destination)| {
            destination.functions.iter().map(move |asked| (index, place, asked))
        })
    }

    /// Compares the images' architectures, now that all are known, with those of the functions.
    ///
    /// # Errors
    /// All that disagree.
    pub(super) fn compare(&self, architectures: &[Architecture]) -> Result<()> {
        let pairs = self.each().zip(&self.found);
        let outcomes = pairs.map(|((index, _, asked), found)| match (found, architectures.get(index)) {
            (Some(function), Some(architecture)) => check::suits(&asked.function, function, Some(*architecture)),
            _ => Ok(()),
        });
        together(outcomes.collect(), "functions").map(|_| ())
    }

    /// Tells what would be done; `digests` of the images are given where they are known before these are made.
    ///
    /// # Errors
    /// When a function cannot be looked at.
    pub(super) async fn plan(&self, digests: &[Option<Digest>], session: &Session) -> Result<()> {
        let all: Vec<_> = self
            .each()
            .map(|(index, place, asked)| (place.lambda.clone(), asked.clone(), digests.get(index).copied().flatten()))
            .collect();
        plan::plan(&all, session).await.map(|_| ())
    }

    /// Brings all functions to their images, and writes down which got there.
    ///
    /// # Errors
    /// All that went wrong with any of them; the others are where they were asked to be. When only a result file could
    /// not be written, now or before.
    pub(super) async fn deploy(
        &self,
        mut pushed: Vec<Pushed>,
        wait: Option<Duration>,
        store: &Store,
        session: &Session,
    ) -> Result<()> {
        let all: Vec<_> = self
            .each()
            .filter_map(|(index, place, asked)| {
                Some((place.lambda.clone(), deployment(place, asked, pushed.get(index)?)))
            })
            .collect();
        if !all.is_empty() {
            session.emit(&Event::PhaseStarted { phase: Phase::Functions });
        }
        let patience = Patience { wait, ..Patience::default() };
        let outcomes = deploy::deploy(&all, &patience, session).await;
        let owners: Vec<usize> = self.each().map(|(index, ..)| index).collect();
        for (index, image) in pushed.iter_mut().enumerate() {
            let own = owners.iter().zip(&outcomes).filter(|(owner, _)| **owner == index);
            let functions: Vec<FunctionResult> =
                own.filter_map(|(_, outcome)| outcome.as_ref().ok().cloned()).collect();
            if !functions.is_empty() {
                image.result.functions = functions;
                let context = "its functions run the image, and only what tells of it could not be written";
                let written = result_file::write(store, &image.result).map(drop);
                image.written = written.map_err(|problem| problem.context(context));
                session.emit(&Event::ImageDeployed { image: &image.result });
            }
        }
        let failed = together(outcomes, "functions").err().map(|problem| kept(problem, &pushed));
        let unwritten = pushed.into_iter().filter_map(|image| image.written.err());
        first_of(failed.into_iter().chain(unwritten), session)
    }
}

/// Fails with the first problem, and warns of the others.
pub(super) fn first_of(problems: impl IntoIterator<Item = Problem>, session: &Session) -> Result<()> {
    let mut problems = problems.into_iter();
    let Some(first) = problems.next() else { return Ok(()) };
    for other in problems {
        session.warn(&other.in_one_line(), other.next_step());
    }
    Err(first)
}

fn deployment(place: &Place, asked: &Asked, pushed: &Pushed) -> Deployment {
    let Pushed { result, architecture, .. } = pushed;
    let image = deploy::Image {
        uri: format!("{}@{}", place.repository, result.digest),
        digest: result.digest,
        architecture: *architecture,
        uncompressed_size: result.uncompressed_size,
    };
    Deployment { asked: asked.clone(), image }
}

/// What failed came after the push, which a rerun need not do again.
fn kept(problem: Problem, pushed: &[Pushed]) -> Problem {
    let what = match pushed {
        [one] => format!("image `{}` is pushed, but not all of its functions run it", one.result.bin),
        all => format!("all {} images are pushed, but not all functions run theirs", all.len()),
    };
    problem.context(what)
}
