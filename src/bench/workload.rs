//! The WORKLOADS table, and how a row of it becomes a line of numbers.

use super::check;
use super::clock::{Protocol, Timing};
use super::kernels::{self, Conv, Run};
use super::system::peak_rss_mb;
use super::training::{self, Started, Trained};
use crate::device::Device;
use crate::error::{Error, Result, nearest};
use crate::graph;
use crate::tensor::Data;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// What a run of a kernel does, for its rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// Floating-point operations.
    Flops(f64),
    /// Bytes that have to be read and written at least.
    Bytes(f64),
}

/// A row: something to measure that the peers measure, too.
pub struct Workload {
    /// Its name.
    pub name: &'static str,
    /// One line: what is timed.
    pub about: &'static str,
    kind: Kind,
}

enum Kind {
    /// A kernel: what it does, how many terms its results sum, and how it is made.
    Kernel { rate: fn() -> Rate, terms: fn() -> Vec<usize>, make: fn(&Device) -> Result<Run> },
    /// Steps of a network.
    Training,
    /// The first step of a process on the network of that training workload.
    Startup(&'static str),
}

macro_rules! kernel {
    ($name:literal, $about:literal, $rate:expr, $terms:expr, $make:expr) => {
        Workload { name: $name, about: $about, kind: Kind::Kernel { rate: || $rate, terms: || $terms, make: $make } }
    };
}

macro_rules! matmul {
    ($name:literal, $about:literal, $m:literal, $k:literal, $n:literal) => {
        kernel!($name, $about, Rate::Flops(2.0 * f64::from($m) * f64::from($k) * f64::from($n)), vec![$k], |d| kernels::matmul($m, $k, $n, d))
    };
}

macro_rules! conv {
    ($name:literal, $about:literal, forward $conv:ident) => {
        kernel!($name, $about, Rate::Flops($conv.flops()), vec![$conv.terms()], |d| $conv.forward(d))
    };
    ($name:literal, $about:literal, backward $conv:ident) => {
        kernel!($name, $about, Rate::Flops(3.0 * $conv.flops()), $conv.backward_terms(), |d| $conv.backward(d))
    };
}

const FROM_3: Conv = Conv { inputs: 3, outputs: 32, size: 32, kernel: 3 };
const FROM_32: Conv = Conv { inputs: 32, outputs: 64, size: 16, kernel: 3 };

/// Every workload, by the names that the peers use.
pub static WORKLOADS: &[Workload] = &[
    matmul!("matmul_256", "matrix product of 256 x 256", 256, 256, 256),
    matmul!("matmul_512", "matrix product of 512 x 512", 512, 512, 512),
    matmul!("matmul_1024", "matrix product of 1024 x 1024", 1024, 1024, 1024),
    matmul!("matmul_64x784x128", "[64, 784] x [784, 128]", 64, 784, 128),
    conv!("conv_3_32_32", "3 x 3 convolution, [32, 3, 32, 32] to 32 channels", forward FROM_3),
    conv!("conv_3_32_32_bwd", "the same with its three gradients", backward FROM_3),
    conv!("conv_32_64_16", "3 x 3 convolution, [32, 32, 16, 16] to 64 channels", forward FROM_32),
    conv!("conv_32_64_16_bwd", "the same with its three gradients", backward FROM_32),
    kernel!("softmax", "softmax of the rows of [512, 1024]", Rate::Bytes(8.0 * 512.0 * 1024.0), vec![1024], |d| kernels::softmax(512, 1024, d)),
    kernel!("reduce_sum", "sums of the rows of [4096, 1024]", Rate::Bytes(4.0 * 4096.0 * 1024.0), vec![1024], |d| kernels::row_sums(4096, 1024, d)),
    kernel!("elementwise", "relu(1.5 x + 0.25) x of 4 Mi elements", Rate::Bytes(8.0 * 4.0 * 1024.0 * 1024.0), vec![1], |d| kernels::elementwise(4 << 20, d)),
    Workload { name: "mlp_train", about: "a step of 784-256-128-10 with 64 samples", kind: Kind::Training },
    Workload { name: "lenet_train", about: "a step of LeNet-5 with 64 images of 28 x 28", kind: Kind::Training },
    Workload { name: "resnet_train", about: "a step of 3 residual blocks of 16 channels with 32 images of 32 x 32", kind: Kind::Training },
    Workload { name: "startup_mlp", about: "process start to the first step of mlp_train, its loss read back", kind: Kind::Startup("mlp_train") },
    Workload { name: "startup_lenet", about: "process start to the first step of lenet_train, its loss read back", kind: Kind::Startup("lenet_train") },
];

/// Workloads that the peers have and wgrad cannot run, and why.
static NOT_YET: &[(&str, &str)] = &[("lstm_train", "wgrad has no recurrent layers yet")];

/// The rows of these names; `all` stands for every row but the starts, of which a process has one.
///
/// # Errors
/// A name that is not in the table.
pub fn select(names: &[String]) -> Result<Vec<&'static Workload>> {
    let mut found = Vec::new();
    for name in names {
        if name == "all" {
            found.extend(WORKLOADS.iter().filter(|w| !matches!(w.kind, Kind::Startup(_))));
            continue;
        }
        if let Some((_, why)) = NOT_YET.iter().find(|(n, _)| n == name) {
            return Err(Error::invalid(format!("bench: {name}: {why}")));
        }
        found.push(WORKLOADS.iter().find(|w| w.name == name).ok_or_else(|| {
            let list = WORKLOADS.iter().map(|w| w.name).collect::<Vec<_>>().join(", ");
            let near = nearest(name, WORKLOADS.iter().map(|w| w.name)).map(|n| format!("did you mean {n}? ")).unwrap_or_default();
            Error::invalid(format!("bench: there is no workload {name}")).help(format!("{near}there are: {list}; all stands for each but startup_*"))
        })?);
    }
    Ok(found)
}

/// What wgrad on this device is called among its peers: `wgrad-cpu`, `wgrad-llvmpipe`.
pub fn peer_name(device: &Device) -> String {
    format!("wgrad-{}", device.short_name())
}

/// A line of results, with the names that all peers use, in their order.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    fields: Vec<(&'static str, serde_json::Value)>,
}

impl serde::Serialize for Line {
    fn serialize<S: serde::Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        to.collect_map(self.fields.iter().map(|(name, value)| (name, value)))
    }
}

impl Workload {
    /// Run it on `device`. `began` is when the program began; only a start looks at it.
    ///
    /// # Errors
    /// Results that are not the definition's, and device failures.
    pub fn run(&self, device: &Device, protocol: &Protocol, began: Instant) -> Result<Line> {
        match &self.kind {
            Kind::Kernel { rate, terms, make } => {
                let (timing, peak) = run_kernel(self.name, make, &terms(), device, protocol)?;
                let mut line = self.line(device, timing.median(), timing.min());
                line.timing(&timing);
                line.put("peak_rss_mb", peak, 1);
                let seconds = timing.median() * 1e-3;
                match rate() {
                    Rate::Flops(n) => line.put("gflops", n / seconds / 1e9, 3),
                    Rate::Bytes(n) => line.put("gb_s", n / seconds / 1e9, 3),
                }
                Ok(line)
            }
            Kind::Training => {
                let Trained { timing, batch, loss_first, loss_last, steps, dispatches } = training::train(self.name, device, protocol)?;
                let mut line = self.line(device, timing.median(), timing.min());
                line.timing(&timing);
                line.put("peak_rss_mb", peak_rss_mb(), 1);
                let rate = 1e3 / timing.median();
                line.put("steps_per_s", rate, 2);
                line.put("samples_per_s", rate * batch as f64, 1);
                line.put("loss_first", Some(loss_first), 4);
                line.put("loss_last", Some(loss_last), 4);
                line.fields.push(("steps", steps.into()));
                line.fields.extend(dispatches.map(|n| ("dispatches", n.into())));
                Ok(line)
            }
            Kind::Startup(training) => {
                let mut total = None;
                let mut look = || total = since_t0_ms().transpose();
                let Started { in_main_ms, second_step_ms, loss } = training::startup(training, device, began, &mut look)?;
                let total = total.transpose()?.unwrap_or(in_main_ms);
                let mut line = self.line(device, total, total);
                line.put("in_main_ms", in_main_ms, 1);
                line.put("second_step_ms", second_step_ms, 2);
                line.put("loss", loss, 4);
                line.put("peak_rss_mb", peak_rss_mb(), 1);
                Ok(line)
            }
        }
    }

    /// The same work for the tuner: one run of it, over and over.
    #[cfg(feature = "gpu")]
    pub(super) fn once(&self, device: &Device) -> Result<Box<dyn FnMut() -> Result<()>>> {
        match &self.kind {
            Kind::Kernel { make, .. } => {
                let (mut run, device) = (make(device)?, device.clone());
                Ok(Box::new(move || {
                    let results = run()?;
                    graph::flush(&device)?;
                    drop(results);
                    Ok(())
                }))
            }
            Kind::Training => training::steps(self.name, device),
            Kind::Startup(_) => Err(Error::invalid(format!("tune-kernels: {}: a start is not run twice", self.name))),
        }
    }

    /// All that one run computes on `device`, and how many terms its results sum.
    #[cfg(feature = "gpu")]
    pub(super) fn results(&self, device: &Device) -> Result<(Vec<Data>, Vec<usize>)> {
        match &self.kind {
            Kind::Kernel { make, terms, .. } => Ok((check::values(&make(device)?()?)?, terms())),
            Kind::Training | Kind::Startup(_) => Ok((training::first_step(self.name, device)?, vec![training::first_step_terms(self.name)?])),
        }
    }

    /// For a training workload: that its first losses are the definition's.
    #[cfg(feature = "gpu")]
    pub(super) fn check_losses(&self, device: &Device) -> Result<()> {
        if let Kind::Training = self.kind { training::check_losses(self.name, device) } else { Ok(()) }
    }

    fn line(&self, device: &Device, median_ms: f64, min_ms: f64) -> Line {
        let mut line = Line { fields: vec![("peer", peer_name(device).into()), ("workload", self.name.into())] };
        line.put("median_ms", median_ms, 5);
        line.put("min_ms", min_ms, 5);
        line
    }
}

impl Line {
    fn timing(&mut self, timing: &Timing) {
        self.put("sync_ms", timing.sync_ms, 5);
        self.fields.push(("iters", timing.runs.into()));
        self.put("warmup_s", timing.warm_s, 6);
    }

    /// A number with so many digits behind the point; nothing where there is none.
    fn put(&mut self, name: &'static str, value: impl Into<Option<f64>>, digits: i32) {
        if let Some(v) = value.into() {
            self.fields.push((name, round(v, digits).into()));
        }
    }
}

fn round(v: f64, digits: i32) -> f64 {
    let unit = 10f64.powi(digits);
    (v * unit).round() / unit
}

/// Time a kernel, and compare what it gives with the definition: before it is timed and after, the same bits; and those within the bound. The definition's
/// memory is not the kernel's, so the peak is read before it is asked.
fn run_kernel(name: &str, make: &fn(&Device) -> Result<Run>, terms: &[usize], device: &Device, protocol: &Protocol) -> Result<(Timing, Option<f64>)> {
    let mut run = make(device)?;
    let first = check::values(&run()?)?;
    let timing = protocol.time(device, &mut || {
        // Held until it is computed: what nobody holds is not computed.
        let results = run()?;
        graph::flush(device)?;
        drop(results);
        Ok(())
    })?;
    let last = check::values(&run()?)?;
    let peak = peak_rss_mb();
    if first.iter().map(Data::to_bytes).ne(last.iter().map(Data::to_bytes)) {
        return Err(Error::internal(format!("{name}: wrong result: not the same bits after the timing as before")));
    }
    let definition = check::definition()?;
    let want = check::values(&make(&definition)?()?)?;
    check::compare(name, &last, &want, terms)?;
    Ok((timing, peak))
}

/// Milliseconds since BENCH_T0_NS (nanoseconds of the epoch, set by who starts the process).
fn since_t0_ms() -> Result<Option<f64>> {
    let t0 = match crate::env::text("BENCH_T0_NS")? {
        None => return Ok(None),
        Some(text) => text.parse::<u128>().map_err(|_| Error::invalid(format!("BENCH_T0_NS: must be nanoseconds of the epoch: {text}")))?,
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos());
    Ok(Some((now as f64 - t0 as f64) / 1e6))
}
