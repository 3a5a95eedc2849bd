//! Adding up by index, always in the order of the index: the gradient of gather, and what scatter_add and index_add add.
//!
//! On a GPU the index of a large case is sorted first: a stable radix sort by prefix sums, without atomic cursors. So every run adds the same terms in the
//! same order, to the same bits.

use super::Lines;
use super::gather::Gather;
use crate::device::{Slot, Word};
use crate::device::cpu::{CpuView, CpuViewMut, Threads};
use crate::error::{Error, Result};
use crate::graph::{Batched, Call, Fuses, Key, LaunchCtx, Op, Saved, Saves, Slots, Tensor};
use crate::tensor::{DType, Layout, Meta};

/// Inputs: x and an index of its shape. Output element [a, d, b] is the sum of x[a, j, b] over all j with index[a, j, b] = d.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scatter {
    /// What it was called as.
    pub name: &'static str,
    pub dim: usize,
    /// The output's size in `dim`.
    pub size: usize,
}

/// Places of a line that one invocation sorts, as in the shaders.
const CHUNK: usize = 256;

/// A destination's terms in the sorted index, as far as this launch adds them.
const RUN: &str = "    let at = line * (u[0].y + 1u) + d;
    let first = min(starts[at] + u[2].z, starts[at + 1u]);
    return vec2<u32>(first, min(first + u[2].w, starts[at + 1u]));";

/// Bits of a digit of the sort.
const DIGIT: u32 = 4;

/// Comparisons up to which looking through the whole index is cheaper than the dozen launches of the sort. Both add in the same order, to the same bits.
const DIRECT: usize = 1 << 20;

impl Op for Scatter {
    fn name(&self) -> &'static str {
        self.name
    }

    fn key(&self, key: &mut Key) {
        key.ints(&[self.dim, self.size]);
    }

    fn infer(&self, _: &Slots, inputs: &[Meta]) -> Result<Vec<Meta>> {
        let [x, index] = [inputs[0], inputs[1]];
        super::check_index(self.name, &index)?;
        if !x.dtype.is_float() {
            return Err(Error::shape(format!("{}: takes floats, got {}", self.name, x.dtype)).help("convert with to_dtype"));
        }
        if x.shape != index.shape {
            return Err(Error::internal(format!("{}: the index of shape {} was not fitted to {}", self.name, index.shape, x.shape)));
        }
        if self.size == 0 && index.numel() > 0 {
            return Err(Error::shape(format!("{}: dim {} has no elements to add to", self.name, self.dim)));
        }
        let mut shape = x.shape;
        shape[self.dim] = self.size;
        Ok(vec![Meta::new(x.dtype, shape)])
    }

    fn accepts(&self, input: usize, layout: &Layout) -> bool {
        if input == 0 { layout.is_contiguous() } else { Lines::of(layout, self.dim).is_some() }
    }

    fn fuses(&self) -> Fuses {
        Fuses { epilogue: true, prologue: true }
    }

    fn extra_bindings(&self) -> usize {
        // What is sorted, where each destination's begin, and the sums of rounds before: one more than the inputs and the error words.
        2
    }

    fn cpu(&self, _: &Slots, inputs: &[CpuView<'_>], outputs: &mut [CpuViewMut<'_>]) -> Result<()> {
        let (x, index) = (inputs[0].to_f64(), inputs[1].elements::<i32>());
        let (places, inner) = super::sizes(inputs[0].shape(), self.dim);
        let mut y = vec![0.0; outputs[0].meta.numel()];
        for (i, (&x, &k)) in x.iter().zip(index.iter()).enumerate() {
            let k = super::checked(self.name, k, self.size)?;
            y[(i / (places * inner) * self.size + k) * inner + i % inner] += x;
        }
        outputs[0].set_f64(&y);
        Ok(())
    }

    fn cpu_fast(&self, _: &Slots, inputs: &[CpuView<'_>], outputs: &mut [CpuViewMut<'_>], threads: &Threads) -> Result<bool> {
        let Some(lines) = Lines::of(&inputs[1].layout, self.dim).filter(|_| inputs[0].dtype == DType::F32) else { return Ok(false) };
        let (index, offset) = (inputs[1].base::<i32>(), inputs[1].layout.offset);
        lines.check(self.name, index, offset, self.size)?;
        let x = inputs[0].elements::<f32>();
        let y = outputs[0].elements::<f32>();
        let [_, places, inner] = lines.sizes;
        if places == 0 || y.is_empty() {
            y.fill(0.0);
            return Ok(true);
        }
        // Each task owns some destinations of one outer index, and goes through the index in order: the split does not change the sums.
        let rows = ((1 << 16) / inner).max(1);
        let tasks: Vec<_> = y
            .chunks_mut(self.size * inner)
            .enumerate()
            .flat_map(|(a, block)| block.chunks_mut(rows * inner).enumerate().map(move |(n, part)| (a, n * rows, part)))
            .collect();
        threads.each_of(tasks, |_, (a, first, part)| {
            let mut sums = vec![0f64; part.len()];
            let own = first..first + part.len() / inner;
            for j in 0..places {
                let row = &x[(a * places + j) * inner..][..inner];
                if lines.strides[2] == 0 {
                    let k = index[lines.at(offset, a, j, 0)] as usize;
                    if own.contains(&k) {
                        sums[(k - first) * inner..][..inner].iter_mut().zip(row).for_each(|(s, &v)| *s += f64::from(v));
                    }
                } else {
                    for (b, &v) in row.iter().enumerate() {
                        let k = index[lines.at(offset, a, j, b)] as usize;
                        if own.contains(&k) {
                            sums[(k - first) * inner + b] += f64::from(v);
                        }
                    }
                }
            }
            part.iter_mut().zip(sums).for_each(|(y, s)| *y = s as f32);
        });
        Ok(true)
    }

    fn gpu(&self, ctx: &mut LaunchCtx<'_>) -> Result<()> {
        let lines = Lines::of_accepted(&ctx.inputs[1].layout, self.dim)?;
        let numel = ctx.outputs[0].1.numel();
        if numel == 0 {
            return Ok(());
        }
        let word = ctx.check(super::message(self.name, self.size));
        let places = lines.sizes[1];
        let turns = ctx.caps.loop_turns().unwrap_or(usize::MAX);
        if numel.saturating_mul(places) <= DIRECT && places <= turns {
            return self.add(ctx, &lines, word, None, &Round::all(places));
        }
        let sorted = self.sort(ctx, &lines, word)?;
        let rounds = places.div_ceil(turns);
        let kept = (0..rounds.min(3) - 1).map(|_| ctx.scratch(numel * 4)).collect::<Vec<Slot>>();
        (0..rounds).try_for_each(|n| {
            let before = n.checked_sub(1).map(|n| kept[n % kept.len()]);
            let to = if n + 1 < rounds { Some(kept[n % kept.len()]) } else { None };
            self.add(ctx, &lines, word, Some(sorted), &Round { first: n * turns, most: turns.min(places), before, to })
        })
    }

    fn saves(&self) -> Saves {
        Saves::inputs(&[1])
    }

    fn backward(&self, ctx: &Saved<'_>, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let Some(g) = grads[0].as_ref().filter(|_| ctx.needs(0)) else { return Ok(vec![None, None]) };
        Ok(vec![Some(Gather { name: "gather", dim: self.dim }.apply(g, ctx.input(1))?), None])
    }

    fn batch(&self, ctx: &Batched<'_>) -> Result<Vec<Tensor>> {
        Ok(vec![Tensor::try_apply1(Scatter { dim: self.dim + 1, ..*self }, Slots::none(), &[&ctx.inputs[0], &ctx.inputs[1]])?])
    }
}

/// A launch that adds: to each destination its terms from `first` on, `most` at most. Where a device limits the turns of loops, several follow each other.
struct Round {
    first: usize,
    most: usize,
    /// The sums before.
    before: Option<Slot>,
    /// Where the sums go; the output, of the last round.
    to: Option<Slot>,
}

impl Round {
    fn all(places: usize) -> Round {
        Round { first: 0, most: places, before: None, to: None }
    }
}

impl Scatter {
    /// One launch that adds; `sorted` are the index's sorted pairs and where each key's run begins.
    fn add(self, ctx: &mut LaunchCtx<'_>, lines: &Lines, word: Word, sorted: Option<(Slot, Slot)>, round: &Round) -> Result<()> {
        let numel = ctx.outputs[0].1.numel();
        let [_, places, inner] = lines.sizes;
        let bound = ctx.prologue.is_none() && places > 0;
        let mut call = ctx.call("scatter")?;
        if bound {
            call = call.input("x", 0);
        }
        let head = [numel, self.size, places, inner];
        call = match sorted {
            Some((pairs, starts)) => {
                let [outer_lines, inner_lines] = lines.distinct();
                let by = |lines: usize, step: usize| if lines > 1 { step } else { 0 };
                call.read("pairs", pairs, "vec2<u32>")
                    .read("starts", starts, "u32")
                    .hook("candidates", RUN)
                    .hook("pair", "    return pairs[line * u[0].z + k];")
                    .hook("report", "")
                    .u32s(&head)
                    .u32s(&[by(outer_lines, inner_lines), 0, by(inner_lines, 1), 0])
            }
            // Empty inputs are never bound.
            None if places == 0 => call.hook("load", "    return 0.0;").hook("pair", "    return vec2<u32>(0u);").hook("report", "").u32s(&head).u32s(&[0; 4]),
            None => lines.words(call.input("index", 1).write("errors", Slot::Errors, "atomic<u32>").u32s(&head)).offset(1),
        };
        let looks = if sorted.is_some() { numel + lines.sizes.iter().product::<usize>() } else { numel * places };
        call = call.offset(0).word(word).u32s(&[round.first, round.most]).flops(looks as u64);
        if let Some(before) = round.before {
            call = call.hook("before", "    return sums[i];").read("sums", before, "f32");
        }
        if places > 0 {
            call = call.with_prologue(false);
        }
        let call = match round.to {
            Some(to) => call.write("y", to, "f32"),
            None => call.with_epilogue()?,
        };
        call.grid_linear(numel.div_ceil(64))
    }

    /// Sort the index: its lines' (key, place) pairs, and where each key's run begins.
    fn sort(self, ctx: &mut LaunchCtx<'_>, lines: &Lines, word: Word) -> Result<(Slot, Slot)> {
        let places = lines.sizes[1];
        let [outer_lines, inner_lines] = lines.distinct();
        let count = outer_lines * inner_lines;
        let chunks = places.div_ceil(CHUNK);
        // One invocation adds up what the chunks counted.
        ctx.turns(self.name, chunks)?;
        let counts = ctx.scratch(count * 16 * chunks * 4);
        let totals = ctx.scratch(count * 16 * 4);
        let buffers = [ctx.scratch(count * places * 8), ctx.scratch(count * places * 8)];
        let mut from: Option<Slot> = None;
        let digits = (usize::BITS - (self.size - 1).leading_zeros()).div_ceil(DIGIT).max(1);
        for digit in 0..digits {
            let to = buffers[digit as usize % 2];
            let shift = (digit * DIGIT) as usize;
            let head = |call: Call<'_, '_>| -> Result<()> { call.grid_linear((count * chunks).div_ceil(64)) };
            let mut call = ctx.call("sort_count")?;
            call = match from {
                Some(pairs) => call.read("pairs", pairs, "vec2<u32>").hook("fresh", "    return vec2<u32>(0u);"),
                None => call.input("index", 1).hook("pair", "    return fresh(line, k);").write("errors", Slot::Errors, "atomic<u32>"),
            };
            call = lines.words(call.write("counts", counts, "u32").u32s(&[count, places, chunks, shift])).offset(1);
            head(call.u32s(&[inner_lines, self.size]).word(word).u32(0).flops((count * places) as u64))?;

            let call = ctx.call("sort_scan")?.write("counts", counts, "u32").write("totals", totals, "u32");
            call.u32s(&[count, chunks]).grid_linear((count * 16).div_ceil(64))?;

            let mut call = ctx.call("sort_move")?;
            call = match from {
                Some(pairs) => call.read("pairs", pairs, "vec2<u32>").hook("fresh", "    return vec2<u32>(0u);"),
                None => call.input("index", 1).hook("pair", "    return fresh(line, k);"),
            };
            call = call.read("counts", counts, "u32").read("totals", totals, "u32").write("sorted", to, "vec2<u32>");
            call = lines.words(call.u32s(&[count, places, chunks, shift])).offset(1);
            head(call.u32s(&[inner_lines, self.size, 0, 0]).flops((count * places) as u64))?;
            from = Some(to);
        }
        let pairs = from.ok_or_else(|| Error::internal(format!("{}: sorted by no digit", self.name)))?;
        let entries = count * (self.size + 1);
        let starts = ctx.scratch(entries * 4);
        let call = ctx.call("sort_starts")?.read("pairs", pairs, "vec2<u32>").write("starts", starts, "u32");
        call.u32s(&[count, places, self.size]).grid_linear(entries.div_ceil(64))?;
        Ok((pairs, starts))
    }
}
