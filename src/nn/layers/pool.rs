//! Pooling over images.

use super::{Pair, Window, images, pair_text};
use crate::error::Result;
use crate::graph::Tensor;
use crate::nn::module::{output, single_float};
use crate::nn::table::{KeyDefault::*, Spec, key};
use crate::nn::{LayerEntry, Module};
use crate::ops::{AvgPool2dOptions, MaxPool2dOptions};
use crate::tensor::Meta;

/// The largest value of each window: `[n, c, h, w]` to `[n, c, h', w']`.
///
/// ```
/// use wgrad::nn::{MaxPool2d, Module};
/// use wgrad::{tensor::Meta, DType};
/// let pool = MaxPool2d::new(3).stride(2).padding(1);
/// let output = pool.check(&[Meta::new(DType::F32, [1, 8, 32, 32])])?;
/// assert_eq!(output.shape.to_vec(), [1, 8, 16, 16]);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct MaxPool2d {
    window: Window,
}

/// The mean of each window: `[n, c, h, w]` to `[n, c, h', w']`.
#[derive(Clone, Debug, PartialEq)]
pub struct AvgPool2d {
    window: Window,
    count_include_pad: bool,
}

/// What both pools share: a window that moves by its own size unless told.
macro_rules! pool_settings {
    ($pool:ident) => {
        impl $pool {
            /// How far the window moves; its own size unless told.
            #[must_use]
            pub fn stride(mut self, stride: impl Into<Pair>) -> Self {
                self.window.stride = stride.into().0;
                self
            }

            /// The border around the image, at most half the window; none unless told.
            #[must_use]
            pub fn padding(mut self, padding: impl Into<Pair>) -> Self {
                self.window.padding = padding.into().0;
                self
            }

            /// Whether a last window may reach over the edge.
            #[must_use]
            pub fn ceil_mode(mut self, on: bool) -> Self {
                self.window.ceil_mode = on;
                self
            }
        }
    };
}
pool_settings!(MaxPool2d);
pool_settings!(AvgPool2d);

fn window(kernel_size: Pair) -> Window {
    Window { kernel_size: kernel_size.0, stride: kernel_size.0, padding: [0; 2], dilation: [1; 2], ceil_mode: false }
}

fn pooled(name: &'static str, window: &Window, inputs: &[Meta]) -> Result<Meta> {
    let input = single_float(name, inputs)?;
    let [n, c, h, w] = images(name, &input.shape)?;
    window.valid_pool(name)?;
    let [h, w] = window.places(name, [h, w])?;
    output(name, input.dtype, &[n, c, h, w])
}

fn extra(w: &Window) -> String {
    let mut text = format!("kernel_size={}", pair_text(w.kernel_size));
    for (name, pair, usual) in [("stride", w.stride, w.kernel_size), ("padding", w.padding, [0; 2]), ("dilation", w.dilation, [1; 2])] {
        if pair != usual {
            text += &format!(", {name}={}", pair_text(pair));
        }
    }
    if w.ceil_mode {
        text += ", ceil_mode=true";
    }
    text
}

impl MaxPool2d {
    /// Windows of that size, side by side.
    pub fn new(kernel_size: impl Into<Pair>) -> MaxPool2d {
        MaxPool2d { window: window(kernel_size.into()) }
    }

    /// The distance of the window's elements; 1 unless told.
    #[must_use]
    pub fn dilation(mut self, dilation: impl Into<Pair>) -> Self {
        self.window.dilation = dilation.into().0;
        self
    }
}

impl Module for MaxPool2d {
    fn name(&self) -> &'static str {
        "max_pool2d"
    }

    fn try_forward(&self, x: &Tensor) -> Result<Tensor> {
        let Window { kernel_size, stride, padding, dilation, ceil_mode } = self.window;
        x.try_max_pool2d(kernel_size, MaxPool2dOptions { stride: Some(stride), padding, dilation, ceil_mode })
    }

    fn check(&self, inputs: &[Meta]) -> Result<Meta> {
        pooled(self.name(), &self.window, inputs)
    }

    fn extra(&self) -> String {
        extra(&self.window)
    }
}

impl AvgPool2d {
    /// Windows of that size, side by side.
    pub fn new(kernel_size: impl Into<Pair>) -> AvgPool2d {
        AvgPool2d { window: window(kernel_size.into()), count_include_pad: true }
    }

    /// Whether the border's zeros count in the mean; they do unless told.
    #[must_use]
    pub fn count_include_pad(mut self, on: bool) -> Self {
        self.count_include_pad = on;
        self
    }
}

impl Module for AvgPool2d {
    fn name(&self) -> &'static str {
        "avg_pool2d"
    }

    fn try_forward(&self, x: &Tensor) -> Result<Tensor> {
        let Window { kernel_size, stride, padding, ceil_mode, .. } = self.window;
        let count_include_pad = self.count_include_pad;
        x.try_avg_pool2d(kernel_size, AvgPool2dOptions { stride: Some(stride), padding, ceil_mode, count_include_pad })
    }

    fn check(&self, inputs: &[Meta]) -> Result<Meta> {
        pooled(self.name(), &self.window, inputs)
    }

    fn extra(&self) -> String {
        let pad = if self.count_include_pad { "" } else { ", count_include_pad=false" };
        extra(&self.window) + pad
    }
}

pub(super) static LAYERS: &[LayerEntry] = &[
    LayerEntry {
        name: "max_pool2d",
        doc: "the largest value of each window of images [n, c, h, w]",
        keys: &[
            key("kernel_size", Required),
            key("stride", Same("kernel_size")),
            key("padding", Number(0.0)),
            key("dilation", Number(1.0)),
            key("ceil_mode", Bool(false)),
        ],
        build: |spec: &Spec<'_>| {
            let pool = MaxPool2d::new(spec.pair("kernel_size", 1)?)
                .stride(spec.pair("stride", 1)?)
                .padding(spec.pair("padding", 0)?)
                .dilation(spec.pair("dilation", 1)?)
                .ceil_mode(spec.flag("ceil_mode")?);
            Ok(Box::new(pool))
        },
    },
    LayerEntry {
        name: "avg_pool2d",
        doc: "the mean of each window of images [n, c, h, w]",
        keys: &[
            key("kernel_size", Required),
            key("stride", Same("kernel_size")),
            key("padding", Number(0.0)),
            key("ceil_mode", Bool(false)),
            key("count_include_pad", Bool(true)),
        ],
        build: |spec: &Spec<'_>| {
            let pool = AvgPool2d::new(spec.pair("kernel_size", 1)?)
                .stride(spec.pair("stride", 1)?)
                .padding(spec.pair("padding", 0)?)
                .ceil_mode(spec.flag("ceil_mode")?)
                .count_include_pad(spec.flag("count_include_pad")?);
            Ok(Box::new(pool))
        },
    },
];
