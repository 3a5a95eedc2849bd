//! `wgrad bench` itself: what it says of two runs of one binary, of a planted slowdown, and of probes that go wrong.

use super::super::{Line, Outcome, State};
use anyhow::ensure;
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Instant;

pub static LINES: &[Line] = &[
    Line { name: "bench compared with itself, cpu", limit: "no difference in 19 of 20 rows", quick: false, run: |_| itself("cpu") },
    Line { name: "bench compared with itself, gpu", limit: "no difference in 19 of 20 rows", quick: false, run: |_| itself("gpu") },
    Line { name: "bench sees 10 %, cpu", limit: "the planted row SLOWER, no other", quick: false, run: |_| planted("cpu", "matmul/64") },
    Line { name: "bench sees 10 %, gpu", limit: "the planted row SLOWER, no other", quick: false, run: |_| planted("gpu", "matmul/512") },
    Line { name: "cargo bench without arguments", limit: "180 s; what it could not run is said", quick: false, run: cargo_bench },
    Line { name: "bench: probes that hang, abort, fail", limit: "a reason, no number, the others go on", quick: false, run: wrong },
];

/// Twenty rows that take a few seconds each.
const ROWS: [&str; 20] = [
    "elementwise/64Ki",
    "elementwise/1Mi",
    "elementwise/4Mi",
    "elementwise/add_4Mi",
    "matmul/64",
    "matmul/128",
    "matmul/256",
    "matmul/512",
    "matmul/8x1024x1024",
    "matmul/64x784x128",
    "matmul/64x8192x64",
    "matmul/512_nt",
    "matmul/32x128",
    "conv/16x16x32_3x3",
    "reduce/rows_4096x1024",
    "reduce/columns_4096x1024",
    "softmax/512x1024",
    "norm/batch_16x32",
    "index/rows_16384x64",
    "train/mlp",
];

/// What is measured beside a row that is slowed down.
const BESIDE: [&str; 2] = ["matmul/256", "reduce/rows_64x65536"];

/// A folder of results, gone with it.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(name: &str) -> anyhow::Result<Folder> {
        let at = std::env::temp_dir().join(format!("wgrad-accept-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&at)?;
        Ok(Folder(at))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left in a folder for temporary files is no failure.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn bench(folder: &Folder, args: &[&str], plant: Option<&str>) -> anyhow::Result<Output> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wgrad"));
    command.current_dir(&folder.0).arg("bench").args(args);
    if let Some(plant) = plant {
        command.env("WGRAD_PLANT", plant);
    }
    Ok(command.output()?)
}

/// Measure rows into a file, and give what it says of the one device.
pub fn measured(folder: &Folder, file: &str, device: &str, rows: &[&str], plant: Option<&str>) -> anyhow::Result<Value> {
    let out = bench(folder, &[&["--device", device, "--json", file][..], rows].concat(), plant)?;
    ensure!(out.status.success(), "wgrad bench ended with {}: {}", out.status, String::from_utf8_lossy(&out.stderr));
    device_of(folder, file)
}

fn device_of(folder: &Folder, file: &str) -> anyhow::Result<Value> {
    let mut report: Value = serde_json::from_slice(&std::fs::read(folder.0.join(file))?)?;
    Ok(report["devices"][0].take())
}

/// The rows of `--compare` that end in each of these words.
fn compare(folder: &Folder, words: [&str; 3]) -> anyhow::Result<[Vec<String>; 3]> {
    let out = bench(folder, &["--compare", "a.json", "b.json"], None)?;
    ensure!(out.status.success(), "--compare ended with {}: {}", out.status, String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout)?;
    // The last line counts them.
    let rows = || text.lines().filter(|l| l.split_whitespace().next().is_some_and(|w| w.contains('/')));
    Ok(words.map(|w| rows().filter(|l| l.contains(w)).map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect()))
}

const VERDICTS: [&str; 3] = ["no difference", "faster", "SLOWER"];

fn itself(device: &str) -> anyhow::Result<Outcome> {
    let folder = Folder::new(&format!("itself-{device}"))?;
    for file in ["a.json", "b.json"] {
        measured(&folder, file, device, &ROWS, None)?;
    }
    let [same, faster, slower] = compare(&folder, VERDICTS)?;
    let others = [faster, slower].concat().join("; ");
    let pass = same.len() >= 19 && ROWS.len() == 20;
    Ok(Outcome::of(pass, format!("{} of {}{}{others}", same.len(), ROWS.len(), if others.is_empty() { "" } else { "; " })))
}

fn planted(device: &str, slowed: &str) -> anyhow::Result<Outcome> {
    let folder = Folder::new(&format!("planted-{device}"))?;
    let rows = [&[slowed], &BESIDE[..]].concat();
    measured(&folder, "a.json", device, &rows, None)?;
    measured(&folder, "b.json", device, &rows, Some(&format!("slow:{slowed}")))?;
    let [same, faster, slower] = compare(&folder, VERDICTS)?;
    let pass = slower.len() == 1 && slower[0].starts_with(slowed) && same.len() == BESIDE.len();
    Ok(Outcome::of(pass, [slower, faster, same].concat().join("; ")))
}

fn cargo_bench(_: &mut State) -> anyhow::Result<Outcome> {
    let bench = |more: &[&str]| Command::new(env!("CARGO")).current_dir(env!("CARGO_MANIFEST_DIR")).arg("bench").args(more).output();
    let built = bench(&["--no-run"])?;
    ensure!(built.status.success(), "cargo bench --no-run ended with {}: {}", built.status, String::from_utf8_lossy(&built.stderr));
    let began = Instant::now();
    let ran = bench(&[])?;
    let seconds = began.elapsed().as_secs_f64();
    let text = String::from_utf8(ran.stdout)?;
    let rows = text.lines().filter(|l| l.split_whitespace().next().is_some_and(|w| w.contains('/')));
    let (left_out, others): (Vec<&str>, Vec<&str>) = rows.partition(|l| l.contains("not run: "));
    // A row that was measured has its median in the second column, with its unit behind it.
    let number = |l: &&str| l.split_whitespace().nth(1).is_some_and(|w| w.parse::<f64>().is_ok());
    let (measured, failed): (Vec<&str>, Vec<&str>) = others.into_iter().partition(number);
    let tables = text.lines().filter(|l| l.starts_with("probe ")).count();
    let pass = ran.status.success() && seconds <= 180.0 && tables == 2 && failed.is_empty() && !measured.is_empty();
    let failed = if failed.is_empty() { String::new() } else { format!("; failed: {}", failed.join("; ")) };
    let got = format!("{seconds:.0} s, {tables} devices, {} rows measured, {} not run, each with its reason{failed}", measured.len(), left_out.len());
    Ok(Outcome::of(pass, got))
}

fn wrong(_: &mut State) -> anyhow::Result<Outcome> {
    let folder = Folder::new("wrong")?;
    let mut said = Vec::new();
    let mut pass = true;
    for kind in ["hang", "abort", "fail"] {
        let args = ["cost/step", "cost/record", "--device", "cpu", "--json", "a.json", "--rounds", "1", "--limit", "2"];
        bench(&folder, &args, Some(&format!("{kind}:cost/step")))?;
        let rows = device_of(&folder, "a.json")?["rows"].take();
        let why = rows[0]["failed"].as_str().unwrap_or_default();
        pass &= !why.is_empty() && rows[0]["median_ms"].is_null() && rows[1]["median_ms"].as_f64().is_some_and(|ms| ms > 0.0);
        said.push(format!("{kind}: {why}"));
    }
    Ok(Outcome::of(pass, said.join("; ")))
}
