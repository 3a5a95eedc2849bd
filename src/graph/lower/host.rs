//! Groups to host steps, and the runner of rows on the CPU.

use super::super::canon::{Canon, Src};
use super::super::fuse::Group;
use super::super::plan::Fault;
use super::steps::{Load, Reg, Step, Steps};
use super::{Slots, build_steps, halves, label};
use crate::device::cpu::{CpuView, CpuViewMut, Threads};
use crate::device::{HostOperand, HostProgram, HostStep, HostWork, Slot};
use crate::error::Result;
use crate::graph::{Op, memory};
use crate::ops::rows::RowArgs;
use crate::tensor::{DType, F16, Layout, Meta};
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
    let mut inputs: Vec<HostOperand> = node
        .inputs
        .iter()
        .map(|x| {
            let slot = slots.of(x.src).expect("an operand of a kernel has a buffer");
            HostOperand { slot, meta: Meta::new(canon.meta(x.src).dtype, x.layout.shape), layout: x.layout, offset: x.offset }
        })
        .collect();
    let own = inputs.len();
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
        epilogue,
        definition: definition || node.outs.iter().any(|m| m.dtype == DType::F64),
    };
    Some(HostStep { label, work: Arc::new(work), inputs, outputs })
}

/// A node that is not a row, with the rows that follow it.
#[derive(Debug)]
struct OpWork {
    op: Arc<dyn Op>,
    slots: crate::graph::Slots,
    slot_base: usize,
    outs: Vec<Meta>,
    /// How many of the inputs are the op's own.
    own: usize,
    epilogue: Option<Runner>,
    definition: bool,
}

impl OpWork {
    fn compute(&self, data: &[u64], inputs: &[CpuView<'_>], outputs: &mut [CpuViewMut<'_>], threads: &Threads) -> Result<()> {
        let slots = self.slots.read(&data[self.slot_base..]);
        if self.definition || !self.fast(&slots, inputs, outputs, threads)? {
            self.op.cpu(&slots, inputs, outputs)?;
        }
        // Rows go on with the result as f32, but with the values that halves have.
        for (o, own) in outputs.iter_mut().zip(&self.outs).filter(|(o, own)| o.meta.dtype != own.dtype) {
            debug_assert!((o.meta.dtype, own.dtype) == (DType::F32, DType::F16));
            halves::round(o.elements(), threads);
        }
        Ok(())
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
        let (own, loads) = inputs.split_at(self.own);
        let Some(runner) = &self.epilogue else { return self.compute(data, own, outputs, threads) };
        let mut meta = self.outs[0];
        if meta.dtype == DType::F16 && !self.definition {
            meta.dtype = DType::F32;
        }
        // The op's result goes to the first output where it fits there, and the rows then run over it in place.
        if outputs[0].meta.dtype.size() == meta.dtype.size() {
            let mut raw = CpuViewMut::new(meta, &mut *outputs[0].bytes);
            self.compute(data, own, std::slice::from_mut(&mut raw), threads)?;
            runner.run(data, loads, Some(meta.dtype), None, outputs, meta.numel(), threads)
        } else {
            let mut raw = vec![0u64; meta.bytes().div_ceil(8)];
            let mut view = CpuViewMut::new(meta, bytemuck::cast_slice_mut(&mut raw));
            self.compute(data, own, std::slice::from_mut(&mut view), threads)?;
            runner.run(data, loads, Some(meta.dtype), Some(bytemuck::cast_slice(&raw)), outputs, meta.numel(), threads)
        }
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
        self.runner.run(data, inputs, None, None, outputs, self.numel, threads)
    }
}

/// Elements that pass through all rows together: registers of this length stay in the first cache level.
const BLOCK: usize = 512;
/// Elements of one task. Cut by the index space alone, so that results do not depend on the number of threads.
const TASK: usize = 16 * BLOCK;

/// Runs rows over an index space in blocks.
#[derive(Debug)]
struct Runner {
    steps: Steps,
    /// Whether every value is f32 or f16 and every row has an f32 form; otherwise values are f64. Both are rounded to their type after each row.
    fast: bool,
}

impl Runner {
    fn new(steps: Steps, definition: bool) -> Runner {
        // The rows with seeds have an f32 form, too: a seed comes as the float with its bits.
        let seeded = |s: &Step| s.operand == DType::U32 && s.row.ints > 0;
        let narrow = |d: DType| matches!(d, DType::F32 | DType::F16);
        let loads = steps.loads.iter().all(|l| narrow(l.dtype) || (l.dtype == DType::U32 && steps.steps.iter().any(seeded)));
        let rows = steps.steps.iter().all(|s| narrow(s.out) && s.row.block.is_some() && (narrow(s.operand) || seeded(s)));
        Runner { fast: loads && rows && !definition, steps }
    }

    /// `root`: the type of the value the rows start from, which lies in `raw`, or else in output 0 (and is overwritten there).
    #[expect(clippy::too_many_arguments, reason = "one caller each way; a struct would only rename them")]
    fn run(
        &self,
        data: &[u64],
        loads: &[CpuView<'_>],
        root: Option<DType>,
        raw: Option<&[u8]>,
        outputs: &mut [CpuViewMut<'_>],
        numel: usize,
        threads: &Threads,
    ) -> Result<()> {
        let sizes: Vec<usize> = outputs.iter().map(|o| o.meta.dtype.size()).collect();
        let mut cut: Vec<_> = outputs.iter_mut().zip(&sizes).map(|(o, s)| o.bytes[..numel * s].chunks_mut(TASK * s)).collect();
        let tasks: Vec<Vec<&mut [u8]>> =
            (0..numel.div_ceil(TASK)).map(|_| cut.iter_mut().map(|c| c.next().expect("as many chunks as tasks")).collect()).collect();
        let fast = self.fast && root.is_none_or(|d| matches!(d, DType::F32 | DType::F16));
        threads.each_of(tasks, |t, mut out| {
            let count = TASK.min(numel - t * TASK);
            if fast {
                self.task::<f32>(data, loads, root, raw, &mut out, t * TASK, count);
            } else {
                self.task::<f64>(data, loads, root, raw, &mut out, t * TASK, count);
            }
        });
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "the inner half of run")]
    fn task<T: Register>(
        &self,
        data: &[u64],
        loads: &[CpuView<'_>],
        root: Option<DType>,
        raw: Option<&[u8]>,
        out: &mut [&mut [u8]],
        start: usize,
        count: usize,
    ) {
        let (n_loads, n_steps) = (self.steps.loads.len(), self.steps.steps.len());
        let mut registers = vec![T::default(); (1 + n_loads + n_steps) * BLOCK];
        let at = |r: Reg| match r {
            Reg::Root => 0,
            Reg::Load(n) => (1 + n as usize) * BLOCK,
            Reg::Step(n) => (1 + n_loads + n as usize) * BLOCK,
        };
        for first in (0..count).step_by(BLOCK) {
            let len = BLOCK.min(count - first);
            if let Some(dtype) = root {
                let size = dtype.size();
                let from = match raw {
                    Some(raw) => &raw[(start + first) * size..(start + first + len) * size],
                    None => &out[0][first * size..(first + len) * size],
                };
                T::load(dtype, from, &mut registers[..len]);
            }
            for (n, view) in loads.iter().enumerate() {
                T::gather(view, &self.steps.loads[n], start + first, &mut registers[at(Reg::Load(n as u16))..][..len]);
            }
            for (n, step) in self.steps.steps.iter().enumerate() {
                let (before, after) = registers.split_at_mut(at(Reg::Step(n as u16)));
                let mut args: [&[T]; 3] = [&[]; 3];
                for (a, r) in args.iter_mut().zip(&step.args) {
                    *a = &before[at(*r)..][..len];
                }
                T::step(step, &args[..step.args.len()], data, start + first, &mut after[..len]);
            }
            for (o, store) in out.iter_mut().zip(&self.steps.stores) {
                let size = store.dtype.size();
                T::store(store.dtype, &registers[at(store.reg)..][..len], &mut o[first * size..(first + len) * size]);
            }
        }
    }
}

/// What a register's elements are: f32 on the fast path, f64 (which holds every element type exactly) on the other.
trait Register: Copy + Default + Send {
    fn load(dtype: DType, from: &[u8], to: &mut [Self]);
    fn store(dtype: DType, from: &[Self], to: &mut [u8]);
    fn gather(view: &CpuView<'_>, load: &Load, first: usize, to: &mut [Self]);
    fn step(step: &Step, args: &[&[Self]], data: &[u64], first: usize, out: &mut [Self]);
}

impl Register for f32 {
    fn load(dtype: DType, from: &[u8], to: &mut [f32]) {
        match dtype {
            DType::F16 => to.iter_mut().zip(bytemuck::cast_slice(from)).for_each(|(t, &h)| *t = F16(h).to_f32()),
            _ => to.copy_from_slice(bytemuck::cast_slice(from)),
        }
    }

    fn store(dtype: DType, from: &[f32], to: &mut [u8]) {
        match dtype {
            DType::F16 => bytemuck::cast_slice_mut(to).iter_mut().zip(from).for_each(|(t, &x)| *t = F16::from(x).0),
            _ => to.copy_from_slice(bytemuck::cast_slice(from)),
        }
    }

    fn gather(view: &CpuView<'_>, load: &Load, first: usize, to: &mut [f32]) {
        match load.dtype {
            DType::F16 => gather(view.base::<u16>(), &load.layout, view.layout.offset, first, to, |h| F16(h).to_f32()),
            _ => gather(view.base::<f32>(), &load.layout, view.layout.offset, first, to, |x| x),
        }
    }

    fn step(step: &Step, args: &[&[f32]], data: &[u64], first: usize, out: &mut [f32]) {
        let (floats, ints) = slots(step, data);
        let narrow: smallvec::SmallVec<[f32; 4]> = floats.iter().map(|&b| f64::from_bits(b) as f32).collect();
        if let Some(block) = step.row.block {
            block(args, &narrow, ints, first, out);
        }
        if step.out == DType::F16 {
            out.iter_mut().for_each(|x| *x = F16::from(*x).to_f32());
        }
    }
}

impl Register for f64 {
    fn load(dtype: DType, from: &[u8], to: &mut [f64]) {
        fn copy<T: bytemuck::Pod>(from: &[u8], to: &mut [f64], f: impl Fn(T) -> f64) {
            to.iter_mut().zip(bytemuck::cast_slice::<u8, T>(from)).for_each(|(t, &x)| *t = f(x));
        }
        match dtype {
            DType::F32 => copy::<f32>(from, to, f64::from),
            DType::F16 => copy::<u16>(from, to, |h| f64::from(F16(h).to_f32())),
            DType::F64 => copy::<f64>(from, to, |x| x),
            DType::I32 => copy::<i32>(from, to, f64::from),
            DType::U32 | DType::Bool => copy::<u32>(from, to, f64::from),
        }
    }

    fn store(dtype: DType, from: &[f64], to: &mut [u8]) {
        CpuViewMut::new(Meta::new(dtype, [from.len()]), to).set_f64(from);
    }

    fn gather(view: &CpuView<'_>, load: &Load, first: usize, to: &mut [f64]) {
        let (layout, offset) = (&load.layout, view.layout.offset);
        match load.dtype {
            DType::F32 => gather(view.base::<f32>(), layout, offset, first, to, f64::from),
            DType::F16 => gather(view.base::<u16>(), layout, offset, first, to, |h| f64::from(F16(h).to_f32())),
            DType::F64 => gather(view.base::<f64>(), layout, offset, first, to, |x| x),
            DType::I32 => gather(view.base::<i32>(), layout, offset, first, to, f64::from),
            DType::U32 | DType::Bool => gather(view.base::<u32>(), layout, offset, first, to, f64::from),
        }
    }

    fn step(step: &Step, args: &[&[f64]], data: &[u64], first: usize, out: &mut [f64]) {
        let (floats, ints) = slots(step, data);
        // A slot is f32 on every device; only f64 tensors see all of it.
        let floats: smallvec::SmallVec<[f64; 4]> =
            floats.iter().map(|&b| f64::from_bits(b)).map(|f| if step.operand == DType::F64 || step.out == DType::F64 { f } else { f as f32 as f64 }).collect();
        let mut x = [0f64; 3];
        for (i, o) in out.iter_mut().enumerate() {
            for (x, a) in x.iter_mut().zip(args) {
                *x = a[i];
            }
            let v = (step.row.value)(&RowArgs { x: &x[..args.len()], p: &floats, q: ints, i: first + i });
            *o = match step.out {
                DType::F32 => v as f32 as f64,
                DType::F16 => F16::from(v).to_f32() as f64,
                DType::F64 => v,
                DType::I32 => v as i64 as i32 as f64,
                DType::U32 => v as i64 as u32 as f64,
                DType::Bool => f64::from(v != 0.0),
            };
        }
    }
}

/// A row's part of the data: the floats' bits, and the integers.
fn slots<'a>(step: &Step, data: &'a [u64]) -> (&'a [u64], &'a [u64]) {
    data[step.slots..step.slots + step.row.floats + step.row.ints].split_at(step.row.floats)
}

/// Load elements `first..` of a view, in row-major order.
fn gather<S: Copy, T>(base: &[S], layout: &Layout, offset: usize, first: usize, to: &mut [T], f: impl Fn(S) -> T) {
    let dims = layout.merged();
    let Some(&(inner, step)) = dims.last() else {
        return to.iter_mut().for_each(|t| *t = f(base[offset]));
    };
    // The index of `first` in every dimension but the innermost, and how far into a run of the innermost it is.
    let mut index = [0usize; crate::tensor::MAX_RANK];
    let outer = &dims[..dims.len() - 1];
    let (mut rest, mut run) = (first / inner, first % inner);
    let mut at = offset as isize;
    for (d, &(size, stride)) in outer.iter().enumerate().rev() {
        index[d] = rest % size;
        rest /= size;
        at += index[d] as isize * stride;
    }
    let mut done = 0;
    while done < to.len() {
        let len = (inner - run).min(to.len() - done);
        let start = at + run as isize * step;
        let part = &mut to[done..done + len];
        match step {
            1 => part.iter_mut().zip(&base[start as usize..start as usize + len]).for_each(|(t, &x)| *t = f(x)),
            0 => part.iter_mut().for_each(|t| *t = f(base[start as usize])),
            _ => part.iter_mut().enumerate().for_each(|(k, t)| *t = f(base[(start + k as isize * step) as usize])),
        }
        done += len;
        run = 0;
        for (d, &(size, stride)) in outer.iter().enumerate().rev() {
            index[d] += 1;
            at += stride;
            if index[d] < size {
                break;
            }
            at -= stride * size as isize;
            index[d] = 0;
        }
    }
}
