//! What the commands can be told that renew the lock, or say what in it could be renewed.

use std::path::PathBuf;

use clap::Args;

use super::{BuildArgs, ManifestArgs, TalkArgs};

/// What `update` can be told: all that `build` can, so that it finds the same images.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct UpdateArgs {
    /// What `build` is told.
    #[command(flatten)]
    pub build: BuildArgs,

    /// `base`, or the destination of an asset or one of its files [default: all that is outdated]
    #[arg(value_name = "WHAT", help_heading = None)]
    pub what: Vec<String>,

    /// Say what would change, and change nothing
    #[arg(long, help_heading = None)]
    pub dry_run: bool,
}

/// What `outdated` can be told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct OutdatedArgs {
    // First, as in `build`.
    /// How much is said, and how.
    #[command(flatten)]
    pub talk: TalkArgs,

    /// Directory for all generated artifacts
    #[arg(long, value_name = "DIRECTORY")]
    pub target_dir: Option<PathBuf>,

    /// What Cargo may change and reach.
    #[command(flatten)]
    pub manifest: ManifestArgs,
}
