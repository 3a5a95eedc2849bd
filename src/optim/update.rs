//! The update as an operation of the graph: a rule applied to every element of an arena, in place.

use crate::device::Slot;
use crate::device::cpu::{CpuView, CpuViewMut, Loop, Threads, widely};
use crate::error::{Error, Result};
use crate::graph::{Arenas, Autocast, Key, LaunchCtx, Op, Slots};
use crate::tensor::{DType, Meta};
use smallvec::SmallVec;

/// `(floats, what gradients are multiplied by, gradients, values, each state)` of a run of elements.
type Block = fn(&[f32], f32, &[f32], &mut [f32], &mut [&mut [f32]]);

/// A rule: what one step does to one element.
pub(super) struct Rule {
    /// The optimizer's name.
    pub name: &'static str,
    /// The numbers of state that an element has, as PyTorch names them.
    pub states: &'static [&'static str],
    /// How many floats a parameter group has: a multiple of 4, in the order in which the shader reads them.
    pub floats: usize,
    /// `(floats, gradient, value, state)`: the new value; the state is updated in place.
    pub f64: fn(&[f64], f64, f64, &mut [f64]) -> f64,
    /// The same in f32, over a run of elements.
    pub block: Block,
    /// `(floats, skipped)`: the floats as they are where that many of the steps that they count were skipped.
    pub correct: fn(&mut [f64], f64),
    /// The same, as the bodies of `update` (for four elements at once) and `correct` in shaders/optim/update.wgsl.
    pub wgsl: [&'static str; 2],
}

/// A rule of `F` floats and `S` states over a run of elements. The sizes are in the type so that the compiler takes many elements at once.
pub(super) fn block<const F: usize, const S: usize>(
    rule: impl Fn(&[f32], f32, f32, &mut [f32]) -> f32,
    floats: &[f32],
    inverse: f32,
    grads: &[f32],
    values: &mut [f32],
    states: &mut [&mut [f32]],
) {
    let n = values.len();
    let floats: &[f32; F] = floats.try_into().expect("as many floats as the rule says");
    let states: &mut [&mut [f32]; S] = states.try_into().expect("as many states as the rule says");
    widely(Run { rule, floats, inverse, grads: &grads[..n], values, states: states.each_mut().map(|s| &mut s[..n]) });
}

struct Run<'a, R, const F: usize, const S: usize> {
    rule: R,
    floats: &'a [f32; F],
    inverse: f32,
    grads: &'a [f32],
    values: &'a mut [f32],
    states: [&'a mut [f32]; S],
}

impl<R: Fn(&[f32], f32, f32, &mut [f32]) -> f32, const F: usize, const S: usize> Loop for Run<'_, R, F, S> {
    type Out = ();
    #[inline(always)]
    fn run(self) {
        let Run { rule, floats, inverse, grads, values, states } = self;
        for i in 0..values.len() {
            let mut state = std::array::from_fn::<f32, S, _>(|s| states[s][i]);
            values[i] = rule(floats, grads[i] * inverse, values[i], &mut state);
            for s in 0..S {
                states[s][i] = state[s];
            }
        }
    }
}

/// What an invocation takes, one after the other.
fn run(ctx: &LaunchCtx<'_>) -> usize {
    if ctx.caps.takes_runs() { 8 } else { 1 }
}

/// Elements of one task of an update on the CPU.
const TASK: usize = 1 << 13;

impl std::fmt::Debug for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// Inputs: the gradients; then the arenas of values, gradients and each state; then the table; and where the loss was scaled, the control that
/// [`FoundInf`](super::found_inf::FoundInf) gave. Outputs: the new values; then each state's arena.
/// Slots: the floats of each group.
#[derive(Debug)]
pub(super) struct Update {
    pub rule: &'static Rule,
    /// The slice of each gradient that takes part.
    pub slices: Vec<u32>,
    /// The group of each.
    pub groups: Vec<u32>,
    /// Where each slice begins, in elements.
    pub offsets: Vec<usize>,
    /// Elements of the whole arena.
    pub len: usize,
    /// Whether the loss was scaled.
    pub scaled: bool,
}

impl Update {
    /// Copy the gradients (the first `n` inputs) that the plan could not make in their slices of the arena that is input `arena`: a leaf, a view, one value for
    /// two parameters.
    pub fn place_gradients(ctx: &mut LaunchCtx<'_>, n: usize, arena: usize, slices: &[u32], offsets: &[usize]) -> Result<()> {
        let grads = ctx.inputs[arena].slot;
        for i in 0..n {
            if !ctx.lies_in(ctx.inputs[i].slot, grads, slices[i]) {
                let (n, run) = (ctx.inputs[i].meta.numel(), run(ctx));
                let (width, v) = if ctx.inputs[i].aligned && n.is_multiple_of(4) { (4, "vec4<f32>") } else { (1, "f32") };
                let mut call = ctx.call("place")?.alias("V", v).set("RUN", format!("{run}u")).input_as("x", i, v).write("y", grads, v);
                if width == 4 {
                    call = call.hook("load", "    return x[(u[0].y >> 2u) + i];");
                }
                // Slices begin at multiples of 256 bytes.
                call.u32(n / width).offset(i).u32s(&[offsets[i] / width, 0]).grid_linear((n / width).div_ceil(64 * run))?;
            }
        }
        Ok(())
    }

    /// The floats as they are for this step, and what gradients are multiplied with; none where the step is skipped.
    fn control(&self, slots: &Slots, inputs: &[CpuView<'_>]) -> Option<(Vec<f64>, f64)> {
        let mut floats = slots.floats.to_vec();
        if !self.scaled {
            return Some((floats, 1.0));
        }
        let control = inputs[self.table() + 1].elements::<f32>();
        if control[1] > 0.0 {
            return None;
        }
        if control[2] > 0.0 {
            floats.chunks_mut(self.rule.floats).for_each(|f| (self.rule.correct)(f, f64::from(control[2])));
        }
        Some((floats, f64::from(control[0])))
    }

    fn n(&self) -> usize {
        self.slices.len()
    }

    /// The input that is the arena of values; gradients and states follow.
    fn values(&self) -> usize {
        self.n()
    }

    fn table(&self) -> usize {
        self.n() + 2 + self.rule.states.len()
    }
}

impl Op for Update {
    fn name(&self) -> &'static str {
        self.rule.name
    }

    fn key(&self, key: &mut Key) {
        key.flag(self.scaled).int(self.len as i64).int(self.rule.states.len() as i64).ints(&self.offsets);
        self.slices.iter().chain(&self.groups).for_each(|&x| {
            key.int(x);
        });
    }

    fn autocast(&self) -> Autocast {
        Autocast::Keep
    }

    fn infer(&self, _: &Slots, inputs: &[Meta]) -> Result<Vec<Meta>> {
        let states = &inputs[self.n() + 2..self.table()];
        Ok(inputs[..self.n()].iter().chain(states).copied().collect())
    }

    fn arenas(&self) -> Option<Arenas> {
        let values = self.slices.iter().map(|&s| (self.values(), s));
        let states = (0..self.rule.states.len()).map(|s| (self.n() + 2 + s, 0));
        Some(Arenas { outputs: values.chain(states).collect(), grads: self.slices.iter().map(|&s| (self.values() + 1, s)).collect() })
    }

    fn differentiable(&self) -> bool {
        false
    }

    fn cpu(&self, slots: &Slots, inputs: &[CpuView<'_>], outputs: &mut [CpuViewMut<'_>]) -> Result<()> {
        // A step that is skipped leaves its outputs, which lie where the old values do, as they are.
        let Some((all, inverse)) = self.control(slots, inputs) else { return Ok(()) };
        let (values, states) = outputs.split_at_mut(self.n());
        let mut whole: Vec<Vec<f64>> = states.iter().map(|s| s.to_f64()).collect();
        let mut state = vec![0.0; self.rule.states.len()];
        for (i, out) in values.iter_mut().enumerate() {
            let floats = &all[self.groups[i] as usize * self.rule.floats..][..self.rule.floats];
            let grad = inputs[i].to_f64();
            let mut value = out.to_f64();
            for (j, (x, g)) in value.iter_mut().zip(grad).enumerate() {
                let at = self.offsets[i] + j;
                state.iter_mut().zip(&whole).for_each(|(s, w)| *s = w[at]);
                *x = (self.rule.f64)(floats, g * inverse, *x, &mut state);
                state.iter().zip(&mut whole).for_each(|(s, w)| w[at] = *s);
            }
            out.set_f64(&value);
        }
        states.iter_mut().zip(&whole).for_each(|(s, w)| s.set_f64(w));
        Ok(())
    }

    fn cpu_fast(&self, slots: &Slots, inputs: &[CpuView<'_>], outputs: &mut [CpuViewMut<'_>], threads: &Threads) -> Result<bool> {
        if outputs.iter().any(|o| o.meta.dtype != DType::F32) {
            return Ok(false);
        }
        let Some((floats, inverse)) = self.control(slots, inputs) else { return Ok(true) };
        let floats: Vec<f32> = floats.iter().map(|&f| f as f32).collect();
        let inverse = inverse as f32;
        let (values, states) = outputs.split_at_mut(self.n());
        let grads: Vec<_> = inputs[..self.n()].iter().map(|g| g.elements::<f32>()).collect();
        // Runs of each parameter with its slices of the states: disjoint, so that threads may share them out.
        let mut rests: Vec<(&mut [f32], usize)> = states.iter_mut().map(|s| (s.elements::<f32>(), 0)).collect();
        let mut tasks = Vec::new();
        for (i, out) in values.iter_mut().enumerate() {
            for (piece, out) in out.elements::<f32>().chunks_mut(TASK).enumerate() {
                let (first, n) = (piece * TASK, out.len());
                let begin = self.offsets[i] + first;
                let parts: SmallVec<[&mut [f32]; 3]> = rests
                    .iter_mut()
                    .map(|(rest, at)| {
                        let (_, tail) = std::mem::take(rest).split_at_mut(begin - *at);
                        let (part, tail) = tail.split_at_mut(n);
                        (*rest, *at) = (tail, begin + n);
                        part
                    })
                    .collect();
                tasks.push((i, &grads[i][first..first + n], out, parts));
            }
        }
        let (size, rule) = (self.rule.floats, self.rule);
        threads.each_of(tasks, |_, (i, grads, values, mut states)| {
            (rule.block)(&floats[self.groups[i] as usize * size..][..size], inverse, grads, values, &mut states);
        });
        Ok(true)
    }

    fn gpu(&self, ctx: &mut LaunchCtx<'_>) -> Result<()> {
        let (values, grads) = (ctx.inputs[self.values()].slot, ctx.inputs[self.values() + 1].slot);
        if !self.scaled {
            // Where it is, they lie there since they were looked at.
            Update::place_gradients(ctx, self.n(), self.values() + 1, &self.slices, &self.offsets)?;
        }
        let states: Vec<Slot> = (0..self.rule.states.len()).map(|s| ctx.inputs[self.values() + 2 + s].slot).collect();
        let floats: Vec<_> = (0..ctx.float_count()).map(|n| ctx.float(n)).collect();
        // Arenas are made of blocks of 256 bytes, so they are whole runs of quads.
        let (quads, quad, run) = (self.len / 4, "vec4<f32>", run(ctx));
        let call = ctx.call("update")?.set("RUN", format!("{run}u")).set("FLOATS", format!("{}u", self.rule.floats / 4));
        let call = call.hook("update", self.rule.wgsl[0]).hook("correct", self.rule.wgsl[1]);
        let call = call.update("values", values, quad).read("grads", grads, quad).input("table", self.table());
        let call = states.iter().enumerate().fold(call, |c, (n, &s)| c.update(&format!("s{n}"), s, quad));
        let call = match self.scaled {
            false => call.u32s(&[quads, 0, 0, 0]),
            true => call
                .input("control", self.table() + 1)
                .hook("scaling", "    let at = u[0].y;\n    return vec3<f32>(control[at], control[at + 1u], control[at + 2u]);")
                .u32(quads)
                .offset(self.table() + 1)
                .u32s(&[0, 0]),
        };
        let call = call.flops(10 * self.len as u64);
        floats.into_iter().fold(call, |c, f| c.word(f)).grid_linear(quads.div_ceil(64 * run))
    }

    fn batch(&self, _: &crate::graph::Batched<'_>) -> Result<Vec<crate::graph::Tensor>> {
        Err(Error::invalid("vmap: an optimizer's step cannot be batched").help("write the update in tensor operations inside the function"))
    }
}
