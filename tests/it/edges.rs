//! The table at its edges: NaN and infinities, more workgroups than one dimension holds, and what lies around a kernel's outputs.

use crate::common::{self, Draw, caught, scale};
use crate::op_table::{Lay, answer, draw, op_cases, row_cases};
use crate::ops::{adapter, none};
use std::collections::HashSet;
use std::sync::Arc;
use wgrad::autograd::grad;
use wgrad::device::gpu::Gpu;
use wgrad::device::{Buffer, Caps, Kind, Storage};
use wgrad::graph::{Seen, watch};
use wgrad::ops::rows::{self, Row, Sig};
use wgrad::ops::{BatchNorm, Conv2dOptions, CrossEntropy};
use wgrad::tensor::{DType, Data};
use wgrad::{Device, Result, Tensor};

const SPECIAL: [f64; 7] = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0, 1.0, -1.0];

/// A row over every combination of special values.
fn special(row: &'static Row, floats: DType, device: &Device) -> Result<Vec<f64>> {
    let n = SPECIAL.len().pow(row.arity as u32);
    let inputs = (0..row.arity)
        .map(|k| {
            let numbers: Vec<f64> = (0..n).map(|i| SPECIAL[i / SPECIAL.len().pow(k as u32) % SPECIAL.len()]).collect();
            let condition = row.sig == Sig::Select && k == 0;
            Tensor::new(Data::from_f64(if condition { DType::Bool } else { floats }, &numbers), [n], device)
        })
        .collect::<Result<Vec<_>>>()?;
    let p: Vec<f64> = row.samples[0].iter().map(|&p| f64::from(p as f32)).collect();
    Ok(Tensor::apply_row(row, &p, &inputs.iter().collect::<Vec<_>>())?.to_data()?.to_f64())
}

/// Where a device says NaN or infinity and the definition does not, or the other way round.
fn special_differences(device: &Device) -> Vec<String> {
    let floats = |r: &&Row| r.arity > 0 && matches!(r.sig, Sig::Float | Sig::Number | Sig::Compare | Sig::Select);
    let mut found = Vec::new();
    for row in rows::all().filter(floats) {
        let result = caught(|| Ok((special(row, DType::F64, &common::definition())?, special(row, DType::F32, device)?)));
        let (want, got) = match result {
            Ok(pair) => pair,
            Err(e) => {
                found.push(format!("{}: {e}", row.name));
                continue;
            }
        };
        let bound = row.ulp.max(4.0) * f64::from(f32::EPSILON) * scale(&want).max(1.0);
        for (i, (w, g)) in want.iter().zip(&got).enumerate() {
            // What overflows f32 is infinity there.
            let w = f64::from(*w as f32);
            let same = w == *g || w.is_nan() && g.is_nan() || (w - g).abs() <= bound;
            if !same {
                let x: Vec<f64> = (0..row.arity).map(|k| SPECIAL[i / SPECIAL.len().pow(k as u32) % SPECIAL.len()]).collect();
                found.push(format!("{} of {x:?} on {} is {g}, not {w}", row.name, device.short_name()));
            }
        }
    }
    found
}

#[test]
fn nan_and_infinities_are_as_the_definition_says_on_the_cpu() {
    none("special values", &special_differences(&common::fast()));
}

#[test]
fn nan_and_infinities_are_as_the_definition_says_on_the_gpu() {
    let Some(device) = adapter(common::gpu(), rows::all().count()) else { return };
    none("special values", &special_differences(&device));
}

/// Seeded numbers in f32.
fn numbers(n: usize) -> Vec<f32> {
    let mut d = Draw::new("large", 0);
    (0..n).map(|_| d.float(-2.0, 2.0) as f32).collect()
}

/// More elements than 65535 groups of 64 hold.
const MANY: usize = 65_535 * 64 + 77;

type Large = (&'static str, fn(&Device) -> Result<Tensor>);

/// Cheap operations over that many elements or rows.
const LARGE: &[Large] = &[
    ("exp", |d| Ok(Tensor::new(numbers(MANY), [MANY], d)?.exp())),
    ("a transposed copy", |d| Ok(Tensor::new(numbers(2 * MANY), [2, MANY], d)?.t().contiguous())),
    ("sum of short rows", |d| Tensor::new(numbers(2 * MANY), [MANY, 2], d)?.try_sum(&[1], false)),
    ("softmax of short rows", |d| Tensor::new(numbers(2 * MANY), [MANY, 2], d)?.try_softmax(1)),
    ("argmax of short rows", |d| Tensor::new(numbers(2 * MANY), [MANY, 2], d)?.try_argmax(1, false)),
    ("index_select", |d| Tensor::new(numbers(3), [3], d)?.try_index_select(0, &Tensor::new((0..MANY as i32).map(|i| i % 3).collect::<Vec<_>>(), [MANY], d)?)),
    ("cat", |d| Tensor::try_cat(&[Tensor::new(numbers(MANY), [MANY], d)?, Tensor::new(numbers(5), [5], d)?], 0)),
];

#[test]
fn more_groups_than_one_dimension_holds() {
    let Some(device) = adapter(common::gpu(), LARGE.len()) else { return };
    let mut found = Vec::new();
    for (name, run) in LARGE {
        let (result, seen) = watch(&Caps::floor(), || caught(|| run(&device)?.to_data()));
        let result = result.and_then(|got| Ok((got.to_f64(), run(&common::fast())?.to_data()?.to_f64())));
        match result {
            Err(e) => found.push(format!("{name}: {e}")),
            Ok((got, want)) => {
                let bound = 8.0 * f64::from(f32::EPSILON) * scale(&want);
                found.extend(common::compare(&got, &want, |_| bound).err().map(|e| format!("{name}: {e}")));
                if !seen.runs.iter().flat_map(|r| &r.program.launches).any(|l| l.grid[1] > 1) {
                    found.push(format!("{name}: no launch was folded; the sample is too small to say anything"));
                }
            }
        }
    }
    none("large grids", &found);
}

/// What stands around outputs, and in them before a run.
const GUARD: u32 = 0x5a5a_a5a5;
/// What poisoning leaves.
const POISON: u32 = 0x7fc0_0000;
/// Bytes of guard before and after.
const BAND: usize = 256;

/// More terms than some drivers let the loops of an invocation have turns: llvmpipe ends them after 65535, silently.
const LONG: usize = 200_003;
/// The sides of an image with that many positions, and of a window with more than 65535.
const SIDE: usize = 450;
const WINDOW: usize = 300;

fn long(shape: &[usize], device: &Device) -> Result<Tensor> {
    Tensor::new(numbers(shape.iter().product()), shape, device)?.requires_grad()
}

/// The gradient of what `f` makes of `x`, each element weighted by another number.
fn slope(x: &Tensor, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let y = f(x)?;
    let weights = Tensor::new(numbers(y.shape().numel()), y.shape().to_vec(), x.device())?;
    grad(&[&(&y * &weights).sum_all()], &[x])?.remove(0).ok_or_else(|| wgrad::Error::invalid("no gradient"))
}

fn labels(n: usize, classes: usize, d: &Device) -> Result<Tensor> {
    Tensor::new((0..n).map(|i| (classes - 1 - i % classes) as i32).collect::<Vec<_>>(), [n], d)
}

/// Operations that join that many elements into one.
const LONG_SUMS: &[Large] = &[
    ("sum", |d| long(&[LONG], d)?.try_sum(&[0], false)),
    ("sum of columns", |d| long(&[LONG, 3], d)?.try_sum(&[0], false)),
    ("sum of rows", |d| long(&[2, LONG], d)?.try_sum(&[1], false)),
    ("amax", |d| long(&[LONG, 2], d)?.try_amax(&[0], false)),
    ("argmax", |d| Tensor::arange(LONG, d)?.to_dtype(DType::F32).try_argmax(0, false)),
    ("argmin of columns", |d| Tensor::arange(2 * LONG, d)?.to_dtype(DType::F32).neg().reshape([LONG, 2]).try_argmin(0, false)),
    ("batch_norm of one channel", |d| Ok(long(&[8_500_000, 1], d)?.try_batch_norm(None, None, &BatchNorm::default())?.0)),
    ("softmax", |d| long(&[2, LONG], d)?.try_softmax(1)),
    ("softmax of columns", |d| long(&[LONG, 2], d)?.try_softmax(0)),
    ("gradient of log_softmax", |d| slope(&long(&[2, LONG], d)?, |x| x.try_log_softmax(1))),
    ("cross_entropy", |d| Ok(long(&[2, LONG], d)?.cross_entropy(&labels(2, LONG, d)?))),
    ("gradient of cross_entropy", |d| slope(&long(&[2, LONG], d)?, |x| Ok(x.cross_entropy(&labels(2, LONG, d)?)))),
    ("cross_entropy of many", |d| Ok(long(&[LONG, 2], d)?.cross_entropy(&labels(LONG, 2, d)?))),
    ("nll_loss of many", |d| Ok(long(&[LONG, 2], d)?.nll_loss(&labels(LONG, 2, d)?))),
    ("index_add into one", |d| Tensor::zeros([1], d).try_index_add(0, &labels(LONG, 1, d)?, &long(&[LONG], d)?)),
    ("index_add into nine", |d| {
        Tensor::zeros([9, 3], d).try_index_add(
            0,
            &Tensor::new((0..LONG as i32).map(|i| if i % 5 > 3 { i % 9 } else { 7 }).collect::<Vec<_>>(), [LONG], d)?,
            &long(&[LONG, 3], d)?,
        )
    }),
    ("avg_pool2d", |d| long(&[1, 1, WINDOW, WINDOW], d)?.try_avg_pool2d([WINDOW; 2], Default::default())),
    ("conv2d", |d| long(&[1, 1, WINDOW, WINDOW], d)?.try_conv2d(&long(&[2, 1, WINDOW, WINDOW], d)?, None, Default::default())),
    ("gradient of conv2d by its weight", |d| slope(&long(&[2, 1, 1, 1], d)?, |w| long(&[1, 1, SIDE, SIDE], d)?.try_conv2d(w, None, Default::default()))),
    // Rows of one position, of which a turn of a loop takes one; a row of which a part of a sum is no whole one; channels that turn less often than their terms.
    ("gradient of conv2d by its weight over short rows", |d| {
        let options = Conv2dOptions { padding: [1, 0], ..Conv2dOptions::default() };
        slope(&long(&[1, 64, 3, 1], d)?, |w| long(&[1, 64, 70_000, 1], d)?.try_conv2d(w, None, options))
    }),
    ("gradient of conv2d by its weight over a long row", |d| {
        slope(&long(&[1, 1, 1, 3], d)?, |w| long(&[1, 1, 1, 5 * LONG], d)?.try_conv2d(w, None, Default::default()))
    }),
    ("conv2d of many channels", |d| long(&[1, 17_000, 3, 3], d)?.try_conv2d(&long(&[1, 17_000, 3, 3], d)?, None, Default::default())),
    ("gradient of a large kernel's conv2d", |d| slope(&long(&[1, 2, 4, 4], d)?, |x| x.try_conv2d(&long(&[LONG / 18, 2, 3, 3], d)?, None, Default::default()))),
    ("matmul", |d| long(&[3, LONG], d)?.try_matmul(&long(&[LONG, 5], d)?)),
    ("matmul of a row", |d| long(&[1, LONG], d)?.try_matmul(&long(&[LONG, 1], d)?)),
    // Where 16 tiles hold the result a sum is not split for speed.
    ("matmul in tiles", |d| Tensor::ones([1, 1], d).expand([64, 300_000]).try_matmul(&Tensor::ones([1, 1], d).expand([300_000, 64]))),
];

#[test]
fn sums_may_be_longer_than_a_driver_lets_loops_be() {
    let mut found = Vec::new();
    for device in [common::floor(), common::gpu()].into_iter().filter_map(|d| adapter(d, LONG_SUMS.len())) {
        for (name, run) in LONG_SUMS {
            match caught(|| Ok((run(&device)?.to_data()?.to_f64(), run(&common::fast())?.to_data()?.to_f64()))) {
                Err(e) => found.push(format!("{name} on {}: {e}", device.short_name())),
                Ok((got, want)) => {
                    let bound = 1e-4 * scale(&want);
                    found.extend(common::compare(&got, &want, |_| bound).err().map(|e| format!("{name} on {}: {e}", device.description())));
                }
            }
        }
    }
    none("differences", &found);
}

/// What cannot be made in parts is refused where a driver would end it early.
const TOO_LONG: &[Large] = &[
    ("conv2d", |d| long(&[1, 66_000, 3, 3], d)?.try_conv2d(&long(&[1, 66_000, 3, 3], d)?, None, Default::default())),
    ("max_pool2d", |d| long(&[1, 1, WINDOW, WINDOW], d)?.try_max_pool2d([WINDOW; 2], Default::default())),
    ("max_pool2d", |d| long(&[1, 1, 2858, 21], d)?.try_max_pool2d([2858, 21], Default::default())),
    ("avg_pool2d", |d| long(&[1, 1, 70_000, 1], d)?.try_avg_pool2d([70_000, 1], Default::default())),
    ("avg_pool2d", |d| long(&[1, 1, 22_000, 2], d)?.try_avg_pool2d([22_000, 2], Default::default())),
    ("cross_entropy", |d| {
        let smooth = CrossEntropy { label_smoothing: 0.1, ..CrossEntropy::default() };
        long(&[2, LONG], d)?.cross_entropy_with(&labels(2, LONG, d)?, &smooth)
    }),
];

#[test]
fn loops_that_a_driver_would_end_are_refused() {
    let Some(device) = adapter(common::gpu(), TOO_LONG.len()).filter(|d| d.description().contains("llvmpipe")) else { return };
    for (name, run) in TOO_LONG {
        let e = caught(|| run(&device)?.to_data()).expect_err(name).to_string();
        assert!(e.contains(name) && e.contains("steps for one element"), "{e}");
    }
}

/// Where f32 alone would lose what is asked for: a window as large as an image, and features that are large beside how they vary.
#[test]
fn the_cpus_fast_paths_keep_what_f32_would_lose() {
    let cpu = common::fast();
    let mean = Tensor::full([1, 1, 1, 100_000], 0.1, &cpu).try_avg_pool2d([1, 100_000], Default::default()).unwrap().item().unwrap();
    assert!((mean - f64::from(0.1f32)).abs() < 1e-7, "{mean}");
    let x = Tensor::new(vec![1_000_000.0f32, 1_000_000.06], [2, 1], &cpu).unwrap();
    let y = x.try_batch_norm(None, None, &BatchNorm::default()).unwrap().0.to_vec::<f32>().unwrap();
    // Two neighbours in f32, 0.0625 apart: 0.0625 / sqrt(0.03125^2 + 1e-5).
    assert!((y[1] - y[0] - 1.98981).abs() < 1e-3, "{y:?}");
}

/// Nothing holds so many elements, but what is broadcast has them: no kernel counts them wrong in silence.
#[test]
fn more_elements_than_kernels_count_are_refused() {
    let Some(device) = adapter(common::gpu(), 2) else { return };
    let ones = |shape: &[usize]| Tensor::ones(shape, &device);
    let cases: [Large; 2] = [
        ("a sum of a row", |d| (&Tensor::ones([34_000, 1], d) - &Tensor::ones([1, 65_530], d)).try_sum(&[0, 1], false)),
        ("a sum of a view", |d| Tensor::new(vec![1.0f32; 70_000], [70_000, 1], d)?.expand([70_000, 70_000]).try_sum(&[0, 1], false)),
    ];
    for (name, run) in cases {
        let e = caught(|| run(&device)?.to_data()).expect_err(name).to_string();
        assert!(e.contains("kernels count fewer than"), "{name}: {e}");
    }
    // What is below is counted right.
    let sum = (&ones(&[3, 1]) + &ones(&[1, 5])).sum_all().item().unwrap();
    assert_eq!(sum, 30.0);
}

/// Run again what was seen, with every output between guards, the ones behind it within the bound range.
fn run_guarded(gpu: &Arc<Gpu>, seen: &Seen) -> Result<Vec<String>> {
    let mut outputs = Vec::new();
    let mut wholes = Vec::new();
    for meta in &seen.outputs {
        let bytes = 2 * BAND + meta.bytes().next_multiple_of(4);
        let buffer = gpu.alloc(bytes)?;
        gpu.upload(&buffer, 0, &GUARD.to_le_bytes().repeat(bytes / 4))?;
        let buffer = Buffer::Gpu(buffer);
        outputs.push(Storage { buffer: buffer.clone(), offset: BAND, bytes: bytes - BAND });
        wholes.push(Storage { buffer, offset: 0, bytes });
    }
    let prepared = gpu.prepare(seen.program.clone())?;
    gpu.run(&prepared, &seen.data, &seen.leaves, &outputs, &[], &[])?;
    let after = gpu.read(&wholes)?.wait()?;
    let mut found = Vec::new();
    for (n, (bytes, meta)) in after.iter().zip(&seen.outputs).enumerate() {
        let words: Vec<u32> = bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        let (start, end) = (BAND / 4, (BAND + meta.bytes()) / 4);
        // The last of an odd number of halves shares its word with nothing, which stays as it was: a zero beside what poisoning left looks like poison.
        let shared = (meta.dtype == DType::F16 && meta.numel() % 2 == 1).then(|| end - 1);
        let labels: Vec<&str> = seen.program.launches.iter().map(|l| &*l.label).collect();
        let mut say = |what: &str, at: usize| found.push(format!("{}: output {n} ({meta}): {what} {at}", labels.join(", ")));
        for (at, w) in words.iter().enumerate() {
            match *w {
                _ if shared == Some(at) => {
                    if w & 0xffff == GUARD & 0xffff {
                        say("nothing was written to element", 2 * (at - start));
                    }
                }
                GUARD | POISON if (start..end).contains(&at) => say("nothing was written to element", at - start),
                _ if (start..end).contains(&at) => {}
                GUARD => {}
                POISON if at >= end => {}
                _ => say("the guard was overwritten at word", at),
            }
        }
    }
    Ok(found)
}

#[test]
fn kernels_write_their_outputs_and_nothing_else() {
    let cases: Vec<_> = row_cases().into_iter().chain(op_cases()).filter(|c| !c.host_only).collect();
    let Some(device) = adapter(common::gpu(), cases.len()) else { return };
    let Device::Gpu(gpu) = &device else { panic!("{device:?} is no GPU") };
    let mut found = Vec::new();
    let mut runs = 0;
    // Where a device of another class gets the same texts, they are not run again.
    let mut texts = HashSet::new();
    let classes = [Caps::floor(), Caps { kind: Kind::Discrete, ..Caps::floor() }, Caps { subgroups: gpu.caps().subgroups, ..Caps::floor() }];
    for (caps, case) in classes.iter().flat_map(|caps| cases.iter().map(move |case| (caps, case))) {
        let result = caught(|| {
            let (result, seen) = watch(caps, || answer(case, &draw(case, 0), Lay::Contiguous, DType::F32, &device));
            result?;
            let mut found = Vec::new();
            for seen in seen.runs.iter().filter(|s| !s.in_place) {
                let fresh = seen.program.launches.iter().filter(|l| texts.insert(l.text.clone())).count();
                if fresh == 0 && *caps != Caps::floor() {
                    continue;
                }
                runs += 1;
                found.extend(run_guarded(gpu, seen)?);
            }
            Ok(found)
        });
        match result {
            Ok(list) => found.extend(list.into_iter().take(1).map(|f| format!("{}: {f}", case.name))),
            Err(e) => found.push(format!("{}: {e}", case.name)),
        }
    }
    assert!(runs > cases.len(), "only {runs} runs were seen");
    none("guards", &found);
}

#[test]
fn a_kernel_that_writes_too_far_is_found() {
    let Some(device) = adapter(common::gpu(), 1) else { return };
    let Device::Gpu(gpu) = &device else { panic!("{device:?} is no GPU") };
    let (result, mut seen) = watch(&Caps::floor(), || Tensor::new([1.0f32, 2.0, 3.0], [3], &device)?.exp().to_data());
    result.unwrap();
    let launch = &mut seen.runs[0].program.launches[0];
    let faulty = launch.text.replace("y[i] =", "y[i + 1u] =");
    assert_ne!(faulty, *launch.text, "the text is not as this test knows it: {}", launch.text);
    launch.text = faulty.into();
    let found = run_guarded(gpu, &seen.runs[0]).unwrap();
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].ends_with("nothing was written to element 0") && found[1].contains("the guard was overwritten"), "{found:?}");
}

/// wgpu panicked where one thread's look at its submission met another thread's poll; that looked like a lost device.
#[test]
fn threads_that_submit_and_wait_on_one_device_lose_nothing() {
    let Some(device) = adapter(common::gpu(), 1) else { return };
    let work = |t: usize| {
        let x = Tensor::new(vec![t as f32; 64], [64], &device)?;
        (0..400).try_for_each(|i| {
            let got = x.add_scalar(f64::from(i)).to_vec::<f32>()?[0];
            if got == t as f32 + i as f32 { Ok(()) } else { Err(wgrad::Error::invalid(format!("thread {t}, step {i}: {got}"))) }
        })
    };
    std::thread::scope(|s| {
        let work = &work;
        let threads: Vec<_> = (0..4).map(|t| s.spawn(move || work(t))).collect();
        threads.into_iter().for_each(|t| t.join().unwrap().unwrap());
    });
}
