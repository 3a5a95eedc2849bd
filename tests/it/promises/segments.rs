//! Where a step is cut: between submits on hardware, and between backward and update for whoever works on gradients.

use super::{Mlp, bits, devices, sgd, tensor};
use std::sync::Arc;
use wgrad::data::{Dataset, Targets};
use wgrad::device::Kind;
use wgrad::device::gpu::GpuOptions;
use wgrad::nn::{Linear, Module, Param};
use wgrad::optim::Optimizer;
use wgrad::train::{Callback, TrainOptions, Trainer, gradients};
use wgrad::{Device, Generator, Tensor};

#[test]
fn a_long_step_on_hardware_is_several_submits_with_the_same_bits() {
    if super::gpu().is_none() {
        return;
    }
    let run = |kind: Kind, submit_ms: u64| {
        let options = GpuOptions { declared_kind: Some(kind), submit_ms, ..GpuOptions::from_env().unwrap() };
        let device = Device::gpu(0, &options).unwrap();
        let weights: Vec<Param> = (0..8).map(|n| Param::new(&(&tensor(n, &[256, 256], &device) * 0.1)).unwrap()).collect();
        let mut optimizer = sgd(weights.clone(), 0.1);
        let x = tensor(99, &[256, 256], &device);
        let mut submits = Vec::new();
        for _ in 0..4 {
            let (_, did) = super::counted(&device, || {
                let y = weights.iter().fold(x.clone(), |h, w| h.matmul(&w.tensor()).tanh());
                y.square().mean_all().backward().unwrap();
                optimizer.step().unwrap();
                optimizer.zero_grad();
            });
            submits.push(did.submits);
            // The time that a run took is known once it is done.
            weights[0].tensor().to_vec::<f32>().unwrap();
        }
        (submits, weights.iter().map(|w| bits(&w.tensor())).collect::<Vec<_>>())
    };
    let (whole, plain) = run(Kind::Discrete, 60_000);
    let (split, same) = run(Kind::Discrete, 1);
    println!("\nmeasured declared discrete: submits {whole:?}, and with WGRAD_SUBMIT_MS=1 {split:?}");
    assert!(whole.iter().all(|n| *n == 1), "{whole:?}");
    assert!(split.iter().all(|n| *n > 1), "{split:?}");
    assert_eq!(plain, same);
    // A CPU adapter has no watchdog, and is never split.
    let (software, same) = run(Kind::Software, 1);
    assert!(software.iter().all(|n| *n == 1), "{software:?}");
    assert_eq!(run(Kind::Software, 60_000).1, same);
}

/// The norm of all gradients.
fn norm(params: &[Param]) -> Tensor {
    let squares: Vec<Tensor> = params.iter().map(|p| p.grad().unwrap().square().sum_all()).collect();
    squares.iter().skip(1).fold(squares[0].clone(), |a, b| &a + b).sqrt()
}

const MAX_NORM: f64 = 0.25;

#[test]
fn clipping_by_hand_equals_clipping_in_the_graph() {
    for device in devices() {
        let x = tensor(2, &[32, 6], &device);
        let run = |by_hand: bool| {
            let model = Mlp::new(1, &device);
            let params = model.params();
            let mut optimizer = sgd(params.clone(), 0.1);
            let mut clipped = 0;
            for _ in 0..10 {
                model.loss(&x).backward().unwrap();
                // The gradients are ready here: whoever listens may read them and put others in their place.
                let factor = (MAX_NORM / norm(&params)).clamp_max(1.0);
                if by_hand {
                    let factor = factor.item().unwrap();
                    if factor < 1.0 {
                        clipped += 1;
                        params.iter().for_each(|p| p.set_grad(p.grad().map(|g| g * factor)));
                    }
                } else {
                    params.iter().for_each(|p| p.set_grad(p.grad().map(|g| &g * &factor)));
                }
                optimizer.step().unwrap();
                optimizer.zero_grad();
            }
            (clipped, params.iter().map(|p| bits(&p.tensor())).collect::<Vec<_>>())
        };
        let ((clipped, by_hand), (_, in_graph)) = (run(true), run(false));
        assert!(clipped > 0, "{device:?}: the limit is never reached");
        assert_eq!(by_hand, in_graph, "{device:?}");
    }
}

/// A callback that scales all gradients to `MAX_NORM`: by a number that it reads, or with no read.
fn clip(by_hand: bool) -> impl Callback {
    gradients(move |params| {
        let factor = (MAX_NORM / norm(params)).clamp_max(1.0);
        let factor = if by_hand { Tensor::new([factor.item()? as f32], [], factor.device())? } else { factor };
        params.iter().for_each(|p| p.set_grad(p.grad().map(|g| &g * &factor)));
        Ok(())
    })
}

#[test]
fn clipping_by_hand_in_gradients_ready_equals_clipping_in_the_graph() {
    for device in devices() {
        let set = Dataset::new(super::values(5, 64 * 6), &[6], Targets::Values(super::values(6, 64))).unwrap();
        let run = |callback: Option<bool>| {
            let model = Linear::new(6, 1, &Arc::new(Generator::new(3)), &device).unwrap();
            let params: Vec<Param> = model.parameters();
            let options = TrainOptions { epochs: 3, batch_size: 16, learning_rate: 0.2, ..TrainOptions::default() };
            let mut trainer = Trainer::new(&model, sgd(params.clone(), 0.2), options).unwrap();
            if let Some(by_hand) = callback {
                trainer = trainer.callback(clip(by_hand));
            }
            trainer.fit(&set, None, &device).unwrap();
            params.iter().map(|p| bits(&p.tensor())).collect::<Vec<_>>()
        };
        assert_eq!(run(Some(true)), run(Some(false)), "{device:?}");
        assert_ne!(run(Some(true)), run(None), "{device:?}: the limit is never reached");
    }
}
