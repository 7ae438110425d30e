//! Tests of the whole: the library's wires against servers that misbehave, and the real binary.

mod base;
mod emulator;
mod login;
mod pull;
mod readers;
mod readme;
mod support;
