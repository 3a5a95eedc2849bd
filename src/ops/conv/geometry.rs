//! The sizes of a convolution, and the one loop nest that says which elements of image, weight and result meet.

use crate::error::{Error, Result};
use crate::ops::check_window;
use crate::graph::Key;
use crate::tensor::{DType, Meta, Shape};

/// What a convolution is, besides its operands' sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Conv {
    pub stride: [usize; 2],
    pub padding: [usize; 2],
    pub dilation: [usize; 2],
    pub groups: usize,
    /// How many models lie side by side: operands have a leading axis of that size. 0: none, and no such axis.
    pub models: usize,
}

impl Conv {
    pub fn key(&self, key: &mut Key) {
        key.ints(&self.stride).ints(&self.padding).ints(&self.dilation).int(self.groups as i64).int(self.models as i64);
    }

    /// The same for `k` models, whatever it was for before.
    pub fn stacked(self, k: usize) -> Conv {
        Conv { models: k * self.models.max(1), ..self }
    }

    /// An operand's four sizes without the model axis.
    fn sizes(&self, what: &str, form: &str, shape: &Shape) -> Result<[usize; 4]> {
        let own = if self.models == 0 { &shape[..] } else { shape.get(1..).unwrap_or(&[]) };
        match own {
            &[a, b, c, d] if self.models == 0 || shape[0] == self.models => Ok([a, b, c, d]),
            _ => Err(Error::shape(format!("conv2d: {what} must be {form}, got shape {shape}"))),
        }
    }

    /// A result's shape, with the model axis where there is one.
    pub fn shape(&self, sizes: [usize; 4]) -> Shape {
        let shape = Shape::from(sizes);
        if self.models == 0 { shape } else { shape.with(0, self.models) }
    }

    /// Everything about a convolution of an image and a weight of these shapes; refuses what does not fit.
    pub fn geometry(&self, x: &Shape, w: &Shape) -> Result<Geometry> {
        let [n, c, h, width] = self.sizes("input", "[n, c, h, w]", x)?;
        let [o, cg, kh, kw] = self.sizes("weight", "[o, c / groups, kh, kw]", w)?;
        let Conv { stride, padding, dilation, groups, .. } = *self;
        for (what, v, least) in [("stride", stride, 1), ("dilation", dilation, 1), ("kernel size", [kh, kw], 1), ("padding", padding, 0)] {
            check_window("conv2d", what, v, least)?;
        }
        if groups == 0 {
            return Err(Error::shape("conv2d: groups must be at least 1, got 0"));
        }
        if c != cg * groups {
            return Err(Error::shape(format!("conv2d: input has {c} channels, weight expects {} (groups {groups})", cg * groups)));
        }
        if o % groups != 0 {
            return Err(Error::shape(format!("conv2d: {o} output channels cannot be cut into {groups} groups")));
        }
        let padded = [h + 2 * padding[0], width + 2 * padding[1]];
        let reach = [dilation[0] * (kh - 1) + 1, dilation[1] * (kw - 1) + 1];
        if padded[0] < reach[0] || padded[1] < reach[1] {
            return Err(Error::shape(format!("conv2d: kernel {:?} with dilation {dilation:?} is larger than the padded input {padded:?}", [kh, kw])));
        }
        let out = |d: usize| (padded[d] - reach[d]) / stride[d] + 1;
        let models = self.models.max(1);
        // A stride beyond the image has one window, as one of its size has: what is laid out by strides stays small.
        let (oh, ow) = (out(0), out(1));
        let stride = [stride[0].min(padded[0]), stride[1].min(padded[1])];
        Ok(Geometry { models, n, groups, cg, og: o / groups, h, w: width, kh, kw, oh, ow, stride, padding, dilation })
    }
}

/// All sizes of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Geometry {
    pub models: usize,
    /// Images of a model.
    pub n: usize,
    pub groups: usize,
    /// Input channels of a group.
    pub cg: usize,
    /// Output channels of a group.
    pub og: usize,
    pub h: usize,
    pub w: usize,
    pub kh: usize,
    pub kw: usize,
    pub oh: usize,
    pub ow: usize,
    pub stride: [usize; 2],
    pub padding: [usize; 2],
    pub dilation: [usize; 2],
}

impl Geometry {
    /// Steps of the kernel in one channel.
    pub fn taps(&self) -> usize {
        self.kh * self.kw
    }

    /// Whether a window is one element, and every element has one.
    pub fn is_pointwise(&self) -> bool {
        [self.kh, self.kw] == [1, 1] && self.stride == [1, 1] && self.padding == [0, 0]
    }

    /// Terms of one output: the length of a weight's row.
    pub fn k(&self) -> usize {
        self.cg * self.taps()
    }

    /// Output positions of an image.
    pub fn positions(&self) -> usize {
        self.oh * self.ow
    }

    /// Elements of one image of all groups.
    pub fn image(&self) -> usize {
        self.groups * self.cg * self.h * self.w
    }

    /// Elements of one image's result.
    pub fn result(&self) -> usize {
        self.groups * self.og * self.positions()
    }

    /// Elements of one model's weight.
    pub fn weight(&self) -> usize {
        self.groups * self.og * self.k()
    }

    /// What a choice of kernels is made for: all but the number of models and images. `grad`: for the gradient of the image.
    pub fn key(&self, grad: bool) -> [usize; 14] {
        let ([sy, sx], [py, px], [dy, dx]) = (self.stride, self.padding, self.dilation);
        [usize::from(grad), self.groups, self.cg, self.og, self.h, self.w, self.kh, self.kw, sy, sx, py, px, dy, dx]
    }

    /// What a choice of the parts of the weight's gradient is made for: all that its terms and results are.
    pub fn gradient_key(&self) -> [usize; 8] {
        [self.n, self.groups, self.cg, self.og, self.oh, self.ow, self.kh, self.kw]
    }

    pub fn x_sizes(&self) -> [usize; 4] {
        [self.n, self.groups * self.cg, self.h, self.w]
    }

    pub fn w_sizes(&self) -> [usize; 4] {
        [self.groups * self.og, self.cg, self.kh, self.kw]
    }

    pub fn y_sizes(&self) -> [usize; 4] {
        [self.n, self.groups * self.og, self.oh, self.ow]
    }

    /// Multiplications of one model.
    pub fn work(&self) -> usize {
        self.n * self.result() * self.k()
    }

    /// Call `f(y, x, w)` with the indices of every product of one convolution, result by result.
    pub fn each_product(&self, mut f: impl FnMut(usize, usize, usize)) {
        for m in 0..self.models {
            for image in m * self.n..(m + 1) * self.n {
                for o in 0..self.groups * self.og {
                    for p in 0..self.positions() {
                        let y = image * self.result() + o * self.positions() + p;
                        self.each_term(m, image, o, p, |x, w| f(y, x, w));
                    }
                }
            }
        }
    }

    fn each_term(&self, m: usize, image: usize, o: usize, p: usize, mut f: impl FnMut(usize, usize)) {
        let (oy, ox) = (p / self.ow, p % self.ow);
        for c in 0..self.cg {
            let plane = image * self.groups * self.cg + o / self.og * self.cg + c;
            for ky in 0..self.kh {
                let iy = (oy * self.stride[0] + ky * self.dilation[0]).wrapping_sub(self.padding[0]);
                for kx in 0..self.kw {
                    let ix = (ox * self.stride[1] + kx * self.dilation[1]).wrapping_sub(self.padding[1]);
                    if iy < self.h && ix < self.w {
                        let w = m * self.weight() + o * self.k() + (c * self.kh + ky) * self.kw + kx;
                        f((plane * self.h + iy) * self.w + ix, w);
                    }
                }
            }
        }
    }
}

/// The element type of both operands.
pub(super) fn dtype(inputs: &[Meta]) -> Result<DType> {
    match inputs {
        [a, b] if a.dtype == b.dtype && a.dtype.is_float() => Ok(a.dtype),
        [a, b] => Err(Error::shape(format!("conv2d: takes floats of one type, got {} and {}", a.dtype, b.dtype)).help("convert with to_dtype")),
        _ => Err(Error::internal(format!("conv2d: takes 2 inputs, got {}", inputs.len()))),
    }
}
