//! The words with which a user names a base image, parsed once.
//!
//! Nothing is looked up here: whether the image exists is found out when it is resolved.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::oci::{self, Digest, Reference};
use crate::problem::{Problem, Result};

/// The forms a reference may take, for messages.
pub const FORMS: &str = "write `registry/name:tag`, `registry/name@sha256:...`, `oci:DIR[:ref]`, `oci-archive:FILE[:ref]`, \
                     `docker-archive:FILE[:name]` or `scratch`";

/// Which base image is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BaseReference {
    /// No base at all: for static binaries.
    Scratch,
    /// An image of a registry.
    Registry(Reference),
    /// An OCI image layout in a directory.
    OciDir(LocalReference),
    /// A tar of an OCI image layout.
    OciArchive(LocalReference),
    /// What `docker save` and `podman save` write.
    DockerArchive(LocalReference),
}

/// An image in a file or directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalReference {
    /// The file or directory, absolute if the directory it was parsed for is.
    pub path: PathBuf,
    /// Which of its images, if it was said.
    pub name: Option<String>,
}

impl BaseReference {
    /// Parses `text`; relative paths start from `directory`.
    ///
    /// # Errors
    /// A usage problem that says what is wrong with it.
    pub fn parse(text: &str, directory: &Path) -> Result<Self> {
        Self::read(text, directory)
            .map_err(|why| Problem::usage(format!("`{}` is not a base image: {why}", text.escape_debug())).help(FORMS))
    }

    /// As [`BaseReference::parse`], for whoever names what is wrong with it.
    ///
    /// # Errors
    /// A fragment that says what is wrong.
    pub fn read(text: &str, directory: &Path) -> Result<Self, String> {
        if text == "scratch" {
            return Ok(Self::Scratch);
        }
        if let Some((transport, rest)) = text.split_once(':') {
            let local = || {
                let (path, name) = match rest.split_once(':') {
                    Some((path, name)) => (path, Some(name)),
                    None => (rest, None),
                };
                if path.is_empty() {
                    return Err(format!("no path follows `{transport}:`"));
                }
                let name = name.filter(|name| !name.is_empty()).map(str::to_owned);
                Ok(LocalReference { path: directory.join(path), name })
            };
            match transport {
                "oci" => return Ok(Self::OciDir(local()?)),
                "oci-archive" => return Ok(Self::OciArchive(local()?)),
                "docker-archive" => return Ok(Self::DockerArchive(local()?)),
                "docker" | "http" | "https" if rest.starts_with("//") => {
                    return Err("a registry's image is written without a scheme".to_owned());
                }
                _ => {}
            }
        }
        let reference = oci::reference(text).map_err(|error| explain(text, &error))?;
        // What looks like a host and is none becomes a part of the name, which is not looked at again.
        if reference.repository().contains(|c: char| c.is_ascii_uppercase()) {
            return Err(upper_case(reference.repository()));
        }
        if let Some(digest) = reference.digest() {
            digest.parse::<Digest>().map_err(|error| error.to_string())?;
        }
        Ok(Self::Registry(reference))
    }
}

impl fmt::Display for BaseReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut local = |transport: &str, local: &LocalReference| {
            write!(f, "{transport}:{}", local.path.display())?;
            local.name.iter().try_for_each(|name| write!(f, ":{name}"))
        };
        match self {
            Self::Scratch => f.write_str("scratch"),
            Self::Registry(reference) => reference.fmt(f),
            Self::OciDir(reference) => local("oci", reference),
            Self::OciArchive(reference) => local("oci-archive", reference),
            Self::DockerArchive(reference) => local("docker-archive", reference),
        }
    }
}

/// Why a registry's reference does not parse, in more words than the grammar has.
fn explain(text: &str, error: &dyn std::error::Error) -> String {
    let name = text.split('@').next().unwrap_or(text);
    let name = match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => name,
    };
    let repository = match name.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => rest,
        _ => name,
    };
    if text.is_empty() {
        "it is empty".to_owned()
    } else if text.contains(char::is_whitespace) {
        "it contains white space".to_owned()
    } else if repository.contains(|c: char| c.is_ascii_uppercase()) {
        upper_case(repository)
    } else {
        error.to_string()
    }
}

fn upper_case(repository: &str) -> String {
    format!("the name `{repository}` must be lower case")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_understood() {
        let digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        for (text, shown) in [
            ("scratch", "scratch"),
            ("debian", "docker.io/library/debian:latest"),
            ("debian:12", "docker.io/library/debian:12"),
            ("public.ecr.aws/lambda/provided:al2023", "public.ecr.aws/lambda/provided:al2023"),
            ("localhost:5000/a/b", "localhost:5000/a/b:latest"),
            ("Host:5000/a/b", "Host:5000/a/b:latest"),
            ("oci:layout", "oci:/project/layout"),
            ("oci:/abs/layout:docker.io/a:1", "oci:/abs/layout:docker.io/a:1"),
            ("oci-archive:../a.tar:base", "oci-archive:/project/../a.tar:base"),
            ("docker-archive:a.tar", "docker-archive:/project/a.tar"),
            ("docker-archive:a.tar:", "docker-archive:/project/a.tar"),
            ("docker-archive:a.tar:n:1", "docker-archive:/project/a.tar:n:1"),
        ] {
            let reference = BaseReference::parse(text, Path::new("/project")).expect(text);
            assert_eq!(reference.to_string(), shown);
        }
        let pinned = format!("ghcr.io/a/b:1@{digest}");
        let reference = BaseReference::parse(&pinned, Path::new("/")).expect("a pinned reference");
        assert_eq!(reference.to_string(), pinned);
    }

    #[test]
    fn malformed_references_say_what_is_wrong() {
        for (text, why) in [
            ("", "it is empty"),
            ("Debian:12", "the name `Debian` must be lower case"),
            ("Foo/bar:1", "the name `Foo/bar` must be lower case"),
            ("ghcr.io/Me/app:V1", "the name `Me/app` must be lower case"),
            ("a b", "it contains white space"),
            ("https://ghcr.io/a/b", "a registry's image is written without a scheme"),
            ("docker://debian", "a registry's image is written without a scheme"),
            ("oci:", "no path follows `oci:`"),
            ("docker-archive::name", "no path follows `docker-archive:`"),
            ("debian:", "invalid reference format"),
            ("debian@sha256:12", "invalid reference format"),
            ("../debian", "invalid reference format"),
        ] {
            let problem = BaseReference::parse(text, Path::new("/")).expect_err(text);
            assert_eq!(problem.message(), format!("`{text}` is not a base image: {why}"));
            assert_eq!((problem.exit().code(), problem.next_step()), (2, Some(FORMS)));
        }
        let sha512 = format!("debian@sha512:{}", "0".repeat(128));
        assert!(BaseReference::parse(&sha512, Path::new("/")).is_err(), "another algorithm");
    }
}
