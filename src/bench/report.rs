//! What was measured, as it is kept: a row for each probe, the device it was measured on, and the build that measured it.

use super::clock::median;
use super::job::{drift, spread};
use super::probe::family;
use serde::{Deserialize, Serialize};

/// The form of the file. It changes where a reader would misread it.
pub const SCHEMA: &str = "wgrad-bench/1";

/// Thirds of the samples that differ by more than this are no steady measurement.
const STEADY: f64 = 0.05;

/// A result file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// Of wgrad.
    pub version: String,
    /// The commit it was built from, where that is known.
    pub commit: Option<String>,
    /// The system.
    pub os: String,
    /// The processor.
    pub cpu: String,
    /// A hash of all hand-written shaders.
    pub kernel_hash: String,
    /// Seconds that it took.
    pub seconds: f64,
    /// What was measured on.
    pub devices: Vec<Measured>,
}

/// A device and its rows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// `cpu`, or the adapter's short name.
    pub device: String,
    /// One line: name, backend and driver, or the number of threads.
    pub description: String,
    /// The name the driver gives.
    pub adapter: Option<String>,
    /// The API: vulkan, metal, dx12, gl.
    pub backend: Option<String>,
    /// The driver and its version.
    pub driver: Option<String>,
    /// Discrete, integrated, other or software.
    pub kind: Option<String>,
    /// Features that are used.
    pub features: Vec<String>,
    /// Bytes of the arrays of peak/read, peak/write and peak/copy.
    pub working_set: String,
    /// The rows.
    pub rows: Vec<Row>,
}

/// A probe's result.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Of the probe.
    pub name: String,
    /// What a run is.
    pub about: String,
    /// By which clock it was timed: the device's timestamps, or a watch.
    pub clock: String,
    /// Operations of a run.
    pub flops: f64,
    /// Bytes of a run.
    pub bytes: f64,
    /// Milliseconds of a run, sample by sample, for each process in which it was measured.
    pub rounds: Vec<Vec<f64>>,
    /// Milliseconds that the host took to hand a run to the device, where they work side by side: where it is the time of the run, the device waited.
    pub host_ms: Option<f64>,
    /// Launches of a run, or steps of the CPU backend.
    pub launches: f64,
    /// A hash of its results, which were found right.
    pub bits: String,
    /// The median.
    pub median_ms: Option<f64>,
    /// The distance of the quartiles, as a fraction of the median.
    pub spread: Option<f64>,
    /// GFLOP/s.
    pub gflops: Option<f64>,
    /// GB/s.
    pub gb_s: Option<f64>,
    /// The share of what the measured peaks allow.
    pub share: Option<f64>,
    /// Whether the first and the last third of its samples differ by more than 5 %, or those of its processes do.
    pub unstable: bool,
    /// Why there is no number.
    pub failed: Option<String>,
}

impl Row {
    /// All samples, in the order in which they were taken.
    pub fn samples(&self) -> Vec<f64> {
        self.rounds.concat()
    }

    /// Take in what another process measured.
    pub fn add(&mut self, more: Row) {
        if let Some(why) = more.failed {
            // A failure is never hidden by a number.
            self.failed.get_or_insert(why);
            return;
        }
        if self.rounds.is_empty() {
            *self = Row { failed: self.failed.take(), ..more };
            return;
        }
        // Processes may have found another length for a run, as peak/fma does: all times are those of the first one's.
        let times = self.work() / more.work();
        let scaled = more.rounds.into_iter().map(|r| r.into_iter().map(|ms| ms * times).collect());
        let rounds = std::mem::take(&mut self.rounds).into_iter().chain(scaled).collect();
        let host_ms = more.host_ms.map(|ms| ms * times);
        *self = Row { rounds, host_ms, flops: self.flops, bytes: self.bytes, failed: self.failed.take(), ..more };
    }

    /// Work of a run, in the unit of its rate; 1 where it has none.
    pub fn work(&self) -> f64 {
        let bandwidth = !matches!(family(&self.name), "matmul" | "conv" | "peak") || self.flops == 0.0;
        match (bandwidth, self.bytes > 0.0) {
            (true, true) => self.bytes,
            (true, false) => 1.0,
            (false, _) => self.flops,
        }
    }

    /// Whether the device waited for the host: then the time says little of its kernels.
    pub fn host_bound(&self) -> bool {
        const MOST: f64 = 0.9;
        self.host_ms.zip(self.median_ms).is_some_and(|(host, ms)| host > MOST * ms)
    }

    fn finish(&mut self) {
        let samples = self.samples();
        if samples.is_empty() || self.failed.is_some() {
            let why = self.failed.take().unwrap_or_else(|| "no samples".into());
            *self = Row { failed: Some(why), ..Row { name: self.name.clone(), about: self.about.clone(), ..Row::default() } };
            return;
        }
        let ms = median(&samples);
        self.median_ms = Some(ms);
        self.spread = Some(spread(&samples));
        // From process to process, and within each: what all do alike is no less a drift.
        let within: Vec<f64> = self.rounds.iter().map(|r| drift(r)).collect();
        self.unstable = drift(&samples).max(median(&within)) > STEADY;
        let rate = |work: f64| Some(work / ms / 1e6).filter(|r| *r > 0.0);
        self.gflops = rate(self.flops);
        self.gb_s = rate(self.bytes);
    }
}

impl Measured {
    /// The median and rates of each row, and their share of the peaks among them.
    pub fn finish(&mut self) {
        self.rows.iter_mut().for_each(Row::finish);
        let [flops, copy, read] = [self.peak_gflops(), self.peak_gb_s(), self.rate("peak/read", |r| r.gb_s)];
        for row in &mut self.rows {
            let bandwidth = if family(&row.name) == "reduce" { read.or(copy) } else { copy };
            let (Some(ms), Some(flops), Some(bandwidth)) = (row.median_ms, flops, bandwidth) else { continue };
            if row.flops + row.bytes > 0.0 && !["peak", "cost"].contains(&family(&row.name)) {
                let least_ms = (row.flops / flops).max(row.bytes / bandwidth) / 1e6;
                row.share = Some(least_ms / ms);
            }
        }
    }

    fn rate(&self, name: &str, of: impl Fn(&Row) -> Option<f64>) -> Option<f64> {
        self.rows.iter().find(|r| r.name == name).and_then(of)
    }

    /// The measured peak of arithmetic.
    pub fn peak_gflops(&self) -> Option<f64> {
        self.rate("peak/fma", |r| r.gflops)
    }

    /// The measured peak of memory, reading and writing.
    pub fn peak_gb_s(&self) -> Option<f64> {
        self.rate("peak/copy", |r| r.gb_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, flops: f64, bytes: f64, ms: f64) -> Row {
        Row { name: name.into(), flops, bytes, rounds: vec![vec![ms; 9]], ..Row::default() }
    }

    #[test]
    fn shares_are_of_the_roof() {
        let rows = vec![row("peak/fma", 1e9, 0.0, 10.0), row("peak/copy", 0.0, 1e9, 100.0), row("matmul/x", 1e9, 1.0, 20.0), row("add/x", 1.0, 1e8, 20.0)];
        let mut measured = Measured { rows, ..Measured::default() };
        measured.finish();
        assert_eq!((measured.peak_gflops(), measured.peak_gb_s()), (Some(100.0), Some(10.0)));
        assert!((measured.rows[2].share.unwrap() - 0.5).abs() < 1e-9);
        assert!((measured.rows[3].share.unwrap() - 0.5).abs() < 1e-9);
        assert_eq!(measured.rows[0].share, None);
    }

    #[test]
    fn a_run_of_another_length_counts_by_its_work() {
        let mut peak = Row::default();
        for (flops, ms) in [(1e9, 10.0), (2e9, 20.0), (1e9, 10.0)] {
            peak.add(row("peak/fma", flops, 0.0, ms));
        }
        peak.finish();
        assert_eq!((peak.rounds.len(), peak.median_ms, peak.gflops, peak.spread), (3, Some(10.0), Some(100.0), Some(0.0)));
    }

    #[test]
    fn what_drifts_is_unstable_and_what_failed_has_no_number() {
        let mut drifting = Row { rounds: vec![vec![1.0; 4], vec![1.0; 4], vec![1.1; 4]], ..row("a", 1.0, 1.0, 1.0) };
        drifting.finish();
        assert!(drifting.unstable);
        // Each process slows down in the same way.
        let mut throttled = Row { rounds: vec![[vec![1.0; 3], vec![1.1; 3], vec![1.2; 3]].concat(); 3], ..row("a", 1.0, 1.0, 1.0) };
        throttled.finish();
        assert!(throttled.unstable);
        let mut steady = row("a", 1.0, 1.0, 1.0);
        steady.finish();
        assert!(!steady.unstable);
        let mut failed = row("a", 1.0, 1.0, 1.0);
        failed.add(Row { failed: Some("it hung".into()), ..Row::default() });
        failed.finish();
        assert_eq!((failed.median_ms, failed.failed.as_deref()), (None, Some("it hung")));
        assert!(failed.rounds.is_empty());
    }
}
