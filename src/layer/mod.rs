//! A layer: what it is once made, and the pipeline that makes it.
//!
//! ```text
//! entries -> tar -> DiffId -> blocks -> gzip on many threads -> one member -> digest -> sink
//!            the producer's thread                              the framer's thread
//! ```
//!
//! Where threads are scarce, the framer's makes both hashes at once: that is less work, but all of it on one core.
//!
//! Bytes depend on the entries' content, the level and the format version alone. The sink is anything that takes
//! bytes: here a blob of the store.

mod attributes;
mod deflate;
pub mod elf;
pub mod entries;
pub mod facts;
mod gathered;
pub mod gunzip;
pub mod gzip;
mod learn;
pub mod lfs;
mod look;
pub mod make;
mod pair;
pub mod plan;
mod probe;
mod scan;
pub mod secrets;
pub mod tarball;
mod threads;
pub mod tree;
pub mod walk;
mod wildmatch;

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use crate::event::{Session, Task};
use crate::oci::{Descriptor, DiffId, Digest, Hasher};
use crate::problem::{IoContext as _, Problem, Result};
use gzip::{BLOCK_BYTES, Block, Framed, Framer};
use tarball::TarSink;
use threads::{Budget, Compressors};

/// Where a layer comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The base image.
    Base,
    /// A file or directory the user named.
    Asset,
    /// The compiled binary.
    Binary,
}

/// A finished layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// A name for people: the asset's, the binary's, or `base`.
    pub name: String,
    /// Where it comes from.
    pub origin: Origin,
    /// The compressed bytes; the media type is the OCI one whatever the base called it.
    pub descriptor: Descriptor,
    /// The digest of the tar.
    pub diff_id: DiffId,
    /// Bytes of the tar.
    pub uncompressed_size: u64,
    /// Whether nothing had to be made or pulled for it.
    pub reused: bool,
    /// Where the bytes lie.
    pub blob: PathBuf,
}

/// What came of a tar.
#[derive(Debug)]
pub struct Packed<W> {
    /// What took the compressed bytes.
    pub sink: W,
    /// The digest of the tar.
    pub diff_id: DiffId,
    /// Bytes of the tar.
    pub uncompressed_size: u64,
    /// The digest of the compressed bytes.
    pub digest: Digest,
    /// Their number.
    pub size: u64,
}

/// With so few threads one layer is not made faster by hashing its tar on a core of its own.
const FEW_THREADS: usize = 2;

/// The machinery that makes layers: threads that compress and one budget of blocks for all layers in flight.
#[derive(Debug)]
pub struct Pipeline {
    level: u32,
    threads: usize,
    budget: Budget,
    compressors: Compressors,
}

impl Pipeline {
    /// A pipeline of `threads` compressing threads at `level` (0 stores everything).
    #[must_use]
    pub fn new(threads: usize, level: u32) -> Self {
        let threads = threads.max(1);
        Self { level, threads, budget: Budget::new(threads), compressors: Compressors::new(threads) }
    }

    /// The compression level.
    #[must_use]
    pub fn level(&self) -> u32 {
        self.level
    }

    /// How many layers are made at once: enough that hashing one overlaps compressing another.
    #[must_use]
    pub fn layers_at_once(&self) -> usize {
        (self.threads + 1).min(8)
    }

    fn is_short_of_threads(&self) -> bool {
        self.threads <= FEW_THREADS
    }

    /// Runs the tar bytes that `produce` writes through the pipeline into `sink`.
    ///
    /// # Errors
    /// What `produce` or the sink fails with, or an interruption.
    pub fn run<W: Write + Send>(
        &self,
        sink: W,
        task: &Task,
        session: &Session,
        produce: impl FnOnce(&mut BlockWriter<'_>) -> Result<()>,
    ) -> Result<Packed<W>> {
        let sink_failed = AtomicBool::new(false);
        let sink_failed = &sink_failed;
        thread::scope(|scope| {
            let (in_order, blocks) = mpsc::channel();
            let framer = scope.spawn(move || self.frame(blocks, sink, task, sink_failed));
            let produced = {
                let mut writer = BlockWriter::new(self, in_order, session, sink_failed);
                produce(&mut writer).and_then(|()| writer.finish())
            };
            let framed = framer.join().map_err(|_| Problem::failed("the thread that writes a layer panicked"))?;
            match (produced, framed) {
                // A sink that failed makes the producer fail too, with less to say.
                (_, Err(error)) => Err(error).or_failed(|| "could not write the layer".into()),
                (Err(problem), Ok(_)) => Err(problem),
                (Ok(hashed), Ok(Framed { sink, member: (digest, size), tar })) => {
                    let hashed = hashed.or(tar).ok_or_else(|| Problem::failed("nobody hashed the layer's tar"))?;
                    let (diff_id, uncompressed_size) = (DiffId(hashed.0), hashed.1);
                    Ok(Packed { sink, diff_id, uncompressed_size, digest, size })
                }
            }
        })
    }

    /// Takes blocks in order as they get ready, and passes them on.
    fn frame<W: Write>(
        &self,
        blocks: Receiver<Receiver<Block>>,
        sink: W,
        task: &Task,
        sink_failed: &AtomicBool,
    ) -> io::Result<Framed<W>> {
        let mut framer = Framer::new(sink, self.is_short_of_threads());
        for block in blocks {
            sink_failed.store(framer.is_err(), Ordering::Relaxed);
            // After a failure blocks still go back to the budget, or other layers would wait for them for ever.
            let Ok(block) = block.recv() else {
                framer = framer.and(Err(io::Error::other("a thread that compresses panicked")));
                self.budget.give_back(Block::new());
                continue;
            };
            if let Ok(framing) = &mut framer {
                let written = framing.write(&block);
                task.advance(block.filled as u64);
                framer = written.and(framer);
            }
            self.budget.give_back(block);
        }
        framer?.finish()
    }
}

/// Cuts a tar into blocks, hashes it, and hands the blocks to the compressors in order.
#[derive(Debug)]
pub struct BlockWriter<'a> {
    pipeline: &'a Pipeline,
    in_order: Sender<Receiver<Block>>,
    session: &'a Session,
    sink_failed: &'a AtomicBool,
    block: Option<Block>,
    /// Absent where the framer hashes the tar.
    hasher: Option<Hasher>,
}

impl<'a> BlockWriter<'a> {
    fn new(
        pipeline: &'a Pipeline,
        in_order: Sender<Receiver<Block>>,
        session: &'a Session,
        sink_failed: &'a AtomicBool,
    ) -> Self {
        let hasher = (!pipeline.is_short_of_threads()).then(Hasher::default);
        Self { pipeline, in_order, session, sink_failed, block: None, hasher }
    }

    /// The block being filled and where to go on in it.
    fn room(&mut self) -> &mut Block {
        self.block.get_or_insert_with(|| self.pipeline.budget.take())
    }

    /// Counts `count` more bytes in the block being filled, and sends it on when it is full.
    fn filled(&mut self, count: usize) -> io::Result<()> {
        let block = self.room();
        block.filled += count;
        if block.filled == BLOCK_BYTES { self.send() } else { Ok(()) }
    }

    fn send(&mut self) -> io::Result<()> {
        self.session.check()?;
        if self.sink_failed.load(Ordering::Relaxed) {
            return Err(io::Error::other("nobody takes the layer's bytes any more"));
        }
        let Some(mut block) = self.block.take() else { return Ok(()) };
        if let Some(hasher) = &mut self.hasher {
            hasher.update(block.bytes());
        }
        // What is stored overtakes what other layers have waiting for the compressors.
        let ready = match block.look_at(self.pipeline.level) {
            true => self.pipeline.compressors.compress(block, self.pipeline.level),
            false => threads::done(block),
        };
        self.in_order.send(ready).map_err(|_| io::Error::other("nobody takes the layer's bytes any more"))
    }

    /// Sends on what is left; the tar's digest and size in bytes, if they are known here.
    fn finish(&mut self) -> Result<Option<(Digest, u64)>> {
        self.send().or_failed(|| "could not write the layer".into())?;
        Ok(self.hasher.take().map(Hasher::finish))
    }
}

impl Drop for BlockWriter<'_> {
    fn drop(&mut self) {
        if let Some(block) = self.block.take() {
            self.pipeline.budget.give_back(block);
        }
    }
}

impl Write for BlockWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let block = self.room();
        let count = bytes.len().min(BLOCK_BYTES - block.filled);
        let start = block.filled;
        block.raw[start..start + count].copy_from_slice(&bytes[..count]);
        self.filled(count)?;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl TarSink for BlockWriter<'_> {
    fn take_from(&mut self, file: &mut File, size: u64) -> io::Result<u64> {
        let mut taken = 0;
        while taken < size {
            let block = self.room();
            let start = block.filled;
            let room = (BLOCK_BYTES - start).min(usize::try_from(size - taken).unwrap_or(usize::MAX));
            let count = match file.read(&mut block.raw[start..start + room]) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            taken += count as u64;
            self.filled(count)?;
        }
        Ok(taken)
    }
}
