//! pad: a tensor put into a larger one. Where it begins is data, so that the gradients of a thousand windows reuse one plan.

use crate::device::cpu::{CpuView, CpuViewMut, Threads};
use crate::error::{Error, Result};
use crate::graph::{Autocast, Batched, Fuses, Key, LaunchCtx, Op, Saved, Slots, Tensor};
use crate::ops::view::ok;
use crate::tensor::{DType, Layout, Meta, Shape};

/// What a border is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PadMode {
    /// One value.
    Constant(f64),
    /// The elements next to the edge, mirrored; the edge itself is not repeated.
    Reflect,
    /// The edge, repeated.
    Replicate,
}

/// Puts the input into `shape`. Float slot 0: the value around it. Int slot d: where it begins in dimension d.
#[derive(Debug)]
struct Pad {
    shape: Shape,
}

impl Pad {
    /// The output's layout, narrowed to where the input lies.
    fn window(&self, slots: &Slots, input: &Shape) -> Layout {
        (0..input.rank()).fold(Layout::contiguous(self.shape), |l, d| l.narrow(d, slots.ints[d] as usize, input[d]))
    }
}

impl Op for Pad {
    fn name(&self) -> &'static str {
        "pad"
    }

    fn key(&self, key: &mut Key) {
        key.ints(&self.shape);
    }

    fn autocast(&self) -> Autocast {
        Autocast::Keep
    }

    fn infer(&self, slots: &Slots, inputs: &[Meta]) -> Result<Vec<Meta>> {
        let from = inputs[0].shape;
        let fits = from.rank() == self.shape.rank() && (0..from.rank()).all(|d| (slots.ints[d] as usize).saturating_add(from[d]) <= self.shape[d]);
        if !fits {
            return Err(Error::shape(format!("pad: shape {from} at {:?} does not fit in {}", &slots.ints[..], self.shape)));
        }
        Ok(vec![Meta::new(inputs[0].dtype, self.shape)])
    }

    fn fuses(&self) -> Fuses {
        Fuses { epilogue: true, prologue: false }
    }

    fn cpu(&self, slots: &Slots, inputs: &[CpuView<'_>], outputs: &mut [CpuViewMut<'_>]) -> Result<()> {
        let mut y = vec![slots.floats[0]; self.shape.numel()];
        for (o, v) in self.window(slots, inputs[0].shape()).indices().zip(inputs[0].to_f64()) {
            y[o] = v;
        }
        outputs[0].set_f64(&y);
        Ok(())
    }

    fn cpu_fast(&self, slots: &Slots, inputs: &[CpuView<'_>], outputs: &mut [CpuViewMut<'_>], threads: &Threads) -> Result<bool> {
        if inputs[0].dtype != DType::F32 {
            return Ok(false);
        }
        let x = inputs[0].elements::<f32>();
        let y = outputs[0].elements::<f32>();
        threads.chunks(y, 65536, |_, run| run.fill(slots.floats[0] as f32));
        let window = self.window(slots, inputs[0].shape()).merged();
        let Some((&(run, 1), outer)) = window.split_last() else {
            // A single element, or rows of one: few, so the general walk will do.
            self.window(slots, inputs[0].shape()).indices().zip(x.iter()).for_each(|(o, &v)| y[o] = v);
            return Ok(true);
        };
        let base = self.window(slots, inputs[0].shape()).offset;
        let starts = Layout::new(
            Shape::new(&outer.iter().map(|d| d.0).collect::<Vec<_>>()),
            &outer.iter().map(|d| d.1).collect::<Vec<_>>(),
            base,
        );
        starts.indices().zip(x.chunks(run.max(1))).for_each(|(o, v)| y[o..o + run].copy_from_slice(v));
        Ok(true)
    }

    fn gpu(&self, ctx: &mut LaunchCtx<'_>) -> Result<()> {
        let meta = ctx.inputs[0].meta;
        let from = meta.shape;
        let strides = from.strides();
        // Dimensions that are not padded join their neighbours of that kind: (output size, input size, dimension that knows where it begins, stride).
        let mut dims: Vec<(usize, usize, Option<usize>, isize)> = Vec::new();
        for d in (0..from.rank()).rev() {
            match dims.last_mut() {
                _ if from[d] != self.shape[d] => dims.push((self.shape[d], from[d], Some(d), strides[d])),
                Some((out, own, None, _)) => {
                    *out *= from[d];
                    *own *= from[d];
                }
                _ => dims.push((from[d], from[d], None, strides[d])),
            }
        }
        let value = ctx.float(0);
        let begins: Vec<_> = dims.iter().map(|d| d.2.map(|d| ctx.int(d))).collect();
        let numel = self.shape.numel();
        let element = meta.dtype.wgsl();
        let mut call = ctx.call("pad")?.set("RANK", format!("{}u", dims.len())).alias("T", element);
        if meta.dtype != DType::F32 {
            call = call.hook("value", &format!("    return {element}(bitcast<f32>(u[0].z));"));
        }
        if meta.numel() > 0 {
            call = call.input("x", 0);
        } else {
            // An empty x is never bound.
            call = call.hook("source", "    return value();");
        }
        call = call.u32(numel).offset(0).word(value).u32(0);
        for (dim, begin) in dims.iter().zip(begins) {
            call = call.u32s(&[dim.0.max(1), dim.1]);
            call = match begin {
                Some(word) => call.word(word),
                None => call.u32(0),
            };
            call = call.stride(dim.3);
        }
        call.with_epilogue()?.grid_linear(numel.div_ceil(64))
    }

    fn backward(&self, ctx: &Saved<'_>, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let Some(g) = &grads[0] else { return Ok(vec![None]) };
        let from = ctx.input_meta(0).shape;
        let mut g = g.clone();
        for d in (0..from.rank()).filter(|&d| from[d] != self.shape[d]) {
            g = g.try_narrow(d as isize, ctx.slots().ints[d] as usize, from[d])?;
        }
        Ok(vec![Some(g)])
    }

    fn batch(&self, ctx: &Batched<'_>) -> Result<Vec<Tensor>> {
        let mut slots = ctx.slots.clone();
        slots.ints.insert(0, 0);
        Ok(vec![Tensor::try_apply1(Pad { shape: self.shape.with(0, ctx.k) }, slots, &[&ctx.inputs[0]])?])
    }
}

impl Tensor {
    /// This tensor, from `before` on, in a tensor of zeros whose dimension `dim` has `size` elements: the gradient of `narrow`.
    pub(crate) fn pad_zero(&self, dim: usize, before: usize, size: usize) -> Result<Tensor> {
        let (mut shape, mut begins) = (*self.shape(), [0u64; crate::tensor::MAX_RANK]);
        shape[dim] = size;
        begins[dim] = before as u64;
        self.put_into(shape, 0.0, &begins[..self.rank()])
    }

    /// This tensor in one of `shape` filled with `value`, its element [0, 0, ...] at `begins`.
    pub(in crate::ops) fn put_into(&self, shape: Shape, value: f64, begins: &[u64]) -> Result<Tensor> {
        let mut slots = Slots::ints(begins);
        slots.floats.push(value);
        Tensor::try_apply1(Pad { shape }, slots, &[self])
    }

    /// With a border. `pad` has two sizes a dimension, before and after, the last dimension's first: `[left, right, top, bottom]` for images.
    /// Negative sizes take elements away.
    ///
    /// ```
    /// use wgrad::{Device, Tensor, ops::PadMode};
    /// let x = Tensor::new([1.0f32, 2.0, 3.0], [3], &Device::cpu()?)?;
    /// assert_eq!(x.pad(&[2, 1], PadMode::Reflect).to_vec::<f32>()?, [3.0, 2.0, 1.0, 2.0, 3.0, 2.0]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    #[track_caller]
    pub fn pad(&self, pad: &[isize], mode: PadMode) -> Tensor {
        ok(self.try_pad(pad, mode))
    }

    /// [`Tensor::pad`], or an error where the sizes don't fit the shape.
    pub fn try_pad(&self, pad: &[isize], mode: PadMode) -> Result<Tensor> {
        let shape = *self.shape();
        if !pad.len().is_multiple_of(2) || pad.len() / 2 > shape.rank() {
            return Err(Error::shape(format!("pad: takes two sizes a dimension, last one first: got {} for shape {shape}", pad.len())));
        }
        let mut t = self.clone();
        let (mut to, mut begins) = (shape, [0u64; crate::tensor::MAX_RANK]);
        for (n, sizes) in pad.chunks_exact(2).enumerate() {
            let d = shape.rank() - 1 - n;
            let [before, after] = [sizes[0], sizes[1]];
            // Negative sizes first: what is left is then padded.
            let (cut, cut_after) = ((-before).max(0) as usize, (-after).max(0) as usize);
            if cut + cut_after > shape[d] {
                return Err(Error::shape(format!("pad: sizes [{before}, {after}] take off more than the {} elements of dim {d}", shape[d])));
            }
            if cut + cut_after > 0 {
                t = t.try_narrow(d as isize, cut, shape[d] - cut - cut_after)?;
            }
            let (before, after) = (before.max(0) as usize, after.max(0) as usize);
            to[d] = t.shape()[d] + before + after;
            begins[d] = before as u64;
            if let PadMode::Reflect | PadMode::Replicate = mode {
                t = t.border(d, before, after, mode)?;
            }
        }
        match mode {
            PadMode::Constant(value) if to != *t.shape() => t.put_into(to, value, &begins[..shape.rank()]),
            _ => Ok(t),
        }
    }

    /// A border made of the tensor's own elements, along one dimension: views of it, joined.
    fn border(&self, d: usize, before: usize, after: usize, mode: PadMode) -> Result<Tensor> {
        let (n, dim) = (self.shape()[d], d as isize);
        let piece = |size: usize, reflected: usize, edge: usize| -> Result<Tensor> {
            if mode == PadMode::Reflect {
                return Ok(self.try_narrow(dim, reflected, size)?.flip(&[dim]));
            }
            let mut shape = *self.shape();
            shape[d] = size;
            self.try_narrow(dim, edge, 1)?.try_expand(shape)
        };
        let need = if mode == PadMode::Reflect { before.max(after) } else { 0 };
        if before + after > 0 && n <= need {
            let what = if mode == PadMode::Reflect { format!("a reflection of {need}") } else { "replication".to_string() };
            return Err(Error::shape(format!("pad: {what} needs more than {need} elements in dim {d} of shape {}", self.shape())));
        }
        let mut parts = Vec::new();
        if before > 0 {
            parts.push(piece(before, 1, 0)?);
        }
        parts.push(self.clone());
        if after > 0 {
            parts.push(piece(after, n - 1 - after, n - 1)?);
        }
        Tensor::try_cat(&parts, dim)
    }
}
