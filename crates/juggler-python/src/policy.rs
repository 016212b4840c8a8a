//! The policies' decisions for `juggler.policy`, which waits, calls and tells waiters.
//!
//! Each class is an engine type behind the engine's short lock. Times are nanoseconds on the clock of whoever calls, keys
//! are hashes: no Python code runs while a lock is held, and no key is kept alive. Keys whose hashes are equal share a
//! state, which keeps every promise.

use juggler_policy::circuit::Rules;
use juggler_policy::{
    After, Attempts, Backoff, Breaker, Bucket, Hedge, Jitter, Keyed, Limit, Outcome, Pace, Rate, RateError, Retry,
    Ticket, Time,
};
use juggler_sync::guarded::Guarded;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use std::time::Duration;

type Key = isize;

/// Rates for each key: token buckets with lines in front of them.
#[pyclass(frozen, module = "juggler.policy")]
pub struct PolicyRate {
    paces: Guarded<Keyed<Key, Pace>>,
    #[pyo3(get)]
    burst: u64,
}

#[pymethods]
impl PolicyRate {
    #[new]
    #[pyo3(signature = (rate, burst, keys, /))]
    fn new(rate: &str, burst: Option<u64>, keys: usize) -> PyResult<Self> {
        let wrong = |error: RateError| PyValueError::new_err(format!("{rate:?} is no rate: {error}"));
        let parsed = Rate::parse(rate).map_err(wrong)?;
        let burst = burst.unwrap_or_else(|| parsed.default_burst());
        let bucket = Bucket::new(parsed, burst)
            .map_err(|_| PyValueError::new_err(format!("burst must be from 1 to 10^12, not {burst}")))?;
        Ok(Self { paces: Guarded::new(Keyed::new(Pace::new(bucket), keys)), burst })
    }

    #[pyo3(signature = (key, now, amount, /))]
    fn try_take(&self, key: Key, now: u64, amount: u64) -> bool {
        self.paces.lock().state(key).try_take(Time::from_nanos(now), amount)
    }

    #[pyo3(signature = (key, ticket, /))]
    fn join(&self, key: Key, ticket: Ticket) -> bool {
        self.paces.lock().state(key).join(ticket)
    }

    /// For the first in line: `None` if it took the amount, otherwise when to ask again.
    #[pyo3(signature = (key, now, amount, /))]
    fn take(&self, key: Key, now: u64, amount: u64) -> Option<u64> {
        self.paces.lock().state(key).take(Time::from_nanos(now), amount).err().map(Time::as_nanos)
    }

    #[pyo3(signature = (key, /))]
    fn leave(&self, key: Key) -> Option<Ticket> {
        self.paces.lock().state(key).leave()
    }

    #[pyo3(signature = (key, ticket, /))]
    fn abandon(&self, key: Key, ticket: Ticket) -> bool {
        self.paces.lock().state(key).abandon(ticket)
    }
}

/// Limits for each key: places, and the lines for them.
#[pyclass(frozen, module = "juggler.policy")]
pub struct PolicyLimit {
    limits: Guarded<Keyed<Key, Limit>>,
}

#[pymethods]
impl PolicyLimit {
    #[new]
    #[pyo3(signature = (most, keys, /))]
    fn new(most: usize, keys: usize) -> Self {
        Self { limits: Guarded::new(Keyed::new(Limit::new(most), keys)) }
    }

    #[pyo3(signature = (key, /))]
    fn try_enter(&self, key: Key) -> bool {
        self.limits.lock().state(key).try_enter()
    }

    #[pyo3(signature = (key, ticket, /))]
    fn enter(&self, key: Key, ticket: Ticket) -> bool {
        self.limits.lock().state(key).enter(ticket)
    }

    #[pyo3(signature = (key, /))]
    fn leave(&self, key: Key) -> Option<Ticket> {
        self.limits.lock().state(key).leave()
    }

    #[pyo3(signature = (key, ticket, /))]
    fn abandon(&self, key: Key, ticket: Ticket) -> bool {
        self.limits.lock().state(key).abandon(ticket)
    }
}

/// Circuit breakers for each key.
#[pyclass(frozen, module = "juggler.policy")]
pub struct PolicyCircuit {
    breakers: Guarded<Keyed<Key, Breaker>>,
}

#[pymethods]
impl PolicyCircuit {
    #[new]
    #[pyo3(signature = (failures, reset, trials, keys, /))]
    fn new(failures: u32, reset: u64, trials: u32, keys: usize) -> Self {
        let rules = Rules { failures, reset: Duration::from_nanos(reset), trials };
        Self { breakers: Guarded::new(Keyed::new(Breaker::new(rules), keys)) }
    }

    /// Whether a call gets through, and its generation; or when one will, if that is known.
    #[pyo3(signature = (key, now, /))]
    fn admit(&self, key: Key, now: u64) -> (bool, Option<u64>) {
        match self.breakers.lock().state(key).admit(Time::from_nanos(now)) {
            Ok(generation) => (true, Some(generation)),
            Err(refused) => (false, refused.until.map(Time::as_nanos)),
        }
    }

    /// A call has ended: well, badly, or in a way that says nothing.
    #[pyo3(signature = (key, now, generation, outcome, /))]
    fn record(&self, key: Key, now: u64, generation: u64, outcome: Option<bool>) {
        let outcome = match outcome {
            Some(true) => Outcome::Success,
            Some(false) => Outcome::Failure,
            None => Outcome::Neither,
        };
        self.breakers.lock().state(key).record(Time::from_nanos(now), generation, outcome);
    }
}

/// When a slow call gets company.
#[pyclass(frozen, module = "juggler.policy")]
pub struct PolicyHedge {
    hedge: Guarded<Hedge>,
}

#[pymethods]
impl PolicyHedge {
    #[new]
    #[pyo3(signature = (after, quantile, most, /))]
    fn new(after: u64, quantile: Option<f64>, most: u32) -> Self {
        let after = Duration::from_nanos(after);
        let after = quantile.map_or(After::Fixed(after), |share| After::Quantile(share, after));
        Self { hedge: Guarded::new(Hedge::new(after, most)) }
    }

    #[pyo3(signature = (begun, /))]
    fn patience(&self, begun: u32) -> Option<u64> {
        self.hedge.lock().patience(begun).map(nanos)
    }

    #[pyo3(signature = (took, /))]
    fn record(&self, took: u64) {
        self.hedge.lock().record(Duration::from_nanos(took));
    }
}

/// One call's attempts.
#[pyclass(frozen, module = "juggler.policy")]
pub struct PolicyAttempts {
    retry: Retry,
    attempts: Guarded<Attempts>,
}

#[pymethods]
impl PolicyAttempts {
    #[new]
    #[pyo3(signature = (attempts, base, cap, jitter, longest, /))]
    fn new(attempts: u32, base: u64, cap: u64, jitter: Option<&str>, longest: u64) -> PyResult<Self> {
        let jitter = match jitter {
            None => Jitter::None,
            Some("full") => Jitter::Full,
            Some("equal") => Jitter::Equal,
            Some("decorrelated") => Jitter::Decorrelated,
            Some(other) => {
                let message = format!("jitter must be 'full', 'equal', 'decorrelated' or None, not {other:?}");
                return Err(PyValueError::new_err(message));
            }
        };
        let backoff = Backoff { base: Duration::from_nanos(base), cap: Duration::from_nanos(cap), jitter };
        let retry = Retry { attempts, backoff, longest: Duration::from_nanos(longest) };
        Ok(Self { retry, attempts: Guarded::new(Attempts::default()) })
    }

    /// After a failure: when the next attempt begins; `None` if there is none.
    #[pyo3(signature = (now, asked, latest, random, /))]
    fn next(&self, now: u64, asked: Option<u64>, latest: Option<u64>, random: f64) -> Option<u64> {
        let latest = latest.map_or(Time::NEVER, Time::from_nanos);
        let asked = asked.map(Duration::from_nanos);
        let next = self.retry.next(&mut self.attempts.lock(), Time::from_nanos(now), asked, latest, random);
        next.ok().map(Time::as_nanos)
    }

    #[getter]
    fn made(&self) -> u32 {
        self.attempts.lock().made()
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
