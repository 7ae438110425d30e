//! What stands in for assets that are not here: layers as they would be laid out if they were, of sizes that no test
//! could write.

use super::*;
use crate::config::LockRequest;
use crate::layer::entries::Source;
use crate::lock::{Lock, file};
use crate::oci::{DiffId, Digest};

#[test]
fn paths_are_told_from_where_the_lock_is() {
    for (path, expected) in [
        ("/w/models", "models"),
        ("/w/api/models/*.bin", "api/models/*.bin"),
        ("/w", "."),
        ("/models", "../models"),
        ("/other/w/x", "../other/w/x"),
    ] {
        assert_eq!(relative(Path::new(path), Path::new("/w")), expected, "{path}");
    }
}

#[test]
fn modes_are_read_as_they_were_written() {
    let directory = |path: &str, mode| Entry { path: path.into(), content: Content::Directory { mode } };
    let entries = vec![directory("tmp", 0o1777), directory("tmp/a b /c", 0o700), directory("var", 0o755)];
    let spec = LayerSpec::new("m".into(), Origin::Asset, entries, vec![0]);
    let key = key_of(&spec, &[], 2);
    assert_eq!(key.modes, ["1777 /tmp", "700 /tmp/a b /c"]);
    assert_eq!(modes_of(&key), BTreeMap::from([("tmp".into(), 0o1777), ("tmp/a b /c".into(), 0o700)]));
}

/// The layers of the base that everything stands on.
const BASE_LAYERS: usize = 4;

/// Assets as `(name, number of files, bytes of the smallest)`, each file a byte larger than the one before.
type Sizes = [(&'static str, u64, u64)];

/// A layer by its name and what it would be in the lock.
fn shown(spec: &LayerSpec, locked: &Locked) -> (String, Option<String>, Digest) {
    let made = Digest::of(format!("{} {:?}", spec.name, spec.entries).as_bytes());
    (spec.name.clone(), locked.part.clone(), spec.told.map_or(made, |told| told.digest))
}

/// The layers of an image of these assets, of which those named are not here.
fn settled(assets: &Sizes, absent: &[&str], lock: &Lock) -> Result<Vec<(LayerSpec, Locked)>> {
    let request =
        LockRequest { path: "/w/lambda-image.lock".into(), locked: false, complete: true, assets_from_lock: true };
    let locking = Locking { request, lock: lock.clone(), must_stay: false };
    let (mut packs, mut all) = (Vec::new(), Assets { packs: Vec::new(), found: Vec::new() });
    for (name, files, size) in assets.iter().copied() {
        let is_absent = absent.contains(&name);
        let to = format!("/var/task/{name}");
        let key = AssetKey { path: name.into(), to, exclude: Vec::new(), follow_symlinks: false };
        let told_layers = if is_absent { locking.told_layers(&key, 2) } else { 0 };
        let entries = if is_absent { Vec::new() } else { (0..files).map(|n| entry(name, n, size + n)).collect() };
        packs.push(Pack { name: name.into(), origin: Origin::Asset, entries, told_layers });
        let root = Path::new("/w").join(name);
        all.found.push(Found { key, name: name.into(), root, is_absent, is_file: false, pointers: BTreeMap::new() });
    }
    packs.push(Pack { name: "app".into(), origin: Origin::Binary, entries: vec![entry("app", 0, 1)], told_layers: 0 });
    let tree = Tree::default();
    let specs = plan::plan(packs, &tree, BASE_LAYERS)?;
    let on = Settling { tree: &tree, base_layers: BASE_LAYERS, level: 2 };
    let (specs, locked) = locking.settle(specs, &all, &on, &Session::silent())?;
    Ok(specs.into_iter().zip(locked).collect())
}

fn entry(asset: &str, number: u64, size: u64) -> Entry {
    let stat = Stat { identity: (1, number), size, modified: (0, 0), changed: (0, 0), links: 1 };
    let source = Source { path: "x".into(), follow: false, executable: false, stat };
    Entry { path: format!("var/task/{asset}/{number:03}").into(), content: Content::File(source) }
}

/// The lock that an image of these layers leaves, as it is read again.
fn lock_of(layers: &[(LayerSpec, Locked)]) -> Lock {
    let mut lock = Lock::default();
    for (spec, locked) in layers {
        let Some(key) = &locked.key else { continue };
        let (_, part, digest) = shown(spec, locked);
        let layer = LockedLayer {
            format: 1,
            diff_id: DiffId(digest),
            digest,
            size: 1,
            uncompressed_size: spec.tar_size(),
            files: files(spec),
            part,
            lfs: BTreeMap::new(),
            beside_lfs: None,
        };
        assert!(lock.layers.insert(key.clone(), layer).is_none(), "{key:?} is another layer's too");
    }
    let read = file::parse(&file::render(&lock)).expect("what was written");
    assert_eq!(read, lock);
    read
}

#[test]
fn layers_that_were_shared_for_their_number_come_from_the_lock_in_the_same_order() {
    let one = OWN_LAYER_BYTES;
    for (assets, absent) in [
        // As many layers as may be, without sharing.
        ([("a", 50, one), ("b", 40, one), ("c", 5, one)], &[&["a"][..], &["b"], &["a", "b", "c"]][..]),
        // All that share are files of the first, of the second, of the last.
        ([("a", 120, one), ("b", 3, 2 * one), ("c", 1, 2 * one)], &[&["a"], &["b", "c"], &["a", "b", "c"]]),
        ([("a", 40, 2 * one), ("b", 90, one), ("c", 1, 2 * one)], &[&["a"], &["b"], &["c"], &["a", "b"]]),
        ([("a", 1, 1 << 40), ("b", 2, 2 * one), ("c", 300, one)], &[&["a"], &["c"], &["a", "b", "c"]]),
    ] {
        let here = settled(&assets, &[], &Lock::default()).expect("all is here");
        assert!(BASE_LAYERS + here.len() <= LAYER_LIMIT);
        let lock = lock_of(&here);
        let expected: Vec<_> = here.iter().map(|(spec, locked)| shown(spec, locked)).collect();
        for absent in absent {
            let found = settled(&assets, absent, &lock).unwrap_or_else(|problem| panic!("{assets:?}: {problem}"));
            let found: Vec<_> = found.iter().map(|(spec, locked)| shown(spec, locked)).collect();
            assert_eq!(found, expected, "{assets:?} without {absent:?}");
        }
    }
}

#[test]
fn a_layer_that_the_lock_alone_cannot_tell_is_refused() {
    let one = OWN_LAYER_BYTES;
    let assets = [("a", 90, one), ("b", 5, 1), ("c", 30, one)];
    let lock = lock_of(&settled(&assets, &[], &Lock::default()).expect("all is here"));
    for absent in [&["a"][..], &["b"], &["a", "b", "c"]] {
        let problem = settled(&assets, absent, &lock).expect_err("it shares a layer with others");
        assert!(problem.message().contains("it shares a layer with other assets"), "{problem}");
        assert!(problem.message().contains("is not at `/w/"), "{problem}");
        assert_eq!(problem.exit().code(), 2);
    }
    // What was shared alone, in an image of other layers than this one.
    let assets = [("a", 120, one), ("b", 3, 2 * one), ("c", 1, 2 * one)];
    let lock = lock_of(&settled(&assets, &[], &Lock::default()).expect("all is here"));
    let more = [assets[0], assets[1], ("c", 3, 2 * one)];
    let problem = settled(&more, &["a"], &lock).expect_err("other files would share now");
    assert_eq!(problem.exit().code(), 2, "{problem}");
    let problem = settled(&assets[..2], &["a"], &lock).expect_err("fewer would share now");
    assert!(problem.message().contains("as the locked image had too many"), "{problem}");
}

#[test]
fn a_layer_shared_with_assets_of_another_image_is_nothing_to_this_one() {
    let one = OWN_LAYER_BYTES;
    let many = [("a", 90, one), ("b", 1, 1), ("c", 30, one)];
    let few = [("b", 1, 1)];
    let both = |assets: &Sizes| settled(assets, &[], &Lock::default()).expect("all is here");
    let mut lock = lock_of(&both(&many));
    lock.layers.extend(lock_of(&both(&few)).layers);
    let expected: Vec<_> = both(&few).iter().map(|(spec, locked)| shown(spec, locked)).collect();
    for absent in [&[][..], &["b"]] {
        let found = settled(&few, absent, &lock).unwrap_or_else(|problem| panic!("without {absent:?}: {problem}"));
        assert_eq!(found.iter().map(|(spec, locked)| shown(spec, locked)).collect::<Vec<_>>(), expected, "{absent:?}");
    }
}
