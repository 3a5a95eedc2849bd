//! Rows of the operation table.

use crate::graph::Tensor;
use crate::ops::table::{Arg, Misuse, OpEntry, Order, Sample};
use crate::tensor::Shape;

fn product(a: &[usize], b: &[usize]) -> Sample {
    let k = a[a.len() - 1];
    let terms = k.max(Shape::from(a).numel() / k.max(1)).max(b[b.len() - 1]);
    Sample::new(format!("{a:?} x {b:?}"), vec![Arg::float(a), Arg::float(b)], terms, |x| Ok(vec![x[0].try_matmul(&x[1])?]))
}

/// A product of views: what is transposed is said by the letters, T or N.
fn transposed(a: &[usize], b: &[usize], ta: bool, tb: bool) -> Sample {
    let turn = |t: &Tensor, yes: bool| if yes { t.t() } else { t.clone() };
    let letter = |yes: bool| if yes { 'T' } else { 'N' };
    let terms = a.iter().chain(b).copied().max().unwrap_or(1);
    Sample::new(format!("{}{} {a:?} x {b:?}", letter(ta), letter(tb)), vec![Arg::float(a), Arg::float(b)], terms, move |x| {
        Ok(vec![turn(&x[0], ta).try_matmul(&turn(&x[1], tb))?])
    })
}

fn dense(x: &[usize], out: usize, bias: bool) -> Sample {
    let k = x[x.len() - 1];
    let mut inputs = vec![Arg::float(x), Arg::float([out, k])];
    if bias {
        inputs.push(Arg::float([out]));
    }
    let terms = Shape::from(x).numel().max(out);
    Sample::new(format!("{x:?} to {out}{}", if bias { " with bias" } else { "" }), inputs, terms, |x| Ok(vec![x[0].try_linear(&x[1], x.get(2))?]))
}

pub(in crate::ops) static OPS: &[OpEntry] = &[
    OpEntry {
        name: "matmul",
        doc: "the matrix product, batches broadcast",
        order: Order::Any,
        nodes: &["matmul"],
        samples: || {
            vec![
                product(&[3, 5], &[5, 7]),
                product(&[1, 1], &[1, 1]),
                product(&[16, 64], &[64, 96]),
                product(&[65, 130], &[130, 33]),
                product(&[4, 2500], &[2500, 6]),
                product(&[5], &[5]),
                product(&[5], &[2, 5, 3]),
                product(&[4, 5], &[5]),
                product(&[3, 2, 5], &[3, 5, 4]),
                product(&[2, 1, 4, 6], &[3, 6, 5]),
                product(&[2, 3, 8], &[8, 4]),
                product(&[0, 3], &[3, 2]),
                product(&[2, 0], &[0, 3]),
                transposed(&[7, 5], &[7, 3], true, false),
                transposed(&[5, 7], &[3, 7], false, true),
                transposed(&[7, 5], &[3, 7], true, true),
                transposed(&[29, 40], &[29, 36], true, false),
                transposed(&[9, 64], &[40, 64], false, true),
                product(&[40, 12], &[12, 1028]),
                transposed(&[37, 9], &[1030, 9], false, true),
                transposed(&[12, 44], &[12, 600], true, false),
                transposed(&[6, 36], &[6, 8], true, false),
                transposed(&[70, 8], &[12, 8], false, true),
                Sample::new("windows and flips", vec![Arg::float([9, 8]), Arg::float([11, 8])], 9, |x| {
                    let a = x[0].try_narrow(0, 2, 5)?.flip(&[1]);
                    Ok(vec![a.try_matmul(&x[1].try_narrow(0, 3, 8)?.try_narrow(1, 1, 6)?)?])
                }),
                Sample::new("one matrix with itself, a batch permuted", vec![Arg::float([4, 3, 4])], 12, |x| {
                    let a = x[0].try_permute(&[2, 0, 1])?;
                    Ok(vec![a.try_matmul(&x[0])?])
                }),
            ]
        },
        misuse: || {
            vec![
                Misuse::new(vec![Arg::float([2, 3]), Arg::float([2, 2])], "matmul: inner dimensions differ: [2, 3] and [2, 2]", |x| {
                    Ok(vec![x[0].try_matmul(&x[1])?])
                }),
                Misuse::new(vec![Arg::float([2]), Arg::float([3])], "matmul: inner dimensions differ: [2] and [3]", |x| Ok(vec![x[0].try_matmul(&x[1])?])),
                Misuse::new(
                    vec![Arg::float([2, 4, 3]), Arg::float([3, 3, 5])],
                    "matmul: batch dimensions do not broadcast: [2, 4, 3] and [3, 3, 5]",
                    |x| Ok(vec![x[0].try_matmul(&x[1])?]),
                ),
                Misuse::new(vec![Arg::float([]), Arg::float([3])], "matmul: both inputs need at least one dimension: [] and [3]", |x| {
                    Ok(vec![x[0].try_matmul(&x[1])?])
                }),
                Misuse::new(
                    vec![Arg::float([2, 3]), Arg::int([3, 2], 5)],
                    "matmul: takes floats of one type, got f32 and i32\nhelp: convert with to_dtype",
                    |x| Ok(vec![x[0].try_matmul(&x[1])?]),
                ),
            ]
        },
    },
    OpEntry {
        name: "linear",
        doc: "x times weight transposed, plus bias",
        order: Order::Any,
        nodes: &["matmul"],
        samples: || vec![dense(&[3, 5], 4, true), dense(&[0, 5], 3, true), dense(&[5], 3, true), dense(&[2, 3, 8], 36, true), dense(&[6, 20], 12, false), dense(&[1, 1], 1, true)],
        misuse: || {
            vec![
                Misuse::new(
                    vec![Arg::float([2, 3]), Arg::float([5, 4])],
                    "linear: input of shape [2, 3] does not fit weight [5, 4]: the last dimension must be 4",
                    |x| Ok(vec![x[0].try_linear(&x[1], None)?]),
                ),
                Misuse::new(
                    vec![Arg::float([2, 4]), Arg::float([5, 4]), Arg::float([4])],
                    "linear: bias of shape [4] does not fit weight [5, 4]: it must be [5]",
                    |x| Ok(vec![x[0].try_linear(&x[1], x.get(2))?]),
                ),
            ]
        },
    },
];
