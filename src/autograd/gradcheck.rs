//! Checking gradients against finite differences: of any function of tensors, built-in or a user's own.

use super::backward::{GradOptions, grad_with};
use crate::error::{Error, Result};
use crate::graph::{Tensor, no_grad};
use crate::rng;
use crate::tensor::DType;

/// How [`gradcheck`] compares.
#[derive(Clone, Debug, PartialEq)]
pub struct GradCheck {
    /// Step of the central difference.
    pub eps: f64,
    /// Absolute tolerance.
    pub atol: f64,
    /// Relative tolerance.
    pub rtol: f64,
    /// Random directions for each input.
    pub directions: u32,
    /// Check the gradient's own gradient as well.
    pub second: bool,
    /// Seed of the directions.
    pub seed: u64,
}

impl Default for GradCheck {
    fn default() -> Self {
        GradCheck { eps: 1e-5, atol: 1e-6, rtol: 1e-5, directions: 2, second: false, seed: 0 }
    }
}

/// Compare the gradients of `f` at `inputs` with central differences along random directions: the product of the Jacobian with a random vector on
/// either side, as PyTorch's `gradcheck` in fast mode. Inputs of integer types are passed through.
///
/// ```
/// use wgrad::{Device, Tensor, autograd::{gradcheck, GradCheck}};
/// let x = Tensor::new([0.3f64, 0.7], [2], &Device::cpu()?)?;
/// gradcheck(|x| Ok(vec![x[0].sin()]), &[x], &GradCheck { second: true, ..GradCheck::default() })?;
/// # Ok::<(), wgrad::Error>(())
/// ```
///
/// # Errors
/// An [`ErrorKind::Gradient`](crate::ErrorKind::Gradient) that names the input and both values where they differ; also where an input is f32 (differences
/// of f32 values tell too little), and whatever `f` returns.
pub fn gradcheck(f: impl Fn(&[Tensor]) -> Result<Vec<Tensor>>, inputs: &[Tensor], options: &GradCheck) -> Result<()> {
    if let Some(i) = inputs.iter().position(|t| t.dtype() == DType::F32) {
        return Err(Error::invalid(format!("gradcheck: input {i} is f32")).help("use to_dtype(DType::F64) on the CPU backend"));
    }
    check(&f, inputs, options, "gradient")?;
    if !options.second {
        return Ok(());
    }
    let floats: Vec<usize> = (0..inputs.len()).filter(|&i| inputs[i].dtype().is_float()).collect();
    let first = |xs: &[Tensor]| -> Result<Vec<Tensor>> {
        let leaves = leaves(xs)?;
        let outs = f(&leaves)?;
        let vectors = vectors(&outs, options.seed ^ 0x5eed)?;
        let total = weigh(&outs, &vectors)?;
        let wrt: Vec<&Tensor> = floats.iter().map(|&i| &leaves[i]).collect();
        let grads = grad_with(&[&total], &wrt, &GradOptions { create_graph: true, ..Default::default() })?;
        Ok(grads.into_iter().zip(&wrt).map(|(g, x)| g.unwrap_or_else(|| x.zeros_like())).collect())
    };
    check_with(&first, inputs, options, "second derivative", true)
}

fn check(f: &dyn Fn(&[Tensor]) -> Result<Vec<Tensor>>, inputs: &[Tensor], options: &GradCheck, what: &str) -> Result<()> {
    check_with(f, inputs, options, what, false)
}

/// `inner`: whether `f` makes its own leaves, so that its result leads to them and not to ours.
fn check_with(f: &dyn Fn(&[Tensor]) -> Result<Vec<Tensor>>, inputs: &[Tensor], options: &GradCheck, what: &str, inner: bool) -> Result<()> {
    let own = leaves(inputs)?;
    let outs = f(&own)?;
    let vectors = vectors(&outs, options.seed)?;
    let total = weigh(&outs, &vectors)?;
    let floats: Vec<usize> = (0..inputs.len()).filter(|&i| inputs[i].dtype().is_float()).collect();
    let wrt: Vec<&Tensor> = floats.iter().map(|&i| &own[i]).collect();
    let grads = if total.is_grad_required() { grad_with(&[&total], &wrt, &GradOptions::default())? } else { vec![None; wrt.len()] };
    let value = |xs: &[Tensor]| -> Result<f64> { if inner { weigh(&f(xs)?, &vectors)?.item() } else { no_grad(|| weigh(&f(xs)?, &vectors)?.item()) } };
    for (&i, g) in floats.iter().zip(&grads) {
        for d in 0..options.directions {
            let direction = random(inputs[i].numel(), options.seed, 1000 + i as u32 * 100 + d);
            let x = inputs[i].to_vec::<f64>()?;
            let at = |step: f64| -> Result<f64> {
                let moved: Vec<f64> = x.iter().zip(&direction).map(|(x, d)| x + step * d).collect();
                let mut xs = inputs.to_vec();
                xs[i] = Tensor::new(moved, *inputs[i].shape(), inputs[i].device())?;
                value(&xs)
            };
            // Richardson: the error of the central difference falls with the fourth power of the step.
            let central = |h: f64| -> Result<f64> { Ok((at(h)? - at(-h)?) / (2.0 * h)) };
            let numeric = (4.0 * central(options.eps)? - central(2.0 * options.eps)?) / 3.0;
            let analytic = match g {
                Some(g) => g.to_vec::<f64>()?.iter().zip(&direction).map(|(g, d)| g * d).sum(),
                None => 0.0,
            };
            let near = (numeric - analytic).abs() <= options.atol + options.rtol * numeric.abs();
            if !near {
                return Err(Error::gradient(format!("gradcheck: {what} of input {i}: backward gives {analytic:.9}, differences give {numeric:.9}")));
            }
        }
    }
    Ok(())
}

fn leaves(inputs: &[Tensor]) -> Result<Vec<Tensor>> {
    inputs.iter().map(|t| if t.dtype().is_float() && !t.is_grad_required() { t.requires_grad() } else { Ok(t.clone()) }).collect()
}

/// A random vector for each output, by which its Jacobian is multiplied from the left.
fn vectors(outs: &[Tensor], seed: u64) -> Result<Vec<Option<Tensor>>> {
    let one = |(n, o): (usize, &Tensor)| -> Result<Option<Tensor>> {
        if !o.dtype().is_float() {
            return Ok(None);
        }
        Tensor::new(random(o.numel(), seed, n as u32), *o.shape(), o.device()).map(Some)
    };
    outs.iter().enumerate().map(one).collect()
}

/// The sum over outputs of their products with the vectors.
fn weigh(outs: &[Tensor], vectors: &[Option<Tensor>]) -> Result<Tensor> {
    let mut total: Option<Tensor> = None;
    for (o, v) in outs.iter().zip(vectors) {
        let Some(v) = v else { continue };
        let part = (o * v).sum_all();
        total = Some(match total {
            Some(t) => &t + &part,
            None => part,
        });
    }
    total.ok_or_else(|| Error::gradient("gradcheck: the function has no float output"))
}

/// Values in -1..1, from their own stream.
fn random(n: usize, seed: u64, stream: u32) -> Vec<f64> {
    (0..n as u32).map(|i| f64::from(rng::philox([seed as u32, (seed >> 32) as u32], [i, stream, 7, 0])[0]) / 2f64.powi(31) - 1.0).collect()
}
