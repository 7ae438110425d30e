//! A base that was renewed under an image that stays: only what is the base's moves, and what was checked of it is
//! checked again.

use std::fs;
use std::path::Path;

use cargo_lambda_image::lock::{FILE_NAME, file};
use serde_json::Value;

use super::{base, checkout, open, project, push, pushed, steps, succeeded};
use crate::support::images::{Family, TestImage, gzip, tar};
use crate::support::program::Program;
use crate::support::project::{AMD64, elf};
use crate::support::registry::FaultRegistry;

#[test]
fn after_a_renewed_base_only_its_layers_config_and_manifest_move() {
    let (old, new) = (base("ID=old"), base("ID=new"));
    let bases = FaultRegistry::builder().image("base", "1", &old).image("base", "2", &new).start();
    let registry = open("app");
    let first = project(&format!("{}/base:1", bases.address), &format!("{}/app", registry.address));
    let there = pushed(&succeeded(push(&first).run()));
    bases.move_tag("base", "1", new.manifest_type(), &new.manifest);
    succeeded(Program::of("update", first.root()).arg("base").run());
    // Assets are not needed for it.
    fs::remove_dir_all(first.path("models")).expect("removed");
    fs::remove_file(first.path("x.db")).expect("removed");
    let moved = succeeded(push(&first).args(["--assets-from-lock", "--locked"]).run());
    assert_eq!(steps(&moved), ["relay", "reuse", "reuse", "reuse", "reuse"], "its second layer is the same");
    let of_ours = |image: &Value| image["layers"].as_array().expect("layers")[2..].to_vec();
    assert_eq!(of_ours(&pushed(&moved)), of_ours(&there));
    assert_ne!(pushed(&moved)["digest"], there["digest"]);
    let size = new.layers[0].len() as u64;
    let sent = pushed(&moved)["sent_bytes"].as_u64().expect("a number");
    assert!(sent > size && sent < size + 6000, "{sent} for a layer of {size}");
}

#[test]
fn a_renewed_base_is_checked_by_what_the_lock_knows_of_it() {
    let base = base("ID=test");
    let bases = FaultRegistry::builder().image("base", "1", &base).start();
    let registry = open("app");
    let first = project(&format!("{}/base:1", bases.address), &format!("{}/app", registry.address));
    let dynamic = fs::read("/bin/true").expect("a program of this machine");
    first.write("app", dynamic);
    let outcome = push(&first).run();
    assert_eq!(outcome.code, 3, "a base without glibc: {}", outcome.stderr);
    assert!(!first.path(FILE_NAME).exists());
    first.write_program("app", AMD64);
    succeeded(push(&first).run());
    first.write("app", fs::read("/bin/true").expect("a program"));
    for (glibc, code) in [("2.99", 0), ("2.1", 3)] {
        let mut lock = file::read(&first.path(FILE_NAME)).expect("a lock");
        for base in lock.bases.values_mut() {
            base.glibc = Some(glibc.to_owned());
        }
        file::write(&first.path(FILE_NAME), &lock).expect("written");
        let fresh = checkout(&first);
        copy(&first.path("app"), &fresh.path("app"));
        let outcome = push(&fresh).run();
        assert_eq!(outcome.code, code, "glibc {glibc}: {}", outcome.stderr);
    }
}

#[test]
fn a_renewed_base_is_checked_again_by_what_is_in_it() {
    let of_glibc = |version: &str| {
        let mut libc = elf(AMD64);
        libc.extend(format!("\0GNU C Library (GNU libc) stable release version {version}.\n").bytes());
        TestImage::of(
            Family::Oci,
            "amd64",
            &[tar(&[("lib64/ld-linux-x86-64.so.2", &elf(AMD64)), ("lib64/libc.so.6", &libc)])],
            gzip,
        )
    };
    let (new, old) = (of_glibc("2.99"), of_glibc("2.1"));
    let bases = FaultRegistry::builder().image("base", "1", &new).image("base", "2", &old).start();
    let registry = open("app");
    let first = project(&format!("{}/base:1", bases.address), &format!("{}/app", registry.address));
    first.write("app", fs::read("/bin/true").expect("a program of this machine"));
    succeeded(push(&first).run());
    bases.move_tag("base", "1", old.manifest_type(), &old.manifest);
    let update = succeeded(Program::of("update", first.root()).arg("base").run());
    assert!(update.stderr.contains(", glibc 2.99 -> 2.1\n"), "{}", update.stderr);
    let received = registry.received();
    let fresh = checkout(&first);
    copy(&first.path("app"), &fresh.path("app"));
    for project in [&first, &fresh] {
        let outcome = push(project).arg("--locked").run();
        assert_eq!(outcome.code, 3, "{}", outcome.stderr);
        assert!(outcome.stderr.contains("has 2.1\n"), "{}", outcome.stderr);
    }
    assert_eq!(registry.received(), received);
}

fn copy(from: &Path, to: &Path) {
    fs::copy(from, to).expect("copied");
}
