//! The convolution over images.

use super::{Pair, Window, images, pair_text};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::graph::Tensor;
use crate::nn::module::{output, single_of};
use crate::nn::table::{KeyDefault::*, Spec, key};
use crate::nn::{LayerEntry, Module, Param, Visitor, init};
use crate::ops::{Conv2dOptions, Generator};
use crate::tensor::Meta;

/// Slides `out_channels` windows over images: `[n, in_channels, h, w]` to `[n, out_channels, h', w']`.
///
/// ```
/// use wgrad::nn::{Conv2d, Module};
/// use wgrad::{tensor::Meta, DType, Device, Generator};
/// let (generator, device) = (Generator::new(0), Device::cpu()?);
/// let layer = Conv2d::config(3, 8, 5).stride(2).padding(2).build(&generator, &device)?;
/// let output = layer.check(&[Meta::new(DType::F32, [1, 3, 32, 32])])?;
/// assert_eq!(output.shape.to_vec(), [1, 8, 16, 16]);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Debug)]
pub struct Conv2d {
    /// `[out_channels, in_channels / groups, kernel height, kernel width]`.
    pub weight: Param,
    /// `[out_channels]`.
    pub bias: Option<Param>,
    window: Window,
    groups: usize,
}

/// Settings of a [`Conv2d`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conv2dConfig {
    in_channels: usize,
    out_channels: usize,
    window: Window,
    groups: usize,
    bias: bool,
}

impl Conv2dConfig {
    /// How far the window moves; 1 unless told.
    #[must_use]
    pub fn stride(mut self, stride: impl Into<Pair>) -> Self {
        self.window.stride = stride.into().0;
        self
    }

    /// Zeros around the image; none unless told.
    #[must_use]
    pub fn padding(mut self, padding: impl Into<Pair>) -> Self {
        self.window.padding = padding.into().0;
        self
    }

    /// The distance of the window's elements; 1 unless told.
    #[must_use]
    pub fn dilation(mut self, dilation: impl Into<Pair>) -> Self {
        self.window.dilation = dilation.into().0;
        self
    }

    /// Parts into which the channels are cut, each convolved by itself; 1 unless told.
    #[must_use]
    pub fn groups(mut self, groups: usize) -> Self {
        self.groups = groups;
        self
    }

    /// Whether it adds a bias; it does unless told.
    #[must_use]
    pub fn bias(mut self, on: bool) -> Self {
        self.bias = on;
        self
    }

    /// The layer, its values uniform within `1 / sqrt(fan_in)`.
    ///
    /// # Errors
    /// Sizes of 0, groups that do not divide the channels, and memory.
    pub fn build(self, generator: &Generator, device: &Device) -> Result<Conv2d> {
        self.window.valid("conv2d")?;
        let (inputs, outputs, groups) = (self.in_channels, self.out_channels, self.groups);
        if groups == 0 || !inputs.is_multiple_of(groups) || !outputs.is_multiple_of(groups) {
            return Err(Error::shape(format!("conv2d: groups must divide in_channels {inputs} and out_channels {outputs}: {groups}")));
        }
        let [kh, kw] = self.window.kernel_size;
        let (weight, bias) = init::default_weight_and_bias(&[outputs, inputs / groups, kh, kw], self.bias, generator, device)?;
        let bias = bias.as_ref().map(Param::new).transpose()?;
        Ok(Conv2d { weight: Param::new(&weight)?, bias, window: self.window, groups })
    }
}

impl Conv2d {
    /// A layer with stride 1, no padding, a bias, and PyTorch's default initialisation.
    pub fn new(in_channels: usize, out_channels: usize, kernel_size: impl Into<Pair>, generator: &Generator, device: &Device) -> Result<Conv2d> {
        Conv2d::config(in_channels, out_channels, kernel_size).build(generator, device)
    }

    /// Its settings, to be changed and built.
    pub fn config(in_channels: usize, out_channels: usize, kernel_size: impl Into<Pair>) -> Conv2dConfig {
        let window = Window { kernel_size: kernel_size.into().0, stride: [1; 2], padding: [0; 2], dilation: [1; 2], ceil_mode: false };
        Conv2dConfig { in_channels, out_channels, window, groups: 1, bias: true }
    }

    fn in_channels(&self) -> usize {
        self.weight.shape()[1] * self.groups
    }
}

impl Module for Conv2d {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn try_forward(&self, x: &Tensor) -> Result<Tensor> {
        let Window { stride, padding, dilation, .. } = self.window;
        let options = Conv2dOptions { stride, padding, dilation, groups: self.groups };
        x.try_conv2d(&self.weight.tensor(), self.bias.as_ref().map(Param::tensor).as_ref(), options)
    }

    fn check(&self, inputs: &[Meta]) -> Result<Meta> {
        let input = single_of("conv2d", self.weight.meta().dtype, inputs)?;
        let [n, c, h, w] = images("conv2d", &input.shape)?;
        if c != self.in_channels() {
            return Err(Error::shape(format!("conv2d: input has {c} channels, the layer takes {}: shape {}", self.in_channels(), input.shape)));
        }
        let [h, w] = self.window.places("conv2d", [h, w])?;
        output("conv2d", input.dtype, &[n, self.weight.shape()[0], h, w])
    }

    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a>) {
        visitor.param("weight", &self.weight);
        if let Some(bias) = &self.bias {
            visitor.param("bias", bias);
        }
    }

    fn extra(&self) -> String {
        let w = &self.window;
        let mut text = format!("{}, {}, kernel_size={}", self.in_channels(), self.weight.shape()[0], pair_text(w.kernel_size));
        for (name, pair, usual) in [("stride", w.stride, 1), ("padding", w.padding, 0), ("dilation", w.dilation, 1), ("groups", [self.groups; 2], 1)] {
            if pair != [usual; 2] {
                text += &format!(", {name}={}", pair_text(pair));
            }
        }
        if self.bias.is_none() {
            text += ", bias=false";
        }
        text
    }
}

pub(super) static LAYERS: &[LayerEntry] = &[LayerEntry {
    name: "conv2d",
    doc: "convolution over images [n, c, h, w]",
    keys: &[
        key("out_channels", Required),
        key("kernel_size", Required),
        key("in_channels", Inferred),
        key("stride", Number(1.0)),
        key("padding", Number(0.0)),
        key("dilation", Number(1.0)),
        key("groups", Number(1.0)),
        key("bias", Bool(true)),
    ],
    build: |spec: &Spec<'_>| {
        let [_, channels, ..] = images("conv2d", &spec.input.shape)?;
        let in_channels = spec.size_or_inferred("in_channels", 1)?.unwrap_or(channels);
        let config = Conv2d::config(in_channels, spec.size("out_channels", 1)?, spec.pair("kernel_size", 1)?)
            .stride(spec.pair("stride", 1)?)
            .padding(spec.pair("padding", 0)?)
            .dilation(spec.pair("dilation", 1)?)
            .groups(spec.size("groups", 1)?)
            .bias(spec.flag("bias")?);
        Ok(Box::new(config.build(spec.generator, spec.device)?))
    },
}];
