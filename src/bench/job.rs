//! A job: what a probe's process runs over and over, and how it is sampled until the numbers are steady.

use super::clock::{computed, median};
use crate::device::Device;
use crate::error::{Error, Result};
use std::time::{Duration, Instant};

/// A block of runs lasts at least this long: far above what any clock resolves.
const BLOCK_MS: f64 = 4.0;
/// And this many ticks of the device's clock.
#[cfg(feature = "gpu")]
const BLOCK_TICKS: f64 = 1000.0;
/// No block has more runs than this.
const MOST_RUNS: usize = 1 << 12;
/// Warm is what stays within this over the last blocks, or has run for so long.
const STEADY: f64 = 0.03;
const STEADY_BLOCKS: usize = 4;
const WARM_UP: Duration = Duration::from_millis(700);
/// Of a job that is slowed down by a tenth, each run of this number is done twice; a block has one at least.
pub(super) const SLOW_RUN: usize = 10;
/// Fewer samples say nothing about their spread.
const FEWEST_SAMPLES: usize = 9;

/// One run.
pub enum Once {
    /// Starts the work on the device; it is timed with a wait behind many of them.
    Work(Box<dyn FnMut() -> Result<()>>),
    /// Times itself, in milliseconds: costs of the host.
    Timed(Box<dyn FnMut() -> Result<f64>>),
}

/// Says what was computed, after it was timed.
pub type Verify = Box<dyn FnOnce() -> Result<Verified>>;

/// Results that were found right.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verified {
    /// A hash of their bits: a later process that gets the same bits needs no definition.
    pub bits: String,
}

/// What a probe's process runs.
pub struct Job {
    /// One run.
    pub once: Once,
    /// Runs counted as one: 100 launches in one plan are a hundredth each.
    pub parts: f64,
    /// Operations of a run.
    pub flops: f64,
    /// Bytes of a run.
    pub bytes: f64,
    /// Whether a run is one plan of the graph, which the device counts.
    pub counted: bool,
    /// Compares the results with what they should be.
    pub verify: Verify,
}

/// What was sampled.
#[derive(Clone, Debug, PartialEq)]
pub struct Samples {
    /// Milliseconds of a run, one for each block, in the order in which they were taken.
    pub ms: Vec<f64>,
    /// `timestamps` of the device, or `wall`.
    pub clock: &'static str,
    /// Milliseconds that the host took to hand a run to the device, where they work side by side.
    pub host_ms: Option<f64>,
    /// Launches of a run, or steps of the CPU backend.
    pub launches: f64,
}

/// The clock by which work is timed.
enum Clock {
    Wall,
    #[cfg(feature = "gpu")]
    Stamps(crate::device::gpu::Stamps),
}

impl Clock {
    fn of(device: &Device) -> Result<Clock> {
        match device {
            Device::Cpu(_) => Ok(Clock::Wall),
            #[cfg(feature = "gpu")]
            Device::Gpu(gpu) => Ok(crate::device::gpu::Stamps::new(gpu)?.map_or(Clock::Wall, Clock::Stamps)),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Clock::Wall => "wall",
            #[cfg(feature = "gpu")]
            Clock::Stamps(_) => "timestamps",
        }
    }

    /// The least that a block must last, in milliseconds.
    fn block_ms(&self) -> f64 {
        match self {
            Clock::Wall => BLOCK_MS,
            #[cfg(feature = "gpu")]
            Clock::Stamps(s) => BLOCK_MS.max(s.period_ns() * BLOCK_TICKS / 1e6),
        }
    }
}

impl Job {
    /// Do each [`SLOW_RUN`]th run twice and count it once.
    pub(super) fn slow_down(&mut self) {
        let mut runs = 0;
        let mut twice = move || {
            runs += 1;
            usize::is_multiple_of(runs, SLOW_RUN)
        };
        let placeholder = Once::Work(Box::new(|| Ok(())));
        self.once = match std::mem::replace(&mut self.once, placeholder) {
            Once::Work(mut f) => Once::Work(Box::new(move || if twice() { f().and_then(|()| f()) } else { f() })),
            Once::Timed(mut f) => Once::Timed(Box::new(move || if twice() { Ok(f()? + f()?) } else { f() })),
        };
        // The device counts all of them.
        self.counted = false;
    }

    /// Warm up until it is steady, then sample for `seconds`, blocks of `fewest` runs or more.
    ///
    /// # Errors
    /// Those of the work; and where the device computed fewer plans than it was asked for.
    pub fn sample(&mut self, device: &Device, seconds: f64, fewest: usize) -> Result<Samples> {
        let (before, launched) = (computed(device), device.counters().dispatches);
        let mut asked = 0u64;
        // One run compiles; it is looked at by nobody.
        let mut clock = match self.once {
            Once::Work(_) => Clock::of(device)?,
            Once::Timed(_) => Clock::Wall,
        };
        let mut handed: Vec<f64> = Vec::new();
        let mut block = |clock: &Clock, runs: usize| -> Result<(f64, f64)> {
            asked += runs as u64;
            let (ms, host, wall) = block_of(&mut self.once, device, clock, runs)?;
            handed.extend(host.map(|h| h / runs as f64 / self.parts));
            Ok((ms / runs as f64 / self.parts, wall))
        };
        block(&Clock::Wall, 1)?;
        let mut runs = fewest;
        loop {
            let (_, wall) = block(&clock, runs)?;
            if wall >= clock.block_ms() * 0.8 || runs >= MOST_RUNS {
                break;
            }
            runs = ((runs as f64 * (clock.block_ms() / wall.max(1e-3)).min(8.0)).ceil() as usize).clamp(runs + 1, MOST_RUNS);
        }
        // A clock that contradicts a watch by more than a wait explains is not believed.
        let (ms, wall) = block(&clock, runs)?;
        if !(0.5..=1.1).contains(&(ms * runs as f64 * self.parts / wall)) {
            clock = Clock::Wall;
        }
        let warm = Instant::now();
        let mut last: Vec<f64> = Vec::new();
        while warm.elapsed() < WARM_UP.min(Duration::from_secs_f64(seconds * 2.0)) {
            last.push(block(&clock, runs)?.0);
            let tail = &last[last.len().saturating_sub(STEADY_BLOCKS)..];
            let (low, high) = tail.iter().fold((f64::INFINITY, 0.0f64), |(l, h), v| (l.min(*v), h.max(*v)));
            if tail.len() == STEADY_BLOCKS && high <= low * (1.0 + STEADY) {
                break;
            }
        }
        let began = Instant::now();
        let mut ms = Vec::new();
        while ms.len() < 3 || began.elapsed().as_secs_f64() < seconds || ms.len() < FEWEST_SAMPLES && began.elapsed().as_secs_f64() < 4.0 * seconds {
            ms.push(block(&clock, runs)?.0);
        }
        let did = computed(device) - before;
        if self.counted && did != asked {
            return Err(Error::internal(format!("{asked} runs were timed, and the device computed {did}")));
        }
        // The first blocks compile and settle.
        let host_ms = handed.get(handed.len().saturating_sub(ms.len())..).filter(|h| !h.is_empty()).map(median);
        let launches = (device.counters().dispatches - launched) as f64 / asked as f64 / self.parts;
        Ok(Samples { ms, clock: clock.name(), host_ms, launches })
    }
}

/// Milliseconds of so many runs: by the clock, of the host until all was handed over where the clock is not its own, and by a watch.
fn block_of(once: &mut Once, device: &Device, clock: &Clock, runs: usize) -> Result<(f64, Option<f64>, f64)> {
    let began = Instant::now();
    let wall = || began.elapsed().as_secs_f64() * 1e3;
    match (once, clock) {
        (Once::Timed(f), _) => {
            let mut sum = 0.0;
            for _ in 0..runs {
                sum += f()?;
            }
            Ok((sum, None, wall()))
        }
        (Once::Work(f), Clock::Wall) => {
            for _ in 0..runs {
                f()?;
            }
            device.wait()?;
            let ms = wall();
            Ok((ms, None, ms))
        }
        #[cfg(feature = "gpu")]
        (Once::Work(f), Clock::Stamps(stamps)) => {
            stamps.begin()?;
            for _ in 0..runs {
                f()?;
            }
            let host = wall();
            let ns = stamps.end()?;
            Ok((ns / 1e6, Some(host), wall()))
        }
    }
}

/// How far the last third of samples is from the first, as a fraction: what is above 5 % was not steady.
pub fn drift(ms: &[f64]) -> f64 {
    let third = ms.len() / 3;
    if third == 0 {
        return 0.0;
    }
    let (first, last) = (median(&ms[..third]), median(&ms[ms.len() - third..]));
    (last / first - 1.0).abs()
}

/// The distance of the quartiles, as a fraction of the median.
pub fn spread(ms: &[f64]) -> f64 {
    (quartile(ms, 3) - quartile(ms, 1)) / quartile(ms, 2)
}

/// The n-th quartile: 1, 2 or 3.
pub fn quartile(ms: &[f64], n: usize) -> f64 {
    let mut sorted = ms.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (sorted.len().saturating_sub(1) * n) as f64 / 4.0;
    sorted.get(at.round() as usize).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drift_is_seen() {
        assert!(drift(&[1.0; 9]) < 1e-9);
        assert!(drift(&[1.0, 1.0, 1.0, 1.03, 1.03, 1.03, 1.06, 1.06, 1.06]) > 0.05);
        // One outlier is none.
        assert!(drift(&[1.0, 9.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]) < 0.05);
        assert_eq!(drift(&[1.0]), 0.0);
    }

    #[test]
    fn spread_is_of_the_quartiles() {
        assert_eq!(spread(&[1.0, 1.0, 1.0, 1.0, 9.0]), 0.0);
        assert!((spread(&[1.0, 2.0, 3.0, 4.0, 5.0]) - 2.0 / 3.0).abs() < 1e-9);
    }
}
