//! The engine: one run of a program is one write of its words, one compute pass and one submit, its readback included.

use super::memory::{ALIGN, GpuBuffer};
use super::pipeline::{BindCache, Bound, Groups, RunKey, Wanted};
use super::program::{Prepared, Step, window_bytes};
use super::{Gpu, Readback};
use crate::device::{Access, Binding, Counters, Slot, Storage};
use crate::error::{Error, ErrorKind, Result};
use smallvec::SmallVec;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Instant;

/// Bytes of the buffer of NaN that poisoned ranges are copied from.
const POISON_BYTES: usize = 1 << 20;

/// A quiet NaN's bits.
const POISON: u32 = 0x7fc0_0000;

/// A kernel to run by hand, without a graph.
#[derive(Clone, Copy, Debug)]
pub struct KernelCall<'a> {
    /// What errors name.
    pub label: &'a str,
    /// The whole WGSL module, entry point `main`: uniforms at `@binding(0)`, storage from `@binding(1)` on, as [`Emit::finish`](crate::kernel::Emit::finish)
    /// writes it. It runs with all checks.
    pub text: &'a str,
    /// The storage bindings, in order, and how the text declares them.
    pub bindings: &'a [(&'a Storage, Access)],
    /// The uniform window, read as `u[k].x`.
    pub words: &'a [u32],
    /// Workgroups in x, y and z.
    pub grid: [u32; 3],
}

/// One run of a program: what stands behind its slots.
struct Run<'a> {
    program: &'a Prepared,
    leaves: &'a [Bound<'a>],
    outputs: &'a [Bound<'a>],
    /// Copies of leaves that are read as images and are none.
    copied: &'a [(usize, Bound<'a>)],
}

impl<'a> Run<'a> {
    /// What stands behind a slot.
    fn behind(&self, slot: Slot) -> Option<Bound<'a>> {
        match slot {
            Slot::Leaf(i) => self.leaves.get(i).copied(),
            Slot::Output(i) => self.outputs.get(i).copied(),
            Slot::Temp(i) => self.program.temporaries.get(i).map(|(buffer, bytes)| Bound { buffer, offset: 0, bytes: *bytes }),
            Slot::Errors => self.program.errors.as_ref().map(|e| Bound { buffer: &e.buffer, offset: 0, bytes: e.bytes() }),
        }
    }

    /// What a launch binds.
    fn bound(&self, binding: &Binding) -> Option<Bound<'a>> {
        let copy = self.copied.iter().find(|(i, _)| binding.access == Access::Image && binding.slot == Slot::Leaf(*i));
        copy.map(|(_, copy)| *copy).or_else(|| self.behind(binding.slot))
    }
}

impl Gpu {
    /// Run a program. `data` fills its words, `leaves` and `outputs` stand behind its slots. `copies_before` (from, to) are made before its first launch;
    /// `reads` are copied out after its last, in the same submit, together with the words of all checks that nobody has read.
    ///
    /// # Errors
    /// Whatever the device says to these calls, before anything of the outputs can be looked at.
    pub fn run(
        self: &Arc<Self>,
        program: &Prepared,
        data: &[u64],
        leaves: &[Storage],
        outputs: &[Storage],
        copies_before: &[(Storage, Storage)],
        reads: &[Storage],
    ) -> Result<Option<Readback>> {
        if program.device != self.id {
            return Err(Error::internal(format!("run: a program of device {} on device {}", program.device, self.id)));
        }
        if data.len() < program.data_len {
            return Err(Error::internal(format!("run: the program reads {} entries of data, {} are given", program.data_len, data.len())));
        }
        let (leaves, outputs) = (self.bounds(leaves, "leaf")?, self.bounds(outputs, "output")?);
        let mut copies = copies_before.iter().map(|(from, to)| Ok((self.bound(from, "copy from")?, self.bound(to, "copy to")?))).collect::<Result<Vec<_>>>()?;
        // Over a caller's buffer lies no image.
        let foreign = program.image_leaves.iter().filter(|&&i| leaves.get(i).is_some_and(|l| l.buffer.memory().is_none()));
        let buffers = foreign.map(|&i| Ok((i, self.alloc(leaves[i].bytes)?))).collect::<Result<Vec<_>>>()?;
        let copied: Vec<(usize, Bound<'_>)> = buffers.iter().map(|(i, buffer)| (*i, Bound { buffer, offset: 0, bytes: leaves[*i].bytes })).collect();
        copies.extend(copied.iter().map(|(i, to)| (leaves[*i], *to)));
        let reads = self.bounds(reads, "read")?;
        let poison = if self.poisons.load(Relaxed) { Some(self.poison_buffer()?) } else { None };
        let profile = self.profile(program.steps.len())?;
        let staged = if reads.is_empty() { None } else { Some(self.stage(&reads, Some(program))?) };
        let run = Run { program, leaves: &leaves, outputs: &outputs, copied: &copied };

        let submitted = self.guarded("run", || {
            let groups = self.groups(&run)?;
            let parts = program.parts(self.info.kind, self.options.submit_ms);
            let mut commands: SmallVec<[wgpu::CommandBuffer; 2]> = SmallVec::new();
            let mut start = 0;
            for (n, end) in parts.iter().copied().enumerate() {
                let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
                if n == 0 {
                    for (from, to) in copies.iter().filter(|(from, _)| from.bytes > 0) {
                        copy(&mut encoder, from, to);
                    }
                    if let Some(poison) = &poison {
                        encode_poison(&mut encoder, poison, &run, &copies);
                    }
                }
                if let Some(profile) = &profile {
                    for (n, (step, group)) in program.steps.iter().zip(groups.iter()).enumerate().take(end).skip(start) {
                        let timed = wgpu::ComputePassDescriptor { label: None, timestamp_writes: profile.around(n) };
                        dispatch(&mut encoder.begin_compute_pass(&timed), step, group, None);
                    }
                    if n + 1 == parts.len() {
                        profile.encode(&mut encoder);
                    }
                } else if end > start {
                    let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
                    let mut before = None;
                    for (step, group) in program.steps[start..end].iter().zip(&groups[start..end]) {
                        dispatch(&mut pass, step, group, before);
                        before = Some(step.pipeline.id);
                    }
                }
                start = end;
                if let (Some(staged), true) = (&staged, n + 1 == parts.len()) {
                    staged.encode(&mut encoder, &reads);
                }
                commands.push(encoder.finish());
            }
            Counters::add(&self.counters.dispatches, program.steps.len() as u64);
            self.submit_in_turn(program, data, commands)
        });
        let submitted = submitted.map_err(|e| self.blame(&run, e));
        self.save_pipelines_if_due();

        if let (Some(profile), Ok(submitted)) = (profile, &submitted) {
            let bytes = |n: usize| program.steps[n].bindings.iter().map(|b| run.behind(b.slot).map_or(0, |f| f.bytes)).sum();
            profile.tell(self, program, submitted, bytes)?;
        }
        match staged {
            Some(staged) => self.map(staged, submitted).map(Some),
            None => {
                submitted?;
                if let Some(words) = &program.errors {
                    self.checks().add(words, &[std::thread::current().id()]);
                }
                Ok(None)
            }
        }
    }

    /// Write a run's words and submit its parts, with no other run in between: runs share the workspace, and two threads may run one program.
    fn submit_in_turn(&self, program: &Prepared, data: &[u64], commands: impl IntoIterator<Item = wgpu::CommandBuffer>) -> Result<wgpu::SubmissionIndex> {
        let _turn = self.turn();
        if let Some(uniforms) = &program.uniforms {
            let mut words = program.words.lock().unwrap_or_else(PoisonError::into_inner);
            for (at, word) in &program.dynamic {
                words[*at] = word.value(data);
            }
            self.write(&self.counters.param_writes, uniforms, 0, bytemuck::cast_slice(&words));
        }
        let began = Instant::now();
        let mut last = None;
        for part in commands {
            last = Some(self.submit(Some(part))?);
        }
        if self.info.kind != super::Kind::Software && program.timing.wanted() {
            let timing = program.timing.clone();
            self.queue.on_submitted_work_done(move || timing.record(u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX)));
        }
        last.ok_or_else(|| Error::internal("run: nothing to submit"))
    }

    pub(super) fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one place that submits, and counts it. Inside a scope, which says why where it says why.
    pub(super) fn submit(&self, commands: Option<wgpu::CommandBuffer>) -> Result<wgpu::SubmissionIndex> {
        Counters::add(&self.counters.submits, 1);
        let index = self.queue.submit(commands);
        // The one way to learn that a submission was dropped: its number is above the last that was accepted.
        if self.accepted(&index) { Ok(index) } else { Err(Error::device_lost(format!("{}: the device is lost", self.info.short_name()))) }
    }

    /// The bind groups of a run. Inside a scope.
    fn groups(&self, run: &Run<'_>) -> Result<Groups> {
        let key = RunKey::new(run.program.id, run.leaves.iter().chain(run.outputs).chain(run.copied.iter().map(|(_, copy)| copy)));
        let mut cache = self.binds();
        if let Some(groups) = cache.run(&key) {
            return Ok(groups);
        }
        let groups: Groups = run.program.steps.iter().map(|step| self.group(&mut cache, run, step)).collect::<Result<_>>()?;
        cache.put_run(key, groups.clone());
        Ok(groups)
    }

    /// The bind group of a launch. Inside a scope.
    fn group(&self, cache: &mut BindCache, run: &Run<'_>, step: &Step) -> Result<wgpu::BindGroup> {
        let missing = || Error::internal(format!("{}: a slot has no buffer, or an empty one: {:?}", step.label, step.bindings));
        let uniforms = run.program.uniforms.as_ref().ok_or_else(missing)?;
        let mut bound: SmallVec<[Bound<'_>; 9]> = SmallVec::new();
        bound.push(Bound { buffer: uniforms, offset: step.window, bytes: step.window_bytes });
        for b in &step.bindings {
            bound.push(run.bound(b).filter(|f| f.bytes > 0).ok_or_else(missing)?);
        }
        self.bind_group(cache, &step.pipeline, &bound)
    }

    /// wgpu refuses a run as a whole: find the launch that it means, by encoding each alone.
    fn blame(&self, run: &Run<'_>, whole: Error) -> Error {
        if !matches!(whole.kind(), ErrorKind::Kernel(_)) {
            return whole;
        }
        let alone = |step: &Step| {
            self.guarded(&step.label, || {
                let group = self.group(&mut self.binds(), run, step)?;
                let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
                dispatch(&mut encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default()), step, &group, None);
                drop(encoder.finish());
                Ok(())
            })
        };
        run.program.steps.iter().find_map(|step| alone(step).err()).unwrap_or(whole)
    }

    /// The device's buffer of NaN.
    fn poison_buffer(self: &Arc<Self>) -> Result<Arc<GpuBuffer>> {
        if let Some(buffer) = self.poison.get() {
            return Ok(buffer.clone());
        }
        let buffer = self.alloc(POISON_BYTES)?;
        self.upload(&buffer, 0, bytemuck::cast_slice(&vec![POISON; POISON_BYTES / 4]))?;
        Ok(self.poison.get_or_init(|| buffer).clone())
    }

    /// Run one kernel by hand: compile it or find it compiled, bind, submit. It sees all that was submitted before.
    pub fn run_kernel(self: &Arc<Self>, call: &KernelCall<'_>) -> Result<()> {
        let limit = self.info.caps.max_groups;
        if call.grid.iter().any(|g| *g > limit) {
            return Err(Error::invalid(format!("{}: grid {:?} is above {limit} groups in a dimension", call.label, call.grid)));
        }
        let storages = call.bindings.iter().map(|(s, _)| self.bound(s, call.label)).collect::<Result<SmallVec<[Bound<'_>; 8]>>>()?;
        if let Some(n) = storages.iter().position(|b| b.bytes == 0 || !b.offset.is_multiple_of(ALIGN)) {
            return Err(Error::invalid(format!("{}: binding {}: offset {}, {} bytes", call.label, n + 1, storages[n].offset, storages[n].bytes))
                .help("a binding holds at least one element and starts at a multiple of 256"));
        }
        if call.grid.contains(&0) {
            return Ok(());
        }
        let text: Arc<str> = call.text.into();
        let bytes = window_bytes(call.words.len());
        let mut words = call.words.to_vec();
        words.resize(bytes / 4, 0);
        let accesses = call.bindings.iter().map(|(_, a)| *a).collect();
        let wanted = Wanted { label: call.label, text: &text, trusted: false, accesses, window: bytes };
        let pipeline = self.pipelines(&[wanted])?.remove(0);
        let uniforms = self.alloc(bytes)?;
        self.guarded(call.label, || {
            let bound: SmallVec<[Bound<'_>; 9]> = std::iter::once(Bound { buffer: &uniforms, offset: 0, bytes }).chain(storages).collect();
            let group = self.bind_group(&mut self.binds(), &pipeline, &bound)?;
            let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            {
                let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
                pass.set_pipeline(&pipeline.raw);
                pass.set_bind_group(0, &group, &[]);
                pass.dispatch_workgroups(call.grid[0], call.grid[1], call.grid[2]);
            }
            let commands = encoder.finish();
            Counters::add(&self.counters.dispatches, 1);
            let _turn = self.turn();
            self.write(&self.counters.param_writes, &uniforms, 0, bytemuck::cast_slice(&words));
            self.submit(Some(commands))?;
            Ok(())
        })
    }

    /// Copy bytes from one buffer to another, in order with everything else submitted.
    pub fn copy(self: &Arc<Self>, from: &Storage, to: &Storage) -> Result<()> {
        let (from, to) = (self.bound(from, "copy from")?, self.bound(to, "copy to")?);
        if from.bytes != to.bytes {
            return Err(Error::internal(format!("copy: {} bytes to {}", from.bytes, to.bytes)));
        }
        if from.bytes == 0 {
            return self.alive();
        }
        self.guarded("copy", || {
            let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            copy(&mut encoder, &from, &to);
            let commands = encoder.finish();
            // Not between the parts of another thread's run.
            let _turn = self.turn();
            self.submit(Some(commands))?;
            Ok(())
        })
    }

    fn bound<'a>(&self, storage: &'a Storage, what: &str) -> Result<Bound<'a>> {
        Ok(Bound { buffer: self.own(storage, what)?, offset: storage.offset, bytes: storage.bytes })
    }

    pub(super) fn bounds<'a>(&self, storages: &'a [Storage], what: &str) -> Result<SmallVec<[Bound<'a>; 8]>> {
        storages.iter().map(|s| self.bound(s, what)).collect()
    }
}

fn copy(encoder: &mut wgpu::CommandEncoder, from: &Bound<'_>, to: &Bound<'_>) {
    encoder.copy_buffer_to_buffer(from.buffer.wgpu(), from.offset as u64, to.buffer.wgpu(), to.offset as u64, Some(from.bytes as u64));
}

/// Launch, behind a launch of the pipeline `before` in the same pass.
fn dispatch(pass: &mut wgpu::ComputePass<'_>, step: &Step, group: &wgpu::BindGroup, before: Option<u64>) {
    if before != Some(step.pipeline.id) {
        pass.set_pipeline(&step.pipeline.raw);
    }
    pass.set_bind_group(0, group, &[]);
    pass.dispatch_workgroups(step.grid[0], step.grid[1], step.grid[2]);
}

/// Fill what holds no value yet. An output that is updated in place is a leaf, too, and holds one; so does what was just copied to.
fn encode_poison(encoder: &mut wgpu::CommandEncoder, poison: &GpuBuffer, run: &Run<'_>, copies: &[(Bound<'_>, Bound<'_>)]) {
    let live = |o: &Bound<'_>| run.leaves.iter().chain(copies.iter().map(|(_, to)| to)).any(|l| overlap(l, o));
    let fresh = run.outputs.iter().filter(|o| !live(o)).copied();
    let temporaries = run.program.temporaries.iter().map(|(buffer, bytes)| Bound { buffer, offset: 0, bytes: *bytes });
    for to in fresh.chain(temporaries) {
        let mut done = 0;
        while done < to.bytes {
            let bytes = (to.bytes - done).min(POISON_BYTES);
            copy(encoder, &Bound { buffer: poison, offset: 0, bytes }, &Bound { offset: to.offset + done, bytes, ..to });
            done += bytes;
        }
    }
}

fn overlap(a: &Bound<'_>, b: &Bound<'_>) -> bool {
    a.buffer.id() == b.buffer.id() && a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes
}
