//! Who we are to which registry: AWS's own token where the host is one of ECR's, else what `docker login` left.
//!
//! The one place where the two wires meet: neither knows the other, and bases know neither.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::OnceCell;

use crate::aws::ecr::Ecr;
use crate::aws::ecr::host::RegistryHost;
use crate::aws::ecr::token::{AuthorizationToken, TokenSource};
use crate::aws::{Access, Settings};
use crate::problem::{Problem, Result};
use crate::registry::credentials::{CredentialSource, Credentials, Lease, Renewal, Secret};

/// How long a client keeps a token: as long as ECR's last at most. One that ends before is refused by the registry, and
/// then its source is asked for another.
const LEASE: Duration = Duration::from_secs(12 * 3600);

/// Logins for registries. Nothing is asked of AWS before a registry of ECR is talked to.
#[derive(Debug)]
pub(super) struct Logins {
    aws: Settings,
    /// One for each registry, since each may be in a region of its own.
    tokens: Mutex<HashMap<(Settings, RegistryHost), Arc<Tokens>>>,
}

/// A source of tokens that is made when the first one is needed.
#[derive(Debug, Default)]
struct Tokens {
    source: OnceCell<TokenSource>,
}

impl Logins {
    /// Logins by what the user said about AWS.
    pub(super) fn new(aws: Settings) -> Self {
        Self { aws, tokens: Mutex::default() }
    }

    /// What to show to `registry`, a host with or without a port.
    pub(super) fn of(&self, registry: &str) -> CredentialSource {
        self.of_with(&self.aws, registry)
    }

    /// Takes in a source of tokens, so that the one it holds is not asked for again.
    pub(super) fn hold(&self, aws: &Settings, host: &RegistryHost, source: TokenSource) {
        let tokens = Arc::new(Tokens { source: OnceCell::new_with(Some(source)) });
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner).insert((aws.clone(), host.clone()), tokens);
    }

    /// What to show to `registry`, by these settings rather than those of all.
    pub(super) fn of_with(&self, aws: &Settings, registry: &str) -> CredentialSource {
        let Some(host) = RegistryHost::parse(registry) else { return CredentialSource::from_environment() };
        let tokens = {
            let mut known = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(known.entry((aws.clone(), host.clone())).or_default())
        };
        let (aws, last) = (aws.clone(), Arc::new(Mutex::new(None::<AuthorizationToken>)));
        CredentialSource::Renewed(Renewal::new(move || {
            let (tokens, aws, host, last) = (Arc::clone(&tokens), aws.clone(), host.clone(), Arc::clone(&last));
            Box::pin(async move {
                // Asked again, it is because the registry refused what it got.
                let refused = last.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let token = tokens.token(&aws, &host, refused.as_ref()).await?;
                let (username, password) = (token.username().to_owned(), Secret::new(token.password()));
                *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(token);
                Ok(Lease { credentials: Credentials::Password { username, password }, lifetime: LEASE })
            })
        }))
    }
}

impl Tokens {
    async fn token(
        &self,
        aws: &Settings,
        host: &RegistryHost,
        refused: Option<&AuthorizationToken>,
    ) -> Result<AuthorizationToken> {
        let make = || async { Ok::<_, Problem>(TokenSource::new(Ecr::at(&Access::load(aws).await?, host)?)) };
        let source = self.source.get_or_try_init(make).await?;
        match refused {
            Some(refused) => source.renew(refused).await,
            None => source.current().await,
        }
    }
}
