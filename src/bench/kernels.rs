//! Single kernels as they are used: a closure that records the operation and gives what it computes.

use super::data;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::graph::Tensor;
use crate::ops::Conv2dOptions;

/// Records the work once and gives its results, which the caller holds until they are computed.
pub type Run = Box<dyn FnMut() -> Result<Vec<Tensor>>>;

/// `[m, k] x [k, n]`.
pub fn matmul(m: usize, k: usize, n: usize, device: &Device) -> Result<Run> {
    let (a, b) = (data::tensor(&[m, k], 1, device)?, data::tensor(&[k, n], 2, device)?);
    Ok(Box::new(move || Ok(vec![a.try_matmul(&b)?])))
}

/// Images of a convolution's workloads.
const IMAGES: usize = 32;

/// A 3 x 3 convolution with padding 1 and a bias of `[32, inputs, size, size]` to `outputs` channels.
pub fn conv(inputs: usize, outputs: usize, size: usize, device: &Device) -> Result<Run> {
    let (x, w, b) = operands(inputs, outputs, size, device)?;
    Ok(Box::new(move || Ok(vec![x.try_conv2d(&w, Some(&b), options())?])))
}

/// The same with its three gradients, of the images, the weight and the bias; and the sum that they are the gradients of, so that the forward pass is computed,
/// too.
pub fn conv_backward(inputs: usize, outputs: usize, size: usize, device: &Device) -> Result<Run> {
    let (x, w, b) = operands(inputs, outputs, size, device)?;
    let leaves = [x.requires_grad()?, w.requires_grad()?, b.requires_grad()?];
    let g = data::tensor(&[IMAGES, outputs, size, size], 6, device)?;
    Ok(Box::new(move || {
        let [x, w, b] = &leaves;
        let sum = (x.try_conv2d(w, Some(b), options())? * &g).sum_all();
        sum.backward()?;
        let mut results = leaves.iter().map(|l| l.grad().ok_or_else(|| Error::internal("conv2d: a gradient is missing"))).collect::<Result<Vec<_>>>()?;
        leaves.iter().for_each(|l| l.set_grad(None));
        results.push(sum.detach());
        Ok(results)
    }))
}

fn operands(inputs: usize, outputs: usize, size: usize, device: &Device) -> Result<(Tensor, Tensor, Tensor)> {
    let x = data::tensor(&[IMAGES, inputs, size, size], 3, device)?;
    Ok((x, data::tensor(&[outputs, inputs, 3, 3], 4, device)?, data::tensor(&[outputs], 5, device)?))
}

fn options() -> Conv2dOptions {
    Conv2dOptions { padding: [1; 2], ..Conv2dOptions::default() }
}

/// Multiplications and additions of the convolution forward.
pub fn conv_flops(inputs: usize, outputs: usize, size: usize) -> f64 {
    2.0 * (IMAGES * outputs * inputs * 9 * size * size) as f64
}

/// How many terms the sums of [`conv_backward`] have, result by result.
pub fn conv_backward_terms(inputs: usize, outputs: usize, size: usize) -> Vec<usize> {
    let places = IMAGES * size * size;
    vec![outputs * 9, places, places, places * outputs * inputs * 9]
}

/// Softmax of each row of `[rows, columns]`.
pub fn softmax(rows: usize, columns: usize, device: &Device) -> Result<Run> {
    let x = data::tensor(&[rows, columns], 8, device)?;
    Ok(Box::new(move || Ok(vec![x.try_softmax(1)?])))
}

/// The sum of each row of `[rows, columns]`.
pub fn row_sums(rows: usize, columns: usize, device: &Device) -> Result<Run> {
    let x = data::tensor(&[rows, columns], 9, device)?;
    Ok(Box::new(move || Ok(vec![x.try_sum(&[1], true)?])))
}

/// `relu(1.5 x + 0.25) x`, which fuses.
pub fn elementwise(n: usize, device: &Device) -> Result<Run> {
    let x = data::tensor(&[n], 10, device)?;
    Ok(Box::new(move || Ok(vec![(&x * 1.5 + 0.25).relu() * &x])))
}
