//! The table of operations as the tests walk it: rows and operations as one list of cases, their inputs in every layout, and what comes out of them.

use crate::common::Draw;
use wgrad::autograd::{GradOptions, grad_with, vmap_seeded};
use wgrad::ops::rows::{self, Row, Sig, Slope};
use wgrad::ops::{self, Arg, Misuse, Order, Run, Sample};
use wgrad::tensor::{DType, Data, Shape};
use wgrad::{Device, Generator, Result, Tensor};

/// One sample of one operation.
pub struct Case {
    /// The operation, and the sample's label.
    pub name: String,
    pub op: &'static str,
    pub inputs: Vec<Arg>,
    pub run: Run,
    pub terms: usize,
    pub order: Order,
    /// For rows: their stated bound, in place of that from the terms.
    pub ulp: Option<f64>,
    /// Whether only the CPU has the element type.
    pub host_only: bool,
}

impl Case {
    fn new(op: &'static str, order: Order, s: Sample) -> Case {
        Case { name: format!("{op} ({})", s.label), op, inputs: s.inputs, run: s.run, terms: s.terms, order, ulp: None, host_only: false }
    }

    /// A misuse as a case, so that its inputs are drawn.
    pub fn of_misuse(op: &'static str, n: usize, m: &Misuse) -> Case {
        let never = |_: &[Tensor]| Ok(Vec::new());
        Case::new(op, Order::Zero, Sample::new(format!("misuse {n}"), m.inputs.clone(), 1, never))
    }

    /// `k` of the error bound `k * eps * scale` for gradients.
    pub fn k(&self) -> f64 {
        (4.0 + 2.0 * (self.terms as f64).sqrt()).max(self.ulp.map_or(0.0, |u| 2.0 * u + 4.0))
    }

    /// The same for results.
    pub fn k_forward(&self) -> f64 {
        self.ulp.unwrap_or_else(|| self.k())
    }
}

/// Every sample of every operation that is not a row.
pub fn op_cases() -> Vec<Case> {
    ops::all().iter().flat_map(|e| (e.samples)().into_iter().map(|s| Case::new(e.name, e.order, s))).collect()
}

/// How often a row can be differentiated: as often as what it names as its slope, and once more.
fn order(row: &Row) -> Order {
    let slope = |s: &Slope| match s {
        Slope::None => Order::Zero,
        Slope::Row(name) if rows::row(name).slopes.iter().any(|s| matches!(s, Slope::None)) => Order::First,
        _ => Order::Any,
    };
    let differentiable = matches!(row.sig, Sig::Float | Sig::Number | Sig::Select | Sig::Cast(DType::F16 | DType::F32 | DType::F64));
    let orders: Vec<Order> = row.slopes.iter().map(slope).collect();
    let has = |o: Order| orders.contains(&o);
    if !differentiable || has(Order::Zero) {
        Order::Zero
    } else if has(Order::First) {
        Order::First
    } else {
        Order::Any
    }
}

/// The element types that a row is sampled in: floats, integers, truth values.
fn kinds(row: &Row) -> &'static str {
    match row.sig {
        Sig::Float | Sig::Source(_) => "f",
        Sig::Number | Sig::Compare | Sig::Select => "fi",
        Sig::Cast(DType::Bool) => "fi",
        Sig::Cast(_) => "fib",
        Sig::Logic => "b",
    }
}

/// Samples of all rows.
pub fn row_cases() -> Vec<Case> {
    rows::all().flat_map(|row| if row.arity == 0 || row.ints > 0 { sources(row) } else { of_row(row) }).collect()
}

fn of_row(row: &'static Row) -> Vec<Case> {
    let mut cases = Vec::new();
    for kind in kinds(row).chars() {
        for (n, floats) in row.samples.iter().enumerate() {
            // Exact in f32: the definition then has the numbers that the kernels have.
            let exact = |p: f64| if kind == 'f' { f64::from(p as f32) } else { p.trunc() };
            let floats: Vec<f64> = floats.iter().map(|&p| exact(p)).collect();
            let shapes: &[&[usize]] = if n == 0 && kind == 'f' { &[&[5, 7], &[1], &[3, 0]] } else { &[&[5, 7]] };
            for &shape in shapes {
                let arg = |k: usize| match (kind, row.sig) {
                    (_, Sig::Select) if k == 0 => Arg::bool(shape),
                    ('f', _) => Arg::Float { shape: shape.into(), low: row.domain[k].0, high: row.domain[k].1, kinks: row.kinks },
                    ('i', _) => Arg::int(shape, 4),
                    _ => Arg::bool(shape),
                };
                let inputs: Vec<Arg> = (0..row.arity).map(arg).collect();
                let label = format!("{kind}, {shape:?}, {floats:?}");
                let floats = floats.clone();
                let run = move |x: &[Tensor]| Ok(vec![Tensor::apply_row(row, &floats, &x.iter().collect::<Vec<_>>())?]);
                let case = Case::new(row.name, if kind == 'f' { order(row) } else { Order::Zero }, Sample::new(label, inputs, 1, run));
                // Integers come out exactly, and floats made of them are rounded once.
                let host_only = row.sig == Sig::Cast(DType::F64);
                cases.push(Case { ulp: Some(row.ulp), host_only, ..case });
            }
        }
    }
    cases
}

/// Rows that no input or an input of seeds feeds: through their public doors. The first input only says where.
fn sources(row: &'static Row) -> Vec<Case> {
    let like = |shape: &[usize]| vec![Arg::float(shape)];
    type Door = Box<dyn Fn(&[Tensor]) -> Result<Vec<Tensor>> + Send + Sync>;
    let seeded = |f: fn(&Tensor) -> Result<Tensor>| -> Door { Box::new(move |x| vmap_seeded(|x| Ok(vec![f(&x[0])?]), &[&x[0]], &[3, u32::MAX, 77])) };
    let door: Door = match row.name {
        "fill" => Box::new(|x| Ok(vec![x[0].full_like(0.75)])),
        "iota" => Box::new(|x| Ok(vec![Tensor::arange(35, x[0].device())?])),
        "uniform" => Box::new(|x| Ok(vec![Tensor::rand([5, 7], &Generator::restore(7, 1 << 33), x[0].device())?])),
        "normal" => Box::new(|x| Ok(vec![Tensor::randn([5, 7], &Generator::restore(7, 1 << 33), x[0].device())?])),
        "uniform_seeded" => seeded(|x| Tensor::rand([13], &Generator::new(0), x.device())),
        "normal_seeded" => seeded(|x| Tensor::randn([13], &Generator::new(0), x.device())),
        "bernoulli" => Box::new(|x| Ok(vec![x[0].dropout(0.3, true, &Generator::new(7))])),
        "bernoulli_seeded" => seeded(|x| Ok(x.dropout(0.3, true, &Generator::new(0)))),
        other => panic!("the row {other} has no sample: name its public door here"),
    };
    let shape: &[usize] = if row.name.ends_with("_seeded") { &[3, 13] } else { &[5, 7] };
    // Dropout multiplies its mask once more, and that has a gradient.
    let dropout = row.name.starts_with("bernoulli");
    let case = Case::new(row.name, if dropout { Order::Any } else { Order::Zero }, Sample::new("source", like(shape), 1, door));
    vec![Case { ulp: Some(row.ulp.max(if dropout { 2.0 } else { 0.0 })), ..case }]
}

/// How an input lies in its buffer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Lay {
    Contiguous,
    /// The last two dimensions the wrong way round.
    Transposed,
    /// A window of a larger tensor, at an odd place, around it what must not be read; the first dimension backwards.
    Sliced,
    /// One dimension repeated.
    Broadcast,
}

/// Operations that are not run over repeated values, and why.
const NOT_REPEATED: &[(&str, &str)] = &[
    ("var", "the variance of equal values is a rounding error, which no bound relative to it can hold"),
    ("batch_norm", "so it is here, and divided by its own root"),
];

const LAYS: [Lay; 4] = [Lay::Contiguous, Lay::Transposed, Lay::Sliced, Lay::Broadcast];

/// The layouts in which a case is run: all where its inputs have room for them.
pub fn lays(case: &Case) -> Vec<Lay> {
    let size = draw(case, 0).iter().map(|v| v.numbers.len()).max().unwrap_or(0);
    let repeated = !NOT_REPEATED.iter().any(|(op, _)| *op == case.op);
    LAYS.into_iter().filter(|l| *l == Lay::Contiguous || size > 1 && size < 5000 && (repeated || *l != Lay::Broadcast)).collect()
}

/// The values of an input.
#[derive(Clone, Debug)]
pub struct Values {
    pub shape: Shape,
    dtype: DType,
    pub numbers: Vec<f64>,
}

/// Draw the inputs of a case: the same for every device. Kinks are kept away from.
pub fn draw(case: &Case, model: u64) -> Vec<Values> {
    const GAP: f64 = 0.01;
    let one = |(n, arg): (usize, &Arg)| {
        let mut d = Draw::new(&case.name, model * 64 + n as u64);
        match arg {
            Arg::Float { shape, low, high, kinks } => {
                // A single value lies near the middle, where no result is small beside what it is made of.
                let (low, high) = if shape.numel() == 1 { (low + 0.51 * (high - low), low + 0.53 * (high - low)) } else { (*low, *high) };
                let mut number = || loop {
                    let v = d.float(low, high);
                    if kinks.iter().all(|k| (v - k).abs() > GAP) {
                        break v;
                    }
                };
                Values { shape: *shape, dtype: DType::F32, numbers: (0..shape.numel()).map(|_| number()).collect() }
            }
            Arg::Int { shape, high } => {
                Values { shape: *shape, dtype: DType::I32, numbers: (0..shape.numel()).map(|_| d.below(*high as usize) as f64).collect() }
            }
            Arg::Bool { shape } => Values { shape: *shape, dtype: DType::Bool, numbers: (0..shape.numel()).map(|_| d.below(2) as f64).collect() },
        }
    };
    case.inputs.iter().enumerate().map(one).collect()
}

/// Row-major strides.
fn strides(shape: &[usize]) -> Vec<usize> {
    let mut s = vec![1; shape.len()];
    (1..shape.len()).rev().for_each(|d| s[d - 1] = s[d] * shape[d].max(1));
    s
}

impl Values {
    /// The dimension that [`Lay::Broadcast`] repeats in input `n`, if another one is left.
    fn repeated(&self, n: usize) -> Option<usize> {
        let dims: Vec<usize> = (0..self.shape.rank()).filter(|&d| self.shape[d] > 1).collect();
        if dims.len() < 2 {
            return None;
        }
        if n == 0 { dims.first().copied() } else { dims.last().copied() }
    }

    /// The values that [`Lay::Broadcast`] leaves.
    pub fn flattened(&self, n: usize) -> Values {
        let Some(d) = self.repeated(n) else { return self.clone() };
        let s = strides(&self.shape);
        let numbers = (0..self.numbers.len()).map(|i| self.numbers[i - i / s[d] % self.shape[d] * s[d]]).collect();
        Values { numbers, ..self.clone() }
    }

    fn data(&self, floats: DType, numbers: &[f64]) -> Data {
        Data::from_f64(if self.dtype.is_float() { floats } else { self.dtype }, numbers)
    }

    /// As a tensor of `floats` that lies as `lay` says, and carries gradients where it can.
    pub fn tensor(&self, n: usize, lay: Lay, floats: DType, device: &Device) -> Result<Tensor> {
        let leaf = |numbers: &[f64], shape: &[usize]| {
            let t = Tensor::new(self.data(floats, numbers), shape, device)?;
            if self.dtype.is_float() { t.requires_grad() } else { Ok(t) }
        };
        let rank = self.shape.rank();
        let s = strides(&self.shape);
        match lay {
            Lay::Broadcast => {
                let Some(d) = self.repeated(n) else { return leaf(&self.numbers, &self.shape) };
                let kept: Vec<f64> = (0..self.numbers.len()).filter(|i| (i / s[d]).is_multiple_of(self.shape[d])).map(|i| self.numbers[i]).collect();
                let mut shape = self.shape.to_vec();
                shape[d] = 1;
                leaf(&kept, &shape)?.try_expand(self.shape)
            }
            Lay::Transposed if rank >= 2 => {
                let (a, b) = (self.shape[rank - 2], self.shape[rank - 1]);
                let numbers: Vec<f64> = (0..self.numbers.len())
                    .map(|i| {
                        let (block, within) = (i / (a * b), i % (a * b));
                        self.numbers[block * a * b + within % a * b + within / a]
                    })
                    .collect();
                let mut shape = self.shape.to_vec();
                shape.swap(rank - 2, rank - 1);
                let mut dims: Vec<usize> = (0..rank).collect();
                dims.swap(rank - 2, rank - 1);
                leaf(&numbers, &shape)?.try_permute(&dims)
            }
            Lay::Contiguous | Lay::Transposed => leaf(&self.numbers, &self.shape),
            Lay::Sliced if rank == 0 => {
                let outside = self.outside();
                leaf(&[outside, self.numbers[0], outside], &[3])?.try_narrow(0, 1, 1)?.try_reshape(self.shape)
            }
            Lay::Sliced => {
                let big: Vec<usize> = self.shape.iter().map(|n| n + 2).collect();
                let t = strides(&big);
                let mut numbers = vec![self.outside(); big.iter().product()];
                for (i, v) in self.numbers.iter().enumerate() {
                    let at: usize = (0..rank)
                        .map(|d| {
                            let c = i / s[d] % self.shape[d];
                            (if d == 0 { self.shape[0] - 1 - c } else { c } + 1) * t[d]
                        })
                        .sum();
                    numbers[at] = *v;
                }
                let mut view = leaf(&numbers, &big)?;
                for d in 0..rank {
                    view = view.try_narrow(d as isize, 1, self.shape[d])?;
                }
                Ok(view.flip(&[0]))
            }
        }
    }

    /// What stands around a window: NaN, an index out of every range.
    fn outside(&self) -> f64 {
        match self.dtype {
            DType::Bool => 1.0,
            DType::I32 => f64::from(i32::MIN),
            _ => f64::NAN,
        }
    }

    fn is_float(&self) -> bool {
        self.dtype.is_float()
    }
}

/// What came out, on the host.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub outputs: Vec<Output>,
    /// The gradient of each float input; zeros are none.
    pub grads: Vec<Option<Vec<f64>>>,
}

/// A result.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    pub shape: Shape,
    pub is_float: bool,
    pub numbers: Vec<f64>,
}

/// The gradients with which the outputs are fed: seeded by place and number.
fn seeds(outputs: &[&Tensor]) -> Result<Vec<Tensor>> {
    let one = |(n, t): (usize, &&Tensor)| {
        let mut d = Draw::new("seed", n as u64);
        let numbers: Vec<f64> = (0..t.numel()).map(|_| d.float(-1.0, 1.0)).collect();
        Tensor::new(Data::from_f64(t.dtype(), &numbers), *t.shape(), t.device())
    };
    outputs.iter().enumerate().map(one).collect()
}

/// The outputs of a case, and the gradient of each float input where there is one; where `twice`, then the gradients of a weighted sum of these, by the inputs
/// and by what the outputs were fed with.
pub fn record(case: &Case, inputs: &[Tensor], twice: bool) -> Result<(Vec<Tensor>, Vec<Option<Tensor>>)> {
    let outputs = (case.run)(inputs)?;
    let floats: Vec<&Tensor> = inputs.iter().filter(|t| t.dtype().is_float()).collect();
    let from: Vec<&Tensor> = outputs.iter().filter(|t| t.is_grad_required()).collect();
    if from.is_empty() || case.order == Order::Zero {
        return Ok((outputs, vec![None; floats.len()]));
    }
    let mut fed = seeds(&from)?;
    if twice {
        fed = fed.iter().map(Tensor::requires_grad).collect::<Result<_>>()?;
    }
    let mut grads = grad_with(&from, &floats, &GradOptions { grad_outputs: Some(fed.clone()), create_graph: twice, ..Default::default() })?;
    if twice {
        let again: Vec<Tensor> = grads.iter().flatten().filter(|g| g.is_grad_required()).cloned().collect();
        let again: Vec<&Tensor> = again.iter().collect();
        // What many terms cancel in to a single number has no scale of its own to be compared by.
        let by: Vec<&Tensor> = floats.into_iter().chain(fed.iter().filter(|t| t.numel() > 1)).collect();
        grads.extend(grad_with(&again, &by, &GradOptions { grad_outputs: Some(seeds(&again)?), ..Default::default() })?);
    }
    Ok((outputs, grads))
}

/// Run a case over inputs that lie as `lay` says. Operations are differentiated twice where they lie plainly.
pub fn answer(case: &Case, values: &[Values], lay: Lay, floats: DType, device: &Device) -> Result<Answer> {
    let inputs = values.iter().enumerate().map(|(n, v)| v.tensor(n, lay, floats, device)).collect::<Result<Vec<_>>>()?;
    let (outputs, grads) = record(case, &inputs, case.order == Order::Any && case.ulp.is_none() && lay == Lay::Contiguous)?;
    read(&outputs, &grads)
}

/// Bring outputs and gradients to the host.
pub fn read(outputs: &[Tensor], grads: &[Option<Tensor>]) -> Result<Answer> {
    let numbers = |t: &Tensor| Ok(t.to_data()?.to_f64());
    let output = |t: &Tensor| Ok(Output { shape: *t.shape(), is_float: t.dtype().is_float(), numbers: numbers(t)? });
    Ok(Answer {
        outputs: outputs.iter().map(output).collect::<Result<_>>()?,
        grads: grads.iter().map(|g| g.as_ref().map(numbers).transpose()).collect::<Result<_>>()?,
    })
}

/// Three draws of a case's inputs stacked along a new first dimension, and each alone.
pub fn stacked(case: &Case, floats: DType, device: &Device) -> Result<(Vec<Tensor>, Vec<Vec<Values>>)> {
    let models: Vec<Vec<Values>> = (0..3).map(|m| draw(case, m)).collect();
    let join = |n: usize| {
        let first = &models[0][n];
        let numbers: Vec<f64> = models.iter().flat_map(|m| m[n].numbers.iter().copied()).collect();
        Tensor::new(first.data(floats, &numbers), first.shape.with(0, 3), device)
    };
    let inputs = (0..case.inputs.len()).map(join).collect::<Result<Vec<_>>>()?;
    Ok((inputs, models))
}

/// Whether the case has an input that carries gradients.
pub fn has_floats(values: &[Values]) -> bool {
    values.iter().any(Values::is_float)
}
