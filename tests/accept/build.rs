//! Lines about the build: warnings, crates, time, size.

use super::{Line, Outcome, State};
use anyhow::ensure;
use std::collections::BTreeSet;
use std::process::{Command, Output};
use std::time::Instant;

pub static LINES: &[Line] = &[
    Line { name: "crates, default", limit: "at most 130", quick: true, run: crates_default },
    Line { name: "crates, embedder", limit: "at most 90", quick: true, run: crates_embedder },
    Line { name: "clean build", limit: "no warnings, at most 180 s", quick: false, run: clean_build },
    Line { name: "stripped binary", limit: "at most 12 MB", quick: true, run: size },
];

fn cargo(args: &[&str]) -> anyhow::Result<Output> {
    Ok(Command::new(env!("CARGO")).args(args).current_dir(env!("CARGO_MANIFEST_DIR")).output()?)
}

fn crates(extra: &[&str], limit: usize) -> anyhow::Result<Outcome> {
    let out = cargo(&[&["tree", "-e", "normal", "--prefix", "none"], extra].concat())?;
    ensure!(out.status.success(), "cargo tree: {}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let unique: BTreeSet<&str> = text.lines().map(|l| l.trim_end_matches(" (*)")).filter(|l| !l.is_empty()).collect();
    Ok(Outcome::of(unique.len() <= limit, unique.len().to_string()))
}

fn crates_default(_: &mut State) -> anyhow::Result<Outcome> {
    crates(&[], 130)
}

fn crates_embedder(_: &mut State) -> anyhow::Result<Outcome> {
    crates(&["--no-default-features", "--features", "gpu"], 90)
}

/// A build from nothing, in a target folder of its own.
fn clean_build(_: &mut State) -> anyhow::Result<Outcome> {
    let target = std::env::temp_dir().join(format!("wgrad-accept-build-{}", std::process::id()));
    let began = Instant::now();
    let out = cargo(&["build", "--release", "--locked", "--target-dir", &target.to_string_lossy()])?;
    let seconds = began.elapsed().as_secs_f64();
    let _ = std::fs::remove_dir_all(&target);
    ensure!(out.status.success(), "cargo build: {}", String::from_utf8_lossy(&out.stderr));
    let warnings = String::from_utf8_lossy(&out.stderr).lines().filter(|l| l.starts_with("warning")).count();
    Ok(Outcome::of(warnings == 0 && seconds <= 180.0, format!("{warnings} warnings, {seconds:.0} s")))
}

fn size(_: &mut State) -> anyhow::Result<Outcome> {
    let copy = std::env::temp_dir().join(format!("wgrad-accept-stripped-{}", std::process::id()));
    let status = Command::new("strip").arg("-o").arg(&copy).arg(env!("CARGO_BIN_EXE_wgrad")).status()?;
    ensure!(status.success(), "strip ended with {status}");
    let bytes = std::fs::metadata(&copy)?.len();
    std::fs::remove_file(&copy)?;
    Ok(Outcome::of(bytes <= 12_000_000, format!("{:.2} MB", bytes as f64 / 1e6)))
}
