//! Answers a registry's challenges: Basic, or Bearer tokens asked of its token server, anonymously or with a login.
//!
//! One lock holds the tokens, so that many requests refused at once lead to one refresh. Expiry is counted on the
//! monotonic clock. Nothing is sent to a realm that the rules of `origin` do not allow.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use http_auth::ChallengeParser;
use reqwest::header::{AUTHORIZATION, HeaderMap, WWW_AUTHENTICATE};
use reqwest::{Method, Url};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::credentials::{Authorization, CredentialSource, Credentials, Lease, Secret};
use super::error::{Error, refused, unreachable};
use super::origin::{Origin, redacted};
use super::transport::{Http, read_capped};
use crate::event::run::Hidden;
use crate::event::{Event, Session};
use crate::problem::Problem;

/// The most a token server's answer may hold, in bytes.
const MAX_TOKEN_BODY: u64 = 64 * 1024;

/// How long a token lasts if its server does not say (distribution specification, token authentication).
const DEFAULT_LIFETIME: Duration = Duration::from_secs(60);

/// A token is renewed this long before its end, so that it does not expire on the way.
const RENEWAL_MARGIN: Duration = Duration::from_secs(10);

/// Leased credentials are renewed this long before their end: a request with gigabytes takes its time.
const LEASE_MARGIN: Duration = Duration::from_secs(5 * 60);

/// The way on from a realm where no tokens are.
const MOVED: &str = "the token server is not where the registry's challenge says: ask who runs the registry";

/// What a request is going to do in which repositories, in a token server's words.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Scope {
    /// That which the first part is about.
    repository: String,
    parts: Vec<String>,
    /// Whether anybody may do it, so that going on without a login makes sense.
    pub(super) for_anybody: bool,
}

impl Scope {
    pub(super) fn pull(repository: &str) -> Self {
        Self::of(repository, "pull", true)
    }

    pub(super) fn push(repository: &str) -> Self {
        Self::of(repository, "pull,push", false)
    }

    fn of(repository: &str, actions: &str, for_anybody: bool) -> Self {
        let parts = vec![format!("repository:{repository}:{actions}")];
        Self { repository: repository.to_owned(), parts, for_anybody }
    }

    /// To push to `repository` what `from` has. Some token servers read only the first part.
    pub(super) fn mount(repository: &str, from: &str) -> Self {
        let mut scope = Self::push(repository);
        scope.parts.push(format!("repository:{from}:pull"));
        scope
    }

    /// The repository it is about.
    pub(super) fn repository(&self) -> &str {
        &self.repository
    }

    fn parts(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.parts.iter().map(|part| ("scope", part.as_str()))
    }
}

/// What a registry wants to see, as its challenge said.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Scheme {
    Basic,
    Bearer { realm: Url, service: Option<String> },
}

/// The credentials of one registry and the tokens got for them.
#[derive(Debug)]
pub(super) struct Authority {
    origin: Origin,
    source: CredentialSource,
    session: Session,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Absent until the registry challenged us.
    scheme: Option<Scheme>,
    /// Those for each repository, as far as they were looked up, which may run a helper.
    credentials: HashMap<String, Option<Credentials>>,
    /// When leased credentials are to be renewed.
    lease_ends: Option<Instant>,
    /// One a scope: a token server's answer is good for nothing else.
    tokens: HashMap<Scope, Token>,
}

#[derive(Debug)]
struct Token {
    authorization: Authorization,
    renew_at: Instant,
}

impl Authority {
    pub(super) fn new(origin: Origin, source: CredentialSource, session: Session) -> Self {
        let mut state = State::default();
        if matches!(source, CredentialSource::Renewed(_)) {
            // ECR wants Basic and nothing else; its credentials must not follow a challenge to a token server.
            state.scheme = Some(Scheme::Basic);
        }
        Self { origin, source, session, state: Mutex::new(state) }
    }

    /// What to send with a request: nothing until the registry asked for something.
    ///
    /// # Errors
    /// When a token had to be renewed and could not be.
    pub(super) async fn current(&self, http: &Http, scope: &Scope) -> Result<Option<Authorization>, Error> {
        let mut state = self.state.lock().await;
        match state.scheme.clone() {
            None => Ok(None),
            Some(scheme) => self.authorize(&mut state, http, scheme, scope).await,
        }
    }

    /// Answers the challenge of a request that was refused although it carried `used`, or that `used` is too old.
    /// `None` when there is nothing better to send.
    ///
    /// # Errors
    /// When the challenge is not acceptable, or no token is to be had.
    pub(super) async fn answer(
        &self,
        http: &Http,
        scope: &Scope,
        used: Option<&Authorization>,
        headers: &HeaderMap,
    ) -> Result<Option<Authorization>, Error> {
        let mut state = self.state.lock().await;
        if matches!(self.source, CredentialSource::Renewed(_)) {
            // Another request may have renewed them while this one was on its way.
            let current = self.authorize(&mut state, http, Scheme::Basic, scope).await?;
            if current.as_ref() != used {
                return Ok(current);
            }
            state.credentials.clear();
            let better = self.authorize(&mut state, http, Scheme::Basic, scope).await?;
            return Ok(better.filter(|better| Some(better) != used));
        }
        // As above, with tokens.
        if let Some(token) = state.tokens.get(scope)
            && Some(&token.authorization) != used
        {
            return Ok(Some(token.authorization.clone()));
        }
        let Some(scheme) = self.challenge(headers).or_else(|| state.scheme.clone()) else { return Ok(None) };
        state.tokens.remove(scope);
        state.scheme = Some(scheme.clone());
        let better = self.authorize(&mut state, http, scheme, scope).await?;
        Ok(better.filter(|better| Some(better) != used))
    }

    /// The challenge that we can answer best: Bearer before Basic.
    fn challenge(&self, headers: &HeaderMap) -> Option<Scheme> {
        let mut found = None;
        for value in headers.get_all(WWW_AUTHENTICATE) {
            let challenges = ascii(value.as_bytes());
            for challenge in ChallengeParser::new(&challenges).map_while(Result::ok) {
                let parameter = |name: &str| {
                    let mut parameters = challenge.params.iter();
                    parameters.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_unescaped())
                };
                if challenge.scheme.eq_ignore_ascii_case("Bearer") {
                    let realm = parameter("realm").and_then(|realm| Url::parse(&realm).ok());
                    if let Some(realm) = realm {
                        return Some(Scheme::Bearer { realm, service: parameter("service") });
                    }
                } else if challenge.scheme.eq_ignore_ascii_case("Basic") {
                    found = Some(Scheme::Basic);
                }
            }
        }
        found
    }

    async fn authorize(
        &self,
        state: &mut State,
        http: &Http,
        scheme: Scheme,
        scope: &Scope,
    ) -> Result<Option<Authorization>, Error> {
        if let Some(token) = state.tokens.get(scope)
            && Instant::now() < token.renew_at
        {
            return Ok(Some(token.authorization.clone()));
        }
        let credentials = self.credentials(state, scope).await?;
        match scheme {
            Scheme::Basic => Ok(match credentials {
                Some(Credentials::Password { username, password }) => Some(Authorization::basic(&username, &password)?),
                Some(Credentials::IdentityToken(_)) | None => None,
            }),
            Scheme::Bearer { realm, service } => {
                let mut ask = TokenRequest { origin: &self.origin, http, realm, service, scope, credentials };
                let answer = match ask.send().await {
                    Err(error) if ask.credentials.is_some() && scope.for_anybody && is_bad_login(&error) => {
                        // public.ecr.aws answers an old login with 400 although anybody may pull there.
                        self.session.warn(
                            &format!("the login stored for `{}` was refused, going on without it", self.origin),
                            Some(&format!("log in again with `docker login {}`, or log out", self.origin)),
                        );
                        state.credentials.insert(self.source.place(&scope.repository).to_owned(), None);
                        ask.credentials = None;
                        ask.send().await
                    }
                    answer => answer,
                }?;
                let authorization = answer.authorization.clone();
                self.tell([authorization.secret()]);
                state.tokens.insert(scope.clone(), answer);
                Ok(Some(authorization))
            }
        }
    }

    async fn credentials(&self, state: &mut State, scope: &Scope) -> Result<Option<Credentials>, Error> {
        let is_over = state.lease_ends.is_some_and(|end| end <= Instant::now());
        let place = self.source.place(&scope.repository).to_owned();
        if let Some(credentials) = state.credentials.get(&place).filter(|_| !is_over) {
            return Ok(credentials.clone());
        }
        if let CredentialSource::Renewed(renewal) = &self.source {
            let asked_at = Instant::now();
            let Lease { credentials, lifetime } = renewal.ask().await?;
            // The monotonic clock, and not the date that came with them: a wrong clock must not matter.
            state.lease_ends = Some(asked_at + lifetime.saturating_sub(LEASE_MARGIN).max(lifetime / 2));
            self.tell(credentials.secrets());
            state.credentials.insert(place, Some(credentials.clone()));
            return Ok(Some(credentials));
        }
        let (source, registry, repository) = (self.source.clone(), self.origin.name().to_owned(), place.clone());
        let found = tokio::task::spawn_blocking(move || source.find(&registry, &repository)).await;
        let found = found.map_err(|error| Problem::failed("looking for a login failed").because(error))?;
        if let Ok(Some(credentials)) = &found {
            self.tell(credentials.secrets());
        }
        if !scope.for_anybody {
            let found = found?;
            state.credentials.insert(place, found.clone());
            return Ok(found);
        }
        let found = found.unwrap_or_else(|problem| {
            // Left by a Docker that is gone, as a rule; what is public can be had all the same.
            let why = [vec![problem.message().to_owned()], problem.causes()].concat().join(": ");
            self.session.warn(&format!("{why}, going on without a login"), problem.next_step());
            None
        });
        state.credentials.insert(place, found.clone());
        Ok(found)
    }

    /// Tells secrets before they are used, so that whoever shows what happens can keep them out of it.
    fn tell(&self, secrets: impl IntoIterator<Item = Secret>) {
        for secret in secrets {
            self.session.emit(&Event::SecretLearned { secret: Hidden::new(secret.expose()) });
        }
    }
}

/// A header's value in ASCII: the realm of a login is for people, and may be in their language.
fn ascii(value: &[u8]) -> String {
    let escaped = |&byte: &u8| if byte.is_ascii() { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    value.iter().map(escaped).collect()
}

/// Whether the token server refused the login rather than the request.
fn is_bad_login(error: &Error) -> bool {
    matches!(error.status(), Some(400 | 401 | 403))
}

/// One question to a token server.
struct TokenRequest<'a> {
    origin: &'a Origin,
    http: &'a Http,
    realm: Url,
    service: Option<String>,
    scope: &'a Scope,
    credentials: Option<Credentials>,
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

impl TokenRequest<'_> {
    async fn send(&self) -> Result<Token, Error> {
        match (self.ask(self.credentials.as_ref()).await, &self.credentials) {
            // Some servers know nothing but GET, and say so by one of these (as containerd has found).
            (Err(error), Some(Credentials::IdentityToken(token)))
                if matches!(error.status(), Some(400 | 401 | 404 | 405)) =>
            {
                let login = Credentials::Password { username: String::new(), password: token.clone() };
                self.ask(Some(&login)).await
            }
            (answer, _) => answer,
        }
    }

    async fn ask(&self, credentials: Option<&Credentials>) -> Result<Token, Error> {
        let shown = redacted(&self.realm);
        if let Err(why) = self.origin.allow_realm(&self.realm, credentials.is_some()) {
            return Err(Problem::failed(format!("`{}` wants a token to be asked of {shown}", self.origin))
                .because(why)
                .help("this may be an attempt to get at a login; tell the registry's owner")
                .into());
        }
        let (request, url) = self.request(credentials)?;
        let method = request.method().clone();
        tracing::debug!(%method, url = redacted(&url), "asking for a token");
        let response = self.http.send(request).await.map_err(|error| match error {
            Some(error) => unreachable(&url, error, self.scope.for_anybody),
            None => Error::gave_up(&format!("waiting for a token of {shown}"), "no answer in time"),
        })?;
        let (status, headers) = (response.status(), response.headers().clone());
        // Redirects are not followed: the realm was judged, its redirect was not.
        let body = read_capped(self.http, response, MAX_TOKEN_BODY, "reading a token").await;
        if !status.is_success() {
            let error = refused(self.origin, &method, &url, status, &headers, &body.unwrap_or_default());
            return Err(match status.as_u16() {
                301 | 302 | 303 | 307 | 308 | 404 => Error { problem: error.problem.help(MOVED), ..error },
                _ => error,
            });
        }
        parse(&body?, Instant::now())
            .map_err(|problem| problem.context(format!("no token from {shown}")))
            .map_err(|problem| Error::content(problem.help("ask who runs the registry, or the proxy before it")))
    }

    fn request(&self, credentials: Option<&Credentials>) -> Result<(reqwest::Request, Url), Error> {
        let client = self.http.client_for(&self.realm)?;
        let service = self.service.as_deref();
        let request = match credentials {
            Some(Credentials::IdentityToken(token)) => {
                let mut form = Url::clone(&self.realm);
                form.set_query(None);
                form.query_pairs_mut()
                    .append_pair("grant_type", "refresh_token")
                    .append_pair("service", service.unwrap_or_default())
                    // Once, in contrast to GET (distribution, "OAuth2 Token Authentication").
                    .append_pair("scope", &self.scope.parts.join(" "))
                    .append_pair("client_id", "cargo-lambda-image")
                    .append_pair("refresh_token", token.expose());
                let body = form.query().unwrap_or_default().to_owned();
                client
                    .request(Method::POST, self.realm.clone())
                    .header(reqwest::header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body(body)
            }
            login => {
                let mut url = self.realm.clone();
                url.query_pairs_mut()
                    .extend_pairs(service.map(|service| ("service", service)))
                    .extend_pairs(self.scope.parts());
                let request = client.request(Method::GET, url);
                match login {
                    Some(Credentials::Password { username, password }) => {
                        request.header(AUTHORIZATION, Authorization::basic(username, password)?.header())
                    }
                    _ => request,
                }
            }
        };
        let request = request.build().map_err(|error| {
            Error::from(Problem::failed("could not make a request for a token").because(error.without_url()))
        })?;
        let url = request.url().clone();
        Ok((request, url))
    }
}

fn parse(body: &[u8], now: Instant) -> Result<Token, Problem> {
    let answer: TokenAnswer =
        serde_json::from_slice(body).map_err(|_| Problem::failed("its answer is not the JSON of a token"))?;
    let token = answer.token.or(answer.access_token).filter(|token| !token.is_empty());
    let token = Secret::new(token.ok_or_else(|| Problem::failed("its answer holds no token"))?);
    let lifetime = answer.expires_in.map_or(DEFAULT_LIFETIME, Duration::from_secs);
    // A server that says less than a minute gets a minute, as in every other client.
    let lifetime = lifetime.clamp(DEFAULT_LIFETIME, Duration::from_secs(24 * 3600));
    Ok(Token { authorization: Authorization::bearer(&token)?, renew_at: now + (lifetime - RENEWAL_MARGIN) })
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    fn challenge(values: &[&str]) -> Option<Scheme> {
        let origin = Origin::from_url("https://example.com").expect("an origin");
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_bytes(value.as_bytes()).expect("a header value"));
        }
        Authority::new(origin, CredentialSource::Anonymous, Session::silent()).challenge(&headers)
    }

    fn bearer(realm: &str, service: Option<&str>) -> Option<Scheme> {
        let realm = realm.parse().expect("a URL of the table");
        Some(Scheme::Bearer { realm, service: service.map(str::to_owned) })
    }

    #[test]
    fn challenges_are_understood_in_every_spelling() {
        for (values, expected) in [
            (&[][..], None),
            (&["Digest realm=\"x\""], None),
            (&["Basic realm=\"x\""], Some(Scheme::Basic)),
            (&["basic realm=x"], Some(Scheme::Basic)),
            (
                &["Bearer realm=\"https://a.io/t\",service=\"s\",scope=\"repository:a,b:pull\""],
                bearer("https://a.io/t", Some("s")),
            ),
            (&["BEARER Realm=\"https://a.io/t\""], bearer("https://a.io/t", None)),
            (&["Basic realm=\"x\", Bearer realm=\"https://a.io/t\""], bearer("https://a.io/t", None)),
            (&["Basic realm=\"x\"", "Bearer realm=\"https://a.io/t\""], bearer("https://a.io/t", None)),
            (&["Basic realm=\"dépôt\""], Some(Scheme::Basic)),
            (&["Negotiate é", "Bearer realm=\"https://a.io/t\""], bearer("https://a.io/t", None)),
            (&["Bearer realm=\"not a URL\""], None),
            (&["Bearer realm=\"https://a.io"], None),
        ] {
            assert_eq!(challenge(values), expected, "{values:?}");
        }
    }

    #[test]
    fn tokens_are_renewed_before_their_end() {
        let now = Instant::now();
        for (body, seconds) in [
            (r#"{"token":"t"}"#, 50),
            (r#"{"access_token":"t","expires_in":300}"#, 290),
            (r#"{"token":"t","expires_in":1}"#, 50),
            (r#"{"token":"t","expires_in":18446744073709551615}"#, 86390),
        ] {
            let token = parse(body.as_bytes(), now).expect(body);
            assert_eq!(token.renew_at - now, Duration::from_secs(seconds), "{body}");
        }
        for body in ["", "[]", "{}", r#"{"token":""}"#, r#"{"token":"a\nb"}"#] {
            assert!(parse(body.as_bytes(), now).is_err(), "{body}");
        }
    }
}
