//! New connections: TCP, through a proxy if need be, and TLS with the system's roots.

use crate::error::{Error, Kind, chain, is_of_tls};
use crate::options::Options;
use crate::window;
use hyper::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::{SocksV5, Tunnel};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::TokioIo;
use juggler_sync::guarded::Guarded;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};
use tower_service::Service;
use url::{Host, Url};

/// Whom to connect to, and by which way.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub secure: bool,
    pub host: Host<String>,
    pub port: u16,
    pub proxy: Option<Intercept>,
}

impl Route {
    /// Whether requests go to an HTTP proxy that is to make them.
    pub fn asks_proxy(&self) -> bool {
        !self.secure && self.proxy.as_ref().is_some_and(|proxy| !is_socks(proxy))
    }
}

fn is_socks(proxy: &Intercept) -> bool {
    proxy.uri().scheme_str().is_some_and(|scheme| scheme.starts_with("socks5"))
}

/// A connection that nothing was sent over yet.
#[expect(clippy::large_enum_variant, reason = "taken apart as soon as it is made")]
pub(crate) enum Dialled {
    Plain(TcpStream),
    Secure(TlsStream<TcpStream>),
}

/// Makes connections.
pub(crate) struct Dialer {
    http: HttpConnector,
    proxies: Matcher,
    /// Whether servers may send far ahead of what is read from the beginning, or as far as the system lets them.
    is_wide: bool,
    cacert: Option<PathBuf>,
    tls: Guarded<Option<TlsConnector>>,
}

impl Dialer {
    /// With the proxy of `options`, or those of the environment.
    ///
    /// # Errors
    /// [`Kind::Address`] for a proxy that is none.
    pub fn new(options: &Options) -> Result<Self, Error> {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        let proxies = match &options.proxy {
            Some(proxy) => {
                let proxies = Matcher::builder().all(proxy.as_str()).build();
                if !proxy.is_empty() && proxies.intercept(&Uri::from_static("http://host")).is_none() {
                    return Err(Error::new(Kind::Address, format!("not the address of a proxy: {proxy:?}")));
                }
                proxies
            }
            None => Matcher::from_env(),
        };
        // With `rate`, what waits in the system came faster than the user wants.
        let is_wide = options.rate.is_none();
        Ok(Self { http, proxies, is_wide, cacert: options.cacert.clone(), tls: Guarded::new(None) })
    }

    /// The way to `url`.
    ///
    /// # Errors
    /// [`Kind::Address`] if it has no host.
    pub fn route(&self, url: &Url) -> Result<Route, Error> {
        let (Some(host), Some(port)) = (url.host(), url.port_or_known_default()) else {
            return Err(Error::new(Kind::Address, format!("no host in {url}")));
        };
        let (secure, host) = (url.scheme() == "https", host.to_owned());
        let proxy = uri(secure, &host, port).ok().and_then(|uri| self.proxies.intercept(&uri));
        Ok(Route { secure, host, port, proxy })
    }

    /// Connects.
    ///
    /// # Errors
    /// [`Kind::Connect`], [`Kind::Tls`].
    pub async fn dial(&self, route: &Route) -> Result<Dialled, Error> {
        let target = uri(route.secure, &route.host, route.port)?;
        let tcp = self.reach(route, target).await.map_err(|error| {
            if error.contains("Name or service not known") {
                // Unlike a resolver that does not answer, this does not pass.
                return Error::new(Kind::Address, format!("there is no host {}: {error}", route.host));
            }
            let by = route.proxy.as_ref().map_or(String::new(), |proxy| format!(" through the proxy {}", proxy.uri()));
            Error::new(Kind::Connect, format!("no connection to {}:{}{by}: {error}", route.host, route.port))
        })?;
        if self.is_wide {
            window::widen(tcp.inner());
        }
        if !route.secure {
            return Ok(Dialled::Plain(tcp.into_inner()));
        }
        let name = match &route.host {
            Host::Domain(name) => ServerName::try_from(name.clone())
                .map_err(|error| Error::new(Kind::Address, format!("{name}: {error}")))?,
            Host::Ipv4(address) => ServerName::IpAddress(std::net::IpAddr::V4(*address).into()),
            Host::Ipv6(address) => ServerName::IpAddress(std::net::IpAddr::V6(*address).into()),
        };
        let secured = self.tls()?.connect(name, tcp.into_inner()).await.map_err(|error| {
            let kind = if is_of_tls(&error) { Kind::Tls } else { Kind::Connect };
            Error::new(kind, format!("no secure connection to {}:{}: {}", route.host, route.port, chain(&error)))
        })?;
        Ok(Dialled::Secure(secured))
    }

    async fn reach(&self, route: &Route, target: Uri) -> Result<TokioIo<TcpStream>, String> {
        let mut http = self.http.clone();
        let Some(proxy) = &route.proxy else { return http.call(target).await.map_err(|error| chain(&error)) };
        let at = proxy.uri().clone();
        if is_socks(proxy) {
            let mut socks = SocksV5::new(at.clone(), http).local_dns(at.scheme_str() == Some("socks5"));
            if let Some((user, password)) = proxy.raw_auth() {
                socks = socks.with_auth(user.into(), password.into());
            }
            return socks.call(target).await.map_err(|error| chain(&error));
        }
        if at.scheme_str() != Some("http") {
            return Err("only http, socks5 and socks5h proxies are known".into());
        }
        if !route.secure {
            return http.call(at).await.map_err(|error| chain(&error));
        }
        let mut tunnel = Tunnel::new(at, http);
        if let Some(credentials) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(credentials.clone());
        }
        tunnel.call(target).await.map_err(|error| chain(&error))
    }

    /// TLS, set up when the first address needs it: the roots take some milliseconds to read.
    fn tls(&self) -> Result<TlsConnector, Error> {
        let mut slot = self.tls.lock();
        if let Some(tls) = &*slot {
            return Ok(tls.clone());
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(path) = &self.cacert {
            let found = rustls_native_certs::load_certs_from_paths(Some(path), None);
            if found.certs.is_empty() {
                return Err(Error::new(Kind::Tls, format!("no certificates in {}", path.display())));
            }
            roots.add_parsable_certificates(found.certs);
        }
        if roots.is_empty() {
            let message = "the system has no root certificates (SSL_CERT_FILE names a file of them)";
            return Err(Error::new(Kind::Tls, message));
        }
        let mut config = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::new(Kind::Tls, error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(slot.insert(TlsConnector::from(Arc::new(config))).clone())
    }
}

fn uri(secure: bool, host: &Host<String>, port: u16) -> Result<Uri, Error> {
    let scheme = if secure { "https" } else { "http" };
    format!("{scheme}://{host}:{port}").parse().map_err(|error| Error::new(Kind::Address, format!("{host}: {error}")))
}
