//! Layers of a base into the store: verified, each looked through once, uncompressed ones packed.
//!
//! Or left where they are, and only looked through, for whoever moves them elsewhere. Several come at once. Bytes cross
//! from the wire to the disk through a short channel into a blocking thread; gzip layers keep every byte they have, and
//! are unpacked only to be looked at.

use std::io::{self, BufReader, Read, Write as _};
use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::flow::{Counted, Feed, Step};
use super::{Base, BaseLayer, Compression, Holder, Source, document};
use crate::event::{Session, Task, TaskKind, TaskOutcome};
use crate::layer::facts::{Allowance, LayerFacts};
use crate::layer::gunzip::Members;
use crate::layer::{Layer, Origin, Pipeline, facts};
use crate::oci::{Descriptor, media_type};
use crate::problem::{IoContext as _, Problem, Result};
use crate::store::{Kind, Store};

/// How many layers come at once: what registries and their proxies are used to from other clients.
const AT_ONCE: usize = 4;

/// How many pieces may wait between wire and disk. A piece is what one read of a socket gave, at most some 100 kB.
const WAITING_PIECES: usize = 16;

/// The most one layer may unpack to, in bytes: what Lambda takes as a whole image, and something for the tar's frame.
const MAX_UNPACKED: u64 = 10 * 1024 * 1024 * 1024 + 256 * 1024 * 1024;

/// That a blob was looked through: it holds the tar its config says, and the facts are in the records.
#[derive(Debug, Serialize, Deserialize)]
struct Seen {
    uncompressed_size: u64,
}

/// What the store has of a layer already.
enum Present {
    Nothing,
    /// Its bytes.
    Blob,
    /// Only what is in it, which is enough for whoever does not keep it: the size of its tar.
    Facts(u64),
    /// The layer that was packed from it.
    Packed(Box<Layer>),
}

/// What every layer's work needs.
struct Fetch {
    /// Whether the bytes of gzip layers are put into the store.
    keep: bool,
    source: Source,
    shown: String,
    holder: Holder,
    offline: bool,
    no_cache: bool,
    store: Arc<Store>,
    pipeline: Arc<Pipeline>,
    allowance: Allowance,
    session: Session,
}

/// Puts the layers of `base` into the store and gathers their facts. Layers that are there already are not read again.
///
/// # Errors
/// When a layer is not to be had, is not what digest, size and diff-id say, or the store cannot be written.
pub async fn pull(base: &Base, store: &Arc<Store>, pipeline: &Arc<Pipeline>, session: &Session) -> Result<Vec<Layer>> {
    layers(base, true, store, pipeline, session).await
}

/// Gathers the facts of the layers of `base` and leaves them where they are: gzip layers whose facts are not known are
/// read once, verified, and kept nowhere. Uncompressed ones are put into the store, packed.
///
/// # Errors
/// As [`pull`]. With `offline`, facts that are not known and not to be had from the store.
pub async fn look(base: &Base, store: &Arc<Store>, pipeline: &Arc<Pipeline>, session: &Session) -> Result<Vec<Layer>> {
    layers(base, false, store, pipeline, session).await
}

async fn layers(
    base: &Base,
    keep: bool,
    store: &Arc<Store>,
    pipeline: &Arc<Pipeline>,
    session: &Session,
) -> Result<Vec<Layer>> {
    let fetch = Arc::new(Fetch {
        keep,
        source: base.source.clone(),
        shown: base.shown.clone(),
        holder: base.holder,
        offline: base.offline,
        no_cache: base.no_cache,
        store: store.clone(),
        pipeline: pipeline.clone(),
        allowance: Allowance::default(),
        session: session.clone(),
    });
    let present = fetch.clone().blocking({
        let layers = base.layers.clone();
        move |fetch| Ok(layers.iter().map(|layer| fetch.find(layer)).collect::<Vec<_>>())
    });
    let present = present.await?;
    fetch.refuse_if_offline(base, &present)?;
    let layers = base.layers.iter().cloned().zip(present);
    let layers = layers.map(|(layer, present)| fetch.clone().layer(layer, present));
    stream::iter(layers).buffered(AT_ONCE).try_collect().await
}

impl Fetch {
    /// Runs `work` where blocking is allowed.
    async fn blocking<T: Send + 'static>(
        self: Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let done = tokio::task::spawn_blocking(move || work(&self)).await;
        done.map_err(|error| Problem::failed("work on a base layer failed").because(error))?
    }

    /// What the store has of a layer.
    fn find(&self, layer: &BaseLayer) -> Present {
        // Without the network there is nothing but the store.
        let may_look = !self.no_cache || (self.offline && matches!(self.source, Source::Registry { .. }));
        match layer.compression {
            _ if !may_look => Present::Nothing,
            Compression::Gzip if self.store.contains(&layer.descriptor) => Present::Blob,
            Compression::Gzip if self.keep => Present::Nothing,
            Compression::Gzip => self.seen(layer).map_or(Present::Nothing, Present::Facts),
            Compression::None => {
                let packed = self.pipeline.packed_before("base", layer.diff_id, &self.store);
                packed
                    .filter(|_| self.has_facts(layer))
                    .map_or(Present::Nothing, |packed| Present::Packed(Box::new(packed)))
            }
        }
    }

    /// Whether the records say what is in a layer. Without that no layer counts as known: checks would see an empty
    /// base.
    fn has_facts(&self, layer: &BaseLayer) -> bool {
        self.store.records().get::<LayerFacts>(Kind::Facts, &layer.diff_id.to_string()).is_some()
    }

    fn refuse_if_offline(&self, base: &Base, present: &[Present]) -> Result<()> {
        if !self.offline || !matches!(self.source, Source::Registry { .. }) {
            return Ok(());
        }
        let missing: Vec<_> = base
            .layers
            .iter()
            .zip(present)
            .filter(|(_, present)| matches!(present, Present::Nothing))
            .map(|(layer, _)| layer.descriptor.digest.to_string())
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let message = format!(
            "layers {} of {} `{}` are not there, and `--offline` forbids to fetch them",
            missing.join(", "),
            self.holder.words().0,
            self.shown
        );
        Err(Problem::failed(message).help("run once without `--offline`"))
    }

    async fn layer(self: Arc<Self>, layer: BaseLayer, present: Present) -> Result<Layer> {
        let Descriptor { digest, size, .. } = layer.descriptor;
        let context = format!("could not take layer {digest} of {} `{}`", self.holder.words().0, self.shown);
        let taken = match (present, layer.compression) {
            _ if size > MAX_UNPACKED => Err(too_large()),
            (Present::Packed(packed), _) => Ok(*packed),
            (Present::Facts(size), _) => Ok(gzip(&layer, size, false, &self.store)),
            (present, Compression::Gzip) => self.gzip_layer(layer, matches!(present, Present::Blob)).await,
            (_, Compression::None) => self.plain_layer(layer).await,
        };
        taken.map_err(|problem| problem.context(context))
    }

    /// A gzip layer passes through byte for byte.
    async fn gzip_layer(self: Arc<Self>, layer: BaseLayer, is_present: bool) -> Result<Layer> {
        let uncompressed_size = if is_present || self.keep {
            if !is_present {
                self.clone().take(layer.clone(), Self::store).await?;
            }
            let of = layer.clone();
            self.clone().blocking(move |fetch| fetch.look_through(&of)).await?
        } else {
            let look = |fetch: &Self, layer: &BaseLayer, task: &Task, feed: Feed| {
                let facts = feed.read(&layer.descriptor, |bytes| fetch.scan(layer, Counted { inner: bytes, task }))?;
                fetch.remember(layer, &facts)
            };
            self.clone().take(layer.clone(), look).await?
        };
        Ok(gzip(&layer, uncompressed_size, is_present, &self.store))
    }

    /// Puts the bytes of a layer into the store.
    fn store(&self, layer: &BaseLayer, task: &Task, feed: Feed) -> Result<()> {
        let mut writer = self.store.writer()?;
        feed.drain(|step| match step {
            Step::Bytes(bytes) => {
                let digest = layer.descriptor.digest;
                writer.write_all(bytes).or_failed(|| format!("could not write blob {digest}"))?;
                task.advance(bytes.len() as u64);
                Ok(())
            }
            Step::Restart => writer.restart(),
        })?;
        writer.finish_as(&layer.descriptor)
    }

    /// An uncompressed layer goes through our own pipeline on its way, and counts once it was the tar its config says.
    async fn plain_layer(self: Arc<Self>, layer: BaseLayer) -> Result<Layer> {
        let pack = |fetch: &Self, layer: &BaseLayer, task: &Task, feed: Feed| {
            feed.read(&layer.descriptor, |bytes| {
                let tar = Counted { inner: bytes, task };
                let packed = fetch.pipeline.pack_tar("base", layer.diff_id, tar, &fetch.store, &fetch.session);
                packed.map_err(|problem| problem.or_help(document::REMAKE))
            })
        };
        let packed = self.take(layer, pack).await?;
        Ok(Layer { origin: Origin::Base, ..packed })
    }

    /// Moves a layer's bytes from its source into `write`, which runs where blocking is allowed.
    async fn take<T: Send + 'static>(
        self: Arc<Self>,
        layer: BaseLayer,
        write: impl FnOnce(&Self, &BaseLayer, &Task, Feed) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let Descriptor { digest, size, .. } = layer.descriptor;
        let task =
            self.session.task(TaskKind::Pull, &format!("{} {}", self.holder.words().1, digest.short()), Some(size));
        let finish = move |fetch: &Self, layer: &BaseLayer, feed| {
            let written = write(fetch, layer, &task, feed)?;
            task.finish(TaskOutcome::Done);
            Ok(written)
        };
        match self.source.clone() {
            Source::Scratch => Err(Problem::failed("`scratch` has no layers")),
            Source::Local(files) => {
                let read = move |fetch: &Self| {
                    let (reader, _) = files.open(layer.path.as_deref().unwrap_or_default())?;
                    finish(fetch, &layer, Feed::Reader { reader, size, session: fetch.session.clone() })
                };
                self.blocking(read).await
            }
            Source::Registry { client, repository } => {
                let (sender, receiver) = mpsc::channel(WAITING_PIECES);
                let descriptor = layer.descriptor.clone();
                let writing = self.blocking(move |fetch| finish(fetch, &layer, Feed::Channel(receiver)));
                let reading = async move {
                    // Moved in, so that the channel closes with the end of the pull.
                    let sender = sender;
                    client.blob(&repository, &descriptor, &sender).await
                };
                let (read, written) = tokio::join!(reading, writing);
                match (read, written) {
                    // Whoever writes stops taking when the disk is full: that is the cause then.
                    (Err(error), Err(problem)) if error.is_receiver_gone() => Err(problem),
                    (Err(error), _) => Err(error.into()),
                    (Ok(()), written) => written,
                }
            }
        }
    }

    /// The facts of a layer that lies in the store. It is read once.
    fn look_through(&self, layer: &BaseLayer) -> Result<u64> {
        if !self.no_cache
            && let Some(size) = self.seen(layer)
        {
            return Ok(size);
        }
        let facts = self.scan(layer, self.store.open_blob(&layer.descriptor)?)?;
        self.remember(layer, &facts)
    }

    /// The size of a layer's tar, if it was looked through before and what was found is known.
    fn seen(&self, layer: &BaseLayer) -> Option<u64> {
        let seen = self.store.records().get::<Seen>(Kind::Base, &seen_key(layer))?;
        self.has_facts(layer).then_some(seen.uncompressed_size)
    }

    /// Reads the tar inside a gzip layer to its end, and compares it with the config.
    fn scan(&self, layer: &BaseLayer, gzip: impl Read) -> Result<LayerFacts> {
        let mut tar = Capped { inner: Members::new(BufReader::with_capacity(128 * 1024, gzip)), left: MAX_UNPACKED };
        let scanned = facts::scan(&mut tar, &self.allowance, &self.session);
        let (diff_id, mut facts) = scanned.map_err(|problem| problem.or_help(document::REMAKE))?;
        facts.gzip = Some((layer.descriptor.digest, tar.inner.facts()));
        if diff_id != layer.diff_id {
            return Err(Problem::failed(format!("its tar is {diff_id}, and the config says {}", layer.diff_id))
                .help("the image contradicts itself; take another, or build it again"));
        }
        Ok(facts)
    }

    /// Records what is in a layer, once its bytes are known to be the right ones: from then on nobody reads them again.
    fn remember(&self, layer: &BaseLayer, facts: &LayerFacts) -> Result<u64> {
        let uncompressed_size = facts.uncompressed_size;
        let records = self.store.records();
        records.put(Kind::Facts, &layer.diff_id.to_string(), facts)?;
        records.put(Kind::Base, &seen_key(layer), &Seen { uncompressed_size })?;
        Ok(uncompressed_size)
    }
}

/// A gzip layer as it lies at its source, under the media type it gets.
pub(super) fn gzip(layer: &BaseLayer, uncompressed_size: u64, reused: bool, store: &Store) -> Layer {
    let descriptor = Descriptor { media_type: media_type::OCI_LAYER_GZIP.to_owned(), ..layer.descriptor.clone() };
    Layer {
        name: "base".to_owned(),
        origin: Origin::Base,
        blob: store.blob_path(&descriptor.digest),
        descriptor,
        diff_id: layer.diff_id,
        uncompressed_size,
        reused,
    }
}

fn seen_key(layer: &BaseLayer) -> String {
    format!("{} {}", layer.descriptor.digest, layer.diff_id)
}

/// A reader that refuses to give more than a layer may hold: what unpacks to terabytes is an attack.
struct Capped<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Capped<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(count as u64).ok_or_else(too_large)?;
        Ok(count)
    }
}

fn too_large() -> Problem {
    Problem::refused("it unpacks to more than the 10 GiB that Lambda takes").help("take a smaller base")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bomb_is_stopped_at_its_cap() {
        let mut read = Vec::new();
        let mut capped = Capped { inner: io::repeat(0).take(1000), left: 999 };
        let error = capped.read_to_end(&mut read).expect_err("one byte too many");
        assert_eq!(error.to_string(), "it unpacks to more than the 10 GiB that Lambda takes");
        let mut capped = Capped { inner: io::repeat(0).take(999), left: 999 };
        assert_eq!(capped.read_to_end(&mut read).expect("just as many"), 999);
    }
}
