//! Waiting: until Lambda is done with the last change of a function, and before the next try after a refusal.
//!
//! All waits of a function share one deadline, and all end at once when the session is asked to stop.

use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

use super::Patience;
use super::pass::{Stop, Work};
use crate::aws::lambda::function::{Function, State};
use crate::aws::lambda::refusal::{Refusal, Why};
use crate::event::{Event, Session};
use crate::problem::{Problem, Result};

/// How often a request to stop is looked for.
const STOP_INTERVAL: Duration = Duration::from_millis(100);

/// Looks that fail one after another before the way to Lambda counts as gone; the SDK tries each three times.
const MAX_FAILED_LOOKS: usize = 8;

/// Changes by others between our look and our change before this gives up: whoever it is will not stop.
const MAX_CHANGES: usize = 5;

/// Runs a future to its end, unless the session is asked to stop.
pub(super) async fn unless_stopped<T>(session: &Session, work: impl Future<Output = T>) -> Result<T> {
    let mut work = std::pin::pin!(work);
    loop {
        session.check()?;
        if let Ok(done) = tokio::time::timeout(STOP_INTERVAL, &mut work).await {
            return Ok(done);
        }
    }
}

/// Delays that grow to the most that there may be between two looks, and stay there.
pub(super) fn delays(patience: &Patience) -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(patience.first_delay)
        .with_max_delay(patience.max_delay)
        .with_factor(1.5)
        .with_jitter()
        .without_max_times()
        .build()
}

impl Work<'_> {
    /// The function, or a version of it, once Lambda is done with its last change; `None` if there is none.
    pub(super) async fn at_rest(&self, version: Option<&str>) -> Result<Option<Function>, Stop> {
        let name = self.deployment.asked.function.for_api();
        let mut delays = delays(self.patience);
        let mut failed_looks = 0;
        let mut told: Option<Instant> = None;
        loop {
            let look = unless_stopped(self.session, self.lambda.function(&name, version)).await?;
            let doing = match look {
                Ok(Some(function)) if function.is_busy() => doing(&function),
                Ok(found) => return Ok(found),
                Err(refusal) if refusal.why == Why::Passing && failed_looks < MAX_FAILED_LOOKS => {
                    failed_looks += 1;
                    let delay = delays.next().unwrap_or(self.patience.max_delay);
                    self.retrying(&refusal.problem, delay);
                    self.sleep(delay, || refusal.problem).await?;
                    continue;
                }
                Err(refusal) => return Err(Stop::Failed(refusal.problem)),
            };
            failed_looks = 0;
            if told.is_none_or(|told| told.elapsed() >= self.patience.told_every) {
                told = Some(Instant::now());
                let name = self.deployment.asked.function.name();
                let (elapsed, limit) = (self.begun.elapsed(), self.limit);
                self.session.emit(&Event::FunctionWaiting { name, version, doing, elapsed, limit });
            }
            let delay = delays.next().unwrap_or(self.patience.max_delay);
            self.sleep(delay, || self.out_of_time(version, doing)).await?;
        }
    }

    /// Sleeps, unless that would be past the deadline: then the problem it is.
    pub(super) async fn sleep(&self, delay: Duration, late: impl FnOnce() -> Problem) -> Result<()> {
        let left = self.limit.saturating_sub(self.begun.elapsed());
        if left.is_zero() {
            return Err(late());
        }
        unless_stopped(self.session, tokio::time::sleep(delay.min(left))).await
    }

    pub(super) fn retrying(&self, problem: &Problem, delay: Duration) {
        let what = format!("function `{}`", self.deployment.asked.function);
        let causes = problem.causes();
        let why = causes.first().map_or(problem.message(), String::as_str);
        self.session.emit(&Event::Retrying { what: &what, why, delay });
    }

    fn out_of_time(&self, version: Option<&str>, doing: &str) -> Problem {
        let limit = match self.limit.as_secs_f64().ceil() as u64 {
            seconds @ 0..60 => format!("{seconds} s"),
            seconds => format!("{} min", seconds.div_ceil(60)),
        };
        let what = match version {
            Some(version) => format!("version {version} of function `{}`", self.deployment.asked.function),
            None => format!("function `{}`", self.deployment.asked.function),
        };
        Problem::failed(format!("{what} is still {doing} after {limit}"))
            .help("run this again, which goes on from here: nothing is sent twice; `--wait` sets how long it waits")
    }
}

/// What Lambda is busy with, in the words of its API.
fn doing(function: &Function) -> &'static str {
    if function.state == State::Pending { "Pending" } else { "InProgress" }
}

/// The tries of one function after refusals that pass.
pub(super) struct Tries {
    delays: ExponentialBackoff,
    max_delay: Duration,
    changes: usize,
    role_unknown_since: Option<Instant>,
    image_unknown_since: Option<Instant>,
}

impl Tries {
    pub(super) fn new(patience: &Patience) -> Self {
        Self {
            delays: delays(patience),
            max_delay: patience.max_delay,
            changes: 0,
            role_unknown_since: None,
            image_unknown_since: None,
        }
    }

    /// Waits before another pass, or returns the problem if there is to be none.
    pub(super) async fn wait(&mut self, refusal: Refusal, work: &Work<'_>) -> Result<()> {
        let is_enough = match refusal.why {
            Why::Changed => {
                self.changes += 1;
                self.changes >= MAX_CHANGES
            }
            Why::RoleUnknown => {
                let since = *self.role_unknown_since.get_or_insert_with(Instant::now);
                since.elapsed() >= work.patience.role
            }
            Why::ImageUnknown => {
                let since = *self.image_unknown_since.get_or_insert_with(Instant::now);
                since.elapsed() >= work.patience.image
            }
            Why::Conflict | Why::Passing => false,
            Why::Absent | Why::Other => true,
        };
        if is_enough {
            return Err(refusal.problem);
        }
        let delay = self.delays.next().unwrap_or(self.max_delay);
        work.retrying(&refusal.problem, delay);
        work.sleep(delay, || refusal.problem).await
    }
}
