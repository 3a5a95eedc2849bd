//! The launches of a reduction.

use super::{Kind, MAX_RUNS, Reduce};
use crate::device::choices::REDUCE_PART;
use crate::device::{self, Caps, Slot};
use crate::error::Result;
use crate::graph::{Call, LaunchCtx, countable, in_fours};

/// Terms that one invocation joins. More are cut into parts, which are reduced in turn. It depends on the number of terms alone, so that
/// models stacked under vmap are cut as each would be.
fn terms_of_part(terms: usize, fours: Fours, caps: &Caps) -> usize {
    let rule = match fours {
        // Eight neighbours read 128 bytes side by side, as a GPU's memory likes it; a CPU has no such wish, and a second launch costs it more.
        Fours::Terms if caps.kind != device::Kind::Software => 128,
        Fours::Terms => 1024,
        Fours::None | Fours::Outputs => 256,
    };
    caps.choices.number(&REDUCE_PART, &[terms, fours as usize], rule, |n| n < 2 * terms)
}

/// What neighbours are taken in fours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fours {
    None,
    /// Terms of one output.
    Terms,
    /// Outputs.
    Outputs,
}

/// Sizes and strides of the kept and of the reduced dimensions, innermost last.
type Runs = [Vec<(usize, isize)>; 2];

/// Whether neighbouring terms are neighbours in memory, rather than neighbouring outputs.
fn along_rows(runs: &Runs) -> bool {
    let innermost = |dims: &[(usize, isize)]| dims.last().map_or(isize::MAX, |d| d.1.abs());
    innermost(&runs[1]) < innermost(&runs[0])
}

/// Which neighbours lie in fours, wherever the batch ends.
fn fours(runs: &Runs, aligned: bool) -> Fours {
    let rows = along_rows(runs);
    let [with, other] = if rows { [&runs[1], &runs[0]] } else { [&runs[0], &runs[1]] };
    let Some((&(size, 1), outer)) = with.split_last() else { return Fours::None };
    let even = aligned && size.is_multiple_of(4) && outer.iter().chain(other).all(|d| d.1 % 4 == 0);
    match (even, rows) {
        (false, _) => Fours::None,
        (true, true) => Fours::Terms,
        (true, false) => Fours::Outputs,
    }
}

/// Fill in how values are joined.
fn joins<'c, 'a>(call: Call<'c, 'a>, kind: Kind, fours: Fours) -> Call<'c, 'a> {
    let call = match kind {
        Kind::Sum => call,
        Kind::Max => call.hook("start", "    return inf_(-1.0);").hook("join", "    return max_nan(a, b);"),
        Kind::Min => call.hook("start", "    return inf_(1.0);").hook("join", "    return min_nan(a, b);"),
    };
    let lanes = ["x", "y", "z", "w"];
    let each = lanes.map(|l| format!("join(a.{l}, b.{l})")).join(", ");
    match fours {
        Fours::None => return call,
        Fours::Terms => call.hook("finish", "    epilogue(i, join(join(v.x, v.y), join(v.z, v.w)));"),
        Fours::Outputs => {
            let stores: Vec<String> = (0..).zip(lanes).map(|(n, l)| format!("    epilogue(4u * i + {n}u, v.{l});")).collect();
            call.hook("finish", &stores.join("\n"))
        }
    }
    .alias("V", "vec4<f32>")
    .hook("join_all", &format!("    return V({each});"))
}

/// A launch: from where (the input, or scratch) to where (scratch, or the output), and how many values of each output it makes.
struct Pass {
    from: Option<Slot>,
    to: Option<Slot>,
    runs: Runs,
    outputs: usize,
    terms: usize,
    parts: usize,
    fours: Fours,
    /// Whether those are outputs that lie in sixteens, too, wherever the batch ends.
    sixteens: bool,
}

impl Pass {
    fn launch(mut self, kind: Kind, ctx: &mut LaunchCtx<'_>) -> Result<()> {
        let prologue = ctx.prologue.is_some();
        let flops = self.outputs * self.terms;
        // In runs, an invocation has more than one four of outputs, too.
        let runs = ctx.caps.takes_runs();
        let across = runs && self.sixteens;
        let width = if across { 16 } else { 4 };
        // Fours (or sixteens) of terms or outputs are counted as one, as many apart.
        let in_four = match self.fours {
            Fours::None => None,
            Fours::Outputs => Some((&mut self.outputs, &mut self.runs[0])),
            Fours::Terms => Some((&mut self.terms, &mut self.runs[1])),
        };
        if let Some((count, dims)) = in_four {
            *count /= width;
            dims.iter_mut().rev().take(1).for_each(|d| *d = (d.0 / width, width as isize));
        }
        let wide = self.fours != Fours::None;
        let [kept, reduced] = &self.runs;
        let inner = reduced.last().map_or(1, |d| d.0).max(1);
        let mut call = ctx
            .call("reduce")?
            .set("KEPT", format!("{}u", kept.len()))
            .set("REDUCED", format!("{}u", reduced.len()))
            .set("ROWS", along_rows(&self.runs))
            .set("RUNS", runs)
            .set("ACROSS", across)
            .u32s(&[self.outputs, self.terms, self.parts]);
        call = joins(call, kind, self.fours);
        let element = if wide { "vec4<f32>" } else { "f32" };
        if wide {
            call = call.hook("load", "    return x[(u[0].w + i) >> 2u];");
        }
        call = match self.from {
            Some(scratch) => call.read("x", scratch, element).u32(0),
            None if self.terms == 0 => call.hook("load", "    return V(0.0);").u32(0),
            None if prologue => call.offset(0),
            None => call.input_as("x", 0, element).offset(0),
        };
        for dims in [kept, reduced] {
            let of = |n: usize| dims.len().checked_sub(n + 1).map_or((1, 0), |i| dims[i]);
            for n in 0..MAX_RUNS {
                call = call.u32(of(n).0.max(1));
            }
            for n in 0..MAX_RUNS {
                call = call.stride(of(n).1);
            }
        }
        let by = if runs { 1 } else { self.parts };
        call = call.u32s(&[by / inner, by % inner, 0, 0]).flops(flops as u64);
        if self.from.is_none() {
            call = call.with_prologue(wide);
        }
        call = match self.to {
            Some(scratch) => call.write("y", scratch, "f32"),
            None => call.with_epilogue()?,
        };
        call.grid_linear((self.outputs * self.parts).div_ceil(64))
    }
}

pub(super) fn reduce(op: Reduce, ctx: &mut LaunchCtx<'_>) -> Result<()> {
    let layout = ctx.inputs[0].layout;
    countable(ctx.label, &layout.shape)?;
    let outputs = ctx.outputs[0].1.numel();
    let mut terms: usize = (0..layout.shape.rank()).filter(|&d| op.reduced(d)).map(|d| layout.shape[d]).product();
    let mut runs = if terms == 0 { [vec![(outputs, 1)], Vec::new()] } else { op.runs(&layout) };
    let aligned = ctx.prologue.is_some() || ctx.inputs[0].aligned;
    let mut by = if in_fours(&layout.shape) && terms > 0 { fours(&runs, aligned) } else { Fours::None };
    let mut from = None;
    loop {
        let parts = terms.div_ceil(terms_of_part(terms, by, ctx.caps)).max(1);
        let to = (parts > 1).then(|| ctx.scratch(outputs * parts * size_of::<f32>()));
        // In the second launch all outputs are one run, of which the first dimension may be a batch.
        let whole = from.is_none() || ctx.outputs[0].1.shape.get(1..).is_some_and(|rest| rest.iter().product::<usize>().is_multiple_of(16));
        let sixteens = by == Fours::Outputs && whole && runs[0].last().is_some_and(|d| d.0.is_multiple_of(16));
        Pass { from, to, runs, outputs, terms, parts, fours: by, sixteens }.launch(op.kind, ctx)?;
        if to.is_none() {
            return Ok(());
        }
        // The parts lie one after the other, each with all outputs.
        runs = [vec![(outputs, 1)], vec![(parts, outputs as isize)]];
        by = if in_fours(&ctx.outputs[0].1.shape) { fours(&runs, true) } else { Fours::None };
        (from, terms) = (to, parts);
    }
}
