//! The workloads on burn. `burn-peer <wgpu|flex> <workload>...`

mod nets;

use burn::nn::loss::CrossEntropyLossConfig;
use burn::optim::{AdamConfig, GradientsParams, ModuleOptimizer};
use burn::prelude::*;
use burn::tensor::activation::{relu, softmax};
use nets::{LeNet, Mlp, Net, ResNet};
use protocol::{BATCHES, Line, Timing, class_batch, network, time, uniform};
use std::time::Instant;

struct Peer {
    name: String,
    device: Device,
    began: Instant,
}

/// A model, its optimizer, its batches.
struct Trainer<N: Net> {
    model: Option<N>,
    optimizer: ModuleOptimizer,
    batches: Vec<(Tensor<2>, Tensor<1, Int>)>,
    taken: usize,
    device: Device,
}

impl<N: Net> Trainer<N> {
    fn new(device: &Device, batches: usize) -> Self {
        let device = device.clone().autodiff();
        device.seed(7);
        let batches = (0..batches)
            .map(|b| {
                let (x, classes) = class_batch(b, N::BATCH, N::FEATURES);
                let classes: Vec<i64> = classes.into_iter().map(|c| c as i64).collect();
                let x = Tensor::<2>::from_data(TensorData::new(x, [N::BATCH, N::FEATURES]), &device);
                (x, Tensor::<1, Int>::from_data(TensorData::new(classes, [N::BATCH]), &device))
            })
            .collect();
        Trainer { model: Some(N::new(&device)), optimizer: AdamConfig::new().init(), batches, taken: 0, device }
    }

    fn step(&mut self) -> Tensor<1> {
        let (x, y) = self.batches[self.taken % self.batches.len()].clone();
        self.taken += 1;
        let model = self.model.take().expect("put back by every step");
        let loss = CrossEntropyLossConfig::new().init(&self.device).forward(model.forward(x), y);
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        self.model = Some(self.optimizer.step(1e-3, model, gradients));
        loss
    }
}

fn value(t: Tensor<1>) -> f64 {
    f64::from(t.into_data().convert::<f32>().try_to_vec::<f32>().expect("one number")[0])
}

impl Peer {
    fn wait(&self) {
        self.device.sync().expect("the device failed");
    }

    /// Burn drops work whose result nobody holds when it is flushed, so the result is held over a flush.
    fn time<T>(&self, mut run: impl FnMut() -> T) -> Timing {
        time(
            || {
                let held = run();
                self.device.flush().expect("the device failed");
                drop(held);
            },
            || self.wait(),
        )
    }

    fn tensor<const D: usize>(&self, shape: [usize; D], seed: u32) -> Tensor<D> {
        Tensor::from_data(TensorData::new(uniform(shape.iter().product(), seed), shape), &self.device)
    }

    fn net<N: Net>(&self, workload: &str, start: bool) {
        let mut trainer = Trainer::<N>::new(&self.device, if start { 1 } else { BATCHES });
        let first = value(trainer.step());
        if start {
            self.wait();
            let line = Line::start(&self.name, workload, self.began);
            let again = Instant::now();
            let _loss = trainer.step();
            self.wait();
            return line.with("second_step_ms", again.elapsed().as_secs_f64() * 1e3).with("loss", first).print();
        }
        let t = self.time(|| trainer.step());
        let last = value(trainer.step());
        Line::timed(&self.name, workload, &t)
            .with("steps_per_s", 1e3 / t.median)
            .with("loss_first", first)
            .with("loss_last", last)
            .with("steps", trainer.taken as f64)
            .print();
    }

    fn matmul(&self, workload: &str, m: usize, k: usize, n: usize) {
        let (a, b) = (self.tensor([m, k], 1), self.tensor([k, n], 2));
        let t = self.time(|| a.clone().matmul(b.clone()));
        Line::timed(&self.name, workload, &t).flops(&t, 2.0 * (m * k * n) as f64).print();
    }

    fn run(&self, workload: &str) {
        if let Some((net, start)) = network(workload) {
            match net {
                "mlp" => return self.net::<Mlp>(workload, start),
                "lenet" => return self.net::<LeNet>(workload, start),
                "resnet" => return self.net::<ResNet>(workload, start),
                _ => {}
            }
        }
        match workload {
            "matmul_256" => self.matmul(workload, 256, 256, 256),
            "matmul_512" => self.matmul(workload, 512, 512, 512),
            "matmul_1024" => self.matmul(workload, 1024, 1024, 1024),
            "matmul_64x784x128" => self.matmul(workload, 64, 784, 128),
            "softmax" => {
                let x = self.tensor([512, 1024], 8);
                let t = self.time(|| softmax(x.clone(), 1));
                Line::timed(&self.name, workload, &t).bytes(&t, 8.0 * 512.0 * 1024.0).print();
            }
            "reduce_sum" => {
                let x = self.tensor([4096, 1024], 9);
                let t = self.time(|| x.clone().sum_dim(1));
                Line::timed(&self.name, workload, &t).bytes(&t, 4.0 * 4096.0 * 1024.0).print();
            }
            "elementwise" => {
                let x = self.tensor([4 << 20], 10);
                let t = self.time(|| relu(x.clone().mul_scalar(1.5).add_scalar(0.25)) * x.clone());
                Line::timed(&self.name, workload, &t).bytes(&t, 8.0 * f64::from(4 << 20)).print();
            }
            other => {
                eprintln!("burn-peer has no workload {other}");
                std::process::exit(2);
            }
        }
    }
}

fn main() {
    let began = Instant::now();
    let mut args = std::env::args().skip(1);
    let backend = args.next().unwrap_or_default();
    let device = match backend.as_str() {
        "wgpu" => Device::wgpu(DeviceKind::DefaultDevice),
        "flex" => Device::flex(),
        _ => {
            eprintln!("usage: burn-peer <wgpu|flex> <workload>...");
            std::process::exit(2);
        }
    };
    let peer = Peer { name: format!("burn-{backend}"), device, began };
    args.for_each(|workload| peer.run(&workload));
}
