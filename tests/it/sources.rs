//! Files that change while they are packed, and members whose headers need care.

use std::fs::{self, File, FileTimes};
use std::io::{self, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cargo_lambda_image::layer::entries::{Content, Entry, Source, Stat};
use cargo_lambda_image::layer::tarball::{self, TarSink};

/// A tar in memory; before and after a file's bytes are taken, something happens to the file.
struct Meddler<'a> {
    tar: Vec<u8>,
    before: &'a dyn Fn(),
    after: &'a dyn Fn(),
}

impl Write for Meddler<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.tar.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl TarSink for Meddler<'_> {
    fn take_from(&mut self, file: &mut File, size: u64) -> io::Result<u64> {
        (self.before)();
        let taken = io::copy(&mut io::Read::take(file, size), &mut self.tar);
        (self.after)();
        taken
    }
}

fn entry(path: &Path, follow: bool) -> Entry {
    let metadata = if follow { fs::metadata(path) } else { fs::symlink_metadata(path) };
    let stat = Stat::of(&metadata.expect("a file"));
    let source = Source { path: path.to_owned(), follow, executable: false, stat };
    Entry { path: "var/task/file".into(), content: Content::File(source) }
}

fn nothing() {}

/// What happens to a file at a path.
type Change<'a> = &'a dyn Fn(&Path);

/// Gives a file other content of the same size and its old modification time: only the kernel's own stamp tells.
fn rewrite(path: &Path) {
    let modified = fs::metadata(path).expect("there").modified().expect("a time");
    let mut file = File::options().write(true).open(path).expect("opened");
    file.write_all(b"0123456780").expect("rewritten");
    file.set_times(FileTimes::new().set_modified(modified)).expect("reset");
}

#[test]
fn a_file_that_changes_while_it_is_read_is_an_error_that_names_it() {
    let append = |path: &Path| {
        File::options().append(true).open(path).expect("opened").write_all(b"x").expect("grown");
    };
    let shrink = |path: &Path| File::options().write(true).open(path).expect("opened").set_len(4).expect("shrunk");
    let remove = |path: &Path| fs::remove_file(path).expect("removed");
    let replace = |path: &Path| {
        fs::write(path.with_extension("new"), b"0123456789").expect("written");
        fs::rename(path.with_extension("new"), path).expect("renamed over");
    };
    let changes: [(&str, Change<'_>, &str); 5] = [
        ("grow", &append, "grew from 10 bytes while it was read"),
        ("shrink", &shrink, "shrank from 10 to 4 bytes while it was read"),
        ("vanish", &remove, "while it was read"),
        ("replaced", &replace, "while it was read"),
        ("rewritten", &rewrite, "changed while it was read"),
    ];
    for (name, change, expected) in changes {
        for early in [true, false] {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let path = directory.path().join(name);
            fs::write(&path, b"0123456789").expect("written");
            let entry = entry(&path, false);
            let now = || change(&path);
            let (before, after): (&dyn Fn(), &dyn Fn()) = if early { (&now, &nothing) } else { (&nothing, &now) };
            let problem = tarball::write(&[entry], &mut Meddler { tar: Vec::new(), before, after })
                .expect_err("a changed file must not be packed");
            let message = problem.message();
            assert!(message.contains(path.to_str().expect("UTF-8")) && message.contains(expected), "{name}: {message}");
            assert!(problem.next_step().is_some(), "{name}: {message}");
        }
    }
}

#[test]
fn a_file_that_changed_since_it_was_listed_is_an_error_that_names_it() {
    let changes: [(&str, Change<'_>, &str); 5] = [
        (
            "grown",
            &|path: &Path| fs::write(path, b"0123456789x").expect("grown"),
            "grew from 10 bytes since it was listed",
        ),
        (
            "shrunk",
            &|path: &Path| fs::write(path, b"0").expect("shrunk"),
            "shrank from 10 to 1 bytes since it was listed",
        ),
        ("gone", &|path: &Path| fs::remove_file(path).expect("removed"), "vanished since it was listed"),
        ("rewritten", &rewrite, "changed since it was listed"),
        (
            "a symlink now",
            &|path: &Path| {
                fs::rename(path, path.with_extension("old")).expect("moved");
                symlink(path.with_extension("old"), path).expect("linked");
            },
            "was replaced since it was listed",
        ),
    ];
    for (name, change, expected) in changes {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join(name);
        fs::write(&path, b"0123456789").expect("written");
        let entry = entry(&path, false);
        change(&path);
        let sink = &mut Meddler { tar: Vec::new(), before: &nothing, after: &nothing };
        let problem = tarball::write(&[entry], sink).expect_err("a changed file must not be packed");
        let message = problem.message();
        assert!(message.contains(path.to_str().expect("UTF-8")) && message.contains(expected), "{name}: {message}");
        assert!(problem.next_step().is_some(), "{name}: {message}");
    }
}

#[test]
fn a_file_that_gets_another_name_is_packed() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("file");
    fs::write(&path, b"0123456789").expect("written");
    let entry = entry(&path, false);
    let link = |name: &str| fs::hard_link(&path, directory.path().join(name)).expect("linked");
    let (before, after) = (|| link("second"), || link("third"));
    link("first");
    let mut sink = Meddler { tar: Vec::new(), before: &before, after: &after };
    tarball::write(&[entry], &mut sink).expect("a file with the listed content");
    assert_eq!(&sink.tar[512..522], b"0123456789");
}

#[test]
fn a_fifo_in_a_files_place_is_an_error_and_no_endless_wait() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("file");
    fs::write(&path, b"0123456789").expect("written");
    let entry = entry(&path, false);
    fs::remove_file(&path).expect("removed");
    assert!(Command::new("mkfifo").arg(&path).status().expect("mkfifo").success());
    let sink = &mut Meddler { tar: Vec::new(), before: &nothing, after: &nothing };
    tarball::write(&[entry], sink).expect_err("a FIFO is no file");
}

#[test]
fn a_file_that_can_be_opened_and_not_read_is_an_error_that_names_it() {
    // Readable by its mode and by root, and still an I/O error: a process's memory starts with an unmapped page.
    let path = Path::new("/proc/self/mem");
    let entry = entry(path, false);
    let sink = &mut Meddler { tar: Vec::new(), before: &nothing, after: &nothing };
    let problem = tarball::write(&[entry], sink).expect_err("unreadable");
    assert_eq!(problem.message(), "could not read `/proc/self/mem`");
}

/// Takes sizes at their word, so that gigabytes cost nothing: a reader gets headers only.
#[derive(Default)]
struct Headers(Vec<u8>);

impl Write for Headers {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl TarSink for Headers {
    fn take_from(&mut self, _: &mut File, size: u64) -> io::Result<u64> {
        Ok(size)
    }
}

#[test]
fn a_size_that_ustar_cannot_hold_is_in_a_pax_record() {
    for (size, long) in [(0o777_7777_7777_u64, false), (0o1000_0000_0000 * 8, true), (9_663_676_417, true)] {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("model");
        // A hole: its size is real and it takes no room.
        File::create(&path).and_then(|file| file.set_len(size)).expect("a sparse file");
        let entries = [entry(&path, false)];
        let mut sink = Headers::default();
        let written = tarball::write(&entries, &mut sink);
        // The pretended bytes were not taken from the file, so its end is not where it should be.
        assert!(written.is_err_and(|problem| problem.message().contains("grew")));
        let mut archive = tar::Archive::new(sink.0.as_slice());
        let mut members = archive.entries().expect("entries");
        let member = members.next().expect("a member").expect("a good header");
        assert_eq!(member.size(), size);
        assert_eq!(sink.0.len(), if long { 3 * 512 } else { 512 }, "{size}");
        let whole = size.next_multiple_of(512) + sink.0.len() as u64 + 1024;
        assert_eq!(tarball::size(&entries), whole);
    }
}

/// A path of `length` bytes whose last `/` is before its last `last` bytes.
fn path_of(length: usize, last: usize) -> PathBuf {
    assert!(last < length);
    let first = length - last - 1;
    // No part of a real path is longer than 255 bytes; here only the tar matters.
    PathBuf::from(format!("{}/{}", "d".repeat(first), "f".repeat(last)))
}

#[test]
fn names_and_link_targets_of_any_length_are_read_back_by_other_programs() {
    let mut entries = Vec::new();
    let mut directories = Vec::new();
    for path in [
        "f".repeat(99).into(),
        "f".repeat(100).into(),
        "f".repeat(101).into(),
        "f".repeat(256).into(),
        path_of(101, 50),
        path_of(155, 100),
        path_of(156, 100),
        path_of(157, 100),
        path_of(256, 100),
        path_of(257, 100),
        path_of(257, 101),
        path_of(256, 101),
        path_of(158, 1),
        path_of(157, 1),
        path_of(4000, 200),
        Path::new("a").join("b/".repeat(120)).join("c"),
    ] {
        let target = format!("t{}", path.as_os_str().len()).repeat(1 + path.as_os_str().len() / 5);
        directories.push(Entry { path: path.with_extension("d"), content: Content::Directory { mode: 0o755 } });
        entries.push(Entry { path, content: Content::Symlink(target.into()) });
    }
    for length in [99, 100, 101, 300] {
        let path = format!("link-{length}").into();
        entries.push(Entry { path, content: Content::Symlink("x".repeat(length).into()) });
    }
    entries.extend(directories);
    let mut sink = Headers::default();
    tarball::write(&entries, &mut sink).expect("written");
    assert_eq!(sink.0.len() as u64, tarball::size(&entries));

    let expected: Vec<_> = entries
        .iter()
        .map(|entry| match &entry.content {
            Content::Symlink(target) => format!("{} -> {}", entry.path.display(), target.display()),
            _ => format!("{} -> ", entry.path.display()),
        })
        .collect();
    let mut archive = tar::Archive::new(sink.0.as_slice());
    let by_crate: Vec<_> = archive
        .entries()
        .expect("entries")
        .map(|member| {
            let member = member.expect("a member");
            let name = String::from_utf8_lossy(&member.path_bytes()).trim_end_matches('/').to_owned();
            let target = member.link_name_bytes().map(|target| String::from_utf8_lossy(&target).into_owned());
            format!("{name} -> {}", target.unwrap_or_default())
        })
        .collect();
    assert_eq!(by_crate, expected);

    let script = "import sys, tarfile\n\
                  for m in tarfile.open(fileobj=sys.stdin.buffer, mode='r|'): print(m.name, '->', m.linkname)";
    let mut python = Command::new("python3")
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3");
    python.stdin.take().expect("a pipe").write_all(&sink.0).expect("read");
    let output = python.wait_with_output().expect("ended");
    let by_python: Vec<_> = std::str::from_utf8(&output.stdout).expect("UTF-8").lines().collect();
    assert_eq!(by_python, expected);
}
