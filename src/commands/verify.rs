//! `cargo lambda-image verify`: read an image, ask every rule, print one report.

use std::sync::Arc;

use super::login::Logins;
use super::{blocking, build, judge, open_store};
use crate::aws;
use crate::base::{self, InspectRequest};
use crate::check::findings::Options;
use crate::check::image::{BaseFacts, ImageFacts};
use crate::check::{self, rules};
use crate::config::{BuildRequest, InspectedRequest, VerifyRequest};
use crate::event::{Event, Session};
use crate::finding::Verdict;
use crate::image::result;
use crate::problem::{Problem, Result};
use crate::store::Store;

/// Reports on every image of the request.
///
/// # Errors
/// Of class refused when a finding is an error; whatever keeps an image from being read.
pub async fn run(request: VerifyRequest, session: &Session) -> Result<()> {
    let verdicts = match request {
        VerifyRequest::Explain(code) => return explain(&code, session),
        VerifyRequest::Image(image) => vec![existing(image, session).await?],
        VerifyRequest::Project(request) => project(request, session).await?,
    };
    session.emit(&Event::Checked { verdicts: &verdicts });
    let what = match &verdicts[..] {
        [one] => format!("`{}`", one.image),
        several => format!("one of {} images", several.len()),
    };
    judge::verdict(&what, verdicts.iter().flat_map(|verdict| &verdict.findings))
}

fn explain(code: &str, session: &Session) -> Result<()> {
    let page = match (code, rules::find(code)) {
        ("all", _) => rules::list(),
        (_, Some(rule)) => rules::page(rule),
        (_, None) => {
            let message = format!("`{}` is no code of a rule", code.escape_debug());
            return Err(Problem::usage(message).help(rules::other(code)));
        }
    };
    session.emit(&Event::Explained { page: &page });
    Ok(())
}

/// An image that is there: everything is read.
async fn existing(request: InspectedRequest, session: &Session) -> Result<Verdict> {
    let InspectedRequest { reference, directory, architecture, offline, options } = request;
    let inspect = InspectRequest { reference, directory, architecture, offline, known: None };
    let facts = inspected(&inspect, session).await?;
    judged(facts, Options { today: judge::today(), ..options }).await
}

async fn inspected(request: &InspectRequest, session: &Session) -> Result<ImageFacts> {
    let logins = Logins::new(aws::Settings::default());
    base::inspect(request, &|registry| logins.of(registry), session).await
}

async fn judged(facts: ImageFacts, options: Options) -> Result<Verdict> {
    blocking(move || Ok(check::judge(&facts, &options))).await
}

/// The project's images: built if need be, and then judged as they lie in the layout, without a second look into
/// layers.
async fn project(request: BuildRequest, session: &Session) -> Result<Vec<Verdict>> {
    let (images, root) = (request.images.clone(), request.store.clone());
    // The build writes one.
    let has_lock = request.lock.path.is_file();
    build::run(request, &session.for_a_step()).await?;
    let store = open_store(&root, false, session).await?;
    let mut verdicts = Vec::new();
    for image in &images {
        let inspect = InspectRequest {
            reference: format!("oci:{}:{}", store.layout_path().display(), image.bin),
            directory: store.root().to_owned(),
            architecture: None,
            offline: true,
            known: Some(Arc::clone(&store)),
        };
        let mut facts = inspected(&inspect, session).await?;
        facts.shown.clone_from(&image.bin);
        name_layers(&mut facts, &store, &image.bin);
        let base = judge::base_of(image);
        facts.base = Some(BaseFacts { pinned: base.pinned || has_lock, ..base });
        verdicts.push(judged(facts, judge::options(image)?).await?);
    }
    Ok(verdicts)
}

/// Calls layers what the build called them.
fn name_layers(facts: &mut ImageFacts, store: &Store, bin: &str) {
    let Some(result) = result::last(store, bin).filter(|result| Some(result.digest) == facts.digest()) else { return };
    for (layer, named) in facts.layers.iter_mut().zip(result.layers) {
        layer.name = named.name;
    }
}
