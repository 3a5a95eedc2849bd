//! Fusion: which operations are one dispatch.

use super::{counted, devices, measured, tensor};
use wgrad::device::Caps;
use wgrad::graph::watch;
use wgrad::ops::Conv2dOptions;
use wgrad::ops::rows::{Row, Sig, all, row};
use wgrad::{Device, Tensor, rng};

/// The dispatches of computing `t`.
fn dispatches(device: &Device, t: &Tensor) -> u64 {
    counted(device, || t.to_vec::<f32>().unwrap()).1.dispatches
}

#[test]
fn a_scaled_and_shifted_relu_times_its_input_is_one_dispatch() {
    for device in devices() {
        let [x, a, b] = [1, 2, 3].map(|n| tensor(n, &[50, 7], &device));
        assert_eq!(dispatches(&device, &((&x * &a + &b).relu() * &x)), 1, "{device:?}");
        // The same with numbers, and with operands that broadcast.
        assert_eq!(dispatches(&device, &((&x * 2.0 + 0.5).relu() * &x)), 1, "{device:?}");
        let (c, r) = (tensor(4, &[50, 1], &device), tensor(5, &[7], &device));
        assert_eq!(dispatches(&device, &((&x * &c + &r).relu() * &x)), 1, "{device:?}");
    }
}

/// Rows from floats to floats, with one or two inputs.
fn float_rows() -> Vec<&'static Row> {
    all().filter(|r| matches!(r.sig, Sig::Float | Sig::Number) && (1..=2).contains(&r.arity) && r.ints == 0).collect()
}

fn floats(row: &'static Row) -> &'static [f64] {
    row.samples.first().copied().unwrap_or(&[])
}

/// `row` over `x`, and `other` where it takes two inputs.
fn apply(row: &'static Row, x: &Tensor, other: &Tensor) -> Tensor {
    let inputs = [x, other];
    Tensor::apply_row(row, floats(row), &inputs[..row.arity]).unwrap()
}

#[test]
fn a_hundred_random_chains_are_one_dispatch_each() {
    let rows = float_rows();
    for device in devices() {
        let shapes: [&[usize]; 6] = [&[24, 10], &[24, 10], &[10], &[24, 1], &[1], &[24, 10]];
        let leaves: Vec<Tensor> = shapes.iter().enumerate().map(|(n, s)| tensor(n as u64, s, &device)).collect();
        let x = tensor(9, &[24, 10], &device);
        for chain in 0..100u64 {
            let mut draws = (0..).map(|i| rng::word(chain, 1, i) as usize);
            let mut pick = |n: usize| draws.next().unwrap() % n;
            let length = 3 + pick(10);
            let mut values = vec![x.clone()];
            let mut names = Vec::new();
            for _ in 0..length {
                let row = rows[pick(rows.len())];
                // Six leaves, the first input and the result: eight bindings. Earlier values of the chain cost none.
                let n = pick(leaves.len() + values.len());
                let other = leaves.get(n).unwrap_or_else(|| &values[n - leaves.len()]).clone();
                let next = apply(row, values.last().unwrap(), &other);
                names.push(row.name);
                values.push(next);
            }
            let last = values.pop().unwrap();
            drop(values);
            assert_eq!(dispatches(&device, &last), 1, "{device:?} chain {chain}: {names:?}");
        }
    }
}

/// Any two rows behind what `make` makes: every pair runs on the CPU, and is lowered for a GPU, which must need one launch. On a GPU, where each pair is a
/// kernel to compile, every row of a quarter of the table runs (the four roots share them), once in front and once behind.
fn followed_by_any_two_rows(quarter: usize, make: impl Fn(&Device) -> Tensor) {
    let rows = float_rows();
    for device in devices() {
        let root = make(&device);
        assert_eq!(dispatches(&device, &root), 1, "{device:?}: alone");
        let other = tensor(77, root.shape(), &device);
        let check = |first: &'static Row, second: &'static Row| {
            let y = apply(second, &apply(first, &make(&device), &other), &other);
            assert_eq!(dispatches(&device, &y), 1, "{device:?}: {} and {}", first.name, second.name);
        };
        if device.is_gpu() {
            let few: Vec<_> = rows.iter().skip(quarter).step_by(4).collect();
            few.iter().zip(few.iter().cycle().skip(1)).for_each(|(first, second)| check(first, second));
            continue;
        }
        let mut pairs = 0;
        for first in &rows {
            for second in &rows {
                let (_, seen) = watch(&Caps::floor(), || check(first, second));
                let launches: Vec<usize> = seen.runs.iter().map(|r| r.program.launches.len()).collect();
                assert_eq!(launches, [1], "lowered for a GPU: {} and {}", first.name, second.name);
                pairs += 1;
            }
        }
        measured(&device, format!("{pairs} pairs, each one dispatch, and one launch as lowered for a GPU"));
    }
}

#[test]
fn matmul_and_any_two_rows_are_one_dispatch() {
    followed_by_any_two_rows(0, |d| tensor(1, &[9, 20], d).matmul(&tensor(2, &[20, 11], d)));
}

#[test]
fn linear_and_any_two_rows_are_one_dispatch() {
    followed_by_any_two_rows(1, |d| tensor(1, &[9, 20], d).linear(&tensor(2, &[11, 20], d), Some(&tensor(3, &[11], d))));
}

#[test]
fn conv2d_and_any_two_rows_are_one_dispatch() {
    let options = Conv2dOptions { padding: [1, 1], ..Default::default() };
    followed_by_any_two_rows(2, |d| tensor(1, &[2, 3, 8, 8], d).conv2d(&tensor(2, &[5, 3, 3, 3], d), Some(&tensor(3, &[5], d)), options));
}

#[test]
fn sum_and_any_two_rows_are_one_dispatch() {
    followed_by_any_two_rows(3, |d| tensor(1, &[9, 20], d).sum(&[1], false));
}

#[test]
fn the_bindings_of_a_long_chain_never_exceed_the_devices() {
    for device in devices() {
        // Twenty leaves: more than a kernel can bind, so the chain is cut, and nothing else happens to it.
        let leaves: Vec<Tensor> = (0..20).map(|n| tensor(n, &[24], &device)).collect();
        let y = leaves[1..].iter().fold(leaves[0].clone(), |y, l| &y + l);
        let want: Vec<f32> =
            leaves[1..].iter().fold(leaves[0].to_vec().unwrap(), |y: Vec<f32>, l| y.iter().zip(l.to_vec::<f32>().unwrap()).map(|(a, b)| a + b).collect());
        let (got, did) = counted(&device, || y.to_vec::<f32>().unwrap());
        assert_eq!(got, want, "{device:?}");
        assert!((3..=5).contains(&did.dispatches), "{device:?}: {} dispatches", did.dispatches);
    }
}

#[test]
fn rows_that_only_a_later_row_reads_join_its_kernel() {
    for device in devices() {
        let (x, z) = (tensor(1, &[6, 6], &device), tensor(2, &[6, 7], &device));
        let sum = || z.sum(&[1], true);
        // The exponential is recorded before the sum, and runs after it.
        let joined = || {
            let e = x.exp();
            let s = sum();
            &e * &s
        };
        assert_eq!(dispatches(&device, &joined()), 2, "{device:?}");
        // Seen through a transpose as well, it needs a buffer.
        let both = || {
            let e = (&x * 1.0).exp();
            let s = sum();
            &e * &s + &e.t()
        };
        let (e, s) = (x.exp().to_vec::<f32>().unwrap(), sum().to_vec::<f32>().unwrap());
        let want: Vec<f32> = (0..36).map(|i| e[i] * s[i / 6] + e[i % 6 * 6 + i / 6]).collect();
        let got = both().to_vec::<f32>().unwrap();
        assert!(got.iter().zip(&want).all(|(g, w)| (g - w).abs() < 1e-5), "{device:?}: {got:?}");
    }
}

#[test]
fn every_row_of_the_tables_is_found_by_its_name() {
    assert!(all().all(|r| std::ptr::eq(row(r.name), r)));
}
