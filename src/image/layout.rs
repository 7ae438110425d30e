//! Images in an OCI layout: the store's own, and copies in directories the user names.
//!
//! A layout is read by others at any moment, so blobs are there before the index names them, and the index changes by
//! one rename. Builds that end at once take turns, so that neither drops the other's image.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;

use serde_json::Value;
use tempfile::NamedTempFile;

use super::Image;
use super::files::{copy, read, remove_abandoned, replace, temporary_in};
use super::index::{INDEX_FILE, Index, LAYOUT_FILE, digest_of};
use crate::atomic::{self, TEMPORARY_PREFIX};
use crate::event::{Session, TaskKind, TaskOutcome};
use crate::oci::{Descriptor, Digest, HashingWriter};
use crate::problem::{IoContext as _, Problem, Result};
use crate::store::{Hold, Store, lock, open_plain};

/// What builds that end at once wait for.
const LOCKED: &str = "file lock on the image index";

/// How far an index may lie within an index.
const MAX_NESTING: usize = 3;

/// Puts `image`, whose layers are in the store, into the store's layout as `name`.
///
/// # Errors
/// When something cannot be written.
pub fn add(store: &Store, name: &str, image: &Image, session: &Session) -> Result<()> {
    store.write_blob(&image.config)?;
    store.write_blob(&image.manifest)?;
    let _lock = lock::wait(&store.root().join("index.lock"), Hold::Alone, LOCKED, session)?;
    update(&store.layout_path(), name, image, session, || store.temporary_file())
}

/// Every blob that an image in the store's layout needs.
///
/// # Errors
/// When the index is damaged or cannot be read: then nobody can tell what may be deleted.
pub fn reachable(store: &Store) -> Result<HashSet<Digest>> {
    let path = store.layout_path().join(INDEX_FILE);
    let mut found = HashSet::new();
    if let Some(bytes) = read(&path)? {
        let index = Index::parse(&bytes).ok_or_else(|| {
            Problem::failed(format!("`{}` is damaged", path.display()))
                .help("delete the `lambda-image` directory it is in, and build again: all of it can be made anew")
        })?;
        for manifest in index.manifests() {
            follow(store, manifest, MAX_NESTING, &mut found);
        }
    }
    Ok(found)
}

/// Adds the manifest and what it names. One that is absent or damaged needs nothing but itself.
fn follow(store: &Store, manifest: Digest, nesting: usize, found: &mut HashSet<Digest>) {
    if !found.insert(manifest) {
        return;
    }
    let bytes = read(&store.blob_path(&manifest)).ok().flatten().unwrap_or_default();
    let document: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let list = |key: &str| document[key].as_array().map(Vec::as_slice).unwrap_or_default();
    found.extend(list("layers").iter().chain([&document["config"]]).filter_map(digest_of));
    for child in list("manifests").iter().filter_map(digest_of).filter(|_| nesting > 0) {
        follow(store, child, nesting - 1, found);
    }
}

/// Refuses what a layout cannot be written to, for whoever wants to know before slow work.
///
/// # Errors
/// Of class usage when `directory` is none, or holds other things than a layout.
pub fn refuse_target(directory: &Path) -> Result<()> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            return Err(Problem::usage(format!("`{}` cannot be a layout", directory.display()))
                .because(error)
                .help("give the path of a directory, which need not be there"));
        }
    };
    if directory.join(LAYOUT_FILE.0).is_file() {
        return Ok(());
    }
    // A build that was killed may have left these without the marker.
    let is_ours = |name: &str| name == "blobs" || name == INDEX_FILE || name.starts_with(TEMPORARY_PREFIX);
    let other = entries.flatten().map(|entry| entry.file_name()).find(|name| !name.to_str().is_some_and(is_ours));
    match other {
        None => Ok(()),
        Some(name) => Err(Problem::usage(format!("`{}` holds other things than a layout", directory.display()))
            .because(format!("there is `{}`, and no `{}`", Path::new(&name).display(), LAYOUT_FILE.0))
            .help("give a directory that is new, empty or a layout")),
    }
}

/// Puts `image` into the layout at `directory` as `name`, with all its blobs; other images there stay.
///
/// Blobs are copied and not linked: whoever changes a file there must not change the store, and a link would touch the
/// change time by which the store knows its own files to be untouched. Where the file system can share blocks, the
/// kernel does.
///
/// # Errors
/// When something cannot be written, or the session is asked to stop.
pub fn export(store: &Store, name: &str, image: &Image, directory: &Path, session: &Session) -> Result<()> {
    refuse_target(directory)?;
    let blobs = directory.join("blobs/sha256");
    fs::create_dir_all(&blobs).or_failed(|| format!("could not create `{}`", blobs.display()))?;
    if same_directory(directory, &store.layout_path()) {
        return Ok(());
    }
    let _lock = lock::wait(&directory.join(LAYOUT_FILE.0), Hold::Alone, LOCKED, session)?;
    remove_abandoned(directory);
    let task = session.task(TaskKind::Write, name, Some(image.size_bytes()));
    let all = image.layers.iter().chain([&image.config_descriptor, &image.manifest_descriptor]);
    for descriptor in all {
        let target = blobs.join(descriptor.digest.hex());
        if is_whole(&target, descriptor, session)? {
            task.advance(descriptor.size);
            continue;
        }
        let failed = || format!("could not write `{}`", target.display());
        let source = store.open_blob(descriptor)?;
        let mut file = temporary_in(directory)?;
        copy(&source, descriptor.size, file.as_file_mut(), |bytes| task.advance(bytes), session).or_failed(failed)?;
        atomic::publish(file, &target).or_failed(failed)?;
    }
    update(directory, name, image, session, || temporary_in(directory))?;
    task.finish(TaskOutcome::Done);
    Ok(())
}

/// Whether the file has the blob's bytes. They are read: nothing is known of what others do in a directory of theirs.
fn is_whole(path: &Path, blob: &Descriptor, session: &Session) -> Result<bool> {
    let Ok(file) = open_plain(path) else { return Ok(false) };
    if !file.metadata().is_ok_and(|found| found.len() == blob.size) {
        return Ok(false);
    }
    let mut hashing = HashingWriter::new(io::sink());
    let copied = copy(&file, blob.size, &mut hashing, |_| {}, session);
    session.check()?;
    // What cannot be read is written anew.
    Ok(copied.is_ok() && hashing.finish().1 == blob.digest)
}

/// Names `image` in the layout's index; whoever calls holds the lock, and the blobs are there.
fn update(
    directory: &Path,
    name: &str,
    image: &Image,
    session: &Session,
    temporary: impl Fn() -> Result<NamedTempFile>,
) -> Result<()> {
    let (marker, content) = (directory.join(LAYOUT_FILE.0), LAYOUT_FILE.1);
    // A whole one may be of a later version than ours; any other is damaged, or the empty lock of a killed build.
    if !read(&marker)?.is_some_and(|found| is_marker(&found)) {
        if fs::symlink_metadata(&marker).is_ok_and(|found| found.is_file()) {
            // In place, since the marker of a copy is its lock.
            fs::write(&marker, content).or_failed(|| format!("could not write `{}`", marker.display()))?;
        } else {
            // Never through a link: what is at its other end may be a blob.
            replace(&marker, content, temporary()?)?;
        }
    }
    let path = directory.join(INDEX_FILE);
    let old = read(&path)?;
    let mut index = match old.as_deref().map(Index::parse) {
        None => Index::new(),
        Some(Some(index)) => index,
        Some(None) => {
            session.warn(
                &format!("`{}` is damaged and is written anew", path.display()),
                Some("build the other images again to have them in it"),
            );
            Index::new()
        }
    };
    index.put(name, image);
    let bytes = index.to_bytes();
    if old.as_ref() == Some(&bytes) { Ok(()) } else { replace(&path, &bytes, temporary()?) }
}

/// Whether these bytes say that a directory is an OCI layout (image-spec, image-layout.md).
fn is_marker(bytes: &[u8]) -> bool {
    serde_json::from_slice::<Value>(bytes).is_ok_and(|marker| marker["imageLayoutVersion"].is_string())
}

fn same_directory(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::image::MediaTypes;
    use crate::image::config::tests::image;
    use crate::image::placement::Placement;
    use crate::oci::REF_NAME;

    pub(in crate::image) fn new_store(directory: &Path) -> Store {
        Store::open(&directory.join("lambda-image"), &Session::silent()).expect("a store")
    }

    /// An image whose three layers are the gzip blobs `layer 1` to `layer 3`, put in the store.
    pub(in crate::image) fn stored_image(store: &Store, cmd: &str) -> Image {
        let placement = Placement { cmd: vec![cmd.to_owned()], ..Placement::default() };
        let mut image = image(&Value::Null, &placement, MediaTypes::Oci).expect("composed");
        let mut manifest: Value = serde_json::from_slice(&image.manifest).expect("JSON");
        for (number, layer) in image.layers.iter_mut().enumerate() {
            let bytes = format!("layer {number}").into_bytes();
            layer.digest = store.write_blob(&bytes).expect("written");
            layer.size = bytes.len() as u64;
            manifest["layers"][number] = serde_json::to_value(&*layer).expect("JSON");
        }
        image.manifest = manifest.to_string().into_bytes();
        image.manifest_descriptor.digest = Digest::of(&image.manifest);
        image.manifest_descriptor.size = image.manifest.len() as u64;
        image
    }

    fn names(directory: &Path) -> Vec<String> {
        let bytes = fs::read(directory.join(INDEX_FILE)).expect("an index");
        let index: Value = serde_json::from_slice(&bytes).expect("JSON");
        let entries = index["manifests"].as_array().expect("entries").iter();
        let name = |entry: &Value| entry["annotations"][REF_NAME].as_str().map(str::to_owned);
        entries.map(|entry| name(entry).expect("a name")).collect()
    }

    #[test]
    fn builds_that_end_at_once_are_all_in_the_index() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = new_store(directory.path());
        std::thread::scope(|scope| {
            for number in 0..8 {
                let store = &store;
                scope.spawn(move || {
                    let image = stored_image(store, &number.to_string());
                    add(store, &format!("bin{number}"), &image, &Session::silent()).expect("added");
                });
            }
        });
        assert_eq!(names(&store.layout_path()), (0..8).map(|number| format!("bin{number}")).collect::<Vec<_>>());
        let marker = fs::read(store.layout_path().join("oci-layout")).expect("a marker");
        assert_eq!(marker, br#"{"imageLayoutVersion":"1.0.0"}"#);
    }

    #[test]
    fn exactly_what_images_need_is_reachable() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = new_store(directory.path());
        assert_eq!(reachable(&store).expect("no index yet"), HashSet::new());
        let (old, new) = (stored_image(&store, "old"), stored_image(&store, "new"));
        add(&store, "hello", &old, &Session::silent()).expect("added");
        add(&store, "hello", &new, &Session::silent()).expect("added");
        let mut expected: HashSet<_> = new.layers.iter().map(|layer| layer.digest).collect();
        expected.extend([new.digest(), new.config_descriptor.digest]);
        assert_eq!(expected.len(), 5);
        assert_eq!(reachable(&store).expect("read"), expected);
    }

    #[test]
    fn a_damaged_index_is_written_anew_but_never_pruned_by() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = new_store(directory.path());
        let image = stored_image(&store, "one");
        fs::write(store.layout_path().join(INDEX_FILE), "{\"manif").expect("written");
        assert!(reachable(&store).is_err());
        add(&store, "hello", &image, &Session::silent()).expect("added");
        assert_eq!(names(&store.layout_path()), ["hello"]);
    }

    #[test]
    fn a_copy_is_whole_and_leaves_other_images_there() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = new_store(directory.path());
        let target = directory.path().join("out/layout");
        let (one, two) = (stored_image(&store, "one"), stored_image(&store, "two"));
        for (name, image) in [("one", &one), ("two", &two)] {
            add(&store, name, image, &Session::silent()).expect("added");
            export(&store, name, image, &target, &Session::silent()).expect("exported");
        }
        assert_eq!(names(&target), ["one", "two"]);
        let mut found: Vec<_> =
            fs::read_dir(&target).expect("listed").map(|entry| entry.expect("read").file_name()).collect();
        found.sort();
        assert_eq!(found, ["blobs", "index.json", "oci-layout"]);
        for digest in reachable(&store).expect("read") {
            let bytes = fs::read(target.join("blobs/sha256").join(digest.hex())).expect("a blob");
            assert_eq!(Digest::of(&bytes), digest);
        }
        export(&store, "one", &one, &store.layout_path(), &Session::silent()).expect("nothing to do");
        assert_eq!(names(&store.layout_path()), ["one", "two"]);
    }

    #[test]
    fn changing_a_copy_leaves_the_store_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = new_store(directory.path());
        let image = stored_image(&store, "one");
        add(&store, "one", &image, &Session::silent()).expect("added");
        export(&store, "one", &image, &directory.path().join("out"), &Session::silent()).expect("exported");
        let copy = directory.path().join("out/blobs/sha256").join(image.layers[0].digest.hex());
        fs::write(copy, "changed").expect("written");
        assert_eq!(fs::read(store.blob_path(&image.layers[0].digest)).expect("read"), b"layer 0");
    }

    #[test]
    fn a_damaged_blob_of_a_copy_is_written_anew() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = new_store(directory.path());
        let image = stored_image(&store, "one");
        add(&store, "one", &image, &Session::silent()).expect("added");
        let target = directory.path().join("out");
        let blob = target.join("blobs/sha256").join(image.layers[0].digest.hex());
        for damaged in ["layer x", "lay", ""] {
            export(&store, "one", &image, &target, &Session::silent()).expect("exported");
            fs::write(&blob, damaged).expect("written");
            export(&store, "one", &image, &target, &Session::silent()).expect("exported");
            assert_eq!(fs::read_to_string(&blob).expect("read"), "layer 0", "{damaged}");
        }
    }

    #[test]
    fn a_stopped_session_leaves_no_file_behind() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = new_store(directory.path());
        let image = stored_image(&store, "one");
        add(&store, "one", &image, &Session::silent()).expect("added");
        let session = Session::silent();
        session.stop(crate::problem::Exit::Interrupted);
        let target = directory.path().join("out");
        let problem = export(&store, "one", &image, &target, &session).expect_err("stopped");
        assert_eq!(problem.exit(), crate::problem::Exit::Interrupted);
        assert_eq!(fs::read_dir(target.join("blobs/sha256")).expect("listed").count(), 0);
        assert!(!target.join(INDEX_FILE).exists());
    }
}
