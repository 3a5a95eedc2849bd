//! Recording: the one function that makes nodes, and the books of what is pending on each thread.

use super::autocast;
use super::engine::{self, Engine};
use super::mode;
use super::node::{Body, Node, NodeState, OutSlot, Value, next_id};
use super::op::{Op, Saves};
use super::{GradSlot, Slots, Tensor};
use crate::device::cpu::{CpuView, CpuViewMut};
use crate::device::{Counters, Storage};
use crate::env;
use crate::error::{Error, Result};
use crate::tensor::{DType, Meta};
use smallvec::{SmallVec, smallvec};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, Weak};

/// What one thread has recorded and not yet run. Other threads drop handles of it, so it is locked.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    /// Pending nodes that a live handle names, in order of recording.
    live: Mutex<BTreeMap<u64, Weak<Node>>>,
    /// Pending nodes in all, views and sources apart.
    pending: AtomicUsize,
    /// Bytes of their outputs.
    bytes: AtomicUsize,
}

thread_local! {
    static RECORDER: Arc<Recorder> = Arc::default();
}

pub(crate) fn recorder() -> Arc<Recorder> {
    RECORDER.with(Arc::clone)
}

impl Recorder {
    fn live(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Weak<Node>>> {
        self.live.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// A handle names `node` now.
    pub fn named(&self, node: &Arc<Node>) {
        self.live().insert(node.id, Arc::downgrade(node));
    }

    /// No handle names it any more.
    pub fn unnamed(&self, id: u64) {
        self.live().remove(&id);
    }

    /// The pending nodes of an engine that live handles name.
    pub fn live_nodes(&self, engine: &Arc<Engine>) -> Vec<Arc<Node>> {
        self.live().values().filter_map(Weak::upgrade).filter(|n| Arc::ptr_eq(&n.engine, engine)).collect()
    }

    fn recorded(&self, node: &Node) {
        self.pending.fetch_add(1, Relaxed);
        self.bytes.fetch_add(bytes(node), Relaxed);
    }

    /// `node` is pending no longer.
    pub fn forget(&self, node: &Node) {
        self.live().remove(&node.id);
        if !node.is_source() {
            self.pending.fetch_sub(1, Relaxed);
            self.bytes.fetch_sub(bytes(node), Relaxed);
        }
    }
}

fn bytes(node: &Node) -> usize {
    node.outs.iter().map(|o| o.meta.bytes()).sum()
}

impl Tensor {
    /// Record `op` over `inputs`: the fallible door through which every operation goes.
    pub fn try_apply(op: impl Op, slots: Slots, inputs: &[&Tensor]) -> Result<SmallVec<[Tensor; 1]>> {
        Self::try_apply_arc(Arc::new(op), slots, inputs, None)
    }

    /// The same for an op without inputs, on a device.
    pub(crate) fn try_source(op: impl Op, slots: Slots, engine: &Arc<Engine>) -> Result<Tensor> {
        let mut outs = Self::try_apply_arc(Arc::new(op), slots, &[], Some(engine))?;
        Ok(outs.remove(0))
    }

    /// Record an op that gives one output.
    pub fn try_apply1(op: impl Op, slots: Slots, inputs: &[&Tensor]) -> Result<Tensor> {
        Ok(Self::try_apply(op, slots, inputs)?.remove(0))
    }

    /// Record an op that gives one output, and panic at the caller's line where it is misused.
    #[track_caller]
    pub fn apply1(op: impl Op, slots: Slots, inputs: &[&Tensor]) -> Tensor {
        Self::try_apply1(op, slots, inputs).unwrap_or_else(|e| panic!("{e}"))
    }

    pub(crate) fn try_apply_arc(op: Arc<dyn Op>, slots: Slots, inputs: &[&Tensor], engine: Option<&Arc<Engine>>) -> Result<SmallVec<[Tensor; 1]>> {
        let engine = match (inputs.first(), engine) {
            (Some(first), _) => &first.value().node.engine,
            (None, Some(engine)) => engine,
            (None, None) => return Err(Error::internal(format!("{}: an op without inputs needs a device", op.name()))),
        };
        for t in inputs {
            let other = &t.value().node.engine;
            if !Arc::ptr_eq(other, engine) {
                let (a, b) = (engine.device.short_name(), other.device.short_name());
                return Err(Error::device(format!("{}: inputs are on different devices: {a} and {b}", op.name())).help("move one with to_device"));
            }
        }
        let cast = autocast::cast(op.as_ref(), inputs)?;
        let cast: Option<SmallVec<[&Tensor; 3]>> = cast.as_ref().map(|c| c.iter().collect());
        let inputs = cast.as_deref().unwrap_or(inputs);
        let metas: SmallVec<[Meta; 4]> = inputs.iter().map(|t| *t.meta()).collect();
        let outs = op.infer(&slots, &metas)?;
        if engine.device.is_gpu() && outs.iter().any(|m| m.dtype == DType::F64) {
            return Err(Error::shape(format!("{}: f64 is not available on a GPU", op.name())).help("use to_dtype(DType::F32), or the CPU backend"));
        }
        let recorder = recorder();
        for t in inputs {
            engine::settle_foreign(t.value(), &recorder)?;
        }
        let requires_grad = mode::grad_enabled() && op.differentiable() && inputs.iter().any(|t| t.value().carries_grad());
        let view = match inputs {
            [input] => {
                let (base, layout) = input.value().resolve();
                op.view(&slots, &layout).map(|l| (base.clone(), l))
            }
            _ => None,
        };
        let done = if engine.device.is_gpu() && op.host_only() { Some(on_host(op.as_ref(), &slots, inputs, &outs, engine)?) } else { None };
        let is_pending = view.is_none() && done.is_none();
        let saves = if done.is_some() && requires_grad { op.saves() } else { Saves::NONE };
        let kept = inputs.iter().enumerate().filter(|(n, _)| saves.inputs >> n & 1 == 1).map(|(_, t)| (*t).clone()).collect();
        let values = if done.is_some() && !requires_grad { SmallVec::new() } else { inputs.iter().map(|t| t.value().clone()).collect() };
        let state = done.map_or(NodeState::Pending, NodeState::Done);
        let node = Arc::new(Node {
            id: next_id(),
            op,
            slots,
            engine: engine.clone(),
            recorder,
            scope: mode::scope(),
            phase: mode::phase(),
            requires_grad,
            grad: None,
            arena: None,
            outs: outs.into_iter().map(|meta| OutSlot { meta, handles: AtomicU32::new(0), consumers: AtomicU32::new(0) }).collect(),
            view,
            body: Mutex::new(Body { state, inputs: values, kept, history: requires_grad }),
        });
        Counters::add(&node.engine.device.counter_cells().nodes, 1);
        if is_pending {
            for v in &node.body().inputs {
                v.base().slot().consumers.fetch_add(1, Relaxed);
            }
            if !node.is_source() {
                node.recorder.recorded(&node);
            }
        }
        let outs = (0..node.outs.len()).map(|i| Tensor::of(Value::new(node.clone(), i))).collect();
        cut_if_long(&node)?;
        Ok(outs)
    }

    /// A leaf that is the whole of an arena.
    pub(crate) fn arena(meta: Meta, arena: Arc<super::Arena>, engine: &Arc<Engine>) -> Tensor {
        Tensor::of(Value::new(leaf_node(meta, arena.storage.clone(), engine, None, Some(arena)), 0))
    }

    /// A node without a value, for functions that are recorded only to be rewritten. Running anything that depends on it is an error.
    pub(crate) fn stand_in(meta: Meta, engine: &Arc<Engine>) -> Tensor {
        // Differentiable, so that the function may ask for gradients by its inputs.
        let grad = meta.dtype.is_float().then(Arc::default);
        let node = new_leaf(Arc::new(StandIn), meta, NodeState::Done(smallvec![None]), engine, grad, None);
        Tensor::of(Value::new(node, 0))
    }

    /// A leaf: a value that exists.
    pub(crate) fn leaf(meta: Meta, storage: Storage, engine: &Arc<Engine>, grad: Option<Arc<GradSlot>>) -> Tensor {
        Tensor::of(Value::new(leaf_node(meta, storage, engine, grad, None), 0))
    }
}

fn leaf_node(meta: Meta, storage: Storage, engine: &Arc<Engine>, grad: Option<Arc<GradSlot>>, arena: Option<Arc<super::Arena>>) -> Arc<Node> {
    new_leaf(Arc::new(Leaf), meta, NodeState::Done(smallvec![Some(storage)]), engine, grad, arena)
}

fn new_leaf(op: Arc<dyn Op>, meta: Meta, state: NodeState, engine: &Arc<Engine>, grad: Option<Arc<GradSlot>>, arena: Option<Arc<super::Arena>>) -> Arc<Node> {
    let node = Arc::new(Node {
        id: next_id(),
        op,
        slots: Slots::none(),
        engine: engine.clone(),
        recorder: recorder(),
        scope: 0,
        phase: mode::Phase::Forward,
        requires_grad: grad.is_some(),
        grad,
        arena,
        outs: smallvec![OutSlot { meta, handles: AtomicU32::new(0), consumers: AtomicU32::new(0) }],
        view: None,
        body: Mutex::new(Body { state, inputs: SmallVec::new(), kept: Vec::new(), history: false }),
    });
    engine.stores(&node);
    node
}

impl Value {
    /// Whether a result computed from this value can be differentiated: it leads to a leaf, and no backward has consumed the way there.
    pub fn carries_grad(&self) -> bool {
        // An index that an op gives beside its result depends on the leaf, too, but has no slope.
        self.meta().dtype.is_float() && (self.node.grad.is_some() || self.node.requires_grad && self.node.body().history)
    }
}

/// The outputs of an op that has no kernel for a GPU: its definition, on the host.
fn on_host(op: &dyn Op, slots: &Slots, inputs: &[&Tensor], outs: &[Meta], engine: &Arc<Engine>) -> Result<SmallVec<[Option<Storage>; 1]>> {
    // Whole words, so that they are aligned for any element.
    let aligned = |bytes: &[u8]| {
        let mut words = vec![0u64; bytes.len().div_ceil(8)];
        bytemuck::cast_slice_mut(&mut words)[..bytes.len()].copy_from_slice(bytes);
        words
    };
    let given = inputs.iter().map(|t| Ok(aligned(&t.to_data()?.to_bytes()))).collect::<Result<Vec<Vec<u64>>>>()?;
    let views: Vec<CpuView<'_>> = inputs.iter().zip(&given).map(|(t, w)| CpuView::new(*t.meta(), &bytemuck::cast_slice(w)[..t.meta().bytes()])).collect();
    let mut made: Vec<Vec<u64>> = outs.iter().map(|m| vec![0; m.bytes().div_ceil(8)]).collect();
    let mut results: Vec<CpuViewMut<'_>> =
        outs.iter().zip(&mut made).map(|(m, w)| CpuViewMut::new(*m, &mut bytemuck::cast_slice_mut(w)[..m.bytes()])).collect();
    op.cpu(slots, &views, &mut results)?;
    Counters::add(&engine.device.counter_cells().host_fallbacks, 1);
    let upload = |(m, w): (&Meta, &Vec<u64>)| {
        let storage = engine.alloc(m.bytes())?;
        engine.device.upload(&storage, &bytemuck::cast_slice(w)[..m.bytes()])?;
        Ok(Some(storage))
    };
    outs.iter().zip(&made).map(upload).collect()
}

/// A pending graph above WGRAD_MAX_PENDING nodes (or bytes) is run. Counted, never timed: the cuts are the same in every run.
fn cut_if_long(node: &Arc<Node>) -> Result<()> {
    if !mode::cuts() {
        return Ok(());
    }
    let nodes = node.recorder.pending.load(Relaxed);
    if nodes >= env::max_pending()? || node.recorder.bytes.load(Relaxed) >= env::max_pending_bytes()? {
        return engine::flush(&node.engine.device);
    }
    Ok(())
}

/// Ops that never run.
macro_rules! inert {
    ($($(#[$doc:meta])* $name:ident: $text:literal),*) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub(crate) struct $name;

        impl Op for $name {
            fn name(&self) -> &'static str {
                $text
            }
            fn infer(&self, _: &Slots, _: &[Meta]) -> Result<Vec<Meta>> {
                Err(Error::internal(concat!($text, ": is not recorded")))
            }
            fn cpu(&self, _: &Slots, _: &[crate::device::cpu::CpuView<'_>], _: &mut [crate::device::cpu::CpuViewMut<'_>]) -> Result<()> {
                Err(Error::internal(concat!($text, ": does not run")))
            }
            fn gpu(&self, _: &mut super::LaunchCtx<'_>) -> Result<()> {
                Err(Error::internal(concat!($text, ": does not run")))
            }
        }
    )*};
}

inert! {
    /// The op of leaves.
    Leaf: "leaf",
    /// The op of a vmapped function's inputs.
    StandIn: "vmap input"
}
