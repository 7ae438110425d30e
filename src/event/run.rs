//! Facts about a run as a whole: which part of it is under way, and what must never be shown of it.

use std::fmt;

/// A part of a run that may take a while. One ends where the next begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase<'a> {
    /// Cargo compiles, and talks on stderr itself.
    Compile,
    /// Bases are found, and images judged before anything is made.
    Base,
    /// Layers are made.
    Layers,
    /// The image of this name is brought into its repository.
    Push(&'a str),
    /// Functions are brought to their images.
    Functions,
}

/// A secret on its way to whoever keeps it from being shown. It cannot be printed by accident.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hidden<'a>(&'a str);

impl<'a> Hidden<'a> {
    /// Takes `text` out of sight.
    #[must_use]
    pub fn new(text: &'a str) -> Self {
        Self(text)
    }

    /// The secret: for nobody but the one who hides it.
    #[must_use]
    pub fn expose(&self) -> &'a str {
        self.0
    }
}

impl fmt::Debug for Hidden<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A name as a part of a variable's name: in capitals, with `_` for all that is neither a letter nor a digit.
///
/// Here because two rooms must agree on it: the one that refuses names that become the same, and the one that writes.
#[must_use]
pub fn variable(name: &str) -> String {
    let part = |letter: char| if letter.is_ascii_alphanumeric() { letter.to_ascii_uppercase() } else { '_' };
    name.chars().map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_parts_of_variables() {
        for (name, part) in [("hello", "HELLO"), ("my-api.v2", "MY_API_V2"), ("my_api", "MY_API"), ("7größe", "7GR__E")]
        {
            assert_eq!(variable(name), part, "{name}");
        }
    }

    #[test]
    fn a_secret_has_no_form_for_people() {
        assert_eq!(format!("{:?}", Hidden::new("canary")), "***");
    }
}
