//! The model axis: K models train as one program, each as it would alone.

use super::{counted, devices, measured, values};
use wgrad::autograd::{grad, vmap, vmap_seeded};
use wgrad::{Device, Generator, Tensor};

const MODELS: usize = 8;
const STEPS: usize = 30;
const SEEDS: [u32; MODELS] = [1, 2, 3, 5, 8, 13, 21, 34];

fn rate(model: usize) -> f32 {
    0.02 * (model + 1) as f32
}

/// A model's first parameters: the weights and biases of two layers.
fn start(model: usize) -> Vec<(Vec<f32>, Vec<usize>)> {
    [vec![6, 16], vec![16], vec![16, 1], vec![1]]
        .into_iter()
        .enumerate()
        .map(|(n, shape)| (values(100 * u64::from(SEEDS[model]) + n as u64, shape.iter().product()), shape))
        .collect()
}

/// One step of one model: the loss and the new parameters. Its noise comes from `noise`.
fn step(p: &[Tensor], x: &Tensor, y: &Tensor, noise: &Generator) -> wgrad::Result<Vec<Tensor>> {
    let [w1, b1, w2, b2, rate] = p else { panic!("five inputs") };
    let mask = Tensor::rand([32, 16], noise, x.device())?.gt_scalar(0.2).to_dtype(wgrad::DType::F32);
    let h = (x.matmul(w1) + b1).tanh() * mask;
    let loss = (h.matmul(w2) + b2 - y).square().mean_all();
    let gradients = grad(&[&loss], &[w1, b1, w2, b2])?;
    let mut out = vec![loss.detach()];
    for (w, g) in [w1, b1, w2, b2].into_iter().zip(gradients) {
        out.push((w - g.expect("each parameter has a part in the loss") * rate).detach());
    }
    Ok(out)
}

fn data(device: &Device) -> (Tensor, Tensor) {
    let x = super::tensor(7, &[32, 6], device);
    let y = x.sum(&[1], true).sin();
    wgrad::graph::flush(device).unwrap();
    (x, y)
}

/// The loss curve of one model alone, and the dispatches of a step.
fn alone(model: usize, device: &Device) -> (Vec<f32>, u64) {
    let (x, y) = data(device);
    let noise = Generator::new(SEEDS[model].into());
    let mut p: Vec<Tensor> = start(model).into_iter().map(|(v, shape)| Tensor::new(v, shape, device).unwrap()).collect();
    p.push(Tensor::new([rate(model)], [], device).unwrap());
    let mut losses = Vec::new();
    let mut dispatches = 0;
    for _ in 0..STEPS {
        let (out, did) = counted(device, || {
            let leaves: Vec<Tensor> = p[..4].iter().map(|t| t.requires_grad().unwrap()).chain([p[4].clone()]).collect();
            let out = step(&leaves, &x, &y, &noise).unwrap();
            wgrad::graph::flush(device).unwrap();
            out
        });
        dispatches = did.dispatches;
        losses.push(out[0].clone());
        p[..4].clone_from_slice(&out[1..]);
    }
    (losses.iter().map(|l| l.item().unwrap() as f32).collect(), dispatches)
}

/// The loss curves of all, stacked into one program; its plans, and the dispatches of a step.
fn stacked(device: &Device) -> (Vec<Vec<f32>>, u64, u64) {
    let (x, y) = data(device);
    let noise = Generator::new(0);
    let models: Vec<_> = (0..MODELS).map(start).collect();
    let mut p: Vec<Tensor> = (0..4)
        .map(|n| {
            let all: Vec<f32> = models.iter().flat_map(|m| m[n].0.clone()).collect();
            let shape: Vec<usize> = std::iter::once(MODELS).chain(models[0][n].1.iter().copied()).collect();
            Tensor::new(all, shape, device).unwrap()
        })
        .collect();
    p.push(Tensor::new((0..MODELS).map(rate).collect::<Vec<_>>(), [MODELS], device).unwrap());
    let mut losses = Vec::new();
    let (mut plans, mut dispatches) = (0, 0);
    for _ in 0..STEPS {
        let (out, did) = counted(device, || {
            let out = vmap_seeded(|p| step(p, &x, &y, &noise), &p.iter().collect::<Vec<_>>(), &SEEDS).unwrap();
            wgrad::graph::flush(device).unwrap();
            out
        });
        plans += did.plans_built;
        dispatches = did.dispatches;
        losses.push(out[0].clone());
        p[..4].clone_from_slice(&out[1..]);
    }
    let curves: Vec<Vec<f32>> = losses.iter().map(|l| l.to_vec::<f32>().unwrap()).collect();
    ((0..MODELS).map(|m| curves.iter().map(|c| c[m]).collect()).collect(), plans, dispatches)
}

#[test]
fn eight_models_train_as_one_program_each_as_alone() {
    for device in devices() {
        let (curves, plans, dispatches) = stacked(&device);
        measured(&device, format!("{MODELS} models: {plans} plan, {dispatches} dispatches a step"));
        assert_eq!(plans, 1, "{device:?}");
        for (model, curve) in curves.iter().enumerate() {
            let (own, own_dispatches) = alone(model, &device);
            assert_eq!(dispatches, own_dispatches, "{device:?}: dispatches of a step");
            assert!(own[STEPS - 1] < own[0], "{device:?} model {model}: it learns: {own:?}");
            if device.is_gpu() {
                let close = curve.iter().zip(&own).all(|(a, b)| (a - b).abs() <= 1e-5 * b.abs().max(1e-2));
                assert!(close, "{device:?} model {model}: {curve:?} and alone {own:?}");
            } else {
                let bits = |c: &[f32]| c.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                assert_eq!(bits(curve), bits(&own), "{device:?} model {model}");
            }
        }
    }
}

#[test]
fn reading_a_value_inside_vmap_is_an_error() {
    for device in devices() {
        let w = super::tensor(1, &[3, 4], &device);
        let e = vmap(|p| Ok(vec![&p[0] * p[0].sum_all().item()?]), &[&w]).unwrap_err();
        assert!(e.message().contains("vmap"), "{e}");
    }
}

#[test]
fn gradients_by_example_are_those_of_each_example() {
    for device in devices() {
        let w = super::tensor(1, &[6, 3], &device);
        let x = super::tensor(2, &[5, 6], &device);
        let loss = |w: &Tensor, x: &Tensor| x.unsqueeze(0).matmul(w).tanh().square().sum_all();
        let wide = w.unsqueeze(0).expand([5, 6, 3]);
        let all = vmap(|p| Ok(vec![grad(&[&loss(&p[0], &p[1])], &[&p[0]])?.remove(0).unwrap()]), &[&wide, &x]).unwrap().remove(0);
        for n in 0..5 {
            let leaf = w.requires_grad().unwrap();
            let own = grad(&[&loss(&leaf, &x.select(0, n))], &[&leaf]).unwrap().remove(0).unwrap();
            let (a, b) = (all.select(0, n).to_vec::<f32>().unwrap(), own.to_vec::<f32>().unwrap());
            assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-5), "{device:?} example {n}: {a:?} and {b:?}");
        }
    }
}

#[test]
fn a_long_function_is_stacked_whole() {
    // More nodes than may be pending elsewhere: what is recorded over the stand-ins for one model cannot be run.
    const N: usize = 21_000;
    for device in devices() {
        let x = super::tensor(1, &[2, 3], &device);
        let y = vmap(|p| Ok(vec![(0..N).fold(p[0].clone(), |y, _| y + 1.0)]), &[&x]).unwrap().remove(0);
        let want: Vec<f32> = x.to_vec::<f32>().unwrap().iter().map(|v| (0..N).fold(*v, |y, _| y + 1.0)).collect();
        assert_eq!(y.to_vec::<f32>().unwrap(), want, "{device:?}");
    }
}
