//! Plans: how many are built, what a step costs, what is data.

use super::{Mlp, counted, devices, measured, sgd, tensor};
use std::time::Instant;
use wgrad::device::CounterValues;
use wgrad::graph::{flush, no_grad, plan_names};
use wgrad::nn::Param;
use wgrad::ops::Conv2dOptions;
use wgrad::optim::Optimizer;
use wgrad::{Device, Tensor};

const STEPS: usize = 10_000;

/// What a step did, and the bytes that are held after it.
fn cost(did: &CounterValues, device: &Device) -> [u64; 5] {
    let now = device.counters();
    [did.nodes, did.dispatches, did.create_buffer, now.bytes_in_use, now.bytes_reserved]
}

#[test]
fn a_running_sum_in_training_costs_the_same_at_step_100_and_10_000() {
    for device in devices() {
        let model = Mlp::new(1, &device);
        let mut optimizer = sgd(model.params(), 0.01);
        let x = tensor(2, &[8, 6], &device);
        let mut total = Tensor::zeros([], &device);
        let mut costs = Vec::new();
        let before = plan_names(&device).len();
        for step in 1..=STEPS {
            let (_, did) = counted(&device, || {
                let loss = model.loss(&x);
                total = &total + &loss;
                loss.backward().unwrap();
                optimizer.step().unwrap();
                optimizer.zero_grad();
            });
            if step == 100 || step == STEPS {
                costs.push(cost(&did, &device));
            }
        }
        assert!(total.item().unwrap().is_finite());
        measured(&device, format!("nodes, dispatches, create_buffer, bytes in use and reserved, at 100 {:?}, at 10,000 {:?}", costs[0], costs[1]));
        assert_eq!(costs[0], costs[1], "{device:?}");
        assert_eq!(plan_names(&device).len() - before, 2, "{device:?}: {:?}", plan_names(&device));
    }
}

#[test]
fn a_running_sum_in_evaluation_costs_the_same_at_batch_100_and_10_000() {
    for device in devices() {
        let model = Mlp::new(1, &device);
        let x = tensor(2, &[8, 6], &device);
        let mut costs = Vec::new();
        let before = plan_names(&device).len();
        let total = no_grad(|| {
            let mut total = Tensor::zeros([], &device);
            for step in 1..=STEPS {
                let (_, did) = counted(&device, || {
                    total = &total + &model.loss(&x);
                    flush(&device).unwrap();
                });
                if step == 100 || step == STEPS {
                    costs.push(cost(&did, &device));
                }
            }
            total.item().unwrap()
        });
        let once = no_grad(|| model.loss(&x)).item().unwrap();
        assert!((total / (once * STEPS as f64) - 1.0).abs() < 1e-3, "{device:?}: {total} of {once}");
        measured(&device, format!("nodes, dispatches, create_buffer, bytes in use and reserved, at 100 {:?}, at 10,000 {:?}", costs[0], costs[1]));
        assert_eq!(costs[0], costs[1], "{device:?}");
        // The last plan is the single loss above.
        assert_eq!(plan_names(&device).len() - before, 3, "{device:?}: {:?}", plan_names(&device));
    }
}

#[test]
fn a_running_sum_without_any_flush_is_cut_by_count_and_stays_right() {
    for device in devices() {
        let x = tensor(2, &[8], &device);
        let total = no_grad(|| {
            let mut total = Tensor::zeros([], &device);
            for _ in 0..STEPS {
                total = &total + &(&x * &x).sum_all();
            }
            total.item().unwrap()
        });
        let once: f64 = x.to_vec::<f32>().unwrap().iter().map(|v| f64::from(v * v)).sum();
        assert!((total / (once * STEPS as f64) - 1.0).abs() < 1e-3, "{device:?}: {total} of {once}");
    }
}

/// One step of training on a batch of this size.
fn step(model: &Mlp, optimizer: &mut impl Optimizer, batch: usize, device: &Device) -> CounterValues {
    let x = tensor(7, &[batch, 6], device);
    let (_, did) = counted(device, || {
        model.loss(&x).backward().unwrap();
        optimizer.step().unwrap();
        optimizer.zero_grad();
    });
    did
}

#[test]
fn a_last_batch_of_another_size_costs_one_plan_and_no_pipeline() {
    for device in devices() {
        let model = Mlp::new(1, &device);
        let mut optimizer = sgd(model.params(), 0.01);
        let first = step(&model, &mut optimizer, 32, &device);
        assert_eq!((step(&model, &mut optimizer, 32, &device).plans_built, first.plans_built), (0, 1), "{device:?}");
        let last = step(&model, &mut optimizer, 29, &device);
        measured(&device, format!("last batch: {} plan, {} pipelines", last.plans_built, last.pipelines));
        assert_eq!((last.plans_built, last.pipelines), (1, 0), "{device:?}");
        let one = step(&model, &mut optimizer, 1, &device);
        measured(&device, format!("batch of one: {} new pipelines, {} dispatches", one.pipelines, one.dispatches));
        assert_eq!(one.plans_built, 1, "{device:?}");
        assert!(one.pipelines <= one.dispatches, "{device:?}: {} pipelines for {} dispatches", one.pipelines, one.dispatches);
        let again = [32, 29, 1].map(|n| step(&model, &mut optimizer, n, &device));
        assert!(again.iter().all(|c| c.plans_built == 0 && c.pipelines == 0), "{device:?}");
    }
}

/// A step of a small convolutional network on a batch of this size.
fn image_step(params: &[Param], optimizer: &mut impl Optimizer, batch: usize, device: &Device) -> CounterValues {
    let x = tensor(7, &[batch, 1, 8, 8], device);
    let labels = Tensor::new((0..batch).map(|n| n as i32 % 10).collect::<Vec<_>>(), [batch], device).unwrap();
    let [w, b, v, c] = [0, 1, 2, 3].map(|n| params[n].tensor());
    let (_, did) = counted(device, || {
        let options = Conv2dOptions { padding: [1, 1], ..Default::default() };
        let h = x.conv2d(&w, Some(&b), options).relu();
        let loss = h.flatten(1, -1).linear(&v, Some(&c)).cross_entropy(&labels);
        loss.backward().unwrap();
        drop((w, b, v, c));
        optimizer.step().unwrap();
        optimizer.zero_grad();
    });
    did
}

#[test]
fn a_last_batch_of_images_costs_one_plan_and_no_pipeline() {
    for device in devices() {
        let param = |n: u64, shape: &[usize]| Param::new(&(&tensor(n, shape, &device) * 0.1)).unwrap();
        let params = vec![param(0, &[8, 1, 3, 3]), param(1, &[8]), param(2, &[10, 512]), param(3, &[10])];
        let mut optimizer = sgd(params.clone(), 0.01);
        let first = image_step(&params, &mut optimizer, 32, &device);
        let last = image_step(&params, &mut optimizer, 29, &device);
        assert_eq!((first.plans_built, last.plans_built, last.pipelines), (1, 1, 0), "{device:?}");
        let one = image_step(&params, &mut optimizer, 1, &device);
        measured(&device, format!("batch of one: {} new pipelines, {} dispatches", one.pipelines, one.dispatches));
        assert!(one.plans_built == 1 && one.pipelines <= one.dispatches, "{device:?}: {one:?}");
        let again = [32, 29, 1].map(|n| image_step(&params, &mut optimizer, n, &device));
        assert!(again.iter().all(|c| (c.plans_built, c.pipelines, c.create_buffer, c.submits, c.param_writes) == (0, 0, 0, 1, 1)), "{device:?}: {again:?}");
    }
}

#[test]
fn a_rate_that_changes_every_step_is_data() {
    for device in devices() {
        let model = Mlp::new(1, &device);
        let mut optimizer = sgd(model.params(), 0.01);
        let x = tensor(2, &[8, 6], &device);
        let (_, did) = counted(&device, || {
            for n in 0..300 {
                optimizer.set_lr(0.01 / (1.0 + n as f64));
                model.loss(&x).backward().unwrap();
                optimizer.step().unwrap();
                optimizer.zero_grad();
            }
        });
        measured(&device, format!("{} plans", did.plans_built));
        assert!(did.plans_built <= 2, "{device:?}: {} plans", did.plans_built);
    }
}

#[test]
fn a_factor_that_changes_every_pass_is_data() {
    for device in devices() {
        let x = tensor(2, &[64], &device);
        let (_, did) = counted(&device, || {
            for i in 1..=300 {
                let y = (&x * (1.0 / i as f64)).to_vec::<f32>().unwrap();
                let want: Vec<f32> = x.to_vec::<f32>().unwrap().iter().map(|v| v * (1.0 / i as f64) as f32).collect();
                assert_eq!(y, want, "{device:?}: 1/{i}");
            }
        });
        measured(&device, format!("{} plans", did.plans_built));
        assert!(did.plans_built <= 2, "{device:?}: {} plans", did.plans_built);
    }
}

#[test]
fn a_thousand_windows_of_one_tensor_take_two_plans() {
    for device in devices() {
        let host = super::values(2, 1032 * 3);
        let x = Tensor::new(host.clone(), [1032, 3], &device).unwrap();
        let (_, did) = counted(&device, || {
            for i in 0..1000 {
                let got = (&x.narrow(0, i, 32) + 1.0).to_vec::<f32>().unwrap();
                let want: Vec<f32> = host[i * 3..(i + 32) * 3].iter().map(|v| v + 1.0).collect();
                assert_eq!(got, want, "{device:?}: window {i}");
            }
        });
        measured(&device, format!("{} plans", did.plans_built));
        assert!(did.plans_built <= 2, "{device:?}: {} plans", did.plans_built);
    }
}

#[test]
fn a_chain_of_100_000_additions_runs_and_is_dropped() {
    const N: usize = 100_000;
    for device in devices() {
        let start = Instant::now();
        let x = Tensor::new([0.0f32; 16], [16], &device).unwrap();
        let one = Tensor::new([1.0f32], [1], &device).unwrap();
        let (_, did) = counted(&device, || {
            // Run.
            let mut y = x.clone();
            for _ in 0..N {
                y = &y + &one;
            }
            assert_eq!(y.to_vec::<f32>().unwrap(), [N as f32; 16], "{device:?}");
            drop(y);
            // Dropped without being run.
            let mut y = x.clone();
            for _ in 0..N {
                y = &y + &one;
            }
            drop(y);
        });
        let seconds = start.elapsed().as_secs_f64();
        measured(&device, format!("{seconds:.1} s, {} pipelines, {} plans", did.pipelines, did.plans_built));
        assert!(did.pipelines <= 3, "{device:?}: {} pipelines", did.pipelines);
        assert!(seconds < 20.0, "{device:?}: {seconds:.1} s");
    }
}

#[test]
fn a_chain_with_history_is_walked_and_dropped() {
    // More than may be pending: it is cut on the way there, and on the way back.
    const N: usize = 30_000;
    for device in devices() {
        let x = Tensor::new([0.5f32; 4], [4], &device).unwrap().requires_grad().unwrap();
        let mut y = x.clone();
        for _ in 0..N {
            y = &y + &x;
        }
        y.sum_all().backward().unwrap();
        assert_eq!(x.grad().unwrap().to_vec::<f32>().unwrap(), [(N + 1) as f32; 4], "{device:?}");
    }
}

#[test]
fn the_least_recently_used_plan_goes_first() {
    let device = super::cpu();
    let _keeps_the_plans = tensor(1, &[1], &device);
    let run = |n: usize| {
        let x = tensor(1, &[n], &device);
        counted(&device, || (&x + 1.0).to_vec::<f32>().unwrap()).1.plans_built
    };
    // Two more than are kept; the first is used again in between, so it stays.
    assert_eq!(run(1), 1);
    for n in 2..=129 {
        assert_eq!(run(n), 1);
        assert_eq!(run(1), 0, "after {n}");
    }
    assert_eq!(run(2), 1, "the oldest is gone");
    assert_eq!(run(129), 0, "the newest is here");
}
