//! Pooling over windows of images: max_pool2d, avg_pool2d, their gradients, and the gradients of those.

mod avg;
mod max;
mod table;

pub(super) use table::OPS;

use super::check_window;
use super::view::ok;
use crate::error::{Error, Result};
use crate::graph::{Call, Key, LaunchCtx, Tensor};
use crate::tensor::{Meta, Shape};
use avg::AvgPool;
use max::MaxPool;

/// Refuse to visit so many rows and columns where a driver lets loops turn less often: their ends count, too.
fn turns(ctx: &LaunchCtx<'_>, op: &str, [rows, columns]: [usize; 2]) -> Result<()> {
    ctx.turns(op, rows.saturating_mul(columns.saturating_add(2)))
}

/// The windows of a pool. Inputs are planes `[.., h, w]`: any number of leading dimensions, so that a model axis is one more of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Windows {
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 2],
    dilation: [usize; 2],
    ceil: bool,
}

impl Windows {
    fn key(&self, key: &mut Key) {
        key.ints(&self.kernel).ints(&self.stride).ints(&self.padding).ints(&self.dilation).flag(self.ceil);
    }

    /// The size of the result for planes of this size, by PyTorch's rule: rounding up, but no window that begins in the far padding.
    fn out(&self, op: &str, size: [usize; 2]) -> Result<[usize; 2]> {
        for (what, v, least) in [("kernel size", self.kernel, 1), ("stride", self.stride, 1), ("dilation", self.dilation, 1), ("padding", self.padding, 0)] {
            check_window(op, what, v, least)?;
        }
        let mut out = [0; 2];
        for d in 0..2 {
            let reach = self.dilation[d] * (self.kernel[d] - 1) + 1;
            let padded = size[d] + 2 * self.padding[d];
            if 2 * self.padding[d] > reach {
                return Err(Error::shape(format!("{op}: padding {:?} is more than half of kernel size {:?}", self.padding, self.kernel)));
            }
            if padded < reach || size[d] == 0 {
                return Err(Error::shape(format!("{op}: kernel {:?} with dilation {:?} is larger than the padded input {size:?}", self.kernel, self.dilation)));
            }
            let round = if self.ceil { self.stride[d] - 1 } else { 0 };
            out[d] = (padded - reach + round) / self.stride[d] + 1;
            if self.ceil && (out[d] - 1) * self.stride[d] >= size[d] + self.padding[d] {
                out[d] -= 1;
            }
            // Dilation can step over a small input.
            if let Some(o) = (0..out[d]).find(|&o| !(0..self.kernel[d]).any(|k| self.place(d, o, k) < size[d])) {
                return Err(Error::shape(format!("{op}: window {o} of dim {d} lies wholly in the padding of input {size:?}")));
            }
        }
        Ok(out)
    }

    /// Where step `k` of window `o` lies; in the padding, a number above any size.
    fn place(&self, d: usize, o: usize, k: usize) -> usize {
        (o * self.stride[d] + k * self.dilation[d]).wrapping_sub(self.padding[d])
    }

    /// The same along one dimension only.
    fn along(&self, d: usize) -> Windows {
        let only = |of: [usize; 2], other: usize| std::array::from_fn(|n| if n == d { of[n] } else { other });
        Windows { kernel: only(self.kernel, 1), stride: only(self.stride, 1), padding: only(self.padding, 0), dilation: only(self.dilation, 1), ceil: self.ceil }
    }

    fn infer(&self, op: &str, input: &Meta) -> Result<Shape> {
        let shape = input.shape;
        if !input.dtype.is_float() {
            return Err(Error::shape(format!("{op}: takes floats, got {}", input.dtype)).help("convert with to_dtype"));
        }
        if shape.rank() < 2 {
            return Err(Error::shape(format!("{op}: input must be [.., h, w], got shape {shape}")));
        }
        let out = self.out(op, plane(&shape))?;
        Ok(with_plane(&shape, out))
    }

    /// The windows as text, for max_pool2d's shaders.
    fn consts<'c, 'a>(&self, call: Call<'c, 'a>) -> Call<'c, 'a> {
        let pairs = [("KERNEL", self.kernel), ("STRIDE", self.stride), ("PADDING", self.padding), ("DILATION", self.dilation)];
        pairs.iter().fold(call, |call, (name, [y, x])| call.set(name, format!("vec2<u32>({y}u, {x}u)")))
    }

    /// The words of avg_pool2d's shaders: sizes, then windows.
    fn words<'c, 'a>(&self, call: Call<'c, 'a>, count: usize, size: [usize; 2], out: [usize; 2]) -> Call<'c, 'a> {
        call.u32(count).u32s(&size).offset(0).u32s(&out).u32s(&self.kernel).u32s(&self.stride).u32s(&self.padding)
    }
}

/// Height and width.
fn plane(shape: &Shape) -> [usize; 2] {
    [shape[shape.rank() - 2], shape[shape.rank() - 1]]
}

/// The shape with other height and width.
fn with_plane(shape: &Shape, size: [usize; 2]) -> Shape {
    let mut s = *shape;
    let r = s.rank();
    s[r - 2..].copy_from_slice(&size);
    s
}

/// Elements of a window that is averaged in one step.
const LARGE_WINDOW: usize = 256;

/// Elements of one task of the fast CPU path.
const TASK: usize = 1 << 14;

/// How many planes of `size` elements make a task.
fn planes_of_task(size: usize) -> usize {
    TASK.div_ceil(size.max(1))
}

/// How max_pool2d steps over its input; PyTorch's defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxPool2dOptions {
    /// From one window to the next, down and across; the kernel's size where absent.
    pub stride: Option<[usize; 2]>,
    /// Empty space around the input, at most half of the kernel's size.
    pub padding: [usize; 2],
    /// From one element of a window to the next.
    pub dilation: [usize; 2],
    /// Whether the result's size is rounded up.
    pub ceil_mode: bool,
}

impl Default for MaxPool2dOptions {
    fn default() -> Self {
        MaxPool2dOptions { stride: None, padding: [0; 2], dilation: [1; 2], ceil_mode: false }
    }
}

/// How avg_pool2d steps over its input; PyTorch's defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AvgPool2dOptions {
    /// From one window to the next, down and across; the kernel's size where absent.
    pub stride: Option<[usize; 2]>,
    /// Zeros around the input, at most half of the kernel's size.
    pub padding: [usize; 2],
    /// Whether the result's size is rounded up.
    pub ceil_mode: bool,
    /// Whether the zeros of the padding count as elements of the mean.
    pub count_include_pad: bool,
}

impl Default for AvgPool2dOptions {
    fn default() -> Self {
        AvgPool2dOptions { stride: None, padding: [0; 2], ceil_mode: false, count_include_pad: true }
    }
}

impl Tensor {
    /// The largest element of each window of `kernel` `[kh, kw]`: `[.., h, w]` to `[.., oh, ow]`. NaN wins over every number.
    ///
    /// ```
    /// use wgrad::{Device, Tensor, ops::MaxPool2dOptions};
    /// let x = Tensor::new([1.0f32, 2.0, 3.0, 4.0, 8.0, 7.0, 6.0, 5.0], [1, 1, 2, 4], &Device::cpu()?)?;
    /// assert_eq!(x.max_pool2d([2, 2], MaxPool2dOptions::default()).to_vec::<f32>()?, [8.0, 6.0]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    #[track_caller]
    pub fn max_pool2d(&self, kernel: [usize; 2], options: MaxPool2dOptions) -> Tensor {
        ok(self.try_max_pool2d(kernel, options))
    }

    /// [`Tensor::max_pool2d`], or an error where shape and options do not fit.
    pub fn try_max_pool2d(&self, kernel: [usize; 2], options: MaxPool2dOptions) -> Result<Tensor> {
        Ok(self.try_max_pool2d_with_indices(kernel, options)?.0)
    }

    /// [`Tensor::max_pool2d`], and where in its plane each of the largest elements lies (`y * w + x`, i32).
    pub fn try_max_pool2d_with_indices(&self, kernel: [usize; 2], options: MaxPool2dOptions) -> Result<(Tensor, Tensor)> {
        let MaxPool2dOptions { stride, padding, dilation, ceil_mode } = options;
        MaxPool(Windows { kernel, stride: stride.unwrap_or(kernel), padding, dilation, ceil: ceil_mode }).record(self)
    }

    /// The mean of each window of `kernel` `[kh, kw]`: `[.., h, w]` to `[.., oh, ow]`.
    ///
    /// ```
    /// use wgrad::{Device, Tensor, ops::AvgPool2dOptions};
    /// let x = Tensor::new([1.0f32, 2.0, 3.0, 4.0, 8.0, 7.0, 6.0, 5.0], [1, 1, 2, 4], &Device::cpu()?)?;
    /// assert_eq!(x.avg_pool2d([2, 2], AvgPool2dOptions::default()).to_vec::<f32>()?, [4.5, 4.5]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    #[track_caller]
    pub fn avg_pool2d(&self, kernel: [usize; 2], options: AvgPool2dOptions) -> Tensor {
        ok(self.try_avg_pool2d(kernel, options))
    }

    /// [`Tensor::avg_pool2d`], or an error where shape and options do not fit.
    pub fn try_avg_pool2d(&self, kernel: [usize; 2], options: AvgPool2dOptions) -> Result<Tensor> {
        let AvgPool2dOptions { stride, padding, ceil_mode, count_include_pad } = options;
        let windows = Windows { kernel, stride: stride.unwrap_or(kernel), padding, dilation: [1; 2], ceil: ceil_mode };
        if kernel[0].saturating_mul(kernel[1]) <= LARGE_WINDOW || kernel.contains(&1) {
            return AvgPool(windows, count_include_pad).record(self);
        }
        // The mean of a large window is that of its rows' means, in far fewer steps: as many elements count in each row.
        windows.infer("avg_pool2d", self.meta())?;
        [1, 0].into_iter().try_fold(self.clone(), |x, d| AvgPool(windows.along(d), count_include_pad).record(&x))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_follow_pytorch() {
        let w = |kernel: usize, stride: usize, padding: usize, ceil: bool| Windows { kernel: [kernel; 2], stride: [stride; 2], padding: [padding; 2], dilation: [1; 2], ceil };
        assert_eq!(w(2, 2, 0, false).out("p", [5, 6]).unwrap(), [2, 3]);
        assert_eq!(w(2, 2, 0, true).out("p", [5, 6]).unwrap(), [3, 3]);
        // Rounded up, the last window would begin in the padding behind the input: it is dropped.
        assert_eq!(w(2, 3, 1, true).out("p", [5, 2]).unwrap(), [2, 1]);
        assert!(w(2, 1, 2, false).out("p", [5, 5]).is_err());
        assert!(w(3, 1, 0, false).out("p", [2, 5]).is_err());
    }
}
