//! What the policies promise, on random schedules and a clock that the tests move.

use juggler_policy::circuit::Rules;
use juggler_policy::*;
use proptest::prelude::*;
use std::collections::HashMap;
use std::time::Duration;

fn time(nanos: u64) -> Time {
    Time::from_nanos(nanos)
}

/// In every window, no more than the burst and what flows in meanwhile. Exactly, in integers.
fn within_rate(taken: &[(Time, u64)], amount: u64, interval: Duration, burst: u64) -> Result<(), TestCaseError> {
    for (first, &(from, one)) in taken.iter().enumerate() {
        let burst = u128::from(burst.max(one));
        let (mut sum, mut largest) = (0, burst);
        for &(to, one) in &taken[first..] {
            sum += u128::from(one);
            largest = largest.max(u128::from(one));
            let flown = from.until(to).as_nanos() * u128::from(amount);
            prop_assert!((sum - sum.min(largest)) * interval.as_nanos() <= flown, "{sum} from {from:?} to {to:?}");
        }
    }
    Ok(())
}

fn rates() -> impl Strategy<Value = (u64, Duration, u64)> {
    (1_u64..2000, 1_u64..3_000_000_000, 1_u64..50)
        .prop_map(|(amount, nanos, burst)| (amount, Duration::from_nanos(nanos), burst))
}

proptest! {
    #[test]
    fn a_bucket_never_exceeds_its_rate_in_any_window(
        (amount, interval, burst) in rates(),
        asks in prop::collection::vec((0_u64..200_000_000, 1_u64..70, any::<bool>()), 1..60),
    ) {
        let mut bucket = Bucket::new(Rate::new(amount, interval).unwrap(), burst).unwrap();
        let (mut now, mut taken) = (0, Vec::new());
        for (pause, wanted, waits) in asks {
            now += pause;
            if waits {
                now = bucket.ready_at(time(now), wanted).as_nanos();
                prop_assert!(bucket.try_take(time(now), wanted), "the bucket's own word did not hold");
                taken.push((time(now), wanted));
            } else if bucket.try_take(time(now), wanted) {
                taken.push((time(now), wanted));
            }
        }
        within_rate(&taken, amount, interval, burst)?;
    }

    #[test]
    fn a_bucket_is_as_fast_as_its_rate(
        (amount, interval, burst) in rates(), calls in 1_u64..100,
    ) {
        let mut bucket = Bucket::new(Rate::new(amount, interval).unwrap(), burst).unwrap();
        let mut now = time(0);
        for _ in 0..calls {
            now = bucket.ready_at(now, 1);
            prop_assert!(bucket.try_take(now, 1));
        }
        // Each wait is rounded up to a nanosecond.
        let waits = u128::from(calls.saturating_sub(burst));
        let exact = (waits * interval.as_nanos()).div_ceil(u128::from(amount));
        prop_assert!((exact..=exact + waits).contains(&u128::from(now.as_nanos())), "{now:?} instead of {exact}");
    }

    #[test]
    fn a_line_before_a_bucket_is_served_in_order_and_wastes_nothing_on_those_who_leave(
        (amount, interval, burst) in rates(),
        steps in prop::collection::vec((0_u64..50_000_000, 1_u64..9, 0..4), 1..80),
    ) {
        let mut pace = Pace::new(Bucket::new(Rate::new(amount, interval).unwrap(), burst).unwrap());
        let mut model = Bucket::new(Rate::new(amount, interval).unwrap(), burst).unwrap();
        let mut line: Vec<(Ticket, u64)> = Vec::new();
        let (mut now, mut taken) = (0, Vec::new());
        for (ticket, (pause, wanted, action)) in (1..).zip(steps) {
            now += pause;
            let at = time(now);
            match action {
                0 | 1 => {
                    if pace.try_take(at, wanted) {
                        prop_assert!(line.is_empty() && model.try_take(at, wanted));
                        taken.push((at, wanted));
                    } else {
                        prop_assert_eq!(pace.join(ticket), line.is_empty());
                        line.push((ticket, wanted));
                    }
                }
                2 if !line.is_empty() => {
                    let (gone, _) = line.remove(usize::try_from(wanted).unwrap() % line.len());
                    if !pace.abandon(gone) {
                        prop_assert_eq!(pace.leave(), line.first().map(|&(next, _)| next));
                    }
                }
                _ => while let Some(&(_, wanted)) = line.first() {
                    match pace.take(at, wanted) {
                        Err(later) => {
                            prop_assert!(later > at && later == model.ready_at(at, wanted));
                            break;
                        }
                        Ok(()) => {
                            prop_assert!(model.try_take(at, wanted));
                            taken.push((at, wanted));
                            line.remove(0);
                            prop_assert_eq!(pace.leave(), line.first().map(|&(next, _)| next));
                        }
                    }
                },
            }
        }
        within_rate(&taken, amount, interval, burst)?;
    }

    #[test]
    fn never_more_than_the_limit_are_inside_and_all_get_in_by_turns(
        most in 1_usize..6, steps in prop::collection::vec((0..3, any::<prop::sample::Index>()), 1..120),
    ) {
        let mut limit = Limit::new(most);
        let (mut inside, mut line): (usize, Vec<Ticket>) = (0, Vec::new());
        for (ticket, (action, which)) in (1..).zip(steps) {
            match action {
                0 => {
                    let entered = limit.enter(ticket);
                    prop_assert_eq!(entered, inside < most);
                    if entered { inside += 1 } else { line.push(ticket) }
                }
                1 if inside > 0 => {
                    let next = (!line.is_empty()).then(|| line.remove(0));
                    prop_assert_eq!(limit.leave(), next);
                    inside -= usize::from(next.is_none());
                }
                2 if !line.is_empty() => {
                    let gone = line.remove(which.index(line.len()));
                    prop_assert!(limit.abandon(gone) && !limit.abandon(gone));
                }
                _ => {}
            }
            prop_assert_eq!((limit.inside(), limit.waiting()), (inside, line.len()));
            prop_assert!(limit.inside() <= most && (line.is_empty() || inside == most));
        }
    }

    #[test]
    fn no_attempt_begins_at_the_deadline_or_after_it_nor_before_the_server_allows(
        attempts in 1_u32..12,
        base in 0_u64..2_000, cap in 1_u64..5_000, jitter in 0..4_usize,
        longest in 0_u64..10_000, budget in 0_u64..60_000,
        calls in prop::collection::vec((0_u64..3_000, prop::option::of(0_u64..20_000), 0.0..1.0), 12),
    ) {
        let jitter = [Jitter::None, Jitter::Full, Jitter::Equal, Jitter::Decorrelated][jitter];
        let (base, cap) = (Duration::from_millis(base), Duration::from_millis(cap));
        let longest = Duration::from_millis(longest);
        let retry = Retry { attempts, backoff: Backoff { base, cap, jitter }, longest };
        let latest = time(0).after(Duration::from_millis(budget));
        let (mut now, mut made) = (time(0), Attempts::default());
        let mut begun = 1;
        for (took, asked, random) in calls {
            now = now.after(Duration::from_millis(took));
            let asked = asked.map(Duration::from_millis);
            match retry.next(&mut made, now, asked, latest, random) {
                Ok(begins) => {
                    begun += 1;
                    prop_assert!(begins < latest && begun <= attempts);
                    let wait = now.until(begins);
                    prop_assert!(wait >= asked.unwrap_or_default().min(longest));
                    prop_assert!(wait <= cap.max(asked.unwrap_or_default().min(longest)));
                    now = begins;
                }
                Err(GiveUp::Attempts) => {
                    prop_assert_eq!(begun, attempts);
                    return Ok(());
                }
                Err(GiveUp::Deadline(wait)) => {
                    prop_assert!(now.after(wait) >= latest);
                    return Ok(());
                }
            }
        }
    }

    #[test]
    fn waits_stay_between_what_their_jitter_promises(
        base in 1_u64..1_000, cap in 1_u64..100_000, attempt in 1_u32..80, random in 0.0..1.0, before in 0_u64..9_000,
    ) {
        let (base, cap) = (Duration::from_millis(base), Duration::from_millis(cap));
        let before = Duration::from_millis(before);
        let wait = |jitter| Backoff { base, cap, jitter }.wait(attempt, before, random);
        let whole = wait(Jitter::None);
        prop_assert_eq!(whole, cap.min(base.saturating_mul(2_u32.saturating_pow(attempt - 1))));
        prop_assert!(wait(Jitter::Full) <= whole);
        prop_assert!((whole / 2..=whole).contains(&wait(Jitter::Equal)));
        let decorrelated = wait(Jitter::Decorrelated);
        prop_assert!(base.min(cap) <= decorrelated && decorrelated <= cap.min(before.max(base) * 3).max(base.min(cap)));
    }

    #[test]
    fn each_key_has_its_limit_though_only_so_many_are_remembered(
        most in 1_usize..3, room in 1_usize..5, steps in prop::collection::vec((0_u8..8, any::<bool>()), 1..200),
    ) {
        let mut keyed = Keyed::new(Limit::new(most), room);
        let mut inside: HashMap<u8, usize> = HashMap::new();
        let mut peak = 0;
        for (key, enters) in steps {
            let count = inside.entry(key).or_default();
            if enters {
                prop_assert_eq!(keyed.state(key).try_enter(), *count < most);
                *count = most.min(*count + 1);
            } else if *count > 0 {
                prop_assert_eq!(keyed.state(key).inside(), *count);
                prop_assert_eq!(keyed.state(key).leave(), None);
                *count -= 1;
            }
            peak = peak.max(inside.values().filter(|&&count| count > 0).count());
            prop_assert!(keyed.len() <= room.max(peak + 1), "{} states, at most {peak} in use", keyed.len());
        }
    }

    #[test]
    fn each_key_keeps_to_its_rate_though_only_so_many_are_remembered(
        (amount, interval, burst) in rates(), room in 1_usize..4,
        asks in prop::collection::vec((0_u64..20_000_000, 0_u8..8), 1..200),
    ) {
        let bucket = Bucket::new(Rate::new(amount, interval).unwrap(), burst).unwrap();
        let mut keyed = Keyed::new(Pace::new(bucket), room);
        let mut taken: HashMap<u8, Vec<(Time, u64)>> = HashMap::new();
        let mut now = 0;
        for (pause, key) in asks {
            now += pause;
            if keyed.state(key).try_take(time(now), 1) {
                taken.entry(key).or_default().push((time(now), 1));
            }
            prop_assert!(keyed.len() <= room);
        }
        for taken in taken.values() {
            within_rate(taken, amount, interval, burst)?;
        }
    }

    #[test]
    fn an_open_circuit_lets_nobody_through_and_a_half_open_one_only_trials(
        failures in 1_u32..4, trials in 1_u32..4, reset in 1_u64..100,
        steps in prop::collection::vec((0_u64..60, any::<bool>(), 0..3_usize, any::<prop::sample::Index>()), 1..150),
    ) {
        let rules = Rules { failures, reset: Duration::from_nanos(reset), trials };
        let mut breaker = Breaker::new(rules);
        let mut running: Vec<u64> = Vec::new();
        let (mut now, mut in_a_row, mut open_until, mut trial) = (0, 0, None, None::<(u64, u32)>);
        for (pause, admits, outcome, which) in steps {
            now += pause;
            if admits {
                match breaker.admit(time(now)) {
                    Ok(generation) => {
                        if let Some(until) = open_until.take() {
                            prop_assert!(now >= until, "open until {until}, and let through at {now}");
                            trial = Some((generation, 0));
                        }
                        if let Some((of, begun)) = &mut trial {
                            prop_assert_eq!(*of, generation);
                            *begun += 1;
                            prop_assert!(*begun <= trials);
                        }
                        running.push(generation);
                    }
                    Err(Refused { until }) => match open_until {
                        Some(open) => prop_assert!(until == Some(time(open)) && now < open),
                        None => prop_assert_eq!(trial.map(|(_, begun)| begun), Some(trials)),
                    },
                }
            } else if !running.is_empty() {
                let generation = running.swap_remove(which.index(running.len()));
                let outcome = [Outcome::Success, Outcome::Failure, Outcome::Neither][outcome];
                let counts = breaker.generation() == generation && open_until.is_none();
                breaker.record(time(now), generation, outcome);
                if !counts { continue }
                match (outcome, &mut trial) {
                    (Outcome::Failure, Some(_)) => (trial, open_until, in_a_row) = (None, Some(now + reset), 0),
                    (Outcome::Failure, None) => {
                        in_a_row += 1;
                        if in_a_row == failures {
                            (open_until, in_a_row) = (Some(now + reset), 0);
                        }
                    }
                    (Outcome::Success, None) => in_a_row = 0,
                    (Outcome::Success, Some(_)) if breaker.generation() != generation => trial = None,
                    (Outcome::Neither, Some((_, begun))) => *begun -= 1,
                    _ => {}
                }
            }
        }
    }

    #[test]
    fn a_rate_is_read_as_it_is_written(
        amount in 1_u64..1_000_000, count in 1_u64..100, unit in 0..5_usize, bytes in 0..4_usize,
    ) {
        let (unit, nanos) = [("ms", 1_000_000), ("s", 1_000_000_000), ("min", 60_000_000_000), ("h", 3_600_000_000_000),
            ("d", 86_400_000_000_000)][unit];
        let (suffix, factor) = [("", 1), ("B", 1), ("kB", 1_000), (" MiB", 1 << 20)][bytes];
        let rate = Rate::parse(&format!(" {amount}{suffix} / {count}{unit}"));
        match Rate::new(amount * factor, Duration::from_nanos(count * nanos)) {
            Ok(plain) => {
                let burst = rate.unwrap();
                prop_assert_eq!(burst.is_bytes(), bytes > 0);
                let ready = |rate| {
                    let mut bucket = Bucket::new(rate, 1).unwrap();
                    bucket.try_take(time(0), 12_345);
                    bucket.ready_at(time(0), 1)
                };
                prop_assert_eq!(ready(burst), ready(plain));
            }
            Err(error) => prop_assert_eq!(rate, Err(error)),
        }
    }
}

#[test]
fn fractions_and_mistakes_in_rates() {
    assert_eq!(Rate::parse("0.5/s"), Rate::new(5, Duration::from_secs(10)));
    assert_eq!(Rate::parse("2.50/m"), Rate::new(250, Duration::from_secs(6000)));
    assert!(Rate::parse("1.5 MB/s").is_ok_and(Rate::is_bytes));
    for (text, error) in [
        ("20", RateError::NoInterval),
        ("", RateError::NoInterval),
        ("fast/s", RateError::BadAmount),
        ("1.2.3/s", RateError::BadAmount),
        ("./s", RateError::BadAmount),
        ("-1/s", RateError::BadAmount),
        ("10mb/s", RateError::BadUnit),
        ("20/", RateError::BadInterval),
        ("20/fortnight", RateError::BadInterval),
        ("20/1.5s", RateError::BadInterval),
        ("0/s", RateError::OutOfRange),
        ("20/0s", RateError::OutOfRange),
        ("9000000TB/s", RateError::OutOfRange),
    ] {
        assert_eq!(Rate::parse(text), Err(error), "{text}");
    }
}

#[test]
fn a_burst_is_one_call_or_a_tenth_of_a_second_of_bytes() {
    let burst = |text| Rate::parse(text).unwrap().default_burst();
    assert_eq!((burst("200/s"), burst("10MB/s"), burst("1B/h")), (1, 1_000_000, 1));
}

#[test]
fn a_hedge_waits_for_the_share_of_calls_that_it_was_told() {
    let ms = Duration::from_millis;
    let mut hedge = Hedge::new(After::Quantile(0.9, ms(500)), 3);
    assert_eq!(hedge.patience(1), Some(ms(500)), "nothing is known yet");
    for took in 1..=100 {
        hedge.record(ms(took));
    }
    assert_eq!((hedge.patience(1), hedge.patience(2), hedge.patience(3)), (Some(ms(91)), Some(ms(91)), None));
    for _ in 0..128 {
        hedge.record(ms(7));
    }
    assert_eq!(hedge.patience(1), Some(ms(7)), "old calls are forgotten");
    assert_eq!(Hedge::new(After::Fixed(ms(3)), 2).patience(1), Some(ms(3)));
}
