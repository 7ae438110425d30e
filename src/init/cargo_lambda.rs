//! What cargo-lambda was told in `[package.metadata.lambda]`, as far as it has a meaning for images.
//!
//! Its table is somebody else's and has changed over the years: what is not of the expected form is passed over.

use std::collections::BTreeMap;

use serde_json::Value;

/// A key of our table and its value, as TOML.
pub type Setting = (&'static str, String);

/// What cargo-lambda knows that we want to know too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// Files and directories put beside the binary, each perhaps with its place.
    pub includes: Vec<(String, Option<String>)>,
    /// Settings of all binaries.
    pub settings: Vec<Setting>,
    /// Settings of single binaries.
    pub bins: BTreeMap<String, Vec<Setting>>,
}

impl Known {
    /// Reads the metadata of a package, of which `lambda` is cargo-lambda's.
    #[must_use]
    pub fn read(metadata: &Value) -> Self {
        let table = &metadata["lambda"];
        let includes =
            ["build", "deploy"].iter().flat_map(|key| table[*key]["include"].as_array().into_iter().flatten());
        let mut includes: Vec<_> = includes.filter_map(Value::as_str).map(split).collect();
        includes.dedup();
        let mut settings = Vec::new();
        if let Some("cargo_zigbuild" | "cargo-zigbuild") = table["build"]["compiler"]["type"].as_str() {
            settings.push(("cargo-build", quoted("zigbuild")));
        }
        settings.extend(deployment(&table["deploy"]));
        let bins = table["bin"].as_object().into_iter().flatten();
        let bins = bins.map(|(bin, table)| (bin.clone(), deployment(&table["deploy"])));
        Self { includes, settings, bins: bins.filter(|(_, settings)| !settings.is_empty()).collect() }
    }
}

/// `SOURCE` or `SOURCE:DEST`.
fn split(include: &str) -> (String, Option<String>) {
    match include.split_once(':') {
        Some((path, to)) if !to.is_empty() => (path.to_owned(), Some(to.to_owned())),
        _ => (include.to_owned(), None),
    }
}

fn deployment(table: &Value) -> Vec<Setting> {
    let mut settings = Vec::new();
    for key in ["memory", "timeout"] {
        if let Some(number) = table[key].as_u64().filter(|number| *number > 0) {
            settings.push((key, number.to_string()));
        }
    }
    if let Some(role) = table["role"].as_str().or(table["iam_role"].as_str()) {
        settings.push(("role", quoted(role)));
    }
    let variables = table["env"].as_object().into_iter().flatten();
    let variables: toml::Table =
        variables.filter_map(|(name, value)| Some((name.clone(), toml::Value::from(value.as_str()?)))).collect();
    if !variables.is_empty() {
        settings.push(("env", toml::Value::Table(variables).to_string()));
    }
    settings
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_has_a_meaning_for_images_is_taken_and_the_rest_passed_over() {
        let known = Known::read(&json!({"lambda": {
            "build": {"include": ["a"], "compiler": {"type": "cargo_zigbuild"}, "target": "x"},
            "deploy": {
                "include": ["models", "data/db:words.db", 3],
                "memory": 512, "timeout": "60", "iam_role": "arn:r", "s3_bucket": "b",
                "env": {"A": "x \"y\"", "B": 1},
            },
            "bin": {"resize": {"deploy": {"timeout": 60}}, "sweep": {"env": {"C": "d"}}},
        }}));
        assert_eq!(
            known,
            Known {
                includes: vec![
                    ("a".into(), None),
                    ("models".into(), None),
                    ("data/db".into(), Some("words.db".into())),
                ],
                settings: vec![
                    ("cargo-build", "\"zigbuild\"".into()),
                    ("memory", "512".into()),
                    ("role", "\"arn:r\"".into()),
                    ("env", "{ A = 'x \"y\"' }".into()),
                ],
                bins: [("resize".to_owned(), vec![("timeout", "60".to_owned())])].into(),
            }
        );
        for nothing in [json!(null), json!({}), json!({"lambda": 1}), json!({"lambda": {"deploy": []}})] {
            assert_eq!(Known::read(&nothing), Known::default());
        }
    }
}
