//! The lock file: what is read is written, and read again as the same.
#![no_main]

use cargo_lambda_image::lock::file;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(lock) = file::parse(text) {
        let again = file::parse(&file::render(&lock)).expect("what is written can be read");
        assert_eq!(again, lock);
    }
});
