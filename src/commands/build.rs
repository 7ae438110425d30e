//! `cargo lambda-image build`: compile, find the base, check, pack, stack, write.
//!
//! Everything that can be refused cheaply is refused before anything slow begins, and an image gets its name only when
//! all of it is there.

use std::collections::{HashMap, HashSet};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::draft::{self, BaseBytes, Draft, Drafting};
use super::lock::{Locking, fetch};
use super::login::Logins;
use super::{blocking, open_store, prune};
use crate::aws;
use crate::base::reference::BaseReference;
use crate::config::{BuildRequest, ImageRequest, Output};
use crate::event::run::Phase;
use crate::event::{Event, Session};
use crate::image::result as result_file;
use crate::image::{archive, layout};
use crate::layer::plan::LayerSpec;
use crate::layer::{Layer, Pipeline};
use crate::problem::{Problem, Result};
use crate::store::Store;
use crate::units::size;

/// Builds every image of the request.
///
/// # Errors
/// Whatever stops it; images already complete stay as they are.
pub async fn run(request: BuildRequest, session: &Session) -> Result<()> {
    let started = Instant::now();
    refuse_early(&request)?;
    let locking = Locking::read(&request.lock).await?;
    let binaries = draft::binaries(&request, session).await?;
    let store = open_store(&request.store, false, session).await?;
    let logins = Logins::new(aws::Settings::default());
    let base_bytes = BaseBytes::Stored;
    let drafting =
        Drafting { request: &request, base_bytes, locking: &locking, logins: &logins, store: &store, session };
    let drafts = drafting.drafts(binaries).await?;
    if locking.must_stay {
        locking.foresee_by_size(&drafts)?;
    }
    fetch::blobs(&request, &drafts, &logins, &store, session).await?;
    session.emit(&Event::PhaseStarted { phase: Phase::Layers });
    let (drafts, layers) = make_layers(drafts, &request, &store, session).await?;
    let (drafts, layers, found) = {
        let (locking, session) = (Arc::clone(&locking), session.clone());
        blocking(move || {
            let images: Vec<_> = drafts.iter().zip(layers.iter().map(Vec::as_slice)).collect();
            let found = locking.findings(&images, &session)?;
            locking.check(&found, &session)?;
            Ok((drafts, layers, found))
        })
        .await?
    };
    for (draft, layers) in drafts.into_iter().zip(layers) {
        let (store, session) = (Arc::clone(&store), session.clone());
        let created = request.source_date_epoch;
        blocking(move || finish(&draft, layers, created, &store, &session)).await?;
    }
    let (saving, telling) = (Arc::clone(&store), session.clone());
    blocking(move || locking.save(&found, &saving, &telling)).await?;
    prune(&store, HashSet::new(), session).await;
    session.emit(&Event::Finished { elapsed: started.elapsed() });
    Ok(())
}

/// What is wrong whatever is compiled.
pub(super) fn refuse_early(request: &BuildRequest) -> Result<()> {
    let mut archives: HashMap<&Path, Vec<String>> = HashMap::new();
    for image in &request.images {
        BaseReference::parse(&image.base, &image.base_directory)?;
        match &image.output {
            Output::Store => {}
            Output::OciDir(path) => layout::refuse_target(path)?,
            Output::OciArchive(path) | Output::DockerArchive(path) => {
                archive::refuse_target(path)?;
                archives.entry(path).or_default().push(format!("`{}`", image.bin));
            }
        }
    }
    let Some((path, bins)) = archives.into_iter().find(|(_, bins)| bins.len() > 1) else { return Ok(()) };
    Err(Problem::usage(format!(
        "`{}` takes one image, and there are {}: {}",
        path.display(),
        bins.len(),
        bins.join(", ")
    ))
    .help("choose one with `--bin`, leave out the path, or write a layout of all with `--output oci-dir:PATH`"))
}

/// Makes the layers of all images, each different one once: binaries of a workspace share their assets.
async fn make_layers(
    drafts: Vec<Draft>,
    request: &BuildRequest,
    store: &Arc<Store>,
    session: &Session,
) -> Result<(Vec<Draft>, Vec<Vec<Layer>>)> {
    let mut unique: HashMap<u32, Vec<LayerSpec>> = HashMap::new();
    for draft in &drafts {
        let specs = unique.entry(draft.request.compression_level).or_default();
        for spec in &draft.specs {
            if !specs.contains(spec) {
                specs.push(spec.clone());
            }
        }
        session.emit(&Event::LayersStarted {
            bin: &draft.request.bin,
            count: draft.base_layers.len() + draft.specs.len(),
        });
    }
    let mut made = HashMap::new();
    for (level, specs) in unique {
        let (store, session, threads) = (Arc::clone(store), session.clone(), request.threads);
        let reuse = request.reuse();
        let layers = blocking(move || {
            let layers = Pipeline::new(threads, level).make(&specs, &store, &session, reuse)?;
            Ok(specs.into_iter().zip(layers).collect::<Vec<_>>())
        });
        made.insert(level, layers.await?);
    }
    let layers_of = |draft: &Draft| {
        let known = &made[&draft.request.compression_level];
        let find = |spec: &LayerSpec| {
            let (_, layer) = known.iter().find(|(made, _)| made == spec).expect("the specs of every draft were made");
            layer.clone()
        };
        draft.base_layers.iter().cloned().chain(draft.specs.iter().map(find)).collect()
    };
    let layers = drafts.iter().map(layers_of).collect();
    Ok((drafts, layers))
}

/// Composes the image, gives it its name in the layout, and writes what else was asked for.
fn finish(draft: &Draft, layers: Vec<Layer>, created: Option<u64>, store: &Store, session: &Session) -> Result<()> {
    session.check()?;
    let image = draft.compose(&layers, created)?;
    let ImageRequest { package, bin, .. } = &draft.request;
    layout::add(store, bin, &image, session)?;
    let written = match &draft.request.output {
        Output::Store => None,
        Output::OciDir(path) => {
            let outcome = layout::export(store, bin, &image, path, session);
            Some(("oci-dir", "OCI layout", path, outcome))
        }
        Output::OciArchive(path) => {
            Some(("oci-archive", "archive", path, archive::oci(store, bin, &image, path, session)))
        }
        Output::DockerArchive(path) => {
            Some(("docker-archive", "archive", path, archive::docker(store, bin, &image, path, session)))
        }
    };
    if let Some((format, what, path, outcome)) = written {
        outcome.map_err(|problem| elsewhere(problem, format, image.size_bytes()))?;
        session.emit(&Event::Wrote { package, bin, what, path });
    }
    let result = result_file::write(store, &draft.result(&image, &layers))?;
    session.emit(&Event::ImageBuilt { image: &result });
    Ok(())
}

/// What an output that has no room, or may not be written, can do: it need not be where the target directory is.
fn elsewhere(problem: Problem, format: &str, size_bytes: u64) -> Problem {
    let path = format!("`--output {format}:PATH`");
    match problem.io_kind() {
        Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => problem
            .help(format!("the image takes {}: free as much, or name another place with {path}", size(size_bytes))),
        Some(ErrorKind::ReadOnlyFilesystem) => problem.help(format!("name a place that can be written with {path}")),
        _ => problem,
    }
}
