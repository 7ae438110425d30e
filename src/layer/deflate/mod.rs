//! Deflate (RFC 1951) for one block at a time: what the default levels write, in our own hand.
//!
//! The bytes are the format: a library's update must not move the digest of gigabytes. And no crate that needs no C is
//! as fast: on a SQLite file of text this takes half the time of zlib-rs level 2 and makes it a little smaller.
//!
//! - `search`: bytes into literals and repetitions;
//! - `code`: the shortest prefix codes for them;
//! - `write`: both as bits.
//!
//! A pure function of the block's bytes and the effort. It knows nothing of gzip, layers or threads.

mod code;
mod search;
mod write;

use search::{SEGMENT, Search, TOKENS};
use write::Bits;

/// The most bytes that are deflated at once: positions have 20 bits.
pub(super) const MOST_BYTES: usize = 1 << 20;

/// Bytes behind the last that are looked at, whatever they are: the search reads whole words.
pub(super) const PADDING: usize = 72;

/// A block with room behind it.
pub(super) type Padded = [u8; MOST_BYTES + PADDING];

/// How hard to search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effort {
    /// Takes every repetition it finds.
    Greedy,
    /// Takes a literal first where the repetition after it is longer.
    Lazy,
}

/// Deflates blocks; its tables are made once.
#[derive(Debug)]
pub(super) struct Deflater {
    search: Search,
    tally: write::Tally,
}

impl Deflater {
    pub(super) fn new() -> Self {
        Self { search: Search::new(), tally: write::Tally::new() }
    }

    /// Deflates the first `length` bytes of `block` into `out`, none of the blocks marked as the last, up to a byte
    /// boundary (a sync flush). How many bytes that took; `None` if there is no room for it.
    pub(super) fn deflate(&mut self, block: &Padded, length: usize, effort: Effort, out: &mut [u8]) -> Option<usize> {
        let mut bits = Bits::new(out);
        self.search.begin();
        let (mut at, mut begun, mut segment) = (0, 0, 0);
        while segment < length {
            at = self.search.segment(block, length, segment, at, effort);
            segment += SEGMENT;
            // A code of its own for each part: what is frequent changes along a file.
            if self.search.tokens().len() + SEGMENT > TOKENS || segment >= length {
                self.tally.count(self.search.tokens());
                if !write::block(&mut bits, self.search.tokens(), &self.tally, &block[begun..at]) {
                    return None;
                }
                self.search.forget_tokens();
                begun = at;
            }
        }
        bits.sync()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use proptest::prelude::*;

    use super::*;

    fn deflated(deflater: &mut Deflater, bytes: &[u8], effort: Effort, garbage: u8) -> Option<Vec<u8>> {
        let mut block = vec![garbage; MOST_BYTES + PADDING];
        block[..bytes.len()].copy_from_slice(bytes);
        let mut out = vec![0xaa; MOST_BYTES + 1024];
        let block: &Padded = block.as_slice().try_into().expect("a block");
        let count = deflater.deflate(block, bytes.len(), effort, &mut out)?;
        out.truncate(count);
        Some(out)
    }

    fn inflated(mut deflated: Vec<u8>) -> Vec<u8> {
        deflated.extend([3, 0]);
        let mut bytes = Vec::new();
        flate2::read::DeflateDecoder::new(&deflated[..]).read_to_end(&mut bytes).expect("deflate");
        bytes
    }

    fn assert_round(bytes: &[u8]) {
        for effort in [Effort::Greedy, Effort::Lazy] {
            let mut deflater = Deflater::new();
            let first = deflated(&mut deflater, bytes, effort, 0).expect("room");
            assert!(inflated(first.clone()) == bytes, "{effort:?} of {} bytes", bytes.len());
            // Neither what was deflated before nor what lies behind the block counts.
            deflated(&mut deflater, &vec![b'x'; 70_000], effort, 7).expect("room");
            assert_eq!(
                deflated(&mut deflater, bytes, effort, 0xff),
                Some(first),
                "{effort:?} of {} bytes",
                bytes.len()
            );
        }
    }

    /// Bytes that look random, the same each time.
    fn noise(count: usize) -> Vec<u8> {
        let mut state = 1_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn every_edge_comes_back_as_it_was() {
        let far = |distance: usize| {
            [&b"a needle to be found again"[..], &noise(distance - 26), b"a needle to be found again"].concat()
        };
        for bytes in [
            vec![],
            vec![7],
            b"ab".to_vec(),
            vec![0; 3],
            vec![0; 258],
            vec![0; 259],
            vec![0; MOST_BYTES],
            noise(9),
            noise(64),
            noise(65),
            noise(MOST_BYTES),
            far(32_767),
            far(32_768),
            far(32_769),
            (0..MOST_BYTES).map(|n| [b'a', b'b', b'c'][n % 3]).collect(),
            (0..=255).cycle().take(100_000).collect(),
            noise(2048).repeat(20),
            noise(SEGMENT - 4).repeat(3),
        ] {
            assert_round(&bytes);
        }
    }

    #[test]
    fn a_repetition_as_far_back_as_there_can_be_is_used() {
        let needle = noise(32_768);
        let twice = [&needle[..], &needle[..200]].concat();
        let mut deflater = Deflater::new();
        let [once, twice] =
            [&needle[..], &twice].map(|bytes| deflated(&mut deflater, bytes, Effort::Lazy, 0).expect("room").len());
        assert!(twice < once + 20, "{once} and {twice}");
    }

    #[test]
    fn without_room_nothing_is_made() {
        let mut block = vec![0; MOST_BYTES + PADDING];
        block[..1000].copy_from_slice(&noise(1000));
        let block: &Padded = block.as_slice().try_into().expect("a block");
        for room in [0, 1, 10, 500, 999, 1000] {
            let mut out = vec![0; room];
            assert_eq!(Deflater::new().deflate(block, 1000, Effort::Lazy, &mut out), None, "{room}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn whatever_goes_in_comes_out(
            words in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 1..40),
            order in prop::collection::vec(any::<prop::sample::Index>(), 0..600),
        ) {
            let bytes: Vec<u8> = order.iter().flat_map(|index| index.get(&words).clone()).collect();
            assert_round(&bytes);
        }
    }
}
