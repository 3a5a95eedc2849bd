//! The reductions of batch_norm, each of which reads its channels once: statistics, with the running ones moved, and the sums of its gradient.

use super::parted;
use crate::device::choices::NORM_PART;
use crate::device::cpu::{CpuView, CpuViewMut, Loop, Threads, widely};
use crate::device::{Caps, Kind, Slot};
use crate::error::{Error, Result};
use crate::graph::{Batched, Call, Key, LaunchCtx, Op, Slots, Tensor};
use crate::ops::join::{join_lanes, plus};
use crate::tensor::{DType, Meta, Shape};

/// Mean and inverse deviation of each channel of x [models, n, channels, inner], [models, channels, 2]. Where `running`, the running mean and variance of all
/// models are inputs, too, and where they have moved to are the last outputs, of the same shapes: what a buffer holds is then the same leaf in every step. No
/// gradient flows through it: [`super::Normalize`] counts what does.
/// Float slots: what is added to the variance; how far the running statistics move; what stays of them; the unbiased variance as a multiple of the biased one.
#[derive(Clone, Copy, Debug)]
pub(super) struct BatchStats {
    pub running: bool,
}

/// The sums of batch_norm's gradient. Inputs: x, g, its statistics and, where `affine`, weight. Outputs: the sums of g and of g times the normalised
/// x, [models, channels], and what [`super::NormalizeGrad`] reads of each channel, [models, channels, 4].
#[derive(Clone, Copy, Debug)]
pub(super) struct BatchSums {
    pub affine: bool,
}

/// Sizes of x.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub models: usize,
    pub n: usize,
    pub channels: usize,
    pub inner: usize,
}

impl Sizes {
    pub fn of(x: &Shape) -> Result<Sizes> {
        match x[..] {
            [models, n, channels, inner] => Ok(Sizes { models, n, channels, inner }),
            _ => Err(Error::internal(format!("batch_norm: the input was not brought to four dimensions: {x}"))),
        }
    }

    /// Elements of a channel.
    pub fn terms(self) -> usize {
        self.n * self.inner
    }

    /// Channels of all models.
    pub fn all(self) -> usize {
        self.models * self.channels
    }

    /// The rows of channel `c` of all models: where they begin.
    pub fn rows(self, c: usize) -> impl Iterator<Item = usize> {
        let first = c / self.channels * self.n * self.channels + c % self.channels;
        (0..self.n).map(move |image| (first + image * self.channels) * self.inner)
    }
}

/// How a channel's elements are cut for the shaders. Follows from one model's shape.
struct Cut {
    s: Sizes,
    /// Elements of a V.
    width: usize,
    parts: usize,
    lanes: usize,
}

impl Cut {
    fn of(s: Sizes, aligned: bool, caps: &Caps) -> Cut {
        let width = if aligned && s.inner.is_multiple_of(4) { 4 } else { 1 };
        let software = caps.kind == Kind::Software;
        // Hardware has more invocations to keep busy, and starts a second launch at little cost.
        let part = match (width, software) {
            (4, true) => 1024,
            (4, false) => 128,
            _ => 256,
        };
        // One invocation of a processor joins the parts of a channel, in two loops.
        let least = caps.loop_turns().map_or(0, |turns| s.terms().div_ceil(turns / 2 - 2));
        let part = caps.choices.number(&NORM_PART, &[s.terms(), width], part, |n| n < 2 * s.terms()).max(least);
        Cut { s, width, parts: s.terms().div_ceil(part).max(1), lanes: if software { 1 } else { GROUP } }
    }

    /// The launches of a kernel that joins shaders/channels.wgsl: over parts of channels, and a second that joins them where there are several.
    /// `reads`: the hooks that load, what they read of which input, and the word with its offset. `own` puts in what is the kernel's own, told whether the launch
    /// joins, and whether it ends.
    fn launches(
        &self,
        ctx: &mut LaunchCtx<'_>,
        name: &'static str,
        reads: &[[&str; 3]],
        flops: usize,
        own: impl for<'c, 'a> Fn(Call<'c, 'a>, bool, bool) -> Call<'c, 'a>,
    ) -> Result<()> {
        let partial = (self.parts > 1).then(|| ctx.scratch(self.parts * self.s.all() * 8));
        let passes: &[bool] = if partial.is_some() { &[false, true] } else { &[false] };
        for &joins in passes {
            let ends = joins || partial.is_none();
            let mut call = ctx.call(name)?.set("WIDTH", format!("{}u", self.width)).set("ROWS", self.s.inner > 1);
            if joins {
                call = call.hook("walk", "    return vec2<f32>(0.0);").hook("result", "    return joined(c, lane);");
                call = reads.iter().fold(call, |call, [load, ..]| call.hook(load, "    return V(0.0);"));
                if self.lanes > 1 {
                    call = call.set("LANES", format!("{}u", self.lanes)).hook("total", &join_lanes(self.lanes, plus));
                }
            } else {
                call = call.alias("V", element(self.width)).hook("joined", "    return vec2<f32>(0.0);");
                for (n, [load, buffer, offset]) in reads.iter().enumerate() {
                    call = loads(call, self.width, load, buffer, offset).input_as(buffer, n, element(self.width));
                }
            }
            if let Some(partial) = partial {
                call = if joins { call.read("partial", partial, "vec2<f32>") } else { call.write("partial", partial, "vec2<f32>") };
            }
            if !ends {
                call = call.hook("finish", "    partial[part * u[0].x + c] = v;");
            }
            call = own(self.words(call, joins), joins, ends);
            call.flops(if joins { 0 } else { flops * self.s.all() * self.s.terms() } as u64).grid_linear(self.groups(joins))?;
        }
        Ok(())
    }

    /// The words of shaders/channels.wgsl, with the offset of x.
    fn words<'c, 'a>(&self, call: Call<'c, 'a>, joins: bool) -> Call<'c, 'a> {
        let (s, parts) = (self.s, if joins { 1 } else { self.parts });
        let row = s.inner / self.width;
        let call = call.u32s(&[s.all(), s.n * row, parts]);
        if joins { call.u32(0) } else { call.offset(0) }.u32s(&[s.channels, row, parts / row.max(1), parts % row.max(1), s.n, self.parts])
    }

    fn groups(&self, joins: bool) -> usize {
        if joins { (self.s.all() * self.lanes).div_ceil(GROUP) } else { (self.s.all() * self.parts).div_ceil(GROUP) }
    }
}

/// Invocations of a workgroup.
const GROUP: usize = 64;

/// Reads a whole V from a buffer of vec4s.
pub(super) fn loads<'c, 'a>(call: Call<'c, 'a>, width: usize, name: &str, buffer: &str, offset: &str) -> Call<'c, 'a> {
    if width == 4 { call.hook(name, &format!("    return {buffer}[({offset} >> 2u) + i];")) } else { call }
}

pub(super) fn element(width: usize) -> &'static str {
    if width == 4 { "vec4<f32>" } else { "f32" }
}

/// The buffers of the outputs; what nobody wants goes to scratch.
fn outputs(ctx: &mut LaunchCtx<'_>) -> Vec<Slot> {
    let wanted: Vec<(Option<Slot>, usize)> = ctx.outputs.iter().map(|(slot, meta)| (*slot, meta.bytes())).collect();
    wanted.into_iter().map(|(slot, bytes)| slot.unwrap_or_else(|| ctx.scratch(bytes))).collect()
}

/// Sums over the elements of channel `c` of what `f` makes of those of `N` values: f32 chains of bounded length, joined in f64.
fn sum<const N: usize, const K: usize>(s: Sizes, c: usize, of: [&[f32]; N], f: impl Fn([f32; N]) -> [f32; K] + Copy) -> [f64; K] {
    /// Runs below this are not worth chains.
    const SHORT: usize = 32;
    let mut total = [0.0; K];
    for row in s.rows(c) {
        if s.inner < SHORT {
            for i in row..row + s.inner {
                total.iter_mut().zip(f(of.map(|v| v[i]))).for_each(|(t, v)| *t += f64::from(v));
            }
            continue;
        }
        let sums = widely(Sums { of: of.map(|v| &v[row..row + s.inner]), f });
        total.iter_mut().zip(sums).for_each(|(t, s)| *t += s);
    }
    total
}

struct Sums<'a, F, const N: usize> {
    of: [&'a [f32]; N],
    f: F,
}

impl<F: Fn([f32; N]) -> [f32; K], const N: usize, const K: usize> Loop for Sums<'_, F, N> {
    type Out = [f64; K];
    #[inline(always)]
    fn run(self) -> [f64; K] {
        const LANES: usize = 16;
        const CHAIN: usize = 32 * LANES;
        let mut total = [0f64; K];
        let len = self.of[0].len();
        let mut add = |lanes: &[[f32; LANES]; K]| total.iter_mut().zip(lanes).for_each(|(t, lanes)| lanes.iter().for_each(|&l| *t += f64::from(l)));
        for first in (0..len).step_by(CHAIN) {
            let chain = self.of.map(|v| &v[first..len.min(first + CHAIN)]);
            let mut lanes = [[0f32; LANES]; K];
            let whole = chain[0].len() / LANES * LANES;
            for at in (0..whole).step_by(LANES) {
                let part = chain.map(|v| &v[at..at + LANES]);
                // One sum after the other: loops over lanes become vectors, and what is computed twice costs less than what is computed one by one.
                for (k, lanes) in lanes.iter_mut().enumerate() {
                    for (l, sum) in lanes.iter_mut().enumerate() {
                        *sum += (self.f)(part.map(|v| v[l]))[k];
                    }
                }
            }
            for at in whole..chain[0].len() {
                let terms = (self.f)(chain.map(|v| v[at]));
                (0..K).for_each(|k| lanes[k][at - whole] += terms[k]);
            }
            add(&lanes);
        }
        total
    }
}

/// Inputs of a stacked call with the axis of `k` joined to that of the models: the first of each.
pub(super) fn joined(ctx: &Batched<'_>) -> Result<Vec<Tensor>> {
    ctx.inputs
        .iter()
        .map(|t| {
            let mut shape = t.shape()[1..].to_vec();
            shape[0] *= ctx.k;
            t.try_reshape(shape)
        })
        .collect()
}

impl Op for BatchStats {
    fn name(&self) -> &'static str {
        "batch_norm_statistics"
    }

    fn key(&self, key: &mut Key) {
        key.flag(self.running);
    }

    fn infer(&self, _: &Slots, inputs: &[Meta]) -> Result<Vec<Meta>> {
        let s = Sizes::of(&inputs[0].shape)?;
        if let Some(bad) = inputs[1..].iter().find(|i| i.dtype != inputs[0].dtype || i.numel() != s.all()) {
            return Err(Error::shape(format!("batch_norm: running statistics must be {}[{}], got {bad}", inputs[0].dtype, s.channels)));
        }
        let mut outs = vec![Meta::new(inputs[0].dtype, [s.models, s.channels, 2])];
        outs.extend(&inputs[1..]);
        Ok(outs)
    }

    fn differentiable(&self) -> bool {
        false
    }

    fn cpu(&self, slots: &Slots, inputs: &[CpuView<'_>], outputs: &mut [CpuViewMut<'_>]) -> Result<()> {
        let (x, s) = (inputs[0].to_f64(), Sizes::of(inputs[0].shape())?);
        let [eps, moves, stays, unbiased] = slots.floats[..] else { return Err(Error::internal("batch_norm: not four floats")) };
        let of = |c: usize, f: &dyn Fn(f64) -> f64| s.rows(c).flat_map(|row| &x[row..row + s.inner]).map(|&v| f(v)).sum::<f64>() / s.terms() as f64;
        let mean: Vec<f64> = (0..s.all()).map(|c| of(c, &|v| v)).collect();
        let var: Vec<f64> = (0..s.all()).map(|c| of(c, &|v| (v - mean[c]) * (v - mean[c]))).collect();
        outputs[0].set_f64(&mean.iter().zip(&var).flat_map(|(m, v)| [*m, 1.0 / (v + eps).sqrt()]).collect::<Vec<_>>());
        for (n, new) in [mean, var.iter().map(|v| v * unbiased).collect()].iter().enumerate().take(if self.running { 2 } else { 0 }) {
            let old = inputs[1 + n].to_f64();
            outputs[1 + n].set_f64(&old.iter().zip(new).map(|(old, new)| old * stays + new * moves).collect::<Vec<_>>());
        }
        Ok(())
    }

    fn cpu_fast(&self, slots: &Slots, inputs: &[CpuView<'_>], outputs: &mut [CpuViewMut<'_>], threads: &Threads) -> Result<bool> {
        if inputs[0].dtype != DType::F32 {
            return Ok(false);
        }
        let (x, s) = (inputs[0].elements::<f32>(), Sizes::of(inputs[0].shape())?);
        let [eps, moves, stays, unbiased] = slots.floats[..] else { return Err(Error::internal("batch_norm: not four floats")) };
        let mut of = vec![[0f64; 2]; s.all()];
        threads.chunks(&mut of, (16384 / s.terms().max(1)).max(1), |first, part| {
            for (c, of) in part.iter_mut().enumerate() {
                let [all] = sum(s, first + c, [&x], |[v]| [v]);
                let mean = all / s.terms() as f64;
                let top = mean as f32;
                // About what f32 has of the mean, and how far that is from it: features may be large beside how they vary.
                let [rest, squares] = sum(s, first + c, [&x], |[v]| [v - top, (v - top) * (v - top)]);
                let [rest, squares] = [rest, squares].map(|sum| sum / s.terms() as f64);
                let var = squares - rest * rest;
                // Not by max, which would take a NaN for 0.
                *of = [f64::from(top) + rest, if var < 0.0 { 0.0 } else { var }];
            }
        });
        for (c, [mean, var]) in of.into_iter().enumerate() {
            outputs[0].elements::<f32>()[2 * c..][..2].copy_from_slice(&[mean as f32, (1.0 / (var + eps).sqrt()) as f32]);
            for (n, new) in [mean, var * unbiased].into_iter().enumerate().take(if self.running { 2 } else { 0 }) {
                let old = f64::from(inputs[1 + n].elements::<f32>()[c]);
                outputs[1 + n].elements::<f32>()[c] = (old * stays + new * moves) as f32;
            }
        }
        Ok(true)
    }

    fn gpu(&self, ctx: &mut LaunchCtx<'_>) -> Result<()> {
        let s = Sizes::of(&ctx.inputs[0].meta.shape)?;
        let cut = Cut::of(s, ctx.inputs[0].aligned, ctx.caps);
        let (to, floats) = (outputs(ctx), [0, 1, 2, 3].map(|n| ctx.float(n)));
        cut.launches(ctx, "batch_stats", &[["load", "x", "u[0].w"]], 6, |mut call, joins, ends| {
            if cut.width == 4 && !joins {
                let four = "vec4<f32>(1.0)";
                let body = format!("    let m = dot(mean, {four}) * 0.25;\n    let d = mean - m;\n    return vec2<f32>(m, dot(squares, {four}) + count * dot(d, d));");
                call = call.hook("fold", &body);
            }
            if ends {
                call = call.write("center", to[0], "f32");
            }
            call = if ends && self.running {
                call.input("old_mean", 1).input("old_var", 2).write("new_mean", to[1], "f32").write("new_var", to[2], "f32").offset(1).offset(2)
            } else {
                call.hook("move_running", "").u32s(&[0, 0])
            };
            floats.iter().fold(call, |call, f| call.word(*f))
        })
    }

    fn batch(&self, ctx: &Batched<'_>) -> Result<Vec<Tensor>> {
        let inputs = joined(ctx)?;
        let out = Tensor::try_apply(*self, ctx.slots.clone(), &inputs.iter().collect::<Vec<_>>())?;
        out.iter().map(|t| parted(t, ctx.k)).collect()
    }
}

impl Op for BatchSums {
    fn name(&self) -> &'static str {
        "batch_norm_sums"
    }

    fn key(&self, key: &mut Key) {
        key.flag(self.affine);
    }

    fn infer(&self, _: &Slots, inputs: &[Meta]) -> Result<Vec<Meta>> {
        let s = Sizes::of(&inputs[0].shape)?;
        let each = Meta::new(inputs[0].dtype, [s.models, s.channels]);
        if inputs[1] != inputs[0] || inputs[2] != Meta::new(each.dtype, [s.models, s.channels, 2]) || inputs[3..].iter().any(|i| *i != each) {
            return Err(Error::internal(format!("batch_norm_sums: {inputs:?}")));
        }
        Ok(vec![each, each, Meta::new(each.dtype, [s.models, s.channels, 4])])
    }

    fn differentiable(&self) -> bool {
        false
    }

    fn cpu(&self, _: &Slots, inputs: &[CpuView<'_>], outputs: &mut [CpuViewMut<'_>]) -> Result<()> {
        let s = Sizes::of(inputs[0].shape())?;
        let of: Vec<Vec<f64>> = inputs.iter().map(CpuView::to_f64).collect();
        let (mut sums, mut along, mut scale) = (Vec::new(), Vec::new(), Vec::new());
        for c in 0..s.all() {
            let (mean, inverse) = (of[2][2 * c], of[2][2 * c + 1]);
            let places = || s.rows(c).flat_map(|row| row..row + s.inner);
            let (g, gx) = (places().map(|i| of[1][i]).sum::<f64>(), places().map(|i| of[1][i] * (of[0][i] - mean) * inverse).sum::<f64>());
            sums.push(g);
            along.push(gx);
            let count = s.terms() as f64;
            scale.extend([inverse * if self.affine { of[3][c] } else { 1.0 }, g / count, gx / count * inverse, mean]);
        }
        outputs.iter_mut().zip([sums, along, scale]).for_each(|(o, v)| o.set_f64(&v));
        Ok(())
    }

    fn cpu_fast(&self, _: &Slots, inputs: &[CpuView<'_>], outputs: &mut [CpuViewMut<'_>], threads: &Threads) -> Result<bool> {
        if inputs[0].dtype != DType::F32 {
            return Ok(false);
        }
        let s = Sizes::of(inputs[0].shape())?;
        let of: Vec<_> = inputs.iter().map(|x| x.elements::<f32>()).collect();
        let mut sums = vec![[0f64; 2]; s.all()];
        threads.chunks(&mut sums, (16384 / s.terms().max(1)).max(1), |first, part| {
            for (c, sums) in part.iter_mut().enumerate() {
                let (c, mean) = (first + c, of[2][2 * (first + c)]);
                let [g, gx] = sum(s, c, [&of[0], &of[1]], |[x, g]| [g, g * (x - mean)]);
                *sums = [g, gx * f64::from(of[2][2 * c + 1])];
            }
        });
        let count = s.terms() as f64;
        for (c, [g, gx]) in sums.into_iter().enumerate() {
            let [mean, inverse] = [0, 1].map(|k| f64::from(of[2][2 * c + k]));
            outputs[0].elements::<f32>()[c] = g as f32;
            outputs[1].elements::<f32>()[c] = gx as f32;
            let weight = if self.affine { f64::from(of[3][c]) } else { 1.0 };
            let scale = [inverse * weight, g / count, gx / count * inverse, mean];
            outputs[2].elements::<f32>()[4 * c..][..4].copy_from_slice(&scale.map(|v| v as f32));
        }
        Ok(true)
    }

    fn gpu(&self, ctx: &mut LaunchCtx<'_>) -> Result<()> {
        let s = Sizes::of(&ctx.inputs[0].meta.shape)?;
        let cut = Cut::of(s, ctx.inputs[0].aligned && ctx.inputs[1].aligned, ctx.caps);
        let to = outputs(ctx);
        cut.launches(ctx, "batch_sums", &[["load", "x", "u[0].w"], ["load_g", "g", "u[2].z"]], 4, |mut call, joins, ends| {
            if cut.width == 4 && !joins {
                call = call.hook("fold", "    return (v.x + v.y) + (v.z + v.w);");
            }
            call = if joins { call.u32(0) } else { call.offset(1) }.input("center", 2).offset(2);
            if ends {
                call = call.write("sum", to[0], "f32").write("along", to[1], "f32").write("scale", to[2], "f32");
            }
            call = if ends && self.affine { call.input("weight", 3).offset(3) } else { call.hook("weight_of", "    return 1.0;").u32(0) };
            call.u32s(&[0, 0, 0])
        })
    }

    fn batch(&self, ctx: &Batched<'_>) -> Result<Vec<Tensor>> {
        let inputs = joined(ctx)?;
        let out = Tensor::try_apply(*self, ctx.slots.clone(), &inputs.iter().collect::<Vec<_>>())?;
        out.iter().map(|t| parted(t, ctx.k)).collect()
    }
}
