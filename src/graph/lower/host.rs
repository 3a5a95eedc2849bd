//! Groups to host steps.

use super::super::canon::{Canon, Src};
use super::super::fuse::Group;
use super::super::plan::Fault;
use super::runner::{Reads, Root, Runner};
use super::steps::{Steps, Store};
use super::{Slots, build_steps, halves, label};
use crate::device::cpu::{CpuView, CpuViewMut, Threads};
use crate::device::{HostOperand, HostProgram, HostStep, HostWork, Slot};
use crate::error::Result;
use crate::graph::{Op, memory};
use crate::tensor::{DType, Meta};
use std::sync::Arc;

/// The program that computes `groups`, in order, with its temporaries placed. With `definition`, every op runs its f64 definition.
pub(crate) fn lower(canon: &Canon, groups: &[Group], definition: bool, fault: Option<Fault>) -> Result<HostProgram> {
    let mut slots = Slots::new(canon, groups);
    let mut program = HostProgram::default();
    for group in groups {
        program.steps.extend(lower_group(canon, group, definition, &mut slots));
    }
    let uses: Vec<Vec<Slot>> = program.steps.iter().map(|s| s.inputs.iter().map(|i| i.slot).chain(s.outputs.iter().map(|o| o.0)).collect()).collect();
    let placed = memory::place(&uses, &slots.temps, &slots.outputs, fault);
    for step in &mut program.steps {
        step.inputs.iter_mut().for_each(|i| i.slot = placed.slot(i.slot));
        step.outputs.iter_mut().for_each(|o| o.0 = placed.slot(o.0));
    }
    program.temporaries = placed.bytes;
    Ok(program)
}

fn lower_group(canon: &Canon, group: &Group, definition: bool, slots: &mut Slots) -> Option<HostStep> {
    let label: Arc<str> = label(canon, group).into();
    let of_loads = |steps: &Steps| -> Vec<HostOperand> {
        steps.loads.iter().map(|l| HostOperand { slot: l.slot, meta: Meta::new(l.dtype, l.layout.shape), layout: l.layout, offset: l.offset }).collect()
    };
    let Some(root) = group.root else {
        let numel = canon.nodes[group.rows[0] as usize].outs[0].numel();
        let steps = build_steps(canon, slots, &group.rows, None, None);
        if numel == 0 || steps.stores.is_empty() {
            return None;
        }
        let shape = canon.nodes[group.rows[0] as usize].outs[0].shape;
        return Some(HostStep {
            label,
            inputs: of_loads(&steps),
            outputs: steps.stores.iter().map(|s| (s.slot, Meta::new(s.dtype, shape))).collect(),
            work: Arc::new(RowsWork { runner: Runner::new(steps, definition), numel }),
        });
    };
    let node = &canon.nodes[root as usize];
    // With a prologue, input 0 has no buffer: its rows are the input.
    let has_prologue = !group.prologue.is_empty();
    let mut inputs: Vec<HostOperand> = node
        .inputs
        .iter()
        .skip(usize::from(has_prologue))
        .map(|x| {
            let slot = slots.of(x.src).expect("an operand of a kernel has a buffer");
            HostOperand { slot, meta: Meta::new(canon.meta(x.src).dtype, x.layout.shape), layout: x.layout, offset: x.offset }
        })
        .collect();
    let own = inputs.len();
    let prologue = has_prologue.then(|| {
        let mut steps = build_steps(canon, slots, &group.prologue, None, group.prologue.last().copied());
        inputs.extend(of_loads(&steps));
        let (x, slot) = (&node.inputs[0], Slot::Temp(0));
        let meta = Meta::new(canon.meta(x.src).dtype, x.layout.shape);
        // The one value that is wanted of it, for which it is given a place when it runs.
        steps.stores.extend(steps.result.map(|reg| Store { reg, slot, dtype: meta.dtype }));
        Prologue { runner: Runner::new(steps, definition), meta, loads: inputs.len() - own }
    });
    let mut outputs: Vec<(Slot, Meta)> = Vec::new();
    let mut epilogue = None;
    if group.rows.is_empty() {
        // An output that nobody wants still needs a place to be written to.
        for (o, meta) in node.outs.iter().enumerate() {
            let slot = slots.of(Src::Node(root, o as u8)).unwrap_or_else(|| slots.temp(meta.bytes()));
            outputs.push((slot, *meta));
        }
    } else {
        let steps = build_steps(canon, slots, &group.rows, Some(root), None);
        inputs.extend(of_loads(&steps));
        outputs = steps.stores.iter().map(|s| (s.slot, Meta::new(s.dtype, node.outs[0].shape))).collect();
        epilogue = Some(Runner::new(steps, definition));
    }
    let work = OpWork {
        op: node.op.clone(),
        slots: node.slots.clone(),
        slot_base: node.slot_base,
        outs: node.outs.to_vec(),
        own,
        prologue,
        epilogue,
        definition: definition || node.outs.iter().any(|m| m.dtype == DType::F64),
    };
    Some(HostStep { label, work: Arc::new(work), inputs, outputs })
}

/// The rows that make a node's first input.
#[derive(Debug)]
struct Prologue {
    runner: Runner,
    /// What they make.
    meta: Meta,
    /// How many inputs are theirs.
    loads: usize,
}

/// A node that is not a row, with the rows before and behind it.
#[derive(Debug)]
struct OpWork {
    op: Arc<dyn Op>,
    slots: crate::graph::Slots,
    slot_base: usize,
    outs: Vec<Meta>,
    /// How many of the inputs are the op's own. Those of the prologue follow, then those of the epilogue.
    own: usize,
    prologue: Option<Prologue>,
    epilogue: Option<Runner>,
    definition: bool,
}

impl OpWork {
    /// The op's outputs. `inputs` are its own and the prologue's.
    fn compute(&self, data: &[u64], inputs: &[CpuView<'_>], outputs: &mut [CpuViewMut<'_>], threads: &Threads) -> Result<()> {
        let slots = self.slots.read(&data[self.slot_base..]);
        self.unrounded(&slots, data, inputs, outputs, threads)?;
        // Rows go on with the result as f32, but with the values that halves have.
        for (o, own) in outputs.iter_mut().zip(&self.outs).filter(|(o, own)| o.meta.dtype != own.dtype) {
            debug_assert!((o.meta.dtype, own.dtype) == (DType::F32, DType::F16));
            halves::round(o.elements(), threads);
        }
        Ok(())
    }

    /// The same where rows do not care which type the result was of.
    fn unrounded(&self, slots: &crate::graph::Slots, data: &[u64], inputs: &[CpuView<'_>], outputs: &mut [CpuViewMut<'_>], threads: &Threads) -> Result<()> {
        let Some(Prologue { runner, meta, .. }) = &self.prologue else { return self.op_of(slots, inputs, outputs, threads) };
        let (own, loads) = inputs.split_at(self.own);
        let reads = Reads { data, loads, root: Root::None };
        let mut views: Vec<CpuView<'_>> = vec![CpuView::new(*meta, &[])];
        views.extend(own);
        if !self.definition && runner.fast && meta.dtype == DType::F32 && self.outs[0].dtype == DType::F32 {
            let load = |first: usize, to: &mut [f32]| runner.fill(reads, first, to);
            if self.op.cpu_fast_loading(slots, &load, &views, outputs, threads)? {
                return Ok(());
            }
        }
        let mut made = vec![0u64; meta.bytes().div_ceil(8)];
        runner.run(reads, &mut [CpuViewMut::new(*meta, bytemuck::cast_slice_mut(&mut made))], meta.numel(), threads);
        views[0] = CpuView::new(*meta, &bytemuck::cast_slice(&made)[..meta.bytes()]);
        self.op_of(slots, &views, outputs, threads)
    }

    fn op_of(&self, slots: &crate::graph::Slots, inputs: &[CpuView<'_>], outputs: &mut [CpuViewMut<'_>], threads: &Threads) -> Result<()> {
        if !self.definition && self.fast(slots, inputs, outputs, threads)? {
            return Ok(());
        }
        self.op.cpu(slots, inputs, outputs)
    }

    /// The fast path of the op, which knows f32 only: halves are widened for it, and its results rounded to them.
    fn fast(&self, slots: &crate::graph::Slots, inputs: &[CpuView<'_>], outputs: &mut [CpuViewMut<'_>], threads: &Threads) -> Result<bool> {
        let halves = inputs.iter().map(|i| i.dtype).chain(self.outs.iter().map(|o| o.dtype)).any(|d| d == DType::F16);
        if !halves {
            return self.op.cpu_fast(slots, inputs, outputs, threads);
        }
        if self.op.arenas().is_some() {
            // It updates its outputs in place, and would find nothing in others.
            return Ok(false);
        }
        let wide: Vec<Option<Vec<f32>>> = inputs.iter().map(|i| (i.dtype == DType::F16).then(|| halves::widen(i, threads))).collect();
        let inputs: Vec<CpuView<'_>> = (inputs.iter().zip(&wide))
            .map(|(i, w)| match w {
                Some(w) => CpuView::of_f32(*i.shape(), w),
                None => *i,
            })
            .collect();
        let mut results: Vec<Option<Vec<f32>>> = outputs.iter().map(|o| (o.meta.dtype == DType::F16).then(|| vec![0.0; o.meta.numel()])).collect();
        let mut views: Vec<CpuViewMut<'_>> = (outputs.iter_mut().zip(&mut results))
            .map(|(o, r)| match r {
                Some(r) => CpuViewMut::new(Meta::new(DType::F32, o.meta.shape), bytemuck::cast_slice_mut(r)),
                None => CpuViewMut::new(o.meta, &mut *o.bytes),
            })
            .collect();
        if !self.op.cpu_fast(slots, &inputs, &mut views, threads)? {
            return Ok(false);
        }
        outputs.iter_mut().zip(&results).for_each(|(o, r)| {
            if let Some(r) = r {
                halves::narrow(r, o.elements(), threads);
            }
        });
        Ok(true)
    }
}

impl HostWork for OpWork {
    fn run(&self, data: &[u64], inputs: &[CpuView<'_>], outputs: &mut [CpuViewMut<'_>], threads: &Threads) -> Result<()> {
        let (inputs, loads) = inputs.split_at(self.own + self.prologue.as_ref().map_or(0, |p| p.loads));
        let Some(runner) = &self.epilogue else { return self.compute(data, inputs, outputs, threads) };
        let mut meta = self.outs[0];
        let rows = |root: Root<'_>, outputs: &mut [CpuViewMut<'_>]| runner.run(Reads { data, loads, root }, outputs, self.outs[0].numel(), threads);
        if !self.definition && self.prologue.is_none() && meta.dtype == DType::F32 {
            let slots = self.slots.read(&data[self.slot_base..]);
            if let Some(make) = self.op.cpu_elements(&slots, inputs) {
                rows(Root::Made(&*make), outputs);
                return Ok(());
            }
        }
        if meta.dtype == DType::F16 && !self.definition {
            meta.dtype = DType::F32;
        }
        // The op's result goes to the first output where it fits there, and the rows then run over it in place.
        if outputs[0].meta.dtype.size() == meta.dtype.size() {
            let mut raw = CpuViewMut::new(meta, &mut *outputs[0].bytes);
            self.compute(data, inputs, std::slice::from_mut(&mut raw), threads)?;
            rows(Root::InPlace(meta.dtype), outputs);
        } else {
            let mut raw = vec![0u64; meta.bytes().div_ceil(8)];
            let mut view = CpuViewMut::new(meta, bytemuck::cast_slice_mut(&mut raw));
            self.compute(data, inputs, std::slice::from_mut(&mut view), threads)?;
            rows(Root::Apart(meta.dtype, bytemuck::cast_slice(&raw)), outputs);
        }
        Ok(())
    }
}

/// Rows alone.
#[derive(Debug)]
struct RowsWork {
    runner: Runner,
    numel: usize,
}

impl HostWork for RowsWork {
    fn run(&self, data: &[u64], inputs: &[CpuView<'_>], outputs: &mut [CpuViewMut<'_>], threads: &Threads) -> Result<()> {
        self.runner.run(Reads { data, loads: inputs, root: Root::None }, outputs, self.numel, threads);
        Ok(())
    }
}
