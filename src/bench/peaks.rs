//! What a device can do at most, measured: multiply-adds on registers, memory read, written and copied outside of its caches.

use super::job::{Job, Once, Verified, Verify};
use super::system;
use crate::device::{Device, cpu};
use crate::error::{Error, Result};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

/// What is done with memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Traffic {
    Read,
    Write,
    Copy,
}

impl Traffic {
    /// How often the working set passes.
    fn passes(self) -> f64 {
        if self == Traffic::Copy { 2.0 } else { 1.0 }
    }
}

/// A dispatch of a peak probe lasts about this long.
const TARGET_MS: f64 = 10.0;

/// Bytes of one array of a memory probe: at least 4 times the last cache of a processor, and far above those of graphics cards.
fn working_set(device: &Device) -> usize {
    let (low, high) = match device.kind() {
        None | Some(crate::device::Kind::Software) => (4 * system::last_cache_bytes(), 1 << 30),
        Some(crate::device::Kind::Integrated) => (256 << 20, 256 << 20),
        Some(_) => (512 << 20, 512 << 20),
    };
    // Whole blocks of every kernel that reads it.
    low.clamp(64 << 20, high).min(device.max_binding_bytes()) / (1 << 22) * (1 << 22)
}

/// A line on the working set.
pub fn working_set_text(device: &Device) -> String {
    crate::device::human(working_set(device) as u64)
}

fn wrong(what: impl std::fmt::Display) -> Error {
    Error::internal(format!("wrong result: {what}"))
}

/// So many rounds that a run lasts as long as it should, as a power of two: found by runs of fewer.
fn calibrate(mut run: impl FnMut(u32) -> Result<()>) -> Result<u32> {
    let mut rounds = 16u32;
    run(rounds)?;
    loop {
        let began = Instant::now();
        run(rounds)?;
        let ms = began.elapsed().as_secs_f64() * 1e3;
        if ms > TARGET_MS / 2.0 || rounds >= 1 << 24 {
            return Ok(rounds);
        }
        rounds *= if ms < TARGET_MS / 8.0 { 4 } else { 2 };
    }
}

/// Multiply-adds on registers.
pub fn fma(device: &Device) -> Result<Job> {
    match device {
        Device::Cpu(cpu) => cpu_fma(cpu),
        #[cfg(feature = "gpu")]
        Device::Gpu(_) => gpu::fma(device),
    }
}

fn cpu_fma(cpu: &Arc<cpu::Cpu>) -> Result<Job> {
    let rounds = calibrate(|rounds| {
        cpu::peak::fma(&cpu.threads, rounds as usize);
        Ok(())
    })? as usize;
    let cpu = cpu.clone();
    let (flops, _) = cpu::peak::fma(&cpu.threads, rounds);
    let fixed = Rc::new(RefCell::new(true));
    let seen = fixed.clone();
    let once = Once::Work(Box::new(move || {
        *seen.borrow_mut() &= cpu::peak::fma(&cpu.threads, rounds).1;
        Ok(())
    }));
    let verify: Verify = Box::new(move || if *fixed.borrow() { Ok(Verified::default()) } else { Err(wrong("a value is not at its fixed point")) });
    Ok(Job { once, parts: 1.0, flops, bytes: 0.0, counted: false, verify })
}

/// Memory outside of the caches.
pub fn memory(traffic: Traffic, device: &Device) -> Result<Job> {
    match device {
        Device::Cpu(cpu) => Ok(cpu_memory(traffic, cpu, working_set(device))),
        #[cfg(feature = "gpu")]
        Device::Gpu(_) => gpu::memory(traffic, device),
    }
}

fn cpu_memory(traffic: Traffic, cpu: &Arc<cpu::Cpu>, bytes: usize) -> Job {
    let cpu = cpu.clone();
    let n = bytes / 4;
    let from = if traffic == Traffic::Write { Vec::new() } else { vec![1.0f32; n] };
    let to = Rc::new(RefCell::new(if traffic == Traffic::Read { vec![0.0f32] } else { vec![0.0f32; n] }));
    let result = to.clone();
    let once = Once::Work(Box::new(move || {
        let mut to = to.borrow_mut();
        match traffic {
            Traffic::Read => to[0] = cpu::peak::read(&cpu.threads, &from) as f32,
            Traffic::Write => cpu::peak::write(&cpu.threads, &mut to, 1.0),
            Traffic::Copy => cpu::peak::copy(&cpu.threads, &from, &mut to),
        }
        Ok(())
    }));
    let verify: Verify = Box::new(move || {
        let result = result.borrow();
        let right = if traffic == Traffic::Read { result[0] == n as f32 } else { result.iter().all(|v| *v == 1.0) };
        if right { Ok(Verified::default()) } else { Err(wrong("not every element was there")) }
    });
    Job { once, parts: 1.0, flops: 0.0, bytes: bytes as f64 * traffic.passes(), counted: false, verify }
}

#[cfg(feature = "gpu")]
mod gpu {
    //! The same by kernels of the KERNELS table.

    use super::*;
    use crate::device::{Binding, GpuProgram, Kind, Launch, Prepared, Program, Slot, Storage, Word};
    use crate::kernel::{self, Access, BindingText, Emit, Kernel};

    /// Invocations of a workgroup of these kernels.
    const GROUP: usize = 64;

    /// Dispatches over a working set: one alone would take long on a slow device.
    const PARTS: usize = 8;

    /// Programs of these kernels, and what they bind.
    struct Work {
        device: Device,
        prepared: Prepared,
        leaves: Vec<Storage>,
        outputs: Vec<Storage>,
    }

    impl Work {
        /// A launch of one kernel for each list of words. It reads `x`, where there is one, and writes `y`.
        fn new(device: &Device, kernel: &'static Kernel, x: Option<&Storage>, y: (&Storage, &str), words: &[Vec<u32>], groups: usize) -> Result<Work> {
            let text = |name: &str, element: &str, access| BindingText { name: name.into(), element: element.into(), access };
            let mut texts = vec![text("y", y.1, Access::ReadWrite)];
            let mut bindings = vec![Binding { slot: Slot::Output(0), access: Access::ReadWrite }];
            // As other kernels read on this device.
            let images = matches!(device, Device::Gpu(gpu) if gpu.caps().images > 0);
            let access = if images { Access::Image } else { Access::Read };
            if x.is_some() {
                texts.insert(0, text("x", "vec4<f32>", access));
                bindings.insert(0, Binding { slot: Slot::Leaf(0), access });
            }
            let (text, unread) = Emit::new(kernel).finish_for(software(device), &texts, words.first().map_or(0, Vec::len))?;
            let text: Arc<str> = text.into();
            let launch = |words: &Vec<u32>| Launch {
                label: kernel.name.into(),
                text: text.clone(),
                trusted: true,
                bindings: bindings.clone(),
                words: vec![0; unread].iter().chain(words).map(|w| Word::Const(*w)).collect(),
                grid: [groups as u32, 1, 1],
                flops: 0,
            };
            let program = GpuProgram { launches: words.iter().map(launch).collect(), ..GpuProgram::default() };
            let prepared = device.prepare(Program::Gpu(program))?;
            Ok(Work { device: device.clone(), prepared, leaves: x.cloned().into_iter().collect(), outputs: vec![y.0.clone()] })
        }

        fn run(&self) -> Result<()> {
            self.device.run(&self.prepared, &[], &self.leaves, &self.outputs, &[], &[]).map(drop)
        }

        fn ms(&self) -> Result<f64> {
            let began = Instant::now();
            self.run()?;
            self.device.wait()?;
            Ok(began.elapsed().as_secs_f64() * 1e3)
        }
    }

    fn floats(device: &Device, range: &Storage) -> Result<Vec<f32>> {
        let bytes = device.fetch(std::slice::from_ref(range))?.wait()?.remove(0);
        Ok(bytemuck::pod_collect_to_vec(&bytes))
    }

    fn software(device: &Device) -> bool {
        device.kind() == Some(Kind::Software)
    }

    /// Rounds, x and y, and where the first sum goes.
    fn fma_words(rounds: u32, first: usize) -> Vec<u32> {
        vec![rounds, 0.5f32.to_bits(), 1.0f32.to_bits(), first as u32]
    }

    pub fn fma(device: &Device) -> Result<Job> {
        let groups = if software(device) { 64 } else { 8192 };
        let invocations = groups * GROUP;
        let y = device.alloc(invocations * 4)?;
        let kernel = kernel::find("bench_fma")?;
        let work = |rounds: u32| Work::new(device, kernel, None, (&y, "f32"), &[fma_words(rounds, 0)], groups);
        let rounds = calibrate(|rounds| {
            let work = work(rounds)?;
            work.run()?;
            device.wait()
        })?;
        let work = work(rounds)?;
        let device = device.clone();
        let verify: Verify = Box::new(move || match floats(&device, &y)?.iter().position(|v| *v != 16.0) {
            None => Ok(Verified::default()),
            Some(i) => Err(wrong(format_args!("the values of invocation {i} are not at their fixed point"))),
        });
        let flops = invocations as f64 * 64.0 * f64::from(rounds);
        Ok(Job { once: Once::Work(Box::new(move || work.run())), parts: 1.0, flops, bytes: 0.0, counted: false, verify })
    }

    pub fn memory(traffic: Traffic, device: &Device) -> Result<Job> {
        let bytes = working_set(device);
        let vectors = bytes / 16;
        let invocations = if software(device) { 4096 } else { 1 << 18 };
        // Whole rounds of four vectors for each invocation, in each of the dispatches.
        let count = vectors / PARTS / invocations / 4 * 4;
        let bytes = count * invocations * PARTS * 16;
        let large = device.alloc(bytes)?;
        // Side by side, or each invocation's in a row: what is faster depends on the device.
        let orders = [[1, invocations as u32], [count as u32, 1]];
        let make = |name: &'static Kernel, x: Option<&Storage>, y: (&Storage, &str), [first, step]: [u32; 2], value: f32| {
            let words = |part: usize| vec![count as u32, first, step, (part * count * invocations) as u32, (part * invocations) as u32, value.to_bits(), 0, 0];
            Work::new(device, name, x, y, &(0..PARTS).map(words).collect::<Vec<_>>(), invocations / GROUP)
        };
        let (writes, copies, reads) = (kernel::find("bench_write")?, kernel::find("bench_copy")?, kernel::find("bench_read")?);
        let filled = |y: &Storage, value: f32| make(writes, None, (y, "vec4<f32>"), orders[0], value)?.ms();
        let copied = if traffic == Traffic::Copy { Some(device.alloc(bytes)?) } else { None };
        if traffic != Traffic::Write {
            filled(&large, 1.0)?;
        }
        let mut best: Option<(f64, Work, Storage)> = None;
        for order in orders {
            let (work, result) = match traffic {
                Traffic::Read => {
                    let sums = device.alloc(PARTS * invocations * 4)?;
                    (make(reads, Some(&large), (&sums, "f32"), order, 0.0)?, sums)
                }
                Traffic::Write => (make(writes, None, (&large, "vec4<f32>"), order, 1.0)?, large.clone()),
                Traffic::Copy => {
                    let to = copied.as_ref().unwrap_or(&large);
                    (make(copies, Some(&large), (to, "vec4<f32>"), order, 0.0)?, to.clone())
                }
            };
            work.ms()?;
            let ms = work.ms()?.min(work.ms()?);
            if best.as_ref().is_none_or(|(b, ..)| ms < *b) {
                best = Some((ms, work, result));
            }
        }
        let Some((_, work, result)) = best else { return Err(Error::internal("bench: no order of elements")) };
        // What another order wrote is no result of this one.
        if traffic != Traffic::Read {
            filled(&result, 0.0)?;
        }
        let device = device.clone();
        let want = if traffic == Traffic::Read { (count * 4) as f32 } else { 1.0 };
        let verify: Verify = Box::new(move || {
            // Of a large result the ends and the middle are looked at.
            const LOOK: usize = 1 << 20;
            let starts = [0, result.bytes / 2 / 256 * 256, result.bytes.saturating_sub(LOOK) / 256 * 256];
            for start in starts {
                let part = Storage { buffer: result.buffer.clone(), offset: result.offset + start, bytes: LOOK.min(result.bytes - start) };
                if let Some(i) = floats(&device, &part)?.iter().position(|v| *v != want) {
                    return Err(wrong(format_args!("element {} is not {want}", start / 4 + i)));
                }
            }
            Ok(Verified::default())
        });
        Ok(Job { once: Once::Work(Box::new(move || work.run())), parts: 1.0, flops: 0.0, bytes: bytes as f64 * traffic.passes(), counted: false, verify })
    }

    /// Host time of a launch in a program that is replayed: `launches` of the smallest kernel, and the wait is not counted.
    pub fn replay(device: &Device, launches: usize) -> Result<Job> {
        let bytes = launches * GROUP * 4;
        let y = device.alloc(bytes)?;
        let words: Vec<Vec<u32>> = (0..launches).map(|n| fma_words(64, n * GROUP)).collect();
        let work = Rc::new(Work::new(device, kernel::find("bench_fma")?, None, (&y, "f32"), &words, 1)?);
        let (again, timed) = (device.clone(), work.clone());
        let once = Once::Timed(Box::new(move || {
            let began = Instant::now();
            timed.run()?;
            let ms = began.elapsed().as_secs_f64() * 1e3;
            again.wait()?;
            Ok(ms)
        }));
        let device = device.clone();
        let verify: Verify = Box::new(move || {
            // Each launch has a place of its own, and once more in a buffer that none of the runs before wrote to.
            let fresh = device.alloc(bytes)?;
            device.run(&work.prepared, &[], &[], std::slice::from_ref(&fresh), &[], &[])?;
            for result in [&y, &fresh] {
                if let Some(i) = floats(&device, result)?.iter().position(|v| *v != 16.0) {
                    return Err(wrong(format_args!("launch {} is missing", i / GROUP)));
                }
            }
            Ok(Verified::default())
        });
        Ok(Job { once, parts: launches as f64, flops: 0.0, bytes: 0.0, counted: false, verify })
    }
}

#[cfg(feature = "gpu")]
pub use gpu::replay;
