//! A client for one registry, as the OCI distribution specification has it.
//!
//! - [`origin`]: where the registry is, and where else its answers may send us;
//! - [`credentials`]: what proves who we are;
//! - `auth`: challenges and tokens;
//! - `transport`: one `send` with retries, redirects and a watch for standing still;
//! - [`pull`]: manifests and blobs, verified while read;
//! - [`push`]: what is there, mounts and manifests; [`upload`]: blobs, from a [`feed`] of bytes made anew for each try.
//!
//! It knows bytes and digests, not images: what a manifest says is read by those who asked for it.

mod auth;
pub mod credentials;
pub mod error;
pub mod feed;
pub mod origin;
pub mod pull;
pub mod push;
mod transport;
pub mod upload;

use self::auth::Authority;
use self::credentials::CredentialSource;
use self::origin::Origin;
use self::transport::Transport;
use crate::event::Session;

pub use transport::{Patience, Retries};

/// A client for one registry. It keeps connections and tokens, so it is made once and shared.
#[derive(Debug)]
pub struct Client {
    transport: Transport,
}

impl Client {
    /// A client that has said nothing yet: neither certificates nor credentials are read before the first request.
    #[must_use]
    pub fn new(origin: Origin, credentials: CredentialSource, patience: Patience, session: &Session) -> Self {
        let auth = Authority::new(origin.clone(), credentials, session.clone());
        Self { transport: Transport::new(origin, auth, patience, session.clone()) }
    }

    /// The registry this client talks to.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.transport.origin
    }
}
