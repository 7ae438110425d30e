//! The lock while images are made: read once, asked for what it knows, and written when all that was found out is.
//!
//! - [`assets`]: what the lock makes of assets, here or not;
//! - [`fetch`]: the blobs of those that are not.
//!
//! Builds may run at once, so what is written is what the file says then, with this build's findings laid over it.

pub(super) mod assets;
pub(super) mod fetch;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::blocking;
use super::draft::Draft;
use crate::base::reference::BaseReference;
use crate::config::{ImageRequest, LockRequest};
use crate::event::{Event, Session};
use crate::layer::facts::LayerFacts;
use crate::layer::gzip::FORMAT_VERSION;
use crate::layer::plan::{LayerSpec, Told};
use crate::layer::tree::Tree;
use crate::layer::{Layer, Pipeline, lfs};
use crate::lock::change::{Change, changes, foreseen};
use crate::lock::{BaseKey, FILE_NAME, Findings, LayerKey, Lock, LockedBase, LockedLayer, file};
use crate::oci::Digest;
use crate::platform::Architecture;
use crate::problem::{Problem, Result};
use crate::store::lock::wait;
use crate::store::{Hold, Store};

/// The lock as it was when the command began, and what may become of it.
#[derive(Debug)]
pub(super) struct Locking {
    pub request: LockRequest,
    pub lock: Lock,
    /// Whether changes of it are to be foreseen, since they would be refused once they are found out.
    pub must_stay: bool,
}

/// A layer that an image was made of.
pub(super) struct Used<'a> {
    pub key: &'a LayerKey,
    pub spec: &'a LayerSpec,
    /// Which part of its asset it is.
    pub part: Option<&'a str>,
    pub layer: &'a Layer,
}

impl Locking {
    /// Reads the lock.
    ///
    /// # Errors
    /// When it is damaged or half-merged.
    pub(super) async fn read(request: &LockRequest) -> Result<Arc<Self>> {
        let request = request.clone();
        blocking(move || {
            let lock = file::read(&request.path)?;
            let must_stay = request.locked || !file::is_writable(&request.path);
            Ok(Arc::new(Self { request, lock, must_stay }))
        })
        .await
    }

    /// What the base of an image is locked to.
    pub(super) fn base(&self, image: &ImageRequest, architecture: Architecture) -> Option<&LockedBase> {
        self.lock.bases.get(&base_key(&image.base, &image.base_directory, architecture)?)
    }

    /// Records what the lock knows of layers to be made, so that what is unchanged need not be made.
    ///
    /// # Errors
    /// When a record cannot be written.
    pub(super) fn teach(&self, draft: &Draft, pipeline: &Pipeline, store: &Store) -> Result<()> {
        for (spec, locked) in draft.specs.iter().zip(&draft.locked) {
            if let Some(entry) = locked.key.as_ref().and_then(|key| self.lock.layers.get(key)) {
                pipeline.learn(spec, &told(entry), store)?;
            }
        }
        Ok(())
    }

    /// What the lock has to say after these images, each with all its layers.
    ///
    /// # Errors
    /// When files that Git LFS keeps cannot be read.
    pub(super) fn findings(&self, images: &[(&Draft, &[Layer])], session: &Session) -> Result<Findings> {
        let mut found = Findings { complete: self.request.complete, whole: true, ..Findings::default() };
        for (draft, layers) in images {
            found.bases.extend(draft.locked_base.clone());
            let ours = &layers[draft.base_layers.len()..];
            for ((spec, locked), layer) in draft.specs.iter().zip(&draft.locked).zip(ours) {
                let Some(key) = &locked.key else { continue };
                found.layers.insert(
                    key.clone(),
                    self.found(&Used { key, spec, part: locked.part.as_deref(), layer }, session)?,
                );
            }
        }
        Ok(found)
    }

    /// The entry of a layer.
    ///
    /// # Errors
    /// As of [`Locking::findings`].
    pub(super) fn found(&self, used: &Used<'_>, session: &Session) -> Result<LockedLayer> {
        let Used { key, spec, part, layer } = *used;
        let entry = self.lock.layers.get(key);
        if let (Some(entry), Some(_)) = (entry, spec.told) {
            return Ok(entry.clone());
        }
        let same = entry.filter(|entry| entry.diff_id == layer.diff_id);
        let content = match same.filter(|entry| knows_lfs(entry, spec)) {
            Some(entry) => (entry.lfs.clone(), entry.beside_lfs),
            None => match lfs::content(&spec.entries, &BTreeMap::new(), session)? {
                Some(content) => (content.files, Some(content.beside)),
                None => Default::default(),
            },
        };
        // Bytes that another version made are as good as ours while they are the ones used.
        let format = same.filter(|entry| entry.digest == layer.descriptor.digest).map(|entry| entry.format);
        Ok(LockedLayer {
            format: format.unwrap_or(FORMAT_VERSION),
            diff_id: layer.diff_id,
            digest: layer.descriptor.digest,
            size: layer.descriptor.size,
            uncompressed_size: layer.uncompressed_size,
            files: assets::files(spec),
            part: part.map(str::to_owned),
            lfs: content.0,
            beside_lfs: content.1,
        })
    }

    /// Refuses what would change a lock that must not change, and tells what is worth knowing of what was used.
    ///
    /// # Errors
    /// With `--locked`, when there are changes: it names them.
    pub(super) fn check(&self, found: &Findings, session: &Session) -> Result<()> {
        let after = self.lock.after(found);
        if self.request.locked {
            self.refuse(&changes(&self.lock, &after))?;
        }
        for (key, layer) in &found.layers {
            let was = self.lock.layers.get(key);
            if was.is_some_and(|was| was.diff_id == layer.diff_id && was.digest != layer.digest) {
                let message = format!(
                    "layer `{}` was made again of the same content, and its compressed bytes are not the locked ones",
                    key.destination
                );
                session.warn(&message, Some("commit the new lock: from now on these bytes are what is shared"));
            }
        }
        self.tell_of_formats(found, session);
        Ok(())
    }

    /// Refuses what is foreseen to change a lock that must not change, or cannot, before anything is sent; layers of
    /// which nothing is known are not those of the lock.
    ///
    /// # Errors
    /// As of [`Locking::check`].
    pub(super) fn foresee(&self, images: &[(&Draft, &[Option<Layer>])], session: &Session) -> Result<()> {
        let mut foreseen = Vec::new();
        for (draft, layers) in images {
            let mut entries = Vec::new();
            for ((spec, locked), layer) in draft.specs.iter().zip(&draft.locked).zip(*layers) {
                let part = locked.part.as_deref();
                let used = locked.key.as_ref().zip(layer.as_ref()).map(|(key, layer)| Used { key, spec, part, layer });
                entries.push(used.map(|used| self.found(&used, session)).transpose()?);
            }
            foreseen.push((*draft, entries));
        }
        self.refuse_foreseen(&foreseen)
    }

    /// The same from the sizes of the layers' tars, which are known before anything is read.
    ///
    /// # Errors
    /// As of [`Locking::check`].
    pub(super) fn foresee_by_size(&self, drafts: &[Draft]) -> Result<()> {
        let entry = |(spec, locked): (&LayerSpec, &assets::Locked)| {
            let entry = self.lock.layers.get(locked.key.as_ref()?)?;
            (entry.uncompressed_size == spec.tar_size()).then(|| entry.clone())
        };
        let entries = |draft: &Draft| draft.specs.iter().zip(&draft.locked).map(entry).collect();
        let foreseen: Vec<_> = drafts.iter().map(|draft| (draft, entries(draft))).collect();
        self.refuse_foreseen(&foreseen)
    }

    fn refuse_foreseen(&self, images: &[(&Draft, Vec<Option<LockedLayer>>)]) -> Result<()> {
        let mut found = Findings { complete: self.request.complete, whole: true, ..Findings::default() };
        let mut unknown = Vec::new();
        for (draft, entries) in images {
            found.bases.extend(draft.locked_base.clone());
            for (locked, entry) in draft.locked.iter().zip(entries) {
                let Some(key) = &locked.key else { continue };
                let was = self.lock.layers.get(key);
                found.layers.extend(entry.as_ref().or(was).map(|entry| (key.clone(), entry.clone())));
                if entry.is_none() {
                    unknown.push(key);
                }
            }
        }
        // What is known of none is to come, and what it comes instead of goes: see there.
        self.refuse(&foreseen(&self.lock, &self.lock.after(&found), &unknown))
    }

    fn refuse(&self, changes: &[Change]) -> Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        let path = self.request.path.display();
        let lines: Vec<_> = changes.iter().map(ToString::to_string).collect();
        let (message, help) = match self.request.locked {
            true => (
                format!("`{path}` would change, and `--locked` forbids it"),
                format!("run without `--locked`, and commit {FILE_NAME}"),
            ),
            false => (format!("`{path}` would change, and it cannot be written"), file::write_elsewhere()),
        };
        Err(Problem::failed(message).because(lines.join("\n")).help(help))
    }

    fn tell_of_formats(&self, found: &Findings, session: &Session) {
        let others = found.layers.iter().filter(|(_, layer)| layer.format != FORMAT_VERSION);
        let others: Vec<_> =
            others.map(|(key, layer)| format!("`{}` (format {})", key.destination, layer.format)).collect();
        if !others.is_empty() {
            let message = format!(
                "this program makes layers in format {FORMAT_VERSION}, and these are locked in another: {}",
                others.join(", ")
            );
            session.warn(&message, Some("they stay valid; `cargo lambda-image update` makes them anew"));
        }
    }

    /// Writes what was found out, if that changes anything, which is the answer.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub(super) fn save(&self, found: &Findings, store: &Store, session: &Session) -> Result<bool> {
        if self.request.locked {
            return Ok(false);
        }
        let path = &self.request.path;
        let _turn = wait(&store.root().join("lambda-image.lock"), Hold::Alone, "file lock on the lock file", session)?;
        let now = file::read(path)?;
        let after = now.after(found);
        let changes = changes(&now, &after);
        if changes.is_empty() {
            return Ok(false);
        }
        file::write(path, &after)?;
        let changes: Vec<_> = changes.iter().map(ToString::to_string).collect();
        session.emit(&Event::Locked { path, changes: &changes, dry_run: false });
        Ok(true)
    }
}

/// The entry of a layer as the pipeline takes it.
pub(super) fn told(entry: &LockedLayer) -> Told {
    let LockedLayer { diff_id, digest, size, uncompressed_size, .. } = *entry;
    Told { diff_id, digest, size, uncompressed_size }
}

/// The key of a base that a registry holds; others have none, since their bytes are here.
pub(super) fn base_key(reference: &str, directory: &Path, architecture: Architecture) -> Option<BaseKey> {
    let reference = BaseReference::parse(reference, directory).ok()?;
    let is_remote = matches!(reference, BaseReference::Registry(_));
    is_remote.then(|| BaseKey { reference: reference.to_string(), platform: architecture.platform() })
}

/// What is locked of a base whose layers were looked through.
pub(super) fn describe_base(digest: Digest, facts: &[LayerFacts], tree: &Tree) -> LockedBase {
    LockedBase {
        digest,
        glibc: facts.iter().rev().find_map(|layer| layer.glibc.clone()),
        uncompressed_sizes: facts.iter().map(|layer| layer.uncompressed_size).collect(),
        usual: tree.is_usual(),
    }
}

/// Whether an entry says of LFS what there is to say now.
fn knows_lfs(entry: &LockedLayer, spec: &LayerSpec) -> bool {
    let kept = lfs::kept_by_lfs(&spec.entries, &BTreeMap::new());
    let kept: Vec<_> = kept.into_iter().map(|path| format!("/{}", path.to_string_lossy())).collect();
    entry.beside_lfs.is_some() != kept.is_empty() && entry.lfs.keys().eq(kept.iter())
}
