//! Secrets are masked before they are used, and nowhere else to be seen.

use std::collections::BTreeSet;
use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::support::cloud::{Cloud, KEYS, PASSWORD, REGION};
use crate::support::program::Outcome;
use crate::support::project::files_below;
use crate::support::registry::{Auth, FaultRegistry, Ways};
use crate::support::runner::{Runner, commands};
use crate::support::site::Site;

/// Fails unless each secret is masked before the first line that tells of its use, and stands nowhere else.
fn assert_masked(outcome: &Outcome, runner: &Runner, secrets: &[&str], use_of_it: &str) {
    let lines: Vec<_> = outcome.stderr.lines().collect();
    let used = lines.iter().position(|line| line.contains(use_of_it));
    let used = used.unwrap_or_else(|| panic!("nothing tells of `{use_of_it}`: {}", outcome.stderr));
    for secret in secrets {
        let mask = format!("::add-mask::{secret}");
        let masked = lines.iter().position(|line| *line == mask);
        let masked = masked.unwrap_or_else(|| panic!("`{secret}` is not masked: {}", outcome.stderr));
        assert!(masked < used, "`{secret}` is masked in line {masked}, and used in {used}: {}", outcome.stderr);
        assert_eq!(lines.iter().filter(|line| line.contains(secret) && !line.starts_with("::add-mask::")).count(), 0);
        assert!(!outcome.stdout.contains(secret), "`{secret}` is on stdout");
        for file in ["output", "summary"] {
            let text = fs::read_to_string(runner.path(file)).expect("a file of the step");
            assert!(!text.contains(secret), "`{secret}` is in the {file}");
        }
    }
}

fn assert_not_kept(site: &Site, secrets: &[&str]) {
    for path in files_below(&site.project()).keys() {
        let bytes = fs::read(site.project().join(path)).expect("read");
        for secret in secrets {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "`{secret}` is in {}", path.display());
        }
    }
}

#[test]
fn the_password_of_ecr_and_its_token_are_masked_before_their_use() {
    let cloud = Cloud::start(&["shop/site"]);
    let (site, runner) = (Site::new(), Runner::new());
    let basic = STANDARD.encode(format!("AWS:{PASSWORD}"));
    let push = |said: &[&str]| {
        let push = site.push("shop/site", &["notes.txt"]).args(["--region", REGION, "--create-repository"]);
        cloud.at_home(push.args(said))
    };
    let secrets = [PASSWORD, &basic];
    for said in [&["-vv"][..], &["-vv", "-vv", "--message-format", "json", "--output-env", "image.env"]] {
        runner.next_step();
        let outcome = runner.step(push(said)).run();
        assert_eq!(outcome.code, 0, "{}", outcome.stderr);
        assert_masked(&outcome, &runner, &secrets, "/v2/shop/site/");
        assert_not_kept(&site, &secrets);
        for (_, key) in KEYS.iter().skip(1) {
            assert!(!outcome.stderr.contains(key) && !outcome.stdout.contains(key));
        }
    }
    let quiet = runner.step(push(&["-q"])).run();
    let expected = secrets.map(|secret| format!("::add-mask::{secret}"));
    assert_eq!(quiet.stderr.lines().collect::<Vec<_>>(), expected, "even then, and once each");

    // Elsewhere there is nobody to keep them out of sight, and so they are not told.
    let outside = push(&["-vv"]).run();
    assert_eq!((outside.code, commands(&outside.stderr)), (0, vec![]));
    let log = runner.path("log");
    let script = format!("exec \"$0\" \"$@\" 2>{}", log.display());
    let in_file = runner.step(push(&["-vv"])).under("sh", ["-c", &script]).run();
    let log = fs::read_to_string(log).expect("a log");
    assert_eq!(in_file.code, 0, "{log}");
    for secret in secrets {
        assert!(!outside.stderr.contains(secret) && !log.contains(secret));
    }
}

#[test]
fn a_login_of_docker_and_the_tokens_it_gets_are_masked_before_their_use() {
    const PASSWORD: &str = "canary%password";
    let auth = STANDARD.encode(format!("me:{PASSWORD}"));
    // The first request of all goes without a login: it is by its refusal that one is looked for.
    for (login, use_of_it, has_tokens) in
        [(Auth::Basic("me", PASSWORD), "status=404", false), (Auth::Bearer(Some(("me", PASSWORD))), "/token", true)]
    {
        let registry = FaultRegistry::builder().auth(login).ways(Ways::default()).repository("shop/site").start();
        let (site, runner) = (Site::new(), Runner::new());
        fs::create_dir(site.path("docker")).expect("made");
        let docker = json!({"auths": {registry.address.to_string(): {"auth": auth}}});
        fs::write(site.path("docker/config.json"), docker.to_string()).expect("written");
        let push = site.push(&format!("{}/shop/site", registry.address), &["notes.txt"]).arg("-vv");
        let outcome = runner.step(push.env("DOCKER_CONFIG", site.path("docker"))).run();
        assert_eq!(outcome.code, 0, "{}", outcome.stderr);
        let escaped = PASSWORD.replace('%', "%25");
        assert_masked(&outcome, &runner, &[&escaped, &auth], use_of_it);
        let asked = registry.requests();
        let sent = asked.iter().filter_map(|it| it.header("authorization")?.strip_prefix("Bearer "));
        let tokens: BTreeSet<_> = sent.collect();
        assert_eq!(!tokens.is_empty(), has_tokens);
        for token in tokens {
            assert_masked(&outcome, &runner, &[token], "status=404");
        }
        assert!(!outcome.stderr.contains(PASSWORD), "{}", outcome.stderr);
        assert_not_kept(&site, &[PASSWORD, &auth]);
    }
}

#[test]
fn a_wrong_login_is_masked_all_the_same() {
    let registry = FaultRegistry::builder().auth(Auth::Basic("me", "another")).repository("a").start();
    let (site, runner) = (Site::new(), Runner::new());
    fs::create_dir(site.path("docker")).expect("made");
    let auth = STANDARD.encode("me:canary-wrong");
    let docker = json!({"auths": {registry.address.to_string(): {"auth": auth}}});
    fs::write(site.path("docker/config.json"), docker.to_string()).expect("written");
    let push = site.push(&format!("{}/a", registry.address), &["notes.txt"]).env("DOCKER_CONFIG", site.path("docker"));
    let outcome = runner.step(push).run();
    assert_eq!(outcome.code, 1, "{}", outcome.stderr);
    assert_masked(&outcome, &runner, &["canary-wrong", &auth], "::error ");
}
