//! What `push` can be told about functions.

use clap::Args;

use super::values::WaitArg;
use super::{check, checked};

const FUNCTIONS: &str = "Function Options";

/// Which functions `push` brings to an image, and how far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = FUNCTIONS)]
pub struct FunctionArgs {
    /// Function that is to run the image, by name or ARN [repeatable]; {bin} and {package} are filled in
    #[arg(long, value_name = "NAME", value_parser = checked(check::word))]
    pub function: Vec<String>,

    /// Leave the functions of the configuration alone
    #[arg(long, conflicts_with_all = ["function", "create_function", "publish", "alias"])]
    pub no_function: bool,

    /// Create the function if it does not exist [named as the binary unless `--function` says]
    #[arg(long)]
    pub create_function: bool,

    /// Role a created function runs as
    #[arg(long, value_name = "ARN", value_parser = checked(check::word))]
    pub role: Option<String>,

    /// Memory of a created function in MB [default: Lambda's, 128]
    #[arg(long, value_name = "MB", value_parser = clap::value_parser!(u32).range(128..=10_240))]
    pub memory: Option<u32>,

    /// Seconds an invocation of a created function may take [default: Lambda's, 3]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=900))]
    pub timeout: Option<u32>,

    /// Publish a version of the function
    #[arg(long)]
    pub publish: bool,

    /// Publish a version and point this alias to it, last of all
    #[arg(long, value_name = "NAME", value_parser = checked(check::word))]
    pub alias: Option<String>,

    /// How long to wait for Lambda: `90s`, `20m`, `1h` [default: 10m, and 2m for each GiB of the image]
    #[arg(long, value_name = "TIME")]
    pub wait: Option<WaitArg>,
}
