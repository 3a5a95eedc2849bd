//! Negative log likelihood as a pair of ops, each the other's gradient: rows' losses from log-probabilities, and back.

use super::CrossEntropy;
use crate::device::cpu::{CpuView, CpuViewMut};
use crate::device::{Slot, Word};
use crate::error::{Error, Result};
use crate::graph::{Batched, Call, Fuses, Key, LaunchCtx, Op, Saved, Saves, Slots, Tensor};
use crate::tensor::{DType, Layout, Meta, Shape};

/// Rows' losses and weights. Inputs: log-probabilities [n, classes, ...], labels [n, ...] i32, and, where `weighted`, the classes' weights [w, classes]:
/// each row of them serves n / w samples (one model's, where models are stacked). Float slot 0, where `smooth`: the label smoothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Nll {
    /// What it was called as.
    pub name: &'static str,
    pub weighted: bool,
    pub smooth: bool,
    /// A label that counts for nothing.
    pub ignore: i32,
}

/// The gradient by the log-probabilities [n, classes, ...], from that of the rows' losses [n, ...]; the other inputs are the same.
#[derive(Clone, Copy, Debug)]
pub(super) struct NllGrad {
    pub of: Nll,
    pub classes: usize,
}

/// The sizes of one call: samples, classes, positions.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub n: usize,
    pub classes: usize,
    pub inner: usize,
}

impl Sizes {
    pub fn of(x: &Shape) -> Sizes {
        Sizes { n: x[0], classes: x[1], inner: x[2..].iter().product() }
    }

    /// Where class `k` of a row (a sample, at a position) lies.
    pub fn at(self, row: usize, k: usize) -> usize {
        (row / self.inner * self.classes + k) * self.inner + row % self.inner
    }
}

impl Nll {
    /// Rows as these options say. A float may choose the op while recording: without smoothing, a row looks at its label's element only.
    pub fn new(name: &'static str, options: &CrossEntropy) -> Nll {
        Nll { name, weighted: options.weight.is_some(), smooth: options.label_smoothing != 0.0, ignore: options.ignore_index }
    }

    fn attributes(&self, key: &mut Key) {
        key.flag(self.weighted).flag(self.smooth).int(self.ignore).text(self.name);
    }

    /// What is said of a label that is no class.
    pub fn message(&self, classes: usize) -> String {
        format!("{}: target out of range: must be in 0..{classes}", self.name)
    }

    /// How much of each label is spread over all classes.
    pub fn smoothing(&self, slots: &Slots) -> f64 {
        if self.smooth { slots.floats[0] } else { 0.0 }
    }

    /// For a launch: how many samples share a row of the weights, which are input `weights`, and the word of the smoothing.
    pub fn sharing(&self, ctx: &LaunchCtx<'_>, weights: usize, s: Sizes) -> (usize, Word) {
        let rows = if self.weighted { ctx.inputs[weights].meta.shape[0] } else { 1 };
        ((s.n / rows).max(1), if self.smooth { ctx.float(0) } else { Word::Const(0) })
    }

    /// Every element that has a part in its row's loss: `f(row, element, part, weight)`, the weight with the label's own element only.
    pub fn walk(
        &self,
        slots: &Slots,
        labels: &CpuView<'_>,
        weights: Option<&CpuView<'_>>,
        s: Sizes,
        mut f: impl FnMut(usize, usize, f64, Option<f64>),
    ) -> Result<()> {
        let weights = weights.map_or(vec![1.0; s.classes], CpuView::to_f64);
        let group = (s.n * s.classes / weights.len()).max(1);
        let smoothing = self.smoothing(slots);
        for (row, &label) in labels.elements::<i32>().iter().enumerate() {
            if label == self.ignore {
                continue;
            }
            let label = usize::try_from(label).ok().filter(|&c| c < s.classes).ok_or_else(|| Error::data(self.message(s.classes)))?;
            let own = &weights[row / s.inner / group * s.classes..][..s.classes];
            if self.smooth {
                (0..s.classes).for_each(|k| f(row, s.at(row, k), smoothing / s.classes as f64 * own[k], None));
            }
            f(row, s.at(row, label), (1.0 - smoothing) * own[label], Some(own[label]));
        }
        Ok(())
    }

    /// What the rows are, or why these inputs are refused.
    pub fn check(&self, inputs: &[Meta]) -> Result<Meta> {
        let ([x, labels], name) = ([inputs[0], inputs[1]], self.name);
        if !x.dtype.is_float() {
            return Err(Error::shape(format!("{name}: takes floats, got {}", x.dtype)).help("convert with to_dtype"));
        }
        if labels.dtype != DType::I32 {
            return Err(Error::shape(format!("{name}: the target must be i32, got {}", labels.dtype)).help("convert with to_dtype"));
        }
        if x.shape.rank() < 2 || labels.shape != x.shape.without(1) {
            return Err(Error::shape(format!("{name}: an input [n, classes, ...] needs a target [n, ...], got {} and {}", x.shape, labels.shape)));
        }
        if x.shape[1] == 0 {
            return Err(Error::shape(format!("{name}: there are no classes in shape {}", x.shape)));
        }
        if self.weighted {
            let w = inputs[2];
            if w.dtype != x.dtype || w.shape.rank() != 2 || w.shape[1] != x.shape[1] {
                let got = w.shape.without(0);
                return Err(Error::shape(format!("{name}: the weight must be {}[{}], got {}{got}", x.dtype, x.shape[1], w.dtype)));
            }
        }
        Ok(Meta::new(x.dtype, labels.shape))
    }

    /// The call with labels and weights bound and the words that both shaders begin with; `first` is input 0's name and `count` the number of invocations.
    fn begin<'c, 'a>(&self, ctx: &'c mut LaunchCtx<'a>, kernel: &'static str, first: &str, count: usize, s: Sizes) -> Result<Call<'c, 'a>> {
        let (sharing, smoothing) = self.sharing(ctx, 2, s);
        let mut call = ctx.call(kernel)?.set("SMOOTH", self.smooth).input(first, 0).input("labels", 1);
        call = if self.weighted { call.input("weights", 2) } else { call.hook("weight", "    return 1.0;") };
        call = call.u32s(&[count, s.classes, s.inner]).offset(0).offset(1);
        call = if self.weighted { call.offset(2) } else { call.u32(0) };
        Ok(call.stride(self.ignore as isize).word(smoothing).u32(sharing))
    }

    fn others<'t>(&self, ctx: &'t Saved<'_>, first: &'t Tensor) -> Vec<&'t Tensor> {
        let mut inputs = vec![first, ctx.input(1)];
        if self.weighted {
            inputs.push(ctx.input(2));
        }
        inputs
    }

    fn saved(&self) -> Saves {
        Saves::inputs(if self.weighted { &[1, 2] } else { &[1] })
    }
}

/// An input of a stacked call as one more run of samples: [k, n, ...] as [k n, ...].
pub(super) fn joined(t: &Tensor) -> Result<Tensor> {
    let mut shape = t.shape()[1..].to_vec();
    shape[0] *= t.shape()[0];
    t.try_reshape(shape)
}

/// Outputs of such a call with the model axis again.
pub(super) fn parted(t: &Tensor, k: usize) -> Result<Tensor> {
    let mut shape = t.shape().to_vec();
    shape[0] /= k.max(1);
    shape.insert(0, k);
    t.try_reshape(shape)
}

impl Op for Nll {
    fn name(&self) -> &'static str {
        "nll_loss"
    }

    fn key(&self, key: &mut Key) {
        self.attributes(key);
    }

    fn infer(&self, _: &Slots, inputs: &[Meta]) -> Result<Vec<Meta>> {
        let rows = self.check(inputs)?;
        Ok(vec![rows, rows])
    }

    fn accepts(&self, _: usize, layout: &Layout) -> bool {
        layout.is_contiguous()
    }

    fn extra_bindings(&self) -> usize {
        1
    }

    fn cpu(&self, slots: &Slots, inputs: &[CpuView<'_>], outputs: &mut [CpuViewMut<'_>]) -> Result<()> {
        let x = inputs[0].to_f64();
        let rows = outputs[0].meta.numel();
        let (mut loss, mut total) = (vec![0.0; rows], vec![0.0; rows]);
        self.walk(slots, &inputs[1], inputs.get(2), Sizes::of(inputs[0].shape()), |row, i, part, weight| {
            loss[row] -= part * x[i];
            total[row] += weight.unwrap_or(0.0);
        })?;
        outputs[0].set_f64(&loss);
        outputs[1].set_f64(&total);
        Ok(())
    }

    fn gpu(&self, ctx: &mut LaunchCtx<'_>) -> Result<()> {
        let s = Sizes::of(&ctx.inputs[0].meta.shape);
        let rows = ctx.outputs[0].1.numel();
        if rows == 0 {
            return Ok(());
        }
        // With smoothing a row is one invocation's walk over all classes.
        ctx.turns(self.name, if self.smooth { s.classes } else { 1 })?;
        let word = ctx.check(self.message(s.classes));
        // The shader writes both; one that nobody wants goes to scratch.
        let slots = [ctx.outputs[0].0, ctx.outputs[1].0];
        let [loss, total] = slots.map(|slot| slot.unwrap_or_else(|| ctx.scratch(rows * size_of::<f32>())));
        let call = self.begin(ctx, "nll", "x", rows, s)?.write("errors", Slot::Errors, "atomic<u32>");
        let call = call.write("loss", loss, "f32").write("total", total, "f32").word(word).u32s(&[0, 0]);
        call.flops((rows * s.classes) as u64).grid_linear(rows.div_ceil(64))
    }

    fn saves(&self) -> Saves {
        self.saved()
    }

    fn backward(&self, ctx: &Saved<'_>, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let mut out = vec![None; ctx.input_count()];
        // The rows' weights (output 1) depend on nothing that has a gradient.
        if let Some(g) = grads[0].as_ref().filter(|_| ctx.needs(0)) {
            let op = NllGrad { of: *self, classes: ctx.input_meta(0).shape[1] };
            out[0] = Some(Tensor::try_apply1(op, ctx.slots().clone(), &self.others(ctx, g))?);
        }
        Ok(out)
    }

    fn batch(&self, ctx: &Batched<'_>) -> Result<Vec<Tensor>> {
        let inputs: Vec<Tensor> = ctx.inputs.iter().map(joined).collect::<Result<_>>()?;
        let out = Tensor::try_apply(*self, ctx.slots.clone(), &inputs.iter().collect::<Vec<_>>())?;
        out.iter().map(|t| parted(t, ctx.k)).collect()
    }
}

impl Op for NllGrad {
    fn name(&self) -> &'static str {
        "nll_grad"
    }

    fn key(&self, key: &mut Key) {
        self.of.attributes(key);
        key.int(self.classes as u64);
    }

    fn infer(&self, _: &Slots, inputs: &[Meta]) -> Result<Vec<Meta>> {
        Ok(vec![Meta::new(inputs[0].dtype, Shape::try_new(&inputs[0].shape.with(1, self.classes))?)])
    }

    fn accepts(&self, input: usize, layout: &Layout) -> bool {
        // A mean or a sum has one gradient for all rows.
        layout.is_contiguous() || (input == 0 && layout.strides().iter().all(|&s| s == 0))
    }

    fn fuses(&self) -> Fuses {
        Fuses { epilogue: true, prologue: false }
    }

    fn cpu(&self, slots: &Slots, inputs: &[CpuView<'_>], outputs: &mut [CpuViewMut<'_>]) -> Result<()> {
        let g = inputs[0].to_f64();
        let shape = outputs[0].meta.shape;
        let mut y = vec![0.0; shape.numel()];
        self.of.walk(slots, &inputs[1], inputs.get(2), Sizes::of(&shape), |row, i, part, _| y[i] -= part * g[row])?;
        outputs[0].set_f64(&y);
        Ok(())
    }

    fn gpu(&self, ctx: &mut LaunchCtx<'_>) -> Result<()> {
        let meta = ctx.outputs[0].1;
        let numel = meta.numel();
        if numel == 0 {
            return Ok(());
        }
        let step = if ctx.inputs[0].layout.is_contiguous() { "1u" } else { "0u" };
        let call = self.of.begin(ctx, "nll_grad", "g", numel, Sizes::of(&meta.shape))?.set("STEP", step);
        call.u32s(&[0, 0, 0]).flops(numel as u64).with_epilogue()?.grid_linear(numel.div_ceil(64))
    }

    fn saves(&self) -> Saves {
        self.of.saved()
    }

    fn backward(&self, ctx: &Saved<'_>, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let mut out = vec![None; ctx.input_count()];
        if let Some(g) = grads[0].as_ref().filter(|_| ctx.needs(0)) {
            out[0] = Some(Tensor::try_apply(self.of, ctx.slots().clone(), &self.of.others(ctx, g))?.remove(0));
        }
        Ok(out)
    }

    fn batch(&self, ctx: &Batched<'_>) -> Result<Vec<Tensor>> {
        let inputs: Vec<Tensor> = ctx.inputs.iter().map(joined).collect::<Result<_>>()?;
        let out = Tensor::try_apply1(*self, ctx.slots.clone(), &inputs.iter().collect::<Vec<_>>())?;
        Ok(vec![parted(&out, ctx.k)?])
    }
}
