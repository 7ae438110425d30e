//! Builds that are interrupted, killed, starved of disk, lied to by their own files, or run twice at once: the image
//! of before stays whole, and the next build is right.

use std::fs::{self, File};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use axum::http::Method;
use cargo_lambda_image::oci::Digest;
use tempfile::TempDir;

use crate::support::assets::{noise, text};
use crate::support::images::{Family, TestImage, gzip, tar};
use crate::support::layout::{blobs, verify};
use crate::support::program::{Program, json};
use crate::support::registry::{Fault, FaultRegistry};
use crate::support::running::{Ended, Running};
use crate::support::site::{Site, names};
use crate::support::tools::{poll, succeed, tool};

const MIB: u64 = 1024 * 1024;

/// The two ways to be asked to stop, and the exit code of each.
const SIGNALS: [(&str, i32); 2] = [("INT", 130), ("TERM", 143)];

/// Waits until something has happened, which must be before the program ends.
fn until(running: &mut Running, what: &str, mut happened: impl FnMut(&Running) -> bool) {
    poll(what, || {
        let happened = happened(running);
        assert!(happened || !running.has_ended(), "the program ended before: {what}");
        happened.then_some(())
    });
}

/// The only digest of a build.
fn digest(program: Program) -> Digest {
    let digests = program.succeed();
    assert_eq!(digests.len(), 1);
    digests[0]
}

fn assert_stopped(ended: &Ended, code: i32) {
    assert_eq!(ended.code, Some(code), "{ended:?}");
    assert_eq!(ended.stdout, "");
}

/// How many bytes the temporary files of the running builds hold.
fn temporary_bytes(store: &Path) -> u64 {
    let directories = fs::read_dir(store.join("tmp")).into_iter().flatten().flatten();
    let files = directories.flat_map(|directory| fs::read_dir(directory.path()).into_iter().flatten().flatten());
    files.filter_map(|file| file.metadata().ok()).map(|metadata| metadata.len()).sum()
}

#[test]
fn a_signal_while_compiling_ends_cargo_and_packs_nothing() {
    let directory = TempDir::new().expect("a temporary directory");
    let started = directory.path().join("started");
    // Cargo's own children outlive a cargo that is killed: these end with the directory.
    let script = format!(
        "use std::{{fs, path::Path, thread, time::Duration}};\nfn main() {{\n    fs::write({started:?}, \"\").unwrap();\n    \
         while Path::new({:?}).exists() {{ thread::sleep(Duration::from_millis(10)); }}\n}}\n",
        directory.path()
    );
    let project = directory.path().join("project");
    fs::create_dir_all(project.join("src")).expect("made");
    fs::write(project.join("Cargo.toml"), "[package]\nname = \"slow\"\nversion = \"0.1.0\"\nedition = \"2024\"\n")
        .expect("written");
    fs::write(project.join("src/main.rs"), "fn main() {}\n").expect("written");
    fs::write(project.join("build.rs"), script).expect("written");
    for (signal, code) in SIGNALS {
        for group in [true, false] {
            drop(fs::remove_file(&started));
            let mut running = Program::build(&project).args(["--base", "scratch"]).start();
            until(&mut running, "the build script runs", |_| started.exists());
            if group {
                running.signal_group(signal);
            } else {
                running.signal(signal);
            }
            assert_stopped_soon(running, code);
            assert!(!project.join("target/lambda-image").exists());
        }
    }
}

/// Whoever asks to stop sees the program end within a second or two, on a busy machine too.
fn assert_stopped_soon(running: Running, code: i32) {
    let asked = Instant::now();
    let ended = running.wait();
    assert_stopped(&ended, code);
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
}

#[test]
fn a_signal_while_packing_leaves_the_image_of_before() {
    let site = Site::new();
    let before = digest(site.build(&["notes.txt"]));
    let old = blobs(&site.layout()).len();
    site.write_zeros("huge.bin", 9 * 1024 * MIB);
    for (signal, code) in SIGNALS {
        let mut running = site.build(&["notes.txt", "huge.bin"]).start();
        until(&mut running, "a layer grows", |_| temporary_bytes(&site.store()) > 64 * 1024);
        running.signal(signal);
        assert_stopped_soon(running, code);
        site.assert_tidy();
        site.assert_holds(&before);
        assert_eq!(blobs(&site.layout()).len(), old);
    }
}

#[test]
fn a_signal_while_pulling_leaves_no_part_of_a_blob() {
    let image = TestImage::new(Family::Oci, "amd64");
    let large = Digest::of(&image.layers[1]);
    let hex: &'static str = large.hex().leak();
    let site = Site::new();
    let before = digest(site.build(&["notes.txt"]));
    for fault in [Fault::Stall(20), Fault::Hang, Fault::Drip] {
        for (signal, code) in SIGNALS {
            let registry = FaultRegistry::builder()
                .image("a", "1", &image)
                .fault(Method::GET, hex, 0..usize::MAX, fault.clone())
                .start();
            let base = format!("{}/a:1", registry.address);
            let mut running = site.build_on(&base, &["notes.txt"]).start();
            let is_asked = |_: &Running| registry.log().iter().any(|request| request.contains(hex));
            until(&mut running, "the large layer is asked for", is_asked);
            running.signal(signal);
            assert_stopped_soon(running, code);
            site.assert_tidy();
            site.assert_holds(&before);
            assert!(!site.layout().join("blobs/sha256").join(hex).exists());
        }
    }
}

#[test]
fn a_signal_while_an_archive_is_written_leaves_the_archive_of_before() {
    let site = Site::new();
    site.write_zeros("stored.bin", 500 * MIB);
    let out = site.path("out");
    fs::create_dir(&out).expect("made");
    let archive = out.join("site.tar");
    for format in ["oci-archive", "docker-archive"] {
        fs::write(&archive, "the archive of before").expect("written");
        let output = format!("{format}:{}", archive.display());
        let build = || site.build(&["stored.bin"]).args(["--compression-level", "0", "--output", &output]);
        for (signal, code) in SIGNALS {
            let mut running = build().start();
            until(&mut running, "an archive is begun", |_| names(&out).len() > 1);
            running.signal(signal);
            assert_stopped_soon(running, code);
            assert_eq!(names(&out), ["site.tar"]);
            assert_eq!(fs::read(&archive).expect("read"), b"the archive of before");
        }
    }
    site.assert_tidy();
}

#[test]
fn a_signal_while_waiting_for_another_build_ends_the_wait() {
    let site = Site::new();
    let before = digest(site.build(&["notes.txt"]));
    for lock in ["build.lock", "index.lock"] {
        let file = File::options().write(true).open(site.store().join(lock)).expect("the lock");
        file.lock().expect("locked");
        for (signal, code) in SIGNALS {
            let mut running = site.build(&["notes.txt"]).start();
            until(&mut running, "the program waits", |running| running.has_said("Waiting for"));
            running.signal(signal);
            assert_stopped_soon(running, code);
        }
        drop(file);
    }
    site.assert_holds(&before);
}

#[test]
fn a_second_signal_ends_at_once() {
    let site = Site::new();
    let before = digest(site.build(&["notes.txt"]));
    // To read it takes for ever, so that the first signal is not seen to.
    let index = site.layout().join("index.json");
    fs::remove_file(&index).expect("removed");
    succeed(Command::new("mkfifo").arg(&index));
    for (signal, code) in SIGNALS {
        let mut running = site.build(&["notes.txt"]).start();
        // Such a pipe can be opened once somebody opens it to read, who then waits for what is never written.
        let writer = || File::options().write(true).custom_flags(libc::O_NONBLOCK).open(&index);
        let silent = poll("the program reads", || writer().ok());
        running.signal(signal);
        // Signals of a kind that wait to be heard are one.
        until(&mut running, "the first one is heard", |running| running.has_said("Stopping"));
        running.signal(signal);
        assert_stopped_soon(running, code);
        drop(silent);
    }
    fs::remove_file(&index).expect("removed");
    assert_eq!(digest(site.build(&["notes.txt"])), before);
    site.assert_holds(&before);
    site.assert_tidy();
}

#[test]
fn a_second_signal_ends_a_program_whose_words_nobody_reads() {
    let site = Site::new();
    let before = digest(site.build(&["notes.txt"]));
    for (signal, code) in SIGNALS {
        // So many warnings fill the pipe, and then whoever warns stands still.
        let many: Vec<_> = (0..3000).map(|number| format!("no-such-key-{number} = 1\n")).collect();
        site.write("lambda-image.toml", many.concat().as_bytes());
        let mut running = site.build(&["notes.txt"]).start_unread();
        // A pipe holds 64 KiB, and what has no room in what is left waits.
        until(&mut running, "the pipe is full", |running| running.unread_bytes() > 60 * 1024);
        running.signal(signal);
        let asked = Instant::now();
        // Signals of a kind that wait to be heard are one, and nothing tells that the first was heard.
        poll("the end", || {
            running.signal_or_gone(signal);
            running.has_ended().then_some(())
        });
        assert_eq!(running.wait().code, Some(code));
        assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    }
    fs::remove_file(site.project().join("lambda-image.toml")).expect("removed");
    assert_eq!(digest(site.build(&["notes.txt"])), before);
}

/// A fixed series of numbers below `bound`, different for each `seed`.
fn roll(seed: u64, bound: u64) -> u64 {
    let bytes: [u8; 8] = noise(seed + 1, 64)[56..].try_into().expect("eight bytes");
    u64::from_le_bytes(bytes) % bound
}

#[test]
fn builds_killed_at_any_moment_are_repaired_by_the_next() {
    let rounds = std::env::var("KILL_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(24);
    let site = Site::new();
    fs::create_dir(site.project().join("many")).expect("made");
    for number in 0..50 {
        site.write(&format!("many/{number}"), &text(20_000 + number * 1000));
    }
    site.write("model.bin", &noise(7, 12_000_000));
    site.write("table.txt", &text(6_000_000));
    let assets = ["many", "model.bin", "table.txt", "notes.txt"];
    let out = site.path("out");
    let output = format!("oci-archive:{}", out.join("site.tar").display());
    let start = Instant::now();
    digest(site.build(&assets).args(["--output", &output]));
    let whole = u64::try_from(start.elapsed().as_micros()).expect("less than an age");
    for round in 0..rounds {
        // Something small changed, or something large, or the records are to be ignored.
        site.write("notes.txt", format!("round {round}").as_bytes());
        let build = site.build(&assets).args(["--output", &output]);
        let build = match round % 3 {
            0 => build.arg("--no-cache"),
            1 => build,
            _ => {
                site.write("table.txt", &text(6_000_000 + round as usize));
                build
            }
        };
        let running = build.start();
        thread::sleep(Duration::from_micros(roll(round, whole * 11 / 10)));
        running.signal_or_gone("KILL");
        let ended = running.wait();
        assert!(ended.signal == Some(9) || ended.code == Some(0), "round {round}: {ended:?}");
        // Whatever the moment, what has a final name is whole: the index, each image in it, each blob, the archive.
        assert_eq!(verify(&site.layout()).len(), 1, "round {round}");
        succeed(Command::new("tar").arg("-tf").arg(out.join("site.tar")));
        json(&site.store().join("site.json"));
    }
    let repaired = digest(site.build(&assets).args(["--output", &output]));
    site.assert_holds(&repaired);
    site.assert_tidy();
    assert_eq!(names(&out), ["site.tar"], "what killed builds left beside the archive is gone");
    let fresh = site.path("fresh");
    let again = digest(site.build(&assets).arg("--target-dir").arg(&fresh));
    assert_eq!(again, repaired);
}

#[test]
fn what_a_killed_build_left_beside_its_output_is_removed_by_the_next() {
    let site = Site::new();
    site.write_zeros("stored.bin", 300 * MIB);
    let out = site.path("out");
    for (output, expected) in [("oci-archive:../out/site.tar", 1), ("oci-dir:../out", 3)] {
        fs::create_dir(&out).expect("made");
        let build = || site.build(&["stored.bin"]).args(["--compression-level", "0", "--output", output]);
        let mut running = build().start();
        let begun = || names(&out).iter().any(|name| name.starts_with(".lambda-image-"));
        until(&mut running, "a file is begun", |_| begun());
        running.signal("KILL");
        assert_eq!(running.wait().signal, Some(9));
        assert!(begun(), "nothing is left");
        digest(build());
        assert_eq!(names(&out).len(), expected, "{:?}", names(&out));
        fs::remove_dir_all(&out).expect("removed");
    }
}

/// A small file system in memory, which ends with the test.
struct SmallDisk {
    path: PathBuf,
    _directory: TempDir,
}

impl SmallDisk {
    fn new(size: u64) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let path = directory.path().join("disk");
        fs::create_dir(&path).expect("made");
        let options = format!("size={size},mode=755");
        succeed(Command::new(tool("mount")).args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&path));
        Self { path, _directory: directory }
    }

    fn remount(&self, options: &str) {
        succeed(Command::new(tool("mount")).args(["-o", &format!("remount,{options}")]).arg(&self.path));
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A mount that stays makes the removal of its directory fail, which nothing depends on.
        drop(Command::new(tool("umount")).arg("-l").arg(&self.path).output());
    }
}

/// Builds into the disk.
fn build_into(disk: &SmallDisk, site: &Site, base: &str, assets: &[&str]) -> Program {
    site.build_on(base, assets).arg("--target-dir").arg(&disk.path)
}

#[test]
fn a_full_disk_is_named_and_costs_nothing_that_was_there() {
    let site = Site::new();
    let disk = SmallDisk::new(8 * MIB);
    let layout = disk.path.join("lambda-image/layout");
    let before = digest(build_into(&disk, &site, "scratch", &["notes.txt"]));
    let large = TestImage::of(Family::Oci, "amd64", &[large_tar()], gzip);
    let registry = FaultRegistry::builder().image("a", "1", &large).start();
    let plain = TestImage::of(Family::Oci, "amd64", &[large_tar()], <[u8]>::to_vec);
    let registry_plain = FaultRegistry::builder().image("a", "1", &plain).start();
    site.write("model.bin", &noise(3, 9_000_000));
    for (base, assets, what) in [
        ("scratch".to_owned(), ["notes.txt", "model.bin"], "could not pack layer `model.bin`"),
        (format!("{}/a:1", registry.address), ["notes.txt", "notes.txt"], "could not write blob"),
        (format!("{}/a:1", registry_plain.address), ["notes.txt", "notes.txt"], "could not write"),
    ] {
        let assets = if assets[0] == assets[1] { &assets[..1] } else { &assets[..] };
        let outcome = build_into(&disk, &site, &base, assets).run();
        assert_eq!(outcome.code, 1, "{}", outcome.stderr);
        for said in [what, "No space left on device", "--target-dir"] {
            assert!(outcome.stderr.contains(said), "no `{said}` in {}", outcome.stderr);
        }
        assert_eq!(verify(&layout), [("site".to_owned(), before.to_string())]);
        assert_eq!(names(&disk.path.join("lambda-image/tmp")), ["lock"]);
    }
    let again = digest(build_into(&disk, &site, "scratch", &["notes.txt"]));
    assert_eq!(again, before);
}

#[test]
fn a_disk_without_room_for_an_output_says_how_much_it_takes_and_where_else() {
    let site = Site::new();
    site.write("model.bin", &noise(3, 300_000));
    let disk = SmallDisk::new(64 * 1024);
    for (format, name, said) in [
        ("oci-archive", "site.tar", "/site.tar`"),
        ("docker-archive", "site.tar", "/site.tar`"),
        ("oci-dir", "layout", "/layout/"),
    ] {
        let build = || site.build(&["notes.txt", "model.bin"]).arg("--output");
        let output = format!("{format}:{}", disk.path.join(name).display());
        let outcome = build().arg(&output).run();
        assert_eq!((outcome.code, outcome.stdout.as_str()), (1, ""), "{}", outcome.stderr);
        let elsewhere = format!(" KiB: free as much, or name another place with `--output {format}:PATH`\n");
        for said in [said, "could not write `", "No space left on device", "help: the image takes 29", &elsewhere] {
            assert!(outcome.stderr.contains(said), "{format}: no `{said}` in {}", outcome.stderr);
        }
        disk.remount("ro");
        let outcome = build().arg(&output).run();
        assert_eq!(outcome.code, 1, "{}", outcome.stderr);
        let help = format!("help: name a place that can be written with `--output {format}:PATH`\n");
        assert!(outcome.stderr.contains(&help), "{format}: {}", outcome.stderr);
        disk.remount("rw");
        for name in names(&disk.path) {
            assert_eq!(name, "layout", "an archive that is not whole");
            fs::remove_dir_all(disk.path.join(name)).expect("removed");
        }
    }
}

fn large_tar() -> Vec<u8> {
    tar(&[("opt/large", &noise(9, 9_000_000))])
}

#[test]
fn a_disk_that_fills_up_at_any_small_write_is_no_disaster() {
    let site = Site::new();
    let disk = SmallDisk::new(MIB);
    let layout = disk.path.join("lambda-image/layout");
    let mut before = digest(build_into(&disk, &site, "scratch", &["notes.txt"]));
    let mut failures = 0;
    let filler = disk.path.join("filler");
    for pages in 0.. {
        site.write("notes.txt", format!("{pages} pages").as_bytes());
        fill(&disk, &filler, pages);
        let outcome = build_into(&disk, &site, "scratch", &["notes.txt"]).run();
        assert_eq!(verify(&layout).len(), 1);
        if outcome.code == 0 {
            before = outcome.stdout.trim().parse().expect("a digest");
            break;
        }
        failures += 1;
        assert_eq!(outcome.code, 1, "{}", outcome.stderr);
        assert!(outcome.stderr.contains("No space left on device"), "{}", outcome.stderr);
        assert!(outcome.stderr.contains(" `") && outcome.stderr.contains("--target-dir"), "{}", outcome.stderr);
        json(&disk.path.join("lambda-image/site.json"));
    }
    assert!(failures > 6, "only {failures} moments");
    fs::remove_file(filler).expect("removed");
    assert_eq!(digest(build_into(&disk, &site, "scratch", &["notes.txt"])), before);
    assert_eq!(names(&disk.path.join("lambda-image/tmp")), ["lock"]);
}

/// Leaves so many pages free.
fn fill(disk: &SmallDisk, filler: &Path, pages: usize) {
    drop(fs::remove_file(filler));
    let free = succeed(Command::new("df").args(["--output=avail", "-B4096"]).arg(&disk.path));
    let free: usize = free.lines().last().expect("a number").trim().parse().expect("a number");
    fs::write(filler, vec![0; free.saturating_sub(pages) * 4096]).expect("written");
}

#[test]
fn a_store_that_cannot_be_written_is_named() {
    let site = Site::new();
    let disk = SmallDisk::new(4 * MIB);
    let before = digest(build_into(&disk, &site, "scratch", &["notes.txt"]));
    disk.remount("ro");
    site.write("notes.txt", b"second");
    let outcome = build_into(&disk, &site, "scratch", &["notes.txt"]).run();
    assert_eq!(outcome.code, 1, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("Read-only file system"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains(disk.path.to_str().expect("a plain path")), "{}", outcome.stderr);
    let layout = disk.path.join("lambda-image/layout");
    assert_eq!(verify(&layout), [("site".to_owned(), before.to_string())]);
    disk.remount("rw");
    let after = digest(build_into(&disk, &site, "scratch", &["notes.txt"]));
    assert_eq!(verify(&layout), [("site".to_owned(), after.to_string())]);
}

#[test]
fn records_that_cannot_be_written_are_named() {
    let site = Site::new();
    let disk = SmallDisk::new(4 * MIB);
    let before = digest(build_into(&disk, &site, "scratch", &["notes.txt"]));
    let records = disk.path.join("lambda-image/records");
    succeed(Command::new(tool("mount")).arg("--bind").arg(&records).arg(&records));
    succeed(Command::new(tool("mount")).args(["-o", "remount,bind,ro"]).arg(&records));
    site.write("notes.txt", b"second");
    let build = build_into(&disk, &site, "scratch", &["notes.txt"]).run();
    succeed(Command::new(tool("umount")).arg(&records));
    assert_eq!(build.code, 1, "{}", build.stderr);
    assert!(build.stderr.contains("could not write record `"), "{}", build.stderr);
    assert!(build.stderr.contains(records.to_str().expect("a plain path")), "{}", build.stderr);
    let layout = disk.path.join("lambda-image/layout");
    assert_eq!(verify(&layout), [("site".to_owned(), before.to_string())]);
    let after = digest(build_into(&disk, &site, "scratch", &["notes.txt"]));
    assert_eq!(after, digest(site.build(&["notes.txt"])));
    assert_eq!(verify(&layout), [("site".to_owned(), after.to_string())]);
}

#[test]
fn builds_at_once_all_succeed_and_leave_a_whole_layout() {
    let site = Site::new();
    site.write("table.txt", &text(3_000_000));
    for round in 0..6 {
        site.write("notes.txt", format!("round {round}").as_bytes());
        let same = || site.build(&["table.txt", "notes.txt"]);
        let other = || site.build(&["notes.txt"]).args(["--name", "other"]);
        // Each prunes when it ends, so the first to end would delete what the others are about to use.
        let running: Vec<_> =
            [same(), same().arg("--no-cache"), other(), other().arg("--no-cache")].map(Program::start).into();
        let digests: Vec<_> = running
            .into_iter()
            .map(|running| {
                let ended = running.wait();
                assert_eq!(ended.code, Some(0), "round {round}: {}", ended.stderr);
                ended.stdout.trim().to_owned()
            })
            .collect();
        assert_eq!((&digests[0], &digests[2]), (&digests[1], &digests[3]), "round {round}");
        let expected = [("other".to_owned(), digests[2].clone()), ("site".to_owned(), digests[0].clone())];
        assert_eq!(verify(&site.layout()), expected, "round {round}");
    }
    site.assert_tidy();
    digest(site.build(&["table.txt", "notes.txt"]));
    assert_eq!(blobs(&site.layout()).len(), 6, "two manifests, two configs, and two layers are left");
}
