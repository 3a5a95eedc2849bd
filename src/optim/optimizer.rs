//! The parts that all optimizers share: arenas, the table of groups, the step.

use super::found_inf::FoundInf;
use super::scaler::{GradScaler, in_update};
use super::update::{Rule, Update};
use crate::error::{Error, Result};
use crate::graph::{self, Arena, Engine, Slots, Tensor};
use crate::nn::{Buffer, Param};
use crate::tensor::{DType, Data, Meta};
use std::collections::HashMap;
use std::sync::Arc;

/// What every optimizer can do.
pub trait Optimizer: std::fmt::Debug {
    /// Give every parameter that has a gradient its new value. Computes everything pending on the device, in one submit.
    ///
    /// # Errors
    /// Device failures, and on the CPU an index or label out of range: the parameters then keep the values they had. On a GPU such an index is the error of the
    /// next read; the step has been taken by then, with a wrong gradient for that sample, so the parameters are those of no valid step.
    fn step(&mut self) -> Result<()>;

    /// The same for gradients of a scaled loss: see [`GradScaler::step`](super::GradScaler::step), which calls it.
    ///
    /// # Errors
    /// Those of [`Optimizer::step`], and where the optimizer does not know how.
    fn step_scaled(&mut self, scaler: &mut GradScaler) -> Result<()> {
        let _ = scaler;
        Err(Error::invalid("grad_scaler: this optimizer takes no scaled gradients").help("implement Optimizer::step_scaled"))
    }

    /// Forget all gradients.
    fn zero_grad(&self);

    /// The learning rate of the first group.
    fn lr(&self) -> f64;

    /// Set the learning rate of every group. It is data: no plan changes.
    fn set_lr(&mut self, lr: f64);

    /// How many steps were made; among them are those that the device skipped because a scaled loss overflowed.
    fn steps(&self) -> u64;

    /// The numbers that the next step's update will compute with, for [`capture`](crate::train::capture): a step that is run again takes them from here.
    /// `None`: its steps are recorded each time.
    fn next_floats(&self) -> Option<Vec<f64>> {
        None
    }

    /// A step was taken without [`Optimizer::step`], with [`Optimizer::next_floats`].
    fn stepped(&mut self) {}

    /// The parameters, in order.
    fn params(&self) -> &[Param];

    /// Its state by name, for checkpoints: tensors in the order of the parameters, the counter of steps taken, and that of steps skipped where there are some.
    fn state_dict(&self) -> Result<Vec<(String, Tensor)>>;

    /// Take a state that [`Optimizer::state_dict`] gave.
    fn load_state_dict(&mut self, state: &[(String, Tensor)]) -> Result<()>;
}

/// What tells one optimizer over arenas from another; the rest is [`Core`].
pub(super) trait OverArenas: std::fmt::Debug {
    fn core(&self) -> &Core;
    fn core_mut(&mut self) -> &mut Core;
    /// The floats of the rule for this learning rate and step (the first is 1).
    fn floats(&self, lr: f64, step: u64) -> Vec<f64>;
}

impl<T: OverArenas> Optimizer for T {
    fn step(&mut self) -> Result<()> {
        let floats = self.floats(self.core().lr, self.core().steps + 1);
        self.core_mut().step(&floats, None)
    }

    fn step_scaled(&mut self, scaler: &mut GradScaler) -> Result<()> {
        let floats = self.floats(self.core().lr, self.core().steps + 1);
        self.core_mut().step(&floats, Some(scaler))
    }

    fn next_floats(&self) -> Option<Vec<f64>> {
        Some(self.floats(self.core().lr, self.core().steps + 1))
    }

    fn stepped(&mut self) {
        self.core_mut().steps += 1;
    }

    fn zero_grad(&self) {
        self.core().params.iter().for_each(|p| p.set_grad(None));
    }

    fn lr(&self) -> f64 {
        self.core().lr
    }

    fn set_lr(&mut self, lr: f64) {
        self.core_mut().lr = lr;
    }

    fn steps(&self) -> u64 {
        self.core().steps
    }

    fn params(&self) -> &[Param] {
        &self.core().params
    }

    fn state_dict(&self) -> Result<Vec<(String, Tensor)>> {
        self.core().state_dict()
    }

    fn load_state_dict(&mut self, state: &[(String, Tensor)]) -> Result<()> {
        self.core_mut().load_state_dict(state)
    }
}

/// Elements of one entry of the table: slices begin at multiples of 256 bytes.
const TABLE_BLOCK: usize = 64;
/// The entry of a slice that takes no part.
const SKIP: u32 = u32::MAX;

/// Parameters in arenas, and the rule that updates them.
#[derive(Debug)]
pub(super) struct Core {
    rule: &'static Rule,
    params: Vec<Param>,
    groups: Vec<u32>,
    chunks: Vec<Chunk>,
    lr: f64,
    /// Calls of step.
    steps: u64,
    /// How many of them a scaled loss made the device skip, `[1]`.
    skipped: Option<Buffer>,
}

/// The members of a chunk that take part in a step.
struct Part {
    grads: Vec<Tensor>,
    slices: Vec<u32>,
    /// The group of each.
    groups: Vec<u32>,
    table: Tensor,
}

/// What a look at the gradients of a scaled loss gave.
struct Found {
    control: Tensor,
    next: Tensor,
    skipped: Tensor,
}

/// Parameters that share one arena buffer.
#[derive(Debug)]
struct Chunk {
    /// Which parameters, by index.
    members: Vec<usize>,
    engine: Arc<Engine>,
    values: Tensor,
    grads: Tensor,
    states: Vec<Tensor>,
    /// By which members take part: the group of each block.
    tables: HashMap<Vec<u32>, Tensor>,
    offsets: Vec<usize>,
    len: usize,
}

/// A tensor that is the whole of a new arena, zeroed.
fn arena(engine: &Arc<Engine>, meta: Meta, slices: Vec<(usize, usize)>) -> Result<Tensor> {
    let storage = engine.alloc(meta.bytes())?;
    engine.device.upload(&storage, &vec![0u8; meta.bytes()])?;
    Ok(Tensor::arena(meta, Arc::new(Arena::new(storage, slices)), engine))
}

impl Core {
    /// Move the parameters into arenas.
    pub fn new(rule: &'static Rule, params: Vec<Param>, groups: Vec<u32>, lr: f64) -> Result<Core> {
        let mut core = Core { rule, groups, chunks: Vec::new(), lr, steps: 0, skipped: None, params };
        let Some(first) = core.params.first().map(Param::tensor) else {
            return Err(Error::invalid(format!("{}: no parameters to optimize", rule.name)));
        };
        for (i, p) in core.params.iter().enumerate() {
            let t = p.tensor();
            if t.dtype() == DType::F16 {
                return Err(Error::invalid(format!("{}: parameter {i} is f16, too coarse for small steps", rule.name))
                    .help("keep parameters in f32, and record the model inside autocast"));
            }
            if t.device() != first.device() || t.dtype() != first.dtype() {
                return Err(Error::invalid(format!(
                    "{}: parameter {i} is {} on {}, the first is {} on {}",
                    rule.name,
                    t.dtype(),
                    t.device().short_name(),
                    first.dtype(),
                    first.device().short_name()
                )));
            }
            if core.params[..i].iter().any(|q| q.same(p)) {
                return Err(Error::invalid(format!("{}: parameter {i} is given twice", rule.name)));
            }
        }
        let limit = first.device().max_binding_bytes();
        let mut members: Vec<usize> = Vec::new();
        let mut bytes = 0;
        for i in 0..core.params.len() {
            let need = core.params[i].meta().bytes().div_ceil(256).max(1) * 256;
            if bytes + need > limit && !members.is_empty() {
                core.add_chunk(std::mem::take(&mut members), first.engine())?;
                bytes = 0;
            }
            members.push(i);
            bytes += need;
        }
        core.add_chunk(members, first.engine())?;
        Ok(core)
    }

    fn add_chunk(&mut self, members: Vec<usize>, engine: &Arc<Engine>) -> Result<()> {
        let dtype = self.params[members[0]].meta().dtype;
        let bytes: Vec<usize> = members.iter().map(|&i| self.params[i].meta().bytes()).collect();
        let (slices, total) = Arena::lay_out(&bytes);
        let meta = Meta::new(dtype, [total / dtype.size()]);
        let chunk = Chunk {
            values: arena(engine, meta, slices.clone())?,
            grads: arena(engine, meta, slices.clone())?,
            states: self.rule.states.iter().map(|_| arena(engine, meta, vec![(0, total)])).collect::<Result<_>>()?,
            tables: HashMap::new(),
            offsets: slices.iter().map(|(o, _)| o / dtype.size()).collect(),
            len: meta.numel(),
            engine: engine.clone(),
            members,
        };
        for slot in 0..chunk.members.len() {
            chunk.adopt(slot, &self.params)?;
        }
        self.chunks.push(chunk);
        Ok(())
    }

    /// One step with these floats, `rule.floats` for each group; of a scaled loss, with what the scaler says.
    fn step(&mut self, floats: &[f64], scaler: Option<&mut GradScaler>) -> Result<()> {
        let Some(device) = self.chunks.first().map(|c| c.engine.device.clone()) else { return Ok(()) };
        let (params, groups) = (&self.params, &self.groups);
        let parts: Vec<Option<Part>> = self.chunks.iter_mut().map(|c| c.part(self.rule, params, groups)).collect::<Result<_>>()?;
        if parts.iter().all(Option::is_none) {
            return graph::flush(&device);
        }
        let found = match &scaler {
            None => None,
            Some(scaler) => {
                let skipped = self.skipped()?.tensor();
                Some(self.look(scaler, &skipped, &parts)?)
            }
        };
        let mut recorded = Vec::new();
        for (c, part) in parts.iter().enumerate().filter_map(|(c, p)| Some((c, p.as_ref()?))) {
            let new = self.chunks[c].record(self.rule, part, floats, found.as_ref().map(|f| &f.control))?;
            recorded.extend(new.into_iter().map(|(slot, new)| (c, slot, new)));
        }
        drop(parts);
        // The parameters let go of their old values, so that these are overwritten unless someone else names them.
        let param = |c: usize, slot: usize| &self.params[self.chunks[c].members[slot]];
        let old: Vec<_> = recorded.iter().map(|(c, slot, new)| param(*c, *slot).replace(new.clone())).collect();
        let done = graph::flush(&device);
        for ((c, slot, _), old) in recorded.iter().zip(old) {
            match &done {
                Ok(()) => self.chunks[*c].place(*slot, param(*c, *slot))?,
                Err(_) => drop(param(*c, *slot).replace(Tensor::of(old))),
            }
        }
        done?;
        self.steps += 1;
        if let (Some(scaler), Some(found)) = (scaler, found) {
            scaler.advance(&found.next)?;
            self.skipped()?.assign(&found.skipped)?;
        }
        Ok(())
    }

    /// The counter of steps skipped: one for as long as the optimizer lives, as a captured step knows it by itself.
    fn skipped(&mut self) -> Result<Buffer> {
        if let Some(there) = &self.skipped {
            return Ok(there.clone());
        }
        let zero = Tensor::new([0f32], [1], &self.chunks[0].engine.device)?;
        Ok(self.skipped.insert(Buffer::new(&zero)).clone())
    }

    /// Record a look at all gradients, and what follows from it.
    fn look(&self, scaler: &GradScaler, skipped: &Tensor, parts: &[Option<Part>]) -> Result<Found> {
        let engine = &self.chunks[0].engine;
        if !Arc::ptr_eq(engine, scaler.engine()) {
            let (a, b) = (engine.device.short_name(), scaler.engine().device.short_name());
            return Err(Error::device(format!("grad_scaler: it is on {b}, the parameters on {a}")));
        }
        let state = scaler.state().tensor();
        let mut found: Option<Found> = None;
        for (chunk, part) in self.chunks.iter().zip(parts).filter_map(|(c, p)| Some((c, p.as_ref()?))) {
            let op = FoundInf { slices: part.slices.clone(), offsets: chunk.offsets_of(part), len: chunk.len };
            let mut inputs: Vec<&Tensor> = part.grads.iter().collect();
            inputs.extend([&chunk.grads, &part.table, &state, skipped]);
            inputs.extend(found.as_ref().map(|f| &f.control));
            let mut outs = in_update(|| Tensor::try_apply(op, Slots::floats(&scaler.floats()), &inputs))?.into_iter();
            let mut next = || outs.next().ok_or_else(|| Error::internal("found_inf: three outputs"));
            found = Some(Found { control: next()?, next: next()?, skipped: next()? });
        }
        found.ok_or_else(|| Error::internal("found_inf: no gradients"))
    }

    /// The states by name.
    fn state_dict(&self) -> Result<Vec<(String, Tensor)>> {
        let mut out = Vec::new();
        for chunk in &self.chunks {
            for (state, name) in chunk.states.iter().zip(self.rule.states) {
                let data = state.to_data()?.to_f64();
                for (slot, &i) in chunk.members.iter().enumerate() {
                    let meta = self.params[i].meta();
                    let part = &data[chunk.offsets[slot]..][..meta.numel()];
                    let t = Tensor::new(Data::from_f64(meta.dtype, part), meta.shape, &chunk.engine.device)?;
                    out.push((format!("{i}.{name}"), t));
                }
            }
        }
        let device = &self.chunks[0].engine.device;
        let skipped = self.skipped.as_ref().map_or(Ok(0.0), |s| s.tensor().item())? as u64;
        let steps = u32::try_from(self.steps - skipped).map_err(|_| Error::invalid("state_dict: more than 2^32 steps"))?;
        out.push(("step".into(), Tensor::new([steps], [1], device)?));
        // The two are counted apart, and so they stay: a run that is resumed then computes as this one.
        if skipped > 0 {
            out.push(("skipped".into(), Tensor::new([skipped as u32], [1], device)?));
        }
        Ok(out)
    }

    /// Take states by name; all must be there and fit before any is taken.
    fn load_state_dict(&mut self, state: &[(String, Tensor)]) -> Result<()> {
        let find = |key: &str| {
            let found = state.iter().find(|(n, _)| n == key).map(|(_, t)| t);
            found.ok_or_else(|| Error::invalid(format!("{}: the state has no {key}", self.rule.name)))
        };
        let steps = find("step")?.item()? as u64;
        let skipped = find("skipped").ok().map(Tensor::item).transpose()?.unwrap_or(0.0);
        let mut wholes: Vec<Vec<Data>> = Vec::new();
        for chunk in &self.chunks {
            let mut of_chunk = Vec::new();
            for name in self.rule.states {
                let mut whole = vec![0.0; chunk.len];
                for (slot, &i) in chunk.members.iter().enumerate() {
                    let t = find(&format!("{i}.{name}"))?;
                    if t.shape() != self.params[i].shape() {
                        return Err(Error::shape(format!(
                            "{}: state {i}.{name} has shape {}, the parameter {}",
                            self.rule.name,
                            t.shape(),
                            self.params[i].shape()
                        )));
                    }
                    whole[chunk.offsets[slot]..][..t.numel()].copy_from_slice(&t.to_data()?.to_f64());
                }
                of_chunk.push(Data::from_f64(chunk.values.dtype(), &whole));
            }
            wholes.push(of_chunk);
        }
        for (chunk, datas) in self.chunks.iter().zip(wholes) {
            for (state, data) in chunk.states.iter().zip(datas) {
                chunk.engine.device.upload(&state.materialize()?, &data.to_bytes())?;
            }
        }
        self.steps = steps + skipped as u64;
        if skipped > 0.0 || self.skipped.is_some() {
            self.skipped()?.assign(&Tensor::new([skipped as f32], [1], &self.chunks[0].engine.device)?)?;
        }
        Ok(())
    }
}

impl Chunk {
    fn arena_of(t: &Tensor) -> Result<&Arc<Arena>> {
        t.value().node.arena.as_ref().ok_or_else(|| Error::internal("optimizer: an arena tensor lost its arena"))
    }

    /// Bring a parameter's value into its slice, if it lies elsewhere: at first, and after someone set it.
    fn adopt(&self, slot: usize, params: &[Param]) -> Result<()> {
        let param = &params[self.members[slot]];
        let arena = Chunk::arena_of(&self.values)?;
        let at = arena.slice(slot);
        let value = param.tensor();
        // A parameter's value always exists.
        let storage = value.value().storage().ok_or_else(|| Error::internal("optimizer: a parameter without a value"))?;
        if storage.buffer.id() == at.buffer.id() && storage.offset == at.offset {
            return Ok(());
        }
        arena.evict(slot, &self.engine.device)?;
        self.engine.device.copy(&crate::device::Storage { bytes: at.bytes, ..storage }, &at)?;
        drop(value);
        self.place(slot, param)
    }

    /// The parameter's value is what lies in its slice.
    fn place(&self, slot: usize, param: &Param) -> Result<()> {
        let arena = Chunk::arena_of(&self.values)?;
        let leaf = Tensor::leaf(*param.meta(), arena.slice(slot), &self.engine, Some(param.grad_slot().clone()));
        arena.set_owner(slot, leaf.value());
        drop(param.replace(leaf));
        Ok(())
    }

    /// The members that have gradients, brought into their slices.
    fn part(&mut self, rule: &'static Rule, params: &[Param], groups: &[u32]) -> Result<Option<Part>> {
        let mut grads = Vec::new();
        let mut slices = Vec::new();
        for (slot, &i) in self.members.iter().enumerate() {
            if let Some(g) = params[i].grad() {
                if g.meta() != params[i].meta() {
                    return Err(Error::shape(format!("{}: gradient {} for parameter {i}, which is {}", rule.name, g.meta(), params[i].meta())));
                }
                grads.push(g);
                slices.push(slot as u32);
            }
        }
        if grads.is_empty() {
            return Ok(None);
        }
        for &slot in &slices {
            self.adopt(slot as usize, params)?;
        }
        let table = match self.tables.get(&slices) {
            Some(t) => t.clone(),
            None => {
                let mut blocks = vec![SKIP; self.len.div_ceil(TABLE_BLOCK)];
                for &s in &slices {
                    let i = self.members[s as usize];
                    let first = self.offsets[s as usize] / TABLE_BLOCK;
                    blocks[first..first + params[i].numel().div_ceil(TABLE_BLOCK)].fill(groups[i]);
                }
                let n = blocks.len();
                let t = Tensor::new(blocks, [n], &self.engine.device)?;
                self.tables.insert(slices.clone(), t.clone());
                t
            }
        };
        let groups = slices.iter().map(|&s| groups[self.members[s as usize]]).collect();
        Ok(Some(Part { grads, slices, groups, table }))
    }

    fn offsets_of(&self, part: &Part) -> Vec<usize> {
        part.slices.iter().map(|&s| self.offsets[s as usize]).collect()
    }

    /// Record the update of a part: slice and new value of each.
    fn record(&self, rule: &'static Rule, part: &Part, floats: &[f64], control: Option<&Tensor>) -> Result<Vec<(usize, Tensor)>> {
        let op =
            Update { rule, groups: part.groups.clone(), offsets: self.offsets_of(part), slices: part.slices.clone(), len: self.len, scaled: control.is_some() };
        let mut inputs: Vec<&Tensor> = part.grads.iter().collect();
        inputs.extend([&self.values, &self.grads]);
        inputs.extend(&self.states);
        inputs.push(&part.table);
        inputs.extend(control);
        let outs = in_update(|| Tensor::try_apply(op, Slots::floats(floats), &inputs))?;
        Ok(outs.into_iter().zip(&part.slices).map(|(t, &s)| (s as usize, t)).collect())
    }
}
