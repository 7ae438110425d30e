//! Files that Git LFS keeps elsewhere: the pointers that stand in their place, and what proves that content is theirs.
//!
//! A pointer packed instead of a model makes an image that fails when it is called, so pointers are looked for in
//! everything small enough. Where content is there, its digest is what its pointer would say.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::attributes::Attributes;
use super::entries::{Content, Entry, Source, Stat, fingerprint, too_fresh};
use super::make::{Reuse, seconds_now};
use crate::event::Session;
use crate::oci::{Digest, HashingWriter};
use crate::problem::{IoContext as _, Problem, Result};
use crate::store::{Kind, Store};

/// What the first line of every pointer names: the form of today, and what it was called before the first release,
/// which `git lfs` reads still (git-lfs, docs/spec.md and lfs/pointer.go).
const VERSIONS: [&str; 3] =
    ["https://git-lfs.github.com/spec/v1", "https://hawser.github.com/spec/v1", "http://git-media.io/v/2"];

/// Pointers are shorter than this (the same specification).
const POINTER_LIMIT: u64 = 1024;

/// The shortest has the shortest version, a digest, and a size of one digit.
const SHORTEST_POINTER: u64 = 115;

/// How many paths a command is told; more are told by their directories.
const PATHS_TOLD: usize = 4;

/// What stands in place of a file's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pointer {
    /// The SHA-256 of the content.
    pub oid: Digest,
    /// Bytes of the content.
    pub size: u64,
}

/// The content of a layer, so that a checkout without it can be compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LfsContent {
    /// The digests of files that LFS keeps, by their paths in the image.
    pub files: BTreeMap<String, Digest>,
    /// A digest of everything else: paths, modes, links, and the content of other files.
    pub beside: Digest,
}

impl Pointer {
    /// Reads a file's content as a pointer, if it is one.
    #[must_use]
    pub fn parse(content: &[u8]) -> Option<Self> {
        let lines = std::str::from_utf8(behind_version(content)?).ok()?;
        let value = |key: &str| lines.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
        Some(Self { oid: value("oid")?.parse().ok()?, size: value("size")?.parse().ok()? })
    }
}

/// What follows the first line of a pointer; `None` if it is none.
fn behind_version(content: &[u8]) -> Option<&[u8]> {
    let rest = content.strip_prefix(b"version ")?;
    VERSIONS.iter().find_map(|version| rest.strip_prefix(version.as_bytes())?.strip_prefix(b"\n"))
}

/// Whether a file of this size that begins so is meant to be a pointer.
pub(super) fn seems_pointer(size: u64, head: &[u8]) -> bool {
    size < POINTER_LIMIT && behind_version(head).is_some()
}

/// As [`pointers`], but files that the records know to be none are not read again.
///
/// # Errors
/// As [`pointers`]; and when a record cannot be written.
pub fn unknown_pointers(entries: &[Entry], store: &Store, reuse: Reuse) -> Result<BTreeMap<PathBuf, Pointer>> {
    let small = || entries.iter().filter(|entry| is_small_file(entry));
    if small().next().is_none() {
        return Ok(BTreeMap::new());
    }
    let now = seconds_now();
    let key = fingerprint(small(), "no pointers of any version");
    if reuse == Reuse::Records && store.records().get::<()>(Kind::Fingerprint, &key).is_some() {
        return Ok(BTreeMap::new());
    }
    let found = pointers(entries)?;
    if found.is_empty() && !too_fresh(small(), now) {
        store.records().put(Kind::Fingerprint, &key, &())?;
    }
    Ok(found)
}

/// Whether a file is of a size that a pointer may have.
fn is_small_file(entry: &Entry) -> bool {
    let size = entry.size();
    matches!(entry.content, Content::File(_)) && (SHORTEST_POINTER..POINTER_LIMIT).contains(&size)
}

/// The pointers among the files to be packed, by their paths in the image.
///
/// # Errors
/// When a small file cannot be read.
pub fn pointers(entries: &[Entry]) -> Result<BTreeMap<PathBuf, Pointer>> {
    let mut found = BTreeMap::new();
    for entry in entries.iter().filter(|entry| is_small_file(entry)) {
        let Content::File(source) = &entry.content else { continue };
        found.extend(pointer(&source.path)?.map(|pointer| (entry.path.clone(), pointer)));
    }
    Ok(found)
}

/// The pointer in the file at `path`, if it is one.
///
/// # Errors
/// When the file cannot be read.
pub fn pointer(path: &Path) -> Result<Option<Pointer>> {
    let mut content = Vec::new();
    let failed = || format!("could not read `{}`", path.display());
    File::open(path).and_then(|file| file.take(POINTER_LIMIT).read_to_end(&mut content)).or_failed(failed)?;
    Ok(Pointer::parse(&content))
}

/// Gives each file that is a pointer the size of its content, so that layers are laid out as if it were there.
pub fn stand_in(entries: &mut [Entry], pointers: &BTreeMap<PathBuf, Pointer>) {
    /// More than any image holds, and so little that sums of it are numbers still: a pointer may say anything.
    const MOST_BYTES: u64 = 1 << 40;
    for entry in entries {
        if let (Content::File(source), Some(pointer)) = (&mut entry.content, pointers.get(&entry.path)) {
            source.stat.size = pointer.size.min(MOST_BYTES);
        }
    }
}

/// The problem that these files of an asset are pointers.
#[must_use]
pub fn not_fetched(asset: &str, entries: &[Entry], pointers: &BTreeMap<PathBuf, Pointer>) -> Problem {
    let paths: Vec<_> = entries
        .iter()
        .filter(|entry| pointers.contains_key(&entry.path))
        .filter_map(|entry| match &entry.content {
            Content::File(source) => Some(source.path.as_path()),
            Content::Directory { .. } | Content::Symlink(_) => None,
        })
        .collect();
    if let [path] = paths[..] {
        return file_not_fetched(path);
    }
    let first = paths.first().map(|path| path.display().to_string()).unwrap_or_default();
    let message =
        format!("{} files of asset `{asset}` are only pointers of Git LFS, `{first}` among them", paths.len());
    Problem::usage(message).help(format!("fetch what they stand for: `{}`", pull_command(&paths)))
}

/// The problem that the file at `path` is a pointer.
#[must_use]
pub fn file_not_fetched(path: &Path) -> Problem {
    Problem::usage(format!("`{}` is only a pointer of Git LFS", path.display()))
        .help(format!("fetch what it stands for: `{}`", pull_command(&[path])))
}

/// `git lfs pull` of these files.
fn pull_command(paths: &[&Path]) -> String {
    let root = paths.first().and_then(|path| path.ancestors().find(|above| above.join(".git").exists()));
    let below = |path: &Path| {
        let relative = root.and_then(|root| path.strip_prefix(root).ok()).unwrap_or(path);
        relative.to_string_lossy().replace(|character| !is_plain(character), "?")
    };
    let told: BTreeSet<_> = if paths.len() <= PATHS_TOLD {
        paths.iter().map(|path| below(path)).collect()
    } else {
        let directories: BTreeSet<_> = paths.iter().filter_map(|path| path.parent()).collect();
        directories
            .into_iter()
            .map(|directory| if root == Some(directory) { "*".to_owned() } else { below(directory) })
            .collect()
    };
    format!("git lfs pull --include=\"{}\"", told.into_iter().collect::<Vec<_>>().join(","))
}

/// Whether a character stands for itself: in quotes of a shell, in a pattern, and in a list of patterns.
fn is_plain(character: char) -> bool {
    character.is_alphanumeric() || " ./_-+@%=:~".contains(character)
}

/// The content of a layer that holds files LFS keeps, `None` of others. Files that are pointers count with what they
/// stand for; all others are read.
///
/// # Errors
/// When a file cannot be read, or changes meanwhile.
pub fn content(
    entries: &[Entry],
    pointers: &BTreeMap<PathBuf, Pointer>,
    session: &Session,
) -> Result<Option<LfsContent>> {
    let kept = kept_by_lfs(entries, pointers);
    if kept.is_empty() {
        return Ok(None);
    }
    let mut files = BTreeMap::new();
    let mut beside = Sha256::new();
    let mut field = |bytes: &[u8]| {
        beside.update((bytes.len() as u64).to_le_bytes());
        beside.update(bytes);
    };
    for entry in entries {
        field(entry.path_bytes());
        field(&entry.mode().to_le_bytes());
        match &entry.content {
            Content::Directory { .. } => field(b"directory"),
            Content::Symlink(target) => field(target.as_os_str().as_encoded_bytes()),
            Content::File(source) => {
                let digest = match pointers.get(&entry.path) {
                    Some(pointer) => pointer.oid,
                    None => digest_of(source, session)?,
                };
                if kept.contains(entry.path.as_path()) {
                    field(b"kept by lfs");
                    files.insert(format!("/{}", entry.path.to_string_lossy()), digest);
                } else {
                    field(digest.to_string().as_bytes());
                }
            }
        }
    }
    Ok(Some(LfsContent { files, beside: Digest::from(<[u8; 32]>::from(beside.finalize())) }))
}

/// Which entries LFS keeps, by their paths in the image.
#[must_use]
pub fn kept_by_lfs<'a>(entries: &'a [Entry], pointers: &BTreeMap<PathBuf, Pointer>) -> BTreeSet<&'a Path> {
    let mut attributes = Attributes::default();
    let mut is_kept = |entry: &&Entry| match &entry.content {
        Content::File(source) => pointers.contains_key(&entry.path) || attributes.gives_to_lfs(&source.path),
        Content::Directory { .. } | Content::Symlink(_) => false,
    };
    entries.iter().filter(|entry| is_kept(entry)).map(|entry| entry.path.as_path()).collect()
}

fn digest_of(source: &Source, session: &Session) -> Result<Digest> {
    let failed = || format!("could not read `{}`", source.path.display());
    let mut file = File::open(&source.path).or_failed(failed)?;
    let mut hasher = HashingWriter::new(io::sink());
    let mut buffer = vec![0; 1 << 20];
    loop {
        session.check()?;
        let count = file.read(&mut buffer).or_failed(failed)?;
        if count == 0 {
            break;
        }
        io::Write::write_all(&mut hasher, &buffer[..count]).or_failed(failed)?;
    }
    if !Stat::of(&file.metadata().or_failed(failed)?).has_content_of(&source.stat) {
        return Err(Problem::failed(format!("`{}` changed while it was read", source.path.display()))
            .help("build again when it is finished"));
    }
    Ok(hasher.finish().1)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    fn pointer_text(content: &[u8]) -> String {
        format!("version {}\noid {}\nsize {}\n", VERSIONS[0], Digest::of(content), content.len())
    }

    #[test]
    fn pointers_are_known_by_their_form() {
        let (oid, size) = (Digest::of(b"model"), 5);
        let good = pointer_text(b"model");
        let extended = good.replacen("oid ", &format!("ext-0-foo {}\noid ", Digest::of(b"x")), 1);
        let old = VERSIONS.map(|version| good.replace(VERSIONS[0], version));
        assert_eq!(old[2].replace("size 5", "size 0").len() as u64, SHORTEST_POINTER);
        for text in [good.clone(), extended].into_iter().chain(old) {
            assert_eq!(Pointer::parse(text.as_bytes()), Some(Pointer { oid, size }), "{text}");
        }
        for text in [
            String::new(),
            format!("version {}\n", VERSIONS[0]),
            good.replace("v1", "v2"),
            good.replace("sha256", "sha512"),
            good.replace("size 5", "size five"),
            good.replace("size 5\n", ""),
            format!(" {good}"),
        ] {
            assert_eq!(Pointer::parse(text.as_bytes()), None, "{text}");
        }
    }

    /// A repository whose `*.bin` are kept by LFS.
    struct Repository {
        directory: tempfile::TempDir,
    }

    impl Repository {
        fn new(files: &[(&str, &[u8])]) -> Self {
            let repository = Self { directory: tempfile::tempdir().expect("a temporary directory") };
            fs::create_dir(repository.directory.path().join(".git")).expect("made");
            repository.write(".gitattributes", b"*.bin filter=lfs\n");
            for (path, content) in files {
                repository.write(path, content);
            }
            repository
        }

        fn write(&self, path: &str, content: &[u8]) {
            let path = self.directory.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            fs::write(path, content).expect("written");
        }

        fn entries(&self, paths: &[&str]) -> Vec<Entry> {
            let entry = |path: &&str| {
                let file = self.directory.path().join(path);
                let stat = Stat::of(&fs::metadata(&file).expect("there"));
                let source = Source { path: file, follow: false, executable: false, stat };
                Entry { path: PathBuf::from("var/task").join(path), content: Content::File(source) }
            };
            paths.iter().map(entry).collect()
        }

        fn content(&self, paths: &[&str]) -> Option<LfsContent> {
            let entries = self.entries(paths);
            let pointers = pointers(&entries).expect("readable");
            content(&entries, &pointers, &Session::silent()).expect("readable")
        }
    }

    #[test]
    fn a_pointer_equals_the_content_it_stands_for_and_no_other() {
        let repository = Repository::new(&[("a.bin", b"model"), ("config.json", b"{}")]);
        let paths = ["a.bin", "config.json"];
        let with_content = repository.content(&paths).expect("a layer with a file of LFS");
        let files = BTreeMap::from([("/var/task/a.bin".to_owned(), Digest::of(b"model"))]);
        assert_eq!(with_content.files, files);
        repository.write("a.bin", pointer_text(b"model").as_bytes());
        assert_eq!(repository.content(&paths), Some(with_content.clone()));
        repository.write("a.bin", pointer_text(b"newer").as_bytes());
        let newer = repository.content(&paths).expect("as before");
        assert_ne!(newer.files, with_content.files);
        assert_eq!(newer.beside, with_content.beside);
        repository.write("config.json", b"[]");
        assert_ne!(repository.content(&paths).expect("as before").beside, with_content.beside);
        assert_eq!(repository.content(&["config.json"]), None, "nothing of LFS");
    }

    #[test]
    fn a_pointer_takes_the_size_of_its_content() {
        let repository = Repository::new(&[("a.bin", pointer_text(&[7; 5000]).as_bytes()), ("b", b"x")]);
        let mut entries = repository.entries(&["a.bin", "b"]);
        let pointers = pointers(&entries).expect("readable");
        assert_eq!(pointers.keys().collect::<Vec<_>>(), [Path::new("var/task/a.bin")]);
        stand_in(&mut entries, &pointers);
        assert_eq!(entries.iter().map(Entry::size).collect::<Vec<_>>(), [5000, 1]);
    }

    #[test]
    fn what_was_not_fetched_is_refused_with_the_command_that_does() {
        let text = pointer_text(b"model");
        let odd = "m/a b,[1]$(x)`y`\"ü.bin";
        let many: Vec<_> = ["m/a.bin", "m/b.bin", "m/n/c.bin", "top.bin", "m/d.bin", odd].to_vec();
        let files: Vec<_> = many.iter().map(|path| (*path, text.as_bytes())).collect();
        let repository = Repository::new(&files);
        for (paths, message, command) in [
            (&many[..1], "`ROOT/m/a.bin` is only a pointer of Git LFS", r#"git lfs pull --include="m/a.bin""#),
            (
                &many[..2],
                "2 files of asset `models` are only pointers of Git LFS, `ROOT/m/a.bin` among them",
                r#"git lfs pull --include="m/a.bin,m/b.bin""#,
            ),
            (
                &many[5..],
                "`ROOT/m/a b,[1]$(x)`y`\"ü.bin` is only a pointer of Git LFS",
                r#"git lfs pull --include="m/a b??1???x??y??ü.bin""#,
            ),
            (
                &many[..5],
                "5 files of asset `models` are only pointers of Git LFS, `ROOT/m/a.bin` among them",
                r#"git lfs pull --include="*,m,m/n""#,
            ),
        ] {
            let entries = repository.entries(paths);
            let problem = not_fetched("models", &entries, &pointers(&entries).expect("readable"));
            let root = repository.directory.path().display().to_string();
            assert_eq!(problem.message().replace(&root, "ROOT"), message);
            let they = if paths.len() == 1 { "it stands" } else { "they stand" };
            assert_eq!(problem.next_step(), Some(format!("fetch what {they} for: `{command}`").as_str()));
            assert_eq!(problem.exit().code(), 2);
        }
    }
}
