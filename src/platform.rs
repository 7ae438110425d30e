//! The CPU architectures Lambda runs, and the words Cargo, OCI, Lambda and ELF have for each.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A CPU architecture that Lambda runs; the operating system is always Linux.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Architecture {
    /// x86-64.
    Amd64,
    /// 64-bit ARM.
    Arm64,
}

impl Architecture {
    /// The word of OCI configs and indexes: `amd64`, `arm64`.
    #[must_use]
    pub fn oci(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// The word of the Lambda API: `x86_64`, `arm64`.
    #[must_use]
    pub fn lambda(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64",
            Self::Arm64 => "arm64",
        }
    }

    /// The compiler's triple for this architecture with glibc, which `--x86-64` and `--arm64` stand for.
    #[must_use]
    pub fn gnu_triple(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-gnu",
            Self::Arm64 => "aarch64-unknown-linux-gnu",
        }
    }

    /// The architecture an OCI config or index names, if Lambda runs it.
    #[must_use]
    pub fn from_oci(word: &str) -> Option<Self> {
        match word {
            "amd64" => Some(Self::Amd64),
            "arm64" => Some(Self::Arm64),
            _ => None,
        }
    }

    /// The architecture of a compiler's triple, if Lambda runs it.
    #[must_use]
    pub fn from_triple(triple: &str) -> Option<Self> {
        match triple.split('-').next() {
            Some("x86_64") => Some(Self::Amd64),
            Some("aarch64") => Some(Self::Arm64),
            _ => None,
        }
    }

    /// The platform as OCI writes it: `linux/amd64`.
    #[must_use]
    pub fn platform(self) -> String {
        format!("linux/{}", self.oci())
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.oci())
    }
}
