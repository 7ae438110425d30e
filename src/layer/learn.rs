//! What another machine found out about a layer, from the lock: recorded as if it had been found out here, so that the
//! steps which skip work need not know where their knowledge comes from. A blob in the store is looked into before it
//! is believed to be what was told: a lock that went wrong must not outlive its mending.
//!
//! Where a layer's files are not here it is all that is known, and the layer is there only if its blob is.

use std::io::{self, BufReader, Read as _};

use super::facts::LayerFacts;
use super::gunzip::Members;
use super::make::{BlobRecord, TarRecord, last_key, layer};
use super::plan::{LayerSpec, Told};
use super::{Layer, Pipeline};
use crate::oci::{Descriptor, DiffId, HashingWriter, media_type};
use crate::problem::{IoContext as _, Problem, Result};
use crate::store::{Kind, Store};

impl Told {
    /// The compressed bytes.
    #[must_use]
    pub fn descriptor(&self) -> Descriptor {
        let Self { digest, size, .. } = *self;
        Descriptor { media_type: media_type::OCI_LAYER_GZIP.to_owned(), digest, size }
    }
}

impl Pipeline {
    /// Records what a layer was when another machine made it: its tar is hashed before it is packed then, if it has the
    /// same size, and the digest of an equal tar is known. A blob made here stays what counts, unless only the other
    /// one is in the store.
    ///
    /// # Errors
    /// When a record cannot be written.
    pub fn learn(&self, spec: &LayerSpec, told: &Told, store: &Store) -> Result<()> {
        let Told { diff_id, digest, size, uncompressed_size } = *told;
        if spec.told.is_some() || spec.tar_size() != uncompressed_size {
            return Ok(());
        }
        let records = store.records();
        let (tar, last) = (TarRecord { diff_id, uncompressed_size }, last_key(spec, uncompressed_size));
        if records.get::<TarRecord>(Kind::Fingerprint, &last).as_ref() != Some(&tar) {
            records.put(Kind::Fingerprint, &last, &tar)?;
        }
        let (blob, key) = (BlobRecord { digest, size, uncompressed_size, told: true }, self.blob_key(diff_id));
        let is_better = match records.get::<BlobRecord>(Kind::Layer, &key) {
            None => true,
            Some(own) if (own.digest, own.size) == (digest, size) => false,
            // What was said before counts no more than what is said now.
            Some(own) if own.told => true,
            Some(own) => {
                store.contains(&told.descriptor()) || !store.contains(&made(spec, &own, tar, store).descriptor)
            }
        };
        if is_better {
            records.put(Kind::Layer, &key, &blob)?;
        }
        Ok(())
    }

    /// The layer that the lock tells of, if its bytes are in the store.
    pub(super) fn told_in_store(&self, spec: &LayerSpec, told: &Told, store: &Store) -> Result<Layer> {
        let Told { diff_id, digest, size, uncompressed_size } = *told;
        let layer = told_layer(spec, told, store);
        if !store.contains(&layer.descriptor) {
            let message = format!("layer `{}` ({digest}) is not in the store, and its files are not here", spec.name);
            return Err(Problem::failed(message).help("run the command again, which fetches it"));
        }
        let known = store.records().get::<BlobRecord>(Kind::Layer, &self.blob_key(diff_id));
        let claim = BlobRecord { digest, size, uncompressed_size, told: true };
        if self.is_known(diff_id, &known.filter(|known| known.digest == digest).unwrap_or(claim), store) {
            return Ok(layer);
        }
        let message = format!("blob {digest} is not the layer `{}` that the lock says it is", spec.name);
        Err(Problem::failed(message).help("take back what changed the lock, or build once where the files are"))
    }

    /// Whether a blob that is in the store is the layer of this tar: known from making it or from pulling it, or looked
    /// into now, once.
    pub(super) fn is_known(&self, diff_id: DiffId, blob: &BlobRecord, store: &Store) -> bool {
        if !blob.told {
            return true;
        }
        let pulled = || {
            let facts = store.records().get::<LayerFacts>(Kind::Facts, &diff_id.to_string());
            facts.and_then(|facts| facts.gzip).is_some_and(|(digest, _)| digest == blob.digest)
        };
        if !pulled() && tar_of(blob, store).ok() != Some(diff_id) {
            return false;
        }
        // Without the record it is looked into again.
        let _ = store.records().put(Kind::Layer, &self.blob_key(diff_id), &BlobRecord { told: false, ..blob.clone() });
        true
    }
}

/// The digest of what a blob decompresses to.
fn tar_of(blob: &BlobRecord, store: &Store) -> Result<DiffId> {
    let failed = || format!("could not read blob {}", blob.digest);
    let descriptor =
        Descriptor { media_type: media_type::OCI_LAYER_GZIP.to_owned(), digest: blob.digest, size: blob.size };
    let file = BufReader::with_capacity(1 << 20, store.open_blob(&descriptor)?);
    // A lie about its size must not cost more than the truth would have.
    let mut tar = Members::new(file).take(blob.uncompressed_size + 1);
    let mut hasher = HashingWriter::new(io::sink());
    io::copy(&mut tar, &mut hasher).or_failed(failed)?;
    Ok(DiffId(hasher.finish().1))
}

fn made(spec: &LayerSpec, blob: &BlobRecord, tar: TarRecord, store: &Store) -> Layer {
    layer(spec.name.clone(), spec.origin, store, tar.diff_id, blob, true)
}

/// The layer that the lock tells of, wherever its bytes are.
pub(super) fn told_layer(spec: &LayerSpec, told: &Told, store: &Store) -> Layer {
    let Told { diff_id, digest, size, uncompressed_size } = *told;
    let blob = BlobRecord { digest, size, uncompressed_size, told: true };
    made(spec, &blob, TarRecord { diff_id, uncompressed_size }, store)
}

#[cfg(test)]
mod tests {
    use super::super::Origin;
    use super::super::entries::{Content, Entry, Source, Stat};
    use super::super::make::Reuse;
    use super::*;
    use crate::event::Session;
    use crate::oci::{DiffId, Digest};

    struct World {
        directory: tempfile::TempDir,
        pipeline: Pipeline,
    }

    impl World {
        fn new() -> Self {
            Self { directory: tempfile::tempdir().expect("a temporary directory"), pipeline: Pipeline::new(1, 2) }
        }

        fn store(&self, name: &str) -> Store {
            Store::open(&self.directory.path().join(name), &Session::silent()).expect("a store")
        }

        fn spec(&self, content: &[u8]) -> LayerSpec {
            let path = self.directory.path().join("file");
            std::fs::write(&path, content).expect("written");
            let stat = Stat::of(&std::fs::metadata(&path).expect("there"));
            let source = Source { path, follow: false, executable: false, stat };
            let entries = vec![Entry { path: "file".into(), content: Content::File(source) }];
            LayerSpec::new("file".into(), Origin::Asset, entries, vec![0])
        }

        fn recall(&self, spec: &LayerSpec, store: &Store) -> Option<Digest> {
            let layer = self.pipeline.recall(spec, store, &Session::silent()).expect("readable");
            layer.map(|layer| layer.descriptor.digest)
        }
    }

    fn told(layer: &Layer) -> Told {
        let Layer { diff_id, uncompressed_size, ref descriptor, .. } = *layer;
        Told { diff_id, digest: descriptor.digest, size: descriptor.size, uncompressed_size }
    }

    #[test]
    fn an_equal_tar_has_the_digest_that_was_told_and_another_has_none() {
        let world = World::new();
        let (first, second) = (world.store("first"), world.store("second"));
        let spec = world.spec(b"content");
        let session = Session::silent();
        let made = world.pipeline.make(std::slice::from_ref(&spec), &first, &session, Reuse::Records).expect("made");
        assert_eq!(world.recall(&spec, &second), None);
        world.pipeline.learn(&spec, &told(&made[0]), &second).expect("learned");
        assert_eq!(world.recall(&spec, &second), Some(made[0].descriptor.digest));
        assert_eq!(world.recall(&world.spec(b"CONTENT"), &second), None, "the same size and other bytes");
    }

    #[test]
    fn a_blob_that_is_here_counts_more_than_one_that_is_told_of() {
        let world = World::new();
        let (store, session) = (world.store("store"), Session::silent());
        let spec = world.spec(b"content");
        let specs = std::slice::from_ref(&spec);
        let made = world.pipeline.make(specs, &store, &session, Reuse::Records).expect("made").remove(0);
        let other = Told { digest: Digest::of(b"other compressor"), ..told(&made) };
        world.pipeline.learn(&spec, &other, &store).expect("learned");
        assert_eq!(world.recall(&spec, &store), Some(made.descriptor.digest));
        std::fs::remove_file(&made.blob).expect("removed");
        world.pipeline.learn(&spec, &other, &store).expect("learned");
        assert_eq!(world.recall(&spec, &store), Some(other.digest));
    }

    #[test]
    fn a_blob_is_looked_into_before_it_is_what_was_told() {
        let world = World::new();
        let (store, session) = (world.store("store"), Session::silent());
        let spec = world.spec(b"content");
        let make = |spec: &LayerSpec, store: &Store| {
            let specs = std::slice::from_ref(spec);
            world.pipeline.make(specs, store, &session, Reuse::Records).map(|mut layers| layers.remove(0))
        };
        let right = make(&spec, &world.store("elsewhere")).expect("made");
        let wrong =
            Told { digest: make(&world.spec(b"CONTENT"), &store).expect("made").descriptor.digest, ..told(&right) };
        let spec = world.spec(b"content");
        world.pipeline.learn(&spec, &wrong, &store).expect("learned");
        assert_eq!(make(&spec, &store).expect("made again").descriptor, right.descriptor, "another layer's blob");
        let absent = |told| LayerSpec { entries: Vec::new(), told: Some(told), ..spec.clone() };
        let problem = make(&absent(wrong), &store).expect_err("another layer's blob");
        assert!(problem.message().contains("is not the layer `file`"), "{problem}");
        // The right one need not be made.
        let other = world.store("other");
        std::fs::copy(&right.blob, other.blob_path(&right.descriptor.digest)).expect("copied");
        world.pipeline.learn(&spec, &told(&right), &other).expect("learned");
        assert!(make(&spec, &other).expect("there").reused);
        assert!(make(&absent(told(&right)), &other).is_ok());
    }

    #[test]
    fn a_layer_without_files_is_there_only_with_its_blob() {
        let world = World::new();
        let (store, session) = (world.store("store"), Session::silent());
        let spec = world.spec(b"content");
        let made =
            world.pipeline.make(std::slice::from_ref(&spec), &store, &session, Reuse::Records).expect("made").remove(0);
        let absent = LayerSpec { entries: Vec::new(), told: Some(told(&made)), ..spec };
        let again =
            world.pipeline.make(std::slice::from_ref(&absent), &store, &session, Reuse::Nothing).expect("there");
        assert_eq!((again[0].diff_id, &again[0].descriptor), (made.diff_id, &made.descriptor));
        let gone = Told { digest: Digest::of(b"gone"), diff_id: DiffId(Digest::of(b"")), ..told(&made) };
        let gone = LayerSpec { told: Some(gone), ..absent };
        assert_eq!(world.recall(&gone, &store), Some(Digest::of(b"gone")), "wherever its bytes are");
        let problem = world.pipeline.make(&[gone], &store, &session, Reuse::Records).expect_err("no blob");
        assert_eq!(problem.exit().code(), 1);
    }
}
