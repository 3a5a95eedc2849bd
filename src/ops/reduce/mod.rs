//! Reductions over dimensions: sum, amax, amin as one op; mean, var, logsumexp out of it; argmax and argmin.

mod arg;
mod cpu;
mod gpu;
mod methods;
mod table;

pub(super) use table::OPS;

use super::view::ok;
use crate::device::cpu::{CpuView, CpuViewMut, Threads};
use crate::error::{Error, Result};
use crate::graph::{Batched, Fuses, Key, LaunchCtx, Op, Saved, Saves, Slots, Tensor};
use crate::tensor::{DType, Layout, Meta, Shape};

/// How terms are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Sum,
    Max,
    Min,
}

impl Kind {
    /// What joining begins with.
    fn identity(self) -> f64 {
        match self {
            Kind::Sum => 0.0,
            Kind::Max => f64::NEG_INFINITY,
            Kind::Min => f64::INFINITY,
        }
    }

    /// Joins two values; maximum and minimum pass NaN on.
    #[inline(always)]
    fn join(self, a: f64, b: f64) -> f64 {
        match self {
            Kind::Sum => a + b,
            Kind::Max if a > b || a.is_nan() => a,
            Kind::Min if a < b || a.is_nan() => a,
            Kind::Max | Kind::Min => b,
        }
    }
}

/// A reduction; bit d of `dims` says that dimension d goes away.
#[derive(Clone, Copy, Debug)]
struct Reduce {
    kind: Kind,
    dims: u8,
}

/// Dimensions of either kind, after merging, that the shader walks.
const MAX_RUNS: usize = 4;

impl Reduce {
    fn reduced(self, d: usize) -> bool {
        self.dims >> d & 1 == 1
    }

    /// Sizes and strides of the kept and of the reduced dimensions, those that lie evenly joined.
    fn runs(self, layout: &Layout) -> [Vec<(usize, isize)>; 2] {
        [false, true].map(|reduced| {
            let dims: Vec<usize> = (0..layout.shape.rank()).filter(|&d| self.reduced(d) == reduced).collect();
            layout.permute(&dims).merged()
        })
    }

    /// The input's shape with the reduced dimensions of size 1.
    fn kept_shape(self, shape: &Shape) -> Shape {
        let mut kept = *shape;
        (0..shape.rank()).filter(|&d| self.reduced(d)).for_each(|d| kept[d] = 1);
        kept
    }

    /// A gradient or result over the input's shape.
    fn spread(self, t: &Tensor, shape: Shape) -> Result<Tensor> {
        t.try_reshape(self.kept_shape(&shape))?.try_expand(shape)
    }
}

impl Op for Reduce {
    fn name(&self) -> &'static str {
        match self.kind {
            Kind::Sum => "sum",
            Kind::Max => "amax",
            Kind::Min => "amin",
        }
    }

    fn key(&self, key: &mut Key) {
        key.int(self.dims);
    }

    fn infer(&self, _: &Slots, inputs: &[Meta]) -> Result<Vec<Meta>> {
        let Meta { dtype, shape } = inputs[0];
        if !dtype.is_float() {
            return Err(Error::shape(format!("{}: takes floats, got {dtype}", self.name())).help("convert with to_dtype"));
        }
        if self.kind != Kind::Sum
            && let Some(d) = (0..shape.rank()).find(|&d| self.reduced(d) && shape[d] == 0)
        {
            return Err(Error::shape(format!("{}: dim {d} of shape {shape} has no elements", self.name())));
        }
        let kept: Vec<usize> = (0..shape.rank()).filter(|&d| !self.reduced(d)).map(|d| shape[d]).collect();
        Ok(vec![Meta::new(dtype, kept)])
    }

    fn sums(&self) -> Option<u8> {
        (self.kind == Kind::Sum).then_some(self.dims)
    }

    fn accepts(&self, _: usize, layout: &Layout) -> bool {
        self.runs(layout).iter().all(|r| r.len() <= MAX_RUNS)
    }

    fn fuses(&self) -> Fuses {
        Fuses { epilogue: true, prologue: true }
    }

    fn cpu(&self, _: &Slots, inputs: &[CpuView<'_>], outputs: &mut [CpuViewMut<'_>]) -> Result<()> {
        let shape = *inputs[0].shape();
        let mut out = vec![self.kind.identity(); outputs[0].meta.numel()];
        // Where each input element goes: the output's layout, expanded over the input.
        let to = Layout::contiguous(self.kept_shape(&shape)).expand(shape);
        for (o, v) in to.indices().zip(inputs[0].to_f64()) {
            out[o] = self.kind.join(out[o], v);
        }
        outputs[0].set_f64(&out);
        Ok(())
    }

    fn cpu_fast(&self, _: &Slots, inputs: &[CpuView<'_>], outputs: &mut [CpuViewMut<'_>], threads: &Threads) -> Result<bool> {
        if inputs[0].dtype != DType::F32 {
            return Ok(false);
        }
        let runs = self.runs(&Layout::contiguous(*inputs[0].shape()));
        cpu::reduce(self.kind, &*inputs[0].elements::<f32>(), &runs, outputs[0].elements::<f32>(), threads);
        Ok(true)
    }

    fn cpu_fast_loading(
        &self,
        _: &Slots,
        load: &(dyn Fn(usize, &mut [f32]) + Sync),
        inputs: &[CpuView<'_>],
        outputs: &mut [CpuViewMut<'_>],
        threads: &Threads,
    ) -> Result<bool> {
        let runs = self.runs(&Layout::contiguous(*inputs[0].shape()));
        cpu::reduce(self.kind, &cpu::Loaded(load), &runs, outputs[0].elements::<f32>(), threads);
        Ok(true)
    }

    fn gpu(&self, ctx: &mut LaunchCtx<'_>) -> Result<()> {
        gpu::reduce(*self, ctx)
    }

    fn saves(&self) -> Saves {
        match self.kind {
            Kind::Sum => Saves::NONE,
            Kind::Max | Kind::Min => Saves::inputs(&[0]).and(Saves::outputs(&[0])),
        }
    }

    fn backward(&self, ctx: &Saved<'_>, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let Some(g) = &grads[0] else { return Ok(vec![None]) };
        let shape = ctx.input_meta(0).shape;
        if self.kind == Kind::Sum {
            return Ok(vec![Some(self.spread(g, shape)?)]);
        }
        // Ties share the gradient equally.
        let ties = ctx.input(0).eq(&self.spread(ctx.output(0), shape)?);
        let count = Tensor::try_apply1(Reduce { kind: Kind::Sum, ..*self }, Slots::none(), &[&ties.to_dtype(ctx.input_meta(0).dtype)])?;
        Ok(vec![Some(self.spread(&(g / &count), shape)?.mask(&ties))])
    }

    fn batch(&self, ctx: &Batched<'_>) -> Result<Vec<Tensor>> {
        Ok(vec![Tensor::try_apply1(Reduce { dims: self.dims << 1, ..*self }, Slots::none(), &[&ctx.inputs[0]])?])
    }
}

/// The dimensions as a bit set; none named means all of them.
fn mask(name: &str, shape: &Shape, dims: &[isize]) -> Result<u8> {
    let mut mask = 0u8;
    for &d in dims {
        let bit = 1 << shape.dim(d).map_err(|e| e.context(name))?;
        if mask & bit != 0 {
            return Err(Error::shape(format!("{name}: dim {d} appears twice in {dims:?}")));
        }
        mask |= bit;
    }
    Ok(if dims.is_empty() { ((1u16 << shape.rank()) - 1) as u8 } else { mask })
}
