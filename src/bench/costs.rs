//! What is paid besides the arithmetic: recording, launching, reading back; and the optimizer, which changes what it works on.

use super::clock::computed;
use super::job::{Job, Once, Verified, Verify};
use super::{check, data};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::graph::{self, Tensor};
use crate::nn::Param;
use crate::optim::{Adam, AdamOptions, Optimizer};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

/// Launches of a plan.
const LAUNCHES: usize = 100;
/// Nodes recorded in a row.
const NODES: usize = 1000;
/// Elements of a transfer.
const TRANSFER: usize = 16 << 20;

fn ms_since(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1e3
}

fn unless(right: bool, what: &str) -> Result<Verified> {
    if right { Ok(Verified::default()) } else { Err(Error::internal(format!("wrong result: {what}"))) }
}

/// Products with the identity, each of which waits for the one before.
pub fn launch(device: &Device) -> Result<Job> {
    const N: usize = 8;
    let identity: Vec<f32> = (0..N * N).map(|i| if i % (N + 1) == 0 { 1.0 } else { 0.0 }).collect();
    let identity = Tensor::new(identity, [N, N], device)?;
    let x = data::tensor(&[N, N], 1, device)?;
    let chain = {
        let x = x.clone();
        Rc::new(move || (0..LAUNCHES).try_fold(x.clone(), |y, _| y.try_matmul(&identity)))
    };
    let before = device.counters().dispatches;
    let first = chain()?.to_vec::<f32>()?;
    let did = device.counters().dispatches - before;
    if did < LAUNCHES as u64 {
        return Err(Error::internal(format!("cost/launch: {LAUNCHES} launches became {did}")));
    }
    let (on, again) = (device.clone(), chain.clone());
    let once = Once::Work(Box::new(move || {
        let y = chain()?;
        graph::flush(&on)?;
        drop(y);
        Ok(())
    }));
    let verify: Verify = Box::new(move || {
        let (x, last) = (x.to_vec::<f32>()?, again()?.to_vec::<f32>()?);
        unless(first == x && last == x, "a product with the identity changed a matrix")
    });
    Ok(Job { once, parts: LAUNCHES as f64, flops: 0.0, bytes: 0.0, counted: true, verify })
}

/// The latency of the smallest step.
pub fn step(device: &Device) -> Result<Job> {
    let x = Tensor::ones([64], device);
    graph::flush(device)?;
    let on = device.clone();
    let last = Rc::new(RefCell::new(None));
    let result = last.clone();
    let once = Once::Timed(Box::new(move || {
        let began = Instant::now();
        let y = &x + 1.0;
        graph::flush(&on)?;
        on.wait()?;
        let ms = ms_since(began);
        last.borrow_mut().replace(y);
        Ok(ms)
    }));
    let verify: Verify = Box::new(move || {
        let values = result.borrow().as_ref().map(Tensor::to_vec::<f32>).transpose()?;
        unless(values.is_some_and(|v| v.iter().all(|v| *v == 2.0)), "1 + 1 is not 2")
    });
    Ok(Job { once, parts: 1.0, flops: 0.0, bytes: 0.0, counted: true, verify })
}

/// Recording alone: nothing is computed, so there is nothing to check but that all was recorded.
pub fn record(device: &Device) -> Result<Job> {
    let x = data::tensor(&[64], 1, device)?;
    let before = device.counters().nodes;
    let device = device.clone();
    let taken = Rc::new(RefCell::new(0u64));
    let count = taken.clone();
    let once = Once::Timed(Box::new(move || {
        let began = Instant::now();
        let y = (0..NODES).fold(x.clone(), |y, _| &y + &x);
        let ms = ms_since(began);
        drop(y);
        *taken.borrow_mut() += NODES as u64;
        Ok(ms)
    }));
    let verify: Verify = Box::new(move || unless(device.counters().nodes - before >= *count.borrow(), "not every node was recorded"));
    Ok(Job { once, parts: NODES as f64, flops: 0.0, bytes: 0.0, counted: false, verify })
}

/// The host's part of a launch in a plan that was run before.
pub fn replay(device: &Device) -> Result<Job> {
    match device {
        Device::Cpu(_) => Err(Error::invalid("not run: the CPU backend computes as it launches: see cost/launch")),
        #[cfg(feature = "gpu")]
        Device::Gpu(_) => super::peaks::replay(device, LAUNCHES),
    }
}

/// One number to the host.
pub fn read(device: &Device) -> Result<Job> {
    let x = Tensor::new(vec![42.0f32], [1], device)?;
    let seen = Rc::new(RefCell::new(true));
    let right = seen.clone();
    let once = Once::Timed(Box::new(move || {
        let began = Instant::now();
        let value = x.item()?;
        let ms = ms_since(began);
        *seen.borrow_mut() &= value == 42.0;
        Ok(ms)
    }));
    let verify: Verify = Box::new(move || unless(*right.borrow(), "another number was read"));
    Ok(Job { once, parts: 1.0, flops: 0.0, bytes: 0.0, counted: false, verify })
}

/// Many numbers to the host.
pub fn download(device: &Device) -> Result<Job> {
    let values = data::uniform(TRANSFER, 1);
    let x = Tensor::new(&values[..], [TRANSFER], device)?;
    let last = Rc::new(RefCell::new(Vec::new()));
    let result = last.clone();
    let once = Once::Timed(Box::new(move || {
        let began = Instant::now();
        let got = x.to_vec::<f32>()?;
        let ms = ms_since(began);
        *last.borrow_mut() = got;
        Ok(ms)
    }));
    let verify: Verify = Box::new(move || unless(*result.borrow() == values, "other numbers were read"));
    Ok(Job { once, parts: 1.0, flops: 0.0, bytes: 4.0 * TRANSFER as f64, counted: false, verify })
}

/// Many numbers from the host, until the device has them.
pub fn upload(device: &Device) -> Result<Job> {
    let values = data::uniform(TRANSFER, 1);
    let want = values.clone();
    let on = device.clone();
    let last = Rc::new(RefCell::new(None));
    let result = last.clone();
    let once = Once::Timed(Box::new(move || {
        last.borrow_mut().take();
        let given = values.clone();
        let began = Instant::now();
        let x = Tensor::new(given, [TRANSFER], &on)?;
        on.wait()?;
        let ms = ms_since(began);
        last.borrow_mut().replace(x);
        Ok(ms)
    }));
    let verify: Verify = Box::new(move || {
        let got = result.borrow().as_ref().map(Tensor::to_vec::<f32>).transpose()?;
        unless(got.is_some_and(|got| got == want), "other numbers arrived")
    });
    Ok(Job { once, parts: 1.0, flops: 0.0, bytes: 4.0 * TRANSFER as f64, counted: false, verify })
}

/// A parameter of `n` values, its gradient and its optimizer.
fn parameter(n: usize, device: &Device) -> Result<(Param, Tensor, Adam)> {
    let p = Param::new(&data::tensor(&[n], 20, device)?)?;
    let optimizer = Adam::new(vec![p.clone()], AdamOptions::default())?;
    Ok((p, data::tensor(&[n], 21, device)?, optimizer))
}

fn adam_step((p, g, optimizer): &mut (Param, Tensor, Adam)) -> Result<()> {
    p.set_grad(Some(g.clone()));
    optimizer.step()
}

/// Steps of Adam over one gradient. Reads value, gradient and two moments, writes value and moments; and the gradient is copied to its place before.
pub fn adam(n: usize, device: &Device) -> Result<Job> {
    let mut state = parameter(n, device)?;
    let before = computed(device);
    adam_step(&mut state)?;
    // What the first step gives is compared; the later ones start from what timing makes of it.
    let first = state.0.tensor().to_data()?;
    let state = Rc::new(RefCell::new(state));
    let again = state.clone();
    let once = Once::Work(Box::new(move || adam_step(&mut again.borrow_mut())));
    let device = device.clone();
    let verify: Verify = Box::new(move || {
        let mut definition = parameter(n, &check::definition()?)?;
        adam_step(&mut definition)?;
        check::compare("adam", std::slice::from_ref(&first), &[definition.0.tensor().to_data()?], &[4])?;
        let (steps, did) = (state.borrow().2.steps(), computed(&device) - before);
        unless(steps == did && state.borrow().0.tensor().to_data()? != first, &format!("{steps} steps, {did} computed"))
    });
    Ok(Job { once, parts: 1.0, flops: 12.0 * n as f64, bytes: 9.0 * 4.0 * n as f64, counted: true, verify })
}
