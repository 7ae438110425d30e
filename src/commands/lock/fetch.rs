//! Blobs of layers whose files are not here, fetched for a layout that is to be complete.

use std::sync::Arc;

use super::assets::Locked;
use crate::base::{self, Base};
use crate::commands::draft::Draft;
use crate::commands::login::Logins;
use crate::commands::push::target;
use crate::config::{BuildRequest, Destination};
use crate::event::Session;
use crate::layer::Pipeline;
use crate::layer::plan::LayerSpec;
use crate::oci::Descriptor;
use crate::problem::{Problem, Result};
use crate::store::Store;

/// Brings the blobs of layers whose files are not here into the store, from the repository of their image.
///
/// # Errors
/// When there is no repository, or it does not have them: asset, digest and place are named.
pub(in crate::commands) async fn blobs(
    request: &BuildRequest,
    drafts: &[Draft],
    logins: &Logins,
    store: &Arc<Store>,
    session: &Session,
) -> Result<()> {
    for (index, draft) in drafts.iter().enumerate() {
        let missing = missing(draft, store);
        let Some(first) = missing.first() else { continue };
        let absent = |(spec, locked): &(&LayerSpec, &Locked), why: String| {
            let root = locked.expected.as_ref().map(|root| root.display().to_string()).unwrap_or_default();
            let digest = spec.told.map(|told| told.digest.to_string()).unwrap_or_default();
            Problem::failed(format!("asset `{}` is not at `{root}`, and its layer {digest} {why}", spec.name))
        };
        let destination = request.blobs.get(index).and_then(Option::as_ref);
        let Some(destination) = destination.filter(|_| !request.offline) else {
            return Err(match request.offline {
                true => absent(first, "is not in the store, and `--offline` forbids to fetch it".into())
                    .help("run once without `--offline`"),
                false => absent(first, "is not in the store, and no repository is named that could have it".into())
                    .help("name it with the key `repository`, where the asset is named"),
            });
        };
        let from = Destination { create_repository: false, ..destination.clone() };
        let reached = target::reach(&from, true, logins, session).await?;
        let shown = reached.target.shown();
        let layers: Vec<_> =
            missing.iter().filter_map(|(spec, _)| spec.told).map(|told| (told.descriptor(), told.diff_id)).collect();
        let (client, repository) = (Arc::clone(&reached.target.client), reached.target.repository.clone());
        for (layer, of) in layers.iter().zip(&missing) {
            let Descriptor { digest, .. } = layer.0;
            if !client.has_blob(&repository, &layer.0).await? {
                let why = format!("is not in `{shown}`");
                return Err(absent(of, why).help("push once from a machine that has the files"));
            }
            tracing::debug!(%digest, name = of.0.name, "fetching");
        }
        let blobs = Base::of_blobs(client, repository, shown, draft.base.architecture, layers);
        let pipeline = Arc::new(Pipeline::new(request.threads, draft.request.compression_level));
        base::pull(&blobs, store, &pipeline, session).await?;
    }
    Ok(())
}

/// The layers of a draft that cannot be made, and whose blobs are not here.
fn missing<'a>(draft: &'a Draft, store: &Store) -> Vec<(&'a LayerSpec, &'a Locked)> {
    let is_missing = |spec: &LayerSpec| spec.told.is_some_and(|told| !store.contains(&told.descriptor()));
    draft.specs.iter().zip(&draft.locked).filter(|(spec, _)| is_missing(spec)).collect()
}
