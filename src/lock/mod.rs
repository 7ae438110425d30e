//! `lambda-image.lock`: what a build found out about bases and asset layers, for machines that have no records.
//!
//! - [`mod@file`]: the file's text, read strictly, and written only when something changed;
//! - [`change`]: what differs between two locks, in words.
//!
//! Here is what the lock says and how what a build found out becomes part of it. It knows neither layers' bytes nor
//! registries, so whether an entry still holds is for others to find out.

pub mod change;
pub mod file;

use std::collections::{BTreeMap, BTreeSet};

use crate::oci::{DiffId, Digest};

/// The name of the file, at the workspace root or beside `lambda-image.toml`.
pub const FILE_NAME: &str = "lambda-image.lock";

/// The destination of the layer that small assets share.
pub const SHARED_DESTINATION: &str = "(small assets)";

/// The version of the file's form. What decides the bytes of layers has a version of its own, in each layer's entry.
pub const VERSION: u64 = 1;

/// Everything the file says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lock {
    /// What base references mean.
    pub bases: BTreeMap<BaseKey, LockedBase>,
    /// What asset layers are.
    pub layers: BTreeMap<LayerKey, LockedLayer>,
}

/// A base reference for one platform.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BaseKey {
    /// In full, as people see it.
    pub reference: String,
    /// `linux/amd64` or `linux/arm64`.
    pub platform: String,
}

/// What a base reference means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedBase {
    /// The digest of the platform's manifest.
    pub digest: Digest,
    /// The version of its GNU C library, if it has one.
    pub glibc: Option<String>,
    /// Bytes of its layers' tars, lowest first.
    pub uncompressed_sizes: Vec<u64>,
    /// Whether nothing in it is in the way of what goes below Lambda's own directories, so that it need not be looked
    /// through for that.
    pub usual: bool,
}

/// What identifies a layer from build to build, whatever is in it: where it goes and everything of its recipe but the
/// files' content. So members that share an asset share its entry, and those that pack it otherwise have their own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LayerKey {
    /// Where its file, or its asset, goes: absolute.
    pub destination: String,
    /// The assets it packs: one, or several small ones that share it.
    pub assets: Vec<AssetKey>,
    /// The compression level.
    pub level: u32,
    /// The directories above its destination that have the base's mode, as `1777 /tmp`.
    pub modes: Vec<String>,
}

/// What identifies an asset.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AssetKey {
    /// Its path relative to the lock file, or as it was written where it lies elsewhere.
    pub path: String,
    /// Where it goes, absolute; with a `/` at its end if it is put into a directory.
    pub to: String,
    /// What is left out.
    pub exclude: Vec<String>,
    /// Whether links are packed as what they point to.
    pub follow_symlinks: bool,
}

/// What a layer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedLayer {
    /// The version of everything that decides its bytes.
    pub format: u32,
    /// The digest of its tar.
    pub diff_id: DiffId,
    /// The digest of its compressed bytes.
    pub digest: Digest,
    /// Compressed bytes.
    pub size: u64,
    /// Bytes of its tar.
    pub uncompressed_size: u64,
    /// How many files and links it holds.
    pub files: u64,
    /// Which part of its asset it is, as its name tells people; absent where it is named as the asset.
    pub part: Option<String>,
    /// The content of those files that Git LFS keeps, by their paths in the image: the `oid` of their pointers.
    pub lfs: BTreeMap<String, Digest>,
    /// Where there are such files, a digest of everything else in the layer.
    pub beside_lfs: Option<Digest>,
}

/// What a build found out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// The bases it stands on.
    pub bases: BTreeMap<BaseKey, LockedBase>,
    /// The layers of its assets.
    pub layers: BTreeMap<LayerKey, LockedLayer>,
    /// Whether it was a build of all there is, so that what it did not meet is nobody's any more.
    pub complete: bool,
    /// Whether the assets in it are there with all their layers, so that others of theirs are of files that are gone.
    pub whole: bool,
}

impl Lock {
    /// The lock after a build. Entries of members that were not built stay as they are.
    #[must_use]
    pub fn after(&self, found: &Findings) -> Self {
        let mut lock = self.clone();
        if found.complete {
            // One platform was built, and the others' entries of the same base stay.
            let references: BTreeSet<_> = found.bases.keys().map(|key| &key.reference).collect();
            lock.bases.retain(|key, _| references.contains(&key.reference));
            lock.layers.retain(|key, _| found.layers.contains_key(key));
        }
        if found.whole {
            lock.layers.retain(|key, _| !found.lacks(key));
        }
        lock.bases.extend(found.bases.clone());
        lock.layers.extend(found.layers.clone());
        lock
    }

    /// The layers that an asset was packed into at `level`, in the order of an image: large files by path, then the
    /// rest.
    #[must_use]
    pub fn layers_of(&self, asset: &AssetKey, level: u32) -> Vec<(&LayerKey, &LockedLayer)> {
        let of = |(key, _): &(&LayerKey, &LockedLayer)| key.level == level && key.assets.contains(asset);
        let (rest, large): (Vec<_>, Vec<_>) =
            self.layers.iter().filter(of).partition(|(key, _)| key.destination == asset.place());
        large.into_iter().chain(rest).collect()
    }
}

impl Findings {
    /// Whether a layer is of an asset that was packed without it. Where it goes to a place that was met, it is another
    /// base's; and what shares a layer here may have its own in another image.
    fn lacks(&self, layer: &LayerKey) -> bool {
        let [asset] = &layer.assets[..] else { return false };
        let of_asset = || self.layers.keys().filter(|key| key.level == layer.level && key.assets.contains(asset));
        !layer.is_shared()
            && of_asset().next().is_some()
            && of_asset().all(|key| !key.is_shared() && key.destination != layer.destination)
    }
}

impl LayerKey {
    /// Whether it is the layer that small assets share where there would be too many.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.destination == SHARED_DESTINATION
    }
}

impl AssetKey {
    /// Where it goes, without a `/` at its end.
    #[must_use]
    pub fn place(&self) -> &str {
        let place = self.to.trim_end_matches('/');
        if place.is_empty() { "/" } else { place }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn base(reference: &str, platform: &str, content: &str) -> (BaseKey, LockedBase) {
        let key = BaseKey { reference: reference.into(), platform: platform.into() };
        let digest = Digest::of(content.as_bytes());
        (key, LockedBase { digest, glibc: Some("2.34".into()), uncompressed_sizes: vec![10, 7], usual: true })
    }

    pub(super) fn layer(destination: &str, path: &str, content: &str) -> (LayerKey, LockedLayer) {
        let to = destination.to_owned();
        let asset = AssetKey { path: path.into(), to, exclude: Vec::new(), follow_symlinks: false };
        let key = LayerKey { destination: destination.into(), assets: vec![asset], level: 2, modes: Vec::new() };
        (key, locked(content))
    }

    fn locked(content: &str) -> LockedLayer {
        LockedLayer {
            format: 1,
            diff_id: DiffId(Digest::of(content.as_bytes())),
            digest: Digest::of(format!("gzip {content}").as_bytes()),
            size: 5,
            uncompressed_size: 9,
            files: 1,
            part: None,
            lfs: BTreeMap::new(),
            beside_lfs: None,
        }
    }

    #[test]
    fn only_a_build_of_everything_drops_entries() {
        let lock = Lock {
            bases: BTreeMap::from([base("a:1", "linux/amd64", "1"), base("b:1", "linux/amd64", "2")]),
            layers: BTreeMap::from([layer("/x", "x", "1"), layer("/y", "y", "1")]),
        };
        let mut found = Findings {
            bases: BTreeMap::from([base("a:1", "linux/arm64", "3")]),
            layers: BTreeMap::from([layer("/x", "x", "2")]),
            complete: false,
            whole: true,
        };
        let part = lock.after(&found);
        assert_eq!((part.bases.len(), part.layers.len()), (3, 2));
        assert_eq!(part.layers[&layer("/x", "x", "").0], locked("2"));
        assert_eq!(part.layers[&layer("/y", "y", "").0], locked("1"));
        found.complete = true;
        let all = lock.after(&found);
        let bases: Vec<_> = all.bases.keys().map(|key| (key.reference.as_str(), key.platform.as_str())).collect();
        assert_eq!(bases, [("a:1", "linux/amd64"), ("a:1", "linux/arm64")], "another platform's entry stays");
        assert_eq!(all.layers, BTreeMap::from([layer("/x", "x", "2")]));
    }

    #[test]
    fn an_asset_that_was_packed_whole_has_no_other_layers() {
        let (rest, locked) = layer("/m", "models", "1");
        let at = |destination: &str| LayerKey { destination: destination.into(), ..rest.clone() };
        let on_other_base = LayerKey { modes: vec!["1777 /m".into()], ..rest.clone() };
        let (other, shared) = (layer("/x", "x", "1").0, at(SHARED_DESTINATION));
        let all = [rest.clone(), at("/m/a"), at("/m/b"), on_other_base, LayerKey { level: 9, ..at("/m/a") }, other];
        let lock = Lock { layers: all.clone().map(|key| (key, locked.clone())).into(), ..Lock::default() };
        let after = |keys: &[&LayerKey], whole| {
            let layers = keys.iter().map(|key| ((*key).clone(), locked.clone())).collect();
            let left = lock.after(&Findings { layers, whole, ..Findings::default() });
            all.iter().filter(|key| !left.layers.contains_key(key)).cloned().collect::<Vec<_>>()
        };
        assert_eq!(after(&[&rest, &at("/m/b")], true), [at("/m/a")]);
        assert_eq!(after(&[&rest, &at("/m/b")], false), [], "only a part of it was made anew");
        assert_eq!(after(&[&rest, &shared], true), [], "it shares a layer here and need not elsewhere");
        assert_eq!(after(&[&layer("/y", "y", "1").0], true), []);
    }

    #[test]
    fn members_that_pack_one_destination_otherwise_have_entries_of_their_own() {
        let shared = layer("/m", "models", "1");
        let (mut other_level, mut other_exclude) = (shared.clone(), shared.clone());
        other_level.0.level = 9;
        other_exclude.0.assets[0].exclude = vec!["*.tmp".into()];
        let other_path = layer("/m", "api/models", "1");
        let layers = [shared.clone(), other_level, other_exclude, other_path, shared];
        let lock = Lock::default().after(&Findings { layers: BTreeMap::from(layers), ..Findings::default() });
        assert_eq!(lock.layers.len(), 4);
    }

    #[test]
    fn the_layers_of_an_asset_come_in_the_order_of_an_image() {
        let (rest, locked) = layer("/m", "models", "1");
        let at = |destination: &str| LayerKey { destination: destination.into(), ..rest.clone() };
        let keys = [at("/m"), at("/m/b"), at("/m/a"), LayerKey { level: 9, ..rest.clone() }];
        let lock = Lock { layers: keys.map(|key| (key, locked.clone())).into(), ..Lock::default() };
        let found = lock.layers_of(&rest.assets[0], 2);
        let destinations: Vec<_> = found.iter().map(|(key, _)| key.destination.as_str()).collect();
        assert_eq!(destinations, ["/m/a", "/m/b", "/m"]);
    }
}
