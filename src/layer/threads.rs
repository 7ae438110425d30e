//! The threads that compress and the one budget of blocks that all layers in flight share.
//!
//! Memory is bounded by the budget whatever the number of threads and layers: a block is taken when a layer's bytes
//! arrive and given back when they have passed the sink. No thread waits for a block while holding one that
//! others need, since a block once filled reaches the sink without a second one; so waiting always ends.

use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use super::gzip::{BLOCK_BYTES, Block, Compressor};

/// What blocks, each with room for as much again compressed, and the threads' own tables have together.
const BUDGET_BYTES: usize = 48 << 20;

/// The tables of one thread's compressor: peak memory grew by 0.3 MB a thread (zlib-rs 0.6, level 2).
const COMPRESSOR_BYTES: usize = 300 << 10;

/// More would have no block to work on.
const MOST_THREADS: usize = 20;

/// How many blocks a thread may have waiting: a layer that compresses must not take all blocks, or those that are
/// stored would go no faster.
const WAITING: usize = 2;

/// How many of `asked` threads there are to be.
fn threads(asked: usize) -> usize {
    asked.clamp(1, MOST_THREADS)
}

/// How many blocks that leaves: memory is the same with one thread and with many.
fn blocks(threads: usize) -> usize {
    (BUDGET_BYTES - threads * COMPRESSOR_BYTES) / (2 * BLOCK_BYTES)
}

/// Blocks to be borrowed, made when first needed.
#[derive(Debug)]
pub(super) struct Budget {
    state: Mutex<State>,
    returned: Condvar,
}

#[derive(Debug)]
struct State {
    free: Vec<Block>,
    /// How many more may be made.
    unmade: usize,
}

impl Budget {
    /// The blocks beside `asked` compressing threads.
    pub(super) fn new(asked: usize) -> Self {
        let unmade = blocks(threads(asked));
        Self { state: Mutex::new(State { free: Vec::new(), unmade }), returned: Condvar::new() }
    }

    /// Waits for a block; it comes back empty.
    pub(super) fn take(&self) -> Block {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(mut block) = state.free.pop() {
                block.filled = 0;
                return block;
            }
            if state.unmade > 0 {
                state.unmade -= 1;
                return Block::new();
            }
            state = self.returned.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub(super) fn give_back(&self, block: Block) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).free.push(block);
        self.returned.notify_one();
    }
}

/// A block to compress, and where it goes then.
struct Job {
    block: Block,
    level: u32,
    done: SyncSender<Block>,
}

/// As [`Compressors::compress`], for a block that needs none.
pub(super) fn done(block: Block) -> Receiver<Block> {
    let (done, result) = mpsc::sync_channel(1);
    // There is room for one.
    let _ = done.send(block);
    result
}

/// Threads that compress blocks in the order they come.
#[derive(Debug)]
pub(super) struct Compressors {
    jobs: Option<SyncSender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

impl Compressors {
    /// As many threads as are `asked` for and of use.
    pub(super) fn new(asked: usize) -> Self {
        let (jobs, queue) = mpsc::sync_channel::<Job>(WAITING * threads(asked));
        let queue = Arc::new(Mutex::new(queue));
        let work = |queue: Arc<Mutex<Receiver<Job>>>| {
            move || {
                let mut compressor = Compressor::new();
                loop {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(Job { mut block, level, done }) = next else { return };
                    compressor.compress(&mut block, level);
                    // Nobody waits for it any more if its layer failed; the block is gone then, and so is the build.
                    let _ = done.send(block);
                }
            }
        };
        let threads = (0..threads(asked)).map(|_| thread::spawn(work(Arc::clone(&queue)))).collect();
        Self { jobs: Some(jobs), threads }
    }

    /// Hands a block over, once there is room for it among those that wait; what is returned yields it back compressed.
    pub(super) fn compress(&self, block: Block, level: u32) -> Receiver<Block> {
        let (done, result) = mpsc::sync_channel(1);
        if let Some(jobs) = &self.jobs {
            // The threads live as long as `self`; were they gone, the receiver would say so.
            let _ = jobs.send(Job { block, level, done });
        }
        result
    }
}

impl Drop for Compressors {
    fn drop(&mut self) {
        drop(self.jobs.take());
        for thread in self.threads.drain(..) {
            // A panic was already seen by the layer whose block it held.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_and_blocks_share_one_budget() {
        for (asked, expected) in [(0, (1, 23)), (1, (1, 23)), (2, (2, 23)), (16, (16, 21)), (256, (20, 21))] {
            let threads = threads(asked);
            assert_eq!((threads, blocks(threads)), expected, "{asked}");
            assert!(threads <= blocks(threads));
            assert!(threads * COMPRESSOR_BYTES + blocks(threads) * 2 * BLOCK_BYTES <= BUDGET_BYTES);
        }
    }
}
