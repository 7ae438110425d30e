//! What programs load, judged as the loaders of glibc and musl would find it: real programs of this machine's C
//! compiler.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;
use tempfile::TempDir;

use crate::advice::advice;
use crate::rules::expect;
use crate::support::project::{AMD64, elf};
use crate::support::specimen::{Specimen, Tape};
use crate::support::tools::{succeed, tool};

/// A file that the C compiler makes of no more than these options.
fn compiled(directory: &Path, name: &str, source: &str, options: &[&str]) -> Vec<u8> {
    let (from, to) = (directory.join("source.c"), directory.join(name));
    fs::write(&from, source).expect("written");
    succeed(Command::new(tool("cc")).current_dir(directory).arg("-o").arg(&to).arg(&from).args(options));
    fs::read(to).expect("compiled")
}

/// A C library of version 2.5, which is no real one, and the loader's name.
fn old_libc(directory: &Path) -> Vec<u8> {
    fs::write(directory.join("versions"), "GLIBC_2.2.5 { global: puts; };\nGLIBC_2.5 { global: old; };\n")
        .expect("written");
    let source = "int puts(const char *s) { return 0; }\nint old(void) { return 0; }\n";
    let options = ["-shared", "-nostdlib", "-Wl,-soname,libc.so.6", "-Wl,--version-script=versions"];
    compiled(directory, "old-libc", source, &options)
}

/// The loader that this machine's compiler asks for.
const LOADER: &str =
    if cfg!(target_arch = "x86_64") { "lib64/ld-linux-x86-64.so.2" } else { "lib/ld-linux-aarch64.so.1" };

#[test]
fn libraries_are_found_and_new_enough() {
    let directory = TempDir::new().expect("a directory");
    let here = directory.path();
    let source = "int helped(void);\nint main(void) { return helped(); }\n";
    let helper = compiled(here, "libhelper.so", "int helped(void) { return 0; }\n", &["-shared", "-nostdlib"]);
    let linked = ["-L.", "-lhelper", "-Wl,-rpath,$ORIGIN/lib"];
    let program = compiled(here, "program", source, &linked);
    let libc = old_libc(here);
    let own = succeed(Command::new(tool("cc")).arg("-print-file-name=libc.so.6"));
    let libc_of_this_machine = fs::read(own.trim()).expect("the C library");
    let machine = |image: &mut Specimen| {
        image.config["architecture"] = json!(if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" });
        image.config["config"]["Entrypoint"] = json!(["/var/task/program"]);
        image.add(|tape| tape.file("var/task/program", 0o755, &program));
    };
    let system = |image: &mut Specimen, libc: Option<&[u8]>| {
        let tape = Tape::default().directories(&["lib", "lib64"]).file(LOADER, 0o755, &elf(AMD64));
        image.add_bare(match libc {
            Some(libc) => tape.file("lib64/libc.so.6", 0o755, libc),
            None => tape,
        });
    };
    let help = |image: &mut Specimen, at: &str| {
        image.add(|tape| {
            tape.directory(&format!("var/task/{at}"), 0o755).file(
                &format!("var/task/{at}/libhelper.so"),
                0o755,
                &helper,
            )
        });
    };
    let at = "/var/task/program";
    expect("no loader", &[&format!("L057 error {at}")], machine);
    expect(
        "no loader, in no layer that is to be seen",
        &[&format!("L057 error {at}"), "L028 warning /lib64"],
        |image| {
            image.add_bare(Tape::default().directories(&["usr", "usr/lib"]).symlink("lib64", "usr/lib"));
            machine(image);
            help(image, "lib");
            let tape = Tape::default().directories(&["usr", "usr/lib"]);
            let tape =
                tape.file(&format!("usr/lib/{}", LOADER.rsplit('/').next().expect("a name")), 0o755, &elf(AMD64));
            image.add_bare(tape.file("usr/lib/libc.so.6", 0o755, &libc_of_this_machine));
            image.add_bare(Tape::default().directories(&["lib64"]));
        },
    );
    expect("no libraries", &[&format!("L060 error {at}"), &format!("L060 error {at}")], |image| {
        machine(image);
        system(image, None);
    });
    expect("an old C library", &[&format!("L058 error {at}")], |image| {
        machine(image);
        system(image, Some(&libc));
        help(image, "lib");
    });
    let help_outside = advice(|image| {
        machine(image);
        system(image, Some(&libc));
        image.add_bare(Tape::default().file("program", 0o755, &program).file("libhelper.so", 0o755, &helper));
        image.config["config"]["Entrypoint"] = json!(["/program"]);
        image.config["config"]["Env"] = json!(["LD_LIBRARY_PATH=/"]);
        image.add(|tape| tape.file("var/task/.wh.program", 0o644, b""));
    });
    let triple = if cfg!(target_arch = "x86_64") { "x86_64" } else { "aarch64" };
    assert_eq!(
        help_outside,
        format!(
            "compile against the image's C library: `--cargo-build zigbuild --target {triple}-unknown-linux-gnu.2.5`, \
             or statically: `--target {triple}-unknown-linux-musl`"
        )
    );
    let release = |image: &mut Specimen, version: &str| {
        let text = format!("ID=\"amzn\"\nVERSION_ID=\"{version}\"\n");
        image.add_bare(Tape::default().directories(&["etc"]).file("etc/os-release", 0o644, text.as_bytes()));
    };
    for (version, expected) in [("2", &[&*format!("L058 error {at}")][..]), ("2099", &[])] {
        expect("a C library that cannot be read, of a system that is known or not", expected, |image| {
            machine(image);
            system(image, Some(b"damaged"));
            help(image, "lib");
            release(image, version);
        });
    }
    expect("a library that is cut short", &["L060 error /var/task/lib/libhelper.so"], |image| {
        machine(image);
        system(image, Some(&libc_of_this_machine));
        let half = &helper[..helper.len() / 2];
        image.add(|tape| tape.directory("var/task/lib", 0o755).file("var/task/lib/libhelper.so", 0o755, half));
    });
    expect("all is there, by run path", &[], |image| {
        machine(image);
        system(image, Some(&libc_of_this_machine));
        help(image, "lib");
    });
    expect("all is there, by variable", &[], |image| {
        machine(image);
        system(image, Some(&libc_of_this_machine));
        help(image, "other");
        image.config["config"]["Env"] = json!(["LD_LIBRARY_PATH=/opt/lib:/var/task/other"]);
    });
    expect("a module for a newer C library", &["L059 warning /var/task/native.node"], |image| {
        system(image, Some(&libc));
        image.config["architecture"] = json!(if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" });
        image.add(|tape| tape.file("var/task/native.node", 0o644, &program));
    });
}

/// The program `run`, which needs `libone.so`, which needs `libtwo.so`, and nothing of this machine.
struct Chain {
    directory: TempDir,
    loader: &'static str,
}

/// What the machine of this test is called in an image's config.
const ARCHITECTURE: &str = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };

const MUSL_LOADER: &str =
    if cfg!(target_arch = "x86_64") { "lib/ld-musl-x86_64.so.1" } else { "lib/ld-musl-aarch64.so.1" };

impl Chain {
    fn new(loader: &'static str) -> Self {
        let chain = Self { directory: TempDir::new().expect("a directory"), loader };
        let here = chain.directory.path();
        let library = ["-shared", "-nostdlib", "-L.", "-Wl,--no-as-needed"];
        compiled(
            here,
            "libtwo.so",
            "int two(void) { return 0; }\n",
            &[&library[..], &["-Wl,-soname,libtwo.so"]].concat(),
        );
        let one = "int two(void);\nint one(void) { return two(); }\n";
        compiled(here, "libone.so", one, &[&library[..], &["-Wl,-soname,libone.so", "-ltwo"]].concat());
        chain
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.directory.path().join(name)).expect("compiled")
    }

    /// The program, linked with these options besides.
    fn program(&self, options: &[&str]) -> Vec<u8> {
        let loader = format!("-Wl,--dynamic-linker=/{}", self.loader);
        let common =
            ["-nostdlib", "-nostartfiles", "-L.", "-Wl,--no-as-needed", "-Wl,--allow-shlib-undefined", &loader];
        let source = "int one(void);\nvoid _start(void) { one(); }\n";
        compiled(self.directory.path(), "run", source, &[&common[..], &["-lone"], options].concat())
    }

    /// Puts the program into an image, with both libraries in `directory`, and has it started.
    fn install(&self, image: &mut Specimen, options: &[&str], directory: &str) {
        let (one, two, program) = (self.read("libone.so"), self.read("libtwo.so"), self.program(options));
        image.add_bare(Tape::default().directories(&["lib", "lib64"]).file(self.loader, 0o755, &elf(AMD64)));
        image.add(|tape| {
            let below_task = directory.match_indices('/').skip(2).map(|(at, _)| &directory[..at]).chain([directory]);
            let tape = tape.file("var/task/run", 0o755, &program).directories(&below_task.collect::<Vec<_>>());
            let tape = tape.file(&format!("{directory}/libone.so"), 0o644, &one);
            tape.file(&format!("{directory}/libtwo.so"), 0o644, &two)
        });
        image.config["architecture"] = json!(ARCHITECTURE);
        image.config["config"]["Entrypoint"] = json!(["/var/task/run"]);
    }
}

const NEW_TAGS: [&str; 2] = ["-Wl,--enable-new-dtags", "-Wl,-rpath,$ORIGIN/lib"];
const OLD_TAGS: [&str; 2] = ["-Wl,--disable-new-dtags", "-Wl,-rpath,$ORIGIN/lib"];

#[test]
fn run_paths_hold_for_what_ld_so_says_they_hold_for() {
    let chain = Chain::new(LOADER);
    let one = "L060 error /var/task/lib/libone.so";
    expect("RUNPATH is for the program's own libraries", &[one], |image| {
        chain.install(image, &NEW_TAGS, "var/task/lib");
    });
    let help = advice(|image| chain.install(image, &NEW_TAGS, "var/task/lib"));
    assert_eq!(
        help,
        "it is in `/var/task/lib`: name that in the variable LD_LIBRARY_PATH, or link with `-Wl,-rpath,/var/task/lib`"
    );
    expect("RPATH is for the libraries of libraries, too", &[], |image| {
        chain.install(image, &OLD_TAGS, "var/task/lib");
    });
    expect("what is loaded already is not looked for", &[], |image| {
        chain.install(image, &[&NEW_TAGS[..], &["-ltwo"]].concat(), "var/task/lib");
    });
    expect("the origin of a library is where it is named", &[], |image| {
        chain.install(image, &[&OLD_TAGS[..], &["-ltwo"]].concat(), "var/task/lib");
        // The library that has a run path itself is a link here, and its own library beside the link.
        let source = "int three(void);\nint two(void) { return three(); }\n";
        let here = chain.directory.path();
        compiled(here, "libthree.so", "int three(void) { return 0; }\n", &["-shared", "-nostdlib"]);
        let options = ["-shared", "-nostdlib", "-L.", "-lthree", NEW_TAGS[0], "-Wl,-rpath,$ORIGIN"];
        let two = compiled(here, "linked.so", source, &options);
        image.add_bare(Tape::default().directories(&["store"]).file("store/two", 0o644, &two));
        image.add(|tape| {
            let tape = tape.directory("var/task/lib", 0o755).symlink("var/task/lib/libtwo.so", "/store/two");
            tape.file("var/task/lib/libthree.so", 0o644, &chain.read("libthree.so"))
        });
        // Only what the library's own run path says may lead there.
        image.config["config"]["Env"] = json!(["LD_LIBRARY_PATH=/opt/lib"]);
    });
    expect("variables in run paths", &[], |image| {
        let options = ["-Wl,--disable-new-dtags", "-Wl,-rpath,${ORIGIN}/a/$LIB"];
        chain.install(image, &options, "var/task/a/lib64");
    });
    expect("LD_LIBRARY_PATH is for all", &[], |image| {
        chain.install(image, &[], "var/task/lib");
        image.config["config"]["Env"] = json!(["LD_LIBRARY_PATH=/opt/lib:/var/task/lib"]);
    });
    for path in ["LD_LIBRARY_PATH=/opt/lib:", "LD_LIBRARY_PATH=../lib"] {
        expect("what is empty or relative in it begins in WORKDIR", &[], |image| {
            chain.install(image, &[], "var/task/lib");
            let directory = if path.ends_with(':') { "/var/task/lib" } else { "/var/task" };
            image.config["config"]["WorkingDir"] = json!(directory);
            let path = path.replace("../lib", "lib");
            image.config["config"]["Env"] = json!([path]);
        });
    }
    expect("a config without a platform hides no libraries", &["L014 error -"], |image| {
        chain.install(image, &OLD_TAGS, "var/task/lib");
        image.config.as_object_mut().expect("an object").remove("architecture");
    });
}

#[test]
fn what_the_loaders_cache_may_know_is_no_error_and_what_came_later_is() {
    let chain = Chain::new(LOADER);
    let cache = |tape: Tape| tape.directories(&["etc"]).file("etc/ld.so.cache", 0o644, b"not read here");
    expect("libraries below the cache", &[], |image| {
        chain.install(image, &[], "var/task/odd");
        image.add_bare(cache(Tape::default()));
    });
    expect("libraries above the cache", &["L060 error /var/task/run"], |image| {
        image.add_bare(cache(Tape::default()));
        chain.install(image, &[], "var/task/odd");
    });
}

#[test]
fn musl_looks_in_the_run_paths_of_all_and_for_no_file_of_its_own() {
    let chain = Chain::new(MUSL_LOADER);
    compiled(
        chain.directory.path(),
        "libc.so",
        "int puts(void) { return 0; }\n",
        &["-shared", "-nostdlib", "-Wl,-soname,libc.so"],
    );
    expect("all is there", &[], |image| {
        chain.install(image, &[&NEW_TAGS[..], &["-l:libc.so"]].concat(), "var/task/lib");
    });
    expect("nothing is there", &["L060 error /var/task/run"], |image| {
        chain.install(image, &["-l:libc.so"], "var/task/lib");
    });
}
