//! From recipes to finished layers in the store, with as little work as the records allow.
//!
//! Three steps, each skipped when a record answers it: stat fingerprint -> diff-id without reading a file; diff-id ->
//! digest without compressing; and only then the pipeline. A record is a hint: it is used only with a blob that is
//! whole.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::entries::{self, Content, Entry};
use super::facts::LayerFacts;
use super::gzip::FORMAT_VERSION;
use super::learn::told_layer;
use super::plan::LayerSpec;
use super::tarball::TarSink;
use super::{BlockWriter, Layer, Origin, Packed, Pipeline, facts, tarball};
use crate::event::{Session, Task, TaskKind, TaskOutcome};
use crate::oci::{Descriptor, DiffId, Digest, HashingWriter, media_type};
use crate::problem::{Problem, Result};
use crate::store::{BlobFile, Kind, Store};

/// How records are used while making layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// Believe records, as far as they can be.
    Records,
    /// Look at none; new ones are written all the same.
    Nothing,
}

/// Fingerprint -> tar.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TarRecord {
    pub(super) diff_id: DiffId,
    pub(super) uncompressed_size: u64,
}

/// (Diff-id, format, level) -> blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BlobRecord {
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) uncompressed_size: u64,
    /// Whether it is only what somebody said: the blob has to be looked into before it is used from here.
    #[serde(default)]
    pub(super) told: bool,
}

/// What making one layer shares with making the others.
struct Making<'a> {
    store: &'a Store,
    session: &'a Session,
    reuse: Reuse,
    /// Seconds since 1970, before the files are stat'ed again while packing and before any of them can change unseen.
    listed_at: i64,
    /// Whether a layer failed, so that the others stop.
    failed: AtomicBool,
    /// Whether the bytes go somewhere else than into the store.
    is_elsewhere: bool,
}

impl<'a> Making<'a> {
    fn new(store: &'a Store, session: &'a Session, reuse: Reuse) -> Self {
        Self { store, session, reuse, listed_at: seconds_now(), failed: AtomicBool::new(false), is_elsewhere: false }
    }
}

/// Seconds since 1970 by this machine's clock.
pub(super) fn seconds_now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    i64::try_from(now).unwrap_or(i64::MAX)
}

impl Pipeline {
    /// Makes layers, several at once, the largest first; returns them in the order of `specs`.
    ///
    /// # Errors
    /// The first failure of any layer; the others stop.
    pub fn make(&self, specs: &[LayerSpec], store: &Store, session: &Session, reuse: Reuse) -> Result<Vec<Layer>> {
        let making = Making::new(store, session, reuse);
        let mut order: Vec<_> = (0..specs.len()).collect();
        order.sort_by_key(|index| std::cmp::Reverse(specs[*index].entries.iter().map(Entry::size).sum::<u64>()));
        let next = AtomicUsize::new(0);
        let made = Mutex::new(BTreeMap::new());
        let failure = Mutex::new(None);
        let work = || {
            while let Some(index) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
                match self.make_one(&specs[*index], &making) {
                    Ok(layer) => drop(lock(&made).insert(*index, layer)),
                    Err(problem) => {
                        // In this order: what stops because of this failure has less to say.
                        lock(&failure).get_or_insert(problem);
                        making.failed.store(true, Ordering::Relaxed);
                        next.store(order.len(), Ordering::Relaxed);
                    }
                }
            }
        };
        thread::scope(|scope| {
            for _ in 1..self.layers_at_once().min(specs.len()) {
                scope.spawn(work);
            }
            work();
        });
        match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(problem) => Err(problem),
            None => Ok(made.into_inner().unwrap_or_else(PoisonError::into_inner).into_values().collect()),
        }
    }

    fn make_one(&self, spec: &LayerSpec, making: &Making<'_>) -> Result<Layer> {
        let Making { store, session, .. } = *making;
        if let Some(told) = &spec.told {
            return self.told_in_store(spec, told, store);
        }
        let fingerprint = entries::fingerprint(&spec.entries, &format!("format {FORMAT_VERSION}"));
        if making.reuse == Reuse::Records
            && let Some(layer) = self.reused(spec, &fingerprint, making)?
        {
            return Ok(layer);
        }
        let tar_size = spec.tar_size();
        let task = session.task(TaskKind::Layer, &spec.name, Some(tar_size));
        let layer = self.pack(spec, store.file()?, BlobFile::finish, &task, making)?;
        task.finish(TaskOutcome::Done);
        Ok(layer)
    }

    /// Makes a layer into `sink` instead of the store, the same bytes each time, and remembers what it is. `finish` is
    /// told the digest of what went into the sink; the layer's blob is where it would lie in the store.
    ///
    /// # Errors
    /// When a file cannot be read or changes meanwhile, or what the sink fails with.
    pub fn make_into<W: Write + Send>(
        &self,
        spec: &LayerSpec,
        sink: W,
        finish: impl FnOnce(W, &Digest) -> Result<()>,
        store: &Store,
        session: &Session,
    ) -> Result<Layer> {
        // Whoever takes the bytes tells how far they are.
        let task = Session::silent().task(TaskKind::Layer, &spec.name, None);
        let making = Making { is_elsewhere: true, ..Making::new(store, session, Reuse::Nothing) };
        self.pack(spec, sink, finish, &task, &making)
    }

    /// What the records say a layer will be, whether or not its bytes are anywhere. Its tar is hashed at most, and only
    /// if it is likely that nothing but time stamps changed.
    ///
    /// # Errors
    /// When a file that is hashed cannot be read or changes meanwhile.
    pub fn recall(&self, spec: &LayerSpec, store: &Store, session: &Session) -> Result<Option<Layer>> {
        if let Some(told) = &spec.told {
            let layer = told_layer(spec, told, store);
            let is_here = store.contains(&layer.descriptor);
            return if is_here { self.told_in_store(spec, told, store) } else { Ok(layer) }.map(Some);
        }
        let making = Making::new(store, session, Reuse::Records);
        let of = |tar: &TarRecord| {
            let blob = store.records().get::<BlobRecord>(Kind::Layer, &self.blob_key(tar.diff_id))?;
            let layer = layer(spec.name.clone(), spec.origin, store, tar.diff_id, &blob, true);
            // What is only told of can be looked into where it is here.
            let is_right = !blob.told || !store.contains(&layer.descriptor) || self.is_known(tar.diff_id, &blob, store);
            is_right.then_some(layer)
        };
        let fingerprint = entries::fingerprint(&spec.entries, &format!("format {FORMAT_VERSION}"));
        let known = store.records().get::<TarRecord>(Kind::Fingerprint, &fingerprint);
        if let Some(layer) = known.as_ref().and_then(of) {
            return Ok(Some(layer));
        }
        let Some(tar) = hash_if_promising(spec, &making, |last| of(last).is_some())? else { return Ok(None) };
        remember_tar(spec, store, &fingerprint, &tar, making.listed_at)?;
        Ok(of(&tar))
    }

    /// What the records know of the inside of a layer whose sources did not change; no file is opened.
    #[must_use]
    pub fn recall_facts(spec: &LayerSpec, store: &Store) -> Option<LayerFacts> {
        let fingerprint = entries::fingerprint(&spec.entries, &format!("format {FORMAT_VERSION}"));
        let tar = store.records().get::<TarRecord>(Kind::Fingerprint, &fingerprint)?;
        store.records().get(Kind::Facts, &tar.diff_id.to_string())
    }

    /// The common part of the two ways to make one layer.
    fn pack<W: Write + Send>(
        &self,
        spec: &LayerSpec,
        sink: W,
        finish: impl FnOnce(W, &Digest) -> Result<()>,
        task: &Task,
        making: &Making<'_>,
    ) -> Result<Layer> {
        let Making { store, session, .. } = *making;
        let context = |problem: Problem| problem.context(format!("could not pack layer `{}`", spec.name));
        let produce =
            |inner: &mut BlockWriter<'_>| tarball::write(&spec.entries, &mut Stoppable { inner, stop: &making.failed });
        let Packed { sink, diff_id, uncompressed_size, digest, size } =
            self.run(sink, task, session, produce).map_err(context)?;
        finish(sink, &digest)?;
        let blob = BlobRecord { digest, size, uncompressed_size, told: false };
        let remember = || {
            self.remember_blob(store, diff_id, &blob, spec.facts())?;
            let tar = TarRecord { diff_id, uncompressed_size };
            let fingerprint = entries::fingerprint(&spec.entries, &format!("format {FORMAT_VERSION}"));
            remember_tar(spec, store, &fingerprint, &tar, making.listed_at)?;
            store.records().put(Kind::Fingerprint, &last_key(spec, uncompressed_size), &tar)
        };
        match remember() {
            Ok(()) => {}
            // Bytes that went elsewhere are there all the same; a full disk here costs making them again.
            Err(problem) if making.is_elsewhere => session.warn(
                &format!("layer `{}` is made again next time: {}", spec.name, problem.in_one_line()),
                problem.next_step(),
            ),
            Err(problem) => return Err(problem),
        }
        Ok(layer(spec.name.clone(), spec.origin, store, diff_id, &blob, false))
    }

    /// The layer without compressing anything, if that can be.
    fn reused(&self, spec: &LayerSpec, fingerprint: &str, making: &Making<'_>) -> Result<Option<Layer>> {
        let store = making.store;
        let known = store.records().get::<TarRecord>(Kind::Fingerprint, fingerprint);
        let mut found = known.and_then(|tar| self.stored(spec, store, &tar));
        if found.is_none()
            && let Some(tar) = hash_if_promising(spec, making, |last| self.stored(spec, store, last).is_some())?
        {
            remember_tar(spec, store, fingerprint, &tar, making.listed_at)?;
            found = self.stored(spec, store, &tar);
        }
        if let Some(layer) = &found {
            let key = layer.diff_id.to_string();
            if !store.records().has(Kind::Facts, &key) {
                store.records().put(Kind::Facts, &key, spec.facts())?;
            }
        }
        Ok(found)
    }

    /// The layer of a known tar, if its blob is there.
    fn stored(&self, spec: &LayerSpec, store: &Store, tar: &TarRecord) -> Option<Layer> {
        let blob = store.records().get::<BlobRecord>(Kind::Layer, &self.blob_key(tar.diff_id))?;
        let layer = layer(spec.name.clone(), spec.origin, store, tar.diff_id, &blob, true);
        (store.contains(&layer.descriptor) && self.is_known(tar.diff_id, &blob, store)).then_some(layer)
    }

    /// Compresses an existing tar (a base's uncompressed layer) into the store and records its facts, if its digest is
    /// `expected`; otherwise leaves nothing.
    ///
    /// # Errors
    /// When the tar is malformed, another one, or cannot be read, or the store not written.
    pub fn pack_tar(
        &self,
        name: &str,
        expected: DiffId,
        tar: impl Read,
        store: &Store,
        session: &Session,
    ) -> Result<Layer> {
        let task = session.task(TaskKind::Layer, name, None);
        let mut facts = LayerFacts::default();
        let produce = |sink: &mut BlockWriter<'_>| {
            // Scanning drives: what it reads is what gets packed.
            facts = facts::scan(Tee { tar, sink }, &facts::Allowance::default(), session)?.1;
            Ok(())
        };
        let Packed { sink, diff_id, uncompressed_size, digest, size } = self
            .run(store.file()?, &task, session, produce)
            .map_err(|problem| problem.context(format!("could not pack layer `{name}`")))?;
        if diff_id != expected {
            return Err(Problem::failed(format!("its tar is {diff_id} and should be {expected}")));
        }
        sink.finish(&digest)?;
        let blob = BlobRecord { digest, size, uncompressed_size, told: false };
        self.remember_blob(store, diff_id, &blob, &facts)?;
        task.finish(TaskOutcome::Done);
        Ok(layer(name.to_owned(), Origin::Base, store, diff_id, &blob, false))
    }

    /// The compressed form of a tar that [`Pipeline::pack_tar`] or [`Pipeline::make`] made before, if it is there with
    /// its facts.
    #[must_use]
    pub fn packed_before(&self, name: &str, diff_id: DiffId, store: &Store) -> Option<Layer> {
        let blob = store.records().get::<BlobRecord>(Kind::Layer, &self.blob_key(diff_id))?;
        // Without facts nobody would know what the base's directories and links are.
        store.records().get::<IgnoredAny>(Kind::Facts, &diff_id.to_string())?;
        let layer = layer(name.to_owned(), Origin::Base, store, diff_id, &blob, true);
        (store.contains(&layer.descriptor) && self.is_known(diff_id, &blob, store)).then_some(layer)
    }

    fn remember_blob(&self, store: &Store, diff_id: DiffId, blob: &BlobRecord, facts: &LayerFacts) -> Result<()> {
        store.records().put(Kind::Facts, &diff_id.to_string(), facts)?;
        store.records().put(Kind::Layer, &self.blob_key(diff_id), blob)
    }

    pub(super) fn blob_key(&self, diff_id: DiffId) -> String {
        format!("{diff_id} format {FORMAT_VERSION} level {}", self.level())
    }
}

pub(super) fn layer(
    name: String,
    origin: Origin,
    store: &Store,
    diff_id: DiffId,
    blob: &BlobRecord,
    reused: bool,
) -> Layer {
    let BlobRecord { digest, size, uncompressed_size, told: _ } = *blob;
    let descriptor = Descriptor { media_type: media_type::OCI_LAYER_GZIP.to_owned(), digest, size };
    Layer { name, origin, descriptor, diff_id, uncompressed_size, reused, blob: store.blob_path(&digest) }
}

/// Hashes the tar without compressing it, if a tar of the same size was packed for the same place and is `known` still:
/// most likely only time stamps or names for people changed, as after a fresh checkout.
fn hash_if_promising(
    spec: &LayerSpec,
    making: &Making<'_>,
    known: impl Fn(&TarRecord) -> bool,
) -> Result<Option<TarRecord>> {
    let Making { store, session, .. } = *making;
    let tar_size = spec.tar_size();
    let last = store.records().get::<TarRecord>(Kind::Fingerprint, &last_key(spec, tar_size));
    if !last.is_some_and(|last| last.uncompressed_size == tar_size && known(&last)) {
        return Ok(None);
    }
    let task = session.task(TaskKind::Hash, &spec.name, Some(tar_size));
    let mut hasher = TarHasher { inner: HashingWriter::new(io::sink()), task: &task, session };
    tarball::write(&spec.entries, &mut Stoppable { inner: &mut hasher, stop: &making.failed })
        .map_err(|problem| problem.context(format!("could not hash layer `{}`", spec.name)))?;
    let (_, digest, uncompressed_size) = hasher.inner.finish();
    task.finish(TaskOutcome::Done);
    Ok(Some(TarRecord { diff_id: DiffId(digest), uncompressed_size }))
}

/// Remembers a tar by its fingerprint, unless its files are too fresh for their time stamps to be trusted.
fn remember_tar(spec: &LayerSpec, store: &Store, fingerprint: &str, tar: &TarRecord, listed_at: i64) -> Result<()> {
    if entries::too_fresh(&spec.entries, listed_at) {
        return Ok(());
    }
    store.records().put(Kind::Fingerprint, fingerprint, tar)
}

/// What identifies a layer from build to build: the first thing in it and its size, whatever people call it.
pub(super) fn last_key(spec: &LayerSpec, tar_size: u64) -> String {
    let first = spec.entries.iter().find(|entry| !matches!(entry.content, Content::Directory { .. }));
    let place = first.or(spec.entries.last()).map(|entry| entry.path.to_string_lossy().into_owned());
    format!("last {tar_size} {}", place.unwrap_or_default())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Gives up between pieces of a file once it is told to stop.
struct Stoppable<'a, S> {
    inner: &'a mut S,
    stop: &'a AtomicBool,
}

impl<S: Write> Write for Stoppable<'_, S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<S: TarSink> TarSink for Stoppable<'_, S> {
    fn take_from(&mut self, file: &mut std::fs::File, size: u64) -> io::Result<u64> {
        const PIECE: u64 = 8 << 20;
        let mut taken = 0;
        while taken < size {
            if self.stop.load(Ordering::Relaxed) {
                return Err(io::Error::other("another layer failed"));
            }
            let part = PIECE.min(size - taken);
            let count = self.inner.take_from(file, part)?;
            taken += count;
            if count < part {
                break;
            }
        }
        Ok(taken)
    }
}

/// Passes on what is read to the pipeline.
struct Tee<'a, R, W> {
    tar: R,
    sink: &'a mut W,
}

impl<R: Read, W: Write> Read for Tee<'_, R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.tar.read(buffer)?;
        self.sink.write_all(&buffer[..count])?;
        Ok(count)
    }
}

/// A tar's end without a pipeline: its digest only.
struct TarHasher<'a> {
    inner: HashingWriter<io::Sink>,
    task: &'a Task,
    session: &'a Session,
}

impl Write for TarHasher<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl TarSink for TarHasher<'_> {
    fn take_from(&mut self, file: &mut std::fs::File, size: u64) -> io::Result<u64> {
        let mut buffer = vec![0; usize::try_from(size.min(1 << 20)).unwrap_or(1 << 20)];
        let mut taken = 0;
        while taken < size {
            self.session.check()?;
            let part = buffer.len().min(usize::try_from(size - taken).unwrap_or(usize::MAX));
            let count = match file.read(&mut buffer[..part]) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.inner.write_all(&buffer[..count])?;
            self.task.advance(count as u64);
            taken += count as u64;
        }
        Ok(taken)
    }
}
