//! The fully connected layer.

use crate::device::Device;
use crate::error::{Error, Result};
use crate::graph::Tensor;
use crate::nn::module::{output, single_of};
use crate::nn::table::{KeyDefault::*, Spec, key};
use crate::nn::{LayerEntry, Module, Param, Visitor, init};
use crate::ops::Generator;
use crate::tensor::Meta;

/// `y = x Wᵀ + b` over the last dimension: `[.., in_features]` to `[.., out_features]`. `weight` is `[out_features, in_features]`.
///
/// ```
/// use wgrad::nn::{Linear, Module};
/// use wgrad::{Device, Generator};
/// let (generator, device) = (Generator::new(0), Device::cpu()?);
/// let layer = Linear::config(20, 30).bias(false).build(&generator, &device)?;
/// assert_eq!(layer.num_parameters(), 600);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Debug)]
pub struct Linear {
    /// `[out_features, in_features]`.
    pub weight: Param,
    /// `[out_features]`.
    pub bias: Option<Param>,
}

/// Settings of a [`Linear`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinearConfig {
    in_features: usize,
    out_features: usize,
    bias: bool,
}

impl LinearConfig {
    /// Whether it adds a bias; it does unless told.
    #[must_use]
    pub fn bias(mut self, on: bool) -> Self {
        self.bias = on;
        self
    }

    /// The layer, its values uniform within `1 / sqrt(in_features)`.
    pub fn build(self, generator: &Generator, device: &Device) -> Result<Linear> {
        let (weight, bias) = init::default_weight_and_bias(&[self.out_features, self.in_features], self.bias, generator, device)?;
        Ok(Linear { weight: Param::new(&weight)?, bias: bias.as_ref().map(Param::new).transpose()? })
    }
}

impl Linear {
    /// A layer with a bias, and PyTorch's default initialisation.
    pub fn new(in_features: usize, out_features: usize, generator: &Generator, device: &Device) -> Result<Linear> {
        Linear::config(in_features, out_features).build(generator, device)
    }

    /// Its settings, to be changed and built.
    pub fn config(in_features: usize, out_features: usize) -> LinearConfig {
        LinearConfig { in_features, out_features, bias: true }
    }
}

impl Module for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn try_forward(&self, x: &Tensor) -> Result<Tensor> {
        x.try_linear(&self.weight.tensor(), self.bias.as_ref().map(Param::tensor).as_ref())
    }

    fn check(&self, inputs: &[Meta]) -> Result<Meta> {
        let input = single_of("linear", self.weight.meta().dtype, inputs)?;
        let (out_features, in_features) = (self.weight.shape()[0], self.weight.shape()[1]);
        match &input.shape[..] {
            [lead @ .., last] if *last == in_features => output("linear", input.dtype, &[lead, &[out_features]].concat()),
            [.., last] => Err(Error::shape(format!("linear: input has {last} features, the layer takes {in_features}: shape {}", input.shape))),
            [] => Err(Error::shape(format!("linear: input has no dimensions, the layer takes {in_features} features"))),
        }
    }

    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a>) {
        visitor.param("weight", &self.weight);
        if let Some(bias) = &self.bias {
            visitor.param("bias", bias);
        }
    }

    fn extra(&self) -> String {
        let bias = if self.bias.is_none() { ", bias=false" } else { "" };
        format!("{}, {}{bias}", self.weight.shape()[1], self.weight.shape()[0])
    }
}

pub(super) static LAYERS: &[LayerEntry] = &[LayerEntry {
    name: "linear",
    doc: "y = x Wᵀ + b over the last dimension",
    keys: &[key("out_features", Required), key("in_features", Inferred), key("bias", Bool(true))],
    build: |spec: &Spec<'_>| {
        let Some(&last) = spec.input.shape.last() else {
            return Err(Error::shape("input has no dimensions"));
        };
        let in_features = spec.size_or_inferred("in_features", 1)?.unwrap_or(last);
        let config = Linear::config(in_features, spec.size("out_features", 1)?).bias(spec.flag("bias")?);
        Ok(Box::new(config.build(spec.generator, spec.device)?))
    },
}];
