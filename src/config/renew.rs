//! What `update` and `outdated` are asked to do.

use std::path::PathBuf;

use super::environment::{Environment, outdated_over_environment, update_over_environment};
use super::{BuildRequest, merged_request, project};
use crate::cli::{OutdatedArgs, UpdateArgs};
use crate::event::Session;
use crate::lock::FILE_NAME;
use crate::problem::{Problem, Result};

/// What `update` is asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpdateRequest {
    /// The images whose lock it is; none of them is compiled.
    pub build: BuildRequest,
    /// What is to be renewed.
    pub renewed: Renewed,
    /// Nothing is to be changed.
    pub dry_run: bool,
}

/// What `update` renews.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Renewed {
    /// All bases, and the layers that another version of the program made.
    Outdated,
    /// The bases if so, and the layers at these destinations (absolute).
    Only {
        /// Whether `base` was asked for.
        bases: bool,
        /// Destinations of assets or their files.
        destinations: Vec<String>,
    },
}

/// What `outdated` is asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutdatedRequest {
    /// `<target directory>/lambda-image`.
    pub store: PathBuf,
    /// The lock.
    pub lock: PathBuf,
}

/// Settles what `update` is asked to do.
///
/// # Errors
/// As those of `build`; `--locked` and `--offline`, with which there is nothing to do.
pub fn update_request(typed: &UpdateArgs, environment: &Environment, session: &Session) -> Result<UpdateRequest> {
    let mut args = update_over_environment(typed, environment, session)?;
    let selection = &mut args.build.selection;
    let says_what = selection.no_binary || selection.binary_path.is_some();
    if !project::has_manifest(&args.build.manifest, &environment.directory) {
        selection.no_binary |= !says_what;
    } else if !says_what && selection.package.is_empty() && selection.bin.is_empty() {
        // As `cargo update`: the lock is the workspace's.
        selection.workspace = true;
    }
    let build = merged_request(&args.build, environment, session)?;
    if build.lock.locked || build.offline {
        let flag = if build.lock.locked { "--locked" } else { "--offline" };
        return Err(Problem::usage(format!("`{flag}` forbids what `update` is for")).help("leave it out"));
    }
    Ok(UpdateRequest { build, renewed: renewed(&args.what), dry_run: args.dry_run })
}

fn renewed(what: &[String]) -> Renewed {
    if what.is_empty() {
        return Renewed::Outdated;
    }
    let (bases, others): (Vec<_>, Vec<_>) = what.iter().partition(|what| *what == "base");
    let absolute = |text: &String| {
        let trimmed = text.trim_end_matches('/');
        if text.starts_with('/') { trimmed.to_owned() } else { format!("/var/task/{trimmed}") }
    };
    Renewed::Only { bases: !bases.is_empty(), destinations: others.into_iter().map(absolute).collect() }
}

/// Settles what `outdated` is asked to do.
///
/// # Errors
/// Cargo's, when it cannot read the project; `--offline`, with which nothing can be found out.
pub fn outdated_request(typed: &OutdatedArgs, environment: &Environment, session: &Session) -> Result<OutdatedRequest> {
    let args = outdated_over_environment(typed, environment, session)?;
    if args.manifest.offline || args.manifest.frozen {
        return Err(Problem::usage("`--offline` forbids what `outdated` is for").help("leave it out"));
    }
    let location = project::locate(&args.manifest, args.target_dir.as_deref(), environment)?;
    let store = location.target_directory.join("lambda-image");
    Ok(OutdatedRequest { store, lock: location.root.join(FILE_NAME) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_renewed_is_said_by_words() {
        let only = |bases, destinations: &[&str]| Renewed::Only {
            bases,
            destinations: destinations.iter().map(|text| (*text).to_owned()).collect(),
        };
        for (what, expected) in [
            (&[][..], Renewed::Outdated),
            (&["base"], only(true, &[])),
            (&["models/"], only(false, &["/var/task/models"])),
            (&["/opt/x", "base", "a/b.bin"], only(true, &["/opt/x", "/var/task/a/b.bin"])),
        ] {
            let what: Vec<_> = what.iter().map(|text| (*text).to_owned()).collect();
            assert_eq!(renewed(&what), expected, "{what:?}");
        }
    }
}
