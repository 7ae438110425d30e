//! The bars of tasks that run, and of a push as a whole, with rates and the time left.
//!
//! A bar is a line that never wraps, whatever the terminal's width: what does not fit is left out, the name is cut.

use std::fmt::Write;

use indicatif::{
    HumanDuration, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle, TermLike as _,
};

use super::screen::Screen;
use crate::event::{PushPlan, PushStep, PushedLayer};
use crate::units;

/// Bars of tasks shown at once: more would scroll a small terminal.
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
        let bar = total_bytes.map_or_else(ProgressBar::no_length, ProgressBar::new);
        let bar = self.multi.add(bar);
        self.describe(&bar, verb, name);
        Some(bar)
    }

    /// A bar above those of tasks, for several of them together.
    pub(super) fn add_above(&self, verb: String, name: &str, total_bytes: u64) -> ProgressBar {
        let bar = self.multi.insert(0, ProgressBar::new(total_bytes));
        self.describe(&bar, verb, name);
        bar
    }

    fn describe(&self, bar: &ProgressBar, verb: String, name: &str) {
        bar.set_style(style(self.screen.width(), bar.length().is_some()));
        bar.set_prefix(verb);
        bar.set_message(name.to_owned());
    }

    /// Prints whole lines above the bars.
    pub(super) fn print(&self, text: &str) {
        self.multi.suspend(|| self.screen.draw(text));
        self.screen.show();
    }

    /// Takes all bars off the screen.
    pub(super) fn clear(&self) {
        let _ = self.multi.clear();
    }
}

/// A push as a whole: the bytes of all layers that have to move.
#[derive(Debug)]
pub(super) struct Total {
    bar: ProgressBar,
    layers_left: usize,
}

impl Total {
    /// `None` where there is nothing to add up, or it is over before it is read.
    pub(super) fn of(plan: &PushPlan, least_bytes: u64, bar: impl FnOnce(u64) -> ProgressBar) -> Option<Self> {
        let bytes = plan.mounted_bytes.saturating_add(plan.relayed_bytes).saturating_add(plan.uploaded_bytes);
        let moving = plan.layers.iter().filter(|layer| layer.step != PushStep::Reuse).count();
        (moving > 1 && bytes >= least_bytes).then(|| Self { bar: bar(bytes), layers_left: plan.layers.len() })
    }

    /// So many bytes more are there.
    pub(super) fn advance(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    /// So many bytes were sent in vain: the next try begins anew.
    pub(super) fn lose(&self, bytes: u64) {
        self.bar.dec(bytes);
    }

    /// So many bytes are not to be sent after all.
    pub(super) fn spare(&self, bytes: u64) {
        self.bar.dec_length(bytes);
    }

    /// A layer is there; what a repository lent did not move. Whether it was the last.
    pub(super) fn layer(&mut self, layer: &PushedLayer) -> bool {
        if layer.step == PushStep::Mount {
            self.spare(layer.size);
        }
        self.layers_left = self.layers_left.saturating_sub(1);
        self.layers_left == 0
    }

    /// Takes its bar away.
    pub(super) fn end(self) {
        self.bar.finish_and_clear();
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
            let rate = state.per_sec() as u64;
            // Nothing is known before the first bytes.
            let _ = if rate > 0 { write!(text, "{}/s", units::size(rate)) } else { Ok(()) };
        })
        .with_key("left", |state: &ProgressState, text: &mut dyn Write| {
            let is_known = state.per_sec() >= 1.0;
            let _ = if is_known { write!(text, "{:#} left", HumanDuration(state.eta())) } else { Ok(()) };
        })
}
