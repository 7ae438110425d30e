//! Debian's `docker-registry`, a real registry server, on a free port with storage of its own.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use cargo_lambda_image::oci::Digest;
use reqwest::{Client, Method, StatusCode, header};
use serde_json::Value;
use tempfile::TempDir;

use super::images::index_type;
use super::lambda_base::LambdaBase;
use super::tools::{block_on, poll, succeed, tool};

/// Who may use a registry that asks: Lambda's deployers log in the same way.
pub const USER: (&str, &str) = ("AWS", "stowage");

/// [`USER`] as `htpasswd -B` writes it.
const HTPASSWD: &str = "AWS:$2y$05$abcdefghijklmnopqrstuu87e20ah7lozgixW8DxcztUto8ZPPPlu\n";

/// A registry being served; it ends when dropped.
pub struct DockerRegistry {
    /// Host and port.
    pub address: String,
    password: Option<&'static str>,
    process: Child,
    _storage: TempDir,
}

impl DockerRegistry {
    /// One that anybody may use.
    pub fn start() -> Self {
        Self::serve(None)
    }

    /// One that only [`USER`] may use.
    pub fn start_with_password() -> Self {
        Self::serve(Some(USER.1))
    }

    /// One that only [`USER`] may use, by TLS with this certificate and key.
    pub fn start_with_tls((certificate, key): (PathBuf, PathBuf)) -> Self {
        Self::serve_by(Some(USER.1), Some((certificate, key)))
    }

    /// Sends it a signal, such as `STOP`.
    pub fn signal(&self, name: &str) {
        succeed(Command::new(tool("kill")).args(["-s", name, "--", &self.process.id().to_string()]));
    }

    fn serve(password: Option<&'static str>) -> Self {
        Self::serve_by(password, None)
    }

    fn serve_by(password: Option<&'static str>, tls: Option<(PathBuf, PathBuf)>) -> Self {
        let storage = TempDir::new().expect("a temporary directory");
        let log = storage.path().join("log");
        let config = storage.path().join("config.yml");
        fs::write(&config, configuration(storage.path(), password, tls)).expect("a written configuration");
        let process = Command::new(tool("docker-registry"))
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).expect("a log file"))
            .spawn()
            .expect("docker-registry starts");
        let mut registry = Self { address: String::new(), password, process, _storage: storage };
        registry.address = poll("docker-registry to listen", || {
            let text = fs::read_to_string(&log).expect("the log of docker-registry");
            let ended = registry.process.try_wait().expect("the state of docker-registry");
            assert!(ended.is_none(), "docker-registry ended: {text}");
            listening_address(&text)
        });
        registry
    }

    /// Pushes a base, each platform by digest and the index by tag.
    pub fn push(&self, repository: &str, tag: &str, base: &LambdaBase) {
        block_on(async {
            for image in &base.images {
                for blob in image.layers.iter().chain([&image.config]) {
                    self.push_blob(repository, blob).await;
                }
                let digest = image.digest().to_string();
                self.push_manifest(repository, &digest, image.manifest_type(), &image.manifest).await;
            }
            self.push_manifest(repository, tag, index_type(base.family), &base.index).await;
        });
    }

    /// Pushes one image of an OCI layout by tag, whatever its media types.
    pub fn push_from_layout(&self, repository: &str, tag: &str, layout: &Path, digest: &str) {
        let bytes = |digest: &str| {
            let path = layout.join("blobs").join(digest.replace(':', "/"));
            fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        };
        let manifest_bytes = bytes(digest);
        let manifest: Value = serde_json::from_slice(&manifest_bytes).expect("a manifest");
        let layers = manifest["layers"].as_array().expect("layers");
        block_on(async {
            for blob in layers.iter().chain([&manifest["config"]]) {
                self.push_blob(repository, &bytes(blob["digest"].as_str().expect("a digest"))).await;
            }
            let media_type = manifest["mediaType"].as_str().expect("a media type");
            self.push_manifest(repository, tag, media_type, &manifest_bytes).await;
        });
    }

    async fn push_blob(&self, repository: &str, bytes: &[u8]) {
        let begun = self.request(Method::POST, &format!("/v2/{repository}/blobs/uploads/"), Vec::new(), None).await;
        assert_eq!(begun.status(), StatusCode::ACCEPTED);
        let location = begun.headers()[header::LOCATION].to_str().expect("a Location in ASCII");
        let upload = location.split_once(&self.address).map_or(location, |(_, path)| path);
        let and = if upload.contains('?') { '&' } else { '?' };
        let put = format!("{upload}{and}digest={}", Digest::of(bytes));
        let done = self.request(Method::PUT, &put, bytes.to_vec(), Some("application/octet-stream")).await;
        assert_eq!(done.status(), StatusCode::CREATED);
    }

    async fn push_manifest(&self, repository: &str, reference: &str, media_type: &str, bytes: &[u8]) {
        let path = format!("/v2/{repository}/manifests/{reference}");
        let done = self.request(Method::PUT, &path, bytes.to_vec(), Some(media_type)).await;
        assert_eq!(done.status(), StatusCode::CREATED, "{path}: {}", done.text().await.unwrap_or_default());
    }

    async fn request(&self, method: Method, path: &str, body: Vec<u8>, media_type: Option<&str>) -> reqwest::Response {
        let client = Client::builder().no_proxy().build().expect("an HTTP client");
        let mut request = client.request(method, format!("http://{}{path}", self.address)).body(body);
        if let Some(media_type) = media_type {
            request = request.header(header::CONTENT_TYPE, media_type);
        }
        if let Some(password) = self.password {
            request = request.basic_auth(USER.0, Some(password));
        }
        request.send().await.expect("an answer of docker-registry")
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        // Either call fails only for a process that is gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// JSON is YAML too.
fn configuration(storage: &Path, password: Option<&str>, tls: Option<(PathBuf, PathBuf)>) -> String {
    let mut config = serde_json::json!({
        "version": 0.1,
        "log": {"level": "info", "accesslog": {"disabled": true}},
        "storage": {"filesystem": {"rootdirectory": storage.join("blobs")}, "delete": {"enabled": true}},
        "http": {"addr": "127.0.0.1:0"},
    });
    if password.is_some() {
        let file = storage.join("htpasswd");
        fs::write(&file, HTPASSWD).expect("a written password file");
        config["auth"] = serde_json::json!({"htpasswd": {"realm": "registry", "path": file}});
    }
    if let Some((certificate, key)) = tls {
        config["http"]["tls"] = serde_json::json!({"certificate": certificate, "key": key});
    }
    config.to_string()
}

/// The port was free for the registry to choose, so only its log knows it.
fn listening_address(log: &str) -> Option<String> {
    let (_, rest) = log.split_once("listening on ")?;
    let address = &rest[..rest.find(|c: char| !c.is_ascii_digit() && c != '.' && c != ':')?];
    Some(address.to_owned())
}
