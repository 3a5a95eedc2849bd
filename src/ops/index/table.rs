//! The table's rows of operations by index.

use crate::graph::Tensor;
use crate::ops::table::{Arg, Misuse, OpEntry, Order, Sample};

/// Shape, dim, the index's shape.
const CASES: &[(&[usize], usize, &[usize])] = &[
    (&[7], 0, &[5]),
    (&[3, 5], 1, &[3, 4]),
    (&[3, 5], 0, &[2, 5]),
    (&[4, 3, 5], 1, &[2, 7, 3]),
    (&[1, 1], 0, &[1, 1]),
    (&[3, 2], 0, &[0, 2]),
    (&[31, 2], 0, &[20_011, 2]),
];

/// Shape, dim, the index's length.
const LISTS: &[(&[usize], isize, usize)] = &[(&[7], 0, 9), (&[5, 3], 0, 4), (&[2, 6, 3], 1, 11), (&[2, 6, 4], 1, 5), (&[2, 3], -1, 1), (&[3, 2], 0, 0), (&[300, 40], 0, 1009)];

pub(in crate::ops) static OPS: &[OpEntry] = &[
    OpEntry {
        name: "gather",
        doc: "elements along a dimension at the places that an index names",
        order: Order::Any,
        nodes: &["gather"],
        samples: || {
            CASES
                .iter()
                .map(|&(shape, dim, index)| {
                    let inputs = vec![Arg::float(shape), Arg::int(index, shape[dim] as i32)];
                    Sample::new(format!("{shape:?} along {dim} by {index:?}"), inputs, index[dim], move |x| {
                        Ok(vec![x[0].square().try_gather(dim as isize, &x[1])?])
                    })
                })
                .collect()
        },
        misuse: || {
            vec![
                Misuse::new(
                    vec![Arg::float([2, 3]), Arg::int([3, 3], 2)],
                    "gather: the index of shape [3, 3] must lie inside the input of shape [2, 3] (but for dim 1)",
                    |x| Ok(vec![x[0].try_gather(1, &x[1])?]),
                ),
                Misuse::new(vec![Arg::float([3]), Arg::int([9], 100)], "gather: index out of range: must be in 0..3", |x| Ok(vec![x[0].try_gather(0, &x[1])?])),
                Misuse::new(vec![Arg::float([3]), Arg::float([3])], "gather: the index must be i32, got f32\nhelp: convert with to_dtype", |x| {
                    Ok(vec![x[0].try_gather(0, &x[1])?])
                }),
            ]
        },
    },
    OpEntry {
        name: "index_select",
        doc: "the slices of a dimension that a list names",
        order: Order::Any,
        nodes: &["index_select"],
        samples: || {
            LISTS
                .iter()
                .map(|&(shape, dim, n)| {
                    let size = shape[dim.rem_euclid(shape.len() as isize) as usize];
                    Sample::new(format!("{shape:?} along {dim} by {n}"), vec![Arg::float(shape), Arg::int([n], size as i32)], n, move |x| {
                        Ok(vec![x[0].square().try_index_select(dim, &x[1])?])
                    })
                })
                .collect()
        },
        misuse: || {
            vec![
                Misuse::new(vec![Arg::float([2, 3]), Arg::int([1, 2], 2)], "index_select: the index must have one dimension, got shape [1, 2]", |x| {
                    Ok(vec![x[0].try_index_select(0, &x[1])?])
                }),
                // What is wrong in the data shows when it is read.
                Misuse::new(vec![Arg::float([2, 3]), Arg::int([9], 100)], "index_select: index out of range: must be in 0..2", |x| {
                    Ok(vec![x[0].try_index_select(0, &x[1])?])
                }),
            ]
        },
    },
    OpEntry {
        name: "embedding",
        doc: "a row of a table for each index",
        order: Order::Any,
        nodes: &["embedding"],
        samples: || {
            let case = |n: usize, width: usize, index: &'static [usize]| {
                let terms = index.iter().product();
                Sample::new(format!("{index:?} of [{n}, {width}]"), vec![Arg::float([n, width]), Arg::int(index, n as i32)], terms, |x| {
                    Ok(vec![Tensor::try_embedding(&x[0].square(), &x[1])?])
                })
            };
            vec![case(7, 3, &[5]), case(11, 4, &[2, 3]), case(3, 1, &[1, 1, 2]), case(1, 1, &[1]), case(5, 2, &[0]), case(1000, 17, &[8, 64])]
        },
        misuse: || {
            vec![Misuse::new(vec![Arg::float([5]), Arg::int([2], 5)], "embedding: the weight must have two dimensions, got shape [5]", |x| {
                Ok(vec![Tensor::try_embedding(&x[0], &x[1])?])
            })]
        },
    },
    OpEntry {
        name: "scatter_add",
        doc: "elements added at the places that an index names",
        order: Order::Any,
        nodes: &["scatter_add"],
        samples: || {
            CASES
                .iter()
                .map(|&(shape, dim, index)| {
                    let inputs = vec![Arg::float(shape), Arg::int(index, shape[dim] as i32), Arg::float(index)];
                    Sample::new(format!("{shape:?} along {dim} by {index:?}"), inputs, index[dim].max(1), move |x| {
                        Ok(vec![x[0].try_scatter_add(dim as isize, &x[1], &x[2].square())?])
                    })
                })
                .collect()
        },
        misuse: || {
            let run = |x: &[Tensor]| Ok(vec![x[0].try_scatter_add(0, &x[1], &x[2])?]);
            vec![
                Misuse::new(
                    vec![Arg::float([3]), Arg::int([4], 3), Arg::float([2])],
                    "scatter_add: the index of shape [4] must lie inside the source of shape [2]",
                    run,
                ),
                Misuse::new(vec![Arg::float([3]), Arg::int([9], 100), Arg::float([9])], "scatter_add: index out of range: must be in 0..3", run),
            ]
        },
    },
    OpEntry {
        name: "index_add",
        doc: "slices added to those that a list names",
        order: Order::Any,
        nodes: &["index_add"],
        samples: || {
            LISTS
                .iter()
                .map(|&(shape, dim, n)| {
                    let d = dim.rem_euclid(shape.len() as isize) as usize;
                    let mut from = shape.to_vec();
                    from[d] = n;
                    let inputs = vec![Arg::float(shape), Arg::int([n], shape[d] as i32), Arg::float(from)];
                    Sample::new(format!("{shape:?} along {dim} by {n}"), inputs, n, move |x| Ok(vec![x[0].try_index_add(dim, &x[1], &x[2].square())?]))
                })
                .collect()
        },
        misuse: || {
            vec![Misuse::new(
                vec![Arg::float([3, 2]), Arg::int([4], 3), Arg::float([4, 3])],
                "index_add: the source must have shape [4, 2], got [4, 3]",
                |x| Ok(vec![x[0].try_index_add(0, &x[1], &x[2])?]),
            )]
        },
    },
];
