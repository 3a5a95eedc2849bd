//! Values don't change: copies keep what they had, reads change nothing, recomputation gives the same bits.

use super::{Mlp, bits, counted, devices, measured, sgd, tensor};
use wgrad::Tensor;
use wgrad::autograd::{GradOptions, checkpoint, grad_with};
use wgrad::optim::Optimizer;

#[test]
fn a_copy_and_a_pending_reader_see_the_parameter_before_the_step() {
    for device in devices() {
        let model = Mlp::new(1, &device);
        let mut optimizer = sgd(model.params(), 0.1);
        let x = tensor(2, &[32, 6], &device);
        for step in 0..3 {
            let before = bits(&model.w1.tensor());
            let old = model.w1.tensor().clone();
            let y = &model.w1.tensor() * 2.0;
            model.loss(&x).backward().unwrap();
            optimizer.step().unwrap();
            optimizer.zero_grad();
            assert_eq!(bits(&old), before, "{device:?} step {step}: the copy");
            let doubled: Vec<u32> = before.iter().map(|&b| (f32::from_bits(b) * 2.0).to_bits()).collect();
            assert_eq!(bits(&y), doubled, "{device:?} step {step}: the pending reader");
            assert_ne!(bits(&model.w1.tensor()), before, "{device:?} step {step}: the step");
        }
        // Views of the old value, and a reader recorded on the copy only after the step.
        let (row, column) = (model.w1.tensor().narrow(0, 2, 1), model.w1.tensor().t().narrow(0, 3, 1));
        let (before_row, before_column) = (bits(&row), bits(&column));
        model.loss(&x).backward().unwrap();
        optimizer.step().unwrap();
        assert_eq!((bits(&row), bits(&column)), (before_row.clone(), before_column), "{device:?}: views");
        let later = &row + 0.0;
        assert_eq!(bits(&later), before_row, "{device:?}: recorded later");
    }
}

#[test]
fn a_copy_survives_many_steps() {
    for device in devices() {
        let model = Mlp::new(1, &device);
        let mut optimizer = sgd(model.params(), 0.1);
        let x = tensor(2, &[32, 6], &device);
        let mut copies = Vec::new();
        for _ in 0..5 {
            copies.push((model.b1.tensor(), bits(&model.b1.tensor())));
            model.loss(&x).backward().unwrap();
            optimizer.step().unwrap();
            optimizer.zero_grad();
        }
        for (n, (copy, value)) in copies.iter().enumerate() {
            assert_eq!(&bits(copy), value, "{device:?} copy {n}");
        }
    }
}

#[test]
fn accumulated_gradients_are_sums_and_old_ones_stay() {
    for device in devices() {
        let model = Mlp::new(1, &device);
        let mut optimizer = sgd(model.params(), 0.1);
        let (x, z) = (tensor(2, &[32, 6], &device), tensor(3, &[32, 6], &device));
        for step in 0..3 {
            let alone = |x: &Tensor| {
                model.loss(x).backward().unwrap();
                let g = model.w1.grad().unwrap();
                model.params().iter().for_each(|p| p.set_grad(None));
                g
            };
            let (gx, gz) = (alone(&x), alone(&z));
            let sum = bits(&(&gx + &gz));
            model.loss(&x).backward().unwrap();
            let first = model.w1.grad().unwrap();
            model.loss(&z).backward().unwrap();
            let both = model.w1.grad().unwrap();
            optimizer.step().unwrap();
            optimizer.zero_grad();
            assert_eq!(bits(&both), sum, "{device:?} step {step}: the sum");
            assert_eq!(bits(&first), bits(&gx), "{device:?} step {step}: the first gradient stays");
        }
    }
}

#[test]
fn a_loss_read_before_backward_changes_no_gradient_and_adds_no_dispatch() {
    for device in devices() {
        let x = tensor(2, &[32, 6], &device);
        let run = |read: bool| {
            let model = Mlp::new(1, &device);
            let mut optimizer = sgd(model.params(), 0.1);
            let mut steps = Vec::new();
            for _ in 0..4 {
                let (gradients, did) = counted(&device, || {
                    let loss = model.loss(&x);
                    if read {
                        loss.item().unwrap();
                    }
                    loss.backward().unwrap();
                    let gradients: Vec<Tensor> = model.params().iter().map(|p| p.grad().unwrap()).collect();
                    optimizer.step().unwrap();
                    optimizer.zero_grad();
                    gradients
                });
                steps.push((gradients.iter().map(bits).collect::<Vec<_>>(), did.dispatches));
            }
            (steps, model.params().iter().map(|p| bits(&p.tensor())).collect::<Vec<_>>())
        };
        let (plain, after) = run(false);
        let (read, after_read) = run(true);
        for (step, (p, r)) in plain.iter().zip(&read).enumerate() {
            assert_eq!(p.0, r.0, "{device:?} step {step}: gradients");
            assert_eq!(p.1, r.1, "{device:?} step {step}: dispatches");
        }
        assert_eq!(after, after_read, "{device:?}: parameters");
    }
}

/// Sixteen layers of the same shape, checkpointed or not: the gradient's bits, the peak of bytes above what was there before, and the dispatches.
fn deep(device: &wgrad::Device, checkpointed: bool) -> (Vec<Vec<u32>>, u64, u64) {
    let weights: Vec<Tensor> = (0..16).map(|n| (&tensor(n, &[64, 64], device) * 0.2).requires_grad().unwrap()).collect();
    let x = tensor(99, &[512, 64], device);
    wgrad::graph::flush(device).unwrap();
    let run = || {
        let mut h = x.clone();
        for w in &weights {
            let layer = || {
                let z = h.matmul(w).tanh();
                let gate = (&z * 1.5).sigmoid();
                &z * &gate.exp()
            };
            h = if checkpointed { checkpoint(layer) } else { layer() };
        }
        let loss = h.square().mean_all();
        drop(h);
        loss.backward().unwrap();
        let gradients: Vec<Tensor> = weights.iter().map(|w| w.grad().unwrap()).collect();
        wgrad::graph::flush(device).unwrap();
        weights.iter().for_each(|w| w.set_grad(None));
        gradients
    };
    let before = device.counters().bytes_in_use;
    device.reset_peak();
    let (gradients, did) = counted(device, run);
    let peak = device.counters().bytes_peak - before;
    (gradients.iter().map(bits).collect(), peak, did.dispatches)
}

#[test]
fn checkpointing_gives_the_same_bits_for_less_memory_and_more_work() {
    for make in [|| Some(super::cpu()), super::gpu] {
        let (Some(a), Some(b)) = (make(), make()) else { continue };
        let (plain, plain_peak, plain_dispatches) = deep(&a, false);
        let (again, again_peak, again_dispatches) = deep(&b, true);
        measured(&a, format!("peak {again_peak} bytes instead of {plain_peak}, {again_dispatches} dispatches instead of {plain_dispatches}"));
        assert_eq!(plain, again, "{a:?}");
        assert!(again_peak * 10 <= plain_peak * 6, "{a:?}: {again_peak} of {plain_peak} bytes");
        assert!(again_dispatches > plain_dispatches, "{a:?}: {again_dispatches} and {plain_dispatches}");
    }
}

#[test]
fn checkpointing_gives_the_same_bits_where_the_loss_is_read_before_backward() {
    for device in devices() {
        let w = tensor(1, &[16, 16], &device).requires_grad().unwrap();
        let x = tensor(2, &[8, 16], &device);
        let run = |checkpointed: bool| {
            let mut h = x.clone();
            for _ in 0..4 {
                // Values without a gradient take part, too: a mask out of data, a view of it, a constant.
                let layer = || {
                    let mask = (&x * 2.0).sin().gt_scalar(0.0).to_dtype(wgrad::DType::F32);
                    (h.matmul(&w).tanh().exp() * h.detach().sin()) * mask.flip(&[0]) + &Tensor::ones([16], &device) * mask
                };
                h = if checkpointed { checkpoint(layer) } else { layer() };
            }
            let loss = h.sum_all();
            let value = loss.item().unwrap();
            loss.backward().unwrap();
            let g = w.grad().unwrap();
            w.set_grad(None);
            (value, bits(&g))
        };
        assert_eq!(run(false), run(true), "{device:?}");
    }
}

#[test]
fn history_is_consumed_once_and_retained_where_asked() {
    for device in devices() {
        let w = tensor(1, &[16], &device).requires_grad().unwrap();
        let loss = w.exp().sum_all();
        loss.backward_with(&GradOptions { retain_graph: true, ..Default::default() }).unwrap();
        let once = bits(&w.grad().unwrap());
        loss.backward().unwrap();
        let twice: Vec<u32> = once.iter().map(|&b| (2.0 * f32::from_bits(b)).to_bits()).collect();
        assert_eq!(bits(&w.grad().unwrap()), twice, "{device:?}");
        let e = loss.backward().unwrap_err();
        assert!(e.message().contains("was consumed by an earlier backward"), "{e}");
    }
}

#[test]
fn gradients_of_gradients_are_exact() {
    for device in devices() {
        let x = tensor(1, &[16], &device).requires_grad().unwrap();
        let y = (&x * &x * &x).sum_all();
        let options = GradOptions { create_graph: true, ..Default::default() };
        let g = grad_with(&[&y], &[&x], &options).unwrap().remove(0).unwrap();
        let gg = wgrad::autograd::grad(&[&g.sum_all()], &[&x]).unwrap().remove(0).unwrap();
        for (value, second) in x.to_vec::<f32>().unwrap().iter().zip(gg.to_vec::<f32>().unwrap()) {
            assert!((second - 6.0 * value).abs() < 1e-5, "{device:?}: {second} for {value}");
        }
    }
}

#[test]
fn the_peak_of_a_training_step_does_not_grow() {
    for device in devices() {
        let model = Mlp::new(1, &device);
        let mut optimizer = sgd(model.params(), 0.1);
        let x = tensor(2, &[32, 6], &device);
        let mut peaks = Vec::new();
        for _ in 0..20 {
            device.reset_peak();
            model.loss(&x).backward().unwrap();
            optimizer.step().unwrap();
            optimizer.zero_grad();
            peaks.push(device.counters().bytes_peak);
        }
        assert!(peaks[3..].iter().all(|p| *p == peaks[3]), "{device:?}: {peaks:?}");
    }
}
