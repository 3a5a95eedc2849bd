//! What the parts of a training step launch, and that what was joined in one kernel is what it was apart.

use super::{counted, cpu, devices, tensor};
use wgrad::device::Caps;
use wgrad::graph::{flush, watch};
use wgrad::ops::{BatchNorm, Conv2dOptions, CrossEntropy};
use wgrad::{Device, Tensor};

fn labels(n: usize, classes: usize, device: &Device) -> Tensor {
    Tensor::new((0..n).map(|i| (i * 7 % classes) as i32).collect::<Vec<_>>(), [n], device).unwrap()
}

#[test]
fn a_cross_entropy_is_a_dispatch_and_so_is_its_gradient() {
    for device in devices() {
        for label_smoothing in [0.0, 0.1] {
            let (x, y) = (tensor(1, &[64, 10], &device).requires_grad().unwrap(), labels(64, 10, &device));
            let options = CrossEntropy { label_smoothing, ..Default::default() };
            let (loss, did) = counted(&device, || {
                let loss = x.cross_entropy_with(&y, &options).unwrap();
                flush(&device).unwrap();
                loss
            });
            assert_eq!(did.dispatches, 1, "{device:?}: {loss:?}");
            let (_, did) = counted(&device, || {
                loss.backward().unwrap();
                flush(&device).unwrap();
            });
            assert_eq!(did.dispatches, 1, "{device:?}");
        }
    }
}

#[test]
fn where_every_label_is_ignored_the_loss_is_nan_and_no_row_has_a_gradient() {
    for device in devices() {
        let x = tensor(1, &[3, 4], &device).requires_grad().unwrap();
        let y = Tensor::new([2, 2, 2], [3], &device).unwrap();
        let loss = x.cross_entropy_with(&y, &CrossEntropy { ignore_index: 2, ..Default::default() }).unwrap();
        assert!(loss.item().unwrap().is_nan(), "{device:?}");
        loss.backward().unwrap();
        assert_eq!(x.grad().unwrap().to_vec::<f32>().unwrap(), [0.0; 12], "{device:?}");
    }
}

#[test]
fn a_row_that_is_not_finite_makes_a_cross_entropy_nan() {
    for device in devices() {
        for bad in [f32::NAN, f32::INFINITY] {
            let x = Tensor::new([0.5, 1.0, -2.0, 0.0, bad, 1.0], [2, 3], &device).unwrap().requires_grad().unwrap();
            let loss = x.cross_entropy(&Tensor::new([0, 0], [2], &device).unwrap());
            assert!(loss.item().unwrap().is_nan(), "{device:?}: {bad}");
            loss.backward().unwrap();
            let grad = x.grad().unwrap().to_vec::<f32>().unwrap();
            assert!(grad[..3].iter().all(|v| v.is_finite()) && grad[3..].iter().all(|v| v.is_nan()), "{device:?}: {bad}: {grad:?}");
        }
    }
}

#[test]
fn a_cross_entropy_of_many_rows_is_that_of_few() {
    for device in devices() {
        // More than one workgroup's: two launches on a GPU. Each logit row comes 700 times.
        let (few, y) = (tensor(1, &[9, 5], &device), labels(9, 5, &device));
        let many = few.unsqueeze(0).expand([700, 9, 5]).reshape([6300, 5]);
        let all = y.unsqueeze(0).expand([700, 9]).reshape([6300]);
        let (a, b) = (few.cross_entropy(&y).item().unwrap(), many.cross_entropy(&all).item().unwrap());
        assert!((a - b).abs() < 1e-5, "{device:?}: {a} and {b}");
    }
}

#[test]
fn a_batch_norm_is_two_dispatches_and_so_is_its_gradient() {
    for device in devices() {
        let x = tensor(1, &[4, 3, 2, 2], &device).requires_grad().unwrap();
        let [w, b] = [2, 3].map(|n| tensor(n, &[3], &device).requires_grad().unwrap());
        let running = [6, 7].map(|n| tensor(n, &[3], &device));
        let seed = tensor(5, &[4, 3, 2, 2], &device);
        let ((y, moved), did) = counted(&device, || {
            let result = x.batch_norm(Some([&running[0], &running[1]]), Some([&w, &b]), &BatchNorm::default());
            flush(&device).unwrap();
            result
        });
        assert_eq!(did.dispatches, 2, "{device:?}: {moved:?}");
        let options = wgrad::autograd::GradOptions { grad_outputs: Some(vec![seed]), ..Default::default() };
        let (_, did) = counted(&device, || {
            y.backward_with(&options).unwrap();
            flush(&device).unwrap();
        });
        assert_eq!(did.dispatches, 2, "{device:?}");
    }
}

/// Gradients of x, weight and bias of a layer, of which `layer` makes the result.
fn gradients(inputs: [Tensor; 3], bias: bool, layer: impl Fn(&Tensor, &Tensor, Option<&Tensor>) -> Tensor) -> Vec<Option<Tensor>> {
    let [x, w, b] = inputs.map(|t| t.requires_grad().unwrap());
    let loss = layer(&x, &w, bias.then_some(&b)).sin().square().sum_all();
    loss.backward().unwrap();
    flush(x.device()).unwrap();
    [x, w, b].iter().map(Tensor::grad).collect()
}

fn linear(x: &Tensor, w: &Tensor, b: Option<&Tensor>) -> Tensor {
    x.linear(w, b)
}

#[test]
fn a_bias_gets_its_gradient_with_the_weight() {
    let lanes = Caps { subgroups: Some((8, 8)), ..Caps::floor() };
    let device = cpu();
    let conv = |x: &Tensor, w: &Tensor, b: Option<&Tensor>| x.conv2d(w, b, Conv2dOptions { padding: [1, 1], ..Default::default() });
    let launches = |bias: bool, image: bool| {
        let inputs = |shapes: [&[usize]; 3]| [0, 1, 2].map(|n| tensor(n as u64, shapes[n], &device));
        let (_, seen) = watch(&lanes, || {
            if image {
                gradients(inputs([&[4, 3, 12, 12], &[6, 3, 3, 3], &[6]]), bias, conv);
            } else {
                gradients(inputs([&[30, 40], &[22, 40], &[22]]), bias, linear);
            }
        });
        seen.runs.iter().map(|r| r.program.launches.len()).sum::<usize>()
    };
    assert_eq!(launches(true, false), launches(false, false), "linear");
    assert_eq!(launches(true, true), launches(false, true), "conv2d");
}

#[test]
fn a_gradient_that_came_with_another_is_what_it_is_alone() {
    // Rows, results, inputs: few and many of each, whole fours and not.
    let products = [[1, 4, 40], [7, 33, 40], [64, 10, 84], [70, 128, 17], [65, 12, 600], [300, 52, 33], [1030, 36, 600]];
    // Images, channels in and out, height, width, kernel, groups: parts of one and of several rows, rests, groups.
    let images = [[1, 1, 6, 7, 7, 5, 1], [3, 3, 40, 9, 10, 3, 1], [5, 6, 16, 14, 14, 5, 1], [9, 8, 12, 20, 21, 3, 2], [2, 10, 10, 5, 5, 1, 1]];
    for device in devices() {
        for of in products {
            let make = |device: &Device| {
                let [rows, out, k] = of;
                let inputs = [tensor(1, &[rows, k], device), tensor(2, &[out, k], device), tensor(3, &[out], device)];
                gradients(inputs, true, linear)
            };
            same(&make(&device), &make(&cpu()), &format!("{device:?}: linear of {of:?}"));
        }
        for of in images {
            let make = |device: &Device| {
                let [n, c, o, h, w, k, groups] = of;
                let inputs = [tensor(1, &[n, c, h, w], device), tensor(2, &[o, c / groups, k, k], device), tensor(3, &[o], device)];
                let options = Conv2dOptions { padding: [k / 2, k / 2], groups, ..Default::default() };
                gradients(inputs, true, |x, w, b| x.conv2d(w, b, options))
            };
            same(&make(&device), &make(&cpu()), &format!("{device:?}: conv2d of {of:?}"));
        }
    }
}

fn same(got: &[Option<Tensor>], want: &[Option<Tensor>], what: &str) {
    for (n, (got, want)) in got.iter().zip(want).enumerate() {
        let [got, want] = [got, want].map(|t| t.as_ref().unwrap().to_vec::<f32>().unwrap());
        let scale = want.iter().fold(1e-3f32, |m, v| m.max(v.abs()));
        let worst = got.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst <= 2e-5 * scale, "{what}: gradient {n} is off by {worst} of {scale}");
    }
}
