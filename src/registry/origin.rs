//! Where a registry is, and which other places its answers may send us to.
//!
//! Redirects, token realms and upload locations all come from the network. The rules that keep credentials at home
//! and requests away from private and metadata addresses are pure functions here, apart from the code that sends.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use reqwest::Url;

use crate::oci::Reference;
use crate::problem::{Problem, Result};

/// Docker Hub's name in references, and the host that serves it.
const DOCKER_HUB: (&str, &str) = ("docker.io", "registry-1.docker.io");

/// Names under which clouds serve instance metadata, credentials included.
const METADATA_NAMES: [&str; 3] = ["metadata", "metadata.google.internal", "instance-data"];

/// Query keys whose values hold no secret (the list of go-containerregistry's `redact`).
const PUBLIC_QUERY_KEYS: [&str; 7] = ["scope", "service", "mount", "from", "digest", "n", "last"];

/// Second-level labels that are sold like top-level ones below country codes: `example.co.uk`.
const SHARED_SECOND_LEVELS: [&str; 10] = ["ac", "co", "com", "edu", "go", "gov", "ne", "net", "or", "org"];

/// The scheme, host and port that credentials of a registry belong to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    url: Url,
    /// The registry as references name it, which is what credentials are stored under.
    name: String,
}

impl Origin {
    /// The origin that serves `reference`: https, but plain http on loopback hosts.
    ///
    /// # Errors
    /// A usage problem when the registry's name is no host name.
    pub fn of(reference: &Reference) -> Result<Self> {
        let name = match reference.registry() {
            "index.docker.io" => DOCKER_HUB.0,
            name => name,
        };
        let host = if name == DOCKER_HUB.0 { DOCKER_HUB.1 } else { name };
        let bare = host.split(':').next().unwrap_or(host);
        let scheme = if is_loopback(bare) { "http" } else { "https" };
        let origin = Self::from_url(&format!("{scheme}://{host}/"))?;
        Ok(Self { name: name.to_owned(), ..origin })
    }

    /// The origin of an http or https URL; path and query are dropped.
    ///
    /// # Errors
    /// A usage problem when `url` is no such URL.
    pub fn from_url(url: &str) -> Result<Self> {
        let invalid = || {
            Problem::usage(format!("`{url}` is not the address of a registry"))
                .help("write the registry as `HOST` or `HOST:PORT`, with a port up to 65535")
        };
        let mut url = Url::parse(url).map_err(|error| invalid().because(error))?;
        if !matches!(url.scheme(), "http" | "https") || !url.username().is_empty() || url.password().is_some() {
            return Err(invalid());
        }
        url.set_path("/");
        url.set_query(None);
        url.set_fragment(None);
        let host = url.host_str().ok_or_else(invalid)?;
        let name = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        Ok(Self { url, name })
    }

    /// The registry as references and `docker login` name it: `docker.io`, `public.ecr.aws`, `localhost:5000`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the registry is on this machine.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        is_loopback(host(&self.url))
    }

    /// Whether `url` has exactly this scheme, host and port, so that credentials may be sent along.
    #[must_use]
    pub fn covers(&self, url: &Url) -> bool {
        self.url.scheme() == url.scheme()
            && host(&self.url).eq_ignore_ascii_case(host(url))
            && self.url.port_or_known_default() == url.port_or_known_default()
    }

    /// The URL of `path` below `/v2/`; the path's parts were checked when they were parsed.
    pub(super) fn endpoint(&self, path: &str) -> Url {
        let mut url = self.url.clone();
        url.set_path(&format!("/v2/{path}"));
        url
    }

    /// Whether an answer for `from` may send us on to `to`.
    ///
    /// # Errors
    /// The reason why not.
    pub(super) fn allow_redirect(&self, from: &Url, to: &Url) -> Result<(), &'static str> {
        match to.scheme() {
            "https" => {}
            "http" if from.scheme() == "https" => return Err("it leads from https to plain http"),
            "http" if is_loopback(host(to)) || self.covers(to) => {}
            "http" => return Err("it leads to plain http on another machine"),
            _ => return Err("it leads away from http"),
        }
        if !to.username().is_empty() || to.password().is_some() {
            return Err("it contains a user name");
        }
        if !self.is_local() && is_forbidden(host(to)) {
            return Err("it leads to a private or metadata address");
        }
        Ok(())
    }

    /// Whether a token may be asked of `realm`; `with_credentials` tells whether a secret goes along.
    ///
    /// # Errors
    /// The reason why not.
    pub(super) fn allow_realm(&self, realm: &Url, with_credentials: bool) -> Result<(), &'static str> {
        let (ours, theirs) = (host(&self.url).to_ascii_lowercase(), host(realm).to_ascii_lowercase());
        match realm.scheme() {
            "https" => {}
            "http" if self.url.scheme() == "http" && (ours == theirs || is_loopback(&theirs)) => {}
            _ => return Err("it is not https"),
        }
        if !realm.username().is_empty() || realm.password().is_some() {
            return Err("it contains a user name");
        }
        if ours == theirs || (self.is_loopback() && is_loopback(&theirs)) {
            return Ok(());
        }
        if is_forbidden(&theirs) {
            return Err("it is a private or metadata address");
        }
        if with_credentials && !same_parent(&ours, &theirs) {
            return Err("it is on another domain, and credentials would be sent there");
        }
        Ok(())
    }

    /// Whether the registry itself is at an address of this machine or of a private network.
    fn is_local(&self) -> bool {
        is_forbidden(host(&self.url))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// `url` as it may be shown and logged: no user name, no fragment, and query values only of harmless keys.
pub(super) fn redacted(url: &Url) -> String {
    let mut shown = url.clone();
    let _ = shown.set_username("");
    let _ = shown.set_password(None);
    shown.set_fragment(None);
    shown.set_query(None);
    let mut shown = shown.to_string();
    for (index, (key, value)) in url.query_pairs().enumerate() {
        let value = if PUBLIC_QUERY_KEYS.contains(&key.as_ref()) { value.as_ref() } else { "***" };
        shown.push(if index == 0 { '?' } else { '&' });
        shown.extend([key.as_ref(), "=", value]);
    }
    shown
}

/// Whether `url` is on this machine, where proxies have no business.
pub(super) fn is_loopback_url(url: &Url) -> bool {
    is_loopback(host(url))
}

/// The host without the brackets of IPv6 and without a final dot.
fn host(url: &Url) -> &str {
    let host = url.host_str().unwrap_or_default();
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).trim_end_matches('.')
}

fn is_loopback(host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    host == "localhost" || host.ends_with(".localhost") || host.parse().is_ok_and(|ip: IpAddr| plain(ip).is_loopback())
}

/// Whether `host` is a literal address, or a well-known name of one, that no public registry has a reason to name.
fn is_forbidden(host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    if is_loopback(&host) || METADATA_NAMES.contains(&host.as_str()) {
        return true;
    }
    match host.parse().map(plain) {
        Ok(IpAddr::V4(ip)) => is_forbidden_v4(ip),
        Ok(IpAddr::V6(ip)) => {
            ip.is_unspecified()
                || ip.is_multicast()
                || (ip.segments()[0] & 0xfe00) == 0xfc00
                || (ip.segments()[0] & 0xffc0) == 0xfe80
        }
        Err(_) => false,
    }
}

fn is_forbidden_v4(ip: Ipv4Addr) -> bool {
    let [first, second, ..] = ip.octets();
    // 100.64.0.0/10 is carriers' private space, and holds Alibaba's metadata address 100.100.100.200.
    let is_shared = first == 100 && (64..128).contains(&second);
    ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_multicast()
        || first == 0
        || first >= 240
        || is_shared
}

/// The IPv4 address inside an IPv6 one that only wraps it: mapped, compatible, NAT64 and 6to4.
fn plain(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = ip else { return ip };
    let inner = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    match v6.segments() {
        _ if v6 == Ipv6Addr::LOCALHOST || v6 == Ipv6Addr::UNSPECIFIED => ip,
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => inner(high, low),
        [0x2002, high, low, ..] => inner(high, low),
        _ => ip,
    }
}

/// Whether `theirs` is in the domain right above `ours`: `auth.docker.io` for `registry-1.docker.io`, `gitlab.com` for
/// `registry.gitlab.com`. A domain that is sold to many is never such a parent.
fn same_parent(ours: &str, theirs: &str) -> bool {
    if ours.parse::<IpAddr>().is_ok() || theirs.parse::<IpAddr>().is_ok() {
        return ours == theirs;
    }
    let labels: Vec<_> = ours.split('.').collect();
    let is_shared = |labels: &[&str]| {
        labels.len() < 2 || (labels.len() == 2 && labels[1].len() == 2 && SHARED_SECOND_LEVELS.contains(&labels[0]))
    };
    let parent = if is_shared(&labels[1..]) { &labels[..] } else { &labels[1..] };
    let parent = parent.join(".");
    theirs == parent || theirs.strip_suffix(&parent).is_some_and(|rest| rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).expect("a URL of the table")
    }

    fn origin(text: &str) -> Origin {
        Origin::from_url(text).expect("an origin of the table")
    }

    #[test]
    fn a_reference_names_its_origin() {
        for (reference, name, endpoint) in [
            ("public.ecr.aws/lambda/provided:al2023", "public.ecr.aws", "https://public.ecr.aws/v2/"),
            ("debian", "docker.io", "https://registry-1.docker.io/v2/"),
            ("localhost:5000/a", "localhost:5000", "http://localhost:5000/v2/"),
            ("127.0.0.1:5000/a", "127.0.0.1:5000", "http://127.0.0.1:5000/v2/"),
            ("127.0.0.1.evil.io/a", "127.0.0.1.evil.io", "https://127.0.0.1.evil.io/v2/"),
            ("10.0.0.1/a", "10.0.0.1", "https://10.0.0.1/v2/"),
        ] {
            let origin = Origin::of(&reference.parse().expect("a reference of the table")).expect(reference);
            assert_eq!((origin.name(), origin.endpoint("").as_str()), (name, endpoint));
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_a_way_on() {
        for text in ["http://localhost:99999/", "ftp://example.com/", "https://me@example.com/", "example.com"] {
            let problem = Origin::from_url(text).expect_err(text);
            assert!(problem.next_step().is_some_and(|help| help.contains("`HOST:PORT`")), "{problem:?}");
        }
    }

    #[test]
    fn credentials_belong_to_the_exact_origin() {
        let registry = origin("https://registry.example.com");
        for (other, covered) in [
            ("https://registry.example.com/v2/", true),
            ("https://REGISTRY.example.com:443/v2/", true),
            ("https://registry.example.com:8443/v2/", false),
            ("http://registry.example.com/v2/", false),
            ("https://example.com/", false),
            ("https://registry.example.com.evil.io/", false),
            ("https://registry.example.com@evil.io/", false),
        ] {
            assert_eq!(registry.covers(&url(other)), covered, "{other}");
        }
    }

    #[test]
    fn realms_that_would_leak_a_credential_are_refused() {
        for (registry, realm, with, without) in [
            ("https://registry-1.docker.io", "https://auth.docker.io/token", true, true),
            ("https://registry.gitlab.com", "https://gitlab.com/jwt/auth", true, true),
            ("https://public.ecr.aws", "https://public.ecr.aws/token/", true, true),
            ("https://ghcr.io", "https://ghcr.io/token", true, true),
            ("https://ghcr.io", "https://evil.io/token", false, true),
            ("https://example.co.uk", "https://evil.co.uk/token", false, true),
            ("https://registry.example.com", "https://example.com.evil.io/token", false, true),
            ("https://registry.example.com", "https://evilexample.com/token", false, true),
            ("https://registry.example.com", "http://registry.example.com/token", false, false),
            ("https://registry.example.com", "https://u@auth.example.com/token", false, false),
            ("https://registry.example.com", "https://169.254.169.254/latest", false, false),
            ("https://registry.example.com", "https://[fd00:ec2::254]/latest", false, false),
            ("https://registry.example.com", "https://[::ffff:169.254.169.254]/", false, false),
            ("https://registry.example.com", "https://[64:ff9b::a9fe:a9fe]/", false, false),
            ("https://registry.example.com", "https://[2002:a9fe:a9fe::]/", false, false),
            ("https://registry.example.com", "https://0xa9fea9fe/", false, false),
            ("https://registry.example.com", "https://100.100.100.200/", false, false),
            ("https://registry.example.com", "https://10.1.2.3/", false, false),
            ("https://registry.example.com", "https://localhost/", false, false),
            ("https://registry.example.com", "https://metadata.google.internal/", false, false),
            ("https://10.0.0.5", "https://10.0.0.5/service/token", true, true),
            ("https://10.0.0.5", "https://10.0.0.6/service/token", false, false),
            ("http://localhost:5000", "http://127.0.0.1:5001/token", true, true),
            ("http://localhost:5000", "http://example.com/token", false, false),
            ("http://localhost:5000", "https://example.com/token", false, true),
        ] {
            let registry = origin(registry);
            let realm = url(realm);
            assert_eq!(registry.allow_realm(&realm, true).is_ok(), with, "{registry} {realm} with credentials");
            assert_eq!(registry.allow_realm(&realm, false).is_ok(), without, "{registry} {realm} without");
        }
    }

    #[test]
    fn redirects_stay_away_from_plain_http_and_private_addresses() {
        for (registry, to, allowed) in [
            ("https://ghcr.io", "https://bucket.s3.amazonaws.com/x?X-Amz-Signature=1", true),
            ("https://ghcr.io", "http://bucket.s3.amazonaws.com/x", false),
            ("https://ghcr.io", "http://ghcr.io/x", false),
            ("https://ghcr.io", "http://localhost/x", false),
            ("https://ghcr.io", "https://localhost/x", false),
            ("https://ghcr.io", "https://169.254.169.254/latest/meta-data/", false),
            ("https://ghcr.io", "https://192.168.1.1/", false),
            ("https://ghcr.io", "https://[fe80::1]/", false),
            ("https://ghcr.io", "https://[::1]/", false),
            ("https://ghcr.io", "ftp://ghcr.io/", false),
            ("https://ghcr.io", "https://u:p@example.com/", false),
            ("http://localhost:5000", "http://127.0.0.1:5001/x", true),
            ("http://localhost:5000", "https://example.com/x", true),
            ("http://localhost:5000", "http://example.com/x", false),
            ("https://10.0.0.5", "https://10.0.0.6/x", true),
        ] {
            let from = origin(registry);
            assert_eq!(from.allow_redirect(&from.endpoint(""), &url(to)).is_ok(), allowed, "{registry} {to}");
        }
    }

    #[test]
    fn shown_urls_hold_no_secret() {
        assert_eq!(
            redacted(&url("https://u:p@h.io/a?X-Amz-Signature=s&digest=sha256:0&token=t#f")),
            "https://h.io/a?X-Amz-Signature=***&digest=sha256:0&token=***"
        );
    }
}
