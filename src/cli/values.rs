//! The values of flags that have a form of their own, each parsed by one `FromStr`, so that the command line and the
//! environment agree about them.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;

use super::check;

/// `PATH[:DEST]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssetArg {
    /// File, directory or glob.
    pub path: String,
    /// Where it goes.
    pub to: Option<String>,
}

impl FromStr for AssetArg {
    type Err = String;

    // More than one colon could be read in two ways, and the wrong one would pack the wrong thing.
    fn from_str(text: &str) -> Result<Self, String> {
        let (path, to) = match text.split_once(':') {
            None => (text, None),
            Some((_, to)) if to.contains(':') => {
                return Err("more than one `:`; give a path that has one as `path` under `assets` in the \
                            configuration"
                    .into());
            }
            Some((path, to)) => (path, Some(to)),
        };
        if path.is_empty() {
            return Err("there is no path".into());
        }
        if to == Some("") {
            return Err("there is no destination after `:`; `:.` is /var/task itself".into());
        }
        Ok(Self { path: path.into(), to: to.map(Into::into) })
    }
}

/// `KEY=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvArg {
    /// The variable's name.
    pub key: String,
    /// Its value, which may be empty.
    pub value: String,
}

impl FromStr for EnvArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            None => Err("there is no `=` between name and value".into()),
            Some(("", _)) => Err("there is no name before `=`".into()),
            Some((key, value)) => Ok(Self { key: key.into(), value: value.into() }),
        }
    }
}

/// How long to wait: a number of seconds, or of the unit that follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaitArg(pub Duration);

impl FromStr for WaitArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, unit) = match text.char_indices().last() {
            Some((at, 's')) => (&text[..at], 1),
            Some((at, 'm')) => (&text[..at], 60),
            Some((at, 'h')) => (&text[..at], 3600),
            _ => (text, 1),
        };
        match number.parse::<u32>() {
            Ok(number) if number > 0 => Ok(Self(Duration::from_secs(u64::from(number) * unit))),
            _ => Err("must be a number of seconds, or one with a unit: `90s`, `20m`, `1h`".into()),
        }
    }
}

/// A word, or a JSON array of words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntrypointArg(pub Vec<String>);

impl FromStr for EntrypointArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if !text.trim_start().starts_with('[') {
            check::word(text)?;
            return Ok(Self(vec![text.into()]));
        }
        let words: Vec<String> =
            serde_json::from_str(text).map_err(|error| format!("not a JSON array of strings: {error}"))?;
        check::entrypoint(&words)?;
        Ok(Self(words))
    }
}

/// `FORMAT[:PATH]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputArg {
    /// The form.
    pub kind: OutputKind,
    /// Where to.
    pub path: Option<PathBuf>,
}

/// The form of an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutputKind {
    /// A directory in the form of an OCI layout.
    OciDir,
    /// A tar of an OCI layout.
    OciArchive,
    /// A tar for `docker load`.
    DockerArchive,
}

impl FromStr for OutputArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, path) = match text.split_once(':') {
            None => (text, None),
            Some((_, "-")) => {
                return Err("standard output carries the digests: give the path of a file".into());
            }
            Some((_, "")) => return Err("there is no path after `:`".into()),
            Some((kind, path)) => (kind, Some(path.into())),
        };
        let kind = OutputKind::from_str(kind, false)
            .map_err(|_| "the formats are `oci-dir`, `oci-archive` and `docker-archive`".to_owned())?;
        Ok(Self { kind, path })
    }
}

/// A number of bytes, such as `500 MiB`, `2GB` or `1000`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SizeArg(pub u64);

impl FromStr for SizeArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const UNITS: [(&str, u64); 8] = [
            ("", 1),
            ("B", 1),
            ("KB", 1000),
            ("MB", 1_000_000),
            ("GB", 1_000_000_000),
            ("KIB", 1 << 10),
            ("MIB", 1 << 20),
            ("GIB", 1 << 30),
        ];
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, unit) = text.split_at(digits);
        let unit = unit.trim().to_ascii_uppercase();
        let factor = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
        let bytes = number.parse::<u64>().ok().zip(factor).and_then(|(number, factor)| number.checked_mul(factor));
        bytes.map(Self).ok_or_else(|| "not a whole number of B, KB, MB, GB, KiB, MiB or GiB".into())
    }
}

/// Cargo's `--jobs`: a number, a negative one to leave so many CPUs free, or `default`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobsArg {
    /// As many as there are CPUs.
    Default,
    /// So many, or so many fewer than there are CPUs; never 0.
    Count(i32),
}

impl FromStr for JobsArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            _ if text == "default" => Ok(Self::Default),
            Ok(0) => Err("jobs may not be 0".into()),
            Ok(count) => Ok(Self::Count(count)),
            Err(_) => Err("not a number, nor `default`".into()),
        }
    }
}

/// A shell whose completions there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ShellArg {
    /// GNU Bash.
    Bash,
    /// fish.
    Fish,
    /// PowerShell.
    Powershell,
    /// Z shell.
    Zsh,
}

/// A family of media types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FormatArg {
    /// OCI's types, throughout.
    Oci,
    /// Docker's types, throughout.
    Docker,
}

/// When to colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ColorArg {
    /// If it goes to a terminal that can, and nobody set `NO_COLOR`.
    Auto,
    /// Also into files and pipes.
    Always,
    /// Not even on a terminal.
    Never,
}

impl FromStr for ColorArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        <Self as ValueEnum>::from_str(text, false).map_err(|_| "must be auto, always, or never".into())
    }
}

/// What stdout carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MessageFormatArg {
    /// One line an image.
    Human,
    /// One JSON object a line.
    Json,
    /// One document for code scanning, SARIF 2.1.0: `verify` only.
    Sarif,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_asset_is_split_at_its_only_colon() {
        let asset = |path: &str, to: Option<&str>| Ok(AssetArg { path: path.into(), to: to.map(Into::into) });
        for (text, expected) in [
            ("models", asset("models", None)),
            ("models:m", asset("models", Some("m"))),
            ("models/:/opt/m/", asset("models/", Some("/opt/m/"))),
            ("../a b/*.bin:.", asset("../a b/*.bin", Some("."))),
            ("-x:y", asset("-x", Some("y"))),
            ("", Err("there is no path")),
            (":m", Err("there is no path")),
            ("m:", Err("there is no destination after `:`; `:.` is /var/task itself")),
        ] {
            assert_eq!(text.parse(), expected.map_err(str::to_owned), "{text}");
        }
        assert!("a:b:c".parse::<AssetArg>().is_err_and(|error| error.starts_with("more than one `:`")));
        assert!("::".parse::<AssetArg>().is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn an_asset_survives_being_put_together_and_split(path in "[^:]{1,20}", to in proptest::option::of("[^:]{1,20}")) {
            let text = to.as_ref().map_or_else(|| path.clone(), |to| format!("{path}:{to}"));
            prop_assert_eq!(text.parse(), Ok::<_, String>(AssetArg { path, to }));
        }
    }

    #[test]
    fn the_first_equals_sign_ends_a_variables_name() {
        let env = |key: &str, value: &str| Ok(EnvArg { key: key.into(), value: value.into() });
        for (text, expected) in [
            ("A=b", env("A", "b")),
            ("A=", env("A", "")),
            ("A=b=c", env("A", "b=c")),
            ("A", Err("there is no `=` between name and value")),
            ("=b", Err("there is no name before `=`")),
        ] {
            assert_eq!(text.parse(), expected.map_err(str::to_owned), "{text}");
        }
    }

    #[test]
    fn a_wait_is_a_number_with_or_without_a_unit() {
        for (text, seconds) in [("90", 90), ("90s", 90), ("20m", 1200), ("1h", 3600)] {
            assert_eq!(text.parse(), Ok(WaitArg(Duration::from_secs(seconds))), "{text}");
        }
        for text in ["", "0", "m", "1d", "-1", "1.5h", "1 m", "9999999999h"] {
            assert!(text.parse::<WaitArg>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_entry_point_is_one_word_unless_it_is_an_array() {
        let words = |words: &[&str]| Ok(EntrypointArg(words.iter().map(ToString::to_string).collect()));
        for (text, expected) in [
            ("/bin/a b", words(&["/bin/a b"])),
            (r#"["/bin/a", "b"]"#, words(&["/bin/a", "b"])),
            ("[]", Err("must have at least one word".to_owned())),
            ("", Err("must not be empty".to_owned())),
        ] {
            assert_eq!(text.parse::<EntrypointArg>(), expected, "{text}");
        }
        for bad in ["[", "[1]", r#"["a"] b"#] {
            assert!(bad.parse::<EntrypointArg>().is_err_and(|error| error.starts_with("not a JSON array")), "{bad}");
        }
    }

    #[test]
    fn an_output_is_a_format_and_perhaps_a_path() {
        let output = |kind, path: Option<&str>| Ok(OutputArg { kind, path: path.map(Into::into) });
        for (text, expected) in [
            ("oci-dir", output(OutputKind::OciDir, None)),
            ("oci-archive:a.tar", output(OutputKind::OciArchive, Some("a.tar"))),
            ("docker-archive:/a:b.tar", output(OutputKind::DockerArchive, Some("/a:b.tar"))),
            ("oci-dir:", Err("there is no path after `:`".to_owned())),
            ("tar:x", Err("the formats are `oci-dir`, `oci-archive` and `docker-archive`".to_owned())),
        ] {
            assert_eq!(text.parse(), expected, "{text}");
        }
    }

    #[test]
    fn a_size_is_a_number_and_a_unit() {
        for (text, expected) in [
            ("1000", Some(1000)),
            ("2GB", Some(2_000_000_000)),
            ("500 MiB", Some(500 << 20)),
            ("10gib", Some(10 << 30)),
            ("0", Some(0)),
            ("", None),
            ("GB", None),
            ("1.5GB", None),
            ("-1", None),
            ("1 TB", None),
            ("99999999999 GiB", None),
        ] {
            assert_eq!(text.parse::<SizeArg>().ok(), expected.map(SizeArg), "{text}");
        }
    }

    #[test]
    fn jobs_are_what_cargo_takes() {
        for (text, expected) in [
            ("3", Some(JobsArg::Count(3))),
            ("-2", Some(JobsArg::Count(-2))),
            ("default", Some(JobsArg::Default)),
            ("0", None),
            ("many", None),
        ] {
            assert_eq!(text.parse().ok(), expected, "{text}");
        }
    }
}
