//! Bad input, row by row: the exit code, what is said and how to go on, nothing on stdout, and the layout as it was.

use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use cargo_lambda_image::oci::{Digest, media_type};
use serde_json::{Value, json};

use crate::support::images::{Family, TestImage, gzip, tar};
use crate::support::program::{Outcome, Program};
use crate::support::project::{AMD64, ARM64, Project, files_below, write_images, write_layout};
use crate::support::tools::succeed;

/// What a refusal must say: its exit code, and texts of stderr of which the last is of the `help:` line.
struct Said<'a>(i32, &'a [&'a str]);

/// A project with an image in its layout already.
fn project() -> Project {
    let project = Project::new(&[
        ("lambda-image.toml", "base = \"scratch\"\nentrypoint = \"/start\"\n"),
        ("data/one", "1"),
        ("data/two", "2"),
        ("file", "f"),
    ]);
    project.write_program("app", AMD64);
    let digests = project.build().args(["--no-binary", "--asset", "data"]).succeed();
    assert_eq!(digests.len(), 1);
    project
}

fn check(name: &str, said: &Said<'_>, outcome: &Outcome) {
    let Said(code, texts) = said;
    assert_eq!(outcome.code, *code, "{name}: {}", outcome.stderr);
    assert_eq!(outcome.stdout, "", "{name}: stdout carries data only");
    let (help, rest) = texts.split_last().expect("at least a help");
    for text in rest {
        assert!(outcome.stderr.contains(text), "{name}: no `{text}` in {}", outcome.stderr);
    }
    let given = outcome.stderr.split_once("\nhelp: ").unwrap_or_else(|| panic!("{name}: no help: {}", outcome.stderr));
    assert!(given.1.contains(help), "{name}: no `{help}` in {}", given.1);
}

/// Builds with `arguments`, which must be refused as `said`.
fn refused(project: &Project, arguments: &[&str], said: &Said<'_>) {
    let before = project.layout_files();
    let outcome = project.build().args(arguments).run();
    check(&arguments.join(" "), said, &outcome);
    assert_eq!(project.layout_files(), before, "{arguments:?}: the layout is as it was");
}

#[test]
fn assets_that_cannot_be_packed() {
    let project = project();
    succeed(Command::new("mkfifo").arg(project.path("fifo")));
    let _socket = UnixListener::bind(project.path("socket")).expect("a socket");
    for (directory, file) in [("white", ".wh.gone"), ("env", ".env.local"), ("ssh", ".ssh/config")] {
        project.write(&format!("{directory}/{file}"), "x");
    }
    fs::create_dir_all(project.path("hollow/inner")).expect("made");
    fs::create_dir(project.path("bare")).expect("made");
    project.write("key/server.pem", "-----BEGIN PRIVATE KEY-----\n");
    for (directory, target) in [("absolute", "/etc/hostname"), ("above", "../file"), ("dangling", "nothing")] {
        fs::create_dir(project.path(directory)).expect("made");
        symlink(target, project.path(directory).join("link")).expect("linked");
    }
    let root = project.root().display().to_string();
    for (asset, said) in [
        ("nothere", Said(2, &["no such asset `nothere`", &format!("nothing at `{root}/nothere`"), &root])),
        ("data/[a", Said(2, &["asset `data/[a` has a malformed pattern in `path`", "is written `[[]`"])),
        ("nothere/*", Said(2, &["no such asset `nothere/*`", "no directory `", &root])),
        ("hollow", Said(2, &["asset `hollow` has no files", "/hollow` holds only directories", "git submodule"])),
        ("bare", Said(2, &["asset `bare` has no files", "/bare` is an empty directory", "git submodule"])),
        ("data/*.bin", Said(2, &["asset `data/*.bin` matches nothing", &format!("below `{root}/data`")])),
        ("fifo", Said(2, &["/fifo` is a FIFO", "remove it or exclude it"])),
        ("socket", Said(2, &["/socket` is a socket", "remove it or exclude it"])),
        ("/dev/null", Said(2, &["`/dev/null` is a device", "remove it or exclude it"])),
        ("absolute", Said(2, &["/absolute/link` leaves the asset", "`/etc/hostname`", "`follow-symlinks = true`"])),
        ("above", Said(2, &["/above/link` leaves the asset", "`../file`", "`follow-symlinks = true`"])),
        ("data:../x", Said(2, &["the destination `../x` of asset `data` has a `..`", "below `/var/task`"])),
        ("data:/a/../x", Said(2, &["the destination `/a/../x` of asset `data` has a `..`", "an absolute one"])),
        ("white", Said(2, &["/white/.wh.gone` would be taken for a whiteout", "rename it or exclude it"])),
        ("data:.wh.x", Said(2, &["the destination `.wh.x` of asset `data`", "give another path"])),
        ("file:/var/task", Said(2, &["would replace `/var/task`", "`/var/task/`"])),
        ("env", Said(3, &["/env/.env.local` looks like a secret", "`--allow-secrets '.env.local'`"])),
        ("ssh", Said(3, &["/ssh/.ssh/config` looks like a secret", "--allow-secrets"])),
        ("key", Said(3, &["/key/server.pem` looks like a secret", "--allow-secrets"])),
        (".", Said(2, &["asset `.` holds `", "/target/lambda-image`", "`exclude = [\"target\"]`"])),
    ] {
        if asset == "." {
            for directory in ["white", "env", "ssh", "key", "absolute", "above", "dangling"] {
                fs::remove_dir_all(project.path(directory)).expect("removed");
            }
            for file in ["fifo", "socket"] {
                fs::remove_file(project.path(file)).expect("removed");
            }
        }
        refused(&project, &["--no-binary", "--asset", asset], &said);
    }
    let two = ["--no-binary", "--asset", "data", "--asset", "file:data/one"];
    refused(&project, &two, &Said(2, &["`/var/task/data/one` has two sources: `data` and `file`", "exclude the file"]));
}

#[test]
fn a_followed_asset_that_is_a_link_to_nothing_is_named_with_where_it_leads() {
    let project = project();
    symlink("gone/model", project.path("model")).expect("linked");
    symlink("round", project.path("round")).expect("linked");
    for (asset, target) in [("model", "gone/model"), ("round", "round")] {
        let table = format!("base = \"scratch\"\nassets = [{{ path = \"{asset}\", follow-symlinks = true }}]\n");
        project.write("lambda-image.toml", table);
        let (absent, link) = (format!("no such asset `{asset}`"), format!("/{asset}` is a symlink"));
        let leads = format!("`{target}`, where nothing is");
        refused(&project, &["--no-binary"], &Said(2, &[&absent, &link, &leads, "asset paths start at `"]));
    }
}

#[test]
fn what_may_not_be_read_is_refused_before_anything_is_packed() {
    let project = project();
    let lock = |path: &str, mode| fs::set_permissions(project.path(path), Permissions::from_mode(mode)).expect("set");
    project.write("locked/first", "x");
    project.write("locked/secret", "x");
    project.write("unlisted/inner/file", "x");
    project.write("hidden/inner/file", "x");
    lock("locked/secret", 0o000);
    lock("unlisted/inner", 0o300);
    lock("hidden", 0o600);
    let before = project.layout_files();
    for (asset, what) in [
        ("locked", "could not read `"),
        ("locked/secret", "/locked/secret`"),
        ("unlisted", "could not list `"),
        ("unlisted", "/unlisted/inner`"),
        ("hidden/inner", "could not stat `"),
        ("hidden/inner/file", "/hidden/inner/file`"),
        ("hidden/inner/*", "could not stat `"),
    ] {
        let build = project.build().args(["--no-binary", "--asset", "data", "--asset", asset, "--no-cache"]);
        let mut build = build.args(["--message-format", "human"]);
        if fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0) {
            // Root may read everything, unless it gives that up.
            build = build.under("setpriv", ["--bounding-set=-dac_override,-dac_read_search"]);
        }
        let outcome = build.run();
        check(asset, &Said(1, &[what, "Permission denied", "permissions"]), &outcome);
        assert!(!outcome.stderr.contains("could not pack"), "{asset}: {}", outcome.stderr);
    }
    assert_eq!(project.layout_files(), before);
    lock("hidden", 0o700);
}

#[test]
fn bases_that_cannot_be_used() {
    let project = project();
    let (amd64, arm64) = (TestImage::new(Family::Oci, "amd64"), TestImage::new(Family::Oci, "arm64"));
    write_images(&project.path("arm"), &[&arm64]);
    for kind in ["cut", "forged"] {
        write_images(&project.path(kind), &[&amd64]);
        let blob = project.path(kind).join("blobs/sha256").join(Digest::of(&amd64.layers[1]).hex());
        let mut bytes = amd64.layers[1].clone();
        if kind == "cut" {
            bytes.truncate(50_000);
        } else {
            bytes[50_000] ^= 1;
        }
        fs::write(blob, bytes).expect("damaged");
    }
    let mut manifest: Value = serde_json::from_slice(&amd64.manifest).expect("JSON");
    manifest["layers"][1]["mediaType"] = json!("application/vnd.oci.image.layer.v1.tar+zstd");
    let manifest = manifest.to_string().into_bytes();
    let blobs = [&manifest[..], &amd64.config, &amd64.layers[0], &amd64.layers[1]];
    write_layout(&project.path("zstd"), media_type::OCI_MANIFEST, &blobs);
    project.write("squashed.tar.gz", gzip(&tar(&[("oci-layout", b"{}")])));
    for (layout, index) in [("empty", r#"{"schemaVersion":2,"manifests":[]}"#), ("other", "{}")] {
        project.write(&format!("{layout}/oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#);
        project.write(&format!("{layout}/index.json"), index);
    }
    project.write("none.tar", tar(&[("manifest.json", b"[]")]));
    project.write("half.tar", tar(&[("manifest.json", br#"[{"Config":"c.json","Layers":[]}]"#)]));
    for (base, said) in [
        ("oci:arm", Said(3, &["has no image for `linux/amd64`, only for `linux/arm64`", "`--arm64`"])),
        ("oci:zstd", Said(3, &["zstd", "gzip"])),
        ("oci:nothere", Said(2, &["there is no directory `", "`oci-archive:FILE`"])),
        ("oci:data", Said(2, &["it has no file `oci-layout`", "`skopeo copy SOURCE oci:DIR`"])),
        ("oci-archive:nothere", Said(2, &["there is no file `", "`skopeo copy`"])),
        ("docker-archive:app", Said(1, &["/app` as a tar", "`docker save`"])),
        ("oci-archive:squashed.tar.gz", Said(2, &["is compressed as a whole", "decompress it first"])),
        ("oci:empty", Said(2, &["is an empty layout", "skopeo copy"])),
        ("oci:other", Said(1, &["its `schemaVersion` is not 2", ""])),
        ("docker-archive:none.tar", Said(2, &["is an empty archive", "docker save"])),
        ("docker-archive:half.tar", Said(1, &["has no member `c.json`", ""])),
    ] {
        refused(&project, &["--no-binary", "--base", base], &said);
    }
    let before = project.layout_files();
    for kind in ["cut", "forged"] {
        let outcome = project.build().args(["--no-binary", "--base", &format!("oci:{kind}")]).run();
        assert_eq!((outcome.code, outcome.stdout.as_str()), (1, ""), "{}", outcome.stderr);
        let digest = Digest::of(&amd64.layers[1]);
        let help = "\nhelp: it is cut short or damaged where it comes from".to_owned();
        for text in [format!("could not take layer {digest}"), format!("bytes with digest {digest} and got"), help] {
            assert!(outcome.stderr.contains(&text), "{kind}: no `{text}` in {}", outcome.stderr);
        }
        let mut after = project.layout_files();
        // The layer that was whole may stay, to be taken from there the next time.
        after.remove(&Path::new("blobs/sha256").join(Digest::of(&amd64.layers[0]).hex()));
        assert_eq!(after, before, "{kind}");
    }
    let offline = ["--no-binary", "--offline", "--base", "public.ecr.aws/lambda/provided:al2023"];
    refused(&project, &offline, &Said(1, &["public.ecr.aws/lambda/provided:al2023", "--offline"]));
}

#[test]
fn archives_that_end_early_or_are_of_the_other_kind_are_told_as_such() {
    let project = project();
    for (format, other) in [("oci-archive", "docker-archive"), ("docker-archive", "oci-archive")] {
        let output = format!("{format}:whole.tar");
        project.build().args(["--no-binary", "--asset", "data", "--output", &output]).succeed();
        let whole = fs::read(project.path("whole.tar")).expect("an archive");
        let size = whole.len();
        // Within the last member, which two empty blocks follow; behind the first one, header and content; at once.
        for (cut, said) in [(size - 1024 - 512, "ends within `"), (1024, "is cut short"), (0, "is cut short")] {
            project.write("cut.tar", &whole[..cut]);
            let base = format!("{format}:cut.tar");
            refused(
                &project,
                &["--no-binary", "--base", &base],
                &Said(1, &["/cut.tar`", said, "give a whole archive"]),
            );
        }
        let base = format!("{other}:whole.tar");
        let hint = format!("is written `{format}:FILE`");
        refused(&project, &["--no-binary", "--base", &base], &Said(2, &["/whole.tar` is not ", &hint]));
    }
    project.write("other.tar", tar(&[("file", b"x")]));
    for (base, help) in
        [("oci-archive", "skopeo copy SOURCE oci-archive:FILE"), ("docker-archive", "docker save --output")]
    {
        let base = format!("{base}:other.tar");
        refused(&project, &["--no-binary", "--base", &base], &Said(2, &["/other.tar` is not ", help]));
    }
}

#[test]
fn binaries_that_lambda_cannot_start() {
    let project = project();
    project.write("script", "#!/bin/sh\n");
    project.write("apple", b"\xcf\xfa\xed\xfe rest");
    project.write("windows", b"MZ rest of it");
    project.write("empty", "");
    project.write_program("arm", ARM64);
    project.write_program("riscv", 243);
    let mut truncated = crate::support::project::elf(AMD64);
    truncated.truncate(70);
    project.write("truncated", truncated);
    let whole = crate::support::project::elf(AMD64);
    project.write("cut", &whole[..whole.len() - 4]);
    let pointer = format!("version https://git-lfs.github.com/spec/v1\noid {}\nsize 9\n", Digest::of(b"x"));
    project.write("pointer", pointer);
    let (amd64, arm64) = ("x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu");
    for (flags, said) in [
        (&["--binary-path", "nothere"][..], Said(2, &["there is no binary `", "the file that was compiled"])),
        (&["--binary-path", "data"], Said(2, &["/data` is not a file", "the file that was compiled"])),
        (&["--binary-path", "file"], Said(3, &["/file` is no program", amd64])),
        (&["--binary-path", "script"], Said(3, &["/script` is a script", amd64])),
        (&["--binary-path", "apple"], Said(3, &["a macOS program (Mach-O)", arm64])),
        (&["--binary-path", "windows"], Said(3, &["a Windows program (PE)", amd64])),
        (&["--binary-path", "empty"], Said(3, &["/empty` is empty", amd64])),
        (&["--binary-path", "truncated"], Said(3, &["is a damaged ELF file", "build or copy it again"])),
        (&["--binary-path", "cut"], Said(3, &["ELF file: at least 4 bytes are missing at its end", "copy it again"])),
        (
            &["--binary-path", "pointer"],
            Said(2, &["/pointer` is only a pointer of Git LFS", "`git lfs pull --include="]),
        ),
        (&["--binary-path", "riscv"], Said(3, &["is built for RISC-V", amd64])),
        (&["--binary-path", "app", "--arm64"], Said(3, &["is for amd64, the flags ask for arm64", arm64])),
        (&["--binary-path", "arm", "--x86-64"], Said(3, &["is for arm64, the flags ask for amd64", amd64])),
    ] {
        refused(&project, flags, &said);
    }
    let shell = fs::canonicalize("/bin/sh").expect("a shell");
    let dynamic = ["--binary-path", shell.to_str().expect("UTF-8")];
    refused(&project, &dynamic, &Said(3, &["is dynamically linked", "base `scratch`", "+crt-static"]));
}

#[test]
fn outputs_where_nothing_may_be_written() {
    let project = project();
    symlink("/dev/null", project.path("link")).expect("linked");
    let data = files_below(&project.path("data"));
    for (output, said) in [
        ("docker-archive:data", Said(2, &["/data` is a directory", "add a file name"])),
        ("docker-archive:link", Said(2, &["/link` is no regular file", "docker load -i"])),
        ("oci-archive:/dev/null", Said(2, &["`/dev/null` is no regular file", "docker load -i"])),
        ("oci-dir:data", Said(2, &["/data` holds other things", "no `oci-layout`", "new, empty or a layout"])),
        ("oci-dir:file", Said(2, &["/file` cannot be a layout", "give the path of a directory"])),
    ] {
        refused(&project, &["--no-binary", "--output", output], &said);
    }
    assert_eq!(files_below(&project.path("data")), data);
    assert_eq!(fs::read_link(project.path("link")).expect("still a link"), Path::new("/dev/null"));
    let null = File::options().write(true).open("/dev/null").and_then(|mut null| null.write_all(b"gone"));
    assert!(null.is_ok(), "/dev/null is still a device");
}

#[test]
fn settings_of_the_wrong_form() {
    let project = project();
    for (text, said) in [
        ("base = \"Foo/bar\"", Said(2, &["`base` in `", "the name `Foo/bar` must be lower case", "mend it there"])),
        ("base = 1", Said(2, &["`base` in `", "invalid type: integer `1`", "write it as a string: `\"1\"`"])),
        ("env = { A = true }", Said(2, &["`env.A` in `", "write it as a string: `\"true\"`"])),
        ("handler = [\"a\", \"b\"]", Said(2, &["`handler` in `", "CMD is exactly one word"])),
        ("tags = \"v1\"", Said(2, &["`tags` in `", "write a list: `tags = [\"...\"]`"])),
        ("assets = \"a\"", Said(2, &["`assets` in `", "assets = [{ path"])),
        ("assets = [\"a\"]", Said(2, &["`assets[0]` in `", "{ path"])),
        ("assets = [{ pth = \"a\" }]", Said(2, &["`assets[0]` in `", "missing field `path`", "{ path"])),
        (
            "assets = [{ path = \"data\", exclude = [\"**\"] }]",
            Said(2, &["`exclude` leaves nothing of", "relative to"]),
        ),
        ("compression-level = \"1\"", Said(2, &["`compression-level` in `", "a whole number"])),
        ("compression-level = -1", Said(2, &["`compression-level` in `", "of 0 or more"])),
        ("env = [\"A=1\"]", Said(2, &["`env` in `", "`env = { RUST_LOG"])),
        ("entrypoint = 1", Said(2, &["`entrypoint` in `", "a word or a list of words"])),
        ("bin = 1", Said(2, &["`bin` in `", "bin.NAME]"])),
        ("bin.x = 1", Said(2, &["`bin.x` in `", "bin.NAME]"])),
        ("publish = \"yes\"", Said(2, &["`publish` in `", "`true` or `false`"])),
    ] {
        project.write("lambda-image.toml", text);
        refused(&project, &["--no-binary"], &said);
        assert_eq!(project.build().arg("--no-binary").run().code, 2, "{text}");
    }
    project.write("lambda-image.toml", b"# \xff");
    refused(&project, &["--no-binary"], &Said(2, &["is not UTF-8", "save it as UTF-8"]));
}

#[test]
fn what_would_be_waited_for_is_refused_where_a_file_is_read() {
    let project = Project::new(&[("data.txt", "words")]);
    let build =
        || project.build().args(["--no-binary", "--base", "scratch", "--asset", "data.txt", "--handler", "a.b"]);
    let other = |command: &str| Program::of(command, project.root());
    for (name, code, programs) in [
        ("lambda-image.toml", 2, vec![build(), other("update")]),
        ("lambda-image.lock", 1, vec![build(), build().arg("--locked"), other("update"), other("outdated")]),
    ] {
        let path = project.path(name);
        succeed(Command::new("mkfifo").arg(&path));
        for program in programs {
            let outcome = program.watched();
            assert_eq!(outcome.code, Some(code), "{name}: {}", outcome.stderr);
            let expected = format!("error: `{}` is no regular file", path.display());
            assert!(outcome.stderr.contains(&expected), "{}", outcome.stderr);
        }
        fs::remove_file(&path).expect("removed");
    }
}

#[test]
fn variables_of_cargo_with_other_values() {
    let project = project();
    for (variables, said) in [
        (&[("CARGO_TERM_COLOR", "blue")][..], Said(2, &["no value of CARGO_TERM_COLOR", "`--color`"])),
        (&[("CARGO_TERM_PROGRESS_WHEN", "later")], Said(2, &["no value of CARGO_TERM_PROGRESS_WHEN", "unset it"])),
        (&[("CARGO_TERM_PROGRESS_WIDTH", "wide")], Said(2, &["no value of CARGO_TERM_PROGRESS_WIDTH", "unset it"])),
        (&[("CARGO_TERM_VERBOSE", "true"), ("CARGO_TERM_QUIET", "true")], Said(2, &["cannot both be", "`-v` or `-q`"])),
    ] {
        let program = project.build().args(["--no-binary", "--asset", "data"]);
        let program = variables.iter().fold(program, |program, (name, value)| program.env(name, *value));
        check(&format!("{variables:?}"), &said, &program.run());
    }
}

#[test]
fn a_home_is_not_needed() {
    let project = project();
    let built = project.build().args(["--no-binary", "--asset", "data"]).env("HOME", "/proc").succeed();
    assert_eq!(built, project.build().args(["--no-binary", "--asset", "data"]).succeed());
    let pushed = project.push().args(["--no-binary", "--repository", "shop/x"]).env("HOME", "/proc");
    let pushed = pushed.env("AWS_EC2_METADATA_DISABLED", "true").env("AWS_REGION", "eu-west-1").run();
    check("a login", &Said(1, &["credentials", "aws"]), &pushed);
}

/// A checkout of somebody else's, or a container's: nothing can be written there, not even by root.
#[test]
fn what_cannot_be_written_to_says_where_else() {
    let project = project();
    let elsewhere = tempfile::TempDir::new().expect("a directory");
    let script = r#"mount --bind "$PWD" "$PWD" && mount -o remount,bind,ro "$PWD" && cd "$PWD" && exec "$0" "$@""#;
    let read_only = |program: Program| program.under("unshare", ["--mount", "sh", "-c", script]).run();
    let build = project.build().args(["--no-binary", "--asset", "data"]);
    let here = Said(1, &["could not", "/target/lambda-image", "Read-only", "`--target-dir`"]);
    check("a build", &here, &read_only(build));
    let build = project.build().args(["--no-binary", "--asset", "file", "--target-dir"]).arg(elsewhere.path());
    let outcome = read_only(build);
    assert_eq!(outcome.code, 1, "{}", outcome.stderr);
    for text in
        ["lambda-image.lock` would change, and it cannot be written", "help: run once where", "`--locked` never"]
    {
        assert!(outcome.stderr.contains(text), "no `{text}` in {}", outcome.stderr);
    }
    fs::remove_file(project.path("lambda-image.toml")).expect("removed");
    let table = Said(1, &["could not write `", "lambda-image.toml`", "Read-only", "a copy that can be written"]);
    check("a table", &table, &read_only(Program::of("init", project.root())));
}

#[test]
fn mistyped_keys_and_variables_are_told_and_the_build_goes_on() {
    let project = project();
    let text = "base = \"scratch\"\nentrypont = \"/x\"\nassets = [{ path = \"data\", excludes = [] }]\n";
    project.write("lambda-image.toml", text);
    let build = project.build().args(["--no-binary"]).env("CARGO_LAMBDA_IMAGE_HANDLR", "x").run();
    assert_eq!(build.code, 0, "{}", build.stderr);
    for (what, help) in [
        ("unused key `entrypont` in `", "help: did you mean `entrypoint`?"),
        ("unused key `assets[0].excludes` in `", "help: did you mean `exclude`?"),
        ("unused environment variable CARGO_LAMBDA_IMAGE_HANDLR", "help: did you mean CARGO_LAMBDA_IMAGE_HANDLER?"),
    ] {
        let (_, after) = build.stderr.split_once(what).unwrap_or_else(|| panic!("no `{what}`: {}", build.stderr));
        assert_eq!(after.lines().nth(1), Some(help));
    }
    project.write("lambda-image.toml", "[package.metadata.lambda-image]\nbase = \"oci:x\"\n");
    let build = project.build().args(["--no-binary", "--base", "scratch"]).run();
    assert!(build.stderr.contains("help: in this file keys stand at the top"), "{}", build.stderr);
}

#[test]
fn a_refusal_in_json_is_two_objects_after_what_came_before() {
    let project = project();
    let arguments = ["--message-format", "json", "-q", "--no-binary", "--asset", "nothere"];
    let outcome = project.build().args(arguments).run();
    assert_eq!(outcome.code, 2);
    let lines: Vec<Value> =
        outcome.stdout.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect();
    let root = project.root().display();
    let expected = [
        json!({
            "reason": "error",
            "message": "no such asset `nothere`",
            "causes": [format!("nothing at `{root}/nothere`")],
            "help": format!("asset paths start at `{root}`"),
            "code": 2,
        }),
        json!({"reason": "finished", "success": false}),
    ];
    assert_eq!(lines, expected);
    assert!(outcome.stderr.starts_with("error: no such asset `nothere`\n"), "{}", outcome.stderr);
}

#[test]
fn an_image_that_is_too_large_is_refused_before_a_byte_is_read() {
    let project = project();
    // Sparse: it has a size and no bytes.
    let big = File::create(project.path("big.bin")).expect("created");
    big.set_len(10_737_418_241).expect("as large as that");
    let said = Said(3, &["10", "big.bin", ""]);
    refused(&project, &["--no-binary", "--asset", "big.bin"], &said);
}
