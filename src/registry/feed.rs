//! The bytes of a blob on their way into a request: made anew for every try, handed over through a short channel.
//!
//! Who makes them may block; the wire may not. What is in between is bounded, so memory does not grow with a blob. The
//! last piece is withheld until the maker says that all of it was right, so that what is wrong is never complete.

use std::fmt;
use std::io::{self, Write};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, Sleep};

use super::pull::Piece;
use crate::oci::{Digest, HashingWriter};
use crate::problem::{Problem, Result};

/// How large pieces are made. A connection that takes less than one within the stall limit counts as standing still.
pub const PIECE_BYTES: usize = 128 * 1024;

/// How many pieces may wait for the wire: enough to keep it busy while a block is compressed, 1 MiB in all.
pub(super) const WAITING_PIECES: usize = 8;

/// How long a body that broke before waits for an early answer: a round trip around the world.
const LISTEN: Duration = Duration::from_millis(250);

/// A blob as its maker left it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Made {
    /// The digest of all its bytes.
    pub digest: Digest,
    /// Their number.
    pub size: u64,
}

/// Makes a blob's bytes whenever they are needed, the same each time.
#[derive(Clone)]
pub struct Source(Arc<dyn Fn(mpsc::Sender<Piece>) -> BoxFuture<'static, Result<Made>> + Send + Sync>);

impl Source {
    /// A source that sends pieces and then tells what they were. It ends with an error when nobody takes them, and may
    /// be dropped at any time.
    pub fn new(make: impl Fn(mpsc::Sender<Piece>) -> BoxFuture<'static, Result<Made>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(make))
    }

    /// A source that blocks, and so runs on a thread of its own.
    pub fn blocking(make: impl Fn(PieceWriter) -> Result<Made> + Send + Sync + 'static) -> Self {
        let make = Arc::new(make);
        Self::new(move |pieces| {
            let make = make.clone();
            Box::pin(async move {
                let made = tokio::task::spawn_blocking(move || make(PieceWriter::new(pieces))).await;
                made.map_err(|error| Problem::failed("making the bytes of a blob failed").because(error))?
            })
        })
    }

    /// A source of bytes that are there already: a config.
    #[must_use]
    pub fn bytes(bytes: Bytes) -> Self {
        let made = Made { digest: Digest::of(&bytes), size: bytes.len() as u64 };
        Self::new(move |pieces| {
            let bytes = bytes.clone();
            Box::pin(async move {
                pieces.send(Piece::Bytes(bytes)).await.map_err(|_| unwanted())?;
                Ok(made)
            })
        })
    }

    pub(super) fn make(&self, pieces: mpsc::Sender<Piece>) -> BoxFuture<'static, Result<Made>> {
        (self.0)(pieces)
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Source")
    }
}

fn unwanted() -> Problem {
    Problem::failed("nobody takes the blob's bytes any more")
}

/// Takes bytes from a thread that may block, hashes them and hands them over piece by piece.
#[derive(Debug)]
pub struct PieceWriter(HashingWriter<Pieces>);

/// As [`PieceWriter`], for bytes that somebody else hashes.
#[derive(Debug)]
pub struct Pieces {
    pieces: mpsc::Sender<Piece>,
    piece: BytesMut,
}

impl PieceWriter {
    fn new(pieces: mpsc::Sender<Piece>) -> Self {
        Self(HashingWriter::new(Pieces { pieces, piece: BytesMut::new() }))
    }

    /// Hands over what is left, and tells what all of it was.
    ///
    /// # Errors
    /// When nobody takes it.
    pub fn finish(self) -> Result<Made> {
        let (pieces, digest, size) = self.0.finish();
        pieces.finish()?;
        Ok(Made { digest, size })
    }

    /// For bytes that somebody else hashes, before the first of them.
    #[must_use]
    pub fn unhashed(self) -> Pieces {
        self.0.finish().0
    }
}

impl Write for PieceWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Pieces {
    /// Hands over what is left.
    ///
    /// # Errors
    /// When nobody takes it.
    pub fn finish(mut self) -> Result<()> {
        self.send().map_err(|_| unwanted())
    }

    fn send(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::take(&mut self.piece).freeze();
        self.pieces.blocking_send(Piece::Bytes(piece)).map_err(|_| unwanted().into())
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.piece.capacity() == 0 {
            self.piece.reserve(PIECE_BYTES);
        }
        let count = bytes.len().min(PIECE_BYTES - self.piece.len());
        self.piece.extend_from_slice(&bytes[..count]);
        if self.piece.len() == PIECE_BYTES {
            self.send()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a body is waiting for.
#[derive(Debug, Clone, Copy)]
enum Phase {
    /// The wire, which took something last at this time.
    Wire(Instant),
    /// Its maker: that is nobody's fault.
    Maker,
    /// An answer, since all of it was taken or it was given up.
    Answer(Instant),
}

/// Why a body cannot be what was promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Its maker began anew, so that what was sent is void.
    Restarted,
    /// There are more bytes than there should be.
    TooLong,
}

#[derive(Debug)]
struct Watched {
    phase: Phase,
    taken_bytes: u64,
    fault: Option<Fault>,
    gone: bool,
}

/// Sees how a body gets on. A read timeout would run while gigabytes are sent; this one runs while nothing moves.
#[derive(Debug, Clone)]
pub(super) struct Watch(Arc<Mutex<Watched>>);

impl Watch {
    pub(super) fn new() -> Self {
        let phase = Phase::Wire(Instant::now());
        Self(Arc::new(Mutex::new(Watched { phase, taken_bytes: 0, fault: None, gone: false })))
    }

    /// Bytes that the connection has taken so far.
    pub(super) fn taken_bytes(&self) -> u64 {
        self.with(|watched| watched.taken_bytes)
    }

    /// What the body itself found wrong.
    pub(super) fn fault(&self) -> Option<Fault> {
        self.with(|watched| watched.fault)
    }

    /// Whether nobody takes the body any more.
    pub(super) fn is_gone(&self) -> bool {
        self.with(|watched| watched.gone)
    }

    /// Ends when the wire took nothing for `stall`, or no answer came within `answer` of the last byte; says which.
    pub(super) async fn stalled(&self, stall: Duration, answer: impl Fn() -> Duration) -> &'static str {
        loop {
            let (end, what) = match self.with(|watched| watched.phase) {
                Phase::Wire(since) => (since + stall, "it takes no more bytes"),
                Phase::Answer(since) => (since + answer(), "it took everything and does not answer"),
                Phase::Maker => {
                    tokio::time::sleep(stall).await;
                    continue;
                }
            };
            if end <= Instant::now() {
                return what;
            }
            tokio::time::sleep_until(end).await;
        }
    }

    fn set(&self, phase: Phase) {
        self.with(|watched| watched.phase = phase);
    }

    fn with<T>(&self, look: impl FnOnce(&mut Watched) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Told how many more bytes a connection has taken.
pub(super) type Taken = Arc<dyn Fn(u64) + Send + Sync>;

/// The body of a request.
pub(super) struct Feed {
    pieces: mpsc::Receiver<Piece>,
    /// The piece that is only handed over when there is another, or the verdict.
    held: Option<Bytes>,
    /// Comes when all bytes were made and are right.
    verdict: oneshot::Receiver<()>,
    /// How many bytes there may be.
    limit: u64,
    passed: u64,
    watch: Watch,
    taken: Taken,
    /// Whether to let the connection look for an answer first: one that came early would be lost in a broken pipe.
    pause: bool,
    /// Whether the last piece was handed over.
    complete: bool,
    /// Whether to give the other side time for an answer once the first piece is out.
    listens_first: bool,
    listening: Option<Pin<Box<Sleep>>>,
}

/// Why a body ended early: the connection is closed then, and whoever sends knows the cause.
#[derive(Debug, thiserror::Error)]
#[error("the body was given up")]
pub(super) struct GivenUp;

impl Feed {
    pub(super) fn new(
        pieces: mpsc::Receiver<Piece>,
        verdict: oneshot::Receiver<()>,
        limit: Option<u64>,
        watch: Watch,
        taken: Taken,
    ) -> Self {
        let limit = limit.unwrap_or(u64::MAX);
        let (held, passed, pause, complete) = (None, 0, false, false);
        let (listens_first, listening) = (false, None);
        Self { pieces, held, verdict, limit, passed, watch, taken, pause, complete, listens_first, listening }
    }

    /// Waits a little after the first piece. A server that refuses early and closes is heard only if its answer is read
    /// before the next write fails; so where one try broke, the next listens first.
    pub(super) fn listen_first(mut self, listens_first: bool) -> Self {
        self.listens_first = listens_first;
        self
    }

    /// What comes next: a piece to hand over, the end, or that it is all over.
    fn next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, GivenUp>>> {
        loop {
            match ready!(self.pieces.poll_recv(context)) {
                Some(Piece::Bytes(bytes)) if bytes.is_empty() => {}
                Some(Piece::Bytes(bytes)) => {
                    self.passed += bytes.len() as u64;
                    if self.passed > self.limit {
                        self.watch.with(|watched| watched.fault = Some(Fault::TooLong));
                        return Poll::Ready(Some(Err(GivenUp)));
                    }
                    if let Some(piece) = self.held.replace(bytes) {
                        return Poll::Ready(Some(Ok(piece)));
                    }
                }
                Some(Piece::Restart) => {
                    self.watch.with(|watched| watched.fault = Some(Fault::Restarted));
                    return Poll::Ready(Some(Err(GivenUp)));
                }
                Some(Piece::End) => {}
                None => {
                    if self.complete {
                        return Poll::Ready(None);
                    }
                    let verdict = ready!(Pin::new(&mut self.verdict).poll(context));
                    return Poll::Ready(Some(match (verdict, self.held.take()) {
                        (Ok(()), Some(piece)) => {
                            self.complete = true;
                            Ok(piece)
                        }
                        _ => Err(GivenUp),
                    }));
                }
            }
        }
    }
}

impl Stream for Feed {
    type Item = Result<Bytes, GivenUp>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if std::mem::take(&mut self.pause) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        if let Some(listening) = &mut self.listening {
            ready!(listening.as_mut().poll(context));
            self.listening = None;
        }
        let next = self.next(context);
        match &next {
            Poll::Pending => self.watch.set(Phase::Maker),
            Poll::Ready(None | Some(Err(_))) => {}
            Poll::Ready(Some(Ok(piece))) => {
                let (count, complete, now) = (piece.len() as u64, self.complete, Instant::now());
                self.pause = !complete;
                if std::mem::take(&mut self.listens_first) && !complete {
                    self.listening = Some(Box::pin(tokio::time::sleep(LISTEN)));
                }
                self.watch.with(|watched| {
                    // With a length given, nobody asks what comes after the last piece.
                    watched.phase = if complete { Phase::Answer(now) } else { Phase::Wire(now) };
                    watched.taken_bytes += count;
                });
                (self.taken)(count);
            }
        }
        next
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.watch.with(|watched| {
            if !matches!(watched.phase, Phase::Answer(_)) {
                watched.phase = Phase::Answer(Instant::now());
            }
            watched.gone = true;
        });
    }
}
