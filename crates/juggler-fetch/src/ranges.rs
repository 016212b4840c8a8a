//! Which bytes of a file are there.

use std::fmt;
use std::str::FromStr;

/// Ranges of bytes, from the first included to the last excluded: in order, none empty, and none touching another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    /// The first `length` bytes.
    pub fn first(length: u64) -> Self {
        let mut ranges = Self::default();
        ranges.add(0, length);
        ranges
    }

    /// Adds the bytes from `from` on and before `to`, some of which may be there.
    pub fn add(&mut self, mut from: u64, mut to: u64) {
        if from >= to {
            return;
        }
        let begin = self.0.partition_point(|range| range.1 < from);
        let end = self.0.partition_point(|range| range.0 <= to);
        if begin < end {
            (from, to) = (from.min(self.0[begin].0), to.max(self.0[end - 1].1));
        }
        self.0.splice(begin..end, [(from, to)]);
    }

    /// Forgets the bytes from `end` on.
    pub fn cut(&mut self, end: u64) {
        self.0.retain_mut(|range| {
            range.1 = range.1.min(end);
            range.0 < range.1
        });
    }

    /// How many bytes are there.
    pub fn sum(&self) -> u64 {
        self.0.iter().map(|range| range.1 - range.0).sum()
    }

    /// How many are there from the first on without a gap.
    pub fn prefix(&self) -> u64 {
        self.0.first().filter(|range| range.0 == 0).map_or(0, |range| range.1)
    }

    /// What is missing before `end`.
    pub fn gaps(&self, end: u64) -> Vec<(u64, u64)> {
        let starts = std::iter::once(0).chain(self.0.iter().map(|range| range.1));
        let ends = self.0.iter().map(|range| range.0).chain([end]);
        starts.zip(ends).map(|(from, to)| (from, to.min(end))).filter(|(from, to)| from < to).collect()
    }
}

impl fmt::Display for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (from, to)) in self.0.iter().enumerate() {
            write!(f, "{}{from}-{to}", if number == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl FromStr for Ranges {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut ranges = Self::default();
        for range in text.split(',').filter(|range| !range.is_empty()) {
            let (from, to) = range.split_once('-').ok_or(())?;
            ranges.add(from.parse().map_err(|_| ())?, to.parse().map_err(|_| ())?);
        }
        Ok(ranges)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_touches_becomes_one() {
        let mut ranges = Ranges::first(3);
        ranges.add(5, 8);
        ranges.add(9, 9);
        assert_eq!((ranges.to_string().as_str(), ranges.sum(), ranges.prefix()), ("0-3,5-8", 6, 3));
        assert_eq!(ranges.gaps(10), [(3, 5), (8, 10)]);
        assert_eq!(ranges.gaps(4), [(3, 4)]);
        ranges.add(3, 5);
        assert_eq!(ranges, Ranges::first(8));
        ranges.cut(7);
        assert_eq!((ranges.prefix(), ranges.gaps(7)), (7, vec![]));
        assert_eq!("1-2,x".parse::<Ranges>(), Err(()));
    }

    proptest! {
        #[test]
        fn as_a_set_of_bytes(added in prop::collection::vec((0_u64..60, 0_u64..60), 0..12), end in 0_u64..70) {
            let mut ranges = Ranges::default();
            let mut there = [false; 70];
            for (from, to) in added {
                ranges.add(from, to);
                (from..to).for_each(|byte| there[byte as usize] = true);
            }
            let missing = |byte: u64| ranges.gaps(70).iter().any(|gap| (gap.0..gap.1).contains(&byte));
            for byte in 0..70 {
                prop_assert_eq!(there[byte as usize], !missing(byte));
            }
            prop_assert_eq!(ranges.sum(), there.iter().filter(|byte| **byte).count() as u64);
            prop_assert!(ranges.0.windows(2).all(|pair| pair[0].1 < pair[1].0));
            prop_assert_eq!(ranges.to_string().parse::<Ranges>().as_ref(), Ok(&ranges));
            ranges.cut(end);
            prop_assert_eq!(ranges.sum(), there[..end as usize].iter().filter(|byte| **byte).count() as u64);
        }
    }
}
