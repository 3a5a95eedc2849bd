//! Golden cases: what PyTorch computes, forward and backward, against every device. Cases are files; none is known by name.

use crate::common::{self, Tested, caught, compare, scale};
use crate::golden_ops::{Attrs, Case, LOOSE, find};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use wgrad::autograd::{GradOptions, grad_with};
use wgrad::format::safetensors::{self, Entry, File};
use wgrad::tensor::{DType, Data};
use wgrad::{Device, Error, Result, Tensor};

/// A case's file, read.
struct Read {
    name: String,
    file: File,
    op: String,
}

/// What became of the cases on one device.
#[derive(Default)]
struct Tally {
    name: String,
    passed: usize,
    failed: Vec<String>,
    unimplemented: usize,
    /// The largest error of an operation, as a share of the tolerance that all have.
    worst: BTreeMap<String, f64>,
}

impl Tally {
    /// The line by which results are counted.
    fn line(&self) -> String {
        let (passed, failed, unimplemented) = (self.passed, self.failed.len(), self.unimplemented);
        format!("golden {} cases={} passed={passed} failed={failed} unimplemented={unimplemented}", self.name, passed + failed + unimplemented)
    }
}

fn folders() -> Vec<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let more = wgrad::env::text("WGRAD_GOLDEN_DIR").expect("WGRAD_GOLDEN_DIR is a text").map(PathBuf::from);
    std::iter::once(own).chain(more).collect()
}

/// Every case of the folders, in order of its name. A file that cannot be read fails the test.
fn cases() -> Vec<Read> {
    let mut paths: Vec<PathBuf> = Vec::new();
    for folder in folders() {
        let entries = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        let mut found: Vec<PathBuf> = entries.map(|e| e.unwrap().path()).filter(|p| p.extension().is_some_and(|x| x == "safetensors")).collect();
        assert!(!found.is_empty(), "{}: no golden cases", folder.display());
        found.sort();
        paths.extend(found);
    }
    let read = |path: &PathBuf| {
        let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let file = safetensors::read(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let op = file.metadata.get("op").unwrap_or_else(|| panic!("{}: no op in its metadata", path.display())).clone();
        Read { name: path.file_stem().unwrap().to_string_lossy().into_owned(), op, file }
    };
    paths.iter().map(read).collect()
}

/// A stored tensor on a device: floats in the type that the device is tested in.
fn tensor(entry: &Entry, floats: DType, device: &Device) -> Result<Tensor> {
    let data = match &entry.data {
        Data::F32(_) => Data::from_f64(floats, &entry.data.to_f64()),
        other => other.clone(),
    };
    Tensor::new(data, entry.meta.shape, device)
}

/// Compare one tensor; gives the error as a share of the tolerance.
fn check(what: &str, got: Option<&Tensor>, want: &Entry, tolerance: &dyn Fn(f64, f64) -> f64, factor: f64) -> Result<f64> {
    let wanted = want.data.to_f64();
    let values = match got {
        Some(t) => {
            if *t.shape() != want.meta.shape {
                return Err(Error::shape(format!("{what}: shape {}, not {}", t.shape(), want.meta.shape)));
            }
            if t.dtype().is_float() != want.meta.dtype.is_float() {
                return Err(Error::shape(format!("{what}: {} where {} is stored", t.dtype(), want.meta.dtype)));
            }
            t.to_data()?.to_f64()
        }
        // No gradient at all is one of zeros.
        None => vec![0.0; wanted.len()],
    };
    let largest = scale(&wanted).max(1.0);
    let share = compare(&values, &wanted, |w| if want.meta.dtype.is_float() { factor * tolerance(w, largest) } else { 0.0 });
    share.map(|s| s * factor).map_err(|e| Error::invalid(format!("{what}: {e}")))
}

/// Run a case and compare all that its file holds: the largest error as a share of the tolerance.
fn run(case: &Read, device: &Device, floats: DType) -> Result<f64> {
    let call = find(&case.op).expect("asked before");
    let text = |key: &str| case.file.metadata.get(key).ok_or_else(|| Error::invalid(format!("no {key} in the metadata")));
    let attrs = Attrs::parse(text("attrs")?)?;
    let names: Vec<String> = serde_json::from_str(text("inputs")?).map_err(|e| Error::invalid(format!("inputs: {e}")))?;
    let entry = |name: &str| case.file.get(name).ok_or_else(|| Error::invalid(format!("no tensor {name}")));
    let mut inputs = Vec::new();
    for name in &names {
        let t = tensor(entry(&format!("input.{name}"))?, floats, device)?;
        let leaf = case.file.get(&format!("grad.{name}")).is_some();
        inputs.push((name.clone(), if leaf { t.requires_grad()? } else { t }));
    }
    let inputs = Case { attrs: &attrs, inputs };
    let outputs = call(&inputs)?;
    attrs.all_asked()?;

    // The bound for one value, given the largest of its tensor.
    let tolerance = |want: f64, largest: f64| if floats == DType::F64 { 2e-6 * largest } else { 1e-5 * largest + 1e-5 * want.abs() };
    let factor = LOOSE.iter().find(|l| l.op == case.op && floats != DType::F64).map_or(1.0, |l| l.factor);
    let mut compared = BTreeSet::new();
    let mut worst = 0.0f64;
    for (i, output) in outputs.iter().enumerate() {
        let name = format!("output.{i}");
        worst = worst.max(check(&name, Some(output), entry(&name)?, &tolerance, factor)?);
        compared.insert(name);
    }
    let fed: Vec<usize> = (0..outputs.len()).filter(|i| case.file.get(&format!("grad_output.{i}")).is_some()).collect();
    if !fed.is_empty() {
        let seeds = fed.iter().map(|i| tensor(entry(&format!("grad_output.{i}"))?, floats, device)).collect::<Result<Vec<_>>>()?;
        let leaves: Vec<&(String, Tensor)> = inputs.inputs.iter().filter(|(_, t)| t.is_grad_required()).collect();
        let from: Vec<&Tensor> = fed.iter().map(|&i| &outputs[i]).collect();
        let by: Vec<&Tensor> = leaves.iter().map(|(_, t)| t).collect();
        let grads = grad_with(&from, &by, &GradOptions { grad_outputs: Some(seeds), ..Default::default() })?;
        for ((name, _), grad) in leaves.iter().zip(&grads) {
            let name = format!("grad.{name}");
            worst = worst.max(check(&name, grad.as_ref(), entry(&name)?, &tolerance, factor)?);
            compared.insert(name);
        }
    }
    let left: Vec<&str> = case.file.tensors.iter().map(|t| t.name.as_str()).filter(|n| n.starts_with("output.") || n.starts_with("grad.")).collect();
    match left.into_iter().find(|n| !compared.contains(*n)) {
        Some(name) => Err(Error::invalid(format!("{name} was not compared: the call gave {} outputs", outputs.len()))),
        None => Ok(worst),
    }
}

fn walk(cases: &[Read], tested: &Tested, floats: DType) -> Tally {
    let mut tally = Tally { name: tested.name.clone(), ..Tally::default() };
    for case in cases {
        if find(&case.op).is_none() {
            tally.unimplemented += 1;
            continue;
        }
        let result = match &tested.device {
            Ok(device) => caught(|| run(case, device, floats)),
            Err(e) => Err(e.clone()),
        };
        match result {
            Ok(share) => {
                tally.passed += 1;
                let worst = tally.worst.entry(case.op.clone()).or_default();
                *worst = worst.max(share);
            }
            Err(e) => tally.failed.push(format!("{} on {}: {e}", case.name, tested.name)),
        }
    }
    tally
}

#[test]
fn every_case_is_what_pytorch_computes() {
    let cases = cases();
    let definition = Tested { name: "cpu".into(), device: Ok(common::definition()) };
    let fast = Tested { name: "cpu-f32".into(), device: Ok(common::fast()) };
    let opened = common::gpu();
    let skipped = opened.is_err() && common::may_lack_gpu();
    let gpu = Tested { name: opened.as_ref().map_or("gpu".into(), Device::short_name), device: opened };
    let tallies: Vec<Tally> = std::thread::scope(|s| {
        let on_gpu = (!skipped).then(|| s.spawn(|| walk(&cases, &gpu, DType::F32)));
        let mut tallies = vec![walk(&cases, &definition, DType::F64), walk(&cases, &fast, DType::F32)];
        tallies.extend(on_gpu.map(|t| t.join().expect("every case is caught")));
        tallies
    });

    // One piece, so that no other test's output comes between; it begins on a line of its own, whatever the harness has written.
    let mut report = String::from("\n");
    for tally in &tallies {
        for failed in &tally.failed {
            let _ = writeln!(report, "failed: {failed}");
        }
        let mut worst: Vec<_> = tally.worst.iter().collect();
        worst.sort_by(|a, b| b.1.total_cmp(a.1));
        let shown: Vec<String> = worst.iter().take(3).map(|(op, share)| format!("{op} {share:.2}")).collect();
        let _ = writeln!(report, "largest errors on {}, as shares of the tolerance: {}", tally.name, shown.join(", "));
    }
    if skipped {
        let _ = writeln!(report, "no adapter, and WGRAD_ALLOW_NO_GPU is set: {} golden cases did not run", cases.len());
    }
    // The fast CPU path is the same device as its definition: it has a line, but not one by which devices are counted.
    for tally in &tallies {
        let _ = if tally.name == "cpu-f32" { writeln!(report, "the fast path: {}", tally.line()) } else { writeln!(report, "{}", tally.line()) };
    }
    print!("{report}");

    let failed: Vec<&String> = tallies.iter().flat_map(|t| &t.failed).collect();
    assert!(failed.is_empty(), "{} golden cases failed; the first: {}", failed.len(), failed[0]);
    let run: BTreeSet<&str> = cases.iter().map(|c| c.op.as_str()).collect();
    let missing: Vec<&str> = required().into_iter().filter(|op| find(op).is_none() || !run.contains(op)).collect();
    assert!(missing.is_empty(), "required operations that are not in the table, or have no case: {}", missing.join(", "));
}

/// The operations that may not be missing.
fn required() -> Vec<&'static str> {
    include_str!("../golden/required.txt").lines().map(str::trim).filter(|l| !l.is_empty()).collect()
}

#[test]
fn few_operations_need_more_than_the_tolerance() {
    assert!(LOOSE.len() <= 5, "{} operations have a factor", LOOSE.len());
    for l in LOOSE {
        assert!(l.factor <= 10.0 && l.measured <= l.factor && !l.cause.is_empty(), "{}: factor {}, measured {}", l.op, l.factor, l.measured);
        assert!(find(l.op).is_some(), "{}: no such operation", l.op);
    }
    assert_eq!(required().len(), 74);
}
