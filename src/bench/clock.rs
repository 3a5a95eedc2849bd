//! The protocol of all timings, which is that of the peers: warm up, then blocks of back-to-back runs, each with one wait at its end.

use crate::device::Device;
use crate::env;
use crate::error::{Error, Result};
use std::time::{Duration, Instant};

/// Runs before anything is timed: they build plans and compile kernels.
const WARM_RUNS: usize = 4;
/// Single runs whose latency is looked at.
const LATENCY_RUNS: usize = 9;
/// No block has more runs than this.
const MOST_RUNS: usize = 1 << 14;

/// How long is measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Protocol {
    /// Milliseconds that a block should last.
    pub block_ms: f64,
    /// Number of blocks.
    pub blocks: usize,
}

/// What was measured, in milliseconds a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Timing {
    /// Of each block, in the order in which they were run.
    pub blocks: Vec<f64>,
    /// Runs of a block.
    pub runs: usize,
    /// The median of a single run with a wait behind it.
    pub sync_ms: f64,
    /// Seconds of the first runs.
    pub warm_s: f64,
}

impl Protocol {
    /// The protocol of the peers; BENCH_BLOCK_MS and BENCH_BLOCKS change it for them and for us.
    pub fn from_env() -> Result<Protocol> {
        let blocks = env::number("BENCH_BLOCKS")?.max(1);
        Ok(Protocol { block_ms: env::number("BENCH_BLOCK_MS")? as f64, blocks: usize::try_from(blocks).unwrap_or(usize::MAX) })
    }

    /// Time `once`, which runs the work one time: one plan, computed on `device` when `once` returns or on its way there.
    ///
    /// # Errors
    /// Those of `once`; and where the device did not compute as many plans as it was asked for, for then something else was timed than the work.
    pub fn time(&self, device: &Device, once: &mut dyn FnMut() -> Result<()>) -> Result<Timing> {
        let before = computed(device);
        let mut asked = 0;
        let mut block = |runs: usize| -> Result<Duration> {
            let began = Instant::now();
            for _ in 0..runs {
                once()?;
            }
            device.wait()?;
            asked += runs as u64;
            Ok(began.elapsed())
        };

        let mut warm = Duration::ZERO;
        for _ in 0..WARM_RUNS {
            warm += block(1)?;
        }
        let mut runs = 1;
        loop {
            let ms = block(runs)?.as_secs_f64() * 1e3;
            if ms >= self.block_ms * 0.6 || runs >= MOST_RUNS {
                break;
            }
            runs = ((runs as f64 * (self.block_ms / ms.max(0.01)).min(8.0)).ceil() as usize).max(runs + 1);
        }
        let blocks = (0..self.blocks).map(|_| Ok(block(runs)?.as_secs_f64() * 1e3 / runs as f64)).collect::<Result<Vec<_>>>()?;
        let single = (0..LATENCY_RUNS).map(|_| Ok(block(1)?.as_secs_f64() * 1e3)).collect::<Result<Vec<_>>>()?;

        let did = computed(device) - before;
        if did != asked {
            return Err(Error::internal(format!("bench: {asked} runs were timed, and the device computed {did}")));
        }
        Ok(Timing { blocks, runs, sync_ms: median(&single), warm_s: warm.as_secs_f64() })
    }
}

impl Timing {
    /// The median over the blocks.
    pub fn median(&self) -> f64 {
        median(&self.blocks)
    }

    /// The fastest block.
    pub fn min(&self) -> f64 {
        self.blocks.iter().copied().fold(f64::INFINITY, f64::min)
    }
}

/// How many plans the device has computed.
pub(super) fn computed(device: &Device) -> u64 {
    let c = device.counters();
    c.plans_built + c.plans_replayed
}

/// The median; of an even number, the upper one of the two in the middle, as the peers have it.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Tensor, flush};

    #[test]
    fn what_is_not_computed_is_not_timed() {
        let protocol = Protocol { block_ms: 0.01, blocks: 2 };
        let device = Device::cpu_with(1, false).unwrap();
        let x = Tensor::ones([4], &device);
        flush(&device).unwrap();
        let honest = protocol.time(&device, &mut || {
            let _y = &x + &x;
            flush(&device)
        });
        assert_eq!(honest.unwrap().blocks.len(), 2);
        // The result is dropped before anyone asks for it, so nothing runs.
        let lazy = protocol.time(&device, &mut || {
            drop(&x + &x);
            flush(&device)
        });
        let e = lazy.unwrap_err().to_string();
        assert!(e.contains("the device computed 0"), "{e}");
    }
}
