//! An image: the base's config and layers with ours on top, as exact config and manifest bytes.

pub mod archive;
pub mod layout;
