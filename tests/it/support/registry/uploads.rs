//! The half of a registry that takes pushes, in the specification's ways or in ECR's.

use std::collections::BTreeMap;

use axum::body::Bytes;
use axum::http::{Method, Response, StatusCode, header};
use cargo_lambda_image::oci::Digest;
use serde_json::Value;

use super::answers::{Answer, Spoilt, refuse};
use super::{Recorded, Repository, Shared};

/// Which blobs of other repositories are lent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mounts {
    /// None: a session is opened instead.
    #[default]
    Never,
    /// All that are there.
    Always,
    /// Those that a manifest names, as ECR does.
    Referenced,
}

/// How a registry takes pushes.
#[derive(Debug, Clone, Default)]
pub struct Ways {
    /// Answers as ECR does where that differs from the specification.
    pub ecr: bool,
    /// A repository that is not there is not made, and the connection is cut while bytes come.
    pub cuts_unknown_repositories: bool,
    /// Tags stay where they are.
    pub immutable: bool,
    pub mounts: Mounts,
    /// A blob is only seen by this many-th manifest after it was confirmed.
    pub lag: usize,
    /// Where locations lead, instead of a relative path.
    pub location: Option<String>,
    /// At most so many sessions may be open, or opening one is answered 429.
    pub sessions: Option<usize>,
}

/// The sessions of a repository.
#[derive(Default)]
pub(super) struct Uploads {
    opened: usize,
    /// Bytes so far, and which step of the session comes next.
    pub(super) open: BTreeMap<usize, (Vec<u8>, usize)>,
    manifests: usize,
}

impl Shared {
    /// The answer to a request that pushes; `None` if it is another.
    pub(super) fn push(&mut self, request: &Recorded, path: &str) -> Option<Answer> {
        let query = request.target.split_once('?').map(|(_, query)| query).unwrap_or_default();
        if let Some((name, reference)) = path.split_once("/manifests/") {
            return (request.method == Method::PUT).then(|| self.put_manifest(request, name, reference));
        }
        if let Some(name) = path.strip_suffix("/tags/list") {
            let known = self.repositories.contains_key(name);
            return Some(if known { answer(200) } else { refuse(StatusCode::NOT_FOUND, "NAME_UNKNOWN") });
        }
        let (name, session) = path.split_once("/blobs/uploads/")?;
        if self.ways.ecr && !self.repositories.contains_key(name) {
            if !self.ways.cuts_unknown_repositories {
                return Some(refuse(StatusCode::NOT_FOUND, "NAME_UNKNOWN"));
            }
            return Some(Answer { head: Response::new(()), body: Spoilt::Broken });
        }
        if request.method == Method::POST {
            return Some(self.open(name, &parameters(query)));
        }
        let (number, step) = session.split_once('-')?;
        let (number, step) = (number.parse().ok()?, step.parse().ok()?);
        Some(self.advance(request, name, (number, step), &parameters(query)))
    }

    fn open(&mut self, name: &str, parameters: &BTreeMap<String, String>) -> Answer {
        if let (Some(digest), Some(from)) = (parameters.get("mount"), parameters.get("from"))
            && let Some(blob) = self.lend(from, digest)
        {
            self.repositories.entry(name.to_owned()).or_default().blobs.insert(digest.clone(), blob);
            return answer(201);
        }
        let sessions = self.ways.sessions;
        let uploads = &mut self.repositories.entry(name.to_owned()).or_default().uploads;
        if sessions.is_some_and(|most| uploads.open.len() >= most) {
            return refuse(StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS");
        }
        uploads.opened += 1;
        let number = uploads.opened;
        uploads.open.insert(number, (Vec::new(), 0));
        self.located(name, number, 0, 202)
    }

    fn lend(&self, from: &str, digest: &str) -> Option<Bytes> {
        let repository = self.repositories.get(from)?;
        let is_named = || {
            let mut manifests = repository.manifests.values();
            manifests.any(|(_, bytes)| String::from_utf8_lossy(bytes).contains(digest))
        };
        let lends = match self.ways.mounts {
            Mounts::Never => false,
            Mounts::Always => true,
            Mounts::Referenced => is_named(),
        };
        repository.blobs.get(digest).filter(|_| lends).cloned()
    }

    fn advance(
        &mut self,
        request: &Recorded,
        name: &str,
        (number, step): (usize, usize),
        parameters: &BTreeMap<String, String>,
    ) -> Answer {
        let ecr = self.ways.ecr;
        let repository = self.repositories.entry(name.to_owned()).or_default();
        let Some((bytes, next)) = repository.uploads.open.get_mut(&number) else {
            return refuse(StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN");
        };
        if request.method == Method::DELETE {
            repository.uploads.open.remove(&number);
            return answer(204);
        }
        // Whoever uses an old location, or sends the beginning twice, does not know what is there.
        if step != *next || (!bytes.is_empty() && !request.body.is_empty()) {
            return refuse(StatusCode::RANGE_NOT_SATISFIABLE, "BLOB_UPLOAD_INVALID");
        }
        bytes.extend_from_slice(&request.body);
        *next += 1;
        let next = *next;
        match request.method {
            Method::PATCH => self.located(name, number, next, if ecr { 201 } else { 202 }),
            Method::PUT => {
                let (bytes, _) = repository.uploads.open.remove(&number).unwrap_or_default();
                if ecr && bytes.is_empty() {
                    return refuse(StatusCode::BAD_REQUEST, "EmptyUploadException");
                }
                let digest = Digest::of(&bytes).to_string();
                if parameters.get("digest") != Some(&digest) {
                    return refuse(StatusCode::BAD_REQUEST, "DIGEST_INVALID");
                }
                repository.blobs.insert(digest, bytes.into());
                answer(201)
            }
            _ => refuse(StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN"),
        }
    }

    fn located(&self, name: &str, number: usize, step: usize, status: u16) -> Answer {
        let origin = self.ways.location.as_deref().unwrap_or_default();
        // What is in the query is the registry's own affair, and must come back.
        let location = format!("{origin}/v2/{name}/blobs/uploads/{number}-{step}?_state=a%2Fb%3D%3D");
        let mut answer = answer(status);
        answer.head.headers_mut().insert(header::LOCATION, location.parse().expect("a header value"));
        answer
    }

    fn put_manifest(&mut self, request: &Recorded, name: &str, reference: &str) -> Answer {
        let Ways { ecr, immutable, lag, .. } = self.ways;
        let Ok(manifest) = serde_json::from_slice::<Value>(&request.body) else {
            return refuse(StatusCode::BAD_REQUEST, "MANIFEST_INVALID");
        };
        let content_type = request.header("content-type").unwrap_or_default();
        if ecr && manifest["mediaType"] != content_type {
            return refuse(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED");
        }
        let Some(repository) = self.repositories.get_mut(name) else {
            return refuse(StatusCode::NOT_FOUND, "NAME_UNKNOWN");
        };
        let digest = Digest::of(&request.body).to_string();
        repository.uploads.manifests += 1;
        if !is_complete(repository, &manifest) || repository.uploads.manifests <= lag {
            let code = if ecr { "BLOB_UPLOAD_UNKNOWN" } else { "MANIFEST_BLOB_UNKNOWN" };
            return refuse(StatusCode::NOT_FOUND, code);
        }
        if immutable && !reference.starts_with("sha256:") && repository.manifests.contains_key(reference) {
            return refuse(StatusCode::BAD_REQUEST, "TAG_INVALID");
        }
        let kept = (content_type.to_owned(), request.body.clone());
        repository.manifests.insert(digest.clone(), kept.clone());
        repository.manifests.insert(reference.to_owned(), kept);
        let mut answer = answer(201);
        let headers = answer.head.headers_mut();
        headers.insert("docker-content-digest", digest.parse().expect("a header value"));
        if !ecr {
            let location = format!("/v2/{name}/manifests/{digest}");
            headers.insert(header::LOCATION, location.parse().expect("a header value"));
        }
        answer
    }
}

fn is_complete(repository: &Repository, manifest: &Value) -> bool {
    let layers = manifest["layers"].as_array().into_iter().flatten();
    let mut named = layers.chain([&manifest["config"]]).filter_map(|descriptor| descriptor["digest"].as_str());
    named.all(|digest| repository.blobs.contains_key(digest))
}

fn answer(status: u16) -> Answer {
    let head = Response::builder().status(status).body(()).expect("an answer");
    Answer { head, body: Spoilt::Whole(Bytes::new()) }
}

fn parameters(query: &str) -> BTreeMap<String, String> {
    let url = reqwest::Url::parse(&format!("http://query/?{query}")).expect("a query");
    url.query_pairs().into_owned().collect()
}
