//! The `Tensor` methods and operators of the rows. Inputs broadcast as in PyTorch; a misfit panics at the caller's line. The fallible door is
//! [`Tensor::apply_row`].

use super::row;
use crate::graph::Tensor;
use std::ops::{Add, Div, Mul, Neg, Sub};

/// The row `name` over `inputs`.
///
/// # Panics
/// Where the types or shapes don't fit.
#[track_caller]
pub(crate) fn apply(name: &str, floats: &[f64], inputs: &[&Tensor]) -> Tensor {
    match Tensor::apply_row(row(name), floats, inputs) {
        Ok(t) => t,
        Err(e) => panic!("{e}"),
    }
}

/// One method a line: `doc; name(inputs; floats)`, named as its row.
macro_rules! methods {
    ($($doc:literal $name:ident ( $($x:ident),* $(; $($p:ident),+)? );)*) => {
        impl Tensor {
            $(
                #[doc = $doc]
                #[track_caller]
                pub fn $name(&self $(, $x: &Tensor)* $($(, $p: f64)+)?) -> Tensor {
                    apply(stringify!($name), &[$($($p),+)?], &[self, $($x),*])
                }
            )*
        }
    };
}

methods! {
    "`|x|`." abs();
    "`-x`." neg();
    "-1, 0 or 1." sign();
    "`x²`." square();
    "`1 / x`." reciprocal();
    "`√x`." sqrt();
    "`1 / √x`." rsqrt();
    "`e^x`." exp();
    "`e^x - 1`, exact near 0." expm1();
    "The natural logarithm." log();
    "`log(1 + x)`, exact near 0." log1p();
    "`sin x`." sin();
    "`cos x`." cos();
    "`tanh x`." tanh();
    "The error function." erf();
    "The largest integer not above `x`." floor();
    "The smallest integer not below `x`." ceil();
    "`x` without its fraction." trunc();
    "The nearest integer, halves to even." round();
    "`1 / (1 + e^-x)`." sigmoid();
    "`max(x, 0)`." relu();
    "`min(max(x, 0), 6)`." relu6();
    "`x Φ(x)`, with `Φ` the normal distribution function." gelu();
    "GELU by its tanh formula: `x (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2`." gelu_tanh();
    "`x / (1 + e^-x)`." silu();
    "`x tanh(log(1 + e^x))`." mish();
    "`1.0507 (x where x > 0, else 1.6733 (e^x - 1))`." selu();
    "`x / (1 + |x|)`." softsign();
    "`log(1 / (1 + e^-x))`." logsigmoid();
    "`min(max(x + 3, 0), 6) / 6`." hardsigmoid();
    "`x min(max(x + 3, 0), 6) / 6`." hardswish();
    "`min(max(x, min_val), max_val)`; the gradient passes strictly inside." hardtanh(; min_val, max_val);
    "`min(max(x, min), max)`; the gradient passes at the bounds, too." clamp(; min, max);
    "`x` where `x > 0`, else `negative_slope x`." leaky_relu(; negative_slope);
    "`x` where `x > 0`, else `alpha (e^x - 1)`." elu(; alpha);
    "`x` where `x > 0`, else `alpha (e^(x / alpha) - 1)`." celu(; alpha);
    "`log(1 + e^(beta x)) / beta`, and `x` itself where `beta x > threshold`." softplus(; beta, threshold);
    "`x` where `x > 0`, else `weight x`. `weight` broadcasts: a slope a channel has the shape `[c, 1, 1]`." prelu(weight);
    "`x^y`; for a base of 0 the gradient by `y` is 0." pow(y);
    "The larger of both; a tie gives each half the gradient." maximum(other);
    "The smaller of both; a tie gives each half the gradient." minimum(other);
    "`x + s`." add_scalar(; s);
    "`s x`." mul_scalar(; s);
    "`x / s`." div_scalar(; s);
    "`s - x`." rsub_scalar(; s);
    "`s / x`." rdiv_scalar(; s);
    "Whether `x = y`." eq(other);
    "Whether `x ≠ y`." ne(other);
    "Whether `x < y`." lt(other);
    "Whether `x ≤ y`." le(other);
    "Whether `x > y`." gt(other);
    "Whether `x ≥ y`." ge(other);
    "Whether `x = s`." eq_scalar(; s);
    "Whether `x ≠ s`." ne_scalar(; s);
    "Whether `x < s`." lt_scalar(; s);
    "Whether `x ≤ s`." le_scalar(; s);
    "Whether `x > s`." gt_scalar(; s);
    "Whether `x ≥ s`." ge_scalar(; s);
    "Whether it is NaN." isnan();
    "Whether it is an infinity." isinf();
    "Both, of truth values." logical_and(other);
    "One or both, of truth values." logical_or(other);
    "Either, of truth values." logical_xor(other);
    "The opposite truth value." logical_not();
}

impl Tensor {
    /// `x^p`. An exponent of 2 is [`square`](Tensor::square), of 0.5 [`sqrt`](Tensor::sqrt); integers keep negative bases real.
    #[track_caller]
    pub fn pow_scalar(&self, p: f64) -> Tensor {
        if p == 2.0 {
            self.square()
        } else if p == 0.5 {
            self.sqrt()
        } else if p.fract() == 0.0 {
            apply("powi", &[p], &[self])
        } else {
            apply("pow_scalar", &[p], &[self])
        }
    }

    /// `x` where it is above `min`, else `min`.
    #[track_caller]
    pub fn clamp_min(&self, min: f64) -> Tensor {
        self.clamp(min, f64::INFINITY)
    }

    /// `x` where it is below `max`, else `max`.
    #[track_caller]
    pub fn clamp_max(&self, max: f64) -> Tensor {
        self.clamp(f64::NEG_INFINITY, max)
    }

    /// `a` where the condition (a tensor of truth values) holds, else `b`: `Tensor::where_(&cond, &a, &b)` or `cond.where_(&a, &b)`.
    #[track_caller]
    pub fn where_(&self, a: &Tensor, b: &Tensor) -> Tensor {
        apply("where", &[], &[self, a, b])
    }

    /// `x` where the condition holds, else 0, whatever `x` is there.
    #[track_caller]
    pub fn mask(&self, condition: &Tensor) -> Tensor {
        apply("mask", &[], &[condition, self])
    }

    /// 0 where the condition holds, whatever `x` is there, else `x`.
    #[track_caller]
    pub fn mask_not(&self, condition: &Tensor) -> Tensor {
        apply("mask_not", &[], &[condition, self])
    }
}

/// An operator between tensors, owned or borrowed, and with numbers on either side: `row`, then the forms for `x op s` and `s op x`.
macro_rules! operators {
    ($($op:ident :: $method:ident => $row:literal, |$x:ident, $s:ident| $right:expr, $left:expr;)*) => {$(
        operators!(@tensors $op $method $row; Tensor, Tensor; Tensor, &Tensor; &Tensor, Tensor; &Tensor, &Tensor);
        operators!(@numbers $op $method; Tensor, |$x, $s| $right, $left; &Tensor, |$x, $s| $right, $left);
    )*};
    (@tensors $op:ident $method:ident $row:literal; $($a:ty, $b:ty);*) => {$(
        impl $op<$b> for $a {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, other: $b) -> Tensor {
                let (a, b): (&Tensor, &Tensor) = (std::borrow::Borrow::borrow(&self), std::borrow::Borrow::borrow(&other));
                apply($row, &[], &[a, b])
            }
        }
    )*};
    (@numbers $op:ident $method:ident; $($a:ty, |$x:ident, $s:ident| $right:expr, $left:expr);*) => {$(
        impl $op<f64> for $a {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, $s: f64) -> Tensor {
                let $x: &Tensor = std::borrow::Borrow::borrow(&self);
                $right
            }
        }
        impl $op<$a> for f64 {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, x: $a) -> Tensor {
                let ($x, $s): (&Tensor, f64) = (std::borrow::Borrow::borrow(&x), self);
                $left
            }
        }
    )*};
}

operators! {
    Add::add => "add", |x, s| x.add_scalar(s), x.add_scalar(s);
    Sub::sub => "sub", |x, s| x.add_scalar(-s), x.rsub_scalar(s);
    Mul::mul => "mul", |x, s| x.mul_scalar(s), x.mul_scalar(s);
    Div::div => "div", |x, s| x.div_scalar(s), x.rdiv_scalar(s);
}

impl Neg for &Tensor {
    type Output = Tensor;
    #[track_caller]
    fn neg(self) -> Tensor {
        Tensor::neg(self)
    }
}

impl Neg for Tensor {
    type Output = Tensor;
    #[track_caller]
    fn neg(self) -> Tensor {
        Tensor::neg(&self)
    }
}
