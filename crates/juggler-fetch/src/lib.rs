//! juggler's downloader: many files at once, and none of them ever wrong.
//!
//! Nothing here knows Python. The layers, each built on those before it:
//!
//! | module | holds |
//! |---|---|
//! | [`options`], [`error`] | what is asked for, what comes back, what can go wrong |
//! | `name` | names that stay in their folder |
//! | `part` | a file on its way: validators, room on the disk, digest, the final rename |
//! | `sink`, `write_back`, `commit` | from the connection to the disk, and to the name |
//! | `netrc`, `coding`, `pace`, `hosts` | credentials, compressed bodies, bytes a second, whose turn it is |
//! | `dial`, `window`, `http1`, `pool` | connections: TCP, proxies, TLS; HTTP/1.1 and HTTP/2 |
//! | `exchange` | a question and its answer, redirects followed |
//! | `transfer` | one file, from the first attempt to the last |
//! | [`board`], [`engine`] | how far everything is; the thread that does it |
//!
//! # Examples
//! ```
//! use juggler_fetch::{Engine, Job, Options};
//! use juggler_sync::{Deadline, ThreadGate};
//!
//! let folder = std::env::temp_dir();
//! let engine = Engine::start(Options { folder, retries: 0, ..Options::default() }).unwrap();
//! engine.add(Job { index: 0, url: "ftp://example.org/x".into(), name: None, checksum: None });
//! engine.close();
//! let outcome = engine.next(&ThreadGate, Deadline::NEVER).unwrap().unwrap();
//! assert_eq!(outcome.result.unwrap_err().kind.name(), "address");
//! ```

mod about;
pub mod board;
mod coding;
mod commit;
mod dial;
pub mod engine;
pub mod error;
mod exchange;
mod hosts;
mod http1;
mod name;
mod names;
mod netrc;
pub mod options;
mod pace;
mod part;
mod pool;
mod ranges;
mod segments;
mod sink;
mod transfer;
mod window;
mod write_back;

pub use board::{Snapshot, Stage};
pub use engine::Engine;
pub use error::{Error, Kind};
pub use juggler_policy::{Rate, RateError};
pub use options::{Checksum, Fetched, Job, Options, Outcome};
