//! Connections that are there, one host's beside another's.
//!
//! An HTTP/1.1 connection carries one request at a time and lies among the spare ones in between; one of HTTP/2 is shared by
//! all requests to its host. Which it will be is settled by the first handshake with a host, for which the others wait.

use crate::dial::{Dialer, Dialled, Route};
use crate::error::{Error, Kind, chain, is_of_tls};
use crate::options::Options;
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use juggler_sync::guarded::Guarded;
use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::Arc;
use tokio::task::JoinHandle;
use url::Url;

/// How many bytes HTTP/2 may have under way, of one file and of all of a connection: as much as a fast and distant server needs.
const WINDOW: u32 = 4 << 20;

/// From so many hosts on, the connections of those that nobody talks to are closed.
const MANY_HOSTS: usize = 64;

/// What a request carries: nothing.
pub(crate) type NoBody = Empty<Bytes>;

/// The connections of one call.
pub(crate) struct Pool {
    dialer: Dialer,
    hosts: Guarded<HashMap<String, Arc<Host>>>,
}

/// The connections of one route.
struct Host {
    spare: Guarded<Vec<Single>>,
    shared: Guarded<Option<http2::SendRequest<NoBody>>>,
    /// Whether the host is known to speak only HTTP/1.1; held during the first handshake.
    single: tokio::sync::Mutex<bool>,
}

/// A connection of HTTP/1.1. Its driver tells in the end whether the server sent more than it had announced.
struct Single {
    sender: http1::SendRequest<NoBody>,
    driver: JoinHandle<bool>,
}

enum Link {
    Single { single: Single, used: bool },
    Shared(http2::SendRequest<NoBody>),
}

/// An answer, and the connection that its body comes over.
pub(crate) struct Answer {
    pub response: Response<Incoming>,
    single: Option<Single>,
    host: Arc<Host>,
}

impl Answer {
    /// To be called when the whole body came: keeps the connection.
    ///
    /// # Errors
    /// [`Kind::Length`] if the server sends more.
    pub async fn end(self) -> Result<(), Error> {
        let Some(mut single) = self.single else { return Ok(()) };
        drop(self.response);
        if single.sender.ready().await.is_ok() {
            self.host.spare.lock().push(single);
        } else if single.driver.await.unwrap_or(false) {
            return Err(Error::new(Kind::Length, "the server sends more bytes than its Content-Length says"));
        }
        Ok(())
    }
}

impl Pool {
    /// No connections yet.
    ///
    /// # Errors
    /// Those of [`Dialer::new`].
    pub fn new(options: &Options) -> Result<Self, Error> {
        Ok(Self { dialer: Dialer::new(options)?, hosts: Guarded::new(HashMap::new()) })
    }

    /// Sends what `request` makes for the route to `url`, over a connection that is there or a new one.
    ///
    /// # Errors
    /// Those of [`Dialer::dial`]; [`Kind::Truncated`] if the connection breaks, [`Kind::Protocol`] for what is not HTTP.
    pub async fn send(
        &self,
        url: &Url,
        request: impl Fn(&Route, bool) -> Result<Request<NoBody>, Error>,
    ) -> Result<Answer, Error> {
        let route = self.dialer.route(url)?;
        let host = self.host(&route);
        loop {
            let (sent, used, single) = match host.link(&self.dialer, &route).await? {
                Link::Single { mut single, used } => {
                    (single.sender.send_request(request(&route, false)?).await, used, Some(single))
                }
                Link::Shared(mut shared) => (shared.send_request(request(&route, true)?).await, false, None),
            };
            match sent {
                Ok(response) => return Ok(Answer { response, single, host }),
                // The server had closed the connection while it lay there.
                Err(error) if used && !error.is_parse() => {}
                Err(error) if error.is_parse() => {
                    return Err(Error::new(Kind::Protocol, format!("not an answer in HTTP: {}", chain(&error))));
                }
                Err(error) => {
                    let kind = if is_of_tls(&error) { Kind::Tls } else { Kind::Truncated };
                    return Err(Error::new(kind, format!("the connection broke before the answer: {}", chain(&error))));
                }
            }
        }
    }

    fn host(&self, route: &Route) -> Arc<Host> {
        let new = || Host {
            spare: Guarded::new(Vec::new()),
            shared: Guarded::new(None),
            single: tokio::sync::Mutex::new(!route.secure),
        };
        let mut hosts = self.hosts.lock();
        if hosts.len() >= MANY_HOSTS && !hosts.contains_key(&route.key()) {
            hosts.retain(|_, host| Arc::strong_count(host) > 1);
        }
        Arc::clone(hosts.entry(route.key()).or_insert_with(|| Arc::new(new())))
    }
}

impl Host {
    async fn link(&self, dialer: &Dialer, route: &Route) -> Result<Link, Error> {
        match self.present() {
            Some(link) => Ok(link),
            // In a box, as this is large and rare, and each file's task would have the room for it.
            None => Box::pin(self.connect(dialer, route)).await,
        }
    }

    async fn connect(&self, dialer: &Dialer, route: &Route) -> Result<Link, Error> {
        let mut is_single = self.single.lock().await;
        if *is_single {
            drop(is_single);
            return Ok(match dialer.dial(route).await? {
                Dialled::Plain(io) => single(io).await?,
                Dialled::Secure(io) => single(io).await?,
            });
        }
        // Somebody may have made it meanwhile.
        if let Some(link) = self.present() {
            return Ok(link);
        }
        match dialer.dial(route).await? {
            Dialled::Secure(io) if io.inner().get_ref().1.alpn_protocol() == Some(b"h2") => {
                let shared = shared(io).await?;
                *self.shared.lock() = Some(shared.clone());
                Ok(Link::Shared(shared))
            }
            Dialled::Secure(io) => {
                *is_single = true;
                single(io).await
            }
            Dialled::Plain(io) => single(io).await,
        }
    }

    fn present(&self) -> Option<Link> {
        let shared = self.shared.lock().as_ref().filter(|shared| !shared.is_closed()).cloned();
        if let Some(shared) = shared {
            return Some(Link::Shared(shared));
        }
        let mut spare = self.spare.lock();
        while let Some(single) = spare.pop() {
            if single.sender.is_ready() {
                return Some(Link::Single { single, used: true });
            }
        }
        None
    }
}

fn refused(error: &hyper::Error) -> Error {
    let kind = if is_of_tls(error) { Kind::Tls } else { Kind::Connect };
    Error::new(kind, format!("the handshake failed: {}", chain(error)))
}

async fn single<I>(io: I) -> Result<Link, Error>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (sender, mut connection) = http1::handshake(io).await.map_err(|error| refused(&error))?;
    let driver = tokio::spawn(async move {
        // How it ends, those who wait for an answer are told; here only what is left over counts.
        let _ = poll_fn(|context| connection.poll_without_shutdown(context)).await;
        !connection.into_parts().read_buf.is_empty()
    });
    Ok(Link::Single { single: Single { sender, driver }, used: false })
}

async fn shared<I>(io: I) -> Result<http2::SendRequest<NoBody>, Error>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW * 4)
        .handshake(io)
        .await
        .map_err(|error| refused(&error))?;
    tokio::spawn(connection);
    Ok(sender)
}
