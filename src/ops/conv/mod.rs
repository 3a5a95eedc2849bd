//! Two-dimensional convolution and its two gradients: three operations that are each other's derivatives. All of them are matrix products whose one operand is
//! gathered from the image as it is read; no buffer ever holds all windows of an image at once.

mod fast;
mod geometry;
mod gpu;
mod planes;
mod spread;
mod strips;
mod strips_weight;
mod table;
mod tiles;
mod window;

pub(super) use table::OPS;

use super::view::ok;
use crate::device::Caps;
use crate::device::cpu::{CpuView, CpuViewMut, Threads};
use crate::error::{Error, Result};
use crate::graph::{Autocast, Batched, Fuses, Key, LaunchCtx, Op, Saved, Saves, Slots, Tensor};
use crate::tensor::{DType, Layout, Meta};
use geometry::{Conv, Geometry, dtype};

/// `y [n, o, oh, ow]` of an image `x [n, c, h, w]` and a weight `w [o, c / groups, kh, kw]`.
#[derive(Debug, Clone, Copy)]
struct Conv2d(Conv);

/// The gradient of the image, of size `[h, w]`, from that of the result and the weight.
#[derive(Debug, Clone, Copy)]
struct InputGrad(Conv, [usize; 2]);

/// The gradient of the weight, with kernels of size `[kh, kw]`, from the image and the gradient of the result.
#[derive(Debug, Clone, Copy)]
struct WeightGrad(Conv, [usize; 2]);

/// What the three have in common: their geometry from their inputs' shapes, and their parts.
trait Form: Copy {
    fn conv(&self) -> Conv;
    fn stacked(self, k: usize) -> Self;
    fn geometry(&self, inputs: &[Meta]) -> Result<Geometry>;
    fn record(self, a: &Tensor, b: &Tensor) -> Result<Tensor>;

    /// The model axis: the same operation over more models. A model axis inside that of `vmap` is joined with it.
    fn batched(self, ctx: &Batched<'_>) -> Result<Vec<Tensor>> {
        let inner = self.conv().models;
        let op = self.stacked(ctx.k);
        let join = |t: &Tensor| if inner == 0 { Ok(t.clone()) } else { t.try_flatten(0, 1) };
        let y = op.record(&join(&ctx.inputs[0])?, &join(&ctx.inputs[1])?)?;
        if inner == 0 {
            return Ok(vec![y]);
        }
        let mut shape = vec![ctx.k, inner];
        shape.extend(&y.shape()[1..]);
        Ok(vec![y.try_reshape(shape)?])
    }
}

impl Form for Conv2d {
    fn conv(&self) -> Conv {
        self.0
    }
    fn stacked(self, k: usize) -> Self {
        Conv2d(self.0.stacked(k))
    }
    fn geometry(&self, inputs: &[Meta]) -> Result<Geometry> {
        self.0.geometry(&inputs[0].shape, &inputs[1].shape)
    }
    fn record(self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        Tensor::try_apply1(self, Slots::none(), &[a, b])
    }
}

impl Form for InputGrad {
    fn conv(&self) -> Conv {
        self.0
    }
    fn stacked(self, k: usize) -> Self {
        InputGrad(self.0.stacked(k), self.1)
    }
    fn geometry(&self, inputs: &[Meta]) -> Result<Geometry> {
        // The image's shape follows from the others': its channels from the weight, its size from the attribute.
        let lead = usize::from(self.0.models > 0);
        let (g, w) = (&inputs[0].shape, &inputs[1].shape);
        let mut x = *g;
        x[lead + 1] = w[lead + 1] * self.0.groups;
        x[lead + 2..].copy_from_slice(&self.1);
        let geometry = self.0.geometry(&x, w)?;
        fits(&self.0, &geometry, &inputs[0])?;
        Ok(geometry)
    }
    fn record(self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        Tensor::try_apply1(self, Slots::none(), &[a, b])
    }
}

impl Form for WeightGrad {
    fn conv(&self) -> Conv {
        self.0
    }
    fn stacked(self, k: usize) -> Self {
        WeightGrad(self.0.stacked(k), self.1)
    }
    fn geometry(&self, inputs: &[Meta]) -> Result<Geometry> {
        let lead = usize::from(self.0.models > 0);
        let (x, g) = (&inputs[0].shape, &inputs[1].shape);
        let sizes = [g[lead + 1], x[lead + 1] / self.0.groups.max(1), self.1[0], self.1[1]];
        let geometry = self.0.geometry(x, &self.0.shape(sizes))?;
        fits(&self.0, &geometry, &inputs[1])?;
        Ok(geometry)
    }
    fn record(self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        Tensor::try_apply1(self, Slots::none(), &[a, b])
    }
}

/// The gradient of a result must have the result's shape.
fn fits(conv: &Conv, geometry: &Geometry, g: &Meta) -> Result<()> {
    let want = conv.shape(geometry.y_sizes());
    if g.shape == want { Ok(()) } else { Err(Error::internal(format!("conv2d: a gradient of shape {} for a result of shape {want}", g.shape))) }
}

/// Methods that are the same for all three.
macro_rules! common {
    () => {
        fn fuses(&self) -> Fuses {
            Fuses { epilogue: true, prologue: false }
        }

        fn autocast(&self) -> Autocast {
            Autocast::Lower
        }

        fn saves(&self) -> Saves {
            Saves::inputs(&[0, 1])
        }

        fn batch(&self, ctx: &Batched<'_>) -> Result<Vec<Tensor>> {
            self.batched(ctx)
        }
    };
}

/// The geometry of a node that was inferred, from its operands on the CPU.
fn checked(form: &impl Form, inputs: &[CpuView<'_>]) -> Result<Geometry> {
    form.geometry(&inputs.iter().map(|i| Meta::new(i.dtype, *i.shape())).collect::<Vec<_>>())
}

/// The definition of all three: over every product, the sum that `into` adds to.
fn define(g: &Geometry, a: &CpuView<'_>, b: &CpuView<'_>, out: &mut CpuViewMut<'_>, mut add: impl FnMut(&mut [f64], &[f64], &[f64], [usize; 3])) {
    let (a, b) = (a.to_f64(), b.to_f64());
    let mut sums = vec![0f64; out.meta.numel()];
    g.each_product(|y, x, w| add(&mut sums, &a, &b, [y, x, w]));
    out.set_f64(&sums);
}

impl Op for Conv2d {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn key(&self, key: &mut Key) {
        self.0.key(key);
    }

    fn infer(&self, _: &Slots, inputs: &[Meta]) -> Result<Vec<Meta>> {
        let dtype = dtype(inputs)?;
        Ok(vec![Meta::new(dtype, self.0.shape(self.geometry(inputs)?.y_sizes()))])
    }

    fn cpu(&self, _: &Slots, inputs: &[CpuView<'_>], outputs: &mut [CpuViewMut<'_>]) -> Result<()> {
        define(&checked(self, inputs)?, &inputs[0], &inputs[1], &mut outputs[0], |sum, a, b, [y, x, w]| sum[y] += a[x] * b[w]);
        Ok(())
    }

    fn cpu_fast(&self, _: &Slots, inputs: &[CpuView<'_>], outputs: &mut [CpuViewMut<'_>], threads: &Threads) -> Result<bool> {
        if inputs[0].dtype != DType::F32 {
            return Ok(false);
        }
        fast::forward(&checked(self, inputs)?, &inputs[0].elements(), &inputs[1].elements(), outputs[0].elements(), threads);
        Ok(true)
    }

    fn gpu(&self, ctx: &mut LaunchCtx<'_>) -> Result<()> {
        let metas: Vec<Meta> = ctx.inputs.iter().map(|i| i.meta).collect();
        gpu::forward(ctx, &self.geometry(&metas)?)
    }

    fn backward(&self, ctx: &Saved<'_>, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let Some(g) = &grads[0] else { return Ok(vec![None, None]) };
        let geometry = self.geometry(&[*ctx.input_meta(0), *ctx.input_meta(1)])?;
        let dx = if ctx.needs(0) { Some(InputGrad(self.0, [geometry.h, geometry.w]).record(g, ctx.input(1))?) } else { None };
        let dw = if ctx.needs(1) { Some(WeightGrad(self.0, [geometry.kh, geometry.kw]).record(ctx.input(0), g)?) } else { None };
        Ok(vec![dx, dw])
    }

    common!();
}

impl Op for InputGrad {
    fn name(&self) -> &'static str {
        "conv2d_input_grad"
    }

    fn key(&self, key: &mut Key) {
        self.0.key(key);
        key.ints(&self.1);
    }

    fn infer(&self, _: &Slots, inputs: &[Meta]) -> Result<Vec<Meta>> {
        let dtype = dtype(inputs)?;
        Ok(vec![Meta::new(dtype, self.0.shape(self.geometry(inputs)?.x_sizes()))])
    }

    fn cpu(&self, _: &Slots, inputs: &[CpuView<'_>], outputs: &mut [CpuViewMut<'_>]) -> Result<()> {
        define(&checked(self, inputs)?, &inputs[0], &inputs[1], &mut outputs[0], |sum, a, b, [y, x, w]| sum[x] += a[y] * b[w]);
        Ok(())
    }

    fn cpu_fast(&self, _: &Slots, inputs: &[CpuView<'_>], outputs: &mut [CpuViewMut<'_>], threads: &Threads) -> Result<bool> {
        if inputs[0].dtype != DType::F32 {
            return Ok(false);
        }
        fast::input_grad(&checked(self, inputs)?, &inputs[0].elements(), &inputs[1].elements(), outputs[0].elements(), threads);
        Ok(true)
    }

    fn gpu(&self, ctx: &mut LaunchCtx<'_>) -> Result<()> {
        let metas: Vec<Meta> = ctx.inputs.iter().map(|i| i.meta).collect();
        gpu::input_grad(ctx, &self.geometry(&metas)?)
    }

    fn backward(&self, ctx: &Saved<'_>, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let Some(v) = &grads[0] else { return Ok(vec![None, None]) };
        let geometry = self.geometry(&[*ctx.input_meta(0), *ctx.input_meta(1)])?;
        let dg = if ctx.needs(0) { Some(Conv2d(self.0).record(v, ctx.input(1))?) } else { None };
        let dw = if ctx.needs(1) { Some(WeightGrad(self.0, [geometry.kh, geometry.kw]).record(v, ctx.input(0))?) } else { None };
        Ok(vec![dg, dw])
    }

    common!();
}

impl Op for WeightGrad {
    fn name(&self) -> &'static str {
        "conv2d_weight_grad"
    }

    fn key(&self, key: &mut Key) {
        self.0.key(key);
        key.ints(&self.1);
    }

    fn infer(&self, _: &Slots, inputs: &[Meta]) -> Result<Vec<Meta>> {
        let dtype = dtype(inputs)?;
        Ok(vec![Meta::new(dtype, self.0.shape(self.geometry(inputs)?.w_sizes()))])
    }

    fn cpu(&self, _: &Slots, inputs: &[CpuView<'_>], outputs: &mut [CpuViewMut<'_>]) -> Result<()> {
        define(&checked(self, inputs)?, &inputs[0], &inputs[1], &mut outputs[0], |sum, a, b, [y, x, w]| sum[w] += a[x] * b[y]);
        Ok(())
    }

    fn sums_along(&self, caps: &Caps, inputs: &[(Layout, bool)]) -> Option<(usize, u8)> {
        let metas: Vec<Meta> = inputs.iter().map(|(l, _)| Meta::new(DType::F32, l.shape)).collect();
        let lies = inputs.iter().all(|(l, _)| l.is_contiguous());
        let makes = lies && gpu::sums_results(caps, &self.geometry(&metas).ok()?, [inputs[0].1, inputs[1].1]);
        // All but the models and the channels.
        makes.then_some((1, if self.0.models > 0 { 0b11010 } else { 0b1101 }))
    }

    fn cpu_fast(&self, _: &Slots, inputs: &[CpuView<'_>], outputs: &mut [CpuViewMut<'_>], threads: &Threads) -> Result<bool> {
        if inputs[0].dtype != DType::F32 {
            return Ok(false);
        }
        fast::weight_grad(&checked(self, inputs)?, &inputs[0].elements(), &inputs[1].elements(), outputs[0].elements(), threads);
        Ok(true)
    }

    fn gpu(&self, ctx: &mut LaunchCtx<'_>) -> Result<()> {
        let metas: Vec<Meta> = ctx.inputs.iter().map(|i| i.meta).collect();
        gpu::weight_grad(ctx, &self.geometry(&metas)?)
    }

    fn backward(&self, ctx: &Saved<'_>, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let Some(v) = &grads[0] else { return Ok(vec![None, None]) };
        let geometry = self.geometry(&[*ctx.input_meta(0), *ctx.input_meta(1)])?;
        let dx = if ctx.needs(0) { Some(InputGrad(self.0, [geometry.h, geometry.w]).record(ctx.input(1), v)?) } else { None };
        let dg = if ctx.needs(1) { Some(Conv2d(self.0).record(ctx.input(0), v)?) } else { None };
        Ok(vec![dx, dg])
    }

    common!();
}

/// How a convolution steps over its input; PyTorch's defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv2dOptions {
    /// From one window to the next, down and across.
    pub stride: [usize; 2],
    /// Zeros around the input, above and below, left and right.
    pub padding: [usize; 2],
    /// From one step of the kernel to the next.
    pub dilation: [usize; 2],
    /// Into how many groups the channels are cut; each is convolved alone.
    pub groups: usize,
}

impl Default for Conv2dOptions {
    fn default() -> Self {
        Conv2dOptions { stride: [1; 2], padding: [0; 2], dilation: [1; 2], groups: 1 }
    }
}

impl Tensor {
    /// The convolution of `self` `[n, c, h, w]` (or `[c, h, w]`) with `weight` `[o, c / groups, kh, kw]`, plus `bias` `[o]`: `[n, o, oh, ow]`, one kernel.
    ///
    /// ```
    /// use wgrad::{Device, Tensor, ops::Conv2dOptions};
    /// let device = Device::cpu()?;
    /// let x = Tensor::ones([1, 1, 3, 3], &device);
    /// let weight = Tensor::ones([1, 1, 3, 3], &device);
    /// let same = Conv2dOptions { padding: [1, 1], ..Default::default() };
    /// assert_eq!(x.conv2d(&weight, None, same).to_vec::<f32>()?, [4.0, 6.0, 4.0, 6.0, 9.0, 6.0, 4.0, 6.0, 4.0]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    #[track_caller]
    pub fn conv2d(&self, weight: &Tensor, bias: Option<&Tensor>, options: Conv2dOptions) -> Tensor {
        ok(self.try_conv2d(weight, bias, options))
    }

    /// [`Tensor::conv2d`], or an error where shapes and options do not fit.
    pub fn try_conv2d(&self, weight: &Tensor, bias: Option<&Tensor>, options: Conv2dOptions) -> Result<Tensor> {
        if self.rank() == 3 {
            let y = self.try_reshape(self.shape().with(0, 1))?.try_conv2d(weight, bias, options)?;
            return y.try_reshape(y.shape().without(0));
        }
        let Conv2dOptions { stride, padding, dilation, groups } = options;
        let y = Conv2d(Conv { stride, padding, dilation, groups, models: 0 }).record(self, weight)?;
        let Some(bias) = bias else { return Ok(y) };
        let o = weight.shape()[0];
        if bias.shape()[..] != [o] {
            return Err(Error::shape(format!("conv2d: bias of shape {} does not fit {o} output channels", bias.shape())));
        }
        let bias = bias.autocast_beside(&y)?.try_reshape([1, o, 1, 1])?;
        Tensor::apply_row(super::rows::row("add"), &[], &[&y, &bias])
    }
}
