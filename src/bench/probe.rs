//! The PROBES table: what `wgrad bench` measures, by family.

use super::job::{Job, Once, Verified, Verify};
use super::kernels::{self, Conv, Run};
use super::peaks::{self, Traffic};
use super::{check, costs, data, system, training};
use crate::device::Device;
use crate::error::{Error, Result, nearest};
use crate::graph::{self, MatmulPrecision};
use crate::tensor::Data;
use std::cell::RefCell;
use std::rc::Rc;

/// A row: one thing to measure, in a process of its own.
pub struct Probe {
    /// `family/what`.
    pub name: String,
    /// One line: what a run is.
    pub about: String,
    /// Operations and bytes of its one dispatch, where it is one: what would be long is not tried.
    pub size: Option<(f64, f64)>,
    /// The job on that device; with the bits of results that were found right before, where there are some.
    make: Box<MakeJob>,
}

type MakeJob = dyn Fn(&Device, Option<String>) -> Result<Job>;

impl Probe {
    /// The part of its name before the `/`.
    pub fn family(&self) -> &str {
        family(&self.name)
    }

    /// The job on that device. Results with the bits `known` were found right by an earlier process.
    pub fn job(&self, device: &Device, known: Option<String>) -> Result<Job> {
        (self.make)(device, known)
    }
}

/// The part of a probe's name before the `/`.
pub fn family(name: &str) -> &str {
    name.split('/').next().unwrap_or_default()
}

/// How a kernel's results are checked.
#[derive(Clone)]
enum Check {
    /// Against the definition; their sums have so many terms.
    Definition(Vec<usize>),
    /// A product `[m, k] x [k, n]` that would take the definition minutes, of factors rounded to numbers with this distance from 1 to the next.
    Product([usize; 3], f64),
}

/// How a kernel is made ready on a device.
type Make = Rc<dyn Fn(&Device) -> Result<Run>>;

/// The job of a kernel.
fn kernel_job(make: &Make, check: &Check, (flops, bytes): (f64, f64), device: &Device, known: Option<String>) -> Result<Job> {
    let run = Rc::new(RefCell::new(make(device)?));
    let first = bits(&check::values(&run.borrow_mut()()?)?);
    let again = run.clone();
    let (make, check, on) = (make.clone(), check.clone(), device.clone());
    let once = Once::Work(Box::new(move || {
        // Held until it is computed: what nobody holds is not computed.
        let results = run.borrow_mut()()?;
        graph::flush(&on)?;
        drop(results);
        Ok(())
    }));
    let verify: Verify = Box::new(move || {
        let got = check::values(&again.borrow_mut()()?)?;
        let bits = bits(&got);
        if bits != first {
            return Err(Error::internal("wrong result: not the same bits after the timing as before"));
        }
        if known.as_ref() == Some(&bits) {
            return Ok(Verified { bits });
        }
        match check {
            Check::Definition(terms) => {
                let want = check::values(&make(&check::definition()?)?()?)?;
                check::compare("bench", &got, &want, &terms)?;
            }
            Check::Product([m, k, n], rounded) => {
                let [Data::F32(got)] = &got[..] else { return Err(Error::internal("bench: a product is one tensor of f32")) };
                check::product(got, &data::uniform(m * k, 1), &data::uniform(k * n, 2), [m, k, n], rounded)?;
            }
        }
        Ok(Verified { bits })
    });
    Ok(Job { once, parts: 1.0, flops, bytes, counted: true, verify })
}

fn bits(values: &[Data]) -> String {
    system::hash(values.iter().flat_map(Data::to_bytes))
}

fn plain(name: &str, about: impl Into<String>, make: impl Fn(&Device) -> Result<Job> + 'static) -> Probe {
    Probe { name: name.into(), about: about.into(), size: None, make: Box::new(move |d, _| make(d)) }
}

/// A kernel of one dispatch, or a few.
fn kernel(name: String, about: String, flops: f64, bytes: f64, terms: Vec<usize>, make: impl Fn(&Device) -> Result<Run> + 'static) -> Probe {
    checked(name, about, (flops, bytes), Check::Definition(terms), make)
}

fn checked(name: String, about: String, size: (f64, f64), check: Check, make: impl Fn(&Device) -> Result<Run> + 'static) -> Probe {
    let make: Make = Rc::new(make);
    Probe { name, about, size: Some(size), make: Box::new(move |d, known| kernel_job(&make, &check, size, d, known)) }
}

/// Every probe, the most telling of each kind first where a budget may end the list.
pub fn probes() -> Vec<Probe> {
    let mut all = vec![
        plain("peak/fma", "multiply-adds on registers", peaks::fma),
        plain("peak/read", "a large buffer read", |d| peaks::memory(Traffic::Read, d)),
        plain("peak/write", "a large buffer written", |d| peaks::memory(Traffic::Write, d)),
        plain("peak/copy", "a large buffer copied, bytes of both", |d| peaks::memory(Traffic::Copy, d)),
        plain("cost/launch", "each of 100 small launches in a plan", costs::launch),
        plain("cost/step", "a small operation recorded, run and waited for", costs::step),
        plain("cost/record", "a node recorded, 1000 in a row", costs::record),
        plain("cost/replay", "host time of each of 100 launches of a plan", costs::replay),
        plain("cost/read", "one number read back", costs::read),
        plain("cost/download", "64 MiB to the host", costs::download),
        plain("cost/upload", "64 MiB from the host", costs::upload),
        plain("train/mlp", "a step of 784-256-128-10 with 64 samples", |d| training::job("mlp_train", d)),
        plain("train/lenet", "a step of LeNet-5 with 64 images", |d| training::job("lenet_train", d)),
        plain("train/resnet", "a step of 3 residual blocks with 32 images", |d| training::job("resnet_train", d)),
    ];
    all.extend(elementwise());
    all.extend(matmul());
    all.extend(conv());
    all.extend(rows());
    all.extend(others());
    all
}

fn elementwise() -> Vec<Probe> {
    let mut all: Vec<Probe> = [("64Ki", 1 << 16), ("1Mi", 1 << 20), ("4Mi", 1 << 22), ("16Mi", 1 << 24)]
        .into_iter()
        .map(|(text, n)| {
            let (flops, bytes) = (4.0 * n as f64, 8.0 * n as f64);
            kernel(format!("elementwise/{text}"), format!("relu(1.5 x + 0.25) x of {text} elements"), flops, bytes, vec![1], move |d| {
                kernels::elementwise(n, d)
            })
        })
        .collect();
    let n = 1usize << 22;
    let size = (n as f64, 12.0 * n as f64);
    all.push(kernel("elementwise/add_4Mi".into(), "a + b of 4Mi elements".into(), size.0, size.1, vec![1], move |d| kernels::add(n, d)));
    all
}

fn matmul() -> Vec<Probe> {
    let size = |z: usize, m: usize, k: usize, n: usize| (2.0 * (z * m * k * n) as f64, 4.0 * (z * (m * k + k * n + m * n)) as f64);
    let mut all = Vec::new();
    for n in [64usize, 128, 256, 512, 1024, 2048, 4096] {
        // Above this size the definition takes minutes.
        let check = if n > 1024 { Check::Product([n; 3], 0.0) } else { Check::Definition(vec![n]) };
        all.push(checked(format!("matmul/{n}"), format!("[{n}, {n}] x [{n}, {n}]"), size(1, n, n, n), check, move |d| kernels::matmul(n, n, n, d)));
    }
    for (name, about, precision, rounded) in
        [("high", "as three products of f16", MatmulPrecision::High, 0.0), ("medium", "of factors rounded to f16", MatmulPrecision::Medium, 2f64.powi(-10))]
    {
        for n in [1024usize, 4096] {
            let make = move |d: &Device| kernels::matmul_fast(n, precision, d);
            all.push(checked(
                format!("matmul/{n}_{name}"),
                format!("[{n}, {n}] x [{n}, {n}], {about}"),
                size(1, n, n, n),
                Check::Product([n; 3], rounded),
                make,
            ));
        }
    }
    for [m, k, n] in [[1usize, 1024, 1024], [8, 1024, 1024], [64, 784, 128], [1024, 64, 1024], [64, 8192, 64]] {
        let (flops, bytes) = size(1, m, k, n);
        all.push(kernel(format!("matmul/{m}x{k}x{n}"), format!("[{m}, {k}] x [{k}, {n}]"), flops, bytes, vec![k], move |d| kernels::matmul(m, k, n, d)));
    }
    let (flops, bytes) = size(1, 512, 512, 512);
    all.push(kernel("matmul/512_tn".into(), "[512, 512]T x [512, 512]".into(), flops, bytes, vec![512], |d| kernels::matmul_tn(512, 512, 512, d)));
    all.push(kernel("matmul/512_nt".into(), "[512, 512] x [512, 512]T".into(), flops, bytes, vec![512], |d| kernels::matmul_nt(512, 512, 512, d)));
    let (flops, bytes) = size(32, 128, 128, 128);
    let batch = |d: &Device| kernels::matmul_batch(32, 128, 128, 128, d);
    all.push(kernel("matmul/32x128".into(), "32 of [128, 128] x [128, 128]".into(), flops, bytes, vec![128], batch));
    all
}

fn conv() -> Vec<Probe> {
    // In this order an estimate by those before is near.
    let shapes = [(64, 64, 16, 1), (16, 16, 32, 3), (32, 64, 16, 3), (3, 32, 32, 3)];
    let convs = shapes.map(|(inputs, outputs, size, kernel)| Conv { inputs, outputs, size, kernel });
    let name = |c: &Conv| format!("conv/{}x{}x{}_{}x{}", c.inputs, c.outputs, c.size, c.kernel, c.kernel);
    let about = |c: &Conv| format!("[32, {}, {s}, {s}] to {} channels by {k} x {k}", c.inputs, c.outputs, s = c.size, k = c.kernel);
    let mut all = Vec::new();
    for c in convs {
        all.push(kernel(name(&c), about(&c), c.flops(), c.bytes(), vec![c.terms()], move |d| c.forward(d)));
        let gradients = format!("{} with its gradients", about(&c));
        let probe = kernel(format!("{}_grad", name(&c)), gradients, 3.0 * c.flops(), 3.0 * c.bytes(), c.backward_terms(), move |d| c.backward(d));
        // Three dispatches of that size at least.
        all.push(Probe { size: Some((c.flops(), c.bytes())), ..probe });
    }
    all
}

/// What works on rows: reductions and softmax.
fn rows() -> Vec<Probe> {
    let mut all = Vec::new();
    for (rows, columns) in [(4096usize, 1024usize), (64, 65_536), (262_144, 16)] {
        let n = (rows * columns) as f64;
        let (name, about) = (format!("reduce/rows_{rows}x{columns}"), format!("sums of the rows of [{rows}, {columns}]"));
        all.push(kernel(name, about, n, 4.0 * n, vec![columns], move |d| kernels::row_sums(rows, columns, d)));
    }
    let n = 4096.0 * 1024.0;
    let columns = |d: &Device| kernels::column_sums(4096, 1024, d);
    all.push(kernel("reduce/columns_4096x1024".into(), "sums of the columns of [4096, 1024]".into(), n, 4.0 * n, vec![4096], columns));
    for (rows, columns) in [(512usize, 1024usize), (8192, 64), (64, 16_384)] {
        let n = (rows * columns) as f64;
        let (name, about) = (format!("softmax/{rows}x{columns}"), format!("softmax of the rows of [{rows}, {columns}]"));
        all.push(kernel(name, about, 5.0 * n, 8.0 * n, vec![columns], move |d| kernels::softmax(rows, columns, d)));
    }
    all
}

fn others() -> Vec<Probe> {
    let images = |c: usize, s: usize| (32 * c * s * s) as f64;
    let n = images(16, 32);
    let norm = |d: &Device| kernels::batch_norm(16, 32, d);
    let terms = 32 * 32 * 32;
    vec![
        kernel("norm/batch_16x32".into(), "batch norm in training, [32, 16, 32, 32]".into(), 8.0 * n, 12.0 * n, vec![terms], norm),
        kernel("pool/max_16x32".into(), "the largest of each 2 x 2 of [32, 16, 32, 32]".into(), n, 5.0 * n, vec![1], |d| kernels::max_pool(16, 32, d)),
        kernel("index/rows_16384x64".into(), "16384 rows of [65536, 64]".into(), 0.0, 8.0 * 16_384.0 * 64.0, vec![1], |d| {
            kernels::gather_rows(65_536, 64, 16_384, d)
        }),
        kernel("loss/1024x1000".into(), "cross entropy of [1024, 1000] and its gradient".into(), 8.0 * 1_024_000.0, 8.0 * 1_024_000.0, vec![1000], |d| {
            kernels::cross_entropy(1024, 1000, d)
        }),
        plain("optim/adam_1Mi", "Adam over 1Mi parameters, their gradient brought to its place", |d| costs::adam(1 << 20, d)),
    ]
}

/// The probes of these names or families, in the order of the table; all of them where no name is given.
///
/// # Errors
/// A name that is neither.
pub fn select(names: &[String]) -> Result<Vec<Probe>> {
    let all = probes();
    for name in names {
        if !all.iter().any(|p| p.name == *name || p.family() == name) {
            let mut known: Vec<&str> = all.iter().map(Probe::family).collect();
            known.dedup();
            let near = nearest(name, all.iter().map(|p| p.name.as_str()).chain(known.iter().copied())).map(|n| format!("did you mean {n}? "));
            let help = format!("{}the families are: {}; --list shows every probe", near.unwrap_or_default(), known.join(", "));
            return Err(Error::invalid(format!("bench: there is no probe {name}")).help(help));
        }
    }
    Ok(all.into_iter().filter(|p| names.is_empty() || names.iter().any(|n| *n == p.name || n == p.family())).collect())
}
