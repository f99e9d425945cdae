//! The HTTP endpoint of `metrics.listener`: `/metrics` for Prometheus, `/health` (the process is alive), `/ready` (it
//! serves: registered, its listeners accept, every log directory is online).
//!
//! It answers one request per connection and closes. What it takes of the broker is bounded: connections, bytes of a
//! request's head, and time, so that whoever scrapes badly harms only himself. It is there from the first moment of a
//! start, which may take long, until the broker stops. Never: a change of anything, an answer to another method.

use std::{sync::Arc, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use gracchus_env::{Connection, Env, Listener, Piece, Task, spawn};
use tokio::sync::{Semaphore, oneshot, watch};

use super::{families::Families, recent, scrape};
use crate::{host::Host, metrics::Sources};

/// Connections at the same time; more wait in the kernel's queue.
const CONNECTIONS: usize = 16;
/// And these besides, which only say whether the broker lives and serves: who supervises it must not take a crowd of
/// scrapers that say nothing for a broker that is dead.
const RESERVED: usize = 2;
/// Such a connection has so long for its request.
const HURRY: Duration = Duration::from_secs(1);
/// Bytes of a request's head.
const HEAD: usize = 8 << 10;
/// Header lines of it.
const HEADERS: usize = 64;
/// A client has so long for its request, and so long for taking the answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause after a failed accept.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// What it can tell about the broker.
#[derive(Debug, Clone, Default)]
pub(crate) enum Phase {
    /// It starts, which may take as long as a recovery.
    #[default]
    Starting,
    /// It serves.
    Serving(Arc<Sources>),
    /// It answers what it has begun.
    Stopping,
}

/// The running endpoint; ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Endpoint {
    phase: watch::Sender<Phase>,
    tasks: [Task; 2],
}

impl Endpoint {
    /// Answers on `listener` from now on.
    pub(crate) fn start(env: &Arc<dyn Env>, listener: Box<dyn Listener>, host: Host) -> Self {
        let (phase, current) = watch::channel(Phase::default());
        let answering = Answering { env: env.clone(), host, phase: current.clone() };
        let tasks = [
            spawn(&**env, "metrics-listener", accept(answering, listener)).detach(),
            spawn(&**env, "metrics-samples", sample(env.clone(), current)).detach(),
        ];
        Self { phase, tasks }
    }

    /// The broker is in another phase.
    pub(crate) fn is(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.tasks.iter().for_each(Task::abort);
    }
}

#[derive(Debug, Clone)]
struct Answering {
    env: Arc<dyn Env>,
    host: Host,
    phase: watch::Receiver<Phase>,
}

/// While it serves, notes now and then how far everything is.
async fn sample(env: Arc<dyn Env>, mut phase: watch::Receiver<Phase>) {
    loop {
        match phase.wait_for(|phase| matches!(phase, Phase::Serving(_))).await.as_deref() {
            Ok(Phase::Serving(sources)) => sources.sample(),
            _ => return,
        }
        env.sleep(recent::INTERVAL).await;
    }
}

async fn accept(answering: Answering, mut listener: Box<dyn Listener>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let reserved = Arc::new(Semaphore::new(RESERVED));
    loop {
        let (mut place, mut hurried) = tokio::select! {
            biased;
            place = places.clone().acquire_owned() => (place.expect("never closed"), false),
            place = reserved.clone().acquire_owned() => (place.expect("never closed"), true),
        };
        let connection = match listener.accept().await {
            Ok(connection) => connection,
            Err(error) => {
                tracing::debug!(%error, "the metrics listener cannot accept");
                answering.env.sleep(ACCEPT_BACKOFF).await;
                continue;
            }
        };
        if hurried && let Ok(free) = places.clone().try_acquire_owned() {
            (place, hurried) = (free, false);
        }
        let served = answering.clone();
        spawn(&*answering.env, "metrics-connection", async move {
            served.serve(connection, hurried).await;
            drop(place);
        });
    }
}

/// A request's line, as far as it matters.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Get(String),
    /// The same without the body.
    Head(String),
    OtherMethod,
    TooLong,
    Malformed,
    /// Nobody asks any more.
    Gone,
}

impl Answering {
    async fn serve(&self, mut connection: Connection, hurried: bool) {
        let patience = if hurried { HURRY } else { PATIENCE };
        let asked = self.env.timeout(patience, read_head(&mut connection)).await;
        let (response, with_body) = match asked {
            None | Some(Asked::Gone) => return,
            Some(Asked::Get(path)) => (self.answer(&path, hurried).await, true),
            Some(Asked::Head(path)) => (self.answer(&path, hurried).await, false),
            Some(Asked::OtherMethod) => (Response::refused(405, "Method Not Allowed"), true),
            Some(Asked::TooLong) => (Response::refused(431, "Request Header Fields Too Large"), true),
            Some(Asked::Malformed) => (Response::refused(400, "Bad Request"), true),
        };
        let pieces = response.pieces(with_body);
        let sent = async {
            connection.writer.write(pieces).await?;
            connection.writer.shutdown().await?;
            // Until the client has closed, so that what it sent beyond its request does not reset the answer.
            let mut rest = BytesMut::with_capacity(512);
            while connection.reader.read(&mut rest, 512).await? > 0 {
                rest.clear();
            }
            Ok::<_, std::io::Error>(())
        };
        let _ = self.env.timeout(patience, sent).await;
    }

    async fn answer(&self, path: &str, hurried: bool) -> Response {
        let phase = self.phase.borrow().clone();
        match (path.split('?').next().unwrap_or_default(), phase) {
            ("/metrics", _) if hurried => {
                Response::text(503, "Service Unavailable", "too many connections\n".to_owned())
            }
            ("/health", _) => Response::text(200, "OK", "alive\n".to_owned()),
            ("/ready", Phase::Serving(sources)) => match &sources.troubles()[..] {
                [] => Response::text(200, "OK", "ready\n".to_owned()),
                troubles => Response::text(503, "Service Unavailable", troubles.join("\n") + "\n"),
            },
            ("/ready", Phase::Starting) => {
                Response::text(503, "Service Unavailable", "the broker is starting\n".to_owned())
            }
            ("/ready", Phase::Stopping) => {
                Response::text(503, "Service Unavailable", "the broker is stopping\n".to_owned())
            }
            ("/metrics", Phase::Serving(sources)) => Response::metrics(self.gather(sources).await),
            ("/metrics", phase) => {
                let mut families = Families::default();
                scrape::process(&self.host, &mut families);
                let starts = matches!(phase, Phase::Starting);
                scrape::state(&mut families, if starts { scrape::STARTING } else { scrape::STOPPING });
                Response::metrics(families.text())
            }
            _ => Response::text(404, "Not Found", "here are /metrics, /health and /ready\n".to_owned()),
        }
    }
}

impl Answering {
    /// Of ten thousand partitions the metrics take a tenth of a second: nobody's request waits behind that.
    async fn gather(&self, sources: Arc<Sources>) -> String {
        let (sender, text) = oneshot::channel();
        self.env.compute(Box::new(move || _ = sender.send(sources.text()))).await;
        text.await.unwrap_or_default()
    }
}

async fn read_head(connection: &mut Connection) -> Asked {
    let mut head = BytesMut::with_capacity(1024);
    loop {
        let left = HEAD - head.len();
        if left == 0 {
            return Asked::TooLong;
        }
        match connection.reader.read(&mut head, left).await {
            Ok(1..) => {}
            _ => return Asked::Gone,
        }
        if let Some(asked) = parse(&head) {
            return asked;
        }
    }
}

/// `None` while the head is not complete.
fn parse(head: &[u8]) -> Option<Asked> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Partial) => None,
        Ok(httparse::Status::Complete(_)) => {
            let path = request.path.unwrap_or_default().to_owned();
            Some(match request.method {
                Some("GET") => Asked::Get(path),
                Some("HEAD") => Asked::Head(path),
                _ => Asked::OtherMethod,
            })
        }
        Err(httparse::Error::TooManyHeaders) => Some(Asked::TooLong),
        Err(_) => Some(Asked::Malformed),
    }
}

#[derive(Debug)]
struct Response {
    code: u16,
    reason: &'static str,
    content_type: &'static str,
    body: String,
}

impl Response {
    fn text(code: u16, reason: &'static str, body: String) -> Self {
        Self { code, reason, content_type: "text/plain; charset=utf-8", body }
    }

    fn refused(code: u16, reason: &'static str) -> Self {
        Self::text(code, reason, format!("{reason}\n"))
    }

    fn metrics(body: String) -> Self {
        let content_type = "text/plain; version=0.0.4; charset=utf-8";
        Self { code: 200, reason: "OK", content_type, body }
    }

    fn pieces(self, with_body: bool) -> Vec<Piece> {
        let Self { code, reason, content_type, body } = self;
        let allow = if code == 405 { "Allow: GET, HEAD\r\n" } else { "" };
        let mut head = BytesMut::with_capacity(200);
        head.put_slice(
            format!(
                "HTTP/1.1 {code} {reason}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n{allow}\
                 Cache-Control: no-store\r\nConnection: close\r\n\r\n",
                body.len()
            )
            .as_bytes(),
        );
        let mut pieces = vec![Piece::Bytes(head.freeze())];
        if with_body {
            pieces.push(Piece::Bytes(Bytes::from(body)));
        }
        pieces
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn silent_connections_do_not_keep_out_who_asks_for_the_health() {
        use gracchus_env::production::{IoThreads, TokioEnv};
        let env: Arc<dyn Env> =
            TokioEnv::new(tokio::runtime::Handle::current(), IoThreads { submissions: 1, reads: 1 });
        let listener = env.listen("127.0.0.1:0").await.unwrap();
        let address = listener.local_address().to_string();
        let _endpoint = Endpoint::start(&env, listener, Host::default());
        let deadline = env.now() + Duration::from_secs(8);
        let mut silent = Vec::new();
        for _ in 0..CONNECTIONS {
            silent.push(env.connect(&address, deadline).await.unwrap());
        }
        for (path, code) in [("/health", "200"), ("/ready", "503"), ("/metrics", "503")] {
            let mut asker = env.connect(&address, deadline).await.unwrap();
            let request = Bytes::from(format!("GET {path} HTTP/1.1\r\nHost: here\r\n\r\n"));
            asker.writer.write(vec![Piece::Bytes(request)]).await.unwrap();
            let mut answer = BytesMut::with_capacity(1024);
            asker.reader.read(&mut answer, 1024).await.unwrap();
            let answer = String::from_utf8_lossy(&answer);
            assert!(answer.starts_with(&format!("HTTP/1.1 {code}")), "{path}: {answer}");
        }
        assert!(env.now() < deadline, "before any of the silent ones was cut off");
        drop(silent);
    }

    #[test]
    fn heads_are_read_whole_and_within_bounds() {
        let whole = b"GET /metrics?x=1 HTTP/1.1\r\nHost: here\r\nAccept: text/plain\r\n\r\n";
        assert_eq!(parse(whole), Some(Asked::Get("/metrics?x=1".to_owned())));
        for end in 0..whole.len() {
            assert_eq!(parse(&whole[..end]), None, "{end}");
        }
        assert_eq!(parse(b"HEAD /ready HTTP/1.0\r\n\r\n"), Some(Asked::Head("/ready".to_owned())));
        assert_eq!(parse(b"POST /metrics HTTP/1.1\r\n\r\n"), Some(Asked::OtherMethod));
        assert_eq!(parse(b"\x00\x00\x00\x10\x00\x12\x00\x04"), Some(Asked::Malformed));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(HEADERS + 1));
        assert_eq!(parse(many.as_bytes()), Some(Asked::TooLong));
    }
}
