//! argmax and argmin: the index of the first extreme element along a dimension; NaN counts as more extreme than any number.

use crate::device::Slot;
use crate::device::cpu::{CpuView, CpuViewMut, Threads};
use crate::error::{Error, Result};
use crate::graph::{Autocast, Batched, Key, LaunchCtx, Op, Slots, Tensor};
use crate::tensor::{DType, Layout, Meta};

/// The search; the dimension goes away.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arg {
    pub max: bool,
    pub dim: usize,
}

/// Candidates of one invocation, as in the shader.
const PART: usize = 256;

impl Arg {
    fn better<T: PartialOrd + Copy>(self, a: T, b: T) -> bool {
        let nan = |v: T| v.partial_cmp(&v).is_none();
        !nan(a) && (nan(b) || if self.max { b > a } else { b < a })
    }

    /// The index of the best element for output `o` of `x`, row-major of this shape.
    fn find<T: PartialOrd + Copy>(self, x: &[T], layout: &Layout, o: usize) -> usize {
        let n = layout.shape[self.dim];
        let inner: usize = layout.shape[self.dim + 1..].iter().product();
        let base = o / inner * n * inner + o % inner;
        (1..n).fold(0, |best, i| if self.better(x[base + best * inner], x[base + i * inner]) { i } else { best })
    }
}

impl Op for Arg {
    fn name(&self) -> &'static str {
        if self.max { "argmax" } else { "argmin" }
    }

    fn key(&self, key: &mut Key) {
        key.int(self.dim as u64);
    }

    fn autocast(&self) -> Autocast {
        Autocast::Keep
    }

    fn infer(&self, _: &Slots, inputs: &[Meta]) -> Result<Vec<Meta>> {
        let Meta { dtype, shape } = inputs[0];
        if !dtype.is_float() {
            return Err(Error::shape(format!("{}: takes floats, got {dtype}", self.name())).help("convert with to_dtype"));
        }
        if shape[self.dim] == 0 {
            return Err(Error::shape(format!("{}: dim {} of shape {shape} has no elements", self.name(), self.dim)));
        }
        Ok(vec![Meta::new(DType::I32, shape.without(self.dim))])
    }

    fn differentiable(&self) -> bool {
        false
    }

    fn cpu(&self, _: &Slots, inputs: &[CpuView<'_>], outputs: &mut [CpuViewMut<'_>]) -> Result<()> {
        let x = inputs[0].to_f64();
        let found: Vec<f64> = (0..outputs[0].meta.numel()).map(|o| self.find(&x, &inputs[0].layout, o) as f64).collect();
        outputs[0].set_f64(&found);
        Ok(())
    }

    fn cpu_fast(&self, _: &Slots, inputs: &[CpuView<'_>], outputs: &mut [CpuViewMut<'_>], threads: &Threads) -> Result<bool> {
        if inputs[0].dtype != DType::F32 {
            return Ok(false);
        }
        let x = inputs[0].elements::<f32>();
        let layout = inputs[0].layout;
        let task = (32768 / layout.shape[self.dim].max(1)).max(1);
        threads.chunks(outputs[0].elements::<i32>(), task, |start, run| {
            run.iter_mut().enumerate().for_each(|(k, y)| *y = self.find(&x, &layout, start + k) as i32);
        });
        Ok(true)
    }

    fn gpu(&self, ctx: &mut LaunchCtx<'_>) -> Result<()> {
        let shape = ctx.inputs[0].meta.shape;
        let inner: usize = shape[self.dim + 1..].iter().product();
        let outputs = ctx.outputs[0].1.numel();
        let mut candidates = shape[self.dim];
        let mut from: Option<Slot> = None;
        loop {
            let parts = candidates.div_ceil(PART);
            let to = (parts > 1).then(|| ctx.scratch(outputs * parts * size_of::<i32>()));
            let mut call = ctx.call("arg")?.set("MAX", self.max).input("x", 0);
            call = match from {
                Some(scratch) => call.read("c", scratch, "i32"),
                None => call.hook("candidate", "    return k;"),
            };
            call = call.u32s(&[outputs, candidates, parts]).offset(0).u32s(&[inner, inner * shape[self.dim], inner]);
            call = match to {
                Some(scratch) => call.write("y", scratch, "i32"),
                None => call.output("y", 0)?,
            };
            call.flops((outputs * candidates) as u64).grid_linear((outputs * parts).div_ceil(64))?;
            if to.is_none() {
                return Ok(());
            }
            (from, candidates) = (to, parts);
        }
    }

    fn batch(&self, ctx: &Batched<'_>) -> Result<Vec<Tensor>> {
        Ok(vec![Tensor::try_apply1(Arg { dim: self.dim + 1, ..*self }, Slots::none(), &[&ctx.inputs[0]])?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_equals_and_nan_win() {
        let find = |max, x: &[f64]| Arg { max, dim: 0 }.find(x, &Layout::contiguous([x.len()].into()), 0);
        assert_eq!(find(true, &[1.0, 3.0, 3.0]), 1);
        assert_eq!(find(false, &[1.0, 3.0, 1.0]), 0);
        assert_eq!(find(true, &[1.0, f64::NAN, 3.0, f64::NAN]), 1);
        assert_eq!(find(false, &[f64::NEG_INFINITY, f64::NAN]), 1);
    }
}
