//! Tests of the whole: the library's wires against servers that misbehave, and the real binary.

#![expect(unreachable_pub, reason = "the modules of one test binary share by `pub`")]

mod actions;
mod aws;
mod base;
mod build;
mod builders;
mod cli;
mod config;
mod crash;
mod damage;
mod deploy;
mod dockerfile;
mod ecr;
mod emulator;
mod enduring;
mod excess;
mod fresh;
mod functions;
mod guides;
mod hostile;
mod infrastructure;
mod init;
mod levels;
mod lfs;
mod lock;
mod login;
mod making;
mod pages;
mod pipeline;
mod publish;
mod pull;
mod push;
mod pushing;
mod random;
mod readers;
mod readme;
mod refusals;
mod renewing;
mod reproducible;
mod rules;
mod scanning;
mod sources;
mod support;
mod verdicts;
mod walking;
