//! `wgrad bench`: how fast it is here.

use super::paths::writable;
use super::{Exit, Run, interrupt, job};
use crate::bench::{self, Host, Plan, Protocol, Report, Verdict, Watch};
#[cfg(feature = "gpu")]
use crate::device::Device;
use anyhow::{Context, bail};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

/// Measure a device: its peaks, what a launch costs, every kernel family over a range of shapes, whole training steps.
///
/// Each probe runs in a process of its own, several times over; its result is compared with the CPU definition, and one that is wrong, fails or hangs gives a
/// reason and no number. Work is timed by the device's timestamps where it has some. A row is marked UNSTABLE where the first and the last third of its samples
/// differ by more than 5 %. The share is that of the measured peaks: of arithmetic or of memory, whichever bounds the kernel. Ctrl-C keeps what was measured so far.
#[derive(Debug, clap::Parser)]
#[command(name = "bench", after_help = EXAMPLES)]
pub struct Bench {
    /// Probes or families of probes, such as matmul or train/lenet (--list shows them); all unless told. With --jsonl: workloads.
    #[arg(value_name = "PROBE")]
    names: Vec<String>,
    /// Where to compute: cpu, gpu (the first of `wgrad devices`), gpu:N or part of a name.
    #[arg(long)]
    device: Option<String>,
    /// Measure one adapter through each API that it offers, side by side.
    #[arg(long, value_parser = ["all"])]
    backends: Option<String>,
    /// Write the results to a file that --compare reads.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw the roofline.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Compare two such files, and measure nothing: the ratio of times with its interval.
    #[arg(long, num_args = 2, value_names = ["A", "B"], conflicts_with_all = ["names", "json", "svg", "backends", "jsonl"])]
    compare: Vec<PathBuf>,
    /// Exit with 3 where a row is unstable or has no number because it failed; with --compare, where one is slower.
    #[arg(long)]
    strict: bool,
    /// How often each probe is measured, all of them once and then again; those whose processes do not agree up to twice as often.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// End within about so many seconds a device, and say what was not run.
    #[arg(long, value_name = "S")]
    seconds: Option<f64>,
    /// Seconds that a probe may take.
    #[arg(long, value_name = "S", default_value_t = 60.0)]
    limit: f64,
    /// Seconds that a probe is sampled, each time.
    #[arg(long, value_name = "S", default_value_t = 0.3)]
    sample: f64,
    /// List the probes (with --jsonl the workloads) and what each measures.
    #[arg(long)]
    list: bool,
    /// Print a JSON object for each named workload, with the names and fields that wgrad shares with its peers, and nothing else. `all` stands for every
    /// workload but startup_*.
    #[arg(long, conflicts_with_all = ["json", "svg", "backends", "strict", "rounds", "seconds", "limit", "sample"])]
    jsonl: bool,
    /// Run this probe here, and print what its parent reads.
    #[arg(long, value_name = "PROBE", hide = true)]
    child: Option<String>,
    /// Bits of results that were found right.
    #[arg(long, value_name = "BITS", hide = true)]
    known: Option<String>,
}

const EXAMPLES: &str = "Examples:
  wgrad bench                                  everything, on the default device
  wgrad bench --device gpu --svg roof.svg      the roofline of the first adapter
  wgrad bench peak matmul --seconds 60         two families, in a minute
  wgrad bench --json before.json               ... change something, measure after.json, then
  wgrad bench --compare before.json after.json
  wgrad bench --backends all peak train        one adapter through Vulkan, GL, DX12 or Metal
  wgrad bench --jsonl --device cpu lenet_train one line for a script";

impl Run for Bench {
    fn run(self) -> anyhow::Result<Exit> {
        let began = Instant::now();
        if let [a, b] = &self.compare[..] {
            return self.compare(a, b);
        }
        if self.list {
            return list(self.jsonl);
        }
        if let Some(probe) = &self.child {
            outlive_nobody(self.limit);
            let slowed = planted(probe)?;
            let (device, _) = job::choose_device(self.device.as_deref(), None)?;
            let answer = bench::answer(probe, &device, self.known, self.sample, slowed)?;
            writeln!(std::io::stdout().lock(), "{answer}")?;
            return Ok(Exit::Done);
        }
        if self.jsonl {
            return self.workloads(began);
        }
        let probes = bench::select(&self.names)?;
        // What cannot be written is said before minutes are spent on it.
        self.json.iter().chain(&self.svg).try_for_each(|path| writable(path))?;
        let interrupted = interrupt::watch()?;
        let report = self.measure(&probes, &|| interrupted.load(SeqCst))?;
        // First to disk, for what follows may find a closed pipe; and the table in any case.
        let kept = self.keep(&report);
        write!(std::io::stdout().lock(), "{}", bench::report_text(&report))?;
        kept?;
        if interrupted.load(SeqCst) {
            return Ok(Exit::Interrupted);
        }
        let fault = |r: &bench::Row| r.unstable || r.failed.as_ref().is_some_and(|why| !why.starts_with("not run"));
        Ok(if self.strict && report.devices.iter().flat_map(|d| &d.rows).any(fault) { Exit::Fault } else { Exit::Done })
    }
}

impl Bench {
    /// Write the files that were asked for.
    fn keep(&self, report: &Report) -> anyhow::Result<()> {
        if let Some(path) = &self.json {
            write(path, &format!("{}\n", serde_json::to_string(report)?))?;
        }
        if let Some(path) = &self.svg {
            if !report.devices.iter().any(|d| d.peak_gflops().is_some() && d.peak_gb_s().is_some()) {
                say!("{}: without peak/fma and peak/copy there is no roof to draw", path.display());
            }
            write(path, &bench::roofline(report))?;
        }
        Ok(())
    }

    /// A line for each workload. One that fails leaves the others theirs.
    fn workloads(&self, began: Instant) -> anyhow::Result<Exit> {
        if self.names.is_empty() {
            bail!("--jsonl takes the names of workloads, or all; --jsonl --list shows them");
        }
        let workloads = bench::workloads(&self.names)?;
        let protocol = Protocol::from_env()?;
        let (device, why) = job::choose_device(self.device.as_deref(), None)?;
        say!("device: {why}");
        let mut out = std::io::stdout().lock();
        let mut failed = Vec::new();
        for workload in workloads {
            match workload.run(&device, &protocol, began) {
                Ok(line) => writeln!(out, "{}", serde_json::to_string(&line)?)?,
                Err(e) => failed.push(format!("{}: {e}", workload.name)),
            }
            out.flush()?;
        }
        if !failed.is_empty() {
            bail!("{}", failed.join("\n"));
        }
        Ok(Exit::Done)
    }

    fn measure(&self, probes: &[bench::Probe], stop: &dyn Fn() -> bool) -> anyhow::Result<Report> {
        const MOST: f64 = 1e6;
        let positive = |name: &str, v: f64| if v > 0.0 && v <= MOST { Ok(v) } else { bail!("--{name}: must be seconds, above 0 and up to {MOST}: {v}") };
        let (limit, sample) = (positive("limit", self.limit)?, positive("sample", self.sample)?);
        // It warms up, and samples up to four times as long where runs are long.
        if limit < 4.0 * sample {
            bail!("--sample {sample}: a probe may sample four times as long, and is ended after --limit {limit}: give --limit {} or more", 6.0 * sample);
        }
        let budget = self.seconds.map(|s| positive("seconds", s)).transpose()?;
        let devices = if self.backends.is_some() { apis(self.device.as_deref())?.into_iter().map(Some).collect() } else { vec![self.device.clone()] };
        let hosts = devices.into_iter().map(|d| Host::new(d, limit, sample)).collect::<crate::error::Result<Vec<_>>>()?;
        let terminal = std::io::stderr().is_terminal();
        let mut told = |round: usize, n: usize, of: usize, name: &str| {
            // On a terminal one line is written over and over; in a log each has its own.
            let (before, after) = if terminal { ("\r\x1b[K", "") } else { ("", "\n") };
            let _ = write!(std::io::stderr(), "{before}round {round}: {n}/{of} {name}{after}");
        };
        let report = bench::run(&hosts, probes, &Plan { rounds: self.rounds.into(), budget }, &mut Watch { told: &mut told, stop });
        if terminal {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
        Ok(report?)
    }

    fn compare(&self, a: &Path, b: &Path) -> anyhow::Result<Exit> {
        let (left, right) = (read(a)?, read(b)?);
        for (what, x, y) in [("kernels", &left.kernel_hash, &right.kernel_hash), ("processor", &left.cpu, &right.cpu), ("system", &left.os, &right.os)] {
            if x != y {
                say!("not the same {what}: {x} and {y}");
            }
        }
        for [x, y] in bench::pairs(&left, &right).0 {
            if (&x.device, &x.backend, &x.driver) != (&y.device, &y.backend, &y.driver) {
                say!("not the same device or driver: {} and {}", x.description, y.description);
            }
        }
        let (rows, alone) = bench::compare(&left, &right);
        if rows.is_empty() {
            bail!("{} and {} have no row in common", a.display(), b.display());
        }
        write!(std::io::stdout().lock(), "{}", bench::comparison_text(&rows, &alone))?;
        Ok(if self.strict && rows.iter().any(|r| r.verdict == Verdict::Slower) { Exit::Fault } else { Exit::Done })
    }
}

fn list(workloads: bool) -> anyhow::Result<Exit> {
    let rows: Vec<(String, String)> = if workloads {
        bench::WORKLOADS.iter().map(|w| (w.name.to_string(), w.about.to_string())).collect()
    } else {
        bench::probes().into_iter().map(|p| (p.name, p.about)).collect()
    };
    let width = rows.iter().map(|r| r.0.len()).max().unwrap_or(0);
    let mut out = std::io::stdout().lock();
    for (name, about) in rows {
        writeln!(out, "{name:width$}  {about}")?;
    }
    Ok(Exit::Done)
}

/// The lines of the device list that are one adapter, one for each API: that of the first line, or of the one that is asked for.
#[cfg(feature = "gpu")]
fn apis(device: Option<&str>) -> anyhow::Result<Vec<String>> {
    use crate::device::gpu::{AdapterInfo, adapters};
    let device = match job::choose_device(device, None)?.0 {
        Device::Cpu(_) if device.is_none() => Device::open("gpu")?.0,
        asked => asked,
    };
    let Device::Gpu(gpu) = device else { bail!("--backends: the CPU backend has no APIs; name an adapter by --device") };
    let own = gpu.info();
    let list = adapters();
    let mut backends: Vec<&str> = list.iter().map(|a| a.backend).collect();
    backends.sort_unstable();
    backends.dedup();
    let mut found = Vec::new();
    for backend in backends {
        let at = |same: &dyn Fn(&AdapterInfo) -> bool| list.iter().position(|a| a.backend == backend && same(a));
        match at(&|a| a.name == own.name).or_else(|| at(&|a| same_adapter(&a.short_name(), &own.short_name()))) {
            Some(at) => found.push(at + 1),
            None => say!("without {backend}: none of its adapters is called like {}", own.name),
        }
    }
    // In the order of the list.
    found.sort_unstable();
    Ok(found.into_iter().map(|n| format!("gpu:{n}")).collect())
}

/// Whether two short names are of one adapter: GL may say "Mesa" before it, and the bus behind it.
#[cfg(feature = "gpu")]
fn same_adapter(a: &str, b: &str) -> bool {
    let model = |name: &str| name.strip_prefix("Mesa-").unwrap_or(name).split('/').next().unwrap_or_default().to_lowercase();
    model(a) == model(b)
}

#[cfg(not(feature = "gpu"))]
fn apis(_device: Option<&str>) -> anyhow::Result<Vec<String>> {
    bail!("--backends: this build has no gpu; build with --features gpu")
}

fn read(path: &Path) -> anyhow::Result<Report> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let schema = serde_json::from_str::<serde_json::Value>(&text).ok().and_then(|v| v["schema"].as_str().map(str::to_string));
    match schema {
        Some(s) if s == bench::SCHEMA => serde_json::from_str(&text).with_context(|| format!("{}: not a result of wgrad bench", path.display())),
        Some(s) => bail!("{}: schema {s}, this wgrad reads {}", path.display(), bench::SCHEMA),
        None => bail!("{}: not a result of wgrad bench --json", path.display()),
    }
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// A probe's process ends where its parent, which would have ended it, is gone.
fn outlive_nobody(limit: f64) {
    const GRACE: f64 = 5.0;
    let limit = Duration::try_from_secs_f64(limit + GRACE).unwrap_or(Duration::MAX);
    std::thread::spawn(move || {
        std::thread::sleep(limit);
        std::process::exit(i32::from(Exit::Failed as u8));
    });
}

/// For tests: go wrong as WGRAD_PLANT says. Whether it says to be slow.
fn planted(probe: &str) -> anyhow::Result<bool> {
    match crate::env::text("WGRAD_PLANT")?.as_deref().and_then(|p| p.split_once(':')) {
        Some(("hang", name)) if name == probe => loop {
            std::thread::park();
        },
        Some(("abort", name)) if name == probe => std::process::abort(),
        Some(("fail", name)) if name == probe => bail!("planted"),
        Some(("slow", name)) => Ok(name == probe),
        _ => Ok(false),
    }
}

#[cfg(all(test, feature = "gpu"))]
mod tests {
    use super::*;

    #[test]
    fn an_adapter_is_known_by_its_name_in_every_api() {
        for (a, b) in [
            ("llvmpipe", "llvmpipe"),
            ("Intel-UHD-Graphics-620", "Mesa-Intel-UHD-Graphics-620"),
            ("NVIDIA-GeForce-RTX-3080", "NVIDIA-GeForce-RTX-3080/PCIe/SSE2"),
        ] {
            assert!(same_adapter(a, b) && same_adapter(b, a), "{a}, {b}");
        }
        assert!(!same_adapter("NVIDIA-GeForce-RTX-3080", "NVIDIA-GeForce-RTX-3080-Ti"));
    }
}
