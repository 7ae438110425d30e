//! An image before its own layers are made: binaries compiled, the base found, everything checked that needs no asset's
//! bytes. What `build` and `push` have in common.
//!
//! Nothing is written here but what is learned of a base; whether its bytes are kept is the caller's to say.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use super::login::Logins;
use super::{blocking, judge};
use crate::base::{self, Base, BaseRequest};
use crate::cargo;
use crate::check::binary::{self, Libc};
use crate::check::image::BaseFacts;
use crate::check::limits::{self, LayerSize};
use crate::config::{BinarySource, BuildRequest, Checks, Format, ImageRequest};
use crate::event::{Event, ImageResult, LayerResult, Session};
use crate::image::placement::{self, Placement, StartRequest};
use crate::image::{self, Image, ImageSpec, MediaTypes};
use crate::layer::elf::ElfFacts;
use crate::layer::entries::{Content, Entry, Source, Stat};
use crate::layer::facts::LayerFacts;
use crate::layer::plan::{self, LayerSpec, Pack};
use crate::layer::tree::Tree;
use crate::layer::walk::{self, Asset};
use crate::layer::{Layer, Origin, Pipeline, tarball};
use crate::oci::Descriptor;
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
    pub specs: Vec<LayerSpec>,
    architecture: Architecture,
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
    let Drafting { request, base_bytes, logins, store, session } = *drafting;
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
        offline: request.offline,
        no_cache: request.no_cache,
    };
    // Binaries of a workspace share their base.
    let base = match bases.get(&wanted) {
        Some(base) => base.clone(),
        None => base::resolve(&wanted, &|registry| logins.of(registry), store, session).await?,
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
    let placement = placement::place(&base.config, &start)?;
    if let (Some(binary), Some(place)) = (&binary, &placement.binary_path) {
        packs.push(binary_pack(image, &binary.path, place)?);
    }
    let pipeline = Arc::new(Pipeline::new(request.threads, image.compression_level));
    let base_layers = match base_bytes {
        BaseBytes::Stored => base::pull(&base, store, &pipeline, session).await?,
        BaseBytes::Left => base::look(&base, store, &pipeline, session).await?,
    };
    let (store, session, shown, checks) = (Arc::clone(store), session.clone(), base.shown.clone(), request.checks);
    let mut draft = Draft { request: image.clone(), base, base_layers, architecture, placement, specs: Vec::new() };
    blocking(move || {
        let facts = facts(&draft.base_layers, &store)?;
        if let (Some(Binary { path, elf }), Checks::Refuse) = (&binary, checks) {
            binary::libc(path, elf, &shown, libc(&facts))?;
        }
        draft.specs = plan::plan(packs, &Tree::merge(&facts), draft.base_layers.len())?;
        match checks {
            Checks::Refuse => draft.refuse(facts, &store, &session)?,
            Checks::Skip => {
                let message = format!("image `{}` is not checked, as `--no-verify` asks", draft.request.bin);
                session.warn(&message, Some("`cargo lambda-image verify` checks it later"));
            }
            Checks::Later => {}
        }
        Ok(draft)
    })
    .await
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

impl Draft {
    /// Asks the rules, which need no byte of an asset but its first ones.
    fn refuse(&self, base_layers: Vec<LayerFacts>, store: &Store, session: &Session) -> Result<()> {
        let ours = self.specs.iter().map(size_of);
        let sizes: Vec<_> = base_layers.iter().map(|facts| LayerSize::of("base", facts)).chain(ours).collect();
        limits::total(&sizes)?;
        let config = self.compose(&[], None)?.config;
        let mut config: Value = serde_json::from_slice(&config)
            .map_err(|error| Problem::failed("the config made here is not JSON").because(error))?;
        // There are no layers yet for these to fit.
        for key in ["rootfs", "history"] {
            config.as_object_mut().and_then(|config| config.remove(key));
        }
        let base = super::verify::base_of(&self.request);
        let base = BaseFacts { reference: self.base.shown.clone(), ..base };
        let planned = judge::Planned { request: &self.request, config, base, base_layers, specs: &self.specs };
        judge::refuse(planned, store, session)
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
    }
}
