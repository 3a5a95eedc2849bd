//! The runner of rows on the CPU: blocks of an index space pass through all rows of a kernel, in registers that stay in the first cache level.

use super::steps::{Reg, Step, Steps};
use crate::device::cpu::{CpuView, CpuViewMut, Threads, with_scratch};
use crate::ops::rows::RowArgs;
use crate::tensor::{DType, F16, Meta};
use smallvec::SmallVec;
use std::ops::Range;

/// Elements that pass through all rows together.
const BLOCK: usize = 512;
/// Elements of one task. Cut by the index space alone, so that results do not depend on the number of threads.
const TASK: usize = 16 * BLOCK;

/// Runs rows over an index space in blocks.
#[derive(Debug)]
pub(super) struct Runner {
    steps: Steps,
    /// The dimensions of each load, joined where they lie evenly.
    dims: Vec<Vec<(usize, isize)>>,
    /// The store that takes a step's result and is all that does: it is computed where it is stored.
    stored: Vec<Option<usize>>,
    /// Whether every value is f32 or f16 and every row has an f32 form; otherwise values are f64. Both are rounded to their type after each row.
    pub fast: bool,
}

/// What a run of rows reads.
#[derive(Clone, Copy)]
pub(super) struct Reads<'a> {
    /// The plan's data.
    pub data: &'a [u64],
    /// The loads.
    pub loads: &'a [CpuView<'a>],
    /// What the rows start from, where they start from something.
    pub root: Root<'a>,
}

/// The value that a kernel's rows start from.
#[derive(Clone, Copy)]
pub(super) enum Root<'a> {
    /// There is none.
    None,
    /// It lies in the first output, and is overwritten there.
    InPlace(DType),
    /// It lies in memory of its own.
    Apart(DType, &'a [u8]),
    /// It is computed for each block: elements from an index on.
    Made(&'a (dyn Fn(usize, &mut [f32]) + Sync)),
}

impl Runner {
    pub fn new(steps: Steps, definition: bool) -> Runner {
        // The rows with seeds have an f32 form, too: a seed comes as the float with its bits.
        let seeded = |s: &Step| s.operand == DType::U32 && s.row.ints > 0;
        let narrow = |d: DType| matches!(d, DType::F32 | DType::F16);
        let loads = steps.loads.iter().all(|l| narrow(l.dtype) || (l.dtype == DType::U32 && steps.steps.iter().any(seeded)));
        let rows = steps.steps.iter().all(|s| narrow(s.out) && s.row.block.is_some() && (narrow(s.operand) || seeded(s)));
        let dims = steps.loads.iter().map(|l| l.layout.merged()).collect();
        let stored = (0..steps.steps.len()).map(|n| sole_store(&steps, Reg::Step(n as u16))).collect();
        Runner { fast: loads && rows && !definition, steps, dims, stored }
    }

    /// Fill `outputs`.
    pub fn run(&self, reads: Reads<'_>, outputs: &mut [CpuViewMut<'_>], numel: usize, threads: &Threads) {
        let sizes: Vec<usize> = outputs.iter().map(|o| o.meta.dtype.size()).collect();
        let mut cut: Vec<_> = outputs.iter_mut().zip(&sizes).map(|(o, s)| o.bytes[..numel * s].chunks_mut(TASK * s)).collect();
        let tasks: Vec<SmallVec<[&mut [u8]; 2]>> =
            (0..numel.div_ceil(TASK)).map(|_| cut.iter_mut().map(|c| c.next().expect("as many chunks as tasks")).collect()).collect();
        let root = match reads.root {
            Root::None | Root::Made(_) => DType::F32,
            Root::InPlace(dtype) | Root::Apart(dtype, _) => dtype,
        };
        let fast = self.fast && matches!(root, DType::F32 | DType::F16);
        threads.each_of(tasks, |t, mut out| {
            let count = TASK.min(numel - t * TASK);
            if fast {
                self.task::<f32>(reads, &mut out, t * TASK, count);
            } else {
                self.task::<f64>(reads, &mut out, t * TASK, count);
            }
        });
    }

    /// Elements from `first` on of the only value that is stored, in f32.
    pub fn fill(&self, reads: Reads<'_>, first: usize, to: &mut [f32]) {
        let count = to.len();
        self.task::<f32>(reads, &mut [bytemuck::cast_slice_mut(to)], first, count);
    }

    fn task<T: Register>(&self, reads: Reads<'_>, out: &mut [&mut [u8]], start: usize, count: usize) {
        let registers = 1 + self.steps.loads.len() + self.steps.steps.len();
        T::with_registers(registers * BLOCK, |registers| {
            let mut held = SmallVec::from_elem(None, self.steps.loads.len());
            for first in (0..count).step_by(BLOCK) {
                self.block(reads, out, start, first..count.min(first + BLOCK), registers, &mut held);
            }
        });
    }

    /// The elements `part` of those that `out` has place for, which begin at `start`. `held`: the element that a load's register is full of.
    fn block<T: Register>(&self, reads: Reads<'_>, out: &mut [&mut [u8]], start: usize, part: Range<usize>, registers: &mut [T], held: &mut Held) {
        let (first, len) = (part.start, part.len());
        let n_loads = self.steps.loads.len();
        let at = |r: Reg| match r {
            Reg::Root => 0,
            Reg::Load(n) => (1 + n as usize) * BLOCK,
            Reg::Step(n) => (1 + n_loads + n as usize) * BLOCK,
        };
        let index = start + first;
        match reads.root {
            Root::None => {}
            Root::InPlace(dtype) => T::load(dtype, &out[0][first * dtype.size()..][..len * dtype.size()], &mut registers[..len]),
            Root::Apart(dtype, raw) => T::load(dtype, &raw[index * dtype.size()..][..len * dtype.size()], &mut registers[..len]),
            Root::Made(make) => T::make(make, index, &mut registers[..len]),
        }
        let mut in_place: SmallVec<[Option<&[T]>; 8]> = SmallVec::with_capacity(n_loads);
        for (n, (view, dims)) in reads.loads.iter().zip(&self.dims).enumerate() {
            let there = T::lies(view, dims, index, len);
            let register = &mut registers[at(Reg::Load(n as u16))..][..BLOCK];
            match same(dims, view.layout.offset, index, len) {
                _ if there.is_some() => {}
                None => {
                    T::gather(view, dims, index, &mut register[..len]);
                    held[n] = None;
                }
                // One element for the whole block, and more often than not it is the last block's.
                Some(element) if held[n] != Some(element) => {
                    T::gather(view, dims, index, &mut register[..1]);
                    register.fill(register[0]);
                    held[n] = Some(element);
                }
                Some(_) => {}
            }
            in_place.push(there);
        }
        for (n, step) in self.steps.steps.iter().enumerate() {
            let (before, after) = registers.split_at_mut(at(Reg::Step(n as u16)));
            let mut args: [&[T]; 3] = [&[]; 3];
            for (a, r) in args.iter_mut().zip(&step.args) {
                *a = match r {
                    Reg::Load(n) if in_place[*n as usize].is_some() => in_place[*n as usize].unwrap_or_default(),
                    r => &before[at(*r)..][..len],
                };
            }
            let there = self.stored[n].and_then(|o| T::window(out[o], first, len));
            T::step(step, &args[..step.args.len()], reads.data, index, there.unwrap_or(&mut after[..len]));
        }
        for (o, (out, store)) in out.iter_mut().zip(&self.steps.stores).enumerate() {
            let done = matches!(store.reg, Reg::Step(n) if self.stored[n as usize] == Some(o)) && T::window(out, first, len).is_some();
            if done {
                continue;
            }
            let size = store.dtype.size();
            let value = match store.reg {
                Reg::Load(n) if in_place[n as usize].is_some() => in_place[n as usize].unwrap_or_default(),
                r => &registers[at(r)..][..len],
            };
            T::store(store.dtype, value, &mut out[first * size..][..len * size]);
        }
    }
}

/// For each load, where the element lies that its register is full of.
type Held = SmallVec<[Option<usize>; 8]>;

/// Where the element lies that a view has for all of `len` indices from `first` on, if it is one.
fn same(dims: &[(usize, isize)], offset: usize, first: usize, len: usize) -> Option<usize> {
    let Some((&(inner, 0), outer)) = dims.split_last() else { return dims.is_empty().then_some(offset) };
    let (mut rest, mut at) = (first / inner, offset as isize);
    if first % inner + len > inner {
        return None;
    }
    for &(size, stride) in outer.iter().rev() {
        at += (rest % size) as isize * stride;
        rest /= size;
    }
    Some(at as usize)
}

/// The store that takes a value as it is, where there is one and nothing else reads the value.
fn sole_store(steps: &Steps, value: Reg) -> Option<usize> {
    let read = steps.steps.iter().any(|s| s.args.contains(&value));
    let mut stores = (0..steps.stores.len()).filter(|&o| steps.stores[o].reg == value);
    let first = stores.next().filter(|_| !read)?;
    (stores.next().is_none() && steps.stores[first].dtype == DType::F32).then_some(first)
}

/// What a register's elements are: f32 on the fast path, f64 (which holds every element type exactly) on the other.
trait Register: Copy + Default + Send + 'static {
    fn with_registers<R>(n: usize, f: impl FnOnce(&mut [Self]) -> R) -> R;
    fn load(dtype: DType, from: &[u8], to: &mut [Self]);
    fn store(dtype: DType, from: &[Self], to: &mut [u8]);
    fn make(make: &(dyn Fn(usize, &mut [f32]) + Sync), first: usize, to: &mut [Self]);
    fn gather(view: &CpuView<'_>, dims: &[(usize, isize)], first: usize, to: &mut [Self]);
    fn step(step: &Step, args: &[&[Self]], data: &[u64], first: usize, out: &mut [Self]);
    /// A view's elements where they lie as they are wanted.
    fn lies<'a>(_view: &CpuView<'a>, _dims: &[(usize, isize)], _first: usize, _len: usize) -> Option<&'a [Self]> {
        None
    }
    /// An output's elements where they are written as they are.
    fn window(_out: &mut [u8], _first: usize, _len: usize) -> Option<&mut [Self]> {
        None
    }
}

impl Register for f32 {
    fn with_registers<R>(n: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
        with_scratch(n, f)
    }

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

    fn make(make: &(dyn Fn(usize, &mut [f32]) + Sync), first: usize, to: &mut [f32]) {
        make(first, to);
    }

    fn lies<'a>(view: &CpuView<'a>, dims: &[(usize, isize)], first: usize, len: usize) -> Option<&'a [f32]> {
        match dims {
            [(_, 1)] if view.dtype != DType::F16 => Some(&view.base::<f32>()[view.layout.offset + first..][..len]),
            _ => None,
        }
    }

    fn window(out: &mut [u8], first: usize, len: usize) -> Option<&mut [f32]> {
        Some(&mut bytemuck::cast_slice_mut(out)[first..first + len])
    }

    fn gather(view: &CpuView<'_>, dims: &[(usize, isize)], first: usize, to: &mut [f32]) {
        match view.dtype {
            DType::F16 => gather(view.base::<u16>(), dims, view.layout.offset, first, to, |h| F16(h).to_f32()),
            _ => gather(view.base::<f32>(), dims, view.layout.offset, first, to, |x| x),
        }
    }

    fn step(step: &Step, args: &[&[f32]], data: &[u64], first: usize, out: &mut [f32]) {
        let (floats, ints) = slots(step, data);
        let narrow: SmallVec<[f32; 4]> = floats.iter().map(|&b| f64::from_bits(b) as f32).collect();
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

    fn with_registers<R>(n: usize, f: impl FnOnce(&mut [f64]) -> R) -> R {
        f(&mut vec![0.0; n])
    }

    fn make(make: &(dyn Fn(usize, &mut [f32]) + Sync), first: usize, to: &mut [f64]) {
        let mut narrow = vec![0f32; to.len()];
        make(first, &mut narrow);
        to.iter_mut().zip(narrow).for_each(|(t, v)| *t = f64::from(v));
    }

    fn gather(view: &CpuView<'_>, dims: &[(usize, isize)], first: usize, to: &mut [f64]) {
        let offset = view.layout.offset;
        match view.dtype {
            DType::F32 => gather(view.base::<f32>(), dims, offset, first, to, f64::from),
            DType::F16 => gather(view.base::<u16>(), dims, offset, first, to, |h| f64::from(F16(h).to_f32())),
            DType::F64 => gather(view.base::<f64>(), dims, offset, first, to, |x| x),
            DType::I32 => gather(view.base::<i32>(), dims, offset, first, to, f64::from),
            DType::U32 | DType::Bool => gather(view.base::<u32>(), dims, offset, first, to, f64::from),
        }
    }

    fn step(step: &Step, args: &[&[f64]], data: &[u64], first: usize, out: &mut [f64]) {
        let (floats, ints) = slots(step, data);
        // A slot is f32 on every device; only f64 tensors see all of it.
        let floats: SmallVec<[f64; 4]> =
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
fn gather<S: Copy, T>(base: &[S], dims: &[(usize, isize)], offset: usize, first: usize, to: &mut [T], f: impl Fn(S) -> T) {
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
