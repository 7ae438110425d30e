//! A file that somebody calls an image: read to its last layer by both forms of archives, and judged.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;
use std::{env, fs, process};

use cargo_lambda_image::base::{self, InspectRequest};
use cargo_lambda_image::check;
use cargo_lambda_image::check::findings::Options;
use cargo_lambda_image::event::Session;
use cargo_lambda_image::registry::credentials::CredentialSource;
use cargo_lambda_image_fuzz::with_checksums;
use libfuzzer_sys::fuzz_target;
use tokio::runtime::{Builder, Runtime};

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Builder::new_current_thread().build().expect("a runtime"));
static FILE: LazyLock<PathBuf> = LazyLock::new(|| {
    let memory = PathBuf::from("/dev/shm");
    let directory = if memory.is_dir() { memory } else { env::temp_dir() };
    directory.join(format!("cargo-lambda-image-fuzz-{}.tar", process::id()))
});

fuzz_target!(|data: &[u8]| {
    fs::write(&*FILE, with_checksums(data)).expect("a written file");
    for form in ["docker-archive", "oci-archive"] {
        let request = InspectRequest {
            reference: format!("{form}:{}", FILE.display()),
            directory: PathBuf::from("/"),
            architecture: None,
            offline: true,
            known: None,
        };
        let session = Session::silent();
        let read = base::inspect(&request, &|_| CredentialSource::Anonymous, &session);
        if let Ok(image) = RUNTIME.block_on(read) {
            let _ = check::judge(&image, &Options::default());
        }
    }
});
