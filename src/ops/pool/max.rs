//! max_pool2d: its gradient sends each result's gradient to the element that it came from, and that one's gradient reads them back.

use super::{Windows, plane, planes_of_task, turns, with_plane};
use crate::device::cpu::{CpuView, CpuViewMut, Threads};
use crate::error::{Error, Result};
use crate::graph::{Autocast, Batched, Fuses, Key, LaunchCtx, Op, Saved, Saves, Slots, Tensor};
use crate::tensor::{DType, Meta};

/// Two results: the largest element of each window, and where it lies in its plane.
#[derive(Clone, Copy, Debug)]
pub(super) struct MaxPool(pub Windows);

/// The gradient of the input, whose planes are of size `[h, w]`, from that of the result and the places.
#[derive(Clone, Copy, Debug)]
struct MaxPoolGrad(Windows, [usize; 2]);

/// The elements at the places, one a window: [`MaxPoolGrad`] turned round.
#[derive(Clone, Copy, Debug)]
struct PoolGather(Windows);

impl MaxPool {
    pub fn record(self, x: &Tensor) -> Result<(Tensor, Tensor)> {
        let mut outs = Tensor::try_apply(self, Slots::none(), &[x])?;
        let index = outs.pop().ok_or_else(|| Error::internal("max_pool2d: no index"))?;
        Ok((outs.remove(0), index))
    }
}

/// Value and place of the largest element of window `[oy, ox]` of one plane.
fn largest<T: Copy + PartialOrd>(w: &Windows, x: &[T], size: [usize; 2], oy: usize, ox: usize) -> Option<(T, usize)> {
    let mut best: Option<(T, usize)> = None;
    for iy in (0..w.kernel[0]).map(|k| w.place(0, oy, k)).filter(|&i| i < size[0]) {
        for ix in (0..w.kernel[1]).map(|k| w.place(1, ox, k)).filter(|&i| i < size[1]) {
            let at = iy * size[1] + ix;
            let v = x[at];
            let nan = v.partial_cmp(&v).is_none();
            if nan || best.is_none_or(|(b, _)| v > b) {
                best = Some((v, at));
            }
        }
    }
    best
}

impl Op for MaxPool {
    fn name(&self) -> &'static str {
        "max_pool2d"
    }

    fn key(&self, key: &mut Key) {
        self.0.key(key);
    }

    fn autocast(&self) -> Autocast {
        Autocast::Keep
    }

    fn infer(&self, _: &Slots, inputs: &[Meta]) -> Result<Vec<Meta>> {
        let shape = self.0.infer("max_pool2d", &inputs[0])?;
        Ok(vec![Meta::new(inputs[0].dtype, shape), Meta::new(DType::I32, shape)])
    }

    fn cpu(&self, _: &Slots, inputs: &[CpuView<'_>], outputs: &mut [CpuViewMut<'_>]) -> Result<()> {
        let size = plane(inputs[0].shape());
        let [oh, ow] = plane(&outputs[0].meta.shape);
        let x = inputs[0].to_f64();
        let found: Vec<(f64, usize)> = x
            .chunks(size[0] * size[1])
            .flat_map(|x| (0..oh * ow).map(move |o| largest(&self.0, x, size, o / ow, o % ow).unwrap_or((0.0, 0))))
            .collect();
        outputs[0].set_f64(&found.iter().map(|f| f.0).collect::<Vec<_>>());
        outputs[1].set_f64(&found.iter().map(|f| f.1 as f64).collect::<Vec<_>>());
        Ok(())
    }

    fn cpu_fast(&self, _: &Slots, inputs: &[CpuView<'_>], outputs: &mut [CpuViewMut<'_>], threads: &Threads) -> Result<bool> {
        if inputs[0].dtype != DType::F32 {
            return Ok(false);
        }
        let size = plane(inputs[0].shape());
        let [oh, ow] = plane(&outputs[0].meta.shape);
        let x = inputs[0].elements::<f32>();
        let [y, index] = outputs else { return Err(Error::internal("max_pool2d: has two results")) };
        let (area, planes) = (size[0] * size[1], planes_of_task(size[0] * size[1]));
        let parts = y.elements::<f32>().chunks_mut(planes * oh * ow).zip(index.elements::<i32>().chunks_mut(planes * oh * ow));
        threads.each_of(parts.collect(), |task, (y, index)| {
            for (p, (y, index)) in y.chunks_mut(oh * ow).zip(index.chunks_mut(oh * ow)).enumerate() {
                let x = &x[(task * planes + p) * area..][..area];
                if self.0 == HALVES {
                    halve(x, size[1], ow, y, index);
                    continue;
                }
                for (o, (y, index)) in y.iter_mut().zip(index).enumerate() {
                    let (v, at) = largest(&self.0, x, size, o / ow, o % ow).unwrap_or((0.0, 0));
                    (*y, *index) = (v, at as i32);
                }
            }
        });
        Ok(true)
    }

    fn gpu(&self, ctx: &mut LaunchCtx<'_>) -> Result<()> {
        let (x, out) = (ctx.inputs[0].meta.shape, ctx.outputs[0].1.shape);
        let count = out.numel();
        let (value, index) = (ctx.outputs[0].0.is_some(), ctx.outputs[1].0.is_some());
        if count == 0 || !(value || index) {
            return Ok(());
        }
        turns(ctx, "max_pool2d", self.0.kernel)?;
        let [height, width] = plane(&x);
        if self.0 == HALVES && width.is_multiple_of(2) && ctx.inputs[0].aligned {
            let pairs = width.is_multiple_of(4);
            let (length, element) = if pairs { (4, "vec4<f32>") } else { (2, "vec2<f32>") };
            let outputs = [ctx.outputs[0].0, ctx.outputs[1].0];
            let mut call = ctx.call("max_pool2d_halves")?.alias("V", element).set("LENGTH", format!("{length}u")).input_as("x", 0, element);
            if pairs {
                let both = "    let a = window(top.xy, bottom.xy, at);\n    let b = window(top.zw, bottom.zw, at + 2u);";
                let value = if value { "\n    y[i] = vec2<f32>(a.value, b.value);" } else { "" };
                let index = if index { "\n    index[i] = vec2<i32>(i32(a.at), i32(b.at));" } else { "" };
                call = call.hook("windows", &format!("{both}{value}{index}")).hook("store_value", "").hook("store_index", "");
            }
            for ((slot, hook), (name, single)) in outputs.into_iter().zip(["store_value", "store_index"]).zip([("y", "f32"), ("index", "i32")]) {
                call = match slot {
                    Some(slot) if pairs => call.write(name, slot, &format!("vec2<{single}>")),
                    Some(slot) => call.write(name, slot, single),
                    None => call.hook(hook, ""),
                };
            }
            let invocations = count * 2 / length;
            call = call.u32s(&[invocations, height, width]).offset(0).u32s(&[height / 2, width / length, 0, 0]);
            return call.flops(4 * count as u64).grid_linear(invocations.div_ceil(64));
        }
        let mut call = ctx.call("max_pool2d")?.input("x", 0);
        call = if value { call.output("y", 0)? } else { call.hook("store_value", "") };
        call = if index { call.output("index", 1)? } else { call.hook("store_index", "") };
        call = self.0.consts(call).set("INSIDE", self.0.padding == [0; 2] && !self.0.ceil);
        call = call.u32(count).u32s(&plane(&x)).offset(0).u32s(&plane(&out)).u32s(&[0, 0]);
        call.flops((count * self.0.kernel[0] * self.0.kernel[1]) as u64).grid_linear(count.div_ceil(64))
    }

    fn saves(&self) -> Saves {
        Saves::outputs(&[1])
    }

    fn backward(&self, ctx: &Saved<'_>, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let Some(g) = &grads[0] else { return Ok(vec![None]) };
        let grad = MaxPoolGrad(self.0, plane(&ctx.input_meta(0).shape));
        Ok(vec![Some(Tensor::try_apply1(grad, Slots::none(), &[g, ctx.output(1)])?)])
    }

    fn batch(&self, ctx: &Batched<'_>) -> Result<Vec<Tensor>> {
        Ok(Tensor::try_apply(*self, Slots::none(), &[&ctx.inputs[0]])?.into_vec())
    }
}

/// The windows of nearly every network: 2 x 2, side by side.
const HALVES: Windows = Windows { kernel: [2; 2], stride: [2; 2], padding: [0; 2], dilation: [1; 2], ceil: false };

/// One plane of [`HALVES`], without a branch an element.
fn halve(x: &[f32], width: usize, ow: usize, y: &mut [f32], index: &mut [i32]) {
    for (oy, (y, index)) in y.chunks_exact_mut(ow).zip(index.chunks_exact_mut(ow)).enumerate() {
        let first = 2 * oy * width;
        let (top, bottom) = (&x[first..first + 2 * ow], &x[first + width..first + width + 2 * ow]);
        for ((ox, (y, index)), (a, b)) in y.iter_mut().zip(index).enumerate().zip(top.chunks_exact(2).zip(bottom.chunks_exact(2))) {
            let at = (first + 2 * ox) as i32;
            let mut best = (a[0], at);
            for (v, i) in [(a[1], at + 1), (b[0], at + width as i32), (b[1], at + width as i32 + 1)] {
                if v > best.0 || v.is_nan() {
                    best = (v, i);
                }
            }
            (*y, *index) = best;
        }
    }
}

impl Op for MaxPoolGrad {
    fn name(&self) -> &'static str {
        "max_pool2d_grad"
    }

    fn key(&self, key: &mut Key) {
        self.0.key(key);
        key.ints(&self.1);
    }

    fn infer(&self, _: &Slots, inputs: &[Meta]) -> Result<Vec<Meta>> {
        let [g, index] = inputs else { return Err(Error::internal("max_pool2d_grad: takes 2 inputs")) };
        if g.shape != index.shape || index.dtype != DType::I32 || plane(&g.shape) != self.0.out("max_pool2d_grad", self.1)? {
            return Err(Error::internal(format!("max_pool2d_grad: {g} and {index} do not fit {:?}", self.1)));
        }
        Ok(vec![Meta::new(g.dtype, with_plane(&g.shape, self.1))])
    }

    fn fuses(&self) -> Fuses {
        Fuses { epilogue: true, prologue: false }
    }

    fn cpu(&self, _: &Slots, inputs: &[CpuView<'_>], outputs: &mut [CpuViewMut<'_>]) -> Result<()> {
        let (g, index) = (inputs[0].to_f64(), inputs[1].elements::<i32>());
        let (area, windows) = (self.1[0] * self.1[1], plane(inputs[0].shape()));
        let mut sum = vec![0f64; outputs[0].meta.numel()];
        for (o, (g, &at)) in g.iter().zip(index.iter()).enumerate() {
            sum[o / (windows[0] * windows[1]) * area + at as usize] += g;
        }
        outputs[0].set_f64(&sum);
        Ok(())
    }

    fn cpu_fast(&self, _: &Slots, inputs: &[CpuView<'_>], outputs: &mut [CpuViewMut<'_>], threads: &Threads) -> Result<bool> {
        if inputs[0].dtype != DType::F32 {
            return Ok(false);
        }
        let (g, index) = (inputs[0].elements::<f32>(), inputs[1].elements::<i32>());
        let (area, out) = (self.1[0] * self.1[1], plane(inputs[0].shape()).iter().product::<usize>());
        let planes = planes_of_task(area);
        threads.chunks(outputs[0].elements::<f32>(), planes * area, |start, part| {
            part.fill(0.0);
            for (p, plane) in part.chunks_mut(area).enumerate() {
                let at = (start / area + p) * out;
                for (g, &i) in g[at..at + out].iter().zip(&index[at..at + out]) {
                    plane[i as usize] += g;
                }
            }
        });
        Ok(true)
    }

    fn gpu(&self, ctx: &mut LaunchCtx<'_>) -> Result<()> {
        let (g, count) = (ctx.inputs[0].meta.shape, ctx.outputs[0].1.numel());
        if count == 0 {
            return Ok(());
        }
        turns(ctx, "max_pool2d", self.0.kernel)?;
        let [height, width] = self.1;
        if self.0 == HALVES && width.is_multiple_of(4) && ctx.inputs.iter().all(|i| i.aligned) {
            let invocations = count / (height * width) * height.div_ceil(2) * (width / 4);
            let call = ctx.call("max_pool2d_halves_grad")?.input_as("g", 0, "vec2<f32>").input_as("index", 1, "vec2<i32>");
            let call = call.u32s(&[invocations, height, width]).offset(0).u32s(&[height / 2, width / 4]).offset(1).u32(height.div_ceil(2));
            return call.flops(4 * count as u64).with_epilogue4()?.grid_linear(invocations.div_ceil(64));
        }
        let Windows { kernel, stride, padding, dilation, .. } = self.0;
        let apart = kernel == stride && padding == [0; 2] && dilation == [1; 2];
        let cover = [0, 1].map(|d| self.1[d].div_ceil(kernel[d]));
        let invocations = if apart { count / (self.1[0] * self.1[1]) * cover[0] * cover[1] } else { count };
        let call = self.0.consts(ctx.call("max_pool2d_grad")?).set("APART", apart).input("g", 0).input("index", 1);
        let call = call.u32(invocations).u32s(&self.1).offset(0).u32s(&plane(&g)).offset(1).u32(0).u32s(&cover).u32s(&[0, 0]);
        call.flops((invocations * kernel[0] * kernel[1]) as u64).with_epilogue()?.grid_linear(invocations.div_ceil(64))
    }

    fn saves(&self) -> Saves {
        Saves::inputs(&[1])
    }

    fn backward(&self, ctx: &Saved<'_>, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let Some(v) = &grads[0] else { return Ok(vec![None, None]) };
        Ok(vec![Some(Tensor::try_apply1(PoolGather(self.0), Slots::none(), &[v, ctx.input(1)])?), None])
    }

    fn batch(&self, ctx: &Batched<'_>) -> Result<Vec<Tensor>> {
        Ok(vec![Tensor::try_apply1(*self, Slots::none(), &[&ctx.inputs[0], &ctx.inputs[1]])?])
    }
}

impl Op for PoolGather {
    fn name(&self) -> &'static str {
        "max_pool2d_gather"
    }

    fn key(&self, key: &mut Key) {
        self.0.key(key);
    }

    fn autocast(&self) -> Autocast {
        Autocast::Keep
    }

    fn infer(&self, _: &Slots, inputs: &[Meta]) -> Result<Vec<Meta>> {
        let [x, index] = inputs else { return Err(Error::internal("max_pool2d_gather: takes 2 inputs")) };
        if with_plane(&x.shape, plane(&index.shape)) != index.shape || index.dtype != DType::I32 {
            return Err(Error::internal(format!("max_pool2d_gather: {x} and {index} do not fit")));
        }
        Ok(vec![Meta::new(x.dtype, index.shape)])
    }

    fn fuses(&self) -> Fuses {
        Fuses { epilogue: true, prologue: false }
    }

    fn cpu(&self, _: &Slots, inputs: &[CpuView<'_>], outputs: &mut [CpuViewMut<'_>]) -> Result<()> {
        let (x, index) = (inputs[0].to_f64(), inputs[1].elements::<i32>());
        let (area, out) = (plane(inputs[0].shape()).iter().product::<usize>(), plane(inputs[1].shape()).iter().product::<usize>());
        outputs[0].set_f64(&index.iter().enumerate().map(|(o, &at)| x[o / out * area + at as usize]).collect::<Vec<_>>());
        Ok(())
    }

    fn gpu(&self, ctx: &mut LaunchCtx<'_>) -> Result<()> {
        let area: usize = plane(&ctx.inputs[0].meta.shape).iter().product();
        let (count, out) = (ctx.outputs[0].1.numel(), plane(&ctx.outputs[0].1.shape).iter().product());
        if count == 0 {
            return Ok(());
        }
        let call = ctx.call("pool_gather")?.input("x", 0).input("index", 1);
        call.u32s(&[count, out, area]).offset(0).offset(1).u32s(&[0, 0, 0]).with_epilogue()?.grid_linear(count.div_ceil(64))
    }

    fn saves(&self) -> Saves {
        Saves::inputs(&[1])
    }

    fn backward(&self, ctx: &Saved<'_>, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let Some(g) = &grads[0] else { return Ok(vec![None, None]) };
        let grad = MaxPoolGrad(self.0, plane(&ctx.input_meta(0).shape));
        Ok(vec![Some(Tensor::try_apply1(grad, Slots::none(), &[g, ctx.input(1)])?), None])
    }

    fn batch(&self, ctx: &Batched<'_>) -> Result<Vec<Tensor>> {
        Ok(vec![Tensor::try_apply1(*self, Slots::none(), &[&ctx.inputs[0], &ctx.inputs[1]])?])
    }
}
