//! Rules about data: what a read-only file system, a missing `git lfs` and careless copies make of it.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use super::findings::{Findings, Place, shown};
use super::image::ImageFacts;
use super::merged::Merged;
use super::rules;
use super::tar::{OF_THE_SYSTEM, Own, is_below};
use crate::layer::facts::Inside;

/// Variables by which libraries are told where to write. What only reads there does no harm, hence a note.
const PLACES_TO_WRITE: [&str; 18] = [
    "HOME",
    "TMPDIR",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "HF_HOME",
    "HF_HUB_CACHE",
    "TRANSFORMERS_CACHE",
    "SENTENCE_TRANSFORMERS_HOME",
    "TORCH_HOME",
    "NLTK_DATA",
    "MPLCONFIGDIR",
    "NUMBA_CACHE_DIR",
    "PYTHONPYCACHEPREFIX",
    "npm_config_cache",
    "NEXT_CACHE_DIR",
    "FONTCONFIG_CACHE",
    "PRISMA_ENGINES_CACHE",
];

/// Where package managers keep databases, in write-ahead-log mode since rpm 4.16: every image of Amazon Linux 2023 has
/// one, and no function reads it.
const OF_PACKAGE_MANAGERS: [&str; 4] = ["var/lib/rpm", "var/lib/dnf", "usr/share/rpm", "usr/lib/sysimage"];

pub(super) fn check(image: &ImageFacts, merged: &Merged<'_>, findings: &mut Findings<'_>) {
    databases(merged, findings);
    secrets(image, findings);
    for (path, inside) in merged.inside() {
        if matches!(inside, Inside::LfsPointer) {
            findings.add(rules::LFS, merged.place(path), "the file holds a pointer and not its content");
        }
    }
    for (name, value) in image.variables() {
        let is_read_only = value.starts_with('/') && !is_below(value.trim_start_matches('/'), "tmp");
        if PLACES_TO_WRITE.contains(&name) && is_read_only {
            findings.add(rules::WRITABLE, Place::IMAGE, format!("{name} is `{}`", shown(value)));
        }
    }
}

fn databases(merged: &Merged<'_>, findings: &mut Findings<'_>) {
    for (path, inside) in merged.inside() {
        let Inside::Sqlite { wal } = inside else { continue };
        if OF_PACKAGE_MANAGERS.iter().any(|directory| is_below(path, directory)) {
            continue;
        }
        // Lambda lets a function write below /tmp, which is empty at its start in any case.
        let beside = ["-wal", "-shm"].into_iter().find(|end| merged.tree.get(&format!("{path}{end}")).is_some());
        let message = match (wal, beside) {
            (true, _) => "the database is in write-ahead-log mode".to_owned(),
            (false, Some(end)) => format!("`{}{end}` lies beside it, so it was in use when it was packed", name(path)),
            (false, None) => continue,
        };
        findings.add(rules::WAL, merged.place(path), message);
    }
}

fn name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Secrets of all layers: one that a later layer deletes is still there to be read.
fn secrets(image: &ImageFacts, findings: &mut Findings<'_>) {
    let own = Own::of(image);
    let allowed = allowed(&findings.options.allow_secrets);
    for (number, layer) in image.layers.iter().enumerate().filter(|(_, layer)| !layer.secrets_judged) {
        for (path, inside) in layer.facts().into_iter().flat_map(|facts| &facts.inside) {
            let Inside::Secret(what) = inside else { continue };
            // Language distributions have test keys.
            let is_the_systems = OF_THE_SYSTEM.iter().any(|directory| is_below(path, directory));
            if (is_the_systems && !own.has(path)) || allowed.is_match(path) {
                continue;
            }
            findings.add(rules::SECRET, Place::file(number, path), format!("it looks like {what}"));
        }
    }
}

/// The user's globs; configuration refused malformed ones.
fn allowed(patterns: &[String]) -> GlobSet {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        let pattern = pattern.trim_start_matches("./").trim_start_matches('/');
        let forms = [pattern.to_owned(), format!("**/{pattern}")];
        for glob in forms.iter().filter_map(|form| GlobBuilder::new(form).literal_separator(true).build().ok()) {
            set.add(glob);
        }
    }
    set.build().unwrap_or_default()
}
