//! The published schemas, which every message and result file that any test sees is held against.
//!
//! Readers are told to take keys they do not know, so the schemas are open; here they are closed, since a key that they
//! do not have is one that was forgotten.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use jsonschema::Validator;
use serde_json::Value;

use super::program::json;
use super::tools::target_directory;

/// The reasons of cargo's own messages.
const CARGOS: [&str; 4] = ["build-finished", "build-script-executed", "compiler-artifact", "compiler-message"];

static MESSAGES: LazyLock<Validator> = LazyLock::new(|| validator("messages"));
static RESULT: LazyLock<Validator> = LazyLock::new(|| validator("result"));

fn validator(name: &str) -> Validator {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("schema/{name}.schema.json"));
    let mut schema = json(&path);
    close(&mut schema);
    jsonschema::validator_for(&schema).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Allows objects no other keys than those that are described.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(keys) => {
            keys.values_mut().for_each(close);
            if keys.contains_key("properties") {
                keys.insert("additionalProperties".into(), false.into());
            }
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}

fn assert_valid(validator: &Validator, value: &Value) {
    let errors: Vec<_> = validator.iter_errors(value).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "not as in schema/: {errors:#?}\n{value:#}");
}

/// Holds a report against the schema of SARIF 2.1.0.
fn assert_sarif(report: &Value) {
    let path = target_directory().join("tools/sarif.schema.json");
    assert!(path.is_file(), "there is no `{}`: `tests/run` brings it and all else the tests need", path.display());
    let text = fs::read_to_string(&path).expect("a schema");
    // A bracket that nothing opens is a bracket to JavaScript, and an error to others.
    let schema = serde_json::from_str(&text.replace("{2}]?$", "{2}\\\\]?$")).expect("JSON");
    let validator = jsonschema::validator_for(&schema).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_valid(&validator, report);
}

/// Holds each line against the schema of messages, if stdout carries messages.
pub fn assert_messages(stdout: &str) {
    if stdout.starts_with("{\"$schema\"") {
        assert_sarif(&serde_json::from_str(stdout).unwrap_or_else(|error| panic!("{error}: {stdout}")));
        return;
    }
    // A policy is JSON too, on many lines.
    if !stdout.starts_with("{\"") {
        return;
    }
    for line in stdout.lines() {
        let message: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        if !message["reason"].as_str().is_some_and(|reason| CARGOS.contains(&reason)) {
            assert_valid(&MESSAGES, &message);
        }
    }
}

/// Holds a result file against its schema.
pub fn assert_result(result: &Value) {
    assert_valid(&RESULT, result);
}
