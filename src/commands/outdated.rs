//! `cargo lambda-image outdated`: which locked bases have newer digests. Nothing is changed.

use std::path::Path;

use super::login::Logins;
use super::{blocking, open_store};
use crate::aws;
use crate::base::{self, BaseRequest, Holder};
use crate::config::OutdatedRequest;
use crate::event::{Event, Session};
use crate::lock::file;
use crate::platform::Architecture;
use crate::problem::{Problem, Result};

/// Tells of each base of the lock what its reference means now.
///
/// # Errors
/// When the lock is damaged, or a registry is not reached or does not have the base.
pub async fn run(request: OutdatedRequest, session: &Session) -> Result<()> {
    let store = open_store(&request.store, true, session).await?;
    let path = request.lock.clone();
    let lock = blocking(move || file::read(&request.lock)).await?;
    if lock.bases.is_empty() {
        let shown = path.display();
        match path.exists() {
            true => session.warn(&format!("`{shown}` has no base of a registry, so that none can be outdated"), None),
            false => session.warn(&format!("there is no `{shown}`"), Some("`cargo lambda-image build` writes it")),
        }
    }
    let logins = Logins::new(aws::Settings::default());
    for (key, locked) in &lock.bases {
        let architectures = [Architecture::Amd64, Architecture::Arm64];
        let architecture = architectures.into_iter().find(|architecture| architecture.platform() == key.platform);
        let architecture = architecture.ok_or_else(|| {
            Problem::failed(format!("base `{}` is locked for `{}`, which Lambda has not", key.reference, key.platform))
                .help("delete the entry and build again")
        })?;
        let wanted = BaseRequest {
            reference: key.reference.clone(),
            directory: Path::new("/").to_owned(),
            architecture,
            pinned: None,
            offline: false,
            no_cache: false,
            holder: Holder::BaseImage,
        };
        let base = base::resolve(&wanted, &|registry| logins.of(registry), &store, session).await?;
        let newest = base.digest.unwrap_or(locked.digest);
        let (reference, platform) = (&key.reference, &key.platform);
        session.emit(&Event::BaseCompared { reference, platform, locked: locked.digest, newest });
    }
    Ok(())
}
