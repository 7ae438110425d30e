//! How many things are done at once: more while all goes well, half as many when the registry asks for less.
//!
//! Additive increase, multiplicative decrease, as TCP shares a line: what one push may ask of a registry depends on all
//! the others of the same account, which nobody here knows.

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;

use crate::problem::Result;

/// What other clients begin with.
const START: usize = 4;

/// More connections than this fill no line that fewer leave empty, and each has its buffers.
const MOST: usize = 12;

/// How many things may be under way.
#[derive(Debug)]
struct Window(usize);

impl Window {
    fn grow(&mut self) {
        self.0 = (self.0 + 1).min(MOST);
    }

    fn shrink(&mut self) {
        self.0 = (self.0 / 2).max(1);
    }
}

/// Does all `jobs`, begun in their order and several at once; stops at the first that fails, and returns what they gave
/// in the order they ended. `throttled` changes whenever the registry asks for less.
///
/// # Errors
/// The first failure.
pub(super) async fn run<T>(
    jobs: impl IntoIterator<Item = impl Future<Output = Result<T>>>,
    mut throttled: watch::Receiver<u64>,
) -> Result<Vec<T>> {
    let mut jobs = jobs.into_iter();
    let (mut window, mut running, mut done) = (Window(START), FuturesUnordered::new(), Vec::new());
    throttled.mark_unchanged();
    loop {
        while running.len() < window.0
            && let Some(job) = jobs.next()
        {
            running.push(job);
        }
        if running.is_empty() {
            return Ok(done);
        }
        tokio::select! {
            // Requests refused together are one sign: the receiver sees only that something changed.
            Ok(()) = throttled.changed() => window.shrink(),
            Some(outcome) = running.next() => {
                done.push(outcome?);
                window.grow();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::VecDeque;

    use tokio::sync::oneshot;

    use super::*;
    use crate::problem::Problem;

    #[test]
    fn a_window_grows_by_one_and_shrinks_by_half() {
        let mut window = Window(START);
        let mut sizes = Vec::new();
        for grows in [true, true, false, false, false, true, true] {
            if grows {
                window.grow()
            } else {
                window.shrink()
            }
            sizes.push(window.0);
        }
        assert_eq!(sizes, [5, 6, 3, 1, 1, 2, 3]);
        (0..100).for_each(|_| window.grow());
        assert_eq!(window.0, MOST);
    }

    #[tokio::test]
    async fn fewer_run_at_once_after_the_registry_asked_for_less() {
        async fn others() {
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
        }
        let (throttle, receiver) = watch::channel(0);
        let started = Cell::new(0);
        let (release, mut waiting): (Vec<_>, Vec<_>) = (0..8).map(|_| oneshot::channel::<()>()).unzip();
        let mut release: VecDeque<_> = release.into();
        let jobs = waiting.drain(..).map(|waiting| async {
            started.set(started.get() + 1);
            waiting.await.map_err(|_| Problem::failed("let go"))
        });
        let drive = async {
            others().await;
            assert_eq!(started.get(), START);
            throttle.send_modify(|times| *times += 1);
            for expected in [4, 6, 8] {
                others().await;
                let next = release.pop_front().expect("another job");
                next.send(()).expect("a job that waits");
                others().await;
                assert_eq!(started.get(), expected);
            }
            release.into_iter().for_each(|next| next.send(()).expect("a job that waits"));
        };
        let (done, ()) = tokio::join!(run(jobs, receiver), drive);
        assert_eq!(done.expect("all done").len(), 8);
    }
}
