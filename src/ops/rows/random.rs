//! Rows without stored inputs: constants, counting, random numbers. They are computed again wherever they are used; random numbers that a handle names are stored.
//!
//! A random row has the integer slots (seed, offset); src/rng.rs says which bits belong to which element. Its `_seeded` twin, which stands in for it
//! under vmap, takes each model's seed as an input (u32: the low half; the high half is 0) and the slots (offset, period), `period` being the number of
//! elements of one model: the counter is the element's index in its own model. Both give the same bits for the same seed, also in their f32 blocks.

use super::{Row, RowArgs, Sig};
use crate::rng::{four, normal, pair, uniform, word};
use crate::tensor::DType;

/// What sources have in common.
const SOURCE: Row = Row {
    name: "",
    doc: "",
    arity: 0,
    floats: 0,
    ints: 0,
    sig: Sig::Source(DType::F32),
    wgsl: "",
    value: |_| 0.0,
    block: None,
    slopes: &[],
    domain: &[],
    kinks: &[],
    samples: &[&[]],
    ulp: 0.0,
};

/// What random rows have in common.
const RANDOM: Row = Row { ints: 2, ..SOURCE };

/// What random rows under vmap have in common.
const SEEDED: Row = Row { arity: 1, ints: 2, sig: Sig::Cast(DType::F32), slopes: &[super::Slope::Zero], domain: &[(0.0, 1e6)], ..SOURCE };

pub(super) static TABLE: &[Row] = &[
    // The float slot, everywhere.
    Row {
        name: "fill",
        doc: "one value",
        floats: 1,
        wgsl: "p0",
        value: |a| a.p[0],
        block: Some(|_, p, _, _, out| out.fill(p[0])),
        samples: &[&[1.5]],
        ..SOURCE
    },
    // start + i step, in wrapping 32-bit arithmetic; slots (start, step).
    Row {
        name: "iota",
        doc: "start + step i",
        ints: 2,
        sig: Sig::Source(DType::I32),
        wgsl: "bitcast<i32>(q0 + i * q1)",
        value: |a| f64::from((a.q[0] as u32).wrapping_add((a.i as u32).wrapping_mul(a.q[1] as u32)) as i32),
        ..SOURCE
    },
    // Uniform in [0, 1).
    Row {
        name: "uniform",
        doc: "uniform in [0, 1)",
        wgsl: "uniform01(philox_word(vec2<u32>(q0, q0h), i, vec2<u32>(q1, q1h)))",
        value: |a| f64::from(uniform(word(a.q[0], a.q[1], a.i))),
        block: Some(|_, _, q, first, out| words(q, first, out, uniform)),
        ..RANDOM
    },
    Row {
        name: "uniform_seeded",
        doc: "uniform in [0, 1), of one model's seed",
        wgsl: "uniform01(philox_word(vec2<u32>(x, 0u), i % q1, vec2<u32>(q0, q0h)))",
        value: |a| f64::from(uniform(seeded_word(a))),
        block: Some(|x, _, q, first, out| seeded(x[0], q, first, out, 4, |w, k| uniform(w[k]))),
        ..SEEDED
    },
    // Standard normal.
    Row {
        name: "normal",
        doc: "standard normal",
        wgsl: "normal01(philox_pair(vec2<u32>(q0, q0h), i, vec2<u32>(q1, q1h)))",
        value: |a| normal(pair(a.q[0], a.q[1], a.i)),
        block: Some(|_, _, q, first, out| out.iter_mut().enumerate().for_each(|(n, o)| *o = normal(pair(q[0], q[1], first + n)) as f32)),
        ulp: 8.0,
        ..RANDOM
    },
    Row {
        name: "normal_seeded",
        doc: "standard normal, of one model's seed",
        wgsl: "normal01(philox_pair(vec2<u32>(x, 0u), i % q1, vec2<u32>(q0, q0h)))",
        value: |a| normal(pair(seed(a), a.q[0], a.i % a.q[1] as usize)),
        block: Some(|x, _, q, first, out| seeded(x[0], q, first, out, 2, |w, k| normal([w[2 * k], w[2 * k + 1]]) as f32)),
        ulp: 8.0,
        ..SEEDED
    },
    // Dropout's mask: 0 with probability p, else 1 / (1 - p).
    Row {
        name: "bernoulli",
        doc: "0 with probability p, else 1 / (1 - p)",
        floats: 1,
        wgsl: "select(0.0, 1.0 / (1.0 - p0), uniform01(philox_word(vec2<u32>(q0, q0h), i, vec2<u32>(q1, q1h))) >= p0)",
        value: |a| keep(word(a.q[0], a.q[1], a.i), a.p[0]),
        block: Some(|_, p, q, first, out| {
            let p = f64::from(p[0]);
            words(q, first, out, |w| keep(w, p) as f32);
        }),
        samples: &[&[0.1], &[0.5], &[0.0], &[1.0]],
        ulp: 4.0,
        ..RANDOM
    },
    Row {
        name: "bernoulli_seeded",
        doc: "0 with probability p, else 1 / (1 - p), of one model's seed",
        floats: 1,
        wgsl: "select(0.0, 1.0 / (1.0 - p0), uniform01(philox_word(vec2<u32>(x, 0u), i % q1, vec2<u32>(q0, q0h))) >= p0)",
        value: |a| keep(seeded_word(a), a.p[0]),
        block: Some(|x, p, q, first, out| {
            let p = f64::from(p[0]);
            seeded(x[0], q, first, out, 4, |w, k| keep(w[k], p) as f32);
        }),
        samples: &[&[0.1], &[0.5], &[0.0], &[1.0]],
        ulp: 4.0,
        ..SEEDED
    },
];

/// `out[n] = f(word of element first + n)`, with one call for four elements.
fn words(q: &[u64], first: usize, out: &mut [f32], f: impl Fn(u32) -> f32) {
    let (seed, offset) = (q[0], q[1]);
    let head = ((4 - first % 4) % 4).min(out.len());
    let (head, rest) = out.split_at_mut(head);
    let start = first + head.len();
    head.iter_mut().enumerate().for_each(|(n, o)| *o = f(word(seed, offset, first + n)));
    for (n, run) in rest.chunks_mut(4).enumerate() {
        let w = four(seed, offset, start / 4 + n);
        run.iter_mut().zip(w).for_each(|(o, w)| *o = f(w));
    }
}

/// The same for seeded rows: `f(words, k)` for the k-th of the `each` elements that share a call. `seeds` holds each element's seed as the float with
/// its bits: a number in f32 would lose the low ones.
fn seeded(seeds: &[f32], q: &[u64], first: usize, out: &mut [f32], each: usize, f: impl Fn([u32; 4], usize) -> f32) {
    let (offset, period) = (q[0], q[1] as usize);
    let mut held = None;
    let mut words = [0; 4];
    for (n, (o, seed)) in out.iter_mut().zip(seeds).enumerate() {
        let i = (first + n) % period;
        let call = (seed.to_bits(), i / each);
        if held != Some(call) {
            words = four(u64::from(call.0), offset, call.1);
            held = Some(call);
        }
        *o = f(words, i % each);
    }
}

/// The seed that a seeded row's input holds.
fn seed(a: &RowArgs<'_, f64>) -> u64 {
    u64::from(a.x[0] as u32)
}

fn seeded_word(a: &RowArgs<'_, f64>) -> u32 {
    word(seed(a), a.q[0], a.i % a.q[1] as usize)
}

/// The mask's value. The threshold is rounded to f32 first: which elements are kept is the same on every device.
fn keep(word: u32, p: f64) -> f64 {
    if uniform(word) >= p as f32 { 1.0 / (1.0 - p) } else { 0.0 }
}
