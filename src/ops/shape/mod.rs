//! Operations that move elements: cat, stack, pad.

mod cat;
mod pad;

pub use pad::PadMode;

use super::table::{Arg, Misuse, OpEntry, Order, Sample};
use crate::graph::Tensor;

pub(super) static OPS: &[OpEntry] = &[
    OpEntry {
        name: "cat",
        doc: "tensors one after the other along a dimension",
        order: Order::Any,
        nodes: &["cat"],
        samples: || {
            let case = |dim: isize, shapes: &[&[usize]]| {
                let inputs = shapes.iter().map(|&s| Arg::float(s)).collect();
                Sample::new(format!("{shapes:?} along {dim}"), inputs, 1, move |x| Ok(vec![Tensor::try_cat(x, dim)?.square()]))
            };
            vec![
                case(0, &[&[3], &[1], &[4]]),
                case(1, &[&[2, 3, 5], &[2, 1, 5], &[2, 4, 5]]),
                case(-1, &[&[7, 2], &[7, 0], &[7, 3]]),
                case(0, &[&[1usize, 1][..]; 9]),
                Sample::new("i32", vec![Arg::int([3], 9), Arg::int([2], 9)], 1, |x| Ok(vec![Tensor::try_cat(x, 0)?])),
            ]
        },
        misuse: || {
            let two = |a: &[usize], b: &[usize]| vec![Arg::float(a), Arg::float(b)];
            vec![
                Misuse::new(vec![], "cat: there are no tensors to join", |x| Ok(vec![Tensor::try_cat(x, 0)?])),
                Misuse::new(two(&[2, 3], &[3, 3]), "cat: shapes differ in more than dim 1: [2, 3] and [3, 3]", |x| Ok(vec![Tensor::try_cat(x, 1)?])),
                Misuse::new(two(&[2], &[2]), "cat: dim 1 is out of range for shape [2]", |x| Ok(vec![Tensor::try_cat(x, 1)?])),
                Misuse::new(vec![Arg::float([2]), Arg::int([2], 3)], "cat: element types differ: f32 and i32\nhelp: convert with to_dtype", |x| {
                    Ok(vec![Tensor::try_cat(x, 0)?])
                }),
            ]
        },
    },
    OpEntry {
        name: "stack",
        doc: "tensors of one shape joined along a new dimension",
        order: Order::Any,
        nodes: &[],
        samples: || {
            vec![
                Sample::new("3 of [4] at 0", vec![Arg::float([4]); 3], 1, |x| Ok(vec![Tensor::try_stack(x, 0)?.square()])),
                Sample::new("2 of [3, 5] at -1", vec![Arg::float([3, 5]); 2], 1, |x| Ok(vec![Tensor::try_stack(x, -1)?.square()])),
            ]
        },
        misuse: || {
            vec![Misuse::new(vec![Arg::float([2]), Arg::float([3])], "stack: shapes differ: [2] and [3]", |x| Ok(vec![Tensor::try_stack(x, 0)?]))]
        },
    },
    OpEntry {
        name: "pad",
        doc: "a tensor with a border of one value, of its reflection or of its edge",
        order: Order::Any,
        nodes: &["pad"],
        samples: || {
            let case = |shape: &'static [usize], pad: &'static [isize], mode: PadMode| {
                Sample::new(format!("{shape:?} by {pad:?}, {mode:?}"), vec![Arg::float(shape)], 9, move |x| Ok(vec![x[0].try_pad(pad, mode)?.square()]))
            };
            vec![
                case(&[5], &[2, 1], PadMode::Constant(0.5)),
                case(&[1], &[1, 1], PadMode::Replicate),
                case(&[2, 3, 4, 5], &[1, 2, 0, 3], PadMode::Constant(-1.0)),
                case(&[2, 3, 4], &[0, 0, 1, 1], PadMode::Constant(0.0)),
                case(&[4, 5], &[-1, 2, 1, -2], PadMode::Constant(0.0)),
                case(&[2, 2, 4, 5], &[2, 1, 3, 0], PadMode::Reflect),
                case(&[2, 2, 4, 5], &[2, 1, 3, 0], PadMode::Replicate),
                case(&[0, 2], &[1, 1, 1, 0], PadMode::Constant(2.0)),
            ]
        },
        misuse: || {
            vec![
                Misuse::new(vec![Arg::float([2, 3])], "pad: takes two sizes a dimension, last one first: got 3 for shape [2, 3]", |x| {
                    Ok(vec![x[0].try_pad(&[1, 1, 1], PadMode::Constant(0.0))?])
                }),
                Misuse::new(vec![Arg::float([2, 3])], "pad: a reflection of 3 needs more than 3 elements in dim 1 of shape [2, 3]", |x| {
                    Ok(vec![x[0].try_pad(&[3, 0], PadMode::Reflect)?])
                }),
                Misuse::new(vec![Arg::float([2, 3])], "pad: sizes [-2, -2] take off more than the 3 elements of dim 1", |x| {
                    Ok(vec![x[0].try_pad(&[-2, -2], PadMode::Constant(0.0))?])
                }),
            ]
        },
    },
];
