//! Reads that lag behind: what the same read was answered before.

use std::collections::BTreeMap;

use hyper::StatusCode;
use hyper::body::Bytes;
use hyper::http::HeaderMap;

use crate::Call;

/// The last answers to reads, by what they asked.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    answers: BTreeMap<String, Remembered>,
}

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Remembered {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Memory {
    /// What the same read was answered the last time.
    pub(crate) fn recall(&self, call: &Call, body: &[u8]) -> Option<Remembered> {
        self.answers.get(&key(call, body)?).cloned()
    }

    /// Keeps an answer to a read.
    pub(crate) fn remember(&mut self, call: &Call, body: &[u8], answer: Remembered) {
        if let Some(key) = key(call, body) {
            self.answers.insert(key, answer);
        }
    }
}

/// What a read asks; nothing for a call that changes something. CBOR is not in the parameters, so the body counts.
fn key(call: &Call, body: &[u8]) -> Option<String> {
    let body = String::from_utf8_lossy(body);
    (!call.mutating).then(|| format!("{} {} {body}", call.action, call.parameters))
}
