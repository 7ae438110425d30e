//! A layer's tar, scanned for its facts, and an image of it judged by every rule. The first part is the image's config.
#![no_main]

use std::sync::Arc;

use cargo_lambda_image::check;
use cargo_lambda_image::check::findings::Options;
use cargo_lambda_image::check::image::{Content, ImageFacts, LayerSource};
use cargo_lambda_image::event::Session;
use cargo_lambda_image::layer::facts::{self, Allowance};
use cargo_lambda_image_fuzz::{halves, with_checksums};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (config, tar) = halves(data);
    let scanned = facts::scan(with_checksums(tar).as_slice(), &Allowance::default(), &Session::silent());
    let Ok((diff_id, facts)) = scanned else { return };
    let layer = LayerSource {
        name: "layer".to_owned(),
        descriptor: None,
        has_urls: false,
        content: Content::Read { diff_id: Some(diff_id), facts: Arc::new(facts), gzip: None },
        secrets_judged: false,
    };
    let image = ImageFacts {
        shown: "fuzz".to_owned(),
        index: None,
        manifest: None,
        config: serde_json::from_slice(config).unwrap_or_default(),
        // Twice, so that rules about lower layers have something to look at.
        layers: vec![layer.clone(), layer],
        base: None,
    };
    let options = Options { today: "2026-11-24".to_owned(), ..Options::default() };
    let _ = check::judge(&image, &options);
});
