//! Programs: what a random graph holds, before any device sees it.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use wgrad::ops::rows::{self, Row, Sig, Slope};
use wgrad::ops::{self, Arg, OpEntry, Order, Sample};
use wgrad::{DType, Device, Shape, Tensor, rng};

/// Rows and columns of the matrices. Neither is a power of two, they differ, and together they are more than one workgroup.
pub const M: usize = 6;
pub const N: usize = 20;
/// How many rows more than a window the tensor has that windows look into.
pub const SLACK: usize = 3;

/// A stream of random numbers that belongs to a seed.
pub struct Rng {
    pub seed: u64,
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
    pub fn passes(&self, n: usize) -> bool {
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
