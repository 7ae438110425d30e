//! An image as one tar file: of an OCI layout, or in the form that `docker load` and `podman load` take.
//!
//! Written straight from the store's blobs in constant memory, beside its final place, and renamed when whole. Headers
//! hold nothing of the machine or the moment, so equal images give equal archives.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use serde_json::json;
use tar::{EntryType, Header};

use super::Image;
use super::files::{copy, remove_abandoned, temporary_in};
use super::index::{INDEX_FILE, Index, LAYOUT_FILE};
use crate::atomic;
use crate::event::{Session, Task, TaskKind, TaskOutcome};
use crate::oci::Descriptor;
use crate::problem::{IoContext as _, Problem, Result};
use crate::store::Store;

/// Tar pads members to blocks of this many bytes, and ends with two empty ones (POSIX ustar).
const BLOCK_BYTES: usize = 512;

/// Writes `image` to `path` as a tar of an OCI layout that holds it as `name`, in lower case: podman refuses to load
/// other names.
///
/// # Errors
/// When a blob is missing or the file cannot be written, or the session is asked to stop: nothing is at `path` then
/// but what was there.
pub fn oci(store: &Store, name: &str, image: &Image, path: &Path, session: &Session) -> Result<()> {
    write(name, image, path, session, |archive| {
        let mut index = Index::new();
        index.put(&repository_name(name), image);
        // What says what is inside comes first, so that a reader of a pipe need not wait for gigabytes.
        archive.bytes(LAYOUT_FILE.0, LAYOUT_FILE.1)?;
        archive.bytes(INDEX_FILE, &index.to_bytes())?;
        archive.directory("blobs/")?;
        archive.directory("blobs/sha256/")?;
        let blob_path = |descriptor: &Descriptor| format!("blobs/sha256/{}", descriptor.digest.hex());
        archive.bytes(&blob_path(&image.manifest_descriptor), &image.manifest)?;
        archive.bytes(&blob_path(&image.config_descriptor), &image.config)?;
        archive.layers(store, image, blob_path)
    })
}

/// Writes `image` to `path` in the form of `docker save`, tagged `name:latest`.
///
/// Its layers stay gzip, as go-containerregistry writes them; docker and podman see that by themselves.
///
/// # Errors
/// As [`oci`].
pub fn docker(store: &Store, name: &str, image: &Image, path: &Path, session: &Session) -> Result<()> {
    write(name, image, path, session, |archive| {
        let config_path = format!("{}.json", image.config_descriptor.digest.hex());
        let layer_path = |descriptor: &Descriptor| format!("{}.tar.gz", descriptor.digest.hex());
        let layers: Vec<_> = image.layers.iter().map(layer_path).collect();
        let tag = format!("{}:latest", repository_name(name));
        let manifest = json!([{"Config": config_path, "RepoTags": [tag], "Layers": layers}]);
        archive.bytes("manifest.json", manifest.to_string().as_bytes())?;
        archive.bytes(&config_path, &image.config)?;
        archive.layers(store, image, layer_path)
    })
}

/// `name` as the name of a repository, which knows no upper case and separators only between letters or digits
/// (distribution, reference grammar).
fn repository_name(name: &str) -> String {
    let mut words = name.split(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '_' | '.'));
    let join = |mut joined: String, word: &str| {
        for c in word.chars().map(|c| c.to_ascii_lowercase()) {
            // Of several separators in a row the first stays.
            if c.is_ascii_alphanumeric() || joined.ends_with(|last: char| last.is_ascii_alphanumeric()) {
                joined.push(c);
            }
        }
        joined
    };
    let first = words.next().unwrap_or_default();
    let joined = words.fold(join(String::new(), first), |joined, word| join(join(joined, "-"), word));
    match joined.trim_end_matches(['-', '_', '.']) {
        "" => "image".to_owned(),
        repository => repository.to_owned(),
    }
}

/// Refuses what an archive cannot be written to, for whoever wants to know before slow work.
///
/// # Errors
/// Of class usage when something else than a regular file is at `path`: renaming would replace even a device.
pub fn refuse_target(path: &Path) -> Result<()> {
    let Ok(there) = fs::metadata(path) else { return Ok(()) };
    if there.is_dir() {
        return Err(Problem::usage(format!("`{}` is a directory, and the archive is a file", path.display()))
            .help("add a file name"));
    }
    if !there.is_file() {
        return Err(Problem::usage(format!("`{}` is no regular file, and the archive is one", path.display()))
            .help("give the path of a file, then pass it on: `docker load -i FILE`"));
    }
    Ok(())
}

fn write(
    name: &str,
    image: &Image,
    path: &Path,
    session: &Session,
    content: impl FnOnce(&mut Archive<'_>) -> Result<()>,
) -> Result<()> {
    refuse_target(path)?;
    // Through a link, what it points to is replaced, and not the link.
    let resolved = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let path = resolved.as_path();
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(directory).or_failed(|| format!("could not create `{}`", directory.display()))?;
    remove_abandoned(directory);
    let mut file = temporary_in(directory)?;
    let task = session.task(TaskKind::Write, name, Some(image.size_bytes()));
    let mut archive = Archive { file: file.as_file_mut(), shown: path, task: &task, session };
    content(&mut archive)?;
    archive.raw(&[0; 2 * BLOCK_BYTES])?;
    atomic::publish(file, path).or_failed(|| format!("could not write `{}`", path.display()))?;
    task.finish(TaskOutcome::Done);
    Ok(())
}

/// A tar being written. `tar::Builder` is not used, since it neither can be interrupted within a member nor lets the
/// kernel copy from file to file.
struct Archive<'a> {
    file: &'a mut File,
    /// The final path, for messages.
    shown: &'a Path,
    task: &'a Task,
    session: &'a Session,
}

impl Archive<'_> {
    fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).or_failed(|| format!("could not write `{}`", self.shown.display()))
    }

    fn header(&mut self, path: &str, kind: EntryType, size: u64) -> Result<()> {
        let mut header = Header::new_gnu();
        header.set_path(path).or_failed(|| format!("could not name `{path}` in `{}`", self.shown.display()))?;
        header.set_entry_type(kind);
        header.set_mode(if kind == EntryType::Directory { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        // 8 GiB and more are written in base 256, which Go, GNU tar and libarchive read.
        header.set_size(size);
        header.set_cksum();
        self.raw(header.as_bytes())
    }

    fn padding(&mut self, size: u64) -> Result<()> {
        let over = (size % BLOCK_BYTES as u64) as usize;
        if over == 0 { Ok(()) } else { self.raw(&[0; BLOCK_BYTES][over..]) }
    }

    fn directory(&mut self, path: &str) -> Result<()> {
        self.header(path, EntryType::Directory, 0)
    }

    fn bytes(&mut self, path: &str, bytes: &[u8]) -> Result<()> {
        self.header(path, EntryType::Regular, bytes.len() as u64)?;
        self.raw(bytes)?;
        self.padding(bytes.len() as u64)
    }

    /// Every layer once, even if the image has it twice.
    fn layers(&mut self, store: &Store, image: &Image, path_of: impl Fn(&Descriptor) -> String) -> Result<()> {
        let mut written = HashSet::new();
        for layer in image.layers.iter().filter(|layer| written.insert(layer.digest)) {
            let source = store.open_blob(layer)?;
            self.header(&path_of(layer), EntryType::Regular, layer.size)?;
            copy(&source, layer.size, self.file, |bytes| self.task.advance(bytes), self.session)
                .or_failed(|| format!("could not write `{}`", self.shown.display()))?;
            self.padding(layer.size)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;
    use crate::image::layout::tests::{new_store, stored_image};
    use crate::oci::Digest;
    use crate::problem::Exit;

    type Writer = fn(&Store, &str, &Image, &Path, &Session) -> Result<()>;

    /// Path, mode and content of each member.
    fn members(path: &Path) -> Vec<(String, u32, Vec<u8>)> {
        let mut archive = tar::Archive::new(File::open(path).expect("an archive"));
        let members = archive.entries().expect("a tar").map(|entry| {
            let mut entry = entry.expect("a member");
            let header = entry.header();
            assert_eq!((header.uid().ok(), header.gid().ok(), header.mtime().ok()), (Some(0), Some(0), Some(0)));
            let (path, mode) = (String::from_utf8_lossy(&entry.path_bytes()).into_owned(), header.mode().ok());
            let mut content = Vec::new();
            entry.read_to_end(&mut content).expect("read");
            (path, mode.expect("a mode"), content)
        });
        members.collect()
    }

    #[test]
    fn an_oci_archive_holds_the_layout_of_this_image_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = new_store(directory.path());
        let image = stored_image(&store, "one");
        let path = directory.path().join("out/hello.tar");
        oci(&store, "Hello", &image, &path, &Session::silent()).expect("written");
        let members = members(&path);
        let index = String::from_utf8_lossy(&members[1].2).into_owned();
        assert!(index.contains(r#""org.opencontainers.image.ref.name":"hello""#), "{index}");
        let names: Vec<_> = members.iter().map(|(path, ..)| path.as_str()).collect();
        assert_eq!(names[..4], ["oci-layout", "index.json", "blobs/", "blobs/sha256/"]);
        assert_eq!(members.len(), 4 + 5);
        for (path, mode, content) in &members[4..] {
            assert_eq!(*path, format!("blobs/sha256/{}", Digest::of(content).hex()));
            assert_eq!(*mode, 0o644);
        }
        assert_eq!(names[4], format!("blobs/sha256/{}", image.digest().hex()));
        let beside = fs::read_dir(path.parent().expect("a parent")).expect("listed").count();
        assert_eq!(beside, 1, "no temporary file stays");
    }

    #[test]
    fn a_docker_archive_names_config_and_layers() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = new_store(directory.path());
        let mut image = stored_image(&store, "one");
        image.layers.push(image.layers[0].clone());
        let path = directory.path().join("hello.tar");
        docker(&store, "Hello", &image, &path, &Session::silent()).expect("written");
        let members = members(&path);
        let manifest: serde_json::Value = serde_json::from_slice(&members[0].2).expect("JSON");
        assert_eq!(manifest[0]["RepoTags"], json!(["hello:latest"]));
        assert_eq!(manifest[0]["Config"], members[1].0);
        assert_eq!(members[1].2, image.config);
        let layers: Vec<_> =
            manifest[0]["Layers"].as_array().expect("layers").iter().filter_map(|name| name.as_str()).collect();
        assert_eq!(layers.len(), 4);
        assert_eq!(layers[3], layers[0]);
        assert_eq!(members.len(), 2 + 3, "a layer that occurs twice is there once");
        assert_eq!((members[2].0.as_str(), &members[2].2[..]), (layers[0], &b"layer 0"[..]));
    }

    #[test]
    fn equal_images_give_equal_archives() {
        let directory = tempfile::tempdir().expect("a directory");
        for (name, write) in [("oci", oci as Writer), ("docker", docker)] {
            let written = [1, 2].map(|run| {
                let path = directory.path().join(format!("{name}{run}.tar"));
                let store = new_store(&directory.path().join(run.to_string()));
                let image = stored_image(&store, "one");
                write(&store, "hello", &image, &path, &Session::silent()).expect("written");
                fs::read(path).expect("read")
            });
            assert_eq!(written[0], written[1]);
        }
    }

    #[test]
    fn a_failure_leaves_what_was_there() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = new_store(directory.path());
        let image = stored_image(&store, "one");
        let out = directory.path().join("out");
        let path = out.join("hello.tar");
        fs::create_dir(&out).expect("created");
        fs::write(&path, "old").expect("written");
        let stopped = Session::silent();
        stopped.stop(Exit::Terminated);
        let mut lost = image.clone();
        lost.layers[2].digest = Digest::of(b"nowhere");
        let mut short = image.clone();
        short.layers[1].size += 1;
        for (image, session, exit) in [
            (&image, &stopped, Exit::Terminated),
            (&lost, &Session::silent(), Exit::Failed),
            (&short, &Session::silent(), Exit::Failed),
        ] {
            assert_eq!(oci(&store, "hello", image, &path, session).expect_err("failed").exit(), exit);
            assert_eq!(fs::read(&path).expect("read"), b"old");
            assert_eq!(fs::read_dir(&out).expect("listed").count(), 1);
        }
        assert_eq!(oci(&store, "hello", &image, &out, &stopped).expect_err("a directory").exit(), Exit::Usage);
    }

    #[test]
    fn members_of_8_gib_and_more_keep_their_size() {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        let session = Session::silent();
        let task = session.task(TaskKind::Write, "big", None);
        let size = 9 * 1024 * 1024 * 1024;
        let mut archive = Archive { file: file.as_file_mut(), shown: Path::new("big"), task: &task, session: &session };
        archive.header("big", EntryType::Regular, size).expect("written");
        let bytes = fs::read(file.path()).expect("read");
        assert_eq!(Header::from_byte_slice(&bytes).entry_size().ok(), Some(size));
    }

    #[test]
    fn any_name_becomes_one_that_docker_takes() {
        let table = [
            ("thumbnailer", "thumbnailer"),
            ("My_Function", "my_function"),
            ("a__b", "a_b"),
            ("-a-", "a"),
            ("größe", "gr-e"),
            ("a b/c", "a-b-c"),
            ("é", "image"),
            ("v1.2", "v1.2"),
        ];
        for (name, expected) in table {
            assert_eq!(repository_name(name), expected, "{name}");
        }
    }
}
