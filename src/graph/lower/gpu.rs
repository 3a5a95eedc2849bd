//! Groups to GPU launches.

use super::super::canon::{Canon, Src};
use super::super::fuse::Group;
use super::super::plan::Fault;
use super::launch::{LaunchCtx, Operand};
use super::steps::{Load, Reg, Steps, Store, in_fours};
use super::{Slots, build_steps, copies_needed, label};
use crate::device::{Caps, GpuProgram, Slot, choices};
use crate::error::{Error, Result};
use crate::graph::memory;
use crate::tensor::{DType, Layout, Meta, Shape};
use std::collections::HashMap;

/// Elements that a kernel walks at most: their numbers are u32, and are cut into coordinates by factors that are exact up to here. No buffer holds as many, but
/// what is broadcast or summed as it is made may have more.
const MOST_ELEMENTS: usize = 1 << 31;

/// Refuse shapes of more elements than kernels count.
pub(crate) fn countable(what: &str, shape: &Shape) -> Result<()> {
    if shape.numel() < MOST_ELEMENTS {
        return Ok(());
    }
    let why = format!("{what}: shape {shape} has {} elements, kernels count fewer than {MOST_ELEMENTS}", shape.numel());
    Err(Error::shape(why).help("compute it in parts"))
}

/// The program that computes `groups`, in order, with its temporaries placed.
pub(crate) fn lower(canon: &Canon, groups: &[Group], caps: &Caps, fault: Option<Fault>) -> Result<GpuProgram> {
    let mut slots = Slots::new(canon, groups);
    let mut program = GpuProgram::default();
    caps.choices.begin();
    for group in groups {
        let first = program.launches.len();
        let label = label(canon, group);
        for meta in group.nodes().flat_map(|n| &canon.nodes[n as usize].outs) {
            countable(&label, &meta.shape)?;
        }
        match group.root {
            None => {
                let steps = build_steps(canon, &slots, &group.rows, None, None);
                let first = &canon.nodes[group.rows[0] as usize];
                map(&mut program, &mut slots, caps, &label, &steps, &first.outs[0].shape, first.slot_base)?;
            }
            Some(root) => lower_root(canon, group, root, &label, &mut program, &mut slots, caps)?,
        }
        caps.choices.launched(first..program.launches.len(), program.launches[first..].iter().map(|l| l.flops).sum());
    }
    let uses: Vec<Vec<Slot>> = program.launches.iter().map(|l| l.bindings.iter().map(|b| b.slot).collect()).collect();
    let placed = memory::place(&uses, &slots.temps, &slots.outputs, fault);
    for launch in &mut program.launches {
        for b in &mut launch.bindings {
            b.slot = placed.slot(b.slot);
        }
    }
    program.temporaries = placed.bytes;
    Ok(program)
}

/// One kernel of rows alone.
fn map(program: &mut GpuProgram, slots: &mut Slots, caps: &Caps, label: &str, steps: &Steps, shape: &Shape, slot_base: usize) -> Result<()> {
    let numel = shape.numel();
    if numel == 0 || steps.stores.is_empty() {
        return Ok(());
    }
    let none = crate::graph::Slots::none();
    let scratch_base = slots.temps.len();
    let mut ctx = LaunchCtx {
        inputs: &[],
        outputs: &[],
        caps,
        label,
        slots: &none,
        slot_base,
        numel,
        epilogue: Some(steps),
        prologue: None,
        program,
        scratch: Vec::new(),
        scratch_base,
        buffers: slots,
    };
    let flops = (numel * steps.steps.len()) as u64;
    if in_fours(shape) {
        let quads = numel / 4;
        let (all, runs) = (quads.div_ceil(MAP_GROUP), caps.takes_runs());
        let rule = if runs { quads.div_ceil(MAP_GROUP * MAP_RUN).min(caps.max_groups as usize) } else { MAP_GROUPS };
        let most = caps.choices.number(&choices::MAP_GROUPS, &[quads.ilog2() as usize], rule, |n| n < all);
        let groups = all.min(most);
        let each = if runs { quads.div_ceil(groups * MAP_GROUP) } else { groups * MAP_GROUP };
        let call = ctx.call("map4")?.set("RUNS", runs).u32s(&[quads, each]);
        call.flops(flops).with_epilogue4()?.grid(groups, 1, 1)?;
    } else {
        ctx.call("map")?.u32(numel).flops(flops).with_epilogue()?.grid_linear(numel.div_ceil(MAP_GROUP))?;
    }
    let scratch = ctx.scratch;
    slots.temps.extend(scratch);
    Ok(())
}

/// Invocations in a workgroup of the map shaders.
const MAP_GROUP: usize = 64;
/// Fours of an invocation of map4, where it takes runs of them.
const MAP_RUN: usize = 8;
/// Workgroups of map4 on hardware: enough to fill any GPU; more only cost their start.
const MAP_GROUPS: usize = 4096;

fn lower_root(canon: &Canon, group: &Group, root: u32, label: &str, program: &mut GpuProgram, slots: &mut Slots, caps: &Caps) -> Result<()> {
    let node = &canon.nodes[root as usize];
    let has_prologue = !group.prologue.is_empty();
    let mut copied: HashMap<usize, Slot> = HashMap::new();
    for n in copies_needed(canon, root, has_prologue) {
        let x = &node.inputs[n];
        let meta = Meta::new(canon.meta(x.src).dtype, x.layout.shape);
        let from = slots.of(x.src).expect("an operand of a kernel has a buffer");
        let to = slots.temp(meta.bytes());
        let steps = Steps {
            loads: vec![Load { slot: from, dtype: meta.dtype, layout: x.layout, offset: x.offset, aligned: x.aligned }],
            stores: vec![Store { reg: Reg::Load(0), slot: to, dtype: meta.dtype }],
            ..Steps::default()
        };
        map(program, slots, caps, &format!("{label} (contiguous copy)"), &steps, &meta.shape, 0)?;
        copied.insert(n, to);
    }
    let inputs: Vec<Operand> = node
        .inputs
        .iter()
        .enumerate()
        .map(|(n, x)| {
            let meta = Meta::new(canon.meta(x.src).dtype, x.layout.shape);
            match copied.get(&n) {
                Some(&slot) => Operand { slot, meta, layout: Layout::contiguous(meta.shape), offset: None, aligned: true },
                None => {
                    // With a prologue, input 0 has no buffer: its rows are the input.
                    let slot = slots.of(x.src).unwrap_or(Slot::Errors);
                    Operand { slot, meta, layout: x.layout, offset: Some(x.offset), aligned: x.aligned }
                }
            }
        })
        .collect();
    let epilogue = (!group.rows.is_empty()).then(|| build_steps(canon, slots, &group.rows, Some(root), None));
    let prologue = has_prologue.then(|| build_steps(canon, slots, &group.prologue, None, group.prologue.last().copied()));
    let mut outputs: Vec<(Option<Slot>, Meta)> = node.outs.iter().enumerate().map(|(o, m)| (slots.of(Src::Node(root, o as u8)), *m)).collect();
    outputs.extend(group.sum.map(|s| (slots.of(Src::Node(s, 0)), canon.nodes[s as usize].outs[0])));
    // What is not stored through an epilogue is stored as f32, and becomes halves after the op's launches.
    let mut halves: Vec<(Slot, Slot, usize)> = Vec::new();
    let through_epilogue = usize::from(node.op.fuses().epilogue && node.outs.len() == 1);
    let others = if node.op.keeps_bindings() { &mut [] } else { &mut outputs[through_epilogue..] };
    for (slot, meta) in others.iter_mut().filter(|(_, m)| m.dtype == DType::F16) {
        meta.dtype = DType::F32;
        if let Some(slot) = slot {
            let floats = slots.temp(meta.bytes());
            halves.push((floats, std::mem::replace(slot, floats), meta.numel()));
        }
    }
    let scratch_base = slots.temps.len();
    let mut ctx = LaunchCtx {
        inputs: &inputs,
        outputs: &outputs,
        caps,
        label,
        slots: &node.slots,
        slot_base: node.slot_base,
        numel: node.outs[0].numel(),
        epilogue: epilogue.as_ref(),
        prologue: prologue.as_ref(),
        program,
        scratch: Vec::new(),
        scratch_base,
        buffers: slots,
    };
    node.op.gpu(&mut ctx)?;
    halves.into_iter().try_for_each(|(from, to, numel)| ctx.store_halves(from, to, numel))?;
    let scratch = ctx.scratch;
    slots.temps.extend(scratch);
    Ok(())
}
