//! What an ELF file is built for, asks for and offers, read from its headers and dynamic section only.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::platform::Architecture;
use crate::problem::Result;

/// The facts of one ELF file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ElfFacts {
    /// The architecture, if Lambda runs it.
    pub architecture: Option<Architecture>,
    /// `e_machine`, for messages about others.
    pub machine: u16,
    /// The loader it asks for; absent in static files and libraries.
    pub interpreter: Option<String>,
    /// The libraries it needs, in order.
    pub needed: Vec<String>,
    /// The symbol versions it needs, as `library` and `version`: `("libc.so.6", "GLIBC_2.34")`.
    pub needed_versions: Vec<(String, String)>,
    /// The symbol versions it offers.
    pub offered_versions: Vec<String>,
    /// `DT_RUNPATH` or `DT_RPATH`.
    pub runpath: Option<String>,
    /// Its own name as a library.
    pub soname: Option<String>,
}

impl ElfFacts {
    /// The highest `GLIBC_` version asked for, as numbers: `[2, 34]`.
    #[must_use]
    pub fn required_glibc(&self) -> Option<Vec<u32>> {
        todo!()
    }
}

/// Reads the facts of the file at `path`; `None` if it is no ELF file.
pub fn read_file(path: &Path) -> Result<Option<ElfFacts>> {
    let _ = path;
    todo!()
}
