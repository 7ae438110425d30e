//! Tests of the whole: the library's wires against servers that misbehave, and the real binary.

mod base;
mod login;
mod making;
mod pipeline;
mod pull;
mod scanning;
mod sources;
mod support;
mod walking;
