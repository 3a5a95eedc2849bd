//! Captured steps: what a step recorded is compared with what it recorded before, and where they differ in nothing but what is known to change, its plan runs
//! again without a recording.
//!
//! Known to change are the declared inputs, the values of the parameters and buffers that the step reads, the draws of its generators, and the numbers of the
//! optimizer. Everything else is taken for a constant, and the second recording tells whether it is one.

use super::arena::lies_at;
use super::canon::{Canon, Place, Src};
use super::engine::Engine;
use super::node::Value;
use super::plan::Plan;
use super::{Arena, Tensor, mode, watch};
use crate::device::{Counters, Storage};
use crate::error::{Error, Result};
use crate::tensor::{Layout, Meta};
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// A named place whose value a step reads, and may replace: a parameter or a buffer.
pub(crate) trait Cell: Send + Sync {
    /// Its value, which does not count as a handle.
    fn value(&self) -> Value;
    /// Exchange it for another.
    fn put(&self, value: Tensor);
}

/// A number drawn from a generator while a step was recorded.
#[derive(Clone)]
struct Draw {
    seed: u64,
    offset: u64,
    counter: Arc<AtomicU64>,
}

/// The flags of modules that were asked whether they are in training, and what they said.
type Modes = Vec<(Arc<AtomicBool>, bool)>;

/// What happens while a step is recorded.
#[derive(Default)]
pub(crate) struct Session {
    inputs: Vec<Value>,
    cells: Vec<(Value, Arc<dyn Cell>)>,
    draws: Vec<Draw>,
    modes: Modes,
    runs: Vec<Ran>,
    /// Whether a value was brought to the host.
    looked: bool,
}

/// A slice of an arena.
type Slice = (Arc<Arena>, usize);

/// A run of a plan within a session.
struct Ran {
    key: Vec<u64>,
    data: Vec<u64>,
    plan: Arc<Plan>,
    policy: u64,
    leaves: Vec<Value>,
    alias: Vec<u32>,
    /// The values that stay, and the arena slices that some of them are in.
    made: Vec<(Value, Option<Slice>)>,
    /// Entries of the data that hold an offset into an input: the entry, the input, and how far behind the input's own.
    offsets: Vec<(usize, usize, usize)>,
    /// The input that each leaf is, where it is one.
    from_input: Vec<Option<usize>>,
    /// Whether an input is read from elsewhere, too.
    mixed: bool,
    /// For each node, where its slots begin, how many floats and integers they are, and whether it is an update.
    slots: Vec<(usize, usize, usize, bool)>,
    /// Whether values had to move out of the way.
    moved: bool,
}

thread_local! {
    static SESSION: RefCell<Option<Session>> = const { RefCell::new(None) };
}

fn in_session(f: impl FnOnce(&mut Session)) {
    SESSION.with_borrow_mut(|s| s.as_mut().map_or((), f));
}

/// A module was asked whether it is in training.
pub(crate) fn asked_mode(flag: &Arc<AtomicBool>, training: bool) {
    in_session(|s| s.modes.push((flag.clone(), training)));
}

/// A cell with this value is read, or its value is about to be replaced.
pub(crate) fn touched<C: Cell + 'static>(cell: &Arc<C>, value: &Value) {
    in_session(|s| {
        if !s.cells.iter().any(|(v, _)| v.same(value.base())) {
            s.cells.push((value.base().clone(), cell.clone()));
        }
    });
}

/// A generator gave this pair.
pub(crate) fn drew(seed: u64, offset: u64, counter: &Arc<AtomicU64>) {
    in_session(|s| s.draws.push(Draw { seed, offset, counter: counter.clone() }));
}

/// Values are brought to the host.
pub(super) fn looked() {
    in_session(|s| s.looked = true);
}

/// A plan ran; the nodes do not know of it yet.
pub(super) fn ran(canon: &Canon, plan: &Arc<Plan>, policy: u64, moved: bool) {
    in_session(|s| {
        let ran = Ran::of(canon, plan, policy, moved, &s.inputs);
        s.runs.push(ran);
    });
}

impl Ran {
    fn of(canon: &Canon, plan: &Arc<Plan>, policy: u64, moved: bool, inputs: &[Value]) -> Ran {
        let mut offsets = Vec::new();
        let mut from_input = vec![None; canon.leaves.len()];
        let mut direct = vec![false; canon.leaves.len()];
        for (node, run) in canon.nodes.iter().zip(&canon.run) {
            let values = run.recorded_inputs();
            for (x, v) in node.inputs.iter().zip(&values) {
                let input = declared(v, inputs);
                if let Some(n) = input {
                    // A view of a view begins no earlier than what it is a view of, but for one that is flipped; wrapping takes care of that.
                    offsets.push((x.offset, n, v.resolve().1.offset.wrapping_sub(inputs[n].resolve().1.offset)));
                }
                if let Src::Leaf(l) = x.src {
                    match input {
                        Some(n) => from_input[l as usize] = Some(n),
                        None => direct[l as usize] = true,
                    }
                }
            }
        }
        let arena = |place| match place {
            Place::Pool => None,
            Place::Arena(leaf, slice) => canon.leaves[leaf as usize].node.arena.clone().map(|a| (a, slice as usize)),
        };
        Ran {
            key: canon.key.clone(),
            data: canon.data.clone(),
            plan: plan.clone(),
            policy,
            leaves: canon.leaves.clone(),
            alias: canon.leaf_alias.clone(),
            made: canon.outputs.iter().map(|o| (Value::new(canon.run[o.node as usize].clone(), o.out as usize), arena(o.place))).collect(),
            offsets,
            mixed: from_input.iter().zip(&direct).any(|(i, d)| i.is_some() && *d),
            from_input,
            slots: canon
                .nodes
                .iter()
                .map(|n| (n.slot_base, n.slots.floats.len(), n.slots.ints.len(), n.op.arenas().is_some_and(|a| !a.outputs.is_empty())))
                .collect(),
            moved,
        }
    }
}

/// The declared input that `value` is, or a view of.
fn declared(value: &Value, inputs: &[Value]) -> Option<usize> {
    let mut v = value.clone();
    loop {
        if let Some(n) = inputs.iter().position(|i| i.same(&v)) {
            return Some(n);
        }
        v.node.view.as_ref()?;
        let next = v.node.recorded_inputs().first().cloned()?;
        v = next;
    }
}

impl Session {
    /// Run `f` on stand-ins for the inputs, and look on.
    ///
    /// # Errors
    /// Those of `f`, and where a step is recorded already.
    pub fn record<R>(inputs: &[&Tensor], f: impl FnOnce(&[Tensor]) -> Result<R>) -> Result<(R, Session)> {
        /// Ends the session also where `f` panics.
        struct End;
        impl Drop for End {
            fn drop(&mut self) {
                SESSION.take();
            }
        }
        let stand_ins: Vec<Tensor> = inputs.iter().map(|t| t.detach()).collect();
        let session = Session { inputs: stand_ins.iter().map(|t| t.value().clone()).collect(), ..Session::default() };
        if SESSION.with_borrow(Option::is_some) {
            return Err(Error::invalid("capture: a captured step cannot be a part of another"));
        }
        SESSION.set(Some(session));
        let end = End;
        let result = f(&stand_ins);
        let session = SESSION.take().unwrap_or_default();
        drop(end);
        Ok((result?, session))
    }
}

/// An input as it was given.
#[derive(Clone, Copy, PartialEq)]
struct Given {
    meta: Meta,
    /// Offset left 0.
    layout: Layout,
    aligned: bool,
}

impl Given {
    /// The input, and its offset.
    fn of(t: &Tensor) -> (Given, usize) {
        let (_, mut layout) = t.value().resolve();
        let offset = std::mem::take(&mut layout.offset);
        (Given { meta: *t.meta(), layout, aligned: offset.is_multiple_of(4) }, offset)
    }
}

/// For each input, the first one that lies over the same value.
fn pattern(bases: &[&Value]) -> Vec<usize> {
    bases.iter().map(|b| bases.iter().position(|c| c.same(b)).unwrap_or_default()).collect()
}

/// Where a leaf's value comes from.
enum From {
    Input(usize),
    Cell(Arc<dyn Cell>),
    Fixed(Value),
}

impl From {
    fn same(&self, other: &From) -> bool {
        match (self, other) {
            (From::Input(a), From::Input(b)) => a == b,
            (From::Cell(a), From::Cell(b)) => Arc::ptr_eq(a, b),
            (From::Fixed(a), From::Fixed(b)) => a.same(b),
            _ => false,
        }
    }
}

/// Where a value that the step makes goes.
struct Made {
    meta: Meta,
    arena: Option<Slice>,
    /// For a parameter's new value: the leaf that is its old one.
    replaces: Option<usize>,
    /// The cell that takes it, in a type and shape of the cell's own.
    cell: Option<(Arc<dyn Cell>, Meta)>,
}

/// A step that was recorded, and all it takes to run it again. It keeps no value of that run but constants.
pub(crate) struct Recorded {
    key: Vec<u64>,
    plan: Arc<Plan>,
    policy: u64,
    data: Vec<u64>,
    /// Entries of the data that hold an offset into an input, as in [`Ran`].
    offsets: Vec<(usize, usize, usize)>,
    /// Where in the data the floats of updates begin.
    updates: Vec<usize>,
    given: Vec<Given>,
    pattern: Vec<usize>,
    draws: Vec<Draw>,
    /// Entries of the data that hold the offset of a draw.
    drawn: Vec<(usize, usize)>,
    leaves: Vec<(From, Meta)>,
    /// For each leaf, the first that lies in the same buffer.
    alias: Vec<u32>,
    made: Vec<Made>,
    /// For each value that the step gives back, which of `made` it is, and its type and shape.
    returns: Vec<(usize, Meta)>,
    modes: Modes,
}

impl Recorded {
    /// What a session recorded: the step gives back `returned`, and its updates took `floats`. All other handles of the step are gone.
    ///
    /// # Errors
    /// In words: why it can only be recorded, each time.
    pub fn of(session: Session, inputs: &[&Tensor], returned: &[Tensor], floats: &[f64]) -> Result<Recorded, String> {
        let Session { cells, draws, modes, mut runs, looked, .. } = session;
        if looked {
            return Err("a value is read inside the step".into());
        }
        let plans = runs.len();
        let (Some(ran), 1) = (runs.pop(), plans) else { return Err(format!("the step is {plans} plans, not one")) };
        if ran.moved {
            return Err("a parameter's value before the step is still in use".into());
        }
        if ran.mixed {
            return Err("an input is also read from outside".into());
        }
        let updates = || ran.slots.iter().filter(|s| s.3);
        if !updates().all(|&(base, len, ..)| ran.data[base..base + len].iter().copied().eq(floats.iter().map(|f| f.to_bits()))) {
            return Err("an optimizer updates with numbers that it does not foretell".into());
        }
        let twice = |n: usize| draws[..n].iter().any(|d| (d.seed, d.offset) == (draws[n].seed, draws[n].offset));
        if (0..draws.len()).any(twice) {
            return Err("two generators draw the same numbers".into());
        }
        let mut drawn = Vec::new();
        for &(base, floats, ints, _) in &ran.slots {
            for at in (base + floats..base + floats + ints).skip(1) {
                drawn.extend(draws.iter().position(|d| [d.seed, d.offset] == ran.data[at - 1..=at]).map(|d| (at, d)));
            }
        }
        let cell_of = |v: &Value| cells.iter().find(|(value, _)| value.same(v)).map(|(_, cell)| cell.clone());
        let from = |v: &Value, input: Option<usize>| input.map(From::Input).or_else(|| cell_of(v).map(From::Cell)).unwrap_or_else(|| From::Fixed(v.clone()));
        let leaves: Vec<(From, Meta)> = ran.leaves.iter().zip(&ran.from_input).map(|(v, input)| (from(v, *input), *v.meta())).collect();
        let mut returns = Vec::new();
        for (n, t) in returned.iter().enumerate() {
            let found = ran.made.iter().position(|(v, _)| v.same(t.value().base()) && is_whole(t.value()));
            returns.push((found.ok_or_else(|| format!("value {n} that the step gives back is not one that it computes"))?, *t.meta()));
        }
        let mut made = Vec::new();
        for (k, (value, arena)) in ran.made.iter().enumerate() {
            let cell = cells.iter().map(|(_, c)| (c, c.value())).find(|(_, v)| v.base().same(value));
            if cell.as_ref().is_some_and(|(_, v)| !is_whole(v)) {
                return Err("a buffer becomes a part of a value".into());
            }
            let cell = cell.map(|(c, v)| (c.clone(), *v.meta()));
            let mine = u32::from(cell.is_some());
            if returns.iter().all(|r| r.0 != k) && value.slot().handles.load(Relaxed) > mine {
                return Err(format!("a value of the step ({}) is kept outside of it", value.node.op.name()));
            }
            let mut replaces = None;
            if let Some((arena, slice)) = arena
                && let Some(owner) = arena.owner(*slice)
                && !owner.same(value)
            {
                let is_owner = |(from, _): &(From, Meta)| matches!(from, From::Cell(c) if c.value().same(&owner));
                replaces = Some(leaves.iter().position(is_owner).ok_or("a parameter is updated that the step does not read")?);
            }
            made.push(Made { meta: *value.meta(), arena: arena.clone(), replaces, cell });
        }
        let given = inputs.iter().map(|t| Given::of(t).0).collect();
        let pattern = pattern(&inputs.iter().map(|t| t.value().base()).collect::<Vec<_>>());
        let updates = updates().map(|u| u.0).collect();
        let Ran { key, data, plan, policy, alias, offsets, .. } = ran;
        Ok(Recorded { key, plan, policy, data, offsets, updates, given, pattern, draws, drawn, leaves, alias, made, returns, modes })
    }

    /// Whether inputs like these were given.
    pub fn takes(&self, inputs: &[&Tensor]) -> bool {
        inputs.len() == self.given.len() && inputs.iter().zip(&self.given).all(|(t, g)| Given::of(t).0 == *g)
    }

    /// Whether a later recording, of inputs with these offsets, is the same step.
    ///
    /// # Errors
    /// In words: what differs.
    pub fn foretells(&self, later: &Recorded, inputs: &[&Tensor], floats: &[f64]) -> Result<(), String> {
        let differs = |what: &str| Err(format!("{what} from one call to the next"));
        if self.key != later.key || self.pattern != later.pattern || self.policy != later.policy {
            return differs("the step records other operations");
        }
        if !(self.leaves.len() == later.leaves.len() && self.leaves.iter().zip(&later.leaves).all(|(a, b)| a.0.same(&b.0))) {
            return differs("the step reads other tensors that are no inputs of it");
        }
        let same_draw = |(a, b): (&Draw, &Draw)| a.seed == b.seed && Arc::ptr_eq(&a.counter, &b.counter);
        if self.draws.len() != later.draws.len() || !self.draws.iter().zip(&later.draws).all(same_draw) || self.drawn != later.drawn {
            return differs("the step draws from other generators");
        }
        if self.returns != later.returns || !self.made.iter().zip(&later.made).all(|(a, b)| a.same(b)) {
            return differs("the step gives other values");
        }
        let offsets: Vec<usize> = inputs.iter().map(|t| Given::of(t).1).collect();
        if self.data(&offsets, floats, |d| later.draws[d].offset) != later.data {
            return differs("the step computes with other numbers that are no tensors");
        }
        Ok(())
    }

    /// The data of a run.
    fn data(&self, offsets: &[usize], floats: &[f64], mut draw: impl FnMut(usize) -> u64) -> Vec<u64> {
        let mut data = self.data.clone();
        for &(entry, input, behind) in &self.offsets {
            data[entry] = offsets[input].wrapping_add(behind) as u64;
        }
        let drawn: Vec<u64> = (0..self.draws.len()).map(&mut draw).collect();
        self.drawn.iter().for_each(|&(entry, d)| data[entry] = drawn[d]);
        for &base in &self.updates {
            data[base..].iter_mut().zip(floats).for_each(|(d, f)| *d = f.to_bits());
        }
        data
    }

    /// Run the step again, where everything is still as it was: gives what it gives back. `None`: it has to be recorded.
    ///
    /// # Errors
    /// Device failures. Only the draws are spent then.
    pub fn replay(&self, engine: &Arc<Engine>, inputs: &[&Tensor], floats: &[f64]) -> Result<Option<Vec<Tensor>>> {
        let usual = mode::grad_enabled() && mode::scope() == 0 && mode::cuts() && !watch::is_on();
        let same_modes = self.modes.iter().all(|(flag, training)| flag.load(Relaxed) == *training);
        if !usual || !same_modes || inputs.iter().any(|t| !Arc::ptr_eq(t.engine(), engine)) {
            return Ok(None);
        }
        let bases: Vec<&Value> = inputs.iter().map(|t| t.value().base()).collect();
        if pattern(&bases) != self.pattern {
            return Ok(None);
        }
        // Held from here on, as for any run.
        let state = engine.lock();
        if state.planning.id != self.policy {
            return Ok(None);
        }
        let Some((leaves, cells)) = self.read_leaves(&bases) else { return Ok(None) };
        let Some(outputs) = self.places(engine, &leaves, &cells)? else { return Ok(None) };
        let offsets: Vec<usize> = inputs.iter().map(|t| Given::of(t).1).collect();
        let data = self.data(&offsets, floats, |d| self.draws[d].counter.fetch_add(1, Relaxed));
        Counters::add(&engine.device.counter_cells().plans_replayed, 1);
        self.plan.run(&engine.device, &data, &leaves, &outputs, &[], &[])?;
        drop(state);
        for (made, storage) in self.made.iter().zip(&outputs) {
            if let Some((cell, meta)) = &made.cell {
                cell.put(made.value(storage, meta, engine)?);
            }
        }
        self.returns.iter().map(|(k, meta)| self.made[*k].value(&outputs[*k], meta, engine)).collect::<Result<_>>().map(Some)
    }

    /// What lies behind the leaves now, and the values of those that are cells. `None` where one is not what it was.
    fn read_leaves(&self, bases: &[&Value]) -> Option<(Vec<Storage>, Vec<Option<Value>>)> {
        let mut storages: Vec<Storage> = Vec::with_capacity(self.leaves.len());
        let mut cells = Vec::with_capacity(self.leaves.len());
        for (from, meta) in &self.leaves {
            let (storage, cell) = match from {
                From::Input(n) => (bases[*n].storage().filter(|_| bases[*n].meta() == meta)?, None),
                From::Cell(c) => {
                    let value = c.value();
                    if !is_whole(&value) || value.base().meta() != meta {
                        return None;
                    }
                    (value.storage()?, Some(value))
                }
                // A constant that nobody names any more was replaced by another.
                From::Fixed(v) => (v.storage().filter(|_| v.slot().handles.load(Relaxed) > 0)?, None),
            };
            storages.push(storage);
            cells.push(cell);
        }
        // Leaves share buffers as they did.
        let ids: Vec<u64> = storages.iter().map(|s| s.buffer.id()).collect();
        let first = |id: u64| ids.iter().position(|i| *i == id);
        let same = self.alias.iter().zip(&ids).all(|(a, id)| first(*id) == Some(*a as usize));
        same.then_some((storages, cells))
    }

    /// Where the outputs go. `None` where an arena holds a value that someone still wants.
    fn places(&self, engine: &Engine, leaves: &[Storage], cells: &[Option<Value>]) -> Result<Option<Vec<Storage>>> {
        let mut places = Vec::with_capacity(self.made.len());
        for made in &self.made {
            let Some((arena, slice)) = &made.arena else {
                places.push(engine.alloc(made.meta.bytes())?);
                continue;
            };
            let at = arena.slice(*slice);
            let old = made.replaces.and_then(|l| cells[l].as_ref());
            // A parameter that was set lies elsewhere until the optimizer takes it in.
            if made.replaces.is_some_and(|l| leaves[l].buffer.id() != at.buffer.id() || leaves[l].offset != at.offset) {
                return Ok(None);
            }
            if let Some(owner) = arena.owner(*slice).filter(|o| lies_at(o, &at)) {
                // The parameter itself names its value: it stays the name of what is written in its place.
                let mine = u32::from(old.is_some_and(|v| v.same(&owner)));
                if owner.slot().handles.load(Relaxed) > mine || owner.slot().consumers.load(Relaxed) > 0 {
                    return Ok(None);
                }
            }
            places.push(at);
        }
        Ok(Some(places))
    }
}

impl Made {
    /// A new value that lies in `storage`, seen as one of `meta`. It is what the recording made: a value, and a view of it where that has another shape.
    fn value(&self, storage: &Storage, meta: &Meta, engine: &Arc<Engine>) -> Result<Tensor> {
        let value = Tensor::leaf(self.meta, storage.clone(), engine, None);
        if self.meta == *meta { Ok(value) } else { value.try_reshape(meta.shape) }
    }

    /// Whether it goes where `other` goes.
    fn same(&self, other: &Made) -> bool {
        let cell = |m: &Made| m.cell.as_ref().map(|(c, meta)| (Arc::as_ptr(c).cast::<()>(), *meta));
        self.replaces == other.replaces && cell(self) == cell(other)
    }
}

/// Whether a value is all of the one it lies over, in order.
fn is_whole(value: &Value) -> bool {
    let (base, layout) = value.resolve();
    layout.offset == 0 && layout.is_whole(base.meta().numel())
}
