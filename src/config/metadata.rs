//! Reads the tables of `Cargo.toml` and `lambda-image.toml`: checks their values and tells their unknown keys.
//!
//! Nothing is merged here. Errors name the file and the key as the user would look for it.

use std::path::Path;

use serde::de::value::Error as ValueError;
use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde_json::Value;

use crate::check::rules;
use crate::cli::check;
use crate::event::Session;
use crate::problem::{Problem, Result};

use super::suggest;
use super::table::{AssetTable, Table, Words};

/// Where a table is written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    /// The file.
    pub file: &'a Path,
    /// The keys that lead to the table; empty when it is the whole file.
    pub keys: &'a str,
}

impl Place<'_> {
    fn key(&self, path: &str) -> String {
        match (self.keys, path) {
            (keys, "" | ".") => keys.to_owned(),
            ("", path) => path.to_owned(),
            (keys, path) => format!("{keys}.{path}"),
        }
    }

    /// A value that is not what its key wants.
    fn refuse(&self, path: &str, why: &str) -> Problem {
        let key = self.key(path);
        let file = self.file.display();
        let what = if key.is_empty() { format!("`{file}`") } else { format!("`{key}` in `{file}`") };
        let problem = Problem::usage(format!("{what} is not valid")).because(why.to_owned()).in_file(self.file);
        problem.help(next_step(path, why).unwrap_or_else(|| WHAT_KEYS_HOLD.to_owned()))
    }
}

/// The way on from what is not as it should be, where there is no better one.
const WHAT_KEYS_HOLD: &str = "mend it there; what a key may hold is in docs/reference.md";

/// What to write instead, where serde's reason does not say it.
fn next_step(path: &str, why: &str) -> Option<String> {
    let last = path.rsplit('.').next().unwrap_or_default();
    if let Some(key) = why.strip_prefix("missing field ") {
        return Some(format!("every asset says with {key} what to pack: `{{ path = \"models\" }}`"));
    }
    if why.starts_with("invalid value: ") && why.ends_with("u32") {
        return Some("write a whole number, of 0 or more".into());
    }
    let (found, wanted) = why.strip_prefix("invalid type: ")?.rsplit_once(", expected ")?;
    match (found.split('`').nth(1), wanted) {
        (Some(value), "a string") => Some(format!("write it as a string: `\"{value}\"`")),
        (_, "a sequence") if last == "assets" => {
            Some("write a list of tables: `assets = [{ path = \"models\" }]`".into())
        }
        (_, "a sequence") => Some(format!("write a list: `{last} = [\"...\"]`")),
        (_, "a table") if path.starts_with("assets[") => Some("write a table: `{ path = \"models\" }`".into()),
        (_, "a string") if last == "handler" => {
            Some("CMD is exactly one word; what starts it goes into `entrypoint`".into())
        }
        (_, "a map") if last == "env" => Some("write a table: `env = { RUST_LOG = \"info\" }`".into()),
        (_, "a map" | "a table") if path == "bin" || path.starts_with("bin.") => {
            Some("write a table for each binary: `[package.metadata.lambda-image.bin.NAME]`".into())
        }
        (_, "a string or an array of strings") => Some(format!("write a word or a list of words: `{last} = \"...\"`")),
        (_, "a boolean") => Some("write `true` or `false`, without quotes".into()),
        (_, "u32") => Some("write a whole number, without quotes".into()),
        _ => None,
    }
}

/// Reads the table of a package or workspace from Cargo's metadata.
pub(super) fn read(metadata: &Value, place: Place<'_>, session: &Session) -> Result<Table> {
    match metadata.get("lambda-image") {
        Some(value) => read_value(value, place, session),
        None => Ok(Table::default()),
    }
}

/// Reads `lambda-image.toml`.
pub(super) fn read_toml(text: &str, file: &Path, session: &Session) -> Result<Table> {
    let value: Value = toml::from_str(text).map_err(|error| {
        let problem = Problem::usage(format!("could not parse `{}`", file.display())).in_file(file);
        problem.because(error.to_string().trim().to_owned()).help(WHAT_KEYS_HOLD)
    })?;
    read_value(&value, Place { file, keys: "" }, session)
}

fn read_value(value: &Value, place: Place<'_>, session: &Session) -> Result<Table> {
    // Serde would take an array for a struct, field by field.
    if !value.is_object() {
        return Err(place.refuse("", "must be a table"));
    }
    let mut unused = Vec::new();
    let mut note = |path: serde_ignored::Path<'_>| unused.push(keys_of(&path));
    let table: Table = serde_path_to_error::deserialize(serde_ignored::Deserializer::new(value, &mut note))
        .map_err(|error| place.refuse(&error.path().to_string(), &error.inner().to_string()))?;
    for (bin, nested) in &table.bin {
        if !nested.bin.is_empty() {
            unused.push(vec!["bin".into(), bin.clone(), "bin".into()]);
        }
    }
    for keys in unused {
        warn_of_unused(&keys, place, session);
    }
    check_table(&table, "", place)?;
    for (bin, nested) in &table.bin {
        check_table(nested, &format!("bin.{bin}."), place)?;
    }
    Ok(table)
}

/// The keys that lead to an unused one; an index is written as a key of its own, `[0]`.
fn keys_of(path: &serde_ignored::Path<'_>) -> Vec<String> {
    use serde_ignored::Path;
    let (parent, last) = match path {
        Path::Root => return Vec::new(),
        Path::Seq { parent, index } => (parent, Some(format!("[{index}]"))),
        Path::Map { parent, key } => (parent, Some(key.clone())),
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => (parent, None),
    };
    let mut keys = keys_of(parent);
    keys.extend(last);
    keys
}

fn warn_of_unused(keys: &[String], place: Place<'_>, session: &Session) {
    let path = keys.join(".").replace(".[", "[");
    let known = match keys {
        [.., list, index, _] if list == "assets" && index.starts_with('[') => keys_taken::<AssetTable>(),
        _ => keys_taken::<Table>(),
    };
    let last = keys.last().map(String::as_str).unwrap_or_default();
    let near = suggest(last, known.iter().copied()).filter(|near| *near != last);
    let help = near.map(|near| format!("did you mean `{near}`?")).or_else(|| match keys {
        [first] if place.keys.is_empty() && ["package", "workspace"].contains(&first.as_str()) => {
            Some("in this file keys stand at the top, without `[package.metadata.lambda-image]`".to_owned())
        }
        _ => None,
    });
    session.warn(&format!("unused key `{}` in `{}`", place.key(&path), place.file.display()), help.as_deref());
}

/// Tells that a key which may stand elsewhere has no effect where it stands.
pub(super) fn warn_of_misplaced(key: &str, place: Place<'_>, help: &str, session: &Session) {
    session.warn(&format!("unused key `{}` in `{}`", place.key(key), place.file.display()), Some(help));
}

/// The keys that a table takes, asked of serde, so that no second list can go stale.
pub(super) fn keys_taken<'de, T: Deserialize<'de>>() -> &'static [&'static str] {
    struct Probe<'a>(&'a mut &'static [&'static str]);
    impl<'de> Deserializer<'de> for Probe<'_> {
        type Error = ValueError;
        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, ValueError> {
            Err(de::Error::custom("only asked for its keys"))
        }
        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            visitor: V,
        ) -> Result<V::Value, ValueError> {
            *self.0 = fields;
            self.deserialize_any(visitor)
        }
        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
            unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }
    let mut keys: &[&str] = &[];
    // The error is the probe's own: it never makes a value.
    let _ = T::deserialize(Probe(&mut keys));
    keys
}

/// Checks the values whose form serde does not know.
fn check_table(table: &Table, within: &str, place: Place<'_>) -> Result<()> {
    let checked =
        |key: &str, outcome: Result<(), String>| outcome.map_err(|why| place.refuse(&format!("{within}{key}"), &why));
    let word = |key: &str, value: &Option<String>, rule: fn(&str) -> Result<(), String>| {
        value.as_deref().map_or(Ok(()), |value| checked(key, rule(value)))
    };
    word("base", &table.base, check::base)?;
    word("handler", &table.handler, check::word)?;
    word("working-directory", &table.working_directory, check::working_directory)?;
    word("cargo-build", &table.cargo_build, check::word)?;
    word("repository", &table.repository, check::repository)?;
    for (key, value) in [
        ("role", &table.role),
        ("alias", &table.alias),
        ("region", &table.region),
        ("aws-profile", &table.aws_profile),
        ("endpoint-url", &table.endpoint_url),
    ] {
        word(key, value, check::word)?;
    }
    word("max-size", &table.max_size, check::size)?;
    for (key, words, rule) in
        [("deny", &table.deny, check::denied as fn(&str) -> _), ("allow", &table.allow, check::rule)]
    {
        let codes = words.iter().flat_map(|Words(codes)| codes);
        for code in codes {
            rule(code).map_err(|_| {
                let why = format!("`{code}` is no code of a rule");
                place.refuse(&format!("{within}{key}"), &why).help(rules::other(code))
            })?;
        }
    }
    for (key, value, range) in [("memory", table.memory, 128..=10_240), ("timeout", table.timeout, 1..=900)] {
        if let Some(value) = value.filter(|value| !range.contains(value)) {
            let (least, most) = range.into_inner();
            checked(key, Err(format!("{value} is not between {least} and {most}")))?;
        }
    }
    if let Some(level) = table.compression_level {
        checked("compression-level", check::compression_level(level))?;
    }
    if let Some(Words(words)) = &table.entrypoint {
        checked("entrypoint", check::entrypoint(words))?;
    }
    for name in table.env.keys() {
        checked(&format!("env.{name}"), check::variable(name))?;
    }
    for (index, glob) in table.allow_secrets.iter().flatten().enumerate() {
        checked(&format!("allow-secrets[{index}]"), check::glob(glob))?;
    }
    for (index, tag) in table.tags.iter().flatten().enumerate() {
        checked(&format!("tags[{index}]"), check::tag(tag))?;
    }
    for function in table.function.iter().flat_map(|words| &words.0) {
        checked("function", check::word(function))?;
    }
    for (index, asset) in table.assets.iter().flatten().enumerate() {
        checked(&format!("assets[{index}].path"), check::word(&asset.path))?;
        for (key, globs) in [("exclude", &asset.exclude), ("allow-secrets", &asset.allow_secrets)] {
            for (at, glob) in globs.iter().enumerate() {
                checked(&format!("assets[{index}].{key}[{at}]"), check::glob(glob))?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::listening;
    use super::*;

    fn place() -> Place<'static> {
        Place { file: Path::new("/p/Cargo.toml"), keys: "package.metadata.lambda-image" }
    }

    #[test]
    fn every_documented_key_is_taken() {
        let text = r#"
            base = "public.ecr.aws/lambda/provided:al2023"
            repository = "shop/{package}"
            create-repository = true
            tags = ["v{version}"]
            function = "thumbnailer"
            alias = "live"
            handler = "thumbnailer"
            env = { RUST_LOG = "info" }
            entrypoint = ["/a", "b"]
            working-directory = "/var/task"
            compression-level = 6
            format = "docker"
            allow-secrets = ["**/*.pem"]
            cargo-build = "zigbuild"
            [[assets]]
            name = "models"
            path = "models"
            to = "models"
            exclude = ["**/*.tmp"]
            follow-symlinks = false
            allow-secrets = []
            [bin.resize]
            function = ["resize", "resize-2"]
        "#;
        let (session, heard) = listening();
        let table = read_toml(text, Path::new("/p/lambda-image.toml"), &session).expect("all keys are right");
        assert_eq!(heard.warnings(), Vec::<String>::new());
        assert_eq!(table.assets.map(|assets| assets[0].exclude.clone()), Some(vec!["**/*.tmp".to_owned()]));
        assert_eq!(table.function, Some(Words(vec!["thumbnailer".into()])));
        assert_eq!(table.bin["resize"].function, Some(Words(vec!["resize".into(), "resize-2".into()])));
    }

    #[test]
    fn unused_keys_are_told_by_their_full_name_and_with_the_nearest_one() {
        let value = json!({"lambda-image": {
            "handeler": "x",
            "create_repository": true,
            "assets": [{"path": "a", "follow-symlink": true}],
            "bin": {"resize": {"qqqqqqqq": 1, "bin": {"x": {"base": "scratch"}}}},
        }});
        let (session, heard) = listening();
        read(&value, place(), &session).expect("unused keys are no error");
        let key = |rest: &str| format!("unused key `package.metadata.lambda-image.{rest}` in `/p/Cargo.toml`");
        let mut warnings = heard.warnings();
        warnings.sort();
        assert_eq!(
            warnings,
            [
                key("assets[0].follow-symlink") + " (did you mean `follow-symlinks`?)",
                key("bin.resize.bin"),
                key("bin.resize.qqqqqqqq"),
                key("create_repository") + " (did you mean `create-repository`?)",
                key("handeler") + " (did you mean `handler`?)",
            ]
        );
    }

    #[test]
    fn a_wrong_value_is_told_with_its_file_key_and_reason() {
        for (value, key, why) in [
            (json!([]), "", "must be a table"),
            (json!({"base": 1}), ".base", "invalid type: integer `1`, expected a string"),
            (json!({"assets": {}}), ".assets", "invalid type: map, expected a sequence"),
            (json!({"assets": [{"path": 3}]}), ".assets[0].path", "invalid type: integer `3`, expected a string"),
            (json!({"assets": [{"path": "a"}, {"to": "b"}]}), ".assets[1]", "missing field `path`"),
            (json!({"assets": [{"path": ""}]}), ".assets[0].path", "must not be empty"),
            (json!({"env": {"A": 1}}), ".env.A", "invalid type: integer `1`, expected a string"),
            (json!({"function": [1]}), ".function[0]", "invalid type: integer `1`, expected a string"),
            (
                json!({"entrypoint": true}),
                ".entrypoint",
                "invalid type: boolean `true`, expected a string or an array of strings",
            ),
            (json!({"entrypoint": []}), ".entrypoint", "must have at least one word"),
            (json!({"compression-level": 10}), ".compression-level", "must be from 0 to 9"),
            (json!({"format": "tar"}), ".format", "unknown variant `tar`, expected `oci` or `docker`"),
            (json!({"bin": {"x": {"handler": ""}}}), ".bin.x.handler", "must not be empty"),
            (json!({"allow": "L99"}), ".allow", "`L99` is no code of a rule"),
            (json!({"deny": ["l020", "warnings", "58"]}), ".deny", "`58` is no code of a rule"),
            (json!({"max-size": "5 QB"}), ".max-size", "not a whole number of B, KB, MB, GB, KiB, MiB or GiB"),
            (
                json!({"tags": ["v1", "v{versoin}"]}),
                ".tags[1]",
                "`{versoin}` is not known; there are {bin}, {package} and {version}",
            ),
        ] {
            let problem =
                read(&json!({"lambda-image": value}), place(), &Session::silent()).expect_err("the value is wrong");
            assert_eq!(
                problem.message(),
                format!("`package.metadata.lambda-image{key}` in `/p/Cargo.toml` is not valid")
            );
            assert_eq!(problem.causes(), [why]);
            assert!(problem.next_step().is_some(), "{key}");
        }
    }

    #[test]
    fn in_a_file_of_our_own_keys_have_no_prefix() {
        let file = Path::new("/p/lambda-image.toml");
        let read = |text| read_toml(text, file, &Session::silent()).expect_err("the text is wrong");
        assert_eq!(read("handler = 1").message(), "`handler` in `/p/lambda-image.toml` is not valid");
        assert_eq!(read("handler = ").message(), "could not parse `/p/lambda-image.toml`");
    }
}
