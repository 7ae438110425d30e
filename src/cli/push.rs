//! What `push` can be told of where images go.

use clap::Args;

use super::{BuildArgs, FunctionArgs, check, checked};

const PUSH: &str = "Push Options";
const AWS: &str = "AWS Options";

/// What `push` can be told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct PushArgs {
    // First, as Cargo's help begins with what only this command knows.
    /// Where images go.
    #[command(flatten)]
    pub destination: DestinationArgs,
    /// Which functions are to run them.
    #[command(flatten)]
    pub functions: FunctionArgs,
    /// Everything `build` can be told.
    #[command(flatten)]
    pub build: BuildArgs,
}

/// Where `push` brings an image, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = PUSH)]
pub struct DestinationArgs {
    /// Repository of ECR in the account and region, or HOST/PATH; {bin}, {package} and {version} are filled in
    #[arg(long, value_name = "NAME", value_parser = checked(check::repository))]
    pub repository: Option<String>,

    /// Create the repository of ECR if it is not there, scanned on push and readable by Lambda
    #[arg(long)]
    pub create_repository: bool,

    /// Tag of the image [repeatable]; {bin}, {package} and {version} are filled in
    #[arg(long, value_name = "TAG", value_parser = checked(check::tag))]
    pub tag: Vec<String>,

    /// Leave out the tag `{bin}-<digest>`, by which an image stays tagged when the others move on
    #[arg(long)]
    pub no_digest_tag: bool,

    /// Push this image instead of building one: oci:DIR[:ref], oci-archive:FILE, docker-archive:FILE or a registry's
    #[arg(long, value_name = "REF", value_parser = checked(check::base), conflicts_with_all = NOT_WITH_AN_IMAGE)]
    pub image: Option<String>,

    /// Show what would become of each layer, tag and function, and write nothing: only cargo still compiles
    #[arg(long)]
    pub dry_run: bool,

    /// Speak plain http to a registry that is not on this machine
    #[arg(long)]
    pub insecure: bool,

    /// AWS region of the repository [default: AWS's own configuration]
    #[arg(long, value_name = "REGION", value_parser = checked(check::word), help_heading = AWS)]
    pub region: Option<String>,

    /// Profile of AWS's configuration
    #[arg(long, value_name = "NAME", value_parser = checked(check::word), help_heading = AWS)]
    pub aws_profile: Option<String>,

    /// Endpoint for AWS's services
    #[arg(long, value_name = "URL", value_parser = checked(check::word), help_heading = AWS)]
    pub endpoint_url: Option<String>,
}

/// The ids of flags that say what an image is made of, and would be ignored for one that is there.
pub(super) const NOT_WITH_AN_IMAGE: [&str; 18] = [
    "binary_path",
    "no_binary",
    "features",
    "all_features",
    "no_default_features",
    "release",
    "dev",
    "profile",
    "cargo_build",
    "target",
    "base",
    "asset",
    "assets_from_lock",
    "handler",
    "env",
    "entrypoint",
    "working_directory",
    "format",
];
