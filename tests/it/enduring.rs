//! Pushes that are interrupted, killed again and again, or run out of disk: the tags of before stay whole, and the next
//! push is right.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use axum::http::Method;
use cargo_lambda_image::oci::Digest;
use serde_json::Value;

use crate::support::images::noise;
use crate::support::program::Program;
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
