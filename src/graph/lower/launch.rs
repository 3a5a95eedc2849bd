//! The builder through which an op's `gpu` makes its launches.

use super::steps::{Reg, Steps, Store, Width};
use crate::device::{Access, Binding, Caps, Check, Coop, GpuProgram, Kind, Launch, Slot, Word};
use crate::error::{Error, Result};
use crate::graph::Slots;
use crate::kernel::{self, BindingText, Emit};
use crate::tensor::{DType, Layout, Meta};
use std::sync::Arc;

/// An input of a launch: its buffer, and how the value lies in it.
#[derive(Clone, Debug)]
pub struct Operand {
    /// The buffer.
    pub slot: Slot,
    /// Element type and shape.
    pub meta: Meta,
    /// Shape and strides, in elements. The offset is data: see [`Call::offset`].
    pub layout: Layout,
    /// Which entry of the plan's data holds the offset; none for a copy made for this launch, which begins at its start.
    pub offset: Option<usize>,
    /// Whether the offset is a multiple of 4 elements in every run of this plan.
    pub aligned: bool,
}

/// What an op's `gpu` is given.
pub struct LaunchCtx<'a> {
    /// The inputs.
    pub inputs: &'a [Operand],
    /// The outputs: buffer and meta. Contiguous. An output that nobody wants has no buffer.
    pub outputs: &'a [(Option<Slot>, Meta)],
    /// What the device can do.
    pub caps: &'a Caps,
    /// The op's name; label of its launches.
    pub label: &'a str,
    /// The node's slots at the time of planning: their number only, never their values.
    pub(crate) slots: &'a Slots,
    pub(crate) slot_base: usize,
    /// Elements of output 0, which rows go over.
    pub(crate) numel: usize,
    /// Rows to run where the last launch stores.
    pub(crate) epilogue: Option<&'a Steps>,
    /// Rows to run where input 0 is loaded.
    pub(crate) prologue: Option<&'a Steps>,
    pub(crate) program: &'a mut GpuProgram,
    /// Scratch buffers of this op: bytes of each; they live from here to the op's last launch.
    pub(crate) scratch: Vec<usize>,
    /// The number that the first scratch buffer gets: scratch is placed by lifetime after lowering.
    pub(crate) scratch_base: usize,
    pub(crate) buffers: &'a super::Slots,
}

impl<'a> LaunchCtx<'a> {
    /// The op's float slot `n` as a word.
    pub fn float(&self, n: usize) -> Word {
        assert!(n < self.slots.floats.len(), "{}: no float slot {n}", self.label);
        Word::F32(self.slot_base + n)
    }

    /// How many float slots the op has.
    pub fn float_count(&self) -> usize {
        self.slots.floats.len()
    }

    /// The op's integer slot `n`, low half, as a word.
    pub fn int(&self, n: usize) -> Word {
        assert!(n < self.slots.ints.len(), "{}: no integer slot {n}", self.label);
        Word::Low(self.slot_base + self.slots.floats.len() + n)
    }

    /// A buffer for intermediate results of this op. Its content is undefined at first.
    pub fn scratch(&mut self, bytes: usize) -> Slot {
        self.scratch.push(bytes.max(4));
        Slot::Temp(self.scratch_base + self.scratch.len() - 1)
    }

    /// Whether `slot` is slice `slice` of the arena in `arena`.
    pub(crate) fn lies_in(&self, slot: Slot, arena: Slot, slice: u32) -> bool {
        self.buffers.place(slot) == Some((arena, slice))
    }

    /// Refuse a kernel whose loops turn that often in one invocation, where a driver would end them before.
    ///
    /// # Errors
    /// There.
    pub(crate) fn turns(&self, op: &str, turns: usize) -> Result<()> {
        match self.caps.loop_turns() {
            Some(most) if turns > most => Err(Error::device(format!("{op}: {turns} steps for one element; this driver ends loops, silently, after {most}"))
                .help("compute parts and join them, or compute on the CPU")),
            _ => Ok(()),
        }
    }

    /// Register a check; the words say where in the error buffer to OR 1. `message` names op, fault and limit.
    pub fn check(&mut self, message: impl Into<Arc<str>>) -> Word {
        self.program.checks.push(Check { message: message.into() });
        Word::Const(self.program.checks.len() as u32 - 1)
    }

    /// Begin a launch of the shader `name` in the KERNELS table.
    pub fn call(&mut self, name: &'static str) -> Result<Call<'_, 'a>> {
        let kernel = kernel::find(name)?;
        crate::graph::watch::launched(kernel.name);
        let label = self.label.to_string();
        let mut emit = Emit::new(kernel);
        emit.set_f16(self.caps.f16);
        Ok(Call { ctx: self, text: Text::Ours(emit), bindings: Vec::new(), words: Vec::new(), flops: 0, label, halves: Vec::new() })
    }

    /// Begin a launch of a whole module that a user wrote: it runs as it is, with all checks. Its bindings are declared in it, so an op that uses
    /// this must not let them change: see [`Op::keeps_bindings`](crate::graph::Op::keeps_bindings).
    pub fn call_text(&mut self, text: &Arc<str>) -> Call<'_, 'a> {
        let label = self.label.to_string();
        Call { ctx: self, text: Text::Theirs(text.clone()), bindings: Vec::new(), words: Vec::new(), flops: 0, label, halves: Vec::new() }
    }

    /// Launch what brings the f32s of one buffer into another as halves.
    pub(crate) fn store_halves(&mut self, from: Slot, to: Slot, numel: usize) -> Result<()> {
        let call = self.call("halves")?.read("x", from, "f32").write("y", to, "u32").u32(numel);
        call.grid_linear(numel.div_ceil(2).div_ceil(64))
    }
}

/// The module of a launch.
enum Text {
    /// A variant of one of our shaders.
    Ours(Emit),
    /// A user's, as it is.
    Theirs(Arc<str>),
}

impl Text {
    /// Change the module; a user's is not ours to change, and no op that calls one tries to.
    fn edit(&mut self, f: impl FnOnce(&mut Emit)) {
        match self {
            Text::Ours(emit) => f(emit),
            Text::Theirs(_) => debug_assert!(false, "a user's module stays as it is"),
        }
    }
}

/// One launch in the making. Bindings and words come in the order in which the shader declares and reads them.
pub struct Call<'c, 'a> {
    ctx: &'c mut LaunchCtx<'a>,
    text: Text,
    bindings: Vec<(BindingText, Binding)>,
    words: Vec<Word>,
    flops: u64,
    label: String,
    /// Values that it stores as f32 and that are halves: from where to where they are brought after it.
    halves: Vec<(Slot, Slot)>,
}

impl Call<'_, '_> {
    /// Replace the value of `const name` in the shader.
    pub fn set(mut self, name: &str, value: impl std::fmt::Display) -> Self {
        self.text.edit(|e| e.set_const(name, &value.to_string()));
        self
    }

    /// Replace the type of `alias name` in the shader.
    pub fn alias(mut self, name: &str, wgsl_type: &str) -> Self {
        self.text.edit(|e| e.set_alias(name, wgsl_type));
        self
    }

    /// Replace the body of the hook function `name` in the shader.
    pub fn hook(mut self, name: &str, body: &str) -> Self {
        self.text.edit(|e| e.set_hook(name, body));
        self
    }

    /// Write the operations on small matrices of `matmul_coop` for these units.
    pub fn small_matrices(mut self, coop: &Coop) -> Self {
        self.text.edit(|e| coop.write_into(e));
        self
    }

    /// Bind a buffer to read, as `name: array<element>`. An input of halves is read as the floats that the shader takes it for.
    pub fn read(self, name: &str, slot: Slot, element: &str) -> Self {
        self.bind(name, slot, element, Access::Read)
    }

    /// Bind a buffer to write (or to read and write), as `name: array<element>`.
    pub fn write(self, name: &str, slot: Slot, element: &str) -> Self {
        self.bind(name, slot, element, Access::ReadWrite)
    }

    /// Bind a buffer to write, as `name: array<element>`, of which each element is read at most once, and before it is written.
    pub fn update(self, name: &str, slot: Slot, element: &str) -> Self {
        self.bind(name, slot, element, Access::Update)
    }

    /// Bind input `n` to read under `name`, with its own element type.
    pub fn input(self, name: &str, n: usize) -> Self {
        let o = &self.ctx.inputs[n];
        let (slot, element) = (o.slot, o.meta.dtype.wgsl());
        self.bind(name, slot, element, Access::Read)
    }

    /// Bind input `n` to read under `name`, as `array<element>`.
    pub fn input_as(self, name: &str, n: usize, element: &str) -> Self {
        let slot = self.ctx.inputs[n].slot;
        self.bind(name, slot, element, Access::Read)
    }

    /// Bind input `n` to read under `name`, as `array<element>`.
    pub fn read_input(self, name: &str, n: usize, element: &str) -> Self {
        let slot = self.ctx.inputs[n].slot;
        self.read(name, slot, element)
    }

    /// Bind output `n` under `name`, with its own element type.
    ///
    /// # Errors
    /// Where nobody wants that output: ask `ctx.outputs[n].0` first.
    pub fn output(self, name: &str, n: usize) -> Result<Self> {
        let (slot, meta) = self.ctx.outputs[n];
        let slot = slot.ok_or_else(|| Error::internal(format!("{}: output {n} is not wanted", self.label)))?;
        Ok(self.bind(name, slot, meta.dtype.wgsl(), Access::ReadWrite))
    }

    fn bind(mut self, name: &str, slot: Slot, element: &str, access: Access) -> Self {
        let ours = matches!(self.text, Text::Ours(_));
        let halves = ours && access == Access::Read && self.ctx.inputs.iter().any(|i| i.slot == slot && i.meta.dtype == DType::F16);
        let element = match (halves, element) {
            (true, "f32") => "half",
            (true, "vec2<f32>") => "vec2<half>",
            (true, "vec4<f32>") => "vec4<half>",
            (true, other) => {
                self.text.edit(|e| e.fail(format!("{name} holds halves, which are not read as {other}")));
                other
            }
            _ => element,
        };
        self.bindings.push((BindingText { name: name.into(), element: element.into(), access }, Binding { slot, access }));
        self
    }

    /// Append a word that is the same in every run: sizes, strides.
    pub fn u32(mut self, value: usize) -> Self {
        self.words.push(Word::Const(value as u32));
        self
    }

    /// Append a stride, which may be negative: shaders add it with wrapping u32 arithmetic.
    pub fn stride(mut self, value: isize) -> Self {
        self.words.push(Word::Const(value as i32 as u32));
        self
    }

    /// Append several.
    pub fn u32s(mut self, values: &[usize]) -> Self {
        self.words.extend(values.iter().map(|&v| Word::Const(v as u32)));
        self
    }

    /// Append the two words by which `quotient` in layout.wgsl divides by `d`.
    pub fn divisor(mut self, d: usize) -> Self {
        self.words.extend(kernel::divisor(d).map(Word::Const));
        self
    }

    /// Append the offset (in elements) of input `n`.
    pub fn offset(mut self, n: usize) -> Self {
        self.words.push(self.ctx.inputs[n].offset.map_or(Word::Const(0), Word::Low));
        self
    }

    /// Append a word.
    pub fn word(mut self, word: Word) -> Self {
        self.words.push(word);
        self
    }

    /// State how much this launch computes.
    pub fn flops(mut self, flops: u64) -> Self {
        self.flops = flops;
        self
    }

    /// Load input 0 through the prologue's rows, where there are some; the hook is `fn load(i: u32) -> T`, with `i` the element's row-major index, or
    /// `-> vec4<T>` where `fours` says that it gives four neighbours, `i` the first one's index.
    /// Without a prologue the shader's own body stands.
    pub fn with_prologue(mut self, fours: bool) -> Self {
        if let Some(steps) = self.ctx.prologue {
            let width = if fours { Width::Four } else { Width::One };
            self.text.edit(|e| steps.emit_prologue(e, &mut self.bindings, &mut self.words, width));
        }
        self
    }

    /// Store output 0 through the epilogue's rows, where there are some; the hook is `fn epilogue(i: u32, v: T)`, with `i` the element's row-major index.
    /// Without an epilogue, binds output 0 as `y` and the shader's own body (`y[i] = v;`) stands. Comes after all other bindings and words.
    pub fn with_epilogue(self) -> Result<Self> {
        match self.ctx.epilogue {
            Some(steps) => Ok(self.stored(steps, Width::One)),
            None if self.ctx.outputs[0].1.dtype == DType::F16 => {
                let steps = self.only_store()?;
                Ok(self.stored(&steps, Width::One))
            }
            None => self.output("y", 0),
        }
    }

    /// Let the epilogue be these rows. Single halves that no invocation may write alone become f32s elsewhere, and halves after the launch.
    fn stored(mut self, steps: &Steps, width: Width) -> Self {
        let mut elsewhere = steps.shares_words(width, self.ctx.caps.f16).then(|| steps.clone());
        for store in elsewhere.iter_mut().flat_map(|s| &mut s.stores).filter(|s| s.dtype == DType::F16) {
            let floats = self.ctx.scratch(self.ctx.numel * DType::F32.size());
            self.halves.push((floats, store.slot));
            (store.slot, store.dtype) = (floats, DType::F32);
        }
        let steps = elsewhere.as_ref().unwrap_or(steps);
        self.text.edit(|e| steps.emit_epilogue(e, &mut self.bindings, &mut self.words, width));
        self
    }

    /// No rows, and the result stored as it is.
    fn only_store(&self) -> Result<Steps> {
        let (slot, meta) = self.ctx.outputs[0];
        let slot = slot.ok_or_else(|| Error::internal(format!("{}: output 0 is not wanted", self.label)))?;
        Ok(Steps { stores: vec![Store { reg: Reg::Root, slot, dtype: meta.dtype }], root: Some(meta.dtype), ..Steps::default() })
    }

    /// The same for a shader that stores four neighbours at a time, for results of [`in_fours`]: the hook is `fn epilogue(i: u32, v: vec4<T>)`, with `i` the
    /// first one's index.
    pub fn with_epilogue4(self) -> Result<Self> {
        if let Some(steps) = self.ctx.epilogue {
            return Ok(self.stored(steps, Width::Four));
        }
        let steps = self.only_store()?;
        Ok(self.stored(&steps, Width::Four))
    }

    /// For a shader that can store one element (`put`) or four neighbours (`put4`): with `fours`, all are stored as those.
    pub fn with_epilogue_of(self, fours: bool) -> Result<Self> {
        if fours { self.fours().with_epilogue4() } else { self.with_epilogue() }
    }

    /// The same for a buffer that is not the result: a scratch buffer of parts.
    pub fn write_of(self, fours: bool, name: &str, slot: Slot) -> Self {
        if !fours {
            return self.write(name, slot, "f32");
        }
        self.fours().hook("epilogue", &format!("    {name}[i >> 2u] = v;")).write(name, slot, "vec4<f32>")
    }

    fn fours(self) -> Self {
        // Single elements are not stored any more; the body must be valid all the same.
        self.alias("Stored", "vec4<f32>").hook("put", "    return;").hook("put4", "    epilogue(i, v);")
    }

    /// Dispatch this many workgroups.
    pub fn grid(self, x: usize, y: usize, z: usize) -> Result<()> {
        let limit = self.ctx.caps.max_groups as usize;
        if x > limit || y > limit || z > limit {
            return Err(Error::internal(format!("{}: grid [{x}, {y}, {z}] is above {limit} groups; use grid_linear", self.label)));
        }
        if x == 0 || y == 0 || z == 0 {
            return Ok(());
        }
        self.finish([x as u32, y as u32, z as u32])
    }

    /// Dispatch this many workgroups in one dimension, folded into two where they exceed the device's limit. The shader's linear index is
    /// `wid.x + wid.y * groups.x` (`@builtin(num_workgroups)`), and it must ignore indices past the end.
    pub fn grid_linear(self, groups: usize) -> Result<()> {
        let limit = self.ctx.caps.max_groups as usize;
        if groups <= limit {
            return self.grid(groups, 1, 1);
        }
        let y = groups.div_ceil(limit);
        self.grid(groups.div_ceil(y), y, 1)
    }

    fn finish(mut self, grid: [u32; 3]) -> Result<()> {
        resolve_conflicts(&mut self.bindings, |s| self.ctx.buffers.alias_class(s));
        let images = if matches!(self.text, Text::Ours(_)) { self.ctx.caps.images as usize } else { 0 };
        through_images(&mut self.bindings, images);
        let limit = self.ctx.caps.max_storage_bindings as usize;
        if self.bindings.len() > limit {
            return Err(Error::internal(format!("{}: {} storage bindings, the device has {limit}", self.label, self.bindings.len())));
        }
        let texts: Vec<BindingText> = self.bindings.iter().map(|(t, _)| t.clone()).collect();
        let (text, trusted) = match self.text {
            Text::Ours(emit) => {
                let (text, unread) = emit.finish_for(self.ctx.caps.kind == Kind::Software, &texts, self.words.len())?;
                self.words.splice(..0, std::iter::repeat_n(Word::Const(0), unread));
                (text.into(), true)
            }
            Text::Theirs(text) => (text, false),
        };
        self.ctx.program.launches.push(Launch {
            label: self.label.into(),
            text,
            trusted,
            bindings: self.bindings.into_iter().map(|(_, b)| b).collect(),
            words: self.words,
            grid,
            flops: self.flops,
        });
        let (numel, ctx) = (self.ctx.numel, self.ctx);
        self.halves.into_iter().try_for_each(|(from, to)| ctx.store_halves(from, to, numel))
    }
}

/// A launch that reads and writes one buffer must bind all of it read_write.
fn resolve_conflicts(bindings: &mut [(BindingText, Binding)], alias: impl Fn(Slot) -> Slot) {
    let written: Vec<Slot> = bindings.iter().filter(|(_, b)| b.access.writes()).map(|(_, b)| alias(b.slot)).collect();
    for (text, binding) in bindings.iter_mut().filter(|(_, b)| !b.access.writes()) {
        if written.contains(&alias(binding.slot)) {
            (text.access, binding.access) = (Access::ReadWrite, Access::ReadWrite);
        }
    }
}

/// Let floats that a launch only reads, or reads before it writes them, be read through images, as many as the device has room for.
fn through_images(bindings: &mut [(BindingText, Binding)], most: usize) {
    let mut left = most;
    for (text, binding) in bindings {
        let floats = matches!(text.element.as_str(), "f32" | "vec4<f32>") && left > 0;
        let access = match binding.access {
            Access::Read if floats => Access::Image,
            Access::Update if !floats => Access::ReadWrite,
            other => other,
        };
        left -= usize::from(access.images());
        (text.access, binding.access) = (access, access);
    }
}
