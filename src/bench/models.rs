//! The networks of the training workloads, layer for layer those of the peers.

use crate::device::Device;
use crate::error::{Error, Result};
use crate::graph::Tensor;
use crate::nn::{BatchNorm2d, Conv2d, Flatten, Linear, MaxPool2d, Module, ReLU, Sequential, Visitor};
use crate::ops::Generator;
use crate::tensor::Meta;

/// A network with its batches.
#[derive(Clone, Copy, Debug)]
pub struct Net {
    /// Samples of a batch.
    pub batch: usize,
    /// Shape of a sample.
    pub sample: &'static [usize],
    /// The model, its initial values drawn from the generator.
    pub build: fn(&Generator, &Device) -> Result<Box<dyn Module>>,
}

/// 784-256-128-10.
pub static MLP: Net = Net {
    batch: 64,
    sample: &[784],
    build: |g, d| {
        let layers = Sequential::new().then(Linear::new(784, 256, g, d)?).then(ReLU).then(Linear::new(256, 128, g, d)?).then(ReLU);
        Ok(Box::new(layers.then(Linear::new(128, 10, g, d)?)))
    },
};

/// LeNet-5 with rectifiers and maxima, on images of 28 x 28.
pub static LENET: Net = Net {
    batch: 64,
    sample: &[1, 28, 28],
    build: |g, d| {
        let images = Sequential::new()
            .then(Conv2d::config(1, 6, 5).padding(2).build(g, d)?)
            .then(ReLU)
            .then(MaxPool2d::new(2))
            .then(Conv2d::new(6, 16, 5, g, d)?)
            .then(ReLU)
            .then(MaxPool2d::new(2))
            .then(Flatten::new(1, -1));
        let layers = images.then(Linear::new(400, 120, g, d)?).then(ReLU).then(Linear::new(120, 84, g, d)?).then(ReLU);
        Ok(Box::new(layers.then(Linear::new(84, 10, g, d)?)))
    },
};

/// A stem and three residual blocks of 16 channels with batch norm, on images of 32 x 32.
pub static RESNET: Net = Net {
    batch: 32,
    sample: &[3, 32, 32],
    build: |g, d| {
        let mut layers = Sequential::new().then(conv3(3, 16, g, d)?).then(BatchNorm2d::new(16, d)?).then(ReLU);
        for _ in 0..3 {
            layers.push(Box::new(Block::new(g, d)?));
        }
        Ok(Box::new(layers.then(MeanOfImage).then(Linear::new(16, 10, g, d)?)))
    },
};

fn conv3(inputs: usize, outputs: usize, generator: &Generator, device: &Device) -> Result<Conv2d> {
    Conv2d::config(inputs, outputs, 3).padding(1).bias(false).build(generator, device)
}

/// Two convolutions and their input added again.
#[derive(Debug)]
struct Block {
    c1: Conv2d,
    n1: BatchNorm2d,
    c2: Conv2d,
    n2: BatchNorm2d,
}

impl Block {
    fn new(generator: &Generator, device: &Device) -> Result<Block> {
        let conv = || conv3(16, 16, generator, device);
        Ok(Block { c1: conv()?, n1: BatchNorm2d::new(16, device)?, c2: conv()?, n2: BatchNorm2d::new(16, device)? })
    }
}

impl Module for Block {
    fn name(&self) -> &'static str {
        "residual_block"
    }

    fn try_forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = self.n1.try_forward(&self.c1.try_forward(x)?)?.relu();
        Ok((self.n2.try_forward(&self.c2.try_forward(&y)?)? + x).relu())
    }

    fn check(&self, inputs: &[Meta]) -> Result<Meta> {
        self.n2.check(&[self.c2.check(&[self.n1.check(&[self.c1.check(inputs)?])?])?])
    }

    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a>) {
        visitor.child("c1", &self.c1);
        visitor.child("n1", &self.n1);
        visitor.child("c2", &self.c2);
        visitor.child("n2", &self.n2);
    }
}

/// The mean of each channel over the image: `[n, c, h, w]` to `[n, c]`.
#[derive(Debug)]
struct MeanOfImage;

impl Module for MeanOfImage {
    fn name(&self) -> &'static str {
        "mean_of_image"
    }

    fn try_forward(&self, x: &Tensor) -> Result<Tensor> {
        x.try_mean(&[2, 3], false)
    }

    fn check(&self, inputs: &[Meta]) -> Result<Meta> {
        match inputs {
            [input] if input.shape.rank() == 4 => Ok(Meta::new(input.dtype, &input.shape[..2])),
            _ => Err(Error::shape(format!("{}: takes [n, c, h, w], the inputs are {inputs:?}", self.name()))),
        }
    }
}
