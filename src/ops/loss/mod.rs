//! Losses: cross_entropy, nll_loss, mse_loss, with PyTorch's meaning of weights, ignored labels, smoothing and reductions.

mod cross;
mod nll;
mod table;

pub(super) use table::OPS;

use super::view::ok;
use crate::error::{Error, Result};
use crate::graph::{Op, Slots, Tensor};
use cross::{Cross, MOST_CLASSES};
use nll::Nll;

/// What becomes of the rows' losses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reduction {
    /// They stay as they are.
    None,
    /// Their mean, weighted where classes have weights.
    #[default]
    Mean,
    /// Their sum.
    Sum,
}

/// How [`Tensor::cross_entropy_with`] and [`Tensor::nll_loss_with`] count.
///
/// ```
/// use wgrad::{Device, Tensor, ops::CrossEntropy};
/// let device = Device::cpu()?;
/// let logits = Tensor::new([2.0f32, 0.0, 0.0, 2.0], [2, 2], &device)?;
/// let target = Tensor::new([0, 1], [2], &device)?;
/// let loss = logits.cross_entropy_with(&target, &CrossEntropy { label_smoothing: 0.1, ..Default::default() })?;
/// assert!((loss.item()? - 0.2269).abs() < 1e-4);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct CrossEntropy {
    /// The weight of each class, `[classes]`.
    pub weight: Option<Tensor>,
    /// A label that counts for nothing.
    pub ignore_index: i32,
    /// How the rows are put together.
    pub reduction: Reduction,
    /// The part of each label that is spread over all classes (cross_entropy only).
    pub label_smoothing: f64,
}

impl Default for CrossEntropy {
    fn default() -> Self {
        CrossEntropy { weight: None, ignore_index: -100, reduction: Reduction::Mean, label_smoothing: 0.0 }
    }
}

/// Reduce plain rows.
fn reduced(rows: Tensor, reduction: Reduction) -> Result<Tensor> {
    match reduction {
        Reduction::None => Ok(rows),
        Reduction::Mean => rows.try_mean(&[], false),
        Reduction::Sum => rows.try_sum(&[], false),
    }
}

impl Tensor {
    /// Rows of negative log likelihood from log-probabilities, reduced.
    fn nll(&self, op: Nll, target: &Tensor, options: &CrossEntropy) -> Result<Tensor> {
        let rows = self.labelled(op, op, target, options)?;
        match options.reduction {
            Reduction::Mean => Ok(rows[0].try_sum(&[], false)? / rows[1].try_sum(&[], false)?),
            other => reduced(rows[0].clone(), other),
        }
    }

    /// Record an op over these rows and their labels.
    fn labelled(&self, op: impl Op, rows: Nll, target: &Tensor, options: &CrossEntropy) -> Result<Vec<Tensor>> {
        let slots = if rows.smooth { Slots::floats(&[options.label_smoothing]) } else { Slots::none() };
        let weight = match &options.weight {
            Some(w) => Some(w.try_reshape(w.shape().with(0, 1))?),
            None => None,
        };
        let mut inputs = vec![self, target];
        inputs.extend(&weight);
        Ok(Tensor::try_apply(op, slots, &inputs)?.into_vec())
    }

    /// The mean cross entropy between the softmax of these logits `[n, classes, ...]` and labels `[n, ...]` (i32).
    ///
    /// ```
    /// use wgrad::{Device, Tensor};
    /// let device = Device::cpu()?;
    /// let logits = Tensor::new([2.0f32, 0.0, 0.0, 2.0], [2, 2], &device)?;
    /// let target = Tensor::new([0, 1], [2], &device)?;
    /// assert!((logits.cross_entropy(&target).item()? - 0.1269).abs() < 1e-4);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    #[track_caller]
    pub fn cross_entropy(&self, target: &Tensor) -> Tensor {
        ok(self.cross_entropy_with(target, &CrossEntropy::default()))
    }

    /// [`Tensor::cross_entropy`] with weights, a label to ignore, smoothing, and another reduction.
    pub fn cross_entropy_with(&self, target: &Tensor, options: &CrossEntropy) -> Result<Tensor> {
        if !(0.0..=1.0).contains(&options.label_smoothing) {
            return Err(Error::invalid(format!("cross_entropy: label_smoothing must be in 0..=1, got {}", options.label_smoothing)));
        }
        if self.rank() < 2 {
            return Err(Error::shape(format!("cross_entropy: an input [n, classes, ...] needs a target [n, ...], got {} and {}", self.shape(), target.shape())));
        }
        let rows = Nll::new("cross_entropy", options);
        // A short row is one invocation's; a long one, rows that stay apart, and none at all take the way of several kernels.
        if options.reduction == Reduction::None || self.numel() == 0 || self.shape()[1] > MOST_CLASSES {
            return self.try_log_softmax(1)?.nll(rows, target, options);
        }
        let op = Cross { of: rows, mean: options.reduction == Reduction::Mean, models: 1 };
        Ok(self.labelled(op, rows, target, options)?.remove(0))
    }

    /// The mean negative log likelihood of labels `[n, ...]` (i32) under these log-probabilities `[n, classes, ...]`.
    #[track_caller]
    pub fn nll_loss(&self, target: &Tensor) -> Tensor {
        ok(self.nll_loss_with(target, &CrossEntropy::default()))
    }

    /// [`Tensor::nll_loss`] with weights, a label to ignore, and another reduction.
    pub fn nll_loss_with(&self, target: &Tensor, options: &CrossEntropy) -> Result<Tensor> {
        if options.label_smoothing != 0.0 {
            return Err(Error::invalid("nll_loss: does not smooth labels").help("use cross_entropy_with"));
        }
        self.nll(Nll::new("nll_loss", options), target, options)
    }

    /// The mean (or sum, or each) of squared differences from `target`.
    #[track_caller]
    pub fn mse_loss(&self, target: &Tensor, reduction: Reduction) -> Tensor {
        ok(self.try_mse_loss(target, reduction))
    }

    /// [`Tensor::mse_loss`], or an error where the shapes differ.
    pub fn try_mse_loss(&self, target: &Tensor, reduction: Reduction) -> Result<Tensor> {
        if self.shape() != target.shape() {
            return Err(Error::shape(format!("mse_loss: input and target have shapes {} and {}", self.shape(), target.shape())).help("use expand"));
        }
        reduced(Tensor::apply_row("sub", &[], &[&self.autocast_full()?, target])?.square(), reduction)
    }
}
