//! Cross entropy in one kernel, and its gradient in another: what [`Nll`] of a log_softmax is, with the rows put together.

use super::nll::{Nll, NllGrad, Sizes, joined, parted};
use crate::device::cpu::{CpuView, CpuViewMut, Threads};
use crate::device::{Kind, Slot};
use crate::error::{Error, Result};
use crate::graph::{Batched, Call, Fuses, Key, LaunchCtx, Op, Saved, Saves, Slots, Tensor, grad_enabled, in_fours};
use crate::ops::join::{join_lanes, larger, plus, rows_in_fours};
use crate::ops::rows::Real;
use crate::tensor::{DType, Meta, Shape};
use std::borrow::Cow;

/// The most classes that it takes: the logits of a row are walked by one invocation, or by those of one workgroup.
pub(super) const MOST_CLASSES: usize = 1024;

/// What is kept of a row for its gradient: the largest logit, the logarithm of the sum of exponentials above it, and the sum of its label's parts.
const KEPT: usize = 3;

/// Invocations of a workgroup of cross_entropy.wgsl and cross_entropy_sum.wgsl.
const GROUP: usize = 64;

/// The sum or the mean of rows' losses. Inputs as those of [`Nll`], with logits in place of log-probabilities. Outputs: the loss and the weight of all rows,
/// [models] each ([] of one, so that a loss is no view), and what the gradient needs of each row, [n, ..., KEPT].
#[derive(Clone, Copy, Debug)]
pub(super) struct Cross {
    /// The rows.
    pub of: Nll,
    /// Whether the loss is the mean.
    pub mean: bool,
    /// Models that are stacked along the samples.
    pub models: usize,
}

/// Its gradient by the logits, where that of the loss is 1. Inputs: logits, labels, what was kept, the weight of all rows and, where `weighted`, the classes'
/// weights. Recorded only where nothing differentiates it in turn.
#[derive(Clone, Copy, Debug)]
struct CrossGrad(Cross);

/// The classes' weights, and how many samples share a row of them.
fn weights<'a>(view: Option<&CpuView<'a>>, s: Sizes) -> (Cow<'a, [f32]>, usize) {
    let weights = view.map_or(Cow::Owned(vec![1.0; s.classes]), |w| w.elements::<f32>());
    let group = (s.n * s.classes / weights.len()).max(1);
    (weights, group)
}

/// A row's largest logit, and the logarithm of the sum of exponentials above it.
fn peak(row: &[f32]) -> (f32, f32) {
    let max = row.iter().fold(f32::NEG_INFINITY, |m, &v| m.max(v));
    let sum: f64 = row.chunks(64).map(|part| f64::from(part.iter().map(|&x| Real::exp(x - max)).sum::<f32>())).sum();
    (max, sum.ln() as f32)
}

/// Whether fours of the logits are of one row, wherever the batch ends.
fn in_rows_of_fours(ctx: &LaunchCtx<'_>, s: Sizes) -> bool {
    s.inner == 1 && s.classes.is_multiple_of(4) && ctx.inputs[0].aligned && in_fours(&ctx.inputs[0].meta.shape)
}

/// How both kernels read logits.
fn logits<'c, 'a>(call: Call<'c, 'a>, fours: bool) -> Call<'c, 'a> {
    if fours {
        rows_in_fours(call).hook("load", "    return x[i >> 2u];").input_as("x", 0, "vec4<f32>")
    } else {
        call.hook("load", "    return x[i];").input("x", 0)
    }
}

impl Cross {
    /// What the gradient is as tensor operations, where it is to be differentiated: that of the rows' losses, through log_softmax.
    fn compose(&self, ctx: &Saved<'_>, g: &Tensor) -> Result<Tensor> {
        let (x, labels) = (ctx.input(0), ctx.input(1));
        // The weight of all rows depends on nothing that has a gradient.
        let each = if self.mean { g / &ctx.output(1).detach() } else { g.clone() };
        let mut of_models = labels.shape().to_vec();
        of_models.splice(..1, [self.models, labels.shape()[0] / self.models]);
        let each = each.try_reshape(self.column(labels.rank()))?.try_expand(Shape::try_new(&of_models)?)?.try_reshape(*labels.shape())?;
        let mut inputs = vec![&each, labels];
        if self.of.weighted {
            inputs.push(ctx.input(2));
        }
        let by_log = Tensor::try_apply1(NllGrad { of: self.of, classes: x.shape()[1] }, ctx.slots().clone(), &inputs)?;
        let log = x.try_log_softmax(1)?;
        Ok(&by_log - log.exp() * by_log.try_sum(&[1], true)?)
    }

    /// The shape of the loss: [models], and [] of one.
    fn each(&self) -> Shape {
        if self.models == 1 { Shape::new(&[]) } else { Shape::new(&[self.models]) }
    }

    /// The shape [models, 1, ...] that goes over [models, ...], with `rank` dimensions behind.
    fn column(&self, rank: usize) -> Vec<usize> {
        std::iter::once(self.models).chain(std::iter::repeat_n(1, rank)).collect()
    }

    /// Invocations that walk a row, and rows of a workgroup: a processor starts few workgroups, and hardware has many invocations to keep busy.
    fn cut(classes: usize, kind: Kind) -> (usize, usize) {
        match kind {
            Kind::Software => (1, (65536 / classes / GROUP * GROUP).clamp(GROUP, 1024)),
            _ if classes > 32 => (GROUP, 4),
            _ => (1, 256),
        }
    }
}

impl Op for Cross {
    fn name(&self) -> &'static str {
        "cross_entropy"
    }

    fn key(&self, key: &mut Key) {
        self.of.key(key);
        key.flag(self.mean).int(self.models as u64);
    }

    fn infer(&self, _: &Slots, inputs: &[Meta]) -> Result<Vec<Meta>> {
        let rows = self.of.check(inputs)?;
        if !rows.shape[0].is_multiple_of(self.models) || inputs[0].shape[1] > MOST_CLASSES {
            return Err(Error::internal(format!("cross_entropy: {} models in {}", self.models, inputs[0])));
        }
        let mut kept = rows.shape.to_vec();
        kept.push(KEPT);
        let each = Meta::new(rows.dtype, self.each());
        Ok(vec![each, each, Meta::new(rows.dtype, Shape::try_new(&kept)?)])
    }

    fn extra_bindings(&self) -> usize {
        1
    }

    fn cpu(&self, slots: &Slots, inputs: &[CpuView<'_>], outputs: &mut [CpuViewMut<'_>]) -> Result<()> {
        let (x, s) = (inputs[0].to_f64(), Sizes::of(inputs[0].shape()));
        let rows = s.n * s.inner;
        let mut kept = vec![0.0; KEPT * rows];
        for (row, kept) in kept.chunks_exact_mut(KEPT).enumerate() {
            let at = |k: usize| x[s.at(row, k)];
            kept[0] = (0..s.classes).map(at).fold(f64::NEG_INFINITY, f64::max);
            kept[1] = (0..s.classes).map(|k| (at(k) - kept[0]).exp()).sum::<f64>().ln();
        }
        let (mut loss, mut total) = (vec![0.0; self.models], vec![0.0; self.models]);
        self.of.walk(slots, &inputs[1], inputs.get(2), s, |row, i, part, weight| {
            let (model, kept) = (row / (rows / self.models), &mut kept[KEPT * row..][..KEPT]);
            loss[model] -= part * (x[i] - kept[0] - kept[1]);
            kept[2] += part;
            total[model] += weight.unwrap_or(0.0);
        })?;
        if self.mean {
            loss.iter_mut().zip(&total).for_each(|(l, t)| *l /= t);
        }
        outputs.iter_mut().zip([loss, total, kept]).for_each(|(o, v)| o.set_f64(&v));
        Ok(())
    }

    fn cpu_fast(&self, slots: &Slots, inputs: &[CpuView<'_>], outputs: &mut [CpuViewMut<'_>], threads: &Threads) -> Result<bool> {
        let [loss, total, kept] = outputs else { return Err(Error::internal("cross_entropy: not three outputs")) };
        if inputs[0].dtype != DType::F32 {
            return Ok(false);
        }
        let (x, s) = (inputs[0].elements::<f32>(), Sizes::of(inputs[0].shape()));
        let labels = inputs[1].elements::<i32>();
        if labels.iter().any(|&l| l != self.of.ignore && !usize::try_from(l).is_ok_and(|l| l < s.classes)) {
            return Err(Error::data(self.of.message(s.classes)));
        }
        let (weights, group) = weights(inputs.get(2), s);
        let smoothing = self.of.smoothing(slots);
        let spread = smoothing / s.classes as f64;
        // What each row adds to the loss and to the weight.
        let mut sums = vec![[0f64; 2]; s.n * s.inner];
        let each = (4096 / (s.classes * s.inner)).max(1) * s.inner;
        let tasks: Vec<_> = kept.elements::<f32>().chunks_mut(KEPT * each).zip(sums.chunks_mut(each)).collect();
        threads.each_of(tasks, |t, (kept, sums)| {
            let mut row = vec![0f32; s.classes];
            for (j, (kept, sum)) in kept.chunks_exact_mut(KEPT).zip(sums).enumerate() {
                let r = t * each + j;
                row.iter_mut().enumerate().for_each(|(k, v)| *v = x[s.at(r, k)]);
                let (max, log) = peak(&row);
                kept.copy_from_slice(&[max, log, 0.0]);
                if labels[r] == self.of.ignore {
                    continue;
                }
                let (own, label) = (&weights[r / s.inner / group * s.classes..][..s.classes], labels[r] as usize);
                let log_of = |k: usize| f64::from(row[k] - max - log);
                let part = (1.0 - smoothing) * f64::from(own[label]);
                let (mut loss, mut parts) = (part * log_of(label), part);
                if self.of.smooth {
                    loss += spread * own.iter().enumerate().map(|(k, &w)| f64::from(w) * log_of(k)).sum::<f64>();
                    parts += spread * own.iter().map(|&w| f64::from(w)).sum::<f64>();
                }
                kept[2] = parts as f32;
                *sum = [-loss, f64::from(own[label])];
            }
        });
        let rows = sums.len() / self.models;
        for (m, (loss, total)) in loss.elements::<f32>().iter_mut().zip(total.elements::<f32>()).enumerate() {
            let [l, t] = sums[m * rows..][..rows].iter().fold([0.0; 2], |a, b| [a[0] + b[0], a[1] + b[1]]);
            (*loss, *total) = (if self.mean { l / t } else { l } as f32, t as f32);
        }
        Ok(true)
    }

    fn gpu(&self, ctx: &mut LaunchCtx<'_>) -> Result<()> {
        let s = Sizes::of(&ctx.inputs[0].meta.shape);
        let rows = s.n / self.models * s.inner;
        let (lanes, cut) = Self::cut(s.classes, ctx.caps.kind);
        let parts = rows.div_ceil(cut).max(1);
        let error = ctx.check(self.of.message(s.classes));
        // The shader writes all; what nobody wants goes to scratch.
        let mut to: Vec<Slot> = Vec::new();
        for n in 0..3 {
            let (slot, meta) = ctx.outputs[n];
            to.push(slot.unwrap_or_else(|| ctx.scratch(meta.bytes())));
        }
        let partial = (parts > 1).then(|| ctx.scratch(self.models * parts * 8));
        let (sharing, smoothing) = self.of.sharing(ctx, 2, s);
        let fours = in_rows_of_fours(ctx, s);
        let mut call = ctx.call("cross_entropy")?.set("SMOOTH", self.of.smooth).set("MEAN", self.mean).set("LANES", format!("{lanes}u"));
        if lanes > 1 {
            // The invocations of a workgroup have a row together.
            call = call.hook("largest", &join_lanes(lanes, larger)).hook("total", &join_lanes(lanes, plus));
        }
        call = logits(call, fours).input("labels", 1);
        if fours {
            call = call.hook("at", "    return x[i >> 2u][i & 3u];");
        }
        call = if self.of.weighted { call.input("weights", 2) } else { call.hook("weight", "    return 1.0;") };
        call = call.write("errors", Slot::Errors, "atomic<u32>").write("kept", to[2], "f32");
        call = call.u32s(&[s.n / self.models, s.classes, s.inner]).offset(0).offset(1);
        call = if self.of.weighted { call.offset(2) } else { call.u32(0) };
        call = call.stride(self.of.ignore as isize).word(smoothing).u32s(&[cut, parts, sharing, self.models]).word(error).u32s(&[0, 0, 0]);
        call = call.flops(20 * (self.models * rows * s.classes) as u64);
        let groups = self.models * parts;
        let Some(partial) = partial else { return call.write("loss", to[0], "f32").write("weighed", to[1], "f32").grid_linear(groups) };
        call.hook("finish", "    parts[part] = v;").write("parts", partial, "vec2<f32>").grid_linear(groups)?;
        let call = ctx.call("cross_entropy_sum")?.set("MEAN", self.mean).read("parts", partial, "vec2<f32>");
        call.write("loss", to[0], "f32").write("total", to[1], "f32").u32s(&[parts, self.models, 0, 0]).grid_linear(self.models)
    }

    fn saves(&self) -> Saves {
        Saves::inputs(if self.of.weighted { &[0, 1, 2] } else { &[0, 1] }).and(Saves::outputs(&[1, 2]))
    }

    fn backward(&self, ctx: &Saved<'_>, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let mut out = vec![None; ctx.input_count()];
        // The other outputs have no gradient: the rows' weight depends on nothing that has one, and what is kept is read here only.
        let Some(g) = grads[0].as_ref().filter(|_| ctx.needs(0)) else { return Ok(out) };
        if grad_enabled() {
            out[0] = Some(self.compose(ctx, g)?);
            return Ok(out);
        }
        let x = ctx.input(0);
        let mut inputs = vec![x, ctx.input(1), ctx.output(2), ctx.output(1)];
        if self.of.weighted {
            inputs.push(ctx.input(2));
        }
        let unit = Tensor::try_apply1(CrossGrad(*self), ctx.slots().clone(), &inputs)?;
        // The gradient of the loss comes as a row behind the kernel: most often it is the constant 1, which no kernel needs to write.
        out[0] = Some(if self.models == 1 {
            unit * g.try_reshape(vec![1; x.rank()])?
        } else {
            let mut of_models = x.shape().to_vec();
            of_models.splice(..1, [self.models, x.shape()[0] / self.models]);
            (unit.try_reshape(of_models)? * g.try_reshape(self.column(x.rank()))?).try_reshape(*x.shape())?
        });
        Ok(out)
    }

    fn batch(&self, ctx: &Batched<'_>) -> Result<Vec<Tensor>> {
        let inputs: Vec<Tensor> = ctx.inputs.iter().map(joined).collect::<Result<_>>()?;
        let op = Cross { models: self.models * ctx.k, ..*self };
        let out = Tensor::try_apply(op, ctx.slots.clone(), &inputs.iter().collect::<Vec<_>>())?;
        // Of one model each, the loss and the weight have the axis of the models alone.
        out.iter().enumerate().map(|(n, t)| if n < 2 && self.models == 1 { t.try_reshape([ctx.k]) } else { parted(t, ctx.k) }).collect()
    }
}

impl Op for CrossGrad {
    fn name(&self) -> &'static str {
        "cross_entropy_grad"
    }

    fn key(&self, key: &mut Key) {
        self.0.key(key);
    }

    fn infer(&self, _: &Slots, inputs: &[Meta]) -> Result<Vec<Meta>> {
        Ok(vec![inputs[0]])
    }

    fn fuses(&self) -> Fuses {
        Fuses { epilogue: true, prologue: false }
    }

    fn cpu(&self, slots: &Slots, inputs: &[CpuView<'_>], outputs: &mut [CpuViewMut<'_>]) -> Result<()> {
        let (mut y, s) = (inputs[0].to_f64(), Sizes::of(inputs[0].shape()));
        let (kept, total) = (inputs[2].to_f64(), inputs[3].to_f64());
        for (row, &label) in inputs[1].elements::<i32>().iter().enumerate() {
            let kept = &kept[KEPT * row..][..KEPT];
            for i in (0..s.classes).map(|k| s.at(row, k)) {
                y[i] = if label == self.0.of.ignore { 0.0 } else { kept[2] * (y[i] - kept[0] - kept[1]).exp() };
            }
        }
        self.0.of.walk(slots, &inputs[1], inputs.get(4), s, |_, i, part, _| y[i] -= part)?;
        if self.0.mean {
            let rows = inputs[1].shape().numel() / self.0.models;
            for (row, &label) in inputs[1].elements::<i32>().iter().enumerate() {
                if label != self.0.of.ignore {
                    (0..s.classes).for_each(|k| y[s.at(row, k)] /= total[row / rows]);
                }
            }
        }
        outputs[0].set_f64(&y);
        Ok(())
    }

    fn cpu_fast(&self, slots: &Slots, inputs: &[CpuView<'_>], outputs: &mut [CpuViewMut<'_>], threads: &Threads) -> Result<bool> {
        if inputs[0].dtype != DType::F32 {
            return Ok(false);
        }
        let (x, s) = (inputs[0].elements::<f32>(), Sizes::of(inputs[0].shape()));
        let (labels, kept, total) = (inputs[1].elements::<i32>(), inputs[2].elements::<f32>(), inputs[3].elements::<f32>());
        let (weights, group) = weights(inputs.get(4), s);
        let smoothing = self.0.of.smoothing(slots) as f32;
        let spread = smoothing / s.classes as f32;
        let rows = labels.len() / self.0.models;
        let sample = s.classes * s.inner;
        threads.chunks(outputs[0].elements::<f32>(), (4096 / sample).max(1) * sample, |start, y| {
            for r in start / s.classes..(start + y.len()) / s.classes {
                let places = (0..s.classes).map(|k| s.at(r, k));
                if labels[r] == self.0.of.ignore {
                    places.for_each(|i| y[i - start] = 0.0);
                    continue;
                }
                let [max, log, parts] = [0, 1, 2].map(|n| kept[KEPT * r + n]);
                let all = if self.0.mean { total[r / rows] } else { 1.0 };
                let (own, label) = (&weights[r / s.inner / group * s.classes..][..s.classes], labels[r] as usize);
                for (k, i) in places.enumerate() {
                    let mut v = parts * Real::exp(x[i] - max - log) - spread * own[k];
                    if k == label {
                        v -= (1.0 - smoothing) * own[k];
                    }
                    y[i - start] = v / all;
                }
            }
        });
        Ok(true)
    }

    fn gpu(&self, ctx: &mut LaunchCtx<'_>) -> Result<()> {
        let (of, meta) = (self.0.of, ctx.inputs[0].meta);
        let (s, numel) = (Sizes::of(&meta.shape), meta.numel());
        if numel == 0 {
            return Ok(());
        }
        let (sharing, smoothing) = of.sharing(ctx, 4, s);
        let fours = in_rows_of_fours(ctx, s);
        let vs = numel / if fours { 4 } else { 1 };
        let mut call = ctx.call("cross_entropy_grad")?.set("SMOOTH", of.smooth).set("MEAN", self.0.mean);
        call = logits(call, fours).input("labels", 1).input("kept", 2).input("weighed", 3);
        call = if of.weighted { call.input("weights", 4) } else { call.hook("weight", "    return 1.0;") };
        if fours {
            let four = |of: &dyn Fn(usize) -> String| (0..4).map(of).collect::<Vec<_>>().join(", ");
            let weights = four(&|n| format!("weight(a, c + {n}u)"));
            let own = four(&|n| format!("c + {n}u == label"));
            call = call.alias("B", "vec4<bool>").hook("weights_of", &format!("    return V({weights});")).hook("own", &format!("    return B({own});"));
        }
        call = call.u32s(&[vs, s.classes, s.inner]).offset(0).offset(1);
        call = if of.weighted { call.offset(4) } else { call.u32(0) };
        call = call.stride(of.ignore as isize).word(smoothing).offset(2).offset(3).u32s(&[sharing, s.n / self.0.models]);
        call = call.flops(10 * numel as u64);
        call = if fours { call.with_epilogue4()? } else { call.with_epilogue()? };
        call.grid_linear(vs.div_ceil(GROUP))
    }

    fn batch(&self, ctx: &Batched<'_>) -> Result<Vec<Tensor>> {
        let one = |n: usize| n == 3 && self.0.models == 1;
        let join = |(n, t): (usize, &Tensor)| if one(n) { t.try_reshape(Cross { models: ctx.k, ..self.0 }.each()) } else { joined(t) };
        let inputs: Vec<Tensor> = ctx.inputs.iter().enumerate().map(join).collect::<Result<_>>()?;
        let op = CrossGrad(Cross { models: self.0.models * ctx.k, ..self.0 });
        Ok(vec![parted(&Tensor::try_apply1(op, ctx.slots.clone(), &inputs.iter().collect::<Vec<_>>())?, ctx.k)?])
    }
}
