//! Reads an image of anybody's for the checks: the same sources as bases have, and nothing refused that a rule can
//! judge.
//!
//! Layers are read as streams, several at once, and kept nowhere. What cannot be read becomes part of the answer; only
//! what is no image at all, and a network that fails, is an error.

use std::io::{BufRead as _, BufReader, Read};
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::Value;
use tokio::sync::mpsc;

use super::Login;
use super::document;
use super::files::ZSTD_MAGIC;
use super::flow::{Counted, Feed};
use super::found::{self, Described, Found, Place};
use super::reference::BaseReference;
use crate::check::image::{Content, ImageFacts, LayerSource, ManifestFacts};
use crate::event::{Session, TaskKind, TaskOutcome};
use crate::layer::facts::{self, Allowance, LayerFacts};
use crate::layer::gunzip::{self, GzipFacts, Members};
use crate::oci::{Descriptor, DiffId, Digest, media_type};
use crate::platform::Architecture;
use crate::problem::{Exit, IoContext as _, Problem, Result};
use crate::store::{Kind, Store};

/// How many layers are read at once. Each may hold a library of 16 MiB and its names in memory.
const AT_ONCE: usize = 4;

/// How many pieces may wait between wire and reader.
const WAITING_PIECES: usize = 16;

/// The way on from a layer that is malformed.
const UNREADABLE: &str = "push or save the image again";

/// Which image is to be read.
#[derive(Debug, Clone)]
pub struct InspectRequest {
    /// As the user wrote it.
    pub reference: String,
    /// Where relative paths in it start.
    pub directory: PathBuf,
    /// Which one of an index; absent when it may be any.
    pub architecture: Option<Architecture>,
    /// No network.
    pub offline: bool,
    /// The store that made the image: what its records know of layers is not read again.
    pub known: Option<Arc<Store>>,
}

/// Reads an image to its end.
///
/// # Errors
/// When the reference is malformed (a usage problem), when there is no such image, or it is none; when the network
/// fails.
pub async fn inspect(request: &InspectRequest, login: Login<'_>, session: &Session) -> Result<ImageFacts> {
    let reference = BaseReference::parse(&request.reference, &request.directory)?;
    let shown = reference.to_string();
    let found = match &reference {
        BaseReference::Scratch => {
            return Err(Problem::usage("`scratch` is no image").help("name a layout, an archive or a registry's image"));
        }
        BaseReference::Registry(_) if request.offline => {
            let message = format!("`{shown}` is in a registry, and `--offline` forbids to read it");
            return Err(Problem::failed(message).help("leave out `--offline`, or check a copy: `oci:DIR`"));
        }
        BaseReference::Registry(reference) => {
            found::in_registry(reference, request.architecture, login, session).await?
        }
        _ => {
            let (architecture, reference) = (request.architecture, reference.clone());
            blocking(move || found::in_files(&reference, architecture)).await?
        }
    };
    let config: Value = document::json_config(&found.config, &format!("`{shown}`"))?;
    let listed = config.pointer("/rootfs/diff_ids").cloned().unwrap_or_default();
    let listed: Vec<DiffId> = serde_json::from_value(listed).unwrap_or_default();
    let reading = Reading { allowance: Arc::default(), session: session.clone() };
    let layers = found.layers.iter().cloned().enumerate().map(|(number, layer)| {
        let listed = listed.get(number).copied();
        read_layer(number, layer, listed, &found, request.known.clone(), reading.clone())
    });
    let layers = stream::iter(layers).buffered(AT_ONCE).try_collect().await?;
    let Found { index, manifest, .. } = found;
    Ok(ImageFacts { shown, index, manifest: manifest.map(manifest_facts), config, layers, base: None })
}

/// What the readers of all layers share.
#[derive(Clone)]
struct Reading {
    allowance: Arc<Allowance>,
    session: Session,
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Problem::failed("reading the image failed").because(error))?
}

fn manifest_facts(manifest: found::Manifest) -> ManifestFacts {
    let found::Manifest { bytes, served_as, media_type, config_media_type } = manifest;
    let (digest, size_bytes) = (Digest::of(&bytes), bytes.len() as u64);
    ManifestFacts { digest, size_bytes, media_type, served_as, config_media_type }
}

/// One layer, with what is in it as far as that can be read.
fn read_layer(
    number: usize,
    layer: Described,
    listed: Option<DiffId>,
    found: &Found,
    known: Option<Arc<Store>>,
    reading: Reading,
) -> impl Future<Output = Result<LayerSource>> + use<> {
    let place = found.place.clone();
    async move {
        let short = layer.descriptor.as_ref().map(|descriptor| format!(" ({})", descriptor.digest.short()));
        let name = format!("layer {}{}", number + 1, short.unwrap_or_default());
        let source = |content, secrets_judged| LayerSource {
            name: name.clone(),
            descriptor: layer.descriptor.clone(),
            has_urls: layer.has_urls,
            content,
            secrets_judged,
        };
        if let Some(store) = known {
            let of = layer.descriptor.clone();
            if let Some((content, ours)) = blocking(move || Ok(recorded(&store, of.as_ref(), listed))).await? {
                return Ok(source(content, ours));
            }
        }
        if let Some(why) = unreadable(&layer) {
            return Ok(source(Content::Unread(why), false));
        }
        let content = match place {
            Place::Files(files) => {
                let (layer, name) = (layer.clone(), name.clone());
                blocking(move || {
                    let scanned = scan_file(&files, &layer, &name, &reading);
                    damaged_unless_stopped(scanned)
                })
                .await?
            }
            Place::Registry { client, repository } => {
                let Some(descriptor) = layer.descriptor.clone() else {
                    return Err(Problem::failed(format!("{name} has no descriptor")));
                };
                let (sender, receiver) = mpsc::channel(WAITING_PIECES);
                let wanted = descriptor.clone();
                let scanning = blocking({
                    let name = name.clone();
                    move || damaged_unless_stopped(scan(Feed::Channel(receiver), &wanted, &name, &reading))
                });
                let sending = async move {
                    // Moved in, so that the channel closes with the end of the pull.
                    let sender = sender;
                    client.blob(&repository, &descriptor, &sender).await
                };
                match tokio::join!(sending, scanning) {
                    (Err(error), read) if error.is_receiver_gone() => read?,
                    (Err(error), _) => {
                        return Err(Problem::from(error).context(format!("could not read {name} of the image")));
                    }
                    (Ok(()), read) => read?,
                }
            }
        };
        Ok(source(content, false))
    }
}

/// What the records know of a layer, and whether this program packed it.
fn recorded(store: &Store, descriptor: Option<&Descriptor>, listed: Option<DiffId>) -> Option<(Content, bool)> {
    let diff_id = listed?;
    let facts: LayerFacts = store.records().get(Kind::Facts, &diff_id.to_string())?;
    let gzip = match &facts.gzip {
        Some((digest, gzip)) if descriptor.is_some_and(|descriptor| descriptor.digest == *digest) => Some(*gzip),
        Some(_) => return None,
        None => Some(GzipFacts { members: 1, trailing_bytes: 0 }),
    };
    let ours = facts.gzip.is_none();
    Some((Content::Read { diff_id: Some(diff_id), facts: Arc::new(facts), gzip }, ours))
}

/// Why nobody can look into a layer, by its description alone.
fn unreadable(layer: &Described) -> Option<String> {
    let media_type = layer.descriptor.as_ref()?.media_type.as_str();
    if layer.has_urls || media_type.contains("nondistributable") || media_type.contains("foreign") {
        Some("the layer lies elsewhere".to_owned())
    } else if media_type.contains("zstd") {
        Some("the layer is compressed with zstd".to_owned())
    } else {
        None
    }
}

/// A layer that cannot be read is a finding; a signal is none.
fn damaged_unless_stopped(scanned: Result<Content>) -> Result<Content> {
    match scanned {
        Err(problem) if matches!(problem.exit(), Exit::Interrupted | Exit::Terminated) => Err(problem),
        Err(problem) => {
            // Of the bytes, not of reading them: nothing here is a disk's fault but what the system says is.
            let problem = problem.or_help(UNREADABLE);
            let all: Vec<_> = std::iter::once(problem.message().to_owned()).chain(problem.causes()).collect();
            Ok(Content::Damaged { why: all.join(": "), help: problem.next_step().map(str::to_owned) })
        }
        read => read,
    }
}

fn scan_file(files: &super::files::Files, layer: &Described, name: &str, reading: &Reading) -> Result<Content> {
    let session = &reading.session;
    let (reader, size) = files.open(&layer.path)?;
    match &layer.descriptor {
        Some(descriptor) => {
            let feed = Feed::Reader { reader, size: descriptor.size, session: session.clone() };
            scan(feed, descriptor, name, reading)
        }
        None => {
            let task = session.task(TaskKind::Check, name, Some(size));
            let content = scan_stream(Counted { inner: reader, task: &task }, None, reading)?;
            task.finish(TaskOutcome::Done);
            Ok(content)
        }
    }
}

fn scan(feed: Feed, descriptor: &Descriptor, name: &str, reading: &Reading) -> Result<Content> {
    let is_gzip = match descriptor.media_type.as_str() {
        media_type::OCI_LAYER_GZIP | media_type::DOCKER_LAYER_GZIP => Some(true),
        media_type::OCI_LAYER_TAR | media_type::DOCKER_LAYER_TAR => Some(false),
        _ => None,
    };
    let task = reading.session.task(TaskKind::Check, name, Some(descriptor.size));
    let content =
        feed.read(descriptor, |bytes| scan_stream(Counted { inner: bytes, task: &task }, is_gzip, reading))?;
    task.finish(TaskOutcome::Done);
    Ok(content)
}

/// Looks through a layer, compressed or not; `is_gzip` is what its media type says.
fn scan_stream(bytes: impl Read, is_gzip: Option<bool>, reading: &Reading) -> Result<Content> {
    let Reading { allowance, session } = reading;
    let failed = || "could not read it".to_owned();
    let mut bytes = BufReader::with_capacity(128 * 1024, bytes);
    let head = bytes.fill_buf().or_failed(failed)?;
    let found_gzip = head.starts_with(&gunzip::MAGIC);
    if head.starts_with(&ZSTD_MAGIC) {
        return Err(Problem::refused("it is compressed with zstd, whatever its media type says"));
    }
    if is_gzip.is_some_and(|said| said != found_gzip) {
        let found = if found_gzip { "it is gzip, and its media type says that it is not" } else { "it is not gzip" };
        return Err(Problem::refused(found));
    }
    let (diff_id, facts, gzip) = if found_gzip {
        let mut members = Members::new(bytes);
        let (diff_id, facts) = facts::scan(&mut members, allowance, session)?;
        (diff_id, facts, Some(members.facts()))
    } else {
        let (diff_id, facts) = facts::scan(bytes, allowance, session)?;
        (diff_id, facts, None)
    };
    Ok(Content::Read { diff_id: Some(diff_id), facts: Arc::new(facts), gzip })
}
