//! Room for payloads that don't fit their slots: a part of the pool's segment, in which one process allocates.
//!
//! The parent has a region for arguments, each desk one for results. What a worker wrote stays when it dies; who sits
//! down at its desk next finds in the slots what is still to be read.

use std::collections::BTreeMap;

/// Where payloads begin: on cache lines of their own.
const ALIGNMENT: usize = 64;

/// Which bytes of a region are taken. Next fit: behind the last, then anywhere.
#[derive(Debug)]
pub struct Region {
    start: usize,
    end: usize,
    /// Beginnings and ends, as offsets in the segment.
    taken: BTreeMap<usize, usize>,
    cursor: usize,
    /// Behind everything that was ever taken since [`Region::excess`] was asked.
    highest: usize,
}

impl Region {
    /// The bytes from `start` to `end` of the segment, both aligned.
    pub fn new(start: usize, end: usize) -> Self {
        Self { start, end, taken: BTreeMap::new(), cursor: start, highest: start }
    }

    /// Takes `length` bytes, more than none; where they begin.
    pub fn take(&mut self, length: usize) -> Option<usize> {
        let length = length.checked_next_multiple_of(ALIGNMENT)?;
        let at = self.gap(self.cursor, length).or_else(|| {
            std::iter::once(self.start).chain(self.taken.values().copied()).find_map(|end| self.gap(end, length))
        })?;
        self.reserve(at, length);
        Some(at)
    }

    /// `at`, if the bytes from there are free.
    fn gap(&self, at: usize, length: usize) -> Option<usize> {
        let next = self.taken.range(at..).next().map_or(self.end, |(&start, _)| start);
        (next.checked_sub(at)? >= length).then_some(at)
    }

    /// Marks bytes as taken that somebody else took. What can't be, as it lies elsewhere, is none of this region's.
    pub fn reserve(&mut self, at: usize, length: usize) {
        let end = length.checked_next_multiple_of(ALIGNMENT).and_then(|length| at.checked_add(length));
        let Some(end) = end.filter(|&end| at >= self.start && end <= self.end) else { return };
        self.taken.insert(at, end);
        self.cursor = end;
        self.highest = self.highest.max(end);
    }

    /// Gives back what was taken at `at`.
    pub fn give_back(&mut self, at: usize) {
        self.taken.remove(&at);
        if self.taken.is_empty() {
            self.cursor = self.start;
        }
    }

    /// If nothing is taken and more than `keep` bytes were: the rest, whose memory may go.
    pub fn excess(&mut self, keep: usize) -> Option<(usize, usize)> {
        let kept = self.start + keep;
        if !self.taken.is_empty() || self.highest <= kept {
            return None;
        }
        let highest = std::mem::replace(&mut self.highest, kept);
        Some((kept, highest - kept))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_is_taken_again() {
        let mut region = Region::new(4096, 4096 + 640);
        let all: Vec<_> = std::iter::from_fn(|| region.take(64)).collect();
        assert_eq!(all.len(), 10);
        assert_eq!(region.take(1), None);
        region.give_back(all[3]);
        region.give_back(all[4]);
        assert_eq!(region.take(129), None);
        assert_eq!(region.take(100), Some(all[3]));
        assert_eq!(region.take(1), None);
    }

    #[test]
    fn room_is_found_beside_what_somebody_else_took() {
        let mut region = Region::new(4096, 4096 + 640);
        region.reserve(4096, 64);
        region.reserve(4096 + 576, 64);
        assert_eq!(region.take(64), Some(4096 + 64));
        assert_eq!(region.take(448), Some(4096 + 128));
        assert_eq!(region.take(1), None);
        region.give_back(4096);
        region.reserve(4096, 64);
        region.give_back(4096 + 576);
        assert_eq!(region.take(64), Some(4096 + 576), "behind what begins at the cursor");
    }

    #[test]
    fn a_region_that_was_full_gives_its_memory_back_once() {
        let mut region = Region::new(0, 1 << 20);
        let at = region.take(1 << 20).unwrap();
        assert_eq!(region.excess(4096), None);
        region.give_back(at);
        assert_eq!(region.excess(4096), Some((4096, (1 << 20) - 4096)));
        assert_eq!(region.excess(4096), None);
        assert_eq!(region.take(1), Some(0));
    }
}
