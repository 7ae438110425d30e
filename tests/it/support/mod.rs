//! What tests share.

pub mod child;
pub mod images;
pub mod registry;
