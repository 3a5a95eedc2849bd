//! cat: tensors one after the other along a dimension.

use crate::device::cpu::{CpuView, CpuViewMut, Threads};
use crate::error::{Error, Result};
use crate::graph::{Autocast, Batched, Key, LaunchCtx, Op, Saved, Slots, Tensor};
use crate::ops::view::ok;
use crate::tensor::Meta;

/// Joins its inputs along `dim`.
#[derive(Debug)]
struct Cat {
    dim: usize,
}

impl Cat {
    /// Elements of a run: what follows from `dim` on.
    fn run(&self, meta: &Meta) -> usize {
        meta.shape[self.dim..].iter().product()
    }
}

impl Op for Cat {
    fn name(&self) -> &'static str {
        "cat"
    }

    fn key(&self, key: &mut Key) {
        key.int(self.dim as u64);
    }

    fn autocast(&self) -> Autocast {
        Autocast::Widest
    }

    fn infer(&self, _: &Slots, inputs: &[Meta]) -> Result<Vec<Meta>> {
        let first = inputs[0];
        let mut out = first;
        for m in &inputs[1..] {
            if m.dtype != first.dtype {
                return Err(Error::shape(format!("cat: element types differ: {} and {}", first.dtype, m.dtype)).help("convert with to_dtype"));
            }
            let fits = m.shape.rank() == first.shape.rank() && (0..m.shape.rank()).all(|d| d == self.dim || m.shape[d] == first.shape[d]);
            if !fits {
                return Err(Error::shape(format!("cat: shapes differ in more than dim {}: {} and {}", self.dim, first.shape, m.shape)));
            }
            out.shape[self.dim] += m.shape[self.dim];
        }
        Ok(vec![out])
    }

    fn cpu(&self, _: &Slots, inputs: &[CpuView<'_>], outputs: &mut [CpuViewMut<'_>]) -> Result<()> {
        let run = self.run(&outputs[0].meta);
        let mut y = vec![0.0; outputs[0].meta.numel()];
        let mut begin = 0;
        for x in inputs {
            let own = self.run(&Meta::new(x.dtype, *x.shape()));
            for (i, v) in x.to_f64().into_iter().enumerate() {
                y[i / own * run + begin + i % own] = v;
            }
            begin += own;
        }
        outputs[0].set_f64(&y);
        Ok(())
    }

    fn cpu_fast(&self, _: &Slots, inputs: &[CpuView<'_>], outputs: &mut [CpuViewMut<'_>], threads: &Threads) -> Result<bool> {
        if inputs[0].dtype.size() != 4 {
            return Ok(false);
        }
        let run = self.run(&outputs[0].meta);
        // Elements of any type are moved as words.
        let xs: Vec<_> = inputs.iter().map(|x| (self.run(&Meta::new(x.dtype, *x.shape())), x.elements::<u32>())).collect();
        threads.chunks(outputs[0].elements::<u32>(), run * (65536 / run.max(1)).max(1), |start, part| {
            for (k, row) in part.chunks_mut(run.max(1)).enumerate() {
                let at = start / run + k;
                let mut rest = row;
                for (own, x) in &xs {
                    let (here, next) = rest.split_at_mut(*own);
                    here.copy_from_slice(&x[at * own..(at + 1) * own]);
                    rest = next;
                }
            }
        });
        Ok(true)
    }

    fn gpu(&self, ctx: &mut LaunchCtx<'_>) -> Result<()> {
        let run = self.run(&ctx.outputs[0].1);
        let mut begin = 0;
        for n in 0..ctx.inputs.len() {
            let meta = ctx.inputs[n].meta;
            let (own, numel) = (self.run(&meta), meta.numel());
            if numel > 0 {
                let call = ctx.call("cat")?.input("x", n).output("y", 0)?;
                call.u32(numel).offset(n).u32s(&[own, run, begin]).grid_linear(numel.div_ceil(64))?;
            }
            begin += own;
        }
        Ok(())
    }

    fn backward(&self, ctx: &Saved<'_>, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let mut out = Vec::new();
        let mut begin = 0;
        for n in 0..ctx.input_count() {
            let size = ctx.input_meta(n).shape[self.dim];
            out.push(match &grads[0] {
                Some(g) if ctx.needs(n) => Some(g.try_narrow(self.dim as isize, begin, size)?),
                _ => None,
            });
            begin += size;
        }
        Ok(out)
    }

    fn batch(&self, ctx: &Batched<'_>) -> Result<Vec<Tensor>> {
        let inputs: Vec<&Tensor> = ctx.inputs.iter().collect();
        Ok(vec![Tensor::try_apply1(Cat { dim: self.dim + 1 }, Slots::none(), &inputs)?])
    }
}

impl Tensor {
    /// The tensors one after the other along `dim`; their other sizes must be equal.
    ///
    /// ```
    /// use wgrad::{Device, Tensor};
    /// let device = Device::cpu()?;
    /// let (a, b) = (Tensor::zeros([2, 3], &device), Tensor::zeros([2, 1], &device));
    /// assert_eq!(Tensor::cat(&[a, b], 1).shape()[..], [2, 4]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    #[track_caller]
    pub fn cat(tensors: &[Tensor], dim: isize) -> Tensor {
        ok(Tensor::try_cat(tensors, dim))
    }

    /// [`Tensor::cat`], or an error where the shapes don't fit.
    pub fn try_cat(tensors: &[Tensor], dim: isize) -> Result<Tensor> {
        let Some(first) = tensors.first() else { return Err(Error::shape("cat: there are no tensors to join")) };
        let dim = first.shape().dim(dim).map_err(|e| e.context("cat"))?;
        if tensors.len() == 1 {
            return Ok(first.clone());
        }
        Tensor::try_apply1(Cat { dim }, Slots::none(), &tensors.iter().collect::<Vec<_>>())
    }

    /// The tensors, all of one shape, joined along a new dimension put in before `dim`; -1 puts it last.
    #[track_caller]
    pub fn stack(tensors: &[Tensor], dim: isize) -> Tensor {
        ok(Tensor::try_stack(tensors, dim))
    }

    /// [`Tensor::stack`], or an error where the shapes differ.
    pub fn try_stack(tensors: &[Tensor], dim: isize) -> Result<Tensor> {
        let Some(first) = tensors.first() else { return Err(Error::shape("stack: there are no tensors to join")) };
        if let Some(t) = tensors.iter().find(|t| t.shape() != first.shape()) {
            return Err(Error::shape(format!("stack: shapes differ: {} and {}", first.shape(), t.shape())));
        }
        let rank = first.rank() as isize + 1;
        let d = if dim < 0 { dim + rank } else { dim };
        if !(0..rank).contains(&d) {
            return Err(Error::shape(format!("stack: dim {dim} is out of range for {rank} dimensions")));
        }
        let mut shape = first.shape().to_vec();
        shape.insert(d as usize, 1);
        let shape = crate::tensor::Shape::try_new(&shape).map_err(|e| e.context("stack"))?;
        let wide: Vec<Tensor> = tensors.iter().map(|t| t.try_reshape(shape)).collect::<Result<_>>()?;
        Tensor::try_cat(&wide, d)
    }
}
