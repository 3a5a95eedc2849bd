//! Rows of the operation table.

use super::{AvgPool2dOptions, MaxPool2dOptions};
use crate::ops::table::{Arg, Misuse, OpEntry, Order, Sample};
use crate::tensor::Shape;

fn most(x: &[usize], kernel: [usize; 2], o: MaxPool2dOptions) -> Sample {
    let label = format!("{x:?} by {kernel:?}, stride {:?}, padding {:?}, dilation {:?}, ceil {}", o.stride, o.padding, o.dilation, o.ceil_mode);
    Sample::new(label, vec![Arg::float(Shape::from(x))], kernel[0] * kernel[1], move |t| {
        let (y, index) = t[0].try_max_pool2d_with_indices(kernel, o)?;
        Ok(vec![y, index])
    })
}

fn mean(x: &[usize], kernel: [usize; 2], o: AvgPool2dOptions) -> Sample {
    let label = format!("{x:?} by {kernel:?}, stride {:?}, padding {:?}, ceil {}, pad counts {}", o.stride, o.padding, o.ceil_mode, o.count_include_pad);
    Sample::new(label, vec![Arg::float(Shape::from(x))], kernel[0] * kernel[1], move |t| Ok(vec![t[0].try_avg_pool2d(kernel, o)?]))
}

pub(in crate::ops) static OPS: &[OpEntry] = &[
    OpEntry {
        name: "max_pool2d",
        doc: "the largest element of each window, and where it lies",
        order: Order::Any,
        nodes: &["max_pool2d", "max_pool2d_grad", "max_pool2d_gather"],
        samples: || {
            let o = MaxPool2dOptions::default();
            vec![
                most(&[2, 3, 6, 8], [2, 2], o),
                most(&[2, 3, 7, 5], [2, 2], o),
                most(&[2, 3, 5, 8], [2, 2], o),
                most(&[3, 5, 6], [2, 2], o),
                most(&[1, 1, 1, 1], [1, 1], o),
                most(&[2, 2, 7, 9], [3, 2], MaxPool2dOptions { stride: Some([1, 2]), padding: [1, 1], ..o }),
                most(&[1, 3, 9, 10], [2, 3], MaxPool2dOptions { stride: Some([3, 2]), padding: [1, 1], dilation: [2, 1], ceil_mode: true }),
                most(&[3, 5, 5], [2, 2], MaxPool2dOptions { ceil_mode: true, ..o }),
                most(&[0, 3, 4, 4], [2, 2], o),
            ]
        },
        misuse: || {
            let pool = |kernel: [usize; 2], o: MaxPool2dOptions| move |t: &[crate::graph::Tensor]| Ok(vec![t[0].try_max_pool2d(kernel, o)?]);
            let o = MaxPool2dOptions::default();
            vec![
                Misuse::new(
                    vec![Arg::float([1, 1, 2, 4])],
                    "max_pool2d: kernel [3, 3] with dilation [1, 1] is larger than the padded input [2, 4]",
                    pool([3, 3], o),
                ),
                Misuse::new(
                    vec![Arg::float([1, 1, 4, 4])],
                    "max_pool2d: padding [2, 0] is more than half of kernel size [3, 3]",
                    pool([3, 3], MaxPool2dOptions { padding: [2, 0], ..o }),
                ),
                Misuse::new(
                    vec![Arg::float([1, 1, 4, 4])],
                    "max_pool2d: stride must be at least 1, got [0, 1]",
                    pool([3, 3], MaxPool2dOptions { stride: Some([0, 1]), ..o }),
                ),
                Misuse::new(
                    vec![Arg::float([1, 1, 4])],
                    "max_pool2d: window 0 of dim 0 lies wholly in the padding of input [1, 4]",
                    pool([2, 2], MaxPool2dOptions { padding: [2, 0], dilation: [3, 1], ..o }),
                ),
                Misuse::new(vec![Arg::float([4])], "max_pool2d: input must be [.., h, w], got shape [4]", pool([2, 2], o)),
            ]
        },
    },
    OpEntry {
        name: "avg_pool2d",
        doc: "the mean of each window",
        order: Order::Any,
        nodes: &["avg_pool2d", "avg_pool2d_grad"],
        samples: || {
            let o = AvgPool2dOptions::default();
            vec![
                mean(&[2, 3, 6, 8], [2, 2], o),
                mean(&[2, 3, 7, 5], [3, 2], AvgPool2dOptions { stride: Some([2, 1]), padding: [1, 1], ..o }),
                mean(&[2, 3, 7, 5], [3, 2], AvgPool2dOptions { stride: Some([2, 3]), padding: [1, 1], ceil_mode: true, ..o }),
                mean(&[2, 3, 7, 5], [3, 3], AvgPool2dOptions { stride: Some([2, 2]), padding: [1, 1], ceil_mode: true, count_include_pad: false }),
                mean(&[3, 9, 8], [9, 8], o),
                mean(&[1, 1, 1, 1], [1, 1], o),
                mean(&[0, 3, 4, 4], [2, 2], o),
            ]
        },
        misuse: || {
            vec![Misuse::new(
                vec![Arg::float([1, 1, 2, 4])],
                "avg_pool2d: kernel [3, 3] with dilation [1, 1] is larger than the padded input [2, 4]",
                |t| Ok(vec![t[0].try_avg_pool2d([3, 3], AvgPool2dOptions::default())?]),
            )]
        },
    },
];
