//! The image config: the base's, edited as JSON so that fields nobody here knows of survive.
//!
//! `oci-spec`'s type is not used for that, since it drops Docker's `Healthcheck`, `Shell` and `OnBuild` and orders maps
//! by chance. Keys come out sorted, so the bytes depend on nothing but the content.

use serde_json::{Map, Value, json};

use super::{ImageSpec, history};
use crate::problem::{Problem, Result};

/// What Lambda takes of ENTRYPOINT, CMD, WORKDIR and ENV together (Lambda quotas, "container image settings size").
const MAX_SETTINGS_BYTES: usize = 16 * 1024;
/// What Lambda takes of variables, keys and values together (Lambda quotas, "environment variables").
const MAX_ENV_BYTES: usize = 4 * 1024;
/// Fields of old Docker configs that name the container or the image the base came from, which this image is not.
const OF_ANOTHER_IMAGE: [&str; 5] = ["container", "container_config", "id", "parent", "throwaway"];

/// The config's bytes.
///
/// # Errors
/// When settings are past what Lambda takes, or `created` is past the year 9999.
pub(super) fn compose(spec: &ImageSpec<'_>) -> Result<Vec<u8>> {
    let created = timestamp(spec.created.unwrap_or(0))?;
    let mut config = object(spec.base_config);
    for key in OF_ANOTHER_IMAGE {
        config.remove(key);
    }
    let history = history::extend(&spec.base_config["history"], spec.layers, &created);
    let mut rootfs = object(&spec.base_config["rootfs"]);
    rootfs.insert("type".to_owned(), json!("layers"));
    let diff_ids: Vec<_> = spec.layers.iter().map(|layer| layer.diff_id.to_string()).collect();
    rootfs.insert("diff_ids".to_owned(), json!(diff_ids));
    config.insert("architecture".to_owned(), json!(spec.architecture.oci()));
    config.insert("os".to_owned(), json!("linux"));
    config.insert("created".to_owned(), json!(created));
    config.insert("rootfs".to_owned(), Value::Object(rootfs));
    config.insert("history".to_owned(), Value::Array(history));
    config.insert("config".to_owned(), Value::Object(settings(spec)?));
    serde_json::to_vec(&config).map_err(|error| Problem::failed("could not write the image config").because(error))
}

fn object(value: &Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}

/// What a container is started with: the base's `config` with ours over it.
fn settings(spec: &ImageSpec<'_>) -> Result<Map<String, Value>> {
    let placement = spec.placement;
    let mut settings = object(&spec.base_config["config"]);
    let env = merged_env(&settings.get("Env").cloned().unwrap_or_default(), spec);
    let words = [("Entrypoint", &placement.entrypoint), ("Cmd", &placement.cmd), ("Env", &env)];
    for (key, words) in words {
        // Absent rather than empty: `null` and `[]` mean the same to Docker and are read unlike by others.
        settings.remove(key);
        if !words.is_empty() {
            settings.insert(key.to_owned(), json!(words));
        }
    }
    if let Some(directory) = &placement.working_directory {
        settings.insert("WorkingDir".to_owned(), json!(directory));
    }
    check_size(&settings, &env)?;
    Ok(settings)
}

/// The base's variables in the base's order, ours in their place where both have one, then the rest of ours sorted.
fn merged_env(base: &Value, spec: &ImageSpec<'_>) -> Vec<String> {
    let mut ours = spec.placement.env.clone();
    let base = base.as_array().map(Vec::as_slice).unwrap_or_default();
    let mut merged: Vec<String> = Vec::with_capacity(base.len() + ours.len());
    for entry in base.iter().filter_map(Value::as_str) {
        let name = entry.split('=').next().unwrap_or_default();
        match (spec.placement.env.contains_key(name), ours.remove(name)) {
            (true, Some(value)) => merged.push(format!("{name}={value}")),
            // The base sets it twice, and ours has replaced the first.
            (true, None) => {}
            (false, _) => merged.push(entry.to_owned()),
        }
    }
    merged.extend(ours.into_iter().map(|(name, value)| format!("{name}={value}")));
    merged
}

fn check_size(settings: &Map<String, Value>, env: &[String]) -> Result<()> {
    let too_large = |what: &str, size: usize, limit: usize| {
        Problem::refused(format!("the image's {what} take {size} bytes, and Lambda takes at most {limit}"))
            .help("move large values into a file and pack it as an asset")
    };
    let env_bytes = env.iter().map(|entry| entry.len().saturating_sub(1)).sum();
    if env_bytes > MAX_ENV_BYTES {
        return Err(too_large("environment variables", env_bytes, MAX_ENV_BYTES));
    }
    let honoured = ["Entrypoint", "Cmd", "WorkingDir", "Env"].into_iter();
    let settings_bytes = honoured.filter_map(|key| settings.get(key)).map(|value| value.to_string().len()).sum();
    if settings_bytes > MAX_SETTINGS_BYTES {
        return Err(too_large("settings (ENTRYPOINT, CMD, WORKDIR, ENV)", settings_bytes, MAX_SETTINGS_BYTES));
    }
    Ok(())
}

/// Seconds since 1970 as RFC 3339 in UTC.
pub(super) fn timestamp(seconds: u64) -> Result<String> {
    /// The last second of the year 9999: RFC 3339 has four digits for a year.
    const LAST: u64 = 253_402_300_799;
    const DAY: u64 = 24 * 60 * 60;
    if seconds > LAST {
        return Err(Problem::usage(format!("SOURCE_DATE_EPOCH is {seconds}, which lies after the year 9999"))
            .help("give it in seconds since 1970, as in `SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)`"));
    }
    let (mut year, mut day) = (1970, seconds / DAY);
    while day >= days_of_year(year) {
        day -= days_of_year(year);
        year += 1;
    }
    let mut month = 1;
    while day >= days_of_month(year, month) {
        day -= days_of_month(year, month);
        month += 1;
    }
    let second = seconds % DAY;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    Ok(format!("{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z", day + 1))
}

fn days_of_year(year: u64) -> u64 {
    if is_leap(year) { 366 } else { 365 }
}

fn days_of_month(year: u64, month: u64) -> u64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use super::*;
    use crate::image::placement::Placement;
    use crate::image::{Image, MediaTypes, compose as compose_image};
    use crate::layer::{Layer, Origin};
    use crate::oci::{Descriptor, DiffId, Digest, media_type};
    use crate::platform::Architecture;
    use crate::problem::Exit;

    /// A layer whose digests are made of `seed`.
    pub(in crate::image) fn layer(origin: Origin, name: &str, seed: u8) -> Layer {
        Layer {
            name: name.to_owned(),
            origin,
            descriptor: Descriptor {
                media_type: media_type::OCI_LAYER_GZIP.to_owned(),
                digest: Digest::of(&[seed]),
                size: 1000 + u64::from(seed),
            },
            diff_id: DiffId(Digest::of(&[seed, seed])),
            uncompressed_size: 2048,
            reused: false,
            blob: PathBuf::new(),
        }
    }

    fn base() -> Value {
        json!({
            "architecture": "amd64", "os": "linux", "variant": "v1", "author": "AWS Lambda",
            "created": "2026-02-27T10:00:00Z", "docker_version": "20.10.25", "container": "abc",
            "container_config": {"Hostname": "abc"}, "id": "def", "parent": "ghi",
            "config": {
                "Env": ["LANG=C", "PATH=/bin", "LAMBDA_RUNTIME_DIR=/var/runtime", "LANG=twice"],
                "Entrypoint": ["/lambda-entrypoint.sh"], "Cmd": ["old"], "WorkingDir": "/var/task",
                "Healthcheck": {"Test": ["NONE"]}, "Labels": null,
            },
            "rootfs": {"type": "layers", "diff_ids": ["sha256:forgotten"]},
            "history": null,
        })
    }

    fn placement() -> Placement {
        let env = [("RUST_LOG", "info"), ("LANG", "de"), ("A", "b=c")];
        Placement {
            binary_path: Some("/var/runtime/bootstrap".into()),
            entrypoint: vec!["/lambda-entrypoint.sh".into()],
            cmd: vec!["hello".into()],
            working_directory: Some("/var/task".into()),
            env: env.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        }
    }

    pub(in crate::image) fn image(
        base_config: &Value,
        placement: &Placement,
        media_types: MediaTypes,
    ) -> Result<Image> {
        let layers =
            [layer(Origin::Base, "base", 1), layer(Origin::Asset, "models", 2), layer(Origin::Binary, "hello", 3)];
        compose_image(&ImageSpec {
            base_config,
            architecture: Architecture::Amd64,
            layers: &layers,
            placement,
            created: None,
            media_types,
        })
    }

    /// The bytes are the contract: a change here changes the digest of every image.
    #[test]
    fn config_and_manifest_have_these_exact_bytes() {
        let image = image(&base(), &placement(), MediaTypes::Oci).expect("composed");
        let config = String::from_utf8(image.config).expect("UTF-8");
        assert_eq!(config, include_str!("../../testdata/golden/config.json").trim_end());
        let manifest = String::from_utf8(image.manifest).expect("UTF-8");
        assert_eq!(manifest, include_str!("../../testdata/golden/manifest.json").trim_end());
        assert_eq!(image.manifest_descriptor.digest, Digest::of(manifest.as_bytes()));
    }

    #[test]
    fn media_types_are_of_one_family_throughout() {
        for (media_types, family) in [(MediaTypes::Oci, "oci"), (MediaTypes::Docker, "docker")] {
            let image = image(&base(), &placement(), media_types).expect("composed");
            let manifest: Value = serde_json::from_slice(&image.manifest).expect("JSON");
            let layers = manifest["layers"].as_array().expect("layers").iter();
            let used = layers.chain([&manifest, &manifest["config"]]).map(|part| part["mediaType"].to_string());
            let used: Vec<_> = used.collect();
            assert_eq!(used.len(), 5);
            assert!(used.iter().all(|used| used.starts_with(&format!("\"application/vnd.{family}."))), "{used:?}");
        }
    }

    #[test]
    fn another_reader_understands_config_and_manifest() {
        let image = image(&base(), &placement(), MediaTypes::Oci).expect("composed");
        let config = oci_spec::image::ImageConfiguration::from_reader(&image.config[..]).expect("a config");
        assert_eq!(config.rootfs().diff_ids().len(), 3);
        let manifest = oci_spec::image::ImageManifest::from_reader(&image.manifest[..]).expect("a manifest");
        let sizes: Vec<_> = manifest.layers().iter().map(oci_spec::image::Descriptor::size).collect();
        assert_eq!((manifest.schema_version(), sizes), (2, vec![1001, 1002, 1003]));
        assert_eq!(manifest.config().digest().to_string(), Digest::of(&image.config).to_string());
    }

    #[test]
    fn scratch_needs_no_config_at_all() {
        for scratch in [Value::Null, json!({}), json!({"config": null, "rootfs": null})] {
            let image = image(&scratch, &Placement::default(), MediaTypes::Oci).expect("composed");
            let config: Value = serde_json::from_slice(&image.config).expect("JSON");
            assert_eq!((&config["config"], &config["os"]), (&json!({}), &json!("linux")));
        }
    }

    #[test]
    fn settings_past_what_lambda_takes_are_refused() {
        let with_env = |bytes: usize| {
            let env = BTreeMap::from([("K".to_owned(), "v".repeat(bytes - 1))]);
            image(&Value::Null, &Placement { env, ..Placement::default() }, MediaTypes::Oci)
        };
        assert!(with_env(4096).is_ok());
        let problem = with_env(4097).expect_err("too large");
        assert_eq!(problem.exit(), Exit::Refused);
        let entrypoint = vec!["x".repeat(16 * 1024)];
        let problem = image(&Value::Null, &Placement { entrypoint, ..Placement::default() }, MediaTypes::Oci);
        assert_eq!(
            problem.expect_err("too large").message(),
            "the image's settings (ENTRYPOINT, CMD, WORKDIR, ENV) take 16388 bytes, and Lambda takes at most 16384"
        );
    }

    #[test]
    fn timestamps_know_leap_years() {
        let table = [
            (0, "1970-01-01T00:00:00Z"),
            (68_169_600, "1972-02-29T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (1_788_220_800, "2026-09-01T00:00:00Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
        ];
        for (seconds, text) in table {
            assert_eq!(timestamp(seconds).expect("a date"), text);
        }
        assert_eq!(timestamp(253_402_300_800).expect_err("too late").exit(), Exit::Usage);
    }
}
