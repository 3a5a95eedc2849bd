//! Versions: parameters are updated in place, and whoever still wants an old value has it. The cases that an engine gets wrong.

use super::{Mlp, bits, devices, sgd, tensor};
use wgrad::autograd::{GradOptions, checkpoint, grad, grad_with};
use wgrad::nn::Param;
use wgrad::optim::{Adam, AdamOptions, Optimizer, Sgd, SgdOptions};
use wgrad::{Device, Generator, Tensor};

fn param(seed: u64, shape: &[usize], device: &Device) -> Param {
    Param::new(&tensor(seed, shape, device)).unwrap()
}

fn plain(params: &[&Param], lr: f64) -> Sgd {
    Sgd::new(params.iter().map(|p| (*p).clone()).collect(), SgdOptions { lr, ..Default::default() }).unwrap()
}

fn floats(t: &Tensor) -> Vec<f32> {
    t.to_vec::<f32>().unwrap()
}

#[track_caller]
fn close(what: &str, got: &[f32], want: &[f32]) {
    assert!(got.len() == want.len() && got.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-5), "{what}: {got:?} and {want:?}");
}

#[test]
fn a_gradient_may_be_a_parameter_itself() {
    for device in devices() {
        let (a, b) = (param(1, &[40], &device), param(2, &[40], &device));
        let mut optimizer = plain(&[&a, &b], 0.5);
        for step in 0..3 {
            let (old_a, old_b) = (floats(&a.tensor()), floats(&b.tensor()));
            // Each other's value is each one's gradient; both are overwritten by one launch that reads both.
            a.set_grad(Some(b.tensor()));
            b.set_grad(Some(a.tensor()));
            optimizer.step().unwrap();
            let want = |x: &[f32], g: &[f32]| x.iter().zip(g).map(|(x, g)| x - 0.5 * g).collect::<Vec<_>>();
            close(&format!("{device:?} step {step}: a"), &floats(&a.tensor()), &want(&old_a, &old_b));
            close(&format!("{device:?} step {step}: b"), &floats(&b.tensor()), &want(&old_b, &old_a));
            optimizer.zero_grad();
        }
    }
}

#[test]
fn one_tensor_may_be_the_gradient_of_two_parameters() {
    for device in devices() {
        let (a, b) = (param(1, &[40], &device), param(2, &[40], &device));
        let mut optimizer = plain(&[&a, &b], 0.5);
        for _ in 0..2 {
            let (old_a, old_b) = (floats(&a.tensor()), floats(&b.tensor()));
            let g = (a.tensor() * b.tensor()).exp();
            a.set_grad(Some(g.clone()));
            b.set_grad(Some(g.clone()));
            optimizer.step().unwrap();
            optimizer.zero_grad();
            let g = floats(&g);
            for (p, old) in [(&a, old_a), (&b, old_b)] {
                let want: Vec<f32> = old.iter().zip(&g).map(|(x, g)| x - 0.5 * g).collect();
                close(&format!("{device:?}"), &floats(&p.tensor()), &want);
            }
        }
    }
}

#[test]
fn gradients_that_are_views_reach_their_parameter() {
    for device in devices() {
        let (a, b) = (param(1, &[5, 8], &device), param(2, &[8, 5], &device));
        let mut optimizer = plain(&[&a, &b], 0.5);
        for step in 0..3 {
            let (old_a, old_b) = (floats(&a.tensor()), floats(&b.tensor()));
            // The gradient of a sum is one number expanded; that of b is a transposed window of a larger tensor.
            a.tensor().sum_all().backward().unwrap();
            let wide = &tensor(9, &[7, 8], &device) * 2.0;
            b.set_grad(Some(wide.narrow(0, 2, 5).t()));
            optimizer.step().unwrap();
            optimizer.zero_grad();
            close(&format!("{device:?} step {step}: a"), &floats(&a.tensor()), &old_a.iter().map(|x| x - 0.5).collect::<Vec<_>>());
            let wide = floats(&wide);
            let want: Vec<f32> = old_b.iter().enumerate().map(|(n, x)| x - 0.5 * wide[(n % 5 + 2) * 8 + n / 5]).collect();
            close(&format!("{device:?} step {step}: b"), &floats(&b.tensor()), &want);
        }
    }
}

#[test]
fn two_optimizers_on_one_graph_are_two_steps() {
    for device in devices() {
        let x = tensor(5, &[6, 8], &device);
        let run = |together: bool| {
            let (a, b) = (param(1, &[8, 8], &device), param(2, &[8, 1], &device));
            let params = [&a, &b];
            let mut one = plain(&params[..1], 0.1);
            let mut two = Adam::new(vec![b.clone()], AdamOptions { lr: 0.01, ..Default::default() }).unwrap();
            for _ in 0..4 {
                let loss = x.matmul(&a.tensor()).tanh().matmul(&b.tensor()).square().mean_all();
                loss.backward().unwrap();
                if !together {
                    // Both gradients exist before either step.
                    device.flush().unwrap();
                }
                one.step().unwrap();
                two.step().unwrap();
                one.zero_grad();
                two.zero_grad();
            }
            [bits(&a.tensor()), bits(&b.tensor())]
        };
        assert_eq!(run(true), run(false), "{device:?}");
    }
}

#[test]
fn a_value_that_was_set_is_the_one_that_is_updated() {
    for device in devices() {
        let a = param(1, &[40], &device);
        let mut optimizer = plain(&[&a], 0.5);
        for step in 0..3 {
            let before = a.tensor();
            let kept = bits(&before);
            let new = &tensor(10 + step, &[40], &device) + 1.0;
            a.set(&new).unwrap();
            (a.tensor().square().sum_all()).backward().unwrap();
            optimizer.step().unwrap();
            optimizer.zero_grad();
            // x - 0.5 * 2 x
            close(&format!("{device:?} step {step}"), &floats(&a.tensor()), &[0.0; 40]);
            assert_eq!(bits(&before), kept, "{device:?} step {step}: the value before");
            assert!(floats(&new).iter().all(|v| *v >= 0.0), "{device:?} step {step}: what was set stays");
        }
    }
}

#[test]
fn a_second_optimizer_takes_the_parameters_over() {
    for device in devices() {
        let model = Mlp::new(1, &device);
        let x = tensor(2, &[32, 6], &device);
        let mut losses = Vec::new();
        for _ in 0..4 {
            let mut optimizer = sgd(model.params(), 0.1);
            for _ in 0..5 {
                let loss = model.loss(&x);
                loss.backward().unwrap();
                optimizer.step().unwrap();
                optimizer.zero_grad();
                losses.push(loss.item().unwrap());
            }
        }
        assert!(losses[19] < losses[0] && losses.iter().all(|l| l.is_finite()), "{device:?}: {losses:?}");
    }
}

#[test]
fn backward_after_a_step_sees_the_values_of_its_forward() {
    for device in devices() {
        for again in [false, true] {
            let model = Mlp::new(1, &device);
            let mut optimizer = sgd(model.params(), 0.1);
            let x = tensor(2, &[32, 6], &device);
            let loss = if again { checkpoint(|| model.loss(&x)) } else { model.loss(&x) };
            let w = model.w1.tensor();
            let retain = GradOptions { retain_graph: true, ..Default::default() };
            let first = bits(&grad_with(&[&loss], &[&w], &retain).unwrap().remove(0).unwrap());
            drop(w);
            loss.backward_with(&retain).unwrap();
            optimizer.step().unwrap();
            optimizer.zero_grad();
            loss.backward().unwrap();
            assert_eq!(bits(&model.w1.grad().unwrap()), first, "{device:?} checkpointed {again}");
        }
    }
}

#[test]
fn a_second_loss_of_before_the_step_is_walked_after_it() {
    for device in devices() {
        for again in [false, true] {
            let model = Mlp::new(1, &device);
            let mut optimizer = sgd(model.params(), 0.1);
            let (x, z) = (tensor(2, &[32, 6], &device), tensor(3, &[32, 6], &device));
            let alone = Mlp::new(1, &device);
            alone.loss(&z).backward().unwrap();
            let want = bits(&alone.w1.grad().unwrap());
            // Both are pending when the step comes, which runs them with the update in one plan.
            let other = if again { checkpoint(|| model.loss(&z)) } else { model.loss(&z) };
            model.loss(&x).backward().unwrap();
            optimizer.step().unwrap();
            optimizer.zero_grad();
            other.backward().unwrap();
            assert_eq!(bits(&model.w1.grad().unwrap()), want, "{device:?} checkpointed {again}");
        }
    }
}

#[test]
fn a_mask_is_recomputed_the_same() {
    for device in devices() {
        let w = tensor(1, &[16, 16], &device).requires_grad().unwrap();
        let x = tensor(2, &[8, 16], &device);
        let run = |again: bool, read: bool| {
            let generator = Generator::new(3);
            let mut h = x.clone();
            for _ in 0..4 {
                let layer = || h.matmul(&w).tanh().dropout(0.3, true, &generator);
                h = if again { checkpoint(layer) } else { layer() };
                if read {
                    h.to_vec::<f32>().unwrap();
                }
            }
            bits(&grad(&[&h.square().sum_all()], &[&w]).unwrap().remove(0).unwrap())
        };
        let plain = run(false, false);
        for (again, read) in [(false, true), (true, false), (true, true)] {
            assert_eq!(run(again, read), plain, "{device:?} checkpointed {again} read {read}");
        }
    }
}

#[test]
fn a_step_that_fails_leaves_the_parameters_as_they_were() {
    for device in devices() {
        let model = Mlp::new(1, &device);
        let mut optimizer = sgd(model.params(), 0.1);
        let x = tensor(2, &[32, 6], &device);
        let mut step = |x: &Tensor| {
            let loss = model.loss(x);
            loss.backward()?;
            let done = wgrad::optim::Optimizer::step(&mut optimizer);
            optimizer.zero_grad();
            done.map(|()| loss)
        };
        step(&x).unwrap();
        let before: Vec<_> = model.params().iter().map(|p| bits(&p.tensor())).collect();
        let big = tensor(3, &[20_000, 6], &device);
        device.set_memory_cap(device.counters().bytes_reserved + 4096);
        step(&big).unwrap_err();
        assert_eq!(model.params().iter().map(|p| bits(&p.tensor())).collect::<Vec<_>>(), before, "{device:?}");
        // It goes on with what fits, and with all once there is room.
        step(&x).unwrap();
        device.set_memory_cap(u64::MAX);
        assert!(step(&big).unwrap().item().unwrap().is_finite(), "{device:?}");
        assert_ne!(model.params().iter().map(|p| bits(&p.tensor())).collect::<Vec<_>>(), before, "{device:?}");
    }
}

#[test]
fn empty_tensors_and_scalars_run_with_the_others() {
    for device in devices() {
        let (empty, scalar) = (Tensor::zeros([0, 3], &device), Tensor::new([2.0f32], [], &device).unwrap());
        let a = &empty + 1.0;
        let b = (&a * &scalar).sum(&[0], false);
        let c = &scalar * 3.0;
        device.flush().unwrap();
        assert_eq!((floats(&a).len(), floats(&b), floats(&c)), (0, vec![0.0; 3], vec![6.0]), "{device:?}");
    }
}
