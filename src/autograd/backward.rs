//! `backward` and `grad`: one walk over the history, from the latest node to the earliest.

use super::checkpoint::Recomputed;
use crate::error::{Error, Result};
use crate::graph::{self, Node, Phase, Saved, Tensor, Value};
use crate::ops::rows::row;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// How a backward pass treats the graph.
#[derive(Clone, Debug, Default)]
pub struct GradOptions {
    /// Keep the history, so that the same graph can be walked again.
    pub retain_graph: bool,
    /// Record the pass itself with history, so that gradients can be differentiated. Keeps the history, too.
    pub create_graph: bool,
    /// The gradient of each output; ones where absent (then the output must be a single element).
    pub grad_outputs: Option<Vec<Tensor>>,
}

impl Tensor {
    /// Add the gradient of this single-element tensor to every leaf that it depends on. Consumes the history.
    ///
    /// ```
    /// use wgrad::{Device, Tensor};
    /// let x = Tensor::new([2.0f32, 3.0], [2], &Device::cpu()?)?.requires_grad()?;
    /// x.square().sum_all().backward()?;
    /// assert_eq!(x.grad().unwrap().to_vec::<f32>()?, [4.0, 6.0]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    ///
    /// # Errors
    /// Where the tensor has several elements, no history (or one that an earlier backward consumed), or depends on an operation without a gradient.
    pub fn backward(&self) -> Result<()> {
        self.backward_with(&GradOptions::default())
    }

    /// [`Tensor::backward`] with options.
    pub fn backward_with(&self, options: &GradOptions) -> Result<()> {
        let seeds = seeds(&[self], options)?;
        let walk = Walk::plan(&[self], None)?;
        for (leaf, gradient) in walk.run(seeds, options)? {
            gather(&leaf, gradient, options)?;
        }
        Ok(())
    }
}

/// Add a gradient to a leaf's own.
fn gather(leaf: &Value, gradient: Tensor, options: &GradOptions) -> Result<()> {
    let Some(slot) = &leaf.node.grad else { return Ok(()) };
    let before = slot.0.lock().unwrap_or_else(|e| e.into_inner()).clone();
    let sum = match before {
        None => gradient,
        Some(before) => {
            // A gradient that is still pending is computed first: accumulation stays one node long.
            if before.value().base().node.is_pending() {
                graph::flush(before.device())?;
            }
            recording(options, || Tensor::apply_row(row("add"), &[], &[&before, &gradient]))?
        }
    };
    *slot.0.lock().unwrap_or_else(|e| e.into_inner()) = Some(sum);
    Ok(())
}

/// The gradients of `outputs` (summed) by each of `inputs`; `None` where an input has no part in them. Leaves' own gradients stay as they are.
pub fn grad(outputs: &[&Tensor], inputs: &[&Tensor]) -> Result<Vec<Option<Tensor>>> {
    grad_with(outputs, inputs, &GradOptions::default())
}

/// [`grad`] with options.
pub fn grad_with(outputs: &[&Tensor], inputs: &[&Tensor], options: &GradOptions) -> Result<Vec<Option<Tensor>>> {
    let seeds = seeds(outputs, options)?;
    let walk = Walk::plan(outputs, Some(inputs))?;
    let found = walk.run(seeds, options)?;
    Ok(inputs.iter().map(|i| found.iter().find(|(v, _)| v.same(i.value())).map(|(_, g)| g.clone())).collect())
}

/// The gradient with which each output begins.
fn seeds(outputs: &[&Tensor], options: &GradOptions) -> Result<Vec<Tensor>> {
    match &options.grad_outputs {
        Some(given) if given.len() != outputs.len() => Err(Error::gradient(format!("backward: {} gradients for {} outputs", given.len(), outputs.len()))),
        Some(given) => {
            for (g, o) in given.iter().zip(outputs) {
                if g.meta() != o.meta() {
                    return Err(Error::gradient(format!("backward: gradient {} for an output {}", g.meta(), o.meta())));
                }
            }
            Ok(given.clone())
        }
        None => outputs
            .iter()
            .map(|o| {
                if o.numel() != 1 {
                    return Err(Error::gradient(format!("backward: the output has shape {}, not a single element", o.shape()))
                        .help("reduce it with sum or mean, or give grad_outputs"));
                }
                Ok(o.ones_like())
            })
            .collect(),
    }
}

/// Record in the mode of a backward pass.
fn recording<R>(options: &GradOptions, f: impl FnOnce() -> R) -> R {
    graph::with_grad_mode(options.create_graph, || graph::with_phase(Phase::Backward, f))
}

/// The part of the graph that a pass walks.
struct Walk {
    outputs: Vec<Value>,
    /// Nodes by id: reachable from the outputs, and leading to something whose gradient is wanted.
    nodes: BTreeMap<u64, Arc<Node>>,
    targets: Option<Vec<Value>>,
}

impl Walk {
    fn plan(outputs: &[&Tensor], inputs: Option<&[&Tensor]>) -> Result<Walk> {
        let targets: Option<Vec<Value>> = inputs.map(|list| list.iter().map(|t| t.value().clone()).collect());
        let wanted = |node: &Arc<Node>| match &targets {
            Some(list) => list.iter().any(|t| Arc::ptr_eq(&t.node, node)),
            None => node.grad.is_some(),
        };
        let mut reach: BTreeMap<u64, Arc<Node>> = BTreeMap::new();
        let mut stack: Vec<Arc<Node>> = Vec::new();
        for o in outputs {
            let node = &o.value().node;
            if !node.requires_grad && !wanted(node) {
                return Err(Error::gradient(format!("backward: the output ({}) does not depend on anything that requires a gradient", node.op.name()))
                    .help("make a leaf with requires_grad, and record outside no_grad"));
            }
            stack.push(node.clone());
        }
        while let Some(node) = stack.pop() {
            if reach.contains_key(&node.id) {
                continue;
            }
            if node.grad.is_none() && node.requires_grad {
                let body = node.body();
                if !body.history {
                    return Err(Error::gradient(format!("backward: the history of {} was consumed by an earlier backward", node.op.name()))
                        .help("pass retain_graph the first time"));
                }
                stack.extend(body.inputs.iter().filter(|v| v.node.requires_grad || wanted(&v.node)).map(|v| v.node.clone()));
            }
            reach.insert(node.id, node);
        }
        // Ascending: what a node leads to is known from its inputs.
        let mut useful: HashSet<u64> = HashSet::new();
        for (id, node) in &reach {
            if wanted(node) || node.body().inputs.iter().any(|v| useful.contains(&v.node.id)) {
                useful.insert(*id);
            }
        }
        reach.retain(|id, _| useful.contains(id));
        Ok(Walk { outputs: outputs.iter().map(|o| o.value().clone()).collect(), nodes: reach, targets })
    }

    /// Walk, and give each wanted value with its gradient.
    fn run(self, seeds: Vec<Tensor>, options: &GradOptions) -> Result<Vec<(Value, Tensor)>> {
        let retain = options.retain_graph || options.create_graph;
        let mut grads: HashMap<(u64, u8), Tensor> = HashMap::new();
        let mut found: Vec<(Value, Tensor)> = Vec::new();
        let mut recomputed = Recomputed::default();
        for (o, seed) in self.outputs.iter().zip(seeds) {
            if self.nodes.contains_key(&o.node.id) {
                add(&mut grads, o, seed, options)?;
            }
        }
        for node in self.nodes.values().rev() {
            let mine: Vec<Option<Tensor>> = (0..node.outs.len()).map(|o| grads.remove(&(node.id, o as u8))).collect();
            for (o, g) in mine.iter().enumerate() {
                let value = Value::new(node.clone(), o);
                let wanted = match &self.targets {
                    Some(list) => list.iter().any(|t| t.same(&value)),
                    None => node.grad.is_some(),
                };
                if let (true, Some(g)) = (wanted, g) {
                    found.push((value, g.clone()));
                }
            }
            let inputs = node.body().inputs.clone();
            let needs: Vec<bool> = inputs.iter().map(|v| self.nodes.contains_key(&v.node.id)).collect();
            if node.grad.is_some() || mine.iter().all(Option::is_none) || !needs.contains(&true) {
                continue;
            }
            let saved_from = recomputed.of(node, &self.nodes, options.create_graph)?;
            let saves = node.op.saves();
            let pick = |from: &Node, n: usize, bit: u64, input: bool| -> Option<Tensor> {
                (bit >> n & 1 == 1).then(|| if input { from.body().inputs[n].clone() } else { Value::new(saved_from.clone(), n) }).map(Tensor::of)
            };
            let ctx = Saved {
                inputs: (0..inputs.len()).map(|n| pick(&saved_from, n, saves.inputs, true)).collect(),
                outputs: (0..node.outs.len()).map(|n| pick(&saved_from, n, saves.outputs, false)).collect(),
                input_metas: inputs.iter().map(|v| *v.meta()).collect(),
                output_metas: node.outs.iter().map(|o| o.meta).collect(),
                needs: needs.clone(),
                slots: &node.slots,
            };
            let given = recording(options, || node.op.backward(&ctx, &mine))?;
            for ((v, g), need) in inputs.iter().zip(given).zip(needs) {
                if let (true, Some(g)) = (need, g) {
                    if g.shape() != &v.meta().shape {
                        return Err(Error::internal(format!("{}: gradient of shape {} for an input of shape {}", node.op.name(), g.shape(), v.meta().shape)));
                    }
                    add(&mut grads, v, g, options)?;
                }
            }
        }
        if !retain {
            self.nodes.values().for_each(consume);
        }
        Ok(found)
    }
}

fn add(grads: &mut HashMap<(u64, u8), Tensor>, value: &Value, g: Tensor, options: &GradOptions) -> Result<()> {
    let key = (value.node.id, value.out);
    let sum = match grads.remove(&key) {
        None => g,
        Some(before) => recording(options, || Tensor::apply_row(row("add"), &[], &[&before, &g]))?,
    };
    grads.insert(key, sum);
    Ok(())
}

/// Backward has walked the node: what it kept for that is let go. A pending node still needs its inputs to run; a view costs nothing to keep whole, and vmap follows it.
fn consume(node: &Arc<Node>) {
    if node.grad.is_some() {
        return;
    }
    let mut body = node.body();
    body.history = false;
    let kept = std::mem::take(&mut body.kept);
    let done = node.view.is_none() && !matches!(body.state, graph::NodeState::Pending);
    let inputs = if done { std::mem::take(&mut body.inputs) } else { Default::default() };
    // Dropped after the lock: dropping may reach other nodes.
    drop(body);
    drop((kept, inputs));
}
