//! The login that ECR's registries take, in memory only, and kept fresh for all who use it at once.
//!
//! A registry takes it as the user name and password of Basic authentication for twelve hours. Their end is counted on
//! the monotonic clock from before the token was asked for: a wall clock may be wrong, and emulators say nonsense.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use aws_sdk_ecr::types::AuthorizationData;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::sync::Mutex;
use tracing::instrument::WithSubscriber as _;
use tracing::subscriber::NoSubscriber;

use super::Ecr;
use crate::problem::{Problem, Result};

/// How long ECR's tokens last (Amazon ECR user guide, "Private registry authentication").
const LIFETIME: Duration = Duration::from_secs(12 * 3600);

/// A token is renewed this long before its end: a layer of gigabytes that begins with it should end with it.
const RENEWAL_MARGIN: Duration = Duration::from_secs(15 * 60);

const ACTION: &str = "ecr:GetAuthorizationToken";

/// A user name and a password, the latter never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct AuthorizationToken {
    username: String,
    password: String,
}

impl AuthorizationToken {
    /// The user name, which is `AWS` so far.
    #[must_use]
    pub fn username(&self) -> &str {
        &self.username
    }

    /// The password. A secret: for the `Authorization` header of the registry it is meant for, and nothing else.
    #[must_use]
    pub fn password(&self) -> &str {
        &self.password
    }

    /// Reads the base64 of `USER:PASSWORD`.
    fn decode(text: &str) -> Option<Self> {
        let text = String::from_utf8(STANDARD.decode(text.trim()).ok()?).ok()?;
        let (username, password) = text.split_once(':')?;
        let whole = !username.is_empty() && !password.is_empty();
        whole.then(|| Self { username: username.to_owned(), password: password.to_owned() })
    }
}

impl fmt::Debug for AuthorizationToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Asks for a token. Returns the URL of the account's registry too.
pub(super) async fn request(ecr: &Ecr) -> Result<(AuthorizationToken, String)> {
    let (data, token) = ask(ecr).await?;
    Ok((token, data.proxy_endpoint.unwrap_or_default()))
}

async fn ask(ecr: &Ecr) -> Result<(AuthorizationData, AuthorizationToken)> {
    let doing = "could not get a login for Amazon ECR";
    // The SDK traces answers as they are, and this one is a secret.
    let answer = ecr.client.get_authorization_token().send().with_subscriber(NoSubscriber::new()).await;
    let answer = answer.map_err(|error| ecr.problem(doing, ACTION, error))?;
    let data = answer.authorization_data.and_then(|data| data.into_iter().next());
    let data = data.ok_or_else(|| Problem::failed(doing).because("the answer holds none"))?;
    let token = data.authorization_token().and_then(AuthorizationToken::decode);
    let token =
        token.ok_or_else(|| Problem::failed(doing).because("the answer is not the base64 of `USER:PASSWORD`"))?;
    Ok((data, token))
}

/// How long to use a token that is said to end at `expires_at`, seen by a wall clock that shows `now`. An end in the
/// past, or after more than twelve hours, says that a clock is wrong.
fn renew_after(expires_at: Option<SystemTime>, now: SystemTime) -> Duration {
    let said = expires_at.and_then(|end| end.duration_since(now).ok()).filter(|said| !said.is_zero());
    let lifetime = said.map_or(LIFETIME, |said| said.min(LIFETIME));
    lifetime - RENEWAL_MARGIN.min(lifetime / 2)
}

/// Hands out tokens that have not expired, and asks for a new one once for all who wait for it.
#[derive(Debug)]
pub struct TokenSource {
    ecr: Ecr,
    /// Held while a token is asked for, so that one task asks and the others wait.
    state: Mutex<State>,
    /// How many times a token was asked for, with whatever outcome.
    asked: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    held: Option<Held>,
    /// What became of the last request, if it failed: those who waited for it need not ask again.
    failure: Option<Arc<Problem>>,
}

#[derive(Debug)]
struct Held {
    token: AuthorizationToken,
    renew_at: Instant,
}

impl TokenSource {
    /// A source with nothing in hand.
    #[must_use]
    pub fn new(ecr: Ecr) -> Self {
        Self { ecr, state: Mutex::default(), asked: AtomicU64::new(0) }
    }

    /// A source that holds a token which was asked for just now.
    #[must_use]
    pub fn holding(ecr: Ecr, token: AuthorizationToken) -> Self {
        let renew_at = Instant::now() + (LIFETIME - RENEWAL_MARGIN);
        let state = State { held: Some(Held { token, renew_at }), failure: None };
        Self { ecr, state: Mutex::new(state), asked: AtomicU64::new(1) }
    }

    /// The token to use now.
    ///
    /// # Errors
    /// When one had to be asked for and AWS gave none. The last one is then not used past its end.
    pub async fn current(&self) -> Result<AuthorizationToken> {
        self.token(None).await
    }

    /// The token to use after a registry refused `refused`, which is asked for unless another task did so already.
    ///
    /// # Errors
    /// When AWS gave none.
    pub async fn renew(&self, refused: &AuthorizationToken) -> Result<AuthorizationToken> {
        self.token(Some(refused)).await
    }

    async fn token(&self, refused: Option<&AuthorizationToken>) -> Result<AuthorizationToken> {
        let asked_before = self.asked.load(Ordering::Acquire);
        let mut state = self.state.lock().await;
        if let Some(held) = &state.held
            && Instant::now() < held.renew_at
            && Some(&held.token) != refused
        {
            return Ok(held.token.clone());
        }
        if self.asked.load(Ordering::Acquire) != asked_before
            && let Some(failure) = &state.failure
        {
            return Err(again(failure));
        }
        state.held = None;
        let asked_at = Instant::now();
        let answer = ask(&self.ecr).await;
        self.asked.fetch_add(1, Ordering::Release);
        match answer {
            Ok((data, token)) => {
                let expires_at = data.expires_at.and_then(|time| SystemTime::try_from(time).ok());
                let renew_at = asked_at + renew_after(expires_at, SystemTime::now());
                state.held = Some(Held { token: token.clone(), renew_at });
                state.failure = None;
                Ok(token)
            }
            Err(problem) => {
                let problem = state.failure.insert(Arc::new(problem));
                Err(again(problem))
            }
        }
    }
}

/// The same problem for one more task.
fn again(problem: &Problem) -> Problem {
    let told = Problem::new(problem.exit(), problem.message());
    let told = match problem.causes() {
        causes if causes.is_empty() => told,
        causes => told.because(causes.join(": ")),
    };
    match problem.next_step() {
        Some(help) => told.help(help),
        None => told,
    }
}

#[cfg(test)]
mod tests;
