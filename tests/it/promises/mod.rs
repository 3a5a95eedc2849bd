//! What the graph promises: a test for each promise, named for it, on the CPU backend and on a GPU. See `ARCHITECTURE.md`, "What the graph promises".

mod capture;
mod counters;
mod custom;
mod failure;
mod fusion;
#[cfg(target_os = "linux")]
mod growth;
mod history;
mod interop;
mod launches;
mod memory;
mod models;
mod plans;
mod random;
mod segments;
mod threads;
mod versions;

use wgrad::device::CounterValues;
use wgrad::device::gpu::GpuOptions;
use wgrad::nn::Param;
use wgrad::optim::{Optimizer, Sgd, SgdOptions};
use wgrad::{Device, Generator, Tensor};

/// A CPU device of its own: no other test counts on it.
fn cpu() -> Device {
    Device::cpu_with(2, false).unwrap()
}

/// A GPU device of its own; `None` only where WGRAD_ALLOW_NO_GPU says that there may be none.
fn gpu() -> Option<Device> {
    match Device::gpu(0, &GpuOptions::from_env().unwrap()) {
        Ok(device) => Some(device),
        Err(e) if wgrad::env::flag("WGRAD_ALLOW_NO_GPU").unwrap() => {
            println!("not run on a GPU: {e}");
            None
        }
        Err(e) => panic!("the tests need an adapter: {e}"),
    }
}

/// Both, each fresh.
fn devices() -> Vec<Device> {
    std::iter::once(cpu()).chain(gpu()).collect()
}

/// What `f` gives, and what the device did for it.
fn counted<R>(device: &Device, f: impl FnOnce() -> R) -> (R, CounterValues) {
    let before = device.counters();
    let result = f();
    (result, device.counters().since(&before))
}

/// Print what was seen on a device: `make accept-spine` shows it beside the limit.
fn measured(device: &Device, what: impl std::fmt::Display) {
    println!("\nmeasured {}: {what}", device.short_name());
}

/// Values between -1 and 1, always the same for a seed.
fn values(seed: u64, n: usize) -> Vec<f32> {
    (0..n).map(|i| wgrad::rng::uniform(wgrad::rng::word(seed, 0, i)) * 2.0 - 1.0).collect()
}

/// A tensor of such values.
fn tensor(seed: u64, shape: &[usize], device: &Device) -> Tensor {
    Tensor::new(values(seed, shape.iter().product()), shape, device).unwrap()
}

fn bits(t: &Tensor) -> Vec<u32> {
    t.to_vec::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
}

/// A small network: two layers, tanh between them.
struct Mlp {
    w1: Param,
    b1: Param,
    w2: Param,
    b2: Param,
}

impl Mlp {
    fn new(seed: u64, device: &Device) -> Mlp {
        let param = |n: u64, shape: &[usize]| Param::new(&(&tensor(seed * 8 + n, shape, device) * 0.5)).unwrap();
        Mlp { w1: param(0, &[6, 16]), b1: param(1, &[16]), w2: param(2, &[16, 1]), b2: param(3, &[1]) }
    }

    fn params(&self) -> Vec<Param> {
        vec![self.w1.clone(), self.b1.clone(), self.w2.clone(), self.b2.clone()]
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let h = (x.matmul(&self.w1.tensor()) + &self.b1.tensor()).tanh();
        h.matmul(&self.w2.tensor()) + &self.b2.tensor()
    }

    /// Mean squared error to the sine of the sum of the inputs.
    fn loss(&self, x: &Tensor) -> Tensor {
        (self.forward(x) - x.sum(&[1], true).sin()).square().mean_all()
    }
}

/// An optimizer with momentum.
fn sgd(params: Vec<Param>, lr: f64) -> Sgd {
    Sgd::new(params, SgdOptions { lr, momentum: 0.9, ..Default::default() }).unwrap()
}

/// The loss of each of `steps` steps of training, as bits.
fn train(seed: u64, steps: usize, device: &Device) -> Vec<u32> {
    let model = Mlp::new(seed, device);
    let mut optimizer = sgd(model.params(), 0.05);
    let generator = Generator::new(seed);
    (0..steps)
        .map(|_| {
            let x = Tensor::randn([32, 6], &generator, device).unwrap();
            let loss = model.loss(&x);
            loss.backward().unwrap();
            optimizer.step().unwrap();
            optimizer.zero_grad();
            (loss.item().unwrap() as f32).to_bits()
        })
        .collect()
}
