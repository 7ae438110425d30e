//! Where the binary goes and what the image starts: ENTRYPOINT, CMD, WORKDIR and variables, settled from the base's
//! config and what the user asked for.
//!
//! Apart from the config's bytes, because the binary's place is needed before its layer is made. AWS's bases start
//! `/lambda-entrypoint.sh`, which wants exactly one argument (it exits with 142 otherwise) and then runs
//! `$LAMBDA_RUNTIME_DIR/bootstrap`; other bases start what ENTRYPOINT says.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::problem::{Problem, Result};

/// Where assets go unless said otherwise, and the binary where the base has no place of its own for it.
pub const TASK_ROOT: &str = "/var/task";

/// What the user asked to be started.
#[derive(Debug)]
pub struct StartRequest<'a> {
    /// The binary's name; absent when the base brings the runtime.
    pub bin: Option<&'a str>,
    /// CMD, if it was given.
    pub handler: Option<&'a str>,
    /// ENTRYPOINT, if it was given.
    pub entrypoint: Option<&'a [String]>,
    /// WORKDIR, if it was given.
    pub working_directory: Option<&'a str>,
    /// Variables set in the image.
    pub env: &'a BTreeMap<String, String>,
}

/// What the image starts, with nothing left open.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Placement {
    /// The binary's absolute path in the image; absent without a binary.
    pub binary_path: Option<String>,
    /// ENTRYPOINT; empty when the image has none.
    pub entrypoint: Vec<String>,
    /// CMD; empty when the image has none.
    pub cmd: Vec<String>,
    /// WORKDIR; absent when the image has none.
    pub working_directory: Option<String>,
    /// Variables to set over the base's.
    pub env: BTreeMap<String, String>,
}

/// Settles what an image on the base of `base_config` starts.
///
/// # Errors
/// When the base's `LAMBDA_RUNTIME_DIR` is no absolute path, so that no place for the binary can be told.
pub fn place(base_config: &Value, request: &StartRequest<'_>) -> Result<Placement> {
    let base = &base_config["config"];
    let mut placement = Placement {
        entrypoint: request.entrypoint.map_or_else(|| words(&base["Entrypoint"]), <[String]>::to_vec),
        working_directory: base["WorkingDir"].as_str().filter(|path| !path.is_empty()).map(str::to_owned),
        env: request.env.clone(),
        ..Placement::default()
    };
    match (request.bin, variable(base, "LAMBDA_RUNTIME_DIR")) {
        (Some(bin), Some(directory)) => beside_runtime(&mut placement, request, bin, &directory)?,
        (Some(_), None) => on_its_own(&mut placement, request, base),
        (None, _) => without_binary(&mut placement, request, base),
    }
    if let Some(directory) = request.working_directory {
        placement.working_directory = Some(directory.to_owned());
    }
    Ok(placement)
}

/// The value of a variable of the base that is set and not empty.
fn variable(base: &Value, name: &str) -> Option<String> {
    let value = |entry: &String| Some(entry.strip_prefix(name)?.strip_prefix('=')?.to_owned());
    words(&base["Env"]).iter().rev().find_map(value).filter(|value| !value.is_empty())
}

fn words(value: &Value) -> Vec<String> {
    let array = value.as_array().map(Vec::as_slice).unwrap_or_default();
    array.iter().filter_map(|word| word.as_str().map(str::to_owned)).collect()
}

/// The base has a place for a runtime and an entry point that runs it.
fn beside_runtime(placement: &mut Placement, request: &StartRequest<'_>, bin: &str, directory: &str) -> Result<()> {
    let directory = directory.trim_end_matches('/');
    let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    if !directory.strip_prefix('/').is_some_and(|parts| parts.split('/').all(plain)) {
        return Err(Problem::refused(format!(
            "the base's LAMBDA_RUNTIME_DIR is `{}`, which is no place for the binary",
            directory.escape_debug()
        ))
        .help("take another base, such as `public.ecr.aws/lambda/provided:al2023`"));
    }
    let path = format!("{directory}/bootstrap");
    if placement.entrypoint.is_empty() {
        // With no entry point CMD would be run as a program, and a handler is none.
        placement.entrypoint = vec![path.clone()];
    }
    placement.cmd = vec![request.handler.unwrap_or(bin).to_owned()];
    placement.binary_path = Some(path);
    Ok(())
}

/// The binary itself is what is started.
fn on_its_own(placement: &mut Placement, request: &StartRequest<'_>, base: &Value) {
    let path = format!("{TASK_ROOT}/bootstrap");
    if request.entrypoint.is_none() {
        placement.entrypoint = vec![path.clone()];
    }
    // The base's CMD belonged to the base's entry point, as in a Dockerfile where ENTRYPOINT resets it. And no
    // argument is made up: what runs under `cargo run` without one should run here without one.
    placement.cmd = request.handler.into_iter().map(str::to_owned).collect();
    placement.binary_path = Some(path);
    // Assets are found relative to the working directory and through this variable on AWS's bases; the same program
    // finds them here.
    if placement.working_directory.as_deref().is_none_or(|path| path == "/") {
        placement.working_directory = Some(TASK_ROOT.to_owned());
    }
    if variable(base, "LAMBDA_TASK_ROOT").is_none() {
        placement.env.entry("LAMBDA_TASK_ROOT".to_owned()).or_insert_with(|| TASK_ROOT.to_owned());
    }
}

/// The base brings the runtime. Whether all of it is there is the checks' to say.
fn without_binary(placement: &mut Placement, request: &StartRequest<'_>, base: &Value) {
    placement.cmd = match (request.handler, request.entrypoint) {
        (Some(handler), _) => vec![handler.to_owned()],
        (None, None) => words(&base["Cmd"]),
        (None, Some(_)) => Vec::new(),
    };
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn aws() -> Value {
        json!({"config": {
            "Env": ["LANG=en_US.UTF-8", "LAMBDA_TASK_ROOT=/var/task", "LAMBDA_RUNTIME_DIR=/var/runtime"],
            "Entrypoint": ["/lambda-entrypoint.sh"],
            "WorkingDir": "/var/task",
        }})
    }

    struct Asked {
        bin: Option<&'static str>,
        handler: Option<&'static str>,
        entrypoint: Option<&'static str>,
        working_directory: Option<&'static str>,
    }

    const NOTHING: Asked = Asked { bin: None, handler: None, entrypoint: None, working_directory: None };
    const BINARY: Asked = Asked { bin: Some("hello"), ..NOTHING };

    fn placed(base: &Value, asked: &Asked) -> Placement {
        let entrypoint = asked.entrypoint.map(|word| vec![word.to_owned()]);
        let request = StartRequest {
            bin: asked.bin,
            handler: asked.handler,
            entrypoint: entrypoint.as_deref(),
            working_directory: asked.working_directory,
            env: &BTreeMap::new(),
        };
        place(base, &request).expect("placed")
    }

    /// Binary path, ENTRYPOINT, CMD and WORKDIR in one line.
    fn shown(placement: &Placement) -> String {
        format!(
            "{} {:?} {:?} {}",
            placement.binary_path.as_deref().unwrap_or("-"),
            placement.entrypoint,
            placement.cmd,
            placement.working_directory.as_deref().unwrap_or("-")
        )
    }

    #[test]
    fn the_base_decides_where_the_binary_goes_and_what_starts() {
        let debian = json!({"config": {"Cmd": ["bash"], "Entrypoint": null, "WorkingDir": ""}});
        let distroless = json!({"config": {"Entrypoint": ["/bin/x"], "WorkingDir": "/", "Env": ["PATH=/bin"]}});
        let no_entrypoint = json!({"config": {"Env": ["LAMBDA_RUNTIME_DIR=/var/runtime/"]}});
        let home = json!({"config": {"WorkingDir": "/home/app"}});
        let scratch = Value::Null;
        let with_handler = Asked { handler: Some("app.get"), ..BINARY };
        let with_entrypoint = Asked { entrypoint: Some("/wrap"), ..BINARY };
        let with_directory = Asked { working_directory: Some("/opt"), ..BINARY };
        let own = r#"/var/task/bootstrap ["/var/task/bootstrap"] []"#;
        let table = [
            (aws(), BINARY, r#"/var/runtime/bootstrap ["/lambda-entrypoint.sh"] ["hello"] /var/task"#.to_owned()),
            (aws(), with_handler, r#"/var/runtime/bootstrap ["/lambda-entrypoint.sh"] ["app.get"] /var/task"#.into()),
            (aws(), with_entrypoint, r#"/var/runtime/bootstrap ["/wrap"] ["hello"] /var/task"#.into()),
            (aws(), with_directory, r#"/var/runtime/bootstrap ["/lambda-entrypoint.sh"] ["hello"] /opt"#.into()),
            (no_entrypoint, BINARY, r#"/var/runtime/bootstrap ["/var/runtime/bootstrap"] ["hello"] -"#.into()),
            (scratch.clone(), BINARY, format!("{own} /var/task")),
            (debian, BINARY, format!("{own} /var/task")),
            (distroless, BINARY, format!("{own} /var/task")),
            (home, BINARY, format!("{own} /home/app")),
            (
                scratch.clone(),
                Asked { handler: Some("a b"), ..BINARY },
                r#"/var/task/bootstrap ["/var/task/bootstrap"] ["a b"] /var/task"#.into(),
            ),
            (
                scratch,
                Asked { entrypoint: Some("/wrap"), ..BINARY },
                r#"/var/task/bootstrap ["/wrap"] [] /var/task"#.into(),
            ),
        ];
        for (base, asked, expected) in table {
            assert_eq!(shown(&placed(&base, &asked)), expected, "{base}");
        }
    }

    #[test]
    fn without_a_binary_the_base_starts_what_it_starts() {
        let node = json!({"config": {
            "Entrypoint": ["/lambda-entrypoint.sh"], "Cmd": ["app.default"], "WorkingDir": "/var/task",
        }});
        let two = json!({"config": {"Entrypoint": ["/lambda-entrypoint.sh"], "Cmd": ["a", "b"]}});
        let cmd_only = json!({"config": {"Cmd": ["serve"]}});
        let handler = Asked { handler: Some("app.get"), ..NOTHING };
        let table = [
            (&node, &handler, r#"- ["/lambda-entrypoint.sh"] ["app.get"] /var/task"#),
            (&node, &NOTHING, r#"- ["/lambda-entrypoint.sh"] ["app.default"] /var/task"#),
            (&node, &Asked { entrypoint: Some("/wrap"), ..NOTHING }, r#"- ["/wrap"] [] /var/task"#),
            (&aws(), &NOTHING, r#"- ["/lambda-entrypoint.sh"] [] /var/task"#),
            (&two, &NOTHING, r#"- ["/lambda-entrypoint.sh"] ["a", "b"] -"#),
            (&cmd_only, &NOTHING, r#"- [] ["serve"] -"#),
            (&Value::Null, &NOTHING, "- [] [] -"),
        ];
        for (base, asked, expected) in table {
            assert_eq!(shown(&placed(base, asked)), expected, "{base}");
        }
    }

    #[test]
    fn the_task_root_is_told_where_the_base_does_not() {
        let variables = |base: &Value, asked: &Asked| placed(base, asked).env.into_iter().collect::<Vec<_>>();
        let task_root = vec![("LAMBDA_TASK_ROOT".to_owned(), "/var/task".to_owned())];
        assert_eq!(variables(&Value::Null, &BINARY), task_root);
        assert_eq!(variables(&aws(), &BINARY), []);
        assert_eq!(variables(&json!({"config": {"Env": ["LAMBDA_TASK_ROOT=/x"]}}), &BINARY), []);
        assert_eq!(variables(&Value::Null, &NOTHING), []);
    }

    #[test]
    fn a_runtime_directory_that_is_no_place_is_refused() {
        for directory in ["var/runtime", "/", "/var/../etc", "/a//b", "/./a"] {
            let base = json!({"config": {"Env": [format!("LAMBDA_RUNTIME_DIR={directory}")]}});
            let request = StartRequest {
                bin: Some("hello"),
                handler: None,
                entrypoint: None,
                working_directory: None,
                env: &BTreeMap::new(),
            };
            assert!(place(&base, &request).is_err(), "{directory}");
        }
    }
}
