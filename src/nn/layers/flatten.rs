//! Layers that change the shape, or nothing.

use crate::error::{Error, Result};
use crate::graph::Tensor;
use crate::nn::module::{output, single};
use crate::nn::table::{KeyDefault::*, Spec, key};
use crate::nn::{LayerEntry, Module};
use crate::tensor::Meta;

/// Joins the dimensions `start_dim..=end_dim` into one; by default all but the batch: `[n, c, h, w]` to `[n, c h w]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Flatten {
    start_dim: isize,
    end_dim: isize,
}

impl Flatten {
    /// Joins these dimensions; negative counts from the back.
    pub fn new(start_dim: isize, end_dim: isize) -> Flatten {
        Flatten { start_dim, end_dim }
    }
}

impl Default for Flatten {
    fn default() -> Flatten {
        Flatten::new(1, -1)
    }
}

impl Module for Flatten {
    fn name(&self) -> &'static str {
        "flatten"
    }

    fn try_forward(&self, x: &Tensor) -> Result<Tensor> {
        x.try_flatten(self.start_dim, self.end_dim)
    }

    fn check(&self, inputs: &[Meta]) -> Result<Meta> {
        let input = single("flatten", inputs)?;
        let dim = |d| input.shape.dim(d).map_err(|e| e.context("flatten"));
        let (start, end) = (dim(self.start_dim)?, dim(self.end_dim)?);
        if start > end {
            return Err(Error::shape(format!("flatten: start_dim {start} lies behind end_dim {end}: shape {}", input.shape)));
        }
        let joined = input.shape[start..=end].iter().product();
        output("flatten", input.dtype, &[&input.shape[..start], &[joined], &input.shape[end + 1..]].concat())
    }

    fn extra(&self) -> String {
        if *self == Flatten::default() { String::new() } else { format!("start_dim={}, end_dim={}", self.start_dim, self.end_dim) }
    }
}

/// Gives back its input.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Identity;

impl Module for Identity {
    fn name(&self) -> &'static str {
        "identity"
    }

    fn try_forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.clone())
    }

    fn check(&self, inputs: &[Meta]) -> Result<Meta> {
        single("identity", inputs).copied()
    }
}

pub(super) static LAYERS: &[LayerEntry] = &[
    LayerEntry {
        name: "flatten",
        doc: "joins dimensions into one: all but the batch unless told",
        keys: &[key("start_dim", Number(1.0)), key("end_dim", Number(-1.0))],
        build: |spec: &Spec<'_>| Ok(Box::new(Flatten::new(spec.dim("start_dim")?, spec.dim("end_dim")?))),
    },
    LayerEntry { name: "identity", doc: "gives back its input", keys: &[], build: |_| Ok(Box::new(Identity)) },
];
