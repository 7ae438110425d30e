//! What the C libraries of systems offer, by the system's own name: for images whose library is there and cannot be
//! read.
//!
//! Where it can be read, it decides and not this table.

use crate::layer::facts::Inside;

use super::merged::Merged;

/// `ID` and `VERSION_ID` of `os-release`, and the highest versions of glibc and of libstdc++ in that release.
///
/// Amazon Linux: awslabs/aws-lambda-rust-runtime#874 and #932, and the gcc packages of each release (7.3 and 11.4).
/// Debian and Ubuntu: their packages `libc6` and `libstdc++6`. Which gcc brought which version: gcc's manual of
/// libstdc++, "ABI Policy and Guidelines".
const SYSTEMS: [(&str, &str, &str); 9] = [
    ("amzn 2018.03", "GLIBC_2.17", "GLIBCXX_3.4.24"),
    ("amzn 2", "GLIBC_2.26", "GLIBCXX_3.4.24"),
    ("amzn 2023", "GLIBC_2.34", "GLIBCXX_3.4.29"),
    ("debian 11", "GLIBC_2.31", "GLIBCXX_3.4.28"),
    ("debian 12", "GLIBC_2.36", "GLIBCXX_3.4.30"),
    ("debian 13", "GLIBC_2.41", "GLIBCXX_3.4.33"),
    ("ubuntu 20.04", "GLIBC_2.31", "GLIBCXX_3.4.28"),
    ("ubuntu 22.04", "GLIBC_2.35", "GLIBCXX_3.4.30"),
    ("ubuntu 24.04", "GLIBC_2.39", "GLIBCXX_3.4.33"),
];

/// A system, and the highest version that a library of it offers.
pub(super) struct Offer {
    pub(super) system: &'static str,
    pub(super) highest: &'static str,
}

/// What the library called `library` offers in this image's system, if that is known.
pub(super) fn offer(merged: &Merged<'_>, library: &str) -> Option<Offer> {
    let own = merged.inside().find_map(|(_, inside)| match inside {
        Inside::System(system) => Some(system.as_str()),
        _ => None,
    });
    let (system, glibc, glibcxx) = SYSTEMS.iter().find(|(name, ..)| Some(*name) == own)?;
    let highest = match library {
        "libc.so.6" | "libm.so.6" | "libpthread.so.0" | "libdl.so.2" | "librt.so.1" => glibc,
        "libstdc++.so.6" => glibcxx,
        _ => return None,
    };
    Some(Offer { system, highest })
}
