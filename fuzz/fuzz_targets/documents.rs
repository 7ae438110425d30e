//! A manifest or an index, and a config: read as a base's and as those of an image that is checked.
#![no_main]

use cargo_lambda_image::base;
use cargo_lambda_image_fuzz::halves;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (manifest, config) = halves(data);
    base::read_documents(manifest, config);
});
