//! The talk on stderr: Cargo's status lines, warnings, errors, and which tasks are worth a line or a bar. It is long
//! because every event has its look here and nowhere else.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anstyle::{AnsiColor, Style};
use indicatif::ProgressBar;

use super::actions::{Actions, Level, TITLE, annotation};
use super::compiler::Errors;
use super::progress::{Bars, Total};
use super::screen::Screen;
use super::text::{one_line, printable, tame};
use super::words::{count, done, duration, planned, verbs};
use super::{Look, functions, table};
use crate::event::{Event, ImageResult, PushPlan, PushResult, PushedLayer, TaskId, TaskKind, TaskOutcome};
use crate::finding::{Finding, Severity};
use crate::problem::{Exit, Problem};
use crate::units;

/// Tasks below this size are over before a line about them is read.
const SMALL_BYTES: u64 = 1 << 20;
/// Where there are no bars, tasks from this size on are announced: they take a while.
const BIG_BYTES: u64 = 64 << 20;

const GOOD: Style = AnsiColor::BrightGreen.on_default().bold();
const NOTE: Style = AnsiColor::BrightCyan.on_default().bold();
const WARNING: Style = AnsiColor::BrightYellow.on_default().bold();
const ERROR: Style = AnsiColor::BrightRed.on_default().bold();

/// Everything said on stderr.
pub(super) struct Talk {
    quiet: bool,
    verbose: bool,
    color: bool,
    /// Whether a runner looks for commands in what is printed.
    tame: bool,
    /// What a runner is told, if it is the one that reads.
    actions: Option<Actions>,
    screen: Screen,
    bars: Option<Bars>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    running: HashMap<TaskId, Running>,
    /// The push under way, where it is worth a bar.
    push: Option<Total>,
    images: usize,
    cargo: Errors,
}

struct Running {
    kind: TaskKind,
    name: String,
    total_bytes: Option<u64>,
    done_bytes: u64,
    started: Instant,
    bar: Option<ProgressBar>,
}

impl Talk {
    pub(super) fn new(look: &Look, screen: Screen) -> Self {
        let bars = look.bars.then(|| Bars::new(screen.clone()));
        let state = Mutex::new(State::default());
        let Look { quiet, verbose, color, tame, .. } = *look;
        let actions = look.commands.then(Actions::default);
        Self { quiet, verbose, color, tame, actions, screen, bars, state }
    }

    pub(super) fn event(&self, event: &Event<'_>) {
        if let Some(actions) = &self.actions {
            self.steer(actions, event);
        }
        match event {
            Event::CargoSaid { line } => self.cargo_said(line),
            _ if self.quiet => {}
            Event::TaskStarted { task, kind, name, total_bytes } => self.started(*task, *kind, name, *total_bytes),
            Event::TaskAdvanced { task, bytes } => self.advanced(*task, *bytes),
            Event::TaskFinished { task, outcome } => self.finished(*task, *outcome),
            Event::PushPlanned { bin, plan, dry_run: false, .. } => self.push_planned(bin, plan),
            Event::LayerPushed { layer, .. } => self.layer_pushed(layer),
            Event::ImageBuilt { image } => self.image_built(image),
            Event::ImagePushed { image, push } => self.image_pushed(image, push),
            Event::Finished { elapsed } => {
                let images = count(self.state().images, "image");
                self.status(GOOD, "Finished", &format!("{images} in {}", duration(*elapsed)));
            }
            other => self.fact(other),
        }
    }

    /// Tells the runner what concerns it: phases, what must be masked, and that what comes must not be folded away.
    fn steer(&self, actions: &Actions, event: &Event<'_>) {
        let commands = match event {
            Event::SecretLearned { secret } => actions.mask(secret),
            Event::PhaseStarted { phase } if !self.quiet => actions.begin(phase),
            // What it came to is what everybody wants to see.
            Event::ImageBuilt { .. }
            | Event::ImagePushed { .. }
            | Event::FunctionUpdated { .. }
            | Event::Checked { .. }
            | Event::Finished { .. } => actions.end(),
            Event::Found { finding, .. } if finding.severity == Severity::Error => actions.end(),
            _ => return,
        };
        self.write(&commands);
    }

    /// Closes what is open, so that nothing that follows is folded away.
    pub(super) fn close(&self) {
        if let Some(actions) = &self.actions {
            self.write(&actions.end());
        }
    }

    /// Facts that are a line each, whatever happened before.
    fn fact(&self, event: &Event<'_>) {
        match event {
            Event::BaseResolving { reference } => self.status(GOOD, "Resolving", reference),
            Event::BaseResolved { reference, digest, platform, .. } if self.verbose => {
                let digest = digest.map_or_else(|| "no layers".to_owned(), |digest| digest.to_string());
                self.status(GOOD, "Resolved", &format!("{reference} for {platform}: {digest}"));
            }
            Event::LayersStarted { bin, count: layers } => {
                self.status(GOOD, "Layering", &format!("{bin}: {}", count(*layers, "layer")));
            }
            Event::Retrying { what, why, delay } => {
                self.status(WARNING, "Retrying", &format!("{what} in {}: {why}", duration(*delay)));
            }
            Event::PushPlanned { dry_run: true, .. } => self.state().images += 1,
            Event::Found { finding, .. } => self.found(finding),
            // They are in the report on stdout, but annotations are not data.
            Event::Checked { verdicts } if self.actions.is_some() => {
                verdicts.iter().flat_map(|verdict| &verdict.findings).for_each(|finding| self.found(finding));
            }
            Event::FunctionStarted { name, step, what } => {
                let (verb, message) = functions::started(name, *step, what);
                self.status(GOOD, verb, &message);
            }
            Event::FunctionWaiting { name, version, doing, elapsed, limit } => {
                self.status(NOTE, "Waiting", &functions::waiting(name, *version, doing, *elapsed, *limit));
            }
            Event::FunctionUpdated { function, .. } => {
                let (verb, message) = functions::updated(function);
                self.status(GOOD, verb, &message);
            }
            Event::Waiting { what } => self.status(NOTE, "Waiting", &format!("for {what}")),
            Event::Warning { message, help } => self.labelled(Level::Warning, "warning", message, *help),
            Event::Detail { message } if self.verbose => self.status(NOTE, "Detail", message),
            Event::Locked { path, changes: [], .. } => self.status(GOOD, "Unchanged", &path.display().to_string()),
            Event::Locked { path, changes, dry_run: false } => self.locked(path, changes),
            Event::BaseCompared { reference, platform, locked, newest } if locked == newest => {
                self.status(GOOD, "Current", &format!("{reference} for {platform}"));
            }
            Event::Proposed { what, becomes } => self.status(GOOD, "Found", &format!("{what}: {becomes} from now on")),
            Event::Added { what, path } => self.status(GOOD, "Added", &format!("{what} to {}", path.display())),
            Event::Wrote { what, path, .. } => self.status(GOOD, "Wrote", &format!("{what} {}", path.display())),
            _ => {}
        }
    }

    /// A few changes are told one by one.
    fn locked(&self, path: &Path, changes: &[String]) {
        const FEW: usize = 4;
        if self.verbose || changes.len() <= FEW {
            changes.iter().for_each(|change| self.status(GOOD, "Locking", &self.brief(change)));
        } else {
            self.status(GOOD, "Locking", &format!("{} in {}", count(changes.len(), "change"), path.display()));
        }
    }

    /// A line in which digests are as short as everywhere on a terminal; the lock has them in full.
    fn brief(&self, line: &str) -> String {
        const ALGORITHM: &str = "sha256:";
        const SHORT: usize = 12;
        let mut parts = line.split(ALGORITHM);
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |text, part| {
            let digits = part.bytes().take_while(u8::is_ascii_hexdigit).count();
            let kept = if self.verbose { digits } else { digits.min(SHORT) };
            let algorithm = if kept < digits { "" } else { ALGORITHM };
            format!("{text}{algorithm}{}{}", &part[..kept], &part[digits..])
        })
    }

    /// Says that a signal was heard; said even when quiet, since the program does not end at once.
    pub(super) fn stopping(&self, exit: Exit) {
        let why = if exit == Exit::Terminated { "terminated" } else { "interrupted" };
        let message = format!("{why}: what was there stays as it was (again: stop at once)");
        self.status(WARNING, "Stopping", &message);
    }

    /// Takes the bars off the screen.
    pub(super) fn clear(&self) {
        if let Some(bars) = &self.bars {
            bars.clear();
        }
    }

    /// Prints a failure as Cargo does.
    pub(super) fn problem(&self, problem: &Problem) {
        let mut text = format!("{}\n", printable(problem.message()));
        let causes = problem.causes();
        if !causes.is_empty() {
            text.push_str("\nCaused by:\n");
        }
        for (number, cause) in causes.iter().enumerate() {
            let cause = printable(cause);
            if causes.len() == 1 {
                let _ = writeln!(text, "  {}", cause.replace('\n', "\n  "));
            } else {
                let _ = writeln!(text, "{number:>3}: {}", cause.replace('\n', "\n     "));
            }
        }
        let help = problem.next_step().map(printable);
        if self.actions.is_some() {
            let help = help.map(|help| format!("\nhelp: {help}")).unwrap_or_default();
            self.write(&annotation(Level::Error, TITLE, problem.file(), (text + &help).trim_end()));
            return;
        }
        if let Some(help) = help {
            let _ = write!(text, "\n{} {help}\n", self.paint(NOTE, "help:"));
        }
        self.print(&format!("{} {text}", self.paint(ERROR, "error:")));
    }

    /// Says again what cargo told of a failure: it is folded away by now.
    pub(super) fn told(&self, problem: &Problem) {
        if self.actions.is_none() {
            return;
        }
        let (all, first) = {
            let errors = &self.state().cargo;
            (errors.text().to_owned(), errors.first())
        };
        if !self.quiet {
            self.print(&all);
        }
        let text = format!("{}\n{first}", problem.message());
        self.write(&annotation(Level::Error, TITLE, problem.file(), printable(&text).trim_end()));
    }

    /// A line of cargo's, in the colours that it chose.
    fn cargo_said(&self, line: &str) {
        if self.actions.is_some() {
            self.state().cargo.note(line);
        }
        self.print(&format!("{line}\n"));
    }

    fn started(&self, task: TaskId, kind: TaskKind, name: &str, total_bytes: Option<u64>) {
        let name = one_line(name);
        let verb = verbs(kind).0;
        let mut state = self.state();
        let mut bar = None;
        match &self.bars {
            Some(bars) => {
                let shown = state.running.values().filter(|running| running.bar.is_some()).count();
                if total_bytes.is_none_or(|total| total >= SMALL_BYTES) {
                    bar = bars.add(self.paint(GOOD, &format!("{verb:>12}")), &name, total_bytes, shown);
                }
            }
            None => {
                if self.verbose || total_bytes.is_some_and(|total| total >= BIG_BYTES) {
                    let size = total_bytes.map(|total| format!(" ({})", units::size(total))).unwrap_or_default();
                    self.status(GOOD, verb, &format!("{name}{size}"));
                }
            }
        }
        let running = Running { kind, name, total_bytes, done_bytes: 0, started: Instant::now(), bar };
        state.running.insert(task, running);
    }

    fn advanced(&self, task: TaskId, bytes: u64) {
        let bar = {
            let mut state = self.state();
            let Some(running) = state.running.get_mut(&task) else { return };
            running.done_bytes += bytes;
            let (bar, is_push) = (running.bar.clone(), running.kind == TaskKind::Push);
            if let Some(total) = state.push.as_ref().filter(|_| is_push) {
                total.advance(bytes);
            }
            bar
        };
        // Drawing may take its time: the other threads need not wait for it.
        if let Some(bar) = bar {
            bar.inc(bytes);
        }
    }

    fn finished(&self, task: TaskId, outcome: TaskOutcome) {
        let Some(running) = self.state().running.remove(&task) else { return };
        if let Some(total) = self.state().push.as_ref().filter(|_| running.kind == TaskKind::Push) {
            match outcome {
                TaskOutcome::Failed => total.lose(running.done_bytes),
                // A layer whose size was not known has fewer bytes than it might have had.
                _ => total.spare(running.total_bytes.unwrap_or_default().saturating_sub(running.done_bytes)),
            }
        }
        if let Some(bar) = &running.bar {
            bar.finish_and_clear();
        }
        let bytes = match running.kind {
            // What a layer can have at most says nothing of what was sent of it.
            TaskKind::Push => running.done_bytes,
            _ => running.total_bytes.unwrap_or(running.done_bytes).max(running.done_bytes),
        };
        // Whoever writes a file tells its path when it has its final name.
        let worth_a_line = bytes >= SMALL_BYTES && running.kind != TaskKind::Write;
        match outcome {
            TaskOutcome::Done if self.verbose || worth_a_line => {
                let line = done(&running.name, bytes, running.started.elapsed());
                self.status(GOOD, verbs(running.kind).1, &line);
            }
            TaskOutcome::Reused if self.verbose => self.status(GOOD, "Fresh", &running.name),
            TaskOutcome::Done | TaskOutcome::Reused | TaskOutcome::Failed => {}
        }
    }

    fn push_planned(&self, bin: &str, plan: &PushPlan) {
        let what = planned(bin, plan);
        self.status(GOOD, "Pushing", &what);
        let Some(bars) = &self.bars else { return };
        let verb = self.paint(GOOD, &format!("{:>12}", verbs(TaskKind::Push).0));
        let total = Total::of(plan, SMALL_BYTES, |bytes| bars.add_above(verb, &one_line(bin), bytes));
        let before = std::mem::replace(&mut self.state().push, total);
        before.into_iter().for_each(Total::end);
    }

    fn layer_pushed(&self, layer: &PushedLayer) {
        let ended = {
            let mut state = self.state();
            let is_last = state.push.as_mut().is_some_and(|total| total.layer(layer));
            state.push.take_if(|_| is_last)
        };
        ended.into_iter().for_each(Total::end);
        if self.verbose {
            let PushedLayer { name, digest, size, step } = layer;
            self.status(NOTE, "Confirmed", &format!("{name}: {digest}, {}, {step}", units::size(*size)));
        }
    }

    fn image_built(&self, image: &ImageResult) {
        self.state().images += 1;
        self.status(GOOD, "Built", &format!("{} for {}", image.bin, image.platform));
        self.print(&table::built(image, self.screen.columns(), self.verbose));
    }

    fn image_pushed(&self, image: &ImageResult, push: &PushResult) {
        self.state().images += 1;
        let (sent, reused) = (units::size(push.sent_bytes), units::size(push.reused_bytes));
        let uri = image.image_uri.as_deref().unwrap_or_default();
        let repository = uri.split('@').next().unwrap_or(uri);
        self.status(GOOD, "Pushed", &format!("{} to {repository}: {sent} sent, {reused} were there", image.bin));
        if !push.tags.is_empty() {
            self.status(GOOD, "Tagged", &push.tags.join(", "));
        }
        self.print(&table::pushed(image, push, self.screen.columns(), self.verbose));
    }

    /// A finding on the way: those worth no more than a note are for `-v`.
    fn found(&self, finding: &Finding) {
        let level = match finding.severity {
            Severity::Error => Level::Error,
            Severity::Warning => Level::Warning,
            Severity::Note if self.verbose => Level::Notice,
            Severity::Note => return,
        };
        let label = format!("{}[{}]", finding.severity.word(), finding.code);
        let place: Vec<_> = [&finding.path, &finding.layer].into_iter().flatten().map(String::as_str).collect();
        let place = if place.is_empty() { String::new() } else { format!(" ({})", place.join(", ")) };
        let message = format!("{}: {}{place}", finding.title, finding.message);
        self.labelled(level, &label, &message, Some(&finding.help));
    }

    /// Cargo's status line: a verb that ends in the twelfth column, and what it is about.
    fn status(&self, style: Style, verb: &str, message: &str) {
        let verb = self.paint(style, &format!("{verb:>12}"));
        self.print(&format!("{verb} {}\n", one_line(message)));
    }

    fn labelled(&self, level: Level, label: &str, message: &str, help: Option<&str>) {
        if self.actions.is_some() {
            let help = help.map(|help| format!("\nhelp: {help}")).unwrap_or_default();
            let text = format!("{message}{help}");
            // Of a finding, the rule; the level is the command's own.
            let title = label.split_once('[').map_or(TITLE, |(_, code)| code.trim_end_matches(']'));
            self.write(&annotation(level, title, None, &printable(&text)));
            return;
        }
        let style = match level {
            Level::Error => ERROR,
            Level::Warning => WARNING,
            Level::Notice => NOTE,
        };
        let mut text = format!("{} {}\n", self.paint(style, &format!("{label}:")), printable(message));
        if let Some(help) = help {
            let _ = writeln!(text, "{} {}", self.paint(NOTE, "help:"), printable(help));
        }
        self.print(&text);
    }

    fn paint(&self, style: Style, text: &str) -> String {
        if self.color { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }

    fn print(&self, text: &str) {
        if self.tame { self.write(&tame(text)) } else { self.write(text) }
    }

    /// Writes what may be a command.
    fn write(&self, text: &str) {
        match &self.bars {
            _ if text.is_empty() => {}
            Some(bars) => bars.print(text),
            None => self.screen.print(text),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere must not hide what the others still have to say.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
