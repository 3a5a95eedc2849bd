//! What a thread is doing while it records: gradients on or off, forward or backward, in which checkpoint scope, under which plan name.

use std::cell::{Cell, RefCell};

/// Which part of a step a node belongs to. Kernels never mix phases: so a value that is read before backward costs no other kernels than one that is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Phase {
    Forward,
    Backward,
    Update,
}

/// A checkpoint scope: 0 outside, a fresh number for each run of a checkpointed function and for each recomputation.
pub(crate) type Scope = u64;

thread_local! {
    static GRAD: Cell<bool> = const { Cell::new(true) };
    static PHASE: Cell<Phase> = const { Cell::new(Phase::Forward) };
    static SCOPE: Cell<Scope> = const { Cell::new(0) };
    static PRECISION: Cell<MatmulPrecision> = const { Cell::new(MatmulPrecision::Highest) };
    static CUTS: Cell<bool> = const { Cell::new(true) };
    static NAME: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Whether operations on this thread record history for backward.
pub fn grad_enabled() -> bool {
    GRAD.get()
}

/// Run `f` without recording history: its results carry no gradient.
pub fn no_grad<R>(f: impl FnOnce() -> R) -> R {
    with_grad_mode(false, f)
}

/// Run `f` with recording of history switched on or off.
pub fn with_grad_mode<R>(on: bool, f: impl FnOnce() -> R) -> R {
    scoped(&GRAD, on, f)
}

pub(crate) fn phase() -> Phase {
    PHASE.get()
}

pub(crate) fn with_phase<R>(phase: Phase, f: impl FnOnce() -> R) -> R {
    scoped(&PHASE, phase, f)
}

pub(crate) fn scope() -> Scope {
    SCOPE.get()
}

pub(crate) fn with_scope<R>(scope: Scope, f: impl FnOnce() -> R) -> R {
    scoped(&SCOPE, scope, f)
}

/// How exact products of f32 matrices are: a device may have units for f16 that are many times as fast.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MatmulPrecision {
    /// In f32.
    #[default]
    Highest,
    /// As sums of three products of f16, each factor split in two: about 22 of the 24 bits of f32. What is infinite may become a NaN.
    High,
    /// Factors rounded to f16, sums in f32: 11 bits.
    Medium,
}

/// Run `f` with products of f32 matrices, and their gradients, at this precision at least, as PyTorch's `set_float32_matmul_precision` for a thread. It
/// changes nothing where a device has no faster units than those for f32.
///
/// ```
/// use wgrad::{Device, MatmulPrecision, Tensor, with_matmul_precision};
/// let device = Device::cpu()?;
/// let x = Tensor::new([1.0f32, 2.0, 3.0, 4.0], [2, 2], &device)?;
/// let y = with_matmul_precision(MatmulPrecision::High, || x.matmul(&x));
/// assert_eq!(y.to_vec::<f32>()?, [7.0, 10.0, 15.0, 22.0]);
/// # Ok::<(), wgrad::Error>(())
/// ```
pub fn with_matmul_precision<R>(precision: MatmulPrecision, f: impl FnOnce() -> R) -> R {
    scoped(&PRECISION, precision, f)
}

pub(crate) fn matmul_precision() -> MatmulPrecision {
    PRECISION.get()
}

pub(crate) fn cuts() -> bool {
    CUTS.get()
}

/// Run `f` without running what it records, however much that is: what vmap records over stand-ins has no values.
pub(crate) fn without_cuts<R>(f: impl FnOnce() -> R) -> R {
    scoped(&CUTS, false, f)
}

/// Set a thread-local for the time of `f`, also when `f` unwinds.
fn scoped<T: Copy + 'static, R>(key: &'static std::thread::LocalKey<Cell<T>>, value: T, f: impl FnOnce() -> R) -> R {
    struct Restore<T: Copy + 'static>(&'static std::thread::LocalKey<Cell<T>>, T);
    impl<T: Copy> Drop for Restore<T> {
        fn drop(&mut self) {
            self.0.set(self.1);
        }
    }
    let _restore = Restore(key, key.replace(value));
    f()
}

/// While it lives, plans built on this thread carry the name it was made with.
#[derive(Debug)]
pub struct PlanName {
    before: Option<String>,
}

/// Name the plans that this thread builds until the guard is dropped: `train`, `validation`.
pub fn plan_name(name: impl Into<String>) -> PlanName {
    PlanName { before: NAME.replace(Some(name.into())) }
}

impl Drop for PlanName {
    fn drop(&mut self) {
        NAME.replace(self.before.take());
    }
}

pub(crate) fn current_plan_name() -> String {
    NAME.with_borrow(|n| n.clone()).unwrap_or_else(|| "plan".into())
}
