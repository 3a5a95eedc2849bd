//! Matrix products: `matmul` with PyTorch's shapes, and `linear`.

mod coop;
mod gpu;
mod lanes;
mod table;
mod tiles;

pub(super) use gpu::{BLOCK, Family, chosen_parts, lanes_share, product, split, split_fine, sum_along, sum_splits};
pub(super) use table::OPS;
pub(super) use tiles::Tile;

use super::view::ok;
use crate::device::Caps;
use crate::device::cpu::gemm::{Mat, gemm_batch};
use crate::device::cpu::{CpuView, CpuViewMut, Threads};
use crate::error::{Error, Result};
use crate::graph::{Autocast, Batched, Fuses, Key, LaunchCtx, MatmulPrecision, Op, Saved, Saves, Slots, Tensor, matmul_precision, with_matmul_precision};
use crate::tensor::{Layout, Meta, Shape, broadcast};

/// `[batch.., m, k]` x `[batch.., k, n]` to `[batch.., m, n]`, with one batch for both: broadcasting is done by views, whose strides of 0 the kernels read.
#[derive(Debug)]
struct MatMul {
    precision: MatmulPrecision,
}

impl Op for MatMul {
    fn name(&self) -> &'static str {
        "matmul"
    }

    fn autocast(&self) -> Autocast {
        Autocast::Lower
    }

    fn key(&self, key: &mut Key) {
        key.int(self.precision as i64);
    }

    fn infer(&self, _: &Slots, inputs: &[Meta]) -> Result<Vec<Meta>> {
        let [a, b] = inputs else { return Err(Error::internal(format!("matmul: takes 2 inputs, got {}", inputs.len()))) };
        check(a, b)?;
        let lead = a.shape.rank() - 2;
        if a.shape.rank() < 2 || a.shape[..lead] != b.shape[..b.shape.rank() - 2] {
            return Err(Error::internal("matmul: inputs were not broadcast"));
        }
        let mut shape = a.shape;
        shape[lead + 1] = b.shape[lead + 1];
        Ok(vec![Meta::new(a.dtype, shape)])
    }

    // Any strides: transposes and broadcast batches are read where they lie.
    fn accepts(&self, _: usize, _: &Layout) -> bool {
        true
    }

    fn fuses(&self) -> Fuses {
        Fuses { epilogue: true, prologue: false }
    }

    fn sums_along(&self, caps: &Caps, inputs: &[(Layout, bool)]) -> Option<(usize, u8)> {
        gpu::sums_rows(caps, &inputs[0], &inputs[1]).then_some((0, 0b10))
    }

    fn cpu(&self, _: &Slots, inputs: &[CpuView<'_>], outputs: &mut [CpuViewMut<'_>]) -> Result<()> {
        let Dims { batch, m, k, n } = Dims::of(inputs[0].shape(), inputs[1].shape());
        let (a, b) = (inputs[0].to_f64(), inputs[1].to_f64());
        let mut y = vec![0f64; batch * m * n];
        for z in 0..batch {
            for i in 0..m {
                for p in 0..k {
                    let x = a[(z * m + i) * k + p];
                    for j in 0..n {
                        y[(z * m + i) * n + j] += x * b[(z * k + p) * n + j];
                    }
                }
            }
        }
        outputs[0].set_f64(&y);
        Ok(())
    }

    fn cpu_fast(&self, _: &Slots, inputs: &[CpuView<'_>], outputs: &mut [CpuViewMut<'_>], threads: &Threads) -> Result<bool> {
        let (a, b) = (&inputs[0], &inputs[1]);
        if a.dtype != crate::tensor::DType::F32 {
            return Ok(false);
        }
        let Dims { m, k, n, .. } = Dims::of(a.shape(), b.shape());
        let batch: Vec<(usize, usize)> = leading(&a.layout).indices().zip(leading(&b.layout).indices()).collect();
        gemm_batch(threads, &batch, m, k, n, matrix(a), matrix(b), outputs[0].elements());
        Ok(true)
    }

    fn gpu(&self, ctx: &mut LaunchCtx<'_>) -> Result<()> {
        gpu::launch(ctx, self.precision)
    }

    fn saves(&self) -> Saves {
        Saves::inputs(&[0, 1])
    }

    fn backward(&self, ctx: &Saved<'_>, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let Some(g) = &grads[0] else { return Ok(vec![None, None]) };
        let (a, b) = (ctx.input(0), ctx.input(1));
        with_matmul_precision(self.precision, || self.gradients(ctx, g, a, b))
    }

    fn batch(&self, ctx: &Batched<'_>) -> Result<Vec<Tensor>> {
        Ok(vec![Tensor::try_apply1(MatMul { precision: self.precision }, Slots::none(), &[&ctx.inputs[0], &ctx.inputs[1]])?])
    }
}

impl MatMul {
    /// At the precision that this thread asks for.
    fn now() -> MatMul {
        MatMul { precision: matmul_precision() }
    }

    fn gradients(&self, ctx: &Saved<'_>, g: &Tensor, a: &Tensor, b: &Tensor) -> Result<Vec<Option<Tensor>>> {
        // The gradient of a transposed operand (a linear layer's weight) is made transposed, too: then it lies as the tensor behind the view does, and
        // an optimizer finds it in place.
        let da = match (ctx.needs(0), transposed(&a.layout())) {
            (false, _) => None,
            (true, false) => Some(g.try_matmul(&b.t())?),
            (true, true) => Some(b.try_matmul(&g.t())?.t()),
        };
        let db = match (ctx.needs(1), transposed(&b.layout())) {
            (false, _) => None,
            (true, false) => Some(a.t().try_matmul(g)?),
            (true, true) => Some(g.t().try_matmul(a)?.t()),
        };
        Ok(vec![da, db])
    }
}

/// Whether the columns of the matrices are what lies together.
fn transposed(l: &Layout) -> bool {
    let (lead, s) = (l.shape.rank() - 2, l.strides());
    s[lead] == 1 && s[lead + 1] > 1
}

/// The sizes of a product.
struct Dims {
    batch: usize,
    m: usize,
    k: usize,
    n: usize,
}

impl Dims {
    fn of(a: &Shape, b: &Shape) -> Dims {
        let lead = a.rank() - 2;
        Dims { batch: a[..lead].iter().product(), m: a[lead], k: a[lead + 1], n: b[lead + 1] }
    }
}

/// The batch dimensions of an operand: where each of its matrices begins.
fn leading(l: &Layout) -> Layout {
    let lead = l.shape.rank() - 2;
    Layout::new(Shape::new(&l.shape[..lead]), l.strides(), l.offset)
}

/// One matrix of an operand.
fn matrix<'a>(v: &CpuView<'a>) -> Mat<'a> {
    let lead = v.shape().rank() - 2;
    let s = v.layout.strides();
    Mat { data: v.base(), offset: v.layout.offset, row: s[lead], col: s[lead + 1] }
}

/// What `infer` takes.
fn check(a: &Meta, b: &Meta) -> Result<()> {
    if a.dtype != b.dtype || !a.dtype.is_float() {
        return Err(Error::shape(format!("matmul: takes floats of one type, got {} and {}", a.dtype, b.dtype)).help("convert with to_dtype"));
    }
    shapes(&a.shape, &b.shape)
}

/// What the shapes that a user gave must satisfy, too. Their types are as autocast makes them.
fn shapes(x: &Shape, y: &Shape) -> Result<()> {
    if x.rank() == 0 || y.rank() == 0 {
        return Err(Error::shape(format!("matmul: both inputs need at least one dimension: {x} and {y}")));
    }
    if x[x.rank() - 1] != y[y.rank().saturating_sub(2)] {
        return Err(Error::shape(format!("matmul: inner dimensions differ: {x} and {y}")));
    }
    Ok(())
}

impl Tensor {
    /// The matrix product, with PyTorch's shapes: `[m, k]` x `[k, n]` to `[m, n]`; leading dimensions are batches and broadcast; a vector on the left
    /// is a row, on the right a column, and its dimension goes away.
    ///
    /// ```
    /// use wgrad::{Device, Tensor};
    /// let device = Device::cpu()?;
    /// let a = Tensor::new([1.0f32, 2.0, 3.0, 4.0], [2, 2], &device)?;
    /// let x = Tensor::new([1.0f32, 10.0], [2], &device)?;
    /// assert_eq!(a.matmul(&x).to_vec::<f32>()?, [21.0, 43.0]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    #[track_caller]
    pub fn matmul(&self, other: &Tensor) -> Tensor {
        ok(self.try_matmul(other))
    }

    /// [`Tensor::matmul`], or an error where the shapes do not fit.
    pub fn try_matmul(&self, other: &Tensor) -> Result<Tensor> {
        shapes(self.shape(), other.shape())?;
        if self.rank() == 1 {
            let y = self.try_reshape(self.shape().with(0, 1))?.try_matmul(other)?;
            let dim = y.rank() - if other.rank() == 1 { 1 } else { 2 };
            return y.try_reshape(y.shape().without(dim));
        }
        if other.rank() == 1 {
            let y = self.try_matmul(&other.try_reshape(other.shape().with(1, 1))?)?;
            return y.try_reshape(y.shape().without(y.rank() - 1));
        }
        let (ra, rb) = (self.rank(), other.rank());
        if rb == 2 && ra > 2 {
            // One product instead of many, where a's leading dimensions lie so that a view can join them with its rows.
            let k = self.shape()[ra - 1];
            let rows = Shape::new(&[self.shape()[..ra - 1].iter().product(), k]);
            if self.layout().reshape(rows).is_some() {
                let y = self.try_reshape(rows)?.try_matmul(other)?;
                let mut shape = *self.shape();
                shape[ra - 1] = y.shape()[1];
                return y.try_reshape(shape);
            }
        }
        let (lead_a, lead_b) = (Shape::new(&self.shape()[..ra - 2]), Shape::new(&other.shape()[..rb - 2]));
        let batch = broadcast(&lead_a, &lead_b)
            .ok_or_else(|| Error::shape(format!("matmul: batch dimensions do not broadcast: {} and {}", self.shape(), other.shape())))?;
        let wide = |t: &Tensor| {
            let mut shape = batch.to_vec();
            shape.extend(&t.shape()[t.rank() - 2..]);
            t.try_expand(Shape::try_new(&shape)?)
        };
        Tensor::try_apply1(MatMul::now(), Slots::none(), &[&wide(self)?, &wide(other)?])
    }

    /// `self` `[.., in]` times `weight` `[out, in]` transposed, plus `bias` `[out]`: one kernel.
    ///
    /// ```
    /// use wgrad::{Device, Tensor};
    /// let device = Device::cpu()?;
    /// let x = Tensor::new([1.0f32, 2.0], [1, 2], &device)?;
    /// let weight = Tensor::new([1.0f32, 0.0, 0.0, 1.0, 1.0, 1.0], [3, 2], &device)?;
    /// let bias = Tensor::new([0.5f32, 0.5, 0.5], [3], &device)?;
    /// assert_eq!(x.linear(&weight, Some(&bias)).to_vec::<f32>()?, [1.5, 2.5, 3.5]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    #[track_caller]
    pub fn linear(&self, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
        ok(self.try_linear(weight, bias))
    }

    /// [`Tensor::linear`], or an error where the shapes do not fit.
    pub fn try_linear(&self, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        let (x, w) = (self.shape(), weight.shape());
        if w.rank() != 2 {
            return Err(Error::shape(format!("linear: weight must be [out, in], got shape {w}")));
        }
        if x.rank() == 0 || x[x.rank() - 1] != w[1] {
            return Err(Error::shape(format!("linear: input of shape {x} does not fit weight {w}: the last dimension must be {}", w[1])));
        }
        if let Some(b) = bias.filter(|b| b.shape()[..] != w[..1]) {
            return Err(Error::shape(format!("linear: bias of shape {} does not fit weight {w}: it must be [{}]", b.shape(), w[0])));
        }
        // The bias joins before leading dimensions are unfolded again, so that it meets the product itself and runs where that is stored.
        let k = w[1];
        let rows = Shape::new(&[x[..x.rank() - 1].iter().product(), k]);
        let fold = x.rank() != 2 && self.layout().reshape(rows).is_some();
        let flat = if fold { self.try_reshape(rows)? } else { self.clone() };
        let y = flat.try_matmul(&weight.t())?;
        let y = match bias {
            Some(b) => Tensor::apply_row(super::rows::row("add"), &[], &[&y, &b.autocast_beside(&y)?])?,
            None => y,
        };
        if !fold {
            return Ok(y);
        }
        let mut shape = *x;
        shape[x.rank() - 1] = w[0];
        y.try_reshape(shape)
    }
}
