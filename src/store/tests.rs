//! A store on disk: what is believed, what is removed, and what is left alone.

use super::*;
use crate::oci::media_type;

fn store() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(&directory.path().join("lambda-image"), &Session::silent()).expect("a new store");
    (directory, store)
}

fn descriptor(bytes: &[u8]) -> Descriptor {
    Descriptor { media_type: media_type::OCI_LAYER_GZIP.into(), digest: Digest::of(bytes), size: bytes.len() as u64 }
}

#[test]
fn a_blob_is_found_under_its_digest_once_finished() {
    let (_directory, store) = store();
    assert!(!store.contains(&descriptor(b"abc")));
    let mut writer = store.writer().expect("a writer");
    writer.write_all(b"abc").expect("written");
    assert_eq!(fs::read_dir(store.layout_path().join("blobs/sha256")).expect("listed").count(), 0);
    assert_eq!(writer.finish().expect("finished"), (Digest::of(b"abc"), 3));
    assert!(store.contains(&descriptor(b"abc")));
}

#[test]
fn a_blob_that_was_changed_is_neither_trusted_nor_kept() {
    let changes: [fn(&Path); 4] = [
        |path| fs::write(path, b"abd").expect("rewritten"),
        |path| fs::write(path, b"ab").expect("truncated"),
        |path| fs::write(path, b"").expect("emptied"),
        |path| {
            fs::rename(path, path.with_extension("x")).expect("moved");
            std::os::unix::fs::symlink(path.with_extension("x"), path).expect("linked");
        },
    ];
    for change in changes {
        let (_directory, store) = store();
        let digest = store.write_blob(b"abc").expect("written");
        change(&store.blob_path(&digest));
        assert!(!store.contains(&descriptor(b"abc")));
        assert_eq!(store.write_blob(b"abc").expect("written again"), digest);
        assert!(store.contains(&descriptor(b"abc")));
    }
}

#[test]
fn an_untrusted_but_whole_blob_is_verified_and_kept() {
    let (_directory, store) = store();
    let digest = store.write_blob(b"abc").expect("written");
    store.records().remove(Kind::Blob, &digest.to_string());
    assert!(store.contains(&descriptor(b"abc")));
}

#[test]
fn a_wrong_claim_about_its_size_does_not_cost_a_whole_blob() {
    let (_directory, store) = store();
    let digest = store.write_blob(b"abc").expect("written");
    assert!(!store.contains(&Descriptor { size: 4, ..descriptor(b"abc") }));
    assert!(store.blob_path(&digest).exists());
    assert!(store.contains(&descriptor(b"abc")));
}

#[test]
fn what_is_no_file_under_a_blobs_name_is_not_opened() {
    let changes: [fn(&Path); 3] = [
        |path| assert!(std::process::Command::new("mkfifo").arg(path).status().expect("mkfifo").success()),
        |path| std::os::unix::fs::symlink("/dev/null", path).expect("linked"),
        |path| fs::create_dir(path).expect("made"),
    ];
    for change in changes {
        let (_directory, store) = store();
        change(&store.blob_path(&Digest::of(b"abc")));
        let problem = store.open_blob(&descriptor(b"abc")).expect_err("no file");
        assert!(problem.message().starts_with("could not open blob `"), "{problem}");
    }
}

#[test]
fn a_blob_of_another_digest_leaves_nothing() {
    let (_directory, store) = store();
    let mut writer = store.writer().expect("a writer");
    writer.write_all(b"abd").expect("written");
    let problem = writer.finish_as(&descriptor(b"abc")).expect_err("another digest");
    assert!(problem.message().contains(&Digest::of(b"abc").to_string()), "{problem}");
    assert!(problem.message().contains(&Digest::of(b"abd").to_string()), "{problem}");
    assert_eq!(fs::read_dir(store.layout_path().join("blobs/sha256")).expect("listed").count(), 0);
}

#[test]
fn what_a_killed_build_left_is_removed_and_a_living_builds_is_not() {
    let (directory, store) = store();
    let root = directory.path().join("lambda-image");
    let Access::Write { temporary, .. } = &store.access else { panic!("opened to be written") };
    let living = temporary.path().to_owned();
    let dead = root.join("tmp/dead");
    fs::create_dir(&dead).expect("made");
    fs::write(dead.join("partial"), b"x").expect("written");
    let second = Store::open(&root, &Session::silent()).expect("a second store");
    assert!(living.exists());
    assert!(!dead.exists());
    drop(second);
}

#[test]
fn who_only_looks_finds_what_was_there_and_what_it_made_and_changes_nothing() {
    let (directory, store) = store();
    let root = directory.path().join("lambda-image");
    let digest = store.write_blob(b"abc").expect("written");
    let torn = store.write_blob(b"torn").expect("written");
    store.records().put(Kind::Layer, "old", &1).expect("recorded");
    store.records().remove(Kind::Blob, &digest.to_string());
    fs::write(store.blob_path(&torn), b"tor").expect("torn");
    drop(store);
    let before = walk(&root);

    let looking = Store::look(&root, &Session::silent()).expect("a store");
    assert!(looking.contains(&descriptor(b"abc")));
    assert!(!looking.contains(&descriptor(b"torn")));
    assert_eq!(looking.write_blob(b"new").expect("as if written"), Digest::of(b"new"));
    assert!(looking.contains(&descriptor(b"new")));
    assert!(!looking.contains(&Descriptor { size: 4, ..descriptor(b"new") }));
    assert_eq!(looking.records().get(Kind::Layer, "old"), Some(1));
    looking.records().put(Kind::Layer, "old", &2).expect("remembered");
    looking.records().put(Kind::Layer, "new", &3).expect("remembered");
    assert_eq!(looking.records().get(Kind::Layer, "old"), Some(2));
    assert_eq!(looking.records().get(Kind::Layer, "new"), Some(3));
    looking.records().remove(Kind::Layer, "old");
    assert_eq!(looking.records().get::<u32>(Kind::Layer, "old"), None);
    assert!(!looking.records().has(Kind::Layer, "old") && looking.records().has(Kind::Layer, "new"));
    looking.prune(|| Ok(HashSet::new())).expect("nothing to do");
    drop(looking);
    assert_eq!(walk(&root), before);

    let nowhere = directory.path().join("nowhere");
    assert!(!Store::look(&nowhere, &Session::silent()).expect("no store").contains(&descriptor(b"abc")));
    assert!(!nowhere.exists());
}

/// Every path below `root` with its bytes and when it changed.
fn walk(root: &Path) -> Vec<(PathBuf, Vec<u8>, std::time::SystemTime)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root).expect("a directory").map(|entry| entry.expect("an entry")) {
        let (path, metadata) = (entry.path(), entry.metadata().expect("there"));
        let bytes = if metadata.is_dir() { Vec::new() } else { fs::read(&path).expect("a file") };
        found.extend(if metadata.is_dir() { walk(&path) } else { Vec::new() });
        found.push((path, bytes, metadata.modified().expect("a time")));
    }
    found.sort();
    found
}

#[test]
fn pruning_keeps_what_is_named_and_waits_for_no_other_build() {
    let (directory, store) = store();
    let keep = store.write_blob(b"keep").expect("written");
    let lose = store.write_blob(b"lose").expect("written");
    let other = Store::open(&directory.path().join("lambda-image"), &Session::silent()).expect("a second store");
    store.prune(|| Ok(HashSet::from([keep]))).expect("nothing to do");
    assert!(store.blob_path(&lose).exists(), "another build may be using it");
    drop(other);
    store.prune(|| Ok(HashSet::from([keep]))).expect("pruned");
    assert!(store.blob_path(&keep).exists());
    assert!(!store.blob_path(&lose).exists());
}
