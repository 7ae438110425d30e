//! Rules about what dynamic programs load: every library along the loader's way, and every version of a symbol in it.
//!
//! Versions are compared as ld.so does: a version that is asked for must be among those the library itself defines, so
//! the image's own libraries decide. Only for one that is there and cannot be read there is a table (`systems`).

use std::cell::Cell;
use std::collections::{BTreeMap, HashSet, VecDeque};

use super::findings::{Findings, Place};
use super::image::ImageFacts;
use super::merged::Merged;
use super::rules;
use super::systems::{self, Offer};
use super::tar::is_of_the_function;
use crate::layer::elf::ElfFacts;
use crate::platform::Architecture;

/// Where loaders look after everything else: glibc's of Amazon Linux and Fedora, of Debian, and musl's.
const DEFAULT_DIRECTORIES: [&str; 5] = ["/lib64", "/usr/lib64", "/lib", "/usr/lib", "/usr/local/lib"];

/// A program does not load more libraries than this; a damaged image may claim so.
const MOST_LIBRARIES: usize = 2000;

/// Directories of one path that are looked through; all settings of a function have 16 KB.
const MOST_DIRECTORIES: usize = 200;

/// How often a file is looked for before an image counts as too entangled to follow. A large one of Python's takes some
/// fifty thousand looks.
const MOST_LOOKS: u32 = 500_000;

/// What glibc offers in the families of symbols that break programs.
const VERSIONED: [&str; 4] = ["GLIBC_", "GLIBCXX_", "CXXABI_", "GCC_"];

/// Where the loader looks, whatever it loads.
pub(super) struct Surroundings<'a> {
    merged: &'a Merged<'a>,
    architecture: Option<Architecture>,
    library_path: Vec<String>,
    defaults: Vec<String>,
    /// Names of all files, where the loader's cache may know of other directories.
    cached: HashSet<&'a str>,
    looks_left: Cell<u32>,
}

impl<'a> Surroundings<'a> {
    pub(super) fn of(image: &'a ImageFacts, merged: &'a Merged<'a>) -> Self {
        let architecture = Architecture::from_oci(image.word("architecture"));
        let machine = architecture.map_or("x86_64", |architecture| match architecture {
            Architecture::Amd64 => "x86_64",
            Architecture::Arm64 => "aarch64",
        });
        let debian = ["/lib", "/usr/lib", "/usr/local/lib"].map(|directory| format!("{directory}/{machine}-linux-gnu"));
        // What is configured in /etc/ld.so.conf.d is in the cache, which is read by the loader and not here.
        let has_cache = merged.tree.get("etc/ld.so.cache").is_some();
        let names = merged.tree.nodes().map(|(path, _)| path.rsplit('/').next().unwrap_or(path));
        Self {
            merged,
            architecture,
            library_path: split(image.variable("LD_LIBRARY_PATH").unwrap_or_default()),
            defaults: DEFAULT_DIRECTORIES.map(str::to_owned).into_iter().chain(debian).collect(),
            cached: if has_cache { names.collect() } else { HashSet::new() },
            looks_left: Cell::new(MOST_LOOKS),
        }
    }

    /// Whether so much was looked for that nothing is found any more.
    fn gave_up(&self) -> bool {
        self.looks_left.get() == 0
    }

    /// The library called `name` as the loader finds it for something with these run paths.
    fn find(&self, name: &str, runpaths: &[String]) -> Option<String> {
        let file = |path: &str| self.merged.file(path).map(|(path, _)| path);
        if name.contains('/') {
            return file(name);
        }
        let directories = self.library_path.iter().chain(runpaths.iter().take(MOST_DIRECTORIES)).chain(&self.defaults);
        let looks = directories.take_while(|_| self.looks_left.replace(self.looks_left.get().saturating_sub(1)) > 0);
        looks.map(|directory| format!("{directory}/{name}")).find_map(|path| {
            // The loader goes on over libraries of other machines.
            let found = file(&path)?;
            let elf = self.merged.elf(&found);
            elf.is_none_or(|elf| elf.architecture == self.architecture).then_some(found)
        })
    }
}

fn split(path: &str) -> Vec<String> {
    let directories = path.split([':', ';']).filter(|directory| !directory.is_empty());
    directories.map(str::to_owned).take(MOST_DIRECTORIES).collect()
}

/// The run path of the file at `path` with `$ORIGIN` in it settled; parts with other variables are left out.
fn runpaths(path: &str, elf: &ElfFacts) -> Vec<String> {
    let origin = format!("/{}", path.rsplit_once('/').map_or("", |(directory, _)| directory));
    let parts = split(elf.runpath.as_deref().unwrap_or_default()).into_iter();
    let settled = parts.map(|part| part.replace("${ORIGIN}", &origin).replace("$ORIGIN", &origin));
    settled.filter(|part| !part.contains('$')).collect()
}

/// Follows the programs that are started through all libraries they load.
pub(super) fn programs(programs: &[(String, &ElfFacts)], surroundings: &Surroundings<'_>, findings: &mut Findings<'_>) {
    let mut told = HashSet::new();
    for (program, elf) in programs {
        let mut open = VecDeque::from([(program.clone(), *elf, runpaths(program, elf))]);
        let mut loaded: HashSet<String> = HashSet::new();
        while let Some((path, elf, runpaths)) = open.pop_front() {
            let is_first = told.insert(path.clone());
            let mut found = BTreeMap::new();
            for name in &elf.needed {
                let Some(library) = surroundings.find(name, &runpaths) else {
                    if surroundings.gave_up() {
                        let why = "there are too many libraries in too many directories";
                        findings.not_checked(rules::LIBRARY, Place::IMAGE, why);
                        return;
                    }
                    if is_first && !surroundings.cached.contains(name.as_str()) {
                        let by = if path == *program { String::new() } else { format!(", which `/{program}` loads") };
                        let message = format!("it needs `{}`, which is nowhere to be found{by}", name.escape_debug());
                        findings.add(rules::LIBRARY, surroundings.merged.place(&path), message);
                    }
                    continue;
                };
                found.insert(name.as_str(), library.clone());
                if loaded.len() < MOST_LIBRARIES
                    && loaded.insert(library.clone())
                    && let Some(elf) = surroundings.merged.elf(&library)
                {
                    // DT_RPATH is handed down to what is loaded, DT_RUNPATH is not: to look in both misses nothing.
                    let mut below = self::runpaths(&library, elf);
                    below.extend(runpaths.iter().cloned());
                    below.truncate(MOST_DIRECTORIES);
                    open.push_back((library, elf, below));
                }
            }
            if is_first {
                for message in missing_versions(elf, &found, surroundings) {
                    let place = surroundings.merged.place(&path);
                    findings.add_with_help(rules::SYMBOLS, place, message, advice(&path, surroundings));
                }
            }
        }
    }
}

/// Native modules of the function, which something loads at run time.
pub(super) fn modules(started: &[(String, &ElfFacts)], surroundings: &Surroundings<'_>, findings: &mut Findings<'_>) {
    for (path, elf) in surroundings.merged.programs() {
        if surroundings.gave_up() {
            return;
        }
        let is_started = started.iter().any(|(other, _)| other == path);
        if is_started || !is_of_the_function(path) || elf.architecture != surroundings.architecture {
            continue;
        }
        let runpaths = runpaths(path, elf);
        let found = elf.needed.iter().filter_map(|name| Some((name.as_str(), surroundings.find(name, &runpaths)?)));
        for message in missing_versions(elf, &found.collect(), surroundings) {
            findings.add(rules::MODULE_SYMBOLS, surroundings.merged.place(path), message);
        }
    }
}

/// The versions that a file asks of libraries and that those do not define, in a sentence for each library.
fn missing_versions(elf: &ElfFacts, found: &BTreeMap<&str, String>, surroundings: &Surroundings<'_>) -> Vec<String> {
    let mut missing: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut beyond: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (library, version) in &elf.needed_versions {
        let counts = VERSIONED.iter().any(|family| version.starts_with(family));
        if is_unreadable(library, found, surroundings) {
            let offer = systems::offer(surroundings.merged, library);
            let is_beyond = offer.is_some_and(|offer| {
                family(offer.highest) == family(version) && numbers(version) > numbers(offer.highest)
            });
            if is_beyond {
                beyond.entry(library).or_default().push(version);
            }
            continue;
        }
        let offered = found.get(library.as_str()).and_then(|path| surroundings.merged.elf(path));
        // A library without versions at all is taken as it is, with a warning of the loader's.
        let Some(offered) = offered.map(|elf| &elf.offered_versions).filter(|offered| !offered.is_empty()) else {
            continue;
        };
        if counts && !offered.contains(version) {
            missing.entry(library).or_default().push(version);
        }
    }
    let missing = missing.into_iter().map(|(library, mut versions)| {
        versions.sort_by_key(|version| numbers(version));
        let path = &found[library];
        let most = highest(path, versions[0], surroundings);
        format!("it asks `{library}` for {}, and `/{path}` offers {most}", versions.join(", "))
    });
    let beyond = beyond.into_iter().filter_map(|(library, mut versions)| {
        versions.sort_by_key(|version| numbers(version));
        let Offer { system, highest } = systems::offer(surroundings.merged, library)?;
        let asked = format!("it asks `{library}` for {}", versions.join(", "));
        Some(format!("{asked}, and that of `{system}` offers up to {highest}; the library itself could not be read"))
    });
    missing.chain(beyond).collect()
}

/// Whether a library is there whose versions nobody knows.
fn is_unreadable(library: &str, found: &BTreeMap<&str, String>, surroundings: &Surroundings<'_>) -> bool {
    found.get(library).is_some_and(|path| surroundings.merged.elf(path).is_none())
}

/// `GLIBC_` of `GLIBC_2.34`.
fn family(version: &str) -> &str {
    version.split_inclusive('_').next().unwrap_or(version)
}

/// The highest version in a family that the library at `path` offers.
fn highest(path: &str, like: &str, surroundings: &Surroundings<'_>) -> String {
    let family = family(like);
    let offered = surroundings.merged.elf(path).map(|elf| elf.offered_versions.as_slice()).unwrap_or_default();
    let highest = offered.iter().filter(|version| version.starts_with(family)).max_by_key(|version| numbers(version));
    highest.map_or_else(|| "none like it".to_owned(), |highest| format!("up to {highest}"))
}

/// `[2, 34]` of `GLIBC_2.34`.
fn numbers(version: &str) -> Vec<u32> {
    version.rsplit('_').next().unwrap_or_default().split('.').filter_map(|number| number.parse().ok()).collect()
}

/// What to do about a program of the function's, or about something of the base's.
fn advice(path: &str, surroundings: &Surroundings<'_>) -> String {
    let libc = surroundings.find("libc.so.6", &[]);
    let libc = libc.map(|path| highest(&path, "GLIBC_", surroundings)).unwrap_or_default();
    match (libc.strip_prefix("up to GLIBC_"), surroundings.architecture) {
        (Some(version), Some(architecture)) if is_of_the_function(path) => {
            let triple = architecture.gnu_triple();
            let musl = triple.replace("-gnu", "-musl");
            format!(
                "compile against the image's C library: `--cargo-build zigbuild --target {triple}.{version}`, or \
                 statically: `--target {musl}`"
            )
        }
        _ => rules::SYMBOLS.fix.to_owned(),
    }
}
