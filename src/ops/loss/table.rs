//! The table's rows of losses.

use super::{CrossEntropy, Reduction};
use crate::error::Result;
use crate::graph::Tensor;
use crate::ops::table::{Arg, Misuse, OpEntry, Order, Sample};

/// Input shape [n, classes, ...], whether classes have weights, the label to ignore, reduction, smoothing.
type Case = (&'static [usize], bool, i32, Reduction, f64);

const CASES: &[Case] = &[
    (&[5, 7], false, -100, Reduction::Mean, 0.0),
    (&[3, 2, 5], true, -100, Reduction::Mean, 0.0),
    (&[4, 3, 2, 3], true, 1, Reduction::None, 0.0),
    (&[70, 11], false, 1, Reduction::Mean, 0.0),
    (&[1, 1], false, -100, Reduction::Sum, 0.0),
    (&[0, 3], false, -100, Reduction::None, 0.0),
    (&[300, 5], true, 0, Reduction::Sum, 0.0),
];

fn samples(cases: &[Case], run: fn(&Tensor, &Tensor, &CrossEntropy) -> Result<Tensor>) -> Vec<Sample> {
    cases
        .iter()
        .map(|&(shape, weighted, ignore_index, reduction, label_smoothing)| {
            let mut rows = shape.to_vec();
            let classes = rows.remove(1);
            let inputs = vec![Arg::float(shape), Arg::int(rows, classes as i32)];
            let label = format!("{shape:?}, weighted {weighted}, ignoring {ignore_index}, {reduction:?}, smoothing {label_smoothing}");
            Sample::new(label, inputs, shape.iter().product(), move |x| {
                // The weights have no gradient (nor in PyTorch), so they are no input of the sample.
                let weights = (0..classes).map(|c| 0.2 + 0.3 * (c % 7) as f32).collect::<Vec<f32>>();
                let weight = if weighted { Some(Tensor::new(weights, [classes], x[0].device())?.try_to_dtype(x[0].dtype())?) } else { None };
                Ok(vec![run(&x[0], &x[1], &CrossEntropy { weight, ignore_index, reduction, label_smoothing })?])
            })
        })
        .collect()
}

pub(in crate::ops) static OPS: &[OpEntry] = &[
    OpEntry {
        name: "nll_loss",
        doc: "the negative log likelihood of labels",
        order: Order::Any,
        nodes: &["nll_loss", "nll_grad"],
        samples: || samples(CASES, Tensor::nll_loss_with),
        misuse: || {
            let run = |x: &[Tensor]| Ok(vec![x[0].nll_loss_with(&x[1], &CrossEntropy { weight: x.get(2).cloned(), ..Default::default() })?]);
            vec![
                Misuse::new(
                    vec![Arg::float([2, 3]), Arg::int([3], 3)],
                    "nll_loss: an input [n, classes, ...] needs a target [n, ...], got [2, 3] and [3]",
                    run,
                ),
                Misuse::new(vec![Arg::float([9, 3]), Arg::int([9], 100)], "nll_loss: target out of range: must be in 0..3", run),
                Misuse::new(
                    vec![Arg::float([2, 3]), Arg::float([2])],
                    "nll_loss: the target must be i32, got f32\nhelp: convert with to_dtype",
                    run,
                ),
                Misuse::new(
                    vec![Arg::float([2, 3]), Arg::int([2], 3), Arg::float([4])],
                    "nll_loss: the weight must be f32[3], got f32[4]",
                    run,
                ),
            ]
        },
    },
    OpEntry {
        name: "cross_entropy",
        doc: "the cross entropy between the softmax of logits and labels",
        order: Order::Any,
        nodes: &["cross_entropy", "cross_entropy_grad", "nll_loss", "nll_grad"],
        samples: || {
            let more: &[Case] = &[
                (&[5, 7], false, -100, Reduction::Mean, 0.1),
                (&[3, 4, 2], true, 1, Reduction::Mean, 0.3),
                (&[3, 131], true, -100, Reduction::None, 1.0),
                (&[2, 70], true, -100, Reduction::Mean, 0.2),
                (&[1100, 3], true, 1, Reduction::Mean, 0.0),
                (&[2, 1031], false, -100, Reduction::Mean, 0.0),
                // In fours, and on hardware by the invocations of a workgroup.
                (&[3, 8], true, 1, Reduction::Mean, 0.3),
                (&[5, 4], false, -100, Reduction::Sum, 0.0),
                (&[3, 68], true, 2, Reduction::Mean, 0.0),
            ];
            samples(&[CASES, more].concat(), Tensor::cross_entropy_with)
        },
        misuse: || {
            vec![
                Misuse::new(
                    vec![Arg::float([3]), Arg::int([3], 3)],
                    "cross_entropy: an input [n, classes, ...] needs a target [n, ...], got [3] and [3]",
                    |x| Ok(vec![x[0].cross_entropy_with(&x[1], &CrossEntropy::default())?]),
                ),
                Misuse::new(vec![Arg::float([2, 3]), Arg::int([2], 3)], "cross_entropy: label_smoothing must be in 0..=1, got 1.5", |x| {
                    Ok(vec![x[0].cross_entropy_with(&x[1], &CrossEntropy { label_smoothing: 1.5, ..Default::default() })?])
                }),
            ]
        },
    },
    OpEntry {
        name: "mse_loss",
        doc: "squared differences",
        order: Order::Any,
        nodes: &[],
        samples: || {
            let case = |shape: &'static [usize], reduction: Reduction| {
                let terms = shape.iter().product();
                Sample::new(format!("{shape:?}, {reduction:?}"), vec![Arg::float(shape), Arg::float(shape)], terms, move |x| {
                    Ok(vec![x[0].try_mse_loss(&x[1], reduction)?])
                })
            };
            vec![case(&[7, 3], Reduction::Mean), case(&[5], Reduction::None), case(&[2, 3, 4], Reduction::Sum)]
        },
        misuse: || {
            vec![Misuse::new(
                vec![Arg::float([2, 3]), Arg::float([3])],
                "mse_loss: input and target have shapes [2, 3] and [3]\nhelp: use expand",
                |x| Ok(vec![x[0].try_mse_loss(&x[1], Reduction::Mean)?]),
            )]
        },
    },
];
