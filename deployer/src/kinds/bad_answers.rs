//! Every kind against services that deny, throttle, break down, or answer nonsense.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_smithy_http_client::test_util::infallible_client_fn;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_types::body::SdkBody;
use http::{Request, Response};

use super::*;
use crate::aws::LocalEndpoints;
use crate::error::ErrorClass;
use crate::kinds::KINDS;

/// An answer as the request's protocol spells it: IAM, SNS and EC2 speak XML, CloudWatch CBOR, the others JSON.
pub(super) fn refusal(request: &Request<SdkBody>, status: u16, code: &str) -> Response<Vec<u8>> {
    let content = request.headers().get("content-type").map(http::HeaderValue::as_bytes).unwrap_or_default();
    let answer = Response::builder().status(status);
    if is_of_version(request, "2016-11-15") {
        // EC2 wraps it once more.
        let error = format!("<Error><Code>{code}</Code><Message>no</Message></Error>");
        let body = format!("<Response><Errors>{error}</Errors></Response>");
        return answer.body(body.into_bytes()).unwrap();
    }
    if content.starts_with(b"application/x-www-form-urlencoded") {
        let body =
            format!("<ErrorResponse><Error><Code>{code}</Code><Message>no</Message></Error></ErrorResponse>");
        return answer.body(body.into_bytes()).unwrap();
    }
    if content == b"application/cbor" {
        let answer =
            answer.header("content-type", "application/cbor").header("smithy-protocol", "rpc-v2-cbor");
        return answer.body(cbor(&[("__type", code), ("message", "no")])).unwrap();
    }
    let body = format!(r#"{{"__type":"{code}","message":"no","Message":"no"}}"#);
    answer.header("x-amzn-errortype", code).body(body.into_bytes()).unwrap()
}

/// A map of texts in CBOR (source: RFC 8949, section 3.1: major type 5 is a map, 3 a text).
fn cbor(fields: &[(&str, &str)]) -> Vec<u8> {
    let length = |length: usize| u8::try_from(length).expect("a short text");
    let mut bytes = vec![0xa0 | length(fields.len())];
    for text in fields.iter().flat_map(|(name, value)| [name, value]) {
        // One byte of length follows.
        bytes.extend([0x78, length(text.len())]);
        bytes.extend(text.as_bytes());
    }
    bytes
}

/// Whether a request is a form of this version, of which each service has its own.
fn is_of_version(request: &Request<SdkBody>, version: &str) -> bool {
    let form = request.body().bytes().map(String::from_utf8_lossy);
    form.is_some_and(|form| form.contains(&format!("Version={version}")))
}

fn context(http: &SharedHttpClient) -> Context {
    let scope = Scope {
        account: "123456789012".to_owned().try_into().unwrap(),
        region: "eu-central-1".to_owned().try_into().unwrap(),
        environment: "test".parse().unwrap(),
        iam: crate::environment::Iam::default(),
        encryption: crate::environment::Encryption::with_own_key(),
    };
    let nowhere = LocalEndpoints { general: "http://127.0.0.1:9".into(), ec2: "http://127.0.0.1:9".into() };
    Context::new(Aws::local_through(&scope.region, &nowhere, http), scope, None, Arc::new(|_| ()))
}

/// Where something garbled our own resource's description, taking it for absent would make it a second time, and
/// taking it for ours would let us change what is not.
#[tokio::test(start_paused = true)]
async fn nonsense_is_never_taken_for_something_of_ours() {
    for (status, body) in [
        (200, "<html>captive portal</html>"),
        (200, "{"),
        (200, "{}"),
        (200, ""),
        (404, ""),
        (500, "<html>Internal Server Error</html>"),
        (503, ""),
    ] {
        let http = infallible_client_fn(move |_| Response::builder().status(status).body(body).unwrap());
        let cx = context(&http);
        for kind in KINDS {
            for (name, found) in kind.observe(&cx).await.unwrap_or_default() {
                let ours = found.tags.as_ref().is_some_and(|tags| cx.scope.owns(tags));
                assert!(!ours, "{status} {body:?}: {} {name} is taken for ours", kind.name());
            }
        }
    }
}

/// A caller without a right has to learn which one, and nothing may be taken for absent meanwhile.
#[tokio::test(start_paused = true)]
async fn a_denied_look_names_the_right_that_is_missing() {
    let http = infallible_client_fn(|request| {
        // SNS's refusals have codes of their own.
        let code = if is_of_version(&request, "2010-03-31") {
            "AuthorizationError"
        } else if request.headers().contains_key("x-amz-target") || request.uri().path() != "/" {
            "AccessDeniedException"
        } else {
            "AccessDenied"
        };
        refusal(&request, 403, code)
    });
    let cx = context(&http);
    for kind in KINDS {
        let Err(error) = kind.observe(&cx).await else { panic!("{} saw nothing wrong", kind.name()) };
        assert_eq!(error.class, ErrorClass::AccessDenied, "{}: {error}", kind.name());
        let action = error.call.split_once(':').map(|(_, action)| action).unwrap_or_default();
        assert!(error.to_string().starts_with(error.call) && !action.is_empty(), "{}: {error}", kind.name());
        assert!(error.hint().is_some());
    }
}

/// A busy minute of AWS's must not fail a deploy.
#[tokio::test(start_paused = true)]
async fn a_throttled_look_is_tried_again() {
    for kind in KINDS {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = calls.clone();
        let http = infallible_client_fn(move |request| {
            counted.fetch_add(1, Ordering::Relaxed);
            refusal(&request, 400, "ThrottlingException")
        });
        let Err(error) = kind.observe(&context(&http)).await else {
            panic!("{} saw nothing wrong", kind.name())
        };
        assert_eq!(error.code, "ThrottlingException", "{}: {error}", kind.name());
        assert!(
            calls.load(Ordering::Relaxed) >= 5,
            "{}: {} calls",
            kind.name(),
            calls.load(Ordering::Relaxed)
        );
    }
}

/// "It is not there" is the one refusal that is an answer.
#[tokio::test(start_paused = true)]
async fn what_does_not_exist_is_not_found() {
    let http = infallible_client_fn(|request| {
        let code = match request.headers().get("x-amz-target").and_then(|target| target.to_str().ok()) {
            Some(target) if target.starts_with("AmazonSQS") => "AWS.SimpleQueueService.NonExistentQueue",
            _ if request.headers().contains_key("x-amz-target") || request.uri().path() != "/" => {
                "ResourceNotFoundException"
            }
            _ => "NoSuchEntity",
        };
        refusal(&request, 400, code)
    });
    let mut cx = context(&http);
    // Keys are only listed as well.
    cx.scope.encryption = crate::environment::Encryption::default();
    // Log groups and alarms are listed, and an empty list is how CloudWatch says that there is none.
    for kind in KINDS.iter().filter(|kind| ![LogGroup::NAME, Alarm::NAME].contains(&kind.name())) {
        let found = kind.observe(&cx).await.unwrap_or_else(|error| panic!("{}: {error}", kind.name()));
        assert!(found.is_empty(), "{}", kind.name());
    }
}
