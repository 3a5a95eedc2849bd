//! `wgrad tune-kernels` keeps its budget and makes nothing slower.

use super::super::Outcome;
use super::peers::{median, number};
use anyhow::{Context, ensure};
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// What `tune-kernels` tunes unless it is told otherwise.
const WORKLOADS: [&str; 4] = ["mlp_train", "lenet_train", "resnet_train", "matmul_1024"];
/// Rounds of without against with.
const ROUNDS: usize = 9;

pub fn line() -> anyhow::Result<Outcome> {
    let home = std::env::temp_dir().join(format!("wgrad-accept-tuned-{}", std::process::id()));
    std::fs::create_dir_all(&home)?;
    let outcome = measured(&home);
    std::fs::remove_dir_all(&home)?;
    outcome
}

fn wgrad(home: &Path, tuned: &std::ffi::OsStr) -> Command {
    let mut c = Command::new(env!("CARGO_BIN_EXE_wgrad"));
    c.env("WGRAD_CACHE", home).env("WGRAD_TUNED", tuned);
    c
}

fn measured(home: &Path) -> anyhow::Result<Outcome> {
    let file = home.join("tuned.json");
    let began = Instant::now();
    let out = wgrad(home, "off".as_ref()).args(["tune-kernels", "--device", "gpu", "--budget", "60s", "--out"]).arg(&file).output()?;
    let took = began.elapsed().as_secs_f64();
    ensure!(out.status.success(), "tune-kernels ended with {}: {}", out.status, String::from_utf8_lossy(&out.stderr));
    let tuned: Value = serde_json::from_slice(&std::fs::read(&file)?)?;
    let chosen = tuned["choices"].as_array().context("no choices in the file")?.len();
    let in_time = took <= 66.0;
    if chosen == 0 {
        return Ok(Outcome::of(in_time, format!("{took:.1} s, nothing chosen: the same programs with it and without")));
    }
    let mut ratios: Vec<Vec<f64>> = vec![Vec::new(); WORKLOADS.len()];
    for round in 0..ROUNDS {
        // Whoever comes second finds a warmer machine.
        let (without, with) = if round % 2 == 0 {
            let without = times(home, "off".as_ref())?;
            (without, times(home, file.as_os_str())?)
        } else {
            let with = times(home, file.as_os_str())?;
            (times(home, "off".as_ref())?, with)
        };
        ratios.iter_mut().zip(without.iter().zip(&with)).for_each(|(r, (a, b))| r.push(a / b));
    }
    let medians: Vec<f64> = ratios.into_iter().map(median).collect();
    let words: Vec<String> = WORKLOADS.iter().zip(&medians).map(|(w, m)| format!("{w} {m:.3}x")).collect();
    let ok = in_time && medians.iter().all(|m| *m >= 0.98);
    Ok(Outcome::of(ok, format!("{took:.1} s, {chosen} chosen: {}", words.join(", "))))
}

/// Milliseconds of each workload.
fn times(home: &Path, tuned: &std::ffi::OsStr) -> anyhow::Result<Vec<f64>> {
    let out = wgrad(home, tuned).args(["bench", "--jsonl", "--device", "gpu"]).args(WORKLOADS).output()?;
    ensure!(out.status.success(), "wgrad bench ended with {}: {}", out.status, String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout)?.lines().map(|l| number(&serde_json::from_str(l)?, "median_ms")).collect()
}
