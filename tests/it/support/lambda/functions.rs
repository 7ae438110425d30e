//! Functions as Lambda keeps them, and what its operations do to them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{ACCOUNT, Outcome, REGION};

/// A function, its versions and its aliases.
#[derive(Debug, Clone)]
pub struct FakeFunction {
    pub package: &'static str,
    pub architecture: String,
    pub image_uri: String,
    pub state: Status,
    pub last_update: Status,
    /// Another setting, which makes versions differ.
    pub timeout: u64,
    pub image_config: Value,
    pub environment: Value,
    pub revision: usize,
    /// By number; the first is 1.
    pub versions: Vec<FakeFunction>,
    pub aliases: BTreeMap<String, FakeAlias>,
}

/// A state or a status, and how many looks it lasts before the next one.
#[derive(Debug, Clone)]
pub struct Status {
    pub now: &'static str,
    pub reason: Option<String>,
    /// Looks until `then`; the image of an update that succeeds is there from then on.
    pub looks: usize,
    pub then: Option<(&'static str, Option<String>, String)>,
}

#[derive(Debug, Clone)]
pub struct FakeAlias {
    pub version: String,
    pub weights: Value,
    pub revision: usize,
}

/// All functions, and how changes go.
#[derive(Debug, Default)]
pub struct Functions {
    pub all: BTreeMap<String, FakeFunction>,
    /// How many looks a change takes.
    pub busy_looks: usize,
    /// How many looks a new version takes.
    pub version_looks: usize,
    /// The reason code that changes end with, if they fail.
    pub failure: Option<String>,
    /// How many tries to make a function come before its role is known.
    pub role_unknown: usize,
}

impl Status {
    pub fn of(now: &'static str) -> Self {
        Self { now, reason: None, looks: 0, then: None }
    }

    pub fn because(now: &'static str, code: &str) -> Self {
        Self { reason: Some(code.to_owned()), ..Self::of(now) }
    }
}

impl FakeFunction {
    /// One that runs an image and is well.
    pub fn of(image_uri: &str) -> Self {
        Self {
            package: "Image",
            architecture: "x86_64".to_owned(),
            image_uri: image_uri.to_owned(),
            state: Status::of("Active"),
            last_update: Status::of("Successful"),
            timeout: 3,
            image_config: Value::Null,
            environment: Value::Null,
            revision: 1,
            versions: Vec::new(),
            aliases: BTreeMap::new(),
        }
    }

    /// With a version that is like it.
    pub fn published(mut self) -> Self {
        let version = Self { versions: Vec::new(), aliases: BTreeMap::new(), ..self.clone() };
        self.versions.push(version);
        self
    }

    pub fn alias(mut self, name: &str, version: &str) -> Self {
        let alias = FakeAlias { version: version.to_owned(), weights: Value::Null, revision: 1 };
        self.aliases.insert(name.to_owned(), alias);
        self
    }

    fn is_busy(&self) -> bool {
        self.state.now == "Pending" || self.last_update.now == "InProgress"
    }

    /// Another deployment brings it to another image, all at once.
    pub fn overwrite(&mut self, image_uri: &str) {
        self.image_uri = image_uri.to_owned();
        self.last_update = Status::of("Successful");
        self.revision += 1;
    }

    fn digest(&self) -> &str {
        self.image_uri.rsplit_once('@').map_or("", |(_, digest)| digest)
    }

    fn configuration(&self, name: &str, number: &str) -> Value {
        let qualifier = if number == "$LATEST" { String::new() } else { format!(":{number}") };
        let is_image = self.package == "Image";
        json!({
            "FunctionName": name,
            "FunctionArn": format!("arn:aws:lambda:{REGION}:{ACCOUNT}:function:{name}{qualifier}"),
            "Version": number,
            "PackageType": self.package,
            "Architectures": [self.architecture],
            "State": self.state.now,
            "StateReasonCode": self.state.reason,
            "LastUpdateStatus": self.last_update.now,
            "LastUpdateStatusReasonCode": self.last_update.reason,
            "LastUpdateStatusReason": self.last_update.reason.as_ref().map(|_| "Something is wrong."),
            "RevisionId": format!("{number}-{}", self.revision),
            "LastModified": format!("2026-01-01T00:00:{:02}.000+0000", self.revision),
            "CodeSha256": self.digest().trim_start_matches("sha256:"),
            "Role": format!("arn:aws:iam::{ACCOUNT}:role/r"),
            "Timeout": self.timeout,
            "ImageConfigResponse": is_image.then(|| json!({ "ImageConfig": self.image_config })),
        })
    }

    /// One look brings a change nearer to its end.
    fn look(&mut self) {
        for is_state in [true, false] {
            let status = if is_state { &mut self.state } else { &mut self.last_update };
            if let Some((now, reason, image_uri)) = status.then.take() {
                if status.looks > 0 {
                    status.looks -= 1;
                    status.then = Some((now, reason, image_uri));
                } else {
                    *status = Status { now, reason, looks: 0, then: None };
                    self.image_uri = image_uri;
                    self.revision += 1;
                }
            }
        }
    }
}

impl Functions {
    pub fn get(&mut self, name: &str) -> &mut FakeFunction {
        self.all.get_mut(name).expect("a function of the test")
    }

    pub(super) fn answer(&mut self, operation: &str, function: &str, name: Option<&str>, body: &Value) -> Outcome {
        if operation == "CreateFunction" {
            return self.create(function, body);
        }
        let absent = || (404, "ResourceNotFoundException", format!("Function not found: {function}"));
        let (busy_looks, version_looks, failure) = (self.busy_looks, self.version_looks, self.failure.clone());
        let found = self.all.get_mut(function).ok_or_else(absent)?;
        match (operation, name) {
            ("GetFunction", None) => {
                found.look();
                Ok(whole(found, function, "$LATEST"))
            }
            ("GetFunction", Some(number)) => {
                let place = number.parse::<usize>().ok().and_then(|number| number.checked_sub(1));
                let version = place.and_then(|place| found.versions.get_mut(place)).ok_or_else(absent)?;
                version.look();
                Ok(whole(version, function, number))
            }
            ("ListVersionsByFunction", _) => {
                let latest = found.configuration(function, "$LATEST");
                let versions = found.versions.iter().enumerate();
                let versions =
                    versions.map(|(place, version)| version.configuration(function, &(place + 1).to_string()));
                Ok(json!({ "Versions": std::iter::once(latest).chain(versions).collect::<Vec<_>>() }))
            }
            ("UpdateFunctionCode", _) => update(found, function, body, busy_looks, failure),
            ("PublishVersion", _) => publish(found, function, body, version_looks),
            (_, Some(alias)) => of_alias(found, operation, alias, body),
            _ => Err((404, "UnknownOperationException", operation.to_owned())),
        }
    }

    fn create(&mut self, name: &str, body: &Value) -> Outcome {
        if self.role_unknown > 0 {
            self.role_unknown -= 1;
            let message = "The role defined for the function cannot be assumed by Lambda.";
            return Err((400, "InvalidParameterValueException", message.to_owned()));
        }
        if self.all.contains_key(name) {
            return Err((409, "ResourceConflictException", format!("Function already exist: {name}")));
        }
        let image_uri = body["Code"]["ImageUri"].as_str().expect("an image").to_owned();
        let mut function = FakeFunction::of(&image_uri);
        function.architecture = body["Architectures"][0].as_str().expect("an architecture").to_owned();
        function.environment = body["Environment"]["Variables"].clone();
        function.timeout = body["Timeout"].as_u64().unwrap_or(3);
        let (then, reason) = if self.failure.is_some() { ("Failed", self.failure.clone()) } else { ("Active", None) };
        function.state = Status {
            now: "Pending",
            reason: Some("Creating".to_owned()),
            looks: self.busy_looks,
            then: Some((then, reason, image_uri)),
        };
        let configuration = function.configuration(name, "$LATEST");
        self.all.insert(name.to_owned(), function);
        Ok(configuration)
    }
}

fn whole(function: &FakeFunction, name: &str, number: &str) -> Value {
    json!({
        "Configuration": function.configuration(name, number),
        "Code": { "RepositoryType": "ECR", "ImageUri": function.image_uri, "ResolvedImageUri": function.image_uri },
    })
}

fn conflict(name: &str) -> (u16, &'static str, String) {
    let message = format!("The operation cannot be performed at this time. An update is in progress for {name}");
    (409, "ResourceConflictException", message)
}

fn as_seen(seen: &Value, revision: &str) -> Result<(), (u16, &'static str, String)> {
    if seen.is_null() || seen == revision {
        return Ok(());
    }
    let message = "The RevisionId provided does not match the latest RevisionId. Call the GetFunction API.";
    Err((412, "PreconditionFailedException", message.to_owned()))
}

fn update(found: &mut FakeFunction, name: &str, body: &Value, looks: usize, failure: Option<String>) -> Outcome {
    if found.is_busy() {
        return Err(conflict(name));
    }
    as_seen(&body["RevisionId"], &format!("$LATEST-{}", found.revision))?;
    let new = body["ImageUri"].as_str().expect("an image").to_owned();
    found.revision += 1;
    let then = match failure {
        Some(_) => ("Failed", failure, found.image_uri.clone()),
        None => {
            found.state = Status::of("Active");
            ("Successful", None, new)
        }
    };
    found.last_update = Status { now: "InProgress", reason: None, looks, then: Some(then) };
    Ok(found.configuration(name, "$LATEST"))
}

fn publish(found: &mut FakeFunction, name: &str, body: &Value, looks: usize) -> Outcome {
    if found.is_busy() {
        return Err(conflict(name));
    }
    as_seen(&body["RevisionId"], &format!("$LATEST-{}", found.revision))?;
    let sha256 = found.digest().trim_start_matches("sha256:");
    if body["CodeSha256"] != sha256 {
        let message = format!("CodeSHA256 ({}) is different from current CodeSHA256 in $LATEST", body["CodeSha256"]);
        return Err((400, "InvalidParameterValueException", message));
    }
    let is_like = |last: &FakeFunction| last.image_uri == found.image_uri && last.timeout == found.timeout;
    if !found.versions.last().is_some_and(is_like) {
        let mut version = FakeFunction { versions: Vec::new(), aliases: BTreeMap::new(), ..found.clone() };
        let then = Some(("Active", None, found.image_uri.clone()));
        version.state = Status { now: "Pending", reason: Some("Creating".to_owned()), looks, then };
        found.versions.push(version);
    }
    let last = found.versions.last().expect("a version");
    Ok(last.configuration(name, &found.versions.len().to_string()))
}

fn of_alias(found: &mut FakeFunction, operation: &str, name: &str, body: &Value) -> Outcome {
    if operation == "CreateAlias" {
        if found.aliases.contains_key(name) {
            return Err((409, "ResourceConflictException", format!("Alias already exists: {name}")));
        }
        let version = body["FunctionVersion"].as_str().expect("a version").to_owned();
        found.aliases.insert(name.to_owned(), FakeAlias { version, weights: Value::Null, revision: 1 });
    }
    let absent = || (404, "ResourceNotFoundException", format!("Cannot find alias arn: {name}"));
    let alias = found.aliases.get_mut(name).ok_or_else(absent)?;
    if operation == "UpdateAlias" {
        as_seen(&body["RevisionId"], &format!("alias-{}", alias.revision))?;
        body["FunctionVersion"].as_str().expect("a version").clone_into(&mut alias.version);
        if body["RoutingConfig"].is_object() {
            alias.weights = Value::Null;
        }
        alias.revision += 1;
    }
    Ok(json!({
        "AliasArn": format!("arn:aws:lambda:{REGION}:{ACCOUNT}:function:f:{name}"),
        "Name": name,
        "FunctionVersion": alias.version,
        "RevisionId": format!("alias-{}", alias.revision),
        "RoutingConfig": alias.weights,
    }))
}
