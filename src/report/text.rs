//! Text that may be printed: names and a server's answers are not ours, and must steer neither a terminal nor the
//! runner of a CI service.

use std::borrow::Cow;

/// Text without what would steer the terminal.
pub(super) fn printable(text: &str) -> Cow<'_, str> {
    escape(text, |character| steers(character) && character != '\n' && character != '\t')
}

/// Like [`printable`], on one line.
pub(super) fn one_line(text: &str) -> String {
    escape(text, steers).into_owned()
}

/// Whether a character moves the cursor, changes colours, or turns the direction in which others are shown (UAX 9).
fn steers(character: char) -> bool {
    character.is_control() || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn escape(text: &str, steers: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&steers) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        if steers(character) {
            escaped.extend(character.escape_default());
        } else {
            escaped.push(character);
        }
    }
    Cow::Owned(escaped)
}

/// Text in which the runner of GitHub Actions finds no command: neither a line that begins with `::`, nor `##[`
/// anywhere. What it takes for blank, or passes over, is more than spaces: only what can be seen counts.
pub(super) fn tame(text: &str) -> Cow<'_, str> {
    tame_by(text, |character| character.escape_unicode().to_string())
}

/// A line of JSON of which the same holds, and which says the same.
pub(super) fn tame_json(line: &str) -> Cow<'_, str> {
    // It begins with a bracket, and what is escaped can only stand in a string.
    tame_by(line, |character| format!("\\u{:04x}", u32::from(character)))
}

fn tame_by(text: &str, escaped: impl Fn(char) -> String) -> Cow<'_, str> {
    if !text.contains(['#', ':']) {
        return Cow::Borrowed(text);
    }
    let mut tamed = String::with_capacity(text.len() + 8);
    let (mut begins, mut hashes) = (true, 0);
    for character in text.chars() {
        let is_seen = character.is_ascii_graphic() || character.is_alphanumeric();
        match character {
            '\n' | '\r' => (begins, hashes) = (true, 0),
            _ if !is_seen => {}
            ':' if begins => {
                tamed += &escaped(character);
                begins = false;
                continue;
            }
            '[' if hashes >= 2 => {
                tamed += &escaped(character);
                hashes = 0;
                continue;
            }
            _ => {
                begins = false;
                hashes = if character == '#' { hashes + 1 } else { 0 };
            }
        }
        tamed.push(character);
    }
    Cow::Owned(tamed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_is_escaped() {
        assert_eq!(one_line("a\x1b[31mb\nc\u{9b}d"), "a\\u{1b}[31mb\\nc\\u{9b}d");
        assert_eq!(printable("a\n\tb\r"), "a\n\tb\\r");
        assert_eq!(printable("größe"), "größe");
        // Shown as `gnp.exe` where nobody minds the direction.
        assert_eq!(one_line("\u{202e}exe.png\u{2069}"), "\\u{202e}exe.png\\u{2069}");
    }

    #[test]
    fn no_line_is_a_command_of_a_runner() {
        for (text, expected) in [
            ("      Pushed hello to a:b::c", "      Pushed hello to a:b::c"),
            ("::add-mask::x", "\\u{3a}:add-mask::x"),
            ("a\n \t\u{a0}\u{feff}::error::x\n::b", "a\n \t\u{a0}\u{feff}\\u{3a}:error::x\n\\u{3a}:b"),
            (":\u{200b}:error::x", "\\u{3a}\u{200b}:error::x"),
            ("#[derive] # [x] ##", "#[derive] # [x] ##"),
            ("x ##[add-path]y ##[z]", "x ##\\u{5b}add-path]y ##\\u{5b}z]"),
            ("#\u{200b}#\u{feff}[x] ###[y]", "#\u{200b}#\u{feff}\\u{5b}x] ###\\u{5b}y]"),
            ("größe", "größe"),
        ] {
            assert_eq!(tame(text), expected, "{text:?}");
        }
    }

    #[test]
    fn json_says_the_same_without_a_command() {
        for value in ["##[error]x", "#\u{200b}#[x]", "::a", "\n::a"] {
            let line = serde_json::json!([{ "name": value }]).to_string();
            let tamed = tame_json(&line);
            assert!(!tamed.contains("#[") && !tamed.starts_with(':'), "{tamed}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&tamed).ok(), serde_json::from_str(&line).ok());
        }
    }
}
