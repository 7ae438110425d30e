//! Rules about what dynamic programs load: every library along the loader's way, and every version of a symbol in it.
//!
//! Versions are compared as ld.so does: a version that is asked for must be among those the library itself defines, so
//! the image's own libraries decide. Only for one that is there and cannot be read there is a table (`systems`).

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use super::binary::missing;
use super::findings::{Findings, Place, shown};
use super::image::ImageFacts;
use super::merged::Merged;
use super::rules;
use super::systems::{self, Offer};
use super::tar::Own;
use crate::layer::elf::ElfFacts;
use crate::platform::Architecture;

/// Where loaders look after everything else: glibc's of Amazon Linux and Fedora, of Debian, and musl's.
const DEFAULT_DIRECTORIES: [&str; 11] = [
    "/lib64",
    "/usr/lib64",
    "/lib",
    "/usr/lib",
    "/usr/local/lib",
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/local/lib/x86_64-linux-gnu",
    "/lib/aarch64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/local/lib/aarch64-linux-gnu",
];

/// What names more directories, and is read by the loader and not here: glibc's cache, made of `/etc/ld.so.conf`, and
/// musl's list.
const LISTS_OF_DIRECTORIES: [&str; 3] = ["etc/ld.so.cache", "etc/ld-musl-x86_64.path", "etc/ld-musl-aarch64.path"];

/// What loaders put in place of variables in run paths, besides `$ORIGIN`; of which system, nobody asks (ld.so(8)).
const VARIABLES: [(&str, &[&str]); 2] = [
    ("LIB", &["lib64", "lib", "lib/x86_64-linux-gnu", "lib/aarch64-linux-gnu"]),
    ("PLATFORM", &["x86_64", "haswell", "aarch64"]),
];

/// The loaders of musl.
const MUSL_LOADERS: [&str; 2] = ["/lib/ld-musl-x86_64.so.1", "/lib/ld-musl-aarch64.so.1"];

/// Libraries that are parts of musl's loader, which looks for no file of theirs (musl, ldso/dynlink.c).
const OF_MUSL: [&str; 7] = ["c", "pthread", "rt", "m", "dl", "util", "xnet"];

/// A program does not load more libraries than this; a damaged image may claim so.
const MOST_LIBRARIES: usize = 2000;

/// Directories of one path that are looked through; all settings of a function have 16 KB.
const MOST_DIRECTORIES: usize = 200;

/// Bytes of the directories that are handed down to the libraries of one file.
const MOST_HANDED_DOWN: usize = 32 << 10;

/// How often a file is looked for before an image counts as too entangled to follow. A large one of Python's takes some
/// fifty thousand looks.
const MOST_LOOKS: u32 = 500_000;

/// What glibc offers in the families of symbols that break programs.
const VERSIONED: [&str; 4] = ["GLIBC_", "GLIBCXX_", "CXXABI_", "GCC_"];

/// Where the loader looks, whatever it loads.
pub(super) struct Surroundings<'a> {
    image: &'a ImageFacts,
    merged: &'a Merged<'a>,
    own: Own<'a>,
    architecture: Option<Architecture>,
    library_path: Vec<String>,
    /// Names of the files that were there when the lists of directories were made, which may name where they are.
    listed: HashSet<&'a str>,
    /// Whether musl's loader is there, which on Alpine may stand in for glibc's.
    has_musl: bool,
    looks_left: Cell<u32>,
}

/// A library as the loader finds it.
struct Found {
    /// By the path that leads to it, perhaps through links: it is what `$ORIGIN` is told by.
    named: String,
    path: String,
}

/// Where the loader looks for the libraries of one file, besides the variable and its own directories.
#[derive(Clone, Default)]
struct RunPaths {
    before: Vec<String>,
    after: Vec<String>,
}

impl<'a> Surroundings<'a> {
    pub(super) fn of(image: &'a ImageFacts, merged: &'a Merged<'a>) -> Self {
        let lists = LISTS_OF_DIRECTORIES.iter().filter_map(|list| merged.tree.get(list));
        let newest_list = lists.map(|list| list.layer).max();
        let listed = merged.tree.nodes().filter(|(_, node)| newest_list.is_some_and(|list| node.layer <= list));
        Self {
            image,
            merged,
            own: Own::of(image),
            architecture: Architecture::from_oci(image.word("architecture")),
            library_path: split(image.variable("LD_LIBRARY_PATH").unwrap_or_default(), image),
            listed: listed.map(|(path, _)| path.rsplit('/').next().unwrap_or(path)).collect(),
            has_musl: MUSL_LOADERS.iter().any(|loader| merged.file(loader).is_some()),
            looks_left: Cell::new(MOST_LOOKS),
        }
    }

    /// Whether so much was looked for that nothing is found any more.
    fn gave_up(&self) -> bool {
        self.looks_left.get() == 0
    }

    /// The library called `name` as the loader finds it for something of this architecture with these run paths.
    fn find(&self, name: &str, run_paths: &RunPaths, architecture: Option<Architecture>) -> Option<Found> {
        let file = |named: String| {
            let (path, _) = self.merged.file(&named)?;
            Some(Found { named, path })
        };
        if name.contains('/') {
            return file(absolute(name, self.image));
        }
        let RunPaths { before, after } = run_paths;
        let settings = before.iter().chain(&self.library_path).chain(after).map(String::as_str);
        let looks = settings.chain(DEFAULT_DIRECTORIES);
        let looks = looks.take_while(|_| self.looks_left.replace(self.looks_left.get().saturating_sub(1)) > 0);
        looks.map(|directory| format!("{directory}/{name}")).find_map(|path| {
            // The loader goes on over libraries of other machines.
            let found = file(path)?;
            let elf = self.merged.elf(&found.path);
            elf.is_none_or(|elf| elf.architecture == architecture).then_some(found)
        })
    }

    /// Where a file has its libraries looked for, and where those have theirs. `above` are the directories that
    /// whatever loads it hands down.
    fn run_paths(&self, file: &Found, elf: &ElfFacts, above: &[String], is_musl: bool) -> (RunPaths, Vec<String>) {
        let settled = |paths: &Option<String>| settled(paths.as_deref().unwrap_or_default(), file, self.image);
        let (runpath, rpath) = (settled(&elf.runpath), settled(&elf.rpath));
        let below = |own: &[String]| {
            let mut room = MOST_HANDED_DOWN;
            let fitting = own.iter().chain(above).take_while(|directory| {
                room = room.saturating_sub(directory.len());
                room > 0
            });
            fitting.take(MOST_DIRECTORIES).cloned().collect::<Vec<_>>()
        };
        if is_musl {
            // musl knows no difference, and looks in those of all that load it.
            let all = below(&[runpath, rpath].concat());
            return (RunPaths { before: Vec::new(), after: all.clone() }, all);
        }
        let handed = below(&rpath);
        let before = if elf.runpath.is_none() { handed.clone() } else { Vec::new() };
        (RunPaths { before, after: runpath }, handed)
    }
}

/// The directories of a path; an empty one is the working directory.
fn split(path: &str, image: &ImageFacts) -> Vec<String> {
    let directories = path.split([':', ';']).filter(|_| !path.is_empty());
    directories.map(|directory| absolute(directory, image)).take(MOST_DIRECTORIES).collect()
}

fn absolute(path: &str, image: &ImageFacts) -> String {
    if path.starts_with(['/', '$']) { path.to_owned() } else { format!("{}/{path}", image.working_directory()) }
}

/// The run path of a file with the variables in it settled; parts with unknown ones are left out.
fn settled(run_path: &str, file: &Found, image: &ImageFacts) -> Vec<String> {
    // Of a program Linux tells where it is, of a library the loader knows how it found it.
    let origins = [&file.named, &file.path].map(|path| {
        let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
        format!("/{}", directory.trim_start_matches('/'))
    });
    let set = |part: &str, name: &str, value: &str| {
        part.replace(&format!("${{{name}}}"), value).replace(&format!("${name}"), value)
    };
    let parts = split(run_path, image);
    let mut parts: Vec<_> =
        parts.iter().flat_map(|part| origins.iter().map(|origin| set(part, "ORIGIN", origin))).collect();
    parts.dedup();
    for (name, values) in VARIABLES {
        let settle = |part: String| {
            let values = if part.contains('$') { values } else { &values[..1] };
            values.iter().map(|value| set(&part, name, value)).collect::<Vec<_>>()
        };
        parts = parts.into_iter().flat_map(settle).collect();
        parts.dedup();
    }
    parts.retain(|part| !part.contains('$'));
    parts.truncate(MOST_DIRECTORIES);
    parts
}

/// Whether a library is a part of musl's loader.
fn is_of_musl(name: &str) -> bool {
    let base = name.strip_prefix("lib").and_then(|rest| rest.split_once('.'));
    base.is_some_and(|(base, _)| OF_MUSL.contains(&base))
}

fn asks_for_musl(elf: &ElfFacts) -> bool {
    elf.interpreter.as_deref().is_some_and(|loader| MUSL_LOADERS.contains(&loader))
}

/// Follows the programs that are started through all libraries they load.
pub(super) fn programs(programs: &[(String, &ElfFacts)], surroundings: &Surroundings<'_>, findings: &mut Findings<'_>) {
    let mut told = HashSet::new();
    for (program, elf) in programs {
        let is_musl = asks_for_musl(elf);
        let first = Found { named: format!("/{program}"), path: program.clone() };
        let mut open = VecDeque::from([(first, *elf, Vec::new())]);
        // What is loaded already serves everything that needs a library of that name.
        let (mut loaded, mut known): (HashMap<&str, String>, _) = (HashMap::new(), HashSet::new());
        while let Some((file, elf, above)) = open.pop_front() {
            let is_first = told.insert(file.path.clone());
            let (run_paths, handed) = surroundings.run_paths(&file, elf, &above, is_musl);
            let path = file.path;
            for name in &elf.needed {
                if loaded.contains_key(name.as_str()) {
                    continue;
                }
                let Some(library) = surroundings.find(name, &run_paths, elf.architecture) else {
                    if surroundings.gave_up() {
                        let why = "there are too many libraries in too many directories";
                        findings.not_checked(rules::LIBRARY, Place::IMAGE, why);
                        return;
                    }
                    let is_built_in = surroundings.has_musl && is_of_musl(name);
                    if is_first && !is_built_in && !surroundings.listed.contains(name.as_str()) {
                        let by = if path == *program { String::new() } else { format!(", which `/{program}` loads") };
                        let message = format!("it needs `{}`, which the loader does not find{by}", shown(name));
                        let place = surroundings.merged.place(&path);
                        findings.add_with_help(rules::LIBRARY, place, message, library_advice(name, surroundings));
                    }
                    continue;
                };
                if loaded.len() >= MOST_LIBRARIES {
                    continue;
                }
                let elf = surroundings.merged.elf(&library.path);
                loaded.insert(name, library.path.clone());
                if let Some(elf) = elf.filter(|_| known.insert(library.path.clone())) {
                    if elf.missing_bytes > 0 && told.insert(library.path.clone()) {
                        let message = format!("`/{program}` loads it, and it is cut short: {}", missing(elf));
                        let place = surroundings.merged.place(&library.path);
                        findings.add_with_help(rules::LIBRARY, place, message, rules::CUT_SHORT);
                    }
                    loaded.extend(elf.soname.as_deref().map(|soname| (soname, library.path.clone())));
                    open.push_back((library, elf, handed.clone()));
                }
            }
            if is_first {
                for message in missing_versions(elf, &loaded, surroundings) {
                    let place = surroundings.merged.place(&path);
                    findings.add_with_help(rules::SYMBOLS, place, message, advice(surroundings));
                }
            }
        }
    }
}

/// What to do about a library that the loader does not find: it may be in a directory where it does not look.
fn library_advice(name: &str, surroundings: &Surroundings<'_>) -> String {
    let mut files = surroundings.merged.tree.nodes().map(|(path, _)| path);
    match files.find_map(|path| path.strip_suffix(name)?.strip_suffix('/')) {
        Some(directory) => {
            let directory = shown(directory);
            format!(
                "it is in `/{directory}`: name that in the variable LD_LIBRARY_PATH, or link with `-Wl,-rpath,/{directory}`"
            )
        }
        None => rules::LIBRARY.fix.to_owned(),
    }
}

/// Native modules of the function, which something loads at run time.
pub(super) fn modules<'a>(started: &HashSet<String>, surroundings: &Surroundings<'a>, findings: &mut Findings<'_>) {
    for (path, elf) in surroundings.merged.programs() {
        if surroundings.gave_up() {
            return;
        }
        let is_own = surroundings.own.has(path);
        if started.contains(path)
            || !is_own
            || elf.architecture.is_none()
            || elf.architecture != surroundings.architecture
        {
            continue;
        }
        let file = Found { named: format!("/{path}"), path: path.to_owned() };
        let (run_paths, _) = surroundings.run_paths(&file, elf, &[], false);
        let find =
            |name: &'a String| Some((name.as_str(), surroundings.find(name, &run_paths, elf.architecture)?.path));
        let found = elf.needed.iter().filter_map(find);
        for message in missing_versions(elf, &found.collect(), surroundings) {
            findings.add(rules::MODULE_SYMBOLS, surroundings.merged.place(path), message);
        }
    }
}

/// The versions that a file asks of libraries and that those do not define, in a sentence for each library.
fn missing_versions(elf: &ElfFacts, found: &HashMap<&str, String>, surroundings: &Surroundings<'_>) -> Vec<String> {
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
fn is_unreadable(library: &str, found: &HashMap<&str, String>, surroundings: &Surroundings<'_>) -> bool {
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

/// What to do about a program for a newer C library than the image has.
fn advice(surroundings: &Surroundings<'_>) -> String {
    let libc = surroundings.find("libc.so.6", &RunPaths::default(), surroundings.architecture);
    let libc = libc.map(|libc| highest(&libc.path, "GLIBC_", surroundings)).unwrap_or_default();
    match (libc.strip_prefix("up to GLIBC_"), surroundings.architecture) {
        (Some(version), Some(architecture)) => {
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
