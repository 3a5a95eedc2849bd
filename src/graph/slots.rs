//! Slots: what of a node is data. Floats, and unsigned integers (positions, seeds, step counters).

use smallvec::SmallVec;

/// The floats and integers that a node carries as data.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Slots {
    /// Learning rates, slopes, epsilons, a user's `x * 0.37`.
    pub floats: SmallVec<[f64; 2]>,
    /// Positions, seeds, offsets, step counters.
    pub ints: SmallVec<[u64; 2]>,
}

impl Slots {
    /// No data.
    pub fn none() -> Slots {
        Slots::default()
    }

    /// Floats only.
    pub fn floats(values: &[f64]) -> Slots {
        Slots { floats: SmallVec::from_slice(values), ints: SmallVec::new() }
    }

    /// Integers only.
    pub fn ints(values: &[u64]) -> Slots {
        Slots { floats: SmallVec::new(), ints: SmallVec::from_slice(values) }
    }

    /// How many words of a plan's data these take: the floats first.
    pub fn len(&self) -> usize {
        self.floats.len() + self.ints.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Append to a plan's data.
    pub(crate) fn push_to(&self, data: &mut Vec<u64>) {
        data.extend(self.floats.iter().map(|f| f.to_bits()));
        data.extend(&self.ints);
    }

    /// Read back from a plan's data: `shape` is a node's slots at build time, which say how many of each.
    pub(crate) fn read(&self, data: &[u64]) -> Slots {
        let (f, i) = data[..self.len()].split_at(self.floats.len());
        Slots { floats: f.iter().map(|&b| f64::from_bits(b)).collect(), ints: SmallVec::from_slice(i) }
    }
}
