//! `wgrad tune-kernels` keeps its budget and makes nothing slower.

use super::super::Outcome;
use anyhow::ensure;
use std::path::Path;
use std::process::Command;
use std::time::Instant;
use wgrad::device::gpu::{GpuOptions, Tuned};
use wgrad::{Device, bench};

/// What `tune-kernels` tunes unless it is told otherwise.
const WORKLOADS: [&str; 4] = ["mlp_train", "lenet_train", "resnet_train", "matmul_1024"];
/// Rounds of the rules against the file's choices: enough that their median does not hang on what else the machine does meanwhile.
const ROUNDS: usize = 41;

pub fn line() -> anyhow::Result<Outcome> {
    let home = std::env::temp_dir().join(format!("wgrad-accept-tuned-{}", std::process::id()));
    std::fs::create_dir_all(&home)?;
    let outcome = measured(&home);
    std::fs::remove_dir_all(&home)?;
    outcome
}

fn measured(home: &Path) -> anyhow::Result<Outcome> {
    let file = home.join("tuned.json");
    let mut tune = Command::new(env!("CARGO_BIN_EXE_wgrad"));
    tune.env("WGRAD_CACHE", home).env("WGRAD_TUNED", "off").args(["tune-kernels", "--device", "gpu", "--budget", "60s", "--out"]).arg(&file);
    let began = Instant::now();
    let out = tune.output()?;
    let took = began.elapsed().as_secs_f64();
    ensure!(out.status.success(), "tune-kernels ended with {}: {}", out.status, String::from_utf8_lossy(&out.stderr));
    let device = Device::gpu(0, &GpuOptions { tuned: Tuned::File(file), ..GpuOptions::from_env()? })?;
    let chosen = if let Device::Gpu(gpu) = &device { gpu.caps().choices.len() } else { 0 };
    let workloads = bench::workloads(&WORKLOADS.map(String::from))?;
    let speeds = bench::speed_of_choices(&device, &workloads, ROUNDS)?;
    let words: Vec<String> = WORKLOADS.iter().zip(&speeds).map(|(w, s)| format!("{w} {s:.3}x")).collect();
    let ok = took <= 66.0 && speeds.iter().all(|s| *s >= 0.98);
    Ok(Outcome::of(ok, format!("{took:.1} s, {chosen} chosen: {}", words.join(", "))))
}
