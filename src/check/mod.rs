//! Would Lambda take it? Checks judge facts that were gathered elsewhere and never read an asset again.
//!
//! Each check is a function from facts to a refusal with its fix. Nothing here knows how layers, bases or images are
//! made.

pub mod binary;
pub mod limits;
