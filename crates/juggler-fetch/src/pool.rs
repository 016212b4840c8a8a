//! Connections that are there, one host's beside another's.
//!
//! An HTTP/1.1 connection carries one request at a time and lies among the spare ones in between; one of HTTP/2 is shared by
//! all requests to its host. Which it will be is settled by the first handshake with a host, for which the others wait.

use crate::dial::{Dialer, Dialled, Route};
use crate::error::{Error, Kind, chain, is_of_tls};
use crate::http1::{Connection, NoBody, Rest, Wire};
use crate::options::Options;
use http_body_util::BodyExt;
use hyper::body::{Bytes, Frame, Incoming};
use hyper::client::conn::http2;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use juggler_sync::guarded::Guarded;
use std::collections::HashMap;
use std::sync::Arc;
use url::{Position, Url};

/// How many bytes HTTP/2 may have under way, of one file and of all of a connection: as much as a fast and distant server needs.
const WINDOW: u32 = 4 << 20;

/// From so many hosts on, the connections of those that nobody talks to are closed.
const MANY_HOSTS: usize = 64;

/// The connections of one call, by the origins that are asked for.
pub(crate) struct Pool {
    dialer: Dialer,
    hosts: Guarded<HashMap<String, Arc<Host>>>,
}

/// The connections of one route.
struct Host {
    route: Route,
    spare: Guarded<Vec<Connection>>,
    shared: Guarded<Option<http2::SendRequest<NoBody>>>,
    /// Whether the host is known to speak only HTTP/1.1; held during the first handshake.
    single: tokio::sync::Mutex<bool>,
}

enum Link {
    Single { connection: Connection, used: bool },
    Shared(http2::SendRequest<NoBody>),
}

/// An answer, whose body is still to come.
pub(crate) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    body: Incoming,
    /// That of HTTP/1.1, which nobody shares.
    connection: Option<Connection>,
    host: Arc<Host>,
}

impl Answer {
    /// The next bytes of the body; none at its end. May be dropped while it waits.
    ///
    /// # Errors
    /// That the body breaks off.
    pub async fn read(&mut self) -> hyper::Result<Option<Bytes>> {
        loop {
            let frame = match &mut self.connection {
                Some(connection) => connection.driven(self.body.frame()).await,
                None => self.body.frame().await,
            };
            // What is no data is trailers.
            match frame.transpose()?.map(Frame::into_data) {
                Some(Ok(bytes)) => return Ok(Some(bytes)),
                Some(Err(_)) => {}
                None => return Ok(None),
            }
        }
    }

    /// To be called when the whole body came: keeps the connection.
    ///
    /// # Errors
    /// [`Kind::Length`] if the server sends more.
    pub fn end(self) -> Result<(), Error> {
        let Some(mut connection) = self.connection else { return Ok(()) };
        drop(self.body);
        match connection.rest() {
            Rest::Surplus => {
                return Err(Error::new(Kind::Length, "the server sends more bytes than its Content-Length says"));
            }
            Rest::Nothing => self.host.spare.lock().push(connection),
            Rest::End => {}
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

    /// Asks for `url`, over a connection that is there or a new one.
    ///
    /// # Errors
    /// Those of [`Dialer::dial`]; [`Kind::Truncated`] if the connection breaks, [`Kind::Protocol`] for what is not HTTP.
    pub async fn send(&self, url: &Url, mut headers: HeaderMap) -> Result<Answer, Error> {
        let host = self.host(url)?;
        let path = &url[Position::BeforePath..Position::AfterQuery];
        let name = &url[Position::BeforeHost..Position::AfterPort];
        // HTTP/2 and proxies want to be told the whole address.
        let whole = || format!("{}://{name}{path}", url.scheme());
        let wrong = |error: &dyn std::fmt::Display| Error::new(Kind::Address, format!("{url}: {error}"));
        let proxy = host.route.proxy.as_ref().filter(|_| host.route.asks_proxy());
        headers.extend(
            proxy.and_then(|proxy| proxy.basic_auth()).map(|value| (header::PROXY_AUTHORIZATION, value.clone())),
        );
        loop {
            let link = host.link(&self.dialer).await?;
            let is_shared = matches!(link, Link::Shared(_));
            let target = if is_shared || proxy.is_some() { whole() } else { path.to_owned() };
            let mut request = Request::get(target).body(NoBody::new()).map_err(|error| wrong(&error))?;
            *request.headers_mut() = headers.clone();
            if !is_shared {
                let name = HeaderValue::try_from(name).map_err(|error| wrong(&error))?;
                request.headers_mut().entry(header::HOST).or_insert(name);
            }
            let (sent, used, connection) = match link {
                Link::Single { mut connection, used } => (connection.ask(request).await, used, Some(connection)),
                Link::Shared(mut shared) => (shared.send_request(request).await, false, None),
            };
            match sent {
                Ok(response) => {
                    let (head, body) = response.into_parts();
                    let coding =
                        head.headers.get(header::TRANSFER_ENCODING).map_or(&b"chunked"[..], HeaderValue::as_bytes);
                    if ![&b"chunked"[..], b"identity"].iter().any(|known| coding.eq_ignore_ascii_case(known)) {
                        let coding = String::from_utf8_lossy(coding);
                        return Err(Error::new(
                            Kind::Protocol,
                            format!("nobody asked for Transfer-Encoding: {coding}"),
                        ));
                    }
                    return Ok(Answer { status: head.status, headers: head.headers, body, connection, host });
                }
                Err(error) if error.is_parse() => {
                    return Err(Error::new(Kind::Protocol, format!("not an answer in HTTP: {}", chain(&error))));
                }
                // The server had closed the connection while it lay there.
                Err(_) if used => {}
                Err(error) => {
                    let kind = if is_of_tls(&error) { Kind::Tls } else { Kind::Truncated };
                    return Err(Error::new(kind, format!("the connection broke before the answer: {}", chain(&error))));
                }
            }
        }
    }

    /// The connections of the route to `url`.
    fn host(&self, url: &Url) -> Result<Arc<Host>, Error> {
        let origin = &url[..Position::BeforePath];
        let mut hosts = self.hosts.lock();
        if let Some(host) = hosts.get(origin) {
            return Ok(Arc::clone(host));
        }
        if hosts.len() >= MANY_HOSTS {
            hosts.retain(|_, host| Arc::strong_count(host) > 1);
        }
        let route = self.dialer.route(url)?;
        let (spare, shared) = (Guarded::new(Vec::new()), Guarded::new(None));
        let host = Arc::new(Host { single: tokio::sync::Mutex::new(!route.secure), route, spare, shared });
        hosts.insert(origin.to_owned(), Arc::clone(&host));
        Ok(host)
    }
}

impl Host {
    async fn link(&self, dialer: &Dialer) -> Result<Link, Error> {
        match self.present() {
            Some(link) => Ok(link),
            // In a box, as this is large and rare, and each file's task would have the room for it.
            None => Box::pin(self.connect(dialer)).await,
        }
    }

    async fn connect(&self, dialer: &Dialer) -> Result<Link, Error> {
        let mut is_single = self.single.lock().await;
        if *is_single {
            drop(is_single);
            return Ok(match dialer.dial(&self.route).await? {
                Dialled::Plain(wire) => single(wire).await?,
                Dialled::Secure(wire) => single(wire).await?,
            });
        }
        // Somebody may have made it meanwhile.
        if let Some(link) = self.present() {
            return Ok(link);
        }
        match dialer.dial(&self.route).await? {
            Dialled::Secure(wire) if wire.get_ref().1.alpn_protocol() == Some(b"h2") => {
                let shared = shared(TokioIo::new(wire)).await?;
                *self.shared.lock() = Some(shared.clone());
                Ok(Link::Shared(shared))
            }
            Dialled::Secure(wire) => {
                *is_single = true;
                single(wire).await
            }
            Dialled::Plain(wire) => single(wire).await,
        }
    }

    fn present(&self) -> Option<Link> {
        let shared = self.shared.lock().as_ref().filter(|shared| !shared.is_closed()).cloned();
        if let Some(shared) = shared {
            return Some(Link::Shared(shared));
        }
        let mut spare = self.spare.lock();
        // Where something came meanwhile, the server has closed it, or does not do as it says.
        let connection = std::iter::from_fn(|| spare.pop())
            .find_map(|mut connection| (connection.rest() == Rest::Nothing).then_some(connection));
        connection.map(|connection| Link::Single { connection, used: true })
    }
}

/// The error that it is when two do not come to speak HTTP with each other.
fn refused(error: &hyper::Error) -> Error {
    let kind = if is_of_tls(error) { Kind::Tls } else { Kind::Connect };
    Error::new(kind, format!("the handshake failed: {}", chain(error)))
}

async fn single(wire: impl Wire + 'static) -> Result<Link, Error> {
    let connection = Connection::new(wire).await.map_err(|error| refused(&error))?;
    Ok(Link::Single { connection, used: false })
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
