//! Two ways of planning one work, timed in turn in one process: what else the machine does meets both alike.

use super::clock::median;
use super::workload::Workload;
use crate::device::Device;
use crate::device::choices::Choices;
use crate::error::Result;
use crate::graph::Alternative;
use std::sync::Arc;
use std::time::Instant;

/// Runs before a measurement: they build plans and compile kernels, and a captured step is recorded twice.
pub(super) const WARM_RUNS: usize = 3;
/// Milliseconds that a block of runs should last.
const BLOCK_MS: f64 = 40.0;

/// One run of a work.
pub(super) type Once = Box<dyn FnMut() -> Result<()>>;

/// Choices, and what is planned with them.
pub(super) struct Way {
    pub choices: Choices,
    pub planning: Alternative,
}

impl Way {
    pub fn new(device: &Device, choices: &Choices) -> Way {
        Way { choices: choices.clone(), planning: Alternative::new(device, Arc::new(choices.clone())) }
    }

    /// Build plans and compile kernels.
    pub fn warm(&mut self, device: &Device, once: &mut Once) -> Result<()> {
        self.planning.during(|| (0..WARM_RUNS).try_for_each(|_| once()))?;
        device.wait()
    }

    /// Milliseconds of a run, of so many.
    pub fn block(&mut self, device: &Device, once: &mut Once, runs: usize) -> Result<f64> {
        let began = Instant::now();
        self.planning.during(|| (0..runs).try_for_each(|_| once()))?;
        device.wait()?;
        Ok(began.elapsed().as_secs_f64() * 1e3 / runs as f64)
    }
}

/// Runs of a block, where one takes so long.
pub(super) fn runs_of_block(ms: f64) -> usize {
    ((BLOCK_MS / ms).ceil() as usize).max(1)
}

/// Milliseconds of a run, round by round.
#[derive(Default)]
pub(super) struct Rounds {
    pub old: Vec<f64>,
    pub new: Vec<f64>,
    /// Whether the budget ended within.
    pub cut: bool,
}

impl Rounds {
    /// One more.
    pub fn add(&mut self, device: &Device, once: &mut Once, runs: usize, [old, new]: [&mut Way; 2]) -> Result<()> {
        // Whoever comes second finds other caches.
        if self.old.len().is_multiple_of(2) {
            self.old.push(old.block(device, once, runs)?);
            self.new.push(new.block(device, once, runs)?);
        } else {
            self.new.push(new.block(device, once, runs)?);
            self.old.push(old.block(device, once, runs)?);
        }
        Ok(())
    }

    /// New by old.
    pub fn ratios(&self) -> Vec<f64> {
        self.old.iter().zip(&self.new).map(|(o, n)| n / o).collect()
    }

    pub fn ratio(&self) -> f64 {
        median(&self.ratios())
    }

    pub fn faster(&self) -> usize {
        self.ratios().iter().filter(|r| **r < 1.0).count()
    }
}

/// How many times as fast each workload is with the choices that the device has as by the rules alone: the median of so many rounds.
///
/// # Errors
/// Failures of the device or of a workload.
pub fn speed_of_choices(device: &Device, workloads: &[&'static Workload], rounds: usize) -> Result<Vec<f64>> {
    let own = match device {
        Device::Cpu(_) => Choices::default(),
        Device::Gpu(gpu) => gpu.caps().choices.as_ref().clone(),
    };
    let speed = |workload: &&'static Workload| {
        let (mut rules, mut chosen) = (Way::new(device, &Choices::default()), Way::new(device, &own));
        let mut once = workload.once(device)?;
        rules.warm(device, &mut once)?;
        chosen.warm(device, &mut once)?;
        let runs = runs_of_block(rules.block(device, &mut once, 1)?);
        let mut seen = Rounds::default();
        (0..rounds).try_for_each(|_| seen.add(device, &mut once, runs, [&mut rules, &mut chosen]))?;
        Ok(1.0 / seen.ratio())
    };
    workloads.iter().map(speed).collect()
}
