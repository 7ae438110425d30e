//! What cargo-lambda was told in `[package.metadata.lambda]` and `[workspace.metadata.lambda]`, as far as it has a
//! meaning for images and for functions that are created.
//!
//! The tables are somebody else's and have changed over the years: what is not of the expected form is passed over.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

/// What cargo-lambda knows that we want to know too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// Files and directories put beside the binary, each perhaps with its place.
    pub includes: Vec<(String, Option<String>)>,
    /// Whether it compiles with cargo-zigbuild.
    pub zigbuild: bool,
    /// Settings of the functions of all binaries.
    pub function: Function,
    /// Settings of single binaries' functions, complete, where they are others.
    pub bins: BTreeMap<String, Function>,
}

/// Settings of a function, as far as we have the same.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Function {
    /// The role that it runs as.
    pub role: Option<String>,
    /// Its memory.
    pub memory_mb: Option<u32>,
    /// How long it may take.
    pub timeout_seconds: Option<u32>,
    /// Its variables.
    pub env: BTreeMap<String, String>,
}

impl Known {
    /// Reads the metadata of a workspace and of a package of it that has these binaries. The package lies in `below`,
    /// relative to the workspace. What the package says wins, and what a table says of one binary wins over what it
    /// says of all.
    #[must_use]
    pub fn read<'a>(workspace: &Value, package: &Value, below: &Path, bins: impl IntoIterator<Item = &'a str>) -> Self {
        let (workspace, package) = (&workspace["lambda"], &package["lambda"]);
        let function = Function::of_table(package).over(Function::of_table(workspace));
        let bins = bins.into_iter().filter_map(|bin| {
            let of_workspace = Function::of_table(&workspace["bin"][bin]).over(Function::of_table(workspace));
            let of_package = Function::of_table(&package["bin"][bin]).over(Function::of_table(package));
            let of_bin = of_package.over(of_workspace);
            (of_bin != function).then(|| (bin.to_owned(), of_bin))
        });
        let compiler = [package, workspace].into_iter().find_map(|table| table["build"]["compiler"]["type"].as_str());
        let mut includes = includes(package);
        for (path, to) in self::includes(workspace) {
            let rooted = rooted(&path, below);
            let to = to.or_else(|| (rooted != path).then(|| path.trim_start_matches("./").to_owned()));
            if !includes.iter().any(|(there, _)| *there == rooted) {
                includes.push((rooted, to));
            }
        }
        Self {
            bins: bins.collect(),
            includes,
            zigbuild: matches!(compiler, Some("cargo_zigbuild" | "cargo-zigbuild")),
            function,
        }
    }

    /// The settings of a binary's function.
    #[must_use]
    pub fn function_of(&self, bin: &str) -> &Function {
        self.bins.get(bin).unwrap_or(&self.function)
    }
}

impl Function {
    /// What a table of cargo-lambda's says: of a package, a workspace, or one binary.
    fn of_table(table: &Value) -> Self {
        let deploy = &table["deploy"];
        let text = |keys: &[&str]| keys.iter().find_map(|key| deploy[*key].as_str()).map(str::to_owned);
        let number = |keys: &[&str]| {
            let found = keys.iter().find_map(|key| match &deploy[*key] {
                Value::String(text) => text.parse().ok(),
                value => value.as_u64(),
            });
            found.and_then(|number: u64| u32::try_from(number).ok()).filter(|number| *number > 0)
        };
        let mut env = variables(&table["env"]);
        env.extend(variables(&deploy["env"]));
        Self {
            role: text(&["iam_role", "iam-role", "role"]),
            memory_mb: number(&["memory", "memory_size", "memory-size"]),
            timeout_seconds: number(&["timeout"]),
            env,
        }
    }

    /// These settings, and `lower` ones where these say nothing.
    fn over(self, lower: Self) -> Self {
        let mut env = lower.env;
        env.extend(self.env);
        Self {
            role: self.role.or(lower.role),
            memory_mb: self.memory_mb.or(lower.memory_mb),
            timeout_seconds: self.timeout_seconds.or(lower.timeout_seconds),
            env,
        }
    }
}

/// Variables, as a table or as a list of `NAME=value`.
fn variables(value: &Value) -> BTreeMap<String, String> {
    match value {
        Value::Object(table) => {
            let pairs = table.iter().filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
            pairs.collect()
        }
        Value::Array(list) => {
            let pairs = list.iter().filter_map(|pair| pair.as_str()?.split_once('='));
            pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
        }
        _ => BTreeMap::new(),
    }
}

fn includes(table: &Value) -> Vec<(String, Option<String>)> {
    let lists = ["build", "deploy"].iter().flat_map(|key| table[*key]["include"].as_array().into_iter().flatten());
    let mut includes: Vec<_> = lists.filter_map(Value::as_str).map(split).collect();
    includes.dedup();
    includes
}

/// `SOURCE` or `SOURCE:DEST`.
fn split(include: &str) -> (String, Option<String>) {
    match include.split_once(':') {
        Some((path, to)) if !to.is_empty() => (path.to_owned(), Some(to.to_owned())),
        _ => (include.to_owned(), None),
    }
}

/// A path from the workspace's root as a package in `below` has to write it.
fn rooted(path: &str, below: &Path) -> String {
    if Path::new(path).is_absolute() || below.as_os_str().is_empty() {
        return path.to_owned();
    }
    "../".repeat(below.iter().count()) + path.trim_start_matches("./")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn function(memory_mb: Option<u32>, timeout_seconds: Option<u32>, env: &[(&str, &str)]) -> Function {
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Function { role: None, memory_mb, timeout_seconds, env }
    }

    #[test]
    fn what_has_a_meaning_for_images_is_taken_and_the_rest_passed_over() {
        let package = json!({"lambda": {
            "build": {"include": ["a"], "compiler": {"type": "cargo_zigbuild"}, "target": "x"},
            "env": {"A": "0", "D": "e"},
            "deploy": {
                "include": ["models", "data/db:words.db", 3],
                "memory": 512, "timeout": "60", "iam_role": "arn:r", "s3_bucket": "b",
                "env": {"A": "x", "B": 1},
            },
            "bin": {
                "resize": {"deploy": {"timeout": 90, "env": ["C=d", "bad"], "memory": []}},
                "same": {"deploy": {"memory": 512}},
                "gone": {"deploy": {"memory": 1024}},
            },
        }});
        let with_role = |function: Function| Function { role: Some("arn:r".into()), ..function };
        let all = with_role(function(Some(512), Some(60), &[("A", "x"), ("D", "e")]));
        let resize = with_role(function(Some(512), Some(90), &[("A", "x"), ("C", "d"), ("D", "e")]));
        let includes = [("a", None), ("models", None), ("data/db", Some("words.db"))];
        let includes = includes.map(|(path, to)| (path.to_owned(), to.map(str::to_owned))).to_vec();
        let known = Known::read(&json!(null), &package, Path::new(""), ["resize", "same", "other"]);
        assert_eq!((known.function_of("resize"), known.function_of("other")), (&resize, &all));
        let bins = [("resize".to_owned(), resize)].into();
        assert_eq!(known, Known { includes, zigbuild: true, function: all, bins });
        for nothing in [json!(null), json!({}), json!({"lambda": 1}), json!({"lambda": {"deploy": []}})] {
            assert_eq!(Known::read(&nothing, &nothing, Path::new("a"), ["b"]), Known::default());
        }
    }

    #[test]
    fn what_a_workspace_says_holds_where_the_package_says_nothing() {
        let workspace = json!({"lambda": {
            "build": {"compiler": {"type": "cargo_zigbuild"}},
            "deploy": {"memory": 256, "timeout": 10, "env": {"A": "w", "B": "w"}, "include": ["shared", "/opt/x", "./y:z"]},
            "bin": {"api": {"deploy": {"memory": 1024, "env": {"B": "wb"}}}},
        }});
        let package = json!({"lambda": {"deploy": {"timeout": 20, "env": {"A": "p"}, "include": ["own"]}}});
        let known = Known::read(&workspace, &package, Path::new("crates/api"), ["api"]);
        assert_eq!(known.function, function(Some(256), Some(20), &[("A", "p"), ("B", "w")]));
        assert_eq!(known.function_of("api"), &function(Some(1024), Some(20), &[("A", "p"), ("B", "wb")]));
        assert!(known.zigbuild);
        let includes: Vec<_> = known.includes.iter().map(|(path, to)| (path.as_str(), to.as_deref())).collect();
        let expected = [("own", None), ("../../shared", Some("shared")), ("/opt/x", None), ("../../y", Some("z"))];
        assert_eq!(includes, expected);
        let at_the_root = Known::read(&workspace, &json!(null), Path::new(""), ["api"]);
        assert_eq!(at_the_root.includes[0], ("shared".into(), None));
    }
}
