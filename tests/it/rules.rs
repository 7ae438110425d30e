//! Every rule against an image that breaks it, and nothing else: made by hand, judged by the real program.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use cargo_lambda_image::check::findings::Options;
use cargo_lambda_image::check::image::{BaseFacts, ImageFacts};
use cargo_lambda_image::check::{self, rules};
use cargo_lambda_image::oci::{Digest, media_type};
use serde_json::{Value, json};
use tar::EntryType;
use tempfile::TempDir;

use crate::support::corpus;
use crate::support::docker_registry::DockerRegistry;
use crate::support::images::{Family, descriptor, gzip};
use crate::support::lambda_base::LambdaBase;
use crate::support::program::{Outcome, Program};
use crate::support::project::{AMD64, ARM64, Project, elf};
use crate::support::specimen::{Specimen, Tape};

/// What a run found: code, severity, and the rest of each finding; and the exit code.
pub fn found(outcome: &Outcome) -> (Vec<Value>, i32) {
    let lines = outcome.stdout.lines().map(|line| serde_json::from_str::<Value>(line).expect("a JSON line"));
    (lines.filter(|line| line["reason"] == "finding").collect(), outcome.code)
}

pub fn verify(directory: &Path, flags: &[&str]) -> Outcome {
    Program::verify(directory).args(["oci:image", "--message-format", "json"]).args(flags).run()
}

/// `L020 error /path` of each finding.
pub fn short(findings: &[Value]) -> Vec<String> {
    let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let line = |it: &Value| format!("{} {} {}", word(&it["code"]), word(&it["severity"]), word(&it["path"]));
    findings.iter().map(line).collect()
}

/// Makes the good image, breaks it, and expects exactly these findings.
pub fn expect(name: &str, expected: &[&str], spoil: impl FnOnce(&mut Specimen)) {
    let directory = TempDir::new().expect("a directory");
    let mut specimen = Specimen::good();
    spoil(&mut specimen);
    specimen.write(&directory.path().join("image"));
    let outcome = verify(directory.path(), &[]);
    let (findings, code) = found(&outcome);
    assert_eq!(short(&findings), expected, "{name}: {}", outcome.stdout);
    corpus::keep(&directory.path().join("image"), expected);
    let is_error = expected.iter().any(|line| line.contains(" error "));
    assert_eq!(code, if is_error { 3 } else { 0 }, "{name}: {}", outcome.stderr);
}

#[test]
fn a_good_image_breaks_no_rule() {
    expect("OCI", &[], |_| {});
    expect("Docker", &[], |image| image.family = Family::Docker);
    expect("with data", &[], |image| {
        image.add(|tape| {
            let tape = tape.directory("var/task/data", 0o755).file("var/task/data/words.txt", 0o644, b"words");
            tape.symlink("var/task/latest", "data/words.txt")
        });
    });
}

#[test]
fn documents_that_lambda_does_not_take() {
    type Edit = fn(&mut Value);
    let edits: [(&str, &[&str], Edit); 9] = [
        ("a manifest of another type", &["L003 error -"], |it| it["mediaType"] = json!("application/x")),
        ("a config of another type", &["L003 error -"], |it| it["config"]["mediaType"] = json!("application/x")),
        ("a layer of another type", &["L003 error -"], |it| it["layers"][0]["mediaType"] = json!("application/x")),
        ("Docker's layers", &["L004 warning -"], |it| {
            it["layers"][0]["mediaType"] = json!(media_type::DOCKER_LAYER_GZIP);
        }),
        ("zstd", &["L005 error -", "L017 note -", "L051 note -"], |it| {
            it["layers"][0]["mediaType"] = json!(media_type::OCI_LAYER_ZSTD);
        }),
        ("other places", &["L008 error -", "L017 note -", "L051 note -"], |it| {
            it["layers"][0]["urls"] = json!(["https://example.com/layer"]);
        }),
        ("no media type", &["L009 warning -"], |it| {
            it.as_object_mut().expect("an object").remove("mediaType");
        }),
        ("a large manifest", &["L010 warning -"], |it| it["annotations"] = json!({"a": "x".repeat(26_000)})),
        ("a layer of another size", &["L017 error -", "L051 note -"], |it| it["layers"][0]["size"] = json!(7)),
    ];
    for (name, expected, edit) in edits {
        expect(name, expected, |image| image.edit = edit);
    }
    let plain: fn(&[u8]) -> Vec<u8> = <[u8]>::to_vec;
    expect("an uncompressed layer", &["L007 warning -"], |image| {
        image.compress = plain;
        image.edit = |it| it["layers"][0]["mediaType"] = json!(media_type::OCI_LAYER_TAR);
    });
    expect("an uncompressed layer of Docker's", &["L006 error -"], |image| {
        (image.family, image.compress) = (Family::Docker, plain);
        image.edit = |it| it["layers"][0]["mediaType"] = json!(media_type::DOCKER_LAYER_TAR);
    });
    expect("a layer that is not gzip", &["L017 error -", "L051 note -"], |image| image.compress = plain);
    expect("128 layers", &["L011 warning -"], |image| {
        (0..127).for_each(|number| image.add(|tape| tape.file(&format!("var/task/{number}"), 0o644, b"")));
    });
}

#[test]
fn configs_that_lambda_does_not_take() {
    type Edit = fn(&mut Value);
    let edits: [(&str, &[&str], Edit); 7] = [
        ("large settings", &["L012 error -"], |it| {
            it["config"]["Cmd"] = json!(vec!["x".repeat(1000); 17]);
        }),
        ("a large environment", &["L013 warning -"], |it| {
            it["config"]["Env"] = json!([format!("A={}", "x".repeat(4096))]);
        }),
        ("another system", &["L014 error -"], |it| it["os"] = json!("windows")),
        ("another machine", &["L014 error -"], |it| it["architecture"] = json!("riscv64")),
        ("a short history", &["L015 warning -"], |it| {
            it["history"] = json!([{"created_by": "a"}, {"created_by": "b"}]);
        }),
        ("other diff-ids", &["L016 error -"], |it| {
            it["rootfs"] = json!({"type": "layers", "diff_ids": [Digest::of(b"other")]});
        }),
        ("too few diff-ids", &["L016 error -"], |it| it["rootfs"] = json!({"type": "layers", "diff_ids": []})),
    ];
    for (name, expected, edit) in edits {
        expect(name, expected, |image| edit(&mut image.config));
    }
    expect("a null history", &[], |image| image.config["history"] = Value::Null);
}

#[test]
fn an_index_is_no_image() {
    let attestation = || {
        let mut entry = descriptor(media_type::OCI_MANIFEST, b"attestation");
        entry["platform"] = json!({"os": "unknown", "architecture": "unknown"});
        entry["annotations"] = json!({"vnd.docker.reference.type": "attestation-manifest"});
        entry
    };
    let mut other = descriptor(media_type::OCI_MANIFEST, b"other");
    other["platform"] = json!({"os": "linux", "architecture": "arm64"});
    for (others, expected, advice) in [
        (vec![other.clone(), attestation()], "L001 error -", "deploy the digest of the one image"),
        (vec![attestation()], "L002 error -", "--provenance=false"),
    ] {
        let directory = TempDir::new().expect("a directory");
        Specimen::good().write_below_index(&directory.path().join("image"), &others);
        let (findings, code) = found(&verify(directory.path(), &[]));
        assert_eq!((short(&findings), code), (vec![expected.to_owned()], 3));
        corpus::keep(&directory.path().join("image"), &[expected]);
        assert!(findings[0]["help"].as_str().is_some_and(|help| help.contains(advice)), "{findings:?}");
    }
}

#[test]
fn tars_that_lambda_does_not_unpack() {
    let bare = Tape::default;
    for (name, expected, tape) in [
        ("no directories", &["L020 error /a", "L020 error /a/b"][..], bare().file("a/b/c", 0o644, b"")),
        ("a directory after its file", &["L020 error /a"], bare().file("a/b", 0o644, b"").directory("a", 0o755)),
        ("a hard link", &["L021 warning /b"], bare().file("a", 0o644, b"x").hardlink("b", "a")),
        (
            "a hard link of the system",
            &[],
            bare()
                .directories(&["usr", "usr/bin"])
                .file("usr/bin/perl", 0o755, b"x")
                .hardlink("usr/bin/perl5", "usr/bin/perl"),
        ),
        ("a hard link before its target", &["L022 error /b"], bare().hardlink("b", "a").file("a", 0o644, b"")),
        ("a device", &["L023 warning /null"], bare().special(EntryType::Char, "null")),
        ("a FIFO", &["L023 warning /pipe"], bare().special(EntryType::Fifo, "pipe")),
        ("a sparse file", &["L024 warning /s"], bare().special(EntryType::GNUSparse, "s")),
        ("a path twice", &["L025 warning /a"], bare().file("a", 0o644, b"1").file("a", 0o644, b"2")),
        ("a directory twice", &[], bare().directory("a", 0o755).directory("a", 0o755)),
        ("a name that leads out", &["L026 error /a"], bare().file("../a", 0o644, b"")),
        ("an absolute name", &["L027 warning /a"], bare().file("/a", 0o644, b"")),
        ("names with a dot", &[], bare().directory(".", 0o755).file("./a", 0o644, b"")),
        ("a secret of the system", &[], bare().directories(&["etc"]).file("etc/shadow", 0o000, b"")),
    ] {
        expect(name, expected, |image| image.add_bare(tape));
    }
    expect("a hard link of the function below a directory of the system", &["L021 warning /usr/src/app/b"], |image| {
        let tape = bare().directories(&["usr", "usr/src", "usr/src/app"]).file("usr/src/app/a", 0o644, b"x");
        image.add_bare(tape.hardlink("usr/src/app/b", "usr/src/app/a"));
        image.config["config"]["WorkingDir"] = json!("/usr/src/app");
    });
    expect("a file for its owner", &["L029 warning /var/task/a"], |image| {
        image.add(|tape| tape.file("var/task/a", 0o600, b""));
    });
    expect("a file of WORKDIR for its owner", &["L029 warning /app/a"], |image| {
        image
            .add_bare(Tape::default().directories(&["app", "srv"]).file("app/a", 0o640, b"").file("srv/a", 0o640, b""));
        image.config["config"]["WorkingDir"] = json!("/app");
    });
    expect("a file and a directory that a later layer opens", &[], |image| {
        image.add(|tape| tape.directory("var/task/d", 0o700).file("var/task/d/a", 0o600, b""));
        image.add(|tape| tape.directory("var/task/d", 0o755).file("var/task/d/a", 0o644, b""));
    });
    expect("a whiteout as Docker writes it", &[], |image| {
        image.add(|tape| tape.file("var/task/.wh.gone", 0o600, b""));
    });
    expect("a directory for its owner", &["L030 warning /var/task/a"], |image| {
        image.add(|tape| tape.directory("var/task/a", 0o700));
    });
    expect("a directory over a link", &["L028 warning /lib64"], |image| {
        image.add_bare(Tape::default().directories(&["usr", "usr/lib64"]).symlink("lib64", "usr/lib64"));
        image.add_bare(Tape::default().directories(&["lib64"]).file("lib64/own.so", 0o644, b""));
    });
    expect("bytes after the tar", &["L031 warning -"], |image| image.tars[0].extend(b"garbage"));
    expect("bytes after the gzip stream", &["L031 warning -"], |image| {
        image.compress = |tar| [gzip(tar), b"garbage".to_vec()].concat();
    });
    expect("two gzip members", &["L032 warning -"], |image| {
        image.compress = |tar| {
            let (one, other) = tar.split_at(512);
            [gzip(one), gzip(other)].concat()
        };
    });
    expect("a tar that ends early", &["L017 error -", "L051 note -"], |image| image.tars[0].truncate(1600));
}

#[test]
fn sizes_have_limits() {
    let directory = TempDir::new().expect("a directory");
    let mut specimen = Specimen::good();
    specimen.add(|tape| tape.file("var/task/model.bin", 0o644, &[7; 3_000_000]));
    specimen.write(&directory.path().join("image"));
    for (flag, code) in [("3MB", 3), ("2 MiB", 3), ("1GB", 0)] {
        let outcome = verify(directory.path(), &["--max-size", flag]);
        let (findings, exit) = found(&outcome);
        assert_eq!((findings.len(), exit), (usize::from(code == 3), code), "{flag}");
        if let [finding] = &findings[..] {
            let message = finding["message"].as_str().expect("a message");
            assert!(message.contains("2.8 MiB  var/task/model.bin"), "the largest file is listed: {message}");
            assert_eq!(short(&findings), ["L041 error -"]);
        }
    }
}

#[test]
fn more_than_ten_gib_are_refused_with_what_takes_the_room() {
    let zeros = vec![0; 1 << 20];
    // A file of a GiB with its header, compressed once and packed twelve times: a member each.
    let size: u64 = (1 << 30) - 512;
    let mut header = tar::Header::new_gnu();
    header.set_path("var/task/model").expect("a name");
    header.set_size(size);
    header.set_mode(0o644);
    header.set_cksum();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(header.as_bytes()).expect("compressed");
    let mut left = usize::try_from(size).expect("a 64-bit machine");
    while left > 0 {
        let part = left.min(zeros.len());
        encoder.write_all(&zeros[..part]).expect("compressed");
        left -= part;
    }
    let layer = encoder.finish().expect("compressed").repeat(12);
    let directory = TempDir::new().expect("a directory");
    let config = json!({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/a"]},
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(b"unknown")]}});
    let config = config.to_string().into_bytes();
    let described = vec![descriptor(media_type::OCI_LAYER_GZIP, &layer)];
    let manifest = crate::support::images::manifest(Family::Oci, &config, described);
    crate::support::project::write_layout(
        &directory.path().join("image"),
        media_type::OCI_MANIFEST,
        &[&manifest, &config, &layer],
    );
    let allowed = ["L016", "L020", "L025", "L032", "L051"].map(|code| ["--allow", code]).concat();
    let ended =
        Program::verify(directory.path()).args(["oci:image", "--message-format", "json"]).args(allowed).watched();
    let outcome = Outcome { code: ended.code.expect("it ends"), stdout: ended.stdout, stderr: ended.stderr };
    let (findings, code) = found(&outcome);
    assert_eq!((short(&findings), code), (vec!["L040 error -".to_owned()], 3), "{}", outcome.stdout);
    let message = findings[0]["message"].as_str().expect("a message");
    for part in
        ["12884901888 bytes (12.0 GiB)", "2147483648 bytes too many", "12.0 GiB  layer 1", "1023.9 MiB  var/task/model"]
    {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert!(ended.peak_kib < 100 << 10, "memory is bounded: {} KiB", ended.peak_kib);
}

#[test]
fn programs_that_do_not_start() {
    let start = |image: &mut Specimen, words: &[&str]| image.config["config"]["Entrypoint"] = json!(words);
    expect("nothing to start", &["L050 warning -"], |image| start(image, &[]));
    expect("a program that is not there", &["L051 error /var/task/none"], |image| start(image, &["/var/task/none"]));
    expect("a program that PATH has not", &["L051 error -"], |image| start(image, &["none"]));
    expect("a program by PATH", &[], |image| {
        start(image, &["bootstrap"]);
        image.config["config"]["Env"] = json!(["PATH=/bin:/var/task"]);
    });
    expect("a program by WORKDIR", &[], |image| start(image, &["./bootstrap"]));
    for path in ["PATH=../task:/bin", "PATH=/bin:"] {
        expect("a program by a PATH that begins in WORKDIR", &[], |image| {
            start(image, &["bootstrap"]);
            image.config["config"]["Env"] = json!([path]);
        });
    }
    expect("a program through a link", &[], |image| {
        image.add(|tape| tape.symlink("var/task/run", "../task/bootstrap"));
        start(image, &["/var/task/run"]);
    });
    expect("no right to execute", &["L052 error /var/task/own"], |image| {
        image.add(|tape| tape.file("var/task/own", 0o744, &elf(AMD64)));
        start(image, &["/var/task/own"]);
    });
    expect("no way in", &["L052 error /root/own"], |image| {
        image.add_bare(Tape::default().directory("root", 0o700).file("root/own", 0o755, &elf(AMD64)));
        start(image, &["/root/own"]);
    });
    expect("a program behind one of its name that is none", &[], |image| {
        image.add_bare(Tape::default().directories(&["bin"]).file("bin/bootstrap", 0o644, b""));
        start(image, &["bootstrap"]);
        image.config["config"]["Env"] = json!(["PATH=/bin:/var/task"]);
    });
    expect("a program with holes, into which nobody looks", &["L024 warning /var/task/own"], |image| {
        image.add(|tape| tape.entry(EntryType::GNUSparse, "var/task/own", 0o755, b"", ""));
        start(image, &["/var/task/own"]);
    });
    expect("no program", &["L053 error /var/task/text"], |image| {
        image.add(|tape| tape.file("var/task/text", 0o755, b"hello\n"));
        start(image, &["/var/task/text"]);
    });
    expect("a program that is cut short", &["L053 error /var/task/cut"], |image| {
        let whole = elf(AMD64);
        image.add(|tape| tape.file("var/task/cut", 0o755, &whole[..whole.len() - 4]));
        start(image, &["/var/task/cut"]);
    });
    expect("a large program that is cut short", &["L053 error /var/task/cut"], |image| {
        let mut large = elf(AMD64);
        // The size of its one segment, in the file and in memory (gABI, program header).
        for at in [96, 104] {
            large[at..at + 8].copy_from_slice(&(20_u64 << 20).to_le_bytes());
        }
        large.resize(18 << 20, 0);
        image.add(|tape| tape.file("var/task/cut", 0o755, &large));
        start(image, &["/var/task/cut"]);
    });
    expect("a script of Windows", &["L053 error /var/task/run"], |image| {
        image.add(|tape| tape.file("var/task/run", 0o755, b"#!/var/task/bootstrap\r\n"));
        start(image, &["/var/task/run"]);
    });
    expect("a script without its interpreter", &["L051 error /bin/sh"], |image| {
        image.add(|tape| tape.file("var/task/run", 0o755, b"#!/bin/sh -e\n"));
        start(image, &["/var/task/run"]);
    });
    expect("a script by env", &["L051 error -"], |image| {
        image.add(|tape| tape.file("var/task/run", 0o755, b"#!/usr/bin/env python3\n"));
        image.add_bare(Tape::default().directories(&["usr", "usr/bin"]).file("usr/bin/env", 0o755, &elf(AMD64)));
        start(image, &["/var/task/run"]);
    });
    expect("another machine", &["L056 error /var/task/own"], |image| {
        image.add(|tape| tape.file("var/task/own", 0o755, &elf(ARM64)));
        start(image, &["/var/task/own"]);
    });
    expect("a program that a later layer takes away", &["L051 error /var/task/bootstrap"], |image| {
        image.add(|tape| tape.file("var/task/.wh.bootstrap", 0o644, b""));
    });
    expect("a program that a later layer brings back", &[], |image| {
        image.add(|tape| tape.file("var/task/.wh.bootstrap", 0o644, b""));
        image.add(|tape| tape.file("var/task/bootstrap", 0o755, &elf(AMD64)));
    });
}

#[test]
fn the_entry_point_of_aws_wants_a_handler_and_a_program() {
    let aws = |image: &mut Specimen, cmd: &[&str], runtime: Option<u32>| {
        let tape = Tape::default().file("lambda-entrypoint.sh", 0o755, b"#!/var/task/bootstrap\n");
        let mut tape = tape.directories(&["var", "var/runtime"]);
        if let Some(mode) = runtime {
            tape = tape.file("var/runtime/bootstrap", mode, &elf(AMD64));
        }
        image.add_bare(tape);
        image.config["config"] = json!({"Entrypoint": ["/lambda-entrypoint.sh"], "Cmd": cmd});
    };
    expect("all is there", &[], |image| aws(image, &["app.get"], Some(0o755)));
    expect("no handler", &["L054 warning -"], |image| aws(image, &[], Some(0o755)));
    expect("two words", &["L054 warning -"], |image| aws(image, &["app", "get"], Some(0o755)));
    expect("no program", &["L055 error /var/runtime/bootstrap"], |image| aws(image, &["app.get"], None));
    expect("a program for its owner", &["L052 error /var/runtime/bootstrap"], |image| {
        aws(image, &["app.get"], Some(0o744));
    });
}

fn sqlite(version: u8) -> Vec<u8> {
    let mut header = b"SQLite format 3\0\x10\0".to_vec();
    header.extend([version, version]);
    header.resize(4096, 0);
    header
}

#[test]
fn data_that_does_not_work_there() {
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab\nsize 12345\n";
    let key = b"-----BEGIN RSA PRIVATE KEY-----\n";
    for (name, expected, path, content) in [
        ("a database in WAL mode", &["L070 warning /var/task/a.db"][..], "var/task/a.db", sqlite(2)),
        ("a database", &[], "var/task/a.db", sqlite(1)),
        ("a pointer", &["L071 error /var/task/model.bin"], "var/task/model.bin", pointer.to_vec()),
        ("a key", &["L072 error /var/task/tls.pem"], "var/task/tls.pem", key.to_vec()),
        ("a certificate", &[], "var/task/tls.pem", b"-----BEGIN CERTIFICATE-----\n".to_vec()),
    ] {
        expect(name, expected, |image| image.add(|tape| tape.file(path, 0o644, &content)));
    }
    expect("databases of package managers, which all of Amazon Linux has", &[], |image| {
        let tape = Tape::default().directories(&["var", "var/lib", "var/lib/rpm", "var/lib/dnf"]);
        let tape = tape.file("var/lib/rpm/rpmdb.sqlite", 0o644, &sqlite(2));
        let tape =
            tape.file("var/lib/rpm/rpmdb.sqlite-shm", 0o644, b"").file("var/lib/rpm/rpmdb.sqlite-wal", 0o644, b"");
        image.add_bare(tape.file("var/lib/dnf/history.sqlite", 0o644, &sqlite(2)));
    });
    expect("a log beside a database", &["L070 warning /var/task/a.db"], |image| {
        image.add(|tape| tape.file("var/task/a.db", 0o644, &sqlite(1)).file("var/task/a.db-wal", 0o644, b"x"));
    });
    expect("settings and keys of packages that anybody may fetch", &[], |image| {
        let tape = Tape::default().directories(&["srv", "srv/node_modules", "srv/node_modules/bottleneck"]);
        let tape = tape.file("srv/node_modules/bottleneck/.env", 0o644, b"REDIS_PORT=6379");
        image.add_bare(tape.file("srv/node_modules/bottleneck/test.key", 0o644, key));
    });
    expect("a secret that a later layer deletes", &["L072 error /var/task/.env"], |image| {
        image.add(|tape| tape.file("var/task/.env", 0o644, b"KEY=1"));
        image.add(|tape| tape.file("var/task/.wh..env", 0o644, b""));
    });
    expect("a pointer that a later layer replaces", &[], |image| {
        image.add(|tape| tape.file("var/task/model.bin", 0o644, pointer));
        image.add(|tape| tape.file("var/task/model.bin", 0o644, b"the model"));
    });
    expect("places to write", &["L073 note -"], |image| {
        image.config["config"]["Env"] = json!(["HF_HOME=/var/task/cache", "TORCH_HOME=/tmp/torch"]);
    });
}

#[test]
fn a_runtime_that_is_given_up_is_named() {
    expect("Python 3.8", &["L080 warning -"], |image| {
        let tape = Tape::default().file("lambda-entrypoint.sh", 0o755, &elf(AMD64));
        let tape = tape.directories(&["var", "var/lang", "var/lang/bin", "var/runtime"]);
        let tape = tape.file("var/lang/bin/python3.8", 0o755, &elf(AMD64));
        image.add_bare(tape.file("var/runtime/bootstrap", 0o755, &elf(AMD64)));
        image.config["config"] = json!({"Entrypoint": ["/lambda-entrypoint.sh"], "Cmd": ["app.get"]});
    });
}

#[test]
fn a_runtime_that_ends_soon_is_a_note_until_it_has_ended() {
    let image = ImageFacts {
        shown: "image".into(),
        index: None,
        manifest: None,
        config: json!({"architecture": "amd64", "os": "linux"}),
        layers: Vec::new(),
        base: Some(BaseFacts { reference: "public.ecr.aws/lambda/nodejs:22".into(), pinned: true }),
    };
    let at = |today: &str| {
        let options = Options { today: today.into(), allow: ["L050".into()].into(), ..Options::default() };
        let findings = check::verify(&image, &options);
        findings.iter().map(|it| format!("{} {} {}", it.code, it.severity.word(), it.message)).collect::<Vec<_>>()
    };
    assert_eq!(at("2026-10-29"), [""; 0]);
    assert_eq!(at("2026-10-31"), ["L081 note `nodejs22.x` is maintained until 2027-04-30"]);
    assert_eq!(at("2027-05-01"), ["L080 warning `nodejs22.x` is deprecated since 2027-04-30"]);
}

#[test]
fn a_base_that_nothing_pins_is_a_note() {
    let registry = DockerRegistry::start();
    registry.push("lambda/provided", "al2023", &LambdaBase::new(Family::Docker));
    let project = Project::new(&[("data", "words")]);
    project.write_program("app", AMD64);
    let base = format!("{}/lambda/provided:al2023", registry.address);
    // The first build pins it.
    for expected in [&["L082 note -"][..], &[]] {
        let build = project.build().judged().args(["--binary-path", "app", "--base", &base]);
        let outcome = build.args(["--message-format", "json"]).run();
        let (findings, code) = found(&outcome);
        assert_eq!(
            (short(&findings), code),
            (expected.iter().map(ToString::to_string).collect(), 0),
            "{}",
            outcome.stderr
        );
    }
}

#[test]
fn what_the_corpus_holds_is_judged_as_it_ever_was() {
    let table = fs::read_to_string(corpus::directory().join("expected.txt")).expect("the table");
    let judge = |line: &str| {
        let (name, expected) = line.split_once('\t').unwrap_or((line, ""));
        let (directory, image) =
            (TempDir::new().expect("a directory"), corpus::directory().join(format!("{name}.tar")));
        let image = format!("oci-archive:{}", image.display());
        let outcome = Program::verify(directory.path()).args([&image, "--message-format", "json"]).run();
        assert_eq!(short(&found(&outcome).0).join("\t"), expected, "{name}");
        name.to_owned()
    };
    let judged: Vec<_> = std::thread::scope(|scope| {
        let running: Vec<_> = table.lines().map(|line| scope.spawn(move || judge(line))).collect();
        running.into_iter().map(|judge| judge.join().expect("as expected")).collect()
    });
    // Ten gigabytes are no file to keep; the others are about flags, the day, and a base's name.
    let elsewhere = ["L040", "L041", "L081", "L082"];
    let wanted = rules::all().map(|rule| rule.code).filter(|code| !elsewhere.contains(code));
    assert_eq!(judged, wanted.chain(["good"]).collect::<Vec<_>>(), "`testdata/corpus/make` takes them from the tests");
}

#[test]
fn every_rule_has_an_image_that_breaks_it() {
    let tables = [include_str!("rules.rs"), include_str!("libraries.rs")].concat();
    let without = rules::all().filter(|rule| !tables.contains(&format!("\"{} {} ", rule.code, rule.severity.word())));
    assert_eq!(without.map(|rule| rule.code).collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn rules_can_be_denied_and_allowed() {
    let directory = TempDir::new().expect("a directory");
    let mut specimen = Specimen::good();
    specimen.add(|tape| tape.file("var/task/a.db", 0o644, &sqlite(2)).file("var/task/.env", 0o644, b"A=1"));
    specimen.write(&directory.path().join("image"));
    let wal = ["L070 warning /var/task/a.db"];
    let both = ["L072 error /var/task/.env", "L070 warning /var/task/a.db"];
    for (flags, expected, code) in [
        (&[][..], &both[..], 3),
        (&["--allow", "L072"], &wal, 0),
        (&["--allow", "l072", "--deny", "warnings"], &["L070 error /var/task/a.db"], 3),
        (&["--allow", "L072", "--deny", "L070"], &["L070 error /var/task/a.db"], 3),
        (&["--allow-secrets", ".env"], &wal, 0),
        (&["--allow", "L072", "--allow", "L070"], &[], 0),
    ] {
        let (findings, exit) = found(&verify(directory.path(), flags));
        assert_eq!((short(&findings), exit), (expected.iter().map(ToString::to_string).collect(), code), "{flags:?}");
    }
    for (code, said) in [
        ("L999", "no code of a rule; `cargo lambda-image verify --explain all` lists them"),
        ("L58", "no code of a rule; there is `L058`, a C library that is too old; `cargo lambda-image"),
    ] {
        let outcome = verify(directory.path(), &["--deny", code]);
        assert_eq!(outcome.code, 2);
        assert!(outcome.stderr.contains(said), "{}", outcome.stderr);
    }
}

#[test]
fn every_rule_has_a_page() {
    let directory = TempDir::new().expect("a directory");
    let explain = |code: &str| Program::verify(directory.path()).args(["--explain", code]).run();
    let list = explain("all").stdout;
    assert!(list.lines().count() > 40, "{list}");
    for line in list.lines() {
        let code = line.split(' ').next().expect("a code");
        let page = explain(code);
        assert_eq!(page.code, 0);
        assert!(page.stdout.starts_with(code) && page.stdout.contains("\nWhy: "), "{}", page.stdout);
    }
    let told = Program::verify(directory.path()).args(["--explain", "L020", "--message-format", "json"]).run();
    let [message] = told.messages("explained").try_into().expect("one message");
    assert_eq!(message["page"], explain("L020").stdout.trim_end());
    assert_eq!(explain("L999").code, 2);
    for (text, code) in [("L58", "L058"), ("58", "L058"), ("e058", "L058"), ("hard link", "L021"), ("SQLite", "L070")] {
        let outcome = explain(text);
        assert_eq!((outcome.code, outcome.stdout.as_str()), (2, ""), "{text}");
        assert!(outcome.stderr.contains(&format!("there is `{code}`, ")), "{text}: {}", outcome.stderr);
    }
    assert!(!explain("no such thing").stderr.contains("there is"));
}

#[test]
fn the_reference_in_the_documentation_is_the_table_of_rules() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/rules.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(path, rules::reference()).expect("written");
    }
    let found = fs::read_to_string(path).expect("the reference");
    assert_eq!(found, rules::reference(), "`UPDATE_DOCS=1 cargo test the_reference_in` writes it anew");
}
