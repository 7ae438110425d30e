//! Bytes into tokens: literals, and repetitions of what came up to 32 KiB before (RFC 1951, 3.2.5).
//!
//! In two steps over segments short enough for the nearest cache. `find` looks, for every position alike and without a
//! branch, where the same four bytes last were; `walk` then goes from one place with a candidate to the next, compares,
//! and takes what is long enough. What the table says is a hint: only bytes that were compared are taken.

use std::hint::select_unpredictable;

use super::{Effort, MOST_BYTES, Padded};

/// Bytes that are looked through at once.
pub(super) const SEGMENT: usize = 2048;

/// The most tokens that share a code.
pub(super) const TOKENS: usize = 1 << 15;

/// Tokens are written eight at once, whatever they are.
const SLACK: usize = 64;

const TABLE_BITS: u32 = 15;

/// The bits of a position; the others of a table's entry tell different words apart.
const POSITIONS: usize = MOST_BYTES - 1;

/// The window of deflate.
const WINDOW: u32 = 1 << 15;

/// The shortest repetition that is taken: a hash is of four bytes.
const SHORTEST: usize = 4;

/// The longest that deflate can say.
const LONGEST: usize = 258;

/// The most bytes that are compared without a loop.
const AT_ONCE: usize = 15;

/// A literal, or a repetition: in the lowest nine bits the byte, or 256 and the length from 3 on; then in five bits the
/// distance's symbol, which for literals is one that is never written; then the distance's extra bits.
pub(super) type Token = u32;

/// The distance's symbol of literals.
pub(super) const NO_DISTANCE: u32 = 30;

const LITERAL: Token = NO_DISTANCE << 9;

/// What is known while a block is looked through.
#[derive(Debug)]
pub(super) struct Search {
    /// Where the words of each hash last were.
    table: Box<[u32; 1 << TABLE_BITS]>,
    /// A bit for each position of a segment that has a candidate, the first the lowest.
    found: Box<[u8; SEGMENT / 8 + 8]>,
    /// How far back each candidate is, less one.
    distances: Box<[u16; SEGMENT]>,
    tokens: Box<[Token; TOKENS + SLACK]>,
    count: usize,
}

impl Search {
    pub(super) fn new() -> Self {
        Self {
            table: Box::new([0; 1 << TABLE_BITS]),
            found: Box::new([0; SEGMENT / 8 + 8]),
            distances: Box::new([0; SEGMENT]),
            tokens: Box::new([0; TOKENS + SLACK]),
            count: 0,
        }
    }

    /// Forgets everything: a block is all that its bytes depend on.
    pub(super) fn begin(&mut self) {
        self.table.fill(0);
        self.count = 0;
    }

    /// Appends the tokens of the segment at `start`, from `at` on, where the last repetition before ended. Returns
    /// where the last one of this segment ends. Of the block, `length` bytes count.
    pub(super) fn segment(&mut self, block: &Padded, length: usize, start: usize, at: usize, effort: Effort) -> usize {
        let end = (start + SEGMENT).min(length);
        // Behind the last word there is none to be found, only what lies behind the block.
        let findable = length.saturating_sub(8);
        find(block, start, findable, &mut self.table, &mut self.found, &mut self.distances);
        match effort {
            Effort::Greedy => self.walk::<false>(block, length, start..end, at),
            Effort::Lazy => self.walk::<true>(block, length, start..end, at),
        }
    }

    /// The tokens since they were last forgotten.
    pub(super) fn tokens(&self) -> &[Token] {
        &self.tokens[..self.count]
    }

    pub(super) fn forget_tokens(&mut self) {
        self.count = 0;
    }

    #[inline(never)]
    fn walk<const LAZY: bool>(
        &mut self,
        block: &Padded,
        length: usize,
        segment: std::ops::Range<usize>,
        mut at: usize,
    ) -> usize {
        let (found, distances, tokens) = (&self.found, &self.distances, &mut self.tokens);
        let mut count = self.count;
        while at < segment.end {
            let inside = at - segment.start;
            let candidates = u64::from_le_bytes(eight(&found[(inside >> 3) & (SEGMENT / 8 - 1)..])) >> (inside & 7);
            // Where none is left, there are at least 56 bits that say so.
            let before = (candidates | 1 << 56).trailing_zeros() as usize;
            let next: &[u8; 8] = &eight(&block[at & POSITIONS..]);
            for (token, byte) in tokens[count & (TOKENS - 1)..][..8].iter_mut().zip(next) {
                *token = u32::from(*byte) | LITERAL;
            }
            if before > 8 {
                let before = before.min(segment.end - at);
                for index in 0..before {
                    tokens[(count + index) & (TOKENS - 1)] = byte(block, at + index) | LITERAL;
                }
                if before == 56 || at + before == segment.end {
                    count += before;
                    at += before;
                    continue;
                }
            }
            count += before;
            at += before;
            let inside = inside + before;
            let mut distance = usize::from(distances[inside & (SEGMENT - 1)]);
            let mut long = common(block, at, distance);
            if LAZY {
                let later = usize::from(distances[(inside + 1) & (SEGMENT - 1)]);
                let longer = common(block, at + 1, later);
                let is_better = (longer > long) & (candidates >> (before + 1) & 1 == 1);
                tokens[count & (TOKENS - 1)] = byte(block, at) | LITERAL;
                count += usize::from(is_better);
                at += usize::from(is_better);
                long = select_unpredictable(is_better, longer, long);
                distance = select_unpredictable(is_better, later, distance);
            }
            if long == AT_ONCE {
                long = extend(block, at, distance, (length - at).min(LONGEST));
            }
            long = long.min(length - at);
            let is_taken = long >= SHORTEST && distance < at;
            tokens[count & (TOKENS - 1)] =
                if is_taken { repetition(long, distance) } else { byte(block, at) | LITERAL };
            count += 1;
            at += if is_taken { long } else { 1 };
        }
        self.count = count;
        at
    }
}

/// Notes for each position of a segment where its four bytes last were, and puts it in their place. An entry holds the
/// position and, above it, bits of the hash that are not its index. So one subtraction tells the distance, and that it
/// is none: where those bits differ, the difference is at least a whole block.
#[inline(never)]
fn find(
    block: &Padded,
    start: usize,
    findable: usize,
    table: &mut [u32; 1 << TABLE_BITS],
    found: &mut [u8; SEGMENT / 8 + 8],
    distances: &mut [u16; SEGMENT],
) {
    let groups = distances.as_chunks_mut::<64>().0.iter_mut().zip(found.as_chunks_mut::<8>().0);
    for (group, (distances, found)) in groups.enumerate() {
        let base = start + group * 64;
        let mut bits = 0_u64;
        let bytes = &block[base & POSITIONS & !63..][..72];
        for (index, slot) in distances.iter_mut().enumerate() {
            let word = u32::from_le_bytes([bytes[index], bytes[index + 1], bytes[index + 2], bytes[index + 3]]);
            let product = word.wrapping_mul(0x9e37_79b1);
            let position = (base + index) as u32;
            let new = (product << TABLE_BITS) & !(POSITIONS as u32) | position;
            let old = std::mem::replace(&mut table[(product >> (32 - TABLE_BITS)) as usize], new);
            let distance = new.wrapping_add(!old);
            *slot = distance as u16;
            bits = bits + bits + u64::from(distance < WINDOW);
        }
        let mut bits = bits.reverse_bits();
        if base + 64 > findable {
            bits &= if base >= findable { 0 } else { (1 << (findable - base)) - 1 };
        }
        *found = bits.to_le_bytes();
    }
}

#[inline(always)]
fn eight(bytes: &[u8]) -> [u8; 8] {
    *bytes.first_chunk().expect("there is room behind the last byte")
}

#[inline(always)]
fn byte(block: &Padded, at: usize) -> u32 {
    u32::from(block[at & POSITIONS])
}

#[inline(always)]
fn word(block: &Padded, at: usize) -> u64 {
    u64::from_le_bytes(eight(&block[at & POSITIONS..]))
}

/// How many bytes, up to [`AT_ONCE`], are alike at `at` and `distance` and one before it.
#[inline(always)]
fn common(block: &Padded, at: usize, distance: usize) -> usize {
    let before = at.wrapping_sub(distance + 1);
    let first = word(block, at) ^ word(block, before);
    // The highest bit ends it, so that one byte less than two words is compared.
    let second = word(block, at + 8) ^ word(block, before.wrapping_add(8)) | 1 << 63;
    let near = first.trailing_zeros() >> 3;
    let far = (second.trailing_zeros() >> 3) + 8;
    select_unpredictable(first == 0, far, near) as usize
}

/// The same beyond [`AT_ONCE`], up to `most`.
#[inline(never)]
fn extend(block: &Padded, at: usize, distance: usize, most: usize) -> usize {
    // A candidate before the block is refused later.
    let before = at.wrapping_sub(distance + 1);
    let mut long = AT_ONCE;
    while long + 8 <= most {
        let different = word(block, at + long) ^ word(block, before.wrapping_add(long));
        if different != 0 {
            return long + (different.trailing_zeros() >> 3) as usize;
        }
        long += 8;
    }
    while long < most && byte(block, at + long) == byte(block, before.wrapping_add(long)) {
        long += 1;
    }
    long
}

/// The symbol of a distance doubles with every second one (RFC 1951, 3.2.5): its highest two bits, and how many follow.
#[inline(always)]
fn repetition(long: usize, distance: usize) -> Token {
    let (long, distance) = (long as u32, distance as u32);
    let extra = 30 - (distance | 2).leading_zeros();
    let symbol = 2 * extra + (distance >> extra);
    (256 - 3 + long) | symbol << 9 | (distance & ((1 << extra) - 1)) << 14
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_have_the_symbols_of_the_specification() {
        for (distance, symbol, extra) in [
            (1, 0, 0),
            (2, 1, 0),
            (4, 3, 0),
            (5, 4, 0),
            (6, 4, 1),
            (7, 5, 0),
            (9, 6, 0),
            (24_577, 29, 0),
            (32_768, 29, 8191),
        ] {
            let token = repetition(4, distance - 1);
            assert_eq!((token >> 9 & 31, token >> 14, token & 511), (symbol, extra, 257), "{distance}");
        }
    }
}
