//! Layers made again: what is read, hashed and compressed the second time, and what failures leave behind.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::thread;
use std::time::{Duration, SystemTime};

use cargo_lambda_image::event::{Event, Reporter, Session, TaskKind};
use cargo_lambda_image::layer::entries::Content;
use cargo_lambda_image::layer::gzip::DEFAULT_LEVEL;
use cargo_lambda_image::layer::make::Reuse;
use cargo_lambda_image::layer::{Layer, Pipeline};
use cargo_lambda_image::problem::{Exit, Result};
use cargo_lambda_image::store::Store;

use crate::support::assets::{asset, layers_of, noise, text};

/// Hears which tasks were started and how far they came.
#[derive(Clone, Default)]
struct Ear {
    started: Arc<Mutex<Vec<TaskKind>>>,
    advanced_bytes: Arc<AtomicU64>,
    /// Stopped at the first progress, if it is there.
    stop: Arc<OnceLock<Session>>,
}

impl Reporter for Ear {
    fn event(&self, event: &Event<'_>) {
        match event {
            Event::TaskStarted { kind, .. } => self.started.lock().expect("no panic").push(*kind),
            Event::TaskAdvanced { bytes, .. } => {
                self.advanced_bytes.fetch_add(*bytes, Ordering::Relaxed);
                if let Some(session) = self.stop.get() {
                    session.stop(Exit::Interrupted);
                }
            }
            _ => {}
        }
    }
}

fn make_asset(directory: &Path, path: &str, root: &Path, reuse: Reuse) -> (Result<Vec<Layer>>, Vec<TaskKind>) {
    let ear = Ear::default();
    let session = Session::new(Box::new(ear.clone()));
    let specs = layers_of(&asset(directory, path)).expect("a plan");
    let store = Store::open(root, &session).expect("a store");
    let layers = Pipeline::new(2, DEFAULT_LEVEL).make(&specs, &store, &session, reuse);
    let started = ear.started.lock().expect("no panic").clone();
    (layers, started)
}

/// A place with an asset `a` of two files, and a store.
struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir(directory.path().join("a")).expect("made");
        fs::write(directory.path().join("a/text"), text(1_200_000)).expect("written");
        fs::write(directory.path().join("a/noise"), noise(7, 300_000)).expect("written");
        Self { directory }
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("a/text")
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("store")
    }

    fn make(&self, reuse: Reuse) -> (Layer, Vec<TaskKind>) {
        let (layers, started) = make_asset(self.directory.path(), "a", &self.root(), reuse);
        let mut layers = layers.expect("made");
        assert_eq!(layers.len(), 1);
        let layer = layers.remove(0);
        assert_eq!(fs::metadata(&layer.blob).expect("a blob").len(), layer.descriptor.size);
        (layer, started)
    }

    /// Everything below a folder of the store.
    fn files(&self, folder: &str) -> Vec<PathBuf> {
        walkdir::WalkDir::new(self.root().join(folder))
            .into_iter()
            .map(|entry| entry.expect("listed"))
            .filter(|entry| entry.file_type().is_file() && entry.file_name() != "lock")
            .map(walkdir::DirEntry::into_path)
            .collect()
    }
}

#[test]
fn nothing_is_read_when_nothing_changed_and_files_are_old_enough() {
    // The sources of this program are older than the compiler's run that made this test.
    let place = tempfile::tempdir().expect("a temporary directory");
    let make = || make_asset(Path::new(env!("CARGO_MANIFEST_DIR")), "src/layer", place.path(), Reuse::Records);
    let (first, started) = make();
    assert_eq!(started, [TaskKind::Layer]);
    let (second, started) = make();
    assert_eq!(started, [], "no task, no byte");
    let (first, second) = (first.expect("made"), second.expect("found"));
    assert_eq!((first[0].reused, second[0].reused), (false, true));
    assert_eq!(Layer { reused: true, ..first[0].clone() }, second[0]);
}

#[test]
fn fresh_files_are_hashed_again_and_not_compressed() {
    let place = Place::new();
    let (first, started) = place.make(Reuse::Records);
    assert_eq!((first.reused, started), (false, vec![TaskKind::Layer]));
    let (second, started) = place.make(Reuse::Records);
    assert_eq!((second.reused, started), (true, vec![TaskKind::Hash]));
    assert_eq!((first.descriptor, first.diff_id), (second.descriptor, second.diff_id));
}

#[test]
fn a_touched_file_costs_a_hash_and_changed_content_a_new_layer() {
    let place = Place::new();
    let first = place.make(Reuse::Records).0;
    let touch = File::options().write(true).open(place.file()).expect("opened");
    touch.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000)).expect("touched");
    let (touched, started) = place.make(Reuse::Records);
    assert_eq!((touched.reused, started, &touched.descriptor), (true, vec![TaskKind::Hash], &first.descriptor));

    let mut content = fs::read(place.file()).expect("read");
    content[1000] ^= 1;
    fs::write(place.file(), &content).expect("changed");
    let (changed, started) = place.make(Reuse::Records);
    assert_eq!((changed.reused, started), (false, vec![TaskKind::Hash, TaskKind::Layer]));
    assert_ne!(changed.diff_id, first.diff_id);

    content.extend(text(600));
    fs::write(place.file(), &content).expect("grown");
    let (grown, started) = place.make(Reuse::Records);
    assert_eq!((grown.reused, started), (false, vec![TaskKind::Layer]), "another size is known to be another tar");
}

#[test]
fn a_damaged_or_deleted_blob_is_made_again_the_same() {
    let damage: [fn(&Path); 4] = [
        |blob| fs::remove_file(blob).expect("deleted"),
        |blob| fs::write(blob, b"").expect("emptied"),
        |blob| File::options().write(true).open(blob).and_then(|file| file.set_len(1000)).expect("truncated"),
        |blob| File::options().write(true).open(blob).expect("opened").write_all(b"\x1f\x8c").expect("flipped"),
    ];
    for damage in damage {
        let place = Place::new();
        let first = place.make(Reuse::Records).0;
        damage(&first.blob);
        let again = place.make(Reuse::Records).0;
        assert_eq!((&again.descriptor, again.diff_id), (&first.descriptor, first.diff_id));
        assert!(place.make(Reuse::Records).0.reused);
    }
}

#[test]
fn any_record_may_be_lost_or_torn() {
    let place = Place::new();
    let first = place.make(Reuse::Records).0;
    let records = place.files("records");
    assert!(records.len() >= 4, "{records:?}");
    for record in &records {
        fs::remove_file(record).expect("lost");
        let again = place.make(Reuse::Records).0;
        assert_eq!((&again.descriptor, again.diff_id), (&first.descriptor, first.diff_id), "{}", record.display());
        assert!(record.exists(), "{} was not found out again", record.display());
        File::options().write(true).open(record).and_then(|file| file.set_len(70)).expect("torn");
        let again = place.make(Reuse::Records).0;
        assert_eq!((&again.descriptor, again.diff_id), (&first.descriptor, first.diff_id), "{}", record.display());
    }
}

#[test]
fn without_reuse_everything_is_made_again() {
    let place = Place::new();
    let first = place.make(Reuse::Records).0;
    fs::write(&first.blob, b"damaged").expect("written");
    let (again, started) = place.make(Reuse::Nothing);
    assert_eq!((again.reused, started, &again.descriptor), (false, vec![TaskKind::Layer], &first.descriptor));
}

#[test]
fn two_builds_at_once_agree() {
    let place = Place::new();
    let made: Vec<_> = thread::scope(|scope| {
        let builds: Vec<_> = (0..4).map(|_| scope.spawn(|| place.make(Reuse::Records).0.descriptor)).collect();
        builds.into_iter().map(|build| build.join().expect("no panic")).collect()
    });
    assert!(made.iter().all(|descriptor| *descriptor == made[0]), "{made:?}");
    assert_eq!(place.files("layout").len(), 1);
    assert!(place.files("tmp").is_empty());
}

#[test]
fn an_interrupted_build_leaves_nothing_under_a_final_name() {
    let place = Place::new();
    let ear = Ear::default();
    let session = Session::new(Box::new(ear.clone()));
    assert!(ear.stop.set(session.clone()).is_ok());
    // A hole of more bytes than could be read in this test's time.
    File::create(place.directory.path().join("a/large")).and_then(|file| file.set_len(1 << 40)).expect("a sparse file");
    let specs = layers_of(&asset(place.directory.path(), "a/large")).expect("a plan");
    let store = Store::open(&place.root(), &session).expect("a store");
    let problem = Pipeline::new(1, 0).make(&specs, &store, &session, Reuse::Records).expect_err("interrupted");
    assert_eq!(problem.exit(), Exit::Interrupted, "{problem}");
    drop(store);
    let left = ["layout", "tmp", "records"].map(|folder| place.files(folder)).concat();
    assert!(left.is_empty(), "{left:?}");
}

/// Fails once it has taken so many bytes.
struct Failing(usize);

impl Write for Failing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.0 {
            return Err(io::Error::other("the sink is full"));
        }
        self.0 -= bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Runs `work` and fails instead of hanging when it deadlocks.
fn guarded<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, result) = mpsc::channel();
    thread::spawn(move || done.send(work()));
    result.recv_timeout(Duration::from_secs(120)).expect("no deadlock")
}

#[test]
fn a_failing_sink_ends_its_layer_with_its_error_and_no_other() {
    // Six layers of more blocks than the budget has share it; every other one fails somewhere.
    for after in [0, 5, 100_000, 3 << 20] {
        guarded(move || {
            let pipeline = Pipeline::new(3, 0);
            let session = Session::silent();
            let one = |index: usize| {
                let fails = index.is_multiple_of(2);
                let room = if fails { after } else { usize::MAX };
                let task = session.task(TaskKind::Layer, "test", None);
                let produce = |sink: &mut cargo_lambda_image::layer::BlockWriter<'_>| -> Result<()> {
                    for _ in 0..30 {
                        sink.write_all(&[1; 1 << 20]).map_err(|error| {
                            cargo_lambda_image::problem::Problem::failed("the producer's view").because(error)
                        })?;
                    }
                    Ok(())
                };
                let result = pipeline.run(Failing(room), &task, &session, produce);
                match result {
                    Ok(packed) => assert_eq!((fails, packed.uncompressed_size), (false, 30 << 20)),
                    Err(problem) => {
                        assert_eq!((fails, problem.causes()), (true, vec!["the sink is full".to_owned()]), "{after}");
                    }
                }
            };
            thread::scope(|scope| {
                for index in 0..6 {
                    scope.spawn(move || one(index));
                }
            });
            // Nothing of the budget was lost.
            one(1);
        });
    }
}

#[test]
fn when_one_layer_fails_the_others_stop() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let path = place.path().to_owned();
    let ear = Ear::default();
    let hears = ear.clone();
    let message = guarded(move || {
        fs::create_dir(path.join("a")).expect("made");
        // A hole of more bytes than could be read in this test's time.
        File::create(path.join("a/large")).and_then(|file| file.set_len(1 << 40)).expect("a sparse file");
        fs::write(path.join("a/gone"), b"x").expect("written");
        let specs = layers_of(&asset(&path, "a")).expect("a plan");
        assert_eq!(specs.len(), 2);
        let gone = specs.iter().flat_map(|spec| &spec.entries).any(|entry| match &entry.content {
            Content::File(source) => source.path.ends_with("gone"),
            _ => false,
        });
        assert!(gone);
        fs::remove_file(path.join("a/gone")).expect("removed");
        let session = Session::new(Box::new(hears));
        let store = Store::open(&path.join("store"), &session).expect("a store");
        let problem = Pipeline::new(2, 9).make(&specs, &store, &session, Reuse::Records).expect_err("a file is gone");
        problem.causes().join(": ")
    });
    assert!(message.contains("gone"), "{message}");
    assert!(ear.advanced_bytes.load(Ordering::Relaxed) < 1 << 40);
}
