//! Pushes that are interrupted, killed again and again, or run out of disk: the tags of before stay whole, and the next
//! push is right.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use axum::http::Method;
use cargo_lambda_image::oci::Digest;
use serde_json::Value;

use crate::support::images::noise;
use crate::support::program::Program;
use crate::support::project::files_below;
use crate::support::registry::{Auth, Fault, FaultRegistry, Ways};
use crate::support::running::Running;
use crate::support::site::Site;
use crate::support::tools::{poll, succeed, tool};

const ASSETS: [&str; 4] = ["notes.txt", "a.bin", "b.bin", "c.bin"];

/// How large each of the larger assets is.
const LARGE: usize = 4_000_000;

fn ways() -> Ways {
    Ways { ecr: true, ..Ways::default() }
}

fn site() -> Site {
    let site = Site::new();
    for (name, by) in ASSETS[1..].iter().zip(1..) {
        site.write(name, &different(by));
    }
    site
}

/// Bytes that nothing makes smaller, another sequence for each number.
fn different(by: u64) -> Vec<u8> {
    let mut bytes = noise(LARGE);
    let key = Digest::of(&by.to_le_bytes());
    let key = key.hex();
    for (byte, other) in bytes.iter_mut().zip(key.bytes().cycle()) {
        *byte ^= other;
    }
    bytes
}

fn push(site: &Site, registry: &FaultRegistry) -> Program {
    site.push(&format!("{}/site", registry.address), &ASSETS).args(["--tag", "v1", "--no-digest-tag"])
}

fn succeed_with(program: Program) -> String {
    let outcome = program.run();
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    outcome.stdout
}

/// What the tag names; every blob of it must be there.
fn tagged(registry: &FaultRegistry) -> Option<Digest> {
    let manifest = registry.manifest("site", "v1")?;
    let parsed: Value = serde_json::from_slice(&manifest).expect("JSON");
    let layers = parsed["layers"].as_array().expect("layers").iter();
    for descriptor in layers.chain([&parsed["config"]]) {
        let digest = descriptor["digest"].as_str().expect("a digest");
        let size = registry.blob_size("site", digest);
        assert_eq!(size, descriptor["size"].as_u64(), "{digest} of the tagged image");
    }
    Some(Digest::of(&manifest))
}

#[test]
fn pushes_that_are_killed_at_any_moment_converge() {
    const ROUNDS: usize = 50;
    let registry = FaultRegistry::builder().repository("site").ways(ways()).start();
    let site = site();
    succeed_with(push(&site, &registry));
    let mut good = vec![tagged(&registry).expect("a tagged image")];
    let mut killed = 0;
    for round in 0..ROUNDS {
        // One asset changes each time, and the kill comes a little further on, up to after the last byte.
        site.write(ASSETS[1 + round % 3], &different(100 + round as u64));
        let enough = registry.received() + (round * LARGE / ROUNDS) as u64;
        let mut running: Running = push(&site, &registry).start();
        let mut has_ended = false;
        poll("bytes to arrive", || {
            has_ended = running.has_ended();
            (has_ended || registry.received() > enough || round % 5 == 0 && registry.requests().len() > round * 4)
                .then_some(())
        });
        running.signal_or_gone("KILL");
        let ended = running.wait();
        killed += usize::from(ended.signal == Some(9));
        let now = tagged(&registry).expect("the tag is never lost");
        if ended.code == Some(0) {
            good.push(now);
        } else if now != good[good.len() - 1] {
            // All was done but for the end of the process; then the next push has nothing to send.
            let before = registry.received();
            let uri = succeed_with(push(&site, &registry));
            assert!(uri.trim_end().ends_with(&now.to_string()), "{uri}");
            assert_eq!(registry.received(), before);
            good.push(now);
        }
    }
    assert!(killed >= ROUNDS * 3 / 4, "only {killed} of {ROUNDS} were killed in time");

    let last = succeed_with(push(&site, &registry));
    let clean = site_of(&site);
    let built = clean.build(&ASSETS).succeed()[0];
    assert!(last.trim_end().ends_with(&built.to_string()), "as if nothing had happened: {last} and {built}");
    assert_eq!(tagged(&registry), Some(built));
    let before = registry.received();
    succeed_with(push(&site, &registry));
    assert_eq!(registry.received(), before, "nothing is left to send");
    site.assert_tidy();
}

/// A copy of a project in a place of its own, without anything that was made of it.
fn site_of(site: &Site) -> Site {
    let copy = Site::new();
    for asset in ASSETS {
        fs::copy(site.project().join(asset), copy.project().join(asset)).expect("copied");
    }
    copy
}

#[test]
fn a_rerun_after_a_kill_sends_no_confirmed_blob_again() {
    let registry = FaultRegistry::builder()
        .repository("site")
        .ways(ways())
        .fault(Method::PUT, "/manifests/", 0..1, Fault::Hang)
        .start();
    let site = site();
    let mut running = push(&site, &registry).start();
    poll("all blobs to be confirmed", || {
        assert!(!running.has_ended());
        (registry.count(Method::PUT, "/manifests/") > 0).then_some(())
    });
    running.signal("KILL");
    running.wait();
    let sent = registry.received();
    assert!(sent > 3 * LARGE as u64);
    assert_eq!(registry.manifest("site", "v1"), None);
    succeed_with(push(&site, &registry));
    assert_eq!(registry.received(), sent);
    assert!(tagged(&registry).is_some());
}

#[test]
fn a_rerun_after_a_kill_between_two_blobs_sends_only_the_other() {
    let registry = FaultRegistry::builder()
        .repository("site")
        .ways(ways())
        .fault(Method::PATCH, "/uploads/", 3..4, Fault::ReadThenHang(100))
        .start();
    let site = site();
    let mut running = push(&site, &registry).start();
    let recorded = || fs::read_dir(site.store().join("records/pushed")).map_or(0, Iterator::count);
    poll("three of four blobs to be recorded", || {
        assert!(!running.has_ended());
        (recorded() == 3).then_some(())
    });
    running.signal("KILL");
    running.wait();
    let before = registry.received();
    let outcome = push(&site, &registry).args(["--message-format", "json"]).run();
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    let image = &outcome.messages("image-pushed")[0];
    let layers = image["layers"].as_array().expect("layers").iter().zip(image["steps"].as_array().expect("steps"));
    let sent: Vec<_> = layers.filter(|(_, step)| *step == "upload").map(|(layer, _)| layer["size"].as_u64()).collect();
    assert_eq!(sent.len(), 1, "{image}");
    let manifest: Value = serde_json::from_slice(&registry.manifest("site", "v1").expect("a tag")).expect("JSON");
    let config = manifest["config"]["size"].as_u64().expect("a size");
    assert_eq!(Some(registry.received() - before - config), sent[0]);
    assert!(tagged(&registry).is_some());
}

#[test]
fn damaged_records_cost_questions_and_not_the_push() {
    let registry = FaultRegistry::builder().repository("site").ways(ways()).start();
    let site = site();
    let first = succeed_with(push(&site, &registry));
    let records = site.store().join("records");
    let damages: [fn(&Path); 3] = [
        |file| fs::write(file, "{}").expect("written"),
        |file| {
            let bytes = fs::read(file).expect("read");
            fs::write(file, &bytes[..bytes.len() / 2]).expect("written");
        },
        |file| fs::remove_file(file).expect("removed"),
    ];
    for damage in damages {
        let files: Vec<_> = files_below(&records).into_keys().map(|path| records.join(path)).collect();
        assert!(files.iter().any(|file| file.starts_with(records.join("pushed"))), "{files:?}");
        files.iter().for_each(|file| damage(file));
        let before = registry.received();
        assert_eq!(succeed_with(push(&site, &registry)), first);
        // The lock still knows what the layers are, and the registry that it has them.
        assert_eq!(registry.received(), before);
        assert!(tagged(&registry).is_some());
    }
}

#[test]
fn two_pushes_at_once_from_one_project_are_both_whole() {
    // The same image twice, or two that share an asset.
    for (round, other) in [&ASSETS[..], &ASSETS[1..3]].into_iter().enumerate() {
        let registry = FaultRegistry::builder().repository("site").ways(ways()).start();
        let site = site();
        let of = |assets: &[&str]| {
            let push = site.push(&format!("{}/site", registry.address), assets).args(["--tag", "v1"]);
            push.args(["--message-format", "json"])
        };
        let running = [of(&ASSETS).start(), of(other).start()];
        let digests = running.map(|running| {
            let ended = running.wait();
            assert_eq!(ended.code, Some(0), "round {round}: {}", ended.stderr);
            let line = ended.stdout.lines().find(|line| line.contains("image-pushed")).expect("a result").to_owned();
            let image: Value = serde_json::from_str(&line).expect("JSON");
            image["digest"].as_str().expect("a digest").to_owned()
        });
        assert_eq!(digests[0] == digests[1], round == 0);
        let last = tagged(&registry).expect("a whole image").to_string();
        assert!(digests.contains(&last), "round {round}: {last} of {digests:?}");
        for digest in &digests {
            let manifest = registry.manifest("site", digest).expect("each is there by its digest");
            assert_eq!(Digest::of(&manifest).to_string(), *digest);
        }
        site.assert_tidy();
        let before = registry.received();
        for assets in [&ASSETS[..], other] {
            let again = of(assets).run();
            assert_eq!(again.messages("image-pushed")[0]["sent_bytes"], 0, "round {round}: {}", again.stderr);
        }
        assert_eq!(registry.received(), before, "round {round}");
    }
}

#[test]
fn a_push_that_is_suspended_goes_on_where_it_was() {
    let registry = FaultRegistry::builder().repository("site").ways(ways()).start();
    let site = site();
    let mut running = push(&site, &registry).start();
    poll("bytes to arrive", || (registry.received() > 0).then_some(()));
    running.signal("STOP");
    poll("the program to stand still", || running.is_stopped().then_some(()));
    assert!(!running.has_ended() && registry.manifest("site", "v1").is_none());
    running.signal("CONT");
    let ended = running.wait();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(tagged(&registry).is_some());
    assert_eq!(registry.count(Method::PATCH, "/uploads/"), ASSETS.len(), "each layer is sent once");
}

#[test]
fn an_asset_that_shrinks_while_it_is_sent_ends_the_push_by_its_name() {
    let registry = FaultRegistry::builder().repository("site").ways(ways()).start();
    let site = Site::new();
    let push = || {
        let push = site.push(&format!("{}/site", registry.address), &["notes.txt", "huge.bin"]).args(["--tag", "v1"]);
        push.args(["--compression-level", "0"])
    };
    site.write_zeros("huge.bin", 1_000_000);
    succeed_with(push());
    let before = registry.manifest("site", "v1");
    site.write_zeros("huge.bin", 8 << 30);
    let sent = registry.received();
    let mut running = push().start();
    poll("bytes of it to arrive", || (registry.received() > sent).then_some(()));
    running.signal("STOP");
    poll("the program to stand still", || running.is_stopped().then_some(()));
    site.write_zeros("huge.bin", 1_000_000);
    running.signal("CONT");
    assert!(!running.has_ended());
    let ended = running.wait();
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{}", ended.stderr);
    for word in [
        "could not push layer `huge.bin`",
        "site/huge.bin`",
        "shrank from 8589934592 to 1000000 bytes while it was read",
    ] {
        assert!(ended.stderr.contains(word), "no `{word}` in {}", ended.stderr);
    }
    assert_eq!((registry.manifest("site", "v1"), registry.open_sessions("site")), (before, 0));
}

#[test]
fn a_signal_while_sending_leaves_the_tag_and_ends_the_sessions() {
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        // With a login, as every registry that takes pushes wants one: for the end of a session, too.
        let registry = FaultRegistry::builder()
            .repository("site")
            .ways(ways())
            .auth(Auth::Basic("me", "canary"))
            .fault(Method::PATCH, "/uploads/", 4..99, Fault::ReadThenHang(100_000))
            .start();
        let site = site();
        site.log_in(&registry.address.to_string(), "me", "canary");
        succeed_with(push(&site, &registry));
        let before = tagged(&registry);
        for (name, by) in ASSETS[1..].iter().zip(50..) {
            site.write(name, &different(by));
        }
        let mut running = push(&site, &registry).start();
        poll("uploads to be under way", || {
            assert!(!running.has_ended());
            (registry.count(Method::PATCH, "/uploads/") >= 4 + 3).then_some(())
        });
        assert_eq!(registry.open_sessions("site"), 3);
        running.signal(signal);
        let ended = running.wait();
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(code), ""), "{}", ended.stderr);
        assert_eq!(tagged(&registry), before);
        assert_eq!(registry.open_sessions("site"), 0, "{:?}", registry.log());
        site.assert_tidy();
    }
}

#[test]
fn a_registry_that_lets_no_session_end_holds_nobody_up() {
    for (signals, limit) in [(1, Duration::from_secs(5)), (2, Duration::from_millis(1500))] {
        let registry = FaultRegistry::builder()
            .repository("site")
            .ways(ways())
            .fault(Method::PATCH, "/uploads/", 0..99, Fault::ReadThenHang(100_000))
            .fault(Method::DELETE, "/uploads/", 0..99, Fault::Hang)
            .start();
        let site = site();
        let running = push(&site, &registry).start();
        poll("an upload to be under way", || (registry.count(Method::PATCH, "/uploads/") > 0).then_some(()));
        let mut asked = Instant::now();
        running.signal("INT");
        if signals > 1 {
            poll("a session to be ended", || (registry.count(Method::DELETE, "/uploads/") > 0).then_some(()));
            asked = Instant::now();
            running.signal("INT");
        }
        let ended = running.wait();
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(130), ""), "{}", ended.stderr);
        assert!(asked.elapsed() < limit, "{signals} signals, {:?}", asked.elapsed());
        assert_eq!(registry.manifest("site", "v1"), None);
        let ends: Vec<_> = registry.log().into_iter().filter(|request| request.starts_with("DELETE ")).collect();
        assert_eq!(ends.iter().collect::<BTreeSet<_>>().len(), ends.len(), "each is waited for once: {ends:?}");
    }
}

#[test]
fn a_credential_helper_that_never_answers_holds_nobody_up() {
    let registry = FaultRegistry::builder().repository("site").auth(Auth::Basic("me", "canary")).start();
    let site = site();
    let directory = site.path("home/.docker");
    fs::create_dir(&directory).expect("made");
    fs::write(directory.join("config.json"), r#"{"credsStore":"silent"}"#).expect("written");
    let (helper, begun) = (site.path("docker-credential-silent"), site.path("begun"));
    // It lives on, as whoever started it may be gone by then.
    fs::write(&helper, format!("#!/bin/sh\n: >{}\nexec sleep 30\n", begun.display())).expect("written");
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).expect("made executable");
    let path = format!("{}:{}", site.path("").display(), std::env::var("PATH").expect("a PATH"));
    for (is_impatient, limit) in [(false, Duration::from_secs(10)), (true, Duration::from_millis(1500))] {
        drop(fs::remove_file(&begun));
        let mut running = push(&site, &registry).env("PATH", &path).start();
        poll("the helper to be asked", || begun.exists().then_some(()));
        let asked = Instant::now();
        running.signal("TERM");
        poll("the end", || {
            if is_impatient {
                running.signal_or_gone("TERM");
            }
            running.has_ended().then_some(())
        });
        assert!(asked.elapsed() < limit, "{is_impatient}: {:?}", asked.elapsed());
        let ended = running.wait();
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(143), ""), "{}", ended.stderr);
    }
}

#[test]
fn a_full_disk_costs_the_records_and_not_the_push() {
    let registry = FaultRegistry::builder().repository("site").ways(ways()).start();
    let site = site();
    let small = site.path("small");
    fs::create_dir(&small).expect("made");
    succeed(Command::new(tool("mount")).args(["-t", "tmpfs", "-o", "size=64k", "none"]).arg(&small));
    let _unmount = Unmount(&small);
    fs::write(small.join("filler"), vec![0; 48 * 1024]).expect("written");
    let outcome = push(&site, &registry).arg("--target-dir").arg(&small).run();
    // Only the result file is missed: what was asked for in the registry is there.
    assert_eq!(outcome.code, 1, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("is made again next time: could not write record"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("/lambda-image/site.json`"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("No space left on device"), "{}", outcome.stderr);
    assert!(tagged(&registry).is_some());
    succeed_with(push(&site, &registry));
    assert!(tagged(&registry).is_some());
}

/// Takes a file system away again.
struct Unmount<'a>(&'a std::path::Path);

impl Drop for Unmount<'_> {
    fn drop(&mut self) {
        // What stays mounted is a few pages of memory.
        let _ = Command::new(tool("umount")).arg("--lazy").arg(self.0).status();
    }
}
