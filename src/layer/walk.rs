//! Finds what an asset packs: a file, a directory or a glob becomes entries with their places in the image.
//!
//! No ignore file applies and dotfiles are included: what the user names is what is packed. Nothing is read but
//! directories and, of a few small files that may hold secrets, the content.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher, GlobSet, GlobSetBuilder};
use rustix::fs::Access;
use rustix::io::Errno;
use walkdir::{DirEntry, WalkDir};

use super::entries::{Content, Entry, Source, Stat};
use super::secrets;
use crate::problem::{IoContext as _, Problem, Result};

/// Lambda's name for where code lies; relative destinations start here.
pub const TASK_ROOT: &str = "var/task";

/// What the user asked to pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asset {
    /// A name for people.
    pub name: String,
    /// As the user wrote it, for messages.
    pub shown: String,
    /// The directory the path starts from (absolute).
    pub directory: PathBuf,
    /// File, directory or glob, relative to `directory` or absolute.
    pub path: String,
    /// Where it goes: relative to `/var/task`, or absolute; a directory's contents go there, and so do files if it ends
    /// in `/`. Absent: the same relative path, or the last part for paths outside `directory`.
    pub to: Option<String>,
    /// Globs relative to `path` of what not to pack.
    pub exclude: Vec<String>,
    /// Pack what links point to.
    pub follow_symlinks: bool,
    /// Globs of files that may look like secrets.
    pub allow_secrets: Vec<String>,
}

/// Lists an asset's entries, unsorted and without the directories above its destination.
///
/// # Errors
/// When there is no such thing, it cannot be listed, a pattern or destination is malformed, or something in it must not
/// be packed: a device, a link that leaves the asset, a whiteout, a likely secret.
pub fn walk(asset: &Asset) -> Result<Vec<Entry>> {
    let root = root(asset);
    if is_there(asset, &root)? {
        let destination = destination(asset, &root)?;
        let entries = Walk::new(asset, root.clone())?.path(&destination)?;
        return if is_directory(&root)? && is_empty(&entries) { Err(empty(asset, &root)) } else { Ok(entries) };
    }
    let Some((prefix, pattern)) = glob(asset)? else {
        let what = match fs::read_link(&root) {
            Ok(target) => {
                format!("`{}` is a symlink to `{}`, where nothing is", root.display(), target.display())
            }
            Err(_) => format!("nothing at `{}`", root.display()),
        };
        return Err(Problem::usage(format!("no such asset `{}`", asset.shown))
            .because(io::Error::other(what))
            .help(format!("asset paths start at `{}`", asset.directory.display())));
    };
    if !is_directory(&prefix)? {
        return Err(Problem::usage(format!("no such asset `{}`", asset.shown))
            .because(io::Error::other(format!("no directory `{}`", prefix.display())))
            .help(format!("asset paths start at `{}`", asset.directory.display())));
    }
    let place = destination(asset, &prefix)?.directory;
    let entries = Walk::new(asset, prefix.clone())?.matches(&place, &pattern)?;
    if entries.is_empty() {
        return Err(Problem::usage(format!("asset `{}` matches nothing", asset.shown))
            .help(format!("the pattern was looked for below `{}`", prefix.display())));
    }
    Ok(entries)
}

/// Whether something is at an asset's own path; a link that is to be followed counts as what it leads to.
fn is_there(asset: &Asset, root: &Path) -> Result<bool> {
    let metadata = if asset.follow_symlinks { fs::metadata(root) } else { fs::symlink_metadata(root) };
    match metadata {
        // A directory above that may not be searched hides whether it is there.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error).or_failed(|| stat(root)),
        metadata => Ok(metadata.is_ok()),
    }
}

/// Whether there is nothing but directories.
fn is_empty(entries: &[Entry]) -> bool {
    entries.iter().all(|entry| matches!(entry.content, Content::Directory { .. }))
}

/// A directory without files is what a failed download or a submodule leaves, and a function would miss them live only.
fn empty(asset: &Asset, root: &Path) -> Problem {
    let problem = Problem::usage(format!("asset `{}` has no files", asset.shown));
    if asset.exclude.is_empty() {
        let is_bare = fs::read_dir(root).is_ok_and(|mut entries| entries.next().is_none());
        let what = if is_bare { "is an empty directory" } else { "holds only directories" };
        problem
            .because(io::Error::other(format!("`{}` {what}", root.display())))
            .help("bring them: `git submodule update --init` if it is one; `--assets-from-lock` wants it removed")
    } else {
        problem
            .because(io::Error::other(format!("`exclude` leaves nothing of `{}`", root.display())))
            .help("patterns of `exclude` are relative to the asset's path")
    }
}

/// Whether there is nothing at an asset's path, or nothing that its glob matches.
///
/// # Errors
/// When a pattern or destination is malformed, or what is there cannot be listed.
pub fn is_absent(asset: &Asset) -> Result<bool> {
    if is_there(asset, &root(asset))? {
        return Ok(false);
    }
    let Some((prefix, pattern)) = glob(asset)? else { return Ok(true) };
    if !is_directory(&prefix)? {
        return Ok(true);
    }
    let place = destination(asset, &prefix)?.directory;
    Ok(Walk::new(asset, prefix)?.matches(&place, &pattern)?.is_empty())
}

/// The absolute path an asset's starts from or is, with its pattern if it is a glob.
#[must_use]
pub fn root(asset: &Asset) -> PathBuf {
    normalize(&asset.directory.join(&asset.path))
}

/// Where an asset goes in the image, absolute, with a `/` at its end if it is put into a directory. It need not be
/// there.
///
/// # Errors
/// When a pattern or the destination is malformed.
pub fn place(asset: &Asset) -> Result<String> {
    let root = root(asset);
    let start = match glob(asset)? {
        Some((prefix, _)) if fs::symlink_metadata(&root).is_err() => prefix,
        _ => root,
    };
    let Destination { directory, into } = destination(asset, &start)?;
    let end = if into && !directory.as_os_str().is_empty() { "/" } else { "" };
    Ok(format!("/{}{end}", directory.display()))
}

struct Walk<'a> {
    asset: &'a Asset,
    /// What paths within the asset start from: the asset itself, or the literal prefix of its glob.
    root: PathBuf,
    /// The same without symlinks, if it is there.
    real_root: Option<PathBuf>,
    exclude: GlobSet,
    secrets: secrets::Guard,
}

impl<'a> Walk<'a> {
    fn new(asset: &'a Asset, root: PathBuf) -> Result<Self> {
        let mut exclude = GlobSetBuilder::new();
        for pattern in &asset.exclude {
            exclude.add(parse_glob(pattern, asset, "exclude")?);
        }
        let exclude = exclude.build().map_err(|error| invalid_glob(asset, "exclude", &error))?;
        let secrets =
            secrets::Guard::new(&asset.allow_secrets).map_err(|error| invalid_glob(asset, "allow-secrets", &error))?;
        let real_root = fs::canonicalize(&root).ok();
        Ok(Self { asset, root, real_root, exclude, secrets })
    }

    /// A file or a directory.
    fn path(&self, destination: &Destination) -> Result<Vec<Entry>> {
        let root = &self.root;
        let metadata = self.metadata(root)?;
        if metadata.is_symlink() {
            return Err(Problem::usage(format!("asset `{}` is a symlink", self.asset.shown))
                .help("name what it points to, or set `follow-symlinks = true` in the asset's table"));
        }
        if metadata.is_dir() {
            return self.directory(root, &destination.directory);
        }
        let place = destination.of_file(root, &self.asset.shown)?;
        Ok(vec![self.entry(root, &metadata, place)?])
    }

    /// A directory of the asset with all that is below it, where the asset's root goes to `place`.
    fn directory(&self, directory: &Path, place: &Path) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let mut walker = WalkDir::new(directory).follow_links(self.asset.follow_symlinks).into_iter();
        while let Some(found) = walker.next() {
            let Some(found) = self.listed(found)? else { continue };
            let below = self.below(found.path());
            if found.depth() > 0 && self.exclude.is_match(below) {
                if found.file_type().is_dir() {
                    walker.skip_current_dir();
                }
                continue;
            }
            let metadata = self.metadata(found.path())?;
            entries.push(self.entry(found.path(), &metadata, at(place, below))?);
        }
        // A place of `/` itself has no entry.
        entries.retain(|entry| !entry.path.as_os_str().is_empty());
        Ok(entries)
    }

    /// Everything of the asset that matches a glob; a matching directory is packed whole.
    fn matches(&self, place: &Path, pattern: &GlobMatcher) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let mut walker = WalkDir::new(&self.root).min_depth(1).follow_links(self.asset.follow_symlinks).into_iter();
        while let Some(found) = walker.next() {
            let Some(found) = self.listed(found)? else { continue };
            let below = self.below(found.path());
            if self.exclude.is_match(below) {
                if found.file_type().is_dir() {
                    walker.skip_current_dir();
                }
            } else if pattern.is_match(below) {
                let metadata = self.metadata(found.path())?;
                if metadata.is_dir() {
                    entries.extend(self.directory(found.path(), place)?);
                    walker.skip_current_dir();
                } else {
                    entries.push(self.entry(found.path(), &metadata, at(place, below))?);
                }
            }
        }
        Ok(entries)
    }

    /// What the walker found, if it is not something excluded that could not be listed.
    fn listed(&self, found: walkdir::Result<DirEntry>) -> Result<Option<DirEntry>> {
        match found {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.path().is_some_and(|path| self.exclude.is_match(self.below(path))) => Ok(None),
            Err(error) => Err(self.unlisted(error)),
        }
    }

    /// A path within the asset; empty for the asset itself.
    fn below<'p>(&self, path: &'p Path) -> &'p Path {
        path.strip_prefix(&self.root).unwrap_or(path)
    }

    /// One entry.
    fn entry(&self, path: &Path, metadata: &Metadata, place: PathBuf) -> Result<Entry> {
        let name = place.file_name().map(std::ffi::OsStr::as_bytes).unwrap_or_default();
        if name.starts_with(b".wh.") {
            return Err(Problem::usage(format!("`{}` would be taken for a whiteout", path.display()))
                .help("names that begin with `.wh.` delete files in an image: rename it or exclude it"));
        }
        let kind = metadata.file_type();
        let content = if kind.is_dir() {
            Content::Directory { mode: 0o755 }
        } else if kind.is_symlink() {
            Content::Symlink(self.link(path, &place)?)
        } else if kind.is_file() {
            Self::readable(path, metadata)?;
            self.secrets.check(path, &self.named(path), &place)?;
            Content::File(Source {
                path: path.to_owned(),
                follow: self.asset.follow_symlinks,
                executable: metadata.permissions().mode() & 0o100 != 0,
                stat: Stat::of(metadata),
            })
        } else {
            let what = match () {
                () if kind.is_fifo() => "a FIFO",
                () if kind.is_socket() => "a socket",
                () => "a device",
            };
            return Err(Problem::usage(format!("`{}` is {what}", path.display()))
                .help("only files, directories and symlinks can be packed: remove it or exclude it"));
        };
        Ok(Entry { path: place, content })
    }

    /// A link's target, if it stays inside the asset, here and where the asset goes in the image.
    fn link(&self, path: &Path, place: &Path) -> Result<PathBuf> {
        let target = fs::read_link(path).or_failed(|| format!("could not read the symlink `{}`", path.display()))?;
        let leaves = || {
            Problem::usage(format!(
                "symlink `{}` leaves the asset: it points to `{}`",
                path.display(),
                target.display()
            ))
            .help("set `follow-symlinks = true` in the asset's table to pack what links point to, or exclude it")
        };
        let parent = path.parent().unwrap_or(&self.root);
        let leads_to = normalize(&parent.join(&target));
        if target.is_absolute() || !leads_to.starts_with(&self.root) {
            return Err(leaves());
        }
        // Parts of the target may be links themselves; a target that is not there cannot lead anywhere else.
        if let (Ok(real), Some(real_root)) = (fs::canonicalize(path), &self.real_root)
            && !real.starts_with(real_root)
        {
            return Err(leaves());
        }
        // The way up and back down by the asset's own name is another way where the asset has another name.
        let place = Path::new("/").join(place);
        let destination = place.ancestors().nth(self.below(path).components().count()).unwrap_or(Path::new("/"));
        let lands_at = normalize(&place.parent().unwrap_or(destination).join(&target));
        if lands_at.strip_prefix(destination) != Ok(self.below(&leads_to)) {
            return Err(Problem::usage(format!(
                "symlink `{}` leaves the asset: `{}` is `{}` in the image",
                path.display(),
                target.display(),
                lands_at.display()
            ))
            .help("let it point there from within the asset, exclude it, or set `follow-symlinks = true`"));
        }
        Ok(target)
    }

    /// A path within the asset as people would write it: a file that is an asset by itself has its name.
    fn named(&self, path: &Path) -> PathBuf {
        let below = self.below(path);
        if below.as_os_str().is_empty() {
            path.file_name().map(PathBuf::from).unwrap_or_default()
        } else {
            below.into()
        }
    }

    fn metadata(&self, path: &Path) -> Result<Metadata> {
        let follow = self.asset.follow_symlinks;
        let metadata = if follow { fs::metadata(path) } else { fs::symlink_metadata(path) };
        metadata.or_failed(|| stat(path)).map_err(|problem| problem.or_help(RETRY))
    }

    /// Refuses a file that could not be read later, when the layers before it are made already. Nothing is opened: a
    /// build in which nothing changed reads no asset. Of what everybody may read nothing is asked: most files are such,
    /// and there may be many.
    fn readable(path: &Path, metadata: &Metadata) -> Result<()> {
        const EVERYBODY: u32 = 0o444;
        if metadata.permissions().mode() & EVERYBODY == EVERYBODY {
            return Ok(());
        }
        match rustix::fs::access(path, Access::READ_OK) {
            Err(Errno::ACCESS) => {
                Err(io::Error::from(Errno::ACCESS)).or_failed(|| format!("could not read `{}`", path.display()))
            }
            // Some file systems cannot tell, and whatever else is wrong is told by what opens it.
            _ => Ok(()),
        }
    }

    fn unlisted(&self, error: walkdir::Error) -> Problem {
        let path = error.path().unwrap_or_else(|| Path::new(&self.asset.path)).display().to_string();
        if let Some(ancestor) = error.loop_ancestor() {
            return Problem::usage(format!("symlink `{path}` leads back to `{}`", ancestor.display()))
                .help("exclude it, or set `follow-symlinks = false`");
        }
        if fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_symlink()) {
            return Problem::usage(format!("symlink `{path}` points to nothing"))
                .because(error)
                .help("remove it or exclude it");
        }
        Err::<(), _>(io::Error::from(error))
            .or_failed(|| format!("could not list `{path}`"))
            .expect_err("an error stays one")
            .or_help(RETRY)
    }
}

/// The way on from what is there when it is listed, and gone a moment later.
const RETRY: &str = "build again once nothing changes the files any more";

fn stat(path: &Path) -> String {
    format!("could not stat `{}`", path.display())
}

/// `below` a place. Joining an empty path would leave a slash at the end.
fn at(place: &Path, below: &Path) -> PathBuf {
    if below.as_os_str().is_empty() { place.to_owned() } else { place.join(below) }
}

/// Where an asset goes, as far as its text alone tells.
struct Destination {
    /// As a directory.
    directory: PathBuf,
    /// Whether a file's own name is to be appended: `to` ends in `/`.
    into: bool,
}

impl Destination {
    fn of_file(&self, file: &Path, shown: &str) -> Result<PathBuf> {
        let place = match file.file_name() {
            Some(name) if self.into => self.directory.join(name),
            _ => self.directory.clone(),
        };
        if ["", "var", TASK_ROOT, "opt", "tmp"].iter().any(|directory| place == Path::new(directory)) {
            return Err(Problem::usage(format!("asset `{shown}` is a file and would replace `/{}`", place.display()))
                .help(format!("end the destination with `/` to put the file into it: `/{}/`", place.display())));
        }
        Ok(place)
    }
}

fn destination(asset: &Asset, root: &Path) -> Result<Destination> {
    let Some(to) = &asset.to else {
        let below = root.strip_prefix(normalize(&asset.directory)).ok().map(Path::to_owned);
        let below = below.unwrap_or_else(|| root.file_name().map(PathBuf::from).unwrap_or_default());
        return Ok(Destination { directory: at(Path::new(TASK_ROOT), &below), into: false });
    };
    let mut place = PathBuf::new();
    if !to.starts_with('/') {
        place.push(TASK_ROOT);
    }
    for part in Path::new(to).components() {
        match part {
            Component::Normal(part) if part.as_bytes().starts_with(b".wh.") => {
                return Err(Problem::usage(format!(
                    "the destination `{to}` of asset `{}` has a whiteout",
                    asset.shown
                ))
                .help("names that begin with `.wh.` delete files in an image: give another path"));
            }
            Component::Normal(part) => place.push(part),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(Problem::usage(format!("the destination `{to}` of asset `{}` has a `..`", asset.shown))
                    .help("give a path below `/var/task`, or an absolute one"));
            }
        }
    }
    if to.contains('\0') {
        return Err(Problem::usage(format!("the destination of asset `{}` has a NUL", asset.shown))
            .help("no path may hold one: give another destination"));
    }
    let into = to.is_empty() || to.ends_with('/') || to.ends_with("/.") || to == ".";
    Ok(Destination { directory: place, into })
}

/// The directory before a glob's first pattern, and the pattern of what is below it.
fn glob(asset: &Asset) -> Result<Option<(PathBuf, GlobMatcher)>> {
    let is_pattern = |part: &str| part.contains(['*', '?', '[', '{']);
    let parts: Vec<_> = asset.path.split('/').collect();
    let Some(first) = parts.iter().position(|part| is_pattern(part)) else { return Ok(None) };
    let literal = parts[..first].join("/");
    let literal = if first > 0 && literal.is_empty() { "/".to_owned() } else { literal };
    let prefix = normalize(&asset.directory.join(literal));
    let pattern = parse_glob(&parts[first..].join("/"), asset, "path")?.compile_matcher();
    Ok(Some((prefix, pattern)))
}

/// Whether there is a directory; one that nobody may look for is a failure.
fn is_directory(path: &Path) -> Result<bool> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(metadata.is_dir()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error).or_failed(|| stat(path)),
        Err(_) => Ok(false),
    }
}

fn parse_glob(pattern: &str, asset: &Asset, key: &str) -> Result<globset::Glob> {
    let pattern = pattern.strip_prefix("./").unwrap_or(pattern);
    let pattern = pattern.strip_suffix('/').unwrap_or(pattern);
    GlobBuilder::new(pattern).literal_separator(true).build().map_err(|error| invalid_glob(asset, key, &error))
}

fn invalid_glob(asset: &Asset, key: &str, error: &globset::Error) -> Problem {
    Problem::usage(format!("asset `{}` has a malformed pattern in `{key}`: {error}", asset.shown)).help(
        "patterns know `*`, `**`, `?`, `[a-z]` and `{a,b}`; a `[` or `{` that means itself is written `[[]`, `[{]`",
    )
}

/// Removes `.` and resolves `..` in the text of an absolute path.
fn normalize(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                normal.pop();
            }
            part => normal.push(part),
        }
    }
    normal
}
