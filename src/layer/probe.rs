//! Whether deflating a block is worth its time: a pure function of the block's bytes, in integers only, since its
//! answer is part of the format.
//!
//! Model weights, archives and pictures save a few percent at fifty times the cost of storing them. The probe
//! estimates what deflate would make of four slices of the block, from the entropy of their bytes and the repetitions a
//! quick search finds.

/// Bytes of a slice: deflate's window, so that what it can see within a slice the probe can see.
const SLICE_BYTES: usize = 32 << 10;

/// Slices of a block, evenly spread.
const SLICES: usize = 4;

/// A block is stored unless it would become smaller than this part of itself, in percent.
const WORTHWHILE_PERCENT: u64 = 88;

/// What a repetition costs in deflate, in bits: a length, a distance and their extra bits.
const MATCH_BITS: u64 = 20;

const TABLE_BITS: u32 = 12;

/// Fraction bits of the logarithms.
const FRACTION: u32 = 16;

/// Whether deflate would save 12 % of the block or more, by estimate.
pub(super) fn is_worthwhile(block: &[u8]) -> bool {
    let (mut bits, mut bytes) = (0, 0);
    for slice in slices(block) {
        bits += estimated_bits(slice);
        bytes += slice.len() as u64;
    }
    bits * 100 < bytes * 8 * WORTHWHILE_PERCENT
}

fn slices(block: &[u8]) -> impl Iterator<Item = &[u8]> {
    let whole = block.len() <= SLICES * SLICE_BYTES;
    let step = if whole { SLICE_BYTES } else { block.len() / SLICES };
    (0..SLICES).filter_map(move |index| {
        let start = (index * step).min(block.len());
        let end = (start + SLICE_BYTES).min(block.len());
        (start < end).then(|| &block[start..end])
    })
}

fn estimated_bits(slice: &[u8]) -> u64 {
    let (literals, matches) = repetitions(slice);
    let entropy_bits = entropy_bits(slice);
    literals * entropy_bits / slice.len() as u64 + matches * MATCH_BITS
}

/// Counts the bytes a greedy search leaves as literals, and the repetitions it finds. It hurries where it finds none.
fn repetitions(slice: &[u8]) -> (u64, u64) {
    let mut table = [0_u16; 1 << TABLE_BITS];
    let (mut literals, mut matches) = (0_u64, 0_u64);
    let (mut at, mut misses) = (0, 0);
    let word =
        |at: usize| slice.get(at..at + 4).map(|bytes| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
    while let Some(current) = word(at) {
        let slot = &mut table[(current.wrapping_mul(0x9e37_79b1) >> (32 - TABLE_BITS)) as usize];
        let candidate = usize::from(*slot);
        #[expect(clippy::cast_possible_truncation, reason = "a slice has 32,768 bytes at most")]
        let here = at as u16;
        *slot = here;
        if candidate < at && word(candidate) == Some(current) {
            let length = slice[at..].iter().zip(&slice[candidate..]).take(258).take_while(|(a, b)| a == b).count();
            matches += 1;
            misses = 0;
            at += length;
        } else {
            let step = 1 + (misses >> 6);
            literals += step as u64;
            misses += 1;
            at += step;
        }
    }
    (literals.min(slice.len() as u64) + (slice.len().saturating_sub(at)) as u64, matches)
}

/// The bits an ideal code of single bytes needs for the slice.
fn entropy_bits(slice: &[u8]) -> u64 {
    let mut counts = [0_u64; 256];
    for byte in slice {
        counts[usize::from(*byte)] += 1;
    }
    let total = slice.len() as u64;
    let sum: u64 = counts.iter().filter(|count| **count > 0).map(|count| count * (log2(total) - log2(*count))).sum();
    sum >> FRACTION
}

/// The binary logarithm of `number` (1 to 2^31), with 16 bits of fraction.
fn log2(number: u64) -> u64 {
    let whole = u64::from(number.ilog2());
    let mut mantissa = number << (31 - whole);
    let mut result = whole;
    for _ in 0..FRACTION {
        mantissa = (mantissa * mantissa) >> 31;
        result <<= 1;
        if mantissa >> 32 != 0 {
            mantissa >>= 1;
            result |= 1;
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A fixed sequence that looks random (xorshift).
    fn noise(bytes: usize) -> Vec<u8> {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        (0..bytes.div_ceil(8)).flat_map(|_| next().to_le_bytes()).take(bytes).collect()
    }

    #[test]
    fn logarithms_are_right_to_sixteen_bits() {
        for (number, expected) in [(1, 0), (2, 65_536), (3, 103_872), (1 << 31, 31 << 16), (1000, 653_117)] {
            assert_eq!(log2(number), expected, "{number}");
        }
    }

    /// The line moves when anything above does, and with it everybody's layers: that is a new `FORMAT_VERSION`.
    #[test]
    fn the_line_between_storing_and_deflating_is_where_it_was() {
        const BLOCK: usize = 1 << 20;
        let noise = noise(BLOCK);
        type Family<'a> = (&'a str, &'a dyn Fn(usize) -> Vec<u8>);
        let families: [Family<'_>; 5] = [
            ("so many of 256 bytes are zeros", &|count| {
                let zero = |(at, byte): (usize, &u8)| if at * 167 % 256 < count { 0 } else { *byte };
                noise.iter().enumerate().map(zero).collect()
            }),
            ("so many values of 256 are not there", &|count| {
                noise.iter().map(|byte| ((usize::from(*byte) * (256 - count)) >> 8) as u8).collect()
            }),
            ("so many bytes of 256 are those of 1000 bytes before", &|count| {
                let mut block = noise.clone();
                for start in (1024..BLOCK).step_by(256) {
                    block.copy_within(start - 1000..start - 1000 + count, start);
                }
                block
            }),
            ("the same, from 20,000 bytes before", &|count| {
                let mut block = noise.clone();
                for start in (20_224..BLOCK).step_by(256) {
                    block.copy_within(start - 20_000..start - 20_000 + count, start);
                }
                block
            }),
            ("so many parts of 256 are zeros, and then noise", &|count| {
                let mut block = noise.clone();
                block[..count * BLOCK / 256].fill(0);
                block
            }),
        ];
        let lines = families.map(|(family, block)| {
            let first = (0..256).find(|count| is_worthwhile(&block(*count)));
            (family, first.unwrap_or(256))
        });
        assert_eq!(lines.map(|(_, first)| first), [54, 123, 40, 130, 3], "{lines:?}");
    }

    #[test]
    fn text_repetitions_and_zeros_are_worth_compressing_and_noise_is_not() {
        let text: Vec<u8> = (0..100_000).flat_map(|n| format!("row {n}; ").into_bytes()).take(1 << 20).collect();
        let repeated: Vec<u8> = noise(8192).into_iter().cycle().take(1 << 20).collect();
        let weights: Vec<u8> = noise(1 << 20)
            .chunks(4)
            .flat_map(|chunk| [chunk[0], chunk[1], chunk[2], 0xb8 | (chunk[3] & 0x83)])
            .collect();
        for (name, block, expected) in [
            ("empty", Vec::new(), false),
            ("one byte", vec![1], true),
            ("text", text, true),
            ("zeros", vec![0; 1 << 20], true),
            ("repeated noise", repeated, true),
            ("noise", noise(1 << 20), false),
            // Three noisy bytes and one of eight values: an order-0 code saves a twentieth.
            ("weights", weights, false),
        ] {
            assert_eq!(is_worthwhile(&block), expected, "{name}");
        }
    }
}
