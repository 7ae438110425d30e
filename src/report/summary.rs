//! The summary of a step of GitHub Actions: what became of each image, as Markdown.
//!
//! Nothing of others' is Markdown or HTML here: names, tags and messages are escaped to the last sign that could be
//! read as either.

use super::outputs::{Entry, Ledger};
use super::table;
use super::text::one_line;
use super::words::count;
use crate::event::LayerResult;
use crate::finding::{Finding, Severity, Verdict};
use crate::problem::Problem;
use crate::units;

/// The most a step's summary may have; of one that has more, the runner keeps nothing.
pub(super) const MAX_BYTES: usize = 1 << 20;

/// What stays free for the ends of what is cut, and for the line that says so.
const RESERVED_BYTES: usize = 512;

/// A page that does not grow past its end.
struct Page {
    text: String,
    room: usize,
    /// Whether something did not fit: nothing follows then, as it would stand in a wrong place.
    is_cut: bool,
}

impl Page {
    fn add(&mut self, text: &str) {
        if self.is_cut || self.text.len() + text.len() + RESERVED_BYTES > self.room {
            self.is_cut = true;
        } else {
            self.text += text;
        }
    }
}

/// The summary in at most `room` bytes; empty if there is nothing to tell.
pub(super) fn render(ledger: &Ledger, failure: Option<&Problem>, room: usize) -> String {
    let mut page = Page { text: String::new(), room, is_cut: false };
    if let Some(problem) = failure {
        page.add(&failed(problem));
    }
    for verdict in &ledger.verdicts {
        verified(&mut page, verdict);
    }
    for entry in &ledger.images {
        image(&mut page, entry);
    }
    if !ledger.plans.is_empty() {
        planned(&mut page, &ledger.plans.join("\n"));
    }
    on_the_way(&mut page, &ledger.found);
    let Page { mut text, is_cut, .. } = page;
    let note = "\n*The rest did not fit: a step's summary may have 1 MiB. The log has all of it.*\n\n";
    if is_cut && text.len() + note.len() <= room {
        text += note;
    }
    text
}

fn failed(problem: &Problem) -> String {
    let causes: String = problem.causes().iter().map(|cause| format!("<br>{}", lines(cause))).collect();
    let help = problem.next_step().map(|help| format!("\n\n{}", lines(help))).unwrap_or_default();
    format!("**Failed:** {}{causes}{help}\n\n", lines(problem.message()))
}

fn image(page: &mut Page, entry: &Entry) {
    let Entry { image, push } = entry;
    page.add(&format!("### {}\n\n", code(&image.bin)));
    page.add("| | |\n|---|---|\n");
    match push {
        Some(push) => {
            page.add(&format!("| Image | {} |\n", code(&push.image_uri)));
            if !push.tags.is_empty() {
                page.add(&format!("| Tags | {} |\n", list(&push.tags)));
            }
        }
        None => page.add(&format!("| Digest | {} |\n", code(&image.digest.to_string()))),
    }
    page.add(&format!("| Platform | {} |\n", code(&image.platform)));
    // What earlier pushes did is no news of a build.
    for function in image.functions.iter().filter(|_| push.is_some()) {
        let version = function.version.as_ref().map(|version| format!(", version {}", code(version)));
        let alias = function.alias.as_ref().map(|alias| format!(", alias {}", code(alias)));
        let (version, alias) = (version.unwrap_or_default(), alias.unwrap_or_default());
        page.add(&format!("| Function | {}{version}{alias} |\n", code(&function.name)));
    }
    page.add("\n| Layer | Size | Compressed | | Digest |\n|---|---:|---:|---|---|\n");
    let step = |(index, layer): (usize, &LayerResult)| match push.as_ref().and_then(|push| push.layers.get(index)) {
        Some(pushed) => table::done(pushed.step),
        None if layer.reused => "reused",
        None => "new",
    };
    for (index, layer) in image.layers.iter().enumerate() {
        let (size, compressed) = (units::size(layer.uncompressed_size), units::size(layer.size));
        let (name, digest) = (code(&layer.name), code(&layer.digest.short()));
        page.add(&format!("| {name} | {size} | {compressed} | {} | {digest} |\n", step((index, layer))));
    }
    let (size, compressed) = (units::size(image.uncompressed_size), units::size(image.size));
    page.add(&format!("| **total** | **{size}** | **{compressed}** | | |\n\n"));
    if let Some(push) = push {
        let (sent, reused) = (units::size(push.sent_bytes), units::size(push.reused_bytes));
        page.add(&format!("{sent} sent, {reused} were there.\n\n"));
    }
}

fn verified(page: &mut Page, verdict: &Verdict) {
    let Verdict { image, digest, platform, layers, uncompressed_size, findings } = verdict;
    let size = units::size(*uncompressed_size);
    page.add(&format!("### {}\n\n", code(image)));
    let layers = count(*layers, "layer");
    let digest = digest.map(|digest| format!(", {}", code(&digest.to_string()))).unwrap_or_default();
    page.add(&format!("{}, {layers}, {size} uncompressed{digest}\n\n", code(platform)));
    findings_table(page, findings.iter());
    page.add(&format!("{}\n\n", super::verdict::summary(verdict)));
}

/// What was found in images on their way, an image at a time; notes are for `verify`.
fn on_the_way(page: &mut Page, found: &[(String, Finding)]) {
    for group in found.chunk_by(|one, next| one.0 == next.0) {
        let worth: Vec<_> =
            group.iter().map(|(_, finding)| finding).filter(|it| it.severity > Severity::Note).collect();
        if let (Some((bin, _)), false) = (group.first(), worth.is_empty()) {
            page.add(&format!("Found in {}:\n\n", code(bin)));
            findings_table(page, worth.into_iter());
        }
    }
}

fn findings_table<'a>(page: &mut Page, findings: impl Iterator<Item = &'a Finding>) {
    let mut findings = findings.peekable();
    if findings.peek().is_none() {
        return;
    }
    page.add("| | Rule | Where | Found | Fix |\n|---|---|---|---|---|\n");
    for finding in findings {
        if page.is_cut {
            return;
        }
        let Finding { code: rule, severity, title, layer, path, message, help, .. } = finding;
        let place: Vec<_> = [layer, path].into_iter().flatten().map(|place| code(place)).collect();
        let (severity, place) = (severity.word(), place.join("<br>"));
        let (title, message, help) = (lines(title), lines(message), lines(help));
        page.add(&format!("| {severity} | {rule}: {title} | {place} | {message} | {help} |\n"));
    }
    page.add("\n");
}

/// A text as it is, between fences longer than any in it.
fn planned(page: &mut Page, plan: &str) {
    let ticks = plan.split(|character| character != '`').map(str::len).max().unwrap_or_default();
    let fence = "`".repeat(3.max(ticks + 1));
    // A name may be nothing but ticks: the end of such a fence must fit, too.
    if fence.len() > RESERVED_BYTES / 4 {
        page.add(&format!("### Plan\n\n{}\n\n", lines(plan)));
        return;
    }
    page.add(&format!("### Plan\n\n{fence}text\n"));
    if page.is_cut {
        return;
    }
    for line in plan.lines() {
        page.add(&format!("{line}\n"));
    }
    // Always closed: it fits into what is reserved.
    page.text += &format!("{fence}\n\n");
}

fn list(names: &[String]) -> String {
    names.iter().map(|name| code(name)).collect::<Vec<_>>().join(", ")
}

/// A name as code: in backticks where nothing in it means anything, else in HTML.
fn code(text: &str) -> String {
    let text = one_line(text);
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._:@+=".contains(&byte);
    if !text.is_empty() && text.bytes().all(is_plain) {
        format!("`{text}`")
    } else {
        format!("<code>{}</code>", escaped(&text))
    }
}

/// A text that may have several lines, in one of Markdown's.
fn lines(text: &str) -> String {
    text.trim().lines().map(|line| escaped(&one_line(line))).collect::<Vec<_>>().join("<br>")
}

/// Text of which no sign is read as Markdown, HTML or an address. References to signs stand for nothing but these
/// (CommonMark, 2.5), and what looks for names and addresses finds none with a mark inside.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            ' ' | '(' | ')' | '/' | ';' | '=' | '?' | '"' | '\'' | '%' | '$' | ',' | '{' | '}' => safe.push(character),
            // At the end of a word they are a sentence's, within one they may make it an address.
            '.' | ':' if characters.peek().is_none_or(|next| *next == ' ') => safe.push(character),
            _ if character.is_ascii_punctuation() => safe += &format!("&#{};", u32::from(character)),
            _ => safe.push(character),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_code_and_nothing_else() {
        for (name, expected) in [
            ("sha256:ab/c.d-e_f@g", "`sha256:ab/c.d-e_f@g`"),
            ("", "<code></code>"),
            ("a b", "<code>a b</code>"),
            ("a|b`c", "<code>a&#124;b&#96;c</code>"),
            ("</code><b>&amp;\\", "<code>&#60;/code&#62;&#60;b&#62;&#38;amp;&#92;</code>"),
            ("a\n\r\x1b", "<code>a&#92;n&#92;r&#92;u{1b}</code>"),
        ] {
            assert_eq!(code(name), expected);
        }
    }

    #[test]
    fn text_is_text_and_nothing_else() {
        for (text, expected) in [
            ("could not find a. Why: b", "could not find a. Why: b"),
            ("*a* _b_ ~c~ [d](e) #1 @f", "&#42;a&#42; &#95;b&#95; &#126;c&#126; &#91;d&#93;(e) &#35;1 &#64;f"),
            ("www.a.b http://c", "www&#46;a&#46;b http&#58;//c"),
            ("a\n| b\n\nc", "a<br>&#124; b<br><br>c"),
            ("größe", "größe"),
        ] {
            assert_eq!(lines(text), expected);
        }
    }

    #[test]
    fn a_fence_is_longer_than_any_in_the_plan_and_always_closed() {
        let mut page = Page { text: String::new(), room: 4096, is_cut: false };
        planned(&mut page, "a\n````\nb");
        assert_eq!(page.text, "### Plan\n\n`````text\na\n````\nb\n`````\n\n");
        let plans = vec!["line\n".repeat(1000)];
        let text = render(&Ledger { plans, ..Ledger::default() }, None, 2048);
        assert!(text.len() <= 2048, "{}", text.len());
        assert!(text.contains("line\n```\n\n\n*The rest did not fit"), "{text}");
    }

    #[test]
    fn a_summary_never_outgrows_its_room() {
        let finding = |number: usize| Finding {
            code: "L020",
            severity: Severity::Error,
            title: "a title",
            layer: None,
            path: Some(format!("/a/{number}|")),
            message: "<b>".repeat(30),
            why: "because",
            help: "do it".into(),
        };
        let verdict = |count| Verdict {
            image: "oci:x".into(),
            digest: None,
            platform: "linux/amd64".into(),
            layers: 1,
            uncompressed_size: 2048,
            findings: (0..count).map(finding).collect(),
        };
        let of = |count, room| render(&Ledger { verdicts: vec![verdict(count)], ..Ledger::default() }, None, room);
        let whole = of(10, MAX_BYTES);
        assert!(whole.ends_with("\n\nFound 10 errors.\n\n"), "{whole}");
        assert!(whole.contains("\n| error | L020: a title | <code>/a/3&#124;</code> | &#60;b&#62;"), "{whole}");
        for room in [0, 100, 600, 5000, MAX_BYTES] {
            let text = of(10_000, room);
            assert!(text.len() <= room, "{} of {room}", text.len());
            assert!(room < 600 || text.contains("did not fit"), "{room}");
            assert!(room < MAX_BYTES || text.len() > MAX_BYTES - 2 * RESERVED_BYTES, "{}", text.len());
        }
        assert_eq!(render(&Ledger::default(), None, MAX_BYTES), "");
    }
}
