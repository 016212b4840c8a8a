//! Many files over one connection of HTTP/2. What servers do wrong is tested from Python, in `tests/fetch`.

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use juggler_fetch::{Engine, Job, Options};
use juggler_sync::{Deadline, ThreadGate};
use std::collections::HashSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

const FILES: u64 = 50;

fn certificate() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fetch/localhost.pem")
}

/// The content of a page: different for each, and more than a window of flow control.
fn content(path: &str) -> Vec<u8> {
    path.bytes().cycle().take(300_000).collect()
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    assert_eq!(request.version(), Version::HTTP_2);
    assert!(request.headers().get("host").is_none());
    assert!(request.uri().authority().is_some());
    Ok(Response::new(Full::new(content(request.uri().path()).into())))
}

/// Serves for ever, in a thread that ends with the test's process; the address, and how many connections came.
fn serve() -> (SocketAddr, Arc<AtomicUsize>) {
    let key = PrivateKeyDer::from_pem_file(certificate()).unwrap();
    let chain = CertificateDer::pem_file_iter(certificate()).unwrap().map(Result::unwrap).collect();
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            tell.send(listener.local_addr().unwrap()).unwrap();
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, Ordering::SeqCst);
                let tls = acceptor.accept(tcp).await.unwrap();
                let builder = http2::Builder::new(TokioExecutor::new());
                tokio::spawn(builder.serve_connection(TokioIo::new(tls), service_fn(answer)));
            }
        });
    });
    (told.recv().unwrap(), connections)
}

#[test]
fn many_files_share_one_connection() {
    let (address, connections) = serve();
    let folder = std::env::temp_dir().join(format!("juggler-http2-{}", std::process::id()));
    let options = Options { folder: folder.clone(), cacert: Some(certificate()), per_host: 16, ..Options::default() };
    let engine = Engine::start(options).unwrap();
    for index in 0..FILES {
        engine.add(Job { index, url: format!("https://{address}/{index}"), name: None, checksum: None });
    }
    engine.close();
    let mut seen = HashSet::new();
    while let Some(outcome) = engine.next(&ThreadGate, Deadline::NEVER).unwrap() {
        let fetched = outcome.result.unwrap();
        assert_eq!(std::fs::read(fetched.path).unwrap(), content(&format!("/{}", outcome.job.index)));
        seen.insert(outcome.job.index);
    }
    assert_eq!(seen.len() as u64, FILES);
    assert_eq!(connections.load(Ordering::SeqCst), 1);
    std::fs::remove_dir_all(folder).unwrap();
}
