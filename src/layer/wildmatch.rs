//! Git's patterns (gitattributes(5), gitignore(5)): `*` and `?` within a part of a path, `**` over parts, classes.
//!
//! Apart from what globs are elsewhere in this program, since git knows no braces, has POSIX classes (`git lfs track`
//! writes a space as `[[:space:]]`) and takes a `**` for one wherever what stands before it is plain text.

/// A pattern about names or about paths.
#[derive(Debug)]
pub(super) struct Pattern {
    text: Vec<u8>,
    /// Whether it is about names, wherever they are, and not about paths.
    is_name: bool,
}

impl Pattern {
    /// What a line begins with; `None` if no file can match it: patterns of directories, and negative ones, which
    /// attributes have not.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        if text.is_empty() || text.starts_with(b"!") || text.ends_with(b"/") {
            return None;
        }
        let is_name = !text.contains(&b'/');
        Some(Self { text: text.strip_prefix(b"/").unwrap_or(text).to_owned(), is_name })
    }

    /// Whether it matches a file, by its path from where patterns start.
    pub(super) fn is_match(&self, path: &[u8]) -> bool {
        let name = path.iter().rposition(|byte| *byte == b'/').map_or(path, |slash| &path[slash + 1..]);
        let subject = if self.is_name { name } else { path };
        let plain = self.text.iter().position(|byte| b"*?[\\".contains(byte)).unwrap_or(self.text.len());
        let (plain, special) = self.text.split_at(plain);
        subject.strip_prefix(plain).is_some_and(|rest| matches(special, rest, true))
    }
}

/// Whether all of `text` matches; `begins` says that a part of the pattern begins here.
fn matches(pattern: &[u8], text: &[u8], begins: bool) -> bool {
    let Some((first, rest)) = pattern.split_first() else { return text.is_empty() };
    match first {
        b'*' => stars(pattern, text, begins),
        b'?' => text.split_first().is_some_and(|(byte, left)| *byte != b'/' && matches(rest, left, false)),
        b'[' => {
            let Some((byte, left)) = text.split_first() else { return false };
            class(rest, *byte).is_some_and(|(is_in, rest)| is_in && *byte != b'/' && matches(rest, left, false))
        }
        b'\\' => match (rest.split_first(), text.split_first()) {
            (Some((escaped, rest)), Some((byte, left))) => escaped == byte && matches(rest, left, false),
            _ => false,
        },
        plain => text.split_first().is_some_and(|(byte, left)| plain == byte && matches(rest, left, *byte == b'/')),
    }
}

fn stars(pattern: &[u8], text: &[u8], begins: bool) -> bool {
    let count = pattern.iter().take_while(|byte| **byte == b'*').count();
    let rest = &pattern[count..];
    let below = rest.strip_prefix(b"/");
    if count > 1 && begins && (rest.is_empty() || below.is_some()) {
        // Any parts, or none.
        return below.is_some_and(|below| matches(below, text, true))
            || (0..=text.len()).any(|taken| matches(rest, &text[taken..], false));
    }
    let most = text.iter().position(|byte| *byte == b'/').unwrap_or(text.len());
    (0..=most).any(|taken| matches(rest, &text[taken..], false))
}

/// Whether a byte is in the class that begins behind the `[`, and what follows the class; `None` if it has no end.
fn class(pattern: &[u8], byte: u8) -> Option<(bool, &[u8])> {
    let negated = pattern.starts_with(b"!") || pattern.starts_with(b"^");
    let mut rest = &pattern[usize::from(negated)..];
    let (mut is_in, mut is_first) = (false, true);
    loop {
        if rest.starts_with(b"]") && !is_first {
            return Some((is_in != negated, &rest[1..]));
        }
        is_first = false;
        if let Some(named) = rest.strip_prefix(b"[:") {
            let end = named.windows(2).position(|two| two == b":]")?;
            is_in |= is_of(&named[..end], byte)?;
            rest = &named[end + 2..];
            continue;
        }
        let (low, after) = member(rest)?;
        rest = after;
        let mut high = low;
        if let Some(after) = rest.strip_prefix(b"-").filter(|after| !after.starts_with(b"]")) {
            (high, rest) = member(after)?;
        }
        is_in |= (low..=high).contains(&byte);
    }
}

/// A byte of a class, which may be escaped.
fn member(pattern: &[u8]) -> Option<(u8, &[u8])> {
    let (byte, rest) = pattern.split_first()?;
    if *byte != b'\\' {
        return Some((*byte, rest));
    }
    rest.split_first().map(|(byte, rest)| (*byte, rest))
}

/// Whether a byte is in a named class (POSIX, 9.3.5); `None` if there is none of this name.
fn is_of(name: &[u8], byte: u8) -> Option<bool> {
    Some(match name {
        b"alnum" => byte.is_ascii_alphanumeric(),
        b"alpha" => byte.is_ascii_alphabetic(),
        b"blank" => matches!(byte, b' ' | b'\t'),
        b"cntrl" => byte.is_ascii_control(),
        b"digit" => byte.is_ascii_digit(),
        b"graph" => byte.is_ascii_graphic(),
        b"lower" => byte.is_ascii_lowercase(),
        b"print" => byte.is_ascii_graphic() || byte == b' ',
        b"punct" => byte.is_ascii_punctuation(),
        // C's `isspace` has the vertical tab, too.
        b"space" => byte.is_ascii_whitespace() || byte == 0x0b,
        b"upper" => byte.is_ascii_uppercase(),
        b"xdigit" => byte.is_ascii_hexdigit(),
        _ => return None,
    })
}
