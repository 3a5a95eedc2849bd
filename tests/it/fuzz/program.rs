//! Random programs: what a graph holds, drawn from a seed, before any device sees it.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use wgrad::ops::rows::{self, Row, Sig, Slope, row};
use wgrad::ops::{self, Arg, OpEntry, Order, Sample};
use wgrad::{DType, Device, Shape, Tensor, rng};

/// Rows and columns of the matrices. Neither is a power of two, they differ, and together they are more than one workgroup.
pub const M: usize = 6;
pub const N: usize = 20;
/// How many rows more than a window the tensor has that windows look into.
pub const SLACK: usize = 3;

/// A stream of random numbers that belongs to a seed.
pub struct Rng {
    seed: u64,
    stream: u64,
    at: usize,
}

impl Rng {
    pub fn new(seed: u64, stream: u64) -> Rng {
        Rng { seed, stream, at: 0 }
    }

    pub fn below(&mut self, n: usize) -> usize {
        self.at += 1;
        rng::word(self.seed, self.stream, self.at) as usize % n
    }

    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    pub fn within(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.below(1 << 20) as f64 / f64::from(1 << 20)
    }
}

/// The shapes that values have: few, so that any two can meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// `[M, N]`
    Full,
    /// `[N, M]`
    Turned,
    /// `[N]`
    Row,
    /// `[M, 1]`
    Col,
    /// `[]`
    Scalar,
}

impl Class {
    pub const ALL: [Class; 5] = [Class::Full, Class::Turned, Class::Row, Class::Col, Class::Scalar];

    pub fn shape(self) -> Shape {
        match self {
            Class::Full => [M, N].into(),
            Class::Turned => [N, M].into(),
            Class::Row => [N].into(),
            Class::Col => [M, 1].into(),
            Class::Scalar => Shape::from([]),
        }
    }
}

/// Another way to look at a value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum View {
    /// Full to Turned and back.
    Turn,
    /// One dimension in reverse order.
    Flip(isize),
    /// Full to Turned and back, element by element in row-major order.
    Reshape,
    /// Row `i`, moved on by one each step: a position.
    Row(usize),
    /// A column.
    Col(usize),
    /// Row, Col or Scalar over a whole matrix.
    Spread,
    /// Two windows side by side: the columns from `k` on, then those before.
    Roll(usize),
    /// Rows in another order, through three dimensions.
    Shuffle,
    /// A window of the bank, moved on by one each step.
    Window(usize),
    Detach,
    /// Another handle.
    Alias,
}

/// An operation of the table, in the middle of a graph: its inputs are brought to the shapes and ranges that a sample asks for, its output to a Full.
#[derive(Clone)]
pub enum Guest {
    Op(&'static OpEntry, &'static Sample),
    Row(&'static Row, Vec<f64>),
}

impl Guest {
    pub fn name(&self) -> &'static str {
        match self {
            Guest::Op(entry, _) => entry.name,
            Guest::Row(row, _) => row.name,
        }
    }

    /// Whether gradients flow through it to its `n`-th argument.
    fn passes(&self, n: usize) -> bool {
        match self {
            Guest::Op(entry, sample) => entry.order != Order::Zero && matches!(sample.inputs.get(n), Some(Arg::Float { .. })),
            Guest::Row(row, _) => {
                let float = matches!(row.sig, Sig::Float | Sig::Number | Sig::Select);
                float && !row.slopes.iter().any(|s| matches!(s, Slope::None)) && row.slopes.get(n).is_some_and(|s| !matches!(s, Slope::Zero))
            }
        }
    }

    /// Whether gradients flow through it at all.
    pub fn differentiable(&self) -> bool {
        (0..8).any(|n| self.passes(n))
    }

    fn terms(&self) -> usize {
        match self {
            Guest::Op(_, sample) => sample.terms,
            Guest::Row(row, _) => 4 + row.ulp as usize,
        }
    }
}

/// What an instruction does.
#[derive(Clone)]
pub enum Do {
    /// A row over values of one class, or of classes that broadcast to the first one's.
    Row(&'static Row, Vec<f64>),
    /// Times a float that is another one in each step.
    Scale(f64),
    View(View),
    /// A reduction over dimension 0 (to Row), 1 (to Col) or all (to Scalar).
    Reduce(&'static str, Option<isize>),
    /// Full by the square parameter, as it lies, transposed, or with a bias.
    Linear(usize),
    /// Full by Turned, and that by Full: products of two computed values.
    Sandwich,
    /// In three dimensions, with the square parameter for each.
    Batched,
    Guest(Guest),
    /// Values from nothing.
    Source(&'static str),
}

impl std::fmt::Debug for Do {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Do::Row(row, floats) => write!(f, "{}{floats:?}", row.name),
            Do::Scale(s) => write!(f, "scale({s:.3})"),
            Do::View(v) => write!(f, "{v:?}"),
            Do::Reduce(name, dim) => write!(f, "{name}({dim:?})"),
            Do::Linear(how) => write!(f, "linear({how})"),
            Do::Sandwich => write!(f, "sandwich"),
            Do::Batched => write!(f, "batched"),
            Do::Guest(Guest::Op(entry, sample)) => write!(f, "guest {}: {}", entry.name, sample.label),
            Do::Guest(Guest::Row(row, floats)) => write!(f, "guest {}{floats:?}", row.name),
            Do::Source(name) => write!(f, "{name}()"),
        }
    }
}

impl Do {
    /// The table's names of the operations it records.
    fn ops(&self) -> Vec<&'static str> {
        match self {
            Do::Row(row, _) => vec![row.name],
            Do::Scale(_) => vec!["mul_scalar"],
            Do::View(v) => match v {
                View::Turn => vec!["permute"],
                View::Flip(_) => vec!["flip"],
                View::Reshape => vec!["reshape"],
                View::Row(_) | View::Col(_) | View::Window(_) => vec!["narrow"],
                View::Spread => vec!["expand"],
                View::Roll(_) => vec!["narrow", "cat"],
                View::Shuffle => vec!["reshape", "permute"],
                View::Detach => vec!["detach"],
                View::Alias => vec![],
            },
            Do::Reduce(name, _) => vec![name],
            Do::Linear(2) => vec!["linear"],
            Do::Linear(_) | Do::Sandwich | Do::Batched => vec!["matmul"],
            Do::Guest(g) => vec![g.name(), "softsign"],
            Do::Source(name) => vec![name],
        }
    }

    /// Terms that an element accumulates, forward; the error bound counts them.
    fn terms(&self) -> usize {
        match self {
            Do::Row(row, _) => 1 + row.ulp as usize,
            Do::Reduce(..) => M * N,
            Do::Linear(_) | Do::Batched => N,
            Do::Sandwich => M + N,
            Do::Guest(g) => 8 + g.terms(),
            Do::Scale(_) | Do::View(_) | Do::Source(_) => 1,
        }
    }
}

/// One value of a program: how it is made.
#[derive(Clone, Debug)]
pub struct Instr {
    pub what: Do,
    pub args: Vec<usize>,
    pub class: Class,
    /// Whether a gradient flows through it to a parameter.
    pub grad: bool,
}

/// A function of one row, for all rows of its arguments at once.
#[derive(Clone, Debug)]
pub struct Vmap {
    /// Full values; the function sees one row of each.
    pub mapped: Vec<usize>,
    /// A Row that all models share.
    pub captured: Option<usize>,
    /// Over values of its own: the mapped, the captured, then one for each instruction. The last is the result.
    pub body: Vec<Instr>,
    /// Give the gradient of the result's sum by the first argument instead.
    pub gradient: bool,
}

/// What makes values, in order.
#[derive(Clone, Debug)]
pub enum Item {
    One(Instr),
    /// Several values, computed inside a checkpoint.
    Checkpoint(Vec<Instr>),
    /// One value.
    Vmap(Vmap),
}

/// How parameters change.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Optim {
    /// They don't: gradients are read.
    None,
    /// SGD with this momentum, Nesterov's or not.
    Sgd(f64, bool),
    Adam,
}

/// The leaves come first among the values.
pub const LEAVES: usize = 6;
/// `[M, N]` parameter; after it comes a `[N]` parameter.
pub const W: usize = 0;
/// `[N, N]` parameter, read by products only.
pub const S: usize = 2;
/// `[M, N]` input.
pub const X: usize = 3;
/// Another leaf over the same memory.
pub const ALIAS: usize = 4;
/// `[M + SLACK, N]`, read by windows only.
pub const BANK: usize = 5;

/// A graph, two steps long.
#[derive(Clone, Debug)]
pub struct Program {
    pub seed: u64,
    pub items: Vec<Item>,
    /// Values that the loss is made of.
    pub sinks: Vec<usize>,
    /// Values whose handles stay to the end, and are read then.
    pub kept: Vec<usize>,
    /// Values read as soon as they are recorded.
    pub reads: Vec<usize>,
    pub optim: Optim,
    /// Handles on the parameters' values from before each step stay to the end.
    pub keep_old: bool,
    /// The loss is read before backward.
    pub loss_first: bool,
    /// Gradients of the first step stay for the second.
    pub accumulate: bool,
    /// The first step's gradient is read after the second one is recorded.
    pub late: bool,
    /// The second step only evaluates.
    pub evaluate: bool,
}

impl Program {
    pub fn instrs(&self) -> impl Iterator<Item = &Instr> {
        self.items.iter().flat_map(|item| match item {
            Item::One(i) => std::slice::from_ref(i),
            Item::Checkpoint(list) => list,
            Item::Vmap(v) => &v.body,
        })
    }

    pub fn nodes(&self) -> usize {
        self.instrs().count()
    }

    /// Terms of the whole graph: forward and backward, two steps.
    pub fn terms(&self) -> usize {
        4 * self.instrs().map(|i| i.what.terms()).sum::<usize>() + 4 * M * N
    }

    pub fn has_checkpoint(&self) -> bool {
        self.items.iter().any(|i| matches!(i, Item::Checkpoint(_)))
    }

    /// What is special about it, for messages.
    pub fn flags(&self) -> String {
        let flags = [
            (self.keep_old, "keep_old"),
            (self.loss_first, "loss_first"),
            (self.accumulate, "accumulate"),
            (self.late, "late"),
            (self.evaluate, "evaluate"),
            (!self.reads.is_empty(), "reads"),
            (self.has_checkpoint(), "checkpoint"),
            (self.items.iter().any(|i| matches!(i, Item::Vmap(_))), "vmap"),
        ];
        let set: Vec<&str> = flags.iter().filter(|f| f.0).map(|f| f.1).collect();
        format!("({} nodes, {:?}, {})", self.nodes(), self.optim, set.join(" "))
    }

    /// Which of the features that the design asks for it holds.
    pub fn features(&self) -> Vec<(&'static str, bool)> {
        let mut uses: BTreeMap<usize, usize> = BTreeMap::new();
        let args = self.items.iter().flat_map(|item| match item {
            Item::One(i) => i.args.clone(),
            Item::Checkpoint(list) => list.iter().flat_map(|i| i.args.clone()).collect(),
            Item::Vmap(v) => v.mapped.iter().copied().chain(v.captured).collect(),
        });
        args.for_each(|a| *uses.entry(a).or_default() += 1);
        let view = |i: &&Instr| matches!(i.what, Do::View(v) if !matches!(v, View::Detach | View::Alias));
        let alias = |i: &&Instr| matches!(i.what, Do::View(View::Alias | View::Window(_)));
        let aliased = self.instrs().any(|i| alias(&i)) || (uses.contains_key(&X) && uses.contains_key(&ALIAS));
        let mut found = Vec::new();
        let mut note = |holds: bool, name| found.push((name, holds));
        note(uses.values().any(|&n| n > 1), "shared inputs");
        note(self.instrs().any(|i| view(&i)), "views");
        note(aliased, "aliases");
        note(self.instrs().any(|i| matches!(i.what, Do::Reduce(..))), "reductions");
        note(self.instrs().any(|i| matches!(i.what, Do::Linear(_) | Do::Sandwich | Do::Batched)), "products");
        note(self.has_checkpoint(), "checkpoint scopes");
        note(self.items.iter().any(|i| matches!(i, Item::Vmap(_))), "vmap");
        note(self.optim != Optim::None && !self.evaluate, "two steps with an optimizer");
        note(self.keep_old && self.optim != Optim::None, "kept old values");
        note(!self.reads.is_empty() || self.loss_first, "reads in the middle");
        note(self.accumulate, "accumulated gradients");
        found
    }

    /// How often it holds each operation.
    pub fn count_ops(&self, counts: &mut BTreeMap<&'static str, usize>) {
        for name in self.instrs().flat_map(|i| i.what.ops()) {
            *counts.entry(name).or_default() += 1;
        }
    }
}

/// The guests: every operation and row that can be called on values of a graph. The n-th program gets the n-th in turn, so that none is missed.
pub fn guests() -> &'static [(&'static str, Vec<Guest>)] {
    static GUESTS: LazyLock<Vec<(&'static str, Vec<Guest>)>> = LazyLock::new(|| {
        let device = Device::cpu_with(1, true).expect("the CPU backend opens");
        let fits = |sample: &&Sample| {
            let input = |a: &Arg| match a {
                Arg::Float { shape, low, high, .. } => Tensor::full(*shape, 0.5 * (low + high), &device),
                Arg::Int { shape, .. } => Tensor::full(*shape, 0.0, &device).to_dtype(DType::I32),
                Arg::Bool { shape } => Tensor::full(*shape, 0.0, &device).to_dtype(DType::Bool),
            };
            let inputs: Vec<Tensor> = sample.inputs.iter().map(input).collect();
            // Recorded only: the shapes are enough.
            let outs = (sample.run)(&inputs).expect("samples are valid calls");
            inputs.iter().all(|x| (1..=400).contains(&x.numel())) && outs.iter().any(|o| o.numel() > 0)
        };
        let of_op = |entry: &'static OpEntry| {
            let samples: &'static [Sample] = Vec::leak((entry.samples)());
            (entry.name, samples.iter().filter(fits).map(|s| Guest::Op(entry, s)).collect())
        };
        // Rows with integer slots are random; f64 does not exist on a GPU.
        let callable = |r: &&'static Row| r.arity > 0 && r.ints == 0 && r.name != "to_f64";
        let of_row = |r: &'static Row| (r.name, r.samples.iter().map(|s| Guest::Row(r, s.to_vec())).collect());
        ops::all().into_iter().map(of_op).chain(rows::all().filter(callable).map(of_row)).collect()
    });
    &GUESTS
}

/// Sources, by the names of their rows.
pub const SOURCES: [&str; 4] = ["fill", "iota", "uniform", "normal"];

struct Draw {
    rng: Rng,
    /// Class of each value, whether gradients flow, and a bound on its absolute value.
    values: Vec<(Class, bool, f64)>,
}

/// Rows that chains are made of: few, so that kernels recur, and tame.
const UNARY: [&str; 3] = ["softsign", "softsign", "square"];
const RARE: [&str; 5] = ["relu", "tanh", "sin", "abs", "exp"];
const BINARY: [&str; 3] = ["add", "mul", "mul"];

impl Draw {
    fn push(&mut self, list: &mut Vec<Instr>, what: Do, args: Vec<usize>, class: Class, bound: f64) -> usize {
        let grad = match &what {
            Do::View(View::Detach) | Do::Source(_) => false,
            Do::Linear(_) | Do::Batched => true,
            Do::Guest(g) => args.iter().enumerate().any(|(n, &a)| self.values[a].1 && g.passes(n)),
            _ => args.iter().any(|&a| self.values[a].1),
        };
        self.values.push((class, grad, bound));
        list.push(Instr { what, args, class, grad });
        let id = self.values.len() - 1;
        // Values stay in a tame range: what may be above 2 is brought back.
        if bound > 2.0 {
            let (what, bound) = if self.rng.chance(50) { (Do::Row(row("softsign"), vec![]), 1.0) } else { (Do::Scale(1.0 / bound), 1.0) };
            return self.push(list, what, vec![id], class, bound);
        }
        id
    }

    /// A value, rather a late one, of one of the classes; a leaf where there is no other.
    fn pick(&mut self, classes: &[Class]) -> usize {
        let fits: Vec<usize> = (0..self.values.len()).filter(|&v| v != S && v != BANK && classes.contains(&self.values[v].0)).collect();
        if fits.is_empty() {
            return W;
        }
        let recent = fits.len().saturating_sub(3);
        if self.rng.chance(60) { self.rng.pick(&fits[recent..]) } else { self.rng.pick(&fits) }
    }

    fn full(&mut self, list: &mut Vec<Instr>) -> usize {
        let v = self.pick(&[Class::Full, Class::Full, Class::Turned, Class::Row]);
        self.as_full(list, v)
    }

    fn as_full(&mut self, list: &mut Vec<Instr>, v: usize) -> usize {
        let (class, _, bound) = self.values[v];
        match class {
            Class::Full => v,
            Class::Turned => {
                let view = self.rng.pick(&[View::Turn, View::Turn, View::Reshape]);
                self.push(list, Do::View(view), vec![v], Class::Full, bound)
            }
            _ => self.push(list, Do::View(View::Spread), vec![v], Class::Full, bound),
        }
    }

    fn unary(&mut self, list: &mut Vec<Instr>) {
        let x = self.pick(&Class::ALL);
        let name = if self.rng.chance(92) { self.rng.pick(&UNARY) } else { self.rng.pick(&RARE) };
        let (class, _, b) = self.values[x];
        let bound = match name {
            "softsign" | "tanh" | "sin" => 1.0,
            "square" => b * b,
            "exp" => b.exp(),
            _ => b,
        };
        self.push(list, Do::Row(row(name), vec![]), vec![x], class, bound);
    }

    fn binary(&mut self, list: &mut Vec<Instr>) {
        let x = self.pick(&[Class::Full, Class::Turned, Class::Row]);
        let class = self.values[x].0;
        let others: &[Class] = match class {
            Class::Full => &[Class::Full, Class::Turned, Class::Row, Class::Col, Class::Scalar],
            Class::Turned => &[Class::Turned, Class::Full, Class::Scalar],
            _ => &[Class::Row, Class::Scalar],
        };
        let mut y = self.pick(others);
        if !others.contains(&self.values[y].0) {
            y = x;
        }
        let other = self.values[y].0;
        if matches!((class, other), (Class::Full, Class::Turned) | (Class::Turned, Class::Full)) {
            let bound = self.values[y].2;
            y = self.push(list, Do::View(View::Turn), vec![y], class, bound);
        }
        let name = self.rng.pick(&BINARY);
        let (a, b) = (self.values[x].2, self.values[y].2);
        let bound = if name == "mul" { a * b } else { a + b };
        let args = if self.rng.chance(50) && self.values[y].0 == class { vec![y, x] } else { vec![x, y] };
        self.push(list, Do::Row(row(name), vec![]), args, class, bound);
    }

    fn view(&mut self, list: &mut Vec<Instr>) {
        let x = self.pick(&Class::ALL);
        let (class, _, bound) = self.values[x];
        let of_matrix = [View::Turn, View::Turn, View::Flip(0), View::Flip(1), View::Reshape];
        let (view, to) = match class {
            Class::Full => match self.rng.below(10) {
                0 => (View::Row(self.rng.below(M - 1)), Class::Row),
                1 => (View::Col(self.rng.below(N)), Class::Col),
                2 => (View::Roll(1 + self.rng.below(N - 1)), Class::Full),
                3 => (View::Shuffle, Class::Full),
                4 => (View::Detach, Class::Full),
                5 => (View::Alias, Class::Full),
                6 => {
                    let start = self.rng.below(SLACK);
                    self.push(list, Do::View(View::Window(start)), vec![BANK], Class::Full, 1.0);
                    return;
                }
                _ => (self.rng.pick(&of_matrix), Class::Full),
            },
            Class::Turned => (self.rng.pick(&of_matrix), Class::Turned),
            _ => (View::Spread, Class::Full),
        };
        let to = match (view, to) {
            (View::Turn | View::Reshape, Class::Full) => Class::Turned,
            (View::Turn | View::Reshape, _) => Class::Full,
            (_, to) => to,
        };
        self.push(list, Do::View(view), vec![x], to, bound);
    }

    fn reduce(&mut self, list: &mut Vec<Instr>) {
        let mut x = self.full(list);
        // As with products.
        if self.rng.chance(75) {
            x = self.push(list, Do::View(View::Flip(0)), vec![x], Class::Full, self.values[x].2);
        }
        let bound = self.values[x].2;
        let name = self.rng.pick(&["sum", "sum", "sum", "mean", "mean", "mean", "amax", "var", "logsumexp"]);
        let (dim, class, count) = self.rng.pick(&[(Some(0), Class::Row, M), (Some(1), Class::Col, N), (None, Class::Scalar, M * N)]);
        let bound = match name {
            "sum" => bound * count as f64,
            "var" => bound * bound,
            "logsumexp" => bound + (count as f64).ln(),
            _ => bound,
        };
        self.push(list, Do::Reduce(name, dim), vec![x], class, bound);
    }

    /// A product, mostly apart from the rows around it, backward too: what a product fuses with makes a kernel of its own, and those take longest to compile.
    fn product(&mut self, list: &mut Vec<Instr>) {
        let apart = self.rng.chance(92);
        let flip = Do::View(View::Flip(self.rng.pick(&[0, 1])));
        let mut x = self.full(list);
        if apart {
            x = self.push(list, flip.clone(), vec![x], Class::Full, self.values[x].2);
        }
        let y = match self.rng.below(5) {
            4 => {
                let (y, z) = (self.full(list), self.full(list));
                self.push(list, Do::Sandwich, vec![x, y, z], Class::Full, 2.0)
            }
            3 => self.push(list, Do::Batched, vec![x], Class::Full, 2.0),
            how => self.push(list, Do::Linear(how), vec![x], Class::Full, 2.0),
        };
        if apart {
            self.push(list, flip, vec![y], Class::Full, 2.0);
        }
    }

    fn guest(&mut self, list: &mut Vec<Instr>, guest: Guest) {
        let mut args: Vec<usize> = (0..1 + self.rng.below(2)).map(|_| self.pick(&[Class::Full, Class::Turned, Class::Row])).collect();
        // Half of them have no part in the gradient: a guest's backward makes kernels that no other graph uses, and compiling takes the most time.
        if self.rng.chance(50) {
            args.truncate(1);
            let (class, _, bound) = self.values[args[0]];
            args[0] = self.push(list, Do::View(View::Detach), vec![args[0]], class, bound);
        }
        self.push(list, Do::Guest(guest), args, Class::Full, 1.0);
    }

    /// One instruction, and what it needs.
    fn any(&mut self, list: &mut Vec<Instr>) {
        match self.rng.below(100) {
            0..27 => self.unary(list),
            27..54 => self.binary(list),
            54..72 => self.view(list),
            72..82 => self.reduce(list),
            82..91 => self.product(list),
            91..96 => {
                let x = self.pick(&[Class::Full, Class::Turned, Class::Row]);
                let (class, _, bound) = self.values[x];
                let s = self.rng.within(0.4, 0.9);
                self.push(list, Do::Scale(s), vec![x], class, bound);
            }
            _ => {
                let name = self.rng.pick(&SOURCES);
                let bound = if name == "normal" { 6.0 } else { 1.0 };
                self.push(list, Do::Source(name), vec![], Class::Full, bound);
            }
        }
    }

    /// Inside a checkpoint: some instructions, and at the end a value that backward needs from inside, so that it must be recomputed.
    fn checkpoint(&mut self) -> Vec<Instr> {
        let mut list = Vec::new();
        for _ in 0..1 + self.rng.below(4) {
            self.any(&mut list);
        }
        let latest = (0..self.values.len()).rev().find(|&v| v != S && self.values[v].1).unwrap_or(W);
        let class = self.values[latest].0;
        // A row that stands nowhere else, so that it is not merged with an equal one: then the count of kernels tells that it was computed again.
        let inside = self.push(&mut list, Do::Row(row("cos"), vec![]), vec![latest], class, 1.0);
        self.push(&mut list, Do::Row(row("softsign"), vec![]), vec![inside], class, 1.0);
        list
    }

    fn vmap(&mut self, before: &mut Vec<Instr>) -> Vmap {
        let mapped: Vec<usize> = (0..1 + self.rng.below(2)).map(|_| self.full(before)).collect();
        let captured = self.rng.chance(60).then(|| self.pick(&[Class::Row])).filter(|&v| self.values[v].0 == Class::Row);
        // The function's own values.
        let mut inner = Draw { rng: Rng::new(self.rng.seed, 1000 + self.values.len() as u64), values: Vec::new() };
        for &v in mapped.iter().chain(&captured) {
            inner.values.push((Class::Row, self.values[v].1, self.values[v].2));
        }
        let mut body = Vec::new();
        for _ in 0..1 + inner.rng.below(4) {
            let rows: Vec<usize> = (0..inner.values.len()).filter(|&v| inner.values[v].0 == Class::Row).collect();
            let x = inner.rng.pick(&rows);
            let bound = inner.values[x].2;
            match inner.rng.below(10) {
                0..=3 => {
                    let name = inner.rng.pick(&UNARY);
                    let bound = if name == "square" { bound * bound } else { bound };
                    inner.push(&mut body, Do::Row(row(name), vec![]), vec![x], Class::Row, bound);
                }
                4..=6 => {
                    let y = inner.rng.below(inner.values.len());
                    let other = inner.values[y].2;
                    let name = inner.rng.pick(&BINARY);
                    let bound = if name == "mul" { bound * other } else { bound + other };
                    inner.push(&mut body, Do::Row(row(name), vec![]), vec![x, y], Class::Row, bound);
                }
                7 => {
                    let name = inner.rng.pick(&["mean", "amax"]);
                    inner.push(&mut body, Do::Reduce(name, None), vec![x], Class::Scalar, bound);
                }
                8 => {
                    inner.push(&mut body, Do::View(View::Flip(0)), vec![x], Class::Row, bound);
                }
                _ => {
                    let how = inner.rng.below(2);
                    inner.push(&mut body, Do::Linear(how), vec![x], Class::Row, 2.0);
                }
            }
        }
        // The result is a row that depends on the first argument, not linearly.
        let last = inner.values.len() - 1;
        let bound = inner.values[last].2;
        inner.push(&mut body, Do::Row(row("mul"), vec![]), vec![0, last], Class::Row, bound * inner.values[0].2);
        let last = inner.values.len() - 1;
        inner.push(&mut body, Do::Row(row("softsign"), vec![]), vec![last], Class::Row, 1.0);
        let gradient = inner.rng.chance(25);
        let grad = body.last().is_some_and(|i| i.grad) && !gradient;
        self.values.push((Class::Full, grad, 2.0));
        Vmap { mapped, captured, body, gradient }
    }
}

/// The `index`-th program of a seed.
pub fn draw(seed: u64, index: usize) -> Program {
    let seed = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(index as u64);
    let mut d = Draw { rng: Rng::new(seed, 0), values: Vec::new() };
    d.values = vec![
        (Class::Full, true, 1.0),
        (Class::Row, true, 1.0),
        (Class::Full, true, 1.0),
        (Class::Full, false, 1.0),
        (Class::Full, false, 1.0),
        (Class::Full, false, 1.0),
    ];
    let target = 2 + d.rng.below(29);
    let (_, calls) = &guests()[index % guests().len()];
    let mut guest = (!calls.is_empty()).then(|| calls[d.rng.below(calls.len())].clone());
    let guest_at = d.rng.below(target);
    let mut items: Vec<Item> = Vec::new();
    let mut count = 0;
    let mut scoped = Vec::new();
    while count < target || guest.is_some() {
        let mut list = Vec::new();
        let choice = d.rng.below(100);
        let mut item = None;
        if count >= guest_at && guest.is_some() {
            if let Some(g) = guest.take() {
                d.guest(&mut list, g);
            }
        } else if choice < 3 && target - count >= 3 {
            let first = d.values.len();
            let inside = d.checkpoint();
            scoped.push(first + inside.len() - 1);
            count += inside.len();
            item = Some(Item::Checkpoint(inside));
        } else if choice < 6 && target - count >= 4 {
            let v = d.vmap(&mut list);
            count += v.body.len();
            item = Some(Item::Vmap(v));
        } else {
            d.any(&mut list);
        }
        count += list.len();
        items.extend(list.into_iter().map(Item::One));
        items.extend(item);
    }
    finish(d, seed, items, scoped)
}

/// Decide what the loss is made of, what is kept and read, and how the parameters change.
fn finish(mut d: Draw, seed: u64, items: Vec<Item>, scoped: Vec<usize>) -> Program {
    let count = d.values.len();
    let mut used = vec![false; count];
    for item in &items {
        match item {
            Item::One(i) => i.args.iter().for_each(|&a| used[a] = true),
            Item::Checkpoint(list) => list.iter().flat_map(|i| &i.args).for_each(|&a| used[a] = true),
            Item::Vmap(v) => v.mapped.iter().chain(&v.captured).for_each(|&a| used[a] = true),
        }
    }
    let mut sinks: Vec<usize> = (LEAVES..count).filter(|&v| !used[v] || scoped.contains(&v)).collect();
    sinks.push(W);
    let some = |d: &mut Draw, percent: usize| -> Vec<usize> { (LEAVES..count).filter(|_| d.rng.chance(percent)).collect() };
    let (kept, reads) = (some(&mut d, 8), if d.rng.chance(25) { some(&mut d, 10) } else { Vec::new() });
    let optim = d.rng.pick(&[Optim::None, Optim::Sgd(0.0, false), Optim::Sgd(0.6, false), Optim::Sgd(0.6, true), Optim::Adam]);
    Program {
        seed,
        items,
        sinks,
        kept,
        reads,
        optim,
        keep_old: d.rng.chance(40),
        loss_first: d.rng.chance(20),
        accumulate: d.rng.chance(25),
        late: d.rng.chance(30),
        evaluate: d.rng.chance(15),
    }
}
