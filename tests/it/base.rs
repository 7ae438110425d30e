//! Base images from every kind of source.
