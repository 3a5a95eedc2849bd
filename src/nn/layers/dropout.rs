//! The dropout layer, with the generator its masks come from.

use crate::error::{Error, Result};
use crate::graph::Tensor;
use crate::nn::module::single_float;
use crate::nn::table::{KeyDefault::*, Spec, key};
use crate::nn::{LayerEntry, Mode, Module};
use crate::ops::Generator;
use crate::tensor::Meta;
use std::sync::Arc;

/// In training: sets each value to 0 with probability `p` and scales the others by `1 / (1 - p)`. In evaluation: gives back its input.
///
/// ```
/// use wgrad::nn::{Dropout, Module};
/// use wgrad::{Device, Generator, Tensor};
/// use std::sync::Arc;
/// let dropout = Dropout::new(0.5, &Arc::new(Generator::new(0)))?;
/// let x = Tensor::new([1.0f32; 8], [8], &Device::cpu()?)?;
/// assert!(dropout.forward(&x).to_vec::<f32>()?.iter().all(|&y| y == 0.0 || y == 2.0));
/// dropout.eval();
/// assert_eq!(dropout.forward(&x).to_vec::<f32>()?, [1.0; 8]);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Debug)]
pub struct Dropout {
    p: f64,
    generator: Arc<Generator>,
    mode: Mode,
}

impl Dropout {
    /// Dropout with probability `p`, its masks drawn from `generator`.
    ///
    /// # Errors
    /// Where `p` is not a probability.
    pub fn new(p: f64, generator: &Arc<Generator>) -> Result<Dropout> {
        if !(0.0..=1.0).contains(&p) {
            return Err(Error::invalid(format!("dropout: p must be from 0 to 1: {p}")));
        }
        Ok(Dropout { p, generator: generator.clone(), mode: Mode::default() })
    }
}

impl Module for Dropout {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn try_forward(&self, x: &Tensor) -> Result<Tensor> {
        x.try_dropout(self.p, self.mode.is_training(), &self.generator)
    }

    fn check(&self, inputs: &[Meta]) -> Result<Meta> {
        single_float(self.name(), inputs).copied()
    }

    fn on_training(&self, on: bool) {
        self.mode.set(on);
    }

    fn extra(&self) -> String {
        format!("p={}", self.p)
    }
}

pub(super) static LAYERS: &[LayerEntry] = &[LayerEntry {
    name: "dropout",
    doc: "in training, sets values to 0 with probability p and scales the others",
    keys: &[key("p", Number(0.5))],
    build: |spec: &Spec<'_>| Ok(Box::new(Dropout::new(spec.float("p")?, spec.generator)?)),
}];
