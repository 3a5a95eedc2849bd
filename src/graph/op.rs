//! The trait that every operation implements, and what its methods are given.

use super::autocast::Autocast;
use super::lower::launch::LaunchCtx;
use super::{Slots, Tensor};
use crate::device::Caps;
use crate::device::cpu::{CpuView, CpuViewMut, Threads};
use crate::error::{Error, Result};
use crate::ops::rows::Row;
use crate::tensor::{Layout, Meta};

/// Which of a node's inputs and outputs its backward reads, as bit sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Saves {
    /// Bit n: input n.
    pub inputs: u64,
    /// Bit n: output n.
    pub outputs: u64,
}

impl Saves {
    /// Backward reads the incoming gradients only.
    pub const NONE: Saves = Saves { inputs: 0, outputs: 0 };

    /// Backward reads these inputs.
    pub fn inputs(which: &[usize]) -> Saves {
        Saves { inputs: which.iter().fold(0, |m, i| m | 1 << i), outputs: 0 }
    }

    /// Backward reads these outputs.
    pub fn outputs(which: &[usize]) -> Saves {
        Saves { inputs: 0, outputs: which.iter().fold(0, |m, i| m | 1 << i) }
    }

    /// Both.
    pub fn and(self, other: Saves) -> Saves {
        Saves { inputs: self.inputs | other.inputs, outputs: self.outputs | other.outputs }
    }
}

/// Integer attributes of an op, as its part of the plan's key. Two ops of one name with equal keys do the same.
#[derive(Debug, Default)]
pub struct Key(pub(crate) Vec<u64>);

impl Key {
    /// An integer attribute.
    pub fn int(&mut self, v: impl TryInto<i64>) -> &mut Self {
        self.0.push(v.try_into().unwrap_or(i64::MIN) as u64);
        self
    }

    /// A list of them, with its length.
    pub fn ints(&mut self, v: &[usize]) -> &mut Self {
        self.0.push(v.len() as u64);
        self.0.extend(v.iter().map(|&x| x as u64));
        self
    }

    /// A flag.
    pub fn flag(&mut self, v: bool) -> &mut Self {
        self.int(i64::from(v))
    }

    /// A name, for ops that hold one.
    pub fn text(&mut self, v: &str) -> &mut Self {
        self.0.push(v.len() as u64);
        self.0.extend(v.as_bytes().chunks(8).map(|c| c.iter().fold(0u64, |w, &b| w << 8 | u64::from(b))));
        self
    }
}

/// What the planner may join with an op's kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fuses {
    /// Rows over the (only) output may run where the kernel stores it.
    pub epilogue: bool,
    /// Rows that make input 0 may run where the kernel loads it.
    pub prologue: bool,
}

/// Where an update works: which of its inputs are whole arenas, and what lies in their slices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arenas {
    /// For each output, the input that is the arena it overwrites, and its slice there.
    pub outputs: Vec<(usize, u32)>,
    /// For each gradient among the inputs (they come first), the input that is the arena it is to be made in, and its slice there.
    pub grads: Vec<(usize, u32)>,
}

/// Fills a run of elements from a row-major index on.
pub type Elements<'a> = Box<dyn Fn(usize, &mut [f32]) + Sync + 'a>;

/// An operation. Its fields are integers only: floats, positions and seeds are slots of the node, so that they are data wherever a plan runs.
pub trait Op: std::fmt::Debug + Send + Sync + 'static {
    /// PyTorch's name for it.
    fn name(&self) -> &'static str;

    /// Its integer attributes.
    fn key(&self, _key: &mut Key) {}

    /// The outputs' types and shapes, or why these inputs are refused: the only gate.
    fn infer(&self, slots: &Slots, inputs: &[Meta]) -> Result<Vec<Meta>>;

    /// For views: where the output's elements lie in the input's buffer. Views do no work.
    fn view(&self, _slots: &Slots, _input: &Layout) -> Option<Layout> {
        None
    }

    /// For elementwise operations: the row.
    fn row(&self) -> Option<&'static Row> {
        None
    }

    /// Whether the kernel reads input `n` in this layout; where not, the planner makes a contiguous copy first.
    fn accepts(&self, _input: usize, layout: &Layout) -> bool {
        layout.is_contiguous()
    }

    /// What may be fused with it.
    fn fuses(&self) -> Fuses {
        Fuses::default()
    }

    /// Buffers that a kernel with its epilogue binds besides inputs and output: the error words, where it checks its data, and scratch that it reads there.
    fn extra_bindings(&self) -> usize {
        0
    }

    /// For updates: the arenas it works in. Outputs overwrite their slices, and gradients are made in theirs wherever the plan itself computes them.
    fn arenas(&self) -> Option<Arenas> {
        None
    }

    /// Whether each input and output must have a buffer of its own, because the kernel's text says how each is bound and cannot be changed.
    fn keeps_bindings(&self) -> bool {
        false
    }

    /// For sums: bit d says that dimension d goes away.
    fn sums(&self) -> Option<u8> {
        None
    }

    /// An input whose sum its kernel can make along the way on a device that can do `caps`, and which of its dimensions, as it is read, go away (bit d for
    /// dimension d); `inputs` are layouts, and whether offsets are multiples of four. Where the graph has that sum, too, the planner makes it one more
    /// output of the launch, after the op's own: so a layer's bias gets its gradient with the weight.
    fn sums_along(&self, _caps: &Caps, _inputs: &[(Layout, bool)]) -> Option<(usize, u8)> {
        None
    }

    /// Whether it has no kernel, so that on a GPU the host computes it as it is recorded, from values that are read back for it. Each time is counted as a
    /// `host_fallbacks`; no operation of the table does this.
    fn host_only(&self) -> bool {
        false
    }

    /// What autocast does with its inputs.
    fn autocast(&self) -> Autocast {
        Autocast::Full
    }

    /// The definition: plain loops, accumulating in f64, filling every output.
    fn cpu(&self, slots: &Slots, inputs: &[CpuView<'_>], outputs: &mut [CpuViewMut<'_>]) -> Result<()>;

    /// A faster implementation of the same for f32, where there is one; false means it did nothing. Where elements are computed one by one
    /// ([`Op::cpu_elements`]), there is no other.
    fn cpu_fast(&self, slots: &Slots, inputs: &[CpuView<'_>], outputs: &mut [CpuViewMut<'_>], threads: &Threads) -> Result<bool> {
        /// Elements of one task.
        const TASK: usize = 1 << 14;
        let Some(make) = self.cpu_elements(slots, inputs) else { return Ok(false) };
        threads.chunks(outputs[0].elements::<f32>(), TASK, |first, part| make(first, part));
        Ok(true)
    }

    /// The same where rows make input 0, which [`Fuses::prologue`] allows, and it lies nowhere: `load(first, to)` fills `to` with its elements from the
    /// row-major index `first` on. False means it did nothing; then the input is laid out after all.
    fn cpu_fast_loading(
        &self,
        _slots: &Slots,
        _load: &(dyn Fn(usize, &mut [f32]) + Sync),
        _inputs: &[CpuView<'_>],
        _outputs: &mut [CpuViewMut<'_>],
        _threads: &Threads,
    ) -> Result<bool> {
        Ok(false)
    }

    /// For f32 results whose elements are computed one by one: what fills a run of them, from a row-major index on. Rows that follow the op then take its
    /// result block by block, before it leaves the caches. Must give the bits of `cpu_fast`.
    fn cpu_elements<'a>(&'a self, _slots: &'a Slots, _inputs: &'a [CpuView<'a>]) -> Option<Elements<'a>> {
        None
    }

    /// The launches that compute the outputs on a GPU.
    fn gpu(&self, ctx: &mut LaunchCtx<'_>) -> Result<()>;

    /// What backward reads.
    fn saves(&self) -> Saves {
        Saves::NONE
    }

    /// The gradient of each input, in tensor operations. `None` for an input that has none; entries that [`Saved::needs`] says no to may be `None`.
    fn backward(&self, _ctx: &Saved<'_>, _grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        Err(Error::gradient(format!("{}: has no gradient", self.name())).help("detach the input, or wrap the call in no_grad"))
    }

    /// Whether outputs carry gradients at all: false for comparisons, argmax and the like.
    fn differentiable(&self) -> bool {
        true
    }

    /// The model axis: what this op is when every input carries one more leading axis of `k` (inputs that did not have it were expanded to it).
    /// Gives the outputs, each with that axis. `metas` are the inputs' metas without it.
    fn batch(&self, _ctx: &Batched<'_>) -> Result<Vec<Tensor>> {
        Err(Error::invalid(format!("vmap: {} has no batch rule", self.name())))
    }
}

/// What `backward` may use of the forward node.
pub struct Saved<'a> {
    pub(crate) inputs: Vec<Option<Tensor>>,
    pub(crate) outputs: Vec<Option<Tensor>>,
    pub(crate) input_metas: Vec<Meta>,
    pub(crate) output_metas: Vec<Meta>,
    pub(crate) needs: Vec<bool>,
    pub(crate) slots: &'a Slots,
}

impl Saved<'_> {
    /// Input `n`, which `saves` must name.
    pub fn input(&self, n: usize) -> &Tensor {
        self.inputs[n].as_ref().expect("backward uses an input that saves() does not name")
    }

    /// Output `n`, which `saves` must name.
    pub fn output(&self, n: usize) -> &Tensor {
        self.outputs[n].as_ref().expect("backward uses an output that saves() does not name")
    }

    /// How many inputs there are.
    pub fn input_count(&self) -> usize {
        self.input_metas.len()
    }

    /// Type and shape of input `n`.
    pub fn input_meta(&self, n: usize) -> &Meta {
        &self.input_metas[n]
    }

    /// Type and shape of output `n`.
    pub fn output_meta(&self, n: usize) -> &Meta {
        &self.output_metas[n]
    }

    /// Whether someone wants the gradient of input `n`.
    pub fn needs(&self, n: usize) -> bool {
        self.needs[n]
    }

    /// The node's slots.
    pub fn slots(&self) -> &Slots {
        self.slots
    }
}

/// What `batch` may use: the inputs, each `[k, ...]`.
pub struct Batched<'a> {
    /// The inputs with the model axis in front.
    pub inputs: &'a [Tensor],
    /// The inputs' metas without it.
    pub metas: &'a [Meta],
    /// The node's slots.
    pub slots: &'a Slots,
    /// How many models.
    pub k: usize,
    /// The seed of each model, `[k]` u32, where the program was given some.
    pub seeds: Option<&'a Tensor>,
}
