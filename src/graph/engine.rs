//! The engine of a device: its plans, and the one place where a graph becomes work.

use super::Tensor;
use super::arena::{Arena, lies_at, move_to};
use super::canon::{self, Canon, Place, Src};
use super::capture;
use super::explain;
use super::mode;
use super::node::{Node, NodeState, Value, release_consumers};
use super::plan::{self, Fault, Plans, Policy};
use super::record::{self, Recorder};
use super::watch;
use crate::device::choices::Choices;
use crate::device::{Counters, Device, Readback, Storage};
use crate::error::{Error, ErrorKind, Result};
use smallvec::SmallVec;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};

/// A device with its plans. Lives as long as a tensor on the device does, and while it is among the last used.
#[derive(Debug)]
pub(crate) struct Engine {
    pub device: Device,
    state: Mutex<State>,
    /// Nodes that got a storage, for the report of an error about memory; those that are gone are swept out now and then.
    stored: Mutex<Vec<Weak<Node>>>,
}

/// All engines.
#[derive(Default)]
struct Registry {
    engines: HashMap<u64, Weak<Engine>>,
    /// The last used stay, so that a program that makes and drops all its tensors over and over keeps its plans.
    recent: Vec<Arc<Engine>>,
}

/// How many engines stay without a tensor.
const RECENT: usize = 2;

/// What the engine's lock guards. It is held from the decision what runs until the nodes know their values: two threads never run on one device at a time,
/// and no handle appears between the decision to overwrite a value and the overwriting.
#[derive(Debug)]
pub(super) struct State {
    pub(super) planning: Planning,
    /// Every plan built, by name, in order.
    built: Vec<String>,
    /// The same with their graphs in lines, where WGRAD_DEBUG asks for them.
    described: Vec<(String, Vec<String>)>,
}

/// A way of planning, with the plans made in it.
#[derive(Debug)]
pub(super) struct Planning {
    /// Its number in this process: plans of another are not to be run.
    pub(super) id: u64,
    policy: Policy,
    plans: Plans,
}

impl Planning {
    fn new(policy: Policy) -> Planning {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Planning { id: NEXT.fetch_add(1, Relaxed), policy, plans: Plans::default() }
    }
}

impl Engine {
    /// The engine of `device`; there is one at a time.
    pub fn of(device: &Device) -> Arc<Engine> {
        static REGISTRY: OnceLock<Mutex<Registry>> = OnceLock::new();
        let mut registry = REGISTRY.get_or_init(Mutex::default).lock().unwrap_or_else(|e| e.into_inner());
        let id = device.id();
        let engine = registry.engines.get(&id).and_then(Weak::upgrade).unwrap_or_else(|| {
            let state = State { planning: Planning::new(Policy::USUAL), built: Vec::new(), described: Vec::new() };
            Arc::new(Engine { device: device.clone(), state: Mutex::new(state), stored: Mutex::default() })
        });
        registry.engines.retain(|_, e| e.strong_count() > 0);
        registry.engines.insert(id, Arc::downgrade(&engine));
        let before = std::mem::take(&mut registry.recent);
        let (mine, others): (Vec<_>, Vec<_>) = before.into_iter().partition(|e| Arc::ptr_eq(e, &engine));
        registry.recent = std::iter::once(engine.clone()).chain(others.iter().take(RECENT - 1).cloned()).collect();
        drop(registry);
        // Whichever engine left the list may end here, outside the lock.
        drop((mine, others));
        engine
    }

    /// A buffer; where there is no memory for it, the error lists what takes the most.
    pub fn alloc(&self, bytes: usize) -> Result<Storage> {
        self.device.alloc(bytes).map_err(|e| match e.kind() {
            ErrorKind::OutOfMemory(_) => e.help(self.largest()),
            _ => e,
        })
    }

    /// Take a node that got a storage into the books.
    pub fn stores(&self, node: &Arc<Node>) {
        let mut stored = self.stored.lock().unwrap_or_else(|e| e.into_inner());
        if stored.len() == stored.capacity() {
            stored.retain(|n| n.strong_count() > 0);
        }
        stored.push(Arc::downgrade(node));
    }

    /// The largest live tensors, for a person.
    fn largest(&self) -> String {
        const SHOWN: usize = 5;
        let nodes: Vec<Arc<Node>> = self.stored.lock().unwrap_or_else(|e| e.into_inner()).iter().filter_map(Weak::upgrade).collect();
        let mut all: Vec<(usize, String)> = Vec::new();
        for node in &nodes {
            if let NodeState::Done(storages) = &node.body().state {
                for (slot, storage) in node.outs.iter().zip(storages) {
                    if let Some(s) = storage {
                        all.push((s.bytes, format!("{} {} ({})", slot.meta, node.op.name(), crate::device::human(s.bytes as u64))));
                    }
                }
            }
        }
        all.sort_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
        let shown: Vec<String> = all.iter().take(SHOWN).map(|(_, t)| t.clone()).collect();
        format!("{} live tensors; the largest: {}", all.len(), shown.join(", "))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// The number of the way in which it plans now.
    pub fn planning(&self) -> u64 {
        self.lock().planning.id
    }

    fn set_policy(&self, policy: Policy) {
        self.lock().planning = Planning::new(policy);
    }
}

/// A way of planning other than the usual one, until it is dropped. For tests of the planner.
#[doc(hidden)]
#[derive(Debug)]
pub struct Planned(Arc<Engine>);

/// Plan for `device` without fusion, or with a fault planted, until what this gives is dropped. Forgets the plans at both ends.
#[doc(hidden)]
pub fn plan_with(device: &Device, fuse: bool, fault: Option<Fault>) -> Planned {
    let engine = Engine::of(device);
    engine.set_policy(Policy { fuse, fault, choices: None });
    Planned(engine)
}

/// Other choices for the kernels of a device than its own. What was planned with them stays planned: to come back to them costs nothing.
#[doc(hidden)]
#[derive(Debug)]
pub struct Alternative {
    engine: Arc<Engine>,
    planning: Planning,
}

impl Alternative {
    /// These choices.
    pub fn new(device: &Device, choices: Arc<Choices>) -> Alternative {
        Alternative { engine: Engine::of(device), planning: Planning::new(Policy { choices: Some(choices), ..Policy::USUAL }) }
    }

    /// Run `f` with them.
    pub fn during<R>(&mut self, f: impl FnOnce() -> R) -> R {
        /// Ends it also where `f` panics.
        struct Back<'a>(&'a mut Alternative);
        impl Drop for Back<'_> {
            fn drop(&mut self) {
                self.0.exchange();
            }
        }
        self.exchange();
        let back = Back(self);
        let result = f();
        drop(back);
        result
    }

    fn exchange(&mut self) {
        std::mem::swap(&mut self.engine.lock().planning, &mut self.planning);
    }
}

impl Drop for Planned {
    fn drop(&mut self) {
        self.0.set_policy(Policy::USUAL);
    }
}

/// The names of the plans built on `device`, in order.
pub fn plan_names(device: &Device) -> Vec<String> {
    Engine::of(device).lock().built.clone()
}

impl Device {
    /// Compute everything that this thread has recorded on this device and that a live handle still names, as [`flush`] does.
    ///
    /// # Errors
    /// Device failures: memory, a kernel that the driver refuses, a lost device. What was pending stays pending.
    pub fn flush(&self) -> Result<()> {
        flush(self)
    }
}

/// Compute everything that this thread has recorded on `device` and that a live handle still names.
///
/// # Errors
/// Device failures: memory, a kernel that the driver refuses, a lost device. What was pending stays pending.
pub fn flush(device: &Device) -> Result<()> {
    let engine = Engine::of(device);
    let targets = live_targets(&record::recorder().live_nodes(&engine));
    if targets.is_empty() { Ok(()) } else { execute(&engine, &targets, &[]).map(drop) }
}

fn live_targets(nodes: &[Arc<Node>]) -> Vec<Value> {
    let named = |n: &Arc<Node>| (0..n.outs.len()).filter(|&o| n.outs[o].handles.load(Relaxed) > 0).map(|o| Value::new(n.clone(), o)).collect::<Vec<_>>();
    nodes.iter().filter(|n| !n.is_source()).flat_map(named).collect()
}

/// An input that another thread recorded and has not run is run first, with all that thread's recorder names: in its order, so its plans are what they would be.
pub(super) fn settle_foreign(value: &Value, mine: &Arc<Recorder>) -> Result<()> {
    let base = value.base();
    if Arc::ptr_eq(&base.node.recorder, mine) || base.node.is_source() || !base.node.is_pending() {
        return Ok(());
    }
    execute(&base.node.engine, std::slice::from_ref(base), &[]).map(drop)
}

/// Compute the targets, and bring `reads` (targets among them or values that exist) to the host in the same submit.
pub(crate) fn execute(engine: &Arc<Engine>, targets: &[Value], reads: &[Value]) -> Result<Option<Readback>> {
    if !reads.is_empty() {
        capture::looked();
    }
    // Values and handles that end here are dropped after the lock is given back.
    let mut state = engine.lock();
    let run = canon::needed(targets);
    if run.is_empty() {
        let ranges = reads.iter().map(storage).collect::<Result<Vec<_>>>()?;
        return if ranges.is_empty() { Ok(None) } else { engine.device.fetch(&ranges).map(Some) };
    }
    let mut canon = canon::canonicalize(run, targets)?;
    watch::ran(&mut canon, &engine.device, &state.planning.policy)?;
    let counters = engine.device.counter_cells();
    let found = state.planning.plans.find(&canon.key);
    let plan = match found {
        Some(plan) => {
            Counters::add(&counters.plans_replayed, 1);
            plan
        }
        None => {
            let key = canon.key.clone();
            if crate::env::debug() >= 3 {
                let lines = explain::describe(&canon);
                let (name, nearest) = (mode::current_plan_name(), explain::nearest(&lines, &state.described));
                crate::env::tell(3, || format!("plan {name} on {}: {} nodes; {nearest}", engine.device.short_name(), canon.nodes.len()));
                crate::env::tell(4, || lines.join("\n"));
                state.described.push((name, lines));
            }
            let plan = Arc::new(plan::build(&mut canon, &engine.device, mode::current_plan_name(), &state.planning.policy)?);
            Counters::add(&counters.plans_built, 1);
            state.built.push(plan.name.clone());
            state.planning.plans.insert(key, plan.clone());
            plan
        }
    };
    let lost = state.planning.policy.fault == Some(Fault::LostVersion);
    let missed = state.planning.policy.fault == Some(Fault::MissedAlias);
    let moves = rescue(&mut canon, engine, lost, missed)?;
    let outputs = allocate(&canon, engine)?;
    let after = |v| canon.output_of(v).map_or_else(|| storage(v), |k| Ok(outputs[k].clone()));
    let read_ranges = reads.iter().map(after).collect::<Result<Vec<_>>>()?;
    let copies: Vec<(Storage, Storage)> = moves.iter().map(|m| (m.from.clone(), m.to.clone())).collect();
    let readback = plan.run(&engine.device, &canon.data, &canon.leaf_storage, &outputs, &copies, &read_ranges)?;
    capture::ran(&canon, &plan, state.planning.id, !moves.is_empty());
    // From here on nothing fails: the nodes learn their values.
    for m in moves {
        move_to(&m.value, m.to);
    }
    let ended = commit(&canon, &outputs);
    drop(state);
    drop(ended);
    Ok(readback)
}

fn storage(v: &Value) -> Result<Storage> {
    v.storage().ok_or_else(|| Error::internal(format!("{}: its value was dropped before it was read", v.node.op.name())))
}

/// A value that leaves an arena slice, because the plan overwrites it and someone still wants it.
struct Move {
    value: Value,
    from: Storage,
    to: Storage,
}

/// How a plan reads one of its leaves.
#[derive(Clone, Default)]
struct LeafUse {
    /// How many inputs read it.
    reads: u32,
    /// Whether an update does.
    by_update: bool,
    /// Whether a node that backward may walk after this run keeps a handle on it.
    kept: bool,
}

fn leaf_uses(canon: &Canon) -> Vec<LeafUse> {
    let mut uses = vec![LeafUse::default(); canon.leaves.len()];
    for node in &canon.nodes {
        let is_update = node.op.arenas().is_some();
        for x in &node.inputs {
            if let Src::Leaf(l) = x.src {
                let leaf = &mut uses[l as usize];
                leaf.reads += 1;
                leaf.by_update |= is_update;
                leaf.kept |= x.kept;
            }
        }
    }
    uses
}

/// For every arena slice that the plan writes: if its present value is still wanted, it moves to a buffer of its own first.
fn rescue(canon: &mut Canon, engine: &Engine, lost: bool, missed: bool) -> Result<Vec<Move>> {
    let uses = leaf_uses(canon);
    let leaves: HashMap<(*const Node, u8), usize> = canon.leaves.iter().enumerate().map(|(l, v)| ((Arc::as_ptr(&v.node), v.out), l)).collect();
    let mut moves = Vec::new();
    for k in 0..canon.outputs.len() {
        let Place::Arena(leaf, slice) = canon.outputs[k].place else { continue };
        let arena = arena_of(canon, leaf)?;
        let Some(owner) = arena.owner(slice as usize) else { continue };
        let from = arena.slice(slice as usize);
        if !lies_at(&owner, &from) {
            continue;
        }
        let as_leaf = leaves.get(&(Arc::as_ptr(&owner.node), owner.out)).copied();
        let used = as_leaf.map_or_else(LeafUse::default, |l| uses[l].clone());
        let is_update = canon.nodes[canon.outputs[k].node as usize].op.arenas().is_some();
        // Updates are the last to run, so what else the plan reads of the slice comes before; but another's gradient may be this parameter's value itself.
        // A gradient is written somewhere in the middle.
        let read_here = as_leaf.is_some() && (!is_update || used.by_update);
        let slot = owner.slot();
        // Nodes of this plan that backward may walk after it will keep a handle on what they read.
        let wanted = slot.handles.load(Relaxed) > 0 || slot.consumers.load(Relaxed) > used.reads || used.kept;
        if (wanted && !lost) || (read_here && !missed) {
            let to = engine.alloc(from.bytes)?;
            if let (Some(l), true) = (as_leaf, read_here) {
                canon.leaf_storage[l] = to.clone();
            }
            moves.push(Move { value: owner, from, to });
        }
    }
    Ok(moves)
}

fn arena_of(canon: &Canon, leaf: u32) -> Result<Arc<Arena>> {
    canon.leaves[leaf as usize].node.arena.clone().ok_or_else(|| Error::internal("an update's arena input is not an arena"))
}

/// Buffers for the outputs.
fn allocate(canon: &Canon, engine: &Engine) -> Result<Vec<Storage>> {
    canon
        .outputs
        .iter()
        .map(|o| match o.place {
            Place::Pool => engine.alloc(canon.run[o.node as usize].outs[o.out as usize].meta.bytes()),
            Place::Arena(leaf, slice) => Ok(arena_of(canon, leaf)?.slice(slice as usize)),
        })
        .collect()
}

/// The run's nodes become values: storages set, inputs let go, what backward will read kept. Gives what may be dropped once the lock is released.
fn commit(canon: &Canon, outputs: &[Storage]) -> Vec<Value> {
    for o in &canon.outputs {
        if let Place::Arena(leaf, slice) = o.place
            && let Some(arena) = &canon.leaves[leaf as usize].node.arena
        {
            arena.set_owner(slice as usize, &Value::new(canon.run[o.node as usize].clone(), o.out as usize));
        }
    }
    let mut ended = Vec::new();
    for (i, node) in canon.run.iter().enumerate() {
        let stored: SmallVec<[Option<Storage>; 1]> = (0..node.outs.len()).map(|o| canon.output(i as u32, o as u8).map(|k| outputs[k].clone())).collect();
        let any = stored.iter().any(Option::is_some);
        if node.is_source() && !any {
            continue;
        }
        if any {
            node.engine.stores(node);
        }
        let mut body = node.body();
        body.state = NodeState::Done(stored);
        release_consumers(&body.inputs);
        if canon.history[i] {
            // Handles, so that an update in place knows that these values are wanted. What a node reads comes before it: all storages are known.
            body.kept = body.inputs.iter().zip(&canon.nodes[i].inputs).filter(|(_, x)| x.kept).map(|(v, _)| Tensor::of(v.clone())).collect();
        } else {
            body.history = false;
            ended.extend(std::mem::take(&mut body.inputs));
        }
        drop(body);
        node.retire();
    }
    ended
}
