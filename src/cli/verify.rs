//! The flags of `verify`, and those by which every command judges images.

use clap::Args;

use super::push::NOT_WITH_AN_IMAGE;
use super::values::SizeArg;
use super::{BuildArgs, CHECK, check, checked};

/// What an image is judged by, before slow work begins.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = CHECK)]
pub struct CheckArgs {
    /// Count findings of this rule as errors, or with `warnings` all that warn [repeatable]
    #[arg(long, value_name = "CODE|warnings", value_parser = checked(check::denied))]
    pub deny: Vec<String>,

    /// Let findings of this rule pass [repeatable]
    #[arg(long, value_name = "CODE", value_parser = checked(check::rule))]
    pub allow: Vec<String>,

    /// Refuse images of more than this, uncompressed, as in `2GB` [default: Lambda's 10 GiB]
    #[arg(long, value_name = "SIZE")]
    pub max_size: Option<SizeArg>,

    /// Do not check the image
    #[arg(long)]
    pub no_verify: bool,
}

/// What `verify` can be told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct VerifyArgs {
    /// Everything `build` can be told.
    #[command(flatten)]
    pub build: BuildArgs,

    /// Image to check: oci:DIR[:ref], oci-archive:FILE, docker-archive:FILE or a registry's [default: the project's]
    #[arg(value_name = "IMAGE", help_heading = None, value_parser = checked(check::base))]
    #[arg(conflicts_with_all = NOT_WITH_AN_IMAGE)]
    pub image: Option<String>,

    /// Print the page of a rule, or with `all` the list of them
    #[arg(long, value_name = "CODE", help_heading = CHECK, conflicts_with = "image")]
    pub explain: Option<String>,
}
