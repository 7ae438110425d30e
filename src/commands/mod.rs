//! One `run` a subcommand: each reads as the list of steps it is.
//!
//! Recipes join the rooms below and add what the user was after to their problems. They print nothing.

pub mod build;
mod draft;
pub mod init;
mod judge;
mod lock;
mod login;
pub mod outdated;
pub mod pages;
pub mod policy;
pub mod push;
pub mod update;
pub mod verify;

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use crate::event::{Event, Session};
use crate::image::layout;
use crate::oci::Digest;
use crate::problem::{Problem, Result};
use crate::store::Store;

/// The store at `root`, of which a dry run changes nothing.
async fn open_store(root: &Path, dry_run: bool, session: &Session) -> Result<Arc<Store>> {
    let (root, session) = (root.to_owned(), session.clone());
    let opened = blocking(move || if dry_run { Store::look(&root, &session) } else { Store::open(&root, &session) });
    Ok(Arc::new(opened.await?))
}

/// Removes blobs that neither an image of the layout nor `also` names.
async fn prune(store: &Arc<Store>, also: HashSet<Digest>, session: &Session) {
    let pruning = Arc::clone(store);
    let keep = move |store: &Store| Ok(layout::reachable(store)?.into_iter().chain(also).collect());
    // Blobs that stay cost space, not correctness; a damaged index must not turn what is done into a failure.
    if let Err(problem) = blocking(move || pruning.prune(|| keep(&pruning))).await {
        session.emit(&Event::Detail { message: &format!("old blobs were not removed: {problem}") });
    }
}

/// Runs an engine's blocking work on a thread of its own; the one crossing from async code to the engines.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Problem::failed("a part of the program panicked; this is a bug in it").because(error)),
    }
}
