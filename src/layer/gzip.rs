//! Blocks become one gzip member whose bytes depend on the input and the level alone, never on threads.
//!
//! Each block of fixed size is deflated by itself and ends on a byte boundary (a sync flush, as in pigz), so blocks can
//! be made in any order on any thread and joined by copying. Blocks do not share a dictionary: on text it gains 0.1 %
//! at this block size. The format version below covers everything that decides bytes.

use std::io::{self, IoSlice, Write};

use flate2::{Compress, Compression, FlushCompress};

use super::deflate::{self, Deflater, Effort};
use super::pair::hash_both;
use super::probe;
use crate::oci::{Digest, Hasher};

/// The version of everything that decides a layer's bytes: tar policy, block size, probe, compressor and its default
/// level. A change of any of them is a new version.
pub const FORMAT_VERSION: u32 = 1;

/// Bytes of tar in a block. Smaller blocks compress worse and larger ones leave threads idle on small layers.
pub const BLOCK_BYTES: usize = deflate::MOST_BYTES;

/// Our own search with a look at the next position: on a SQLite file of text 230 MB/s at 0.414, where zlib-rs level 2
/// makes 110 at 0.421 and `gzip -1` 0.448.
pub const DEFAULT_LEVEL: u32 = 2;

/// From this level on zlib-rs searches: its chains of candidates find more, at a price.
const FIRST_OF_ZLIB: u32 = 3;

/// Magic, deflate, no flags, no time, no extra flags, unknown system (RFC 1952, 2.3).
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// The most bytes that `tar_bytes` bytes of tar become: a block that would grow is stored.
#[must_use]
pub fn bound(tar_bytes: u64) -> u64 {
    let pieces = (BLOCK_BYTES as u64).div_ceil(STORED_LIMIT as u64);
    let frame = (HEADER.len() + LAST_BLOCK.len() + 8) as u64;
    tar_bytes + frame + tar_bytes.div_ceil(BLOCK_BYTES as u64) * pieces * 5
}

/// An empty final block with fixed codes (RFC 1951, 3.2.6) ends the member.
const LAST_BLOCK: [u8; 2] = [3, 0];

/// Bytes in a stored block of deflate (RFC 1951, 3.2.4).
const STORED_LIMIT: usize = 0xffff;

/// A piece of a tar on its way through the pipeline, with the room for its compressed form.
#[derive(Debug)]
pub(super) struct Block {
    /// Tar bytes; only the first `filled` count, and those behind [`BLOCK_BYTES`] are never any.
    pub(super) raw: Box<deflate::Padded>,
    pub(super) filled: usize,
    packed: Box<[u8]>,
    /// How many bytes of `packed` count; none where the raw bytes are to be stored.
    packed_bytes: Option<usize>,
    crc: u32,
}

impl Block {
    pub(super) fn new() -> Self {
        let raw = vec![0; BLOCK_BYTES + deflate::PADDING].into_boxed_slice();
        Self {
            raw: raw.try_into().unwrap_or_else(|_| unreachable!("the length is the type's")),
            filled: 0,
            packed: vec![0; BLOCK_BYTES].into_boxed_slice(),
            packed_bytes: None,
            crc: 0,
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.raw[..self.filled]
    }

    /// Fills in the checksum, and makes it a block to be stored; whether deflating it may be worthwhile. Level 0 stores
    /// every block.
    pub(super) fn look_at(&mut self, level: u32) -> bool {
        self.crc = crc32fast::hash(self.bytes());
        self.packed_bytes = None;
        level > 0 && probe::is_worthwhile(self.bytes())
    }
}

/// One thread's compressor; the tables of either kind are made when they are first needed.
#[derive(Debug, Default)]
pub(super) struct Compressor {
    own: Option<Deflater>,
    zlib: Option<Compress>,
}

impl Compressor {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Fills in the block's compressed form, if it is the smaller one.
    pub(super) fn compress(&mut self, block: &mut Block, level: u32) {
        let packed = if level < FIRST_OF_ZLIB { self.deflate(block, level) } else { self.zlib(block, level) };
        // What does not make it smaller is stored.
        block.packed_bytes = packed.filter(|packed| *packed < block.filled);
    }

    fn deflate(&mut self, block: &mut Block, level: u32) -> Option<usize> {
        let effort = if level < DEFAULT_LEVEL { Effort::Greedy } else { Effort::Lazy };
        let own = self.own.get_or_insert_with(Deflater::new);
        own.deflate(&block.raw, block.filled, effort, &mut block.packed)
    }

    /// A compressor that ran out of room is thrown away: `reset` forgets less than it should (zlib-rs 0.6 keeps the
    /// place in its output buffer), and what it remembers would decide the bytes of a later block, or stop the thread.
    fn zlib(&mut self, block: &mut Block, level: u32) -> Option<usize> {
        let level = Compression::new(level);
        let mut zlib = self.zlib.take().unwrap_or_else(|| Compress::new(level, false));
        zlib.reset();
        zlib.set_level(level).ok()?;
        let raw = &block.raw[..block.filled];
        zlib.compress(raw, &mut block.packed, FlushCompress::Sync).ok()?;
        let packed = usize::try_from(zlib.total_out()).unwrap_or(usize::MAX);
        // A flush is complete only if it left room (zlib.h, deflate()); the room is one raw block.
        let whole = zlib.total_in() == raw.len() as u64 && packed < block.packed.len();
        self.zlib = whole.then_some(zlib);
        whole.then_some(packed)
    }
}

/// Joins compressed blocks into one member, hashes it and passes it on.
#[derive(Debug)]
pub(super) struct Framer<W> {
    sink: W,
    crc: crc32fast::Hasher,
    /// Tar bytes modulo 2^32, as the trailer wants them.
    size: u32,
    member: Hasher,
    /// Present if the tar is hashed here, too.
    tar: Option<Hasher>,
}

/// What went through a [`Framer`].
#[derive(Debug)]
pub(super) struct Framed<W> {
    pub(super) sink: W,
    /// The member's digest, and its size in bytes.
    pub(super) member: (Digest, u64),
    /// The same of the tar, if it was hashed here.
    pub(super) tar: Option<(Digest, u64)>,
}

impl<W: Write> Framer<W> {
    /// A framer that has written the member's header, and hashes the tar itself if `hashes_tar`.
    pub(super) fn new(sink: W, hashes_tar: bool) -> io::Result<Self> {
        let tar = hashes_tar.then(Hasher::default);
        let mut framer = Self { sink, crc: crc32fast::Hasher::new(), size: 0, member: Hasher::default(), tar };
        framer.frame(&HEADER)?;
        Ok(framer)
    }

    pub(super) fn write(&mut self, block: &Block) -> io::Result<()> {
        self.crc.combine(&crc32fast::Hasher::new_with_initial_len(block.crc, block.filled as u64));
        #[expect(clippy::cast_possible_truncation, reason = "the trailer holds the size modulo 2^32")]
        let filled = block.filled as u32;
        self.size = self.size.wrapping_add(filled);
        match block.packed_bytes {
            Some(packed) => {
                self.hash(block.bytes(), &block.packed[..packed]);
                self.sink.write_all(&block.packed[..packed])
            }
            None => self.store(block.bytes()),
        }
    }

    /// Writes stored blocks of deflate, each while it is still in the core's cache.
    fn store(&mut self, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.chunks(STORED_LIMIT) {
            let header = stored_header(piece);
            self.member.update(&header);
            self.hash(piece, piece);
            write_all_vectored(&mut self.sink, &mut [IoSlice::new(&header), IoSlice::new(piece)])?;
        }
        Ok(())
    }

    /// Hashes a piece of the tar, and what becomes of it.
    fn hash(&mut self, tar: &[u8], member: &[u8]) {
        match &mut self.tar {
            Some(hasher) => hash_both(hasher, tar, &mut self.member, member),
            None => self.member.update(member),
        }
    }

    /// Writes what is the member's own.
    fn frame(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.member.update(bytes);
        self.sink.write_all(bytes)
    }

    pub(super) fn finish(mut self) -> io::Result<Framed<W>> {
        self.frame(&LAST_BLOCK)?;
        self.frame(&self.crc.clone().finalize().to_le_bytes())?;
        self.frame(&self.size.to_le_bytes())?;
        Ok(Framed { sink: self.sink, member: self.member.finish(), tar: self.tar.map(Hasher::finish) })
    }
}

/// Neither final nor compressed, then the length and its complement (RFC 1951, 3.2.4).
fn stored_header(piece: &[u8]) -> [u8; 5] {
    #[expect(clippy::cast_possible_truncation, reason = "pieces have at most 65,535 bytes")]
    let [low, high] = (piece.len() as u16).to_le_bytes();
    [0, low, high, !low, !high]
}

/// What `Write::write_all_vectored` will be once it is stable.
fn write_all_vectored(sink: &mut impl Write, mut parts: &mut [IoSlice<'_>]) -> io::Result<()> {
    while !parts.is_empty() {
        match sink.write_vectored(parts) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => IoSlice::advance_slices(&mut parts, count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seven bits of entropy a byte: what a code saves, and no repetition.
    fn growing() -> Vec<u8> {
        let mut state = 1_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            0x80 | (state >> 24) as u8
        };
        (0..BLOCK_BYTES).map(|_| next()).collect()
    }

    fn compressed(compressor: &mut Compressor, bytes: &[u8], level: u32) -> (bool, Vec<u8>) {
        let mut block = Block::new();
        block.raw[..bytes.len()].copy_from_slice(bytes);
        block.filled = bytes.len();
        compressor.compress(&mut block, level);
        let packed = block.packed_bytes.map(|packed| block.packed[..packed].to_vec());
        (packed.is_none(), packed.unwrap_or_default())
    }

    #[test]
    fn a_compressor_remembers_nothing_of_earlier_blocks() {
        let text: Vec<u8> = (0..200_000).flat_map(|n| format!("row {n}; ").into_bytes()).take(BLOCK_BYTES).collect();
        for level in 1..=9 {
            let expected = compressed(&mut Compressor::new(), &text, level);
            assert!(!expected.0, "level {level} stores text");
            let mut used = Compressor::new();
            for before in [&growing(), &text, &vec![0; BLOCK_BYTES], &growing()[..1000].to_vec()] {
                compressed(&mut used, before, level);
                assert!(compressed(&mut used, &text, level) == expected, "level {level}");
            }
        }
    }

    #[test]
    fn what_deflate_would_make_larger_is_stored() {
        let short = [b'a'; 6];
        assert!(probe::is_worthwhile(&short), "or this tests nothing");
        for level in 1..=9 {
            assert!(compressed(&mut Compressor::new(), &short, level).0, "level {level}");
        }
    }
}
