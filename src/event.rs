//! The facts engines and recipes tell while they work, and the one trait that hears them.
//!
//! Nothing here decides how a fact looks: `report` does. A [`Session`] travels with the work and carries the listener
//! and the request to stop.

pub mod function;
pub mod run;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use self::function::{DeployedFunction, FunctionPlan, FunctionStep};
use self::run::{Hidden, Phase};
use crate::finding::{Finding, Verdict};
use crate::oci::{DiffId, Digest};
use crate::problem::{Exit, Problem, Result};

/// Something that happened. Names and sizes are as people should see them; bytes count uncompressed tar or pulled blob.
#[expect(missing_docs, reason = "each variant's sentence names its fields")]
#[derive(Debug, Clone)]
pub enum Event<'a> {
    /// A part of the run began, and the one before it is over.
    PhaseStarted { phase: Phase<'a> },
    /// A secret is about to be used for the first time; it may be told more than once.
    SecretLearned { secret: Hidden<'a> },
    /// A line of cargo's JSON messages, as cargo printed it.
    CargoMessage { line: &'a str },
    /// A line that cargo wrote to its stderr, where that is not this process's own.
    CargoSaid { line: &'a str },
    /// A base image's reference is being resolved.
    BaseResolving { reference: &'a str },
    /// The base of an image was resolved to one manifest; `digest` is absent for `scratch`.
    BaseResolved { package: &'a str, bin: &'a str, reference: &'a str, digest: Option<Digest>, platform: &'a str },
    /// The layers of an image are about to be made: how many there are.
    LayersStarted { bin: &'a str, count: usize },
    /// A piece of work whose progress can be counted began.
    TaskStarted { task: TaskId, kind: TaskKind, name: &'a str, total_bytes: Option<u64> },
    /// `bytes` more of a task are done.
    TaskAdvanced { task: TaskId, bytes: u64 },
    /// A task ended; `outcome` says how, for people.
    TaskFinished { task: TaskId, outcome: TaskOutcome },
    /// Something failed and is tried again after a delay.
    Retrying { what: &'a str, why: &'a str, delay: Duration },
    /// Another process holds what this one needs.
    Waiting { what: &'a str },
    /// Something the user should know and may want to change.
    Warning { message: &'a str, help: Option<&'a str> },
    /// A fact for `-v` only.
    Detail { message: &'a str },
    /// A file or directory with an image was written.
    Wrote { package: &'a str, bin: &'a str, what: &'a str, path: &'a Path },
    /// What a push has to do is known; in a dry run it is all that is told, and the answer.
    PushPlanned { package: &'a str, bin: &'a str, plan: &'a PushPlan, dry_run: bool },
    /// A layer is confirmed to be in the repository; layers come as they get there, not in the image's order.
    LayerPushed { package: &'a str, bin: &'a str, layer: &'a PushedLayer },
    /// An image is in the repository under all its tags.
    ImagePushed { image: &'a ImageResult, push: &'a PushResult },
    /// A rule found something in an image that is about to be built.
    Found { package: &'a str, bin: &'a str, finding: &'a Finding },
    /// Images were checked: the report, and the answer.
    Checked { verdicts: &'a [Verdict] },
    /// A page of the reference was asked for, and is the answer.
    Explained { page: &'a str },
    /// What has to be done to a function is known: told in a dry run only.
    FunctionPlanned { package: &'a str, bin: &'a str, plan: &'a FunctionPlan },
    /// A function is about to be changed: `what` names the image, or the alias and its version.
    FunctionStarted { name: &'a str, step: FunctionStep, what: &'a str },
    /// Lambda is busy with a function, or one of its versions, which is `doing` something in the words of its API.
    FunctionWaiting { name: &'a str, version: Option<&'a str>, doing: &'a str, elapsed: Duration, limit: Duration },
    /// A function is as it was asked to be, whether or not something had to be done.
    FunctionUpdated { package: &'a str, bin: &'a str, function: &'a DeployedFunction },
    /// Functions of an image that was pushed are brought to it: what its result file says now.
    ImageDeployed { image: &'a ImageResult },
    /// The IAM policy that was asked for, as JSON.
    PolicyTold { policy: &'a str },
    /// An image is complete.
    ImageBuilt { image: &'a ImageResult },
    /// The lock was written, or in a dry run would be: what changed, a line each.
    Locked { path: &'a Path, changes: &'a [String], dry_run: bool },
    /// What a locked base's reference means now.
    BaseCompared { reference: &'a str, platform: &'a str, locked: Digest, newest: Digest },
    /// Something in the project was found, and what becomes of it.
    Proposed { what: &'a str, becomes: &'a str },
    /// A text, such as a table of settings, was added to a file of the project's.
    Added { what: &'a str, path: &'a Path },
    /// A text that was asked for, such as completions of a shell: printed as it is, by commands that speak no JSON.
    Document { text: &'a str },
    /// Everything asked for is done.
    Finished { elapsed: Duration },
}

/// The number of a task within its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TaskId(pub u64);

/// What kind of work a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskKind {
    /// Bytes of a base come from a registry or archive.
    Pull,
    /// A tar is only hashed, since its compressed form is already known.
    Hash,
    /// A layer is packed, hashed and compressed.
    Layer,
    /// An archive or layout is written.
    Write,
    /// A layer of somebody's image is looked through; its bytes count as they are stored.
    Check,
    /// A blob is sent to a registry; its bytes count as they are on the wire.
    Push,
}

/// How a task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskOutcome {
    /// Its work was done.
    Done,
    /// It turned out that nothing had to be done.
    Reused,
    /// It failed, or was stopped.
    Failed,
}

/// What a build made of one binary: the result file, the closing table, and the JSON message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageResult {
    /// The version of this form: 1.
    pub schema: u32,
    /// The Cargo package, or the project's name without Cargo.
    pub package: String,
    /// The binary, which names the image.
    pub bin: String,
    /// The digest of the manifest.
    pub digest: Digest,
    /// `HOST/REPO@sha256:...` of the last push of this digest.
    pub image_uri: Option<String>,
    /// The tags of the last push of this digest.
    pub tags: Vec<String>,
    /// `linux/amd64` or `linux/arm64`.
    pub platform: String,
    /// Bytes of manifest, config and compressed layers.
    pub size: u64,
    /// Bytes of all layers' tars.
    pub uncompressed_size: u64,
    /// The layers, base first.
    pub layers: Vec<LayerResult>,
    /// The functions the last push of this digest brought to it.
    pub functions: Vec<FunctionResult>,
    /// Bytes that the last push of this digest sent, mounted ones not counted.
    pub sent_bytes: Option<u64>,
    /// Bytes that were there before it, or in another repository.
    pub reused_bytes: Option<u64>,
}

/// One layer of an [`ImageResult`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerResult {
    /// A name for people.
    pub name: String,
    /// The digest of the compressed bytes.
    pub digest: Digest,
    /// The digest of the tar.
    pub diff_id: DiffId,
    /// Compressed bytes.
    pub size: u64,
    /// Bytes of the tar.
    pub uncompressed_size: u64,
    /// The media type in the manifest.
    pub media_type: String,
    /// Whether the bytes were already there before this build; known only while building.
    #[serde(skip)]
    pub reused: bool,
}

/// One function of an [`ImageResult`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionResult {
    /// The function's name.
    pub name: String,
    /// The published version.
    pub version: Option<String>,
    /// The alias that points to it.
    pub alias: Option<String>,
}

/// How a layer gets into a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PushStep {
    /// It is there.
    Reuse,
    /// Another repository of the registry has it, and may lend it.
    Mount,
    /// It comes straight from the base's registry.
    Relay,
    /// It is sent from here.
    Upload,
}

impl fmt::Display for PushStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reuse => "reuse",
            Self::Mount => "mount",
            Self::Relay => "relay",
            Self::Upload => "upload",
        })
    }
}

/// One layer of a [`PushPlan`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedLayer {
    /// A name for people.
    pub name: String,
    /// The digest of the compressed bytes, if it is known before they are made.
    pub digest: Option<Digest>,
    /// What is to be done.
    pub step: PushStep,
    /// Compressed bytes, or the most that there can be.
    pub size: u64,
    /// Whether `size` is only the most that there can be.
    pub at_most: bool,
}

/// What becomes of a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TagStep {
    /// There is none of that name yet.
    Create,
    /// It points to the image.
    Stay,
    /// It points to another image, or the digest of this one is not known yet.
    Move,
}

/// One tag of a [`PushPlan`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedTag {
    /// The tag.
    pub tag: String,
    /// The digest it points to now.
    pub digest: Option<Digest>,
    /// What is to be done.
    pub step: TagStep,
    /// Whether the repository is known to let it point to one image only.
    pub immutable: bool,
}

/// What a push has to do, before it does it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushPlan {
    /// `HOST/REPOSITORY`.
    pub repository: String,
    /// Whether there is no such repository, and it would be made.
    pub creates_repository: bool,
    /// The digest of the manifest, if all layers are known before they are made.
    pub digest: Option<Digest>,
    /// The tags it gets, without the one that has its digest in it while that is not known.
    pub tags: Vec<PlannedTag>,
    /// The layers, base first.
    pub layers: Vec<PlannedLayer>,
    /// Bytes that are there.
    pub reused_bytes: u64,
    /// Bytes that are asked of other repositories.
    pub mounted_bytes: u64,
    /// Bytes that come from the base's registry.
    pub relayed_bytes: u64,
    /// Bytes that are sent from here, or the most that there can be.
    pub uploaded_bytes: u64,
    /// Whether `uploaded_bytes` is only the most that there can be.
    pub at_most: bool,
}

/// A layer that a repository has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushedLayer {
    /// A name for people.
    pub name: String,
    /// The digest of the compressed bytes.
    pub digest: Digest,
    /// Compressed bytes.
    pub size: u64,
    /// How it got there.
    pub step: PushStep,
}

/// What a push did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushResult {
    /// `HOST/REPOSITORY@sha256:...`.
    pub image_uri: String,
    /// The digest of the manifest.
    pub digest: Digest,
    /// All tags that point to it now, by this push.
    pub tags: Vec<String>,
    /// The layers, base first.
    pub layers: Vec<PushedLayer>,
    /// Bytes of layers, config and manifest that were sent, mounted ones not counted.
    pub sent_bytes: u64,
    /// Bytes that were there or in another repository.
    pub reused_bytes: u64,
}

/// Hears what happens.
pub trait Reporter: Send + Sync {
    /// Called from any thread, in the order things happen within one thread.
    fn event(&self, event: &Event<'_>);
}

/// What travels with the work: who listens, and whether to stop.
#[derive(Clone)]
pub struct Session {
    shared: Arc<Shared>,
    /// Whether images that are built on the way to something else are told of.
    tells_results: bool,
}

struct Shared {
    reporter: Box<dyn Reporter>,
    next_task: AtomicU64,
    /// 0 while running, else 1 for SIGINT and 2 for SIGTERM.
    stop: AtomicU8,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Session")
    }
}

impl Session {
    /// A session that tells `reporter`.
    pub fn new(reporter: Box<dyn Reporter>) -> Self {
        let shared = Shared { reporter, next_task: AtomicU64::new(0), stop: AtomicU8::new(0) };
        Self { shared: Arc::new(shared), tells_results: true }
    }

    /// A session nobody listens to.
    #[must_use]
    pub fn silent() -> Self {
        struct Silent;
        impl Reporter for Silent {
            fn event(&self, _: &Event<'_>) {}
        }
        Self::new(Box::new(Silent))
    }

    /// Tells that something happened.
    pub fn emit(&self, event: &Event<'_>) {
        if !self.tells_results && matches!(event, Event::ImageBuilt { .. } | Event::Finished { .. }) {
            return;
        }
        self.shared.reporter.event(event);
    }

    /// The same session for a step whose results are not the answer: images that are built to be checked.
    #[must_use]
    pub fn for_a_step(&self) -> Self {
        Self { tells_results: false, ..self.clone() }
    }

    /// Tells of a warning.
    pub fn warn(&self, message: &str, help: Option<&str>) {
        self.emit(&Event::Warning { message, help });
    }

    /// Begins a task; dropping it unfinished counts as failed.
    #[must_use]
    pub fn task(&self, kind: TaskKind, name: &str, total_bytes: Option<u64>) -> Task {
        let id = TaskId(self.shared.next_task.fetch_add(1, Ordering::Relaxed));
        self.emit(&Event::TaskStarted { task: id, kind, name, total_bytes });
        Task { session: self.clone(), id, finished: false }
    }

    /// Asks all work to stop: [`Session::check`] fails from now on.
    pub fn stop(&self, exit: Exit) {
        let code = if exit == Exit::Terminated { 2 } else { 1 };
        self.shared.stop.store(code, Ordering::Relaxed);
    }

    /// Fails once the session was asked to stop; long loops call it every few hundred milliseconds at least.
    ///
    /// # Errors
    /// A problem of class [`Exit::Interrupted`] or [`Exit::Terminated`].
    pub fn check(&self) -> Result<()> {
        match self.shared.stop.load(Ordering::Relaxed) {
            0 => Ok(()),
            1 => Err(Problem::new(Exit::Interrupted, "interrupted")),
            _ => Err(Problem::new(Exit::Terminated, "terminated")),
        }
    }
}

/// A piece of work in progress.
#[derive(Debug)]
pub struct Task {
    session: Session,
    id: TaskId,
    finished: bool,
}

impl Task {
    /// `bytes` more are done.
    pub fn advance(&self, bytes: u64) {
        self.session.emit(&Event::TaskAdvanced { task: self.id, bytes });
    }

    /// The work is over.
    pub fn finish(mut self, outcome: TaskOutcome) {
        self.finished = true;
        self.session.emit(&Event::TaskFinished { task: self.id, outcome });
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if !self.finished {
            self.session.emit(&Event::TaskFinished { task: self.id, outcome: TaskOutcome::Failed });
        }
    }
}
