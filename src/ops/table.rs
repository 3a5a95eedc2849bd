//! The OPS table: what each operation is called, and samples by which one test checks all of them.

use crate::error::Result;
use crate::graph::Tensor;
use crate::tensor::Shape;

/// How a sample's input is made: seeded, so that every device gets the same.
#[derive(Clone, Debug, PartialEq)]
pub enum Arg {
    /// Floats, uniform in `low..high`, at least `gap` away from each of `kinks`.
    Float {
        /// Its shape.
        shape: Shape,
        /// Lower end.
        low: f64,
        /// Upper end.
        high: f64,
        /// Where the slope jumps.
        kinks: &'static [f64],
    },
    /// Integers in `0..high`.
    Int {
        /// Its shape.
        shape: Shape,
        /// One above the largest.
        high: i32,
    },
    /// Truth values.
    Bool {
        /// Its shape.
        shape: Shape,
    },
}

impl Arg {
    /// Floats in -2..2.
    pub fn float(shape: impl Into<Shape>) -> Arg {
        Arg::Float { shape: shape.into(), low: -2.0, high: 2.0, kinks: &[] }
    }

    /// Floats in `low..high`.
    pub fn within(shape: impl Into<Shape>, low: f64, high: f64) -> Arg {
        Arg::Float { shape: shape.into(), low, high, kinks: &[] }
    }

    /// Integers in `0..high`.
    pub fn int(shape: impl Into<Shape>, high: i32) -> Arg {
        Arg::Int { shape: shape.into(), high }
    }

    /// Truth values.
    pub fn bool(shape: impl Into<Shape>) -> Arg {
        Arg::Bool { shape: shape.into() }
    }
}

/// What a sample runs: the public door of the operation.
pub type Run = Box<dyn Fn(&[Tensor]) -> Result<Vec<Tensor>> + Send + Sync>;

/// One way of calling an operation.
pub struct Sample {
    /// Attributes and shapes, for messages.
    pub label: String,
    /// Its inputs.
    pub inputs: Vec<Arg>,
    /// The call.
    pub run: Run,
    /// The most terms that one output element or gradient element accumulates: sets the error bound `(4 + 2 sqrt(terms)) * eps * scale`.
    pub terms: usize,
}

impl Sample {
    /// A sample.
    pub fn new(label: impl Into<String>, inputs: Vec<Arg>, terms: usize, run: impl Fn(&[Tensor]) -> Result<Vec<Tensor>> + Send + Sync + 'static) -> Sample {
        Sample { label: label.into(), inputs, run: Box::new(run), terms }
    }
}

/// A call that must be refused, and with which message.
pub struct Misuse {
    /// Its inputs.
    pub inputs: Vec<Arg>,
    /// The call.
    pub run: Run,
    /// The error's whole message.
    pub message: &'static str,
}

impl Misuse {
    /// A misuse.
    pub fn new(inputs: Vec<Arg>, message: &'static str, run: impl Fn(&[Tensor]) -> Result<Vec<Tensor>> + Send + Sync + 'static) -> Misuse {
        Misuse { inputs, run: Box::new(run), message }
    }
}

/// How often an operation can be differentiated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Not at all.
    Zero,
    /// Once; a second time is an error that names it.
    First,
    /// Twice and more.
    Any,
}

/// One row of the table.
pub struct OpEntry {
    /// PyTorch's name.
    pub name: &'static str,
    /// One line: what it computes.
    pub doc: &'static str,
    /// How often it can be differentiated.
    pub order: Order,
    /// The names of the nodes that it records ([`crate::graph::Op::name`]); every node name belongs to some entry.
    pub nodes: &'static [&'static str],
    /// Calls to check.
    pub samples: fn() -> Vec<Sample>,
    /// Calls to refuse.
    pub misuse: fn() -> Vec<Misuse>,
}
