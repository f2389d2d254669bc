//! The median of numbers that keep coming.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Two halves: all of the lower one are at most the median, all of the upper one at least.
#[derive(Debug, Default)]
pub(super) struct Median {
    lower: BinaryHeap<u64>,
    upper: BinaryHeap<Reverse<u64>>,
}

impl Median {
    /// How many numbers have come.
    pub fn n(&self) -> usize {
        self.lower.len() + self.upper.len()
    }

    /// The median; the lower one of two.
    pub fn get(&self) -> Option<u64> {
        self.lower.peek().copied()
    }

    /// Takes one more number in.
    pub fn add(&mut self, number: u64) {
        self.lower.push(number);
        if let Some(most) = self.lower.pop() {
            self.upper.push(Reverse(most));
        }
        if self.upper.len() > self.lower.len()
            && let Some(Reverse(least)) = self.upper.pop()
        {
            self.lower.push(least);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_that_of_the_sorted_numbers() {
        let (mut median, mut sorted) = (Median::default(), Vec::new());
        assert_eq!(median.get(), None);
        for number in [5, 1, 9, 9, 2, 0, 7, 7, 3] {
            median.add(number);
            sorted.push(number);
            sorted.sort_unstable();
            assert_eq!((median.get(), median.n()), (Some(sorted[(sorted.len() - 1) / 2]), sorted.len()));
        }
    }
}
