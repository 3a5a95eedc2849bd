//! Views: other shapes over the same buffer. They do no work; operations that cannot read a view's layout get a contiguous copy from the planner.

use super::rows::row;
use super::table::{Arg, Misuse, OpEntry, Order, Sample};
use crate::device::cpu::{CpuView, CpuViewMut};
use crate::error::{Error, Result};
use crate::graph::{Autocast, Batched, Key, LaunchCtx, Op, Saved, Slots, Tensor};
use crate::tensor::{DType, Layout, Meta, Shape, broadcast};

/// A view of its one input. Positions (narrow's start) are slots; everything else is structure.
#[derive(Clone, Debug)]
enum View {
    Permute(Vec<usize>),
    Reshape(Shape),
    Expand(Shape),
    /// dim and length; the start is int slot 0.
    Narrow(usize, usize),
    Flip(Vec<usize>),
    Detach,
}

impl Op for View {
    fn name(&self) -> &'static str {
        match self {
            View::Permute(_) => "permute",
            View::Reshape(_) => "reshape",
            View::Expand(_) => "expand",
            View::Narrow(..) => "narrow",
            View::Flip(_) => "flip",
            View::Detach => "detach",
        }
    }

    fn key(&self, key: &mut Key) {
        match self {
            View::Permute(d) | View::Flip(d) => key.ints(d),
            View::Reshape(s) | View::Expand(s) => key.ints(s),
            View::Narrow(d, n) => key.ints(&[*d, *n]),
            View::Detach => key,
        };
    }

    fn autocast(&self) -> Autocast {
        Autocast::Keep
    }

    fn infer(&self, slots: &Slots, inputs: &[Meta]) -> Result<Vec<Meta>> {
        let Meta { dtype, shape } = inputs[0];
        let out = match self {
            View::Permute(dims) => {
                let mut seen = vec![false; shape.rank()];
                let valid = dims.len() == shape.rank() && dims.iter().all(|&d| d < shape.rank() && !std::mem::replace(&mut seen[d], true));
                if !valid {
                    return Err(Error::shape(format!("permute: dims {dims:?} are not a permutation of the dimensions of shape {shape}")));
                }
                Shape::new(&dims.iter().map(|&d| shape[d]).collect::<Vec<_>>())
            }
            View::Reshape(to) if to.numel() == shape.numel() => *to,
            View::Reshape(to) => {
                return Err(Error::shape(format!("reshape: shape {to} has {} elements, the input of shape {shape} has {}", to.numel(), shape.numel())));
            }
            View::Expand(to) if broadcast(&shape, to) == Some(*to) => *to,
            View::Expand(to) => return Err(Error::shape(format!("expand: shape {shape} cannot be expanded to {to}"))),
            View::Narrow(dim, length) => {
                let start = slots.ints[0] as usize;
                if *dim >= shape.rank() || start.saturating_add(*length) > shape[*dim] {
                    let size = shape.get(*dim).copied().unwrap_or(0);
                    return Err(Error::shape(format!("narrow: {start}..{} is out of range for dim {dim} of size {size}", start.saturating_add(*length))));
                }
                let mut s = shape;
                s[*dim] = *length;
                s
            }
            View::Flip(_) | View::Detach => shape,
        };
        Ok(vec![Meta::new(dtype, out)])
    }

    fn view(&self, slots: &Slots, input: &Layout) -> Option<Layout> {
        match self {
            View::Permute(dims) => Some(input.permute(dims)),
            View::Reshape(shape) => input.reshape(*shape),
            View::Expand(shape) => Some(input.expand(*shape)),
            View::Narrow(dim, length) => Some(input.narrow(*dim, slots.ints[0] as usize, *length)),
            View::Flip(dims) => Some(dims.iter().fold(*input, |l, &d| l.flip(d))),
            View::Detach => Some(*input),
        }
    }

    fn cpu(&self, _: &Slots, _: &[CpuView<'_>], _: &mut [CpuViewMut<'_>]) -> Result<()> {
        Err(Error::internal(format!("{}: views do no work", self.name())))
    }

    fn gpu(&self, _: &mut LaunchCtx<'_>) -> Result<()> {
        Err(Error::internal(format!("{}: views do no work", self.name())))
    }

    fn differentiable(&self) -> bool {
        !matches!(self, View::Detach)
    }

    fn backward(&self, ctx: &Saved<'_>, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let Some(g) = &grads[0] else { return Ok(vec![None]) };
        let shape = ctx.input_meta(0).shape;
        let grad = match self {
            View::Permute(dims) => {
                let mut inverse = vec![0; dims.len()];
                dims.iter().enumerate().for_each(|(i, &d)| inverse[d] = i);
                g.try_permute(&inverse)?
            }
            View::Reshape(_) => g.try_reshape(shape)?,
            View::Expand(_) => g.sum_to(shape)?,
            View::Narrow(dim, _) => g.pad_zero(*dim, ctx.slots().ints[0] as usize, shape[*dim])?,
            View::Flip(dims) => Tensor::try_apply1(View::Flip(dims.clone()), Slots::none(), &[g])?,
            View::Detach => return Ok(vec![None]),
        };
        Ok(vec![Some(grad)])
    }

    fn batch(&self, ctx: &Batched<'_>) -> Result<Vec<Tensor>> {
        let lead = |s: &Shape| s.with(0, ctx.k);
        let shift = |dims: &[usize]| dims.iter().map(|d| d + 1).collect::<Vec<_>>();
        let op = match self {
            View::Permute(dims) => View::Permute(std::iter::once(0).chain(shift(dims)).collect()),
            View::Reshape(shape) => return Ok(vec![ctx.inputs[0].try_reshape(lead(shape))?]),
            View::Expand(shape) => {
                // The new dimensions go between the model axis and the old ones.
                let old = ctx.metas[0].shape;
                let mut wide = vec![ctx.k];
                wide.extend(std::iter::repeat_n(1, shape.rank() - old.rank()));
                wide.extend(old.iter());
                return Ok(vec![ctx.inputs[0].try_reshape(wide)?.try_expand(lead(shape))?]);
            }
            View::Narrow(dim, length) => View::Narrow(dim + 1, *length),
            View::Flip(dims) => View::Flip(shift(dims)),
            View::Detach => View::Detach,
        };
        Ok(vec![Tensor::try_apply1(op, ctx.slots.clone(), &[&ctx.inputs[0]])?])
    }
}

/// The same values in a buffer of their own, row-major.
pub(crate) fn contiguous_copy(t: &Tensor) -> Result<Tensor> {
    cast(t, t.dtype())
}

/// The same values as `dtype`, in a buffer of their own.
pub(super) fn cast(t: &Tensor, dtype: DType) -> Result<Tensor> {
    let name = match dtype {
        DType::F32 => "to_f32",
        DType::F16 => "to_f16",
        DType::F64 => "to_f64",
        DType::I32 => "to_i32",
        DType::U32 => "to_u32",
        DType::Bool => "to_bool",
    };
    Tensor::apply_row(row(name), &[], &[t])
}

pub(crate) fn detach(t: &Tensor) -> Tensor {
    Tensor::apply1(View::Detach, Slots::none(), &[t])
}

impl Tensor {
    /// The dimensions in the order `dims`. `[a, b, c]` with `[2, 0, 1]` becomes `[c, a, b]`.
    #[track_caller]
    pub fn permute(&self, dims: &[usize]) -> Tensor {
        ok(self.try_permute(dims))
    }

    /// [`Tensor::permute`], or an error where `dims` is not a permutation.
    pub fn try_permute(&self, dims: &[usize]) -> Result<Tensor> {
        Tensor::try_apply1(View::Permute(dims.to_vec()), Slots::none(), &[self])
    }

    /// Dimensions `a` and `b` exchanged; negative counts from the back.
    #[track_caller]
    pub fn transpose(&self, a: isize, b: isize) -> Tensor {
        ok(self.shape().dim(a).and_then(|a| {
            let b = self.shape().dim(b)?;
            let mut dims: Vec<usize> = (0..self.rank()).collect();
            dims.swap(a, b);
            self.try_permute(&dims)
        }))
    }

    /// A matrix transposed: the last two dimensions exchanged.
    #[track_caller]
    pub fn t(&self) -> Tensor {
        self.transpose(-2, -1)
    }

    /// The same elements in row-major order, in another shape.
    #[track_caller]
    pub fn reshape(&self, shape: impl Into<Shape>) -> Tensor {
        ok(self.try_reshape(shape))
    }

    /// [`Tensor::reshape`], or an error where the number of elements differs.
    pub fn try_reshape(&self, shape: impl Into<Shape>) -> Result<Tensor> {
        let shape = shape.into();
        if shape == *self.shape() {
            return Ok(self.clone());
        }
        let fits = shape.numel() != self.numel() || self.layout().reshape(shape).is_some();
        let base = if fits { self.clone() } else { contiguous_copy(self)? };
        Tensor::try_apply1(View::Reshape(shape), Slots::none(), &[&base])
    }

    /// Dimensions `start..=end` joined into one; negative counts from the back.
    #[track_caller]
    pub fn flatten(&self, start: isize, end: isize) -> Tensor {
        ok(self.try_flatten(start, end))
    }

    /// [`Tensor::flatten`], or an error where the dimensions are out of range.
    pub fn try_flatten(&self, start: isize, end: isize) -> Result<Tensor> {
        let (s, e) = (self.shape().dim(start)?, self.shape().dim(end)?);
        if s > e {
            return Err(Error::shape(format!("flatten: start dim {start} lies behind end dim {end}")));
        }
        let mut dims = self.shape()[..s].to_vec();
        dims.push(self.shape()[s..=e].iter().product());
        dims.extend(&self.shape()[e + 1..]);
        self.try_reshape(dims)
    }

    /// A dimension of size 1 put in before `dim`; -1 puts it last.
    #[track_caller]
    pub fn unsqueeze(&self, dim: isize) -> Tensor {
        let rank = self.rank() as isize + 1;
        let d = if dim < 0 { dim + rank } else { dim };
        assert!((0..rank).contains(&d), "unsqueeze: dim {dim} is out of range for shape {}", self.shape());
        ok(Shape::try_new(&self.shape().with(d as usize, 1)).and_then(|s| self.try_reshape(s)))
    }

    /// The dimension `dim`, which must have size 1, taken away.
    #[track_caller]
    pub fn squeeze(&self, dim: isize) -> Tensor {
        ok(self.shape().dim(dim).and_then(|d| {
            if self.shape()[d] != 1 {
                return Err(Error::shape(format!("squeeze: dim {dim} of shape {} has size {}, not 1", self.shape(), self.shape()[d])));
            }
            self.try_reshape(self.shape().without(d))
        }))
    }

    /// Dimensions of size 1 repeated up to `shape`, new ones put in front.
    #[track_caller]
    pub fn expand(&self, shape: impl Into<Shape>) -> Tensor {
        ok(self.try_expand(shape))
    }

    /// [`Tensor::expand`], or an error where the shape does not broadcast to `shape`.
    pub fn try_expand(&self, shape: impl Into<Shape>) -> Result<Tensor> {
        let shape = shape.into();
        if shape == *self.shape() { Ok(self.clone()) } else { Tensor::try_apply1(View::Expand(shape), Slots::none(), &[self]) }
    }

    /// The window `start..start + length` of `dim`. The start is data: windows at different places reuse one plan.
    #[track_caller]
    pub fn narrow(&self, dim: isize, start: usize, length: usize) -> Tensor {
        ok(self.try_narrow(dim, start, length))
    }

    /// [`Tensor::narrow`], or an error where the window is out of range.
    pub fn try_narrow(&self, dim: isize, start: usize, length: usize) -> Result<Tensor> {
        let d = self.shape().dim(dim).map_err(|e| e.context("narrow"))?;
        Tensor::try_apply1(View::Narrow(d, length), Slots::ints(&[start as u64]), &[self])
    }

    /// Element `index` of dimension `dim`, which goes away.
    #[track_caller]
    pub fn select(&self, dim: isize, index: usize) -> Tensor {
        ok(self.try_narrow(dim, index, 1).and_then(|t| {
            let d = self.shape().dim(dim)?;
            t.try_reshape(self.shape().without(d))
        }))
    }

    /// The elements of each of `dims` in reverse order.
    #[track_caller]
    pub fn flip(&self, dims: &[isize]) -> Tensor {
        ok(self.try_flip(dims))
    }

    /// [`Tensor::flip`], or an error where a dimension is out of range or named twice.
    pub fn try_flip(&self, dims: &[isize]) -> Result<Tensor> {
        let mut sorted = dims.iter().map(|&d| self.shape().dim(d)).collect::<Result<Vec<_>>>().map_err(|e| e.context("flip"))?;
        sorted.sort_unstable();
        if sorted.windows(2).any(|w| w[0] == w[1]) {
            return Err(Error::shape(format!("flip: dims {dims:?} name a dimension twice")));
        }
        Tensor::try_apply1(View::Flip(sorted), Slots::none(), &[self])
    }

    /// The same values in another element type; floats become integers towards zero.
    #[track_caller]
    pub fn to_dtype(&self, dtype: DType) -> Tensor {
        ok(self.try_to_dtype(dtype))
    }

    /// [`Tensor::to_dtype`], or an error where the device lacks the type.
    pub fn try_to_dtype(&self, dtype: DType) -> Result<Tensor> {
        if self.dtype() == dtype { Ok(self.clone()) } else { cast(self, dtype) }
    }

    /// The same values, their elements in row-major order in memory: this tensor itself where they are.
    pub fn contiguous(&self) -> Tensor {
        if self.layout().is_contiguous() { self.clone() } else { ok(contiguous_copy(self)) }
    }

    /// Sum what broadcasting repeated: the gradient of an expansion from `shape`.
    pub(crate) fn sum_to(&self, shape: Shape) -> Result<Tensor> {
        if *self.shape() == shape {
            return Ok(self.clone());
        }
        let lead = self.rank() - shape.rank();
        let dims: Vec<isize> = (0..self.rank()).filter(|&d| d < lead || (shape[d - lead] == 1 && self.shape()[d] != 1)).map(|d| d as isize).collect();
        self.try_sum(&dims, true)?.try_reshape(shape)
    }
}

/// Panic at the caller's line where an operation is misused.
#[track_caller]
pub(crate) fn ok<T>(r: Result<T>) -> T {
    r.unwrap_or_else(|e| panic!("{e}"))
}

pub(super) static OPS: &[OpEntry] = &[
    OpEntry {
        name: "permute",
        doc: "dimensions in another order",
        order: Order::Any,
        nodes: &["permute"],
        samples: || {
            vec![
                Sample::new("[2, 3, 4] by [2, 0, 1]", vec![Arg::float([2, 3, 4])], 1, |x| Ok(vec![x[0].try_permute(&[2, 0, 1])?.square()])),
                Sample::new("[5, 7] transposed", vec![Arg::float([5, 7])], 1, |x| Ok(vec![x[0].t().square()])),
                Sample::new("[0, 3] transposed", vec![Arg::float([0, 3])], 1, |x| Ok(vec![x[0].t().square()])),
                Sample::new("[1, 1] transposed", vec![Arg::float([1, 1])], 1, |x| Ok(vec![x[0].t().square()])),
            ]
        },
        misuse: || {
            vec![Misuse::new(vec![Arg::float([2, 3])], "permute: dims [0, 0] are not a permutation of the dimensions of shape [2, 3]", |x| {
                Ok(vec![x[0].try_permute(&[0, 0])?])
            })]
        },
    },
    OpEntry {
        name: "reshape",
        doc: "the same elements in another shape",
        order: Order::Any,
        nodes: &["reshape"],
        samples: || {
            vec![
                Sample::new("[2, 6] to [3, 4]", vec![Arg::float([2, 6])], 1, |x| Ok(vec![x[0].try_reshape([3, 4])?.square()])),
                Sample::new("transposed, so copied", vec![Arg::float([2, 6])], 1, |x| Ok(vec![x[0].t().try_reshape([3, 4])?.square()])),
                Sample::new("[7, 5] transposed, so copied", vec![Arg::float([7, 5])], 1, |x| Ok(vec![x[0].t().try_reshape([35])?.square()])),
                Sample::new("[0, 3] to [3, 0, 2]", vec![Arg::float([0, 3])], 1, |x| Ok(vec![x[0].try_reshape([3, 0, 2])?.square()])),
                Sample::new("[1] to []", vec![Arg::float([1])], 1, |x| Ok(vec![x[0].try_reshape(&[][..])?.square()])),
            ]
        },
        misuse: || {
            vec![Misuse::new(vec![Arg::float([2, 3])], "reshape: shape [4] has 4 elements, the input of shape [2, 3] has 6", |x| {
                Ok(vec![x[0].try_reshape([4])?])
            })]
        },
    },
    OpEntry {
        name: "expand",
        doc: "dimensions of size 1 repeated",
        order: Order::Any,
        nodes: &["expand"],
        samples: || {
            vec![
                Sample::new("[3, 1] to [2, 3, 5]", vec![Arg::float([3, 1])], 10, |x| Ok(vec![x[0].try_expand([2, 3, 5])?.square()])),
                Sample::new("[7] to [11, 7]", vec![Arg::float([7])], 11, |x| Ok(vec![x[0].try_expand([11, 7])?.square()])),
                Sample::new("[1] to [0, 5]", vec![Arg::float([1])], 1, |x| Ok(vec![x[0].try_expand([0, 5])?.square()])),
                Sample::new("[0, 1] to [0, 5]", vec![Arg::float([0, 1])], 1, |x| Ok(vec![x[0].try_expand([0, 5])?.square()])),
            ]
        },
        misuse: || vec![Misuse::new(vec![Arg::float([3])], "expand: shape [3] cannot be expanded to [2, 4]", |x| Ok(vec![x[0].try_expand([2, 4])?]))],
    },
    OpEntry {
        name: "narrow",
        doc: "a window of one dimension",
        order: Order::Any,
        nodes: &["narrow"],
        samples: || {
            vec![
                Sample::new("rows 1..4 of 7", vec![Arg::float([7, 3])], 1, |x| Ok(vec![x[0].try_narrow(0, 1, 3)?.square()])),
                Sample::new("columns 2..3 of 5", vec![Arg::float([4, 5])], 1, |x| Ok(vec![x[0].try_narrow(1, 2, 1)?.square()])),
                Sample::new("the only one of 1", vec![Arg::float([1])], 1, |x| Ok(vec![x[0].try_narrow(0, 0, 1)?.square()])),
                Sample::new("nothing of 3", vec![Arg::float([3])], 1, |x| Ok(vec![x[0].try_narrow(0, 2, 0)?.square()])),
                Sample::new("nothing of nothing", vec![Arg::float([0])], 1, |x| Ok(vec![x[0].try_narrow(0, 0, 0)?.square()])),
            ]
        },
        misuse: || vec![Misuse::new(vec![Arg::float([4])], "narrow: 3..5 is out of range for dim 0 of size 4", |x| Ok(vec![x[0].try_narrow(0, 3, 2)?]))],
    },
    OpEntry {
        name: "flip",
        doc: "elements of dimensions in reverse order",
        order: Order::Any,
        nodes: &["flip"],
        samples: || {
            let case = |shape: &'static [usize], dims: &'static [isize]| {
                Sample::new(format!("{dims:?} of {shape:?}"), vec![Arg::float(shape)], 1, move |x| Ok(vec![x[0].try_flip(dims)?.square()]))
            };
            vec![case(&[3, 5], &[0, 1]), case(&[2, 3, 7], &[-1]), case(&[1], &[0]), case(&[0, 2], &[0, 1])]
        },
        misuse: || {
            vec![
                Misuse::new(vec![Arg::float([2, 3])], "flip: dim 2 is out of range for shape [2, 3]", |x| Ok(vec![x[0].try_flip(&[2])?])),
                Misuse::new(vec![Arg::float([2, 3])], "flip: dims [1, -1] name a dimension twice", |x| Ok(vec![x[0].try_flip(&[1, -1])?])),
            ]
        },
    },
    OpEntry {
        name: "detach",
        doc: "the same value without history",
        order: Order::Zero,
        nodes: &["detach"],
        samples: || vec![Sample::new("[3]", vec![Arg::float([3])], 1, |x| Ok(vec![x[0].detach().square()]))],
        misuse: Vec::new,
    },
];
