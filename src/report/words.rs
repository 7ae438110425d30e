//! The words of the talk: what tasks do and did, what a push has before it, durations and counts.

use std::fmt::Write as _;
use std::time::Duration;

use crate::event::{PushPlan, PushStep, TaskKind};
use crate::units;

/// What a task of this kind does, and what it did.
pub(super) fn verbs(kind: TaskKind) -> (&'static str, &'static str) {
    match kind {
        TaskKind::Pull => ("Pulling", "Pulled"),
        TaskKind::Hash => ("Hashing", "Hashed"),
        TaskKind::Layer => ("Layering", "Layered"),
        TaskKind::Write => ("Writing", "Wrote"),
        TaskKind::Check => ("Checking", "Checked"),
        TaskKind::Push => ("Pushing", "Pushed"),
    }
}

/// What a push has before it.
pub(super) fn planned(bin: &str, plan: &PushPlan) -> String {
    let to_send = plan.layers.iter().filter(|layer| matches!(layer.step, PushStep::Relay | PushStep::Upload)).count();
    let bytes = units::size(plan.relayed_bytes + plan.uploaded_bytes);
    let of = count(plan.layers.len(), "layer");
    let at_most = if plan.at_most { "at most " } else { "" };
    let lent = plan.layers.iter().filter(|layer| layer.step == PushStep::Mount).count();
    let what = match (to_send, lent) {
        (0, 0) => format!("all of {of} there"),
        (0, lent) => format!("{lent} of {of} from other repositories"),
        (to_send, 0) => format!("{to_send} of {of}, {at_most}{bytes}"),
        (to_send, lent) => format!("{to_send} of {of}, {at_most}{bytes}, and {lent} from other repositories"),
    };
    format!("{bin} to {}: {what}", plan.repository)
}

/// What a finished task did, and how fast where that can be told.
pub(super) fn done(name: &str, bytes: u64, elapsed: Duration) -> String {
    let mut line = format!("{name}, {} in {}", units::size(bytes), duration(elapsed));
    if elapsed >= Duration::from_millis(10) {
        // Sizes past 2^53 bytes would lose digits that nobody reads.
        let rate = bytes as f64 / elapsed.as_secs_f64();
        let _ = write!(line, " ({}/s)", units::size(rate as u64));
    }
    line
}

/// A duration as Cargo writes it: `0.06s`, `1m 02s`.
pub(super) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds >= 60 {
        format!("{}m {:02}s", seconds / 60, seconds % 60)
    } else {
        format!("{seconds}.{:02}s", duration.subsec_millis() / 10)
    }
}

/// So many of what there may be one of.
pub(super) fn count(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::PlannedLayer;

    #[test]
    fn a_plan_tells_what_moves_and_from_where() {
        use PushStep::{Mount, Relay, Reuse, Upload};
        for (steps, what) in [
            (&[Reuse][..], "all of 1 layer there"),
            (&[Reuse, Mount], "1 of 2 layers from other repositories"),
            (&[Reuse, Relay, Upload], "2 of 3 layers, 3.0 KiB"),
            (&[Mount, Relay, Upload], "2 of 3 layers, 3.0 KiB, and 1 from other repositories"),
        ] {
            let layer = |step: &PushStep| PlannedLayer {
                name: String::new(),
                digest: None,
                step: *step,
                size: 0,
                at_most: false,
            };
            let plan = PushPlan {
                repository: "h/r".into(),
                creates_repository: false,
                digest: None,
                tags: Vec::new(),
                layers: steps.iter().map(layer).collect(),
                reused_bytes: 0,
                mounted_bytes: 0,
                relayed_bytes: 1024,
                uploaded_bytes: 2048,
                at_most: false,
            };
            assert_eq!(planned("hello", &plan), format!("hello to h/r: {what}"));
        }
    }

    #[test]
    fn a_finished_task_tells_its_rate_once_it_can_be_told() {
        let table = [
            (512 << 20, 2000, "models, 512.0 MiB in 2.00s (256.0 MiB/s)"),
            (512 << 20, 64_000, "models, 512.0 MiB in 1m 04s (8.0 MiB/s)"),
            (10, 9, "models, 10 B in 0.00s"),
        ];
        for (bytes, millis, line) in table {
            assert_eq!(done("models", bytes, Duration::from_millis(millis)), line);
        }
    }
}
