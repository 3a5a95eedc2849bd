//! Runs host programs: binds slots to memory, hands each step its views, and keeps a panic in a step from doing harm.

use super::memory::{ALIGN, Apart, Block, Span};
use super::{Cpu, CpuView, CpuViewMut};
use crate::device::{Buffer, Counters, HostProgram, HostStep, Slot, Storage};
use crate::env;
use crate::error::{Error, Result};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

/// What WGRAD_POISON fills memory with: a NaN whether a word of an f32 or half of an f64, and far out of range as an index.
const POISON: u32 = 0x7ff8_0000;

/// The memory of temporaries, one block for all programs of a device: its content means nothing between runs.
#[derive(Debug)]
pub(crate) struct Workspace {
    block: Block,
}

impl Default for Workspace {
    fn default() -> Self {
        Workspace { block: Block::none() }
    }
}

impl Workspace {
    /// Take the memory out.
    pub(super) fn take(&mut self) -> Block {
        std::mem::replace(&mut self.block, Block::none())
    }

    /// Make room for `bytes`. The old block goes first, so that both are never held at once.
    fn grow(&mut self, cpu: &Cpu, bytes: usize) -> Result<()> {
        if self.block.bytes() < bytes {
            cpu.release(self.take());
            self.block = cpu.reserve_block(bytes)?;
        }
        Ok(())
    }
}

/// A host program with its temporaries placed.
#[derive(Debug)]
pub(crate) struct PreparedHost {
    program: HostProgram,
    /// Where each temporary begins in the workspace.
    starts: Vec<usize>,
    /// Bytes of the workspace that it needs.
    bytes: usize,
    poison: bool,
}

/// The memory behind the slots of one run.
struct Slots<'a> {
    leaves: Vec<Span>,
    outputs: Vec<Span>,
    workspace: &'a Block,
    prepared: &'a PreparedHost,
}

impl Slots<'_> {
    fn span(&self, slot: Slot) -> Result<Span> {
        let span = match slot {
            Slot::Leaf(n) => self.leaves.get(n).copied(),
            Slot::Output(n) => self.outputs.get(n).copied(),
            Slot::Temp(n) => {
                let temporaries = &self.prepared.program.temporaries;
                temporaries.get(n).and_then(|&bytes| self.workspace.span(self.prepared.starts[n], bytes))
            }
            Slot::Errors => None,
        };
        span.ok_or_else(|| Error::internal(format!("nothing is bound to {slot:?}")))
    }
}

/// Counts the temporaries as in use while a run lasts.
struct InUse<'a> {
    counters: &'a Counters,
    bytes: u64,
}

impl<'a> InUse<'a> {
    fn new(counters: &'a Counters, bytes: usize) -> Self {
        counters.in_use(bytes as u64);
        InUse { counters, bytes: bytes as u64 }
    }
}

impl Drop for InUse<'_> {
    fn drop(&mut self) {
        Counters::sub(&self.counters.bytes_in_use, self.bytes);
    }
}

impl Cpu {
    /// Place a program's temporaries and make room for them.
    pub(crate) fn prepare(self: &Arc<Self>, program: HostProgram) -> Result<PreparedHost> {
        let poison = env::flag("WGRAD_POISON")?;
        let mut bytes = 0usize;
        let mut starts = Vec::with_capacity(program.temporaries.len());
        for &size in &program.temporaries {
            starts.push(bytes);
            let end = bytes.checked_add(size).and_then(|end| end.checked_next_multiple_of(ALIGN));
            bytes = end.ok_or_else(|| Error::out_of_memory(format!("cpu: temporaries of a program: {size} bytes are more than the address space")))?;
        }
        self.lock().grow(self, bytes)?;
        Ok(PreparedHost { program, starts, bytes, poison })
    }

    /// Run a program. `data` is its slots' values; `leaves` and `outputs` are the memory behind those slots; each of
    /// `copies_before` (from, to) is made first, so that a value about to be overwritten in place stays readable.
    ///
    /// An input whose memory the same step writes (an update in place) gets a view without bytes: its value is in the output's view.
    /// After an error the outputs hold no value.
    pub(crate) fn run(
        &self,
        prepared: &PreparedHost,
        data: &[u64],
        leaves: &[Storage],
        outputs: &[Storage],
        copies_before: &[(Storage, Storage)],
    ) -> Result<()> {
        let mut workspace = self.lock();
        workspace.grow(self, prepared.bytes)?;
        let spans = |list: &[Storage]| list.iter().map(|s| self.storage(s)).collect::<Result<Vec<_>>>();
        let slots = Slots { leaves: spans(leaves)?, outputs: spans(outputs)?, workspace: &workspace.block, prepared };
        let _in_use = InUse::new(&self.counters, prepared.bytes);
        Counters::add(&self.counters.submits, 1);
        Counters::add(&self.counters.param_writes, 1);

        let mut copies = Vec::with_capacity(copies_before.len());
        for (from, to) in copies_before {
            let (from, to) = (self.storage(from)?, self.storage(to)?);
            if from.bytes() != to.bytes() || from.overlaps(&to) {
                return Err(Error::internal(format!("cpu: cannot copy {} bytes to {} bytes that they must not overlap", from.bytes(), to.bytes())));
            }
            // SAFETY: the storages' buffers are borrowed, `workspace` is the lock, and the two do not overlap.
            unsafe { to.write().copy_from_slice(from.read()) };
            copies.push(to);
        }
        if prepared.poison {
            poison(&slots, &copies)?;
        }
        if env::debug() >= 2 {
            return self.profile(prepared, data, &slots);
        }
        prepared.program.steps.iter().try_for_each(|step| self.step(step, data, &slots))
    }

    /// Run the steps, and tell how long each took, the dearest first.
    fn profile(&self, prepared: &PreparedHost, data: &[u64], slots: &Slots<'_>) -> Result<()> {
        let mut rows: Vec<(f64, &str)> = Vec::with_capacity(prepared.program.steps.len());
        for step in &prepared.program.steps {
            let began = Instant::now();
            self.step(step, data, slots)?;
            rows.push((began.elapsed().as_secs_f64() * 1e6, &step.label));
        }
        let total: f64 = rows.iter().map(|r| r.0).sum();
        env::tell(2, || {
            let mut lines: Vec<String> =
                rows.iter().enumerate().map(|(n, (us, label))| format!("{us:10.1} us {:5.1} %  {n:4}  {label}", 100.0 * us / total)).collect();
            lines.sort_by(|a, b| b.cmp(a));
            format!("{} steps, {total:.1} us on cpu:\n{}", rows.len(), lines.join("\n"))
        });
        Ok(())
    }

    /// The memory of a storage.
    fn storage(&self, storage: &Storage) -> Result<Span> {
        match &storage.buffer {
            Buffer::Cpu(buffer) => self.span(buffer, storage.offset, storage.bytes),
            #[cfg(feature = "gpu")]
            Buffer::Gpu(_) => Err(Error::internal("cpu: a buffer of a gpu was given to a host program")),
        }
    }

    /// Run one step. Called by `run` only, which holds the lock and borrows every buffer behind `slots`.
    fn step(&self, step: &HostStep, data: &[u64], slots: &Slots<'_>) -> Result<()> {
        let fault = |what: String| Error::internal(format!("{}: {what}", step.label));
        let mut written: Vec<Span> = Vec::with_capacity(step.outputs.len());
        for (slot, meta) in &step.outputs {
            let span = slots.span(*slot).map_err(|e| e.context(&step.label))?;
            let span = span.first(meta.bytes()).ok_or_else(|| fault(format!("output {meta} does not fit in {} bytes of {slot:?}", span.bytes())))?;
            written.push(span);
        }
        let apart = Apart::new(&written).ok_or_else(|| fault("two outputs share memory".into()))?;
        let mut inputs = Vec::with_capacity(step.inputs.len());
        for operand in &step.inputs {
            let span = slots.span(operand.slot).map_err(|e| e.context(&step.label))?;
            let offset = *data.get(operand.offset).ok_or_else(|| fault(format!("no entry {} in {} words of data", operand.offset, data.len())))?;
            let mut layout = operand.layout;
            layout.offset = offset as usize;
            // A slot shared by values of several types may be no whole number of these elements long.
            let whole = span.bytes() - span.bytes() % operand.meta.dtype.size();
            let bytes: &[u8] = match span.first(whole) {
                // SAFETY: the lock is held and the buffers are borrowed by `run`; nothing that is written overlaps it.
                Some(span) if !apart.overlap(&span) => unsafe { span.read() },
                _ => &[],
            };
            inputs.push(CpuView { dtype: operand.meta.dtype, layout, bytes });
        }
        let mut outputs: Vec<CpuViewMut<'_>> = (step.outputs.iter().zip(&written))
            // SAFETY: as above; the written spans overlap neither each other nor any input that was given bytes.
            .map(|((_, meta), span)| CpuViewMut::new(*meta, unsafe { span.write() }))
            .collect();
        Counters::add(&self.counters.dispatches, 1);
        // Nothing is left half changed by a panic but the outputs, which after an error nobody reads.
        let run = AssertUnwindSafe(|| step.work.run(data, &inputs, &mut outputs, &self.threads));
        catch_unwind(run).unwrap_or_else(|panic| Err(fault(format!("panicked: {}", panic_text(&*panic)))))
    }
}

/// Fill temporaries and outputs with NaN, except outputs that are updated in place (their memory is a leaf's) or that a copy was just made to.
fn poison(slots: &Slots<'_>, copies: &[Span]) -> Result<()> {
    let holds_value = |span: &Span| slots.leaves.iter().chain(copies).any(|s| s.overlaps(span));
    let temporaries = (0..slots.prepared.program.temporaries.len()).map(|n| slots.span(Slot::Temp(n))).collect::<Result<Vec<_>>>()?;
    for span in slots.outputs.iter().filter(|s| !holds_value(s)).chain(&temporaries) {
        // SAFETY: `run` holds the lock and borrows the buffers; no other reference to memory is alive between steps.
        let bytes = unsafe { span.write() };
        bytes.chunks_mut(4).for_each(|word| word.copy_from_slice(&POISON.to_ne_bytes()[..word.len()]));
    }
    Ok(())
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a message")
}

#[cfg(test)]
mod tests {
    use super::super::Threads;
    use super::*;
    use crate::device::{HostOperand, HostWork};
    use crate::error::ErrorKind;
    use crate::tensor::{DType, Data, Layout, Meta};

    /// Adds its inputs, or what is in the output already where an input has no bytes; adds `data[0]` as a float.
    #[derive(Debug)]
    struct Add;
    impl HostWork for Add {
        fn run(&self, data: &[u64], inputs: &[CpuView<'_>], outputs: &mut [CpuViewMut<'_>], _: &Threads) -> Result<()> {
            let mut sum = vec![f64::from_bits(data[0]); outputs[0].meta.numel()];
            for input in inputs {
                let values = if input.bytes.is_empty() { outputs[0].to_f64() } else { input.to_f64() };
                sum.iter_mut().zip(values).for_each(|(s, v)| *s += v);
            }
            outputs[0].set_f64(&sum);
            Ok(())
        }
    }

    #[derive(Debug)]
    struct Panics;
    impl HostWork for Panics {
        fn run(&self, _: &[u64], _: &[CpuView<'_>], _: &mut [CpuViewMut<'_>], _: &Threads) -> Result<()> {
            panic!("index {} is out of range", 7)
        }
    }

    #[derive(Debug)]
    struct Nothing;
    impl HostWork for Nothing {
        fn run(&self, _: &[u64], _: &[CpuView<'_>], _: &mut [CpuViewMut<'_>], _: &Threads) -> Result<()> {
            Ok(())
        }
    }

    fn meta(n: usize) -> Meta {
        Meta::new(DType::F32, [n])
    }

    fn operand(slot: Slot, n: usize, offset: usize) -> HostOperand {
        HostOperand { slot, meta: meta(n), layout: Layout::contiguous([n].into()), offset }
    }

    fn step(work: impl HostWork + 'static, inputs: Vec<HostOperand>, output: Slot) -> HostStep {
        HostStep { label: "add".into(), work: Arc::new(work), inputs, outputs: vec![(output, meta(2))] }
    }

    fn storage(cpu: &Arc<Cpu>, values: &[f32]) -> Storage {
        let data = Data::from(values).to_bytes();
        let buffer = cpu.alloc(data.len()).unwrap();
        cpu.upload(&buffer, 0, &data).unwrap();
        Storage { bytes: data.len(), buffer: Buffer::Cpu(buffer), offset: 0 }
    }

    fn values(cpu: &Cpu, s: &Storage) -> Vec<f32> {
        match &s.buffer {
            Buffer::Cpu(b) => cpu.read(b, s.offset, s.bytes).unwrap().chunks_exact(4).map(bytemuck::pod_read_unaligned).collect(),
            #[cfg(feature = "gpu")]
            Buffer::Gpu(_) => unreachable!(),
        }
    }

    fn cpu() -> Arc<Cpu> {
        Cpu::new(0, 2, false).unwrap()
    }

    #[test]
    fn steps_see_what_earlier_steps_wrote() {
        let cpu = cpu();
        let (x, y) = (storage(&cpu, &[1.0, 2.0, 3.0, 4.0]), storage(&cpu, &[0.0; 2]));
        let steps = vec![
            step(Add, vec![operand(Slot::Leaf(0), 2, 1), operand(Slot::Leaf(0), 2, 2)], Slot::Temp(0)),
            step(Add, vec![operand(Slot::Temp(0), 2, 1)], Slot::Output(0)),
        ];
        let program = cpu.prepare(HostProgram { steps, temporaries: vec![8, 100], segments: vec![] }).unwrap();
        let before = cpu.counters.read();
        assert_eq!((before.bytes_in_use, before.bytes_reserved), (24, 2 * 256 + 192));
        cpu.run(&program, &[10f64.to_bits(), 0, 2], std::slice::from_ref(&x), std::slice::from_ref(&y), &[]).unwrap();
        assert_eq!(values(&cpu, &y), [24.0, 26.0]);
        let did = cpu.counters.read().since(&before);
        assert_eq!((did.dispatches, did.submits, did.param_writes, did.create_buffer, did.bytes_in_use), (2, 1, 1, 0, 0));
        assert_eq!(cpu.counters.read().bytes_peak, 24 + 192);
    }

    #[test]
    fn an_update_in_place_reads_its_output() {
        let cpu = cpu();
        let (w, g, old) = (storage(&cpu, &[1.0, 2.0]), storage(&cpu, &[0.5, 0.25]), storage(&cpu, &[0.0; 2]));
        let steps = vec![step(Add, vec![operand(Slot::Leaf(0), 2, 1), operand(Slot::Leaf(1), 2, 1)], Slot::Output(0))];
        let mut program = cpu.prepare(HostProgram { steps, ..Default::default() }).unwrap();
        program.poison = true;
        let copies = [(w.clone(), old.clone())];
        for _ in 0..2 {
            cpu.run(&program, &[0, 0], &[w.clone(), g.clone()], std::slice::from_ref(&w), &copies).unwrap();
        }
        assert_eq!(values(&cpu, &w), [2.0, 2.5]);
        assert_eq!(values(&cpu, &old), [1.5, 2.25]);
    }

    #[test]
    fn slices_of_one_buffer_are_apart() {
        let cpu = cpu();
        let whole = storage(&cpu, &[1.0; 128]);
        let slice = |offset| Storage { offset, bytes: 8, ..whole.clone() };
        let steps = vec![step(Add, vec![operand(Slot::Leaf(0), 2, 1)], Slot::Output(0))];
        let program = cpu.prepare(HostProgram { steps, ..Default::default() }).unwrap();
        cpu.run(&program, &[2f64.to_bits(), 0], &[slice(0)], &[slice(256)], &[]).unwrap();
        assert_eq!(values(&cpu, &whole)[62..68], [1.0, 1.0, 3.0, 3.0, 1.0, 1.0]);
    }

    #[test]
    fn poison_fills_what_has_no_value() {
        let cpu = cpu();
        let y = storage(&cpu, &[0.0; 2]);
        let mut program = cpu.prepare(HostProgram { steps: vec![step(Nothing, vec![], Slot::Output(0))], ..Default::default() }).unwrap();
        program.poison = false;
        cpu.run(&program, &[], &[], std::slice::from_ref(&y), &[]).unwrap();
        assert_eq!(values(&cpu, &y), [0.0; 2]);
        program.poison = true;
        cpu.run(&program, &[], &[], std::slice::from_ref(&y), &[]).unwrap();
        assert!(values(&cpu, &y).iter().all(|v| v.is_nan()));
        assert!(f64::from_bits(u64::from(POISON) << 32 | u64::from(POISON)).is_nan());
    }

    #[test]
    fn a_panic_names_the_op_and_the_device_goes_on() {
        let cpu = cpu();
        let y = storage(&cpu, &[0.0; 2]);
        let bad = cpu.prepare(HostProgram { steps: vec![step(Panics, vec![], Slot::Output(0))], ..Default::default() }).unwrap();
        let e = cpu.run(&bad, &[], &[], std::slice::from_ref(&y), &[]).unwrap_err();
        assert_eq!(e.to_string(), "add: panicked: index 7 is out of range");
        assert!(matches!(e.kind(), ErrorKind::Internal(_)));
        let good = cpu.prepare(HostProgram { steps: vec![step(Add, vec![], Slot::Output(0))], ..Default::default() }).unwrap();
        cpu.run(&good, &[1f64.to_bits()], &[], std::slice::from_ref(&y), &[]).unwrap();
        assert_eq!(values(&cpu, &y), [1.0; 2]);
        assert_eq!(cpu.counters.read().bytes_in_use, 8);
    }

    #[test]
    fn two_threads_share_a_device() {
        let cpu = cpu();
        let steps = vec![
            step(Add, vec![operand(Slot::Leaf(0), 2, 1)], Slot::Temp(0)),
            step(Add, vec![operand(Slot::Temp(0), 2, 1), operand(Slot::Leaf(0), 2, 1)], Slot::Output(0)),
        ];
        let program = cpu.prepare(HostProgram { steps, temporaries: vec![8], segments: vec![] }).unwrap();
        let work = |start: f32| {
            for i in 0..300 {
                let x = start + i as f32;
                let (leaf, out) = (storage(&cpu, &[x, -x]), storage(&cpu, &[0.0; 2]));
                cpu.run(&program, &[0, 0], std::slice::from_ref(&leaf), std::slice::from_ref(&out), &[]).unwrap();
                assert_eq!(values(&cpu, &out), [2.0 * x, -2.0 * x]);
            }
        };
        std::thread::scope(|s| [1.0, 1000.0].map(|start| s.spawn(move || work(start))).map(|t| t.join().unwrap()));
        let now = cpu.counters.read();
        assert!(now.create_buffer <= 5 && now.bytes_in_use == 0 && now.submits == 600, "{now:?}");
    }

    #[test]
    fn faults_of_a_program_are_errors() {
        let cpu = cpu();
        let y = storage(&cpu, &[0.0]);
        let try_run = |s: HostStep, data: &[u64]| {
            let program = cpu.prepare(HostProgram { steps: vec![s], ..Default::default() }).unwrap();
            cpu.run(&program, data, &[], std::slice::from_ref(&y), &[]).unwrap_err().to_string()
        };
        assert_eq!(try_run(step(Add, vec![], Slot::Output(0)), &[0]), "add: output f32[2] does not fit in 4 bytes of Output(0)");
        assert_eq!(try_run(step(Add, vec![], Slot::Temp(0)), &[0]), "add: nothing is bound to Temp(0)");
        assert_eq!(try_run(step(Add, vec![], Slot::Errors), &[0]), "add: nothing is bound to Errors");
        let other = Cpu::new(1, 1, false).unwrap();
        let foreign = storage(&other, &[0.0; 2]);
        let program = cpu.prepare(HostProgram::default()).unwrap();
        let e = cpu.run(&program, &[], &[], &[foreign], &[]).unwrap_err();
        assert_eq!(e.message(), "cpu: a buffer of device 1 was given to device 0");
    }

    #[test]
    fn the_workspace_grows_and_yields_to_the_cap() {
        let cpu = cpu();
        let program = |bytes| cpu.prepare(HostProgram { temporaries: vec![bytes], ..Default::default() });
        let (small, large) = (program(1024).unwrap(), program(4096).unwrap());
        assert_eq!(cpu.counters.read().bytes_reserved, 4096);
        cpu.set_cap(6000);
        let held = cpu.alloc(4096).unwrap(); // takes the place of the idle workspace
        assert!(matches!(cpu.run(&large, &[], &[], &[], &[]).unwrap_err().kind(), ErrorKind::OutOfMemory(_)));
        cpu.run(&small, &[], &[], &[], &[]).unwrap();
        drop(held);
        cpu.run(&large, &[], &[], &[], &[]).unwrap();
    }
}
