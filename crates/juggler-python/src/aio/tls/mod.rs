//! TLS over another transport, with the OpenSSL of CPython's `_ssl` module; `docs/internals/loop.md` has the design.
//!
//! | module | holds |
//! |---|---|
//! | `openssl` | the functions of OpenSSL, the `SSL *` of an `SSLObject`, and our BIO |
//! | `session` | an `SSLObject` whose data goes to OpenSSL directly, or through its methods |
//! | [`transport`] | the class `TlsTransport`: its state, and what is asked of it |
//! | `reading`, `writing` | its data |

mod openssl;
mod reading;
mod session;
pub mod transport;
mod writing;

pub use transport::{Tls, as_tls, finish};
