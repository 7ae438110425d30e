//! Where images are pushed: settings by the layer they come from, laid over each other and then settled.
//!
//! Placeholders are filled in here, so that nothing below meets one.

use crate::aws;
use crate::cli::{DestinationArgs, check};
use crate::deploy::Asked;
use crate::problem::{Problem, Result};

use super::table::Table;

/// Where an image goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// The repository.
    pub repository: Repository,
    /// Whether a repository of ECR is made if it is not there.
    pub create_repository: bool,
    /// The tags the image gets.
    pub tags: Vec<String>,
    /// Whether it also gets the one that names its digest.
    pub digest_tag: bool,
    /// Whether plain http is good enough for a registry elsewhere.
    pub insecure: bool,
    /// What was said about AWS.
    pub aws: aws::Settings,
    /// The functions that are to run it.
    pub functions: Vec<Asked>,
}

/// A repository as it was named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Repository {
    /// Of ECR, in the caller's account and the chosen region.
    OfAccount(String),
    /// Of the registry at a host.
    At {
        /// The host, perhaps with a port.
        host: String,
        /// The path below it.
        path: String,
    },
}

impl Repository {
    /// A repository is ECR's unless its first part looks like a host (design: "Names").
    pub(super) fn of(text: &str) -> Self {
        match text.split_once('/') {
            Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => {
                Self::At { host: host.to_owned(), path: path.to_owned() }
            }
            _ => Self::OfAccount(text.to_owned()),
        }
    }
}

impl std::fmt::Display for Repository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::OfAccount(name) => f.write_str(name),
            Self::At { host, path } => write!(f, "{host}/{path}"),
        }
    }
}

/// What one layer of configuration says of where images go; what it leaves open is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct DestinationSettings {
    repository: Option<String>,
    create_repository: Option<bool>,
    tags: Option<Vec<String>>,
    insecure: Option<bool>,
    region: Option<String>,
    aws_profile: Option<String>,
    endpoint_url: Option<String>,
}

/// What placeholders stand for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Names<'a> {
    pub bin: &'a str,
    pub package: &'a str,
    /// Absent without Cargo.
    pub version: Option<&'a str>,
}

impl DestinationSettings {
    /// The settings of a table.
    pub(super) fn of_table(table: &Table) -> Self {
        Self {
            repository: table.repository.clone(),
            create_repository: table.create_repository,
            tags: table.tags.clone(),
            insecure: table.insecure,
            region: table.region.clone(),
            aws_profile: table.aws_profile.clone(),
            endpoint_url: table.endpoint_url.clone(),
        }
    }

    /// Whether a repository is named.
    pub(super) fn names_repository(&self) -> bool {
        self.repository.is_some()
    }

    fn of_flags(flags: &DestinationArgs) -> Self {
        Self {
            repository: flags.repository.clone(),
            create_repository: flags.create_repository.then_some(true),
            tags: (!flags.tag.is_empty()).then(|| flags.tag.clone()),
            insecure: flags.insecure.then_some(true),
            region: flags.region.clone(),
            aws_profile: flags.aws_profile.clone(),
            endpoint_url: flags.endpoint_url.clone(),
        }
    }

    /// These settings, and `lower` ones where these say nothing.
    #[must_use]
    pub(super) fn over(self, lower: Self) -> Self {
        Self {
            repository: self.repository.or(lower.repository),
            create_repository: self.create_repository.or(lower.create_repository),
            tags: self.tags.or(lower.tags),
            insecure: self.insecure.or(lower.insecure),
            region: self.region.or(lower.region),
            aws_profile: self.aws_profile.or(lower.aws_profile),
            endpoint_url: self.endpoint_url.or(lower.endpoint_url),
        }
    }

    /// Where the image of these names goes, flags laid over all.
    ///
    /// # Errors
    /// No repository, or one or a tag that is none once its placeholders are filled in.
    pub(super) fn settle(self, flags: &DestinationArgs, names: Names<'_>) -> Result<Destination> {
        let settings = Self::of_flags(flags).over(self);
        let repository = settings.repository.ok_or_else(|| {
            Problem::usage(format!("there is no repository to push `{}` to", names.bin)).help(
                "name one with `--repository`, or with the key `repository` under `[package.metadata.lambda-image]`: an \
                 ECR name such as `shop/thumbnailer`, or `HOST/PATH`",
            )
        })?;
        let repository = fill("repository", &repository, names, check::repository)?;
        let tags = settings.tags.unwrap_or_default();
        let mut filled: Vec<String> = Vec::new();
        for tag in &tags {
            let tag = fill("tag", tag, names, check::tag)?;
            if !filled.contains(&tag) {
                filled.push(tag);
            }
        }
        if filled.is_empty() && flags.no_digest_tag {
            return Err(Problem::usage(format!("`{}` would get no tag at all", names.bin))
                .because("without one it can be removed by the registry's own cleaning at any time")
                .help("give a tag with `--tag`, or leave out `--no-digest-tag`"));
        }
        Ok(Destination {
            repository: Repository::of(&repository),
            create_repository: settings.create_repository.unwrap_or(false),
            tags: filled,
            digest_tag: !flags.no_digest_tag,
            insecure: settings.insecure.unwrap_or(false),
            aws: aws::Settings {
                region: settings.region,
                profile: settings.aws_profile,
                endpoint_url: settings.endpoint_url,
            },
            functions: Vec::new(),
        })
    }
}

/// Fills in the placeholders, whose names were checked with the rest of the form.
fn fill(what: &str, text: &str, names: Names<'_>, rule: fn(&str) -> Result<(), String>) -> Result<String> {
    let version = match names.version {
        Some(version) => version,
        None if text.contains("{version}") => {
            return Err(Problem::usage(format!("{what} `{text}` asks for a version, and `{}` has none", names.bin))
                .because("only a Cargo package has a version")
                .help("write it out, or leave it out"));
        }
        None => "",
    };
    let filled = text.replace("{bin}", names.bin).replace("{package}", names.package).replace("{version}", version);
    rule(&filled).map_err(|why| {
        Problem::usage(format!("{what} `{text}` comes to `{filled}`, which cannot be one"))
            .because(why)
            .help(format!("write the {what} out, without that placeholder"))
    })?;
    Ok(filled)
}

/// Two images under one tag of one repository: the one pushed last would win.
pub(super) fn refuse_collisions(images: &[(String, Destination)]) -> Result<()> {
    for (at, (bin, destination)) in images.iter().enumerate() {
        for (other, earlier) in &images[..at] {
            let shared = destination.tags.iter().find(|tag| earlier.tags.contains(tag));
            if destination.repository == earlier.repository
                && let Some(tag) = shared
            {
                return Err(Problem::usage(format!(
                    "`{other}` and `{bin}` would both be `{}:{tag}`",
                    destination.repository
                ))
                .help("put `{bin}` into the repository or the tag, or choose one with `--bin`"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: Names<'static> = Names { bin: "resize", package: "shop", version: Some("1.2.3") };

    fn flags(repository: &str, tags: &[&str]) -> DestinationArgs {
        DestinationArgs {
            repository: Some(repository.into()),
            tag: tags.iter().map(|tag| (*tag).into()).collect(),
            ..DestinationArgs::default()
        }
    }

    fn settled(flags: &DestinationArgs, names: Names<'_>) -> Result<Destination> {
        DestinationSettings::default().settle(flags, names)
    }

    #[test]
    fn placeholders_are_filled_in() {
        let destination = settled(&flags("{package}/{bin}", &["v{version}", "{bin}", "v1.2.3"]), NAMES).expect("right");
        assert_eq!(destination.repository, Repository::OfAccount("shop/resize".into()));
        assert_eq!(destination.tags, ["v1.2.3", "resize"], "each once");
        assert!(destination.digest_tag);
    }

    #[test]
    fn a_first_part_that_looks_like_a_host_is_one() {
        let at = |host: &str, path: &str| Repository::At { host: host.into(), path: path.into() };
        for (text, expected) in [
            ("shop/resize", Repository::OfAccount("shop/resize".into())),
            ("resize", Repository::OfAccount("resize".into())),
            ("localhost/x", at("localhost", "x")),
            ("localhost:5000/a/x", at("localhost:5000", "a/x")),
            ("ghcr.io/a/x", at("ghcr.io", "a/x")),
        ] {
            assert_eq!(Repository::of(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_name_once_filled_in_is_refused() {
        let none = Names { version: None, ..NAMES };
        let build = Names { version: Some("1.0.0+linux"), ..NAMES };
        let upper = Names { bin: "Resize", ..NAMES };
        for (flags, names, expected) in [
            (flags("a", &["v{version}"]), none, "tag `v{version}` asks for a version, and `resize` has none"),
            (flags("a", &["v{version}"]), build, "tag `v{version}` comes to `v1.0.0+linux`, which cannot be one"),
            (flags("a/{bin}", &[]), upper, "repository `a/{bin}` comes to `a/Resize`, which cannot be one"),
            (DestinationArgs::default(), NAMES, "there is no repository to push `resize` to"),
            (DestinationArgs { no_digest_tag: true, ..flags("a", &[]) }, NAMES, "`resize` would get no tag at all"),
        ] {
            assert_eq!(settled(&flags, names).expect_err("refused").message(), expected);
        }
    }

    #[test]
    fn two_images_of_one_tag_are_refused() {
        let image = |bin: &str, repository: &str, tag: &str| {
            let names = Names { bin, ..NAMES };
            (bin.to_owned(), settled(&flags(repository, &[tag]), names).expect("right"))
        };
        let clash = [image("a", "r", "v1"), image("b", "r", "v1")];
        let problem = refuse_collisions(&clash).expect_err("refused");
        assert_eq!(problem.message(), "`a` and `b` would both be `r:v1`");
        refuse_collisions(&[image("a", "r/{bin}", "v1"), image("b", "r/{bin}", "v1")]).expect("other repositories");
        refuse_collisions(&[image("a", "r", "{bin}"), image("b", "r", "{bin}")]).expect("other tags");
    }
}
