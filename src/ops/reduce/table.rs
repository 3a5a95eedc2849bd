//! The table's rows of reductions: samples and misuse.

use crate::error::Result;
use crate::graph::Tensor;
use crate::ops::table::{Arg, Misuse, OpEntry, Order, Sample};

/// Shape, dims, keepdim: rows, columns, both at once, scalars, sizes of 1, primes, and more terms than one part holds.
type Case = (&'static [usize], &'static [isize], bool);

const CASES: &[Case] = &[
    (&[7], &[0], false),
    (&[], &[], false),
    (&[3, 5], &[1], true),
    (&[3, 5], &[0], false),
    (&[2, 3, 5, 7], &[0, 2, 3], false),
    (&[4, 1, 3], &[-2], false),
    (&[2, 3, 2, 3, 2], &[0, 2, 4], true),
    (&[2, 3, 2, 3, 2], &[1, 3], false),
    (&[1031], &[0], false),
    (&[5, 3, 211], &[0, 2], false),
    // In sixteens, twice.
    (&[2, 300, 32], &[1], false),
];

/// Samples over [`CASES`] and `more`.
fn samples(more: &[Case], run: fn(&Tensor, &[isize], bool) -> Result<Tensor>) -> Vec<Sample> {
    let cases = CASES.iter().chain(more);
    cases
        .map(|&(shape, dims, keepdim)| {
            let terms = (0..shape.len()).filter(|&d| dims.is_empty() || dims.iter().any(|&x| x.rem_euclid(shape.len() as isize) as usize == d));
            let terms = terms.map(|d| shape[d]).product();
            let label = format!("{shape:?} over {dims:?}{}", if keepdim { ", kept" } else { "" });
            Sample::new(label, vec![Arg::float(shape)], terms, move |x| Ok(vec![run(&x[0], dims, keepdim)?]))
        })
        .collect()
}

/// The misuse that every reduction over dims refuses, with its message.
macro_rules! misuse {
    ($name:literal, $f:expr) => {
        || {
            let run: fn(&Tensor, &[isize], bool) -> Result<Tensor> = $f;
            vec![
                Misuse::new(vec![Arg::float([2, 3])], concat!($name, ": dim 2 is out of range for shape [2, 3]"), move |x| Ok(vec![run(&x[0], &[2], false)?])),
                Misuse::new(vec![Arg::float([2, 3])], concat!($name, ": dim -1 appears twice in [1, -1]"), move |x| Ok(vec![run(&x[0], &[1, -1], false)?])),
            ]
        }
    };
}

/// One that takes a single dimension.
fn arg_samples(run: fn(&Tensor, isize, bool) -> Result<Tensor>) -> Vec<Sample> {
    let cases: &[(&[usize], isize, bool)] = &[(&[7], 0, false), (&[3, 5], 1, true), (&[3, 5, 4], 1, false), (&[2, 1031], -1, false), (&[600, 3], 0, false), (&[1], 0, false), (&[0, 3], 1, false)];
    cases
        .iter()
        .map(|&(shape, dim, keepdim)| {
            Sample::new(format!("{shape:?} along {dim}"), vec![Arg::float(shape)], 1, move |x| Ok(vec![run(&x[0], dim, keepdim)?]))
        })
        .collect()
}

pub(in crate::ops) static OPS: &[OpEntry] = &[
    OpEntry {
        name: "sum",
        doc: "the sum over dimensions",
        order: Order::Any,
        nodes: &["sum"],
        samples: || samples(&[(&[0, 3], &[0], false), (&[70_001], &[0], false)], Tensor::try_sum),
        misuse: || {
            let mut all = misuse!("sum", Tensor::try_sum)();
            let message = "sum: takes floats, got i32\nhelp: convert with to_dtype";
            all.push(Misuse::new(vec![Arg::int([3], 5)], message, |x| Ok(vec![x[0].try_sum(&[0], false)?])));
            all
        },
    },
    OpEntry {
        name: "mean",
        doc: "the mean over dimensions",
        order: Order::Any,
        nodes: &[],
        samples: || samples(&[], Tensor::try_mean),
        misuse: misuse!("mean", Tensor::try_mean),
    },
    OpEntry {
        name: "amax",
        doc: "the largest element over dimensions",
        order: Order::Any,
        nodes: &["amax"],
        samples: || samples(&[(&[0, 3], &[1], false)], Tensor::try_amax),
        misuse: || {
            let mut all = misuse!("amax", Tensor::try_amax)();
            all.push(Misuse::new(vec![Arg::float([2, 0])], "amax: dim 1 of shape [2, 0] has no elements", |x| Ok(vec![x[0].try_amax(&[1], false)?])));
            all
        },
    },
    OpEntry {
        name: "amin",
        doc: "the smallest element over dimensions",
        order: Order::Any,
        nodes: &["amin"],
        samples: || samples(&[(&[0, 3], &[1], false)], Tensor::try_amin),
        misuse: misuse!("amin", Tensor::try_amin),
    },
    OpEntry {
        name: "var",
        doc: "the variance over dimensions",
        order: Order::Any,
        nodes: &[],
        samples: || samples(&[], |x, dims, keepdim| x.try_var(dims, 0, keepdim)),
        misuse: misuse!("var", |x, dims, keepdim| x.try_var(dims, 1, keepdim)),
    },
    OpEntry {
        name: "logsumexp",
        doc: "log(sum(exp(x))) over dimensions",
        order: Order::Any,
        nodes: &[],
        samples: || samples(&[], Tensor::try_logsumexp),
        misuse: misuse!("logsumexp", Tensor::try_logsumexp),
    },
    OpEntry {
        name: "argmax",
        doc: "the index of the largest element along a dimension",
        order: Order::Zero,
        nodes: &["argmax"],
        samples: || arg_samples(Tensor::try_argmax),
        misuse: || {
            vec![
                Misuse::new(vec![Arg::float([2, 3])], "argmax: dim 2 is out of range for shape [2, 3]", |x| Ok(vec![x[0].try_argmax(2, false)?])),
                Misuse::new(vec![Arg::float([2, 0])], "argmax: dim 1 of shape [2, 0] has no elements", |x| Ok(vec![x[0].try_argmax(1, false)?])),
            ]
        },
    },
    OpEntry {
        name: "argmin",
        doc: "the index of the smallest element along a dimension",
        order: Order::Zero,
        nodes: &["argmin"],
        samples: || arg_samples(Tensor::try_argmin),
        misuse: || vec![Misuse::new(vec![Arg::float([2, 3])], "argmin: dim -3 is out of range for shape [2, 3]", |x| Ok(vec![x[0].try_argmin(-3, false)?]))],
    },
];
