//! Tests that walk the row table: names and slopes, values against slopes, the f32 path against the definition, and the WGSL.

use super::*;

/// Points of a domain, `n` for each input, that no two inputs share; kinks are kept away from.
fn points(r: &Row, n: usize) -> Vec<Vec<f64>> {
    let truth = |k: usize| matches!(r.sig, Sig::Logic) || (matches!(r.sig, Sig::Select) && k == 0);
    (0..n)
        .map(|i| {
            (0..r.arity)
                .map(|k| {
                    let (low, high) = r.domain[k];
                    // Steps of different irrational sizes fill the box evenly.
                    let u = ((i as f64 + 0.5) * [0.6180339887498949, 0.7548776662466927, 0.8191725133961645][k]).fract();
                    if truth(k) { f64::from(u8::from(u > 0.5)) } else { low + (high - low) * u }
                })
                .collect::<Vec<f64>>()
        })
        .filter(|x| x.iter().all(|v| r.kinks.iter().all(|k| (v - k).abs() > 1e-3)))
        .collect()
}

fn value(r: &Row, x: &[f64], p: &[f64]) -> f64 {
    // Seeds and offsets, or offsets and periods.
    (r.value)(&RowArgs { x, p, q: &[5, 7][..r.ints], i: 3 })
}

fn is_float(r: &Row) -> bool {
    matches!(r.sig, Sig::Float | Sig::Number)
}

#[test]
fn names_are_unique_and_shapes_agree() {
    let mut seen = std::collections::HashSet::new();
    for r in all() {
        assert!(seen.insert(r.name), "{} stands twice", r.name);
        assert_eq!(r.domain.len(), r.arity, "{}: one domain an input", r.name);
        assert_eq!(r.slopes.len(), r.arity, "{}: one slope an input", r.name);
        assert!(!r.samples.is_empty() && r.samples.iter().all(|s| s.len() == r.floats), "{}: samples", r.name);
        assert_eq!(row(r.name).name, r.name);
        for slope in r.slopes {
            match slope {
                Slope::Row(name) => {
                    let s = row(name);
                    assert_eq!((s.arity, s.floats, s.ints), (r.arity, r.floats, r.ints), "{} and its slope {name}", r.name);
                }
                Slope::Grad(uses, _) => assert!(uses.chars().all(|c| "xyzo"[..].contains(c)), "{}: uses {uses}", r.name),
                _ => {}
            }
        }
    }
}

#[test]
fn slope_rows_are_the_slopes_of_their_rows() {
    let h = 1e-5;
    for r in all().filter(|r| is_float(r)) {
        for p in r.samples {
            for x in points(r, 200) {
                for k in 0..r.arity {
                    let want = match r.slopes[k] {
                        Slope::Row(name) => value(row(name), &x, p),
                        Slope::One => 1.0,
                        Slope::Zero => 0.0,
                        Slope::Grad(..) | Slope::None => continue,
                    };
                    let (mut a, mut b) = (x.clone(), x.clone());
                    a[k] -= h;
                    b[k] += h;
                    let got = (value(r, &b, p) - value(r, &a, p)) / (2.0 * h);
                    assert!((got - want).abs() < 1e-6 * want.abs().max(1.0), "{} at {x:?} {p:?} by input {k}: slope {want}, differences {got}", r.name);
                }
            }
        }
    }
}

/// The same for slopes that are tensor expressions, run in f64.
#[test]
fn slope_expressions_are_the_slopes_of_their_rows() {
    let (h, device) = (1e-5, crate::device::Device::cpu().unwrap());
    for r in all().filter(|r| r.ints == 0) {
        for p in r.samples {
            let xs = points(r, 50);
            let tensor = |f: &dyn Fn(&[f64]) -> f64| {
                let values: Vec<f64> = xs.iter().map(|x| f(x)).collect();
                Tensor::new(values, [xs.len()], &device).unwrap()
            };
            for k in 0..r.arity {
                let Slope::Grad(uses, f) = r.slopes[k] else { continue };
                // What is not named is not there: using it fails the test.
                let inputs: Vec<Option<Tensor>> = (0..r.arity)
                    .map(|j| {
                        let t = tensor(&|x| x[j]);
                        let t = if r.sig == Sig::Select && j == 0 { t.to_dtype(DType::Bool) } else { t };
                        uses.contains(["x", "y", "z"][j]).then_some(t)
                    })
                    .collect();
                let output = uses.contains('o').then(|| tensor(&|x| value(r, x, p)));
                let grad = tensor(&|_| 0.75);
                let got = f(&RowGrad { grad: &grad, inputs: &inputs, output: output.as_ref(), floats: p }).to_vec::<f64>().unwrap();
                for (x, got) in xs.iter().zip(got) {
                    let (mut a, mut b) = (x.clone(), x.clone());
                    a[k] -= h;
                    b[k] += h;
                    let want = 0.75 * (value(r, &b, p) - value(r, &a, p)) / (2.0 * h);
                    assert!((got - want).abs() < 1e-6 * want.abs().max(1.0), "{} at {x:?} {p:?} by input {k}: gradient {got}, differences {want}", r.name);
                }
            }
        }
    }
}

#[test]
fn blocks_agree_with_their_definitions() {
    for r in all() {
        let Some(block) = r.block else { continue };
        for p in r.samples {
            let n = if r.arity == 0 { 1001 } else { 4000 };
            // A seed stands in a block as the float with its bits.
            let seeded = r.name.ends_with("_seeded");
            let narrow = |v: f64| if seeded { f32::from_bits(v as u32 / 1000) } else { v as f32 };
            let rows: Vec<Vec<f32>> = points(r, n).iter().map(|x| x.iter().map(|&v| narrow(v)).collect()).collect();
            let columns: Vec<Vec<f32>> = (0..r.arity).map(|k| rows.iter().map(|x| x[k]).collect()).collect();
            let columns: Vec<&[f32]> = columns.iter().map(|c| &c[..]).collect();
            let floats: Vec<f32> = p.iter().map(|&v| v as f32).collect();
            let exact: Vec<f64> = floats.iter().map(|&v| f64::from(v)).collect();
            let ints = &[0x1234_5678_9abc, if seeded { 1000 } else { 0x1_0000_0007 }][..r.ints];
            let first = 3;
            let mut out = vec![0f32; rows.len()];
            block(&columns, &floats, ints, first, &mut out);
            let want: Vec<f64> = (0..rows.len())
                .map(|i| {
                    let x: Vec<f64> = rows[i].iter().map(|&v| if seeded { f64::from(v.to_bits()) } else { f64::from(v) }).collect();
                    (r.value)(&RowArgs { x: &x, p: &exact, q: ints, i: first + i })
                })
                .collect();
            let scale = want.iter().fold(0f64, |m, v| m.max(v.abs()));
            for i in 0..rows.len() {
                let bound = r.ulp.max(0.5) * f64::from(f32::EPSILON) * scale;
                let error = (f64::from(out[i]) - want[i]).abs();
                assert!(error <= bound, "{} at {:?} {p:?}: f32 gives {}, the definition {}", r.name, rows[i], out[i], want[i]);
            }
        }
    }
}

#[test]
fn nan_passes_through() {
    for r in all().filter(|r| is_float(r) && r.arity > 0) {
        // Slopes are asked only where there is a value.
        if r.name.contains("_slope") || r.name.contains("_by_") || r.name.ends_with("_grad") || ["share", "prelu_mixed"].contains(&r.name) {
            continue;
        }
        for k in 0..r.arity {
            let mut x = points(r, 1)[0].clone();
            x[k] = f64::NAN;
            // A slope of NaN where it is not used changes nothing, in PyTorch, too.
            if r.name == "prelu" && k == 1 {
                x[0] = -1.0;
            }
            assert!(value(r, &x, r.samples[0]).is_nan(), "{} loses the NaN of input {k}", r.name);
            if let Some(block) = r.block {
                let columns: Vec<[f32; 1]> = x.iter().map(|&v| [v as f32]).collect();
                let columns: Vec<&[f32]> = columns.iter().map(|c| &c[..]).collect();
                let floats: Vec<f32> = r.samples[0].iter().map(|&v| v as f32).collect();
                let mut out = [0f32];
                block(&columns, &floats, &[], 0, &mut out);
                assert!(out[0].is_nan(), "{} in f32 loses the NaN of input {k}", r.name);
            }
        }
    }
}

#[test]
fn corners_are_as_pytorch_has_them() {
    let at = |name: &str, x: &[f64], p: &[f64]| value(row(name), x, p);
    let inf = f64::INFINITY;
    assert_eq!([at("sign", &[0.0], &[]), at("leaky_relu_slope", &[0.0], &[0.3])], [0.0, 0.3]);
    assert_eq!([at("clamp_grad", &[7.0, 1.0], &[-1.0, 1.0]), at("hardtanh_grad", &[7.0, 1.0], &[-1.0, 1.0])], [7.0, 0.0]);
    assert_eq!([at("share", &[2.0, 2.0], &[]), at("share", &[3.0, 2.0], &[]), at("share", &[1.0, 2.0], &[])], [0.5, 0.0, 1.0]);
    assert_eq!([at("pow", &[0.0, 0.0], &[]), at("pow_by_base", &[0.0, 0.0], &[]), at("pow_by_exponent", &[0.0, 2.0], &[])], [1.0, 0.0, 0.0]);
    assert_eq!([at("powi", &[-2.0], &[3.0]), at("powi_slope", &[0.0], &[0.0]), at("powi_slope", &[0.0], &[1.0])], [-8.0, 0.0, 1.0]);
    assert_eq!([at("sigmoid", &[-inf], &[]), at("sigmoid", &[inf], &[]), at("softplus", &[-inf], &[1.0, 20.0])], [0.0, 1.0, 0.0]);
    assert_eq!([at("hardswish_slope", &[3.0], &[]), at("hardswish_slope", &[-3.0], &[])], [1.0, 0.0]);
    assert_eq!([at("relu_grad", &[inf, 0.0], &[]), at("relu_grad", &[7.0, f64::NAN], &[])], [0.0, 7.0]);
    assert_eq!([at("mask", &[0.0, inf], &[]), at("mask_not", &[1.0, inf], &[])], [0.0, 0.0]);
    assert_eq!([at("bernoulli", &[], &[0.0]), at("bernoulli", &[], &[1.0])], [1.0, 0.0]);
    assert_eq!(at("ne", &[f64::NAN, f64::NAN], &[]), 1.0);
}

#[test]
fn a_seeded_row_is_the_plain_one_with_that_seed() {
    for (plain, seeded) in [("uniform", "uniform_seeded"), ("normal", "normal_seeded"), ("bernoulli", "bernoulli_seeded")] {
        let (plain, seeded) = (row(plain), row(seeded));
        let p = &[0.3][..plain.floats];
        for i in 0..40 {
            let want = (plain.value)(&RowArgs { x: &[], p, q: &[9, 77], i: i % 10 });
            assert_eq!((seeded.value)(&RowArgs { x: &[9.0], p, q: &[77, 10], i }), want);
        }
        // Two models of 10 elements in one block, of which it gets elements 3 to 19; then the second model alone.
        let (mut both, mut alone) = ([0f32; 17], [0f32; 10]);
        let seeds: Vec<f32> = (3..20).map(|i| f32::from_bits(if i < 10 { 4 } else { 9 })).collect();
        let narrow: Vec<f32> = p.iter().map(|&v| v as f32).collect();
        seeded.block.unwrap()(&[&seeds], &narrow, &[77, 10], 3, &mut both);
        plain.block.unwrap()(&[], &narrow, &[9, 77], 0, &mut alone);
        assert_eq!(both[7..], alone, "{}", seeded.name);
    }
}

#[cfg(feature = "gpu")]
mod wgsl {
    use super::*;
    use crate::device::Access;
    use crate::kernel::{self, BindingText, Emit};

    fn operands(r: &Row) -> &'static [DType] {
        match r.sig {
            Sig::Float | Sig::Source(_) => &[DType::F32],
            Sig::Cast(_) if r.name.ends_with("_seeded") => &[DType::U32],
            Sig::Number | Sig::Compare | Sig::Select | Sig::Cast(_) => &[DType::F32, DType::I32, DType::U32],
            Sig::Logic => &[DType::Bool],
        }
    }

    fn result(r: &Row, operand: DType) -> DType {
        match r.sig {
            Sig::Float | Sig::Number | Sig::Select => operand,
            Sig::Compare | Sig::Logic => DType::Bool,
            Sig::Cast(d) | Sig::Source(d) => d,
        }
    }

    fn valid(text: &str) -> Result<(), String> {
        let module = naga::front::wgsl::parse_str(text).map_err(|e| e.emit_to_string(text))?;
        let mut validator = naga::valid::Validator::new(naga::valid::ValidationFlags::all(), naga::valid::Capabilities::empty());
        validator.validate(&module).map(|_| ()).map_err(|e| e.emit_to_string(text))
    }

    #[test]
    fn every_row_is_valid_in_a_kernel() {
        for r in all().filter(|r| r.name != "to_f64") {
            for &operand in operands(r) {
                let result = result(r, operand);
                let text = r.wgsl_function("row_value", operand, result);
                let mut args = Vec::new();
                for k in 0..r.arity {
                    let t = if r.sig == Sig::Select && k == 0 { "u32" } else { operand.wgsl() };
                    args.push(format!("bitcast<{t}>(u[1].x)"));
                }
                args.extend((0..r.floats).map(|_| "bitcast<f32>(u[0].y)".to_string()));
                args.extend((0..r.ints).map(|_| "u[0].z, u[0].w".to_string()));
                args.extend(r.uses_index().then(|| "i".to_string()));
                let mut e = Emit::new(kernel::find("map").unwrap());
                e.add_function("row_value", &text);
                e.set_hook("epilogue", &format!("    y[i] = row_value({});", args.join(", ")));
                let bindings = [BindingText { name: "y".into(), element: result.wgsl().into(), access: Access::ReadWrite }];
                let module = e.finish(&bindings, 8).unwrap();
                assert!(!text.contains("!="), "{}: `!=` is banned", r.name);
                if let Err(m) = valid(&module) {
                    panic!("{} on {operand}: {m}\n{module}", r.name);
                }
            }
        }
    }

    #[test]
    fn the_libraries_are_valid_together() {
        let text = format!("{}\n{}", include_str!("../../../shaders/math.wgsl"), include_str!("../../../shaders/philox.wgsl"));
        if let Err(m) = valid(&text) {
            panic!("{m}");
        }
    }
}
