//! What the first bytes of a file tell that its header does not: databases, pointers, scripts, likely secrets,
//! versions.
//!
//! Pure: whoever reads the file asks how many bytes are [`wanted`] and hands them over once, so that a file is opened
//! for all questions together.

use std::path::Path;

use super::facts::Inside;
use super::{lfs, secrets};

/// Enough for every question about files of any name: a SQLite header has 100 bytes, an LFS pointer less than 200, and
/// the kernel reads 256 of a script's first line.
const HEAD_BYTES: u64 = 512;

/// Enough for files that state a version.
const VERSION_BYTES: u64 = 16 << 10;

/// The kernel cuts the line that names a script's interpreter here (`BINPRM_BUF_SIZE`).
const SCRIPT_LINE_BYTES: usize = 256;

/// The most bytes of text that is kept of one file.
pub(super) const MOST_TEXT: usize = SCRIPT_LINE_BYTES;

/// The first bytes of a SQLite database (SQLite, file format, 1.3).
const SQLITE_MAGIC: &[u8] = b"SQLite format 3\0";

/// How many of the first bytes of the file at `path` in the image [`look`] wants to see.
pub(super) fn wanted(path: &str, size: u64) -> u64 {
    let most = match path.rsplit('/').next().unwrap_or(path) {
        "os-release" | "node_version.h" => VERSION_BYTES,
        _ if secrets::wants_content(Path::new(path)) => secrets::LOOKED_AT,
        _ => HEAD_BYTES,
    };
    size.min(most)
}

/// What the file at `path` with these permission bits, `size` and first bytes tells.
pub(super) fn look(path: &str, mode: u32, size: u64, head: &[u8]) -> Vec<Inside> {
    let mut found = Vec::new();
    if head.starts_with(SQLITE_MAGIC) {
        // The versions for writing and reading: 1 is the rollback journal, 2 the write-ahead log.
        found.push(Inside::Sqlite { wal: head.get(18..20).is_some_and(|versions| versions.contains(&2)) });
    }
    if lfs::seems_pointer(size, head) {
        found.push(Inside::LfsPointer);
    }
    if mode & 0o111 != 0
        && let Some(line) = head.strip_prefix(b"#!")
    {
        let line = &line[..line.len().min(SCRIPT_LINE_BYTES)];
        let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
        found.push(Inside::Script(String::from_utf8_lossy(line).into_owned()));
    }
    if let Some(what) = secrets::seems(Path::new(path), head) {
        found.push(Inside::Secret(what.to_owned()));
    }
    let text = || String::from_utf8_lossy(head);
    if path == "etc/os-release" || path == "usr/lib/os-release" {
        found.extend(system(&text()).map(Inside::System));
    } else if path.ends_with("/node/node_version.h") {
        found.extend(node_major(&text()).map(Inside::Node));
    }
    found
}

/// `ID` and `VERSION_ID` of an `os-release` file (os-release(5)).
fn system(text: &str) -> Option<String> {
    let value = |key: &str| {
        let value = text.lines().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix('='))?;
        Some(value.trim_matches(['"', '\'']).to_owned())
    };
    Some(format!("{} {}", value("ID")?, value("VERSION_ID")?))
}

/// `22` of `#define NODE_MAJOR_VERSION 22`.
fn node_major(text: &str) -> Option<u32> {
    text.lines().find_map(|line| line.strip_prefix("#define NODE_MAJOR_VERSION ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_tell_what_a_file_is() {
        let sqlite = |versions: [u8; 2]| {
            let mut header = SQLITE_MAGIC.to_vec();
            header.extend([0x10, 0]);
            header.extend(versions);
            header.resize(100, 0);
            header
        };
        let pointer = |version: &str| format!("version {version}\noid sha256:00\nsize 12\n").into_bytes();
        let os = b"NAME=\"Amazon Linux\"\nID=\"amzn\"\nVERSION_ID=\"2023\"\nID_LIKE=\"fedora\"\n".to_vec();
        let key = b"-----BEGIN PRIVATE KEY-----".to_vec();
        let secret = |what: &str| vec![Inside::Secret(what.to_owned())];
        for (path, mode, head, found) in [
            ("var/task/a.db", 0o644, sqlite([1, 1]), vec![Inside::Sqlite { wal: false }]),
            ("var/task/a.db", 0o644, sqlite([2, 2]), vec![Inside::Sqlite { wal: true }]),
            ("var/task/a.db", 0o644, SQLITE_MAGIC.to_vec(), vec![Inside::Sqlite { wal: false }]),
            ("model.bin", 0o644, pointer("https://git-lfs.github.com/spec/v1"), vec![Inside::LfsPointer]),
            ("model.bin", 0o644, pointer("https://hawser.github.com/spec/v1"), vec![Inside::LfsPointer]),
            ("model.bin", 0o644, pointer("http://git-media.io/v/2"), vec![Inside::LfsPointer]),
            ("model.bin", 0o644, pointer("https://example.com/spec/v1"), vec![]),
            ("run", 0o755, b"#!/bin/sh -e\nexit".to_vec(), vec![Inside::Script("/bin/sh -e".into())]),
            ("run", 0o755, b"#!/bin/sh\r\n".to_vec(), vec![Inside::Script("/bin/sh\r".into())]),
            ("run", 0o644, b"#!/bin/sh\n".to_vec(), vec![]),
            ("etc/os-release", 0o644, os.clone(), vec![Inside::System("amzn 2023".into())]),
            ("opt/os-release", 0o644, os, vec![]),
            (
                "var/lang/include/node/node_version.h",
                0o644,
                b"#define SRC_NODE_VERSION_H_\n\n#define NODE_MAJOR_VERSION 18\n".to_vec(),
                vec![Inside::Node(18)],
            ),
            ("var/task/tls.key", 0o600, key, secret("a private key")),
            ("var/task/tls.key", 0o600, b"PK".to_vec(), vec![]),
            ("var/task/.env", 0o644, Vec::new(), secret("a file of environment variables")),
        ] {
            assert_eq!(look(path, mode, head.len() as u64, &head), found, "{path}");
        }
    }

    #[test]
    fn only_names_that_need_it_are_read_further() {
        for (path, size, bytes) in [
            ("a", 10, 10),
            ("a", 1 << 30, 512),
            ("etc/os-release", 1 << 30, 16 << 10),
            ("a.pem", 1 << 30, 1 << 20),
            (".npmrc", 2048, 2048),
        ] {
            assert_eq!(wanted(path, size), bytes, "{path}");
        }
    }
}
