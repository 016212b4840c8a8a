//! The ring against a model of a few lines, and on memory with arbitrary contents.
#![cfg(not(loom))]
#![allow(unsafe_code)]

use juggler_ipc::ring::{PushError, Ring, SOFT};
use juggler_ipc::segment::Segment;
use juggler_sync::sync::{AtomicU64, Ordering};
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::VecDeque;

const LENGTH: usize = 4 * SOFT;
const START: usize = 4096;

#[derive(Clone, Debug)]
enum Step {
    Push(u8, usize),
    Pop,
    Trim,
}

fn step() -> impl Strategy<Value = Step> {
    let length = prop_oneof![3 => 0..100_usize, 3 => 0..SOFT / 3, 1 => 0..LENGTH];
    prop_oneof![
        5 => (1..=254_u8, length).prop_map(|(kind, length)| Step::Push(kind, length)),
        4 => Just(Step::Pop),
        1 => Just(Step::Trim),
    ]
}

/// The frame at the head, taken out.
fn pop(ring: &Ring<'_>) -> Option<(u8, Vec<u8>)> {
    let frame = ring.front().expect("nobody writes nonsense")?;
    // SAFETY: the payload is readable, and nobody writes there before the pop.
    let payload = unsafe { std::slice::from_raw_parts(frame.start.as_ptr(), frame.length) }.to_vec();
    ring.pop(frame);
    Some((frame.kind, payload))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn frames_come_out_as_they_went_in(steps in vec(step(), 1..400)) {
        let segment = Segment::create(c"test", LENGTH).unwrap();
        let ring = Ring::new(&segment, 256, START).unwrap();
        let mut model = VecDeque::new();
        for (at, step) in steps.into_iter().enumerate() {
            match step {
                Step::Push(kind, length) => {
                    let payload = vec![at as u8; length];
                    match ring.push(kind, &[&payload[..]]) {
                        Ok(()) => model.push_back((kind, payload)),
                        Err(PushError::TooLong) => prop_assert!(length + 16 > LENGTH - START - 8),
                        Err(PushError::Full) => prop_assert!(!model.is_empty() || length > (LENGTH - START) / 2 - 16),
                        Err(error) => prop_assert!(false, "{:?}", error),
                    }
                }
                Step::Pop => prop_assert_eq!(pop(&ring), model.pop_front()),
                Step::Trim => ring.trim(),
            }
            prop_assert_eq!(ring.len(), model.len());
        }
        while let Some(frame) = model.pop_front() {
            prop_assert_eq!(pop(&ring), Some(frame));
        }
        prop_assert!(pop(&ring).is_none());
    }

    /// Whatever the words and headers say, nothing outside is reached, and nothing panics.
    #[test]
    fn arbitrary_memory_is_an_error_or_a_frame_within(
        words in prop::array::uniform4(word()),
        memory in vec((0..LENGTH / 8 - 600, word()), 0..64),
        pushed in 0..SOFT,
    ) {
        let segment = Segment::create(c"test", LENGTH).unwrap();
        let all = segment.array::<AtomicU64>(0, LENGTH / 8).unwrap();
        for (at, value) in memory {
            all[START / 8 + at].store(value, Ordering::Relaxed);
        }
        // Tail, touched, head, and a header where the head points.
        for (at, value) in [32, 33, 40].into_iter().zip(words) {
            all[at].store(value, Ordering::Relaxed);
        }
        let header = START / 8 + (words[2] & ((1 << 30) - 1)) as usize;
        if let Some(header) = all.get(header) {
            header.store(words[3], Ordering::Relaxed);
        }
        let ring = Ring::new(&segment, 256, START).unwrap();
        let (first, last) = (all.as_ptr_range().start as usize + START, all.as_ptr_range().end as usize);
        for _ in 0..20 {
            if let Ok(Some(frame)) = ring.front() {
                let start = frame.start.as_ptr() as usize;
                prop_assert!(start >= first && start + frame.length <= last);
                ring.pop(frame);
            }
            let _ = ring.push(1, &[&vec![1; pushed][..]]);
        }
    }
}

/// A word as a process gone wrong may write it: anything, or small parts that nearly make sense.
fn word() -> impl Strategy<Value = u64> {
    let nearly = (0..LENGTH as u64 / 8 + 2, 0..4_u64, 0..4_u64).prop_map(|(a, b, c)| a | b << 30 | c << 32);
    let header = (any::<u8>(), 0..LENGTH as u64 + 16).prop_map(|(kind, length)| u64::from(kind) | length << 8);
    prop_oneof![any::<u64>(), nearly, header]
}
