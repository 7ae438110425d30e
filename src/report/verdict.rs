//! The report of a check for people: grouped by severity and rule, each with its reason and its fix.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::text::{one_line, printable};
use super::words::count;
use crate::finding::{Finding, Severity, Verdict};
use crate::units;

/// Where lines are broken: reports are read in terminals, logs and issues.
const COLUMNS: usize = 80;

/// The report on all images.
pub(super) fn render(verdicts: &[Verdict]) -> String {
    let reports: Vec<_> = verdicts.iter().map(report).collect();
    reports.join("\n")
}

fn report(verdict: &Verdict) -> String {
    let Verdict { image, digest, platform, layers, uncompressed_size, findings } = verdict;
    let mut text = String::new();
    let layers = count(*layers, "layer");
    let size = units::size(*uncompressed_size);
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{}: {}, {layers}, {size} uncompressed", one_line(image), one_line(platform));
    if let Some(digest) = digest {
        let _ = writeln!(text, "{digest}");
    }
    for group in findings.chunk_by(|one, next| (one.code, one.severity) == (next.code, next.severity)) {
        text.push('\n');
        rule(&mut text, group);
    }
    let _ = writeln!(text, "\n{}", summary(verdict));
    text
}

/// One rule's findings, with what they have in common said once.
fn rule(text: &mut String, group: &[Finding]) {
    let Some(first) = group.first() else { return };
    let _ = writeln!(text, "{}[{}]: {}", first.severity.word(), first.code, first.title);
    for finding in group {
        let place: Vec<_> = [&finding.layer, &finding.path].into_iter().flatten().map(|part| one_line(part)).collect();
        let place = if place.is_empty() { String::new() } else { format!("{}: ", place.join(", ")) };
        paragraph(text, "  - ", &format!("{place}{}", finding.message));
    }
    // What was not checked breaks no rule.
    if group.iter().all(|finding| finding.message.starts_with("not checked")) {
        return;
    }
    paragraph(text, "  why: ", first.why);
    let helps: BTreeSet<_> = group.iter().map(|finding| finding.help.as_str()).collect();
    for help in helps {
        paragraph(text, "  fix: ", help);
    }
}

/// Text broken into lines that begin below its first word; a message's own lines stay lines.
fn paragraph(text: &mut String, label: &str, content: &str) {
    let indent = " ".repeat(label.len());
    let mut start = label;
    for line in printable(content).lines() {
        // Tables are made of spaces.
        if line.starts_with(' ') || line.is_empty() {
            let _ = writeln!(text, "{}", format!("{start}{line}").trim_end());
        } else {
            let mut at = 0;
            for (number, word) in line.split(' ').enumerate() {
                let width = word.chars().count();
                if number == 0 {
                    text.push_str(start);
                    at = label.len() + width;
                } else if at + 1 + width > COLUMNS {
                    let _ = write!(text, "\n{indent}");
                    at = label.len() + width;
                } else {
                    text.push(' ');
                    at += 1 + width;
                }
                text.push_str(word);
            }
            text.push('\n');
        }
        start = &indent;
    }
}

/// How many findings there are, in words.
pub(super) fn summary(verdict: &Verdict) -> String {
    let counts = [Severity::Error, Severity::Warning, Severity::Note].map(|it| (verdict.count(it), it.word()));
    let found: Vec<_> =
        counts.iter().filter(|(number, _)| *number > 0).map(|(number, word)| count(*number, word)).collect();
    if found.is_empty() { "Nothing found.".to_owned() } else { format!("Found {}.", found.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(code: &'static str, severity: Severity, path: &str, message: &str) -> Finding {
        Finding {
            code,
            severity,
            title: "a title",
            layer: Some("layer 1".into()),
            path: Some(path.into()),
            message: message.into(),
            why: "a reason of some length that has to be broken into two lines since terminals are not that wide",
            help: "do it".into(),
        }
    }

    #[test]
    fn findings_of_a_rule_share_its_reason() {
        let verdict = Verdict {
            image: "oci:x".into(),
            digest: None,
            platform: "linux/amd64".into(),
            layers: 1,
            uncompressed_size: 2048,
            findings: vec![
                finding("L020", Severity::Error, "/a", "one\n\n  12 B  table"),
                finding("L020", Severity::Error, "/b\x1b", "two"),
                finding("L070", Severity::Warning, "/c", "three"),
            ],
        };
        assert_eq!(
            render(std::slice::from_ref(&verdict)),
            "oci:x: linux/amd64, 1 layer, 2.0 KiB uncompressed\n\
             \n\
             error[L020]: a title\n\
             \x20 - layer 1, /a: one\n\
             \n\
             \x20     12 B  table\n\
             \x20 - layer 1, /b\\u{1b}: two\n\
             \x20 why: a reason of some length that has to be broken into two lines since\n\
             \x20      terminals are not that wide\n\
             \x20 fix: do it\n\
             \n\
             warning[L070]: a title\n\
             \x20 - layer 1, /c: three\n\
             \x20 why: a reason of some length that has to be broken into two lines since\n\
             \x20      terminals are not that wide\n\
             \x20 fix: do it\n\
             \n\
             Found 2 errors, 1 warning.\n"
        );
        let clean = Verdict { findings: Vec::new(), ..verdict };
        assert!(render(&[clean]).ends_with("uncompressed\n\nNothing found.\n"));
    }
}
