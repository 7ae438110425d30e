//! `cargo lambda-image init`: a project's first configuration.

use super::blocking;
use crate::event::Session;
use crate::init::{self, InitRequest};
use crate::problem::Result;

/// Writes the table, and the workflow if it was asked for.
///
/// # Errors
/// Whatever stops it; nothing that was there is changed then.
pub async fn run(request: InitRequest, session: &Session) -> Result<()> {
    let session = session.clone();
    blocking(move || init::init(&request, &session)).await
}
