//! Data sets on the host: samples of one shape, and what is to be predicted for each.

use super::Table;
use crate::error::{Error, Result};
use crate::format::idx::Idx;

/// What kind of target a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Labels `0..classes`; as many classes as the labels show where `None`.
    Classes(Option<usize>),
    /// Any numbers.
    Values,
}

/// What is to be predicted.
#[derive(Clone, Debug, PartialEq)]
pub enum Targets {
    /// Nothing is known: samples to predict.
    None,
    /// A class each.
    Classes {
        /// One a sample, in `0..classes`.
        labels: Vec<i32>,
        /// How many classes there are.
        classes: usize,
    },
    /// A number each.
    Values(Vec<f32>),
}

/// Samples with their targets.
#[derive(Clone, Debug)]
pub struct Dataset {
    features: Vec<f32>,
    sample_shape: Vec<usize>,
    names: Vec<String>,
    targets: Targets,
    samples: usize,
}

impl Dataset {
    /// A data set of `features` `[n, ..sample_shape]`, as many samples as `targets` are.
    pub fn new(features: Vec<f32>, sample_shape: &[usize], targets: Targets) -> Result<Dataset> {
        let size = sample_shape.iter().try_fold(1usize, |n, &s| n.checked_mul(s)).unwrap_or(0);
        if size == 0 || !features.len().is_multiple_of(size) {
            return Err(Error::shape(format!("dataset: {} features are no whole number of samples {sample_shape:?}", features.len())));
        }
        let samples = features.len() / size;
        let (count, bad) = match &targets {
            Targets::None => (samples, None),
            Targets::Classes { labels, classes } => (labels.len(), labels.iter().find(|&&l| l < 0 || l as usize >= *classes).map(|l| (l, classes))),
            Targets::Values(v) => (v.len(), None),
        };
        if count != samples {
            return Err(Error::shape(format!("dataset: {samples} samples and {count} targets")));
        }
        if let Some((label, classes)) = bad {
            return Err(Error::invalid(format!("dataset: label {label} is not in 0..{classes}")));
        }
        Ok(Dataset { features, sample_shape: sample_shape.to_vec(), names: Vec::new(), targets, samples })
    }

    /// The rows of a table. `features` names the columns that are features, in this order; all but the label where `None`.
    pub fn from_table(table: &Table, features: Option<&[&str]>, label: Option<(&str, Task)>) -> Result<Dataset> {
        // The label first: a name that is missing would otherwise show as one feature too many.
        let targets = match label {
            None => Targets::None,
            Some((name, Task::Classes(classes))) => labels(table, name, classes)?,
            Some((name, Task::Values)) => Targets::Values(table.matrix(&[name])?),
        };
        let names: Vec<&str> = match features {
            Some(names) => names.to_vec(),
            None => table.names().filter(|&n| label.is_none_or(|(l, _)| l != n)).collect(),
        };
        if names.is_empty() {
            return Err(Error::invalid(format!("{}: there is no column of features", table.source())));
        }
        let mut set = Dataset::new(table.matrix(&names)?, &[names.len()], targets)?;
        set.names = names.into_iter().map(str::to_string).collect();
        Ok(set)
    }

    /// Images with labels, as MNIST's files hold them: samples `[1, rows, columns]` of pixels 0 to 255.
    pub fn from_idx(images: &Idx, labels: &Idx, classes: Option<usize>) -> Result<Dataset> {
        let &[count, rows, columns] = images.shape.as_slice() else {
            return Err(Error::invalid(format!("idx: expected images [count, rows, columns], got {:?}", images.shape)));
        };
        if labels.shape != [count] {
            return Err(Error::invalid(format!("idx: {count} images, but labels {:?}", labels.shape)));
        }
        let classes = classes.unwrap_or_else(|| labels.values.iter().max().map_or(0, |&m| usize::from(m) + 1));
        if let Some(n) = labels.values.iter().position(|&l| usize::from(l) >= classes) {
            return Err(Error::invalid(format!("idx: label {n} is {}, beyond classes = {classes}", labels.values[n])));
        }
        let labels = labels.values.iter().map(|&l| i32::from(l)).collect();
        Dataset::new(images.values.iter().map(|&p| f32::from(p)).collect(), &[1, rows, columns], Targets::Classes { labels, classes })
    }

    /// The same samples in another shape, such as `[1, 8, 8]` for 64 columns of pixels.
    pub fn reshape(mut self, sample_shape: &[usize]) -> Result<Dataset> {
        let (old, new) = (self.sample_shape.iter().product::<usize>(), sample_shape.iter().try_fold(1usize, |n, &s| n.checked_mul(s)));
        if new != Some(old) {
            return Err(Error::shape(format!("dataset: samples {:?} of {old} features do not fit in {sample_shape:?}", self.sample_shape)));
        }
        self.sample_shape = sample_shape.to_vec();
        Ok(self)
    }

    /// Every feature times `factor`: 1/16 brings pixels 0 to 16 into 0 to 1.
    pub fn scale(mut self, factor: f32) -> Dataset {
        self.features.iter_mut().for_each(|f| *f *= factor);
        self
    }

    /// How many samples there are.
    pub fn len(&self) -> usize {
        self.samples
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.samples == 0
    }

    /// The shape of one sample.
    pub fn sample_shape(&self) -> &[usize] {
        &self.sample_shape
    }

    /// The features, `[n, ..sample_shape]`.
    pub fn features(&self) -> &[f32] {
        &self.features
    }

    /// The names of the columns that the features came from; empty where they came from no table.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// What is to be predicted.
    pub fn targets(&self) -> &Targets {
        &self.targets
    }

    /// These samples, in this order.
    ///
    /// # Panics
    /// Where a row is not below `len()`.
    #[track_caller]
    pub fn select(&self, rows: &[usize]) -> Dataset {
        let size = self.sample_shape.iter().product::<usize>();
        let features = rows.iter().flat_map(|&r| &self.features[r * size..(r + 1) * size]).copied().collect();
        let targets = match &self.targets {
            Targets::None => Targets::None,
            Targets::Classes { labels, classes } => Targets::Classes { labels: rows.iter().map(|&r| labels[r]).collect(), classes: *classes },
            Targets::Values(v) => Targets::Values(rows.iter().map(|&r| v[r]).collect()),
        };
        Dataset { features, sample_shape: self.sample_shape.clone(), names: self.names.clone(), targets, samples: rows.len() }
    }
}

/// The labels in a column.
fn labels(table: &Table, name: &str, classes: Option<usize>) -> Result<Targets> {
    let values = table.column(name)?;
    let limit = classes.map_or(f64::from(i32::MAX), |c| (c as f64).min(f64::from(i32::MAX))); // labels are kept as i32
    let mut labels = Vec::with_capacity(values.len());
    for (row, &value) in values.iter().enumerate() {
        let fault = if value < 0.0 {
            "is negative".to_string()
        } else if value.fract() != 0.0 {
            "is not a whole number".to_string()
        } else if value >= limit {
            format!("is beyond classes = {limit}")
        } else {
            labels.push(value as i32);
            continue;
        };
        let e = Error::invalid(format!("{}: line {}, column {name}: label {value} {fault}", table.source(), table.line(row)));
        return Err(e.help("labels are whole numbers from 0 to classes - 1"));
    }
    let classes = classes.unwrap_or_else(|| labels.iter().max().map_or(0, |&m| m as usize + 1));
    Ok(Targets::Classes { labels, classes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> Table {
        Table::from_csv("t.csv", text.as_bytes()).unwrap()
    }

    #[test]
    fn a_table_gives_features_and_labels() {
        let t = table("x,y,digit\n1,2,0\n3,4,2\n");
        let d = Dataset::from_table(&t, None, Some(("digit", Task::Classes(None)))).unwrap();
        assert_eq!((d.len(), d.sample_shape(), d.features()), (2, &[2][..], &[1.0, 2.0, 3.0, 4.0][..]));
        assert_eq!(d.targets(), &Targets::Classes { labels: vec![0, 2], classes: 3 });
        assert_eq!(d.names(), ["x", "y"]);
        let d = Dataset::from_table(&t, Some(&["y"]), None).unwrap();
        assert_eq!((d.features(), d.targets()), (&[2.0, 4.0][..], &Targets::None));
        let d = Dataset::from_table(&t, None, Some(("x", Task::Values))).unwrap();
        assert_eq!((d.features(), d.targets()), (&[2.0, 0.0, 4.0, 2.0][..], &Targets::Values(vec![1.0, 3.0])));
    }

    #[test]
    fn the_example_digits_are_a_data_set() {
        let t = Table::read_csv(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/digits.csv")).unwrap();
        let d = Dataset::from_table(&t, None, Some(("digit", Task::Classes(Some(10))))).unwrap();
        let d = d.reshape(&[1, 8, 8]).unwrap().scale(1.0 / 16.0);
        assert_eq!(d.len(), 1797);
        assert!(d.features().iter().all(|p| (0.0..=1.0).contains(p)));
    }

    #[test]
    fn bad_labels_are_named_with_their_line() {
        let message = |label: &str, classes| {
            let t = table(&format!("x,digit\r\n1,0\r\n2,{label}\r\n"));
            let e = Dataset::from_table(&t, None, Some(("digit", Task::Classes(classes)))).unwrap_err();
            e.message().lines().next().unwrap().to_string()
        };
        assert_eq!(message("-1", None), "t.csv: line 3, column digit: label -1 is negative");
        assert_eq!(message("2.5", Some(10)), "t.csv: line 3, column digit: label 2.5 is not a whole number");
        assert_eq!(message("10", Some(10)), "t.csv: line 3, column digit: label 10 is beyond classes = 10");
        assert_eq!(message("1e12", None), "t.csv: line 3, column digit: label 1000000000000 is beyond classes = 2147483647");
        assert_eq!(message("three", None), "t.csv: line 3, column digit: not a number: three");
        let e = Dataset::from_table(&table("x,digit\n1,0\n"), None, Some(("digits", Task::Classes(None)))).unwrap_err();
        assert_eq!(e.message(), "t.csv: there is no column digits\nhelp: did you mean digit?");
    }

    #[test]
    fn idx_files_give_images() {
        let images = Idx { shape: vec![2, 1, 2], values: vec![0, 255, 7, 8] };
        let labels = Idx { shape: vec![2], values: vec![3, 1] };
        let d = Dataset::from_idx(&images, &labels, Some(10)).unwrap();
        assert_eq!((d.sample_shape(), d.features()), (&[1, 1, 2][..], &[0.0, 255.0, 7.0, 8.0][..]));
        assert_eq!(Dataset::from_idx(&images, &labels, Some(3)).unwrap_err().message(), "idx: label 0 is 3, beyond classes = 3");
        let one = Idx { shape: vec![1], values: vec![3] };
        assert_eq!(Dataset::from_idx(&images, &one, None).unwrap_err().message(), "idx: 2 images, but labels [1]");
    }

    #[test]
    fn samples_are_reshaped_scaled_and_selected() {
        let targets = Targets::Classes { labels: vec![0, 1, 2], classes: 3 };
        let d = Dataset::new((0..12).map(|v| v as f32).collect(), &[4], targets).unwrap();
        let d = d.reshape(&[1, 2, 2]).unwrap().scale(0.5);
        let s = d.select(&[2, 0]);
        assert_eq!(s.features(), [4.0, 4.5, 5.0, 5.5, 0.0, 0.5, 1.0, 1.5]);
        assert_eq!(s.targets(), &Targets::Classes { labels: vec![2, 0], classes: 3 });
        assert_eq!(d.reshape(&[1, 2, 3]).unwrap_err().message(), "dataset: samples [1, 2, 2] of 4 features do not fit in [1, 2, 3]");
        assert!(Dataset::new(vec![0.0; 5], &[2], Targets::None).is_err());
        assert!(Dataset::new(vec![0.0; 4], &[2], Targets::Values(vec![1.0])).unwrap_err().message().contains("2 samples and 1 targets"));
        let beyond = Targets::Classes { labels: vec![3], classes: 3 };
        assert_eq!(Dataset::new(vec![0.0; 2], &[2], beyond).unwrap_err().message(), "dataset: label 3 is not in 0..3");
    }
}
