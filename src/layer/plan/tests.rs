//! Tables of what shares a layer and of what is refused.

use super::super::entries::{Source, Stat};
use super::super::facts::{EntryFacts, LayerFacts};
use super::*;
use crate::problem::Exit;

fn file(path: &str, size: u64) -> Entry {
    let stat = Stat { identity: (1, 2), size, modified: (3, 4), changed: (5, 6), links: 1 };
    let source = Source { path: "x".into(), follow: false, executable: false, stat };
    Entry { path: path.into(), content: Content::File(source) }
}

fn directory(path: &str) -> Entry {
    Entry { path: path.into(), content: Content::Directory { mode: 0o755 } }
}

fn pack(name: &str, entries: Vec<Entry>) -> Pack {
    Pack { name: name.into(), origin: Origin::Asset, entries, told_layers: 0 }
}

/// A usr-merged base.
fn base() -> Tree {
    let node = |path: &str, kind, mode, link: Option<&str>| EntryFacts {
        path: path.into(),
        kind,
        mode,
        size: 0,
        link: link.map(str::to_owned),
        written: None,
    };
    let entries = vec![
        node("usr", EntryKind::Directory, 0o555, None),
        node("usr/lib64", EntryKind::Directory, 0o555, None),
        node("lib64", EntryKind::Symlink, 0o777, Some("usr/lib64")),
        node("var", EntryKind::Directory, 0o755, None),
        node("var/run", EntryKind::Symlink, 0o777, Some("/run")),
        node("tmp", EntryKind::Directory, 0o1777, None),
        node("etc", EntryKind::Directory, 0o755, None),
        node("etc/hosts", EntryKind::File, 0o640, None),
        node("etc/second", EntryKind::Hardlink, 0o640, Some("etc/hosts")),
    ];
    Tree::merge([&LayerFacts { entries, ..LayerFacts::default() }])
}

/// The layers' names with their paths; a directory with a mode of its own shows it.
fn laid_out(layers: &[LayerSpec]) -> Vec<String> {
    let shown = |entry: &Entry| match entry.content {
        Content::Directory { mode: 0o755 } => format!("{}/", entry.path.display()),
        Content::Directory { mode } => format!("{}/ {mode:o}", entry.path.display()),
        _ => entry.path.display().to_string(),
    };
    let layer = |layer: &LayerSpec| layer.entries.iter().map(shown).collect::<Vec<_>>().join(", ");
    layers.iter().map(|spec| format!("{}: {}", spec.name, layer(spec))).collect()
}

#[test]
fn large_files_have_their_own_layers_and_the_rest_shares_one() {
    let assets = vec![
        file("var/task/m/b.bin", OWN_LAYER_BYTES),
        directory("var/task/m"),
        file("var/task/m/small", OWN_LAYER_BYTES - 1),
        file("var/task/m/a.bin", OWN_LAYER_BYTES + 1),
        directory("var/task/m/empty"),
        file("var/task/m/v2/a.bin", OWN_LAYER_BYTES),
    ];
    let single = vec![file("var/task/db", OWN_LAYER_BYTES)];
    let held = vec![directory("var/task/h"), file("var/task/h/model", OWN_LAYER_BYTES)];
    let binary = Pack {
        name: "bin".into(),
        origin: Origin::Binary,
        entries: vec![file("var/runtime/bootstrap", OWN_LAYER_BYTES)],
        told_layers: 0,
    };
    let packs =
        vec![pack("m", assets), pack("db", single), pack("h", held), pack("e", vec![directory("opt/e")]), binary];
    assert_eq!(
        laid_out(&plan(packs, &Tree::default(), 4).expect("a plan")),
        [
            "m/a.bin: var/, var/task/, var/task/m/, var/task/m/a.bin",
            "m/b.bin: var/, var/task/, var/task/m/, var/task/m/b.bin",
            "m/v2/a.bin: var/, var/task/, var/task/m/, var/task/m/v2/, var/task/m/v2/a.bin",
            "m: var/, var/task/, var/task/m/, var/task/m/empty/, var/task/m/small",
            "db: var/, var/task/, var/task/db",
            "h/model: var/, var/task/, var/task/h/, var/task/h/model",
            "e: opt/, opt/e/",
            "bin: var/, var/runtime/, var/runtime/bootstrap",
        ]
    );
}

#[test]
fn entries_are_sorted_by_bytes_whatever_order_they_came_in() {
    let mut entries = vec![file("a.b", 1), directory("a"), file("a/c", 1), file("a-b", 1), file("a/B", 1)];
    let expected = ["x: a/, a-b, a.b, a/B, a/c"];
    for _ in 0..entries.len() {
        entries.rotate_left(1);
        let layers = plan(vec![pack("x", entries.clone())], &Tree::default(), 0).expect("a plan");
        assert_eq!(laid_out(&layers), expected);
    }
}

#[test]
fn directories_the_base_has_keep_its_modes() {
    let entries = vec![file("tmp/a", 1), file("usr/lib64/b", 1), file("usr/share/c", 1), directory("etc")];
    let layers = plan(vec![pack("x", entries)], &base(), 1).expect("a plan");
    let expected = "x: etc/, tmp/ 1777, tmp/a, usr/ 555, usr/lib64/ 555, usr/lib64/b, usr/share/, usr/share/c";
    assert_eq!(laid_out(&layers), [expected]);
}

#[test]
fn what_would_replace_a_part_of_the_base_or_of_another_asset_is_refused() {
    let table = [
        (vec![file("a", 1), file("a", 1)], vec![], "`/a` has two sources: two sources within `one`"),
        (vec![file("a", 1)], vec![file("a", 1)], "`/a` has two sources: `one` and `two`"),
        (vec![directory("a")], vec![file("a", 1)], "`/a` has two sources: `one` and `two`"),
        (vec![file("a", 1)], vec![directory("a")], "`/a` has two sources: `one` and `two`"),
        (vec![file("a/b", 1)], vec![file("a", 1)], "`/a` has two sources: `two` and `one`"),
        (vec![file("a", 1)], vec![file("a/b/c", 1)], "`/a` has two sources: `one` and `two`"),
        (
            vec![file("lib64/x", 1)],
            vec![],
            "`one` goes through `/lib64`, which is a symlink to `usr/lib64` in the base image",
        ),
        (
            vec![directory("lib64")],
            vec![],
            "`one` goes through `/lib64`, which is a symlink to `usr/lib64` in the base image",
        ),
        (
            vec![file("var/run/a/b", 1)],
            vec![],
            "`one` goes through `/var/run`, which is a symlink to `/run` in the base image",
        ),
        (vec![file("etc", 1)], vec![], "`one` would replace the directory `/etc` of the base image by a file"),
        (
            vec![directory("etc/hosts")],
            vec![],
            "`one` would replace the file `/etc/hosts` of the base image by a directory",
        ),
        (vec![file("etc/hosts/x", 1)], vec![], "`one` has files below `/etc/hosts`, which is a file in the base image"),
        (
            vec![file("etc/second/x", 1)],
            vec![],
            "`one` has files below `/etc/second`, which is a file in the base image",
        ),
    ];
    for (one, two, expected) in table {
        let problem = plan(vec![pack("one", one), pack("two", two)], &base(), 1).expect_err(expected);
        assert_eq!(problem.message(), expected);
        assert!(problem.next_step().is_some(), "{expected}");
    }
    let fine = vec![file("etc/hosts", 1), file("lib64", 1), directory("a"), file("a/b", 1)];
    assert!(plan(vec![pack("one", fine), pack("two", vec![directory("a")])], &base(), 1).is_ok());
}

#[test]
fn past_a_hundred_layers_the_smallest_share_one() {
    let packs = |count: u64| {
        let one = |n| pack(&format!("p{n:03}"), vec![file(&format!("var/task/{n:03}"), 1000 - n)]);
        let mut packs: Vec<_> = (0..count).map(one).collect();
        let entries = vec![file("bootstrap", 0)];
        packs.push(Pack { name: "bin".into(), origin: Origin::Binary, entries, told_layers: 0 });
        packs
    };
    assert_eq!(plan(packs(94), &Tree::default(), 5).expect("a plan").len(), 95, "as many as there is room for");
    let layers = plan(packs(97), &Tree::default(), 5).expect("a plan");
    assert_eq!(layers.len(), 95);
    let (binary, assets) = layers.split_last().expect("layers");
    assert_eq!((binary.name.as_str(), binary.entries.len()), ("bin", 1));
    let (shared, own) = assets.split_last().expect("layers");
    assert_eq!(own.iter().map(|layer| layer.name.as_str()).next_back(), Some("p092"));
    assert_eq!(shared.packs, [93, 94, 95, 96]);
    let expected = "small assets: var/, var/task/, var/task/093, var/task/094, var/task/095, var/task/096";
    assert_eq!(laid_out(std::slice::from_ref(shared)), [expected]);
    assert_eq!(plan(packs(3), &Tree::default(), 98).expect("a plan").len(), 2, "the binary never shares");
    for base_layers in [99, 200] {
        let problem = plan(packs(3), &Tree::default(), base_layers).expect_err("too many");
        assert_eq!(problem.exit(), Exit::Refused);
        assert!(problem.message().contains(&format!("{} layers", base_layers + 2)), "{problem}");
        assert!(problem.next_step().is_some());
    }
}

#[test]
fn the_shared_layer_lies_behind_the_others_whichever_are_the_smallest() {
    let mut entries: Vec<_> = (0..120).map(|n| file(&format!("var/task/m/{n:03}"), OWN_LAYER_BYTES + n)).collect();
    entries.push(file("var/task/m/config", 1));
    let packs = vec![pack("m", entries), pack("db", vec![file("var/task/db", 2 * OWN_LAYER_BYTES)])];
    let layers = plan(packs, &Tree::default(), 4).expect("a plan");
    let names: Vec<_> = layers.iter().map(|layer| layer.name.as_str()).collect();
    assert_eq!(
        (names.len(), &names[..2], &names[93..]),
        (96, &["m/026", "m/027"][..], &["m/119", "db", SHARED_NAME][..])
    );
    assert_eq!(layers[95].entries.len(), 3 + 26 + 1);
}

#[test]
fn what_is_not_here_counts_with_the_layers_it_is_told_to_have() {
    let here: Vec<_> = (0..60).map(|n| file(&format!("var/task/m/{n:02}"), OWN_LAYER_BYTES + n)).collect();
    let packs = |told_layers| {
        let absent = Pack { name: "absent".into(), origin: Origin::Asset, entries: Vec::new(), told_layers };
        vec![absent, pack("m", here.clone())]
    };
    for (told_layers, own, shared) in [(36, 60, 0), (37, 58, 2), (90, 5, 55)] {
        let layers = plan(packs(told_layers), &Tree::default(), 4).expect("a plan");
        assert_eq!((layers[0].name.as_str(), layers[0].entries.len()), ("absent", 0), "it shares with nobody");
        let sharing = layers.iter().find(|layer| layer.name == SHARED_NAME);
        let files = sharing.map_or(0, |layer| layer.entries.len() - 3);
        assert_eq!((layers.len() - 1 - sharing.iter().len(), files), (own, shared), "told {told_layers}");
    }
    let problem = plan(packs(97), &Tree::default(), 4).expect_err("too many");
    assert!(problem.message().contains("would have 102 layers"), "{problem}");
}

#[test]
fn what_was_made_on_another_base_is_refused_on_this_one() {
    let modes = |of: &[(&str, u32)]| of.iter().map(|(path, mode)| (PathBuf::from(path), *mode)).collect();
    for (destination, made_for, refused) in [
        ("var/task/m", modes(&[]), None),
        ("opt/x/m", modes(&[]), None),
        ("tmp/m", modes(&[("tmp", 0o1777)]), None),
        ("tmp/m", modes(&[]), Some("`m` was locked for a base with other permissions of `/tmp`")),
        ("opt/m", modes(&[("opt", 0o700)]), Some("`m` was locked for a base with other permissions of `/opt`")),
        ("usr/m", modes(&[("usr", 0o555), ("usr/lib64", 0o555)]), None),
        ("lib64/m", modes(&[]), Some("`m` goes through `/lib64`, which is a symlink to `usr/lib64` in the base image")),
    ] {
        let fits = fits_base("m", Path::new(destination), &made_for, &base());
        assert_eq!(fits.err().map(|problem| problem.message().to_owned()).as_deref(), refused, "{destination}");
    }
}
