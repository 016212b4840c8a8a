//! HTTP/1.1 over one connection, driven by the task that asked.
//!
//! hyper reads and writes in a future beside those of the answer and its body. It could be a task of its own, but much of what a
//! small file costs is to wake somebody: so whoever waits for an answer polls it, too.

use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::future::poll_fn;
use std::mem;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, AsyncWrite};

/// What a request carries: nothing.
pub(crate) type NoBody = http_body_util::Empty<Bytes>;

/// What bytes go over: TCP, with or without TLS.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<W: AsyncRead + AsyncWrite + Send + Unpin> Wire for W {}

/// A connection. One question at a time; the body of its answer is to be [driven](Connection::driven) to its end.
pub(crate) struct Connection {
    sender: http1::SendRequest<NoBody>,
    driver: Driver,
}

/// What reads and writes.
enum Driver {
    Runs(Box<http1::Connection<TokioIo<Box<dyn Wire>>, NoBody>>),
    /// Whether there was something that nobody had asked for.
    Ended {
        surplus: bool,
    },
}

/// What there is on a connection where nothing is to be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    Nothing,
    End,
    Surplus,
}

impl Connection {
    /// One over `wire`, on which nothing was said yet.
    ///
    /// # Errors
    /// hyper's.
    pub async fn new(wire: impl Wire + 'static) -> hyper::Result<Self> {
        let wire: Box<dyn Wire> = Box::new(wire);
        let (sender, connection) = http1::handshake(TokioIo::new(wire)).await?;
        Ok(Self { sender, driver: Driver::Runs(Box::new(connection)) })
    }

    /// Sends a request and waits for the head of the answer.
    ///
    /// # Errors
    /// hyper's.
    pub async fn ask(&mut self, request: Request<NoBody>) -> hyper::Result<Response<Incoming>> {
        let answer = self.sender.send_request(request);
        self.driver.until(answer).await
    }

    /// Waits for `what` comes over it.
    pub async fn driven<T>(&mut self, what: impl Future<Output = T>) -> T {
        self.driver.until(what).await
    }

    /// What there is behind the last answer, without waiting for it. Costs no system call where the last one left nothing.
    pub fn rest(&mut self) -> Rest {
        self.driver.drive(&mut Context::from_waker(Waker::noop()));
        match self.driver {
            Driver::Runs(_) if self.sender.is_ready() => Rest::Nothing,
            Driver::Ended { surplus: true } => Rest::Surplus,
            Driver::Runs(_) | Driver::Ended { .. } => Rest::End,
        }
    }
}

impl Driver {
    async fn until<T>(&mut self, what: impl Future<Output = T>) -> T {
        let mut what = pin!(what);
        poll_fn(|context| {
            // First it says what it wants, then it may be there.
            if let Poll::Ready(found) = what.as_mut().poll(context) {
                return Poll::Ready(found);
            }
            self.drive(context);
            what.as_mut().poll(context)
        })
        .await
    }

    /// How it ends, those who wait for an answer are told; here only what is left over counts.
    fn drive(&mut self, context: &mut Context<'_>) {
        let Self::Runs(connection) = self else { return };
        if connection.poll_without_shutdown(context).is_pending() {
            return;
        }
        if let Self::Runs(connection) = mem::replace(self, Self::Ended { surplus: false }) {
            *self = Self::Ended { surplus: !connection.into_parts().read_buf.is_empty() };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    /// What there is behind `answer`, once its body was read; the server goes then, or `stays`.
    fn rest(answer: &[u8], stays: bool) -> Rest {
        let answer = answer.to_vec();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (ours, mut theirs) = duplex(1 << 20);
            tokio::spawn(async move {
                assert_ne!(theirs.read(&mut [0; 1024]).await.unwrap(), 0);
                theirs.write_all(&answer).await.unwrap();
                if stays {
                    std::future::pending().await
                }
            });
            let mut connection = Connection::new(ours).await.unwrap();
            let request = Request::get("/").body(NoBody::new()).unwrap();
            let body = connection.ask(request).await.unwrap().into_body();
            connection.driven(body.collect()).await.unwrap();
            tokio::task::yield_now().await;
            connection.rest()
        })
    }

    #[test]
    fn what_follows_an_answer_is_seen() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
        assert_eq!(rest(answer, true), Rest::Nothing);
        assert_eq!(rest(answer, false), Rest::End);
        assert_eq!(rest(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi", true), Rest::End);
        assert_eq!(rest(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi!", true), Rest::Surplus);
        // Also where it did not come with the head.
        let long = [b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", &[b'x'; 100_001][..]].concat();
        assert_eq!(rest(&long, true), Rest::Surplus);
    }
}
