//! Initial values, under PyTorch's names. They are drawn on the host, so that a seed gives the same bits on every device, and building a model runs no plan.
//!
//! ```
//! use wgrad::nn::init::{self, FanMode, Nonlinearity};
//! use wgrad::{Device, Generator};
//! let (generator, device) = (Generator::new(0), Device::cpu()?);
//! let w = init::kaiming_normal([64, 32, 3, 3], FanMode::FanOut, Nonlinearity::ReLU, &generator, &device)?;
//! assert_eq!(w.shape().to_vec(), [64, 32, 3, 3]);
//! # Ok::<(), wgrad::Error>(())
//! ```

use crate::device::Device;
use crate::error::{Error, Result};
use crate::graph::Tensor;
use crate::ops::Generator;
use crate::rng;
use crate::tensor::Shape;

/// Which side of a weight keeps its variance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FanMode {
    /// The forward pass: inputs of one output.
    #[default]
    FanIn,
    /// The backward pass: outputs of one input.
    FanOut,
}

/// What follows the layer; decides the [`gain`](Nonlinearity::gain).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Nonlinearity {
    /// Nothing.
    #[default]
    Linear,
    /// A sigmoid.
    Sigmoid,
    /// A tanh.
    Tanh,
    /// A relu.
    ReLU,
    /// A leaky relu of that slope.
    LeakyReLU(f64),
    /// A selu.
    SELU,
}

impl Nonlinearity {
    /// The factor by which a layer's values grow so that they keep their size behind the nonlinearity.
    pub fn gain(self) -> f64 {
        match self {
            Nonlinearity::Linear | Nonlinearity::Sigmoid => 1.0,
            Nonlinearity::Tanh => 5.0 / 3.0,
            Nonlinearity::ReLU => 2f64.sqrt(),
            Nonlinearity::LeakyReLU(slope) => (2.0 / (1.0 + slope * slope)).sqrt(),
            Nonlinearity::SELU => 0.75,
        }
    }
}

/// How many inputs an output of a weight `[out, in, ...]` has, and how many outputs an input.
///
/// # Errors
/// For fewer than two dimensions.
pub fn fans(shape: &Shape) -> Result<(usize, usize)> {
    let [out, input, window @ ..] = &shape[..] else {
        return Err(Error::shape(format!("init: a shape with at least two dimensions has a fan, {shape} has none")));
    };
    let window: usize = window.iter().product();
    Ok((input * window, out * window))
}

/// Every value `value`.
pub fn constant(shape: impl Into<Shape>, value: f64, device: &Device) -> Result<Tensor> {
    fill(shape.into(), device, |_| value as f32)
}

/// Zeros.
pub fn zeros(shape: impl Into<Shape>, device: &Device) -> Result<Tensor> {
    constant(shape, 0.0, device)
}

/// Ones.
pub fn ones(shape: impl Into<Shape>, device: &Device) -> Result<Tensor> {
    constant(shape, 1.0, device)
}

/// Uniform in `[low, high)`.
pub fn uniform(shape: impl Into<Shape>, low: f64, high: f64, generator: &Generator, device: &Device) -> Result<Tensor> {
    let [seed, offset] = generator.next();
    fill(shape.into(), device, |i| (low + f64::from(rng::uniform(rng::word(seed, offset, i))) * (high - low)) as f32)
}

/// Normal with that mean and standard deviation.
pub fn normal(shape: impl Into<Shape>, mean: f64, std: f64, generator: &Generator, device: &Device) -> Result<Tensor> {
    let [seed, offset] = generator.next();
    fill(shape.into(), device, |i| (mean + std * rng::normal(rng::pair(seed, offset, i))) as f32)
}

/// He's initialisation with uniform values: variance `gain² / fan`.
pub fn kaiming_uniform(shape: impl Into<Shape>, mode: FanMode, nonlinearity: Nonlinearity, generator: &Generator, device: &Device) -> Result<Tensor> {
    let shape = shape.into();
    let bound = 3f64.sqrt() * kaiming_std(&shape, mode, nonlinearity)?;
    uniform(shape, -bound, bound, generator, device)
}

/// He's initialisation with normal values: variance `gain² / fan`.
pub fn kaiming_normal(shape: impl Into<Shape>, mode: FanMode, nonlinearity: Nonlinearity, generator: &Generator, device: &Device) -> Result<Tensor> {
    let shape = shape.into();
    let std = kaiming_std(&shape, mode, nonlinearity)?;
    normal(shape, 0.0, std, generator, device)
}

/// Glorot's initialisation with uniform values: variance `2 gain² / (fan_in + fan_out)`.
pub fn xavier_uniform(shape: impl Into<Shape>, gain: f64, generator: &Generator, device: &Device) -> Result<Tensor> {
    let shape = shape.into();
    let bound = 3f64.sqrt() * xavier_std(&shape, gain)?;
    uniform(shape, -bound, bound, generator, device)
}

/// Glorot's initialisation with normal values: variance `2 gain² / (fan_in + fan_out)`.
pub fn xavier_normal(shape: impl Into<Shape>, gain: f64, generator: &Generator, device: &Device) -> Result<Tensor> {
    let shape = shape.into();
    let std = xavier_std(&shape, gain)?;
    normal(shape, 0.0, std, generator, device)
}

fn kaiming_std(shape: &Shape, mode: FanMode, nonlinearity: Nonlinearity) -> Result<f64> {
    let (fan_in, fan_out) = fans(shape)?;
    let fan = if mode == FanMode::FanIn { fan_in } else { fan_out };
    Ok(nonlinearity.gain() / (fan.max(1) as f64).sqrt())
}

fn xavier_std(shape: &Shape, gain: f64) -> Result<f64> {
    let (fan_in, fan_out) = fans(shape)?;
    Ok(gain * (2.0 / (fan_in + fan_out).max(1) as f64).sqrt())
}

/// PyTorch's default for the weight and the bias of a linear layer or a convolution: both uniform within `1 / sqrt(fan_in)`, which for the weight is what it
/// calls kaiming_uniform with a = sqrt(5).
pub(crate) fn default_weight_and_bias(shape: &[usize], bias: bool, generator: &Generator, device: &Device) -> Result<(Tensor, Option<Tensor>)> {
    // Sizes come from configs: their product must not overflow anywhere below.
    if shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).is_none_or(|n| n > u32::MAX as usize) {
        return Err(Error::shape(format!("a weight of shape {shape:?} has more elements than can be counted in 32 bits")));
    }
    let shape = Shape::try_new(shape)?;
    let weight = kaiming_uniform(shape, FanMode::FanIn, Nonlinearity::LeakyReLU(5f64.sqrt()), generator, device)?;
    let bound = 1.0 / (fans(&shape)?.0.max(1) as f64).sqrt();
    let bias = if bias { Some(uniform([shape[0]], -bound, bound, generator, device)?) } else { None };
    Ok((weight, bias))
}

/// A tensor whose element `i` is `value(i)`.
fn fill(shape: Shape, device: &Device, value: impl Fn(usize) -> f32) -> Result<Tensor> {
    let n = shape.numel();
    let mut values = Vec::new();
    values.try_reserve_exact(n).map_err(|_| Error::out_of_memory(format!("init: no memory for {n} values of shape {shape}")))?;
    values.extend((0..n).map(value));
    Tensor::new(values, shape, device)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(t: &Tensor) -> (f64, f64, f64) {
        let v = t.to_vec::<f32>().unwrap();
        let n = v.len() as f64;
        let mean = v.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
        let var = v.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n;
        (mean, var.sqrt(), v.iter().fold(0.0, |m, x| f64::from(x.abs()).max(m)))
    }

    #[test]
    fn kaiming_with_root_five_is_one_over_root_fan() {
        let (g, d) = (Generator::new(1), Device::cpu().unwrap());
        let (weight, bias) = default_weight_and_bias(&[64, 25, 2, 2], true, &g, &d).unwrap();
        let (mean, std, max) = moments(&weight);
        assert!(mean.abs() < 0.004 && (std - 0.1 / 3f64.sqrt()).abs() < 0.002 && max <= 0.1, "{mean} {std} {max}");
        let (_, _, max) = moments(&bias.unwrap());
        assert!((0.08..=0.1).contains(&max), "{max}");
    }

    #[test]
    fn normals_have_the_variance_of_their_fan() {
        let (g, d) = (Generator::new(2), Device::cpu().unwrap());
        let (mean, std, _) = moments(&kaiming_normal([100, 50], FanMode::FanOut, Nonlinearity::ReLU, &g, &d).unwrap());
        assert!(mean.abs() < 0.01 && (std - 0.02f64.sqrt()).abs() < 0.005, "{mean} {std}");
        let (_, std, _) = moments(&xavier_normal([60, 40], 1.0, &g, &d).unwrap());
        assert!((std - 0.02f64.sqrt()).abs() < 0.005, "{std}");
    }

    #[test]
    fn uniform_has_the_bits_of_rand() {
        let d = Device::cpu().unwrap();
        let (a, b) = (Generator::new(9), Generator::new(9));
        let (a, b) = (uniform([37], 0.0, 1.0, &a, &d).unwrap(), Tensor::rand([37], &b, &d).unwrap());
        assert_eq!(a.to_vec::<f32>().unwrap(), b.to_vec::<f32>().unwrap());
    }

    #[test]
    fn a_vector_has_no_fan() {
        assert_eq!(fans(&Shape::new(&[3])).unwrap_err().message(), "init: a shape with at least two dimensions has a fan, [3] has none");
        assert_eq!(fans(&Shape::new(&[6, 2, 3, 3])).unwrap(), (18, 54));
    }
}
