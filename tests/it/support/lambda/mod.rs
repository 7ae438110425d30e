//! A Lambda in this process, with the states that emulators lack: functions that are pending, busy for long, failed for
//! any reason; refusals, races and lost answers on request; and callers who may only do what their policy says.
//!
//! `functions` is what Lambda would do, this is how it is asked.

mod functions;

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{Method, Response, StatusCode, Uri};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

pub use self::functions::{FakeFunction, Functions, Status};

/// The account and the region of all functions.
pub const ACCOUNT: &str = "123456789012";
pub const REGION: &str = "eu-west-1";

/// What happens instead of the honest answer.
#[derive(Clone)]
pub enum Twist {
    /// A refusal with this status, code and message.
    Refuse(u16, &'static str, &'static str),
    /// All is done as it should be, and the answer never comes.
    LoseAnswer,
    /// Something else is done right before.
    Before(fn(&mut Functions)),
    /// Something else is done right after.
    After(fn(&mut Functions)),
}

struct Rule {
    operation: &'static str,
    times: Range<usize>,
    seen: usize,
    twist: Twist,
}

#[derive(Default)]
struct Shared {
    functions: Functions,
    rules: Vec<Rule>,
    /// Operation and function, as in `GetFunction f:7`.
    log: Vec<String>,
    /// The policy of the caller, if it is not a mighty one.
    policy: Option<Value>,
}

/// A Lambda being served; it ends when dropped.
pub struct FakeLambda {
    /// The value of `AWS_ENDPOINT_URL`.
    pub url: String,
    shared: Arc<Mutex<Shared>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl FakeLambda {
    pub fn start() -> Self {
        let (stop, stopped) = oneshot::channel();
        let (started, address) = std::sync::mpsc::channel();
        let shared = Arc::new(Mutex::new(Shared::default()));
        let serve = {
            let shared = Arc::clone(&shared);
            async move {
                let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
                started.send(listener.local_addr().expect("its address")).expect("a waiting test");
                let app = axum::Router::new().fallback(handle).with_state(shared);
                let serving = axum::serve(listener, app).into_future();
                drop(tokio::select! { served = serving => served, _ = stopped => Ok(()) });
            }
        };
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(serve);
        });
        let address: SocketAddr = address.recv().expect("a started server");
        Self { url: format!("http://{address}"), shared, stop: Some(stop), thread: Some(thread) }
    }

    /// A function that is there.
    pub fn with(self, name: &str, function: FakeFunction) -> Self {
        self.functions(|functions| drop(functions.all.insert(name.to_owned(), function)));
        self
    }

    /// Does `twist` to those calls of `operation` that are counted by `times`.
    pub fn twist(self, operation: &'static str, times: Range<usize>, twist: Twist) -> Self {
        self.add(operation, times, twist);
        self
    }

    /// The same, later.
    pub fn add(&self, operation: &'static str, times: Range<usize>, twist: Twist) {
        self.shared().rules.push(Rule { operation, times, seen: 0, twist });
    }

    /// Nothing is twisted any more.
    pub fn calm(&self) {
        self.shared().rules.clear();
    }

    /// Looks at the functions, or changes them.
    pub fn functions<T>(&self, look: impl FnOnce(&mut Functions) -> T) -> T {
        look(&mut self.shared().functions)
    }

    /// The caller may do from now on what this policy says and nothing else.
    pub fn allow_only(&self, policy: Value) {
        self.shared().policy = Some(policy);
    }

    /// What was asked so far, in order.
    pub fn log(&self) -> Vec<String> {
        self.shared().log.clone()
    }

    /// What was asked so far that changes something, in order.
    pub fn changes(&self) -> Vec<String> {
        self.log().into_iter().filter(|line| !line.starts_with("Get") && !line.starts_with("List")).collect()
    }

    /// Forgets what was asked so far.
    pub fn forget(&self) {
        self.shared().log.clear();
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().expect("no panic under the lock")
    }
}

impl Drop for FakeLambda {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the fake Lambda panicked");
        }
    }
}

/// A call, read from method and path.
struct Call {
    operation: &'static str,
    function: String,
    /// The version of `GetFunction`, the alias of those of aliases.
    name: Option<String>,
}

impl Call {
    fn read(method: &Method, uri: &Uri, body: &Value) -> Option<Self> {
        let path: Vec<_> = uri.path().trim_start_matches("/2015-03-31/functions").split('/').skip(1).collect();
        let own = |text: &str| Some(text.replace("%3A", ":").replace("%24", "$"));
        let qualifier = uri.query().and_then(|query| query.split('&').find_map(|pair| pair.strip_prefix("Qualifier=")));
        let (operation, function, name) = match (method.as_str(), path.as_slice()) {
            ("POST", []) => ("CreateFunction", body["FunctionName"].as_str().and_then(own), None),
            ("GET", [function]) => ("GetFunction", own(function), qualifier.and_then(own)),
            ("PUT", [function, "code"]) => ("UpdateFunctionCode", own(function), None),
            ("GET", [function, "versions"]) => ("ListVersionsByFunction", own(function), None),
            ("POST", [function, "versions"]) => ("PublishVersion", own(function), None),
            ("POST", [function, "aliases"]) => ("CreateAlias", own(function), body["Name"].as_str().and_then(own)),
            ("GET", [function, "aliases", alias]) => ("GetAlias", own(function), own(alias)),
            ("PUT", [function, "aliases", alias]) => ("UpdateAlias", own(function), own(alias)),
            _ => return None,
        };
        let function = function?;
        let function = function.rsplit_once(":function:").map_or(function.as_str(), |(_, name)| name).to_owned();
        Some(Self { operation, function, name })
    }

    fn shown(&self) -> String {
        let name = self.name.as_ref().map(|name| format!(":{name}")).unwrap_or_default();
        format!("{} {}{name}", self.operation, self.function)
    }

    /// Why a caller with this policy may not make it.
    fn denied(&self, policy: &Value) -> Option<String> {
        let action = format!("lambda:{}", self.operation);
        let arn = format!("arn:aws:lambda:{REGION}:{ACCOUNT}:function:{}", self.function);
        let resource = self.name.as_ref().map_or_else(|| arn.clone(), |name| format!("{arn}:{name}"));
        let mut statements = policy["Statement"].as_array().expect("statements").iter();
        let holds = |list: &Value, wanted: &str| {
            let mut words = list.as_array().expect("a list").iter().map(|word| word.as_str().expect("a word"));
            words.any(|word| word == wanted || word.strip_suffix('*').is_some_and(|start| wanted.starts_with(start)))
        };
        let allowed = statements.any(|it| holds(&it["Action"], &action) && holds(&it["Resource"], &resource));
        (!allowed).then(|| {
            format!(
                "User: arn:aws:iam::{ACCOUNT}:user/me is not authorized to perform: {action} on resource: {resource} \
                 because no identity-based policy allows the {action} action"
            )
        })
    }
}

async fn handle(State(shared): State<Arc<Mutex<Shared>>>, method: Method, uri: Uri, body: Bytes) -> Response<Body> {
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let Some(call) = Call::read(&method, &uri, &body) else {
        return answer(Err((404, "UnknownOperationException", format!("{method} {uri}"))));
    };
    let mut is_lost = false;
    let outcome = {
        let mut shared = shared.lock().expect("no panic under the lock");
        let Shared { functions, rules, log, policy } = &mut *shared;
        log.push(call.shown());
        let mut twists = Vec::new();
        for rule in rules.iter_mut().filter(|rule| rule.operation == call.operation) {
            if rule.times.contains(&rule.seen) {
                twists.push(rule.twist.clone());
            }
            rule.seen += 1;
        }
        if let Some(why) = policy.as_ref().and_then(|policy| call.denied(policy)) {
            Err((403, "AccessDeniedException", why))
        } else if let Some(Twist::Refuse(status, code, message)) =
            twists.iter().find(|twist| matches!(twist, Twist::Refuse(..)))
        {
            Err((*status, *code, (*message).to_owned()))
        } else {
            for twist in &twists {
                if let Twist::Before(change) = twist {
                    change(functions);
                }
            }
            let outcome = functions.answer(call.operation, &call.function, call.name.as_deref(), &body);
            for twist in &twists {
                match twist {
                    Twist::After(change) => change(functions),
                    Twist::LoseAnswer => is_lost = true,
                    _ => {}
                }
            }
            outcome
        }
    };
    if is_lost {
        // Longer than any caller in a test waits; it ends when the server does.
        tokio::time::sleep(Duration::from_secs(3600)).await;
    }
    answer(outcome)
}

/// What Lambda answers: a body, or status, code and message.
pub type Outcome = Result<Value, (u16, &'static str, String)>;

fn answer(outcome: Outcome) -> Response<Body> {
    let response = Response::builder().header("content-type", "application/json");
    let response = match outcome {
        Ok(body) => response.status(StatusCode::OK).body(Body::from(body.to_string())),
        Err((status, code, message)) => {
            let body = json!({ "Type": "User", "message": message });
            response.status(status).header("x-amzn-errortype", code).body(Body::from(body.to_string()))
        }
    };
    response.expect("a response of plain parts")
}
