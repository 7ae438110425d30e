//! What tests share.

pub(crate) mod assets;
pub mod child;
pub mod cloud;
pub mod docker;
pub mod docker_registry;
pub mod emulator;
pub mod hello;
pub mod images;
pub mod lambda;
pub mod lambda_base;
pub mod layout;
pub mod markdown;
pub mod moto;
pub mod node;
pub mod program;
pub mod project;
pub mod proxy;
pub mod registry;
pub mod runner;
pub mod running;
pub mod schema;
pub mod shell;
pub mod site;
pub mod specimen;
pub mod tools;
pub mod tunnel;
