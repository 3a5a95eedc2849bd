//! A table of vectors, looked up by number.

use crate::device::Device;
use crate::error::{Error, Result};
use crate::graph::Tensor;
use crate::nn::module::{output, single};
use crate::nn::table::{KeyDefault::*, Spec, key};
use crate::nn::{LayerEntry, Module, Param, Visitor, init};
use crate::ops::Generator;
use crate::tensor::{DType, Meta};

/// Row `i` of a trained table for each integer `i`: `[..]` to `[.., embedding_dim]`.
#[derive(Debug)]
pub struct Embedding {
    /// `[num_embeddings, embedding_dim]`.
    pub weight: Param,
}

impl Embedding {
    /// A table of standard normal values.
    pub fn new(num_embeddings: usize, embedding_dim: usize, generator: &Generator, device: &Device) -> Result<Embedding> {
        let meta = output("embedding", DType::F32, &[num_embeddings, embedding_dim])?;
        Ok(Embedding { weight: Param::new(&init::normal(meta.shape, 0.0, 1.0, generator, device)?)? })
    }
}

impl Module for Embedding {
    fn name(&self) -> &'static str {
        "embedding"
    }

    fn try_forward(&self, x: &Tensor) -> Result<Tensor> {
        Tensor::try_embedding(&self.weight.tensor(), x)
    }

    fn check(&self, inputs: &[Meta]) -> Result<Meta> {
        let input = single("embedding", inputs)?;
        if input.dtype != DType::I32 {
            return Err(Error::shape(format!("embedding: takes integers (i32), the input is {input}")));
        }
        output("embedding", self.weight.meta().dtype, &[&input.shape[..], &[self.weight.shape()[1]]].concat())
    }

    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a>) {
        visitor.param("weight", &self.weight);
    }

    fn extra(&self) -> String {
        format!("{}, {}", self.weight.shape()[0], self.weight.shape()[1])
    }
}

pub(super) static LAYERS: &[LayerEntry] = &[LayerEntry {
    name: "embedding",
    doc: "row i of a trained table for each integer i",
    keys: &[key("num_embeddings", Required), key("embedding_dim", Required)],
    build: |spec: &Spec<'_>| Ok(Box::new(Embedding::new(spec.size("num_embeddings", 1)?, spec.size("embedding_dim", 1)?, spec.generator, spec.device)?)),
}];
