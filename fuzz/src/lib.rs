//! What targets share: parts of an input, and tars whose checksums are right.

/// Splits an input into parts: what lies between lines of `-----`, which no part needs for itself.
pub fn halves(data: &[u8]) -> (&[u8], &[u8]) {
    const MARK: &[u8] = b"\n-----\n";
    match data.windows(MARK.len()).position(|window| window == MARK) {
        Some(at) => (&data[..at], &data[at + MARK.len()..]),
        None => (data, &[]),
    }
}

/// Gives every block that looks like a header of a tar the checksum it should have: a fuzzer would never find it.
pub fn with_checksums(data: &[u8]) -> Vec<u8> {
    let mut tar = data.to_vec();
    for block in tar.chunks_exact_mut(512).filter(|block| block[257..262] == *b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    tar
}
