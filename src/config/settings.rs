//! Settings of an image by the layer they come from, laid over each other and then settled.
//!
//! A layer knows the directory its relative paths start from, since that differs between flags, package and workspace.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::check::findings::Options;
use crate::cli::values::{FormatArg, SizeArg};
use crate::cli::{CheckArgs, ImageArgs};
use crate::layer::gzip::DEFAULT_LEVEL;
use crate::platform::Architecture;
use crate::problem::Result;

use super::destination::DestinationSettings;
use super::functions::FunctionSettings;
use super::table::{AssetTable, FormatWord, Table, Words};
use super::{Asset, BinarySource, Format, ImageRequest, Output};

/// The base of images that name none: AWS's own for compiled functions.
const DEFAULT_BASE: &str = "public.ecr.aws/lambda/provided:al2023";

/// What one layer of configuration says; what it leaves open is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Settings {
    /// The base and the directory its relative path starts from.
    base: Option<(String, PathBuf)>,
    assets: Option<Vec<Asset>>,
    handler: Option<String>,
    env: BTreeMap<String, String>,
    entrypoint: Option<Vec<String>>,
    working_directory: Option<String>,
    compression_level: Option<u32>,
    format: Option<Format>,
    allow_secrets: Option<Vec<String>>,
    deny: Option<Vec<String>>,
    allow: Option<Vec<String>>,
    max_size: Option<u64>,
    /// The cargo subcommand that compiles.
    pub cargo_build: Option<String>,
    /// Where images go.
    pub destination: DestinationSettings,
    /// Which functions run them.
    pub functions: FunctionSettings,
}

impl Settings {
    /// The settings of a table in a file of `directory`.
    pub(super) fn of_table(table: &Table, directory: &Path) -> Self {
        let assets = table.assets.as_ref();
        Self {
            base: table.base.clone().map(|base| (base, directory.to_owned())),
            assets: assets.map(|assets| assets.iter().map(|asset| of_asset_table(asset, directory)).collect()),
            handler: table.handler.clone(),
            env: table.env.clone(),
            entrypoint: table.entrypoint.clone().map(|Words(words)| words),
            working_directory: table.working_directory.clone(),
            compression_level: table.compression_level,
            format: table.format.map(|format| match format {
                FormatWord::Oci => Format::Oci,
                FormatWord::Docker => Format::Docker,
            }),
            allow_secrets: table.allow_secrets.clone(),
            deny: table.deny.clone().map(|Words(codes)| codes),
            allow: table.allow.clone().map(|Words(codes)| codes),
            max_size: table.max_size.as_deref().and_then(|size| size.parse().ok()).map(|SizeArg(bytes)| bytes),
            cargo_build: table.cargo_build.clone(),
            destination: DestinationSettings::of_table(table),
            functions: FunctionSettings::of_table(table),
        }
    }

    /// These settings, and `lower` ones where these say nothing. Lists replace, `env` merges per key.
    #[must_use]
    pub(super) fn over(self, lower: Self) -> Self {
        let mut env = lower.env;
        env.extend(self.env);
        Self {
            base: self.base.or(lower.base),
            assets: self.assets.or(lower.assets),
            handler: self.handler.or(lower.handler),
            env,
            entrypoint: self.entrypoint.or(lower.entrypoint),
            working_directory: self.working_directory.or(lower.working_directory),
            compression_level: self.compression_level.or(lower.compression_level),
            format: self.format.or(lower.format),
            allow_secrets: self.allow_secrets.or(lower.allow_secrets),
            deny: self.deny.or(lower.deny),
            allow: self.allow.or(lower.allow),
            max_size: self.max_size.or(lower.max_size),
            cargo_build: self.cargo_build.or(lower.cargo_build),
            destination: self.destination.over(lower.destination),
            functions: self.functions.over(lower.functions),
        }
    }

    /// The settings of flags over these. Unlike a table's, the assets of flags are added.
    #[must_use]
    pub(super) fn under_flags(self, flags: &ImageArgs, check: &CheckArgs, directory: &Path) -> Self {
        let mut assets = if flags.no_assets { Vec::new() } else { self.assets.clone().unwrap_or_default() };
        assets.extend(flags.asset.iter().map(|asset| {
            let bare = AssetTable {
                name: None,
                path: asset.path.clone(),
                to: asset.to.clone(),
                exclude: Vec::new(),
                follow_symlinks: false,
                allow_secrets: Vec::new(),
            };
            of_asset_table(&bare, directory)
        }));
        let allow_secrets = &flags.allow_secrets;
        let typed = Self {
            base: flags.base.clone().map(|base| (base, directory.to_owned())),
            assets: Some(assets),
            handler: flags.handler.clone(),
            env: flags.env.iter().map(|env| (env.key.clone(), env.value.clone())).collect(),
            entrypoint: flags.entrypoint.clone().map(|entrypoint| entrypoint.0),
            working_directory: flags.working_directory.clone(),
            compression_level: flags.compression_level,
            format: flags.format.map(|format| match format {
                FormatArg::Oci => Format::Oci,
                FormatArg::Docker => Format::Docker,
            }),
            allow_secrets: (!allow_secrets.is_empty()).then(|| allow_secrets.clone()),
            deny: (!check.deny.is_empty()).then(|| check.deny.clone()),
            allow: (!check.allow.is_empty()).then(|| check.allow.clone()),
            max_size: check.max_size.map(|SizeArg(bytes)| bytes),
            cargo_build: None,
            destination: DestinationSettings::default(),
            functions: FunctionSettings::default(),
        };
        typed.over(self)
    }

    /// What an image is judged by that is there already. What may look like a secret in an asset may do so there.
    ///
    /// # Errors
    /// When a code is none.
    pub(super) fn options(self) -> Result<Options> {
        let (deny, allow) = (self.deny.unwrap_or_default(), self.allow.unwrap_or_default());
        let of_assets = self.assets.unwrap_or_default().into_iter().flat_map(|asset| asset.allow_secrets);
        let allow_secrets = self.allow_secrets.unwrap_or_default().into_iter().chain(of_assets).collect();
        Ok(Options { max_size: self.max_size, allow_secrets, ..Options::of_codes(&deny, &allow)? })
    }

    /// The image these settings make, with every default settled.
    pub(super) fn settle(
        self,
        (package, bin): (String, String),
        binary: BinarySource,
        architecture: Option<Architecture>,
        output: Output,
        directory: &Path,
    ) -> ImageRequest {
        let (base, base_directory) = self.base.unwrap_or_else(|| (DEFAULT_BASE.into(), directory.to_owned()));
        ImageRequest {
            package,
            bin,
            binary,
            architecture,
            base,
            base_directory,
            assets: self.assets.unwrap_or_default(),
            handler: self.handler,
            env: self.env,
            entrypoint: self.entrypoint,
            working_directory: self.working_directory,
            compression_level: self.compression_level.unwrap_or(DEFAULT_LEVEL),
            format: self.format.unwrap_or(Format::Oci),
            allow_secrets: self.allow_secrets.unwrap_or_default(),
            deny: self.deny.unwrap_or_default(),
            allow: self.allow.unwrap_or_default(),
            max_size: self.max_size,
            output,
        }
    }
}

fn of_asset_table(asset: &AssetTable, directory: &Path) -> Asset {
    Asset {
        name: asset.name.clone().unwrap_or_else(|| asset_name(&asset.path)),
        shown: asset.path.clone(),
        directory: directory.to_owned(),
        path: asset.path.clone(),
        to: asset.to.clone(),
        exclude: asset.exclude.clone(),
        follow_symlinks: asset.follow_symlinks,
        allow_secrets: asset.allow_secrets.clone(),
    }
}

/// The last part of `path`; `.` as it is. Names go into the image's history, and no image may depend on where it is
/// built.
fn asset_name(path: &str) -> String {
    let last = Path::new(path).components().next_back();
    last.map_or_else(|| path.to_owned(), |part| part.as_os_str().to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(text: &str, directory: &str) -> Settings {
        Settings::of_table(&toml::from_str(text).expect("the table is right"), Path::new(directory))
    }

    fn settled(settings: Settings) -> ImageRequest {
        settings.settle(("p".into(), "b".into()), BinarySource::Cargo, None, Output::Store, Path::new("/cwd"))
    }

    #[test]
    fn scalars_and_lists_of_the_upper_layer_replace_and_env_merges() {
        let bin = layer(
            r#"handler = "bin"
            env = { A = "bin" }"#,
            "/ws/p",
        );
        let package = layer(
            r#"handler = "package"
            base = "oci:package"
            allow-secrets = ["package"]
            assets = [{ path = "p" }]
            env = { A = "package", B = "package" }"#,
            "/ws/p",
        );
        let workspace = layer(
            r#"base = "oci:workspace"
            compression-level = 6
            allow-secrets = ["a", "b"]
            assets = [{ path = "w" }, { path = "v" }]
            entrypoint = "/w"
            env = { B = "workspace", C = "workspace" }"#,
            "/ws",
        );
        let image = settled(bin.over(package).over(workspace));
        let env: Vec<_> = image.env.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(env, [("A", "bin"), ("B", "package"), ("C", "workspace")]);
        assert_eq!(image.handler.as_deref(), Some("bin"));
        assert_eq!((image.base.as_str(), image.base_directory.as_path()), ("oci:package", Path::new("/ws/p")));
        assert_eq!(image.allow_secrets, ["package"]);
        assert_eq!(image.compression_level, 6);
        assert_eq!(image.entrypoint, Some(vec!["/w".to_owned()]));
        let assets: Vec<_> =
            image.assets.iter().map(|asset| (asset.path.as_str(), asset.directory.as_path())).collect();
        assert_eq!(assets, [("p", Path::new("/ws/p"))]);
    }

    #[test]
    fn assets_of_flags_are_added_and_start_at_the_working_directory() {
        let configured = layer(r#"assets = [{ path = "a", to = "x" }]"#, "/p");
        let asset = |text: &str| text.parse().expect("an asset");
        for (no_assets, flags, expected) in [
            (false, vec![], vec![("/p", "a")]),
            (false, vec![asset("b:c")], vec![("/p", "a"), ("/cwd", "b")]),
            (true, vec![asset("b")], vec![("/cwd", "b")]),
            (true, vec![], vec![]),
        ] {
            let flags = ImageArgs { no_assets, asset: flags, ..ImageArgs::default() };
            let image = settled(configured.clone().under_flags(&flags, &CheckArgs::default(), Path::new("/cwd")));
            let paths = image.assets.iter().map(|asset| (asset.directory.to_str().unwrap_or_default(), &*asset.path));
            assert_eq!(paths.collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn what_nobody_says_has_a_default() {
        let image = settled(Settings::default());
        assert_eq!(image.base, "public.ecr.aws/lambda/provided:al2023");
        assert_eq!((image.compression_level, image.format, image.handler), (DEFAULT_LEVEL, Format::Oci, None));
    }

    #[test]
    fn an_asset_is_named_by_the_last_part_of_its_path() {
        for (path, expected) in [
            ("a/models", "models"),
            ("models/", "models"),
            ("data/*.bin", "*.bin"),
            (".", "."),
            ("./", "."),
            ("/", "/"),
            ("..", ".."),
        ] {
            assert_eq!(asset_name(path), expected, "{path}");
        }
    }
}
