//! HTTP/1.1 over one connection, read by the task that asked.
//!
//! Much of what a small file costs is to wake somebody. So there is no task beside the one that wants the file: it sends its
//! request, sleeps until the answer is there, and finds the head, and the whole of a small body, with one `recv`. What is
//! longer goes from the socket to where it is wanted, without a copy in between. The framing is that of RFC 9112, section 6;
//! what contradicts itself there is an error.

use hyper::StatusCode;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

/// How long a head, a chunk's line or the trailers may be, and what is read of a body along with them.
const BUFFER: usize = 64 << 10;

/// How many headers an answer may have.
const HEADERS: usize = 100;

/// What bytes go over: TCP, with or without TLS.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<W: AsyncRead + AsyncWrite + Send + Unpin> Wire for W {}

/// A connection. One question at a time: [`Connection::ask`], then [`Connection::read`] until the end.
pub(crate) struct Connection {
    wire: Box<dyn Wire>,
    /// What came and nobody took yet is from `start` on and before `end`.
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    left: Left,
    /// Whether the server lets another question follow.
    stays: bool,
}

/// What is still to come of a body.
#[derive(Clone, Copy)]
enum Left {
    Bytes(u64),
    ToTheEnd,
    /// The line before a chunk.
    Size,
    Chunk(u64),
    /// The end of a chunk's last line.
    Break,
    Trailers,
}

/// What there is on a connection where nothing is to be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    Nothing,
    End,
    Surplus,
}

impl Connection {
    pub fn new(wire: Box<dyn Wire>) -> Self {
        let buffer = vec![0; BUFFER].into_boxed_slice();
        Self { wire, buffer, start: 0, end: 0, left: Left::Bytes(0), stays: true }
    }

    /// Asks for `target`, with the name of the `host` unless `headers` has one, and waits for the head of the answer.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] for what is not HTTP; the connection's.
    pub async fn ask(&mut self, target: &str, host: &str, headers: &HeaderMap) -> io::Result<(StatusCode, HeaderMap)> {
        let mut text = Vec::with_capacity(512);
        let mut put = |pieces: &[&[u8]]| pieces.iter().for_each(|piece| text.extend_from_slice(piece));
        put(&[b"GET ", target.as_bytes(), b" HTTP/1.1\r\n"]);
        if !headers.contains_key(header::HOST) {
            put(&[b"host: ", host.as_bytes(), b"\r\n"]);
        }
        for (name, value) in headers {
            put(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"]);
        }
        text.extend_from_slice(b"\r\n");
        self.wire.write_all(&text).await?;
        self.wire.flush().await?;
        loop {
            match self.head()? {
                Some((status, headers)) if !status.is_informational() => return Ok((status, headers)),
                Some((StatusCode::SWITCHING_PROTOCOLS, _)) => return Err(invalid("another protocol follows")),
                Some(_) => {}
                None => self.more().await?,
            }
        }
    }

    /// Takes a head off the buffer, once it is there in whole.
    fn head(&mut self) -> io::Result<Option<(StatusCode, HeaderMap)>> {
        let mut room = [httparse::EMPTY_HEADER; HEADERS];
        let mut head = httparse::Response::new(&mut room);
        let httparse::Status::Complete(length) = head.parse(&self.buffer[self.start..self.end]).map_err(invalid)?
        else {
            return Ok(None);
        };
        let status = StatusCode::from_u16(head.code.unwrap_or(0)).map_err(invalid)?;
        let mut headers = HeaderMap::with_capacity(head.headers.len());
        for header in head.headers.iter() {
            let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(invalid)?;
            headers.append(name, HeaderValue::from_bytes(header.value).map_err(invalid)?);
        }
        let is_old = head.version == Some(0);
        self.start += length;
        self.left = left(status, &headers, is_old)?;
        let says = |token| tokens(&headers, header::CONNECTION).any(|found| found.eq_ignore_ascii_case(token));
        self.stays = if is_old { says("keep-alive") } else { !says("close") };
        Ok(Some((status, headers)))
    }

    /// The next bytes of the body; none at its end. May be dropped while it waits.
    ///
    /// # Errors
    /// That the body breaks off, or is not HTTP.
    pub async fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        loop {
            let came = &self.buffer[self.start..self.end];
            match self.left {
                Left::Bytes(0) => return Ok(0),
                Left::ToTheEnd => return self.take(room, u64::MAX).await,
                Left::Bytes(most) => {
                    let count = self.take(room, most).await?;
                    self.left = Left::Bytes(most - count as u64);
                    return if count > 0 { Ok(count) } else { Err(broken()) };
                }
                Left::Chunk(most) => {
                    let count = self.take(room, most).await?;
                    self.left = if count as u64 == most { Left::Break } else { Left::Chunk(most - count as u64) };
                    return if count > 0 { Ok(count) } else { Err(broken()) };
                }
                Left::Size => match httparse::parse_chunk_size(came).map_err(|_| invalid("not the size of a chunk"))? {
                    httparse::Status::Complete((length, size)) => {
                        self.start += length;
                        self.left = if size == 0 { Left::Trailers } else { Left::Chunk(size) };
                    }
                    httparse::Status::Partial => self.more().await?,
                },
                Left::Break if came.len() < 2 => self.more().await?,
                Left::Break if came.starts_with(b"\r\n") => {
                    self.start += 2;
                    self.left = Left::Size;
                }
                Left::Break => return Err(invalid("a chunk is longer than it says")),
                Left::Trailers => {
                    match httparse::parse_headers(came, &mut [httparse::EMPTY_HEADER; HEADERS]).map_err(invalid)? {
                        httparse::Status::Complete((length, _)) => {
                            self.start += length;
                            self.left = Left::Bytes(0);
                        }
                        httparse::Status::Partial => self.more().await?,
                    }
                }
            }
        }
    }

    /// Brings what is in the buffer, or else on the wire, but no more than `most`.
    async fn take(&mut self, room: &mut [u8], most: u64) -> io::Result<usize> {
        let most = usize::try_from(most).map_or(room.len(), |most| most.min(room.len()));
        let came = &self.buffer[self.start..self.end];
        if came.is_empty() {
            return self.wire.read(&mut room[..most]).await;
        }
        let count = most.min(came.len());
        room[..count].copy_from_slice(&came[..count]);
        self.start += count;
        Ok(count)
    }

    /// Reads more into the buffer.
    async fn more(&mut self) -> io::Result<()> {
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        if self.end == self.buffer.len() {
            return Err(invalid(format!("more than {BUFFER} bytes that are not of a body")));
        }
        match self.wire.read(&mut self.buffer[self.end..]).await? {
            0 => Err(broken()),
            count => {
                self.end += count;
                Ok(())
            }
        }
    }

    /// Whether another question may follow, the body being over.
    pub fn stays(&self) -> bool {
        self.stays && matches!(self.left, Left::Bytes(0))
    }

    /// What there is behind the last answer, without waiting for it. Costs no system call where the last one left nothing.
    pub fn rest(&mut self) -> Rest {
        if self.start < self.end {
            return Rest::Surplus;
        }
        let mut byte = [0];
        let mut room = ReadBuf::new(&mut byte);
        match Pin::new(&mut *self.wire).poll_read(&mut Context::from_waker(Waker::noop()), &mut room) {
            Poll::Pending => Rest::Nothing,
            Poll::Ready(Ok(())) if !room.filled().is_empty() => Rest::Surplus,
            Poll::Ready(_) => Rest::End,
        }
    }
}

/// How the body of an answer is framed.
fn left(status: StatusCode, headers: &HeaderMap, is_old: bool) -> io::Result<Left> {
    if status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        return Ok(Left::Bytes(0));
    }
    let codings: Vec<_> = tokens(headers, header::TRANSFER_ENCODING).collect();
    match codings[..] {
        [] => {}
        [coding] if coding.eq_ignore_ascii_case("identity") => {}
        [coding] if coding.eq_ignore_ascii_case("chunked") && !is_old => return Ok(Left::Size),
        _ => return Err(invalid(format!("Transfer-Encoding: {}", codings.join(", ")))),
    }
    let number = |text: &str| {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u64>().ok().filter(|_| digits).ok_or_else(|| invalid(format!("Content-Length: {text}")))
    };
    let mut lengths = tokens(headers, header::CONTENT_LENGTH).map(number);
    let Some(first) = lengths.next().transpose()? else {
        let says_nothing = headers.get(header::CONTENT_LENGTH).is_none();
        return if says_nothing { Ok(Left::ToTheEnd) } else { Err(invalid("Content-Length: nothing")) };
    };
    for other in lengths {
        if other? != first {
            return Err(invalid("Content-Length: more than one"));
        }
    }
    Ok(Left::Bytes(first))
}

/// The elements of a header that is a list; one that is not text has none.
fn tokens(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let lists = headers.get_all(name).into_iter().map(|value| value.to_str().unwrap_or(""));
    lists.flat_map(|list| list.split(',')).map(str::trim).filter(|token| !token.is_empty())
}

fn invalid(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    /// A connection on which `answer` is said, in pieces of `size`; then the server goes, or `stays`.
    fn says(answer: &'static [u8], size: usize, stays: bool) -> Connection {
        let (ours, mut theirs) = tokio::io::duplex(size);
        tokio::spawn(async move {
            theirs.read_exact(&mut [0; 28]).await.unwrap();
            // Whoever has seen enough may hang up.
            let _ = theirs.write_all(answer).await;
            if stays {
                std::future::pending().await
            }
        });
        Connection::new(Box::new(ours))
    }

    async fn asked(connection: &mut Connection) -> io::Result<(StatusCode, Vec<u8>)> {
        let (status, _) = connection.ask("/x", "h", &HeaderMap::new()).await?;
        let (mut body, mut room) = (Vec::new(), [0; 7]);
        loop {
            match connection.read(&mut room).await? {
                0 => return Ok((status, body)),
                count => body.extend_from_slice(&room[..count]),
            }
        }
    }

    /// Body, and whether the connection may be used again, however the answer is cut into pieces.
    fn body(answer: &'static [u8]) -> Result<(String, bool), io::ErrorKind> {
        let of_size = |size| {
            run(async move {
                let mut connection = says(answer, size, false);
                let (_, body) = asked(&mut connection).await.map_err(|error| error.kind())?;
                Ok((String::from_utf8(body).unwrap(), connection.stays()))
            })
        };
        let first = of_size(1);
        for size in [2, 3, 10, 1000] {
            assert_eq!(of_size(size), first, "in pieces of {size}");
        }
        first
    }

    #[test]
    fn bodies_of_all_sorts() {
        let whole = |text: &str, stays| Ok((text.to_owned(), stays));
        assert_eq!(body(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"), whole("hello", true));
        assert_eq!(body(b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello"), whole("hello", true));
        assert_eq!(body(b"HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 0\r\n\r\n"), whole("", false));
        assert_eq!(body(b"HTTP/1.1 200 OK\r\n\r\nto the end"), whole("to the end", false));
        assert_eq!(body(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi"), whole("hi", false));
        assert_eq!(
            body(b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 2\r\n\r\nhi"),
            whole("hi", true)
        );
        assert_eq!(body(b"HTTP/1.1 204 No Content\r\nContent-Length: 9\r\n\r\n"), whole("", true));
        assert_eq!(
            body(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"),
            whole("hi", true)
        );
        assert_eq!(
            body(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\nA\r\n, world 12\r\n0\r\nTrailer: x\r\n\r\n"),
            whole("hello, world 12", true)
        );
    }

    #[test]
    fn bodies_that_break_off() {
        for answer in [
            &b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello"[..],
            b"HTTP/1.1 200 OK\r\nContent-Le",
            b"",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        ] {
            assert_eq!(body(answer), Err(io::ErrorKind::UnexpectedEof), "{}", answer.escape_ascii());
        }
    }

    #[test]
    fn what_is_not_http() {
        for answer in [
            &b"SSH-2.0-OpenSSH\r\n\r\n"[..],
            b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
            b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
            b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nhello",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello!\r\n",
        ] {
            assert_eq!(body(answer), Err(io::ErrorKind::InvalidData), "{}", answer.escape_ascii());
        }
    }

    #[test]
    fn a_head_without_an_end_is_refused() {
        let answer: &'static [u8] = Box::leak([&b"HTTP/1.1 200 OK\r\nx: "[..], &[b'y'; BUFFER]].concat().into());
        let found = run(async { asked(&mut says(answer, 4096, true)).await.map_err(|error| error.kind()) });
        assert_eq!(found, Err(io::ErrorKind::InvalidData));
    }

    #[test]
    fn what_follows_an_answer_is_seen() {
        let rest = |answer: &'static [u8], stays: bool| {
            run(async move {
                let mut connection = says(answer, 1 << 20, stays);
                asked(&mut connection).await.unwrap();
                tokio::task::yield_now().await;
                connection.rest()
            })
        };
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
        assert_eq!(rest(answer, true), Rest::Nothing);
        assert_eq!(rest(answer, false), Rest::End);
        assert_eq!(rest(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi!", true), Rest::Surplus);
        // Also where it did not come with the head.
        let long = [b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", &[b'x'; 100_001][..]].concat();
        assert_eq!(rest(Box::leak(long.into()), true), Rest::Surplus);
    }
}
