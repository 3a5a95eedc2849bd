//! Tensors of halves: the table of operations again, stored in half the memory, on every device.

use crate::common;
use crate::op_table::{Case, Lay, lays, op_cases, row_cases};
use crate::ops::{adapter, none, walk_in};
use wgrad::tensor::{DType, F16};
use wgrad::{Device, Result, Tensor};

fn cases() -> Vec<Case> {
    row_cases().into_iter().chain(op_cases()).filter(|c| !c.host_only).collect()
}

fn walk(device: &Device, lays: impl Fn(&Case) -> Vec<Lay>) -> Vec<String> {
    walk_in(DType::F16, &cases(), device, lays)
}

#[test]
fn the_table_in_halves_on_the_cpu() {
    none("differences", &walk(&common::fast(), lays));
}

/// Windows at odd places where a case has room for them, and else as it comes.
fn odd(case: &Case) -> Vec<Lay> {
    if lays(case).len() > 1 { vec![Lay::Sliced] } else { vec![Lay::Contiguous] }
}

#[test]
fn the_table_in_halves_on_the_gpu() {
    let Some(device) = adapter(common::gpu(), cases().len()) else { return };
    // Rows read all layouts by the same code; an operation has kernels that read four at once.
    none("differences", &walk(&device, |c| if c.ulp.is_some() { odd(c) } else { [&odd(c)[..], &[Lay::Contiguous]].concat() }));
}

#[test]
fn the_table_in_halves_packed_on_a_floor_device() {
    let Some(device) = adapter(common::floor(), cases().len()) else { return };
    none("differences", &walk(&device, odd));
}

#[test]
fn products_of_halves_in_kernels_for_hardware() {
    let Some(device) = adapter(common::hardware(), 1) else { return };
    let products = |c: &Case| matches!(c.op, "matmul" | "linear" | "conv2d" | "sum");
    let plain = |c: &Case| lays(c).into_iter().filter(|l| matches!(l, Lay::Contiguous | Lay::Transposed)).collect();
    none("differences", &walk(&device, |c| if products(c) { plain(c) } else { Vec::new() }));
}

#[test]
fn halves_go_to_a_device_and_come_back() -> Result<()> {
    let Some(gpu) = adapter(common::gpu(), 1) else { return Ok(()) };
    for device in [common::fast(), common::definition(), gpu] {
        for n in [1usize, 2, 3, 8, 1001] {
            let values: Vec<F16> = (0..n).map(|i| F16::from(i as f32 * 0.37 - 5.0)).collect();
            let t = Tensor::new(values.clone(), [n], &device)?;
            assert_eq!(t.to_vec::<F16>()?, values);
            assert_eq!(t.to_dtype(DType::F32).to_vec::<f32>()?, values.iter().map(|h| h.to_f32()).collect::<Vec<_>>());
            assert_eq!(t.to_dtype(DType::F32).to_dtype(DType::F16).to_vec::<F16>()?, values);
        }
        // Every rounding, and both ends: through memory, and through rows that go on with the value.
        let hard = [1.0f32, 1.0 + 1.0 / 2048.0, 1.0 + 3.0 / 2048.0, 65519.9, 65520.0, -1e9, 3e-8, 2.9e-8, 6.1e-5, f32::INFINITY, f32::NAN, -0.0];
        let want: Vec<F16> = hard.iter().map(|&x| F16::from(x)).collect();
        for length in [hard.len(), 7, 1] {
            let t = Tensor::new(&hard[..length], [length], &device)?.to_dtype(DType::F16);
            let same = |got: Vec<F16>| got.iter().zip(&want).all(|(g, w)| g.0 == w.0 || g.to_f32().is_nan() && w.to_f32().is_nan());
            assert!(same((&t * 1.0).to_vec()?), "{device:?} rows of {length}");
            assert!(same(t.to_vec()?), "{device:?} {length}: {:?}", t.to_vec::<F16>()?);
        }
    }
    Ok(())
}
