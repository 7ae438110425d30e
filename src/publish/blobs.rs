//! Blobs into a repository: found there, lent by another, or sent; several at once, the largest first.
//!
//! What is confirmed is recorded at once, under the registry and the digest. A record is a hint: that a blob is there
//! is asked of the registry every time, and who lends one may turn out not to.

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::{LayerToPush, Request, Supply, Target, window};
use crate::event::{Event, PlannedLayer, PushPlan, PushStep, PushedLayer, Session, Task, TaskKind, TaskOutcome};
use crate::oci::{Descriptor, Digest, media_type};
use crate::problem::{Problem, Result};
use crate::registry::error::ErrorKind;
use crate::registry::push::Mount;
use crate::registry::upload::{Progress, Upload};
use crate::store::{Kind, Store};

/// How many repositories are asked to lend a blob before its bytes are sent: each refusal costs a round trip.
const LENDERS: usize = 2;

/// How many repositories are remembered to have a blob.
const REMEMBERED: usize = 8;

/// The repositories of one registry where a blob was confirmed, the latest last.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Pushed {
    repositories: Vec<String>,
}

/// A blob to get into a repository.
pub(super) struct Blob<'a> {
    pub(super) name: &'a str,
    pub(super) descriptor: Option<&'a Descriptor>,
    pub(super) at_most: u64,
    pub(super) supply: &'a Supply,
    pub(super) lenders: Vec<String>,
}

impl<'a> Blob<'a> {
    pub(super) fn of(layer: &'a LayerToPush, descriptor: Option<&'a Descriptor>, lenders: Vec<String>) -> Self {
        Self { name: &layer.name, descriptor, at_most: layer.at_most, supply: &layer.supply, lenders }
    }
}

/// Which of these blobs the repository has.
pub(super) async fn present<'a>(
    target: &Target,
    descriptors: impl Iterator<Item = &'a Descriptor>,
) -> Result<HashSet<Digest>> {
    let mut seen = HashSet::new();
    let jobs: Vec<_> = descriptors
        .filter(|descriptor| seen.insert(descriptor.digest))
        .map(|descriptor| async move {
            let is_there = target.client.has_blob(&target.repository, descriptor).await?;
            Ok(is_there.then_some(descriptor.digest))
        })
        .collect();
    let found = window::run(jobs, target.client.throttled()).await?;
    Ok(found.into_iter().flatten().collect())
}

/// The other repositories of the registry that may have a layer: those the caller named and those it was pushed to.
pub(super) fn lenders(target: &Target, layer: &LayerToPush, store: &Store) -> Vec<String> {
    let Some(known) = &layer.known else { return Vec::new() };
    let recorded = store.records().get::<Pushed>(Kind::Pushed, &key(target, &known.digest)).unwrap_or_default();
    let mut lenders = layer.lenders.clone();
    lenders.extend(recorded.repositories.into_iter().rev());
    lenders.retain(|lender| *lender != target.repository);
    let mut seen = HashSet::new();
    lenders.retain(|lender| seen.insert(lender.clone()));
    lenders.truncate(LENDERS);
    lenders
}

/// Gets all layers into the repository as `plan` says; returns them in their order.
pub(super) async fn push(
    target: &Target,
    request: &Request<'_>,
    layers: &[LayerToPush],
    plan: &PushPlan,
    store: &Store,
    session: &Session,
) -> Result<Vec<PushedLayer>> {
    let mut order: Vec<_> = layers.iter().zip(&plan.layers).enumerate().collect();
    // The largest first: begun last, it would go on alone at the end.
    order.sort_by_key(|(_, (_, planned))| std::cmp::Reverse(planned.size));
    let jobs = order.into_iter().map(|(index, (layer, planned))| async move {
        let pushed = one(target, layer, planned, store, session).await;
        let pushed = pushed.map_err(|problem| problem.context(not_pushed(&layer.name)))?;
        session.emit(&Event::LayerPushed { package: request.package, bin: request.bin, layer: &pushed });
        Ok((index, pushed))
    });
    let mut pushed = window::run(jobs, target.client.throttled()).await?;
    pushed.sort_by_key(|(index, _)| *index);
    Ok(pushed.into_iter().map(|(_, layer)| layer).collect())
}

async fn one(
    target: &Target,
    layer: &LayerToPush,
    planned: &PlannedLayer,
    store: &Store,
    session: &Session,
) -> Result<PushedLayer> {
    let name = layer.name.clone();
    if let (PushStep::Reuse, Some(known)) = (planned.step, &layer.known) {
        remember(target, &known.digest, store, session);
        return Ok(PushedLayer { name, digest: known.digest, size: known.size, step: PushStep::Reuse });
    }
    let blob = Blob::of(layer, layer.known.as_ref(), lenders(target, layer, store));
    let (digest, size, step) = send(target, &blob, store, session).await?;
    Ok(PushedLayer { name, digest, size, step })
}

/// Gets a blob into the repository that does not have it, and records that it is there.
pub(super) async fn send(
    target: &Target,
    blob: &Blob<'_>,
    store: &Store,
    session: &Session,
) -> Result<(Digest, u64, PushStep)> {
    let Target { client, repository } = target;
    let mut opened = None;
    if let Some(known) = blob.descriptor {
        for lender in &blob.lenders {
            let (idle, is_lent) = match client.mount(repository, &known.digest, lender).await? {
                Mount::Done => (opened.take(), true),
                Mount::Opened(session) => (opened.replace(session), false),
                Mount::Declined => continue,
            };
            if let Some(idle) = idle {
                client.abandon(repository, &idle).await;
            }
            if is_lent {
                remember(target, &known.digest, store, session);
                return Ok((known.digest, known.size, PushStep::Mount));
            }
        }
    }
    let (source, step) = match blob.supply {
        Supply::Here(source) | Supply::Made(source) => (source, PushStep::Upload),
        Supply::Base(source) => (source, PushStep::Relay),
        Supply::Absent { expected } => {
            if let Some(idle) = opened {
                client.abandon(repository, &idle).await;
            }
            let digest = blob.descriptor.map(|known| known.digest);
            return Err(absent(target, blob.name, digest, expected.as_deref()));
        }
    };
    let task = Arc::new(Mutex::new(None::<Task>));
    let progress = tell(&task, blob, session);
    let upload = |known, session| Upload { repository, source, known, session, progress: Arc::clone(&progress) };
    let made = match client.upload(upload(blob.descriptor, opened)).await {
        // Another version of the program, or of its compressor, made other bytes of the same content.
        Err(error) if error.kind == ErrorKind::OtherBytes && matches!(blob.supply, Supply::Made(_)) => {
            client.upload(upload(None, None)).await?
        }
        outcome => outcome?,
    };
    if let Some(task) = task.lock().unwrap_or_else(PoisonError::into_inner).take() {
        task.finish(TaskOutcome::Done);
    }
    remember(target, &made.digest, store, session);
    Ok((made.digest, made.size, step))
}

/// Tells in `task` how far the upload of a blob is; each try is a task anew.
fn tell(task: &Arc<Mutex<Option<Task>>>, blob: &Blob<'_>, session: &Session) -> Arc<dyn Fn(Progress) + Send + Sync> {
    let (task, session, name) = (Arc::clone(task), session.clone(), blob.name.to_owned());
    let total = blob.descriptor.map_or(blob.at_most, |known| known.size);
    Arc::new(move |progress| {
        let mut task = task.lock().unwrap_or_else(PoisonError::into_inner);
        match progress {
            Progress::Began => {
                // A try that failed ends its task by letting it go.
                drop(task.take());
                *task = Some(session.task(TaskKind::Push, &name, Some(total)));
            }
            Progress::Sent(bytes) => {
                if let Some(task) = &*task {
                    task.advance(bytes);
                }
            }
        }
    })
}

/// The descriptor of a layer of ours.
pub(super) fn layer_descriptor(digest: Digest, size: u64) -> Descriptor {
    Descriptor { media_type: media_type::OCI_LAYER_GZIP.to_owned(), digest, size }
}

/// What went wrong, if a layer is in the way.
pub(super) fn not_pushed(layer: &str) -> String {
    format!("could not push layer `{layer}`")
}

/// A layer that is neither in the repository nor here.
pub(super) fn absent(target: &Target, layer: &str, digest: Option<Digest>, expected: Option<&Path>) -> Problem {
    let digest = digest.map(|digest| format!(" ({digest})")).unwrap_or_default();
    let place = expected.map_or_else(|| "here".to_owned(), |path| format!("at `{}`", path.display()));
    Problem::failed(format!("`{}` has no layer `{layer}`{digest}, and its files are not {place}", target.shown()))
        .help("push once from a machine that has the files")
}

/// Whether the records say that the repository has a blob.
pub(super) fn is_recorded(target: &Target, digest: &Digest, store: &Store) -> bool {
    let recorded = store.records().get::<Pushed>(Kind::Pushed, &key(target, digest));
    recorded.is_some_and(|pushed| pushed.repositories.contains(&target.repository))
}

/// Records that a blob is there. A record that cannot be written costs a question some day.
fn remember(target: &Target, digest: &Digest, store: &Store, session: &Session) {
    let key = key(target, digest);
    let mut pushed = store.records().get::<Pushed>(Kind::Pushed, &key).unwrap_or_default();
    if pushed.repositories.last() == Some(&target.repository) {
        return;
    }
    pushed.repositories.retain(|repository| *repository != target.repository);
    pushed.repositories.push(target.repository.clone());
    let excess = pushed.repositories.len().saturating_sub(REMEMBERED);
    pushed.repositories.drain(..excess);
    if let Err(problem) = store.records().put(Kind::Pushed, &key, &pushed) {
        session.emit(&Event::Detail { message: &format!("not recorded: {problem}") });
    }
}

fn key(target: &Target, digest: &Digest) -> String {
    format!("{} {digest}", target.client.origin().name())
}
