//! What can go wrong with a file, and whether trying again may help.

use std::fmt;
use std::io;
use std::time::Duration;

/// The sort of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The address is none, or of a scheme that is not HTTP.
    Address,
    /// The name that the server or the address gives would leave the folder.
    Name,
    /// No connection: the name is unknown, nobody listens, the proxy refuses.
    Connect,
    /// The server's certificate, or the handshake.
    Tls,
    /// No connection, or no head of an answer, within the timeout.
    Timeout,
    /// Nothing came for as long as a stall may last.
    Stalled,
    /// The body ended before its length, or the connection broke.
    Truncated,
    /// The server answered with an error.
    Status,
    /// Redirected in a circle, too often, or to nowhere.
    Redirects,
    /// What the server says of the length contradicts itself or what it sent.
    Length,
    /// The server ignores that only the rest was asked for, or sends another part.
    Range,
    /// The file is not the one that the part is of.
    Changed,
    /// The content is not what the checksum promises.
    Digest,
    /// The content does not decode as the encoding that the server named.
    Coding,
    /// The folder or the disk: no room, no permission.
    Disk,
    /// The deadline of the call passed.
    Deadline,
    /// An answer that is not HTTP.
    Protocol,
}

impl Kind {
    /// The name by which users know it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Name => "name",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Stalled => "stalled",
            Self::Truncated => "truncated",
            Self::Status => "status",
            Self::Redirects => "redirects",
            Self::Length => "length",
            Self::Range => "range",
            Self::Changed => "changed",
            Self::Digest => "digest",
            Self::Coding => "coding",
            Self::Disk => "disk",
            Self::Deadline => "deadline",
            Self::Protocol => "protocol",
        }
    }
}

/// Why a file, or one attempt at it, failed.
#[derive(Clone, Debug)]
pub struct Error {
    /// The sort of failure.
    pub kind: Kind,
    /// A sentence for people, with the values that matter.
    pub message: String,
    /// The server's status, where there was one.
    pub status: Option<u16>,
    /// How long the server asks to wait.
    pub retry_after: Option<Duration>,
}

impl Error {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), status: None, retry_after: None }
    }

    pub(crate) fn disk(what: &str, path: &std::path::Path, error: impl Into<io::Error>) -> Self {
        Self::new(Kind::Disk, format!("cannot {what} {}: {}", path.display(), error.into()))
    }

    /// Whether another attempt may end better.
    pub fn is_passing(&self) -> bool {
        match self.kind {
            Kind::Connect | Kind::Timeout | Kind::Stalled | Kind::Truncated | Kind::Changed => true,
            Kind::Status => matches!(self.status, Some(408 | 425 | 429 | 500 | 502 | 503 | 504)),
            _ => false,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// An error's chain of causes, in one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

/// Whether the cause of `error`, at any depth, is one of TLS.
pub(crate) fn is_of_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(cause) = next {
        if cause.is::<tokio_rustls::rustls::Error>() {
            return true;
        }
        // An `io::Error` names the cause of what it wraps as its own.
        if let Some(inner) = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            if is_of_tls(inner) {
                return true;
            }
        }
        next = cause.source();
    }
    false
}
