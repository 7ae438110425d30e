//! The forms of values that are strings to everybody else: references, repositories, tags, names, globs.
//!
//! Each rule says in a fragment what is wrong; whoever asks adds the flag, variable or key. The same rules hold for
//! flags and for metadata.

use std::path::Path;

use globset::Glob;

use super::values::SizeArg;
use crate::base::reference::{BaseReference, FORMS};
use crate::check::rules;
use crate::oci::reference;
use crate::platform::Architecture;

/// What may stand in braces in a repository or tag.
const PLACEHOLDERS: [&str; 3] = ["bin", "package", "version"];

/// The longest tag of the distribution specification.
const TAG_LENGTH: usize = 128;

/// What the tag that every image gets adds to its name: `-` and 12 digits of the digest.
const DIGEST_TAG_LENGTH: usize = 13;

/// A code of a rule.
pub fn rule(text: &str) -> Result<(), String> {
    match rules::find(text) {
        Some(_) => Ok(()),
        None => Err(format!("no code of a rule; {}", rules::other(text))),
    }
}

/// A code of a rule, or `warnings` for all of them that warn.
pub fn denied(text: &str) -> Result<(), String> {
    if text == "warnings" { Ok(()) } else { rule(text) }
}

/// A size in bytes with or without a unit.
pub fn size(text: &str) -> Result<(), String> {
    text.parse::<SizeArg>().map(drop)
}

/// A string that must say something.
pub fn word(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("must not be empty".into());
    }
    if text.contains('\0') { Err("must not contain a NUL".into()) } else { Ok(()) }
}

/// The reference of a base image.
pub fn base(text: &str) -> Result<(), String> {
    word(text)?;
    let has_scheme = ["oci:", "oci-archive:", "docker-archive:"].iter().any(|scheme| text.starts_with(scheme));
    if text.ends_with(".tar") && !has_scheme {
        return Err(format!("a file is written `oci-archive:{text}` or, of `docker save`, `docker-archive:{text}`"));
    }
    BaseReference::read(text, Path::new("/")).map(drop).map_err(|why| format!("{why}; {FORMS}"))
}

/// An ECR repository, or `HOST/PATH` when the first part looks like a host.
pub fn repository(text: &str) -> Result<(), String> {
    word(text)?;
    if let Some((scheme, place)) = text.split_once("://") {
        let plain = if scheme == "http" { "; `--insecure` allows plain http to another machine" } else { "" };
        return Err(format!("is written without a scheme: `{place}`{plain}"));
    }
    let plain = fill_placeholders(text)?;
    let (first, rest) = plain.split_once('/').unwrap_or((&plain, ""));
    let is_host = first.contains(['.', ':']) || first == "localhost";
    let path = if is_host { rest } else { &plain };
    if is_host && rest.is_empty() {
        return Err(format!("there is no repository after the host `{first}`"));
    }
    if let Some(at) = path.find([':', '@']) {
        let mark = if path[at..].starts_with(':') { "tag" } else { "digest" };
        return Err(format!("must be without a {mark}; tags have the key and flag of their own"));
    }
    if let Some(part) = path.split('/').find(|part| !is_repository_part(part)) {
        return Err(format!("`{part}` is no part of a repository: lower-case letters, digits, and between them . _ -"));
    }
    let host_fits = !is_host || reference(&plain).is_ok_and(|whole| whole.registry() == first);
    if host_fits { Ok(()) } else { Err(format!("`{first}` is no host")) }
}

/// A path component of the distribution specification: `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`.
fn is_repository_part(part: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let separators_fit = part
        .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        .all(|separator| matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|byte| byte == b'-'));
    edge(part.as_bytes().first()) && edge(part.as_bytes().last()) && separators_fit
}

/// A tag.
pub fn tag(text: &str) -> Result<(), String> {
    word(text)?;
    plain_tag(&fill_placeholders(text)?, TAG_LENGTH)
}

/// The name of an image, which becomes a file name, an OCI reference name and a part of a tag.
pub fn image_name(text: &str) -> Result<(), String> {
    word(text)?;
    plain_tag(text, TAG_LENGTH - DIGEST_TAG_LENGTH)
}

fn plain_tag(text: &str, length: usize) -> Result<(), String> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let fits = text.bytes().enumerate().all(|(at, byte)| is_word(byte) || (at > 0 && b".-".contains(&byte)));
    if !fits {
        return Err("must be letters, digits and _, and after the first one also . and -".into());
    }
    if text.len() > length { Err(format!("must have at most {length} characters")) } else { Ok(()) }
}

/// The text with an `x` for each placeholder.
fn fill_placeholders(text: &str) -> Result<String, String> {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}').ok_or("a `{` is not closed")?;
        if !PLACEHOLDERS.contains(&name) {
            return Err(format!("`{{{name}}}` is not known; there are {{bin}}, {{package}} and {{version}}"));
        }
        plain.push_str(before);
        plain.push('x');
        rest = after;
    }
    plain.push_str(rest);
    Ok(plain)
}

/// A working directory.
pub fn working_directory(text: &str) -> Result<(), String> {
    word(text)?;
    if text.starts_with('/') { Ok(()) } else { Err("must be an absolute path, such as /var/task".into()) }
}

/// A compression level.
pub fn compression_level(level: u32) -> Result<(), String> {
    if level <= 9 { Ok(()) } else { Err("must be from 0 to 9".into()) }
}

/// ENTRYPOINT.
pub fn entrypoint(words: &[String]) -> Result<(), String> {
    if words.is_empty() {
        return Err("must have at least one word".into());
    }
    words.iter().try_for_each(|text| word(text))
}

/// The name of an environment variable.
pub fn variable(name: &str) -> Result<(), String> {
    word(name)?;
    if name.contains('=') { Err("a variable's name has no `=`".into()) } else { Ok(()) }
}

/// A triple of a target that Lambda can run, perhaps with the glibc version that zigbuild takes, or the path of a
/// target specification, about which nothing is known.
pub fn triple(text: &str) -> Result<(), String> {
    word(text)?;
    if text.ends_with(".json") {
        return Ok(());
    }
    let parts: Vec<&str> = text.split('-').collect();
    // Android and OpenHarmony have `linux` in their triples too, but another libc; x32 and ILP32 are other ABIs.
    let libc = parts.last().copied().unwrap_or_default();
    let fits = libc == "gnu" || libc == "musl" || libc.starts_with("gnu.");
    let architecture = Architecture::from_triple(text);
    if architecture.is_some() && parts.contains(&"linux") && fits {
        return Ok(());
    }
    let use_instead = match architecture {
        Some(architecture) => architecture.gnu_triple().to_owned(),
        None => format!("{} or {}", Architecture::Amd64.gnu_triple(), Architecture::Arm64.gnu_triple()),
    };
    Err(format!("Lambda runs Linux on x86-64 and arm64 only; use {use_instead}"))
}

/// A glob.
pub fn glob(text: &str) -> Result<(), String> {
    word(text)?;
    Glob::new(text).map(|_| ()).map_err(|error| error.kind().to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn table(rule: fn(&str) -> Result<(), String>, good: &[&str], bad: &[(&str, &str)]) {
        for text in good {
            assert_eq!(rule(text), Ok(()), "{text}");
        }
        for (text, why) in bad {
            assert!(rule(text).is_err_and(|said| said.contains(why)), "{text}: {:?}", rule(text));
        }
    }

    #[test]
    fn bases_are_references_paths_or_scratch() {
        let digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let pinned = format!("public.ecr.aws/lambda/provided:al2023@{digest}");
        table(
            base,
            &["public.ecr.aws/lambda/provided:al2023", &pinned, "debian", "localhost:5000/a", "scratch", "oci:d:x"],
            &[
                ("", "empty"),
                ("./image.tar", "written `oci-archive:./image.tar` or"),
                ("oci:", "no path follows `oci:`; write `registry/name:tag`"),
                ("docker-archive:", "no path follows"),
                ("Public/UPPER:x", "the name `Public/UPPER` must be lower case; write `registry/name:tag`"),
                ("a b", "it contains white space"),
                ("a@sha256:12", "invalid reference format"),
                ("https://a.b/c", "is written without a scheme"),
            ],
        );
    }

    #[test]
    fn triples_are_those_lambda_runs() {
        let (both, arm) = ("x86_64-unknown-linux-gnu or aarch64-unknown-linux-gnu", "use aarch64-unknown-linux-gnu");
        table(
            triple,
            &["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-musl", "aarch64-unknown-linux-gnu.2.34", "t/x.json"],
            &[
                ("aarch64-apple-darwin", arm),
                ("aarch64-linux-android", arm),
                ("x86_64-pc-windows-gnu", "use x86_64-unknown-linux-gnu"),
                ("x86_64-unknown-linux-gnux32", "use x86_64-unknown-linux-gnu"),
                ("armv7-unknown-linux-gnueabihf", both),
                ("aarch64_be-unknown-linux-gnu", both),
                ("linux", both),
            ],
        );
    }

    #[test]
    fn repositories_are_names_of_ecr_or_begin_with_a_host() {
        table(
            repository,
            &[
                "shop/thumbnailer",
                "a",
                "a.b/c",
                "localhost/a",
                "localhost:5000/a/b",
                "shop/{bin}",
                "a__b/c--d",
                "{package}",
            ],
            &[
                ("", "empty"),
                ("shop/Thumbnailer", "`Thumbnailer` is no part"),
                ("shop//a", "`` is no part"),
                ("shop/a-", "`a-` is no part"),
                ("shop/a_.b", "`a_.b` is no part"),
                ("localhost", "no repository after the host"),
                ("a.b", "no repository after the host"),
                ("shop/a:v1", "without a tag"),
                ("http://a.b/c", "without a scheme: `a.b/c`; `--insecure` allows plain http to another machine"),
                ("https://a.b:5000/c", "without a scheme: `a.b:5000/c`"),
                ("a.b/c@sha256:12", "without a digest"),
                ("./a", "`.` is no host"),
                ("-a.b/c", "`-a.b` is no host"),
                ("shop/{name}", "`{name}` is not known"),
                ("shop/{bin", "not closed"),
            ],
        );
    }

    #[test]
    fn tags_and_names_have_the_form_of_the_specification() {
        let longest = "a".repeat(128);
        let too_long = "a".repeat(129);
        table(
            tag,
            &["v{version}", "_x.Y-1", &longest],
            &[(".a", "letters"), ("a/b", "letters"), ("", "empty"), (&too_long, "at most 128")],
        );
        table(
            image_name,
            &["a", "my-bin_2"],
            &[("..", "letters"), ("a b", "letters"), ("{bin}", "letters"), (&longest, "at most 115")],
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_repository_that_is_taken_parses_as_a_reference(text in "[a-z0-9._/-]{1,16}") {
            if repository(&text).is_ok() {
                let first = text.split('/').next().unwrap_or_default();
                let is_host = first.contains('.') || first == "localhost";
                let with_host = if is_host { text } else { format!("registry.example/{text}") };
                prop_assert!(reference(&with_host).is_ok(), "{}", with_host);
            }
        }

        #[test]
        fn no_image_name_leaves_its_directory(text in ".{0,20}") {
            if image_name(&text).is_ok() {
                prop_assert!(!text.contains('/') && text != "." && text != "..");
            }
        }
    }
}
