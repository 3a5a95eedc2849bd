//! Products by units for small matrices. No adapter at hand may have them, so the operations on small matrices are written out in plain WGSL: the index arithmetic
//! around them is the same text. The text for the hardware is validated and translated.

use crate::common;
use naga::valid::{Capabilities, ValidationFlags, Validator};
use wgrad::device::gpu::GpuOptions;
use wgrad::device::{Caps, Coop, Device, Kind};
use wgrad::graph::watch;
use wgrad::{DType, MatmulPrecision, Result, Tensor, autocast, with_matmul_precision};

fn emulating(edge: usize) -> Option<Device> {
    let device = crate::ops::adapter(common::gpu(), 1)?;
    let Device::Gpu(gpu) = &device else { panic!("{device:?} is no GPU") };
    if !gpu.caps().f16 || gpu.caps().subgroups.is_none() {
        eprintln!("small matrices are not emulated: {} has no f16 or no subgroups", device.description());
        return None;
    }
    let options = GpuOptions { emulated_coop: Some(edge), ..GpuOptions::from_env().unwrap() };
    Some(Device::gpu(0, &options).unwrap())
}

/// Values up to `scale`, never symmetric, some a hundredth of it. Lines of `along` of them (rows of a) or every `along`th (columns of b) differ by a million.
fn values(n: usize, seed: usize, scale: f32, line: impl Fn(usize) -> usize) -> Vec<f32> {
    let value = |i: usize| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.5 - 1.0;
    (0..n).map(|i| value(i) * scale * if i % 3 == 0 { 0.01 } else { 1.0 } * [1.0, 1e-3, 1e3][line(i) % 3]).collect()
}

struct Case {
    batch: usize,
    m: usize,
    k: usize,
    n: usize,
    /// Whether a, b lie transposed.
    turned: [bool; 2],
}

/// Sizes that are all different: within one tile and over several, in whole fours and not, with sums of less than a step, of several blocks and split in two.
const CASES: &[Case] = &[
    Case { batch: 1, m: 70, k: 40, n: 36, turned: [false, false] },
    Case { batch: 1, m: 17, k: 35, n: 83, turned: [true, false] },
    Case { batch: 2, m: 33, k: 21, n: 20, turned: [false, true] },
    Case { batch: 3, m: 20, k: 300, n: 24, turned: [true, true] },
];

/// Of both operands: as they are, and so that f16 has nothing of them, or of one of them.
const SCALES: &[[f32; 2]] = &[[1.0, 1.0], [1e-12, 1e-12], [1e12, 1e12], [1e-20, 1e25]];

/// The largest difference from exact products in units of the sum of their magnitudes.
fn error(device: &Device, case: &Case, precision: MatmulPrecision, scales: [f32; 2]) -> Result<f64> {
    let &Case { batch, m, k, n, turned } = case;
    let (a, b) = (values(batch * m * k, 1, scales[0], |i| i / k), values(batch * k * n, 2, scales[1], |i| i % n));
    let lie = |v: &[f32], rows: usize, columns: usize, turned: bool| -> Result<Tensor> {
        let t = Tensor::new(v.to_vec(), [batch, rows, columns], device)?;
        Ok(if turned { t.transpose(1, 2).contiguous().transpose(1, 2) } else { t })
    };
    let (x, y) = (lie(&a, m, k, turned[0])?, lie(&b, k, n, turned[1])?);
    // A row behind it, so that results go through the epilogue.
    let got = with_matmul_precision(precision, || x.try_matmul(&y))?.neg().to_vec::<f32>()?;
    let mut worst = 0.0f64;
    for (at, got) in got.iter().enumerate() {
        let (z, i, j) = (at / (m * n), at / n % m, at % n);
        let products = (0..k).map(|p| f64::from(a[(z * m + i) * k + p]) * f64::from(b[(z * k + p) * n + j]));
        let (sum, size) = products.fold((0.0, 0.0), |(s, m), p| (s + p, m + p.abs()));
        let off = (f64::from(*got) + sum).abs() / size;
        // A NaN is the worst of all.
        worst = if off <= worst { worst } else { off };
    }
    Ok(worst)
}

#[test]
fn products_by_small_matrices_are_those_of_the_definition() {
    // Of factors that are off by half a unit of 11 bits each, and by one of 22 and the product of what is left.
    let bounds = [(MatmulPrecision::Medium, 2f64.powi(-11)), (MatmulPrecision::High, 2f64.powi(-21))];
    for edge in [16, 8] {
        let Some(device) = emulating(edge) else { return };
        for case in CASES {
            for &scales in SCALES {
                let plain = error(&device, case, MatmulPrecision::Highest, scales).unwrap();
                for (precision, bound) in bounds {
                    let off = error(&device, case, precision, scales).unwrap();
                    let Case { batch, m, k, n, turned } = case;
                    let what = format!("edge {edge}, {batch} x [{m}, {k}] x [{k}, {n}], turned {turned:?}, scales {scales:?}, {precision:?}");
                    assert!(off < bound, "{what}: off by {off:.2e}");
                    assert!(precision == MatmulPrecision::Medium || off < 4.0 * plain, "{what}: off by {off:.2e}, where f32 is off by {plain:.2e}");
                    // Halves must have been used at all.
                    assert!(precision == MatmulPrecision::High || off > 1e-5, "{what}: {off:.2e} is too good");
                }
            }
        }
    }
}

/// A layer's result and gradients, of halves or of floats.
fn layer(device: &Device, dtype: DType) -> Result<Vec<Vec<f32>>> {
    let [x, w] = [(33, 1), (36, 2)].map(|(rows, seed)| Tensor::new(values(rows * 40, seed, 1.0, |_| 0), [rows, 40], device)?.requires_grad());
    let (x, w) = (x?, w?);
    let y = autocast(dtype, || x.try_linear(&w, None))?;
    // Not all alike, and small enough for halves.
    (&y * &y.detach().tanh()).sum_all().backward()?;
    let results = [Some(y.to_dtype(DType::F32)), x.grad(), w.grad()];
    results.iter().map(|t| t.as_ref().unwrap().to_vec::<f32>()).collect()
}

#[test]
fn products_of_halves_go_through_them_and_those_of_floats_only_where_asked() {
    let Some(device) = emulating(16) else { return };
    for (dtype, bound) in [(DType::F16, 2f32.powi(-9)), (DType::F32, 1e-6)] {
        let (got, seen) = watch(&Caps::floor(), || layer(&device, dtype));
        let (got, want) = (got.unwrap(), layer(&common::definition(), dtype).unwrap());
        let launches = seen.runs.iter().flat_map(|r| &r.program.launches);
        let through = launches.filter(|l| l.text.contains("multiply_add(a: vec2<u32>")).count();
        assert_eq!(through, if dtype == DType::F16 { 3 } else { 0 }, "{dtype}");
        // Halves are exact as they are.
        assert!(!seen.kernels.contains("operand_scales"), "{dtype}");
        for (got, want) in got.iter().zip(&want) {
            let scale = want.iter().fold(0.0f32, |m, v| m.max(v.abs()));
            assert!(got.iter().zip(want).all(|(g, w)| (g - w).abs() <= bound * scale), "{dtype}");
        }
    }
}

#[test]
fn what_is_not_finite_stays_so() {
    let Some(device) = emulating(16) else { return };
    let mut a = values(16 * 16, 1, 1.0, |_| 0);
    a[5] = f32::INFINITY;
    a[16 * 3 + 2] = f32::NAN;
    let a = Tensor::new(a, [16, 16], &device).unwrap();
    let b = Tensor::ones([16, 16], &device);
    for precision in [MatmulPrecision::Medium, MatmulPrecision::High] {
        let y = with_matmul_precision(precision, || a.matmul(&b)).to_vec::<f32>().unwrap();
        // An infinite half times the low half of one, which is zero, is a NaN.
        let infinite = |v: &f32| if precision == MatmulPrecision::High { !v.is_finite() } else { *v == f32::INFINITY };
        assert!(y[..16].iter().all(infinite), "{precision:?}: {:?}", &y[..16]);
        assert!(y[48..64].iter().all(|v| v.is_nan()) && y[64..].iter().all(|v| v.is_finite()), "{precision:?}");
    }
}

#[test]
fn gradients_are_computed_at_the_precision_of_the_product() {
    let Some(device) = emulating(16) else { return };
    let x = Tensor::new(values(32 * 48, 1, 1.0, |_| 0), [32, 48], &device).unwrap().requires_grad().unwrap();
    let w = Tensor::new(values(48 * 40, 2, 1.0, |_| 0), [48, 40], &device).unwrap().requires_grad().unwrap();
    let y = with_matmul_precision(MatmulPrecision::High, || x.matmul(&w));
    y.sum_all().backward().unwrap();
    let before = device.counters().dispatches;
    let gradients = [x.grad().unwrap().to_vec::<f32>().unwrap(), w.grad().unwrap().to_vec::<f32>().unwrap()];
    // Each product of the gradients has its scales before it.
    let did = device.counters().dispatches - before;
    assert!(did >= 4, "{did}");
    let want: Vec<f32> = w.to_vec::<f32>().unwrap().chunks(40).map(|row| row.iter().sum()).collect();
    for (i, g) in gradients[0].iter().enumerate() {
        assert!((g - want[i % 48]).abs() < 1e-4, "{i}: {g}, {}", want[i % 48]);
    }
}

/// The gradient of a bias is a sum over what the gradient of the weight reads: where units make that product, somebody must still make the sum.
#[test]
fn a_bias_beside_products_by_small_matrices_has_its_gradient() {
    let Some(device) = emulating(16) else { return };
    let [m, k, n] = [64, 64, 64];
    let tensor = |v: Vec<f32>, shape: &[usize]| Tensor::new(v, shape, &device).unwrap().requires_grad().unwrap();
    let (x, w) = (tensor(values(m * k, 1, 1.0, |_| 0), &[m, k]), tensor(values(k * n, 2, 1.0, |_| 0), &[n, k]));
    let (bias, by) = (tensor(vec![0.5; n], &[n]), values(m * n, 3, 1.0, |_| 0));
    let weights = Tensor::new(by.clone(), [m, n], &device).unwrap();
    let loss = with_matmul_precision(MatmulPrecision::Medium, || (&(&x.matmul(&w.t()) + &bias) * &weights).sum_all());
    with_matmul_precision(MatmulPrecision::Medium, || loss.backward()).unwrap();
    // Both at once, so that one launch may make both.
    let [of_weight, of_bias] = [w.grad().unwrap(), bias.grad().unwrap()];
    wgrad::graph::flush(&device).unwrap();
    let (of_weight, got) = (of_weight.to_vec::<f32>().unwrap(), of_bias.to_vec::<f32>().unwrap());
    assert!(of_weight.iter().all(|v| v.is_finite()));
    for (j, got) in got.iter().enumerate() {
        let want: f64 = (0..m).map(|i| f64::from(by[i * n + j])).sum();
        assert!((f64::from(*got) - want).abs() < 1e-4, "bias {j}: {got}, not {want}");
    }
}

#[test]
fn the_hardwares_text_is_valid_and_is_translated() {
    let mut texts = Vec::new();
    for (edge, lanes) in [(16, 32), (16, 64), (8, 32)] {
        let coop = Some(Coop { edge, lanes, adds: true, emulated: false });
        let caps =
            Caps { kind: Kind::Discrete, subgroups: Some((lanes as u32, lanes as u32)), f16: true, coop, max_workgroup_bytes: 48 << 10, ..Caps::floor() };
        for precision in [MatmulPrecision::Medium, MatmulPrecision::High] {
            for size in [64, 2048] {
                let (result, seen) = watch(&caps, || {
                    let device = common::fast();
                    let x = Tensor::zeros([size, 64], &device);
                    with_matmul_precision(precision, || x.matmul(&Tensor::zeros([64, size], &device))).to_data()
                });
                result.unwrap();
                texts.extend(seen.runs.iter().flat_map(|r| &r.program.launches).filter(|l| l.text.contains("coopMultiplyAdd")).map(|l| l.text.clone()));
            }
        }
    }
    assert_eq!(texts.len(), 12);
    for text in texts {
        let module = naga::front::wgsl::parse_str(&text).unwrap_or_else(|e| panic!("{}", e.emit_to_string(&text)));
        let info = Validator::new(ValidationFlags::all(), Capabilities::all()).validate(&module).unwrap_or_else(|e| panic!("{}", e.emit_to_string(&text)));
        let options = naga::back::spv::Options { lang_version: (1, 3), ..Default::default() };
        naga::back::spv::write_vec(&module, &info, &options, None).unwrap();
        let options = naga::back::msl::Options { lang_version: (3, 1), ..Default::default() };
        naga::back::msl::write_string(&module, &info, &options, &naga::back::msl::PipelineOptions::default()).unwrap();
    }
}
