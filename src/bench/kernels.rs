//! Single kernels as they are used: a closure that records the operation and gives what it computes.

use super::data;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::graph::{MatmulPrecision, Tensor, with_matmul_precision};
use crate::ops::{BatchNorm, Conv2dOptions, MaxPool2dOptions};

/// Records the work once and gives its results, which the caller holds until they are computed.
pub type Run = Box<dyn FnMut() -> Result<Vec<Tensor>>>;

/// `[m, k] x [k, n]`.
pub fn matmul(m: usize, k: usize, n: usize, device: &Device) -> Result<Run> {
    let (a, b) = (data::tensor(&[m, k], 1, device)?, data::tensor(&[k, n], 2, device)?);
    Ok(Box::new(move || Ok(vec![a.try_matmul(&b)?])))
}

/// `[n, n] x [n, n]` at less than the highest precision, by units for small matrices.
///
/// # Errors
/// Where the device has none: it would be the same as at the highest.
pub fn matmul_fast(n: usize, precision: MatmulPrecision, device: &Device) -> Result<Run> {
    let has = match device {
        Device::Cpu(_) => false,
        #[cfg(feature = "gpu")]
        Device::Gpu(gpu) => gpu.caps().coop.is_some(),
    };
    if !has {
        return Err(Error::device(format!("not run: {} has no units for small matrices of f16", device.short_name())));
    }
    let mut run = matmul(n, n, n, device)?;
    Ok(Box::new(move || with_matmul_precision(precision, &mut run)))
}

/// `a b` of a batch of matrices.
pub fn matmul_batch(batch: usize, m: usize, k: usize, n: usize, device: &Device) -> Result<Run> {
    let (a, b) = (data::tensor(&[batch, m, k], 1, device)?, data::tensor(&[batch, k, n], 2, device)?);
    Ok(Box::new(move || Ok(vec![a.try_matmul(&b)?])))
}

/// `aT b`, the form of a weight's gradient.
pub fn matmul_tn(m: usize, k: usize, n: usize, device: &Device) -> Result<Run> {
    let (a, b) = (data::tensor(&[k, m], 1, device)?, data::tensor(&[k, n], 2, device)?);
    Ok(Box::new(move || Ok(vec![a.t().try_matmul(&b)?])))
}

/// `a bT`, the form of a layer and of its input's gradient.
pub fn matmul_nt(m: usize, k: usize, n: usize, device: &Device) -> Result<Run> {
    let (a, b) = (data::tensor(&[m, k], 1, device)?, data::tensor(&[n, k], 2, device)?);
    Ok(Box::new(move || Ok(vec![a.try_matmul(&b.t())?])))
}

/// Images of a convolution's workloads.
const IMAGES: usize = 32;

/// A convolution that keeps the size of its images: `[32, inputs, size, size]` to `outputs` channels by windows of `kernel` x `kernel`, with a bias.
#[derive(Clone, Copy, Debug)]
pub struct Conv {
    pub inputs: usize,
    pub outputs: usize,
    pub size: usize,
    pub kernel: usize,
}

impl Conv {
    fn operands(&self, device: &Device) -> Result<[Tensor; 3]> {
        let x = data::tensor(&[IMAGES, self.inputs, self.size, self.size], 3, device)?;
        let w = data::tensor(&[self.outputs, self.inputs, self.kernel, self.kernel], 4, device)?;
        Ok([x, w, data::tensor(&[self.outputs], 5, device)?])
    }

    fn options(&self) -> Conv2dOptions {
        Conv2dOptions { padding: [self.kernel / 2; 2], ..Conv2dOptions::default() }
    }

    /// The forward pass.
    pub fn forward(self, device: &Device) -> Result<Run> {
        let [x, w, b] = self.operands(device)?;
        Ok(Box::new(move || Ok(vec![x.try_conv2d(&w, Some(&b), self.options())?])))
    }

    /// The same with its three gradients, of the images, the weight and the bias; and the sum that they are the gradients of, so that the forward pass is
    /// computed, too.
    pub fn backward(self, device: &Device) -> Result<Run> {
        let [x, w, b] = self.operands(device)?;
        let leaves = [x.requires_grad()?, w.requires_grad()?, b.requires_grad()?];
        let g = data::tensor(&[IMAGES, self.outputs, self.size, self.size], 6, device)?;
        Ok(Box::new(move || {
            let [x, w, b] = &leaves;
            let sum = (x.try_conv2d(w, Some(b), self.options())? * &g).sum_all();
            sum.backward()?;
            let mut results = gradients(&leaves)?;
            results.push(sum.detach());
            Ok(results)
        }))
    }

    /// Multiplications and additions forward; with the gradients of images and weight it is three times as many.
    pub fn flops(&self) -> f64 {
        2.0 * (IMAGES * self.outputs * self.terms() * self.size * self.size) as f64
    }

    /// How many terms a sum of the forward pass has.
    pub fn terms(&self) -> usize {
        self.inputs * self.kernel * self.kernel
    }

    /// The same of each result of [`Conv::backward`].
    pub fn backward_terms(&self) -> Vec<usize> {
        let places = IMAGES * self.size * self.size;
        vec![self.outputs * self.kernel * self.kernel, places, places, places * self.outputs * self.terms()]
    }

    /// Bytes of images, weight and result.
    pub fn bytes(&self) -> f64 {
        let images = IMAGES * (self.inputs + self.outputs) * self.size * self.size;
        4.0 * (images + self.outputs * self.terms()) as f64
    }
}

/// The gradients that were gathered for `leaves`, which forget them.
fn gradients(leaves: &[Tensor]) -> Result<Vec<Tensor>> {
    let gradient = |l: &Tensor| l.grad().ok_or_else(|| Error::internal("bench: a gradient is missing"));
    let found = leaves.iter().map(gradient).collect();
    leaves.iter().for_each(|l| l.set_grad(None));
    found
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

/// The sum of each column of `[rows, columns]`.
pub fn column_sums(rows: usize, columns: usize, device: &Device) -> Result<Run> {
    let x = data::tensor(&[rows, columns], 9, device)?;
    Ok(Box::new(move || Ok(vec![x.try_sum(&[0], true)?])))
}

/// `a + b`.
pub fn add(n: usize, device: &Device) -> Result<Run> {
    let (a, b) = (data::tensor(&[n], 10, device)?, data::tensor(&[n], 11, device)?);
    Ok(Box::new(move || Ok(vec![&a + &b])))
}

/// Batch norm in training over images `[32, channels, size, size]`: the result and the running statistics.
pub fn batch_norm(channels: usize, size: usize, device: &Device) -> Result<Run> {
    let x = data::tensor(&[IMAGES, channels, size, size], 3, device)?;
    let [mean, var, w, b] = [
        data::tensor(&[channels], 12, device)?,
        Tensor::ones([channels], device),
        data::tensor(&[channels], 13, device)?,
        data::tensor(&[channels], 14, device)?,
    ];
    let options = BatchNorm { training: true, momentum: 0.1, eps: 1e-5 };
    Ok(Box::new(move || {
        let (y, moved) = x.try_batch_norm(Some([&mean, &var]), Some([&w, &b]), &options)?;
        Ok(std::iter::once(y).chain(moved.into_iter().flatten()).collect())
    }))
}

/// The largest of each 2 x 2 window of images `[32, channels, size, size]`.
pub fn max_pool(channels: usize, size: usize, device: &Device) -> Result<Run> {
    let x = data::tensor(&[IMAGES, channels, size, size], 3, device)?;
    Ok(Box::new(move || Ok(vec![x.try_max_pool2d([2; 2], MaxPool2dOptions::default())?])))
}

/// `count` rows of a table `[rows, width]`, from all over it.
pub fn gather_rows(rows: usize, width: usize, count: usize, device: &Device) -> Result<Run> {
    let table = data::tensor(&[rows, width], 15, device)?;
    let at: Vec<i32> = (0..count).map(|i| (i * 40_503 % rows) as i32).collect();
    let at = Tensor::new(at, [count], device)?;
    Ok(Box::new(move || Ok(vec![table.try_index_select(0, &at)?])))
}

/// The cross entropy of logits `[rows, classes]`, and its gradient.
pub fn cross_entropy(rows: usize, classes: usize, device: &Device) -> Result<Run> {
    let leaves = [data::tensor(&[rows, classes], 16, device)?.requires_grad()?];
    let labels: Vec<i32> = (0..rows).map(|i| (i * 7 % classes) as i32).collect();
    let labels = Tensor::new(labels, [rows], device)?;
    Ok(Box::new(move || {
        let loss = leaves[0].cross_entropy_with(&labels, &Default::default())?;
        loss.backward()?;
        let mut results = gradients(&leaves)?;
        results.push(loss.detach());
        Ok(results)
    }))
}
