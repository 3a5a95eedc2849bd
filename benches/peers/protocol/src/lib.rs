//! What every peer shares: the data of the workloads, bit for bit, and the protocol by which they are timed.
//!
//! Operands lie on the device, and nothing is compiled or tuned while the clock runs. A block is back-to-back runs with one wait behind them; as many runs
//! as take about BENCH_BLOCK_MS (150); the median is over BENCH_BLOCKS (7) blocks. A start is measured from BENCH_T0_NS, which who starts the process sets.
//! A peer prints one JSON object for each workload.

use std::fmt::Write;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Batches that a training workload goes round.
pub const BATCHES: usize = 16;

fn hash(i: u32) -> u32 {
    let mut x = i.wrapping_mul(0x9e37_79b9);
    x ^= x >> 16;
    x = x.wrapping_mul(0x85eb_ca6b);
    x ^= x >> 13;
    x = x.wrapping_mul(0xc2b2_ae35);
    x ^ (x >> 16)
}

/// Uniform in [-0.5, 0.5), by the index alone.
fn unit(i: u32) -> f32 {
    (f64::from(hash(i) >> 8) / f64::from(1u32 << 24) - 0.5) as f32
}

/// `n` values of the stream `seed`.
pub fn uniform(n: usize, seed: u32) -> Vec<f32> {
    (0..n as u32).map(|i| unit(i.wrapping_add(seed.wrapping_mul(0x0100_0193)))).collect()
}

/// Batch `b`: noise plus the template of each row's class, of which there are ten; values `[batch * dim]` and classes `[batch]`.
pub fn class_batch(b: usize, batch: usize, dim: usize) -> (Vec<f32>, Vec<usize>) {
    let mut x = uniform(batch * dim, 1000 + b as u32);
    let classes: Vec<usize> = (0..batch).map(|r| (b * batch + r) % 10).collect();
    for (row, class) in x.chunks_exact_mut(dim).zip(&classes) {
        for (j, v) in row.iter_mut().enumerate() {
            *v += 0.5 * unit((class * dim + j) as u32 ^ 0x5a5a_0000);
        }
    }
    (x, classes)
}

/// What a workload took, in milliseconds a run.
pub struct Timing {
    pub median: f64,
    pub min: f64,
    pub sync: f64,
    pub iters: usize,
    pub warm_s: f64,
}

fn from_env(name: &str, default: f64) -> f64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Time `run`, with `wait` for the device.
pub fn time(mut run: impl FnMut(), mut wait: impl FnMut()) -> Timing {
    let block_ms = from_env("BENCH_BLOCK_MS", 150.0);
    let blocks = from_env("BENCH_BLOCKS", 7.0) as usize;
    let mut block = |runs: usize| {
        let began = Instant::now();
        for _ in 0..runs {
            run();
        }
        wait();
        began.elapsed().as_secs_f64() * 1e3
    };
    let warm_s = (0..4).map(|_| block(1)).sum::<f64>() * 1e-3;
    let mut iters = 1;
    loop {
        let ms = block(iters);
        if ms >= block_ms * 0.6 || iters >= 1 << 14 {
            break;
        }
        iters = ((iters as f64 * (block_ms / ms.max(0.01)).min(8.0)).ceil() as usize).max(iters + 1);
    }
    let each: Vec<f64> = (0..blocks.max(1)).map(|_| block(iters) / iters as f64).collect();
    let single: Vec<f64> = (0..9).map(|_| block(1)).collect();
    Timing { min: each.iter().copied().fold(f64::INFINITY, f64::min), median: median(each), sync: median(single), iters, warm_s }
}

/// A line of results.
pub struct Line(String);

impl Line {
    /// Of a timed workload.
    pub fn timed(peer: &str, workload: &str, t: &Timing) -> Line {
        Line::new(peer, workload, t.median, t.min).with("sync_ms", t.sync).with("iters", t.iters as f64).with("warmup_s", t.warm_s)
    }

    /// Of a start: from BENCH_T0_NS, or else from `began`, to now.
    pub fn start(peer: &str, workload: &str, began: Instant) -> Line {
        let in_main = began.elapsed().as_secs_f64() * 1e3;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos());
        let t0 = std::env::var("BENCH_T0_NS").ok().and_then(|v| v.parse::<u128>().ok());
        let total = t0.map_or(in_main, |t0| (now as f64 - t0 as f64) * 1e-6);
        Line::new(peer, workload, total, total).with("in_main_ms", in_main)
    }

    fn new(peer: &str, workload: &str, median: f64, min: f64) -> Line {
        Line(format!(r#"{{"peer":"{peer}","workload":"{workload}","median_ms":{median:.5},"min_ms":{min:.5}"#))
    }

    /// With one more number.
    pub fn with(mut self, name: &str, value: f64) -> Line {
        write!(self.0, r#","{name}":{}"#, (value * 1e5).round() / 1e5).expect("a string takes everything");
        self
    }

    /// With the rate of so many floating-point operations a run.
    pub fn flops(self, t: &Timing, flops: f64) -> Line {
        self.with("gflops", flops / (t.median * 1e-3) / 1e9)
    }

    /// With the rate of so many bytes a run.
    pub fn bytes(self, t: &Timing, bytes: f64) -> Line {
        self.with("gb_s", bytes / (t.median * 1e-3) / 1e9)
    }

    /// Print it, with the memory at the peak.
    pub fn print(self) {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).and_then(|l| l.trim().trim_end_matches("kB").trim().parse::<f64>().ok());
        let line = match peak {
            Some(kb) => self.with("peak_rss_mb", kb / 1024.0),
            None => self,
        };
        println!("{}}}", line.0);
    }
}

/// The workload named twice: `startup_lenet` starts what `lenet_train` trains.
pub fn network(workload: &str) -> Option<(&str, bool)> {
    workload.strip_suffix("_train").map(|n| (n, false)).or_else(|| workload.strip_prefix("startup_").map(|n| (n, true)))
}
