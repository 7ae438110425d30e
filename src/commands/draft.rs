//! An image before its own layers are made: binaries compiled, the base found, everything checked that needs no asset's
//! bytes. What `build` and `push` have in common.
//!
//! Nothing is written here but what is learned of a base; whether its bytes are kept is the caller's to say.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::lock::assets::{Assets, Locked, Settling};
use super::lock::{Locking, base_key, describe_base};
use super::login::Logins;
use super::{blocking, judge};
use crate::base::{self, Base, BaseRequest, Holder};
use crate::cargo;
use crate::check::binary::{self, Libc};
use crate::check::limits::{self, LayerSize};
use crate::config::{BinarySource, BuildRequest, Checks, Format, ImageRequest};
use crate::event::run::Phase;
use crate::event::{Event, ImageResult, LayerResult, Session};
use crate::image::placement::{self, Placement, StartRequest};
use crate::image::{self, Image, ImageSpec, MediaTypes};
use crate::layer::elf::ElfFacts;
use crate::layer::entries::{Content, Entry, Source, Stat};
use crate::layer::facts::LayerFacts;
use crate::layer::plan::{self, LayerSpec, Pack};
use crate::layer::tree::{Tree, is_lambdas_own};
use crate::layer::walk::{self, Asset};
use crate::layer::{Layer, Origin, Pipeline};
use crate::lock::{BaseKey, LockedBase};
use crate::oci::{Descriptor, Digest};
use crate::platform::Architecture;
use crate::problem::{IoContext as _, Problem, Result};
use crate::store::{Kind, Store};

/// A compiled binary and what its headers say.
pub(super) struct Binary {
    path: PathBuf,
    elf: ElfFacts,
}

/// The binary of each image, compiled if need be.
pub(super) async fn binaries(request: &BuildRequest, session: &Session) -> Result<Vec<Option<Binary>>> {
    let mut compiled = match request.compile.clone() {
        None => Vec::new(),
        Some(compile) => {
            session.emit(&Event::PhaseStarted { phase: Phase::Compile });
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
pub(super) struct Draft {
    pub request: ImageRequest,
    pub base: Base,
    pub base_layers: Vec<Layer>,
    /// The base as it is to be locked; only a registry's is.
    pub locked_base: Option<(BaseKey, LockedBase)>,
    /// Whether the lock said before which image the base is.
    pub base_was_locked: bool,
    pub specs: Vec<LayerSpec>,
    pub architecture: Architecture,
    /// How each of `specs` stands to the lock.
    pub locked: Vec<Locked>,
    placement: Placement,
}

/// What becomes of the bytes of a base's layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BaseBytes {
    /// They are put into the store.
    Stored,
    /// They stay where they are, and are read at most once, to know what is in them.
    Left,
}

/// What all drafts of a run share.
pub(super) struct Drafting<'a> {
    pub request: &'a BuildRequest,
    pub base_bytes: BaseBytes,
    pub locking: &'a Arc<Locking>,
    pub logins: &'a Logins,
    pub store: &'a Arc<Store>,
    pub session: &'a Session,
}

impl Drafting<'_> {
    /// The draft of each image, in their order.
    ///
    /// # Errors
    /// The first image that cannot be made.
    pub(super) async fn drafts(&self, binaries: Vec<Option<Binary>>) -> Result<Vec<Draft>> {
        self.session.emit(&Event::PhaseStarted { phase: Phase::Base });
        let mut bases = HashMap::new();
        let mut drafts = Vec::new();
        for (image, binary) in self.request.images.iter().zip(binaries) {
            let context = |problem: Problem| problem.context(format!("could not build image `{}`", image.bin));
            let draft = draft(image, binary, self, &mut bases).await;
            drafts.push(if self.request.images.len() > 1 { draft.map_err(context)? } else { draft? });
        }
        Ok(drafts)
    }
}

/// Finds the base and settles what goes on top of it; all checks that need no asset's bytes are made here.
async fn draft(
    image: &ImageRequest,
    binary: Option<Binary>,
    drafting: &Drafting<'_>,
    bases: &mut HashMap<BaseRequest, Base>,
) -> Result<Draft> {
    let Drafting { request, locking, store, session, .. } = *drafting;
    let mut assets = {
        let (image, store, locking) = (image.clone(), Arc::clone(store), Arc::clone(locking));
        let reuse = request.reuse();
        blocking(move || locking.assets(&image, &store, reuse)).await?
    };
    let of_binary = binary.as_ref().and_then(|binary| binary.elf.architecture);
    let architecture = image.architecture.or(of_binary).unwrap_or(Architecture::Amd64);
    let base = resolve(image, architecture, drafting, bases).await?;
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
    let placement = placement::place(&base.config, &start)?;
    if let (Some(binary), Some(place)) = (&binary, &placement.binary_path) {
        assets.packs.push(binary_pack(image, &binary.path, place)?);
    }
    let pipeline = Arc::new(Pipeline::new(request.threads, image.compression_level));
    let ground = ground(image, &base, &assets, &pipeline, drafting).await?;
    let (store, image, checks) = (Arc::clone(store), image.clone(), request.checks);
    let (locking, session) = (Arc::clone(locking), session.clone());
    blocking(move || {
        let Ground { layers: base_layers, locked: locked_base, tree } = ground;
        if let (Some(Binary { path, elf }), Checks::Refuse) = (&binary, checks) {
            let libc = match locked_base.glibc.as_deref() {
                _ if base_layers.is_empty() => Libc::Nothing,
                Some(version) => Libc::Glibc(version),
                None => Libc::NoGlibc,
            };
            binary::libc(path, elf, &base.shown, libc)?;
        }
        let packs = std::mem::take(&mut assets.packs);
        let specs = plan::plan(packs, &tree, base_layers.len())?;
        let on = Settling { tree: &tree, base_layers: base_layers.len(), level: image.compression_level };
        let (specs, locked) = locking.settle(specs, &assets, &on, &session)?;
        if checks == Checks::Refuse {
            refuse_too_large(&base_layers, &specs, &store)?;
        }
        let locked_base = base_key(&image.base, &image.base_directory, architecture).map(|key| (key, locked_base));
        let base_was_locked = locking.base(&image, architecture).is_some();
        let draft = Draft {
            request: image,
            base,
            base_layers,
            locked_base,
            base_was_locked,
            specs,
            locked,
            architecture,
            placement,
        };
        judge::draft(&draft, checks, &store, &session)?;
        locking.teach(&draft, &pipeline, &store)?;
        Ok(draft)
    })
    .await
}

/// The base of an image, which binaries of a workspace share: the locked one, if it is locked.
async fn resolve(
    image: &ImageRequest,
    architecture: Architecture,
    drafting: &Drafting<'_>,
    bases: &mut HashMap<BaseRequest, Base>,
) -> Result<Base> {
    let Drafting { request, locking, logins, store, session, .. } = *drafting;
    let wanted = BaseRequest {
        reference: image.base.clone(),
        directory: image.base_directory.clone(),
        architecture,
        pinned: locking.base(image, architecture).map(|base| base.digest),
        offline: request.offline,
        no_cache: request.no_cache,
        holder: Holder::BaseImage,
    };
    let base = match bases.get(&wanted) {
        Some(base) => base.clone(),
        None => base::resolve(&wanted, &|registry| logins.of(registry), store, session).await?,
    };
    let (shown, platform) = (&base.shown, architecture.platform());
    let ImageRequest { package, bin, .. } = image;
    session.emit(&Event::BaseResolved { package, bin, reference: shown, digest: base.digest, platform: &platform });
    bases.insert(wanted, base.clone());
    Ok(base)
}

/// What an image stands on.
struct Ground {
    layers: Vec<Layer>,
    locked: LockedBase,
    tree: Tree,
}

/// The base's layers and what has to be known of them. Where they stay where they are and the lock tells all there is
/// to know for what goes on top, nothing of them is read.
async fn ground(
    image: &ImageRequest,
    base: &Base,
    assets: &Assets,
    pipeline: &Arc<Pipeline>,
    drafting: &Drafting<'_>,
) -> Result<Ground> {
    let Drafting { request, base_bytes, locking, store, session, .. } = *drafting;
    let locked = locking.base(image, base.architecture).filter(|locked| Some(locked.digest) == base.digest);
    if let (Some(locked), BaseBytes::Left, false) = (locked, base_bytes, request.no_cache)
        && locked.usual
        && assets.packs.iter().flat_map(|pack| &pack.entries).all(|entry| is_lambdas_own(&entry.path))
        && assets.absent_places().all(is_lambdas_own)
        && let Some(layers) = base.layers_of_sizes(&locked.uncompressed_sizes, store)
    {
        return Ok(Ground { layers, locked: locked.clone(), tree: Tree::default() });
    }
    let layers = match base_bytes {
        BaseBytes::Stored => base::pull(base, store, pipeline, session).await?,
        BaseBytes::Left => base::look(base, store, pipeline, session).await?,
    };
    let (store, digest) = (Arc::clone(store), base.digest);
    blocking(move || {
        let facts = facts(&layers, &store)?;
        let tree = Tree::merge(&facts);
        // Only a base with a digest is locked.
        let locked = describe_base(digest.unwrap_or_else(|| Digest::of(b"")), &facts, &tree);
        Ok(Ground { layers, locked, tree })
    })
    .await
}

/// Refuses what is over Lambda's limit. Only then the largest files are looked for.
fn refuse_too_large(base_layers: &[Layer], specs: &[LayerSpec], store: &Store) -> Result<()> {
    let sizes = |with_files: bool| -> Vec<_> {
        let of_base = |layer: &Layer| {
            let key = layer.diff_id.to_string();
            let facts = if with_files { store.records().get::<LayerFacts>(Kind::Facts, &key) } else { None };
            let facts = facts.unwrap_or_default();
            LayerSize { uncompressed_size: layer.uncompressed_size, ..LayerSize::of("base", &facts) }
        };
        base_layers.iter().map(of_base).chain(specs.iter().map(|spec| size_of(spec, with_files))).collect()
    };
    if limits::total(&sizes(false)).is_ok() { Ok(()) } else { limits::total(&sizes(true)) }
}

/// The size of a layer to be made, known from its headers.
fn size_of(spec: &LayerSpec, with_files: bool) -> LayerSize {
    let entries = if with_files { &spec.entries[..] } else { &[] };
    let facts = LayerFacts {
        uncompressed_size: spec.tar_size(),
        entries: entries.iter().map(Entry::facts).collect(),
        ..LayerFacts::default()
    };
    LayerSize::of(&spec.name, &facts)
}

/// What the records know of the base's layers; pulling them made sure that they do. Checks of an empty base would find
/// nothing, so a record that was lost meanwhile is a failure.
pub(super) fn facts(layers: &[Layer], store: &Store) -> Result<Vec<LayerFacts>> {
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

/// An image that holds its own layout would change, and double, with every build.
pub(super) fn refuse_own_store(asset: &Asset, entries: &[Entry], store: &Path) -> Result<()> {
    let Ok(store) = store.canonicalize() else { return Ok(()) };
    let is_ours = |directory: &Path| {
        let above = directory.ancestors().find(|above| above.file_name() == store.file_name());
        above.is_some_and(|above| above.canonicalize().is_ok_and(|above| above == store))
    };
    let directories: HashSet<_> = entries
        .iter()
        .filter_map(|entry| match &entry.content {
            Content::File(source) => source.path.parent().map(Path::as_os_str),
            Content::Directory { .. } | Content::Symlink(_) => None,
        })
        .collect();
    if !directories.into_iter().any(|directory| is_ours(Path::new(directory))) {
        return Ok(());
    }
    let target = store.parent().unwrap_or(&store);
    let root = walk::root(asset);
    let below = target.strip_prefix(root.canonicalize().unwrap_or(root)).map_or("target".into(), Path::to_string_lossy);
    Err(Problem::usage(format!("asset `{}` holds `{}`, where images are built", asset.shown, store.display()))
        // Not all below it, which would leave an empty directory in the image where there is one here.
        .help(format!("exclude the target directory: `exclude = [\"{below}\"]`, or name one by one what is beside it")))
}

fn binary_pack(image: &ImageRequest, binary: &Path, place: &str) -> Result<Pack> {
    let metadata = std::fs::metadata(binary).or_failed(|| format!("could not stat binary `{}`", binary.display()))?;
    let source = Source { path: binary.to_owned(), follow: true, executable: true, stat: Stat::of(&metadata) };
    let entry = Entry { path: place.trim_start_matches('/').into(), content: Content::File(source) };
    Ok(Pack { name: image.bin.clone(), origin: Origin::Binary, entries: vec![entry], told_layers: 0 })
}

impl Draft {
    /// Whether this layer at this level is one of its own.
    pub(super) fn makes(&self, spec: &LayerSpec, level: u32) -> bool {
        self.request.compression_level == level && self.specs.contains(spec)
    }

    /// The image that the draft and all its layers make.
    ///
    /// # Errors
    /// What Lambda would not take.
    pub(super) fn compose(&self, layers: &[Layer], created: Option<u64>) -> Result<Image> {
        image::compose(&ImageSpec {
            base_config: &self.base.config,
            architecture: self.architecture,
            layers,
            placement: &self.placement,
            created,
            media_types: match self.request.format {
                Format::Oci => MediaTypes::Oci,
                Format::Docker => MediaTypes::Docker,
            },
        })
    }

    /// What is told of the image, before it is pushed anywhere.
    pub(super) fn result(&self, image: &Image, layers: &[Layer]) -> ImageResult {
        result(&self.request.package, &self.request.bin, image, layers)
    }
}

/// What is told of an image, before it is pushed anywhere.
pub(super) fn result(package: &str, bin: &str, image: &Image, layers: &[Layer]) -> ImageResult {
    let layer_result = |(layer, descriptor): (&Layer, &Descriptor)| LayerResult {
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
        package: package.to_owned(),
        bin: bin.to_owned(),
        digest: image.digest(),
        image_uri: None,
        tags: Vec::new(),
        platform: image.architecture.platform(),
        size: image.size_bytes(),
        uncompressed_size: layers.iter().map(|layer| layer.uncompressed_size).sum(),
        layers: layers.iter().zip(&image.layers).map(layer_result).collect(),
        functions: Vec::new(),
        sent_bytes: None,
        reused_bytes: None,
    }
}
