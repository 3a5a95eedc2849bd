//! Random splits of a data set.

use super::draws::{Draws, Generator, Purpose};
use crate::error::{Error, Result};

/// Put `items` in a random order, each order as likely as the others (Fisher-Yates).
pub fn shuffle<T>(items: &mut [T], draws: &mut Draws) {
    for i in (1..items.len()).rev() {
        items.swap(i, draws.below(i as u64 + 1) as usize);
    }
}

/// The rows of each part of a data set, each in increasing order: parts are sets; what shuffles is the epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// Rows to learn from.
    pub train: Vec<usize>,
    /// Rows to choose by.
    pub validation: Vec<usize>,
    /// Rows to judge by, once, at the end.
    pub test: Vec<usize>,
}

impl Split {
    /// Cut `rows` rows at random: the fraction `test` of all for the test, then the fraction `validation` of the rest. Fractions of rows round up.
    pub fn random(rows: usize, test: f64, validation: f64, seed: u64, generator: Generator) -> Result<Split> {
        for (name, fraction) in [("test", test), ("validation", validation)] {
            if !(0.0..1.0).contains(&fraction) {
                return Err(Error::invalid(format!("split: {name} must be a fraction in 0..1: {fraction}")));
            }
        }
        let test_rows = part(rows, test);
        let validation_rows = part(rows - test_rows, validation);
        if test_rows + validation_rows >= rows {
            let taken = format!("{test_rows} for the test (test = {test}), {validation_rows} for validation (validation = {validation})");
            return Err(Error::invalid(format!("split: {rows} rows leave none to learn from: {taken}")));
        }
        let mut order: Vec<usize> = (0..rows).collect();
        shuffle(&mut order, &mut Draws::new(generator, seed, Purpose::Split, 0, 0));
        let mut train = order.split_off(test_rows + validation_rows);
        let mut validation = order.split_off(test_rows);
        let mut test = order;
        [&mut train, &mut validation, &mut test].into_iter().for_each(|part| part.sort_unstable());
        Ok(Split { train, validation, test })
    }
}

/// How many of `rows` a fraction is: rounded up, but not for what binary fractions add (0.1 of 30 is 3).
fn part(rows: usize, fraction: f64) -> usize {
    (rows as f64 * fraction - 1e-6).ceil().max(0.0) as usize
}

#[cfg(test)]
mod tests {
    use super::super::draws::mix;
    use super::*;

    #[test]
    fn parts_are_disjoint_and_whole() {
        let s = Split::random(1797, 0.2, 0.1, 0, mix).unwrap();
        assert_eq!((s.train.len(), s.validation.len(), s.test.len()), (1293, 144, 360));
        let mut all = [s.train.clone(), s.validation.clone(), s.test.clone()].concat();
        all.sort_unstable();
        assert_eq!(all, (0..1797).collect::<Vec<_>>());
        assert_eq!(Split::random(1797, 0.2, 0.1, 0, mix).unwrap(), s);
        assert_ne!(Split::random(1797, 0.2, 0.1, 1, mix).unwrap().test, s.test);
        // The test part does not move when the validation part changes.
        assert_eq!(Split::random(1797, 0.2, 0.5, 0, mix).unwrap().test, s.test);
    }

    #[test]
    fn fractions_that_leave_nothing_are_refused() {
        assert_eq!(Split::random(10, 1.0, 0.0, 0, mix).unwrap_err().message(), "split: test must be a fraction in 0..1: 1");
        assert!(Split::random(10, 0.2, f64::NAN, 0, mix).is_err());
        assert!(Split::random(2, 0.5, 0.5, 0, mix).unwrap_err().message().starts_with("split: 2 rows leave none to learn from"));
        assert!(Split::random(0, 0.0, 0.0, 0, mix).is_err());
        assert_eq!(Split::random(3, 0.0, 0.0, 0, mix).unwrap().train, [0, 1, 2]);
        assert_eq!(part(30, 0.1), 3);
    }

    #[test]
    fn every_order_is_as_likely() {
        let mut counts = std::collections::HashMap::new();
        for seed in 0..6000 {
            let mut order = [0, 1, 2];
            shuffle(&mut order, &mut Draws::new(mix, seed, Purpose::Shuffle, 0, 0));
            *counts.entry(order).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 6);
        assert!(counts.values().all(|c| (900..1100).contains(c)), "{counts:?}");
    }
}
