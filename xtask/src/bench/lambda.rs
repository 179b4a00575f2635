//! One invocation of a function as a process of its own, by Lambda's runtime API (source: Lambda developer guide,
//! "Using the Lambda runtime API").

use std::fs;
use std::io;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use http_body_util::Full;
use hyper::Response;
use hyper::body::Bytes;
use hyper::http::HeaderValue;
use serde_json::Value;

use super::http::{Answer, Server};

/// What came of it.
#[derive(Debug)]
pub(super) struct Invoked {
    /// From the event to the answer.
    pub(super) took: Duration,
    /// The most memory that the process had, in MB.
    pub(super) peak_mb: f64,
    /// The report, or the error object.
    pub(super) payload: Value,
    /// Whether it was an error.
    pub(super) failed: bool,
}

/// A bench waits so long for a function.
const LIMIT: Duration = Duration::from_mins(30);

enum Message {
    Asked(Instant),
    Answered(Instant, bool, Bytes),
}

/// Starts a function, hands it one event, and ends it when it has answered.
pub(super) fn invoke(mut command: Command, event: &Value) -> io::Result<Invoked> {
    let (sender, messages) = mpsc::channel();
    let event = Arc::new(Mutex::new(Some(Bytes::from(event.to_string()))));
    let server = Server::start(move |head, body| -> Answer {
        let path = head.uri.path();
        if path.ends_with("/invocation/next") {
            // The first time; from then on it may wait.
            let event = event.lock().unwrap_or_else(PoisonError::into_inner).take();
            // Nobody listens any more once the answer is there.
            let _ = sender.send(Message::Asked(Instant::now()));
            return Box::pin(async move {
                match event {
                    Some(event) => next(event),
                    None => std::future::pending().await,
                }
            });
        }
        let failed = !path.ends_with("/response");
        let _ = sender.send(Message::Answered(Instant::now(), failed, body));
        Box::pin(async { with_status(202, Bytes::new()) })
    })?;
    command.env("AWS_LAMBDA_RUNTIME_API", &server.address).envs([
        ("AWS_LAMBDA_FUNCTION_NAME", "bench"),
        ("AWS_LAMBDA_FUNCTION_VERSION", "1"),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256"),
        ("AWS_LAMBDA_LOG_GROUP_NAME", "bench"),
        ("AWS_LAMBDA_LOG_STREAM_NAME", "bench"),
        ("AWS_REGION", "eu-central-1"),
        ("AWS_DEFAULT_REGION", "eu-central-1"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("LANG", "C.UTF-8"),
    ]);
    let started = Instant::now();
    let mut child =
        Process(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
    let mut asked = None;
    loop {
        match messages.recv_timeout(Duration::from_millis(200)) {
            Ok(Message::Asked(at)) => asked = asked.or(Some(at)),
            Ok(Message::Answered(at, failed, payload)) => {
                let asked = asked.unwrap_or(at);
                return Ok(Invoked {
                    took: at - asked,
                    peak_mb: peak_mb(child.0.id()),
                    payload: serde_json::from_slice(&payload).unwrap_or_default(),
                    failed,
                });
            }
            Err(RecvTimeoutError::Disconnected) => return Err(io::Error::other("the runtime API ended")),
            Err(RecvTimeoutError::Timeout) if started.elapsed() > LIMIT => {
                return Err(io::Error::other("the function does not answer"));
            }
            Err(RecvTimeoutError::Timeout) => {
                if let Some(status) = child.0.try_wait()? {
                    return Err(io::Error::other(format!("the function ended without an answer ({status})")));
                }
            }
        }
    }
}

/// Starts a function, and ends it once it asks for its first event; answers how long that took.
pub(super) fn cold_start(mut command: Command) -> io::Result<Duration> {
    let (sender, asked) = mpsc::channel();
    let server = Server::start(move |_, _| -> Answer {
        let _ = sender.send(Instant::now());
        Box::pin(std::future::pending())
    })?;
    command.env("AWS_LAMBDA_RUNTIME_API", &server.address);
    let started = Instant::now();
    let _child = Process(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
    let at = asked.recv_timeout(Duration::from_secs(60)).map_err(io::Error::other)?;
    Ok(at - started)
}

/// Ends with this.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn next(event: Bytes) -> Response<Full<Bytes>> {
    let mut response = with_status(200, event);
    let deadline = SystemTime::now() + Duration::from_mins(15);
    let deadline = deadline.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let headers = response.headers_mut();
    for (name, value) in [
        ("lambda-runtime-aws-request-id", "8476a536-e9f4-11e8-9739-2dfe598c3fcd".to_owned()),
        ("lambda-runtime-deadline-ms", deadline.to_string()),
        (
            "lambda-runtime-invoked-function-arn",
            "arn:aws:lambda:eu-central-1:123456789012:function:bench".to_owned(),
        ),
        ("content-type", "application/json".to_owned()),
    ] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
    response
}

fn with_status(status: u16, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or_default();
    response
}

/// The most memory that a process has had, as Linux counts it; nothing elsewhere.
pub(super) fn peak_mb(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kb = line.and_then(|line| line.trim().split(' ').next()?.parse::<f64>().ok());
    kb.map_or(f64::NAN, |kb| kb / 1024.0)
}
