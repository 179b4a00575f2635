//! Passing calls on.

use std::convert::Infallible;
use std::fmt::Display;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::http::request::Parts;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::net::sockopt::set_socket_linger;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::answer::{self, Refusal};
use crate::rule::Effect;
use crate::stale::Remembered;
use crate::state::{CONTROL, Fate, Shared};
use crate::{Call, Scenario};

/// The connection is cut instead of an answer, or in the middle of it.
#[derive(Debug, thiserror::Error)]
#[error("the proxy cuts the connection")]
struct Cut;

/// An answer's body, whole or not.
struct Answer {
    bytes: Option<Bytes>,
    is_cut: bool,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        match self.bytes.take() {
            Some(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            None if self.is_cut => Poll::Ready(Some(Err(Cut))),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none() && !self.is_cut
    }

    fn size_hint(&self) -> SizeHint {
        match &self.bytes {
            Some(bytes) if !self.is_cut => SizeHint::with_exact(bytes.len() as u64),
            None if !self.is_cut => SizeHint::with_exact(0),
            // Of a cut one the header says how long it would have been.
            _ => SizeHint::default(),
        }
    }
}

type Upstream = Client<HttpConnector, Full<Bytes>>;

/// Serves both fronts until the sender is dropped.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    fronts: [TcpListener; 2],
    stopped: oneshot::Receiver<Infallible>,
) {
    // Every call has a connection of its own: one that the emulator closes while it is idle would look like a lost
    // answer.
    let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http();
    for (front, listener) in fronts.into_iter().enumerate() {
        match tokio::net::TcpListener::from_std(listener) {
            Ok(listener) => drop(tokio::spawn(accept(listener, front, client.clone(), Arc::clone(&shared)))),
            // Whoever calls is refused, which says as much.
            Err(_) => return,
        }
    }
    // The sender is dropped, never used.
    drop(stopped.await);
}

/// One side of the proxy, as its calls are handled.
#[derive(Clone)]
struct Front {
    index: usize,
    client: Upstream,
    shared: Arc<Shared>,
    peer: Option<SocketAddr>,
    /// The connection's socket, for resets.
    socket: Option<Arc<OwnedFd>>,
}

async fn accept(listener: tokio::net::TcpListener, index: usize, client: Upstream, shared: Arc<Shared>) {
    loop {
        // Out of file descriptors, for example: whoever calls tries again.
        let Ok((stream, _)) = listener.accept().await else { continue };
        let (client, shared, peer) = (client.clone(), Arc::clone(&shared), stream.peer_addr().ok());
        let front = Front { index, client, shared, peer, socket: socket(&stream) };
        let service = service_fn(move |request| {
            let front = front.clone();
            async move { front.handle(request).await.ok_or(Cut) }
        });
        tokio::spawn(async move {
            // Connections end in errors as often as the rules say so.
            drop(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await,
            );
        });
    }
}

fn socket(stream: &TcpStream) -> Option<Arc<OwnedFd>> {
    // Small answers go out at once: latency is for scenarios to say.
    drop(stream.set_nodelay(true));
    stream.as_fd().try_clone_to_owned().ok().map(Arc::new)
}

impl Front {
    /// Answers a request; `None` cuts the connection.
    async fn handle(self, request: Request<Incoming>) -> Option<Response<Answer>> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.ok()?.to_bytes();
        if let Some(path) = head.uri.path().strip_prefix(CONTROL) {
            return Some(whole(self.control(&head.method, path, &body)));
        }
        let upstream = self.shared.upstreams.get()?.get(self.index)?.clone();
        let call = Call::of(&head, &body);
        let fate = self.shared.record(&call, &body);
        let number = fate.number;
        // A task of its own: what has been sent arrives, even when its sender is gone.
        tokio::spawn(async move {
            let answer = self.pass(&upstream, head, body, &call, fate).await;
            self.shared.ended(number);
            answer
        })
        .await
        .ok()
        .flatten()
    }

    async fn pass(
        &self,
        upstream: &Uri,
        head: Parts,
        body: Bytes,
        call: &Call,
        fate: Fate,
    ) -> Option<Response<Answer>> {
        if !fate.delay.is_zero() {
            tokio::time::sleep(fate.delay).await;
        }
        if fate.is_throttled {
            return Some(whole(answer::refusal(call, Refusal::Throttled)));
        }
        let refused = |refusal| Some(whole(answer::refusal(call, refusal)));
        match fate.effect {
            Some(Effect::Throttle) => return refused(Refusal::Throttled),
            Some(Effect::InternalError) => return refused(Refusal::InternalError),
            Some(Effect::Unavailable) => return refused(Refusal::Unavailable),
            Some(Effect::ExpiredToken) => return refused(Refusal::ExpiredToken),
            Some(Effect::Deny) => return refused(Refusal::Denied),
            Some(Effect::KillBefore) => {
                self.shared.kill(self.peer);
                return None;
            }
            Some(Effect::Reset) => {
                self.reset();
                return None;
            }
            Some(Effect::Stale) => return fate.recalled.map(|answer| whole(answer.into_response())),
            Some(Effect::Later(pause)) => {
                self.pass_later(upstream.clone(), head, body, pause);
                return Some(whole(answer::accepted(call)));
            }
            Some(Effect::Delay(pause)) => tokio::time::sleep(pause).await,
            Some(Effect::Interrupt) => self.shared.interrupt(self.peer).await,
            _ => {}
        }
        let answer = forward(&self.client, upstream, head, body.clone()).await?;
        self.shared.answered(fate.number, call, &body, answer.clone());
        match fate.effect {
            Some(Effect::KillAfter) => {
                self.shared.kill(self.peer);
                None
            }
            Some(Effect::LoseAnswer) => None,
            Some(Effect::Truncate) => Some(half(answer)),
            _ => Some(whole(answer.into_response())),
        }
    }

    /// Carries a call out that has been answered already.
    fn pass_later(&self, upstream: Uri, head: Parts, body: Bytes, pause: Duration) {
        let client = self.client.clone();
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            // Nobody waits for the answer.
            drop(forward(&client, &upstream, head, body).await);
        });
    }

    /// Has the connection end in a reset rather than in an orderly close.
    fn reset(&self) {
        if let Some(socket) = &self.socket {
            // Without it the connection is merely closed, which callers must survive as well.
            let _ = set_socket_linger(socket, Some(Duration::ZERO));
        }
    }

    /// The proxy's own interface, for `cargo xtask local`.
    fn control(&self, method: &Method, path: &str, body: &[u8]) -> Response<Bytes> {
        match (method, path) {
            (&Method::GET, "counts") => match serde_json::to_vec(&self.shared.state().counts()) {
                Ok(json) => Response::new(Bytes::from(json)),
                Err(error) => said(StatusCode::INTERNAL_SERVER_ERROR, &error),
            },
            (&Method::PUT, "scenario") => match String::from_utf8_lossy(body).parse::<Scenario>() {
                Ok(scenario) => {
                    let mut state = self.shared.state();
                    state.forget();
                    state.play(&scenario);
                    said(StatusCode::OK, &scenario)
                }
                Err(error) => said(StatusCode::BAD_REQUEST, &error),
            },
            _ => said(StatusCode::NOT_FOUND, &"there is only GET counts and PUT scenario"),
        }
    }
}

fn said(status: StatusCode, text: &dyn Display) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(text.to_string()));
    *response.status_mut() = status;
    response
}

fn whole(response: Response<Bytes>) -> Response<Answer> {
    response.map(|bytes| Answer { bytes: Some(bytes), is_cut: false })
}

/// An answer whose header promises all of it.
fn half(answer: Remembered) -> Response<Answer> {
    let length = answer.body.len();
    let mut response = answer.into_response();
    response.headers_mut().insert("content-length", length.into());
    response.map(|bytes| Answer { bytes: Some(bytes.slice(..length / 2)), is_cut: true })
}

impl Remembered {
    fn into_response(self) -> Response<Bytes> {
        let mut response = Response::new(self.body);
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }
}

async fn forward(client: &Upstream, upstream: &Uri, mut head: Parts, body: Bytes) -> Option<Remembered> {
    let mut target = upstream.clone().into_parts();
    target.path_and_query = head.uri.path_and_query().cloned();
    head.uri = Uri::from_parts(target).ok()?;
    let answer = client.request(Request::from_parts(head, Full::new(body))).await.ok()?;
    let (head, body) = answer.into_parts();
    let body = body.collect().await.ok()?.to_bytes();
    let mut headers = head.headers;
    // The body is in one piece now, however it came.
    headers.remove("transfer-encoding");
    Some(Remembered { status: head.status, headers, body })
}
