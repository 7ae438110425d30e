//! The binary against what it will run on: the kind of file, the architecture, the C library.
//!
//! All of it is known from the first kilobytes of the file, so a wrong binary stops a build before slow work.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

use crate::layer::elf::{self, ElfFacts};
use crate::layer::lfs;
use crate::platform::Architecture;
use crate::problem::{IoContext as _, Problem, Result};

/// The C library of a base image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Libc<'a> {
    /// The base has no files at all: `scratch`.
    Nothing,
    /// The GNU C library of this version, such as `2.34`.
    Glibc(&'a str),
    /// All layers were looked through, and there is no GNU C library; there may be musl.
    NoGlibc,
    /// Nobody looked.
    Unknown,
}

/// Reads the facts of the binary at `path`.
///
/// # Errors
/// Of class refused when it is no Linux program; `requested` then decides which `--target` the help names. Of class
/// usage when only a pointer of Git LFS is there.
pub fn read(path: &Path, requested: Option<Architecture>) -> Result<ElfFacts> {
    refuse_what_is_no_file(path)?;
    let Some(facts) = elf::read_file(path)? else {
        if lfs::pointer(path)?.is_some() {
            return Err(lfs::file_not_fetched(path));
        }
        let message = format!("`{}` is {}, and Lambda runs Linux programs (ELF)", path.display(), kind_of(path)?);
        return Err(Problem::refused(message).help(compile_for_linux(requested)));
    };
    if facts.missing_bytes > 0 {
        return Err(elf::damaged(path, missing(&facts)));
    }
    // A program with a loader names it, and a static one needs no library.
    if facts.architecture.is_some() && facts.interpreter.is_none() && !facts.needed.is_empty() {
        let message = format!("`{}` is a shared library, and Lambda starts a program", path.display());
        return Err(Problem::refused(message).help("give the binary that `cargo build` makes of a `[[bin]]` target"));
    }
    Ok(facts)
}

/// What is wrong with an ELF file that is cut short.
pub(super) fn missing(facts: &ElfFacts) -> String {
    format!("at least {} bytes are missing at its end", facts.missing_bytes)
}

fn refuse_what_is_no_file(path: &Path) -> Result<()> {
    let problem = match fs::metadata(path) {
        Ok(there) if there.is_file() => return Ok(()),
        Ok(_) => Problem::usage(format!("binary `{}` is not a file", path.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Problem::usage(format!("there is no binary `{}`", path.display()))
        }
        Err(error) => return Err(error).or_failed(|| format!("could not read `{}`", path.display())),
    };
    Err(problem.help("give the file that was compiled, such as `target/release/NAME`"))
}

/// What a file that is no ELF file seems to be.
fn kind_of(path: &Path) -> Result<&'static str> {
    let failed = || format!("could not read `{}`", path.display());
    let mut start = Vec::new();
    File::open(path).or_failed(failed)?.take(8).read_to_end(&mut start).or_failed(failed)?;
    Ok(match start.as_slice() {
        [] => "empty",
        [0xcf | 0xce, 0xfa, 0xed, 0xfe, ..] | [0xfe, 0xed, 0xfa, 0xcf | 0xce, ..] => "a macOS program (Mach-O)",
        [0xca, 0xfe, 0xba, 0xbe, ..] => "a macOS program for several architectures (Mach-O)",
        [b'M', b'Z', ..] => "a Windows program (PE)",
        [0, b'a', b's', b'm', ..] => "a WebAssembly module",
        [b'!', b'<', b'a', b'r', b'c', b'h', b'>', ..] => "a static library",
        [b'#', b'!', ..] => "a script",
        _ => "no program",
    })
}

fn compile_for_linux(requested: Option<Architecture>) -> String {
    let target = |architecture: Architecture| format!("`--target {}`", architecture.gnu_triple());
    let targets = match requested {
        Some(architecture) => target(architecture),
        None => format!("{} or {}", target(Architecture::Amd64), target(Architecture::Arm64)),
    };
    format!("compile with {targets}; `--cargo-build zigbuild` brings a linker for it")
}

/// The architecture on which the binary at `path`, the request and the base agree.
///
/// # Errors
/// Of class refused, naming all sides, when they do not, or when Lambda does not run the binary's.
pub fn architecture(
    path: &Path,
    facts: &ElfFacts,
    requested: Option<Architecture>,
    base: Option<(&str, Architecture)>,
) -> Result<Architecture> {
    let Some(own) = facts.architecture else {
        let message = format!(
            "`{}` is built for {}, and Lambda runs x86-64 and 64-bit ARM",
            path.display(),
            machine_name(facts.machine)
        );
        return Err(Problem::refused(message).help(compile_for_linux(requested)));
    };
    let mut sides = vec![(format!("binary `{}` is for", path.display()), own)];
    sides.extend(requested.map(|architecture| ("the flags ask for".to_owned(), architecture)));
    sides.extend(base.map(|(reference, architecture)| (format!("base `{reference}` is for"), architecture)));
    if sides.iter().all(|(_, architecture)| *architecture == own) {
        return Ok(own);
    }
    let sides: Vec<_> = sides.iter().map(|(side, architecture)| format!("{side} {architecture}")).collect();
    // Where both others agree, the binary is the odd one; otherwise the base is.
    let help = match (requested, base) {
        (Some(requested), _) if requested != own => compile_for_linux(Some(requested)),
        (_, Some((_, base))) => {
            format!("compile with `--target {}`, or take a base for {own}", base.gnu_triple())
        }
        _ => compile_for_linux(Some(own)),
    };
    Err(Problem::refused(format!("the architectures disagree: {}", sides.join(", "))).help(help))
}

/// Names for `e_machine` that a Rust user may meet (gABI, ELF header).
pub(super) fn machine_name(machine: u16) -> String {
    match machine {
        3 => "32-bit x86".to_owned(),
        8 => "MIPS".to_owned(),
        20 | 21 => "PowerPC".to_owned(),
        22 => "s390x".to_owned(),
        40 => "32-bit ARM".to_owned(),
        // x32 programs name the machine and are of the other class.
        62 => "x86-64 with 32-bit pointers".to_owned(),
        183 => "64-bit ARM of another byte order or class".to_owned(),
        243 => "RISC-V".to_owned(),
        258 => "LoongArch".to_owned(),
        other => format!("machine {other}"),
    }
}

/// Whether the base called `base` has the C library that the binary at `path` asks for.
///
/// # Errors
/// Of class refused when it has none, another one, or one that is too old.
pub fn libc(path: &Path, facts: &ElfFacts, base: &str, libc: Libc<'_>) -> Result<()> {
    let (Some(loader), Some(architecture)) = (&facts.interpreter, facts.architecture) else { return Ok(()) };
    let refused = |why: String| Err(Problem::refused(format!("`{}` {why}", path.display())));
    let fix = |problem: Problem| problem.help(make_static(architecture));
    let is_musl = loader.rsplit('/').next().is_some_and(|name| name.starts_with("ld-musl"));
    match libc {
        Libc::Unknown => Ok(()),
        Libc::NoGlibc if is_musl => Ok(()),
        Libc::Nothing | Libc::NoGlibc => {
            refused(format!("is dynamically linked and asks for `{loader}`, which base `{base}` does not have"))
                .map_err(fix)
        }
        Libc::Glibc(_) if is_musl => {
            refused(format!("is linked dynamically against musl, and base `{base}` has glibc")).map_err(fix)
        }
        Libc::Glibc(offered) => {
            let Some(required) = facts.required_glibc() else { return Ok(()) };
            let Some(numbers) = numbers(offered) else { return Ok(()) };
            if required <= numbers {
                return Ok(());
            }
            let required: Vec<_> = required.iter().map(u32::to_string).collect();
            refused(format!("needs glibc {}, and base `{base}` has {offered}", required.join("."))).map_err(|problem| {
                problem.help(format!(
                    "link against the older one with `--cargo-build zigbuild --target {triple}.{offered}`, or {}",
                    make_static(architecture),
                    triple = architecture.gnu_triple(),
                ))
            })
        }
    }
}

fn numbers(version: &str) -> Option<Vec<u32>> {
    version.split('.').map(|number| number.parse().ok()).collect()
}

fn make_static(architecture: Architecture) -> String {
    let gnu = architecture.gnu_triple();
    let musl = gnu.replace("-gnu", "-musl");
    format!(
        "make a static binary: `--target {musl}`, or `RUSTFLAGS=\"-C target-feature=+crt-static\"` with `--target {gnu}`"
    )
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::problem::Exit;

    const BINARY: &str = "target/release/hello";

    fn dynamic(loader: &str, versions: &[&str]) -> ElfFacts {
        ElfFacts {
            architecture: Some(Architecture::Amd64),
            machine: 62,
            interpreter: Some(loader.to_owned()),
            needed: vec!["libc.so.6".to_owned()],
            needed_versions: versions.iter().map(|version| ("libc.so.6".to_owned(), (*version).to_owned())).collect(),
            ..ElfFacts::default()
        }
    }

    const GNU_LOADER: &str = "/lib64/ld-linux-x86-64.so.2";
    const MUSL_LOADER: &str = "/lib/ld-musl-x86_64.so.1";

    #[test]
    fn files_that_are_no_linux_programs_are_named() {
        let table: [(&[u8], &str); 8] = [
            (b"", "empty"),
            (b"\xcf\xfa\xed\xfe\x07\0\0\x01", "a macOS program (Mach-O)"),
            (b"\xca\xfe\xba\xbe\0\0\0\x02", "a macOS program for several architectures (Mach-O)"),
            (b"MZ\x90\0", "a Windows program (PE)"),
            (b"\0asm\x01\0\0\0", "a WebAssembly module"),
            (b"!<arch>\n", "a static library"),
            (b"#!/bin/sh\n", "a script"),
            (b"hello", "no program"),
        ];
        for (bytes, kind) in table {
            let mut file = tempfile::NamedTempFile::new().expect("a file");
            file.write_all(bytes).expect("written");
            let problem = read(file.path(), Some(Architecture::Arm64)).expect_err("refused");
            let path = file.path().display();
            assert_eq!(problem.message(), format!("`{path}` is {kind}, and Lambda runs Linux programs (ELF)"));
            assert_eq!(problem.exit(), Exit::Refused);
            assert!(problem.next_step().is_some_and(|help| help.contains("--target aarch64-unknown-linux-gnu")));
        }
    }

    #[test]
    fn a_program_is_taken_and_a_library_is_not() {
        let own = Path::new("/proc/self/exe");
        assert!(read(own, None).expect("this test is a program").interpreter.is_some());
        let maps = std::fs::read_to_string("/proc/self/maps").expect("a Linux system");
        let library = maps.lines().find_map(|line| {
            let path = &line[line.find('/')?..];
            path.contains("/libgcc_s.so").then(|| path.to_owned())
        });
        let library = library.expect("Rust programs on glibc use libgcc");
        let problem = read(Path::new(&library), None).expect_err("refused");
        assert_eq!(problem.message(), format!("`{library}` is a shared library, and Lambda starts a program"));
    }

    #[test]
    fn architectures_must_agree() {
        use Architecture::{Amd64, Arm64};
        let facts = dynamic(GNU_LOADER, &[]);
        let base = "public.ecr.aws/lambda/provided:al2023";
        let check = |requested, base_architecture: Option<Architecture>| {
            architecture(Path::new(BINARY), &facts, requested, base_architecture.map(|it| (base, it)))
                .map_err(|problem| problem.message().to_owned())
        };
        let binary = format!("the architectures disagree: binary `{BINARY}` is for amd64");
        let table = [
            (None, None, Ok(Amd64)),
            (Some(Amd64), Some(Amd64), Ok(Amd64)),
            (Some(Arm64), None, Err(format!("{binary}, the flags ask for arm64"))),
            (None, Some(Arm64), Err(format!("{binary}, base `{base}` is for arm64"))),
            (Some(Amd64), Some(Arm64), Err(format!("{binary}, the flags ask for amd64, base `{base}` is for arm64"))),
        ];
        for (requested, base_architecture, expected) in table {
            assert_eq!(check(requested, base_architecture), expected);
        }
    }

    #[test]
    fn what_lambda_does_not_run_is_named() {
        let facts = ElfFacts { machine: 243, ..ElfFacts::default() };
        let problem = architecture(Path::new(BINARY), &facts, None, None).expect_err("refused");
        assert_eq!(
            problem.message(),
            "`target/release/hello` is built for RISC-V, and Lambda runs x86-64 and 64-bit ARM"
        );
    }

    #[test]
    fn the_c_library_of_the_base_must_do() {
        let fixed = ElfFacts { interpreter: None, ..dynamic(GNU_LOADER, &[]) };
        let gnu = dynamic(GNU_LOADER, &["GLIBC_2.2.5", "GLIBC_2.34"]);
        let musl = dynamic(MUSL_LOADER, &[]);
        let no_loader = |loader: &str| {
            Err(format!("`{BINARY}` is dynamically linked and asks for `{loader}`, which base `b` does not have"))
        };
        let table = [
            (&fixed, Libc::Nothing, Ok(())),
            (&fixed, Libc::Glibc("2.17"), Ok(())),
            (&gnu, Libc::Unknown, Ok(())),
            (&gnu, Libc::Glibc("2.34"), Ok(())),
            (&gnu, Libc::Glibc("2.36"), Ok(())),
            (&gnu, Libc::Glibc("strange"), Ok(())),
            (&gnu, Libc::Glibc("2.26"), Err(format!("`{BINARY}` needs glibc 2.34, and base `b` has 2.26"))),
            (&gnu, Libc::Glibc("2.4"), Err(format!("`{BINARY}` needs glibc 2.34, and base `b` has 2.4"))),
            (&gnu, Libc::Nothing, no_loader(GNU_LOADER)),
            (&gnu, Libc::NoGlibc, no_loader(GNU_LOADER)),
            (&musl, Libc::Nothing, no_loader(MUSL_LOADER)),
            (&musl, Libc::NoGlibc, Ok(())),
            (
                &musl,
                Libc::Glibc("2.34"),
                Err(format!("`{BINARY}` is linked dynamically against musl, and base `b` has glibc")),
            ),
        ];
        for (facts, base, expected) in table {
            let outcome = libc(Path::new(BINARY), facts, "b", base).map_err(|problem| problem.message().to_owned());
            assert_eq!(outcome, expected, "{base:?}");
        }
    }

    #[test]
    fn an_older_base_has_its_way_out() {
        let problem = libc(Path::new(BINARY), &dynamic(GNU_LOADER, &["GLIBC_2.39"]), "b", Libc::Glibc("2.34"));
        let problem = problem.expect_err("refused");
        assert_eq!(problem.exit(), Exit::Refused);
        assert_eq!(
            problem.next_step(),
            Some(
                "link against the older one with `--cargo-build zigbuild --target x86_64-unknown-linux-gnu.2.34`, or \
                 make a static binary: `--target x86_64-unknown-linux-musl`, or \
                 `RUSTFLAGS=\"-C target-feature=+crt-static\"` with `--target x86_64-unknown-linux-gnu`"
            )
        );
    }
}
