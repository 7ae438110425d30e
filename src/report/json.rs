//! The messages of `--message-format json`: one object a line, keyed `reason` as Cargo's are.
//!
//! Keys are only ever added; one without a value is `null`, so that a reader need not ask whether it is there.

use serde::Serialize;

use crate::event::function::{DeployedFunction, FunctionPlan};
use crate::event::{Event, FunctionResult, ImageResult, LayerResult, PushPlan, PushStep, PushedLayer};
use crate::finding::{Finding, Severity, Verdict};
use crate::oci::Digest;
use crate::problem::Problem;

#[derive(Serialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
enum Message<'a> {
    BaseResolved {
        package: &'a str,
        bin: &'a str,
        reference: &'a str,
        digest: Option<Digest>,
        platform: &'a str,
    },
    ImageBuilt(Image<'a>),
    PushPlanned {
        package: &'a str,
        bin: &'a str,
        dry_run: bool,
        #[serde(flatten)]
        plan: &'a PushPlan,
    },
    LayerPushed {
        package: &'a str,
        bin: &'a str,
        #[serde(flatten)]
        layer: &'a PushedLayer,
    },
    ImagePushed(Pushed<'a>),
    Finding {
        package: Option<&'a str>,
        bin: Option<&'a str>,
        image: &'a str,
        #[serde(flatten)]
        finding: &'a Finding,
    },
    ImageVerified {
        image: &'a str,
        digest: Option<Digest>,
        platform: &'a str,
        layers: usize,
        uncompressed_size: u64,
        errors: usize,
        warnings: usize,
        notes: usize,
    },
    Explained {
        page: &'a str,
    },
    FunctionPlanned {
        package: &'a str,
        bin: &'a str,
        #[serde(flatten)]
        plan: &'a FunctionPlan,
    },
    FunctionUpdated {
        package: &'a str,
        bin: &'a str,
        #[serde(flatten)]
        function: &'a DeployedFunction,
    },
    IamPolicy {
        policy: serde_json::Value,
    },
    Wrote {
        package: &'a str,
        bin: &'a str,
        what: &'a str,
        path: &'a str,
    },
    Locked {
        path: &'a str,
        changes: &'a [String],
        dry_run: bool,
    },
    BaseCompared {
        reference: &'a str,
        platform: &'a str,
        locked: Digest,
        newest: Digest,
        outdated: bool,
    },
    Warning {
        message: &'a str,
        help: Option<&'a str>,
    },
    Error {
        message: &'a str,
        causes: Vec<String>,
        help: Option<&'a str>,
        code: u8,
    },
    Finished {
        success: bool,
    },
}

/// A [`LayerResult`] with what the result file leaves out.
#[derive(Serialize)]
struct Layer<'a> {
    #[serde(flatten)]
    layer: &'a LayerResult,
    reused: bool,
}

impl<'a> From<&'a LayerResult> for Layer<'a> {
    fn from(layer: &'a LayerResult) -> Self {
        Self { layer, reused: layer.reused }
    }
}

/// An [`ImageResult`] whose layers say whether they were reused.
#[derive(Serialize)]
struct Image<'a> {
    schema: u32,
    package: &'a str,
    bin: &'a str,
    digest: Digest,
    image_uri: Option<&'a str>,
    tags: &'a [String],
    platform: &'a str,
    size: u64,
    uncompressed_size: u64,
    layers: Vec<Layer<'a>>,
    functions: &'a [FunctionResult],
}

impl<'a> From<&'a ImageResult> for Image<'a> {
    fn from(image: &'a ImageResult) -> Self {
        Self {
            schema: image.schema,
            package: &image.package,
            bin: &image.bin,
            digest: image.digest,
            image_uri: image.image_uri.as_deref(),
            tags: &image.tags,
            platform: &image.platform,
            size: image.size,
            uncompressed_size: image.uncompressed_size,
            layers: image.layers.iter().map(Layer::from).collect(),
            functions: &image.functions,
        }
    }
}

/// An [`ImageResult`] with what its push did.
#[derive(Serialize)]
struct Pushed<'a> {
    #[serde(flatten)]
    image: &'a ImageResult,
    steps: Vec<PushStep>,
}

/// The message of an event, if it has one.
pub(super) fn message(event: &Event<'_>) -> Option<String> {
    let path;
    let message = match event {
        Event::BaseResolved { package, bin, reference, digest, platform } => {
            Message::BaseResolved { package, bin, reference, digest: *digest, platform }
        }
        Event::ImageBuilt { image } => Message::ImageBuilt((*image).into()),
        Event::PushPlanned { package, bin, plan, dry_run } => {
            Message::PushPlanned { package, bin, dry_run: *dry_run, plan }
        }
        Event::LayerPushed { package, bin, layer } => Message::LayerPushed { package, bin, layer },
        Event::ImagePushed { image, push } => {
            Message::ImagePushed(Pushed { image, steps: push.layers.iter().map(|layer| layer.step).collect() })
        }
        Event::Found { package, bin, finding } => {
            Message::Finding { package: Some(package), bin: Some(bin), image: bin, finding }
        }
        Event::Explained { page } => Message::Explained { page },
        Event::FunctionPlanned { package, bin, plan } => Message::FunctionPlanned { package, bin, plan },
        Event::FunctionUpdated { package, bin, function } => Message::FunctionUpdated { package, bin, function },
        Event::PolicyTold { policy } => {
            Message::IamPolicy { policy: serde_json::from_str(policy).unwrap_or_else(|_| (*policy).into()) }
        }
        Event::Wrote { package, bin, what, path: written } => {
            path = written.to_string_lossy();
            Message::Wrote { package, bin, what, path: &path }
        }
        Event::Locked { path: written, changes, dry_run } => {
            path = written.to_string_lossy();
            Message::Locked { path: &path, changes, dry_run: *dry_run }
        }
        Event::BaseCompared { reference, platform, locked, newest } => {
            let (locked, newest) = (*locked, *newest);
            Message::BaseCompared { reference, platform, locked, newest, outdated: locked != newest }
        }
        Event::Warning { message, help } => Message::Warning { message, help: *help },
        _ => return None,
    };
    Some(write(&message))
}

/// The messages of a report: the findings of each image, and a line that sums them up.
pub(super) fn verdicts(verdicts: &[Verdict], mut line: impl FnMut(&str)) {
    for verdict in verdicts {
        let Verdict { image, digest, platform, layers, uncompressed_size, findings } = verdict;
        for finding in findings {
            line(&write(&Message::Finding { package: None, bin: None, image, finding }));
        }
        line(&write(&Message::ImageVerified {
            image,
            digest: *digest,
            platform,
            layers: *layers,
            uncompressed_size: *uncompressed_size,
            errors: verdict.count(Severity::Error),
            warnings: verdict.count(Severity::Warning),
            notes: verdict.count(Severity::Note),
        }));
    }
}

/// The message of a failure.
pub(super) fn error(problem: &Problem) -> String {
    write(&Message::Error {
        message: problem.message(),
        causes: problem.causes(),
        help: problem.next_step(),
        code: problem.exit().code(),
    })
}

/// The last message of a run.
pub(super) fn finished(success: bool) -> String {
    write(&Message::Finished { success })
}

fn write(message: &Message<'_>) -> String {
    serde_json::to_string(message).expect("strings and numbers are always written")
}
