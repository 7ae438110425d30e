//! Builds AWS Lambda container images from Cargo projects, without Docker.
//!
//! The library exists for the binary, the tests and the documentation; it promises no stable API.
//! Rooms are listed floor by floor, and imports look down only (`tests/architecture.rs` keeps it so):
//!
//! - surface: [`report`] prints what happens;
//! - recipes: [`commands`] read as the list of steps they are, over [`config`] over [`cli`];
//! - bridges: [`base`] brings a base image in, [`publish`] takes an image out, [`deploy`] brings functions to it;
//! - wires (async): [`registry`] speaks the registry protocol, [`aws`] asks AWS;
//! - engines (blocking): [`store`] under [`layer`] under [`image`] under [`check`]; [`lock`], [`cargo`] and [`init`]
//!   alone;
//! - words: [`oci`], [`platform`], [`event`], [`finding`], [`problem`], [`units`]; and [`atomic`], how files are
//!   written.

pub mod report;

pub mod cli;
pub mod commands;
pub mod config;

pub mod base;
pub mod deploy;
pub mod publish;

pub mod aws;
pub mod registry;

pub mod cargo;
pub mod check;
pub mod image;
pub mod init;
pub mod layer;
pub mod lock;
pub mod store;

pub mod atomic;
pub mod event;
pub mod finding;
pub mod oci;
pub mod platform;
pub mod problem;
pub mod units;
