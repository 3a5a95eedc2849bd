//! Lines that the test suite measures: each runs the tests by name, and a test that did not run is a line that does not hold.

use super::{Line, Outcome, State};
use anyhow::{Context, ensure};
use std::process::Command;
use std::time::Instant;

macro_rules! probes {
    ($($letter:literal: $limit:literal => $run:ident),* $(,)?) => {
        $(fn $run(_: &mut State) -> anyhow::Result<Outcome> { tests(concat!("promises::", $letter, "_"), &[]) })*
        const PROBES: &[Line] = &[$(Line { name: concat!("probe (", $letter, ")"), limit: $limit, quick: false, run: $run }),*];
    };
}

probes! {
    "a": "eight vmapped MLPs: one plan, dispatches of one, each curve its own" => probe_a,
    "b": "10,000 running sums: same nodes, bytes, dispatches; two plans" => probe_b,
    "c": "devices and models in two threads give what each gives alone" => probe_c,
    "d": "a last batch: one more plan, no new pipeline" => probe_d,
    "e": "values taken before a step stay" => probe_e,
    "f": "changing floats and positions: at most two plans" => probe_f,
    "g": "a loss read before backward changes nothing" => probe_g,
    "h": "100,000 additions: no overflow, at most 3 pipelines, 20 s" => probe_h,
    "i": "checkpointing: same bits, 40 % less at the peak, more dispatches" => probe_i,
    "j": "failures are errors that name the op, and the process goes on" => probe_j,
    "k": "100 dropout masks; uniform bits equal on CPU and GPU" => probe_k,
    "l": "1 and 2 threads: same bits" => probe_l,
    "m": "fused chains and epilogues are one dispatch; memory by lifetime" => probe_m,
    "n": "split submits: same bits; clipping by hand equals clipping in the graph" => probe_n,
}

const REST: &[Line] = &[
    Line {
        name: "random graphs, 2000",
        limit: "fused, unfused and definition agree; features each at least 10 %; every op; mean 15 nodes",
        quick: false,
        run: fuzz,
    },
    Line { name: "planted planner faults", limit: "each of five found within 200 graphs", quick: false, run: faults },
    Line { name: "the suite under WGRAD_POISON", limit: "passes", quick: false, run: poison },
    Line { name: "golden, cpu and llvmpipe", limit: "every case of the list passes", quick: true, run: golden },
    Line { name: "op table", limit: "CPU, llvmpipe and a floor device, under 6 minutes", quick: false, run: op_table },
    Line { name: "bad input", limit: "each case: its exit code, and what it names", quick: true, run: bad_input },
];

const COUNT: usize = PROBES.len() + REST.len();
static ALL: [&Line; COUNT] = {
    let mut all = [&PROBES[0]; COUNT];
    let mut i = 0;
    while i < COUNT {
        all[i] = if i < PROBES.len() { &PROBES[i] } else { &REST[i - PROBES.len()] };
        i += 1;
    }
    all
};
pub static LINES: &[&Line] = &ALL;

/// Run the integration tests whose names contain `filter`; at least one must run.
fn run(filter: &str, envs: &[(&str, &str)]) -> anyhow::Result<(bool, String)> {
    let out = Command::new(env!("CARGO"))
        .args(["test", "--release", "--test", "it", filter, "--", "--nocapture"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .envs(envs.iter().copied())
        .output()?;
    Ok((out.status.success(), String::from_utf8_lossy(&out.stdout).into_owned()))
}

/// The counts of the harness's last line.
fn counts(text: &str) -> anyhow::Result<(usize, usize)> {
    let line = text.lines().rev().find(|l| l.starts_with("test result:")).context("the tests gave no result")?;
    let number = |word: &str| -> anyhow::Result<usize> {
        let before = line.split(word).next().unwrap_or_default().trim_end();
        Ok(before.rsplit(' ').next().unwrap_or_default().parse()?)
    };
    Ok((number(" passed")?, number(" failed")?))
}

fn tests(filter: &str, envs: &[(&str, &str)]) -> anyhow::Result<Outcome> {
    let began = Instant::now();
    let (ok, text) = run(filter, envs)?;
    let (passed, failed) = counts(&text)?;
    ensure!(passed + failed > 0, "no test is named {filter}");
    Ok(Outcome::of(ok && failed == 0, format!("{passed} tests passed, {failed} failed in {:.0} s", began.elapsed().as_secs_f64())))
}

fn fuzz(_: &mut State) -> anyhow::Result<Outcome> {
    let (ok, text) = run("fuzz::random_graphs", &[("WGRAD_FUZZ_N", "2000"), ("WGRAD_FUZZ_SEED", "1")])?;
    let (passed, failed) = counts(&text)?;
    ensure!(passed + failed > 0, "no random graphs ran");
    Ok(Outcome::of(ok, text.lines().filter(|l| l.starts_with("graphs ")).collect::<Vec<_>>().join("; ")))
}

fn faults(_: &mut State) -> anyhow::Result<Outcome> {
    tests("fuzz::planted", &[])
}

fn poison(_: &mut State) -> anyhow::Result<Outcome> {
    tests("", &[("WGRAD_POISON", "1")])
}

fn golden(_: &mut State) -> anyhow::Result<Outcome> {
    let (ok, text) = run("golden", &[])?;
    let lines: Vec<&str> = text.lines().filter(|l| l.starts_with("golden ")).collect();
    ensure!(lines.len() >= 2, "golden cases ran on {} devices", lines.len());
    Ok(Outcome::of(ok && lines.iter().all(|l| l.contains("failed=0")), lines.join("; ")))
}

fn op_table(_: &mut State) -> anyhow::Result<Outcome> {
    let began = Instant::now();
    let outcome = tests("ops::", &[])?;
    Ok(Outcome::of(outcome.pass && began.elapsed().as_secs() < 360, outcome.got))
}

fn bad_input(_: &mut State) -> anyhow::Result<Outcome> {
    tests("cli::", &[])
}
