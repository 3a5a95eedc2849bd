//! batch_norm: statistics by reductions, one op that normalises, and its gradient in closed form.

use super::table::{Arg, Misuse, OpEntry, Order, Sample};
use super::view::ok;
use crate::device::cpu::{CpuView, CpuViewMut, Loop, Threads, widely};
use crate::error::{Error, Result};
use crate::graph::{Batched, Elements, Fuses, Key, LaunchCtx, Op, Saved, Saves, Slots, Tensor, grad_enabled};
use crate::tensor::{DType, Meta, Shape};

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

/// `(x - mean) inverse weight + bias` by channel. Inputs: x [models, n, channels, inner], then mean, the deviation's inverse and, where `affine`, weight and
/// bias, [models, channels] each. Mean and inverse are those of x itself: the gradient by x counts what flows through them, and they get none of their own.
/// Float slot 0: what was added to the variance.
#[derive(Clone, Copy, Debug)]
struct Normalize {
    affine: bool,
}

/// A run of one channel on the CPU.
struct Channel<'a> {
    mean: f32,
    inverse: f32,
    weight: f32,
    bias: f32,
    x: &'a [f32],
    y: &'a mut [f32],
}

impl Loop for Channel<'_> {
    type Out = ();
    #[inline(always)]
    fn run(self) {
        let Channel { mean, inverse, weight, bias, x, y } = self;
        y.iter_mut().zip(x).for_each(|(y, &x)| *y = (x - mean) * inverse * weight + bias);
    }
}

/// Mean and inverse deviation of each channel, [models, channels], and the variance.
fn statistics(x: &Tensor, eps: f64) -> Result<[Tensor; 3]> {
    let count = terms(x.shape()) as f64;
    let mean = x.try_sum(&[1, 3], false)?.div_scalar(count);
    let var = (x - spread(&mean)?).square().try_sum(&[1, 3], false)?.div_scalar(count);
    let inverse = var.add_scalar(eps).rsqrt();
    Ok([mean, inverse, var])
}

/// Elements of a channel.
fn terms(x: &Shape) -> usize {
    x[1] * x[3]
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
        let [m, _, c, _] = inputs[0].shape[..] else { return Err(Error::internal("batch_norm: the input was not brought to four dimensions")) };
        if let Some(bad) = inputs[1..].iter().find(|i| **i != Meta::new(inputs[0].dtype, [m, c])) {
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
                let v = (of[0][i] - of[1][c]) * of[2][c];
                if self.affine { v * of[3][c] + of[4][c] } else { v }
            })
            .collect();
        outputs[0].set_f64(&y);
        Ok(())
    }

    fn cpu_fast(&self, slots: &Slots, inputs: &[CpuView<'_>], outputs: &mut [CpuViewMut<'_>], threads: &Threads) -> Result<bool> {
        const TASK: usize = 1 << 14;
        let Some(make) = self.cpu_elements(slots, inputs) else { return Ok(false) };
        threads.chunks(outputs[0].elements::<f32>(), TASK, |first, part| make(first, part));
        Ok(true)
    }

    fn cpu_elements<'a>(&'a self, _: &'a Slots, inputs: &'a [CpuView<'a>]) -> Option<Elements<'a>> {
        let [_, n, channels, inner] = inputs[0].shape()[..] else { return None };
        if inputs[0].dtype != DType::F32 {
            return None;
        }
        let of: Vec<_> = inputs.iter().map(|x| x.elements::<f32>()).collect();
        Some(Box::new(move |first, to| {
            let mut done = 0;
            while done < to.len() {
                let at = first + done;
                let c = at / inner % channels + at / (n * channels * inner) * channels;
                let len = (inner - at % inner).min(to.len() - done);
                let (weight, bias) = if self.affine { (of[3][c], of[4][c]) } else { (1.0, 0.0) };
                widely(Channel { mean: of[1][c], inverse: of[2][c], weight, bias, x: &of[0][at..at + len], y: &mut to[done..done + len] });
                done += len;
            }
        }))
    }

    fn gpu(&self, ctx: &mut LaunchCtx<'_>) -> Result<()> {
        let [_, n, channels, inner] = ctx.inputs[0].meta.shape[..] else { return Err(Error::internal("batch_norm: not four dimensions")) };
        let numel = ctx.outputs[0].1.numel();
        let fours = inner.is_multiple_of(4) && ctx.inputs[0].aligned;
        let (width, element) = if fours { (4, "vec4<f32>") } else { (1, "f32") };
        let mut call = ctx.call("batch_norm")?.alias("V", element).set("WIDTH", format!("{width}u"));
        call = if fours { call.hook("load", "    return x[i >> 2u];") } else { call };
        call = call.input_as("x", 0, element).input("mean", 1).input("inverse", 2);
        call = if self.affine { call.input("weight", 3).input("bias", 4) } else { call.hook("affine", "    return v;") };
        call = call.u32s(&[numel / width, channels]).offset(0).offset(1).offset(2);
        call = if self.affine { call.offset(3).offset(4) } else { call.u32s(&[0, 0]) };
        call = call.divisor(inner).divisor(channels).divisor(n).u32s(&[0, 0, 0]).flops(4 * numel as u64);
        call = if fours { call.with_epilogue4()? } else { call.with_epilogue()? };
        call.grid_linear((numel / width).div_ceil(64))
    }

    fn saves(&self) -> Saves {
        Saves::inputs(if self.affine { &[0, 1, 2, 3] } else { &[0, 1, 2] })
    }

    fn backward(&self, ctx: &Saved<'_>, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let mut out = vec![None; ctx.input_count()];
        let Some(g) = &grads[0] else { return Ok(out) };
        let x = ctx.input(0);
        // The statistics came from the detached input. Where the gradient is differentiated in turn, they are needed as functions of it.
        let [mean, inverse] = if grad_enabled() {
            let [mean, inverse, _] = statistics(x, ctx.slots().floats[0])?;
            [mean, inverse]
        } else {
            [1, 2].map(|n| ctx.input(n).clone())
        };
        let sum = g.try_sum(&[1, 3], false)?;
        let along = (g * ((x - spread(&mean)?) * spread(&inverse)?)).try_sum(&[1, 3], false)?;
        if ctx.needs(0) {
            let count = terms(x.shape()) as f64;
            let scale = if self.affine { &inverse * ctx.input(3) } else { inverse.clone() };
            // The deviation once more, with the other sign: as the same node it would be stored for both of its readers, which costs more than to compute it.
            let rest = g - spread(&sum.div_scalar(count))? + (spread(&mean)? - x) * spread(&(&inverse * &along.div_scalar(count)))?;
            out[0] = Some(rest * spread(&scale)?);
        }
        if self.affine {
            out[3] = Some(along);
            out[4] = Some(sum);
        }
        Ok(out)
    }

    fn batch(&self, ctx: &Batched<'_>) -> Result<Vec<Tensor>> {
        let joined = |t: &Tensor| {
            let mut shape = t.shape()[1..].to_vec();
            shape[0] *= ctx.k;
            t.try_reshape(shape)
        };
        let inputs: Vec<Tensor> = ctx.inputs.iter().map(joined).collect::<Result<_>>()?;
        let y = Tensor::try_apply1(*self, ctx.slots.clone(), &inputs.iter().collect::<Vec<_>>())?;
        Ok(vec![y.try_reshape(*ctx.inputs[0].shape())?])
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
        let [mean, inverse, var] = statistics(&x.detach(), options.eps)?;
        let affine_of = |t: &Tensor| t.try_reshape(t.shape().with(0, 1));
        let extra: Vec<Tensor> = affine.iter().flatten().map(|t| affine_of(t)).collect::<Result<_>>()?;
        let mut inputs = vec![&x, &mean, &inverse];
        inputs.extend(&extra);
        let y = Tensor::try_apply1(Normalize { affine: affine.is_some() }, Slots::floats(&[options.eps]), &inputs)?.try_reshape(shape)?;
        let moved = running.map(|[m, v]| -> Result<[Tensor; 2]> {
            let unbiased = (n * inner) as f64 / (n * inner - 1) as f64;
            let towards = |old: &Tensor, new: Tensor| old.detach().mul_scalar(1.0 - options.momentum) + new.mul_scalar(options.momentum);
            Ok([towards(m, mean.try_reshape([c])?), towards(v, var.mul_scalar(unbiased).try_reshape([c])?)])
        });
        Ok((y, moved.transpose()?))
    }
}

pub(super) static OPS: &[OpEntry] = &[OpEntry {
    name: "batch_norm",
    doc: "each channel made to have mean 0 and variance 1, then scaled and shifted",
    order: Order::Any,
    nodes: &["batch_norm"],
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
