//! When a call may begin, has to wait, is tried again or is given up: the logic of juggler's policies.
//!
//! Nothing here waits, reads a clock, draws a random number or starts a thread. Whoever asks brings the time, as a
//! [`Time`], and the randomness, as a number from 0 to 1; the answer is what to do, or from when on. So the same code
//! decides for threads, for coroutines, for the downloader, and for tests on a virtual clock. None of it is shared between
//! threads by itself: the caller guards it, for the few nanoseconds that a decision takes.
//!
//! | module | decides |
//! |---|---|
//! | [`time`] | points in time on somebody's clock |
//! | [`rate`] | when the next call may begin: a token bucket, and its notation, such as `10MB/s` |
//! | [`limit`] | how many are inside at once, and who comes next |
//! | [`pace`] | the two together: a bucket with a line in front of it |
//! | [`backoff`] | how long to wait before another attempt |
//! | [`retry`] | whether there is another attempt, within the deadline |
//! | [`circuit`] | whether it makes sense to call at all |
//! | [`hedge`] | when a slow call gets a second one beside it |
//! | [`keyed`] | all of these for each key, such as a host, in bounded memory |

pub mod backoff;
pub mod circuit;
pub mod hedge;
pub mod keyed;
pub mod limit;
pub mod pace;
pub mod rate;
pub mod retry;
pub mod time;

pub use backoff::{Backoff, Jitter};
pub use circuit::{Breaker, Outcome, Refused};
pub use hedge::{After, Hedge};
pub use keyed::{Keyed, State};
pub use limit::{Limit, Ticket};
pub use pace::Pace;
pub use rate::{Bucket, Rate, RateError};
pub use retry::{Attempts, GiveUp, Retry};
pub use time::Time;
