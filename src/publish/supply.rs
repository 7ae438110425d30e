//! Where the bytes of a layer come from when the registry lacks them: a file of the store, or a recipe.

use std::io::{Read as _, Write as _};
use std::sync::{Arc, Mutex, PoisonError};

use crate::event::Session;
use crate::layer::plan::LayerSpec;
use crate::layer::{Layer, Pipeline};
use crate::oci::{Descriptor, Digest};
use crate::problem::{IoContext as _, Problem};
use crate::registry::feed::{Made, PIECE_BYTES, Pieces, Source};
use crate::store::Store;

/// The bytes of a blob in the store.
#[must_use]
pub fn stored(store: &Arc<Store>, descriptor: &Descriptor) -> Source {
    let (store, descriptor) = (Arc::clone(store), descriptor.clone());
    Source::blocking(move |mut pieces| {
        let path = store.blob_path(&descriptor.digest);
        let mut file = store.open_blob(&descriptor)?;
        let mut buffer = vec![0; PIECE_BYTES];
        loop {
            let count = file.read(&mut buffer).or_failed(|| format!("could not read `{}`", path.display()))?;
            if count == 0 {
                break;
            }
            pieces.write_all(&buffer[..count]).or_failed(|| format!("could not send `{}`", path.display()))?;
        }
        let made = pieces.finish()?;
        if made.digest != descriptor.digest {
            return Err(Problem::failed(format!(
                "blob `{}` is damaged: its digest is {}",
                path.display(),
                made.digest
            ))
            .help("delete the file and run the command again"));
        }
        Ok(made)
    })
}

/// Holds the layer a recipe made, once it was made.
pub type Cell = Arc<Mutex<Option<Layer>>>;

/// The bytes of a layer made from its files, and kept nowhere; what it was is left in the cell.
#[must_use]
pub fn recipe(spec: LayerSpec, pipeline: &Arc<Pipeline>, store: &Arc<Store>, session: &Session) -> (Source, Cell) {
    let cell = Cell::default();
    let (left, pipeline, store, session) = (cell.clone(), Arc::clone(pipeline), Arc::clone(store), session.clone());
    let source = Source::blocking(move |pieces| {
        let finish = |pieces: Pieces, _: &Digest| pieces.finish();
        let layer = pipeline.make_into(&spec, pieces.unhashed(), finish, &store, &session)?;
        let Descriptor { digest, size, .. } = layer.descriptor;
        *left.lock().unwrap_or_else(PoisonError::into_inner) = Some(layer);
        Ok(Made { digest, size })
    });
    (source, cell)
}
