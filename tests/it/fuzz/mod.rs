//! Random graphs: fused, unfused and the definition agree, forward and backward. Op tests cannot see the planner's mistakes; this one does.

mod draw;
mod found;
mod program;
mod run;

use crate::common;
use draw::draw;
use program::{Program, guests};
use run::{Mode, Outcome, PLAIN, UNSCOPED, USUAL, run};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;
use wgrad::device::gpu::GpuOptions;
use wgrad::graph::{Fault, plan_with};
use wgrad::{Device, env};

/// Compare one outcome with what is expected. The bound is that of the op tests, for the graph as a whole: k eps scale with k = 4 + 2 sqrt(terms), the
/// terms being those of all its instructions. It holds because the generator keeps values within about 2 of zero and instructions about as steep as the
/// identity, so that rounding errors add up along the graph like those of one long sum, and none is blown up. Gradients are measured by the largest.
fn compare(program: &Program, got: &Outcome, want: &Outcome, worst: &mut f64) -> Result<(), String> {
    let k = 4.0 + 2.0 * (program.terms() as f64).sqrt();
    let largest = |list: &[(String, Vec<f32>)]| list.iter().flat_map(|(_, v)| v).fold(0f32, |m, x| m.max(x.abs()));
    for (got, want, floor) in [(&got.values, &want.values, 1.0), (&got.grads, &want.grads, largest(&want.grads))] {
        if got.len() != want.len() {
            return Err(format!("{} results, expected {}", got.len(), want.len()));
        }
        for ((label, g), (other, w)) in got.iter().zip(want) {
            if label != other || g.len() != w.len() {
                return Err(format!("{label} with {} elements, expected {other} with {}", g.len(), w.len()));
            }
            let scale = w.iter().fold(floor, |m, x| m.max(x.abs()));
            let bound = k * f64::from(f32::EPSILON) * f64::from(scale);
            for (i, (a, b)) in g.iter().zip(w).enumerate() {
                let off = f64::from((a - b).abs());
                if off > bound || off.is_nan() {
                    return Err(format!("{label}, element {i}: {a}, expected {b} (off by {off:.2e}, allowed {bound:.2e})"));
                }
                *worst = worst.max(off / bound);
            }
        }
    }
    Ok(())
}

/// One device, its reference, and what was seen.
struct Bench {
    device: Device,
    reference: Device,
    worst: f64,
    /// Graphs whose first data lay on a kink.
    redrawn: usize,
}

impl Bench {
    fn new(device: Device) -> Bench {
        Bench { device, reference: Device::cpu_with(1, true).unwrap(), worst: 0.0, redrawn: 0 }
    }

    fn outcome(&self, program: &Program, seed: u64, fuse: bool, mode: Mode, fault: Option<Fault>) -> Result<Outcome, String> {
        let _planned = plan_with(&self.device, fuse, fault);
        run(program, seed, &self.device, mode).map_err(|e| e.to_string())
    }

    /// What is wrong with a graph, run with data from `seed`.
    fn fault_in(&mut self, program: &Program, seed: u64, fault: Option<Fault>) -> Result<(), String> {
        let want = run(program, seed, &self.reference, PLAIN).map_err(|e| format!("definition: {e}"))?;
        let fused = self.outcome(program, seed, true, USUAL, fault).map_err(|e| format!("fused: {e}"))?;
        let unfused = self.outcome(program, seed, false, USUAL, fault).map_err(|e| format!("unfused: {e}"))?;
        compare(program, &fused, &want, &mut self.worst).map_err(|e| format!("fused: {e}"))?;
        compare(program, &unfused, &want, &mut self.worst).map_err(|e| format!("unfused: {e}"))?;
        if program.has_checkpoint() {
            // Every checkpoint ends with a value that backward needs and that it must not have kept: so it costs kernels, and no bit differs.
            let plain = self.outcome(program, seed, false, UNSCOPED, fault).map_err(|e| format!("without checkpoints: {e}"))?;
            if unfused.dispatches <= plain.dispatches {
                return Err(format!("nothing was computed again: {} dispatches, {} without checkpoints", unfused.dispatches, plain.dispatches));
            }
            let bits = |o: &Outcome| -> Vec<u32> { o.values.iter().chain(&o.grads).flat_map(|(_, v)| v).map(|x| x.to_bits()).collect() };
            if bits(&unfused) != bits(&plain) {
                return Err("checkpoints change bits".into());
            }
        }
        Ok(())
    }

    /// A graph is wrong if it is wrong for three data in a row: a value within rounding of a kink or a step (of relu, floor, amax) makes results differ
    /// for one draw in many, a planner's mistake for every draw.
    fn check(&mut self, program: &Program, fault: Option<Fault>) -> Result<(), String> {
        let mut first = None;
        for again in 0..3u64 {
            let seed = program.seed.wrapping_add(again.wrapping_mul(0x5851_F42D_4C95_7F2D));
            let tried = catch_unwind(AssertUnwindSafe(|| self.fault_in(program, seed, fault)));
            match tried.unwrap_or_else(|p| Err(format!("panicked: {}", text(&*p)))) {
                Ok(()) => {
                    self.redrawn += usize::from(again > 0);
                    return Ok(());
                }
                Err(e) => first = first.or(Some(e)),
            }
        }
        Err(first.unwrap_or_default())
    }
}

fn text(panic: &(dyn std::any::Any + Send)) -> String {
    let owned = panic.downcast_ref::<String>().cloned();
    owned.or_else(|| panic.downcast_ref::<&str>().map(|s| s.to_string())).unwrap_or_default()
}

/// Print what the graphs held, and hold it against what they must.
fn report(programs: &[Program]) {
    let mut features: BTreeMap<&str, usize> = BTreeMap::new();
    let mut ops: BTreeMap<&str, usize> = guests().iter().map(|(name, _)| (*name, 0)).chain(program::SOURCES.map(|s| (s, 0))).collect();
    for p in programs {
        p.features().into_iter().for_each(|(name, holds)| *features.entry(name).or_default() += usize::from(holds));
        p.count_ops(&mut ops);
    }
    let nodes: Vec<usize> = programs.iter().map(Program::nodes).collect();
    let (least, most) = (nodes.iter().min().unwrap(), nodes.iter().max().unwrap());
    let mean = nodes.iter().sum::<usize>() as f64 / nodes.len() as f64;
    println!("\ngraphs drawn: {}, of {least} to {most} nodes, {mean:.1} on average", programs.len());
    for (name, n) in &features {
        println!("  {n:5} ({:3.0} %) {name}", 100.0 * *n as f64 / programs.len() as f64);
    }
    let counts: Vec<String> = ops.iter().map(|(name, n)| format!("{name} {n}")).collect();
    println!("operations: {}", counts.join(", "));
    if programs.len() >= guests().len() {
        assert!(mean >= 15.0 && *most <= 40, "graphs are too small or too large");
        for (name, n) in features {
            assert!(n * 10 >= programs.len(), "only {n} of {} graphs hold {name}", programs.len());
        }
        let missing: Vec<&str> = ops.iter().filter(|(_, n)| **n == 0).map(|(name, _)| *name).collect();
        assert!(missing.is_empty(), "operations in no graph: {}", missing.join(", "));
    }
}

/// Devices of this test's own: what is planted on one must not reach other tests.
fn devices() -> Vec<Device> {
    let mut all = vec![Device::cpu_with(2, false).unwrap()];
    match GpuOptions::from_env().and_then(|options| Device::gpu(0, &options)) {
        Ok(gpu) => all.push(gpu),
        Err(e) if common::may_lack_gpu() => println!("no graph ran on a GPU: {e}"),
        Err(e) => panic!("{e}"),
    }
    all
}

#[test]
fn random_graphs_agree() {
    let (n, seed) = (env::number("WGRAD_FUZZ_N").unwrap() as usize, env::number("WGRAD_FUZZ_SEED").unwrap());
    let only: Option<usize> = env::text("WGRAD_FUZZ_ONLY").unwrap().map(|i| i.parse().expect("WGRAD_FUZZ_ONLY is the number of a graph"));
    let programs: Vec<Program> = (0..n).map(|i| draw(seed, i)).collect();
    report(&programs);
    let mut bad = Vec::new();
    for device in devices() {
        let name = device.short_name();
        let mut bench = Bench::new(device);
        let start = Instant::now();
        let mut failed = Vec::new();
        for (i, p) in programs.iter().enumerate().filter(|(i, _)| only.is_none_or(|o| o == *i)) {
            if let Err(e) = bench.check(p, None) {
                println!("{name}: graph {i} {}: {e}", p.flags());
                if only.is_some() {
                    println!("{p:#?}");
                }
                failed.push(i);
            }
        }
        let c = bench.device.counters();
        println!(
            "\ngraphs on {name}: {} of {n} agree, in {:.1} s, largest error {:.3} of its bound, {} redrawn, {} plans, {} pipelines, {} dispatches",
            n - failed.len(),
            start.elapsed().as_secs_f64(),
            bench.worst,
            bench.redrawn,
            c.plans_built,
            c.pipelines,
            c.dispatches
        );
        bad.extend(failed.iter().map(|i| format!("{name} {i}")));
        assert!(bench.redrawn * 50 <= n.max(50), "{name}: {} of {n} graphs lay on a kink", bench.redrawn);
    }
    assert!(bad.is_empty(), "graphs that disagree: {}: run one with WGRAD_FUZZ_SEED={seed} WGRAD_FUZZ_ONLY=N", bad.join(", "));
}

/// The test above sees what it is there to see: each fault planted in the planner makes a graph fail that is right without it.
#[test]
fn planted_faults_are_found() {
    const FAULTS: [Fault; 5] = [Fault::MissedAlias, Fault::ShortLifetime, Fault::LostVersion, Fault::WrongSlot, Fault::MergeAcrossScopes];
    let seed = env::number("WGRAD_FUZZ_SEED").unwrap();
    let mut missed = Vec::new();
    for device in devices() {
        let name = device.short_name();
        let mut bench = Bench::new(device);
        for fault in FAULTS {
            let found = (0..200).find_map(|i| {
                let p = draw(seed, i);
                let tried = catch_unwind(AssertUnwindSafe(|| bench.fault_in(&p, p.seed, Some(fault))));
                let what = tried.unwrap_or_else(|panic| Err(format!("panicked: {}", text(&*panic)))).err()?;
                bench.check(&p, None).ok().map(|()| (i, what))
            });
            match found {
                Some((i, what)) => println!("\nplanted {fault:?}, {name}: found in graph {i}: {what}"),
                None => missed.push(format!("{name}: {fault:?}")),
            }
        }
    }
    assert!(missed.is_empty(), "not found in 200 graphs: {}", missed.join(", "));
}
