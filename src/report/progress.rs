//! The bars of tasks that run, with rates and the time left.
//!
//! A bar is a line that never wraps, whatever the terminal's width: what does not fit is left out, the name is cut.

use std::fmt::Write;

use indicatif::{HumanDuration, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::screen::Screen;
use crate::units;

/// Bars shown at once: more would scroll a small terminal.
const MAX_BARS: usize = 8;
/// How often a second bars are drawn at most.
const DRAWS_PER_SECOND: u8 = 10;

/// All bars. Lines are printed above them.
#[derive(Debug)]
pub(super) struct Bars {
    multi: MultiProgress,
    screen: Screen,
}

impl Bars {
    pub(super) fn new(screen: Screen) -> Self {
        let target = ProgressDrawTarget::term_like_with_hz(Box::new(screen.clone()), DRAWS_PER_SECOND);
        Self { multi: MultiProgress::with_draw_target(target), screen }
    }

    /// A bar for a task; `running` bars are shown already. `verb` is painted and 12 columns wide.
    pub(super) fn add(
        &self,
        verb: String,
        name: &str,
        total_bytes: Option<u64>,
        running: usize,
    ) -> Option<ProgressBar> {
        if running >= MAX_BARS {
            return None;
        }
        let columns = self.screen.columns().unwrap_or(u16::MAX);
        let bar = total_bytes.map_or_else(ProgressBar::no_length, ProgressBar::new);
        let bar = self.multi.add(bar);
        bar.set_style(style(columns, total_bytes.is_some()));
        bar.set_prefix(verb);
        bar.set_message(name.to_owned());
        Some(bar)
    }

    /// Prints whole lines above the bars.
    pub(super) fn print(&self, text: &str) {
        self.multi.suspend(|| self.screen.print(text));
    }

    /// Takes all bars off the screen.
    pub(super) fn clear(&self) {
        let _ = self.multi.clear();
    }
}

fn template(columns: u16, known_total: bool) -> &'static str {
    match (known_total, columns) {
        (true, 110..) => "{prefix} {wide_msg} [{bar:20}] {done:>10} of {total} {rate:>12} {left:>8}",
        (true, 75..) => "{prefix} {wide_msg} [{bar:10}] {percent:>3}% {rate:>12} {left:>8}",
        (true, 60..) => "{prefix} {wide_msg} {percent:>3}% {rate:>12} {left:>8}",
        (true, 24..) => "{prefix} {wide_msg} {percent:>3}%",
        (true, _) => "{percent:>3}% {wide_msg}",
        (false, 60..) => "{prefix} {wide_msg} {done:>10} {rate:>12}",
        (false, 30..) => "{prefix} {wide_msg} {done:>10}",
        (false, _) => "{wide_msg}",
    }
}

fn style(columns: u16, known_total: bool) -> ProgressStyle {
    // Writing to a String cannot fail, and the trait has no way to say so.
    ProgressStyle::with_template(template(columns, known_total))
        .expect("the templates above are well-formed")
        .progress_chars("=> ")
        .with_key("done", |state: &ProgressState, text: &mut dyn Write| {
            let _ = text.write_str(&units::size(state.pos()));
        })
        .with_key("total", |state: &ProgressState, text: &mut dyn Write| {
            let _ = text.write_str(&units::size(state.len().unwrap_or_default()));
        })
        .with_key("rate", |state: &ProgressState, text: &mut dyn Write| {
            let _ = write!(text, "{}/s", units::size(state.per_sec() as u64));
        })
        .with_key("left", |state: &ProgressState, text: &mut dyn Write| {
            let _ = write!(text, "{:#} left", HumanDuration(state.eta()));
        })
}
