//! `make accept-speed`: what the issue of speed promises. Ratios are of one run, in which wgrad and its peers take turns.

pub mod bench;
pub mod hardware;
pub mod peers;
mod tuned;

use super::{Line, Outcome, State};
use anyhow::Context;
use peers::{Peer, median, number};
use serde_json::Value;

/// How often each takes its turn.
const ROUNDS: usize = 3;

macro_rules! lines {
    ($($run:ident $name:literal $limit:literal: $body:expr;)*) => {
        $(fn $run(state: &mut State) -> anyhow::Result<Outcome> { $body(state) })*
        pub static LINES: &[Line] = &[$(Line { name: $name, limit: $limit, quick: false, run: $run }),*];
    };
}

lines! {
    mlp_burn "mlp, gpu vs burn" "3x (aim 4x)": |s| vs(s, "mlp_train", Peer::Gpu, Peer::Burn, 3.0);
    lenet_burn "lenet, gpu vs burn" "4x (aim 10x)": |s| vs(s, "lenet_train", Peer::Gpu, Peer::Burn, 4.0);
    resnet_burn "resnet, gpu vs burn" "6x (aim 10x)": |s| vs(s, "resnet_train", Peer::Gpu, Peer::Burn, 6.0);
    mlp_meganeura "mlp, gpu vs Meganeura" "15x": |s| vs(s, "mlp_train", Peer::Gpu, Peer::Meganeura, 15.0);
    lenet_meganeura "lenet, gpu vs Meganeura" "50x": |s| vs(s, "lenet_train", Peer::Gpu, Peer::Meganeura, 50.0);
    mlp_torch "mlp, cpu vs PyTorch" "0.8x (aim 1.2x)": |s| vs(s, "mlp_train", Peer::Cpu, Peer::Torch, 0.8);
    lenet_torch "lenet, cpu vs PyTorch" "0.7x (aim 1.2x)": |s| vs(s, "lenet_train", Peer::Cpu, Peer::Torch, 0.7);
    resnet_torch "resnet, cpu vs PyTorch" "0.5x (aim 1.2x)": |s| vs(s, "resnet_train", Peer::Cpu, Peer::Torch, 0.5);
    mlp_flex "mlp, cpu vs burn-flex" "2x (aim 3x)": |s| vs(s, "mlp_train", Peer::Cpu, Peer::BurnFlex, 2.0);
    lenet_flex "lenet, cpu vs burn-flex" "2x (aim 3x)": |s| vs(s, "lenet_train", Peer::Cpu, Peer::BurnFlex, 2.0);
    resnet_flex "resnet, cpu vs burn-flex" "2x (aim 3x)": |s| vs(s, "resnet_train", Peer::Cpu, Peer::BurnFlex, 2.0);
    matmul_study "matmul 1024, gpu vs bare kernel" "0.8x (aim 1x)": |s| vs(s, "matmul_1024", Peer::Gpu, Peer::Study, 0.8);
    elementwise_study "elementwise, gpu vs bare kernel" "0.85x (aim 1x)": |s| vs(s, "elementwise", Peer::Gpu, Peer::Study, 0.85);
    start_cpu "lenet start, cpu" "0.1 s (aim 0.05 s)": |_| start(Peer::Cpu, 100.0, 100.0);
    start_gpu "lenet start, gpu" "1.0 s warm, 4 s cold (aim half)": |_| start(Peer::Gpu, 1000.0, 4000.0);
    memory_burn "lenet memory, gpu vs burn" "0.5x (aim 0.4x)": |s| memory(s, Peer::Burn, 0.5);
    memory_meganeura "lenet memory, gpu vs Meganeura" "1x (aim 0.7x)": |s| memory(s, Peer::Meganeura, 1.0);
    dispatches "lenet dispatches a step" "35 (aim 25)": lenet_dispatches;
    tuning "tune-kernels, budget of 60 s" "66 s, none below 0.98x": |_| tuned::line();
    launch "host cost of a launch" "2 us (aim 0.7 us)": |_| host_cost("cost/replay", 1.0, 2e-3);
    record "recording 1000 nodes" "3 ms (aim 1 ms)": |_| host_cost("cost/record", 1000.0, 3.0);
}

/// Who takes turns on a workload. On a training workload: all whose ratios are asked for, and PyTorch by which a ratio is judged.
fn field_of(workload: &str) -> Vec<Peer> {
    if !workload.ends_with("_train") {
        return vec![Peer::Gpu, Peer::Study];
    }
    let mut all = vec![Peer::Gpu, Peer::Cpu, Peer::Torch, Peer::Burn, Peer::BurnFlex];
    // It has no batch norm of images.
    all.extend((workload != "resnet_train").then_some(Peer::Meganeura));
    all
}

/// What each took in units of PyTorch's time with two threads, on two machines of two cores: a machine on which it is more than twice or less than half of that
/// measures something else.
const USUAL: &[(Peer, &str, [f64; 2])] = &[
    (Peer::Burn, "mlp_train", [15.7, 11.2]),
    (Peer::Burn, "lenet_train", [22.2, 14.8]),
    (Peer::Burn, "resnet_train", [63.8, 38.2]),
    (Peer::Meganeura, "mlp_train", [55.0, 51.1]),
    (Peer::Meganeura, "lenet_train", [176.0, 156.0]),
    (Peer::BurnFlex, "mlp_train", [3.2, 3.2]),
    (Peer::BurnFlex, "lenet_train", [2.84, 2.84]),
    (Peer::BurnFlex, "resnet_train", [4.7, 4.7]),
];

fn vs(state: &mut State, workload: &str, ours: Peer, theirs: Peer, must: f64) -> anyhow::Result<Outcome> {
    let software = hardware::missing(state)?.is_some();
    let runs = &mut state.peers;
    let mut field = field_of(workload);
    field.extend((!field.contains(&theirs)).then_some(theirs));
    runs.take(workload, &field, ROUNDS)?;
    let ratio = runs.ratio(theirs, ours, workload)?;
    let ms = |p| Ok::<f64, anyhow::Error>(median(runs.field(p, workload, "median_ms")?));
    let mut got = format!("{ratio:.2}x ({:.2} ms, {:.2} ms)", ms(ours)?, ms(theirs)?);
    let mut counts = true;
    // What is usual was measured where the adapter is a processor.
    if let Some((.., usual)) = USUAL.iter().find(|u| u.0 == theirs && u.1 == workload && (software || theirs == Peer::BurnFlex)) {
        let seen = runs.ratio(theirs, Peer::Torch, workload)?;
        counts = usual.iter().any(|u| (u / 2.0..=u * 2.0).contains(&seen));
        if !counts {
            got += &format!("; does not count: {} took {seen:.1} times as long as PyTorch, usual are {:.1} to {:.1}", theirs.name(), usual[1], usual[0]);
        }
    }
    Ok(Outcome::of(counts && ratio >= must, got))
}

/// A process to its first step: once with no cache anywhere, then with those of that time.
fn start(peer: Peer, warm_ms: f64, cold_ms: f64) -> anyhow::Result<Outcome> {
    let home = std::env::temp_dir().join(format!("wgrad-accept-start-{}-{}", peer.name(), std::process::id()));
    std::fs::create_dir_all(&home)?;
    let runs: anyhow::Result<Vec<f64>> = (0..4).map(|_| number(&peer.run("startup_lenet", Some(&home))?, "median_ms")).collect();
    std::fs::remove_dir_all(&home)?;
    let runs = runs?;
    let warm = median(runs[1..].to_vec());
    Ok(Outcome::of(runs[0] <= cold_ms && warm <= warm_ms, format!("{warm:.0} ms warm, {:.0} ms cold", runs[0])))
}

fn memory(state: &mut State, theirs: Peer, most: f64) -> anyhow::Result<Outcome> {
    let workload = "lenet_train";
    state.peers.take(workload, &field_of(workload), ROUNDS)?;
    let peak = |p| Ok::<f64, anyhow::Error>(median(state.peers.field(p, workload, "peak_rss_mb")?));
    let (ours, theirs) = (peak(Peer::Gpu)?, peak(theirs)?);
    Ok(Outcome::of(ours <= most * theirs, format!("{:.2}x ({ours:.0} MB, {theirs:.0} MB)", ours / theirs)))
}

fn lenet_dispatches(_: &mut State) -> anyhow::Result<Outcome> {
    let n = number(&Peer::Gpu.run("lenet_train", None)?, "dispatches")?;
    Ok(Outcome::of(n <= 35.0, format!("{n}")))
}

/// What the host pays for one of the things that a probe of `wgrad bench` counts, `times` of them, in milliseconds.
fn host_cost(probe: &str, times: f64, most_ms: f64) -> anyhow::Result<Outcome> {
    let folder = bench::Folder::new(&probe.replace('/', "-"))?;
    let device = bench::measured(&folder, "a.json", "gpu", &[probe], None)?;
    let rounds = device["rows"][0]["rounds"].as_array().with_context(|| format!("{probe}: no rounds in {device}"))?;
    let samples = rounds.iter().filter_map(Value::as_array).flatten().filter_map(Value::as_f64).collect::<Vec<f64>>();
    let ms = median(samples) * times;
    Ok(Outcome::of(ms <= most_ms, if ms < 0.1 { format!("{:.2} us", ms * 1e3) } else { format!("{ms:.2} ms") }))
}
