//! What a person is told to do about an image that does not start: it has to be right for that image.

use serde_json::{Value, json};
use tar::EntryType;
use tempfile::TempDir;

use crate::rules::{found, verify};
use crate::support::project::{ARM64, elf};
use crate::support::specimen::{Specimen, Tape};

/// The only finding in an image that was broken in this way.
fn finding(spoil: impl FnOnce(&mut Specimen)) -> Value {
    let directory = TempDir::new().expect("a directory");
    let mut specimen = Specimen::good();
    spoil(&mut specimen);
    specimen.write(&directory.path().join("image"));
    let (findings, _) = found(&verify(directory.path(), &[]));
    let [finding] = findings.try_into().expect("one finding");
    finding
}

/// Its advice.
pub fn advice(spoil: impl FnOnce(&mut Specimen)) -> String {
    finding(spoil)["help"].as_str().expect("advice").to_owned()
}

fn start(image: &mut Specimen, key: &str, words: &[&str]) {
    image.config["config"] = json!({key: words, "WorkingDir": "/var/task"});
}

#[test]
fn advice_is_about_the_image_at_hand() {
    let at = "it is at `/var/task/bootstrap`: name it by its whole path";
    assert_eq!(advice(|image| start(image, "Entrypoint", &["bootstrap"])), at);
    assert_eq!(advice(|image| start(image, "Entrypoint", &["/bootstrap"])), at);
    assert_eq!(
        advice(|image| start(image, "Cmd", &["/bin/sh", "-c", "/var/task/bootstrap --serve"])),
        "there is no shell in the image to read it: write it as a list, which needs none: \
         `CMD [\"/var/task/bootstrap\", \"--serve\"]`"
    );
    let other = |image: &mut Specimen, machine: u16| {
        image.add(|tape| tape.file("var/task/own", 0o755, &elf(machine)));
        start(image, "Entrypoint", &["/var/task/own"]);
    };
    let compile = "compile it for the image: `--target x86_64-unknown-linux-gnu` in Rust, `GOARCH=amd64` in Go";
    assert_eq!(advice(|image| other(image, 243)), compile);
    assert_eq!(
        advice(|image| other(image, ARM64)),
        format!("{compile}; or build the image for it: `--platform linux/arm64` of docker, podman and buildah")
    );
    let script = |image: &mut Specimen, line: &[u8]| {
        image.add(|tape| tape.file("var/task/run", 0o755, line));
        start(image, "Entrypoint", &["/var/task/run"]);
    };
    assert_eq!(
        advice(|image| script(image, b"#!/bin/sh\n")),
        "take a base that has `/bin/sh`, or start a compiled program: an empty base has neither shell nor interpreter"
    );
    assert_eq!(
        advice(|image| script(image, b"#!/usr/bin/bootstrap\n")),
        "it is at `/var/task/bootstrap`: begin the script with `#!/var/task/bootstrap`"
    );
}

#[test]
fn a_line_for_a_shell_becomes_a_list_where_it_is_one() {
    let shell = |line: &str| advice(|image| start(image, "Cmd", &["/bin/sh", "-c", line]));
    for line in ["/var/task/bootstrap --serve", "exec /var/task/bootstrap --serve"] {
        assert_eq!(
            shell(line),
            "there is no shell in the image to read it: write it as a list, which needs none: \
             `CMD [\"/var/task/bootstrap\", \"--serve\"]`"
        );
    }
    for line in ["cd /var/task && ./bootstrap", "./bootstrap \"$MODE\"", "A=1 ./bootstrap", "./bootstrap 'a b'"] {
        assert_eq!(
            shell(line),
            "there is no shell in the image to read it: write it as a list of words, in which none has a meaning for \
             shells, or take a base that has `/bin/sh`",
            "{line}"
        );
    }
}

#[test]
fn what_is_in_the_place_of_a_program_is_told() {
    let told = |words: &[&str], fill: fn(Tape) -> Tape| {
        let finding = finding(|image| {
            image.add(fill);
            start(image, "Entrypoint", words);
        });
        assert_eq!(finding["code"], "L051");
        ["path", "message", "help"].map(|key| finding[key].as_str().expect("a text").to_owned())
    };
    assert_eq!(
        told(&["./run"], |tape| tape.symlink("var/task/run", "/home/me/target/release/run")),
        [
            "/var/task/run",
            "ENTRYPOINT starts `./run`, and it is a link to `/home/me/target/release/run`, which leads nowhere",
            "copy what the link means there, as `cp -L` does, or copy that to where it leads as well",
        ]
    );
    let [_, message, _] = told(&["/var/task/a"], |tape| tape.symlink("var/task/a", "b").symlink("var/task/b", "a"));
    assert_eq!(message, "ENTRYPOINT starts `/var/task/a`, and it is a link to `b`, which leads nowhere");
    assert_eq!(
        told(&["bin/"], |tape| tape.directory("var/task/bin", 0o755))[..2],
        ["/var/task/bin", "ENTRYPOINT starts `bin/`, and it is a directory"]
    );
    assert_eq!(
        told(&["bin/none"], |tape| tape)[..2],
        ["/var/task/bin/none", "ENTRYPOINT starts `bin/none`, and it is not there"]
    );
}

#[test]
fn a_directory_in_the_place_of_a_link_is_to_be_packed_where_that_leads() {
    for (link, target, leads_to) in [("lib64", "usr/lib64", "usr/lib64"), ("lib", "/usr/lib", "usr/lib")] {
        let help = advice(|image| {
            image.add_bare(Tape::default().directories(&["usr", "usr/lib", "usr/lib64"]).symlink(link, target));
            image.add_bare(Tape::default().directories(&[link]));
        });
        assert_eq!(help, format!("pack the files below `{leads_to}` and not `{link}`"));
    }
}

#[test]
fn a_layer_that_cannot_be_read_is_to_be_made_again_or_made_smaller() {
    let broken = |tar: Vec<u8>| {
        let directory = TempDir::new().expect("a directory");
        let mut specimen = Specimen::good();
        specimen.tars.push(tar);
        specimen.write(&directory.path().join("image"));
        let (findings, _) = found(&verify(directory.path(), &["--allow", "L051"]));
        let [finding] = findings.try_into().expect("one finding");
        assert_eq!(finding["code"], "L017");
        finding["help"].as_str().expect("advice").to_owned()
    };
    let again = "push or save the image again";
    assert_eq!(broken(Tape::default().directories(&["a", "b"]).end()[..700].to_vec()), again);
    assert_eq!(broken(Tape::default().file("a", 0o644, &[1; 5000]).end()[..2000].to_vec()), again);
    let many = Tape::default().file("a", 0o644, b"").end()[..512].repeat(1_000_001);
    assert_eq!(broken(many), "leave files out: no function needs that many");
}

#[test]
fn what_an_image_says_at_length_is_cut_short() {
    let long = "/x".repeat(300_000);
    let record = format!(" linkpath={long}\n");
    let record = format!("{}{record}", record.len() + 6);
    let links = |tape: Tape| {
        let tape = tape.entry(EntryType::XHeader, "x", 0o644, record.as_bytes(), "");
        tape.symlink("var/task/run", "x")
    };
    let finding = finding(|image| {
        image.add(links);
        start(image, "Entrypoint", &["/var/task/run"]);
    });
    let message = finding["message"].as_str().expect("a message");
    assert!(message.len() < 300 && message.contains("/x/x\u{2026}`, which leads nowhere"), "{message}");
}
