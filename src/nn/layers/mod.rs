//! The layers: one file each, or one for a family.

mod activation;
mod batch_norm;
mod conv2d;
mod dropout;
mod embedding;
mod flatten;
mod linear;
mod pool;

pub use activation::{
    CELU, ELU, GELU, Hardsigmoid, Hardswish, Hardtanh, LeakyReLU, LogSigmoid, LogSoftmax, Mish, PReLU, ReLU, ReLU6, SELU, SiLU, Sigmoid, Softmax, Softplus,
    Softsign, Tanh,
};
pub use batch_norm::{BatchNorm1d, BatchNorm2d, BatchNormConfig};
pub use conv2d::{Conv2d, Conv2dConfig};
pub use dropout::Dropout;
pub use embedding::Embedding;
pub use flatten::{Flatten, Identity};
pub use linear::{Linear, LinearConfig};
pub use pool::{AvgPool2d, MaxPool2d};

use super::LayerEntry;
use crate::error::{Error, Result};

/// Each file's rows of the LAYERS table.
pub(super) static TABLES: &[&[LayerEntry]] = &[
    linear::LAYERS,
    conv2d::LAYERS,
    pool::LAYERS,
    batch_norm::LAYERS,
    dropout::LAYERS,
    flatten::LAYERS,
    embedding::LAYERS,
    activation::ELEMENTWISE,
    activation::OTHERS,
];

/// A size for the height and one for the width: `3`, `[3, 5]` or `(3, 5)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair(pub [usize; 2]);

impl From<usize> for Pair {
    fn from(n: usize) -> Pair {
        Pair([n; 2])
    }
}

impl From<[usize; 2]> for Pair {
    fn from(p: [usize; 2]) -> Pair {
        Pair(p)
    }
}

impl From<(usize, usize)> for Pair {
    fn from((h, w): (usize, usize)) -> Pair {
        Pair([h, w])
    }
}

/// As PyTorch prints it: `3` where both are the same, else `[3, 5]`.
fn pair_text(p: [usize; 2]) -> String {
    if p[0] == p[1] { p[0].to_string() } else { format!("{p:?}") }
}

/// A window that slides over an image.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Window {
    kernel_size: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 2],
    dilation: [usize; 2],
    ceil_mode: bool,
}

impl Window {
    /// Whether its sizes make sense.
    fn valid(&self, name: &str) -> Result<()> {
        for (what, pair) in [("kernel_size", self.kernel_size), ("stride", self.stride), ("dilation", self.dilation)] {
            if pair.contains(&0) {
                return Err(Error::shape(format!("{name}: {what} must be at least 1: {}", pair_text(pair))));
            }
        }
        Ok(())
    }

    /// Whether a pool can use it: no window may lie in the padding alone.
    fn valid_pool(&self, name: &str) -> Result<()> {
        self.valid(name)?;
        if (0..2).any(|d| self.padding[d] > self.kernel_size[d] / 2) {
            let (padding, kernel) = (pair_text(self.padding), pair_text(self.kernel_size));
            return Err(Error::shape(format!("{name}: padding must be at most half of kernel_size {kernel}: {padding}")));
        }
        Ok(())
    }

    /// How many places it has over an image `[.., h, w]`.
    fn places(&self, name: &str, image: [usize; 2]) -> Result<[usize; 2]> {
        self.valid(name)?;
        let mut out = [0; 2];
        for d in 0..2 {
            // In 128 bits nothing that a config can say overflows.
            let wide = |n: usize| n as u128;
            let extent = wide(self.dilation[d]) * (wide(self.kernel_size[d]) - 1) + 1;
            let padded = wide(image[d]) + 2 * wide(self.padding[d]);
            if padded < extent {
                return Err(Error::shape(format!(
                    "{name}: an image of {} x {} is smaller than the window: kernel_size {}, padding {}, dilation {}",
                    image[0],
                    image[1],
                    pair_text(self.kernel_size),
                    pair_text(self.padding),
                    pair_text(self.dilation)
                )));
            }
            let (room, stride) = (padded - extent, wide(self.stride[d]));
            let mut places = if self.ceil_mode { room.div_ceil(stride) } else { room / stride } + 1;
            // A last window must begin inside the image or its padding in front.
            if self.ceil_mode && (places - 1) * stride >= wide(image[d]) + wide(self.padding[d]) {
                places -= 1;
            }
            out[d] = usize::try_from(places).map_err(|_| Error::shape(format!("{name}: an image of {places} places is too large")))?;
        }
        Ok(out)
    }
}

/// The sizes `[n, c, h, w]` of a batch of images.
fn images(name: &str, shape: &[usize]) -> Result<[usize; 4]> {
    <[usize; 4]>::try_from(shape).map_err(|_| Error::shape(format!("{name}: takes images [batch, channels, height, width], the input has shape {shape:?}")))
}
