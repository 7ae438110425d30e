//! What tests share.

pub(crate) mod assets;
pub mod child;
pub mod images;
pub mod registry;
