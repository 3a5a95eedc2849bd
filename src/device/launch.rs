//! What a plan hands to a device: programs of GPU launches or host steps over numbered buffer slots. No wgpu type appears here.
//!
//! A program is built once and run many times. What changes between runs is only `data` (floats, positions, seeds: one `u64` each)
//! and the storages behind the leaf and output slots.

use super::cpu::{CpuView, CpuViewMut, Threads};
use crate::error::Result;
use crate::kernel::Access;
use crate::tensor::{Layout, Meta};
use std::sync::Arc;

/// Where a launch finds one of its buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Slot {
    /// The n-th leaf of the plan: a value that exists already.
    Leaf(usize),
    /// The n-th output of the plan: a value that stays after it.
    Output(usize),
    /// The n-th temporary of the program: placed by lifetime, without a value between runs.
    Temp(usize),
    /// The program's error words (GPU only): one `atomic<u32>` a check, the n-th at index n.
    Errors,
}

/// One storage binding; the n-th of a launch is `@group(0) @binding(n + 1)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The buffer.
    pub slot: Slot,
    /// How the shader declares it.
    pub access: Access,
}

/// One `u32` of a launch's uniform window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Word {
    /// The same in every run.
    Const(u32),
    /// `data[i]` holds an `f64`'s bits; the word is the `f32` nearest to it.
    F32(usize),
    /// The low half of `data[i]`.
    Low(usize),
    /// The high half of `data[i]`.
    High(usize),
}

impl Word {
    /// The word's value for this run's `data`.
    pub fn value(self, data: &[u64]) -> u32 {
        match self {
            Word::Const(w) => w,
            Word::F32(i) => (f64::from_bits(data[i]) as f32).to_bits(),
            Word::Low(i) => data[i] as u32,
            Word::High(i) => (data[i] >> 32) as u32,
        }
    }
}

/// One compute dispatch.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The op's name, or the fused ops' names joined: the GPU label, and what errors name.
    pub label: Arc<str>,
    /// The whole WGSL module, one entry point `main`. Pipelines are keyed by it.
    pub text: Arc<str>,
    /// Whether the text is wholly ours (created unchecked) or a user's (created with checks).
    pub trusted: bool,
    /// The storage bindings, from `@binding(1)` on; `@binding(0)` is the uniform window.
    pub bindings: Vec<Binding>,
    /// The uniform window: `array<vec4<u32>, N>`, this many words, padded with zeros.
    pub words: Vec<Word>,
    /// Workgroups in x, y and z.
    pub grid: [u32; 3],
    /// Floating-point operations, roughly; splits long steps and fills the profile.
    pub flops: u64,
}

/// A check that a launch makes on its data: if it finds a value out of range, it ORs 1 into the check's error word.
#[derive(Clone, Debug)]
pub struct Check {
    /// The message of the error, e.g. `gather: index out of range: must be in 0..10`.
    pub message: Arc<str>,
}

/// What a GPU runs for a plan.
#[derive(Clone, Debug, Default)]
pub struct GpuProgram {
    /// In order; a launch sees all that the ones before it wrote.
    pub launches: Vec<Launch>,
    /// Bytes of each temporary.
    pub temporaries: Vec<usize>,
    /// Checks; the n-th uses word n of [`Slot::Errors`].
    pub checks: Vec<Check>,
    /// Launch index at which each segment after the first begins, with its name.
    pub segments: Vec<(usize, &'static str)>,
}

/// One operand of a host step.
#[derive(Clone, Debug)]
pub struct HostOperand {
    /// The buffer.
    pub slot: Slot,
    /// Element type.
    pub meta: Meta,
    /// Shape and strides; its offset is `data[offset]` (elements), which the run fills in.
    pub layout: Layout,
    /// Index into `data`.
    pub offset: usize,
}

/// What a host step does: the trait through which a plan runs ops on the CPU.
pub trait HostWork: Send + Sync + std::fmt::Debug {
    /// Read the inputs, fill the outputs (contiguous, in order). An output whose buffer is updated in place holds the old value.
    fn run(&self, data: &[u64], inputs: &[CpuView<'_>], outputs: &mut [CpuViewMut<'_>], threads: &Threads) -> Result<()>;
}

/// One step of a host program.
#[derive(Clone, Debug)]
pub struct HostStep {
    /// The op's name, or the fused ops' names joined.
    pub label: Arc<str>,
    /// The work.
    pub work: Arc<dyn HostWork>,
    /// What it reads.
    pub inputs: Vec<HostOperand>,
    /// What it writes, contiguous.
    pub outputs: Vec<(Slot, Meta)>,
}

/// What the CPU runs for a plan.
#[derive(Clone, Debug, Default)]
pub struct HostProgram {
    /// In order.
    pub steps: Vec<HostStep>,
    /// Bytes of each temporary.
    pub temporaries: Vec<usize>,
    /// Step index at which each segment after the first begins, with its name.
    pub segments: Vec<(usize, &'static str)>,
}
