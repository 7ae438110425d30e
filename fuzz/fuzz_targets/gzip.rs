//! A gzip stream of several members, with anything behind them.
#![no_main]

use std::io::{self, BufReader};

use cargo_lambda_image::layer::gunzip::Members;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // A small buffer, so that members begin at its edges.
    let mut members = Members::new(BufReader::with_capacity(13, data));
    let _ = io::copy(&mut io::Read::take(&mut members, 1 << 24), &mut io::sink());
    assert!(members.facts().members <= data.len().max(1) as u64);
});
