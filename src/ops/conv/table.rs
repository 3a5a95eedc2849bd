//! Rows of the operation table.

use super::{Conv2d, Conv2dOptions, Form, InputGrad, WeightGrad};
use crate::graph::Tensor;
use crate::ops::conv::geometry::Conv;
use crate::ops::table::{Arg, Misuse, OpEntry, Order, Sample};

fn options(stride: [usize; 2], padding: [usize; 2], dilation: [usize; 2], groups: usize) -> Conv2dOptions {
    Conv2dOptions { stride, padding, dilation, groups }
}

/// The most terms of y, of the image's gradient and of the weight's.
fn terms(x: [usize; 4], w: [usize; 4], o: Conv2dOptions) -> usize {
    let conv = Conv { stride: o.stride, padding: o.padding, dilation: o.dilation, groups: o.groups, models: 0 };
    conv.geometry(&x.into(), &w.into()).map_or(1, |g| g.k().max(g.og * g.taps()).max(g.n * g.positions()))
}

fn sample(x: [usize; 4], w: [usize; 4], bias: bool, o: Conv2dOptions) -> Sample {
    let mut inputs = vec![Arg::float(x), Arg::float(w)];
    if bias {
        inputs.push(Arg::float([w[0]]));
    }
    let label = format!("{x:?} by {w:?}, stride {:?}, padding {:?}, dilation {:?}, groups {}", o.stride, o.padding, o.dilation, o.groups);
    Sample::new(label, inputs, terms(x, w, o), move |t| Ok(vec![t[0].try_conv2d(&t[1], t.get(2), o)?]))
}

fn refused(x: [usize; 4], w: [usize; 4], o: Conv2dOptions, message: &'static str) -> Misuse {
    Misuse::new(vec![Arg::float(x), Arg::float(w)], message, move |t| Ok(vec![t[0].try_conv2d(&t[1], None, o)?]))
}

/// One of the gradients, called by itself: its own derivatives are then checked, too.
fn gradient(x: [usize; 4], w: [usize; 4], o: Conv2dOptions, of_weight: bool) -> Sample {
    let conv = Conv { stride: o.stride, padding: o.padding, dilation: o.dilation, groups: o.groups, models: 0 };
    let y = conv.geometry(&x.into(), &w.into()).map_or([0; 4], |g| g.y_sizes());
    let inputs = if of_weight { vec![Arg::float(x), Arg::float(y)] } else { vec![Arg::float(y), Arg::float(w)] };
    Sample::new(format!("{x:?} by {w:?}, stride {:?}", o.stride), inputs, terms(x, w, o), move |t: &[Tensor]| {
        let grad = if of_weight { WeightGrad(conv, [w[2], w[3]]).record(&t[0], &t[1])? } else { InputGrad(conv, [x[2], x[3]]).record(&t[0], &t[1])? };
        Ok(vec![grad])
    })
}

/// Two models side by side: the form that `vmap` gives.
fn models() -> Sample {
    let conv = Conv { stride: [2, 1], padding: [1, 1], dilation: [1, 1], groups: 2, models: 2 };
    Sample::new("two models, [2, 3, 4, 5, 6] by [2, 6, 2, 3, 3]", vec![Arg::float([2, 3, 4, 5, 6]), Arg::float([2, 6, 2, 3, 3])], 54, move |t| {
        Ok(vec![Conv2d(conv).record(&t[0], &t[1])?])
    })
}

pub(in crate::ops) static OPS: &[OpEntry] = &[
    OpEntry {
        name: "conv2d",
        doc: "convolution of images, with stride, padding, dilation and groups",
        order: Order::Any,
        nodes: &["conv2d", "conv2d_input_grad", "conv2d_weight_grad"],
        samples: || {
            let plain = Conv2dOptions::default();
            let same = options([1, 1], [1, 1], [1, 1], 1);
            vec![
                sample([2, 3, 5, 7], [4, 3, 3, 3], true, same),
                sample([1, 1, 1, 1], [1, 1, 1, 1], true, plain),
                sample([2, 4, 9, 8], [6, 2, 3, 2], true, options([2, 3], [2, 1], [1, 2], 2)),
                sample([3, 2, 4, 5], [8, 2, 1, 1], false, plain),
                sample([2, 3, 6, 6], [3, 1, 3, 3], false, options([1, 1], [1, 1], [1, 1], 3)),
                sample([5, 4, 8, 8], [20, 4, 3, 3], true, same),
                sample([2, 1, 12, 11], [2, 1, 5, 4], true, options([3, 2], [0, 2], [2, 1], 1)),
                sample([20, 1, 8, 8], [5, 1, 3, 3], false, same),
                sample([0, 2, 4, 4], [3, 2, 2, 2], false, plain),
                sample([2, 4, 8, 12], [20, 4, 3, 3], true, options([2, 2], [1, 1], [1, 1], 1)),
                sample([3, 2, 6, 6], [6, 2, 5, 5], false, options([1, 1], [2, 2], [1, 1], 1)),
                sample([2, 6, 4, 8], [5, 6, 1, 1], true, plain),
                sample([2, 3, 4, 8], [4, 3, 2, 2], false, options([1, 1], [1, 1], [1, 1], 1)),
                sample([2, 1, 3, 44], [3, 1, 2, 3], true, options([1, 1], [0, 1], [1, 1], 1)),
                sample([1, 2, 9, 10], [2, 2, 3, 3], false, options([3, 3], [2, 1], [1, 1], 1)),
                sample([1, 1, 4, 4], [35, 1, 3, 3], false, same),
                // A stride far beyond the image, on one side and on both.
                sample([2, 3, 5, 4], [4, 3, 2, 1], true, options([100_000, 2], [1, 0], [1, 1], 1)),
                sample([2, 2, 4, 4], [3, 2, 1, 1], false, options([1_000_000_007, 1_000_000_007], [0, 0], [1, 1], 1)),
                // Every step lies in the padding, and an image without rows.
                sample([2, 1, 3, 1], [3, 1, 1, 1], true, options([1, 3], [0, 1], [1, 1], 1)),
                sample([1, 2, 0, 4], [3, 2, 2, 1], true, options([1, 1], [1, 0], [1, 1], 1)),
                Sample::new("a [c, h, w] image", vec![Arg::float([2, 5, 4]), Arg::float([3, 2, 2, 2]), Arg::float([3])], 12, |t| {
                    Ok(vec![t[0].try_conv2d(&t[1], t.get(2), Conv2dOptions::default())?])
                }),
                Sample::new("an image permuted and cut", vec![Arg::float([6, 5, 2, 4]), Arg::float([3, 4, 2, 2])], 40, |t| {
                    let x = t[0].try_permute(&[2, 3, 0, 1])?.try_narrow(2, 1, 4)?;
                    Ok(vec![x.try_conv2d(&t[1], None, Conv2dOptions::default())?])
                }),
                gradient([2, 4, 7, 6], [4, 2, 3, 2], options([2, 2], [1, 0], [1, 1], 2), false),
                gradient([2, 4, 7, 6], [4, 2, 3, 2], options([2, 2], [1, 0], [1, 1], 2), true),
                models(),
            ]
        },
        misuse: || {
            let plain = Conv2dOptions::default();
            vec![
                refused([1, 3, 5, 5], [4, 2, 3, 3], options([1, 1], [0, 0], [1, 1], 2), "conv2d: input has 3 channels, weight expects 4 (groups 2)"),
                refused([1, 4, 5, 5], [3, 2, 3, 3], options([1, 1], [0, 0], [1, 1], 2), "conv2d: 3 output channels cannot be cut into 2 groups"),
                refused(
                    [1, 1, 4, 4],
                    [1, 1, 5, 5],
                    plain,
                    "conv2d: kernel [5, 5] with dilation [1, 1] is larger than the padded input [4, 4]",
                ),
                refused([1, 1, 4, 4], [1, 1, 2, 2], options([1, 0], [0, 0], [1, 1], 1), "conv2d: stride must be at least 1, got [1, 0]"),
                refused([1, 1, 4, 4], [1, 1, 3, 3], options([1, 1], [0, 0], [1 << 62, 1], 1), "conv2d: dilation must be at most 2147483647, got [4611686018427387904, 1]"),
                refused([1, 1, 4, 4], [1, 1, 2, 2], options([1, 1], [0, 0], [1, 1], 0), "conv2d: groups must be at least 1, got 0"),
                Misuse::new(vec![Arg::float([4, 4]), Arg::float([1, 1, 2, 2])], "conv2d: input must be [n, c, h, w], got shape [4, 4]", |t| {
                    Ok(vec![t[0].try_conv2d(&t[1], None, Conv2dOptions::default())?])
                }),
                Misuse::new(
                    vec![Arg::float([1, 1, 4, 4]), Arg::float([3, 1, 2, 2]), Arg::float([2])],
                    "conv2d: bias of shape [2] does not fit 3 output channels",
                    |t| Ok(vec![t[0].try_conv2d(&t[1], t.get(2), Conv2dOptions::default())?]),
                ),
            ]
        },
    },
];
