//! What differs between two locks, in words that fit on a line each: for `--locked`, for `update` and for the log.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::{BaseKey, LayerKey, Lock, LockedBase, LockedLayer};

/// What becomes of an entry that no image asks for.
const UNUSED: &str = "is removed, since nothing uses it";

/// One entry that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Which entry: ``layer `/var/task/models` ``.
    pub entry: String,
    /// What becomes of it.
    pub what: String,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.entry, self.what)
    }
}

/// What has to change for `old` to become `new`, in the order of the file.
#[must_use]
pub fn changes(old: &Lock, new: &Lock) -> Vec<Change> {
    foreseen(old, new, &[])
}

/// The same where `unknown` layers are to differ too, and nobody knows yet what they will be.
#[must_use]
pub fn foreseen(old: &Lock, new: &Lock, unknown: &[&LayerKey]) -> Vec<Change> {
    let mut changes = bases(old, new);
    changes.extend(layers(old, new, unknown));
    changes
}

fn bases(old: &Lock, new: &Lock) -> Vec<Change> {
    let gone = old.bases.keys().filter(|key| !new.bases.contains_key(key));
    let gone = gone.map(|key| (key, UNUSED.to_owned()));
    let differ = new.bases.iter().filter(|(key, value)| old.bases.get(key) != Some(value));
    let differ = differ.map(|(key, value)| (key, base(old.bases.get(key), value)));
    let changes: BTreeMap<_, _> = gone.chain(differ).collect();
    let name = |key: &BaseKey| format!("base `{}` for {}", key.reference, key.platform);
    changes.into_iter().map(|(key, what)| Change { entry: name(key), what }).collect()
}

/// A layer that is made otherwise has another key: what was there before it is not removed, but changed.
fn layers(old: &Lock, new: &Lock, unknown: &[&LayerKey]) -> Vec<Change> {
    let wanted: BTreeSet<&LayerKey> = new.layers.keys().chain(unknown.iter().copied()).collect();
    let mut gone: Vec<_> = old.layers.keys().filter(|key| !wanted.contains(key)).collect();
    let mut changes = BTreeMap::new();
    for &key in &wanted {
        let before = old.layers.get(key);
        let after = new.layers.get(key).filter(|_| !unknown.contains(&key));
        let was_made = match before {
            Some(_) => None,
            None => gone.iter().position(|old| recipe(old, key).is_some()).map(|at| gone.remove(at)),
        };
        let what = match (before, after) {
            (Some(before), Some(after)) if before == after => continue,
            (Some(before), Some(after)) => layer(before, after),
            (Some(_), None) => "its content changed".to_owned(),
            (None, after) => match (was_made.and_then(|old| recipe(old, key)), after) {
                (Some(recipe), _) => recipe,
                (None, Some(after)) => format!("added as {}", after.digest),
                (None, None) => "is added".to_owned(),
            },
        };
        changes.insert(key, Change { entry: layer_name(key, &wanted, &gone), what });
    }
    for key in gone.iter().copied() {
        changes.insert(key, Change { entry: layer_name(key, &wanted, &gone), what: UNUSED.to_owned() });
    }
    changes.into_values().collect()
}

/// What differs in how two layers are made that go to the same place.
fn recipe(old: &LayerKey, new: &LayerKey) -> Option<String> {
    if old.destination != new.destination || old.assets.len() != new.assets.len() {
        return None;
    }
    let mut differences = Vec::new();
    for (old, new) in old.assets.iter().zip(&new.assets) {
        if old.path != new.path {
            differences.push(format!("its path changed, `{}` -> `{}`", old.path, new.path));
        }
        let keys = [
            ("to", old.to != new.to),
            ("exclude", old.exclude != new.exclude),
            ("follow-symlinks", old.follow_symlinks != new.follow_symlinks),
        ];
        let changed = keys.iter().filter(|(_, is_changed)| *is_changed);
        differences.extend(changed.map(|(key, _)| format!("its `{key}` changed")));
    }
    if old.level != new.level {
        differences.push(format!("its compression level changed, {} -> {}", old.level, new.level));
    }
    if old.modes != new.modes {
        differences.push("the base's directories above it changed".to_owned());
    }
    differences.dedup();
    Some(differences.join("; "))
}

/// A layer by its destination; where several have the same one, by what tells them apart too.
fn layer_name(key: &LayerKey, wanted: &BTreeSet<&LayerKey>, gone: &[&LayerKey]) -> String {
    let is_other = |other: &LayerKey| other.destination == key.destination && other != key;
    let mut name = format!("layer `{}`", key.destination);
    if wanted.iter().chain(gone).any(|other| is_other(other)) {
        let paths: Vec<_> = key.assets.iter().map(|asset| format!("`{}`", asset.path)).collect();
        name.push_str(&format!(" (of {} at level {})", paths.join(", "), key.level));
    }
    name
}

fn base(old: Option<&LockedBase>, new: &LockedBase) -> String {
    let Some(old) = old else { return format!("added as {}", new.digest) };
    if old.digest != new.digest {
        let glibc = |base: &LockedBase| base.glibc.as_deref().unwrap_or("none").to_owned();
        let moved = format!("{} -> {}", old.digest, new.digest);
        let (before, after) = (glibc(old), glibc(new));
        return if before == after { moved } else { format!("{moved}, glibc {before} -> {after}") };
    }
    "what is known of it is completed".to_owned()
}

fn layer(old: &LockedLayer, new: &LockedLayer) -> String {
    let digests = format!("{} -> {}", old.digest, new.digest);
    if old.diff_id != new.diff_id {
        format!("its content changed, {digests}")
    } else if old.digest != new.digest && old.format != new.format {
        format!("the same content in format {} instead of {}, {digests}", new.format, old.format)
    } else if old.digest != new.digest {
        format!("the same content compressed to other bytes, {digests}")
    } else {
        "what is known of it is completed".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{base, layer};
    use super::*;
    use crate::oci::Digest;

    fn lock(bases: &[(BaseKey, LockedBase)], layers: &[(LayerKey, LockedLayer)]) -> Lock {
        Lock { bases: bases.iter().cloned().collect(), layers: layers.iter().cloned().collect() }
    }

    fn said(old: &Lock, new: &Lock) -> Vec<String> {
        changes(old, new).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn equal_locks_differ_in_nothing() {
        let lock = lock(&[base("a:1", "linux/amd64", "1")], &[layer("/x", "x", "1")]);
        assert_eq!(said(&lock, &lock), Vec::<String>::new());
    }

    #[test]
    fn each_kind_of_change_has_its_words() {
        let of = |content: &str| Digest::of(content.as_bytes());
        let (key, old) = base("a:1", "linux/amd64", "1");
        let new = LockedBase { glibc: None, ..base("a:1", "linux/amd64", "2").1 };
        let bases = said(&lock(&[(key.clone(), old)], &[]), &lock(&[(key, new)], &[]));
        assert_eq!(bases, [format!("base `a:1` for linux/amd64: {} -> {}, glibc 2.34 -> none", of("1"), of("2"))]);

        let (key, one) = layer("/x", "x", "1");
        let other_bytes = LockedLayer { digest: of("z"), ..one.clone() };
        let other_format = LockedLayer { format: 2, ..other_bytes.clone() };
        let completed = LockedLayer { files: 7, ..one.clone() };
        let (was, is) = (of("gzip 1"), of("gzip 2"));
        for (old, new, what) in [
            (None, Some(one.clone()), format!("added as {was}")),
            (Some(one.clone()), None, UNUSED.to_owned()),
            (Some(one.clone()), Some(layer("/x", "x", "2").1), format!("its content changed, {was} -> {is}")),
            (
                Some(one.clone()),
                Some(other_bytes),
                format!("the same content compressed to other bytes, {was} -> {}", of("z")),
            ),
            (
                Some(one.clone()),
                Some(other_format),
                format!("the same content in format 2 instead of 1, {was} -> {}", of("z")),
            ),
            (Some(one), Some(completed), "what is known of it is completed".to_owned()),
        ] {
            let side = |layer: Option<LockedLayer>| {
                let layers: Vec<_> = layer.into_iter().map(|layer| (key.clone(), layer)).collect();
                lock(&[], &layers)
            };
            assert_eq!(said(&side(old), &side(new)), [format!("layer `/x`: {what}")]);
        }
    }

    #[test]
    fn a_layer_that_is_made_otherwise_is_changed_and_not_another() {
        let (old, locked) = layer("/m", "models", "1");
        let other = |change: fn(&mut LayerKey)| {
            let mut key = old.clone();
            change(&mut key);
            key
        };
        for (key, what) in [
            (other(|key| key.level = 9), "its compression level changed, 2 -> 9"),
            (other(|key| key.modes.push("1777 /tmp".into())), "the base's directories above it changed"),
            (
                other(|key| {
                    key.assets[0].path = "m".into();
                    key.assets[0].exclude = vec!["x".into()];
                }),
                "its path changed, `models` -> `m`; its `exclude` changed",
            ),
        ] {
            let before = lock(&[], &[(old.clone(), locked.clone())]);
            let known = said(&before, &lock(&[], &[(key.clone(), locked.clone())]));
            let unknown = foreseen(&before, &Lock::default(), &[&key]);
            let unknown: Vec<_> = unknown.iter().map(ToString::to_string).collect();
            assert_eq!((known, unknown), (vec![format!("layer `/m`: {what}")], vec![format!("layer `/m`: {what}")]));
            // Where what was there stays, it is another.
            let both = lock(&[], &[(old.clone(), locked.clone()), (key.clone(), locked.clone())]);
            assert!(said(&before, &both)[0].ends_with(&format!(": added as {}", locked.digest)));
        }
    }

    #[test]
    fn layers_of_one_destination_are_told_apart() {
        let new = lock(&[], &[layer("/m", "models", "1"), layer("/m", "api/models", "1")]);
        let entries: Vec<_> = changes(&Lock::default(), &new).into_iter().map(|change| change.entry).collect();
        assert_eq!(entries, ["layer `/m` (of `api/models` at level 2)", "layer `/m` (of `models` at level 2)"]);
    }
}
