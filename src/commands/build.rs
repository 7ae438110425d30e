//! `cargo lambda-image build`: compile, find the base, check, pack, stack, write.
//!
//! Everything that can be refused cheaply is refused before anything slow begins, and an image gets its name only when
//! all of it is there.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::blocking;
use crate::base::reference::BaseReference;
use crate::base::{self, Base, BaseRequest};
use crate::cargo;
use crate::check::binary::{self, Libc};
use crate::check::limits::{self, LayerSize};
use crate::config::{BinarySource, BuildRequest, Format, ImageRequest, Output};
use crate::event::{Event, ImageResult, LayerResult, Session};
use crate::image::placement::{self, Placement, StartRequest};
use crate::image::result as result_file;
use crate::image::{self, Image, ImageSpec, MediaTypes, archive, layout};
use crate::layer::elf::ElfFacts;
use crate::layer::entries::{Content, Entry, Source, Stat};
use crate::layer::facts::LayerFacts;
use crate::layer::make::Reuse;
use crate::layer::plan::{self, LayerSpec, Pack};
use crate::layer::tree::Tree;
use crate::layer::walk::{self, Asset};
use crate::layer::{Layer, Origin, Pipeline, tarball};
use crate::platform::Architecture;
use crate::problem::{IoContext as _, Problem, Result};
use crate::store::{Kind, Store};

/// Builds every image of the request.
///
/// # Errors
/// Whatever stops it; images already complete stay as they are.
pub async fn run(request: BuildRequest, session: &Session) -> Result<()> {
    let started = Instant::now();
    refuse_early(&request)?;
    let binaries = binaries(&request, session).await?;
    let store = {
        let (root, session) = (request.store.clone(), session.clone());
        Arc::new(blocking(move || Store::open(&root, &session)).await?)
    };
    let mut bases = HashMap::new();
    let mut drafts = Vec::new();
    for (image, binary) in request.images.iter().zip(binaries) {
        let context = |problem: Problem| problem.context(format!("could not build image `{}`", image.bin));
        let draft = draft(image, binary, &request, &mut bases, &store, session).await;
        drafts.push(if request.images.len() > 1 { draft.map_err(context)? } else { draft? });
    }
    let (drafts, layers) = make_layers(drafts, &request, &store, session).await?;
    for (draft, layers) in drafts.into_iter().zip(layers) {
        let (store, session, output) = (Arc::clone(&store), session.clone(), request.output.clone());
        let created = request.source_date_epoch;
        blocking(move || finish(&draft, layers, created, &output, &store, &session)).await?;
    }
    let pruning = Arc::clone(&store);
    // Blobs that stay cost space, not correctness; a damaged index must not turn a finished build into a failed one.
    if let Err(problem) = blocking(move || pruning.prune(|| layout::reachable(&pruning))).await {
        session.emit(&Event::Detail { message: &format!("old blobs were not removed: {problem}") });
    }
    session.emit(&Event::Finished { elapsed: started.elapsed() });
    Ok(())
}

/// What is wrong whatever is compiled.
fn refuse_early(request: &BuildRequest) -> Result<()> {
    for image in &request.images {
        BaseReference::parse(&image.base, &image.base_directory)?;
    }
    match &request.output {
        Output::Store => {}
        Output::OciDir(path) => layout::refuse_target(path)?,
        Output::OciArchive(path) | Output::DockerArchive(path) => archive::refuse_target(path)?,
    }
    if let Output::OciArchive(path) | Output::DockerArchive(path) = &request.output
        && request.images.len() > 1
    {
        let bins: Vec<_> = request.images.iter().map(|image| format!("`{}`", image.bin)).collect();
        return Err(Problem::usage(format!(
            "`{}` takes one image, and there are {}: {}",
            path.display(),
            bins.len(),
            bins.join(", ")
        ))
        .help("choose one with `--bin`, or write a layout of all with `--output oci-dir:PATH`"));
    }
    Ok(())
}

/// A compiled binary and what its headers say.
struct Binary {
    path: PathBuf,
    elf: ElfFacts,
}

/// The binary of each image, compiled if need be.
async fn binaries(request: &BuildRequest, session: &Session) -> Result<Vec<Option<Binary>>> {
    let mut compiled = match request.compile.clone() {
        None => Vec::new(),
        Some(compile) => {
            let session = session.clone();
            blocking(move || cargo::build(&compile, &session)).await?
        }
    }
    .into_iter();
    let mut binaries = Vec::new();
    for image in &request.images {
        let path = match &image.binary {
            BinarySource::None => None,
            BinarySource::File(path) => Some(path.clone()),
            // Binaries are expected of cargo in the order of the images.
            BinarySource::Cargo => compiled.next(),
        };
        let read = |path: PathBuf| -> Result<Binary> {
            let elf = binary::read(&path, image.architecture)?;
            binary::architecture(&path, &elf, image.architecture, None)?;
            Ok(Binary { path, elf })
        };
        binaries.push(path.map(read).transpose()?);
    }
    Ok(binaries)
}

/// An image before its own layers are made.
struct Draft {
    request: ImageRequest,
    base: Base,
    base_layers: Vec<Layer>,
    architecture: Architecture,
    placement: Placement,
    specs: Vec<LayerSpec>,
}

/// Finds the base and settles what goes on top of it; all checks that need no asset's bytes are made here.
async fn draft(
    image: &ImageRequest,
    binary: Option<Binary>,
    request: &BuildRequest,
    bases: &mut HashMap<BaseRequest, Base>,
    store: &Arc<Store>,
    session: &Session,
) -> Result<Draft> {
    let mut packs = {
        let (image, store) = (image.clone(), request.store.clone());
        blocking(move || asset_packs(&image, &store)).await?
    };
    let of_binary = binary.as_ref().and_then(|binary| binary.elf.architecture);
    let architecture = image.architecture.or(of_binary).unwrap_or(Architecture::Amd64);
    let wanted = BaseRequest {
        reference: image.base.clone(),
        directory: image.base_directory.clone(),
        architecture,
        pinned: None,
        offline: request.offline,
        no_cache: request.no_cache,
    };
    // Binaries of a workspace share their base.
    let base = match bases.get(&wanted) {
        Some(base) => base.clone(),
        None => base::resolve(&wanted, store, session).await?,
    };
    let (shown, platform) = (&base.shown, architecture.platform());
    let ImageRequest { package, bin, .. } = image;
    session.emit(&Event::BaseResolved { package, bin, reference: shown, digest: base.digest, platform: &platform });
    bases.insert(wanted, base.clone());
    if let Some(Binary { path, elf }) = &binary {
        binary::architecture(path, elf, image.architecture, Some((&base.shown, base.architecture)))?;
    }
    let start = StartRequest {
        bin: binary.as_ref().map(|_| image.bin.as_str()),
        handler: image.handler.as_deref(),
        entrypoint: image.entrypoint.as_deref(),
        working_directory: image.working_directory.as_deref(),
        env: &image.env,
    };
    let placement = placement::place(&base.config, &start, session)?;
    if let (Some(binary), Some(place)) = (&binary, &placement.binary_path) {
        packs.push(binary_pack(image, &binary.path, place)?);
    }
    let pipeline = Arc::new(Pipeline::new(request.threads, image.compression_level));
    let base_layers = base::pull(&base, store, &pipeline, session).await?;
    let (store, image, shown) = (Arc::clone(store), image.clone(), base.shown.clone());
    let (specs, base_layers) = blocking(move || {
        let facts = facts(&base_layers, &store)?;
        if let Some(Binary { path, elf }) = &binary {
            binary::libc(path, elf, &shown, libc(&facts))?;
        }
        let specs = plan::plan(packs, &Tree::merge(&facts), base_layers.len())?;
        let ours = specs.iter().map(size_of);
        let sizes: Vec<_> = facts.iter().map(|facts| LayerSize::of("base", facts)).chain(ours).collect();
        limits::total(&sizes)?;
        Ok((specs, base_layers))
    })
    .await?;
    Ok(Draft { request: image, base, base_layers, architecture, placement, specs })
}

/// The C library of a base whose layers were looked through.
fn libc(layers: &[LayerFacts]) -> Libc<'_> {
    if layers.is_empty() {
        return Libc::Nothing;
    }
    layers.iter().rev().find_map(|layer| layer.glibc.as_deref()).map_or(Libc::NoGlibc, Libc::Glibc)
}

/// The size of a layer to be made, known from its headers.
fn size_of(spec: &LayerSpec) -> LayerSize {
    let facts = LayerFacts {
        uncompressed_size: tarball::size(&spec.entries),
        entries: spec.entries.iter().map(Entry::facts).collect(),
        ..LayerFacts::default()
    };
    LayerSize::of(&spec.name, &facts)
}

/// What the records know of the base's layers; pulling them made sure that they do. Checks of an empty base would find
/// nothing, so a record that was lost meanwhile is a failure.
fn facts(layers: &[Layer], store: &Store) -> Result<Vec<LayerFacts>> {
    let lost = |layer: &Layer| {
        let what = format!("the records of base layer {} were lost during the build", layer.descriptor.digest);
        Problem::failed(what).help("build again")
    };
    let known = |layer: &Layer| {
        let record = store.records().get(Kind::Facts, &layer.diff_id.to_string());
        record.ok_or_else(|| lost(layer))
    };
    layers.iter().map(known).collect()
}

/// The assets' entries in their order.
fn asset_packs(image: &ImageRequest, store: &Path) -> Result<Vec<Pack>> {
    let mut packs = Vec::new();
    for asset in &image.assets {
        let mut asset = asset.clone();
        asset.allow_secrets.extend_from_slice(&image.allow_secrets);
        let entries = walk::walk(&asset)?;
        refuse_own_store(&asset, &entries, store)?;
        packs.push(Pack { name: asset.name, origin: Origin::Asset, entries });
    }
    Ok(packs)
}

/// An image that holds its own layout would change, and double, with every build.
fn refuse_own_store(asset: &Asset, entries: &[Entry], store: &Path) -> Result<()> {
    let Ok(store) = store.canonicalize() else { return Ok(()) };
    let is_ours = |path: &Path| {
        let above = path.ancestors().find(|above| above.file_name() == store.file_name());
        above.is_some_and(|above| above.canonicalize().is_ok_and(|above| above == store))
    };
    let ours = entries.iter().find(|entry| matches!(&entry.content, Content::File(source) if is_ours(&source.path)));
    if ours.is_none() {
        return Ok(());
    }
    Err(Problem::usage(format!("asset `{}` holds `{}`, where images are built", asset.shown, store.display()))
        .help("exclude the target directory: `exclude = [\"target/**\"]`, or name what is below it one by one"))
}

fn binary_pack(image: &ImageRequest, binary: &Path, place: &str) -> Result<Pack> {
    let metadata = std::fs::metadata(binary).or_failed(|| format!("could not stat binary `{}`", binary.display()))?;
    let source = Source { path: binary.to_owned(), follow: true, executable: true, stat: Stat::of(&metadata) };
    let entry = Entry { path: place.trim_start_matches('/').into(), content: Content::File(source) };
    Ok(Pack { name: image.bin.clone(), origin: Origin::Binary, entries: vec![entry] })
}

/// Makes the layers of all images, each different one once: binaries of a workspace share their assets.
async fn make_layers(
    drafts: Vec<Draft>,
    request: &BuildRequest,
    store: &Arc<Store>,
    session: &Session,
) -> Result<(Vec<Draft>, Vec<Vec<Layer>>)> {
    let reuse = if request.no_cache { Reuse::Nothing } else { Reuse::Records };
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
        let layers = blocking(move || {
            let layers = Pipeline::new(threads, level).make(&specs, &store, &session, reuse)?;
            Ok(specs.into_iter().zip(layers).collect::<Vec<_>>())
        });
        made.insert(level, layers.await?);
    }
    let layers_of = |draft: &Draft| {
        let known = &made[&draft.request.compression_level];
        let find = |spec: &LayerSpec| known.iter().find(|(made, _)| made == spec).map(|(_, layer)| layer.clone());
        draft.base_layers.iter().cloned().chain(draft.specs.iter().filter_map(find)).collect()
    };
    let layers = drafts.iter().map(layers_of).collect();
    Ok((drafts, layers))
}

/// Composes the image, gives it its name in the layout, and writes what else was asked for.
fn finish(
    draft: &Draft,
    layers: Vec<Layer>,
    created: Option<u64>,
    output: &Output,
    store: &Store,
    session: &Session,
) -> Result<()> {
    session.check()?;
    let media_types = match draft.request.format {
        Format::Oci => MediaTypes::Oci,
        Format::Docker => MediaTypes::Docker,
    };
    let image = image::compose(&ImageSpec {
        base_config: &draft.base.config,
        architecture: draft.architecture,
        layers: &layers,
        placement: &draft.placement,
        created,
        media_types,
    })?;
    let ImageRequest { package, bin, .. } = &draft.request;
    layout::add(store, bin, &image, session)?;
    match output {
        Output::Store => {}
        Output::OciDir(path) => {
            layout::export(store, bin, &image, path, session)?;
            session.emit(&Event::Wrote { package, bin, what: "OCI layout", path });
        }
        Output::OciArchive(path) => {
            archive::oci(store, bin, &image, path, session)?;
            session.emit(&Event::Wrote { package, bin, what: "archive", path });
        }
        Output::DockerArchive(path) => {
            archive::docker(store, bin, &image, path, session)?;
            session.emit(&Event::Wrote { package, bin, what: "archive", path });
        }
    }
    let result = result_file::write(store, &result(draft, &image, &layers))?;
    session.emit(&Event::ImageBuilt { image: &result });
    Ok(())
}

fn result(draft: &Draft, image: &Image, layers: &[Layer]) -> ImageResult {
    let layer_result = |(layer, descriptor): (&Layer, &crate::oci::Descriptor)| LayerResult {
        name: layer.name.clone(),
        digest: descriptor.digest,
        diff_id: layer.diff_id,
        size: descriptor.size,
        uncompressed_size: layer.uncompressed_size,
        media_type: descriptor.media_type.clone(),
        reused: layer.reused,
    };
    ImageResult {
        schema: 1,
        package: draft.request.package.clone(),
        bin: draft.request.bin.clone(),
        digest: image.digest(),
        image_uri: None,
        tags: Vec::new(),
        platform: draft.architecture.platform(),
        size: image.size_bytes(),
        uncompressed_size: layers.iter().map(|layer| layer.uncompressed_size).sum(),
        layers: layers.iter().zip(&image.layers).map(layer_result).collect(),
        functions: Vec::new(),
    }
}
