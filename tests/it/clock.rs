//! A clock that is wrong, or is set while a push runs: images, tokens and retries do not go by it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::Method;

use crate::support::images::noise;
use crate::support::program::Program;
use crate::support::registry::{Auth, Builder, Fault, FaultRegistry};
use crate::support::site::Site;
use crate::support::tools::poll;

const ASSETS: [&str; 2] = ["notes.txt", "a.bin"];

/// What makes a program see another time of day; times of files stay the kernel's, as those of a file server would.
fn faked(setting: (&str, &str)) -> [(String, String); 5] {
    let library = fs::read_dir("/usr/lib")
        .expect("libraries")
        .map(|entry| entry.expect("an entry").path().join("faketime/libfaketimeMT.so.1"))
        .find(|library| library.exists())
        .expect("libfaketime");
    let variables = [
        ("LD_PRELOAD", library.to_str().expect("UTF-8")),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ("FAKETIME_NO_CACHE", "1"),
        ("NO_FAKE_STAT", "1"),
        setting,
    ];
    variables.map(|(name, value)| (name.to_owned(), value.to_owned()))
}

/// By how many seconds the clock is off for a program with these variables.
fn offset(variables: &[(String, String)]) -> i64 {
    let date = Command::new("date").arg("+%s").envs(variables.iter().cloned()).output().expect("date");
    let seconds: i64 = String::from_utf8(date.stdout).expect("UTF-8").trim().parse().expect("seconds");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    seconds - i64::try_from(now).expect("in range")
}

fn assert_off(variables: &[(String, String)], expected: i64) {
    let off = offset(variables);
    assert!((off - expected).abs() < 60, "{off} s, and not {expected}");
}

fn site() -> Site {
    let site = Site::new();
    site.write("a.bin", &noise(4_000_000));
    site
}

fn registry() -> Builder {
    FaultRegistry::builder().repository("site").auth(Auth::Bearer(Some(("me", "secret"))))
}

fn push(site: &Site, registry: &FaultRegistry, variables: &[(String, String)]) -> Program {
    site.log_in(&registry.address.to_string(), "me", "secret");
    let program = site.push(&format!("{}/site", registry.address), &ASSETS).args(["--tag", "v1"]);
    variables.iter().fold(program, |program, (name, value)| program.env(name, value))
}

fn succeeded(program: Program) -> String {
    let outcome = program.run();
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    outcome.stdout.trim().rsplit_once('@').expect("a URI with a digest").1.to_owned()
}

fn tokens(registry: &FaultRegistry) -> usize {
    registry.log().iter().filter(|line| line.contains("/token")).count()
}

#[test]
fn a_clock_a_day_off_makes_the_same_image_and_sends_it_once() {
    let expected = site().build(&ASSETS).succeed()[0].to_string();
    for (setting, seconds) in [("+1d", 86_400), ("-1d", -86_400)] {
        let (site, registry) = (site(), registry().start());
        let wrong = faked(("FAKETIME", setting));
        assert_off(&wrong, seconds);
        assert_eq!(succeeded(push(&site, &registry, &wrong)), expected, "{setting}");
        let received = registry.received();
        for variables in [&wrong[..], &[]] {
            assert_eq!(succeeded(push(&site, &registry, variables)), expected, "{setting}");
            assert_eq!(registry.received(), received, "{setting}: nothing is sent twice");
        }
        site.write("notes.txt", b"changed");
        let (pushed, built) = (succeeded(push(&site, &registry, &wrong)), site.build(&ASSETS).succeed()[0]);
        assert_eq!(pushed, built.to_string(), "{setting}");
        assert_ne!(pushed, expected, "{setting}");
    }
}

#[test]
fn a_clock_that_is_set_during_a_push_changes_nothing() {
    let expected = site().build(&ASSETS).succeed()[0].to_string();
    let undisturbed = registry().start();
    succeeded(push(&site(), &undisturbed, &[]));
    for (jump, seconds) in [("+1d", 86_400), ("-1d", -86_400)] {
        let registry = registry().fault(Method::PUT, "/uploads/", 0..1, Fault::Late(Duration::from_secs(2))).start();
        let site = site();
        let clock: PathBuf = site.path("clock");
        let set = |to: &str| {
            // In one step: the program reads it at any moment.
            let new = clock.with_extension("new");
            fs::write(&new, to).expect("written");
            fs::rename(&new, &clock).expect("renamed");
        };
        set("+0");
        let variables = faked(("FAKETIME_TIMESTAMP_FILE", path(&clock)));
        let running = push(&site, &registry, &variables).start();
        poll("an upload that is not answered", || (registry.count(Method::PUT, "/uploads/") > 0).then_some(()));
        set(jump);
        assert_off(&variables, seconds);
        let requests = registry.requests().len();
        let ended = running.wait();
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert!(ended.stdout.trim().ends_with(&expected), "{jump}: {}", ended.stdout);
        assert!(registry.requests().len() > requests, "{jump}: there was something left to do");
        assert_eq!(tokens(&registry), tokens(&undisturbed), "{jump}: {:?}", registry.log());
    }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}
