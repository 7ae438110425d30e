//! What proves who we are, and where Docker and podman keep it.
//!
//! Secrets live in memory only, and in a type that cannot be printed.

use std::collections::HashMap;
use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use docker_credential::{CredentialRetrievalError, DockerCredential};
use futures_util::future::BoxFuture;
use reqwest::header::HeaderValue;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::problem::{Problem, Result};

/// The key under which `docker login` keeps Docker Hub's credentials.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// A string that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes `text` out of sight.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// What a registry, or its token server, accepts from an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A user name and a password.
    Password {
        /// The user name.
        username: String,
        /// The password.
        password: Secret,
    },
    /// An OAuth2 refresh token, which only a token server takes.
    IdentityToken(Secret),
}

impl Credentials {
    /// Everything that must not be shown: what is secret itself, and the forms in which it goes over the wire.
    pub(super) fn secrets(&self) -> Vec<Secret> {
        let (username, secret) = match self {
            Self::Password { username, password } => (username.as_str(), password),
            Self::IdentityToken(token) => ("", token),
        };
        let encoded = Authorization::basic(username, secret).map(|basic| basic.secret());
        [secret.clone()].into_iter().chain(encoded).collect()
    }
}

/// The value of an `Authorization` header.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Authorization(HeaderValue);

impl Authorization {
    pub(super) fn basic(username: &str, password: &Secret) -> Result<Self> {
        Self::new(&format!("Basic {}", STANDARD.encode(format!("{username}:{}", password.expose()))))
    }

    pub(super) fn bearer(token: &Secret) -> Result<Self> {
        Self::new(&format!("Bearer {}", token.expose()))
    }

    fn new(value: &str) -> Result<Self> {
        let mut value = HeaderValue::from_str(value)
            .map_err(|_| Problem::failed("a credential or token holds characters that no HTTP header can carry"))?;
        value.set_sensitive(true);
        Ok(Self(value))
    }

    /// What follows the scheme.
    pub(super) fn secret(&self) -> Secret {
        let value = self.0.to_str().unwrap_or_default();
        Secret::new(value.split_once(' ').map_or(value, |(_, secret)| secret))
    }

    pub(super) fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

impl fmt::Debug for Authorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Where a client takes its credentials from.
#[derive(Debug, Clone)]
pub enum CredentialSource {
    /// None are sent.
    Anonymous,
    /// These.
    Given(Credentials),
    /// The files in which Docker and podman keep logins, in order; helpers named there are run.
    Files(Vec<PathBuf>),
    /// Those that this gives, for as long as they last; they are sent with the first request already.
    Renewed(Renewal),
}

/// Credentials and how long they last from now on.
#[derive(Debug, Clone)]
pub struct Lease {
    /// What is sent.
    pub credentials: Credentials,
    /// How long it may be used.
    pub lifetime: Duration,
}

/// Gives credentials whenever they are asked for: ECR's, which last twelve hours.
#[derive(Clone)]
pub struct Renewal(Arc<dyn Fn() -> BoxFuture<'static, Result<Lease>> + Send + Sync>);

impl Renewal {
    /// Credentials come from `ask`, which is called once at a time, and not before they are needed.
    pub fn new(ask: impl Fn() -> BoxFuture<'static, Result<Lease>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(ask))
    }

    pub(super) async fn ask(&self) -> Result<Lease> {
        (self.0)().await
    }
}

impl fmt::Debug for Renewal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Renewal")
    }
}

impl CredentialSource {
    /// The files that `docker login` and `podman login` write, podman's first if `REGISTRY_AUTH_FILE` names it.
    #[must_use]
    pub fn from_environment() -> Self {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = variable("HOME");
        let docker = variable("DOCKER_CONFIG").or_else(|| home.as_ref().map(|home| home.join(".docker")));
        let files = [
            variable("REGISTRY_AUTH_FILE"),
            docker.map(|directory| directory.join("config.json")),
            variable("XDG_RUNTIME_DIR").map(|directory| directory.join("containers/auth.json")),
            home.map(|home| home.join(".config/containers/auth.json")),
        ];
        Self::Files(files.into_iter().flatten().collect())
    }

    /// Where in the registry credentials for `repository` hold: files may have logins for parts of a registry.
    pub(super) fn place<'a>(&self, repository: &'a str) -> &'a str {
        match self {
            Self::Files(_) => repository,
            Self::Anonymous | Self::Given(_) | Self::Renewed(_) => "",
        }
    }

    /// The lasting credentials for a repository of the registry that references call `registry`. Blocking: helpers are
    /// run.
    ///
    /// # Errors
    /// When a file cannot be read or a helper fails.
    pub(super) fn find(&self, registry: &str, repository: &str) -> Result<Option<Credentials>> {
        match self {
            Self::Anonymous | Self::Renewed(_) => Ok(None),
            Self::Given(credentials) => Ok(Some(credentials.clone())),
            Self::Files(files) => {
                for path in files {
                    let Some(text) = read(path)? else { continue };
                    // One that cannot be read is told of by whoever reads it for the login.
                    let file = serde_json::from_slice::<Keys>(&text).unwrap_or_default();
                    let key = file.key_of(registry, repository);
                    match docker_credential::get_credential_from_reader(text.as_slice(), &key) {
                        Ok(credential) => return Ok(Some(credential.into())),
                        Err(error) if is_absent(&error) => {}
                        Err(error) => return Err(unusable(registry, path, file.helper(&key), &error)),
                    }
                }
                Ok(None)
            }
        }
    }
}

/// The bytes of a file with logins, if there is one.
fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match std::fs::read(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(Problem::failed(format!("could not open `{}`", path.display()))
            .because(error)
            .help("it holds logins of registries: let this user read it, or name another by `DOCKER_CONFIG`")),
    }
}

/// Whose logins a file has, and which helpers have others.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Keys {
    auths: HashMap<String, IgnoredAny>,
    cred_helpers: HashMap<String, String>,
    creds_store: Option<String>,
}

impl Keys {
    /// Under which key the login for a repository is: podman keeps them for parts of a registry as well, of which the
    /// longest that fits counts (containers-auth.json(5)).
    fn key_of(&self, registry: &str, repository: &str) -> String {
        let mut place = format!("{registry}/{repository}");
        while let Some((above, _)) = place.rsplit_once('/') {
            if self.auths.contains_key(&place) {
                return place;
            }
            place.truncate(above.len());
        }
        if registry == "docker.io" { DOCKER_HUB_KEY.to_owned() } else { registry.to_owned() }
    }

    /// The program that has the login under a key, and the setting that names it.
    fn helper(&self, key: &str) -> Option<(String, &'static str)> {
        let own = self.cred_helpers.get(key).filter(|helper| !helper.is_empty()).map(|helper| (helper, "credHelpers"));
        let (helper, setting) = own.or_else(|| Some((self.creds_store.as_ref()?, "credsStore")))?;
        Some((format!("docker-credential-{helper}"), setting))
    }
}

impl From<DockerCredential> for Credentials {
    fn from(credential: DockerCredential) -> Self {
        match credential {
            DockerCredential::IdentityToken(token) => Self::IdentityToken(Secret(token)),
            DockerCredential::UsernamePassword(username, password) => {
                Self::Password { username, password: Secret(password) }
            }
        }
    }
}

/// Whether the file simply has no login for the registry. Helpers say so in words (docker-credential-helpers,
/// `ErrCredentialsNotFound`); some leave the user name empty instead.
fn is_absent(error: &CredentialRetrievalError) -> bool {
    match error {
        CredentialRetrievalError::NoCredentialConfigured => true,
        CredentialRetrievalError::HelperFailure { stdout, stderr, .. } => {
            [stdout, stderr].iter().any(|text| text.contains("credentials not found"))
        }
        _ => false,
    }
}

fn unusable(
    registry: &str,
    path: &Path,
    helper: Option<(String, &'static str)>,
    error: &CredentialRetrievalError,
) -> Problem {
    let problem = Problem::failed(format!("could not take the login for `{registry}` from `{}`", path.display()));
    if let (CredentialRetrievalError::HelperCommunicationError, Some((helper, setting))) = (error, helper) {
        return problem.because(format!("its `{setting}` names `{helper}`, which could not be run")).help(format!(
            "install `{helper}` where `PATH` leads; or remove it from `{setting}` and run `docker login {registry}`"
        ));
    }
    // The texts of a helper's failure are left out: a helper may print what it holds.
    let why = match error {
        CredentialRetrievalError::HelperFailure { helper, .. } => format!("`{helper} get` failed"),
        CredentialRetrievalError::ConfigReadError => "it is not a Docker configuration".to_owned(),
        other => other.to_string(),
    };
    problem.because(why).help(format!("run `docker login {registry}` again, or remove the entry"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(config: &str, registry: &str) -> Result<Option<Credentials>> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("config.json");
        std::fs::write(&path, config).expect("a written file");
        CredentialSource::Files(vec![directory.path().join("missing.json"), path]).find(registry, "team/app")
    }

    #[test]
    fn logins_are_found_where_docker_puts_them() {
        let config = format!(
            r#"{{"auths":{{"ghcr.io":{{"auth":"{0}"}},"https://index.docker.io/v1/":{{"auth":"{0}"}},
                "quay.io":{{"identitytoken":"t"}}}}}}"#,
            STANDARD.encode("user:pass:word")
        );
        let password = Credentials::Password { username: "user".into(), password: Secret::new("pass:word") };
        for (registry, expected) in [
            ("ghcr.io", Some(password.clone())),
            ("docker.io", Some(password)),
            ("quay.io", Some(Credentials::IdentityToken(Secret::new("t")))),
            ("public.ecr.aws", None),
        ] {
            assert_eq!(find(&config, registry).expect(registry), expected);
        }
    }

    #[test]
    fn a_home_that_is_no_directory_has_no_logins() {
        let files = CredentialSource::Files(vec!["/dev/null/.docker/config.json".into()]);
        assert_eq!(files.find("ghcr.io", "a").expect("no login"), None);
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named() {
        // Nobody can follow a link to itself, not even root.
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("config.json");
        std::os::unix::fs::symlink(&path, &path).expect("a link");
        let problem = CredentialSource::Files(vec![path.clone()]).find("ghcr.io", "a").expect_err("a loop");
        assert_eq!(problem.message(), format!("could not open `{}`", path.display()));
        assert_eq!(
            problem.next_step(),
            Some("it holds logins of registries: let this user read it, or name another by `DOCKER_CONFIG`")
        );
    }

    #[test]
    fn a_login_for_a_part_of_a_registry_is_for_that_alone() {
        let auth = |name: &str| format!(r#"{{"auth":"{}"}}"#, STANDARD.encode(format!("{name}:secret")));
        let config = format!(
            r#"{{"auths":{{"ghcr.io":{},"ghcr.io/team/app":{},"quay.io/team":{},"gcr.io/te":{}}}}}"#,
            auth("all"),
            auth("app"),
            auth("team"),
            auth("no")
        );
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("auth.json");
        std::fs::write(&path, config).expect("a written file");
        let source = CredentialSource::Files(vec![path]);
        for (registry, repository, expected) in [
            ("ghcr.io", "team/app", Some("app")),
            ("ghcr.io", "team/app/part", Some("app")),
            ("ghcr.io", "team/apple", Some("all")),
            ("ghcr.io", "team", Some("all")),
            ("quay.io", "team/app", Some("team")),
            ("quay.io", "other", None),
            ("gcr.io", "team", None),
        ] {
            let found = source.find(registry, repository).expect(registry);
            let user = found.map(|found| match found {
                Credentials::Password { username, .. } => username,
                Credentials::IdentityToken(_) => "a token".to_owned(),
            });
            assert_eq!(user.as_deref(), expected, "{registry}/{repository}");
        }
    }

    #[test]
    fn a_broken_file_is_named() {
        let problem = find("{", "ghcr.io").expect_err("no JSON");
        assert!(problem.message().starts_with("could not take the login for `ghcr.io` from `"), "{problem}");
        assert_eq!(problem.causes(), ["it is not a Docker configuration"]);
    }

    #[test]
    fn secrets_are_never_shown() {
        let credentials = Credentials::Password { username: "user".into(), password: Secret::new("canary") };
        let authorization = Authorization::basic("user", &Secret::new("canary")).expect("a header");
        assert_eq!(format!("{credentials:?}"), r#"Password { username: "user", password: *** }"#);
        assert_eq!(format!("{authorization:?} {:?}", authorization.header()), "*** Sensitive");
    }
}
