//! YAML as JSON. No part of the program reads YAML, so a Python that is there for moto does it.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::markdown::repository;
use super::tools::{succeed, target_directory};

/// A document of this repository.
pub fn read(path: impl AsRef<Path>) -> Value {
    const CONVERT: &str = "import json, sys, yaml; print(json.dumps(yaml.load(open(sys.argv[1]), yaml.BaseLoader)))";
    let mut python = Command::new(target_directory().join("tools/moto/bin/python"));
    let json = succeed(python.args(["-c", CONVERT]).arg(repository().join(path)));
    serde_json::from_str(&json).expect("JSON")
}
