//! Layers one after the other.

use super::module::{Visitor, single};
use super::table::layer;
use super::{Attrs, Module, SummaryLine};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::graph::Tensor;
use crate::ops::Generator;
use crate::tensor::{DType, Meta, Shape};
use std::sync::Arc;

/// Layers of which each takes what the one before gives. Their parameters are named by place: `0.weight`.
///
/// ```
/// use wgrad::nn::{Dropout, Linear, Module, ReLU, Sequential};
/// use wgrad::{tensor::Meta, DType, Device, Generator};
/// use std::sync::Arc;
/// let (generator, device) = (Arc::new(Generator::new(0)), Device::cpu()?);
/// let model = Sequential::new()
///     .then(Linear::new(64, 32, &generator, &device)?)
///     .then(ReLU)
///     .then(Dropout::new(0.2, &generator)?)
///     .then(Linear::new(32, 10, &generator, &device)?);
/// let output = model.check(&[Meta::new(DType::F32, [8, 64])])?;
/// assert_eq!(output.shape.to_vec(), [8, 10]);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct Sequential {
    layers: Vec<Box<dyn Module>>,
}

impl Sequential {
    /// No layers yet: gives back its input.
    pub fn new() -> Sequential {
        Sequential::default()
    }

    /// This, and `layer` behind it.
    #[must_use]
    pub fn then(mut self, layer: impl Module + 'static) -> Sequential {
        self.layers.push(Box::new(layer));
        self
    }

    /// Put `layer` at the end.
    pub fn push(&mut self, layer: Box<dyn Module>) {
        self.layers.push(layer);
    }

    /// The layers.
    pub fn layers(&self) -> &[Box<dyn Module>] {
        &self.layers
    }

    fn numbered(&self) -> impl Iterator<Item = (usize, &dyn Module)> {
        self.layers.iter().map(|layer| &**layer).enumerate()
    }

    /// The layers that a config lists, by kind and settings, for float inputs of shape `input` (one example, without the batch). `in_features` and
    /// `in_channels` follow from the layers before. All that is random, dropout's masks included, is drawn from `generator`.
    ///
    /// ```
    /// use wgrad::nn::{Attrs, Module, Sequential};
    /// use wgrad::{Device, Generator};
    /// use std::sync::Arc;
    /// let specs = [
    ///     ("linear".to_string(), Attrs::new().with("out_features", 32)),
    ///     ("relu".to_string(), Attrs::new()),
    ///     ("liner".to_string(), Attrs::new().with("out_features", 10)),
    /// ];
    /// let e = Sequential::from_specs(&specs, &[64], &Arc::new(Generator::new(0)), &Device::cpu()?).unwrap_err();
    /// assert_eq!(e.to_string(), "model.layers[2]: unknown layer \"liner\"\nhelp: did you mean linear?");
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    ///
    /// # Errors
    /// Unknown layers and keys, values that are not valid, shapes that do not fit: each with the layer's place and kind.
    pub fn from_specs(specs: &[(String, Attrs)], input: &[usize], generator: &Arc<Generator>, device: &Device) -> Result<Sequential> {
        let shape = Shape::try_new(input).map_err(|e| e.context("model: input"))?;
        Sequential::from_specs_for(specs, &Meta::new(DType::F32, shape), generator, device)
    }

    /// [`Sequential::from_specs`] for inputs of any type: an embedding takes integers.
    pub fn from_specs_for(specs: &[(String, Attrs)], input: &Meta, generator: &Arc<Generator>, device: &Device) -> Result<Sequential> {
        let mut model = Sequential::new();
        // Any batch will do; one of 1 keeps the arithmetic of sizes small.
        let shape = Shape::try_new(&[&[1], &input.shape[..]].concat()).map_err(|e| e.context("model: input"))?;
        let mut meta = super::module::output("model: input", input.dtype, &shape)?;
        for (i, (kind, attrs)) in specs.iter().enumerate() {
            let entry = layer(kind).map_err(|e| e.context(format_args!("model.layers[{i}]")))?;
            let at = |e: Error| located(e, &format!("model.layers[{i}]"), kind);
            let built = entry.build(attrs, &meta, generator, device).map_err(at)?;
            meta = built.check(&[meta]).map_err(at)?;
            model.push(built);
        }
        Ok(model)
    }
}

/// The error of a layer, led by its place and kind; the kind is not said twice.
fn located(e: Error, place: &str, kind: &str) -> Error {
    e.map(|m| format!("{place} ({kind}): {}", m.strip_prefix(kind).and_then(|m| m.strip_prefix(": ")).unwrap_or(m)))
}

impl Module for Sequential {
    fn name(&self) -> &'static str {
        "sequential"
    }

    fn try_forward(&self, x: &Tensor) -> Result<Tensor> {
        let forward = |x: Tensor, (i, layer): (usize, &dyn Module)| layer.try_forward(&x).map_err(|e| located(e, &format!("layers[{i}]"), layer.name()));
        self.numbered().try_fold(x.clone(), forward)
    }

    fn check(&self, inputs: &[Meta]) -> Result<Meta> {
        let input = *single(self.name(), inputs)?;
        let check = |meta: Meta, (i, layer): (usize, &dyn Module)| layer.check(&[meta]).map_err(|e| located(e, &format!("layers[{i}]"), layer.name()));
        self.numbered().try_fold(input, check)
    }

    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a>) {
        for (i, layer) in self.layers.iter().enumerate() {
            visitor.child(&i.to_string(), layer);
        }
    }

    fn summarize(&self, path: &str, input: &Meta, lines: &mut Vec<SummaryLine>) -> Result<Meta> {
        let mut meta = *input;
        for (i, layer) in self.layers.iter().enumerate() {
            let inner = if path.is_empty() { i.to_string() } else { format!("{path}.{i}") };
            meta = layer.summarize(&inner, &meta, lines).map_err(|e| located(e, &format!("layers[{i}]"), layer.name()))?;
        }
        Ok(meta)
    }
}
