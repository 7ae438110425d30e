//! A base's layers from where they are straight to whoever takes them: nothing touches the disk.
//!
//! The bytes are verified on the way; who takes them withholds the last until they were.

use std::io::{Read as _, Write as _};

use super::{Base, Compression, Source};
use crate::oci::Descriptor;
use crate::problem::{IoContext as _, Problem, Result};
use crate::registry::feed::{self, Made, PIECE_BYTES, PieceWriter};

impl Base {
    /// Makes the bytes of the layer at `index`, lowest first, as they lie at their source. `None` when there is no such
    /// layer, or when it is not gzip and so has to be packed first.
    #[must_use]
    pub fn layer_source(&self, index: usize) -> Option<feed::Source> {
        let layer = self.layers.get(index).filter(|layer| layer.compression == Compression::Gzip)?.clone();
        let descriptor = layer.descriptor;
        match self.source.clone() {
            Source::Scratch => None,
            Source::Registry { client, repository } => {
                let context = {
                    let what = self.holder.words().0;
                    format!("could not take layer {} of {what} `{}`", descriptor.digest, self.shown)
                };
                Some(feed::Source::new(move |pieces| {
                    let (client, repository) = (client.clone(), repository.clone());
                    let (descriptor, context) = (descriptor.clone(), context.clone());
                    Box::pin(async move {
                        let pulled = client.blob(&repository, &descriptor, &pieces).await;
                        pulled.map_err(|error| Problem::from(error).context(context))?;
                        Ok(Made { digest: descriptor.digest, size: descriptor.size })
                    })
                }))
            }
            Source::Local(files) => {
                let path = layer.path.unwrap_or_default();
                Some(feed::Source::blocking(move |pieces| {
                    let (reader, _) = files.open(&path)?;
                    copy(reader, &descriptor, pieces)
                }))
            }
        }
    }

    /// The registry and repository the layers are in, if they are in one.
    #[must_use]
    pub fn repository(&self) -> Option<(&str, &str)> {
        match &self.source {
            Source::Registry { client, repository } => Some((client.origin().name(), repository)),
            Source::Scratch | Source::Local(_) => None,
        }
    }
}

/// Reads a layer to its end, at most one piece further than it should go.
fn copy(reader: Box<dyn std::io::Read + Send>, descriptor: &Descriptor, mut pieces: PieceWriter) -> Result<Made> {
    let mut reader = reader.take(descriptor.size.saturating_add(1));
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        let count = reader.read(&mut buffer).or_failed(|| format!("could not read layer {}", descriptor.digest))?;
        if count == 0 {
            return pieces.finish();
        }
        pieces.write_all(&buffer[..count]).or_failed(|| format!("could not send layer {}", descriptor.digest))?;
    }
}
