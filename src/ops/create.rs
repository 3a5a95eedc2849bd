//! Tensors out of nothing: constants, ranges, random values. They are rows without inputs, so a kernel that uses one computes it on the spot.

use super::row_op::RowOp;
use super::rows::{Row, row};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::graph::{self, Batched, Engine, Slots, Tensor};
use crate::tensor::{DType, Meta, Shape};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A stream of random numbers: a seed, and how many random nodes were recorded with it. Reads and flushes change nothing.
///
/// ```
/// use wgrad::{Device, Generator, Tensor};
/// let device = Device::cpu()?;
/// let a = Tensor::rand([4], &Generator::new(7), &device)?.to_vec::<f32>()?;
/// let b = Tensor::rand([4], &Generator::new(7), &device)?.to_vec::<f32>()?;
/// assert_eq!(a, b);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Debug)]
pub struct Generator {
    seed: u64,
    /// Shared with steps that were captured, which go on drawing.
    offset: Arc<AtomicU64>,
}

impl Generator {
    /// The stream of `seed`, from its start.
    pub fn new(seed: u64) -> Generator {
        Generator::restore(seed, 0)
    }

    /// The stream of `seed` after `offset` random nodes: what [`Generator::state`] gave.
    pub fn restore(seed: u64, offset: u64) -> Generator {
        Generator { seed, offset: Arc::new(AtomicU64::new(offset)) }
    }

    /// Seed and offset.
    pub fn state(&self) -> (u64, u64) {
        (self.seed, self.offset.load(Relaxed))
    }

    /// The pair for one more node.
    pub(crate) fn next(&self) -> [u64; 2] {
        let offset = self.offset.fetch_add(1, Relaxed);
        graph::drew(self.seed, offset, &self.offset);
        [self.seed, offset]
    }
}

fn source(name: &str, slots: Slots, meta: Meta, device: &Device) -> Result<Tensor> {
    if device.is_gpu() && meta.dtype == DType::F64 {
        return Err(Error::shape(format!("{name}: f64 is not available on a GPU")).help("use f32, or the CPU backend"));
    }
    Tensor::try_source(RowOp { row: row(name), source: Some(meta) }, slots, &Engine::of(device))
}

impl Tensor {
    /// A tensor of `shape` filled with `value`, f32.
    #[track_caller]
    pub fn full(shape: impl Into<Shape>, value: f64, device: &Device) -> Tensor {
        super::view::ok(Tensor::try_full(shape, value, DType::F32, device))
    }

    /// A tensor of `shape` and `dtype` filled with `value`.
    pub fn try_full(shape: impl Into<Shape>, value: f64, dtype: DType, device: &Device) -> Result<Tensor> {
        if !dtype.is_float() {
            return Tensor::try_full(shape, value, DType::F32, device)?.try_to_dtype(dtype);
        }
        source("fill", Slots::floats(&[value]), Meta::new(dtype, shape), device)
    }

    /// Zeros of `shape`, f32.
    pub fn zeros(shape: impl Into<Shape>, device: &Device) -> Tensor {
        Tensor::full(shape, 0.0, device)
    }

    /// Ones of `shape`, f32.
    pub fn ones(shape: impl Into<Shape>, device: &Device) -> Tensor {
        Tensor::full(shape, 1.0, device)
    }

    /// `value` in the shape, element type and on the device of this tensor.
    pub fn full_like(&self, value: f64) -> Tensor {
        super::view::ok(Tensor::try_full(*self.shape(), value, self.dtype(), self.device()))
    }

    /// Zeros like this tensor.
    pub fn zeros_like(&self) -> Tensor {
        self.full_like(0.0)
    }

    /// Ones like this tensor.
    pub fn ones_like(&self) -> Tensor {
        self.full_like(1.0)
    }

    /// The integers `0..n`, i32.
    pub fn arange(n: usize, device: &Device) -> Result<Tensor> {
        source("iota", Slots::ints(&[0, 1]), Meta::new(DType::I32, [n]), device)
    }

    /// Uniform values in [0, 1). The same bits on every device.
    pub fn rand(shape: impl Into<Shape>, generator: &Generator, device: &Device) -> Result<Tensor> {
        source("uniform", Slots::ints(&generator.next()), Meta::new(DType::F32, shape), device)
    }

    /// Standard normal values.
    pub fn randn(shape: impl Into<Shape>, generator: &Generator, device: &Device) -> Result<Tensor> {
        source("normal", Slots::ints(&generator.next()), Meta::new(DType::F32, shape), device)
    }

    /// The mask of dropout, like this tensor: 0 with probability `p`, else `1 / (1 - p)`.
    pub(crate) fn keep_mask(&self, p: f64, generator: &Generator) -> Result<Tensor> {
        let mut slots = Slots::ints(&generator.next());
        slots.floats.push(p);
        source("bernoulli", slots, Meta::new(self.dtype(), *self.shape()), self.device())
    }
}

/// Whether each model of a stacked program needs its own numbers from this source.
pub(crate) fn is_random(row: &Row) -> bool {
    row.ints > 0 && row.arity == 0 && row.name != "iota"
}

/// The model axis of a source: constants widen, random numbers come from the seed of each model, counted without the model axis.
pub(super) fn batch_source(row_: &'static Row, ctx: &Batched<'_>) -> Result<Vec<Tensor>> {
    let meta = ctx.metas[0];
    if !is_random(row_) {
        return Err(Error::internal(format!("{}: is the same for every model", row_.name)));
    }
    let seeds = ctx
        .seeds
        .ok_or_else(|| Error::invalid(format!("vmap: {} needs a seed for each model", row_.name)).help("use vmap_seeded, or make the random tensor outside"))?;
    let seeded: &'static Row = match row_.name {
        "uniform" => row("uniform_seeded"),
        "normal" => row("normal_seeded"),
        "bernoulli" => row("bernoulli_seeded"),
        other => return Err(Error::internal(format!("{other}: has no form with seeds"))),
    };
    let mut slots = ctx.slots.clone();
    // The seed slot's place is taken by the seeds; the period is the number of elements of one model.
    slots.ints = smallvec::smallvec![ctx.slots.ints[1], meta.numel().max(1) as u64];
    let mut column = vec![1usize; meta.shape.rank() + 1];
    column[0] = ctx.k;
    let seeds = seeds.try_reshape(column)?.try_expand(meta.shape.with(0, ctx.k))?;
    let out = Tensor::try_apply1(RowOp { row: seeded, source: None }, slots, &[&seeds])?;
    Ok(vec![out.try_to_dtype(meta.dtype)?])
}
