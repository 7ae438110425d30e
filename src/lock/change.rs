//! What differs between two locks, in words that fit on a line each: for `--locked`, for `update` and for the log.

use std::collections::BTreeMap;
use std::fmt;

use super::{BaseKey, LayerKey, Lock, LockedBase, LockedLayer};

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
    let name = |key: &BaseKey| format!("base `{}` for {}", key.reference, key.platform);
    let mut changes = compare(&old.bases, &new.bases, name, base);
    changes.extend(compare(&old.layers, &new.layers, |key| layer_name(key, old, new), layer));
    changes
}

fn compare<K: Ord, V: PartialEq>(
    old: &BTreeMap<K, V>,
    new: &BTreeMap<K, V>,
    name: impl Fn(&K) -> String,
    what: impl Fn(Option<&V>, &V) -> String,
) -> Vec<Change> {
    let gone = old.keys().filter(|key| !new.contains_key(key));
    let gone = gone.map(|key| (key, "is removed, since nothing uses it".to_owned()));
    let differ = new.iter().filter(|(key, value)| old.get(key) != Some(value));
    let differ = differ.map(|(key, value)| (key, what(old.get(key), value)));
    let changes: BTreeMap<_, _> = gone.chain(differ).collect();
    changes.into_iter().map(|(key, what)| Change { entry: name(key), what }).collect()
}

/// A layer by its destination; where several have the same one, by what tells them apart too.
fn layer_name(key: &LayerKey, old: &Lock, new: &Lock) -> String {
    let is_other = |other: &&LayerKey| other.destination == key.destination && *other != key;
    let mut name = format!("layer `{}`", key.destination);
    if old.layers.keys().chain(new.layers.keys()).any(|other| is_other(&other)) {
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

fn layer(old: Option<&LockedLayer>, new: &LockedLayer) -> String {
    let Some(old) = old else { return format!("added as {}", new.digest) };
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
            (Some(one.clone()), None, "is removed, since nothing uses it".to_owned()),
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
    fn layers_of_one_destination_are_told_apart() {
        let new = lock(&[], &[layer("/m", "models", "1"), layer("/m", "api/models", "1")]);
        let entries: Vec<_> = changes(&Lock::default(), &new).into_iter().map(|change| change.entry).collect();
        assert_eq!(entries, ["layer `/m` (of `api/models` at level 2)", "layer `/m` (of `models` at level 2)"]);
    }
}
