//! The ends of the commands' help: what to type, for the common cases first.
//!
//! Apart from the flags, since they are read side by side: each shows what no other does.

pub(super) const ALL: &str = "\
Examples:
  cargo lambda-image init
  cargo lambda-image build
  cargo lambda-image push --repository shop/thumbnailer --function thumbnailer

See `cargo lambda-image help <COMMAND>` for a command's flags.";

pub(super) const BUILD: &str = "\
Every flag can be set by an environment variable, CARGO_LAMBDA_IMAGE_<FLAG>, and most by the table
[package.metadata.lambda-image] of Cargo.toml or, without a Cargo.toml, by lambda-image.toml.

Examples:
  cargo lambda-image build --asset models/ --asset data/words.sqlite3:words.sqlite3
  cargo lambda-image build --arm64 --cargo-build zigbuild
  cargo lambda-image build -p api --bin resize --output docker-archive:resize.tar
  cargo lambda-image build --no-binary --base public.ecr.aws/lambda/nodejs:22 --asset dist:.";

pub(super) const PUSH: &str = "\
Every flag can be set by an environment variable, CARGO_LAMBDA_IMAGE_<FLAG>, and most by the table
[package.metadata.lambda-image] of Cargo.toml or, without a Cargo.toml, by lambda-image.toml.

Examples:
  cargo lambda-image push --repository shop/thumbnailer --create-repository
  cargo lambda-image push --repository shop/thumbnailer --function thumbnailer --alias live
  cargo lambda-image push --repository shop/{bin} --tag v{version} --dry-run
  cargo lambda-image push --repository localhost:5000/thumbnailer --asset models/
  cargo lambda-image push --repository ghcr.io/shop/thumbnailer --image oci-archive:thumbnailer.tar";

pub(super) const POLICY: &str = "\
Examples:
  cargo lambda-image iam-policy --repository shop/thumbnailer --function thumbnailer --alias live
  cargo lambda-image iam-policy --repository shop/thumbnailer --create-repository \\
      --create-function --role arn:aws:iam::123456789012:role/thumbnailer";

pub(super) const VERIFY: &str = "\
Every rule has a page, `--explain L058`, and `--explain all` lists them.

Examples:
  cargo lambda-image verify
  cargo lambda-image verify docker-archive:image.tar
  cargo lambda-image verify 123456789012.dkr.ecr.eu-west-1.amazonaws.com/shop:v1 --deny warnings
  cargo lambda-image verify oci:out:resize --message-format sarif > findings.sarif";

pub(super) const UPDATE: &str = "\
Examples:
  cargo lambda-image update
  cargo lambda-image update base --dry-run
  cargo lambda-image update models/large.onnx";

pub(super) const OUTDATED: &str = "\
Examples:
  cargo lambda-image outdated
  cargo lambda-image outdated --message-format json";

pub(super) const INIT: &str = "\
Examples:
  cargo lambda-image init
  cargo lambda-image init -p api --workflow";

pub(super) const COMPLETIONS: &str = "\
Examples:
  echo 'source <(cargo lambda-image completions bash)' >> ~/.bashrc
  cargo lambda-image completions zsh > ~/.zfunc/_cargo-lambda-image
  cargo lambda-image completions fish > ~/.config/fish/completions/cargo-lambda-image.fish
  cargo lambda-image completions powershell >> $PROFILE";
