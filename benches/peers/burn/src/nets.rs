//! The networks, layer for layer those of the other peers.

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::prelude::*;
use burn::tensor::activation::relu;

/// A network with the size of its batches.
pub trait Net: Module + Clone {
    const BATCH: usize;
    const FEATURES: usize;
    fn new(device: &Device) -> Self;
    /// Rows of a batch to the ten classes.
    fn forward(&self, x: Tensor<2>) -> Tensor<2>;
}

/// 784-256-128-10.
#[derive(Module, Debug)]
pub struct Mlp {
    l1: Linear,
    l2: Linear,
    l3: Linear,
}

impl Net for Mlp {
    const BATCH: usize = 64;
    const FEATURES: usize = 784;

    fn new(device: &Device) -> Self {
        let linear = |from, to| LinearConfig::new(from, to).init(device);
        Mlp { l1: linear(784, 256), l2: linear(256, 128), l3: linear(128, 10) }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let x = relu(self.l1.forward(x));
        self.l3.forward(relu(self.l2.forward(x)))
    }
}

/// LeNet-5 with rectifiers and maxima.
#[derive(Module, Debug)]
pub struct LeNet {
    c1: Conv2d,
    c2: Conv2d,
    pool: MaxPool2d,
    l1: Linear,
    l2: Linear,
    l3: Linear,
}

impl Net for LeNet {
    const BATCH: usize = 64;
    const FEATURES: usize = 28 * 28;

    fn new(device: &Device) -> Self {
        let linear = |from, to| LinearConfig::new(from, to).init(device);
        LeNet {
            c1: Conv2dConfig::new([1, 6], [5, 5]).with_padding(PaddingConfig2d::Explicit(2, 2, 2, 2)).init(device),
            c2: Conv2dConfig::new([6, 16], [5, 5]).init(device),
            pool: MaxPool2dConfig::new([2, 2]).with_strides([2, 2]).init(),
            l1: linear(400, 120),
            l2: linear(120, 84),
            l3: linear(84, 10),
        }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let rows = x.dims()[0];
        let x = self.pool.forward(relu(self.c1.forward(x.reshape([rows, 1, 28, 28]))));
        let x = self.pool.forward(relu(self.c2.forward(x)));
        let x = relu(self.l1.forward(x.reshape([rows, 400])));
        self.l3.forward(relu(self.l2.forward(x)))
    }
}

fn conv3(from: usize, to: usize, device: &Device) -> Conv2d {
    Conv2dConfig::new([from, to], [3, 3]).with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1)).with_bias(false).init(device)
}

#[derive(Module, Debug)]
struct Block {
    c1: Conv2d,
    n1: BatchNorm,
    c2: Conv2d,
    n2: BatchNorm,
}

impl Block {
    fn new(device: &Device) -> Self {
        let norm = || BatchNormConfig::new(16).init(device);
        Block { c1: conv3(16, 16, device), n1: norm(), c2: conv3(16, 16, device), n2: norm() }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let y = relu(self.n1.forward(self.c1.forward(x.clone())));
        relu(self.n2.forward(self.c2.forward(y)) + x)
    }
}

/// A stem and three residual blocks of 16 channels with batch norm.
#[derive(Module, Debug)]
pub struct ResNet {
    stem: Conv2d,
    norm: BatchNorm,
    blocks: Vec<Block>,
    head: Linear,
}

impl Net for ResNet {
    const BATCH: usize = 32;
    const FEATURES: usize = 3 * 32 * 32;

    fn new(device: &Device) -> Self {
        ResNet {
            stem: conv3(3, 16, device),
            norm: BatchNormConfig::new(16).init(device),
            blocks: (0..3).map(|_| Block::new(device)).collect(),
            head: LinearConfig::new(16, 10).init(device),
        }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let rows = x.dims()[0];
        let x = relu(self.norm.forward(self.stem.forward(x.reshape([rows, 3, 32, 32]))));
        let x = self.blocks.iter().fold(x, |x, block| block.forward(x));
        self.head.forward(x.reshape([rows, 16, 1024]).mean_dim(2).reshape([rows, 16]))
    }
}
