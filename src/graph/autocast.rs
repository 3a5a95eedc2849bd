//! Mixed precision: which operations take halves while autocast is on. Casts are nodes like others: they are differentiated, and fused with what is around them.

use super::mode::{self, Phase};
use super::node::{Node, Value};
use super::op::Op;
use super::tensor::Tensor;
use crate::error::Result;
use crate::tensor::DType;
use smallvec::SmallVec;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::{Arc, Weak};

/// What autocast does with the floats that an operation is given. Inputs of f64 are left alone, and all that stands beside them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Autocast {
    /// They become halves: products, which add up in f32 whatever they read.
    Lower,
    /// They become f32: what is steep, or adds up many terms.
    Full,
    /// Where one is f32, all become it.
    Widest,
    /// They stay as they are.
    Keep,
}

thread_local! {
    static ON: Cell<bool> = const { Cell::new(false) };
    /// How many scopes are open.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
    /// Leaves with a gradient that were cast in this scope, by node: a weight is cast once, however often it is used.
    static LOWERED: RefCell<HashMap<u64, Lowered>> = RefCell::default();
}

/// The halves of a leaf, and the leaf, by which one sees whether anyone still uses it: a step of an optimizer gives a parameter a new one.
struct Lowered {
    leaf: Weak<Node>,
    halves: Tensor,
}

/// Run `f` in mixed precision: with [`DType::F16`], products (matmul, linear, conv2d) that `f` records read and give halves, and operations that need them
/// (softmax, losses, sums, exponentials) floats, each by its [`Op::autocast`]. [`DType::F32`] switches it off inside of another. Parameters stay what they
/// are, and so do their gradients: only copies are halves. Backward runs in the types of forward, whether inside or outside.
///
/// ```
/// use wgrad::{autocast, DType, Device, Tensor};
/// let device = Device::cpu()?;
/// let (x, w) = (Tensor::ones([2, 3], &device), Tensor::ones([3, 4], &device).requires_grad()?);
/// let y = autocast(DType::F16, || x.matmul(&w));
/// assert_eq!(y.dtype(), DType::F16);
/// y.to_dtype(DType::F32).sum_all().backward()?;
/// assert_eq!(w.grad().unwrap().dtype(), DType::F32);
/// # Ok::<(), wgrad::Error>(())
/// ```
///
/// # Panics
/// For other types.
#[track_caller]
pub fn autocast<R>(dtype: DType, f: impl FnOnce() -> R) -> R {
    assert!(matches!(dtype, DType::F16 | DType::F32), "autocast: casts to f16, or with f32 not at all, got {dtype}");
    scoped(dtype == DType::F16, f)
}

/// Run `f` with every type as it is.
pub(crate) fn without_autocast<R>(f: impl FnOnce() -> R) -> R {
    scoped(false, f)
}

fn scoped<R>(on: bool, f: impl FnOnce() -> R) -> R {
    /// Ends the scope, also when `f` unwinds.
    struct End(bool);
    impl Drop for End {
        fn drop(&mut self) {
            ON.set(self.0);
            DEPTH.set(DEPTH.get() - 1);
            if DEPTH.get() == 0 {
                // Taken out first: dropping handles must not meet the map borrowed.
                drop(LOWERED.take());
            }
        }
    }
    DEPTH.set(DEPTH.get() + 1);
    let _end = End(ON.replace(on));
    f()
}

/// Whether what is recorded now is cast: forward only, for backward's types follow from forward's.
fn is_on() -> bool {
    ON.get() && mode::phase() == Phase::Forward
}

/// The inputs that `op` is to be recorded over in place of these.
pub(super) fn cast(op: &dyn Op, inputs: &[&Tensor]) -> Result<Option<SmallVec<[Tensor; 3]>>> {
    if !is_on() {
        return Ok(None);
    }
    let any = |dtype: DType| inputs.iter().any(|t| t.dtype() == dtype);
    let to = match op.autocast() {
        Autocast::Keep => return Ok(None),
        Autocast::Lower => DType::F16,
        Autocast::Full => DType::F32,
        Autocast::Widest if any(DType::F32) => DType::F32,
        Autocast::Widest => return Ok(None),
    };
    let from = if to == DType::F16 { DType::F32 } else { DType::F16 };
    if !any(from) || any(DType::F64) {
        return Ok(None);
    }
    let one = |t: &&Tensor| match t.dtype() {
        d if d != from => Ok((*t).clone()),
        DType::F32 => lowered(t),
        _ => t.try_to_dtype(DType::F32),
    };
    inputs.iter().map(one).collect::<Result<_>>().map(Some)
}

impl Tensor {
    /// This tensor in the type of `other`, where autocast made that one halves: a bias beside a product.
    pub(crate) fn autocast_beside(&self, other: &Tensor) -> Result<Tensor> {
        if is_on() && (self.dtype(), other.dtype()) == (DType::F32, DType::F16) { lowered(self) } else { Ok(self.clone()) }
    }

    /// This tensor as autocast gives it to a whole formula that needs floats.
    pub(crate) fn autocast_full(&self) -> Result<Tensor> {
        if is_on() && self.dtype() == DType::F16 { self.try_to_dtype(DType::F32) } else { Ok(self.clone()) }
    }
}

/// A tensor of f32 as halves. A view of a parameter is that view of the parameter's halves, so that they are made once and lie as the parameter does.
fn lowered(t: &Tensor) -> Result<Tensor> {
    let value = t.value();
    if value.node.view.is_some() && is_view_of_leaf(value) {
        let from = value.node.recorded_inputs().into_iter().next();
        if let Some(from) = from {
            let from = lowered(&Tensor::of(from))?;
            return Ok(Tensor::try_apply_arc(value.node.op.clone(), value.node.slots.clone(), &[&from], None)?.remove(0));
        }
    }
    // What a checkpoint recorded belongs to it.
    if value.node.grad.is_none() || mode::scope() != 0 {
        return t.try_to_dtype(DType::F16);
    }
    // One that was made without history, or whose history a backward has consumed, would keep gradients from the leaf.
    let usable = |c: &Tensor| !mode::grad_enabled() || c.is_grad_required();
    if let Some(known) = LOWERED.with_borrow(|m| m.get(&value.node.id).map(|l| l.halves.clone())).filter(usable) {
        return Ok(known);
    }
    let made = t.try_to_dtype(DType::F16)?;
    let new = Lowered { leaf: Arc::downgrade(&value.node), halves: made.clone() };
    let gone: Vec<Lowered> = LOWERED.with_borrow_mut(|m| {
        let old: Vec<u64> = m.iter().filter(|(_, l)| l.leaf.strong_count() == 0).map(|(id, _)| *id).collect();
        let mut gone: Vec<Lowered> = old.iter().filter_map(|id| m.remove(id)).collect();
        gone.extend(m.insert(value.node.id, new));
        gone
    });
    // As at the end of a scope.
    drop(gone);
    Ok(made)
}

/// Whether a view looks, through views alone, at a leaf that gathers a gradient.
fn is_view_of_leaf(value: &Value) -> bool {
    let mut v = value.clone();
    while v.node.view.is_some() {
        let Some(next) = v.node.recorded_inputs().into_iter().next() else { return false };
        v = next;
    }
    v.node.grad.is_some()
}
