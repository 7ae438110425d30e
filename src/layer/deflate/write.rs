//! Tokens as bits: a part of a block in whichever of deflate's three forms is the smallest (RFC 1951, 3.2.3).

use super::code;
use super::search::{NO_DISTANCE, Token};

/// Symbols for literals, lengths and the end (RFC 1951, 3.2.5).
const SYMBOLS: usize = 286;

/// Symbols for distances.
const DISTANCES: usize = 30;

/// The symbol that ends a block.
const END: usize = 256;

/// The order in which lengths of the code for code lengths are written (RFC 1951, 3.2.7).
const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/// Extra bits of the symbols for code lengths.
const RUN_EXTRA: [u8; 19] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 3, 7];

/// The first length of each symbol from 257 on, and its extra bits.
const LENGTH_BASE: [u16; 29] =
    [3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258];
const LENGTH_EXTRA: [u8; 29] = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0];

/// The symbol of each length from 3 on, less 257.
static LENGTH_SYMBOL: [u8; 256] = {
    let (mut symbols, mut length, mut symbol) = ([0; 256], 3, 0);
    while length < 259 {
        while symbol < 28 && length >= LENGTH_BASE[symbol + 1] {
            symbol += 1;
        }
        symbols[length as usize - 3] = symbol as u8;
        length += 1;
    }
    symbols
};

/// Bytes in a stored part.
const STORED_LIMIT: usize = 0xffff;

/// What an eight-byte write may need beyond the last bit, the end of the block included.
const SPARE: usize = 16;

/// Bits into bytes, the lowest first.
#[derive(Debug)]
pub(super) struct Bits<'a> {
    out: &'a mut [u8],
    at: usize,
    bits: u64,
    count: u32,
}

impl<'a> Bits<'a> {
    pub(super) fn new(out: &'a mut [u8]) -> Self {
        Self { out, at: 0, bits: 0, count: 0 }
    }

    /// Adds at most 57 bits to what was flushed.
    #[inline(always)]
    fn put(&mut self, bits: u64, count: u32) {
        self.bits |= bits << self.count;
        self.count += count;
    }

    /// Writes all whole bytes. There is room: [`block`] made sure.
    #[inline(always)]
    fn flush(&mut self) {
        if let Some(place) = self.out.get_mut(self.at..).and_then(|out| out.first_chunk_mut::<8>()) {
            *place = self.bits.to_le_bytes();
        }
        self.at += (self.count >> 3) as usize;
        self.bits >>= self.count & !7;
        self.count &= 7;
    }

    fn align(&mut self) {
        self.count = self.count.next_multiple_of(8);
        self.flush();
    }

    fn has_room(&self, bits: u64) -> bool {
        self.at as u64 + bits / 8 + SPARE as u64 <= self.out.len() as u64
    }

    /// Ends on a byte boundary, by an empty stored part; how many bytes there are.
    pub(super) fn sync(mut self) -> Option<usize> {
        if !self.has_room(0) {
            return None;
        }
        self.put(0, 3);
        self.align();
        self.put(0xffff_0000, 32);
        self.flush();
        Some(self.at)
    }
}

/// How often each symbol occurs.
#[derive(Debug)]
pub(super) struct Tally {
    /// Literals, and lengths from 3 on.
    plain: [u32; 512],
    distances: [u32; 32],
}

impl Tally {
    pub(super) fn new() -> Self {
        Self { plain: [0; 512], distances: [0; 32] }
    }

    /// Counts in four tallies: the same symbol twice in a row would wait for itself.
    pub(super) fn count(&mut self, tokens: &[Token]) {
        let (mut plain, mut distances) = ([[0_u32; 512]; 4], [[0_u32; 32]; 4]);
        let (fours, rest) = tokens.as_chunks::<4>();
        for four in fours {
            for (index, token) in four.iter().enumerate() {
                plain[index][(token & 511) as usize] += 1;
                distances[index][(token >> 9 & 31) as usize] += 1;
            }
        }
        for token in rest {
            plain[0][(token & 511) as usize] += 1;
            distances[0][(token >> 9 & 31) as usize] += 1;
        }
        self.plain = std::array::from_fn(|symbol| plain.iter().map(|tally| tally[symbol]).sum());
        self.distances = std::array::from_fn(|symbol| distances.iter().map(|tally| tally[symbol]).sum());
    }

    fn symbols(&self) -> [u32; SYMBOLS] {
        let mut symbols = [0; SYMBOLS];
        symbols[..END].copy_from_slice(&self.plain[..END]);
        symbols[END] = 1;
        for (length, count) in self.plain[END..].iter().enumerate() {
            symbols[END + 1 + LENGTH_SYMBOL[length] as usize] += count;
        }
        symbols
    }
}

/// Bits of each symbol's code.
#[derive(Clone)]
struct Lengths {
    symbols: [u8; 288],
    distances: [u8; DISTANCES],
}

impl Lengths {
    /// Those that need not be written (RFC 1951, 3.2.6).
    fn fixed() -> Self {
        let mut symbols = [8; 288];
        symbols[144..256].fill(9);
        symbols[256..280].fill(7);
        Self { symbols, distances: [5; DISTANCES] }
    }

    fn best(symbols: &[u32; SYMBOLS], distances: &[u32]) -> Self {
        let mut best = Self { symbols: [0; 288], distances: [0; DISTANCES] };
        code::lengths(symbols, 15, &mut best.symbols[..SYMBOLS]);
        code::lengths(distances, 15, &mut best.distances);
        if best.distances == [0; DISTANCES] {
            // One there must be.
            best.distances[0] = 1;
        }
        best
    }

    /// Bits that everything takes in these codes.
    fn cost(&self, symbols: &[u32; SYMBOLS], distances: &[u32]) -> u64 {
        let extra = |symbol: usize| symbol.checked_sub(END + 1).map_or(0, |length| LENGTH_EXTRA[length]);
        let symbol_bits = symbols.iter().zip(self.symbols).enumerate();
        let symbol_bits =
            symbol_bits.map(|(symbol, (count, bits))| u64::from(*count) * u64::from(bits + extra(symbol)));
        let distance_bits = distances.iter().zip(self.distances).enumerate();
        let distance_bits =
            distance_bits.map(|(symbol, (count, bits))| u64::from(*count) * u64::from(bits + distance_extra(symbol)));
        symbol_bits.sum::<u64>() + distance_bits.sum::<u64>()
    }
}

/// Extra bits of a distance's symbol.
fn distance_extra(symbol: usize) -> u8 {
    (symbol as u8 / 2).saturating_sub(1)
}

/// The codes themselves, as a part with codes of its own begins.
struct Header {
    /// How many lengths of symbols, of distances, and of the code for both are written.
    written: (usize, usize, usize),
    /// Symbols for code lengths with their extra bits' value.
    runs: Vec<(u8, u8)>,
    /// The code for them.
    lengths: [u8; 19],
    bits: u64,
}

impl Header {
    fn of(codes: &Lengths) -> Self {
        let last = |lengths: &[u8]| lengths.iter().rposition(|&length| length != 0).map_or(0, |last| last + 1);
        let symbols = last(&codes.symbols).max(END + 1);
        let distances = last(&codes.distances);
        let runs = runs(&[&codes.symbols[..symbols], &codes.distances[..distances]].concat());
        let mut counts = [0; 19];
        runs.iter().for_each(|&(symbol, _)| counts[symbol as usize] += 1);
        let mut lengths = [0; 19];
        code::lengths(&counts, 7, &mut lengths);
        let of_runs = ORDER.iter().rposition(|&symbol| lengths[symbol] != 0).map_or(0, |last| last + 1).max(4);
        let bits =
            counts.iter().zip(lengths).zip(RUN_EXTRA).map(|((count, bits), extra)| count * u32::from(bits + extra));
        let bits = u64::from(bits.sum::<u32>()) + 17 + 3 * of_runs as u64;
        Self { written: (symbols, distances, of_runs), runs, lengths, bits }
    }

    fn write(&self, bits: &mut Bits<'_>) {
        let (symbols, distances, of_runs) = self.written;
        bits.put(0b100, 3);
        bits.put(symbols as u64 - 257, 5);
        bits.put(distances as u64 - 1, 5);
        bits.put(of_runs as u64 - 4, 4);
        bits.flush();
        for &symbol in &ORDER[..of_runs] {
            bits.put(self.lengths[symbol].into(), 3);
            bits.flush();
        }
        let mut codes = [0; 19];
        code::codes(&self.lengths, &mut codes);
        for &(symbol, extra) in &self.runs {
            let symbol = symbol as usize;
            bits.put(codes[symbol].into(), self.lengths[symbol].into());
            bits.put(extra.into(), RUN_EXTRA[symbol].into());
            bits.flush();
        }
    }
}

/// Code lengths in a row, repeated ones as runs (RFC 1951, 3.2.7).
fn runs(lengths: &[u8]) -> Vec<(u8, u8)> {
    let mut runs = Vec::with_capacity(lengths.len());
    for same in lengths.chunk_by(|one, next| one == next) {
        let (length, mut left) = (same[0], same.len());
        if length == 0 {
            while left >= 11 {
                let run = left.min(138);
                runs.push((18, (run - 11) as u8));
                left -= run;
            }
            if left >= 3 {
                runs.push((17, (left - 3) as u8));
                left = 0;
            }
        } else {
            runs.push((length, 0));
            left -= 1;
            while left >= 3 {
                let run = left.min(6);
                runs.push((16, (run - 3) as u8));
                left -= run;
            }
        }
        runs.extend(std::iter::repeat_n((length, 0), left));
    }
    runs
}

/// Writes a part: `tokens` stand for the bytes `raw`. False if there is no room for it.
pub(super) fn block(bits: &mut Bits<'_>, tokens: &[Token], tally: &Tally, raw: &[u8]) -> bool {
    let (symbols, distances) = (tally.symbols(), &tally.distances[..DISTANCES]);
    let best = Lengths::best(&symbols, distances);
    let header = Header::of(&best);
    let dynamic = header.bits + best.cost(&symbols, distances);
    let fixed = 3 + Lengths::fixed().cost(&symbols, distances);
    let stored = 8 * (raw.len() + 5 * raw.len().div_ceil(STORED_LIMIT) + 1) as u64;
    let smallest = dynamic.min(fixed).min(stored);
    if !bits.has_room(smallest) {
        return false;
    }
    if smallest == stored {
        store(bits, raw);
    } else if smallest == dynamic {
        header.write(bits);
        write(bits, tokens, &best);
    } else {
        bits.put(0b010, 3);
        bits.flush();
        write(bits, tokens, &Lengths::fixed());
    }
    true
}

fn store(bits: &mut Bits<'_>, raw: &[u8]) {
    for piece in raw.chunks(STORED_LIMIT) {
        bits.put(0, 3);
        bits.align();
        let length = piece.len() as u64;
        bits.put(length | (!length & 0xffff) << 16, 32);
        bits.flush();
        bits.out[bits.at..bits.at + piece.len()].copy_from_slice(piece);
        bits.at += piece.len();
    }
}

/// Writes tokens and the end in these codes.
fn write(bits: &mut Bits<'_>, tokens: &[Token], lengths: &Lengths) {
    let (mut symbols, mut distances) = ([0; 288], [0; DISTANCES]);
    code::codes(&lengths.symbols, &mut symbols);
    code::codes(&lengths.distances, &mut distances);
    // For each literal and each length: the code with its extra bits, and above them how many there are.
    let mut plain = [0_u32; 512];
    for literal in 0..END {
        plain[literal] = u32::from(symbols[literal]) | u32::from(lengths.symbols[literal]) << 24;
    }
    for length in 0..256 {
        let symbol = LENGTH_SYMBOL[length] as usize;
        let extra = length as u32 + 3 - u32::from(LENGTH_BASE[symbol]);
        let count = lengths.symbols[END + 1 + symbol];
        plain[END + length] =
            u32::from(symbols[END + 1 + symbol]) | extra << count | u32::from(count + LENGTH_EXTRA[symbol]) << 24;
    }
    // For each distance: the code, how many bits it has, and how many with those that follow.
    let mut far = [0_u32; 32];
    for symbol in 0..DISTANCES {
        let count = lengths.distances[symbol];
        far[symbol] =
            u32::from(distances[symbol]) | u32::from(count) << 16 | u32::from(count + distance_extra(symbol)) << 24;
    }
    debug_assert_eq!(far[NO_DISTANCE as usize], 0);
    emit(bits, tokens, &plain, &far);
    bits.put(symbols[END].into(), lengths.symbols[END].into());
    bits.flush();
}

#[inline(never)]
fn emit(bits: &mut Bits<'_>, tokens: &[Token], plain: &[u32; 512], far: &[u32; 32]) {
    // On the stack, where the compiler keeps them in registers.
    let mut own = Bits { out: &mut *bits.out, at: bits.at, bits: bits.bits, count: bits.count };
    let code = |token: Token| {
        let (near, far) = (plain[(token & 511) as usize], far[(token >> 9 & 31) as usize]);
        let distance = far & 0xffff | (token >> 14) << (far >> 16 & 31);
        (u64::from(near & 0xff_ffff) | u64::from(distance) << (near >> 24), (near >> 24) + (far >> 24))
    };
    let (pairs, rest) = tokens.as_chunks::<2>();
    for &[one, next] in pairs {
        let ((one, count), (next, more)) = (code(one), code(next));
        // Seven bits may be left from before.
        if count + more <= 56 {
            own.put(one | next << count, count + more);
        } else {
            own.put(one, count);
            own.flush();
            own.put(next, more);
        }
        own.flush();
    }
    for &token in rest {
        let (code, count) = code(token);
        own.put(code, count);
        own.flush();
    }
    let Bits { at, bits: left, count, .. } = own;
    (bits.at, bits.bits, bits.count) = (at, left, count);
}
