//! Arithmetic: rows over numbers of any type. On integers the results are exact wherever they fit the type.
//!
//! One WGSL text serves floats and integers: NaN is asked of `f32(x)`, which no integer is, and scalars go through `T(p0)`.

use super::methods::apply;
use super::rows;

rows! {
    /// x + y
    add(x, y) {
        sig: Number, ulp: 1.0, wgsl: "x + y",
        value: x + y,
        slopes: [One, One],
        domain: [(-3.0, 3.0), (-3.0, 3.0)], kinks: [], samples: [[]],
    }
    /// x - y
    sub(x, y) {
        sig: Number, ulp: 1.0, wgsl: "x - y",
        value: x - y,
        slopes: [One, Grad("", |g| g.grad().neg())],
        domain: [(-3.0, 3.0), (-3.0, 3.0)], kinks: [], samples: [[]],
    }
    /// x y
    mul(x, y) {
        sig: Number, ulp: 1.0, wgsl: "x * y",
        value: x * y,
        slopes: [Grad("y", |g| g.grad() * g.input(1)), Grad("x", |g| g.grad() * g.input(0))],
        domain: [(-3.0, 3.0), (-3.0, 3.0)], kinks: [], samples: [[]],
    }
    /// x / y, for floats
    div(x, y) {
        sig: Float, ulp: 3.0, wgsl: "x / y",
        value: x / y,
        slopes: [Grad("y", |g| g.grad() / g.input(1)), Grad("yo", |g| &(g.grad() * g.output()).neg() / g.input(1))],
        domain: [(-3.0, 3.0), (0.3, 3.0)], kinks: [], samples: [[]],
    }
    /// x + s
    add_scalar(x; s) {
        sig: Number, ulp: 1.0, wgsl: "x + T(p0)",
        value: x + s,
        slopes: [One],
        domain: [(-3.0, 3.0)], kinks: [], samples: [[1.5], [-2.0]],
    }
    /// s - x
    rsub_scalar(x; s) {
        sig: Number, ulp: 1.0, wgsl: "T(p0) - x",
        value: s - x,
        slopes: [Grad("", |g| g.grad().neg())],
        domain: [(-3.0, 3.0)], kinks: [], samples: [[1.5], [-2.0]],
    }
    /// s x
    mul_scalar(x; s) {
        sig: Number, ulp: 1.0, wgsl: "x * T(p0)",
        value: x * s,
        slopes: [Grad("", |g| g.grad().mul_scalar(g.float(0)))],
        domain: [(-3.0, 3.0)], kinks: [], samples: [[1.5], [-2.0]],
    }
    /// x / s, for floats
    div_scalar(x; s) {
        sig: Float, ulp: 3.0, wgsl: "x / p0",
        value: x / s,
        slopes: [Grad("", |g| g.grad().div_scalar(g.float(0)))],
        domain: [(-3.0, 3.0)], kinks: [], samples: [[1.5], [-3.0]],
    }
    /// s / x, for floats
    rdiv_scalar(x; s) {
        sig: Float, ulp: 3.0, wgsl: "p0 / x",
        value: s / x,
        slopes: [Grad("xo", |g| &(g.grad() * g.output()).neg() / g.input(0))],
        domain: [(0.3, 3.0)], kinks: [], samples: [[1.5], [-2.0]],
    }
    /// -x
    neg(x) {
        sig: Number, ulp: 0.0, wgsl: "T(0) - x",
        value: -x,
        slopes: [Grad("", |g| g.grad().neg())],
        domain: [(-3.0, 3.0)], kinks: [], samples: [[]],
    }
    /// |x|; slope sign(x), so 0 at 0
    abs(x) {
        sig: Number, ulp: 0.0, wgsl: "abs(x)",
        value: x.abs(),
        slopes: [Row("sign")],
        domain: [(-3.0, 3.0)], kinks: [0.0], samples: [[]],
    }
    /// -1, 0 or 1
    sign(x) {
        sig: Number, ulp: 0.0, wgsl: "select(T(x > T(0)) - T(x < T(0)), x, is_nan(f32(x)))",
        value: x.sign(),
        slopes: [Zero],
        domain: [(-3.0, 3.0)], kinks: [0.0], samples: [[]],
    }
    /// x x
    square(x) {
        sig: Number, ulp: 1.0, wgsl: "x * x",
        value: x * x,
        slopes: [Grad("x", |g| &(g.grad() * g.input(0)) * 2.0)],
        domain: [(-3.0, 3.0)], kinks: [], samples: [[]],
    }
    /// The larger of x and y; a tie gives each half the gradient
    maximum(x, y) {
        sig: Number, ulp: 0.0, wgsl: "select(y, x, x > y || is_nan(f32(x)))",
        value: x.max(y),
        slopes: [Grad("xy", |g| g.grad() * &apply("share", &[], &[g.input(1), g.input(0)])), Grad("xy", |g| g.grad() * &apply("share", &[], &[g.input(0), g.input(1)]))],
        domain: [(-3.0, 0.0), (0.1, 3.0)], kinks: [], samples: [[]],
    }
    /// The smaller of x and y; a tie gives each half the gradient
    minimum(x, y) {
        sig: Number, ulp: 0.0, wgsl: "select(y, x, x < y || is_nan(f32(x)))",
        value: x.min(y),
        slopes: [Grad("xy", |g| g.grad() * &apply("share", &[], &[g.input(0), g.input(1)])), Grad("xy", |g| g.grad() * &apply("share", &[], &[g.input(1), g.input(0)]))],
        domain: [(-3.0, 0.0), (0.1, 3.0)], kinks: [], samples: [[]],
    }
    /// What y gets of the gradient of max(x, y), equally what x gets of min(x, y)'s: 0 where x > y, 1/2 at a tie, else 1
    share(x, y) {
        sig: Float, ulp: 0.0, wgsl: "select(select(1.0, 0.5, x == y), 0.0, x > y)",
        value: if x > y { T::ZERO } else if x == y { T::of(0.5) } else { T::ONE },
        slopes: [Zero, Zero],
        domain: [(-3.0, 0.0), (0.1, 3.0)], kinks: [], samples: [[]],
    }
}
