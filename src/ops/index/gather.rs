//! Taking by index: one op behind gather, index_select and embedding, which differ in how the index is laid out.

use super::Lines;
use super::scatter::Scatter;
use crate::device::Slot;
use crate::device::cpu::{CpuView, CpuViewMut, Threads};
use crate::error::{Error, Result};
use crate::graph::{Autocast, Batched, Fuses, Key, LaunchCtx, Op, Saved, Saves, Slots, Tensor, in_fours};
use crate::tensor::{Layout, Meta};

/// Inputs: x and an index of the output's shape (often a small one, expanded). Output element [a, j, b] is x[a, index[a, j, b], b].
#[derive(Clone, Copy, Debug)]
pub(super) struct Gather {
    /// What it was called as.
    pub name: &'static str,
    pub dim: usize,
}

impl Op for Gather {
    fn name(&self) -> &'static str {
        self.name
    }

    fn key(&self, key: &mut Key) {
        key.int(self.dim as u64);
    }

    fn autocast(&self) -> Autocast {
        Autocast::Keep
    }

    fn infer(&self, _: &Slots, inputs: &[Meta]) -> Result<Vec<Meta>> {
        let [x, index] = [inputs[0], inputs[1]];
        super::check_index(self.name, &index)?;
        if x.shape[self.dim] == 0 && index.numel() > 0 {
            return Err(Error::shape(format!("{}: dim {} of shape {} has no elements", self.name, self.dim, x.shape)));
        }
        Ok(vec![Meta::new(x.dtype, index.shape)])
    }

    fn accepts(&self, input: usize, layout: &Layout) -> bool {
        if input == 0 { layout.is_contiguous() } else { Lines::of(layout, self.dim).is_some() }
    }

    fn fuses(&self) -> Fuses {
        Fuses { epilogue: true, prologue: false }
    }

    fn extra_bindings(&self) -> usize {
        1
    }

    fn cpu(&self, _: &Slots, inputs: &[CpuView<'_>], outputs: &mut [CpuViewMut<'_>]) -> Result<()> {
        let (x, index) = (inputs[0].to_f64(), inputs[1].elements::<i32>());
        let size = inputs[0].shape()[self.dim];
        let (places, inner) = super::sizes(inputs[1].shape(), self.dim);
        let mut y = vec![0.0; index.len()];
        for (i, (y, &k)) in y.iter_mut().zip(index.iter()).enumerate() {
            let k = super::checked(self.name, k, size)?;
            *y = x[(i / (places * inner) * size + k) * inner + i % inner];
        }
        outputs[0].set_f64(&y);
        Ok(())
    }

    fn cpu_fast(&self, _: &Slots, inputs: &[CpuView<'_>], outputs: &mut [CpuViewMut<'_>], threads: &Threads) -> Result<bool> {
        let size = inputs[0].shape()[self.dim];
        let Some(lines) = Lines::of(&inputs[1].layout, self.dim).filter(|_| inputs[0].dtype.size() == 4) else { return Ok(false) };
        lines.check(self.name, inputs[1].base::<i32>(), inputs[1].layout.offset, size)?;
        let (index, offset) = (inputs[1].base::<i32>(), inputs[1].layout.offset);
        // Elements of any type are moved as words.
        let x = inputs[0].elements::<u32>();
        let [_, places, inner] = lines.sizes;
        let group = inner * (16384 / inner.max(1)).max(1);
        threads.chunks(outputs[0].elements::<u32>(), group, |start, part| {
            for (n, run) in part.chunks_mut(inner.max(1)).enumerate() {
                let line = start / inner + n;
                let (a, j) = (line / places, line % places);
                let k = |b: usize| index[lines.at(offset, a, j, b)] as usize;
                if lines.strides[2] == 0 {
                    let from = (a * size + k(0)) * inner;
                    run.copy_from_slice(&x[from..from + inner]);
                } else {
                    run.iter_mut().enumerate().for_each(|(b, y)| *y = x[(a * size + k(b)) * inner + b]);
                }
            }
        });
        Ok(true)
    }

    fn gpu(&self, ctx: &mut LaunchCtx<'_>) -> Result<()> {
        let x = ctx.inputs[0].meta;
        let size = x.shape[self.dim];
        let lines = Lines::of_accepted(&ctx.inputs[1].layout, self.dim)?;
        let [_, places, inner] = lines.sizes;
        let numel = ctx.outputs[0].1.numel();
        if numel == 0 {
            return Ok(());
        }
        let word = ctx.check(super::message(self.name, size));
        // Whole slices are taken in fours.
        let fours = inner.is_multiple_of(4) && lines.strides[2] == 0 && ctx.inputs[0].aligned && in_fours(&ctx.outputs[0].1.shape);
        let (width, element) = if fours { (4, format!("vec4<{}>", x.dtype.wgsl())) } else { (1, x.dtype.wgsl().to_string()) };
        let mut call = ctx.call("gather")?.alias("T", &element).set("WIDTH", format!("{width}u"));
        if fours {
            call = call.hook("load", "    return x[i >> 2u];");
        }
        call = call.input_as("x", 0, &element).input("index", 1).write("errors", Slot::Errors, "atomic<u32>");
        call = lines.words(call.u32s(&[numel / width, size, places, inner])).offset(1).offset(0).word(word).u32s(&[0, 0]);
        call = if fours { call.with_epilogue4()? } else { call.with_epilogue()? };
        call.grid_linear((numel / width).div_ceil(64))
    }

    fn saves(&self) -> Saves {
        Saves::inputs(&[1])
    }

    fn backward(&self, ctx: &Saved<'_>, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let Some(g) = grads[0].as_ref().filter(|_| ctx.needs(0)) else { return Ok(vec![None, None]) };
        let op = Scatter { name: "scatter_add", dim: self.dim, size: ctx.input_meta(0).shape[self.dim] };
        Ok(vec![Some(Tensor::try_apply1(op, Slots::none(), &[g, ctx.input(1)])?), None])
    }

    fn batch(&self, ctx: &Batched<'_>) -> Result<Vec<Tensor>> {
        Ok(vec![Tensor::try_apply1(Gather { dim: self.dim + 1, ..*self }, Slots::none(), &[&ctx.inputs[0], &ctx.inputs[1]])?])
    }
}

impl Gather {
    pub(super) fn apply(self, x: &Tensor, index: &Tensor) -> Result<Tensor> {
        Tensor::try_apply1(self, Slots::none(), &[x, index])
    }
}
