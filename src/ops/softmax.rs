//! softmax and log_softmax: along the last dimension as one op; other dimensions are brought there by a view.

use super::join::{join_lanes, larger, plus, rows_in_fours};
use super::rows::Real;
use super::table::{Arg, Misuse, OpEntry, Order, Sample};
use super::view::ok;
use crate::device::Slot;
use crate::device::cpu::{CpuView, CpuViewMut, Threads};
use crate::error::{Error, Result};
use crate::graph::{Batched, Call, Fuses, LaunchCtx, Op, Saved, Saves, Slots, Tensor, in_fours};
use crate::tensor::{DType, Layout, Meta, Shape};

/// Over the last dimension.
#[derive(Clone, Copy, Debug)]
struct Softmax {
    log: bool,
}

/// The longest row that is not cut into parts, for more invocations to take.
const ROW: usize = 4096;
/// The longest of those parts.
const PART: usize = 512;
/// Invocations of a workgroup.
const GROUP: usize = 64;

/// Dimensions that count rows, after merging, that the shaders walk.
const MAX_OUTER: usize = 4;

/// Sizes and strides of the dimensions that count the rows, and the stride along a row.
fn rows(layout: &Layout) -> (Vec<(usize, isize)>, isize) {
    let last = layout.shape.rank() - 1;
    let outer: Vec<usize> = (0..last).collect();
    (layout.permute(&outer).merged(), layout.strides()[last])
}

/// How the shaders read rows: the texts of shaders/rows.wgsl, and the words that all begin with.
struct Rows {
    /// Sizes and strides of the dimensions that count the rows, and the stride along a row.
    outer: Vec<(usize, isize)>,
    stride: isize,
    /// Elements of a row.
    n: usize,
    /// How many rows there are.
    count: usize,
    /// Elements of a V.
    width: usize,
    /// Whether neighbours in memory are of one row.
    along: bool,
}

impl Rows {
    fn of(ctx: &LaunchCtx<'_>) -> Rows {
        let layout = ctx.inputs[0].layout;
        let n = layout.shape[layout.shape.rank() - 1];
        let (outer, stride) = rows(&layout);
        let even = ctx.prologue.is_some() || ctx.inputs[0].aligned && stride == 1 && outer.iter().all(|d| d.1 % 4 == 0);
        let fours = even && n.is_multiple_of(4) && in_fours(&layout.shape);
        let along = outer.last().is_none_or(|d| stride.abs() <= d.1.abs());
        Rows { n, count: layout.shape.numel() / n.max(1), width: if fours { 4 } else { 1 }, along, outer, stride }
    }

    /// The texts, the binding of x, and the words.
    fn read<'c, 'a>(&self, mut call: Call<'c, 'a>, prologue: bool) -> Call<'c, 'a> {
        let outer = &self.outer;
        call = call.set("OUTER", format!("{}u", outer.len()));
        let mut element = "f32";
        if self.width == 4 {
            element = "vec4<f32>";
            call = rows_in_fours(call).hook("load", "    return x[(u[0].z + i) >> 2u];");
        }
        if !prologue {
            call = call.input_as("x", 0, element);
        }
        call = call.u32s(&[self.count, self.n / self.width]).offset(0).stride(self.stride * self.width as isize);
        let of = |n: usize| outer.len().checked_sub(n + 1).map_or((1, 0), |i| outer[i]);
        call = (0..MAX_OUTER).fold(call, |c, d| c.u32(of(d).0));
        (0..MAX_OUTER).fold(call, |c, d| c.stride(of(d).1))
    }

    fn stored<'c, 'a>(&self, call: Call<'c, 'a>) -> Result<Call<'c, 'a>> {
        if self.width == 4 { call.with_epilogue4() } else { call.with_epilogue() }
    }
}

impl Softmax {
    /// Rows of up to [`ROW`] elements.
    fn short(self, ctx: &mut LaunchCtx<'_>, rows: &Rows) -> Result<()> {
        // A processor's lanes have a row each. Those of hardware like neighbours in memory, and a few elements each.
        let along = !ctx.caps.takes_runs() && rows.along;
        let lanes = if along { (rows.n / rows.width / 4).next_power_of_two().clamp(1, GROUP) } else { 1 };
        let prologue = ctx.prologue.is_some();
        let mut call = ctx.call("softmax")?.set("LOG", self.log).set("LANES", format!("{lanes}u"));
        if lanes > 1 {
            call = call.hook("largest", &join_lanes(lanes, larger)).hook("total", &join_lanes(lanes, plus));
        }
        call = rows.read(call, prologue).flops(20 * (rows.count * rows.n) as u64).with_prologue(rows.width == 4);
        rows.stored(call)?.grid_linear((rows.count * lanes).div_ceil(GROUP))
    }

    /// Longer ones: maxima and sums of parts, these joined, then every element.
    fn long(self, ctx: &mut LaunchCtx<'_>, rows: &Rows) -> Result<()> {
        let (count, fours, prologue) = (rows.count, rows.width == 4, ctx.prologue.is_some());
        let runs = ctx.caps.takes_runs() && rows.along;
        let mut from: Option<(Slot, usize)> = None;
        let sums = loop {
            let terms = from.map_or(rows.n, |(_, parts)| parts);
            let parts = terms.div_ceil(PART);
            let to = ctx.scratch(count * parts * 8);
            let call = ctx.call("softmax_part")?.set("RUNS", runs);
            let call = match from {
                Some((pairs, _)) => call
                    .hook("result", "    return joined(row, first, end, by);")
                    .hook("load", "    return 0.0;")
                    .read("p", pairs, "vec2<f32>")
                    .u32s(&[count, terms])
                    .u32s(&[0; 10]),
                None => rows.read(call.hook("joined", "    return vec2<f32>(0.0);"), prologue),
            };
            let mut call = call.u32s(&[parts, 0, 0, 0]).flops(10 * (count * terms) as u64);
            if from.is_none() {
                call = call.with_prologue(fours);
            }
            call.write("y", to, "vec2<f32>").grid_linear((count * parts).div_ceil(GROUP))?;
            if parts == 1 {
                break to;
            }
            from = Some((to, parts));
        };
        let call = ctx.call("softmax_apply")?.set("LOG", self.log).read("p", sums, "vec2<f32>");
        let call = rows.read(call, prologue).flops(10 * (count * rows.n) as u64).with_prologue(fours);
        rows.stored(call)?.grid_linear((count * rows.n / rows.width).div_ceil(GROUP))
    }
}

impl Op for Softmax {
    fn name(&self) -> &'static str {
        if self.log { "log_softmax" } else { "softmax" }
    }

    fn infer(&self, _: &Slots, inputs: &[Meta]) -> Result<Vec<Meta>> {
        if !inputs[0].dtype.is_float() {
            return Err(Error::shape(format!("{}: takes floats, got {}", self.name(), inputs[0].dtype)).help("convert with to_dtype"));
        }
        Ok(vec![inputs[0]])
    }

    fn accepts(&self, _: usize, layout: &Layout) -> bool {
        rows(layout).0.len() <= MAX_OUTER
    }

    fn fuses(&self) -> Fuses {
        Fuses { epilogue: true, prologue: true }
    }

    fn extra_bindings(&self) -> usize {
        // What a long row's parts gave.
        1
    }

    fn cpu(&self, _: &Slots, inputs: &[CpuView<'_>], outputs: &mut [CpuViewMut<'_>]) -> Result<()> {
        let mut y = inputs[0].to_f64();
        let n = inputs[0].shape().last().copied().unwrap_or(1).max(1);
        for row in y.chunks_mut(n) {
            let max = row.iter().fold(f64::NEG_INFINITY, |m, &v| m.max(v));
            let sum: f64 = row.iter().map(|v| (v - max).exp()).sum();
            row.iter_mut().for_each(|v| *v = if self.log { *v - max - sum.ln() } else { (*v - max).exp() / sum });
        }
        outputs[0].set_f64(&y);
        Ok(())
    }

    fn cpu_fast(&self, _: &Slots, inputs: &[CpuView<'_>], outputs: &mut [CpuViewMut<'_>], threads: &Threads) -> Result<bool> {
        if inputs[0].dtype != DType::F32 {
            return Ok(false);
        }
        let x = inputs[0].elements::<f32>();
        let n = inputs[0].shape().last().copied().unwrap_or(1).max(1);
        threads.chunks(outputs[0].elements::<f32>(), n * (4096 / n).max(1), |start, part| {
            for (row, x) in part.chunks_mut(n).zip(x[start..].chunks(n)) {
                let max = x.iter().fold(f32::NEG_INFINITY, |m, &v| m.max(v));
                let mut sum = 0.0f64;
                for (y, x) in row.chunks_mut(64).zip(x.chunks(64)) {
                    y.iter_mut().zip(x).for_each(|(y, x)| *y = Real::exp(x - max));
                    sum += f64::from(y.iter().sum::<f32>());
                }
                if self.log {
                    let shift = sum.ln() as f32;
                    row.iter_mut().zip(x).for_each(|(y, x)| *y = x - max - shift);
                } else {
                    let factor = (1.0 / sum) as f32;
                    row.iter_mut().for_each(|y| *y *= factor);
                }
            }
        });
        Ok(true)
    }

    fn gpu(&self, ctx: &mut LaunchCtx<'_>) -> Result<()> {
        let rows = Rows::of(ctx);
        match rows.n {
            _ if rows.count * rows.n == 0 => Ok(()),
            n if n <= ROW => self.short(ctx, &rows),
            _ => self.long(ctx, &rows),
        }
    }

    fn saves(&self) -> Saves {
        Saves::outputs(&[0])
    }

    fn backward(&self, ctx: &Saved<'_>, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let Some(g) = &grads[0] else { return Ok(vec![None]) };
        let y = ctx.output(0);
        Ok(vec![Some(if self.log { g - y.exp() * g.try_sum(&[-1], true)? } else { (g - (g * y).try_sum(&[-1], true)?) * y })])
    }

    fn batch(&self, ctx: &Batched<'_>) -> Result<Vec<Tensor>> {
        Ok(vec![Tensor::try_apply1(*self, Slots::none(), &[&ctx.inputs[0]])?])
    }
}

impl Tensor {
    fn softmax_by(&self, op: Softmax, dim: isize) -> Result<Tensor> {
        let d = self.shape().dim(dim).map_err(|e| e.context(op.name()))?;
        let last = self.rank() - 1;
        if d == last {
            return Tensor::try_apply1(op, Slots::none(), &[self]);
        }
        let mut dims: Vec<usize> = (0..self.rank()).collect();
        dims.swap(d, last);
        Tensor::try_apply1(op, Slots::none(), &[&self.try_permute(&dims)?])?.try_permute(&dims)
    }

    /// `e^x` along `dim`, divided by its sum there.
    ///
    /// ```
    /// use wgrad::{Device, Tensor};
    /// let x = Tensor::new([0.0f32, 2.0f32.ln(), 0.0, 0.0], [2, 2], &Device::cpu()?)?;
    /// let y = x.softmax(1).to_vec::<f32>()?;
    /// assert!((y[1] - 2.0 / 3.0).abs() < 1e-6 && y[2] == 0.5);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    #[track_caller]
    pub fn softmax(&self, dim: isize) -> Tensor {
        ok(self.try_softmax(dim))
    }

    /// [`Tensor::softmax`], or an error where `dim` is out of range.
    pub fn try_softmax(&self, dim: isize) -> Result<Tensor> {
        self.softmax_by(Softmax { log: false }, dim)
    }

    /// The logarithm of [`Tensor::softmax`], without its loss of small values.
    #[track_caller]
    pub fn log_softmax(&self, dim: isize) -> Tensor {
        ok(self.try_log_softmax(dim))
    }

    /// [`Tensor::log_softmax`], or an error where `dim` is out of range.
    pub fn try_log_softmax(&self, dim: isize) -> Result<Tensor> {
        self.softmax_by(Softmax { log: true }, dim)
    }
}

/// Samples: short and long rows, in fours and not, other dimensions, sizes of 1, empty.
fn samples(run: fn(&Tensor, isize) -> Result<Tensor>) -> Vec<Sample> {
    let cases: &[(&[usize], isize)] =
        &[(&[7], 0), (&[3, 10], 1), (&[3, 5, 4], 1), (&[2, 3, 4, 5], 0), (&[4, 1], 1), (&[1, 1], 0), (&[2, 1031], -1), (&[3, 36], 1), (&[1, 4100], 1), (&[2, 4101], -1), (&[0, 3], 1), (&[1031, 2], 0)];
    cases
        .iter()
        .map(|&(shape, dim)| {
            let s = Shape::new(shape);
            let terms = s[s.dim(dim).expect("a sample's dim is valid")];
            Sample::new(format!("{s} along {dim}"), vec![Arg::float(shape)], terms, move |x| Ok(vec![run(&x[0], dim)?]))
        })
        .collect()
}

pub(super) static OPS: &[OpEntry] = &[
    OpEntry {
        name: "softmax",
        doc: "exponentials along a dimension, divided by their sum",
        order: Order::Any,
        nodes: &["softmax"],
        samples: || samples(Tensor::try_softmax),
        misuse: || vec![Misuse::new(vec![Arg::float([2, 3])], "softmax: dim 2 is out of range for shape [2, 3]", |x| Ok(vec![x[0].try_softmax(2)?]))],
    },
    OpEntry {
        name: "log_softmax",
        doc: "the logarithm of softmax",
        order: Order::Any,
        nodes: &["log_softmax"],
        samples: || samples(Tensor::try_log_softmax),
        misuse: || {
            let message = "log_softmax: takes floats, got i32\nhelp: convert with to_dtype";
            vec![Misuse::new(vec![Arg::int([2, 3], 9)], message, |x| Ok(vec![x[0].try_log_softmax(1)?]))]
        },
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fast_path_equals_the_definition() {
        for (log, n, rows) in [(false, 10, 100), (true, 1, 3), (true, 1000, 7), (false, 5000, 2)] {
            let meta = Meta::new(DType::F32, [rows, n]);
            let x: Vec<f32> = (0..rows * n).map(|i| (i * 7919 % 1009) as f32 / 40.0).collect();
            let input = CpuView::new(meta, bytemuck::cast_slice(&x));
            let (mut want, mut got) = (vec![0f32; rows * n], vec![0f32; rows * n]);
            Softmax { log }.cpu(&Slots::none(), &[input], &mut [CpuViewMut::new(meta, bytemuck::cast_slice_mut(&mut want))]).unwrap();
            let mut view = [CpuViewMut::new(meta, bytemuck::cast_slice_mut(&mut got))];
            assert!(Softmax { log }.cpu_fast(&Slots::none(), &[input], &mut view, &Threads::new(2).unwrap()).unwrap());
            let scale = want.iter().fold(0f32, |m, v| m.max(v.abs()));
            assert!(want.iter().zip(&got).all(|(w, g)| (w - g).abs() <= 1e-6 * scale), "log {log}, {n} in a row");
        }
    }
}
