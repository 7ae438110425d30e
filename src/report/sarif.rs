//! The report of a check as SARIF 2.1.0, which code scanning services read.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::finding::{Finding, Verdict};

/// One document about all images.
pub(super) fn render(verdicts: &[Verdict]) -> String {
    let rules: BTreeMap<_, _> =
        verdicts.iter().flat_map(|verdict| &verdict.findings).map(|finding| (finding.code, rule(finding))).collect();
    let results: Vec<_> =
        verdicts.iter().flat_map(|verdict| verdict.findings.iter().map(|finding| result(verdict, finding))).collect();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "cargo-lambda-image",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": rules.into_values().collect::<Vec<_>>(),
            }},
            "results": results,
        }],
    })
    .to_string()
}

fn rule(finding: &Finding) -> Value {
    json!({
        "id": finding.code,
        "shortDescription": {"text": finding.title},
        "fullDescription": {"text": finding.why},
        "help": {"text": finding.help},
    })
}

fn result(verdict: &Verdict, finding: &Finding) -> Value {
    let Finding { code, severity, layer, path, message, help, .. } = finding;
    // A result must be somewhere in a file: one about the image as a whole is in the image.
    let uri = uri(path.as_deref().map_or(verdict.image.as_str(), |path| path.trim_start_matches('/')));
    json!({
        "ruleId": code,
        "level": severity.word(),
        "message": {"text": format!("{message}; {help}")},
        "locations": [{
            // GitHub wants a region of every result, and files of an image have no lines that anybody would look at.
            "physicalLocation": {
                "artifactLocation": {"uri": uri},
                "region": {"startLine": 1, "startColumn": 1, "endLine": 1, "endColumn": 1},
            },
            "logicalLocations": [{"name": verdict.image, "kind": "image"}],
        }],
        "properties": {"image": verdict.image, "digest": verdict.digest, "layer": layer},
    })
}

/// A path as a relative URI reference (RFC 3986, 4.2).
fn uri(path: &str) -> String {
    let mut uri = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            uri.push_str(&format!("%{byte:02X}"));
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Severity;

    #[test]
    fn each_finding_is_a_result_of_a_described_rule() {
        let finding = Finding {
            code: "L071",
            severity: Severity::Error,
            title: "a pointer",
            layer: Some("models".into()),
            path: Some("/var/task/a b".into()),
            message: "found".into(),
            why: "because",
            help: "pull".into(),
        };
        let verdict = Verdict {
            image: "hello".into(),
            digest: None,
            platform: "linux/amd64".into(),
            layers: 1,
            uncompressed_size: 1,
            findings: vec![finding.clone(), Finding { path: None, ..finding }],
        };
        let document: Value = serde_json::from_str(&render(&[verdict])).expect("JSON");
        let run = &document["runs"][0];
        assert_eq!(run["tool"]["driver"]["rules"].as_array().map(Vec::len), Some(1));
        let results = run["results"].as_array().expect("results");
        let uri = |at: usize| &results[at]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"];
        assert_eq!((uri(0), uri(1)), (&json!("var/task/a%20b"), &json!("hello")));
        let region = &results[0]["locations"][0]["physicalLocation"]["region"];
        assert_eq!(region, &json!({"startLine": 1, "startColumn": 1, "endLine": 1, "endColumn": 1}));
        assert_eq!((&results[0]["ruleId"], &results[0]["level"]), (&json!("L071"), &json!("error")));
    }
}
