//! batch_norm: statistics, one op that normalises, and its gradient in closed form: two kernels forward and two backward, with a second pass where channels are long.

mod stats;

use super::table::{Arg, Misuse, OpEntry, Order, Sample};
use super::view::ok;
use crate::device::Kind;
use crate::device::cpu::{CpuView, CpuViewMut, Loop, widely};
use crate::error::{Error, Result};
use crate::graph::{Batched, Elements, Fuses, Key, LaunchCtx, Op, Saved, Saves, Slots, Tensor, grad_enabled};
use crate::tensor::{DType, Meta, Shape};
use stats::{BatchStats, BatchSums, Sizes};

/// How [`Tensor::batch_norm`] works.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchNorm {
    /// Whether to normalise by the batch's own statistics, and move the running ones towards them.
    pub training: bool,
    /// How far the running statistics move.
    pub momentum: f64,
    /// What is added to the variance.
    pub eps: f64,
}

impl Default for BatchNorm {
    fn default() -> Self {
        BatchNorm { training: true, momentum: 0.1, eps: 1e-5 }
    }
}

/// `(x - mean) inverse weight + bias` by channel. Inputs: x [models, n, channels, inner], mean and the deviation's inverse [models, channels, 2], and, where
/// `affine`, weight and bias, [models, channels] each. Mean and inverse are those of x itself: the gradient by x counts what flows through them, and they get none of their own.
/// Float slot 0: what was added to the variance.
#[derive(Clone, Copy, Debug)]
struct Normalize {
    affine: bool,
}

/// The gradient of [`Normalize`] by x, from x, that of the result, and what [`BatchSums`] says of each channel. Recorded only where nothing differentiates it.
#[derive(Clone, Copy, Debug)]
struct NormalizeGrad;

/// Call `f(channel, first index, run)` for the runs of one channel that elements from `first` on consist of.
fn each_run(s: Sizes, first: usize, to: &mut [f32], mut f: impl FnMut(usize, usize, &mut [f32])) {
    let mut done = 0;
    while done < to.len() {
        let at = first + done;
        let row = at / s.inner;
        let len = (s.inner - at % s.inner).min(to.len() - done);
        f(row / (s.n * s.channels) * s.channels + row % s.channels, at, &mut to[done..done + len]);
        done += len;
    }
}

/// A run of one channel, normalised.
struct Run<'a> {
    mean: f32,
    inverse: f32,
    weight: f32,
    bias: f32,
    x: &'a [f32],
    y: &'a mut [f32],
}

impl Loop for Run<'_> {
    type Out = ();
    #[inline(always)]
    fn run(self) {
        let Run { mean, inverse, weight, bias, x, y } = self;
        y.iter_mut().zip(x).for_each(|(y, x)| *y = (x - mean) * inverse * weight + bias);
    }
}

/// A run of one channel's gradient.
struct GradRun<'a> {
    factor: f32,
    taken: f32,
    slope: f32,
    mean: f32,
    x: &'a [f32],
    g: &'a [f32],
    y: &'a mut [f32],
}

impl Loop for GradRun<'_> {
    type Out = ();
    #[inline(always)]
    fn run(self) {
        let GradRun { factor, taken, slope, mean, x, g, y } = self;
        y.iter_mut().zip(x).zip(g).for_each(|((y, x), g)| *y = factor * ((g - taken) - (x - mean) * slope));
    }
}

/// Mean and inverse deviation of each channel, [models, channels], as operations that have gradients.
fn statistics(x: &Tensor, eps: f64) -> Result<[Tensor; 2]> {
    let count = terms(x.shape()) as f64;
    let mean = x.try_sum(&[1, 3], false)?.div_scalar(count);
    let var = (x - spread(&mean)?).square().try_sum(&[1, 3], false)?.div_scalar(count);
    let inverse = var.add_scalar(eps).rsqrt();
    Ok([mean, inverse])
}

/// Elements of a channel.
fn terms(x: &Shape) -> usize {
    x[1] * x[3]
}

/// Outputs of a stacked call with the axis of `k` before that of the models again.
fn parted(t: &Tensor, k: usize) -> Result<Tensor> {
    let mut shape = t.shape().to_vec();
    shape[0] /= k.max(1);
    shape.insert(0, k);
    t.try_reshape(shape)
}

/// Elements of a V of the shaders that go over x element by element, and Vs of one invocation: on a processor it takes several of one channel, for which what
/// the channel has is read once.
fn steps(ctx: &LaunchCtx<'_>, inner: usize, aligned: bool) -> (usize, usize) {
    match () {
        () if !aligned || !inner.is_multiple_of(4) => (1, 1),
        () if ctx.caps.kind == Kind::Software && inner.is_multiple_of(16) => (4, 4),
        () => (4, 1),
    }
}

/// [models, channels] over x.
fn spread(t: &Tensor) -> Result<Tensor> {
    t.try_reshape([t.shape()[0], 1, t.shape()[1], 1])
}

impl Op for Normalize {
    fn name(&self) -> &'static str {
        "batch_norm"
    }

    fn key(&self, key: &mut Key) {
        key.flag(self.affine);
    }

    fn infer(&self, _: &Slots, inputs: &[Meta]) -> Result<Vec<Meta>> {
        let s = Sizes::of(&inputs[0].shape)?;
        let (m, c) = (s.models, s.channels);
        if let Some(bad) = inputs[2..].iter().find(|i| **i != Meta::new(inputs[0].dtype, [m, c])) {
            let per = bad.shape.without(0);
            return Err(Error::shape(format!("batch_norm: weight and bias must be {}[{c}], got {}{per}", inputs[0].dtype, bad.dtype)));
        }
        Ok(vec![inputs[0]])
    }

    fn fuses(&self) -> Fuses {
        Fuses { epilogue: true, prologue: false }
    }

    fn cpu(&self, _: &Slots, inputs: &[CpuView<'_>], outputs: &mut [CpuViewMut<'_>]) -> Result<()> {
        let [_, n, channels, inner] = inputs[0].shape()[..] else { return Err(Error::internal("batch_norm: not four dimensions")) };
        let of: Vec<Vec<f64>> = inputs.iter().map(CpuView::to_f64).collect();
        let y: Vec<f64> = (0..of[0].len())
            .map(|i| {
                let c = i / inner % channels + i / (n * channels * inner) * channels;
                let v = (of[0][i] - of[1][2 * c]) * of[1][2 * c + 1];
                if self.affine { v * of[2][c] + of[3][c] } else { v }
            })
            .collect();
        outputs[0].set_f64(&y);
        Ok(())
    }

    fn cpu_elements<'a>(&'a self, _: &'a Slots, inputs: &'a [CpuView<'a>]) -> Option<Elements<'a>> {
        let s = Sizes::of(inputs[0].shape()).ok().filter(|_| inputs[0].dtype == DType::F32)?;
        let of: Vec<_> = inputs.iter().map(|x| x.elements::<f32>()).collect();
        Some(Box::new(move |first, to| {
            each_run(s, first, to, |c, at, y| {
                let (weight, bias) = if self.affine { (of[2][c], of[3][c]) } else { (1.0, 0.0) };
                let (mean, inverse) = (of[1][2 * c], of[1][2 * c + 1]);
                widely(Run { mean, inverse, weight, bias, x: &of[0][at..at + y.len()], y });
            });
        }))
    }

    fn gpu(&self, ctx: &mut LaunchCtx<'_>) -> Result<()> {
        let s = Sizes::of(&ctx.inputs[0].meta.shape)?;
        let numel = ctx.outputs[0].1.numel();
        let (width, steps) = steps(ctx, s.inner, ctx.inputs[0].aligned);
        let element = stats::element(width);
        let mut call = ctx.call("batch_norm")?.alias("V", element).set("WIDTH", format!("{width}u")).set("STEPS", format!("{steps}u"));
        call = stats::loads(call, width, "load", "x", "u[0].z").input_as("x", 0, element).input("center", 1);
        call = if self.affine { call.input("weight", 2).input("bias", 3) } else { call.hook("factor", "    return 1.0;").hook("shift", "    return 0.0;") };
        call = call.u32s(&[numel / width / steps, s.channels]).offset(0).offset(1);
        call = if self.affine { call.offset(2).offset(3) } else { call.u32s(&[0, 0]) };
        call = call.divisor(s.inner).divisor(s.channels).divisor(s.n).flops(4 * numel as u64);
        call = if width == 4 { call.with_epilogue4()? } else { call.with_epilogue()? };
        call.grid_linear((numel / width / steps).div_ceil(64))
    }

    fn saves(&self) -> Saves {
        Saves::inputs(if self.affine { &[0, 1, 2] } else { &[0, 1] })
    }

    fn backward(&self, ctx: &Saved<'_>, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let mut out = vec![None; ctx.input_count()];
        let Some(g) = &grads[0] else { return Ok(out) };
        let x = ctx.input(0);
        if !grad_enabled() {
            let mut inputs = vec![x, g, ctx.input(1)];
            if self.affine {
                inputs.push(ctx.input(2));
            }
            let sums = Tensor::try_apply(BatchSums { affine: self.affine }, Slots::none(), &inputs)?;
            if ctx.needs(0) {
                out[0] = Some(Tensor::try_apply1(NormalizeGrad, Slots::none(), &[x, g, &sums[2]])?);
            }
            if self.affine {
                out[2] = Some(sums[1].clone());
                out[3] = Some(sums[0].clone());
            }
            return Ok(out);
        }
        // Where the gradient is differentiated in turn, the statistics, which came from the detached input, are needed as functions of it.
        let [mean, inverse] = statistics(x, ctx.slots().floats[0])?;
        let sum = g.try_sum(&[1, 3], false)?;
        let along = (g * ((x - spread(&mean)?) * spread(&inverse)?)).try_sum(&[1, 3], false)?;
        if ctx.needs(0) {
            let count = terms(x.shape()) as f64;
            let scale = if self.affine { &inverse * ctx.input(2) } else { inverse.clone() };
            let rest = g - spread(&sum.div_scalar(count))? + (spread(&mean)? - x) * spread(&(&inverse * &along.div_scalar(count)))?;
            out[0] = Some(rest * spread(&scale)?);
        }
        if self.affine {
            out[2] = Some(along);
            out[3] = Some(sum);
        }
        Ok(out)
    }

    fn batch(&self, ctx: &Batched<'_>) -> Result<Vec<Tensor>> {
        let inputs = stats::joined(ctx)?;
        let y = Tensor::try_apply1(*self, ctx.slots.clone(), &inputs.iter().collect::<Vec<_>>())?;
        Ok(vec![parted(&y, ctx.k)?])
    }
}

impl Op for NormalizeGrad {
    fn name(&self) -> &'static str {
        "batch_norm_grad"
    }

    fn infer(&self, _: &Slots, inputs: &[Meta]) -> Result<Vec<Meta>> {
        let s = Sizes::of(&inputs[0].shape)?;
        if inputs[1] != inputs[0] || inputs[2] != Meta::new(inputs[0].dtype, [s.models, s.channels, 4]) {
            return Err(Error::internal(format!("batch_norm_grad: {inputs:?}")));
        }
        Ok(vec![inputs[0]])
    }

    fn fuses(&self) -> Fuses {
        Fuses { epilogue: true, prologue: false }
    }

    fn cpu(&self, _: &Slots, inputs: &[CpuView<'_>], outputs: &mut [CpuViewMut<'_>]) -> Result<()> {
        let s = Sizes::of(inputs[0].shape())?;
        let [x, g, scale] = [0, 1, 2].map(|n| inputs[n].to_f64());
        let mut y = vec![0.0; x.len()];
        for c in 0..s.all() {
            let of = &scale[4 * c..][..4];
            s.rows(c).flat_map(|row| row..row + s.inner).for_each(|i| y[i] = of[0] * (g[i] - of[1] - (x[i] - of[3]) * of[2]));
        }
        outputs[0].set_f64(&y);
        Ok(())
    }

    fn cpu_elements<'a>(&'a self, _: &'a Slots, inputs: &'a [CpuView<'a>]) -> Option<Elements<'a>> {
        let s = Sizes::of(inputs[0].shape()).ok().filter(|_| inputs[0].dtype == DType::F32)?;
        let [x, g, scale] = [0, 1, 2].map(|n| inputs[n].elements::<f32>());
        Some(Box::new(move |first, to| {
            each_run(s, first, to, |c, at, y| {
                let [factor, taken, slope, mean] = [0, 1, 2, 3].map(|k| scale[4 * c + k]);
                widely(GradRun { factor, taken, slope, mean, x: &x[at..at + y.len()], g: &g[at..at + y.len()], y });
            });
        }))
    }

    fn gpu(&self, ctx: &mut LaunchCtx<'_>) -> Result<()> {
        let s = Sizes::of(&ctx.inputs[0].meta.shape)?;
        let numel = ctx.outputs[0].1.numel();
        let (width, steps) = steps(ctx, s.inner, ctx.inputs[0].aligned && ctx.inputs[1].aligned);
        let element = stats::element(width);
        let mut call = ctx.call("batch_norm_grad")?.alias("V", element).set("WIDTH", format!("{width}u")).set("STEPS", format!("{steps}u"));
        call = stats::loads(call, width, "load", "x", "u[0].z");
        call = stats::loads(call, width, "load_g", "g", "u[0].w").input_as("x", 0, element).input_as("g", 1, element).input("scale", 2);
        call = call.u32s(&[numel / width / steps, s.channels]).offset(0).offset(1).offset(2);
        call = call.divisor(s.inner).divisor(s.channels).divisor(s.n).u32(0).flops(5 * numel as u64);
        call = if width == 4 { call.with_epilogue4()? } else { call.with_epilogue()? };
        call.grid_linear((numel / width / steps).div_ceil(64))
    }

    fn batch(&self, ctx: &Batched<'_>) -> Result<Vec<Tensor>> {
        let inputs = stats::joined(ctx)?;
        let y = Tensor::try_apply1(*self, Slots::none(), &inputs.iter().collect::<Vec<_>>())?;
        Ok(vec![parted(&y, ctx.k)?])
    }
}

impl Tensor {
    /// Batch normalisation of `[n, channels, ...]`. `running`: mean and variance `[channels]`, used where not training. `affine`: weight and bias
    /// `[channels]`. Gives the result, and the running statistics afterwards (where there are some), which carry no gradient.
    ///
    /// In training the batch's biased variance normalises, and its unbiased one moves the running variance, as in PyTorch.
    ///
    /// ```
    /// use wgrad::{Device, Tensor, ops::BatchNorm};
    /// let x = Tensor::new([1.0f32, 3.0], [2, 1], &Device::cpu()?)?;
    /// let (y, _) = x.batch_norm(None, None, &BatchNorm { eps: 0.0, ..Default::default() });
    /// assert_eq!(y.to_vec::<f32>()?, [-1.0, 1.0]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    ///
    /// Source: Ioffe and Szegedy, "Batch Normalization", 2015.
    #[track_caller]
    pub fn batch_norm(&self, running: Option<[&Tensor; 2]>, affine: Option<[&Tensor; 2]>, options: &BatchNorm) -> (Tensor, Option<[Tensor; 2]>) {
        ok(self.try_batch_norm(running, affine, options))
    }

    /// [`Tensor::batch_norm`], or an error where the shapes don't fit.
    pub fn try_batch_norm(
        &self,
        running: Option<[&Tensor; 2]>,
        affine: Option<[&Tensor; 2]>,
        options: &BatchNorm,
    ) -> Result<(Tensor, Option<[Tensor; 2]>)> {
        let shape = *self.shape();
        if shape.rank() < 2 {
            return Err(Error::shape(format!("batch_norm: takes [n, channels, ...], got {shape}")));
        }
        let (n, c, inner) = (shape[0], shape[1], shape[2..].iter().product::<usize>());
        for t in running.iter().flatten() {
            if t.shape()[..] != [c] {
                return Err(Error::shape(format!("batch_norm: running statistics must have shape [{c}], got {}", t.shape())));
            }
        }
        if !options.training {
            let Some([mean, var]) = running else {
                return Err(Error::invalid("batch_norm: without training, running statistics are needed"));
            };
            // Rows alone: they run in the epilogue of what came before.
            let mut column = vec![1; shape.rank()];
            column[1] = c;
            let scale = var.add_scalar(options.eps).rsqrt();
            let (scale, shift) = match affine {
                Some([w, b]) if w.shape()[..] == [c] && b.shape()[..] == [c] => (&scale * w, Some(b)),
                Some([w, b]) => {
                    let bad = if w.shape()[..] == [c] { b } else { w };
                    return Err(Error::shape(format!("batch_norm: weight and bias must be {}[{c}], got {}", self.dtype(), bad.meta())));
                }
                None => (scale, None),
            };
            let y = (self - mean.try_reshape(&column)?) * scale.try_reshape(&column)?;
            let y = match shift {
                Some(b) => y + b.try_reshape(&column)?,
                None => y,
            };
            return Ok((y, Some([mean.clone(), var.clone()])));
        }
        if n * inner < 2 {
            return Err(Error::shape(format!("batch_norm: training needs more than one value a channel, got shape {shape}")));
        }
        let x = self.try_reshape([1, n, c, inner])?;
        let affine_of = |t: &Tensor| t.try_reshape(t.shape().with(0, 1));
        let detached = x.detach();
        let old: Vec<Tensor> = running.iter().flatten().map(|t| t.detach()).collect();
        let unbiased = (n * inner) as f64 / (n * inner - 1) as f64;
        let floats = [options.eps, options.momentum, 1.0 - options.momentum, unbiased];
        let mut inputs = vec![&detached];
        inputs.extend(&old);
        let of = Tensor::try_apply(BatchStats { running: running.is_some() }, Slots::floats(&floats), &inputs)?;
        let extra: Vec<Tensor> = affine.iter().flatten().map(|t| affine_of(t)).collect::<Result<_>>()?;
        let mut inputs = vec![&x, &of[0]];
        inputs.extend(&extra);
        let y = Tensor::try_apply1(Normalize { affine: affine.is_some() }, Slots::floats(&[options.eps]), &inputs)?.try_reshape(shape)?;
        Ok((y, running.map(|_| [of[1].clone(), of[2].clone()])))
    }
}

pub(super) static OPS: &[OpEntry] = &[OpEntry {
    name: "batch_norm",
    doc: "each channel made to have mean 0 and variance 1, then scaled and shifted",
    order: Order::Any,
    nodes: &["batch_norm", "batch_norm_statistics", "batch_norm_sums", "batch_norm_grad"],
    samples: || {
        let case = |shape: &'static [usize], affine: bool, training: bool| {
            let c = [shape[1]];
            let inputs = vec![Arg::float(shape), Arg::float(c), Arg::float(c)];
            let terms = shape.iter().product::<usize>() / shape[1];
            Sample::new(format!("{shape:?}, affine {affine}, training {training}"), inputs, terms, move |x| {
                // Running statistics carry no gradient, so they are no input of the sample.
                let [mean, var] = [0.3, 1.5].map(|v| Tensor::try_full(c, v, x[0].dtype(), x[0].device()));
                let running = [mean?, var?];
                let options = BatchNorm { training, ..Default::default() };
                Ok(vec![x[0].try_batch_norm(Some([&running[0], &running[1]]), affine.then_some([&x[1], &x[2]]), &options)?.0])
            })
        };
        vec![
            case(&[5, 3], true, true),
            case(&[4, 3, 5, 7], true, true),
            case(&[2, 2, 9], false, true),
            case(&[3, 1, 2, 2, 2], true, true),
            case(&[3, 5, 4, 8], true, true),
            case(&[3, 2, 36, 36], false, true),
            case(&[1031, 3], true, true),
            case(&[4, 3, 5], true, false),
            case(&[2, 3], false, false),
        ]
    },
    misuse: || {
        let run = |x: &[Tensor]| Ok(vec![x[0].try_batch_norm(None, x.get(1).map(|w| [w, w]), &BatchNorm::default())?.0]);
        vec![
            Misuse::new(vec![Arg::float([3])], "batch_norm: takes [n, channels, ...], got [3]", run),
            Misuse::new(vec![Arg::float([1, 3])], "batch_norm: training needs more than one value a channel, got shape [1, 3]", run),
            Misuse::new(vec![Arg::float([4, 3]), Arg::float([2])], "batch_norm: weight and bias must be f32[3], got f32[2]", run),
            Misuse::new(vec![Arg::float([4, 3])], "batch_norm: without training, running statistics are needed", |x| {
                Ok(vec![x[0].try_batch_norm(None, None, &BatchNorm { training: false, ..Default::default() })?.0])
            }),
        ]
    },
}];
