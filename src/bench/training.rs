//! Training workloads: whole steps (forward, loss, backward, Adam) over batches that lie on the device, and the start of a process to its first step.

use super::clock::{Protocol, Timing, computed};
use super::job::{Job, Once, Verified, Verify};
use super::models::{LENET, MLP, Net, RESNET};
use super::{check, data};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::graph::Tensor;
use crate::nn::Module;
use crate::ops::{CrossEntropy, Generator};
use crate::optim::{Adam, AdamOptions, Optimizer};
use crate::tensor::Data;
use crate::train::{Capture, capture};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

/// Batches of a training workload.
const BATCHES: usize = 16;

/// Steps whose losses are compared with the definition's before anything is timed.
pub const CHECKED_STEPS: usize = 10;

/// How far a loss may be from the definition's.
const LOSS_BOUND: f64 = 1e-3;

/// Of the initial values.
const SEED: u64 = 7;

/// A row: the name, the network, and what the CPU definition gives for the losses of its first steps. A test computes them again.
type Row = (&'static str, &'static Net, [f64; CHECKED_STEPS]);

static NETS: &[Row] = &[
    ("mlp_train", &MLP, [2.3087735, 2.2743726, 2.2355833, 2.1943643, 2.1465747, 2.0858843, 2.0239794, 1.9472517, 1.8523005, 1.7658449]),
    ("lenet_train", &LENET, [2.3054051, 2.3042061, 2.3012271, 2.3029478, 2.3016355, 2.3007448, 2.3012319, 2.2993104, 2.299216, 2.3002203]),
    ("resnet_train", &RESNET, [2.4071994, 2.3789141, 2.3510008, 2.366925, 2.3355811, 2.3776433, 2.3467672, 2.3253052, 2.3359549, 2.3189926]),
];

fn row(name: &str) -> Result<&'static Row> {
    NETS.iter().find(|r| r.0 == name).ok_or_else(|| Error::internal(format!("bench: no network is named {name}")))
}

/// The losses of a workload's first steps as the CPU definition gives them: as they are written in the table.
pub fn reference_losses(name: &str) -> Result<[f64; CHECKED_STEPS]> {
    Ok(row(name)?.2)
}

/// The first `steps` of them, computed: this takes seconds, and most of a minute for `resnet_train`.
pub fn definition_losses(name: &str, steps: usize) -> Result<Vec<f64>> {
    let mut trainer = Trainer::new(row(name)?.1, &check::definition()?, BATCHES)?;
    (0..steps).map(|_| trainer.step()?.item()).collect()
}

/// What a training workload gave besides its timing.
#[derive(Clone, Debug)]
pub struct Trained {
    pub timing: Timing,
    pub batch: usize,
    pub loss_first: f64,
    pub loss_last: f64,
    pub steps: u64,
    /// Of a step; none on the CPU, which dispatches nothing.
    pub dispatches: Option<u64>,
}

/// Time steps of the network that the workload `name` trains.
///
/// # Errors
/// Losses that are not the definition's, a parameter that does not change, a batch that was not used, steps that were not computed.
pub fn train(name: &str, device: &Device, protocol: &Protocol) -> Result<Trained> {
    let plans = computed(device);
    let (mut trainer, loss_first) = checked(name, device)?;
    let timing = protocol.time(device, &mut || trainer.step().map(drop))?;
    let before = device.counters().dispatches;
    let loss_last = trainer.step()?.item()?;
    let dispatches = Some(device.counters().dispatches - before).filter(|n| *n > 0);
    let steps = trainer.finish(name, computed(device) - plans)?;
    Ok(Trained { timing, batch: trainer.batches[0].0.shape()[0], loss_first, loss_last, steps, dispatches })
}

/// The same as a job.
pub fn job(name: &'static str, device: &Device) -> Result<Job> {
    let plans = computed(device);
    let (trainer, _) = checked(name, device)?;
    let trainer = Rc::new(RefCell::new(trainer));
    let (again, device) = (trainer.clone(), device.clone());
    let once = Once::Work(Box::new(move || again.borrow_mut().step().map(drop)));
    let verify: Verify = Box::new(move || {
        let mut trainer = trainer.borrow_mut();
        // A short measurement may not have come round.
        for _ in 0..BATCHES {
            trainer.step()?;
        }
        trainer.finish(name, computed(&device) - plans).map(|_| Verified::default())
    });
    Ok(Job { once, parts: 1.0, flops: 0.0, bytes: 0.0, counted: true, verify })
}

/// All that the first step of a network computes: its loss, the gradients, and the parameters and statistics after it.
#[cfg(feature = "gpu")]
pub fn first_step(name: &str, device: &Device) -> Result<Vec<Data>> {
    let Trainer { model, batches, .. } = Trainer::new(row(name)?.1, device, 1)?;
    // So large an epsilon makes Adam's step as well conditioned as the gradient that it follows.
    let mut optimizer = Adam::new(model.parameters(), AdamOptions { lr: 1.0, eps: 1.0, ..AdamOptions::default() })?;
    let (x, y) = &batches[0];
    let loss = model.try_forward(x)?.cross_entropy_with(y, &CrossEntropy::default())?;
    loss.backward()?;
    let gradients: Vec<Tensor> = model.parameters().iter().filter_map(|p| p.grad()).collect();
    optimizer.step()?;
    let state = model.state_dict().into_iter().map(|(_, t)| t);
    std::iter::once(loss.detach()).chain(gradients).chain(state).map(|t| t.to_data()).collect()
}

/// The most terms that a value of it sums: all values of a batch.
#[cfg(feature = "gpu")]
pub fn first_step_terms(name: &str) -> Result<usize> {
    let net = row(name)?.1;
    Ok(net.batch * net.sample.iter().product::<usize>())
}

/// A step, over and over.
#[cfg(feature = "gpu")]
pub fn steps(name: &str, device: &Device) -> Result<Box<dyn FnMut() -> Result<()>>> {
    let (mut trainer, _) = checked(name, device)?;
    Ok(Box::new(move || trainer.step().map(drop)))
}

/// That the first losses are the definition's.
#[cfg(feature = "gpu")]
pub fn check_losses(name: &str, device: &Device) -> Result<()> {
    checked(name, device).map(drop)
}

/// A trainer that took its first steps as the definition does, and the first loss.
fn checked(name: &str, device: &Device) -> Result<(Trainer, f64)> {
    let (_, net, reference) = row(name)?;
    let mut trainer = Trainer::new(net, device, BATCHES)?;
    let before = trainer.parameters()?;
    let losses = (0..CHECKED_STEPS).map(|_| trainer.step()?.item()).collect::<Result<Vec<f64>>>()?;
    for (n, (got, want)) in losses.iter().zip(reference).enumerate() {
        // A NaN is never within a bound.
        if (got - want).abs() <= LOSS_BOUND {
            continue;
        }
        return Err(Error::internal(format!("{name}: wrong result: the loss of step {} is {got}, the definition gives {want}", n + 1)));
    }
    for ((path, old), (_, new)) in before.iter().zip(trainer.parameters()?) {
        if *old == new {
            return Err(Error::internal(format!("{name}: {path} did not change in {CHECKED_STEPS} steps")));
        }
    }
    Ok((trainer, losses[0]))
}

/// What a start gave.
#[derive(Clone, Copy, Debug)]
pub struct Started {
    /// Since `began`.
    pub in_main_ms: f64,
    pub second_step_ms: f64,
    pub loss: f64,
}

/// The first step of a process, its loss read back; then a second one. `name` is the workload that trains the network.
pub fn startup(name: &str, device: &Device, began: Instant, done: &mut dyn FnMut()) -> Result<Started> {
    let (_, net, reference) = row(name)?;
    let mut trainer = Trainer::new(net, device, 1)?;
    let loss = trainer.step()?.item()?;
    device.wait()?;
    done();
    let in_main_ms = began.elapsed().as_secs_f64() * 1e3;
    let again = Instant::now();
    trainer.step()?;
    device.wait()?;
    let second_step_ms = again.elapsed().as_secs_f64() * 1e3;
    if (loss - reference[0]).abs() <= LOSS_BOUND {
        return Ok(Started { in_main_ms, second_step_ms, loss });
    }
    Err(Error::internal(format!("{name}: wrong result: the first loss is {loss}, the definition gives {}", reference[0])))
}

/// A captured step.
type Step = Capture<Box<dyn FnMut(&[Tensor]) -> Result<(Tensor, Vec<Tensor>)>>>;

/// A model, its optimizer and its batches.
struct Trainer {
    model: Rc<dyn Module>,
    step: Step,
    optimizer: Adam,
    batches: Vec<(Tensor, Tensor)>,
    /// How often each batch was used.
    used: Vec<usize>,
    taken: usize,
}

impl Trainer {
    fn new(net: &Net, device: &Device, batches: usize) -> Result<Trainer> {
        let model: Rc<dyn Module> = (net.build)(&Generator::new(SEED), device)?.into();
        let optimizer = Adam::new(model.parameters(), AdamOptions::default())?;
        let shape = [&[net.batch], net.sample].concat();
        let batches = data::class_batches(batches, net.batch, net.sample.iter().product())
            .map(|(x, y)| Ok((Tensor::new(x, &shape, device)?, Tensor::new(y, [net.batch], device)?)))
            .collect::<Result<Vec<_>>>()?;
        let forward = model.clone();
        let step: Step = capture(Box::new(move |inputs| {
            let loss = forward.try_forward(&inputs[0])?.cross_entropy_with(&inputs[1], &CrossEntropy::default())?;
            Ok((loss.clone(), vec![loss]))
        }));
        Ok(Trainer { model, step, optimizer, used: vec![0; batches.len()], batches, taken: 0 })
    }

    /// One step on the next batch: its loss.
    fn step(&mut self) -> Result<Tensor> {
        let n = self.taken % self.batches.len();
        let (x, y) = &self.batches[n];
        self.taken += 1;
        self.used[n] += 1;
        Ok(self.step.run(&mut self.optimizer, &[x, y])?.remove(0))
    }

    /// How many steps were taken: by the optimizer's count and by the `did` plans that the device computed for them; and that every batch was used.
    fn finish(&self, name: &str, did: u64) -> Result<u64> {
        let steps = self.optimizer.steps();
        if steps != self.taken as u64 || did != steps {
            return Err(Error::internal(format!("{name}: {} steps were taken, the optimizer counts {steps}, the device computed {did}", self.taken)));
        }
        match self.used.iter().position(|n| *n == 0) {
            Some(n) => Err(Error::internal(format!("{name}: batch {n} of {} was not used in {steps} steps", self.used.len()))),
            None => Ok(steps),
        }
    }

    fn parameters(&self) -> Result<Vec<(String, Data)>> {
        self.model.named_parameters().into_iter().map(|(path, p)| Ok((path, p.tensor().to_data()?))).collect()
    }
}
