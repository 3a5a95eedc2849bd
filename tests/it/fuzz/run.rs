//! Runs a program on a device: two steps, as a user would write them, or, for the reference, without anything that the planner could get wrong.

use super::program::*;
use wgrad::autograd::{checkpoint, grad, vmap};
use wgrad::graph::{flush, grad_enabled, with_grad_mode};
use wgrad::nn::Param;
use wgrad::ops::Arg;
use wgrad::ops::rows::Sig;
use wgrad::optim::{Adam, AdamOptions, Optimizer, Sgd, SgdOptions};
use wgrad::{DType, Device, Error, Generator, Result, Shape, Tensor, no_grad};

/// How a program is run.
#[derive(Clone, Copy, Debug)]
pub struct Mode {
    /// Checkpoints are checkpoints; else plain calls.
    pub checkpoint: bool,
    /// vmap is vmap; else a loop over the rows.
    pub vmap: bool,
    /// Parameters are updated by an optimizer; else by its formula, and every new value is a new leaf.
    pub optimizer: bool,
}

/// As a user would.
pub const USUAL: Mode = Mode { checkpoint: true, vmap: true, optimizer: true };
/// Without checkpoints, else the same.
pub const UNSCOPED: Mode = Mode { checkpoint: false, ..USUAL };
/// What the others are compared with.
pub const PLAIN: Mode = Mode { checkpoint: false, vmap: false, optimizer: false };

/// What came out.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub values: Vec<(String, Vec<f32>)>,
    pub grads: Vec<(String, Vec<f32>)>,
    /// Kernels (or host steps) that ran.
    pub dispatches: u64,
    /// Nodes that were recorded.
    pub nodes: u64,
}

const LR: f64 = 0.1;
const BETAS: (f64, f64) = (0.8, 0.9);
/// Large, so that the step stays a smooth function of a small gradient.
const EPS: f64 = 0.1;

/// What instructions see besides their arguments.
struct Env<'a> {
    device: &'a Device,
    generator: &'a Generator,
    seed: u64,
    step: usize,
    square: Tensor,
    bias: Tensor,
}

/// Values from their own stream.
fn data(seed: u64, stream: u64, shape: impl Into<Shape>, low: f64, high: f64, device: &Device) -> Result<Tensor> {
    let shape = shape.into();
    let mut rng = Rng::new(seed, stream);
    let values: Vec<f32> = (0..shape.numel()).map(|_| rng.within(low, high) as f32).collect();
    Tensor::new(values, shape, device)
}

/// As many elements as `shape` has, by cutting or repeating.
fn fit(x: &Tensor, shape: &Shape) -> Result<Tensor> {
    let (n, want) = (x.numel(), shape.numel());
    let flat = x.try_reshape([n])?;
    let long = if n >= want {
        flat
    } else {
        let times = want.div_ceil(n);
        flat.try_reshape([1, n])?.try_expand([times, n])?.try_reshape([times * n])?
    };
    long.try_narrow(0, 0, want)?.try_reshape(*shape)
}

/// Into `low..high`, smoothly, and away from the ends. Zero goes a little above the middle, where most kinks are, and for the `n`-th input a little higher
/// than for the one before: inputs made of the same value do not tie, for how a comparison of equals ends would depend on the rounding of either.
fn squash(x: &Tensor, low: f64, high: f64, n: usize) -> Tensor {
    x.softsign() * (0.46 * (high - low)) + (0.5 * (low + high) + 0.01 * (high - low) * (n + 1) as f64)
}

impl Env<'_> {
    fn eval(&self, what: &Do, args: &[&Tensor]) -> Result<Tensor> {
        let x = args.first().copied();
        let x = || x.ok_or_else(|| Error::internal("an instruction without arguments"));
        match what {
            Do::Row(row, floats) => Tensor::apply_row(*row, floats, args),
            Do::Scale(s) => Ok(x()? * (s / (1.0 + 0.5 * self.step as f64))),
            Do::View(v) => self.view(*v, x()?),
            Do::Reduce(name, dim) => {
                let x = x()?;
                let (dims, keep): (&[isize], bool) = match dim {
                    Some(0) => (&[0], false),
                    Some(_) => (&[1], true),
                    None => (&[], false),
                };
                match *name {
                    "sum" => x.try_sum(dims, keep),
                    "mean" => x.try_mean(dims, keep),
                    "amax" => x.try_amax(dims, keep),
                    "var" => x.try_var(dims, 1, keep),
                    _ => x.try_logsumexp(dims, keep),
                }
            }
            Do::Linear(how) => {
                let x = x()?;
                let wide = if x.rank() == 1 { x.unsqueeze(0) } else { x.clone() };
                let y = match how {
                    0 => wide.try_matmul(&self.square)?,
                    1 => wide.try_matmul(&self.square.t())?,
                    _ => wide.try_linear(&self.square, Some(&self.bias))?,
                };
                y.try_reshape(*x.shape())
            }
            Do::Sandwich => {
                let inner = args[0].try_matmul(&args[1].t())? * (1.0 / (N as f64).sqrt());
                Ok(inner.try_matmul(args[2])? * 0.2)
            }
            Do::Batched => x()?.try_reshape([2, M / 2, N])?.try_matmul(&self.square)?.try_reshape([M, N]),
            Do::Guest(guest) => self.guest(guest, args),
            Do::Source("fill") => Ok(Tensor::full([M, N], 0.3 + 0.1 * self.step as f64, self.device)),
            Do::Source("iota") => Tensor::arange(M * N, self.device)?.try_to_dtype(DType::F32)?.try_reshape([M, N]).map(|y| y * (1.0 / (M * N) as f64)),
            Do::Source("uniform") => Tensor::rand([M, N], self.generator, self.device),
            Do::Source(_) => Tensor::randn([M, N], self.generator, self.device),
        }
    }

    fn view(&self, view: View, x: &Tensor) -> Result<Tensor> {
        match view {
            View::Turn => Ok(x.t()),
            View::Flip(d) => Ok(x.flip(&[d])),
            View::Reshape => x.try_reshape([x.shape()[1], x.shape()[0]]),
            View::Row(i) => Ok(x.select(0, i + self.step)),
            View::Col(i) => x.try_narrow(1, i, 1),
            View::Spread => x.try_expand([M, N]),
            View::Roll(k) => Tensor::try_cat(&[x.try_narrow(1, k, N - k)?, x.try_narrow(1, 0, k)?], 1),
            View::Shuffle => x.try_reshape([2, M / 2, N])?.try_permute(&[1, 0, 2])?.try_reshape([M, N]),
            View::Window(start) => x.try_narrow(0, start + self.step, M),
            View::Detach => Ok(x.detach()),
            View::Alias => Ok(x.clone()),
        }
    }

    fn guest(&self, guest: &Guest, args: &[&Tensor]) -> Result<Tensor> {
        let args: Vec<Tensor> = args.iter().map(|x| if guest.differentiable() { (*x).clone() } else { x.detach() }).collect();
        let full: Shape = [M, N].into();
        let float = |n: usize, shape: &Shape, low: f64, high: f64| -> Result<Tensor> {
            match args.get(n) {
                Some(x) => fit(&squash(x, low, high, n), shape),
                None => data(self.seed, 50 + n as u64, *shape, low, high, self.device),
            }
        };
        let (out, scale) = match guest {
            Guest::Op(_, sample) => {
                let make = |(n, arg): (usize, &Arg)| match arg {
                    Arg::Float { shape, low, high, .. } => float(n, shape, *low, *high),
                    Arg::Int { shape, high } => {
                        let mut rng = Rng::new(self.seed, 70 + n as u64);
                        let values: Vec<i32> = (0..shape.numel()).map(|_| rng.below(*high as usize) as i32).collect();
                        Tensor::new(values, *shape, self.device)
                    }
                    Arg::Bool { shape } => {
                        let mut rng = Rng::new(self.seed, 90 + n as u64);
                        let values: Vec<bool> = (0..shape.numel()).map(|_| rng.chance(50)).collect();
                        Tensor::new(values, *shape, self.device)
                    }
                };
                let inputs = sample.inputs.iter().enumerate().map(make).collect::<Result<Vec<_>>>()?;
                let outs = (sample.run)(&inputs)?;
                let mut sum: Option<Tensor> = None;
                for out in outs.iter().filter(|o| o.numel() > 0) {
                    let out = fit(&out.try_to_dtype(DType::F32)?, &full)?;
                    sum = Some(sum.map_or(out.clone(), |s| s + &out));
                }
                (sum.ok_or_else(|| Error::internal("a guest without output"))?, 0.3 / (sample.terms as f64).sqrt())
            }
            Guest::Row(row, floats) => {
                let inputs = (0..row.arity).map(|n| {
                    let (low, high) = row.domain[n];
                    let x = float(n, &full, low, high)?;
                    let truth = row.sig == Sig::Logic || (row.sig == Sig::Select && n == 0);
                    if truth { Tensor::apply_row("gt_scalar", &[0.5 * (low + high)], &[&x]) } else { Ok(x) }
                });
                let inputs = inputs.collect::<Result<Vec<_>>>()?;
                (Tensor::apply_row(*row, floats, &inputs.iter().collect::<Vec<_>>())?.try_to_dtype(DType::F32)?, 0.3)
            }
        };
        Ok((fit(&out, &full)? * scale).softsign())
    }

    /// The function of one row.
    fn row(&self, v: &Vmap, p: &[Tensor], captured: Option<&Tensor>) -> Result<Vec<Tensor>> {
        let mut values: Vec<Tensor> = p.to_vec();
        values.extend(captured.cloned());
        for i in &v.body {
            let args: Vec<&Tensor> = i.args.iter().map(|&a| &values[a]).collect();
            let y = self.eval(&i.what, &args)?;
            values.push(y);
        }
        let last = values.pop().ok_or_else(|| Error::internal("an empty function"))?;
        if v.gradient {
            let last = last.sum_all();
            let g = grad(&[&last], &[&p[0]])?.remove(0);
            return Ok(vec![g.ok_or_else(|| Error::internal("no gradient inside vmap"))?]);
        }
        Ok(vec![last])
    }

    fn vmap(&self, v: &Vmap, mapped: &[&Tensor], captured: Option<&Tensor>, mode: Mode) -> Result<Tensor> {
        // A gradient inside needs history, also where the program around it records none.
        let f = |p: &[Tensor]| with_grad_mode(v.gradient || grad_enabled(), || self.row(v, p, captured));
        if mode.vmap {
            return Ok(vmap(f, mapped)?.remove(0));
        }
        let mut rows = Vec::new();
        for m in 0..M {
            let mut p: Vec<Tensor> = mapped.iter().map(|x| x.select(0, m)).collect();
            if v.gradient {
                p[0] = p[0].detach().requires_grad()?;
            }
            let row = f(&p)?.remove(0);
            rows.push(if v.gradient { row.detach() } else { row });
        }
        Tensor::try_stack(&rows, 0)
    }
}

/// Parameters with an optimizer, or leaves with its formula.
enum Model {
    Trained(Vec<Param>, Option<Box<dyn Optimizer>>),
    Formula { leaves: Vec<Tensor>, states: Vec<[Option<Tensor>; 2]>, steps: i32, optim: Optim },
}

impl Model {
    fn new(initial: Vec<Tensor>, optim: Optim, mode: Mode) -> Result<Model> {
        if !mode.optimizer {
            let leaves = initial.iter().map(Tensor::requires_grad).collect::<Result<Vec<_>>>()?;
            return Ok(Model::Formula { states: vec![[None, None]; leaves.len()], leaves, steps: 0, optim });
        }
        let params = initial.iter().map(Param::new).collect::<Result<Vec<_>>>()?;
        let optimizer: Option<Box<dyn Optimizer>> = match optim {
            Optim::None => None,
            Optim::Sgd(momentum, nesterov) => Some(Box::new(Sgd::new(params.clone(), SgdOptions { lr: LR, momentum, nesterov, ..Default::default() })?)),
            Optim::Adam => Some(Box::new(Adam::new(params.clone(), AdamOptions { lr: LR, betas: BETAS, eps: EPS, ..Default::default() })?)),
        };
        Ok(Model::Trained(params, optimizer))
    }

    fn tensors(&self) -> Vec<Tensor> {
        match self {
            Model::Trained(params, _) => params.iter().map(Param::tensor).collect(),
            Model::Formula { leaves, .. } => leaves.clone(),
        }
    }

    fn zero_grad(&self) {
        self.tensors().iter().for_each(|t| t.set_grad(None));
    }

    fn step(&mut self, device: &Device) -> Result<()> {
        match self {
            Model::Trained(_, Some(optimizer)) => optimizer.step(),
            Model::Trained(_, None) => flush(device),
            Model::Formula { leaves, states, steps, optim } => {
                *steps += 1;
                for (leaf, state) in leaves.iter_mut().zip(states) {
                    let (Some(g), false) = (leaf.grad(), *optim == Optim::None) else { continue };
                    let g = g.detach();
                    let change = match *optim {
                        Optim::Sgd(momentum, nesterov) if momentum > 0.0 => {
                            let buffer = state[0].take().map_or(g.clone(), |b| b * momentum + &g);
                            state[0] = Some(buffer.clone());
                            if nesterov { g + buffer * momentum } else { buffer }
                        }
                        Optim::Adam => {
                            let first = state[0].take().map_or(&g * (1.0 - BETAS.0), |m| m * BETAS.0 + &g * (1.0 - BETAS.0));
                            let second = state[1].take().map_or(g.square() * (1.0 - BETAS.1), |v| v * BETAS.1 + g.square() * (1.0 - BETAS.1));
                            *state = [Some(first.clone()), Some(second.clone())];
                            let root = (second * (1.0 / (1.0 - BETAS.1.powi(*steps)))).sqrt() + EPS;
                            first * (1.0 / (1.0 - BETAS.0.powi(*steps))) / root
                        }
                        _ => g,
                    };
                    let new = no_grad(|| leaf.detach() - change * LR).requires_grad()?;
                    new.set_grad(leaf.grad());
                    *leaf = new;
                }
                flush(device)
            }
        }
    }
}

/// A forward pass under way.
struct Pass<'a> {
    program: &'a Program,
    env: Env<'a>,
    values: Vec<Option<Tensor>>,
    /// After how many items a value's handle is dropped.
    last_use: &'a [usize],
    out: &'a mut Outcome,
    kept: &'a mut Vec<(String, Tensor)>,
}

impl Pass<'_> {
    fn get(&self, v: usize) -> Result<&Tensor> {
        self.values[v].as_ref().ok_or_else(|| Error::internal(format!("value {v} is used after its last use")))
    }

    fn push(&mut self, value: Tensor) -> Result<()> {
        let id = self.values.len();
        if self.program.reads.contains(&id) {
            self.out.values.push((format!("step {} value {id}", self.env.step), value.to_vec()?));
        }
        if self.program.kept.contains(&id) {
            self.kept.push((format!("step {} kept {id}", self.env.step), value.clone()));
        }
        self.values.push(Some(value));
        Ok(())
    }

    fn one(&mut self, i: &Instr) -> Result<()> {
        let args = i.args.iter().map(|&a| self.get(a)).collect::<Result<Vec<_>>>()?;
        let value = self.env.eval(&i.what, &args)?;
        if *value.shape() != i.class.shape() {
            return Err(Error::internal(format!("{:?} gave {}, the program says {:?}", i.what, value.shape(), i.class)));
        }
        self.push(value)
    }

    fn forward(&mut self, mode: Mode) -> Result<Tensor> {
        for (at, item) in self.program.items.iter().enumerate() {
            match item {
                Item::One(i) => self.one(i)?,
                Item::Checkpoint(list) if mode.checkpoint => checkpoint(|| list.iter().try_for_each(|i| self.one(i)))?,
                Item::Checkpoint(list) => list.iter().try_for_each(|i| self.one(i))?,
                Item::Vmap(v) => {
                    let mapped = v.mapped.iter().map(|&a| self.get(a)).collect::<Result<Vec<_>>>()?;
                    let captured = v.captured.map(|a| self.get(a)).transpose()?;
                    let value = self.env.vmap(v, &mapped, captured, mode)?;
                    self.push(value)?;
                }
            }
            for v in 0..self.values.len() {
                if self.last_use[v] == at {
                    self.values[v] = None;
                }
            }
        }
        let mut loss: Option<Tensor> = None;
        for &s in &self.program.sinks {
            let v = self.get(s)?;
            let weight = data(self.env.seed, 20 + v.numel() as u64, *v.shape(), -1.0, 1.0, self.env.device)?;
            // Mostly apart from the rows before it, as products are.
            let v = if v.rank() > 0 && s % 5 != 0 { &v.flip(&[0]) } else { v };
            let part = (v * &weight).mean_all();
            loss = Some(loss.map_or(part.clone(), |l| l + &part));
        }
        loss.ok_or_else(|| Error::internal("a program without a loss"))
    }
}

/// The item after which each value is not used any more.
fn last_uses(program: &Program) -> Vec<usize> {
    let mut last = vec![0; LEAVES];
    for (at, item) in program.items.iter().enumerate() {
        let mut note = |args: &[usize], made: usize| {
            last.extend(std::iter::repeat_n(at, made));
            args.iter().for_each(|&a| last[a] = at);
        };
        match item {
            Item::One(i) => note(&i.args, 1),
            Item::Checkpoint(list) => list.iter().for_each(|i| note(&i.args, 1)),
            Item::Vmap(v) => note(&v.mapped.iter().copied().chain(v.captured).collect::<Vec<_>>(), 1),
        }
    }
    program.sinks.iter().for_each(|&s| last[s] = usize::MAX);
    last
}

/// Run it, with data from `seed`.
pub fn run(program: &Program, seed: u64, device: &Device, mode: Mode) -> Result<Outcome> {
    let before = device.counters();
    let mut out = Outcome::default();
    let generator = Generator::new(seed & 0xffff_ffff);
    let x = data(seed, 4, [M, N], -1.0, 1.0, device)?;
    let alias = x.requires_grad()?.detach();
    let bank = data(seed, 5, [M + SLACK, N], -1.0, 1.0, device)?;
    let initial = vec![data(seed, 1, [M, N], -1.0, 1.0, device)?, data(seed, 2, [N], -1.0, 1.0, device)?, data(seed, 3, [N, N], -0.25, 0.25, device)?];
    let mut model = Model::new(initial, program.optim, mode)?;
    let last_use = last_uses(program);
    let mut kept: Vec<(String, Tensor)> = Vec::new();
    let mut kept_grads: Vec<(String, Tensor)> = Vec::new();
    let mut total = Tensor::zeros(Shape::from([]), device);
    let mut first_grads: Vec<Option<Tensor>> = Vec::new();
    for step in 0..2 {
        let params = model.tensors();
        let evaluate = program.evaluate && step == 1;
        if !program.accumulate {
            model.zero_grad();
        }
        let env = Env { device, generator: &generator, seed, step, square: params[2].clone(), bias: params[1].clone() };
        let mut values: Vec<Option<Tensor>> = params.iter().cloned().map(Some).collect();
        values.extend([Some(x.clone()), Some(alias.clone()), Some(bank.clone())]);
        let old: Vec<Tensor> = if program.keep_old { params.clone() } else { Vec::new() };
        drop(params);
        let mut pass = Pass { program, env, values, last_use: &last_use, out: &mut out, kept: &mut kept };
        let loss = if evaluate { no_grad(|| pass.forward(mode)) } else { pass.forward(mode) }?;
        drop(pass);
        if program.loss_first {
            out.values.push((format!("step {step} loss, before backward"), loss.to_vec()?));
        }
        for (n, w) in old.into_iter().enumerate() {
            kept.push((format!("step {step} twice the old parameter {n}"), no_grad(|| &w * 2.0)));
            kept.push((format!("step {step} old parameter {n}"), w.detach()));
        }
        if !evaluate {
            loss.backward()?;
            for (n, g) in std::mem::take(&mut first_grads).into_iter().enumerate() {
                if let Some(g) = g {
                    let late = g.flip(&[0]) * 0.5;
                    kept_grads.push((format!("first gradient {n}, flipped"), late));
                }
            }
        }
        total = &total + &loss.detach();
        drop(loss);
        if evaluate {
            flush(device)?;
            continue;
        }
        model.step(device)?;
        if seed % 2 == 1 || step == 1 {
            for (n, t) in model.tensors().iter().enumerate() {
                if let Some(g) = t.grad() {
                    out.grads.push((format!("step {step} gradient {n}"), g.to_vec()?));
                }
            }
        }
        if program.late && step == 0 {
            first_grads = model.tensors().iter().map(Tensor::grad).collect();
        }
    }
    for (n, t) in model.tensors().iter().enumerate() {
        out.values.push((format!("parameter {n}"), t.to_vec()?));
    }
    for (label, t) in kept {
        out.values.push((label, t.to_vec()?));
    }
    for (label, t) in kept_grads {
        out.grads.push((label, t.to_vec()?));
    }
    out.values.push(("total loss".into(), total.to_vec()?));
    let counted = device.counters().since(&before);
    (out.dispatches, out.nodes) = (counted.dispatches, counted.nodes);
    Ok(out)
}
