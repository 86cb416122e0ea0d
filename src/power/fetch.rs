//! Fetches the owner's number over plain HTTP, apart from the readings, so that none of them waits for a network.
//!
//! One GET on a connection of its own; no redirect is followed, for where it leads the owner did not say; nothing of the
//! answer counts but its status and its body.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::{
    Request, StatusCode, Uri,
    body::Bytes,
    client::conn::http1,
    header::{ACCEPT, HOST},
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

use super::{
    green::{Arrived, number},
    root::NONSENSE,
};

/// For the whole of a fetch: name, connection, answer.
const FETCH_WAIT: Duration = Duration::from_secs(2);
/// Bytes of an answer's body.
const BODY_BYTES_MAX: usize = 4096;
/// Bytes of an answer's head; hyper takes no less.
const HEAD_BYTES_MAX: usize = 8192;
/// The shortest and longest wait between two fetches.
const EVERY_MIN: Duration = Duration::from_secs(5);
const EVERY_MAX: Duration = Duration::from_secs(3600);

/// Why a fetch brought nothing.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Nobody answered in time.
    #[error("no answer in {} s", FETCH_WAIT.as_secs())]
    Silent,
    /// The connection.
    #[error("cannot connect")]
    Connect(#[source] std::io::Error),
    /// The exchange.
    #[error("the answer broke off or is no HTTP")]
    Http(#[source] hyper::Error),
    /// Not 200.
    #[error("the answer is {0}")]
    Status(StatusCode),
    /// No number, or more than one.
    #[error("the answer is not one decimal number")]
    NoNumber,
}

/// An `http://` URL without a password in it.
#[derive(Clone, Debug)]
pub(super) struct GreenUrl {
    host: String,
    port: u16,
    authority: String,
    path: String,
}

impl fmt::Display for GreenUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.path)
    }
}

impl GreenUrl {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let uri: Uri = text.parse().ok()?;
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'))?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let port = authority.port_u16().unwrap_or(80);
        (!host.is_empty()).then(|| Self { host, port, authority: authority.as_str().to_owned(), path })
    }
}

/// Brings the number to the sensor; `node` calls it now and then.
#[derive(Clone, Debug)]
pub struct GreenFetch {
    url: GreenUrl,
    every: Duration,
    arrived: Arc<Mutex<Arrived>>,
}

impl GreenFetch {
    pub(super) fn new(url: GreenUrl, age_max: Duration, arrived: Arc<Mutex<Arrived>>) -> Self {
        Self { url, every: (age_max / 2).clamp(EVERY_MIN, EVERY_MAX), arrived }
    }

    /// How long to wait after a fetch: one may fail before the number is too old.
    pub fn every(&self) -> Duration {
        self.every
    }

    /// Fetches once, in at most 2 s, and leaves the number for the next reading; `monotonic` is the clock of
    /// [`super::Moment`]. Where nothing came, the last number stands until it is too old. Cancel safe.
    ///
    /// # Errors
    /// [`FetchError`], for the log: the reading says on its own what is the matter.
    pub async fn fetch(&self, monotonic: impl Fn() -> Duration) -> Result<i64, FetchError> {
        let found = timeout(FETCH_WAIT, self.get()).await.map_err(|_| FetchError::Silent).flatten();
        let said = match &found {
            Ok(milli) => Ok(*milli),
            Err(FetchError::NoNumber) => Err(NONSENSE),
            Err(_) => return found,
        };
        let mut arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        arrived.last = Some((monotonic(), said));
        found
    }

    async fn get(&self) -> Result<i64, FetchError> {
        let stream =
            TcpStream::connect((self.url.host.as_str(), self.url.port)).await.map_err(FetchError::Connect)?;
        let mut client = http1::Builder::new();
        client.max_buf_size(HEAD_BYTES_MAX);
        let (mut sender, connection) =
            client.handshake(TokioIo::new(stream)).await.map_err(FetchError::Http)?;
        let request = Request::get(&self.url.path)
            .header(HOST, &self.url.authority)
            .header(ACCEPT, "application/json, text/plain")
            .body(Empty::<Bytes>::new());
        // The path and host were checked when the URL was parsed.
        let request = request.map_err(|_| FetchError::NoNumber)?;
        let exchange = async {
            let answer = sender.send_request(request).await.map_err(FetchError::Http)?;
            if answer.status() != StatusCode::OK {
                return Err(FetchError::Status(answer.status()));
            }
            let body = Limited::new(answer.into_body(), BODY_BYTES_MAX).collect().await;
            let body = body.map_err(|_| FetchError::NoNumber)?.to_bytes();
            number(&body, BODY_BYTES_MAX).map_err(|_| FetchError::NoNumber)
        };
        // The connection is driven here and ends with the exchange: no task outlives a fetch.
        tokio::pin!(exchange);
        tokio::select! {
            done = &mut exchange => done,
            ended = connection => match ended {
                Ok(()) => exchange.await,
                Err(error) => Err(FetchError::Http(error)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpListener,
        thread,
    };

    use super::*;
    use crate::{
        power::{
            Moment,
            green::{Green, GreenSource},
        },
        proto::budget::{Fault, Sensed},
    };

    const HOUR: Duration = Duration::from_secs(3600);

    /// Answers one connection with `answer` and holds it open; silent where there is none.
    fn server(answer: Option<String>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/now?unit=w", listener.local_addr().unwrap());
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = [0; 512];
            let read = stream.read(&mut asked).unwrap();
            assert!(asked[..read].starts_with(b"GET /now?unit=w HTTP/1.1\r\nhost: 127.0.0.1:"));
            if let Some(answer) = &answer {
                // Whoever has heard enough may hang up.
                let _ = stream.write_all(answer.as_bytes());
            }
            let _ = stream.read(&mut asked);
        });
        url
    }

    async fn fetched(answer: Option<String>) -> (Green, Result<i64, FetchError>) {
        let url = server(answer);
        let green = Green::new(Some(GreenSource::parse(&url, HOUR).unwrap()));
        let fetch = green.fetch().unwrap();
        assert_eq!(fetch.every(), HOUR / 2);
        let found = fetch.fetch(|| Duration::from_secs(100)).await;
        (green, found)
    }

    fn ok(body: &str) -> Option<String> {
        Some(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()))
    }

    #[tokio::test]
    async fn a_number_arrives_and_ages() {
        let (mut green, found) = fetched(ok("0.25\n")).await;
        assert_eq!(found.unwrap(), 250);
        assert_eq!(green.read(&Moment::at_ms(101_000)), Sensed::Is(250));
        assert_eq!(green.read(&Moment::at_ms(3_700_000)), Sensed::Is(250));
        assert_eq!(green.read(&Moment::at_ms(3_701_000)), Sensed::Broken(Fault::Stale));
        let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n-4\r\n1\r\n2\r\n0\r\n\r\n";
        assert_eq!(fetched(Some(chunked.into())).await.1.unwrap(), -42_000);
    }

    #[tokio::test]
    async fn what_is_no_number_is_nonsense() {
        for body in ["", "{\"watts\":3}", "<html>", &"1".repeat(5000)] {
            let (mut green, found) = fetched(ok(body)).await;
            assert!(matches!(found, Err(FetchError::NoNumber)), "{found:?}");
            assert_eq!(green.read(&Moment::at_ms(101_000)), Sensed::Broken(Fault::Nonsense));
        }
    }

    #[tokio::test]
    async fn what_brings_nothing_leaves_what_was() {
        let redirect = "HTTP/1.1 302 Found\r\nlocation: http://elsewhere/\r\ncontent-length: 1\r\n\r\n7";
        let endless = format!("HTTP/1.1 200 OK\r\nx: {}\r\n", "a".repeat(100_000));
        for answer in [redirect, "no http at all\r\n\r\n", &endless] {
            let (mut green, found) = fetched(Some(answer.into())).await;
            assert!(matches!(found, Err(FetchError::Status(_) | FetchError::Http(_))), "{found:?}");
            assert_eq!(green.read(&Moment::at_ms(101_000)), Sensed::Broken(Fault::Stale));
        }
    }

    #[tokio::test]
    async fn silence_ends_after_two_seconds() {
        let url = server(None);
        let mut green = Green::new(Some(GreenSource::parse(&url, HOUR).unwrap()));
        assert_eq!(green.read(&Moment::at_ms(0)), Sensed::Broken(Fault::Stale), "read does not wait for it");
        let begun = std::time::Instant::now();
        let found = green.fetch().unwrap().fetch(Duration::default).await;
        assert!(matches!(found, Err(FetchError::Silent)), "{found:?}");
        assert!(begun.elapsed() < Duration::from_secs(3));
        assert!(Green::new(Some(GreenSource::parse("/a", HOUR).unwrap())).fetch().is_none());
    }
}
