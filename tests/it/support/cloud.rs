//! An account of AWS by its real host names: moto is ECR's API, a registry of ECR's ways keeps the blobs, Lambda is one
//! in this process, and an HTTPS proxy makes all of them answer under the names that the program knows.

use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::docker_registry::DockerRegistry;
use super::emulator::{Emulator, Function, Podman};
use super::images::Family;
use super::lambda::FakeLambda;
use super::lambda_base::LambdaBase;
use super::moto::Moto;
use super::program::Program;
use super::proxy::Proxy;
use super::registry::{Auth, FaultRegistry, Mounts, Ways};
use super::tools::{succeed, tool};

pub const REGION: &str = "eu-west-1";
pub const HOST: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
pub const API: &str = "api.ecr.eu-west-1.amazonaws.com";
pub const LAMBDA: &str = "lambda.eu-west-1.amazonaws.com";

/// What moto says the registry's password is.
pub const PASSWORD: &str = "123456789012-auth-token";

/// Keys as a user has them; moto takes any.
pub const KEYS: [(&str, &str); 3] = [
    ("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE"),
    ("AWS_SECRET_ACCESS_KEY", "canary-secret-key"),
    ("AWS_SESSION_TOKEN", "canary-session-token"),
];

/// ECR and Lambda, and what stands around them.
pub struct Cloud {
    pub registry: FaultRegistry,
    pub moto: Moto,
    pub lambda: FakeLambda,
    pub bases: DockerRegistry,
    pub proxy: Proxy,
}

impl Cloud {
    pub fn start(repositories: &[&str]) -> Self {
        let bases = DockerRegistry::start();
        bases.push("lambda/provided", "al2023", &LambdaBase::new(Family::Docker));
        let ways = Ways { ecr: true, mounts: Mounts::Referenced, ..Ways::default() };
        let registry = FaultRegistry::builder().auth(Auth::Basic("AWS", PASSWORD)).ways(ways);
        let registry = repositories.iter().fold(registry, |registry, name| registry.repository(name)).start();
        let (moto, lambda) = (Moto::start(), FakeLambda::start());
        let at = |url: &str| url.trim_start_matches("http://").to_owned();
        let others = [(HOST, registry.address.to_string()), (API, at(&moto.url)), (LAMBDA, at(&lambda.url))];
        let proxy = Proxy::start_with(&bases.address, &others.each_ref().map(|(host, at)| (*host, at.as_str())));
        Self { registry, moto, lambda, bases, proxy }
    }

    /// The program as a user behind a company's proxy runs it.
    pub fn at_home(&self, program: Program) -> Program {
        let program = program.env("HTTPS_PROXY", self.proxy.url()).env("SSL_CERT_FILE", self.proxy.authority());
        KEYS.iter().fold(program, |program, (name, value)| program.env(name, *value))
    }

    /// Asks the function in a repository for a word it knows.
    pub fn assert_it_answers(&self, repository: &str, reference: &str) {
        let known = self.invoke(repository, reference, &json!({"word": "keel"}));
        assert_eq!(known, json!({"word": "keel", "meaning": "the backbone of a hull, along its bottom"}));
    }

    /// Pulls an image, named by `:tag` or `@digest`, and runs it under Lambda's emulator for one event.
    pub fn invoke(&self, repository: &str, reference: &str, event: &Value) -> Value {
        let directory = TempDir::new().expect("a temporary directory");
        let layout = directory.path().join("pulled");
        let mut skopeo = Command::new(tool("skopeo"));
        skopeo.args(["copy", "--src-tls-verify=false", "--src-creds", &format!("AWS:{PASSWORD}")]);
        skopeo.arg(format!("docker://{}/{repository}{reference}", self.registry.address));
        succeed(skopeo.arg(format!("oci:{}:function", layout.display())));
        let podman = Podman::new();
        let image = podman.pull(&layout, "function");
        Function::start(&podman, &image, Emulator::OfBase).invoke(event)
    }
}
