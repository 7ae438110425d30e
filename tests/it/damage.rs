//! Records and layout under attack: whatever happens to one of the program's own files, the next build is right or says
//! what is wrong; and assets that were rewritten behind their time stamps' backs are seen to have changed.

mod pushes;

use std::collections::BTreeMap;
use std::fs::{self, File, FileTimes};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use cargo_lambda_image::oci::Digest;

use crate::support::assets::text;
use crate::support::images::{Family, TestImage, gzip, tar_with_links};
use crate::support::program::{Outcome, Program};
use crate::support::project;
use crate::support::read_only::ReadOnly;
use crate::support::registry::FaultRegistry;
use crate::support::site::{Site, names};
use crate::support::tools::{poll, succeed, tool};

/// The only digest of a build.
fn digest(program: Program) -> Digest {
    let digests = program.succeed();
    assert_eq!(digests.len(), 1);
    digests[0]
}

/// Every file of the program's directory that means something.
fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for name in names(directory) {
        let path = directory.join(name);
        if path.is_dir() {
            files.extend(files_below(&path));
        } else if path.extension().is_none_or(|extension| extension != "lock") && !path.ends_with("tmp/lock") {
            files.push(path);
        }
    }
    files
}

/// Waits until files are old enough for their time stamps to be believed.
fn age(paths: &[PathBuf]) {
    let changed = |path: &PathBuf| fs::metadata(path).expect("there").ctime();
    let youngest = paths.iter().map(changed).max().expect("a file");
    poll("the files to age", || (now() > youngest + 3).then_some(()));
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock");
    i64::try_from(since.as_secs()).expect("a date")
}

/// A site on a base, built, with everything recorded that can be.
struct Built {
    site: Site,
    base: String,
    _registry: FaultRegistry,
    digest: Digest,
    layout: BTreeMap<PathBuf, Digest>,
    result: Vec<u8>,
}

impl Built {
    const ASSETS: [&str; 2] = ["notes.txt", "table.txt"];

    fn new() -> Self {
        let site = Site::new();
        let image = TestImage::new(Family::Oci, "amd64");
        let registry = FaultRegistry::builder().image("a", "1", &image).start();
        let base = format!("{}/a:1", registry.address);
        site.write("table.txt", &text(50_000));
        age(&Self::ASSETS.map(|name| site.project().join(name)));
        let build = || site.build_on(&base, &Self::ASSETS);
        let expected = digest(build());
        assert_eq!(digest(build()), expected);
        // By the stat of its files each, and by what was there last.
        assert_eq!(names(&site.store().join("records/fingerprints")).len(), 4);
        let layout = project::files_below(&site.layout());
        let result = fs::read(site.store().join("site.json")).expect("a result");
        Self { digest: expected, layout, result, base, _registry: registry, site }
    }

    fn build(&self) -> Program {
        self.site.build_on(&self.base, &Self::ASSETS)
    }

    /// Every file of the store, told by its place in it.
    fn files(&self) -> Vec<PathBuf> {
        files_below(&self.site.store())
    }

    fn shown<'a>(&self, path: &'a Path) -> std::path::Display<'a> {
        path.strip_prefix(self.site.store()).expect("below").display()
    }

    /// Fails unless there is exactly the image that other people's tools read.
    fn assert_right(&self, outcome: &Outcome, what: &str) {
        assert_eq!(outcome.code, 0, "{what}: {}", outcome.stderr);
        assert_eq!(outcome.stdout.trim(), self.digest.to_string(), "{what}");
        assert_eq!(project::files_below(&self.site.layout()), self.layout, "{what}");
        assert_eq!(fs::read(self.site.store().join("site.json")).expect("a result"), self.result, "{what}");
        self.site.assert_tidy();
    }

    /// Has skopeo and umoci read it.
    fn assert_readable(&self) {
        let out = self.site.path("read");
        let layout = self.site.layout().display().to_string();
        let from = format!("oci:{layout}:site");
        succeed(Command::new(tool("skopeo")).args(["copy", "-q", &from]).arg(format!("dir:{}", out.display())));
        fs::remove_dir_all(&out).expect("removed");
        let unpack = ["unpack", "--rootless", "--image", &format!("{layout}:site")];
        succeed(Command::new(tool("umoci")).args(unpack).arg(&out));
        for name in Self::ASSETS {
            let (unpacked, asset) = (out.join("rootfs/var/task").join(name), self.site.project().join(name));
            assert_eq!(fs::read(unpacked).expect("unpacked"), fs::read(asset).expect("an asset"), "{name}");
        }
        fs::remove_dir_all(&out).expect("removed");
    }
}

/// Something that happens to the first file; the second is another one.
type Damage = fn(&Path, &Path);

/// What may happen to a file.
const DAMAGES: [(&str, Damage); 7] = [
    ("truncated", |path, _| {
        let file = File::options().write(true).open(path).expect("opened");
        file.set_len(file.metadata().expect("its size").len() / 2).expect("truncated");
    }),
    ("flipped", |path, _| flip(path)),
    ("flipped, with the times of before", |path, _| {
        let metadata = fs::metadata(path).expect("there");
        flip(path);
        set_modified(path, metadata.modified().expect("a time"));
    }),
    ("emptied", |path, _| fs::write(path, "").expect("written")),
    ("removed", |path, _| fs::remove_file(path).expect("removed")),
    ("swapped", |path, other| {
        let aside = path.with_extension("aside");
        fs::rename(path, &aside).expect("renamed");
        fs::rename(other, path).expect("renamed");
        fs::rename(&aside, other).expect("renamed");
    }),
    ("made a link", |path, other| {
        fs::remove_file(path).expect("removed");
        std::os::unix::fs::symlink(other, path).expect("linked");
    }),
];

fn flip(path: &Path) {
    let mut bytes = fs::read(path).expect("read");
    let middle = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 1;
    }
    fs::write(path, bytes).expect("written");
}

fn set_modified(path: &Path, time: SystemTime) {
    let file = File::options().write(true).open(path).expect("opened");
    file.set_times(FileTimes::new().set_modified(time)).expect("set");
}

#[test]
fn whatever_happens_to_one_file_the_next_build_is_right() {
    let built = Built::new();
    built.assert_readable();
    let mut damaged = 0;
    for (what, damage) in DAMAGES {
        let files = built.files();
        for (index, path) in files.iter().enumerate() {
            // One of the same kind, most often, and one of another.
            for step in [1, files.len() / 2] {
                let other = &files[(index + step) % files.len()];
                damage(path, other);
                damaged += 1;
                let told = format!("{} {what}, the other is {}", built.shown(path), built.shown(other));
                built.assert_right(&built.build().run(), &told);
                if !["swapped", "made a link"].contains(&what) {
                    break;
                }
            }
        }
    }
    assert!(damaged > 150, "only {damaged} damages");
    built.assert_readable();
}

#[test]
fn files_that_cannot_be_written_cost_nothing_or_are_named() {
    let built = Built::new();
    let mut named = 0;
    for path in built.files() {
        let shown = built.shown(&path).to_string();
        let read_only = ReadOnly::new(&path);
        built.assert_right(&built.build().run(), &format!("{shown} read-only"));
        // Now everything is written again, or would be.
        let outcome = built.build().arg("--no-cache").run();
        if outcome.code == 0 {
            built.assert_right(&outcome, &format!("{shown} read-only, without the records"));
        } else {
            named += 1;
            assert_eq!((outcome.code, outcome.stdout.as_str()), (1, ""), "{shown}: {}", outcome.stderr);
            assert!(outcome.stderr.contains(&shown), "{shown}: {}", outcome.stderr);
            assert_eq!(project::files_below(&built.site.layout()), built.layout, "{shown}");
            built.site.assert_tidy();
            drop(read_only);
            built.assert_right(&built.build().run(), &format!("{shown} after it was read-only"));
        }
    }
    assert!(named > 5, "only {named} files were to be written");
}

#[test]
fn a_damaged_file_that_cannot_be_mended_is_never_used() {
    let built = Built::new();
    for path in built.files() {
        let shown = built.shown(&path).to_string();
        let whole = fs::read(&path).expect("read");
        flip(&path);
        let read_only = ReadOnly::new(&path);
        let outcome = built.build().run();
        if outcome.code == 0 {
            assert_eq!(outcome.stdout.trim(), built.digest.to_string(), "{shown}");
            // Of what others read, nothing may stay damaged while the program says that all is well.
            let layout = project::files_below(&built.site.layout());
            assert_eq!(layout, built.layout, "{shown}");
        } else {
            assert_eq!((outcome.code, outcome.stdout.as_str()), (1, ""), "{shown}: {}", outcome.stderr);
            assert!(outcome.stderr.contains(&shown), "{shown}: {}", outcome.stderr);
        }
        drop(read_only);
        fs::write(&path, whole).expect("written");
        built.assert_right(&built.build().run(), &shown);
    }
}

#[test]
fn a_rewritten_asset_is_seen_whatever_its_modification_time_says() {
    let site = Site::new();
    let asset = site.project().join("table.txt");
    // A time in the future says nothing of what has happened since.
    for years in [-20, 0, 70] {
        fs::write(&asset, text(50_000)).expect("written");
        let modified =
            SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(now() + years * 31_557_600).expect("a date"));
        set_modified(&asset, modified);
        age(std::slice::from_ref(&asset));
        let build = || digest(site.build(&["table.txt"]));
        let first = build();
        assert_eq!(build(), first);
        let mut bytes = fs::read(&asset).expect("read");
        bytes[30_000] ^= 1;
        let before = fs::metadata(&asset).expect("there");
        fs::write(&asset, &bytes).expect("written");
        set_modified(&asset, modified);
        let after = fs::metadata(&asset).expect("there");
        let told = |it: &fs::Metadata| (it.len(), it.ino(), it.mtime(), it.mtime_nsec());
        assert_eq!(told(&after), told(&before), "only its ctime tells");
        let second = build();
        assert_ne!(second, first, "{years} years");
        let fresh = site.build(&["table.txt"]).arg("--target-dir").arg(site.path("fresh")).arg("--no-cache");
        assert_eq!(second, digest(fresh), "{years} years");
    }
}

#[test]
fn a_clock_that_was_set_back_does_no_harm() {
    let built = Built::new();
    let future = SystemTime::now() + Duration::from_secs(70 * 31_557_600);
    for path in built.files() {
        set_modified(&path, future);
    }
    built.assert_right(&built.build().run(), "everything is of the future");
    // What is believed of an asset of the future is nothing: it is read each time, and its bytes count.
    let asset = built.site.project().join("notes.txt");
    set_modified(&asset, future);
    age(std::slice::from_ref(&asset));
    let recorded = names(&built.site.store().join("records/fingerprints"));
    built.assert_right(&built.build().run(), "an asset is of the future");
    assert_eq!(names(&built.site.store().join("records/fingerprints")), recorded);
    fs::write(&asset, "FIRST").expect("written");
    set_modified(&asset, future);
    let changed = digest(built.build());
    assert_ne!(changed, built.digest);
    built.site.assert_holds(&changed);
}

#[test]
fn a_base_whose_facts_were_lost_is_looked_through_again() {
    let site = Site::new();
    let tar = tar_with_links(&[("usr/lib64/libc.so".into(), vec![0; 9])], &[("lib64".into(), "usr/lib64".into())]);
    for (name, compress) in [("gzip", gzip as fn(&[u8]) -> Vec<u8>), ("plain", <[u8]>::to_vec)] {
        let registry = FaultRegistry::builder()
            .image("a", "1", &TestImage::of(Family::Oci, "amd64", std::slice::from_ref(&tar), compress))
            .start();
        let base = format!("{}/a:1", registry.address);
        digest(site.build_on(&base, &["notes.txt"]));
        let facts = site.store().join("records/facts-4");
        let damages: [fn(&Path); 2] = [
            |facts| fs::remove_dir_all(facts).expect("removed"),
            |facts| files_below(facts).iter().for_each(|file| fs::write(file, "{}").expect("written")),
        ];
        for damage in damages {
            damage(&facts);
            let outcome = site.build_on(&base, &["notes.txt:/lib64/notes.txt"]).run();
            assert_eq!(outcome.code, 2, "{name}: {}", outcome.stderr);
            assert!(outcome.stderr.contains("usr/lib64"), "{name}: {}", outcome.stderr);
        }
    }
}
