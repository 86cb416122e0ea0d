//! The asking end of the control socket, for commands: they have no runtime of their own, so every call blocks.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use axum::{
    body::Bytes,
    http::{Method, Request, StatusCode, header},
};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{net::UnixStream, runtime::Runtime, time::timeout};

use super::{
    SocketError, SocketPlace,
    call::{self, Answer, Call},
    rights,
    view::Problem,
};

/// Longest wait for an answer: a sweep of a large store on an SD card takes long.
const ANSWER_WAIT: std::time::Duration = std::time::Duration::from_secs(300);
/// Bytes of an answer.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// Somebody else listens in the node's place.
    #[error("another user listens on the control socket {}", path.display())]
    Stranger {
        /// Where.
        path: PathBuf,
    },
    /// The system refused a runtime.
    #[error("cannot talk to the running node")]
    Runtime(#[source] std::io::Error),
    /// The node went away, or does not answer.
    #[error("the running node is gone")]
    Gone(#[source] Option<hyper::Error>),
    /// It does not answer.
    #[error("the running node does not answer")]
    Silent,
    /// What it says is no answer.
    #[error("the running node's answer does not open: {0}")]
    Malformed(String),
    /// It refused, for a reason.
    #[error("{0}")]
    Refused(String),
    /// It refused because the question was wrong.
    #[error("{0}")]
    Usage(String),
}

/// A connection to a running node.
pub struct Client {
    runtime: Runtime,
    sender: SendRequest<Full<Bytes>>,
    place: SocketPlace,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("place", &self.place).finish_non_exhaustive()
    }
}

impl Client {
    /// Connects; `None` where no node listens.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn connect(place: &SocketPlace) -> Result<Option<Self>, ClientError> {
        let Some(stream) = place.connect()? else { return Ok(None) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(ClientError::Runtime)?;
        let is_shared = place.is_shared();
        let sender = runtime.block_on(async {
            stream.set_nonblocking(true).map_err(ClientError::Runtime)?;
            let stream = UnixStream::from_std(stream).map_err(ClientError::Runtime)?;
            // Texts are private: they go to this user's node, or root's, or to that in the system's own directory.
            let listener = stream.peer_cred().map_err(ClientError::Runtime)?.uid();
            if !is_shared && listener != 0 && listener != rights::own_user() {
                return Err(ClientError::Stranger { path: place.path().to_owned() });
            }
            let handshake = http1::handshake(TokioIo::new(stream)).await;
            let (sender, connection) = handshake.map_err(|error| ClientError::Gone(Some(error)))?;
            // It runs while a call blocks, which is when it has to.
            tokio::spawn(connection);
            Ok::<_, ClientError>(sender)
        })?;
        Ok(Some(Self { runtime, sender, place: place.clone() }))
    }

    /// Another connection to the same node.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn another(&self) -> Result<Self, ClientError> {
        Self::connect(&self.place)?.ok_or(ClientError::Gone(None))
    }

    /// Whether the node has closed this connection.
    pub fn is_gone(&self) -> bool {
        // The connection's task sees it when it runs.
        self.runtime.block_on(tokio::task::yield_now());
        self.sender.is_closed()
    }

    /// Where the node listens.
    pub fn path(&self) -> &Path {
        self.place.path()
    }

    /// Asks for a page.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn get<T: DeserializeOwned>(&mut self, page: &str) -> Result<T, ClientError> {
        let body = self.request(Method::GET, page, Vec::new(), "application/json")?;
        serde_json::from_slice(&body).map_err(|error| ClientError::Malformed(error.to_string()))
    }

    /// Has something done.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn post<Q: Serialize, A: DeserializeOwned>(
        &mut self,
        page: &str,
        question: &Q,
    ) -> Result<A, ClientError> {
        let malformed = |error: serde_json::Error| ClientError::Malformed(error.to_string());
        let body = serde_json::to_vec(question).map_err(malformed)?;
        let body = self.request(Method::POST, page, body, "application/json")?;
        serde_json::from_slice(&body).map_err(malformed)
    }

    /// Asks what a run asks.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn call(&mut self, question: &Call) -> Result<Answer, ClientError> {
        let malformed = |error: postcard::Error| ClientError::Malformed(error.to_string());
        let body = postcard::to_allocvec(question).map_err(malformed)?;
        let body = self.request(Method::POST, "/v1/call", body, "application/octet-stream")?;
        postcard::from_bytes(&body).map_err(malformed)
    }

    fn request(
        &mut self,
        method: Method,
        page: &str,
        body: Vec<u8>,
        content: &str,
    ) -> Result<Bytes, ClientError> {
        let request = Request::builder()
            .method(method)
            .uri(page)
            .header(header::HOST, "edge")
            .header(header::CONTENT_TYPE, content)
            .header(call::HEADER, call::VERSION)
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| ClientError::Malformed(error.to_string()))?;
        let sender = &mut self.sender;
        let answered = async {
            let gone = |error| ClientError::Gone(Some(error));
            sender.ready().await.map_err(gone)?;
            let response = sender.send_request(request).await.map_err(gone)?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|error| ClientError::Malformed(error.to_string()))?;
            Ok::<_, ClientError>((status, body.to_bytes()))
        };
        let answered = self.runtime.block_on(async { timeout(ANSWER_WAIT, answered).await });
        let (status, body) = answered.map_err(|_| ClientError::Silent)??;
        if status == StatusCode::OK {
            return Ok(body);
        }
        Err(match serde_json::from_slice::<Problem>(&body) {
            Ok(Problem { error, usage: true }) => ClientError::Usage(error),
            Ok(Problem { error, usage: false }) => ClientError::Refused(error),
            // What axum itself refuses is plain text.
            Err(_) => ClientError::Refused(format!("{status}: {}", String::from_utf8_lossy(&body))),
        })
    }
}
