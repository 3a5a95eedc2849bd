//! The order in which an epoch sees its samples, and where it is cut into batches.

use super::draws::{Draws, Generator, Purpose};
use super::split::shuffle;
use crate::error::{Error, Result};
use std::ops::Range;

/// Cuts a number of samples into batches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loader {
    samples: usize,
    batch_size: usize,
}

impl Loader {
    /// Batches of `batch_size`, the last one smaller where they don't divide evenly.
    pub fn new(samples: usize, batch_size: usize) -> Result<Loader> {
        if batch_size == 0 || samples == 0 {
            return Err(Error::invalid(format!("loader: cannot cut {samples} samples into batches of {batch_size}")));
        }
        Ok(Loader { samples, batch_size })
    }

    /// The batches, as ranges of an epoch's order.
    pub fn batches(&self) -> impl ExactSizeIterator<Item = Range<usize>> + use<> {
        let (samples, size) = (self.samples, self.batch_size);
        (0..samples.div_ceil(size)).map(move |b| b * size..(b * size + size).min(samples))
    }

    /// The order of an epoch: the numbers `0..samples`, shuffled by (seed, epoch) alone.
    pub fn order(&self, seed: u64, epoch: u32, generator: Generator) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.samples).collect();
        shuffle(&mut order, &mut Draws::new(generator, seed, Purpose::Shuffle, epoch, 0));
        order
    }
}

#[cfg(test)]
mod tests {
    use super::super::draws::mix;
    use super::*;

    #[test]
    fn the_last_batch_may_be_smaller() {
        let ranges = |n, b| Loader::new(n, b).unwrap().batches().collect::<Vec<_>>();
        assert_eq!(ranges(7, 3), [0..3, 3..6, 6..7]);
        assert_eq!(ranges(6, 3), [0..3, 3..6]);
        assert_eq!(ranges(2, 3), vec![0..2; 1]);
        assert_eq!(Loader::new(7, 3).unwrap().batches().len(), 3);
        assert_eq!(Loader::new(7, 0).unwrap_err().message(), "loader: cannot cut 7 samples into batches of 0");
    }

    #[test]
    fn an_epoch_has_its_own_order() {
        let l = Loader::new(100, 32).unwrap();
        let first = l.order(1, 0, mix);
        assert_eq!(first, l.order(1, 0, mix));
        assert_ne!(first, l.order(1, 1, mix));
        assert_ne!(first, l.order(2, 0, mix));
        let mut sorted = first;
        sorted.sort_unstable();
        assert_eq!(sorted, (0..100).collect::<Vec<_>>());
    }
}
