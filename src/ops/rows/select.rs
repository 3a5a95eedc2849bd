//! Truth values: comparisons, logic, choices, casts. In a row's value a truth value is 1 or 0; in memory and in WGSL it is a u32.
//!
//! `!=` never stands between floats (two drivers of three get NaN wrong); "not equal" is one minus "equal".

use super::rows;
use crate::tensor::DType;

rows! {
    /// x = y
    eq(x, y) {
        sig: Compare, ulp: 0.0, wgsl: "u32(x == y)",
        value: T::truth(x == y), slopes: [Zero, Zero],
        domain: [(-3.0, 3.0), (-3.0, 3.0)], kinks: [], samples: [[]],
    }
    /// x ≠ y
    ne(x, y) {
        sig: Compare, ulp: 0.0, wgsl: "(1u - u32(x == y))",
        value: T::truth(x != y), slopes: [Zero, Zero],
        domain: [(-3.0, 3.0), (-3.0, 3.0)], kinks: [], samples: [[]],
    }
    /// x < y
    lt(x, y) {
        sig: Compare, ulp: 0.0, wgsl: "u32(x < y)",
        value: T::truth(x < y), slopes: [Zero, Zero],
        domain: [(-3.0, 3.0), (-3.0, 3.0)], kinks: [], samples: [[]],
    }
    /// x ≤ y
    le(x, y) {
        sig: Compare, ulp: 0.0, wgsl: "u32(x <= y)",
        value: T::truth(x <= y), slopes: [Zero, Zero],
        domain: [(-3.0, 3.0), (-3.0, 3.0)], kinks: [], samples: [[]],
    }
    /// x > y
    gt(x, y) {
        sig: Compare, ulp: 0.0, wgsl: "u32(x > y)",
        value: T::truth(x > y), slopes: [Zero, Zero],
        domain: [(-3.0, 3.0), (-3.0, 3.0)], kinks: [], samples: [[]],
    }
    /// x ≥ y
    ge(x, y) {
        sig: Compare, ulp: 0.0, wgsl: "u32(x >= y)",
        value: T::truth(x >= y), slopes: [Zero, Zero],
        domain: [(-3.0, 3.0), (-3.0, 3.0)], kinks: [], samples: [[]],
    }
    /// x = s
    eq_scalar(x; s) {
        sig: Compare, ulp: 0.0, wgsl: "u32(x == T(p0))",
        value: T::truth(x == s), slopes: [Zero],
        domain: [(-3.0, 3.0)], kinks: [], samples: [[1.0]],
    }
    /// x ≠ s
    ne_scalar(x; s) {
        sig: Compare, ulp: 0.0, wgsl: "(1u - u32(x == T(p0)))",
        value: T::truth(x != s), slopes: [Zero],
        domain: [(-3.0, 3.0)], kinks: [], samples: [[1.0]],
    }
    /// x < s
    lt_scalar(x; s) {
        sig: Compare, ulp: 0.0, wgsl: "u32(x < T(p0))",
        value: T::truth(x < s), slopes: [Zero],
        domain: [(-3.0, 3.0)], kinks: [1.0], samples: [[1.0]],
    }
    /// x ≤ s
    le_scalar(x; s) {
        sig: Compare, ulp: 0.0, wgsl: "u32(x <= T(p0))",
        value: T::truth(x <= s), slopes: [Zero],
        domain: [(-3.0, 3.0)], kinks: [1.0], samples: [[1.0]],
    }
    /// x > s
    gt_scalar(x; s) {
        sig: Compare, ulp: 0.0, wgsl: "u32(x > T(p0))",
        value: T::truth(x > s), slopes: [Zero],
        domain: [(-3.0, 3.0)], kinks: [1.0], samples: [[1.0]],
    }
    /// x ≥ s
    ge_scalar(x; s) {
        sig: Compare, ulp: 0.0, wgsl: "u32(x >= T(p0))",
        value: T::truth(x >= s), slopes: [Zero],
        domain: [(-3.0, 3.0)], kinks: [1.0], samples: [[1.0]],
    }
    /// Whether x is NaN
    isnan(x) {
        sig: Compare, ulp: 0.0, wgsl: "u32(is_nan(f32(x)))",
        value: T::truth(x.is_nan()), slopes: [Zero],
        domain: [(-3.0, 3.0)], kinks: [], samples: [[]],
    }
    /// Whether x is an infinity
    isinf(x) {
        sig: Compare, ulp: 0.0, wgsl: "u32(is_inf(f32(x)))",
        value: T::truth(x.is_infinite()), slopes: [Zero],
        domain: [(-3.0, 3.0)], kinks: [], samples: [[]],
    }
    /// x and y
    logical_and(x, y) {
        sig: Logic, ulp: 0.0, wgsl: "(x & y)",
        value: x * y, slopes: [Zero, Zero],
        domain: [(0.0, 1.0), (0.0, 1.0)], kinks: [], samples: [[]],
    }
    /// x or y
    logical_or(x, y) {
        sig: Logic, ulp: 0.0, wgsl: "(x | y)",
        value: x.max(y), slopes: [Zero, Zero],
        domain: [(0.0, 1.0), (0.0, 1.0)], kinks: [], samples: [[]],
    }
    /// Either x or y
    logical_xor(x, y) {
        sig: Logic, ulp: 0.0, wgsl: "(x ^ y)",
        value: T::truth(x != y), slopes: [Zero, Zero],
        domain: [(0.0, 1.0), (0.0, 1.0)], kinks: [], samples: [[]],
    }
    /// Not x
    logical_not(x) {
        sig: Logic, ulp: 0.0, wgsl: "(1u - x)",
        value: T::ONE - x, slopes: [Zero],
        domain: [(0.0, 1.0)], kinks: [], samples: [[]],
    }
    /// y where x, else z
    where(x, y, z) {
        sig: Select, ulp: 0.0, wgsl: "select(y, z, x == 0u)",
        value: if x == T::ZERO { z } else { y },
        slopes: [Zero, Grad("x", |g| g.grad().mask(g.input(0))), Grad("x", |g| g.grad().mask_not(g.input(0)))],
        domain: [(0.0, 1.0), (-3.0, 3.0), (-3.0, 3.0)], kinks: [], samples: [[]],
    }
    /// y where x, else 0, whatever y is there (0 times infinity would be NaN)
    mask(x, y) {
        sig: Select, ulp: 0.0, wgsl: "select(y, T(0), x == 0u)",
        value: if x == T::ZERO { T::ZERO } else { y },
        slopes: [Zero, Grad("x", |g| g.grad().mask(g.input(0)))],
        domain: [(0.0, 1.0), (-3.0, 3.0)], kinks: [], samples: [[]],
    }
    /// 0 where x, whatever y is there, else y
    mask_not(x, y) {
        sig: Select, ulp: 0.0, wgsl: "select(T(0), y, x == 0u)",
        value: if x == T::ZERO { y } else { T::ZERO },
        slopes: [Zero, Grad("x", |g| g.grad().mask_not(g.input(0)))],
        domain: [(0.0, 1.0), (-3.0, 3.0)], kinks: [], samples: [[]],
    }
    /// x as f32
    to_f32(x) {
        sig: Cast(DType::F32), ulp: 1.0, wgsl: "f32(x)",
        value: x, slopes: [One],
        domain: [(-3.0, 3.0)], kinks: [], samples: [[]],
    }
    /// x as f16: the nearest, ties to even, and an infinity beyond 65504
    to_f16(x) {
        sig: Cast(DType::F16), ulp: 0.0, wgsl: "f32(x)",
        value: x, slopes: [One],
        domain: [(-3.0, 3.0)], kinks: [], samples: [[]],
    }
    /// x as f64, on the CPU only
    to_f64(x) {
        sig: Cast(DType::F64), ulp: 0.0, wgsl: "x",
        value: x, slopes: [One],
        domain: [(-3.0, 3.0)], kinks: [], samples: [[]],
    }
    /// x as i32, floats towards zero; what becomes of floats beyond the range depends on the device
    to_i32(x) {
        sig: Cast(DType::I32), ulp: 0.0, wgsl: "i32(x)",
        value: x.trunc(), slopes: [Zero],
        domain: [(-3.0, 3.0)], kinks: [], samples: [[]],
    }
    /// x as u32, floats towards zero; what becomes of floats beyond the range depends on the device
    to_u32(x) {
        sig: Cast(DType::U32), ulp: 0.0, wgsl: "u32(x)",
        value: x.trunc(), slopes: [Zero],
        domain: [(0.0, 3.0)], kinks: [], samples: [[]],
    }
    /// Whether x is not 0
    to_bool(x) {
        sig: Cast(DType::Bool), ulp: 0.0, wgsl: "(1u - u32(x == T(0)))",
        value: T::truth(x != T::ZERO), slopes: [Zero],
        domain: [(-3.0, 3.0)], kinks: [], samples: [[]],
    }
}
