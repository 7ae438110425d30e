//! The OCI words everything else speaks: [`Digest`] of bytes as stored, [`DiffId`] of an uncompressed tar,
//! [`Descriptor`], and the media types this program reads and writes.
//!
//! Only SHA-256 is accepted, parsed strictly at the edge, so that a digest can be made part of a path or URL safely
//! (the class of CVE-2024-3727). References are those of `oci-spec`, parsed by [`reference()`].

use std::fmt;
use std::io::{self, Write};
use std::str::FromStr;

use oci_spec::distribution::ParseError;
pub use oci_spec::distribution::Reference;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

/// The SHA-256 digest of bytes as they are stored and sent.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The 64 hexadecimal digits without `sha256:`.
    #[must_use]
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }

    /// The first 12 hexadecimal digits, for people and tags.
    #[must_use]
    pub fn short(&self) -> String {
        hex::encode(&self.0[..6])
    }
}

impl From<[u8; 32]> for Digest {
    /// The digest with these bytes, from a hasher that saw what it names.
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A string that is no `sha256:` digest of 64 lower-case hexadecimal digits.
#[derive(Debug, thiserror::Error)]
#[error("`{}` is not a digest of the form `sha256:` and 64 lower-case hexadecimal digits", .0.escape_debug())]
pub struct InvalidDigest(String);

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        let invalid = || InvalidDigest(text.chars().take(100).collect());
        let hex = text.strip_prefix("sha256:").ok_or_else(invalid)?;
        if hex.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(invalid());
        }
        let mut bytes = [0; 32];
        hex::decode_to_slice(hex, &mut bytes).map_err(|_| invalid())?;
        Ok(Self(bytes))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Parses a reference of an image: `name[:tag][@digest]`.
///
/// What it means is the library's to say. But it compiles a regular expression for that, which takes longer than all
/// else that a start does (45 of 70 ms); so what is obviously one reference and no other is taken apart here.
///
/// # Errors
/// The library's.
pub fn reference(text: &str) -> Result<Reference, ParseError> {
    plain_reference(text).map_or_else(|| text.parse(), Ok)
}

/// `HOST[:PORT]/PATH[:TAG][@sha256:DIGEST]` in lower case, with a host that cannot be meant otherwise; `None` for all
/// else.
fn plain_reference(text: &str) -> Option<Reference> {
    let is_alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_name = |part: &str, separators: &[u8]| {
        part.split(|c: char| c.is_ascii() && separators.contains(&(c as u8)))
            .all(|word| !word.is_empty() && word.bytes().all(is_alphanumeric))
    };
    let (name, digest) = text.split_once('@').map_or((text, None), |(name, digest)| (name, Some(digest)));
    let (registry, path) = name.split_once('/')?;
    let (repository, tag) = path.split_once(':').map_or((path, None), |(path, tag)| (path, Some(tag)));
    let (host, port) = registry.split_once(':').map_or((registry, None), |(host, port)| (host, Some(port)));
    let is_host = is_name(host, b".-") && (host.contains('.') || port.is_some() || host == "localhost");
    // Docker Hub has short names.
    let is_plain = is_host
        && !host.ends_with("docker.io")
        && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
        && repository.len() <= 255
        && repository.split('/').all(|part| is_name(part, b"._-"))
        && tag.is_none_or(|tag| tag.len() <= 128 && is_name(tag, b"._-"))
        && digest.is_none_or(|digest| digest.parse::<Digest>().is_ok());
    let (registry, repository) = (registry.to_owned(), repository.to_owned());
    is_plain.then(|| match (tag, digest) {
        (tag, None) => Reference::with_tag(registry, repository, tag.unwrap_or("latest").to_owned()),
        (None, Some(digest)) => Reference::with_digest(registry, repository, digest.to_owned()),
        (Some(tag), Some(digest)) => {
            Reference::with_tag_and_digest(registry, repository, tag.to_owned(), digest.to_owned())
        }
    })
}

/// The digest of a layer's uncompressed tar, as image configs list it; never to be mixed up with a [`Digest`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DiffId(pub Digest);

impl fmt::Display for DiffId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for DiffId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Where bytes are and what they are: media type, digest and size in bytes (image-spec, descriptor.md).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// The media type of the bytes.
    pub media_type: String,
    /// Their digest.
    pub digest: Digest,
    /// Their number.
    pub size: u64,
}

/// The annotation that names an image within a layout (image-spec, annotations.md).
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Media types of the OCI image specification and of Docker's schema 2.
pub mod media_type {
    /// An OCI image index.
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// An OCI image manifest.
    pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// An OCI image config.
    pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// An OCI layer, gzip.
    pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    /// An OCI layer, uncompressed.
    pub const OCI_LAYER_TAR: &str = "application/vnd.oci.image.layer.v1.tar";
    /// An OCI layer, zstd.
    pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    /// A Docker manifest list.
    pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// A Docker image manifest.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// A Docker image config.
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    /// A Docker layer, gzip.
    pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    /// A Docker layer, uncompressed.
    pub const DOCKER_LAYER_TAR: &str = "application/vnd.docker.image.rootfs.diff.tar";
}

/// Hashes and counts bytes.
#[derive(Debug, Default)]
pub struct Hasher {
    sha256: Sha256,
    bytes: u64,
}

impl Hasher {
    /// Sees more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    /// How many it has seen.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The digest of all it has seen, and their number.
    #[must_use]
    pub fn finish(self) -> (Digest, u64) {
        (Digest(self.sha256.finalize().into()), self.bytes)
    }
}

/// Hashes and counts what passes through to `inner`.
#[derive(Debug)]
pub struct HashingWriter<W> {
    inner: W,
    hasher: Hasher,
}

impl<W: Write> HashingWriter<W> {
    /// A writer that has seen nothing yet.
    pub fn new(inner: W) -> Self {
        Self { inner, hasher: Hasher::default() }
    }

    /// How many bytes went through so far.
    pub fn written_bytes(&self) -> u64 {
        self.hasher.bytes()
    }

    /// Forgets what went through; the inner writer, which is to forget it too.
    pub fn restart(&mut self) -> &mut W {
        self.hasher = Hasher::default();
        &mut self.inner
    }

    /// The inner writer, the digest of all that went through, and its size in bytes.
    pub fn finish(self) -> (W, Digest, u64) {
        let (digest, size) = self.hasher.finish();
        (self.inner, digest, size)
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_reference_taken_apart_here_is_what_the_library_says(
            host in "[a-zA-Z0-9._-]{0,9}(docker.io|localhost|\\[::1\\])?(:[0-9a]{0,3})?",
            path in "(/[a-z0-9._-]{0,5}){0,3}[A-Z/]?",
            tag in "(:[a-zA-Z0-9._-]{0,6}){0,2}",
            digest in "(@sha256:[0-9a-f]{64}|@sha256:[0-9a-g]{63,65}|@sha512:[0-9a-f]{128}|@)?",
        ) {
            let text = format!("{host}{path}{tag}{digest}");
            if let Some(plain) = plain_reference(&text) {
                prop_assert_eq!(Ok(plain), text.parse::<Reference>().map_err(|error| error.to_string()), "{}", text);
            }
        }
    }

    #[test]
    fn ordinary_references_are_taken_apart_here() {
        let digest = "@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        for name in [
            "public.ecr.aws/lambda/provided:al2023",
            "123456789012.dkr.ecr.eu-west-1.amazonaws.com/shop/api",
            "localhost:5000/a",
            "127.0.0.1:5000/shop/a_b-c.d:v1.2",
            "ghcr.io/a/b:latest",
        ] {
            for text in [name.to_owned(), format!("{name}{digest}")] {
                let plain = plain_reference(&text);
                assert_eq!(
                    plain.as_ref().map(Reference::whole),
                    text.parse().ok().as_ref().map(Reference::whole),
                    "{text}"
                );
                assert!(plain.is_some(), "{text}");
            }
        }
        for text in
            ["", "busybox", "docker.io/a/b", "index.docker.io/a", "shop/api", "Host.example/a", "a.b/A", "a.b/a:"]
        {
            assert_eq!(plain_reference(text), None, "{text}");
        }
    }

    #[test]
    fn digests_of_another_form_are_refused() {
        let good = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(good.parse::<Digest>().map(|digest| digest.to_string()).ok().as_deref(), Some(good));
        assert_eq!(Digest::of(b"").to_string(), good);
        for bad in [
            "",
            "sha256:",
            "sha256:../../etc/passwd",
            "sha512:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "sha256:E3B0C44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b85",
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n",
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "sha256:é3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b85",
        ] {
            assert!(bad.parse::<Digest>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_hashing_writer_hashes_and_counts_what_passed() {
        let mut writer = HashingWriter::new(Vec::new());
        writer.write_all(b"abc").expect("a Vec takes all bytes");
        let (inner, digest, size) = writer.finish();
        assert_eq!((inner.as_slice(), digest, size), (&b"abc"[..], Digest::of(b"abc"), 3));
    }
}
