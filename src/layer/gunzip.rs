//! Reads gzip as others wrote it: several members, and garbage behind the last, are facts and no errors.
//!
//! Unpackers differ in what they do with either, which is why the checks want to know of them.

use std::io::{self, BufRead, Read};

use flate2::bufread::GzDecoder;
use serde::{Deserialize, Serialize};

/// The first bytes of a member (RFC 1952, 2.3.1).
pub(crate) const MAGIC: [u8; 2] = [0x1f, 0x8b];

/// How a gzip stream is framed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GzipFacts {
    /// How many members there are.
    pub members: u64,
    /// Bytes behind the last member that begin no other.
    pub trailing_bytes: u64,
}

/// Decompresses all members of a gzip stream.
#[derive(Debug)]
pub struct Members<R> {
    state: State<R>,
    facts: GzipFacts,
}

#[derive(Debug)]
enum State<R> {
    Inside(Box<GzDecoder<R>>),
    /// Behind the last member.
    Over,
}

impl<R: BufRead> Members<R> {
    /// The members of `compressed`, of which there must be one at least.
    pub fn new(compressed: R) -> Self {
        let facts = GzipFacts { members: 1, trailing_bytes: 0 };
        Self { state: State::Inside(Box::new(GzDecoder::new(compressed))), facts }
    }

    /// How the stream is framed, as far as it was read.
    pub fn facts(&self) -> GzipFacts {
        self.facts
    }

    /// Behind a member: on to the next one, or over what is no member.
    fn next(&mut self) -> io::Result<()> {
        let State::Inside(decoder) = std::mem::replace(&mut self.state, State::Over) else { return Ok(()) };
        let mut rest = decoder.into_inner();
        // A member that begins at the very end of the buffer shows one byte of its magic, which garbage may have too.
        if rest.fill_buf()?.first() == Some(&MAGIC[0]) {
            self.facts.members += 1;
            self.state = State::Inside(Box::new(GzDecoder::new(rest)));
            return Ok(());
        }
        loop {
            let count = rest.fill_buf()?.len();
            if count == 0 {
                return Ok(());
            }
            self.facts.trailing_bytes += count as u64;
            rest.consume(count);
        }
    }
}

impl<R: BufRead> Read for Members<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let State::Inside(decoder) = &mut self.state else { return Ok(0) };
            match decoder.read(buffer)? {
                0 => self.next()?,
                count => return Ok(count),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Write as _};

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn member(content: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(content).expect("compressed");
        encoder.finish().expect("compressed")
    }

    fn read(bytes: &[u8], buffer: usize) -> io::Result<(Vec<u8>, GzipFacts)> {
        let mut members = Members::new(BufReader::with_capacity(buffer, bytes));
        let mut content = Vec::new();
        members.read_to_end(&mut content)?;
        Ok((content, members.facts()))
    }

    #[test]
    fn members_and_what_follows_them_are_counted() {
        for buffer in [1, 7, 4096] {
            for (bytes, content, members, trailing_bytes) in [
                (member(b"abc"), &b"abc"[..], 1, 0),
                ([member(b"abc"), member(b"de")].concat(), b"abcde", 2, 0),
                ([member(b""), member(b""), member(b"x")].concat(), b"x", 3, 0),
                ([member(b"abc"), vec![0; 700]].concat(), b"abc", 1, 700),
                ([member(b"abc"), b"junk".to_vec()].concat(), b"abc", 1, 4),
            ] {
                let facts = GzipFacts { members, trailing_bytes };
                assert_eq!(read(&bytes, buffer).expect("read"), (content.to_vec(), facts), "{buffer}");
            }
        }
    }

    #[test]
    fn damage_is_an_error() {
        let whole = member(b"some text that is long enough to be cut");
        for length in 0..whole.len() {
            assert!(read(&whole[..length], 4096).is_err(), "cut to {length}");
        }
        assert!(read(&[whole.clone(), vec![0x1f]].concat(), 4096).is_err(), "a member of one byte");
        let mut flipped = whole;
        let last = flipped.len() - 1;
        flipped[last] ^= 1;
        assert!(read(&flipped, 4096).is_err());
    }
}
