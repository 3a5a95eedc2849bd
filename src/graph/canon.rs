//! The canonical form of what is about to run: which nodes, in which order, and the two parts of them that matter. The KEY is structure, by which plans are
//! cached; the DATA is floats, positions and seeds, which every run brings anew.

use super::Slots;
use super::mode::Phase;
use super::node::{Node, NodeState, Value};
use super::op::{Key, Op};
use crate::device::Storage;
use crate::error::{Error, Result};
use crate::tensor::{Layout, Meta};
use smallvec::SmallVec;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Where an operand comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Src {
    /// Output `.1` of node `.0`.
    Node(u32, u8),
    /// Leaf `.0`.
    Leaf(u32),
}

/// An input of a node in canonical form.
#[derive(Clone, Debug)]
pub(crate) struct CanonInput {
    pub src: Src,
    /// Offset left 0: it is data.
    pub layout: Layout,
    /// Which entry of the data holds the offset.
    pub offset: usize,
    /// Whether the offset is a multiple of four elements.
    pub aligned: bool,
    /// Whether backward may read the operand after this run, so that its value stays. Of this run only, as [`Canon::history`] is.
    pub kept: bool,
}

/// A node in canonical form.
#[derive(Clone, Debug)]
pub(crate) struct CanonNode {
    pub op: Arc<dyn Op>,
    pub slots: Slots,
    /// Where its slots begin in the data.
    pub slot_base: usize,
    pub inputs: SmallVec<[CanonInput; 3]>,
    pub outs: SmallVec<[Meta; 1]>,
    pub scope: u32,
    pub phase: Phase,
    pub source: bool,
}

/// Where an output of a plan goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A buffer of its own.
    Pool,
    /// Slice `.1` of the arena that is leaf `.0`.
    Arena(u32, u32),
}

/// A value that stays after the plan.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CanonOutput {
    pub node: u32,
    pub out: u8,
    pub place: Place,
}

/// All of it.
pub(crate) struct Canon {
    pub nodes: Vec<CanonNode>,
    pub leaf_metas: Vec<Meta>,
    /// For each leaf, the first leaf that lies in the same buffer.
    pub leaf_alias: Vec<u32>,
    /// What stays, in order of node and output.
    pub outputs: Vec<CanonOutput>,
    pub key: Vec<u64>,
    pub data: Vec<u64>,
    // What only this run needs.
    pub run: Vec<Arc<Node>>,
    pub leaves: Vec<Value>,
    pub leaf_storage: Vec<Storage>,
    /// Nodes whose value nobody reads once equal nodes are merged; filled in when a plan is built.
    pub dead: Vec<bool>,
    /// Nodes whose history stays after this run: backward may walk them later.
    pub history: Vec<bool>,
}

impl CanonInput {
    /// Whether element i of the operand is element i of the value it comes from, in every run.
    pub fn is_whole(&self, canon: &Canon) -> bool {
        self.layout.is_whole(canon.meta(self.src).numel())
    }
}

impl Canon {
    /// Type and shape of a value.
    pub fn meta(&self, src: Src) -> Meta {
        match src {
            Src::Node(n, o) => self.nodes[n as usize].outs[o as usize],
            Src::Leaf(l) => self.leaf_metas[l as usize],
        }
    }

    /// Which entry of `outputs` is this output of a node, where it stays.
    pub fn output(&self, node: u32, out: u8) -> Option<usize> {
        self.outputs.binary_search_by_key(&(node, out), |o| (o.node, o.out)).ok()
    }

    /// The same for a value, which this run may compute or not.
    pub fn output_of(&self, value: &Value) -> Option<usize> {
        let base = value.base();
        let node = self.run.binary_search_by_key(&base.node.id, |n| n.id).ok()?;
        self.output(node as u32, base.out)
    }
}

/// The pending nodes that the targets need, in order of recording.
pub(crate) fn needed(targets: &[Value]) -> Vec<Arc<Node>> {
    let mut seen: HashSet<*const Node> = HashSet::new();
    let mut found: Vec<Arc<Node>> = Vec::new();
    let mut stack: Vec<Arc<Node>> = targets.iter().map(|t| t.base().node.clone()).collect();
    while let Some(node) = stack.pop() {
        if seen.contains(&Arc::as_ptr(&node)) {
            continue;
        }
        seen.insert(Arc::as_ptr(&node));
        let body = node.body();
        if matches!(body.state, NodeState::Done(_)) {
            continue;
        }
        stack.extend(body.inputs.iter().map(|v| v.base().node.clone()));
        drop(body);
        found.push(node);
    }
    found.sort_unstable_by_key(|n| n.id);
    found
}

struct Builder {
    local: HashMap<*const Node, u32>,
    leaf_index: HashMap<(*const Node, u8), u32>,
    buffers: HashMap<u64, u32>,
    scopes: HashMap<u64, u32>,
    canon: Canon,
}

/// Bring `run` (from [`needed`]) into canonical form. `targets` are stored, and with them whatever else stays wanted.
pub(crate) fn canonicalize(run: Vec<Arc<Node>>, targets: &[Value]) -> Result<Canon> {
    let local: HashMap<*const Node, u32> = run.iter().enumerate().map(|(i, n)| (Arc::as_ptr(n), i as u32)).collect();
    let canon = Canon {
        nodes: Vec::with_capacity(run.len()),
        leaf_metas: Vec::new(),
        leaf_alias: Vec::new(),
        outputs: Vec::new(),
        key: Vec::with_capacity(run.len() * 24),
        data: Vec::with_capacity(run.len() * 4),
        run,
        leaves: Vec::new(),
        leaf_storage: Vec::new(),
        dead: Vec::new(),
        history: Vec::new(),
    };
    let mut b = Builder { local, leaf_index: HashMap::new(), buffers: HashMap::new(), scopes: HashMap::new(), canon };
    b.nodes()?;
    b.outputs(targets)?;
    Ok(b.canon)
}

impl Builder {
    fn nodes(&mut self) -> Result<()> {
        for i in 0..self.canon.run.len() {
            let node = self.canon.run[i].clone();
            let next_scope = self.scopes.len() as u32;
            let scope = *self.scopes.entry(node.scope).or_insert(next_scope);
            let inputs: SmallVec<[Value; 3]> = node.body().inputs.clone();
            let mut key = Key(std::mem::take(&mut self.canon.key));
            key.text(node.op.name()).int(scope).int(node.phase as i64).int(node.slots.floats.len() as i64).int(node.slots.ints.len() as i64);
            node.op.key(&mut key);
            key.0.push(inputs.len() as u64 | (node.outs.len() as u64) << 32);
            for o in &node.outs {
                push_meta(&mut key.0, &o.meta);
            }
            self.canon.key = key.0;
            let mut canon_inputs = SmallVec::new();
            for v in &inputs {
                let (base, mut layout) = v.resolve();
                let src = self.source(base)?;
                let offset = self.canon.data.len();
                self.canon.data.push(layout.offset as u64);
                let aligned = layout.offset.is_multiple_of(4);
                layout.offset = 0;
                let tag = match src {
                    Src::Node(n, o) => (n as u64) << 10 | (o as u64) << 2,
                    Src::Leaf(l) => (l as u64) << 10 | 2,
                };
                self.canon.key.push(tag | u64::from(aligned));
                self.canon.key.push(layout.shape.rank() as u64);
                self.canon.key.extend(layout.shape.iter().map(|&d| d as u64));
                self.canon.key.extend(layout.strides().iter().map(|&s| s as u64));
                canon_inputs.push(CanonInput { src, layout, offset, aligned, kept: false });
            }
            let slot_base = self.canon.data.len();
            node.slots.push_to(&mut self.canon.data);
            self.canon.nodes.push(CanonNode {
                op: node.op.clone(),
                slots: node.slots.clone(),
                slot_base,
                inputs: canon_inputs,
                outs: node.outs.iter().map(|o| o.meta).collect(),
                scope,
                phase: node.phase,
                source: node.is_source(),
            });
        }
        Ok(())
    }

    fn source(&mut self, base: &Value) -> Result<Src> {
        let ptr = Arc::as_ptr(&base.node);
        if let Some(&n) = self.local.get(&ptr) {
            return Ok(Src::Node(n, base.out));
        }
        if let Some(&l) = self.leaf_index.get(&(ptr, base.out)) {
            return Ok(Src::Leaf(l));
        }
        let storage = base.storage().ok_or_else(|| {
            if base.node.op.name() == "vmap input" {
                return Error::invalid("vmap: a value was read inside the function").help("return it from the function, and read it there");
            }
            // History that backward consumed leaves no values behind; reaching for one is a fault of the graph, never of its user.
            Error::internal(format!("{}: its value was needed after it was dropped", base.node.op.name()))
        })?;
        let l = self.canon.leaf_metas.len() as u32;
        let alias = *self.buffers.entry(storage.buffer.id()).or_insert(l);
        let meta = *base.meta();
        self.canon.key.push(u64::MAX - u64::from(alias));
        push_meta(&mut self.canon.key, &meta);
        self.canon.leaf_metas.push(meta);
        self.canon.leaf_alias.push(alias);
        self.canon.leaf_storage.push(storage);
        self.canon.leaves.push(base.clone());
        self.leaf_index.insert((ptr, base.out), l);
        Ok(Src::Leaf(l))
    }

    /// Decide what stays after the run: targets, what live handles name, what pending nodes outside the run read, and what backward will read.
    fn outputs(&mut self, targets: &[Value]) -> Result<()> {
        let run = &self.canon.run;
        let count = run.len();
        let mut store: Vec<u64> = vec![0; count]; // bit set of outputs
        let mut reads: Vec<SmallVec<[u32; 1]>> = run.iter().map(|n| SmallVec::from_elem(0, n.outs.len())).collect();
        for node in &self.canon.nodes {
            for i in &node.inputs {
                if let Src::Node(n, o) = i.src {
                    reads[n as usize][o as usize] += 1;
                }
            }
        }
        for t in targets {
            let base = t.base();
            if let Some(&n) = self.local.get(&Arc::as_ptr(&base.node)) {
                store[n as usize] |= 1 << base.out;
            }
        }
        // Sources are computed again wherever they are used, which costs less than reading them; random numbers cost more, and stay where a handle names them.
        for (i, node) in run.iter().enumerate() {
            for (o, out) in node.outs.iter().enumerate() {
                let named = out.handles.load(Relaxed) > 0;
                let kept = if node.is_source() { named && node.is_random() } else { named || out.consumers.load(Relaxed) > reads[i][o] };
                if kept {
                    store[i] |= 1 << o;
                }
            }
        }
        self.canon.history = self.live_history(&store);
        self.keep_for_backward(&mut store);
        for (i, bits) in store.iter().enumerate() {
            for o in (0..64).filter(|o| bits >> o & 1 == 1 && *o < self.canon.nodes[i].outs.len()) {
                self.canon.outputs.push(CanonOutput { node: i as u32, out: o as u8, place: Place::Pool });
            }
        }
        self.place_in_arenas();
        self.canon.key.push(u64::MAX);
        for out in &self.canon.outputs {
            let place = match out.place {
                Place::Pool => 0,
                Place::Arena(leaf, slice) => 1 + (u64::from(leaf) << 32 | u64::from(slice)),
            };
            self.canon.key.extend([u64::from(out.node) << 8 | u64::from(out.out), place]);
        }
        Ok(())
    }

    /// Mark what backward will read, and store what of it this run computes. The one place that says so: whoever lets go of values follows the marks.
    fn keep_for_backward(&mut self, store: &mut [u64]) {
        for i in (0..self.canon.nodes.len()).filter(|&i| self.canon.history[i]) {
            // A checkpointed node is recorded again by backward: it keeps what comes from outside its scope and what inside it has no history, and nothing else.
            let again = self.canon.run[i].scope != 0;
            let saves = self.canon.nodes[i].op.saves();
            if !again {
                store[i] |= saves.outputs;
            }
            for n in 0..self.canon.nodes[i].inputs.len() {
                let src = self.canon.nodes[i].inputs[n].src;
                let kept = if again { self.is_outside(src, i) } else { saves.inputs >> n & 1 == 1 };
                self.canon.nodes[i].inputs[n].kept = kept;
                // Sources are computed again wherever they are used.
                if let Src::Node(m, o) = src
                    && kept
                    && !self.canon.nodes[m as usize].source
                {
                    store[m as usize] |= 1 << o;
                }
            }
        }
    }

    /// Whether recording the checkpoint scope of node `i` again takes `src` as it is: it was not recorded in the scope, or has no history there.
    fn is_outside(&self, src: Src, i: usize) -> bool {
        let (scope, history) = match src {
            Src::Node(m, _) => (self.canon.run[m as usize].scope, self.canon.history[m as usize]),
            Src::Leaf(l) => (self.canon.leaves[l as usize].node.scope, self.canon.leaves[l as usize].carries_grad()),
        };
        scope != self.canon.run[i].scope || !history
    }

    /// Which nodes backward could still walk after this run, starting from something that a user can name: they lead to a leaf that wants a gradient, no
    /// backward has consumed them, and a stored value depends on them.
    fn live_history(&self, store: &[u64]) -> Vec<bool> {
        let run = &self.canon.run;
        let mut leads = vec![false; run.len()];
        for (i, node) in run.iter().enumerate() {
            let body = node.body();
            leads[i] = body.history && body.inputs.iter().any(|v| self.leads(v, &leads));
        }
        let mut reached: Vec<bool> = store.iter().map(|&bits| bits != 0).collect();
        for i in (0..run.len()).rev() {
            if !(reached[i] && leads[i]) {
                continue;
            }
            for input in &self.canon.nodes[i].inputs {
                if let Src::Node(m, _) = input.src {
                    reached[m as usize] = true;
                }
            }
        }
        leads.iter().zip(&reached).map(|(a, b)| *a && *b).collect()
    }

    /// Whether a value leads to a leaf that wants a gradient. Chains of views are followed; their base decides.
    fn leads(&self, value: &Value, leads: &[bool]) -> bool {
        let mut v = value.clone();
        loop {
            if v.node.grad.is_some() {
                return true;
            }
            if let Some(&n) = self.local.get(&Arc::as_ptr(&v.node)) {
                return leads[n as usize];
            }
            let body = v.node.body();
            if !body.history {
                return false;
            }
            if v.node.view.is_none() {
                return true;
            }
            let Some(next) = body.inputs.first().cloned() else { return false };
            drop(body);
            v = next;
        }
    }

    /// Updates write parameters in place, and their gradients are made where the update reads them.
    fn place_in_arenas(&mut self) {
        let mut wanted: Vec<(u32, u8, Place)> = Vec::new();
        let mut placed: HashSet<(u32, u8)> = HashSet::new();
        for (i, node) in self.canon.nodes.iter().enumerate() {
            let Some(arenas) = node.op.arenas() else { continue };
            let leaf = |input: usize| match node.inputs[input].src {
                Src::Leaf(l) => Some(l),
                Src::Node(..) => None,
            };
            for (o, &(input, slice)) in arenas.outputs.iter().enumerate() {
                wanted.extend(leaf(input).map(|l| (i as u32, o as u8, Place::Arena(l, slice))));
            }
            for (n, &(input, slice)) in arenas.grads.iter().enumerate() {
                let x = &node.inputs[n];
                if let (Src::Node(m, o), Some(l)) = (x.src, leaf(input)) {
                    let producer = &self.canon.nodes[m as usize];
                    if x.is_whole(&self.canon) && !producer.source && !producer.op.keeps_bindings() && placed.insert((m, o)) {
                        wanted.push((m, o, Place::Arena(l, slice)));
                    }
                }
            }
        }
        let mut more: Vec<CanonOutput> = Vec::new();
        for (node, out, place) in wanted {
            match self.canon.output(node, out) {
                Some(k) => self.canon.outputs[k].place = place,
                None => more.push(CanonOutput { node, out, place }),
            }
        }
        self.canon.outputs.extend(more);
        self.canon.outputs.sort_unstable_by_key(|o| (o.node, o.out));
    }
}

fn push_meta(key: &mut Vec<u64>, meta: &Meta) {
    key.push(meta.dtype as u64 | (meta.shape.rank() as u64) << 8);
    key.extend(meta.shape.iter().map(|&d| d as u64));
}
