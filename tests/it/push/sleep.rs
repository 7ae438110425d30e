//! Machines that sleep while bytes are sent, as laptops and their networks do.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cargo_lambda_image::event::{Event, Reporter, Session};
use cargo_lambda_image::problem::Problem;
use cargo_lambda_image::registry::credentials::CredentialSource;
use cargo_lambda_image::registry::feed::Source;
use cargo_lambda_image::registry::origin::Origin;
use cargo_lambda_image::registry::{Client, Patience};

use super::{LARGE, made, of, upload};
use crate::pull::patience;
use crate::support::docker_registry::DockerRegistry;
use crate::support::images::noise;

/// Wakes the registry as soon as something is tried again, and counts how often.
struct Waker {
    registry: Arc<DockerRegistry>,
    retries: Arc<AtomicUsize>,
}

impl Reporter for Waker {
    fn event(&self, event: &Event<'_>) {
        if let Event::Retrying { .. } = event {
            self.registry.signal("CONT");
            self.retries.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[tokio::test]
async fn a_registry_that_falls_asleep_in_the_middle_is_left_and_pushed_to_once_it_is_awake() {
    let blob = noise(LARGE);
    let known = of(&blob);
    for known in [Some(&known), None] {
        let registry = Arc::new(DockerRegistry::start());
        let retries = Arc::new(AtomicUsize::new(0));
        let session = Session::new(Box::new(Waker { registry: registry.clone(), retries: retries.clone() }));
        let origin = Origin::from_url(&format!("http://{}", registry.address)).expect("an origin");
        let patience = Patience { stall: Duration::from_millis(500), ..patience() };
        let client = Client::new(origin, CredentialSource::Anonymous, patience, &session);
        let (bytes, tries) = (blob.clone(), AtomicUsize::new(0));
        let source = Source::blocking(move |mut pieces| {
            let is_first = tries.fetch_add(1, Ordering::Relaxed) == 0;
            for (number, part) in bytes.chunks(1 << 20).enumerate() {
                // What is left is more than the buffers of a connection hold.
                if is_first && number == 4 {
                    registry.signal("STOP");
                }
                std::io::Write::write_all(&mut pieces, part)
                    .map_err(|error| Problem::failed("written").because(error))?;
            }
            pieces.finish()
        });
        assert_eq!(client.upload(upload(&source, known)).await.expect("pushed"), made(&blob));
        assert!(client.has_blob("a", &of(&blob)).await.expect("an answer"));
        assert_eq!(retries.load(Ordering::Relaxed), 1);
    }
}
