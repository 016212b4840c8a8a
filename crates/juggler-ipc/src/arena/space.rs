//! Which units of an arena are free: best fit, with neighbours joined. Known to the owner only.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// The free units, and which of them have memory.
#[derive(Debug)]
pub struct Space {
    /// Free ranges by their start, and by their length.
    by_start: BTreeMap<usize, usize>,
    by_length: BTreeSet<(usize, usize)>,
    /// Whether a unit was used since its memory was last given back.
    warm: Vec<bool>,
    warm_free: usize,
    free: usize,
}

impl Space {
    /// All of `units` free and without memory.
    pub fn new(units: Range<usize>) -> Self {
        let mut space = Self {
            by_start: BTreeMap::new(),
            by_length: BTreeSet::new(),
            warm: vec![false; units.end],
            warm_free: 0,
            free: units.len(),
        };
        if !units.is_empty() {
            space.insert(units.start, units.len());
        }
        space
    }

    /// Units that are free.
    pub fn free(&self) -> usize {
        self.free
    }

    /// Free units that have memory.
    pub fn warm_free(&self) -> usize {
        self.warm_free
    }

    /// Takes `count` units in a row, of the smallest range that has them; its start, and whether some lack memory.
    pub fn take(&mut self, count: usize) -> Option<(usize, bool)> {
        let &(length, start) = self.by_length.range((count, 0)..).next()?;
        self.remove(start, length);
        if length > count {
            self.insert(start + count, length - count);
        }
        let units = &mut self.warm[start..start + count];
        let warm = units.iter().filter(|warm| **warm).count();
        units.fill(true);
        self.warm_free -= warm;
        self.free -= count;
        Some((start, warm < count))
    }

    /// Gives units back that were taken.
    pub fn give(&mut self, start: usize, count: usize) {
        self.free += count;
        self.warm_free += count;
        let (mut first, mut end) = (start, start + count);
        if let Some((&before, &length)) = self.by_start.range(..start).next_back() {
            debug_assert!(before + length <= start, "freed twice");
            if before + length == start {
                self.remove(before, length);
                first = before;
            }
        }
        if let Some(&length) = self.by_start.get(&end) {
            self.remove(end, length);
            end += length;
        }
        self.insert(first, end - first);
    }

    /// Chooses free units to lose their memory, those behind first, until no more than `keep` free ones have any.
    pub fn cool(&mut self, keep: usize) -> Vec<Range<usize>> {
        let mut cooled = Vec::new();
        for (&start, &length) in self.by_start.iter().rev() {
            let mut end = start + length;
            while end > start && self.warm_free > keep {
                // The last run of warm units in what is left of the range.
                let Some(last) = (start..end).rev().find(|&unit| self.warm[unit]) else { break };
                let mut first = last;
                while first > start && self.warm[first - 1] && self.warm_free - (last + 1 - first) > keep {
                    first -= 1;
                }
                self.warm[first..=last].fill(false);
                self.warm_free -= last + 1 - first;
                cooled.push(first..last + 1);
                end = first;
            }
            if self.warm_free <= keep {
                break;
            }
        }
        cooled
    }

    fn insert(&mut self, start: usize, length: usize) {
        self.by_start.insert(start, length);
        self.by_length.insert((length, start));
    }

    fn remove(&mut self, start: usize, length: usize) {
        self.by_start.remove(&start);
        self.by_length.remove(&(length, start));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against a plain array of flags: nothing overlaps, nothing is lost, what is refused is not there.
        #[test]
        fn behaves_as_an_array_of_flags(steps in prop::collection::vec((0_u8..4, 1_usize..20), 1..200)) {
            const UNITS: Range<usize> = 3..64;
            let mut space = Space::new(UNITS);
            let mut used = [false; UNITS.end];
            let mut warm = [false; UNITS.end];
            let mut taken: Vec<(usize, usize)> = Vec::new();
            for (action, count) in steps {
                match action {
                    0 | 1 => match space.take(count) {
                        Some((start, cold)) => {
                            prop_assert!(start >= UNITS.start && start + count <= UNITS.end);
                            prop_assert!(!used[start..start + count].contains(&true));
                            prop_assert_eq!(cold, warm[start..start + count].contains(&false));
                            used[start..start + count].fill(true);
                            warm[start..start + count].fill(true);
                            taken.push((start, count));
                        }
                        None => prop_assert!(!used[UNITS].windows(count).any(|row| !row.contains(&true))),
                    },
                    2 if !taken.is_empty() => {
                        let (start, count) = taken.swap_remove(count % taken.len());
                        used[start..start + count].fill(false);
                        space.give(start, count);
                    }
                    _ => {
                        for range in space.cool(count) {
                            prop_assert!(!used[range.clone()].contains(&true), "memory in use");
                            warm[range].fill(false);
                        }
                        prop_assert!(space.warm_free() <= count);
                    }
                }
                let free = UNITS.filter(|&unit| !used[unit]).count();
                prop_assert_eq!(space.free(), free);
                prop_assert_eq!(space.warm_free(), UNITS.filter(|&unit| !used[unit] && warm[unit]).count());
            }
        }
    }
}
