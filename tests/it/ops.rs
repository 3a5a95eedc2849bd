//! One test walks the table: every operation and every sample, on every device, forward and backward.

use crate::common::{self, caught, compare, scale};
use crate::op_table::{self, Answer, Case, Lay, Values, answer, draw, lays, op_cases, read, record, row_cases, stacked};
use wgrad::autograd::{GradCheck, GradOptions, grad_with, gradcheck, vmap_seeded};
use wgrad::ops::{self, Order};
use wgrad::tensor::DType;
use wgrad::{Device, Error, Result, Tensor};

const EPS: f64 = f32::EPSILON as f64;

/// Fail with all that was found, a line each, and how many.
#[track_caller]
pub fn none(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}: {}\n  {}", found.len(), found.join("\n  "));
}

/// What the definition says, in f64.
fn expected(case: &Case, values: &[Values]) -> Result<Answer> {
    answer(case, values, Lay::Contiguous, DType::F64, &common::definition())
}

/// Where `got`, computed in f32, differs from `want` by more than the case's bound.
fn differences(case: &Case, got: &Answer, want: &Answer) -> Vec<String> {
    differences_in(DType::F32, case, got, want)
}

/// The same in f32 or f16. Halves are rounded after every node, by both and perhaps to different ones: no result is exact.
fn differences_in(dtype: DType, case: &Case, got: &Answer, want: &Answer) -> Vec<String> {
    let (eps, least) = if dtype == DType::F16 { (1.0 / 1024.0, 1.0) } else { (EPS, 0.0) };
    let mut found = Vec::new();
    if got.outputs.len() != want.outputs.len() {
        return vec![format!("{} outputs, not {}", got.outputs.len(), want.outputs.len())];
    }
    for (n, (g, w)) in got.outputs.iter().zip(&want.outputs).enumerate() {
        if (g.shape, g.is_float) != (w.shape, w.is_float) {
            found.push(format!("output {n}: shape {}, not {}", g.shape, w.shape));
            continue;
        }
        let bound = if w.is_float { case.k_forward().max(least) * eps * scale(&w.numbers) } else { 0.0 };
        found.extend(compare(&g.numbers, &w.numbers, |_| bound).err().map(|e| format!("output {n}: {e}")));
    }
    for (n, (g, w)) in got.grads.iter().zip(&want.grads).enumerate() {
        match (g, w) {
            (Some(g), Some(w)) => {
                let bound = case.k() * eps * scale(w);
                found.extend(compare(g, w, |_| bound).err().map(|e| format!("gradient {n}: {e}")));
            }
            (None, None) => {}
            _ => found.push(format!("gradient {n} is there on one device and not on the other")),
        }
    }
    found
}

/// Run a case on a device in a layout, in f32 or f16, and compare with the definition: in f64, or in halves.
fn agrees(case: &Case, lay: Lay, device: &Device, dtype: DType) -> Vec<String> {
    let result = caught(|| {
        let mut values = draw(case, 0);
        if lay == Lay::Broadcast {
            values = values.iter().enumerate().map(|(n, v)| v.flattened(n)).collect();
        }
        let of = if dtype == DType::F16 { dtype } else { DType::F64 };
        let want = answer(case, &values, Lay::Contiguous, of, &common::definition())?;
        let got = answer(case, &values, lay, dtype, device)?;
        Ok(differences_in(dtype, case, &got, &want))
    });
    let found = result.unwrap_or_else(|e| vec![e.to_string()]);
    found.into_iter().map(|e| format!("{} {lay:?} on {}: {e}", case.name, device.short_name())).collect()
}

/// The cases on a device, in all these layouts.
pub fn walk_in(dtype: DType, cases: &[Case], device: &Device, lays: impl Fn(&Case) -> Vec<Lay>) -> Vec<String> {
    let on_gpu = device.is_gpu();
    let fit = cases.iter().filter(|c| !(on_gpu && c.host_only));
    fit.flat_map(|c| lays(c).into_iter().flat_map(|l| agrees(c, l, device, dtype)).collect::<Vec<_>>()).collect()
}

pub fn walk(cases: &[Case], device: &Device, lays: impl Fn(&Case) -> Vec<Lay>) -> Vec<String> {
    walk_in(DType::F32, cases, device, lays)
}

/// An adapter; without one, only where that is allowed, and then it is said.
pub fn adapter(open: Result<Device>, cases: usize) -> Option<Device> {
    match open {
        Ok(device) => Some(device),
        Err(e) if common::may_lack_gpu() => {
            println!("no adapter ({e}), and WGRAD_ALLOW_NO_GPU is set: {cases} cases did not run");
            None
        }
        Err(e) => panic!("the tests need an adapter: {e}"),
    }
}

#[test]
fn the_fast_cpu_path_is_as_the_definition() {
    none("differences", &walk(&row_cases(), &common::fast(), lays));
    none("differences", &walk(&op_cases(), &common::fast(), lays));
}

#[test]
fn rows_on_the_gpu_are_as_the_definition() {
    let cases = row_cases();
    let Some(device) = adapter(common::gpu(), cases.len()) else { return };
    none("differences", &walk(&cases, &device, lays));
}

#[test]
fn ops_on_the_gpu_are_as_the_definition() {
    let cases = op_cases();
    let Some(device) = adapter(common::gpu(), cases.len()) else { return };
    none("differences", &walk(&cases, &device, lays));
}

#[test]
fn a_floor_device_is_as_the_definition() {
    let (rows, ops) = (row_cases(), op_cases());
    let Some(device) = adapter(common::floor(), rows.len() + ops.len()) else { return };
    none("differences", &walk(&rows, &device, |_| vec![Lay::Contiguous]));
    none("differences", &walk(&ops, &device, |c| if lays(c).len() > 1 { vec![Lay::Sliced] } else { vec![Lay::Contiguous] }));
}

#[test]
fn kernels_for_hardware_are_as_the_definition() {
    let cases = op_cases();
    let Some(device) = adapter(common::hardware(), cases.len()) else { return };
    // In every layout of an operand that has a kernel of its own.
    let plain = |c: &Case| lays(c).into_iter().filter(|l| matches!(l, Lay::Contiguous | Lay::Transposed)).collect();
    none("differences", &walk(&cases, &device, plain));
}

#[test]
fn gradients_are_what_differences_say() {
    let device = common::fast();
    let mut found = Vec::new();
    for case in row_cases().into_iter().chain(op_cases()) {
        let values = draw(&case, 0);
        if values.iter().any(|v| v.numbers.is_empty()) || !op_table::has_floats(&values) {
            continue;
        }
        let result = caught(|| {
            let inputs = values.iter().enumerate().map(|(n, v)| v.tensor(n, Lay::Contiguous, DType::F64, &device)).collect::<Result<Vec<_>>>()?;
            let outputs = (case.run)(&inputs)?;
            if case.order == Order::Zero {
                // No gradient, or one that is refused.
                let carrying: Vec<&Tensor> = outputs.iter().filter(|t| t.is_grad_required()).collect();
                return if carrying.is_empty() { Ok(()) } else { refused(&case, grad_of(&carrying, &inputs, false)) };
            }
            // Differences of f32 values, or of halves, tell too little.
            if outputs.iter().all(|t| matches!(t.dtype(), DType::F32 | DType::F16)) {
                return Ok(());
            }
            let options = GradCheck { second: case.order == Order::Any, ..GradCheck::default() };
            gradcheck(|x| (case.run)(x), &inputs, &options)?;
            if case.order == Order::First { once_only(&case, &inputs) } else { Ok(()) }
        });
        found.extend(result.err().map(|e| format!("{}: {e}", case.name)));
    }
    none("gradients", &found);
}

/// The gradients of what some tensors sum up to, squared for want of anything else.
fn grad_of(outputs: &[&Tensor], inputs: &[Tensor], create_graph: bool) -> Result<Vec<Tensor>> {
    let floats: Vec<&Tensor> = inputs.iter().filter(|t| t.dtype().is_float()).collect();
    let total = outputs.iter().map(|t| t.square().sum_all()).reduce(|a, b| &a + &b).ok_or_else(|| Error::invalid("no output carries gradients"))?;
    Ok(grad_with(&[&total], &floats, &GradOptions { create_graph, ..Default::default() })?.into_iter().flatten().collect())
}

/// A gradient that the table says does not exist must be refused, and by name.
fn refused(case: &Case, result: Result<Vec<Tensor>>) -> Result<()> {
    match result {
        Err(e) if matches!(e.kind(), wgrad::ErrorKind::Gradient(_)) && e.to_string().contains(case.op) => Ok(()),
        Err(e) => Err(Error::invalid(format!("a gradient that is not there is refused with: {e}"))),
        Ok(_) => Err(Error::invalid("it has a gradient that the table says is not there")),
    }
}

/// Differentiate twice what can be differentiated once.
fn once_only(case: &Case, inputs: &[Tensor]) -> Result<()> {
    let outputs = (case.run)(inputs)?;
    let first = grad_of(&outputs.iter().collect::<Vec<_>>(), inputs, true)?;
    refused(case, grad_of(&first.iter().collect::<Vec<_>>(), inputs, false))
}

/// Three models as one program: the seeds of random operations are those that the samples draw with.
fn batched(case: &Case, device: &Device) -> Result<(Answer, Vec<Answer>)> {
    let (inputs, models) = stacked(case, DType::F32, device)?;
    let mut count = 0;
    let all = vmap_seeded(
        |x| {
            let (outputs, grads) = record(case, x, case.order == Order::Any && case.ulp.is_none())?;
            count = outputs.len();
            // A gradient that is not there for one model is not there for three.
            Ok(outputs.into_iter().chain(grads.into_iter().flatten()).collect())
        },
        &inputs.iter().collect::<Vec<_>>(),
        &[SAMPLE_SEED; 3],
    )?;
    let grads: Vec<Option<Tensor>> = all[count..].iter().cloned().map(Some).collect();
    let together = read(&all[..count], &grads)?;
    let alone = |values: &Vec<Values>| {
        if device.is_gpu() { expected(case, values) } else { answer(case, values, Lay::Contiguous, DType::F32, device) }
    };
    Ok((together, models.iter().map(alone).collect::<Result<_>>()?))
}

/// The seed with which samples of random operations draw.
const SAMPLE_SEED: u32 = 7;

/// The part of a stacked answer that is model `m`'s.
fn model(all: &Answer, alone: &Answer, m: usize) -> Answer {
    let mut part = alone.clone();
    for (p, a) in part.outputs.iter_mut().zip(&all.outputs) {
        let n = a.numbers.len() / 3;
        p.numbers = a.numbers[m * n..][..n].to_vec();
    }
    for (p, a) in part.grads.iter_mut().flatten().zip(all.grads.iter().flatten()) {
        let n = a.len() / 3;
        *p = a[m * n..][..n].to_vec();
    }
    part
}

#[test]
fn three_models_at_once_are_three_models() {
    let device = common::fast();
    let mut found = Vec::new();
    for case in row_cases().iter().chain(&op_cases()) {
        if case.inputs.is_empty() {
            continue;
        }
        match caught(|| batched(case, &device)) {
            Err(e) => found.push(format!("{}: {e}", case.name)),
            Ok((all, alone)) => {
                for (m, alone) in alone.iter().enumerate() {
                    let got = model(&all, alone, m);
                    let bits = |a: &Answer| {
                        let outputs = a.outputs.iter().flat_map(|o| o.numbers.iter());
                        outputs.chain(a.grads.iter().flatten().flatten()).map(|v| v.to_bits()).collect::<Vec<_>>()
                    };
                    if bits(&got) != bits(alone) {
                        let off = differences(case, &got, alone);
                        found.push(format!("{}: model {m} has other bits than alone ({})", case.name, off.first().map_or("within the bound", |s| s)));
                    }
                }
            }
        }
    }
    none("models", &found);
}

#[test]
fn three_models_at_once_are_three_models_on_the_gpu() {
    let cases = op_cases();
    let Some(device) = adapter(common::gpu(), cases.len()) else { return };
    let mut found = Vec::new();
    for case in cases.iter().filter(|c| !c.inputs.is_empty()) {
        match caught(|| batched(case, &device)) {
            Err(e) => found.push(format!("{}: {e}", case.name)),
            Ok((all, alone)) => {
                for (m, alone) in alone.iter().enumerate() {
                    found.extend(differences(case, &model(&all, alone, m), alone).into_iter().map(|e| format!("{}: model {m}: {e}", case.name)));
                }
            }
        }
    }
    none("models", &found);
}

#[test]
fn misuse_is_refused_with_its_message() {
    let mut found = Vec::new();
    let devices = [Some(common::fast()), Some(common::definition()), adapter(common::gpu(), 0)];
    for device in devices.iter().flatten() {
        for entry in ops::all() {
            for (n, m) in (entry.misuse)().into_iter().enumerate() {
                let case = Case::of_misuse(entry.name, n, &m);
                let result = caught(|| {
                    let inputs =
                        draw(&case, 0).iter().enumerate().map(|(n, v)| v.tensor(n, Lay::Contiguous, DType::F32, device)).collect::<Result<Vec<_>>>()?;
                    // What only data can show, the read shows.
                    (m.run)(&inputs)?.iter().try_for_each(|t| t.to_data().map(drop))
                });
                match result {
                    Err(e) if e.to_string() == m.message => {}
                    Err(e) => found.push(format!("{} on {}: says\n    {e}\n  and not\n    {}", case.name, device.short_name(), m.message)),
                    Ok(()) => found.push(format!("{} on {}: is not refused: {}", case.name, device.short_name(), m.message)),
                }
            }
        }
    }
    none("misuse", &found);
}
