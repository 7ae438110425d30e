//! What a function is called: a name, or an ARN, which also says the region and the account.

use std::fmt;
use std::str::FromStr;

/// The longest name that Lambda takes.
const MAX_CHARACTERS: usize = 64;

/// A function by its name or ARN, without version or alias.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FunctionName {
    name: String,
    arn: Option<Arn>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Arn {
    partition: String,
    region: String,
    account: String,
}

impl FunctionName {
    /// The bare name, which people call it by.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The region, if an ARN tells it.
    #[must_use]
    pub fn region(&self) -> Option<&str> {
        self.arn.as_ref().map(|arn| arn.region.as_str())
    }

    /// The account, if an ARN tells it.
    #[must_use]
    pub fn account(&self) -> Option<&str> {
        self.arn.as_ref().map(|arn| arn.account.as_str())
    }

    /// What Lambda's API takes: the ARN if one was given, since the account may be another than the caller's.
    #[must_use]
    pub fn for_api(&self) -> String {
        match &self.arn {
            Some(Arn { partition, region, account }) => {
                format!("arn:{partition}:lambda:{region}:{account}:function:{}", self.name)
            }
            None => self.name.clone(),
        }
    }
}

/// Whether `text` can name an alias.
///
/// # Errors
/// A sentence that says why not.
pub fn alias(text: &str) -> Result<(), String> {
    let is_fine = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if text.is_empty() || text.len() > 128 || !text.chars().all(is_fine) {
        return Err("names of aliases are 1 to 128 of the characters a-z A-Z 0-9 - _".into());
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) { Err("a number names a version".into()) } else { Ok(()) }
}

impl fmt::Display for FunctionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl FromStr for FunctionName {
    type Err = String;

    /// Errors are sentences for people, without the text itself.
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, arn) = match text.strip_prefix("arn:") {
            None => (text, None),
            Some(rest) => {
                let parts: Vec<_> = rest.splitn(6, ':').collect();
                let ([partition, "lambda", region, account, "function", name], true) =
                    (parts.as_slice(), parts.iter().all(|part| !part.is_empty()))
                else {
                    return Err("not the ARN of a function, as in `arn:aws:lambda:REGION:ACCOUNT:function:NAME`".into());
                };
                let own = |part: &str| part.to_owned();
                (*name, Some(Arn { partition: own(partition), region: own(region), account: own(account) }))
            }
        };
        if name.contains(':') {
            return Err("versions and aliases are not named here: `--publish` makes a version, `--alias` moves an \
                        alias to it"
                .into());
        }
        let is_fine = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.is_empty() || name.len() > MAX_CHARACTERS || !name.chars().all(is_fine) {
            return Err(format!("names of functions are 1 to {MAX_CHARACTERS} of the characters a-z A-Z 0-9 - _"));
        }
        Ok(Self { name: name.to_owned(), arn })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_arns_are_read_and_sent_as_they_were() {
        let arn = "arn:aws-cn:lambda:cn-north-1:123456789012:function:a-b_C9";
        let read: FunctionName = arn.parse().expect("an ARN");
        assert_eq!((read.name(), read.region(), read.account()), ("a-b_C9", Some("cn-north-1"), Some("123456789012")));
        assert_eq!((read.for_api().as_str(), read.to_string().as_str()), (arn, "a-b_C9"));
        let read: FunctionName = "a-b_C9".parse().expect("a name");
        assert_eq!((read.region(), read.for_api().as_str()), (None, "a-b_C9"));
    }

    #[test]
    fn aliases_are_words_and_no_numbers() {
        for text in ["live", "a-b_C9", "7a"] {
            alias(text).expect(text);
        }
        for text in ["", "7", "$LATEST", "a b", "a:b"] {
            alias(text).expect_err(text);
        }
    }

    #[test]
    fn what_is_no_name_says_why() {
        let long = "a".repeat(65);
        for (text, begins) in [
            ("", "names of functions"),
            ("a b", "names of functions"),
            ("größe", "names of functions"),
            (&long, "names of functions"),
            ("a:live", "versions and aliases"),
            ("arn:aws:lambda:eu-west-1:123456789012:function:a:7", "versions and aliases"),
            ("arn:aws:lambda:eu-west-1:123456789012:function:", "not the ARN"),
            ("arn:aws:iam::123456789012:role/a", "not the ARN"),
            ("arn:aws:lambda:eu-west-1:123456789012:layer:a", "not the ARN"),
        ] {
            let error = text.parse::<FunctionName>().expect_err(text);
            assert!(error.starts_with(begins), "{text}: {error}");
        }
    }
}
