//! Going through a list of a million once, and giving its memory back on the way.

/// Elements after which memory is given back.
const PIECE: usize = 32_768;

/// The elements of a list, in order.
#[derive(Debug)]
pub(super) struct Draining<T> {
    /// Last to first: what is at the end can be given back.
    left: Vec<T>,
}

impl<T> Draining<T> {
    pub(super) fn new(mut elements: Vec<T>) -> Self {
        elements.reverse();
        Self { left: elements }
    }
}

impl<T> Iterator for Draining<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        let next = self.left.pop()?;
        if self.left.len().is_multiple_of(PIECE) {
            // A block of this size shrinks where it stands (mremap(2)).
            self.left.shrink_to_fit();
        }
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_come_in_order_and_memory_goes_with_them() {
        let count = 3 * PIECE + 5;
        let mut draining = Draining::new((0..count).collect());
        for number in 0..count {
            assert_eq!(draining.next(), Some(number));
            assert!(draining.left.capacity() <= draining.left.len() + PIECE, "at {number}");
        }
        assert_eq!((draining.next(), draining.left.capacity()), (None, 0));
    }
}
