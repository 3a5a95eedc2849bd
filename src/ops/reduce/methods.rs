//! The `Tensor` methods of reductions.

use super::arg::Arg;
use super::{Kind, Reduce, mask, ok};
use crate::error::{Error, Result};
use crate::graph::{Slots, Tensor};

impl Tensor {
    fn reduce(&self, name: &str, kind: Kind, dims: &[isize], keepdim: bool) -> Result<Tensor> {
        let op = Reduce { kind, dims: mask(name, self.shape(), dims)? };
        let y = Tensor::try_apply1(op, Slots::none(), &[self])?;
        if keepdim { y.try_reshape(op.kept_shape(self.shape())) } else { Ok(y) }
    }

    /// The sum over `dims` (none named: over all), negative ones counted from the back. With `keepdim` they stay, of size 1.
    ///
    /// ```
    /// use wgrad::{Device, Tensor};
    /// let x = Tensor::new([1.0f32, 2.0, 3.0, 4.0], [2, 2], &Device::cpu()?)?;
    /// assert_eq!(x.sum(&[0], false).to_vec::<f32>()?, [4.0, 6.0]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    #[track_caller]
    pub fn sum(&self, dims: &[isize], keepdim: bool) -> Tensor {
        ok(self.try_sum(dims, keepdim))
    }

    /// [`Tensor::sum`], or an error where a dimension is out of range or named twice.
    pub fn try_sum(&self, dims: &[isize], keepdim: bool) -> Result<Tensor> {
        self.reduce("sum", Kind::Sum, dims, keepdim)
    }

    /// The sum of all elements, a scalar.
    #[track_caller]
    pub fn sum_all(&self) -> Tensor {
        self.sum(&[], false)
    }

    /// The mean over `dims` (none named: over all).
    #[track_caller]
    pub fn mean(&self, dims: &[isize], keepdim: bool) -> Tensor {
        ok(self.try_mean(dims, keepdim))
    }

    /// [`Tensor::mean`], or an error where a dimension is out of range or named twice.
    pub fn try_mean(&self, dims: &[isize], keepdim: bool) -> Result<Tensor> {
        let sum = self.reduce("mean", Kind::Sum, dims, keepdim)?;
        Ok(sum.div_scalar(self.terms("mean", dims)? as f64))
    }

    /// The mean of all elements, a scalar.
    #[track_caller]
    pub fn mean_all(&self) -> Tensor {
        self.mean(&[], false)
    }

    /// How many elements each result over `dims` is made of.
    fn terms(&self, name: &str, dims: &[isize]) -> Result<usize> {
        let op = Reduce { kind: Kind::Sum, dims: mask(name, self.shape(), dims)? };
        Ok((0..self.rank()).filter(|&d| op.reduced(d)).map(|d| self.shape()[d]).product())
    }

    /// The largest element over `dims` (none named: over all). NaN is passed on; elements that tie share the gradient equally.
    #[track_caller]
    pub fn amax(&self, dims: &[isize], keepdim: bool) -> Tensor {
        ok(self.try_amax(dims, keepdim))
    }

    /// [`Tensor::amax`], or an error where a dimension is out of range, named twice or empty.
    pub fn try_amax(&self, dims: &[isize], keepdim: bool) -> Result<Tensor> {
        self.reduce("amax", Kind::Max, dims, keepdim)
    }

    /// The smallest element over `dims` (none named: over all). NaN is passed on; elements that tie share the gradient equally.
    #[track_caller]
    pub fn amin(&self, dims: &[isize], keepdim: bool) -> Tensor {
        ok(self.try_amin(dims, keepdim))
    }

    /// [`Tensor::amin`], or an error where a dimension is out of range, named twice or empty.
    pub fn try_amin(&self, dims: &[isize], keepdim: bool) -> Result<Tensor> {
        self.reduce("amin", Kind::Min, dims, keepdim)
    }

    /// The variance over `dims` (none named: over all): squared deviations from the mean, their sum divided by the number of elements less `correction`
    /// (1: the unbiased estimate, 0: the population's).
    #[track_caller]
    pub fn var(&self, dims: &[isize], correction: usize, keepdim: bool) -> Tensor {
        ok(self.try_var(dims, correction, keepdim))
    }

    /// [`Tensor::var`], or an error where a dimension is out of range or named twice.
    pub fn try_var(&self, dims: &[isize], correction: usize, keepdim: bool) -> Result<Tensor> {
        let n = self.terms("var", dims)?;
        let sum = self.reduce("var", Kind::Sum, dims, true)?;
        let centred = self - &sum.div_scalar(n as f64);
        let squares = centred.square().reduce("var", Kind::Sum, dims, keepdim)?;
        Ok(squares.div_scalar(n.saturating_sub(correction) as f64))
    }

    /// The standard deviation over `dims`: the square root of [`Tensor::var`].
    #[track_caller]
    pub fn std(&self, dims: &[isize], correction: usize, keepdim: bool) -> Tensor {
        self.var(dims, correction, keepdim).sqrt()
    }

    /// `log(sum(exp(x)))` over `dims` (none named: over all), without overflow.
    #[track_caller]
    pub fn logsumexp(&self, dims: &[isize], keepdim: bool) -> Tensor {
        ok(self.try_logsumexp(dims, keepdim))
    }

    /// [`Tensor::logsumexp`], or an error where a dimension is out of range, named twice or empty.
    pub fn try_logsumexp(&self, dims: &[isize], keepdim: bool) -> Result<Tensor> {
        let max = self.detach().reduce("logsumexp", Kind::Max, dims, true)?;
        // Where all are -infinity (or one is infinity), `x - max` would be NaN: there 0 is taken off instead.
        let max = max.mask_not(&max.isinf());
        let sum = (self - &max).exp().reduce("logsumexp", Kind::Sum, dims, keepdim)?;
        let max = max.try_reshape(*sum.shape())?;
        Ok(sum.log() + max)
    }

    fn arg(&self, max: bool, dim: isize, keepdim: bool) -> Result<Tensor> {
        let name = if max { "argmax" } else { "argmin" };
        let dim = self.shape().dim(dim).map_err(|e: Error| e.context(name))?;
        let y = Tensor::try_apply1(Arg { max, dim }, Slots::none(), &[self])?;
        if keepdim { y.try_reshape(self.shape().without(dim).with(dim, 1)) } else { Ok(y) }
    }

    /// The index of the largest element along `dim`, i32; of equals the first. NaN counts as the largest.
    #[track_caller]
    pub fn argmax(&self, dim: isize, keepdim: bool) -> Tensor {
        ok(self.try_argmax(dim, keepdim))
    }

    /// [`Tensor::argmax`], or an error where the dimension is out of range or empty.
    pub fn try_argmax(&self, dim: isize, keepdim: bool) -> Result<Tensor> {
        self.arg(true, dim, keepdim)
    }

    /// The index of the smallest element along `dim`, i32; of equals the first. NaN counts as the smallest.
    #[track_caller]
    pub fn argmin(&self, dim: isize, keepdim: bool) -> Tensor {
        ok(self.try_argmin(dim, keepdim))
    }

    /// [`Tensor::argmin`], or an error where the dimension is out of range or empty.
    pub fn try_argmin(&self, dim: isize, keepdim: bool) -> Result<Tensor> {
        self.arg(false, dim, keepdim)
    }
}
