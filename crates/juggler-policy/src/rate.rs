//! Rates: their notation, and the token bucket that keeps to them.
//!
//! The bucket is kept as the one number of the generic cell rate algorithm (ITU-T I.371): the moment at which it will be
//! full again. Taking an amount moves that moment on by the time which the amount takes to flow in. All is counted in
//! nanoseconds times the rate's amount, so that nothing is ever rounded and the promise is exact:
//!
//! In any window of length `w`, no more is taken than `burst + w * amount / interval`. If a single amount is larger than
//! the burst, it waits for a full bucket and then stands for the burst in this formula.

use crate::time::Time;
use std::fmt;
use std::time::Duration;

/// So much in so much time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    amount: u64,
    interval: u64,
    bytes: bool,
}

/// Why a text is no rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateError {
    /// There is no `/`.
    NoInterval,
    /// What stands before the `/` is no number.
    BadAmount,
    /// What follows the amount is no unit of bytes.
    BadUnit,
    /// What follows the `/` is no unit of time, with or without a number.
    BadInterval,
    /// It is nothing, or more than can be counted.
    OutOfRange,
}

impl fmt::Display for RateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoInterval => "a rate is written AMOUNT/TIME, such as 20/s or 10MB/s",
            Self::BadAmount => "a rate begins with a number, such as 20 or 0.5",
            Self::BadUnit => "the units are B, kB, MB, GB, TB, KiB, MiB, GiB and TiB",
            Self::BadInterval => "the times are ms, s, m, h and d, with or without a number, such as 20/s or 5/10s",
            Self::OutOfRange => "a rate must be more than nothing and at most 10^12 in any time up to 10000 days",
        })
    }
}

impl std::error::Error for RateError {}

/// The largest amount that a rate may name, and the longest interval in nanoseconds: times anything that a [`Time`] can
/// be, both fit into 128 bits.
const MOST: u64 = 1_000_000_000_000;
const LONGEST: u64 = 10_000 * 86_400 * 1_000_000_000;
/// Digits after the point that count.
const DECIMALS: usize = 6;

impl Rate {
    /// `amount` in every `interval`.
    ///
    /// # Errors
    /// [`RateError::OutOfRange`] if one of them is nothing or too large.
    pub fn new(amount: u64, interval: Duration) -> Result<Self, RateError> {
        let interval = u64::try_from(interval.as_nanos()).map_err(|_| RateError::OutOfRange)?;
        if (1..=MOST).contains(&amount) && (1..=LONGEST).contains(&interval) {
            Ok(Self { amount, interval, bytes: false })
        } else {
            Err(RateError::OutOfRange)
        }
    }

    /// Reads `20/s`, `100/m`, `0.5/s`, `5/10s`, `10MB/s`, `1.5 GiB/h`.
    ///
    /// # Errors
    /// What is wrong with it.
    ///
    /// # Examples
    /// ```
    /// use juggler_policy::Rate;
    /// use std::time::Duration;
    ///
    /// assert_eq!(Rate::parse("100/m"), Rate::new(100, Duration::from_secs(60)));
    /// assert!(Rate::parse("10MB/s").unwrap().is_bytes());
    /// ```
    pub fn parse(text: &str) -> Result<Self, RateError> {
        let (amount, interval) = text.split_once('/').ok_or(RateError::NoInterval)?;
        let (number, unit) = split_number(amount);
        let (numerator, denominator) = decimal(number).ok_or(RateError::BadAmount)?;
        let bytes = !unit.is_empty();
        let factor = if bytes { bytes_in(unit).ok_or(RateError::BadUnit)? } else { 1 };
        let (count, unit) = split_number(interval);
        let count = if count.is_empty() { 1 } else { count.parse().map_err(|_| RateError::BadInterval)? };
        let unit = nanos_in(unit).ok_or(RateError::BadInterval)?;

        let mut amount = numerator.checked_mul(factor).ok_or(RateError::OutOfRange)?;
        let mut interval = unit.checked_mul(count).ok_or(RateError::OutOfRange)?;
        if amount % denominator == 0 {
            amount /= denominator;
        } else {
            interval = interval.checked_mul(denominator).ok_or(RateError::OutOfRange)?;
        }
        let rate = Self::new(amount, Duration::from_nanos(interval))?;
        Ok(Self { bytes, ..rate })
    }

    /// Whether it was written in a unit of bytes.
    pub fn is_bytes(self) -> bool {
        self.bytes
    }

    /// The burst where none is named: one call, so that calls are spaced evenly; of bytes, what flows in a tenth of a
    /// second.
    pub fn default_burst(self) -> u64 {
        let tenth = u128::from(self.amount) * 100_000_000 / u128::from(self.interval);
        if self.bytes { u64::try_from(tenth).unwrap_or(MOST).max(1) } else { 1 }
    }
}

/// What a text begins with that belongs to a number, and the rest.
fn split_number(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|character: char| !character.is_ascii_digit() && character != '.').unwrap_or(text.len());
    (&text[..end], text[end..].trim())
}

/// A decimal number as a fraction.
fn decimal(text: &str) -> Option<(u64, u64)> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    if part.len() > DECIMALS || (whole.is_empty() && part.is_empty()) {
        return None;
    }
    let denominator = 10_u64.pow(u32::try_from(part.len()).ok()?);
    Some((format!("{whole}{part}").parse().ok()?, denominator))
}

fn bytes_in(unit: &str) -> Option<u64> {
    Some(match unit {
        "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    })
}

fn nanos_in(unit: &str) -> Option<u64> {
    Some(match unit {
        "ms" => 1_000_000,
        "s" | "sec" | "second" => 1_000_000_000,
        "m" | "min" | "minute" => 60_000_000_000,
        "h" | "hour" => 3_600_000_000_000,
        "d" | "day" => 86_400_000_000_000,
        _ => return None,
    })
}

/// A token bucket: full at first, and as fast as its rate in the long run.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    rate: Rate,
    /// What it holds when it is full.
    burst: u64,
    /// When it will be full again, in nanoseconds times the rate's amount.
    full_at: u128,
}

impl Bucket {
    /// A full one.
    ///
    /// # Errors
    /// [`RateError::OutOfRange`] if the burst is nothing or more than a rate can have.
    pub fn new(rate: Rate, burst: u64) -> Result<Self, RateError> {
        if (1..=MOST).contains(&burst) { Ok(Self { rate, burst, full_at: 0 }) } else { Err(RateError::OutOfRange) }
    }

    /// From when on `amount` may be taken, if nobody takes anything before; `now` if at once.
    pub fn ready_at(&self, now: Time, amount: u64) -> Time {
        let spare = u128::from(self.burst - amount.min(self.burst)) * u128::from(self.rate.interval);
        // Rounded up: a nanosecond too early would be too early.
        let ready = self.full_at.saturating_sub(spare).div_ceil(u128::from(self.rate.amount));
        now.max(Time::from_nanos(u64::try_from(ready).unwrap_or(u64::MAX)))
    }

    /// Takes `amount` if that may be now.
    pub fn try_take(&mut self, now: Time, amount: u64) -> bool {
        if self.ready_at(now, amount) > now {
            return false;
        }
        let flows = u128::from(amount) * u128::from(self.rate.interval);
        self.full_at = self.full_at.max(self.scaled(now)).saturating_add(flows);
        true
    }

    /// Becomes as empty as `other`, which has the same rate and burst, if that is emptier.
    pub fn make_up_for(&mut self, other: &Self) {
        self.full_at = self.full_at.max(other.full_at);
    }

    fn scaled(&self, time: Time) -> u128 {
        u128::from(time.as_nanos()) * u128::from(self.rate.amount)
    }
}
