//! What `cargo lambda deploy` would make a function with: who comes from there need not write it again.
//!
//! Read from `[package.metadata.lambda.deploy]` and `[package.metadata.lambda.bin.NAME.deploy]`, the latter first. The
//! tables are another tool's: what is not understood is passed over in silence.

use std::collections::BTreeMap;

use serde_json::Value;

/// Settings of a function to be created.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct CargoLambda {
    pub role: Option<String>,
    pub memory_mb: Option<u32>,
    pub timeout_seconds: Option<u32>,
    pub env: BTreeMap<String, String>,
}

impl CargoLambda {
    /// What the metadata of a package says of a binary.
    pub(super) fn read(metadata: &Value, bin: &str) -> Self {
        let lambda = &metadata["lambda"];
        let of_bin = Self::of_table(&lambda["bin"][bin]["deploy"]);
        let of_package = Self::of_table(&lambda["deploy"]);
        let mut env = of_package.env;
        env.extend(of_bin.env);
        Self {
            role: of_bin.role.or(of_package.role),
            memory_mb: of_bin.memory_mb.or(of_package.memory_mb),
            timeout_seconds: of_bin.timeout_seconds.or(of_package.timeout_seconds),
            env,
        }
    }

    fn of_table(table: &Value) -> Self {
        let text = |keys: &[&str]| keys.iter().find_map(|key| table[*key].as_str()).map(str::to_owned);
        let number = |keys: &[&str]| {
            let found = keys.iter().find_map(|key| match &table[*key] {
                Value::String(text) => text.parse().ok(),
                value => value.as_u64(),
            });
            found.and_then(|number: u64| u32::try_from(number).ok())
        };
        let env = match &table["env"] {
            Value::Object(env) => {
                let pairs = env.iter().filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
                pairs.collect()
            }
            Value::Array(env) => {
                let pairs = env.iter().filter_map(|pair| pair.as_str()?.split_once('='));
                pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
            }
            _ => BTreeMap::new(),
        };
        Self {
            role: text(&["iam_role", "iam-role", "role"]),
            memory_mb: number(&["memory", "memory_size", "memory-size"]),
            timeout_seconds: number(&["timeout"]),
            env,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_binarys_table_wins_over_the_packages_and_the_unknown_is_passed_over() {
        let metadata = json!({ "lambda": {
            "deploy": { "memory": 512, "timeout": "60", "iam_role": "r", "env": { "A": "1", "B": "1" }, "layer": 3 },
            "bin": { "resize": { "deploy": { "memory": 1024, "env": ["B=2", "bad"], "timeout": [] } } },
        } });
        let read = CargoLambda::read(&metadata, "resize");
        let env = [("A", "1"), ("B", "2")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        let expected = CargoLambda {
            role: Some("r".into()),
            memory_mb: Some(1024),
            timeout_seconds: Some(60),
            env: BTreeMap::from(env),
        };
        assert_eq!(read, expected);
        assert_eq!(CargoLambda::read(&metadata, "other").memory_mb, Some(512));
        for metadata in [json!(null), json!({}), json!({ "lambda": [1] })] {
            assert_eq!(CargoLambda::read(&metadata, "a"), CargoLambda::default());
        }
    }
}
