//! The model axis: a function of one model, run for K at once as one program.

use crate::error::{Error, Result};
use crate::graph::{self, Batched, Node, Tensor, Value};
use crate::tensor::{Data, Meta};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Run `f`, written for one model, for all `k` models whose inputs are stacked along a leading axis. The outputs carry that axis, too.
///
/// `f` may differentiate inside ([`grad`](super::grad)); reading a value inside is an error. On the CPU each model gets the bits it would get alone.
/// Tensors that `f` captures from outside are shared by all models.
///
/// ```
/// use wgrad::{Device, Tensor, autograd::vmap};
/// let device = Device::cpu()?;
/// let w = Tensor::new([1.0f32, 2.0, 3.0, 4.0], [2, 2], &device)?; // two models of two weights
/// let x = Tensor::new([10.0f32, 1.0], [2], &device)?;
/// let y = vmap(|p| Ok(vec![(&p[0] * &x).sum_all()]), &[&w])?;
/// assert_eq!(y[0].to_vec::<f32>()?, [12.0, 34.0]);
/// # Ok::<(), wgrad::Error>(())
/// ```
///
/// # Errors
/// Inputs without a leading axis or with different ones, an operation without a batch rule, a value read inside, random numbers without seeds.
pub fn vmap(f: impl FnOnce(&[Tensor]) -> Result<Vec<Tensor>>, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
    graph::without_cuts(|| run(f, inputs, None))
}

/// [`vmap`] with a seed for each model: random operations inside draw for model `i` what they would draw alone with a
/// [`Generator`](crate::Generator) of seed `seeds[i]`. Seeds are below 2^32.
pub fn vmap_seeded(f: impl FnOnce(&[Tensor]) -> Result<Vec<Tensor>>, inputs: &[&Tensor], seeds: &[u32]) -> Result<Vec<Tensor>> {
    graph::without_cuts(|| run(f, inputs, Some(seeds)))
}

fn run(f: impl FnOnce(&[Tensor]) -> Result<Vec<Tensor>>, inputs: &[&Tensor], seeds: Option<&[u32]>) -> Result<Vec<Tensor>> {
    let Some(k) = inputs.first().and_then(|t| t.shape().first().copied()) else {
        return Err(Error::invalid("vmap: needs at least one input with a leading axis"));
    };
    if k == 0 {
        return Err(Error::shape("vmap: the leading axis of the inputs has no models"));
    }
    if let Some(t) = inputs.iter().find(|t| t.shape().first() != Some(&k)) {
        return Err(Error::shape(format!("vmap: inputs have leading axes of {k} and of {:?}", t.shape().first().copied().unwrap_or(0))));
    }
    if let Some(s) = seeds.filter(|s| s.len() != k) {
        return Err(Error::shape(format!("vmap: {} seeds for {k} models", s.len())));
    }
    // Stand-ins of one model's shape: nodes that can be recorded on, but not run.
    let first = graph::next_id();
    let stand_ins: Vec<Tensor> = inputs.iter().map(|t| Tensor::stand_in(Meta::new(t.dtype(), t.shape().without(0)), t.engine())).collect();
    let outputs = f(&stand_ins)?;
    let seeds = seeds.map(|s| Tensor::new(Data::from(s), [k], inputs[0].device())).transpose()?;
    let mut rewrite = Rewrite { k, seeds, first, done: HashMap::new() };
    for (stand_in, t) in stand_ins.iter().zip(inputs) {
        rewrite.done.insert(stand_in.value().node.id, Some(vec![(*t).clone()]));
    }
    // The function's casts are nodes of it; there are no others.
    graph::without_autocast(|| outputs.iter().map(|o| rewrite.output(o)).collect())
}

struct Rewrite {
    k: usize,
    seeds: Option<Tensor>,
    /// Nodes with smaller ids were recorded before the function ran: they are the same for every model.
    first: u64,
    /// For each node of the function: its outputs with the model axis, or `None` where it is the same for every model.
    done: HashMap<u64, Option<Vec<Tensor>>>,
}

impl Rewrite {
    fn output(&mut self, t: &Tensor) -> Result<Tensor> {
        let mut nodes: BTreeMap<u64, Arc<Node>> = BTreeMap::new();
        let mut stack = vec![t.value().node.clone()];
        while let Some(n) = stack.pop() {
            if n.id < self.first || self.done.contains_key(&n.id) || nodes.contains_key(&n.id) {
                continue;
            }
            stack.extend(n.recorded_inputs().into_iter().map(|v| v.node));
            nodes.insert(n.id, n);
        }
        for (id, node) in nodes {
            let outs = self.node(&node)?;
            self.done.insert(id, outs);
        }
        self.stacked(t.value())
    }

    /// The value with the model axis: as it was rewritten, or the same for every model.
    fn stacked(&self, v: &Value) -> Result<Tensor> {
        match self.done.get(&v.node.id) {
            Some(Some(outs)) => Ok(outs[v.out as usize].clone()),
            _ => {
                let t = Tensor::of(v.clone());
                let shape = t.shape().with(0, 1);
                let wide = t.shape().with(0, self.k);
                t.try_reshape(shape)?.try_expand(wide)
            }
        }
    }

    fn node(&mut self, node: &Arc<Node>) -> Result<Option<Vec<Tensor>>> {
        let inputs = node.recorded_inputs();
        let depends = inputs.iter().any(|v| matches!(self.done.get(&v.node.id), Some(Some(_))));
        let random = node.op.row().is_some_and(crate::ops::is_random);
        if !depends && !random {
            return Ok(None);
        }
        if !node.is_pending() && node.view.is_none() {
            return Err(Error::invalid(format!("vmap: the value of {} was read inside the function", node.op.name())));
        }
        let stacked = inputs.iter().map(|v| self.stacked(v)).collect::<Result<Vec<_>>>()?;
        let metas: Vec<Meta> = if inputs.is_empty() { node.outs.iter().map(|o| o.meta).collect() } else { inputs.iter().map(|v| *v.meta()).collect() };
        let ctx = Batched { inputs: &stacked, metas: &metas, slots: &node.slots, k: self.k, seeds: self.seeds.as_ref() };
        // What the function recorded without history (a gradient inside it) has none for K models either.
        let history = graph::grad_enabled() && node.requires_grad;
        let record = || graph::with_scope(node.scope, || graph::with_grad_mode(history, || node.op.batch(&ctx)));
        let outs = graph::with_phase(node.phase, record)?;
        for (out, slot) in outs.iter().zip(&node.outs) {
            let want = slot.meta.shape.with(0, self.k);
            if *out.shape() != want {
                return Err(Error::internal(format!("vmap: {} gave shape {}, not {want}", node.op.name(), out.shape())));
            }
        }
        Ok(Some(outs))
    }
}
