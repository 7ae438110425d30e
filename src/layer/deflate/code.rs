//! The shortest prefix codes for symbols of given frequencies, no longer than allowed, in deflate's canonical form
//! (RFC 1951, 3.2.2).

/// The most symbols of an alphabet.
const MOST: usize = 288;

/// The bits of each symbol's code, 0 where it does not occur; at most `limit`.
pub(super) fn lengths(frequencies: &[u32], limit: usize, lengths: &mut [u8]) {
    lengths.fill(0);
    // Frequency and symbol in one number, so that equal frequencies have an order too.
    let mut keys = [0_u64; MOST];
    let mut used = 0;
    for (symbol, &frequency) in frequencies.iter().enumerate() {
        if frequency != 0 {
            keys[used] = u64::from(frequency) << 9 | symbol as u64;
            used += 1;
        }
    }
    let keys = &mut keys[..used];
    match keys {
        [] => return,
        [one] => {
            lengths[(*one & 511) as usize] = 1;
            return;
        }
        _ => keys.sort_unstable(),
    }
    let mut counts = depths(keys);
    shorten(&mut counts, limit);
    let mut next = 0;
    for length in (1..=limit).rev() {
        for _ in 0..counts[length] {
            lengths[(keys[next] & 511) as usize] = length as u8;
            next += 1;
        }
    }
}

/// How many leaves of the best tree lie how deep, by the method of Moffat and Katajainen ("In-Place Calculation of
/// Minimum-Redundancy Codes", 1995): an array is first the queue of weights, then parents, then depths.
fn depths(keys: &[u64]) -> [u32; 64] {
    let used = keys.len();
    let mut tree = [0_u32; MOST];
    for (weight, key) in tree.iter_mut().zip(keys) {
        *weight = (key >> 9) as u32;
    }
    let tree = &mut tree[..used];
    let (mut leaf, mut root) = (0, 0);
    for next in 0..used - 1 {
        let mut take = |tree: &mut [u32]| {
            if leaf >= used || (root < next && tree[root] < tree[leaf]) {
                root += 1;
                std::mem::replace(&mut tree[root - 1], next as u32)
            } else {
                leaf += 1;
                tree[leaf - 1]
            }
        };
        let sum = take(tree) + take(tree);
        tree[next] = sum;
    }
    tree[used - 2] = 0;
    for node in (0..used - 2).rev() {
        tree[node] = tree[tree[node] as usize] + 1;
    }
    let mut counts = [0; 64];
    let (mut open, mut depth, mut nodes, mut left) = (1, 0_usize, used - 1, used as u32);
    while left > 0 {
        let mut inner = 0;
        while nodes > 0 && tree[nodes - 1] as usize == depth {
            inner += 1;
            nodes -= 1;
        }
        counts[depth.min(63)] += open - inner;
        left -= open - inner;
        open = inner * 2;
        depth += 1;
    }
    counts
}

/// Moves leaves that lie too deep up, and for each others down, until all fit below `limit`.
fn shorten(counts: &mut [u32; 64], limit: usize) {
    let over: u32 = counts[limit + 1..].iter().sum();
    if over == 0 {
        return;
    }
    counts[limit] += over;
    counts[limit + 1..].fill(0);
    let mut total: u32 = (1..=limit).map(|length| counts[length] << (limit - length)).sum();
    while total > 1 << limit {
        let shorter = (1..limit).rev().find(|&length| counts[length] > 0).unwrap_or(1);
        counts[shorter] -= 1;
        counts[shorter + 1] += 2;
        counts[limit] -= 1;
        total -= 1;
    }
}

/// The codes of these lengths, their first bit the lowest, as deflate writes them.
pub(super) fn codes(lengths: &[u8], codes: &mut [u16]) {
    let mut counts = [0_u16; 16];
    for &length in lengths {
        counts[length as usize & 15] += 1;
    }
    counts[0] = 0;
    let (mut next, mut code) = ([0_u16; 16], 0_u16);
    for length in 1..16 {
        code = (code + counts[length - 1]) << 1;
        next[length] = code;
    }
    for (code, &length) in codes.iter_mut().zip(lengths) {
        *code = 0;
        if length != 0 {
            *code = next[length as usize & 15].reverse_bits() >> (16 - u32::from(length));
            next[length as usize & 15] += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(frequencies: &[u32], limit: usize) -> Vec<u8> {
        let mut found = vec![9; frequencies.len()];
        lengths(frequencies, limit, &mut found);
        found
    }

    #[test]
    fn frequent_symbols_have_short_codes() {
        assert!(of(&[], 15).is_empty());
        assert_eq!(of(&[0, 0, 5], 15), [0, 0, 1]);
        assert_eq!(of(&[1, 1], 15), [1, 1]);
        assert_eq!(of(&[1, 1, 2, 4, 0, 8], 15), [4, 4, 3, 2, 0, 1]);
        assert_eq!(of(&[3; 4], 15), [2; 4]);
    }

    #[test]
    fn no_code_is_longer_than_allowed_and_all_fit() {
        let mut fibonacci = vec![1_u32, 1];
        while fibonacci.len() < 40 {
            fibonacci.push(fibonacci[fibonacci.len() - 1] + fibonacci[fibonacci.len() - 2]);
        }
        for (count, limit) in [(19, 7), (30, 15), (40, 15)] {
            let found = of(&fibonacci[..count], limit);
            assert_eq!(found.iter().max(), Some(&(limit as u8)), "{count} symbols");
            let kraft: u32 = found.iter().map(|&length| 1 << (limit - usize::from(length))).sum();
            assert_eq!(kraft, 1 << limit, "{count} symbols");
            assert!(found.is_sorted_by(|one, next| one >= next), "{found:?}");
        }
    }

    #[test]
    fn codes_are_those_of_the_specification() {
        // The example of RFC 1951, 3.2.2.
        let mut found = [0; 8];
        codes(&[3, 3, 3, 3, 3, 2, 4, 4], &mut found);
        let expected = [0b010, 0b110, 0b001, 0b101, 0b011, 0b00, 0b0111, 0b1111];
        assert_eq!(found, expected);
    }
}
