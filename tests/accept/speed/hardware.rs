//! On a real GPU: kernels beside the peaks that were measured on it, steps beside the peers. Without one these lines say so.

use super::super::{Line, Outcome, State};
use super::bench::{Folder, measured};
use super::peers::Peer;
use super::vs;
use anyhow::Context;
use serde_json::Value;

pub static LINES: &[Line] = &[
    Line { name: "GPU: matmul 4096 vs f32 peak", limit: "45 % (aim 75 %)", quick: false, run: |s| share(s, "matmul/4096", "peak/fma", "gflops", 0.45) },
    Line {
        name: "GPU: f16 matmul 4096 vs f32 peak",
        limit: "150 % (aim 400 %)",
        quick: false,
        run: |s| share(s, "matmul/4096_medium", "peak/fma", "gflops", 1.5),
    },
    Line { name: "GPU: elementwise vs copy", limit: "75 % (aim 90 %)", quick: false, run: |s| share(s, "elementwise/16Mi", "peak/copy", "gb_s", 0.75) },
    Line { name: "GPU: Adam vs copy", limit: "75 % (aim 90 %)", quick: false, run: |s| share(s, "optim/adam_1Mi", "peak/copy", "gb_s", 0.75) },
    Line { name: "GPU: mlp vs burn", limit: "1.5x (aim 3x)", quick: false, run: |s| step(s, "mlp_train", Peer::Burn, 1.5) },
    Line { name: "GPU: lenet vs burn", limit: "1.5x (aim 3x)", quick: false, run: |s| step(s, "lenet_train", Peer::Burn, 1.5) },
    Line { name: "GPU: mlp vs Meganeura", limit: "1x (aim 1.5x)", quick: false, run: |s| step(s, "mlp_train", Peer::Meganeura, 1.0) },
    Line { name: "GPU: lenet vs Meganeura", limit: "1x (aim 1.5x)", quick: false, run: |s| step(s, "lenet_train", Peer::Meganeura, 1.0) },
    Line { name: "GPU: mlp vs PyTorch CUDA", limit: "0.7x (aim 1.5x)", quick: false, run: |s| step(s, "mlp_train", Peer::TorchCuda, 0.7) },
    Line { name: "GPU: lenet vs PyTorch CUDA", limit: "0.7x (aim 1.5x)", quick: false, run: |s| step(s, "lenet_train", Peer::TorchCuda, 0.7) },
];

/// Why there is nothing to measure: the first adapter is no hardware.
pub fn missing(state: &mut State) -> anyhow::Result<Option<String>> {
    if state.first_adapter.is_none() {
        let folder = Folder::new("adapter")?;
        let device = measured(&folder, "a.json", "gpu", &["cost/launch"], None)?;
        state.first_adapter = Some((text(&device, "kind")?, text(&device, "adapter")?));
    }
    let (kind, adapter) = state.first_adapter.as_ref().context("it was looked for")?;
    Ok((kind == "software").then(|| format!("no hardware GPU here: the first adapter is {adapter}")))
}

fn text(device: &Value, field: &str) -> anyhow::Result<String> {
    device[field].as_str().map(str::to_string).with_context(|| format!("{device} has no {field}"))
}

/// What a kernel reaches of a peak, in one run.
fn share(state: &mut State, row: &str, peak: &str, unit: &str, least: f64) -> anyhow::Result<Outcome> {
    if let Some(why) = missing(state)? {
        return Ok(Outcome::skipped(why));
    }
    let folder = Folder::new(&row.replace('/', "-"))?;
    let device = measured(&folder, "a.json", "gpu", &[peak, row], None)?;
    let number = |name: &str| {
        let row = device["rows"].as_array().into_iter().flatten().find(|r| r["name"] == name);
        row.and_then(|r| r[unit].as_f64()).with_context(|| format!("{name}: no {unit} in {device}"))
    };
    let (got, of) = (number(row)?, number(peak)?);
    Ok(Outcome::of(got >= least * of, format!("{:.0} % ({got:.0} of {of:.0} {unit})", got / of * 100.0)))
}

fn step(state: &mut State, workload: &str, theirs: Peer, must: f64) -> anyhow::Result<Outcome> {
    if let Some(why) = missing(state)? {
        return Ok(Outcome::skipped(why));
    }
    vs(state, workload, Peer::Gpu, theirs, must)
}
