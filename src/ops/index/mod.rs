//! Operations by index: gather, index_select, embedding; scatter_add, index_add.
//!
//! An index out of range is an error that names the operation and the limit: on the CPU when the operation runs, on a GPU, where the kernel clamps it and
//! sets an error word, with the next value that is read.

mod gather;
mod scatter;
mod table;

pub(super) use table::OPS;

use super::view::ok;
use crate::error::{Error, Result};
use crate::graph::{Call, Slots, Tensor};
use crate::tensor::{DType, Layout, Meta, Shape};
use gather::Gather;
use scatter::Scatter;

/// How an index of shape [outer, places, inner] lies in its buffer. One small index expanded over the others has strides of 0.
#[derive(Clone, Copy, Debug)]
struct Lines {
    sizes: [usize; 3],
    strides: [isize; 3],
}

impl Lines {
    /// `None` where the dimensions before or behind `dim` don't lie evenly.
    fn of(layout: &Layout, dim: usize) -> Option<Lines> {
        let rank = layout.shape.rank();
        let part = |range: std::ops::Range<usize>| {
            let part = layout.permute(&range.collect::<Vec<_>>());
            match part.merged()[..] {
                [] => Some((part.shape.numel(), 0)),
                [one] => Some(one),
                _ => None,
            }
        };
        let (outer, inner) = (part(0..dim)?, part(dim + 1..rank)?);
        Some(Lines { sizes: [outer.0, layout.shape[dim], inner.0], strides: [outer.1, layout.strides()[dim], inner.1] })
    }

    fn of_accepted(layout: &Layout, dim: usize) -> Result<Lines> {
        Lines::of(layout, dim).ok_or_else(|| Error::internal("index: a layout that was not accepted"))
    }

    /// How many different lines there are, over outer and inner.
    fn distinct(&self) -> [usize; 2] {
        [0, 2].map(|d| if self.strides[d] == 0 { 1 } else { self.sizes[d] })
    }

    fn at(&self, offset: usize, a: usize, j: usize, b: usize) -> usize {
        let [sa, sj, sb] = self.strides;
        (offset as isize + a as isize * sa + j as isize * sj + b as isize * sb) as usize
    }

    /// Whether all of it lies in `0..size`.
    fn check(&self, name: &str, index: &[i32], offset: usize, size: usize) -> Result<()> {
        if self.sizes.contains(&0) {
            return Ok(());
        }
        let [outer, inner] = self.distinct();
        for a in 0..outer {
            for j in 0..self.sizes[1] {
                for b in 0..inner {
                    checked(name, index[self.at(offset, a, j, b)], size)?;
                }
            }
        }
        Ok(())
    }

    /// The strides as words of a launch.
    fn words<'c, 'a>(&self, call: Call<'c, 'a>) -> Call<'c, 'a> {
        self.strides.iter().fold(call, |c, &s| c.stride(s))
    }
}

/// Sizes of `dim` and of all that is behind it.
fn sizes(shape: &Shape, dim: usize) -> (usize, usize) {
    (shape[dim], shape[dim + 1..].iter().product())
}

fn message(name: &str, size: usize) -> String {
    format!("{name}: index out of range: must be in 0..{size}")
}

fn checked(name: &str, k: i32, size: usize) -> Result<usize> {
    usize::try_from(k).ok().filter(|&k| k < size).ok_or_else(|| Error::data(message(name, size)))
}

fn check_index(name: &str, index: &Meta) -> Result<()> {
    if index.dtype == DType::I32 {
        return Ok(());
    }
    Err(Error::shape(format!("{name}: the index must be i32, got {}", index.dtype)).help("convert with to_dtype"))
}

/// `t` narrowed to `sizes` in every dimension but `except`.
fn trim(t: &Tensor, sizes: &Shape, except: Option<usize>) -> Result<Tensor> {
    (0..t.rank()).filter(|&d| Some(d) != except && t.shape()[d] != sizes[d]).try_fold(t.clone(), |t, d| t.try_narrow(d as isize, 0, sizes[d]))
}

/// Refuses an index that is larger than `shape` in a dimension other than `except`.
fn fits(name: &str, index: &Shape, what: &str, shape: &Shape, except: Option<usize>) -> Result<()> {
    let fits = index.rank() == shape.rank() && (0..index.rank()).all(|d| Some(d) == except || index[d] <= shape[d]);
    let but = except.map_or(String::new(), |d| format!(" (but for dim {d})"));
    if fits { Ok(()) } else { Err(Error::shape(format!("{name}: the index of shape {index} must lie inside the {what} of shape {shape}{but}"))) }
}

/// A list of indices as an index of `shape`, whose dimension `dim` it counts.
fn along(name: &str, index: &Tensor, shape: &Shape, dim: usize) -> Result<Tensor> {
    if index.rank() != 1 {
        return Err(Error::shape(format!("{name}: the index must have one dimension, got shape {}", index.shape())));
    }
    let (mut column, mut wide) = ([1; crate::tensor::MAX_RANK], *shape);
    column[dim] = index.numel();
    wide[dim] = index.numel();
    index.try_reshape(&column[..shape.rank()])?.try_expand(wide)
}

impl Tensor {
    /// Elements along `dim` at the places that `index` (i32) names: for `dim` 1, `y[a, j, b] = x[a, index[a, j, b], b]`. The index may be smaller than this
    /// tensor in the other dimensions.
    #[track_caller]
    pub fn gather(&self, dim: isize, index: &Tensor) -> Tensor {
        ok(self.try_gather(dim, index))
    }

    /// [`Tensor::gather`], or an error where the shapes don't fit.
    pub fn try_gather(&self, dim: isize, index: &Tensor) -> Result<Tensor> {
        let dim = self.shape().dim(dim).map_err(|e| e.context("gather"))?;
        fits("gather", index.shape(), "input", self.shape(), Some(dim))?;
        Gather { name: "gather", dim }.apply(&trim(self, index.shape(), Some(dim))?, index)
    }

    /// The slices of `dim` that the list `index` (i32) names, in its order.
    ///
    /// ```
    /// use wgrad::{Device, Tensor};
    /// let device = Device::cpu()?;
    /// let x = Tensor::new([0.0f32, 1.0, 2.0, 3.0, 4.0, 5.0], [3, 2], &device)?;
    /// let rows = x.index_select(0, &Tensor::new([2, 0], [2], &device)?);
    /// assert_eq!(rows.to_vec::<f32>()?, [4.0, 5.0, 0.0, 1.0]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    #[track_caller]
    pub fn index_select(&self, dim: isize, index: &Tensor) -> Tensor {
        ok(self.try_index_select(dim, index))
    }

    /// [`Tensor::index_select`], or an error where the shapes don't fit.
    pub fn try_index_select(&self, dim: isize, index: &Tensor) -> Result<Tensor> {
        let dim = self.shape().dim(dim).map_err(|e| e.context("index_select"))?;
        Gather { name: "index_select", dim }.apply(self, &along("index_select", index, self.shape(), dim)?)
    }

    /// Rows of `weight` [n, width] for each of `indices` (i32, any shape): `[...indices, width]`.
    #[track_caller]
    pub fn embedding(weight: &Tensor, indices: &Tensor) -> Tensor {
        ok(Tensor::try_embedding(weight, indices))
    }

    /// [`Tensor::embedding`], or an error where the shapes don't fit.
    pub fn try_embedding(weight: &Tensor, indices: &Tensor) -> Result<Tensor> {
        let &[_, width] = &weight.shape()[..] else {
            return Err(Error::shape(format!("embedding: the weight must have two dimensions, got shape {}", weight.shape())));
        };
        let mut shape = indices.shape().to_vec();
        shape.push(width);
        let list = along("embedding", &indices.try_reshape([indices.numel()])?, weight.shape(), 0)?;
        Gather { name: "embedding", dim: 0 }.apply(weight, &list)?.try_reshape(Shape::try_new(&shape).map_err(|e| e.context("embedding"))?)
    }

    /// This tensor with elements of `src` added along `dim` at the places that `index` (i32) names: for `dim` 1, `y[a, index[a, j, b], b] += src[a, j, b]`.
    /// Terms of one place are added in the order of the index, on every device.
    #[track_caller]
    pub fn scatter_add(&self, dim: isize, index: &Tensor, src: &Tensor) -> Tensor {
        ok(self.try_scatter_add(dim, index, src))
    }

    /// [`Tensor::scatter_add`], or an error where the shapes don't fit.
    pub fn try_scatter_add(&self, dim: isize, index: &Tensor, src: &Tensor) -> Result<Tensor> {
        let dim = self.shape().dim(dim).map_err(|e| e.context("scatter_add"))?;
        fits("scatter_add", index.shape(), "input", self.shape(), Some(dim))?;
        fits("scatter_add", index.shape(), "source", src.shape(), None)?;
        let op = Scatter { name: "scatter_add", dim, size: self.shape()[dim] };
        let sums = Tensor::try_apply1(op, Slots::none(), &[&trim(src, index.shape(), None)?, index])?;
        self.plus(&sums)
    }

    /// This tensor with the slices of `src` along `dim` added to those that the list `index` (i32) names.
    #[track_caller]
    pub fn index_add(&self, dim: isize, index: &Tensor, src: &Tensor) -> Tensor {
        ok(self.try_index_add(dim, index, src))
    }

    /// [`Tensor::index_add`], or an error where the shapes don't fit.
    pub fn try_index_add(&self, dim: isize, index: &Tensor, src: &Tensor) -> Result<Tensor> {
        let dim = self.shape().dim(dim).map_err(|e| e.context("index_add"))?;
        let mut want = *self.shape();
        want[dim] = index.numel();
        if *src.shape() != want {
            return Err(Error::shape(format!("index_add: the source must have shape {want}, got {}", src.shape())));
        }
        let op = Scatter { name: "index_add", dim, size: self.shape()[dim] };
        self.plus(&Tensor::try_apply1(op, Slots::none(), &[src, &along("index_add", index, self.shape(), dim)?])?)
    }

    /// The sum with a tensor that may be smaller, at the start of every dimension.
    fn plus(&self, sums: &Tensor) -> Result<Tensor> {
        if sums.shape() == self.shape() {
            return Tensor::apply_row("add", &[], &[self, sums]);
        }
        let begins = [0u64; crate::tensor::MAX_RANK];
        Tensor::apply_row("add", &[], &[self, &sums.put_into(*self.shape(), 0.0, &begins[..self.rank()])?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::cpu::{CpuView, CpuViewMut, Threads};
    use crate::graph::Op;

    #[test]
    fn fast_paths_equal_the_definitions() {
        // (outer, size, places, inner, strides of the index)
        for (outer, size, places, inner, strides) in
            [(2, 5, 7, 3, [21, 3, 1]), (1, 100, 1000, 8, [0, 1, 0]), (3, 4, 300, 1, [300, 1, 0]), (1, 70_000, 50, 2, [0, 2, 1])]
        {
            let floats = |n: usize| (0..n).map(|i| (i * 7919 % 1009) as f32 / 500.0 - 1.0).collect::<Vec<f32>>();
            let index: Vec<i32> = (0..outer * places * inner).map(|i| (i * 31 % size) as i32).collect();
            let full = Meta::new(DType::I32, [outer * places * inner]);
            let view = |dtype| {
                let mut v = CpuView::new(full, bytemuck::cast_slice(&index));
                v.layout = Layout::new(Shape::new(&[outer, places, inner]), &strides, 0);
                v.dtype = dtype;
                v
            };
            let (x, src) = (floats(outer * size * inner), floats(outer * places * inner));
            let big = Meta::new(DType::F32, [outer, size, inner]);
            let small = Meta::new(DType::F32, [outer, places, inner]);
            let check = |op: &dyn Op, input: CpuView<'_>, out: Meta| {
                let run = |threads: Option<usize>| {
                    let mut y = vec![0f32; out.numel()];
                    let mut outputs = [CpuViewMut::new(out, bytemuck::cast_slice_mut(&mut y))];
                    let inputs = [input, view(DType::I32)];
                    match threads {
                        None => op.cpu(&Slots::none(), &inputs, &mut outputs).unwrap(),
                        Some(n) => assert!(op.cpu_fast(&Slots::none(), &inputs, &mut outputs, &Threads::new(n).unwrap()).unwrap()),
                    }
                    y
                };
                assert_eq!(run(None), run(Some(1)));
                assert_eq!(run(Some(1)), run(Some(2)));
            };
            check(&Gather { name: "gather", dim: 1 }, CpuView::new(big, bytemuck::cast_slice(&x)), small);
            check(&Scatter { name: "scatter_add", dim: 1, size }, CpuView::new(small, bytemuck::cast_slice(&src)), big);
        }
    }
}
