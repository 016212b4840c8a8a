//! A binary heap whose comparison may fail, and then has changed nothing.
//!
//! Order and comparisons are those of CPython's `heapq` (the bottom-up heapsort variant: the hole sinks to a leaf along
//! the smaller children, then the last element rises from there), so that equal elements come out in the same order as
//! from the standard library. Unlike there, all comparisons of an operation come first and the elements move after:
//! an error in between leaves the heap whole.
//!
//! Source: D. Knuth, The Art of Computer Programming, volume 3, 5.2.3, exercise 18.

/// Adds `item`.
///
/// # Errors
/// The item, and `less`'s error.
pub fn push<T, E>(heap: &mut Vec<T>, item: T, mut less: impl FnMut(&T, &T) -> Result<bool, E>) -> Result<(), (T, E)> {
    let mut hole = heap.len();
    while hole > 0 {
        let parent = (hole - 1) / 2;
        match less(&item, &heap[parent]) {
            Ok(true) => hole = parent,
            Ok(false) => break,
            Err(error) => return Err((item, error)),
        }
    }
    // Every element between the hole and the end of the path moves down one step.
    let mut at = heap.len();
    heap.push(item);
    while at > hole {
        let parent = (at - 1) / 2;
        heap.swap(at, parent);
        at = parent;
    }
    Ok(())
}

/// Takes the smallest element, `None` from an empty heap.
///
/// # Errors
/// `less`'s.
pub fn pop<T, E>(heap: &mut Vec<T>, mut less: impl FnMut(&T, &T) -> Result<bool, E>) -> Result<Option<T>, E> {
    let Some(end) = heap.len().checked_sub(1) else { return Ok(None) };
    // The path of the hole from the root to a leaf among the elements before the last, which will fill it.
    let mut path = [0usize; usize::BITS as usize];
    let mut depth = 0;
    let mut at = 0;
    while 2 * at + 1 < end {
        let left = 2 * at + 1;
        let right = left + 1;
        at = if right < end && !less(&heap[left], &heap[right])? { right } else { left };
        depth += 1;
        path[depth] = at;
    }
    while depth > 0 && less(&heap[end], &heap[path[depth]])? {
        depth -= 1;
    }
    for step in 0..depth {
        heap.swap(path[step], path[step + 1]);
    }
    Ok(Some(heap.swap_remove(path[depth])))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::convert::Infallible;

    fn less(a: &i32, b: &i32) -> Result<bool, Infallible> {
        Ok(a < b)
    }

    proptest! {
        #[test]
        fn sorts(items: Vec<i32>) {
            let mut heap = Vec::new();
            for &item in &items {
                push(&mut heap, item, less).unwrap();
            }
            let mut sorted = items;
            sorted.sort_unstable();
            let out: Vec<i32> = std::iter::from_fn(|| pop(&mut heap, less).unwrap()).collect();
            prop_assert_eq!(out, sorted);
        }

        #[test]
        fn a_failed_comparison_changes_nothing(items: Vec<i32>, fails_at in 0usize..12, item: i32) {
            let mut heap = Vec::new();
            for &item in &items {
                push(&mut heap, item, less).unwrap();
            }
            let before = heap.clone();
            let mut left = fails_at;
            let mut failing = |a: &i32, b: &i32| {
                if left == 0 {
                    return Err(());
                }
                left -= 1;
                Ok(a < b)
            };
            match pop(&mut heap, &mut failing) {
                Err(()) => prop_assert_eq!(&heap, &before),
                Ok(smallest) => {
                    prop_assert_eq!(smallest, before.iter().min().copied());
                    heap.clone_from(&before);
                }
            }
            let length = heap.len();
            match push(&mut heap, item, &mut failing) {
                Err((back, ())) => {
                    prop_assert_eq!(back, item);
                    prop_assert_eq!(&heap, &before);
                }
                Ok(()) => prop_assert_eq!(heap.len(), length + 1),
            }
        }
    }
}
