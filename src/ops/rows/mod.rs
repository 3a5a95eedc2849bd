//! Elementwise operations are rows of one table: value in Rust (generic over f32 and f64), value in WGSL, how to differentiate,
//! which domain to sample and which kinks to avoid. The fuser joins rows; one test walks them.
//!
//! Adding a unary op = one entry in `rows!` of the fitting file, and one line in methods.rs.

mod activation;
mod float;
mod methods;
mod number;
mod random;
mod real;
mod select;
mod single;
#[cfg(test)]
mod tests;

pub use real::Real;

use crate::graph::{Autocast, Tensor};
use crate::tensor::DType;
use std::collections::HashMap;
use std::sync::LazyLock;

/// One elementwise operation.
pub struct Row {
    /// The name: file, table and GPU label use it.
    pub name: &'static str,
    /// What it computes, as a formula.
    pub doc: &'static str,
    /// How many inputs, 0 to 3. Zero-input rows (fill, uniform) depend on slots and the element's index only; they are never
    /// stored for backward but computed again wherever they are used.
    pub arity: usize,
    /// How many float slots (`p0`, `p1`, ... in WGSL).
    pub floats: usize,
    /// How many integer slots, each a u64 passed as two words (`q0`, `q0h`, `q1`, ... in WGSL).
    pub ints: usize,
    /// Which element types it takes and gives.
    pub sig: Sig,
    /// The WGSL expression over `x`, `y`, `z`, `p0`.., `q0`.., `i` (the element's index, u32). Bool values are `u32` 0 or 1. `T` stands for the
    /// operand type. May call anything in shaders/math.wgsl and shaders/philox.wgsl.
    pub wgsl: &'static str,
    /// The definition, in f64; integers and truth values arrive as their exact f64.
    pub value: fn(&RowArgs<'_, f64>) -> f64,
    /// The same over blocks of f32, for the fast CPU path; absent where only the definition exists. Truth values are 1 or 0, as in `value`, so it
    /// serves bools too, but no integers: f32 does not hold them all. (The seed of a `_seeded` row comes as the float with its bits.)
    pub block: Option<Block>,
    /// The partial derivative by each input.
    pub slopes: &'static [Slope],
    /// Where tests sample each input.
    pub domain: &'static [(f64, f64)],
    /// Inputs near which the slope jumps; tests of gradients keep away.
    pub kinks: &'static [f64],
    /// Float slots that tests use, one list a sample; one empty list where there are none.
    pub samples: &'static [&'static [f64]],
    /// The stated bound of the f32 values, in WGSL and on the CPU, against the definition: this many times 2^-23 of the largest |result| of the tensor
    /// (0: exact). The functions of shaders/math.wgsl state theirs for every single result.
    pub ulp: f64,
}

/// Rows that are steep, or lose digits in halves: autocast gives them floats. (Their results are f32, so what follows goes on with that.)
const FULL: &[&str] = &["reciprocal", "rsqrt", "exp", "expm1", "log", "log1p", "pow", "powi", "pow_scalar", "rdiv_scalar", "softplus", "logsigmoid"];

impl Row {
    /// What autocast does with its inputs.
    pub fn autocast(&self) -> Autocast {
        match self.sig {
            Sig::Cast(_) | Sig::Source(_) | Sig::Logic => Autocast::Keep,
            _ if FULL.contains(&self.name) => Autocast::Full,
            _ => Autocast::Widest,
        }
    }
}

/// A row over a run of elements in f32; `first` is the row-major index of the first.
pub type Block = fn(args: &[&[f32]], floats: &[f32], ints: &[u64], first: usize, out: &mut [f32]);

/// The arguments of one evaluation of a row.
pub struct RowArgs<'a, T> {
    /// The inputs.
    pub x: &'a [T],
    /// The float slots.
    pub p: &'a [T],
    /// The integer slots.
    pub q: &'a [u64],
    /// The element's index in row-major order.
    pub i: usize,
}

/// Element types of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sig {
    /// Floats of one type, to the same type.
    Float,
    /// Numbers (float or integer) of one type, to the same type.
    Number,
    /// Numbers of one type, to bool.
    Compare,
    /// Bools to bool.
    Logic,
    /// A bool, then one or two of any one type, to that type.
    Select,
    /// Any type to this one.
    Cast(DType),
    /// No input, to this type (f32 stands for the float type asked for).
    Source(DType),
}

/// The partial derivative of a row by one of its inputs.
#[derive(Clone, Copy)]
pub enum Slope {
    /// Zero everywhere (floor, sign, comparisons).
    Zero,
    /// One everywhere: the incoming gradient passes unchanged.
    One,
    /// The row of this name, over the same inputs and slots, is the slope.
    Row(&'static str),
    /// The gradient for this input as a tensor expression. The text names what it uses besides the incoming gradient: `x`, `y`, `z` for the inputs, `o` for
    /// the output; only these are saved.
    Grad(&'static str, fn(&RowGrad<'_>) -> Tensor),
    /// Not differentiable twice: the backward exists, its own gradient is an error that names the row.
    None,
}

/// What a [`Slope::Grad`] expression can use.
pub struct RowGrad<'a> {
    pub(crate) grad: &'a Tensor,
    pub(crate) inputs: &'a [Option<Tensor>],
    pub(crate) output: Option<&'a Tensor>,
    pub(crate) floats: &'a [f64],
}

impl<'a> RowGrad<'a> {
    /// The incoming gradient.
    pub fn grad(&self) -> &'a Tensor {
        self.grad
    }
    /// Input `n`.
    pub fn input(&self, n: usize) -> &'a Tensor {
        self.inputs[n].as_ref().expect("an input that a slope uses is saved")
    }
    /// The output.
    pub fn output(&self) -> &'a Tensor {
        self.output.expect("an output that a slope uses is saved")
    }
    /// Float slot `n` of the row, as recorded.
    pub fn float(&self, n: usize) -> f64 {
        self.floats[n]
    }
}

impl std::fmt::Debug for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// Write rows. Each entry:
///
/// ```text
/// /// What it computes, as a formula.
/// leaky_relu(x; slope) {
///     sig: Float, ulp: 1.0, wgsl: "select(p0 * x, x, x > 0.0)",
///     value: if x > T::ZERO { x } else { slope * x },
///     slopes: [Row("leaky_relu_slope")],
///     domain: [(-3.0, 3.0)], kinks: [0.0], samples: [[0.01], [0.2]],
/// }
/// ```
///
/// In `value`, `T` is f32 or f64 (trait [`Real`]), inputs and float slots go by the names given; truth values are 1 and 0. `ints` and `i` are not
/// bound here: the few rows that use them (random.rs) are written as [`Row`] literals.
macro_rules! rows {
    ($($(#[doc = $doc:literal])* $name:ident ( $($x:ident),* $(; $($p:ident),+)? ) {
        sig: $sig:expr, ulp: $ulp:expr, wgsl: $wgsl:expr,
        value: $value:expr,
        slopes: [$($slope:expr),*],
        domain: [$($domain:expr),*], kinks: [$($kink:expr),*], samples: [$([$($sample:expr),*]),* $(,)?] $(,)?
    })*) => {
        pub(super) static TABLE: &[$crate::ops::rows::Row] = &[$({
            #[allow(unused_imports)] // not every row's slopes use every variant
            use $crate::ops::rows::{Sig::*, Slope::{self, *}};
            #[inline(always)]
            #[allow(unused_variables)] // a slope row may ignore some of its row's inputs
            fn value<T: $crate::ops::rows::Real>($($x: T,)* $($($p: T,)+)?) -> T { $value }
            fn definition(a: &$crate::ops::rows::RowArgs<'_, f64>) -> f64 {
                let [$($x),*] = a.x[..] else { unreachable!("arity is checked by infer") };
                $(let [$($p),+] = a.p[..] else { unreachable!("slots are checked by infer") };)?
                value::<f64>($($x,)* $($($p,)+)?)
            }
            fn block(args: &[&[f32]], _floats: &[f32], _ints: &[u64], _first: usize, out: &mut [f32]) {
                let [$($x),*] = args[..] else { unreachable!("arity is checked by infer") };
                $(let [$($p),+] = _floats[..] else { unreachable!("slots are checked by infer") };)?
                struct Run<'a> {
                    $($x: &'a [f32],)*
                    $($($p: f32,)+)?
                    out: &'a mut [f32],
                }
                impl $crate::device::cpu::Loop for Run<'_> {
                    type Out = ();
                    #[inline(always)]
                    fn run(self) {
                        $(let $x = &self.$x[..self.out.len()];)*
                        for (i, o) in self.out.iter_mut().enumerate() {
                            let _ = i;
                            *o = value::<f32>($($x[i],)* $($(self.$p,)+)?);
                        }
                    }
                }
                $crate::device::cpu::widely(Run { $($x,)* $($($p,)+)? out });
            }
            const NAMES: &[&str] = &[$(stringify!($x)),*];
            const FLOATS: &[&str] = &[$($(stringify!($p)),+)?];
            $crate::ops::rows::Row {
                name: stringify!($name), doc: concat!($($doc),*).trim_ascii(), arity: NAMES.len(), floats: FLOATS.len(), ints: 0,
                sig: $sig, wgsl: $wgsl, value: definition, block: Some(block),
                slopes: &[$($slope),*] as &[Slope],
                domain: &[$($domain),*], kinks: &[$($kink),*], samples: &[$(&[$($sample),*]),*], ulp: $ulp,
            }
        }),*];
    };
}
pub(crate) use rows;

/// All rows.
pub fn all() -> impl Iterator<Item = &'static Row> {
    [number::TABLE, float::TABLE, activation::TABLE, select::TABLE, random::TABLE].into_iter().flatten()
}

/// The row of that name.
///
/// # Panics
/// Where there is none: names are written in this crate, and a test looks each one up.
pub fn row(name: &str) -> &'static Row {
    static BY_NAME: LazyLock<HashMap<&'static str, &'static Row>> = LazyLock::new(|| all().map(|r| (r.name, r)).collect());
    BY_NAME.get(name).copied().unwrap_or_else(|| panic!("no row named {name}"))
}
