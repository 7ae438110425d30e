//! What `init` can be told.

use std::path::PathBuf;

use clap::Args;

use super::MANIFEST;

/// What `init` can be told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct InitArgs {
    /// Package to configure [default: the one `cargo build` builds]
    #[arg(short, long, value_name = "SPEC")]
    pub package: Option<String>,

    /// Also write a workflow for GitHub Actions that builds and pushes, to .github/workflows/lambda-image.yml
    #[arg(long)]
    pub workflow: bool,

    /// Path to Cargo.toml
    #[arg(long, value_name = "PATH", help_heading = MANIFEST)]
    pub manifest_path: Option<PathBuf>,
}
