//! Answers that services give in place of a result, each in the service's own format.
//!
//! Formats and codes are those of Smithy's specifications of the AWS protocols and of the services' API references
//! ("Common errors"). `tests/faults/formats.rs` holds them against `microburst`, which takes them from botocore.

use std::collections::BTreeMap;

use hyper::body::Bytes;
use hyper::header::HeaderValue;
use hyper::{Response, StatusCode};
use serde_json::json;

use crate::call::{Call, Protocol};

/// What a service can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Throttled,
    InternalError,
    Unavailable,
    ExpiredToken,
    Denied,
}

/// The refusal of a call.
pub(crate) fn refusal(call: &Call, refusal: Refusal) -> Response<Bytes> {
    let service = call.action.split(':').next().unwrap_or_default();
    let (status, code) = status_and_code(service, call.protocol, refusal);
    let message = match refusal {
        Refusal::Throttled => "Rate exceeded",
        Refusal::InternalError => "An internal error has occurred",
        Refusal::Unavailable => "The service is unavailable. Please try again shortly.",
        Refusal::ExpiredToken => "The security token included in the request is expired",
        Refusal::Denied => "You are not authorized to perform this operation.",
    };
    let sender = if status < 500 { "Sender" } else { "Receiver" };
    let (content, body) = match call.protocol {
        Protocol::AwsJson => (
            "application/x-amz-json-1.1",
            Bytes::from(json!({ "__type": code, "message": message }).to_string()),
        ),
        Protocol::RestJson => ("application/json", Bytes::from(json!({ "message": message }).to_string())),
        Protocol::RpcCbor => ("application/cbor", cbor(&[("__type", code), ("message", message)])),
        Protocol::Query => (
            "text/xml",
            Bytes::from(format!(
                "<ErrorResponse><Error><Type>{sender}</Type><Code>{code}</Code><Message>{message}</Message></Error>\
                 <RequestId>{REQUEST}</RequestId></ErrorResponse>"
            )),
        ),
        Protocol::Ec2Query => (
            "text/xml;charset=UTF-8",
            Bytes::from(format!(
                "<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors>\
                 <RequestID>{REQUEST}</RequestID></Response>"
            )),
        ),
    };
    let mut answer = Response::new(body);
    *answer.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
    let mut header = |name: &'static str, value: &'static str| {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    };
    header("content-type", content);
    header("x-amzn-requestid", REQUEST);
    match call.protocol {
        Protocol::RestJson => header("x-amzn-errortype", code),
        Protocol::RpcCbor => header("smithy-protocol", "rpc-v2-cbor"),
        Protocol::AwsJson | Protocol::Query | Protocol::Ec2Query => {}
    }
    answer
}

/// That a call has been accepted; for actions whose answer says no more.
pub(crate) fn accepted(call: &Call) -> Response<Bytes> {
    let operation = call.action.rsplit(':').next().unwrap_or_default();
    let (content, body) = match call.protocol {
        Protocol::Query | Protocol::Ec2Query => (
            "text/xml;charset=UTF-8",
            Bytes::from(format!(
                "<{operation}Response><requestId>{REQUEST}</requestId><return>true</return></{operation}Response>"
            )),
        ),
        Protocol::RpcCbor => ("application/cbor", cbor(&[])),
        Protocol::AwsJson | Protocol::RestJson => ("application/json", Bytes::from_static(b"{}")),
    };
    let mut answer = Response::new(body);
    answer.headers_mut().insert("content-type", HeaderValue::from_static(content));
    if call.protocol == Protocol::RpcCbor {
        answer.headers_mut().insert("smithy-protocol", HeaderValue::from_static("rpc-v2-cbor"));
    }
    answer
}

/// What an invented request is called, so that a log tells it from a real one.
const REQUEST: &str = "00000000-0000-0000-0000-faultedbyproxy";

fn status_and_code(service: &str, protocol: Protocol, refusal: Refusal) -> (u16, &'static str) {
    match refusal {
        Refusal::Throttled => match service {
            "ec2" => (503, "RequestLimitExceeded"),
            "lambda" => (429, "TooManyRequestsException"),
            "scheduler" => (429, "ThrottlingException"),
            "sqs" => (400, "RequestThrottled"),
            _ if protocol == Protocol::Query => (400, "Throttling"),
            _ => (400, "ThrottlingException"),
        },
        Refusal::InternalError => match service {
            "ec2" | "sns" => (500, "InternalError"),
            "iam" => (500, "ServiceFailure"),
            "lambda" => (500, "ServiceException"),
            "scheduler" => (500, "InternalServerException"),
            "cloudwatch" => (500, "InternalServiceFault"),
            "ssm" => (500, "InternalServerError"),
            _ => (500, "InternalFailure"),
        },
        Refusal::Unavailable => match service {
            "ec2" => (503, "Unavailable"),
            "logs" => (503, "ServiceUnavailableException"),
            _ => (503, "ServiceUnavailable"),
        },
        Refusal::ExpiredToken => match (service, protocol) {
            ("ec2", _) => (400, "RequestExpired"),
            (_, Protocol::Query) => (403, "ExpiredToken"),
            (_, Protocol::RestJson) => (403, "ExpiredTokenException"),
            _ => (400, "ExpiredTokenException"),
        },
        Refusal::Denied => match (service, protocol) {
            ("ec2", _) => (403, "UnauthorizedOperation"),
            (_, Protocol::Query) => (403, "AccessDenied"),
            (_, Protocol::RestJson) => (403, "AccessDeniedException"),
            _ => (400, "AccessDeniedException"),
        },
    }
}

/// A map of texts in CBOR, which is all that an error takes.
fn cbor(fields: &[(&str, &str)]) -> Bytes {
    let fields: BTreeMap<&str, &str> = fields.iter().copied().collect();
    let mut bytes = Vec::new();
    // Writing to memory does not fail; an empty body would be noticed.
    drop(ciborium::into_writer(&fields, &mut bytes));
    Bytes::from(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_in_cbor_are_maps_of_texts() {
        assert_eq!(cbor(&[("a", "bc")]).as_ref(), b"\xa1\x61a\x62bc");
    }
}
