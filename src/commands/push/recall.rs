//! What the records know of layers before any is made, and whether the lock would stay as it is.

use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::commands::blocking;
use crate::commands::draft::Draft;
use crate::commands::lock::Locking;
use crate::config::BuildRequest;
use crate::event::Session;
use crate::layer::plan::LayerSpec;
use crate::layer::{Layer, Pipeline};
use crate::problem::Result;
use crate::store::Store;

/// Refuses a push that would change the lock before anything is sent, as far as it is known what layers will be: what
/// is known of those of each draft.
pub(super) async fn foresee(
    build: &BuildRequest,
    drafts: &[Draft],
    locking: &Locking,
    store: &Arc<Store>,
    session: &Session,
) -> Result<Vec<Vec<Option<Layer>>>> {
    locking.foresee_by_size(drafts)?;
    let mut foreseen = Vec::new();
    for draft in drafts {
        let pipeline = Arc::new(Pipeline::new(build.threads, draft.request.compression_level));
        foreseen.push(recall(draft, &pipeline, |_| true, store, session).await?);
    }
    let images: Vec<_> = drafts.iter().zip(foreseen.iter().map(Vec::as_slice)).collect();
    locking.foresee(&images, session)?;
    Ok(foreseen)
}

/// What the records know of each layer to be made, where they are `believed`; assets whose files were touched are hashed for it, several at once.
pub(super) async fn recall(
    draft: &Draft,
    pipeline: &Arc<Pipeline>,
    believed: impl Fn(&LayerSpec) -> bool,
    store: &Arc<Store>,
    session: &Session,
) -> Result<Vec<Option<Layer>>> {
    let at_once = pipeline.layers_at_once();
    let recalls = draft.specs.iter().cloned().map(|spec: LayerSpec| {
        let (pipeline, store, session) = (Arc::clone(pipeline), Arc::clone(store), session.clone());
        let is_asked_for = spec.told.is_some() || believed(&spec);
        async move {
            if !is_asked_for {
                return Ok(None);
            }
            blocking(move || pipeline.recall(&spec, &store, &session)).await
        }
    });
    stream::iter(recalls).buffered(at_once).try_collect().await
}
