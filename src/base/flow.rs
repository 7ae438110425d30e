//! A base layer's bytes on their way from wire or file to whoever writes or reads them, on a thread that may block.
//!
//! Whoever brings them may have to begin anew; what became of them counts only once they came to their proper end.

use std::io::{self, Read, Write as _};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::document;
use crate::event::{Session, Task};
use crate::oci::{Descriptor, HashingWriter};
use crate::problem::{IoContext as _, Problem, Result};
use crate::registry::pull::Piece;

/// Where the bytes of a layer come out.
pub(super) enum Feed {
    Channel(mpsc::Receiver<Piece>),
    Reader { reader: Box<dyn Read + Send>, size: u64, session: Session },
}

/// What happens to the bytes.
pub(super) enum Step<'a> {
    Bytes(&'a [u8]),
    Restart,
}

impl Feed {
    /// Hands everything to `step`; success means that the source came to its proper end.
    pub(super) fn drain(self, mut step: impl FnMut(Step<'_>) -> Result<()>) -> Result<()> {
        match self {
            Self::Channel(mut receiver) => loop {
                match receiver.blocking_recv() {
                    Some(Piece::Bytes(bytes)) => step(Step::Bytes(&bytes))?,
                    Some(Piece::Restart) => step(Step::Restart)?,
                    Some(Piece::End) => return Ok(()),
                    None => return Err(Problem::failed("the layer did not come to its end")),
                }
            },
            Self::Reader { mut reader, size, session } => {
                let mut buffer = vec![0; 128 * 1024];
                let mut left = size;
                loop {
                    session.check()?;
                    let count = reader.read(&mut buffer).or_failed(|| "could not read it".to_owned())?;
                    if count == 0 {
                        return Ok(());
                    }
                    left = left
                        .checked_sub(count as u64)
                        .ok_or_else(|| Problem::failed(format!("it is longer than the {size} bytes it should have")))
                        .map_err(|problem| problem.help(document::REMAKE))?;
                    step(Step::Bytes(&buffer[..count]))?;
                }
            }
        }
    }

    /// Has `work` read everything, again from the start if the source began anew; what it made counts only once all
    /// bytes were the right ones.
    pub(super) fn read<T>(
        self,
        descriptor: &Descriptor,
        mut work: impl FnMut(&mut dyn Read) -> Result<T>,
    ) -> Result<T> {
        match self {
            Self::Channel(mut receiver) => loop {
                let mut pieces = Pieces { receiver: &mut receiver, piece: Bytes::new(), state: State::Flowing };
                let made = work(&mut pieces).and_then(|made| rest(&mut pieces).map(|()| made));
                if made.as_ref().is_err_and(is_about_the_bytes) {
                    // Whoever brings them finds out at their end whether they are the right ones, and begins anew if not.
                    let _ = rest(&mut pieces);
                }
                if pieces.state != State::Restarted {
                    return made;
                }
            },
            Self::Reader { reader, size, .. } => {
                let mut hashed =
                    Hashed { reader: reader.take(size.saturating_add(1)), hasher: HashingWriter::new(io::sink()) };
                let made = work(&mut hashed)?;
                rest(&mut hashed)?;
                let (_, digest, count) = hashed.hasher.finish();
                if (digest, count) == (descriptor.digest, descriptor.size) {
                    return Ok(made);
                }
                Err(Problem::failed(format!(
                    "it is {digest} of {count} bytes, and should be {} of {}",
                    descriptor.digest, descriptor.size
                ))
                .help("write the image anew, or take another"))
            }
        }
    }
}

/// Whether work failed by what it read, and not by what it wrote.
fn is_about_the_bytes(problem: &Problem) -> bool {
    use io::ErrorKind::{InvalidData, InvalidInput, Other, UnexpectedEof};
    matches!(problem.io_kind(), None | Some(InvalidData | InvalidInput | Other | UnexpectedEof))
}

/// Reads what follows a gzip stream's end, so that all is verified.
fn rest(reader: &mut dyn Read) -> Result<()> {
    io::copy(reader, &mut io::sink()).map(drop).or_failed(|| "could not read it".to_owned())
}

/// What became of the bytes of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Flowing,
    Restarted,
    Ended,
}

/// The pieces of a channel as one stream.
struct Pieces<'a> {
    receiver: &'a mut mpsc::Receiver<Piece>,
    piece: Bytes,
    state: State,
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() && self.state == State::Flowing {
            match self.receiver.blocking_recv() {
                Some(Piece::Bytes(bytes)) => self.piece = bytes,
                Some(Piece::Restart) => self.state = State::Restarted,
                Some(Piece::End) => self.state = State::Ended,
                None => return Err(io::Error::other("the layer did not come to its end")),
            }
        }
        match self.state {
            State::Flowing => {
                let count = buffer.len().min(self.piece.len());
                buffer[..count].copy_from_slice(&self.piece.split_to(count));
                Ok(count)
            }
            State::Ended => Ok(0),
            State::Restarted => Err(io::Error::other("the layer is sent anew")),
        }
    }
}

/// A reader whose bytes are hashed.
struct Hashed<R> {
    reader: R,
    hasher: HashingWriter<io::Sink>,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.hasher.write_all(&buffer[..count])?;
        Ok(count)
    }
}

/// A reader that tells how far it got.
pub(super) struct Counted<'a, R> {
    pub(super) inner: R,
    pub(super) task: &'a Task,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.task.advance(count as u64);
        Ok(count)
    }
}
