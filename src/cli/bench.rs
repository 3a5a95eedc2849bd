//! `wgrad bench`: how fast it is here.

use super::{Exit, Run, job};
use crate::bench::{self, Protocol};
use std::io::Write;
use std::time::Instant;

/// Measure how fast a device is.
#[derive(Debug, clap::Parser)]
#[command(name = "bench", after_help = EXAMPLES)]
pub struct Bench {
    /// What to measure.
    #[arg(value_name = "WORKLOAD")]
    workloads: Vec<String>,
    /// Print a JSON object for each workload, with the names that wgrad shares with its peers, and nothing else.
    #[arg(long)]
    jsonl: bool,
    /// Where to compute: cpu, gpu, gpu:N or part of a name; see `wgrad devices`.
    #[arg(long)]
    device: Option<String>,
}

const EXAMPLES: &str = "Examples:
  wgrad bench --jsonl --device cpu matmul_512 lenet_train";

impl Run for Bench {
    fn run(self) -> anyhow::Result<Exit> {
        let began = Instant::now();
        let workloads = bench::select(&self.workloads)?;
        let protocol = Protocol::from_env()?;
        let (device, why) = job::choose_device(self.device.as_deref(), None)?;
        eprintln!("device: {why}");
        let mut out = std::io::stdout().lock();
        for workload in workloads {
            let line = workload.run(&device, &protocol, began)?;
            writeln!(out, "{}", serde_json::to_string(&line)?)?;
            out.flush()?;
        }
        Ok(Exit::Done)
    }
}
