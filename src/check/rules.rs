//! The rules: a table of codes with severity, title, reason and advice.
//!
//! Codes are for ever: they stand in people's configuration. What a rule looks for is in the file of its group; the
//! reference in `docs/rules.md` and the pages of `--explain` are made of this table.

use std::fmt::Write as _;

use crate::finding::Severity;

/// One rule.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// What it is called by, for ever.
    pub code: &'static str,
    /// How bad its findings are.
    pub severity: Severity,
    /// What it is about, in a few words.
    pub title: &'static str,
    /// Why Lambda cares, and who says so.
    pub why: &'static str,
    /// What to do about it.
    pub fix: &'static str,
}

/// A group of rules, which one file looks after.
struct Group {
    title: &'static str,
    rules: &'static [&'static Rule],
}

/// The rule of this code; case does not matter.
#[must_use]
pub fn find(code: &str) -> Option<&'static Rule> {
    all().find(|rule| rule.code.eq_ignore_ascii_case(code))
}

/// The rule that was probably meant by something that is no code: its digits without the zeros, or a word of its title.
fn nearest(text: &str) -> Option<&'static Rule> {
    let digits = text.trim_start_matches(|c: char| c.is_ascii_alphabetic() || "-_ ".contains(c));
    if let Ok(number) = digits.parse::<u32>() {
        return find(&format!("L{number:03}"));
    }
    let words = text.to_lowercase();
    let is_word = words.len() > 2;
    all().find(|rule| is_word && rule.title.to_lowercase().contains(&words))
}

/// What to say to somebody whose code is none.
#[must_use]
pub fn other(code: &str) -> String {
    let list = "`cargo lambda-image verify --explain all` lists them";
    match nearest(code) {
        Some(rule) => format!("there is `{}`, {}; {list}", rule.code, rule.title),
        None => list.to_owned(),
    }
}

/// All rules in the order of their codes.
pub fn all() -> impl Iterator<Item = &'static Rule> {
    GROUPS.iter().flat_map(|group| group.rules.iter().copied())
}

/// What is to be known of a rule, for people on a terminal.
#[must_use]
pub fn page(rule: &Rule) -> String {
    let Rule { code, severity, title, why, fix } = rule;
    let heading = format!("{code} ({}): {title}", severity.word());
    format!(
        "{heading}\n\nWhy: {why}.\n\nFix: {fix}.\n\nTo let it pass: `--allow {code}`, or `allow = [\"{code}\"]` in the configuration."
    )
}

/// The codes with their titles, a line each.
#[must_use]
pub fn list() -> String {
    let lines = all().map(|rule| format!("{}  {:<7}  {}", rule.code, rule.severity.word(), rule.title));
    lines.collect::<Vec<_>>().join("\n")
}

/// The whole reference in Markdown: what `docs/rules.md` holds.
#[must_use]
pub fn reference() -> String {
    let mut text = String::from(INTRODUCTION);
    for Group { title, rules } in GROUPS {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n## {title}\n");
        for Rule { code, severity, title, why, fix } in *rules {
            let severity = severity.word();
            let _ = write!(text, "\n### {code}: {title}\n\n*{severity}.* Because {why}.\n\nFix: {fix}.\n");
        }
    }
    text
}

const INTRODUCTION: &str = "\
# Rules

What `cargo lambda-image verify` looks for, and `build` and `push` before slow work begins. This page is made of the table in
`src/check/rules.rs`.

An *error* is what Lambda refuses or cannot run: the exit code is 3. A *warning* is likely to fail, or fails elsewhere.
A *note* is worth knowing. `--deny CODE` makes findings of a rule errors, `--deny warnings` all warnings, `--allow CODE`
lets them pass; `deny` and `allow` in the configuration do the same for good.
";

pub(super) const INDEX: &Rule = &Rule {
    code: "L001",
    severity: Severity::Error,
    title: "the reference is an index of several images",
    why: "Lambda takes one image manifest and no index (AWS, Lambda developer guide, \"Create a Lambda function using a container image\")",
    fix: "deploy the digest of the one image, or build for one platform only",
};

pub(super) const ATTESTATION: &Rule = &Rule {
    code: "L002",
    severity: Severity::Error,
    title: "an attestation made the image an index",
    why: "BuildKit adds provenance to images and wraps both in an index, which Lambda refuses: \"The image manifest, config or layer media type ... is not supported\" (docker/buildx#1533, aws/aws-lambda-roadmap#82)",
    fix: "build with `docker buildx build --provenance=false --sbom=false`",
};

pub(super) const MEDIA_TYPE: &Rule = &Rule {
    code: "L003",
    severity: Severity::Error,
    title: "a media type that Lambda does not take",
    why: "Lambda takes Docker's image manifest version 2 schema 2 and OCI's 1.0 (AWS, Lambda developer guide, \"Create a Lambda function using a container image\")",
    fix: "convert it: `skopeo copy --format v2s2` or `--format oci`",
};

pub(super) const MIXED: &Rule = &Rule {
    code: "L004",
    severity: Severity::Warning,
    title: "Docker's and OCI's media types in one manifest",
    why: "no specification allows the mixture and no image builder writes it, so nobody has seen Lambda take it",
    fix: "convert it to one family: `skopeo copy --format oci` or `--format v2s2`",
};

pub(super) const ZSTD: &Rule = &Rule {
    code: "L005",
    severity: Severity::Error,
    title: "a layer compressed with zstd",
    why: "OCI 1.0 and Docker's schema 2, the formats that Lambda names, know gzip only; zstd came with OCI 1.1 (image-spec, layer.md)",
    fix: "compress with gzip: `skopeo copy --dest-compress-format gzip SOURCE oci:DIR`, or `--output type=image,compression=gzip,force-compression=true` of buildx",
};

pub(super) const PLAIN_DOCKER: &Rule = &Rule {
    code: "L006",
    severity: Severity::Error,
    title: "an uncompressed layer under Docker's media types",
    why: "Docker's schema 2 has no media type for it, and Lambda answers `UnsupportedImageLayerDetected` (aspect-build/rules_aws#145, bazel-contrib/rules_oci#777)",
    fix: "compress it, as `skopeo copy SOURCE oci:DIR` does",
};

pub(super) const PLAIN_OCI: &Rule = &Rule {
    code: "L007",
    severity: Severity::Warning,
    title: "an uncompressed layer",
    why: "the type is in OCI's specification, and one report says that Lambda takes it (aspect-build/rules_aws#145); it costs upload and storage in any case",
    fix: "compress it, as `skopeo copy SOURCE oci:DIR` does",
};

pub(super) const FOREIGN: &Rule = &Rule {
    code: "L008",
    severity: Severity::Error,
    title: "a layer that lies elsewhere",
    why: "Lambda reads layers from Amazon ECR only, never from the `urls` of a descriptor or a layer that may not be distributed",
    fix: "push the layer itself: take a base without foreign layers",
};

pub(super) const NO_MEDIA_TYPE: &Rule = &Rule {
    code: "L009",
    severity: Severity::Warning,
    title: "a manifest that does not say its media type",
    why: "OCI leaves the field out as a matter of taste, and Amazon ECR has refused such manifests (containers/image#584)",
    fix: "write the manifest anew: `skopeo copy --format v2s2`, or `docker buildx build --output type=image,oci-mediatypes=true`",
};

pub(super) const MANIFEST_SIZE: &Rule = &Rule {
    code: "L010",
    severity: Severity::Warning,
    title: "a manifest of more than 25,400 bytes",
    why: "AWS asks for less than that for the sake of speed (AWS, Lambda developer guide, \"Create a Lambda function using a container image\")",
    fix: "join layers, and drop annotations",
};

pub(super) const LAYERS: &Rule = &Rule {
    code: "L011",
    severity: Severity::Warning,
    title: "more layers than Docker stacks",
    why: "overlay file systems as Docker uses them end at 127 layers, so the image can be tried out nowhere before it is deployed (moby, `layer/layer_store.go`)",
    fix: "join layers: copy in one step what changes together, or squash the base",
};

pub(super) const SETTINGS: &Rule = &Rule {
    code: "L012",
    severity: Severity::Error,
    title: "settings of more than 16 KB",
    why: "the container image settings, ENTRYPOINT, CMD, WORKDIR and ENV, may have 16 KB (AWS, Lambda quotas)",
    fix: "move large values into a file in the image",
};

pub(super) const ENVIRONMENT: &Rule = &Rule {
    code: "L013",
    severity: Severity::Warning,
    title: "variables of more than 4 KB",
    why: "a function's variables may have 4 KB together (AWS, Lambda quotas); whether an image's count among them, AWS does not say",
    fix: "move large values into a file in the image",
};

pub(super) const PLATFORM: &Rule = &Rule {
    code: "L014",
    severity: Severity::Error,
    title: "an image for a platform that Lambda does not have",
    why: "Lambda runs Linux on x86-64 and on 64-bit ARM (AWS, Lambda developer guide, \"Create a Lambda function using a container image\")",
    fix: "build for `linux/amd64` or `linux/arm64`; an image that only does not say it gets it by `crane mutate --set-platform linux/amd64 IMAGE`",
};

pub(super) const HISTORY: &Rule = &Rule {
    code: "L015",
    severity: Severity::Warning,
    title: "a history that does not fit the layers",
    why: "Docker and podman refuse an image whose history counts other layers than it has (aws/aws-lambda-base-images#2), so nobody can try it out",
    fix: "build the image again with a tool that extends the history, or drop `history` from the config",
};

pub(super) const DIFF_IDS: &Rule = &Rule {
    code: "L016",
    severity: Severity::Error,
    title: "diff-ids that are not those of the layers",
    why: "`rootfs.diff_ids` are the digests of the uncompressed layers (image-spec, config.md); an unpacker that compares them refuses the image",
    fix: "build the image again: its config belongs to other layers",
};

pub(super) const DAMAGED: &Rule = &Rule {
    code: "L017",
    severity: Severity::Error,
    title: "a layer that cannot be read",
    why: "what cannot be verified and unpacked here cannot be there",
    fix: "push or save the image again",
};

pub(super) const PARENT: &Rule = &Rule {
    code: "L020",
    severity: Severity::Error,
    title: "a file without an entry of its directory",
    why: "Lambda wants every directory above a file to stand in the same layer before it, and answers `MissingParentDirectory` (aspect-build/rules_aws#96 and #103, bazel-contrib/rules_img#258); Docker makes them up",
    fix: "add the directories to the layer's tar: give `tar` the top directory, `tar -C ROOT -cf layer.tar .`, and not its files one by one; rules for Bazel have to be told; `docker build` does so by itself",
};

pub(super) const HARDLINK: &Rule = &Rule {
    code: "L021",
    severity: Severity::Warning,
    title: "a hard link",
    why: "Lambda's unpacker was reported to refuse hard links in layers of build tools (aspect-build/rules_aws#145); those that Linux distributions have below /usr pass",
    fix: "replace it by a copy, as `tar --hard-dereference` does, or by a symbolic link",
};

pub(super) const DANGLING: &Rule = &Rule {
    code: "L022",
    severity: Severity::Error,
    title: "a hard link to what is not in the layer before it",
    why: "a hard link names an entry of the same layer that was unpacked already (image-spec, layer.md); there is nothing to link to",
    fix: "copy the file into the layer",
};

pub(super) const SPECIAL: &Rule = &Rule {
    code: "L023",
    severity: Severity::Warning,
    title: "a device or FIFO",
    why: "Lambda runs images without the right to make devices, and no function needs one in its image",
    fix: "leave it out of the layer",
};

pub(super) const SPARSE: &Rule = &Rule {
    code: "L024",
    severity: Severity::Warning,
    title: "a sparse file",
    why: "sparse entries are extensions of GNU tar in four forms, which unpackers read unlike (POSIX pax knows none)",
    fix: "write the tar without `--sparse`",
};

pub(super) const DUPLICATE: &Rule = &Rule {
    code: "L025",
    severity: Severity::Warning,
    title: "a path that is twice in one layer",
    why: "entries of a layer are unique (image-spec, layer.md); which one wins is the unpacker's choice",
    fix: "keep one of them",
};

pub(super) const ESCAPE: &Rule = &Rule {
    code: "L026",
    severity: Severity::Error,
    title: "a name that leads out of the image",
    why: "`..` in a name is what attacks on unpackers are made of, so they refuse it or cut it",
    fix: "name entries relative to the root, without `..`",
};

pub(super) const ABSOLUTE: &Rule = &Rule {
    code: "L027",
    severity: Severity::Warning,
    title: "an absolute name",
    why: "names in a layer are relative to the root (image-spec, layer.md); unpackers that do not cut the slash refuse them",
    fix: "make the tar with `-C ROOT .`",
};

pub(super) const REPLACED_LINK: &Rule = &Rule {
    code: "L028",
    severity: Severity::Warning,
    title: "a directory in the place of a symbolic link",
    why: "an entry for `lib64/` replaces the link of a lower layer, and what was reached through it, such as the loader of all programs, is gone",
    fix: "pack the files below the link's target: `usr/lib64` and not `lib64`",
};

pub(super) const UNREADABLE: &Rule = &Rule {
    code: "L029",
    severity: Severity::Warning,
    title: "a file that others may not read",
    why: "functions run as an unprivileged user of Lambda's, whatever USER says, and fail with `Permission denied` (AWS, Lambda developer guide, \"Create a Lambda function using a container image\"; terraform-aws-modules/terraform-aws-lambda#209 and #301)",
    fix: "`chmod -R a+rX` what the function reads before it is packed, or in a Dockerfile `RUN chmod -R a+rX /var/task`, best in the stage it is copied from: later it is stored twice",
};

pub(super) const CLOSED: &Rule = &Rule {
    code: "L030",
    severity: Severity::Warning,
    title: "a directory that others may not enter",
    why: "functions run as an unprivileged user of Lambda's, who needs `x` on every directory above a file",
    fix: "`chmod a+rx` the directory before it is packed, or in a Dockerfile by `RUN`",
};

pub(super) const TRAILING: &Rule = &Rule {
    code: "L031",
    severity: Severity::Warning,
    title: "bytes after the end of a layer",
    why: "they are part of the layer's digest but of no file, and unpackers stop before them, ignore them or fail",
    fix: "make the layer again",
};

pub(super) const MEMBERS: &Rule = &Rule {
    code: "L032",
    severity: Severity::Warning,
    title: "a layer of several gzip members",
    why: "RFC 1952 allows it, and some unpackers read the first member only",
    fix: "compress the layer as one stream: `gzip -dc layer | gzip -n`",
};

pub(super) const TOO_LARGE: &Rule = &Rule {
    code: "L040",
    severity: Severity::Error,
    title: "more than 10 GiB uncompressed",
    why: "an image may have 10 GiB in all layers, uncompressed (AWS, Lambda quotas); the answer is `SizeLimitExceeded`, after the upload",
    fix: "leave files out, or load what is seldom needed from S3 or EFS at run time",
};

pub(super) const BUDGET: &Rule = &Rule {
    code: "L041",
    severity: Severity::Error,
    title: "more than the limit of the project",
    why: "the limit is the project's own: `--max-size`",
    fix: "leave files out, or raise `--max-size`",
};

pub(super) const NOTHING: &Rule = &Rule {
    code: "L050",
    severity: Severity::Warning,
    title: "nothing to start",
    why: "Lambda starts what ENTRYPOINT and CMD say, as Docker does; there is neither, and only a function's own ImageConfig could still bring one",
    fix: "set ENTRYPOINT to the function's program, or take a base that has one",
};

pub(super) const MISSING: &Rule = &Rule {
    code: "L051",
    severity: Severity::Error,
    title: "a program that is not in the image",
    why: "Lambda starts what ENTRYPOINT says and fails with `Runtime.InvalidEntrypoint`",
    fix: "write the whole path of the program in ENTRYPOINT, or copy the program there",
};

pub(super) const NOT_EXECUTABLE: &Rule = &Rule {
    code: "L052",
    severity: Severity::Error,
    title: "a program that others may not execute",
    why: "functions run as an unprivileged user of Lambda's, who needs `x` on the program and on every directory above it",
    fix: "`chmod a+rx` the program and the directories above it, or in a Dockerfile `COPY --chmod=755`",
};

/// What to do about a file of which the end is missing.
pub(super) const CUT_SHORT: &str = "build or copy it again";

pub(super) const NOT_A_PROGRAM: &Rule = &Rule {
    code: "L053",
    severity: Severity::Error,
    title: "a program that the system cannot start",
    why: "Linux starts ELF files and scripts that begin with `#!`; anything else is an `exec format error`",
    fix: "begin the script with `#!/bin/sh` and end its lines with a line feed alone, or give a compiled program, copied anew if it was cut short",
};

pub(super) const CMD: &Rule = &Rule {
    code: "L054",
    severity: Severity::Warning,
    title: "a CMD that is not exactly the handler",
    why: "AWS's entry point wants exactly one argument, the handler, and exits with 142 otherwise; a function's own ImageConfig may still bring one",
    fix: "set CMD to the one handler: `CMD [\"app.handler\"]`",
};

pub(super) const BOOTSTRAP: &Rule = &Rule {
    code: "L055",
    severity: Severity::Error,
    title: "no program where the base starts one",
    why: "AWS's entry point runs `$LAMBDA_RUNTIME_DIR/bootstrap`, which an OS-only base leaves to you (aws/aws-lambda-base-images)",
    fix: "put the function's program at `/var/runtime/bootstrap`, mode 0755",
};

pub(super) const ARCHITECTURE: &Rule = &Rule {
    code: "L056",
    severity: Severity::Error,
    title: "a program for another machine",
    why: "the machine of the program, of the config and of the function are one; otherwise it is an `exec format error` (aws/aws-lambda-base-images#26 and #34)",
    fix: "compile for the image's platform, or build the image for the program's",
};

pub(super) const LOADER: &Rule = &Rule {
    code: "L057",
    severity: Severity::Error,
    title: "no loader for a program",
    why: "a dynamic program names its loader, and Linux answers `no such file or directory` where it is missing, as glibc's is on Alpine",
    fix: "link statically, in Rust with `--target x86_64-unknown-linux-musl`, or take a base with the C library that the program was linked with",
};

pub(super) const SYMBOLS: &Rule = &Rule {
    code: "L058",
    severity: Severity::Error,
    title: "a C library that is too old",
    why: "the loader refuses a program that asks for versions of symbols its libraries do not offer: ``version `GLIBC_2.38' not found`` (awslabs/aws-lambda-rust-runtime#874 and #878)",
    fix: "compile where the C library is as old as the image's: `--cargo-build zigbuild --target x86_64-unknown-linux-gnu.2.34`, or in a container of the base",
};

pub(super) const MODULE_SYMBOLS: &Rule = &Rule {
    code: "L059",
    severity: Severity::Warning,
    title: "a module for a newer C library",
    why: "native modules of Node.js, Python and others are loaded later, and fail then in the same way",
    fix: "install the packages inside a container of the base, or take wheels that fit: `pip install --platform manylinux2014_x86_64`",
};

pub(super) const LIBRARY: &Rule = &Rule {
    code: "L060",
    severity: Severity::Error,
    title: "a library that is not found, or not whole",
    why: "the loader looks along LD_LIBRARY_PATH, RUNPATH and its own directories: `cannot open shared object file`",
    fix: "copy the library into a directory of LD_LIBRARY_PATH, such as `/opt/lib` or `/var/task/lib` on AWS's bases",
};

pub(super) const WAL: &Rule = &Rule {
    code: "L070",
    severity: Severity::Warning,
    title: "a SQLite database that wants to write",
    why: "in write-ahead-log mode SQLite makes files beside the database even to read it, and all but /tmp is read-only (SQLite, \"Write-Ahead Logging\", 5; WiseLibs/better-sqlite3#640)",
    fix: "`sqlite3 FILE 'PRAGMA journal_mode=DELETE; VACUUM'` before it is packed, or open it with `file:FILE?immutable=1`",
};

pub(super) const LFS: &Rule = &Rule {
    code: "L071",
    severity: Severity::Error,
    title: "a pointer of Git LFS in place of the file",
    why: "the checkout had no `git lfs`, so some 130 bytes are there where the function expects its data",
    fix: "`git lfs pull`, then build again; in GitHub's checkout action `lfs: true`",
};

pub(super) const SECRET: &Rule = &Rule {
    code: "L072",
    severity: Severity::Error,
    title: "a likely secret",
    why: "everybody who may pull the image reads it, and deleting it in a later layer does not take it out",
    fix: "build without the file, change the secret, and hand it over in AWS Secrets Manager or Parameter Store; what only looks like one passes with `--allow-secrets GLOB`",
};

pub(super) const WRITABLE: &Rule = &Rule {
    code: "L073",
    severity: Severity::Note,
    title: "a variable that names a place to write",
    why: "all but /tmp is read-only; a cache there is not written, and some libraries fail over it",
    fix: "point it below /tmp, unless what is read there is in the image already",
};

pub(super) const DEPRECATED: &Rule = &Rule {
    code: "L080",
    severity: Severity::Warning,
    title: "a runtime that AWS no longer maintains",
    why: "a deprecated runtime gets no security updates (AWS, Lambda developer guide, \"Lambda runtimes\", as of 2026-10)",
    fix: "take the base of a maintained runtime",
};

pub(super) const ENDING: &Rule = &Rule {
    code: "L081",
    severity: Severity::Note,
    title: "a runtime that AWS stops to maintain within half a year",
    why: "a deprecated runtime gets no security updates (AWS, Lambda developer guide, \"Lambda runtimes\", as of 2026-10)",
    fix: "plan the move to the base of a newer runtime",
};

pub(super) const UNPINNED: &Rule = &Rule {
    code: "L082",
    severity: Severity::Note,
    title: "a base that may change from build to build",
    why: "a tag moves, and with it the layers below everything that was uploaded before",
    fix: "commit `lambda-image.lock`, which a build writes and keeps to; or name the base by its digest",
};

const GROUPS: &[Group] = &[
    Group {
        title: "Manifest and config",
        rules: &[
            INDEX,
            ATTESTATION,
            MEDIA_TYPE,
            MIXED,
            ZSTD,
            PLAIN_DOCKER,
            PLAIN_OCI,
            FOREIGN,
            NO_MEDIA_TYPE,
            MANIFEST_SIZE,
            LAYERS,
            SETTINGS,
            ENVIRONMENT,
            PLATFORM,
            HISTORY,
            DIFF_IDS,
            DAMAGED,
        ],
    },
    Group {
        title: "Layers",
        rules: &[
            PARENT,
            HARDLINK,
            DANGLING,
            SPECIAL,
            SPARSE,
            DUPLICATE,
            ESCAPE,
            ABSOLUTE,
            REPLACED_LINK,
            UNREADABLE,
            CLOSED,
            TRAILING,
            MEMBERS,
        ],
    },
    Group { title: "Size", rules: &[TOO_LARGE, BUDGET] },
    Group {
        title: "What is started",
        rules: &[
            NOTHING,
            MISSING,
            NOT_EXECUTABLE,
            NOT_A_PROGRAM,
            CMD,
            BOOTSTRAP,
            ARCHITECTURE,
            LOADER,
            SYMBOLS,
            MODULE_SYMBOLS,
            LIBRARY,
        ],
    },
    Group { title: "Data", rules: &[WAL, LFS, SECRET, WRITABLE] },
    Group { title: "Base", rules: &[DEPRECATED, ENDING, UNPINNED] },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_in_order() {
        let codes: Vec<_> = all().map(|rule| rule.code).collect();
        let mut sorted = codes.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(codes, sorted);
    }
}
