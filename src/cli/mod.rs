//! What can be typed: the commands and flags, with Cargo's names and meanings where Cargo has them.
//!
//! Nothing is decided here. Defaults, the environment and metadata are `config`'s; this room only says what was typed
//! and refuses what contradicts itself on the command line.

#![allow(
    rustdoc::broken_intra_doc_links,
    rustdoc::invalid_html_tags,
    reason = "field comments are the help's text, not Markdown"
)]

pub mod check;
mod examples;
mod functions;
mod init;
pub mod pages;
mod push;
mod renew;
pub mod values;
mod verify;

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{ArgAction, Args, ColorChoice, CommandFactory, FromArgMatches, Parser, Subcommand};

pub use functions::FunctionArgs;
pub use init::InitArgs;
pub use pages::{CompletionsArgs, ManArgs};
pub use push::{DestinationArgs, PushArgs};
pub use renew::{OutdatedArgs, UpdateArgs};
use values::{AssetArg, ColorArg, EntrypointArg, EnvArg, FormatArg, JobsArg, MessageFormatArg, OutputArg};
pub use verify::{CheckArgs, VerifyArgs};

const SELECTION: &str = "Package Selection";
const FEATURES: &str = "Feature Selection";
const COMPILATION: &str = "Compilation Options";
const MANIFEST: &str = "Manifest Options";
const IMAGE: &str = "Image Options";
const OUTPUT: &str = "Output Options";
const CHECK: &str = "Check Options";

/// Everything typed.
#[derive(Debug, Parser)]
#[command(
    name = "cargo-lambda-image",
    bin_name = "cargo lambda-image",
    display_name = "cargo-lambda-image",
    version,
    about = "Build AWS Lambda container images from Cargo projects, without Docker",
    styles = clap_cargo::style::CLAP_STYLING,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = examples::ALL
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Compile, stack base, assets and binary, and write an image
    ///
    /// Compiles the binaries of the package in the release profile and writes one image for each into
    /// `<target directory>/lambda-image/layout`: the base image, the assets as they are listed, the binary last. Prints
    /// the digest of each image.
    #[command(after_help = examples::BUILD)]
    Build(Box<BuildArgs>),

    /// Bring an image into a registry, Amazon ECR above all, and functions to the image
    ///
    /// Compiles and stacks as `build` does, and sends to the repository only what it lacks: base layers straight from
    /// their registry, assets straight from their files, nothing kept on disk but layers of a base that had to be
    /// compressed. The tags are moved last, once everything is confirmed. Then each function is brought to the image,
    /// and a version and an alias to it where they were asked for. Prints HOST/REPOSITORY@sha256:... for each image.
    #[command(after_help = examples::PUSH, mut_arg("output", |output| output.hide(true)))]
    Push(Box<PushArgs>),

    /// Tell everything in an image that Lambda would refuse or could not run
    ///
    /// Judges the image of the project, built if need be, or any other: of a layout, of an archive such as
    /// `docker save` writes, of a registry. Layers are read as streams and unpacked nowhere. Prints a report of all
    /// findings, each with its reason and its fix; the exit code is 3 when one of them is an error.
    #[command(after_help = examples::VERIFY, mut_arg("output", |it| it.hide(true)), mut_arg("no_verify", |it| it.hide(true)))]
    #[command(mut_arg("output_env", |it| it.hide(true)))]
    Verify(Box<VerifyArgs>),
    /// Print the smallest IAM policy for a push
    ///
    /// Takes the flags of `push`, and the configuration as `push` does. Prints the policy as JSON that lets a caller do
    /// all that this very push may need to do, and nothing else. Nothing is compiled, built or sent.
    #[command(after_help = examples::POLICY, mut_arg("output", |output| output.hide(true)))]
    #[command(mut_arg("output_env", |it| it.hide(true)))]
    IamPolicy(Box<PushArgs>),

    /// Renew what lambda-image.lock says
    ///
    /// Without WHAT, looks up what the tags of all base images mean now, and makes the layers anew that were locked by
    /// another version of this program, for all packages in the workspace. `base` does the former only, and a
    /// destination (`/var/task/models`, or relative to /var/task) makes the layers of that asset anew.
    #[command(after_help = examples::UPDATE, mut_arg("output_env", |it| it.hide(true)))]
    Update(Box<UpdateArgs>),

    /// Say which base images of lambda-image.lock have newer digests
    ///
    /// Prints one line for each: the reference, the platform, the locked digest and the newer one. Changes nothing.
    #[command(after_help = examples::OUTDATED, mut_arg("output_env", |it| it.hide(true)))]
    Outdated(Box<OutdatedArgs>),
    /// Write a first configuration into Cargo.toml
    ///
    /// Adds `[package.metadata.lambda-image]`, or writes lambda-image.toml where there is no Cargo.toml. What
    /// cargo-lambda was told is taken over, and databases, models and other large files lying about are proposed as
    /// assets. Nothing that is there is changed.
    #[command(after_help = examples::INIT)]
    Init(InitArgs),

    /// Print the completions of a shell
    ///
    /// They complete `cargo-lambda-image`; in bash, zsh and fish `cargo lambda-image` too.
    #[command(after_help = examples::COMPLETIONS)]
    Completions(CompletionsArgs),

    /// Write the manual's pages into a directory
    #[command(hide = true)]
    Man(ManArgs),
}

/// A parser of strings that obey a rule.
fn checked(rule: fn(&str) -> Result<(), String>) -> impl Fn(&str) -> Result<String, String> + Clone {
    move |text| rule(text).map(|()| text.to_owned())
}

/// What `build` can be told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct BuildArgs {
    // First, since the heading of a group holds for all that follows and these have none.
    /// How much is said, and how.
    #[command(flatten)]
    pub talk: TalkArgs,
    /// What Cargo selects by.
    #[command(flatten)]
    pub selection: SelectionArgs,
    /// How Cargo compiles.
    #[command(flatten)]
    pub compile: CompileArgs,
    /// What the image is made of.
    #[command(flatten)]
    pub image: ImageArgs,
    /// What the image is judged by.
    #[command(flatten)]
    pub check: CheckArgs,
    /// What Cargo may change and reach.
    #[command(flatten)]
    pub manifest: ManifestArgs,
}

/// Which binaries become images.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = SELECTION)]
pub struct SelectionArgs {
    /// Package to build an image of [repeatable; default: as `cargo build`]
    #[arg(short, long, value_name = "SPEC")]
    pub package: Vec<String>,

    /// Build images of all packages in the workspace
    #[arg(long)]
    pub workspace: bool,

    /// Build an image of this binary only [repeatable; default: all binaries, one image each]
    #[arg(long, value_name = "NAME")]
    pub bin: Vec<String>,

    /// Take this binary and compile nothing; `--bin` or the file's name only names the image
    #[arg(long, value_name = "FILE", conflicts_with_all = NOT_WHEN_NOTHING_IS_COMPILED)]
    pub binary_path: Option<PathBuf>,

    /// Build an image of assets only, whose base brings the runtime (x86-64 unless said)
    #[arg(long, conflicts_with_all = NOT_WHEN_NOTHING_IS_COMPILED)]
    #[arg(conflicts_with_all = ["bin", "binary_path"])]
    pub no_binary: bool,

    /// Name of the image [default: the binary's; without one, the package's or the folder's]
    #[arg(long, value_name = "NAME", value_parser = checked(check::image_name))]
    pub name: Option<String>,
}

/// The ids of flags that speak to the compiler, and would be ignored without one.
const NOT_WHEN_NOTHING_IS_COMPILED: [&str; 7] =
    ["features", "all_features", "no_default_features", "release", "dev", "profile", "cargo_build"];

/// How the binaries are compiled.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = COMPILATION)]
pub struct CompileArgs {
    /// Space or comma separated list of features to activate
    #[arg(short = 'F', long, value_name = "FEATURES", help_heading = FEATURES)]
    pub features: Vec<String>,

    /// Activate all available features
    #[arg(long, help_heading = FEATURES)]
    pub all_features: bool,

    /// Do not activate the `default` feature
    #[arg(long, help_heading = FEATURES)]
    pub no_default_features: bool,

    /// Build in release mode, with optimizations (the default)
    #[arg(short, long, conflicts_with_all = ["dev", "profile"])]
    pub release: bool,

    /// Build in the dev profile, without optimizations
    #[arg(long, conflicts_with = "profile")]
    pub dev: bool,

    /// Build with the specified profile
    #[arg(long, value_name = "PROFILE-NAME")]
    pub profile: Option<String>,

    /// Build for Lambda's arm64 (aarch64-unknown-linux-gnu)
    #[arg(long, conflicts_with_all = ["x86_64", "target"])]
    pub arm64: bool,

    /// Build for Lambda's x86_64 (x86_64-unknown-linux-gnu)
    #[arg(long = "x86-64", id = "x86_64", conflicts_with = "target")]
    pub x86_64: bool,

    /// Build for the target triple
    #[arg(long, value_name = "TRIPLE", value_parser = checked(check::triple))]
    pub target: Option<String>,

    /// Directory for all generated artifacts; images go to its `lambda-image`
    #[arg(long, value_name = "DIRECTORY")]
    pub target_dir: Option<PathBuf>,

    /// Another cargo subcommand that compiles: `zigbuild`, `lambda build` [default: build]
    #[arg(long, value_name = "CMD", value_parser = checked(check::word))]
    pub cargo_build: Option<String>,

    /// Number of parallel jobs and compressing threads [default: # of CPUs]
    #[arg(short, long, value_name = "N", allow_hyphen_values = true)]
    pub jobs: Option<JobsArg>,
}

/// What an image is made of and where it goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = IMAGE)]
pub struct ImageArgs {
    /// Base image: registry/name:tag[@digest], oci:DIR[:ref], oci-archive:FILE, docker-archive:FILE or scratch
    /// [default: public.ecr.aws/lambda/provided:al2023]
    #[arg(long, value_name = "REF", value_parser = checked(check::base))]
    pub base: Option<String>,

    /// File, directory or glob to pack, and where to: relative to /var/task, or absolute
    ///
    /// Repeatable, and added to the assets of the configuration. PATH is relative to the working directory. The colon
    /// parts PATH from DEST and may stand only once: a path that has a colon itself goes into the configuration. A
    /// directory's DEST is where its contents go; a file's is its path, or a directory if it ends in `/`. Without DEST
    /// an asset keeps its relative path.
    #[arg(long, value_name = "PATH[:DEST]")]
    pub asset: Vec<AssetArg>,

    /// Drop the assets of the configuration; those of `--asset` stay
    #[arg(long)]
    pub no_assets: bool,

    /// CMD of the image, exactly one word [default: the binary's name]
    #[arg(long, value_parser = checked(check::word))]
    pub handler: Option<String>,

    /// Environment variable of the image [repeatable]
    #[arg(long, value_name = "KEY=VALUE")]
    pub env: Vec<EnvArg>,

    /// ENTRYPOINT of the image: one word, or a JSON array of words
    #[arg(long, value_name = "WORD|JSON")]
    pub entrypoint: Option<EntrypointArg>,

    /// Working directory in the image (absolute) [default: the base's]
    #[arg(long, value_name = "DIRECTORY", value_parser = checked(check::working_directory))]
    pub working_directory: Option<String>,

    /// Effort of compression: 0 stores, 9 is slowest [default: 2]
    #[arg(long, value_name = "0..9", value_parser = clap::value_parser!(u32).range(0..=9))]
    pub compression_level: Option<u32>,

    /// Media types of the image [default: oci]
    ///
    /// `docker` is for services that take no others. In registries and archives every tool reads either; in a layout,
    /// skopeo finds an image of Docker's types only without its name, and umoci not at all.
    #[arg(long)]
    pub format: Option<FormatArg>,

    /// Pack files matching this glob although they look like secrets [repeatable]
    #[arg(long, value_name = "GLOB", value_parser = checked(check::glob))]
    pub allow_secrets: Vec<String>,

    /// Take assets that are not here from `lambda-image.lock` and the repository's blobs
    ///
    /// An asset whose path leads to nothing, or whose files are pointers of Git LFS with the locked content, goes into
    /// the image as the lock tells. An asset of which only a part is here is an error.
    #[arg(long)]
    pub assets_from_lock: bool,

    /// Also write the images to PATH, as oci-dir, oci-archive or docker-archive [default: oci-dir, in the target
    /// directory]
    ///
    /// Archives hold one image. Without PATH each goes to `<target directory>/lambda-image/<binary>.oci.tar` or
    /// `.docker.tar`.
    #[arg(long, value_name = "FORMAT[:PATH]", help_heading = OUTPUT)]
    pub output: Option<OutputArg>,

    /// Pack and hash everything again, whatever is known from earlier builds
    #[arg(long, help_heading = OUTPUT)]
    pub no_cache: bool,
}

/// The project, and what Cargo may change and reach.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = MANIFEST)]
pub struct ManifestArgs {
    /// Path to Cargo.toml
    #[arg(long, value_name = "PATH")]
    pub manifest_path: Option<PathBuf>,

    /// Assert that `Cargo.lock` and `lambda-image.lock` will remain unchanged
    #[arg(long)]
    pub locked: bool,

    /// Run without accessing the network, for crates and base images
    #[arg(long)]
    pub offline: bool,

    /// Equivalent to specifying both --locked and --offline
    #[arg(long)]
    pub frozen: bool,

    /// Override a Cargo configuration value [repeatable]
    #[arg(long, value_name = "KEY=VALUE|PATH")]
    pub config: Vec<OsString>,
}

/// How much is said, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = None)]
pub struct TalkArgs {
    /// Use verbose output (-vv very verbose)
    #[arg(short, long, action = ArgAction::Count)]
    pub verbose: u8,

    /// Do not print status lines
    #[arg(short, long, conflicts_with = "verbose")]
    pub quiet: bool,

    /// When to color
    #[arg(long, value_name = "WHEN")]
    pub color: Option<ColorArg>,

    /// Form of what is printed to stdout [default: human]
    #[arg(long, value_name = "FMT", help_heading = OUTPUT)]
    pub message_format: Option<MessageFormatArg>,

    /// Also write what became of each image to FILE, as the variables of a dotenv file
    ///
    /// IMAGE_URI, DIGEST, FUNCTION_VERSION, PUSHED_BYTES and SKIPPED_BYTES, as far as there are any; with several
    /// images each is followed by `_` and the binary's name in capitals. The file is written once all is done, as a
    /// whole.
    #[arg(long, value_name = "FILE", help_heading = OUTPUT)]
    pub output_env: Option<PathBuf>,
}

/// Parses what was typed. Cargo passes the subcommand's name as first argument, which may be missing.
///
/// `color` is for help and errors when `--color` does not say.
///
/// # Errors
/// Help and version too are errors of clap, which knows their exit code and stream.
pub fn parse(arguments: impl IntoIterator<Item = OsString>, color: ColorArg) -> Result<Cli, clap::Error> {
    let mut arguments: Vec<OsString> = arguments.into_iter().collect();
    if arguments.get(1).is_some_and(|first| first == "lambda-image") {
        arguments.remove(1);
    }
    let color = typed_color(&arguments).unwrap_or(color);
    let mut command = Cli::command().color(color.into());
    let matches = command.try_get_matches_from_mut(arguments)?;
    Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

/// What is wrong with what was typed, in clap's words without its colours; nothing for help and the version.
#[must_use]
pub fn refusal(error: &clap::Error) -> Option<String> {
    if !error.use_stderr() || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return None;
    }
    let text = error.render().to_string();
    Some(text.strip_prefix("error: ").unwrap_or(&text).trim_end().to_owned())
}

/// What `--color` says, looked for by hand since it must be known before parsing can fail.
fn typed_color(arguments: &[OsString]) -> Option<ColorArg> {
    let mut found = None;
    let mut arguments = arguments.iter().map(OsString::as_os_str);
    while let Some(argument) = arguments.next() {
        let value = if argument == "--color" {
            arguments.next()
        } else {
            argument.to_str().and_then(|argument| argument.strip_prefix("--color=")).map(OsStr::new)
        };
        found = value.and_then(OsStr::to_str).and_then(|value| value.parse().ok()).or(found);
    }
    found
}

impl Command {
    /// How much the command is to say, and how; nothing can be said of that to one that only prints what was asked for.
    #[must_use]
    pub fn talk(&self) -> Option<&TalkArgs> {
        match self {
            Self::Build(build) => Some(&build.talk),
            Self::Verify(verify) => Some(&verify.build.talk),
            Self::Push(push) | Self::IamPolicy(push) => Some(&push.build.talk),
            Self::Update(update) => Some(&update.build.talk),
            Self::Outdated(outdated) => Some(&outdated.talk),
            Self::Init(_) | Self::Completions(_) | Self::Man(_) => None,
        }
    }
}

impl From<ColorArg> for ColorChoice {
    fn from(color: ColorArg) -> Self {
        match color {
            ColorArg::Auto => Self::Auto,
            ColorArg::Always => Self::Always,
            ColorArg::Never => Self::Never,
        }
    }
}
