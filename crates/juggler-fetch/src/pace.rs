//! Bytes a second, over all files.

use juggler_policy::{Bucket, Rate, RateError, Time};
use std::time::Instant;
use tokio::sync::Mutex;

/// A token bucket for which transfers wait in line.
pub(crate) struct Pace {
    began: Instant,
    bucket: Mutex<Bucket>,
}

impl Pace {
    /// As fast as `rate`.
    ///
    /// # Errors
    /// The bucket's.
    pub fn new(rate: Rate) -> Result<Self, RateError> {
        let bucket = Mutex::new(Bucket::new(rate, rate.default_burst())?);
        Ok(Self { began: Instant::now(), bucket })
    }

    /// Waits until `bytes` may have come.
    pub async fn take(&self, bytes: u64) {
        // Held while waiting: who came first takes first.
        let mut bucket = self.bucket.lock().await;
        loop {
            let now = Time::from_nanos(u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX));
            if bucket.try_take(now, bytes) {
                return;
            }
            tokio::time::sleep(now.until(bucket.ready_at(now, bytes))).await;
        }
    }
}
