//! avg_pool2d and its gradient, which are each other's gradients.

use super::{Windows, plane, planes_of_task, turns, with_plane};
use crate::device::cpu::{CpuView, CpuViewMut, Threads};
use crate::error::{Error, Result};
use crate::graph::{Autocast, Batched, Fuses, Key, LaunchCtx, Op, Saved, Slots, Tensor};
use crate::tensor::{DType, Meta};
use std::ops::Range;

/// The mean of each window; the flag says whether the padding counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct AvgPool(pub Windows, pub bool);

/// The gradient of the input, whose planes are of size `[h, w]`.
#[derive(Clone, Copy, Debug)]
struct AvgPoolGrad(Windows, bool, [usize; 2]);

impl AvgPool {
    pub fn record(self, x: &Tensor) -> Result<Tensor> {
        Tensor::try_apply1(self, Slots::none(), &[x])
    }
}

/// The elements of window `o` along dimension `d`, and how many count for the mean.
fn span(w: &Windows, include: bool, d: usize, size: usize, o: usize) -> (Range<usize>, usize) {
    // In coordinates that count from the corner of the padding.
    let (start, p) = (o * w.stride[d], w.padding[d]);
    let end = (start + w.kernel[d]).min(size + 2 * p);
    let inside = start.max(p) - p..end.min(size + p).max(p) - p;
    let count = if include { end - start } else { inside.len() };
    (inside, count)
}

/// Call `f(window, elements of row r of the window in its plane, divisor)` for every row of every window of a plane.
fn each_row(w: &Windows, include: bool, size: [usize; 2], out: [usize; 2], mut f: impl FnMut(usize, Range<usize>, usize)) {
    let across: Vec<(Range<usize>, usize)> = (0..out[1]).map(|o| span(w, include, 1, size[1], o)).collect();
    for oy in 0..out[0] {
        let (ys, height) = span(w, include, 0, size[0], oy);
        for (ox, (xs, width)) in across.iter().enumerate() {
            for iy in ys.clone() {
                f(oy * out[1] + ox, iy * size[1] + xs.start..iy * size[1] + xs.end, height * width);
            }
        }
    }
}

impl Op for AvgPool {
    fn name(&self) -> &'static str {
        "avg_pool2d"
    }

    fn key(&self, key: &mut Key) {
        self.0.key(key);
        key.flag(self.1);
    }

    fn autocast(&self) -> Autocast {
        Autocast::Keep
    }

    fn infer(&self, _: &Slots, inputs: &[Meta]) -> Result<Vec<Meta>> {
        Ok(vec![Meta::new(inputs[0].dtype, self.0.infer("avg_pool2d", &inputs[0])?)])
    }

    fn fuses(&self) -> Fuses {
        Fuses { epilogue: true, prologue: false }
    }

    fn cpu(&self, _: &Slots, inputs: &[CpuView<'_>], outputs: &mut [CpuViewMut<'_>]) -> Result<()> {
        let (size, out) = (plane(inputs[0].shape()), plane(&outputs[0].meta.shape));
        let x = inputs[0].to_f64();
        let mut y = vec![0f64; outputs[0].meta.numel()];
        for (x, y) in x.chunks(size[0] * size[1]).zip(y.chunks_mut(out[0] * out[1])) {
            each_row(&self.0, self.1, size, out, |o, row, divisor| y[o] += x[row].iter().sum::<f64>() / divisor as f64);
        }
        outputs[0].set_f64(&y);
        Ok(())
    }

    fn cpu_fast(&self, _: &Slots, inputs: &[CpuView<'_>], outputs: &mut [CpuViewMut<'_>], threads: &Threads) -> Result<bool> {
        if inputs[0].dtype != DType::F32 {
            return Ok(false);
        }
        let (size, out) = (plane(inputs[0].shape()), plane(&outputs[0].meta.shape));
        let x = inputs[0].elements::<f32>();
        let (area, each) = (size[0] * size[1], out[0] * out[1]);
        threads.chunks(outputs[0].elements::<f32>(), planes_of_task(area) * each, |start, part| {
            // Windows may be as large as an image: they join in f64.
            let mut sums = vec![0f64; each];
            for (p, y) in part.chunks_mut(each).enumerate() {
                let x = &x[(start / each + p) * area..][..area];
                sums.fill(0.0);
                let few = |row: &[f32]| row.chunks(64).map(|few| f64::from(few.iter().sum::<f32>())).sum::<f64>();
                each_row(&self.0, self.1, size, out, |o, row, divisor| sums[o] += few(&x[row]) / divisor as f64);
                y.iter_mut().zip(&sums).for_each(|(y, sum)| *y = *sum as f32);
            }
        });
        Ok(true)
    }

    fn gpu(&self, ctx: &mut LaunchCtx<'_>) -> Result<()> {
        let (x, out) = (ctx.inputs[0].meta.shape, ctx.outputs[0].1.shape);
        let count = out.numel();
        if count == 0 {
            return Ok(());
        }
        let size = plane(&x);
        turns(ctx, "avg_pool2d", [0, 1].map(|d| self.0.kernel[d].min(size[d])))?;
        let call = ctx.call("avg_pool2d")?.input("x", 0);
        let call = self.0.words(call, count, size, plane(&out)).u32s(&[usize::from(self.1), 0, 0, 0]);
        call.flops((count * self.0.kernel[0] * self.0.kernel[1]) as u64).with_epilogue()?.grid_linear(count.div_ceil(64))
    }

    fn backward(&self, ctx: &Saved<'_>, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let Some(g) = &grads[0] else { return Ok(vec![None]) };
        let grad = AvgPoolGrad(self.0, self.1, plane(&ctx.input_meta(0).shape));
        Ok(vec![Some(Tensor::try_apply1(grad, Slots::none(), &[g])?)])
    }

    fn batch(&self, ctx: &Batched<'_>) -> Result<Vec<Tensor>> {
        Ok(vec![self.record(&ctx.inputs[0])?])
    }
}

impl Op for AvgPoolGrad {
    fn name(&self) -> &'static str {
        "avg_pool2d_grad"
    }

    fn key(&self, key: &mut Key) {
        self.0.key(key);
        key.flag(self.1).ints(&self.2);
    }

    fn infer(&self, _: &Slots, inputs: &[Meta]) -> Result<Vec<Meta>> {
        let g = &inputs[0];
        if g.shape.rank() < 2 || plane(&g.shape) != self.0.out("avg_pool2d_grad", self.2)? {
            return Err(Error::internal(format!("avg_pool2d_grad: {g} does not fit {:?}", self.2)));
        }
        Ok(vec![Meta::new(g.dtype, with_plane(&g.shape, self.2))])
    }

    fn fuses(&self) -> Fuses {
        Fuses { epilogue: true, prologue: false }
    }

    fn cpu(&self, _: &Slots, inputs: &[CpuView<'_>], outputs: &mut [CpuViewMut<'_>]) -> Result<()> {
        let (size, out) = (self.2, plane(inputs[0].shape()));
        let g = inputs[0].to_f64();
        let mut sum = vec![0f64; outputs[0].meta.numel()];
        for (g, sum) in g.chunks(out[0] * out[1]).zip(sum.chunks_mut(size[0] * size[1])) {
            each_row(&self.0, self.1, size, out, |o, row, divisor| sum[row].iter_mut().for_each(|s| *s += g[o] / divisor as f64));
        }
        outputs[0].set_f64(&sum);
        Ok(())
    }

    fn cpu_fast(&self, _: &Slots, inputs: &[CpuView<'_>], outputs: &mut [CpuViewMut<'_>], threads: &Threads) -> Result<bool> {
        if inputs[0].dtype != DType::F32 {
            return Ok(false);
        }
        let (size, out) = (self.2, plane(inputs[0].shape()));
        let g = inputs[0].elements::<f32>();
        let (area, each) = (size[0] * size[1], out[0] * out[1]);
        threads.chunks(outputs[0].elements::<f32>(), planes_of_task(area) * area, |start, part| {
            part.fill(0.0);
            for (p, sum) in part.chunks_mut(area).enumerate() {
                let g = &g[(start / area + p) * each..][..each];
                each_row(&self.0, self.1, size, out, |o, row, divisor| {
                    let share = g[o] / divisor as f32;
                    sum[row].iter_mut().for_each(|s| *s += share);
                });
            }
        });
        Ok(true)
    }

    fn gpu(&self, ctx: &mut LaunchCtx<'_>) -> Result<()> {
        let (g, count) = (ctx.inputs[0].meta.shape, ctx.outputs[0].1.numel());
        if count == 0 {
            return Ok(());
        }
        // The windows that reach an element.
        let windows = plane(&g);
        turns(ctx, "avg_pool2d", [0, 1].map(|d| self.0.kernel[d].div_ceil(self.0.stride[d]).min(windows[d])))?;
        let call = ctx.call("avg_pool2d_grad")?.input("g", 0);
        let call = self.0.words(call, count, self.2, windows).u32s(&[usize::from(self.1), 0, 0, 0]);
        call.flops((count * self.0.kernel[0] * self.0.kernel[1]) as u64).with_epilogue()?.grid_linear(count.div_ceil(64))
    }

    fn backward(&self, _: &Saved<'_>, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let Some(v) = &grads[0] else { return Ok(vec![None]) };
        Ok(vec![Some(AvgPool(self.0, self.1).record(v)?)])
    }

    fn batch(&self, ctx: &Batched<'_>) -> Result<Vec<Tensor>> {
        Ok(vec![Tensor::try_apply1(*self, Slots::none(), &[&ctx.inputs[0]])?])
    }
}
