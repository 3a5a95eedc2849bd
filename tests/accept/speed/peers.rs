//! The peers: the programs of benches/peers, and wgrad among them, each workload of each in a process of its own.

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A program that runs workloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// wgrad on the first adapter.
    Gpu,
    /// wgrad on its CPU backend.
    Cpu,
    /// burn on wgpu, as it comes: fusion, autotune.
    Burn,
    /// burn on its own CPU backend.
    BurnFlex,
    Meganeura,
    /// PyTorch on the CPU with two threads.
    Torch,
    TorchCuda,
    /// Bare kernels.
    Study,
}

/// Each with its name on the command line.
pub const PEERS: &[(&str, Peer)] = &[
    ("wgrad", Peer::Gpu),
    ("wgrad-cpu", Peer::Cpu),
    ("burn", Peer::Burn),
    ("burn-flex", Peer::BurnFlex),
    ("meganeura", Peer::Meganeura),
    ("torch", Peer::Torch),
    ("torch-cuda", Peer::TorchCuda),
    ("study", Peer::Study),
];

/// How long a process may take: burn tunes itself for more than a minute at first.
const LIMIT: Duration = Duration::from_secs(400);

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers")
}

impl Peer {
    pub fn name(self) -> &'static str {
        PEERS.iter().find(|p| p.1 == self).map_or("", |p| p.0)
    }

    /// The command without the workload. PEERS names the folder of the programs, PYTHON the interpreter that has torch.
    fn command(self) -> anyhow::Result<Command> {
        let built = |name: &str, args: &[&str]| {
            let target = std::env::var_os("PEERS").map_or_else(|| folder().join("target/release"), PathBuf::from);
            let program = target.join(name);
            ensure!(program.is_file(), "{} is not there: make peers builds it, or PEERS names its folder", program.display());
            let mut c = Command::new(program);
            c.args(args);
            Ok(c)
        };
        let python = |device: &str| {
            let mut c = Command::new(std::env::var_os("PYTHON").unwrap_or_else(|| "python3".into()));
            c.arg(folder().join("torch_peer.py")).args([device, "2"]);
            c
        };
        let wgrad = |device: &str| {
            let mut c = Command::new(env!("CARGO_BIN_EXE_wgrad"));
            c.args(["bench", "--jsonl", "--device", device]);
            c
        };
        Ok(match self {
            Peer::Gpu => wgrad("gpu"),
            Peer::Cpu => wgrad("cpu"),
            Peer::Burn => built("burn-peer", &["wgpu"])?,
            Peer::BurnFlex => built("burn-peer", &["flex"])?,
            Peer::Meganeura => built("meganeura-peer", &[])?,
            Peer::Torch => python("cpu"),
            Peer::TorchCuda => python("cuda"),
            Peer::Study => built("study-peer", &[])?,
        })
    }

    /// Run one workload, and give its line of results. `home` stands for all caches where it is given; otherwise they are the user's.
    pub fn run(self, workload: &str, home: Option<&Path>) -> anyhow::Result<Value> {
        let mut command = self.command()?;
        command.arg(workload).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(home) = home {
            command.current_dir(home);
            for (name, at) in [("HOME", ""), ("XDG_CACHE_HOME", "cache"), ("MESA_SHADER_CACHE_DIR", "mesa")] {
                command.env(name, home.join(at));
            }
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
        let mut child = command.env("BENCH_T0_NS", now.to_string()).spawn().with_context(|| format!("{command:?}"))?;
        // Read while it runs: a full pipe would stop it.
        let mut told = child.stderr.take().context("its standard error is piped")?;
        let told = std::thread::spawn(move || std::io::read_to_string(&mut told).unwrap_or_default());
        let mut said = child.stdout.take().context("its standard output is piped")?;
        let said = std::thread::spawn(move || std::io::read_to_string(&mut said).unwrap_or_default());
        let began = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if began.elapsed() > LIMIT {
                child.kill()?;
                child.wait()?;
                bail!("{} {workload}: not done in {} s", self.name(), LIMIT.as_secs());
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let (said, told) = (said.join().unwrap_or_default(), told.join().unwrap_or_default());
        let last = told.lines().last().unwrap_or_default();
        ensure!(status.success(), "{} {workload} ended with {status}: {last}", self.name());
        let line = said.lines().last().with_context(|| format!("{} {workload} printed nothing", self.name()))?;
        serde_json::from_str(line).with_context(|| format!("{} {workload} printed {line}", self.name()))
    }
}

/// A number of a line of results.
pub fn number(line: &Value, field: &str) -> anyhow::Result<f64> {
    line[field].as_f64().with_context(|| format!("{line} has no {field}"))
}

/// The middle one.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// What was run so far: by workload the peers' lines, a vector of rounds.
#[derive(Default)]
pub struct Runs(HashMap<(Peer, String), Vec<Value>>);

impl Runs {
    /// Run `workload` on each of the peers in turn, `rounds` times. What was run before is not run again, unless some peer is new: ratios are of one run.
    pub fn take(&mut self, workload: &str, peers: &[Peer], rounds: usize) -> anyhow::Result<()> {
        let key = |p: &Peer| (*p, workload.to_string());
        if peers.iter().all(|p| self.0.contains_key(&key(p))) {
            return Ok(());
        }
        if let Some(burn) = peers.iter().find(|p| **p == Peer::Burn) {
            // What it tunes at first is kept on disk, and is not its speed.
            burn.run(workload, None)?;
        }
        peers.iter().for_each(|p| drop(self.0.insert(key(p), Vec::new())));
        for round in 0..rounds {
            for peer in peers {
                let line = peer.run(workload, None);
                if line.is_err() {
                    peers.iter().for_each(|p| drop(self.0.remove(&key(p))));
                }
                let line = line?;
                eprintln!("  round {}: {:<10} {workload:<16} {:>10.3} ms", round + 1, peer.name(), number(&line, "median_ms")?);
                self.0.entry(key(peer)).or_default().push(line);
            }
        }
        Ok(())
    }

    /// A field of each round.
    pub fn field(&self, peer: Peer, workload: &str, field: &str) -> anyhow::Result<Vec<f64>> {
        let lines = self.0.get(&(peer, workload.to_string())).with_context(|| format!("{} did not run {workload}", peer.name()))?;
        lines.iter().map(|l| number(l, field)).collect()
    }

    /// How many times as long `slow` took as `fast`: the median over the rounds, in each of which they ran one after the other.
    pub fn ratio(&self, slow: Peer, fast: Peer, workload: &str) -> anyhow::Result<f64> {
        let (slow, fast) = (self.field(slow, workload, "median_ms")?, self.field(fast, workload, "median_ms")?);
        Ok(median(slow.iter().zip(&fast).map(|(s, f)| s / f).collect()))
    }
}

/// `make bench-peers`: every workload on every peer that is there, in turn, and the ratios to wgrad.
pub fn print_ratios(names: &[String], rounds: usize) -> anyhow::Result<()> {
    const ALL: [&str; 9] = ["matmul_256", "matmul_512", "matmul_1024", "softmax", "reduce_sum", "elementwise", "mlp_train", "lenet_train", "resnet_train"];
    let workloads: Vec<&str> = if names.is_empty() { ALL.to_vec() } else { names.iter().map(String::as_str).collect() };
    println!("median ms of {rounds} runs; in brackets how many times as long as wgrad took on the device of that kind: the adapter, or the CPU");
    for workload in workloads {
        let mut runs = Runs::default();
        let mut able = Vec::new();
        for (name, peer) in PEERS {
            match peer.run(workload, None) {
                Ok(_) => able.push(*peer),
                Err(e) => eprintln!("  without {name}: {e:#}"),
            }
        }
        runs.take(workload, &able, rounds)?;
        let mut row = format!("{workload:<14}");
        for peer in &able {
            let ours = if matches!(peer, Peer::Cpu | Peer::BurnFlex | Peer::Torch) { Peer::Cpu } else { Peer::Gpu };
            row += &format!("  {} {:.3}", peer.name(), median(runs.field(*peer, workload, "median_ms")?));
            if *peer != ours && able.contains(&ours) {
                row += &format!(" ({:.2}x)", runs.ratio(*peer, ours, workload)?);
            }
        }
        println!("{row}");
    }
    Ok(())
}
