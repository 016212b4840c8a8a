//! Bytes a second, over all files.

use juggler_policy::{Bucket, Rate, RateError, Time};
use std::time::Instant;
use tokio::sync::Mutex;

/// A token bucket for which transfers wait in line.
pub(crate) struct Pace {
    began: Instant,
    burst: u64,
    bucket: Mutex<Bucket>,
}

impl Pace {
    /// As fast as `rate`.
    ///
    /// # Errors
    /// The bucket's.
    pub fn new(rate: Rate) -> Result<Self, RateError> {
        let burst = rate.default_burst();
        Ok(Self { began: Instant::now(), burst, bucket: Mutex::new(Bucket::new(rate, burst)?) })
    }

    /// Waits until `bytes` may have come.
    pub async fn take(&self, bytes: u64) {
        // Held while waiting: who came first takes first.
        let mut bucket = self.bucket.lock().await;
        // More than a bucketful at a time would leave a debt, which nobody pays who has got all.
        let mut left = bytes;
        while left > 0 {
            let now = Time::from_nanos(u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX));
            let some = left.min(self.burst);
            if bucket.try_take(now, some) {
                left -= some;
            } else {
                tokio::time::sleep(now.until(bucket.ready_at(now, some))).await;
            }
        }
    }
}
