//! Mixed precision: what autocast casts, what comes back, and training with a scaled loss.

use crate::common;
use crate::ops::adapter;
use wgrad::data::{Dataset, Targets};
use wgrad::nn::{BatchNorm1d, BatchNorm2d, Conv2d, Linear, Module, Param, ReLU, Sequential};
use wgrad::optim::{Adam, AdamOptions, AdamW, GradScaler, GradScalerOptions, Optimizer, Sgd, SgdOptions};
use wgrad::tensor::DType;
use wgrad::train::{Event, Flow, Precision, TrainOptions, Trainer, capture, gradients};
use wgrad::{Device, Error, Generator, Result, Tensor, autocast};

fn devices() -> Vec<Device> {
    [Some(common::definition()), Some(common::fast()), adapter(common::gpu(), 1), adapter(common::floor(), 1)].into_iter().flatten().collect()
}

/// Seeded numbers.
fn numbers(name: &str, shape: &[usize], device: &Device) -> Result<Tensor> {
    let mut d = common::Draw::new(name, 0);
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| d.float(-1.0, 1.0) as f32).collect();
    Tensor::new(values, shape, device)
}

#[test]
fn products_take_halves_and_what_is_steep_takes_floats() -> Result<()> {
    for device in devices() {
        let x = numbers("x", &[4, 8], &device)?;
        let w = numbers("w", &[6, 8], &device)?.requires_grad()?;
        let b = numbers("b", &[6], &device)?.requires_grad()?;
        autocast(DType::F16, || {
            let y = x.linear(&w, Some(&b));
            assert_eq!((y.dtype(), y.relu().dtype(), (&y + &x.narrow(1, 0, 6)).dtype()), (DType::F16, DType::F16, DType::F32));
            assert_eq!((y.exp().dtype(), y.softmax(1).dtype(), y.sum_all().dtype(), y.reshape([24]).dtype()), (DType::F32, DType::F32, DType::F32, DType::F16));
            autocast(DType::F32, || assert_eq!(x.matmul(&w.t()).dtype(), DType::F32));
            // Double precision is somebody's intention.
            if !device.is_gpu() {
                assert_eq!(x.to_dtype(DType::F64).matmul(&w.t().to_dtype(DType::F64)).dtype(), DType::F64);
            }
        });
        assert_eq!(x.matmul(&w.t()).dtype(), DType::F32);
    }
    Ok(())
}

/// Loss and gradients of a small network.
fn network(device: &Device, mixed: bool) -> Result<(f64, Vec<Vec<f32>>)> {
    let g = Generator::new(3);
    let mut net = Sequential::new();
    net.push(Box::new(Conv2d::new(2, 6, 3, &g, device)?));
    net.push(Box::new(BatchNorm2d::new(6, device)?));
    net.push(Box::new(wgrad::nn::ReLU));
    net.push(Box::new(wgrad::nn::Flatten::default()));
    net.push(Box::new(Linear::new(6 * 4 * 5, 7, &g, device)?));
    let x = numbers("image", &[5, 2, 6, 7], device)?;
    let labels = Tensor::new([0, 3, 6, 2, 1], [5], device)?;
    let loss = autocast(if mixed { DType::F16 } else { DType::F32 }, || net.try_forward(&x)?.cross_entropy_with(&labels, &Default::default()))?;
    assert_eq!(loss.dtype(), DType::F32);
    loss.backward()?;
    let grads = net.parameters().iter().map(|p| p.grad().unwrap().to_vec::<f32>()).collect::<Result<_>>()?;
    Ok((loss.item()?, grads))
}

#[test]
fn gradients_come_back_in_f32_and_near_those_of_f32() -> Result<()> {
    let (loss, want) = network(&common::fast(), false)?;
    for device in devices() {
        let (mixed, got) = network(&device, true)?;
        assert!((loss - mixed).abs() < 4e-3 * loss, "{device:?}: loss {mixed}, in f32 {loss}");
        assert_ne!(loss, mixed, "{device:?}: nothing was cast");
        for (n, (g, w)) in got.iter().zip(&want).enumerate() {
            let scale = w.iter().fold(0f32, |m, v| m.max(v.abs()));
            let worst = g.iter().zip(w).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
            // The bias before batch norm has no gradient but rounding.
            assert!(worst <= 0.02 * scale.max(0.01), "{device:?}: gradient {n} is off by {worst} of {scale}");
        }
    }
    Ok(())
}

#[test]
fn a_weight_is_cast_once_however_often_it_is_used() -> Result<()> {
    let device = common::fast();
    let w = numbers("w", &[8, 8], &device)?.requires_grad()?;
    let x = numbers("x", &[3, 8], &device)?;
    let nodes = || device.counters().nodes;
    autocast(DType::F16, || -> Result<()> {
        let h = x.to_dtype(DType::F16).matmul(&w.t());
        let before = nodes();
        let y = h.matmul(&w.t());
        // The view of the parameter, that of its halves, the product.
        assert_eq!(nodes() - before, 3);
        y.sum_all().backward()?;
        // Backward has consumed the history of the cast: the next use makes one of its own, and the gradient flows again.
        let first = w.grad().unwrap().to_vec::<f32>()?;
        w.set_grad(None);
        x.matmul(&w.t()).matmul(&w.t()).sum_all().backward()?;
        assert_eq!(w.grad().unwrap().to_vec::<f32>()?, first);
        // Nor does one without history serve where there is to be some.
        w.set_grad(None);
        wgrad::no_grad(|| x.matmul(&w.t()).to_data())?;
        x.matmul(&w.t()).sum_all().backward()?;
        assert!(w.grad().is_some());
        Ok(())
    })
}

#[test]
fn models_at_once_and_recomputed_ones_have_the_bits_of_plain_ones() -> Result<()> {
    let device = common::fast();
    let (w, x) = (numbers("w", &[3, 5, 4], &device)?, numbers("x", &[2, 4], &device)?);
    let f = |w: &Tensor| autocast(DType::F16, || x.matmul(&w.t()).tanh().exp().sum_all());
    let alone = (0..3).map(|m| f(&w.narrow(0, m, 1).reshape([5, 4])).to_vec::<f32>()).collect::<Result<Vec<_>>>()?.concat();
    assert_eq!(wgrad::autograd::vmap(|p| Ok(vec![f(&p[0])]), &[&w])?[0].to_vec::<f32>()?, alone);
    assert_eq!(autocast(DType::F16, || wgrad::autograd::vmap(|p| Ok(vec![f(&p[0])]), &[&w]))?[0].to_vec::<f32>()?, alone);
    let grad = |again: bool| -> Result<Vec<f32>> {
        let w = w.narrow(0, 0, 1).reshape([5, 4]).requires_grad()?;
        let y = if again { wgrad::autograd::checkpoint(|| f(&w)) } else { f(&w) };
        y.backward()?;
        w.grad().unwrap().to_vec()
    };
    assert_eq!(grad(true)?, grad(false)?);
    Ok(())
}

#[test]
fn a_scope_around_many_steps_holds_the_halves_of_one() -> Result<()> {
    let device = Device::cpu_with(1, false)?;
    let w = Param::new(&numbers("w", &[64, 64], &device)?)?;
    let mut sgd = Sgd::new(vec![w.clone()], SgdOptions::default())?;
    let x = numbers("x", &[2, 64], &device)?;
    autocast(DType::F16, || -> Result<()> {
        let mut held = Vec::new();
        for _ in 0..6 {
            x.matmul(&w.tensor()).sum_all().backward()?;
            sgd.step()?;
            sgd.zero_grad();
            held.push(device.counters().bytes_in_use);
        }
        assert_eq!(held[5], held[2], "{held:?}");
        Ok(())
    })
}

#[test]
fn activations_take_half_the_memory() -> Result<()> {
    let peak = |mixed: bool| -> Result<u64> {
        let device = Device::cpu_with(1, false)?;
        let w = numbers("w", &[64, 64], &device)?.requires_grad()?;
        let x = numbers("x", &[4096, 64], &device)?;
        let before = device.counters().bytes_in_use;
        let forward = || (0..8).fold(x.clone(), |h, _| h.matmul(&w.t()).relu()).mean_all();
        autocast(if mixed { DType::F16 } else { DType::F32 }, forward).backward()?;
        w.grad().unwrap().to_data()?;
        Ok(device.counters().bytes_peak - before)
    };
    let (plain, mixed) = (peak(false)?, peak(true)?);
    assert!(mixed as f64 <= 0.6 * plain as f64, "{mixed} bytes, {plain} in f32");
    Ok(())
}

/// Two parameters, and the gradients that step `n` gives them: `bad` puts one that is not finite among them.
fn params(device: &Device) -> Result<Vec<Param>> {
    [("p", 70), ("q", 3)].iter().map(|&(name, n)| Param::new(&numbers(name, &[n], device)?)).collect()
}

fn give(params: &[Param], n: usize, scale: f64, bad: Option<f32>) -> Result<()> {
    for (k, p) in params.iter().enumerate() {
        let g = numbers(&format!("g{n}"), p.shape(), p.tensor().device())? * scale;
        let mut values = g.to_vec::<f32>()?;
        if let Some(bad) = bad.filter(|_| k == 1) {
            values[2] = bad;
        }
        p.set_grad(Some(Tensor::new(values, *p.shape(), p.tensor().device())?));
    }
    Ok(())
}

type Make = fn(Vec<Param>) -> Result<Box<dyn Optimizer>>;

const OPTIMIZERS: [Make; 4] = [
    |p| Ok(Box::new(Sgd::new(p, SgdOptions { lr: 0.1, ..Default::default() })?)),
    |p| Ok(Box::new(Sgd::new(p, SgdOptions { lr: 0.1, momentum: 0.9, dampening: 0.5, ..Default::default() })?)),
    |p| Ok(Box::new(Adam::new(p, AdamOptions { lr: 0.1, ..Default::default() })?)),
    |p| Ok(Box::new(AdamW::new(p, AdamOptions { lr: 0.1, amsgrad: true, weight_decay: 0.1, ..Default::default() })?)),
];

fn values(params: &[Param]) -> Result<Vec<f32>> {
    Ok(params.iter().map(|p| p.tensor().to_vec::<f32>()).collect::<Result<Vec<_>>>()?.concat())
}

#[test]
fn a_step_that_overflows_is_as_if_it_had_not_been() -> Result<()> {
    for device in devices() {
        for make in OPTIMIZERS {
            // The first, one in the middle, and two in a row are lost.
            let bad = [Some(f32::INFINITY), None, Some(f32::NAN), Some(f32::NEG_INFINITY), None, None];
            let (plain, scaled) = (params(&device)?, params(&device)?);
            let (mut one, mut other) = (make(plain.clone())?, make(scaled.clone())?);
            let mut scaler = GradScaler::new(GradScalerOptions { init_scale: 1024.0, growth_interval: 100, ..Default::default() }, &device)?;
            let mut scale = 1024.0;
            for (n, bad) in bad.into_iter().enumerate() {
                let before = values(&scaled)?;
                give(&scaled, n, scale, bad)?;
                scaler.step(&mut *other)?;
                if bad.is_some() {
                    assert_eq!(values(&scaled)?, before, "{device:?}: {other:?}");
                    scale /= 2.0;
                } else {
                    give(&plain, n, 1.0, None)?;
                    one.step()?;
                }
                assert_eq!(scaler.get_scale()?, scale);
            }
            assert_eq!(scaler.skipped()?, 3);
            let (got, want) = (values(&scaled)?, values(&plain)?);
            // The corrections of Adam are computed on the device.
            assert!(got.iter().zip(&want).all(|(g, w)| (g - w).abs() <= 2e-6), "{device:?}: {other:?}: {got:?}, not {want:?}");
            let taken = |o: &dyn Optimizer| Ok::<_, wgrad::Error>(o.state_dict()?.iter().find(|(n, _)| n == "step").map(|(_, t)| t.item()));
            assert_eq!(taken(&*other)?.unwrap()?, 3.0);
        }
    }
    Ok(())
}

#[test]
fn without_overflow_a_scaled_step_has_the_bits_of_a_plain_one() -> Result<()> {
    for device in devices() {
        for make in OPTIMIZERS {
            let (plain, scaled) = (params(&device)?, params(&device)?);
            let (mut one, mut other) = (make(plain.clone())?, make(scaled.clone())?);
            let mut scaler = GradScaler::new(GradScalerOptions { growth_interval: 2, ..Default::default() }, &device)?;
            let mut scales = Vec::new();
            for n in 0..5 {
                scales.push(scaler.get_scale()?);
                give(&scaled, n, scaler.get_scale()?, None)?;
                give(&plain, n, 1.0, None)?;
                scaler.step(&mut *other)?;
                one.step()?;
            }
            assert_eq!(scales, [65536.0, 65536.0, 131072.0, 131072.0, 262144.0]);
            assert_eq!(values(&scaled)?, values(&plain)?, "{device:?}: {other:?}");
        }
    }
    Ok(())
}

#[test]
fn an_overflow_in_one_arena_holds_back_the_others() -> Result<()> {
    // Each of these fills most of the largest binding that every device has, so each has an arena of its own.
    let Some(device) = adapter(common::floor(), 1) else { return Ok(()) };
    let n = 17 << 20;
    let all = [Param::new(&Tensor::zeros([n], &device))?, Param::new(&Tensor::zeros([n], &device))?];
    let mut sgd = Sgd::new(all.to_vec(), SgdOptions { lr: 1.0, ..Default::default() })?;
    let mut scaler = GradScaler::new(GradScalerOptions { init_scale: 8.0, ..Default::default() }, &device)?;
    for (first, second, want) in [(f64::INFINITY, 8.0, 0.0), (8.0, f64::NEG_INFINITY, 0.0), (2.0, 2.0, -1.0)] {
        all[0].set_grad(Some(Tensor::full([n], first, &device)));
        all[1].set_grad(Some(Tensor::full([n], second, &device)));
        scaler.step(&mut sgd)?;
        for p in &all {
            let ends = [0, n - 1].map(|at| p.tensor().narrow(0, at, 1).item());
            assert_eq!(ends.into_iter().collect::<Result<Vec<_>>>()?, [want; 2]);
        }
    }
    assert_eq!((scaler.get_scale()?, scaler.skipped()?), (2.0, 2));
    Ok(())
}

#[test]
fn the_scale_stays_where_it_can_be_used() -> Result<()> {
    let device = common::fast();
    let p = params(&device)?;
    let mut sgd = Sgd::new(p.clone(), SgdOptions::default())?;
    let mut scaler = GradScaler::new(GradScalerOptions { init_scale: f64::from(f32::MAX), growth_interval: 1, ..Default::default() }, &device)?;
    for n in 0..3 {
        give(&p, n, 1.0, None)?;
        scaler.step(&mut sgd)?;
    }
    assert_eq!(scaler.get_scale()?, 2f64.powi(127));
    for n in 0..300 {
        give(&p, n, 1.0, Some(f32::NAN))?;
        scaler.step(&mut sgd)?;
    }
    assert_eq!((scaler.get_scale()?, scaler.skipped()?), (2f64.powi(-100), 300));
    for (options, message) in [
        (GradScalerOptions { init_scale: f64::INFINITY, ..Default::default() }, "grad_scaler: init_scale must be above 0 and finite in f32, got inf"),
        (GradScalerOptions { growth_factor: 0.5, ..Default::default() }, "grad_scaler: growth_factor must be at least 1, got 0.5"),
        (GradScalerOptions { backoff_factor: 1.0, ..Default::default() }, "grad_scaler: backoff_factor must be between 0 and 1, got 1"),
        (GradScalerOptions { growth_interval: 0, ..Default::default() }, "grad_scaler: growth_interval must be at least 1, got 0"),
    ] {
        assert_eq!(GradScaler::new(options, &device).unwrap_err().to_string(), message);
    }
    Ok(())
}

#[test]
fn a_resumed_run_has_the_bits_of_one_that_was_not_interrupted() -> Result<()> {
    for device in devices() {
        let options = GradScalerOptions { init_scale: 512.0, growth_interval: 2, ..Default::default() };
        let step = |p: &[Param], o: &mut dyn Optimizer, s: &mut GradScaler, n: usize| -> Result<()> {
            give(p, n, 100.0, (n % 3 == 1).then_some(f32::INFINITY))?;
            s.step(o)
        };
        let p = params(&device)?;
        let (mut optimizer, mut scaler) = (OPTIMIZERS[2](p.clone())?, GradScaler::new(options, &device)?);
        (0..5).try_for_each(|n| step(&p, &mut *optimizer, &mut scaler, n))?;
        let (weights, state, scale) = (values(&p)?, optimizer.state_dict()?, scaler.state_dict()?);
        (5..9).try_for_each(|n| step(&p, &mut *optimizer, &mut scaler, n))?;

        let again = params(&device)?;
        let (a, b) = weights.split_at(70);
        again[0].set(&Tensor::new(a, [70], &device)?)?;
        again[1].set(&Tensor::new(b, [3], &device)?)?;
        let (mut other, mut resumed) = (OPTIMIZERS[2](again.clone())?, GradScaler::new(options, &device)?);
        other.load_state_dict(&state)?;
        resumed.load_state_dict(&scale)?;
        (5..9).try_for_each(|n| step(&again, &mut *other, &mut resumed, n))?;
        assert_eq!(values(&again)?, values(&p)?, "{device:?}");
        assert_eq!((resumed.get_scale()?, resumed.skipped()?), (scaler.get_scale()?, scaler.skipped()?));
    }
    Ok(())
}

/// 50 points in two classes, by the sign of x - y; the features of `huge` are beyond what halves hold.
fn points(huge: Option<usize>) -> Dataset {
    let at = |i: usize| [(i * 37 % 50) as f32 / 25.0 - 1.0, (i * 11 % 50) as f32 / 25.0 - 0.99];
    let mut features: Vec<f32> = (0..50).flat_map(at).collect();
    let labels = features.chunks(2).map(|p| i32::from(p[0] > p[1])).collect();
    if let Some(i) = huge {
        features[2 * i] = 1e30;
    }
    Dataset::new(features, &[2], Targets::Classes { labels, classes: 2 }).unwrap()
}

fn trained(device: &Device, data: &Dataset, options: TrainOptions) -> Result<(Sequential, wgrad::train::Report)> {
    let g = Generator::new(3);
    let model = Sequential::new().then(Linear::new(2, 8, &g, device)?).then(ReLU).then(Linear::new(8, 2, &g, device)?);
    let adam = Adam::new(model.parameters(), AdamOptions { lr: options.learning_rate, ..Default::default() })?;
    let report = Trainer::new(&model, adam, options)?.fit(data, None, device)?;
    Ok((model, report))
}

fn mixed(epochs: usize, init_scale: f64) -> TrainOptions {
    let precision = Precision::Mixed(GradScalerOptions { init_scale, ..Default::default() });
    TrainOptions { epochs, batch_size: 16, learning_rate: 0.02, precision, ..Default::default() }
}

#[test]
fn training_survives_overflows_and_learns_on() -> Result<()> {
    for device in devices() {
        // A scale that overflows at once; and a sample that overflows in every epoch, whose batch is left out.
        for (huge, scale, skipped) in [(None, f64::from(f32::MAX), 50..200), (Some(7), 1024.0, 40..41)] {
            let (model, report) = trained(&device, &points(huge), mixed(40, scale))?;
            let last = report.epochs.last().unwrap();
            assert!(model.state_dict().iter().all(|(_, t)| t.to_vec::<f32>().unwrap().iter().all(|v| v.is_finite())));
            assert!(last.train.accuracy.unwrap() > 0.9 && last.train.loss < 0.4, "{device:?}: {last:?}");
            let all: u64 = report.epochs.iter().map(|e| e.skipped).sum();
            assert!(skipped.contains(&all), "{device:?}: {all} steps skipped");
        }
    }
    // Where nothing is finite, there is nothing to go on with.
    let data = Dataset::new(vec![1e30; 100], &[2], Targets::Classes { labels: vec![0; 50], classes: 2 })?;
    assert!(trained(&common::fast(), &data, mixed(3, 1024.0)).unwrap_err().to_string().starts_with("train: epoch 1: the loss is NaN"));
    Ok(())
}

#[test]
fn listeners_get_gradients_scaled_back() -> Result<()> {
    let device = common::fast();
    let first = |precision: Precision| -> Result<Vec<f32>> {
        let g = Generator::new(3);
        let model = Linear::new(2, 2, &g, &device)?;
        let sgd = Sgd::new(model.parameters(), SgdOptions { lr: 0.1, ..Default::default() })?;
        let mut seen = Vec::new();
        let look = gradients(|params| {
            seen = params[0].grad().unwrap().to_vec::<f32>()?;
            Ok(())
        });
        let stop = |e: &Event<'_>| Ok(if matches!(e, Event::StepEnded { .. }) { Flow::Stop } else { Flow::Continue });
        Trainer::new(&model, sgd, TrainOptions { precision, ..Default::default() })?.callback(look).callback(stop).fit(&points(None), None, &device)?;
        Ok(seen)
    };
    let (plain, mixed) = (first(Precision::F32)?, first(Precision::Mixed(Default::default()))?);
    assert!(plain.iter().zip(&mixed).all(|(a, b)| (a - b).abs() < 1e-3) && plain != mixed, "{plain:?} {mixed:?}");
    Ok(())
}

#[test]
fn parameters_of_halves_are_refused() {
    let device = common::fast();
    let p = Param::new(&Tensor::ones([2], &device).to_dtype(DType::F16)).unwrap();
    let e = Sgd::new(vec![p], SgdOptions::default()).unwrap_err().to_string();
    assert_eq!(e, "sgd: parameter 0 is f16, too coarse for small steps\nhelp: keep parameters in f32, and record the model inside autocast");
}

/// Twelve steps of a classifier with a scaled loss; what each gave, and the state at the end. Its scale grows at every third step, the fifth step overflows, and
/// the states are saved and taken up again before the ninth.
fn scaled_steps(device: &Device, captured: bool) -> Result<(Vec<u32>, Vec<f32>, u64)> {
    let initial = Generator::new(4);
    let model =
        Sequential::new().then(Linear::new(6, 8, &initial, device)?).then(BatchNorm1d::new(8, device)?).then(ReLU).then(Linear::new(8, 3, &initial, device)?);
    let mut optimizer = Adam::new(model.parameters(), AdamOptions { lr: 0.05, ..AdamOptions::default() })?;
    let options = GradScalerOptions { init_scale: 1024.0, growth_interval: 3, ..GradScalerOptions::default() };
    let mut scaler = GradScaler::new(options, device)?;
    let x = numbers("scaled x", &[48, 6], device)?;
    let weight = |step: usize| Tensor::new([if step == 4 { 1e9f32 } else { 1.0 }], [1], device);
    let forward = |inputs: &[Tensor]| -> Result<(Tensor, Vec<Tensor>)> {
        let loss = autocast(DType::F16, || Ok::<_, Error>(model.try_forward(&inputs[0])?.square().mean_all()))?;
        let loss = &loss.reshape([1]) * &inputs[1];
        Ok((loss.sum_all(), vec![loss]))
    };
    let mut step = capture(forward);
    let mut told = Vec::new();
    for n in 0..12 {
        if n == 8 {
            let (a, b) = (optimizer.state_dict()?, scaler.state_dict()?);
            optimizer.load_state_dict(&a)?;
            scaler.load_state_dict(&b)?;
        }
        let (batch, weight) = (x.narrow(0, n % 3 * 16, 16), weight(n)?);
        let outputs = if captured {
            step.run_scaled(&mut optimizer, &mut scaler, &[&batch, &weight])?
        } else {
            optimizer.zero_grad();
            let (loss, outputs) = forward(&[batch, weight])?;
            scaler.scale(&loss)?.backward()?;
            drop(loss);
            scaler.step(&mut optimizer)?;
            optimizer.zero_grad();
            outputs
        };
        told.extend(outputs[0].detach().to_vec::<f32>()?.iter().map(|v| v.to_bits()));
    }
    let mut state = values(&model.parameters())?;
    state.extend([scaler.get_scale()? as f32, scaler.skipped()? as f32, optimizer.steps() as f32]);
    Ok((told, state, step.replays()))
}

#[test]
fn captured_scaled_steps_have_the_bits_of_uncaptured_ones() -> Result<()> {
    for device in devices() {
        let (plain, captured) = (scaled_steps(&device, false)?, scaled_steps(&device, true)?);
        assert_eq!(plain.0, captured.0, "{device:?}");
        assert_eq!(plain.1, captured.1, "{device:?}");
        let skipped = plain.1[plain.1.len() - 2];
        assert!(skipped >= 1.0, "{device:?}: no step overflowed");
        assert!(captured.2 >= 8, "{device:?}: {} of 12 steps were replayed", captured.2);
    }
    Ok(())
}

#[test]
fn a_captured_step_knows_its_scaler() -> Result<()> {
    for device in devices() {
        let params = params(&device)?;
        let mut optimizer = Sgd::new(params.clone(), SgdOptions { lr: 0.5, ..SgdOptions::default() })?;
        let of = params.clone();
        let mut step = capture(move |_| {
            let loss = of[0].tensor().sum_all();
            Ok((loss.clone(), vec![loss]))
        });
        let scaler = |init_scale| GradScaler::new(GradScalerOptions { init_scale, growth_interval: 1, ..GradScalerOptions::default() }, &device);
        let (mut a, mut b) = (scaler(16.0)?, scaler(32.0)?);
        for _ in 0..3 {
            step.run_scaled(&mut optimizer, &mut a, &[])?;
        }
        step.run_scaled(&mut optimizer, &mut b, &[])?;
        step.run(&mut optimizer, &[])?;
        assert_eq!((a.get_scale()?, b.get_scale()?), (128.0, 64.0), "{device:?}");
    }
    Ok(())
}
