//! Draws programs: random in structure, tame in their values, and made of few kinds of kernels, because compiling those takes the most time.

use super::program::*;
use wgrad::ops::rows::row;

struct Draw {
    rng: Rng,
    /// Class of each value, whether gradients flow, and a bound on its absolute value.
    values: Vec<(Class, bool, f64)>,
}

/// Rows that chains are made of: few, so that kernels recur, and tame.
const UNARY: [&str; 3] = ["softsign", "softsign", "square"];
const RARE: [&str; 5] = ["relu", "tanh", "sin", "abs", "exp"];
const BINARY: [&str; 3] = ["add", "mul", "mul"];

impl Draw {
    fn push(&mut self, list: &mut Vec<Instr>, what: Do, args: Vec<usize>, class: Class, bound: f64) -> usize {
        let grad = match &what {
            Do::View(View::Detach) | Do::Source(_) => false,
            Do::Linear(_) | Do::Batched => true,
            Do::Guest(g) => args.iter().enumerate().any(|(n, &a)| self.values[a].1 && g.passes(n)),
            _ => args.iter().any(|&a| self.values[a].1),
        };
        self.values.push((class, grad, bound));
        list.push(Instr { what, args, class, grad });
        let id = self.values.len() - 1;
        // Values stay in a tame range: what may be above 2 is brought back.
        if bound > 2.0 {
            let (what, bound) = if self.rng.chance(50) { (Do::Row(row("softsign"), vec![]), 1.0) } else { (Do::Scale(1.0 / bound), 1.0) };
            return self.push(list, what, vec![id], class, bound);
        }
        id
    }

    /// A value, rather a late one, of one of the classes; a leaf where there is no other.
    fn pick(&mut self, classes: &[Class]) -> usize {
        let fits: Vec<usize> = (0..self.values.len()).filter(|&v| v != S && v != BANK && classes.contains(&self.values[v].0)).collect();
        if fits.is_empty() {
            return W;
        }
        let recent = fits.len().saturating_sub(3);
        if self.rng.chance(60) { self.rng.pick(&fits[recent..]) } else { self.rng.pick(&fits) }
    }

    fn full(&mut self, list: &mut Vec<Instr>) -> usize {
        let v = self.pick(&[Class::Full, Class::Full, Class::Turned, Class::Row]);
        self.as_full(list, v)
    }

    fn as_full(&mut self, list: &mut Vec<Instr>, v: usize) -> usize {
        let (class, _, bound) = self.values[v];
        match class {
            Class::Full => v,
            Class::Turned => {
                let view = self.rng.pick(&[View::Turn, View::Turn, View::Reshape]);
                self.push(list, Do::View(view), vec![v], Class::Full, bound)
            }
            _ => self.push(list, Do::View(View::Spread), vec![v], Class::Full, bound),
        }
    }

    fn unary(&mut self, list: &mut Vec<Instr>) {
        let x = self.pick(&Class::ALL);
        let name = if self.rng.chance(92) { self.rng.pick(&UNARY) } else { self.rng.pick(&RARE) };
        let (class, _, b) = self.values[x];
        let bound = match name {
            "softsign" | "tanh" | "sin" => 1.0,
            "square" => b * b,
            "exp" => b.exp(),
            _ => b,
        };
        self.push(list, Do::Row(row(name), vec![]), vec![x], class, bound);
    }

    fn binary(&mut self, list: &mut Vec<Instr>) {
        let x = self.pick(&[Class::Full, Class::Turned, Class::Row]);
        let class = self.values[x].0;
        let others: &[Class] = match class {
            Class::Full => &[Class::Full, Class::Turned, Class::Row, Class::Col, Class::Scalar],
            Class::Turned => &[Class::Turned, Class::Full, Class::Scalar],
            _ => &[Class::Row, Class::Scalar],
        };
        let mut y = self.pick(others);
        if !others.contains(&self.values[y].0) {
            y = x;
        }
        let other = self.values[y].0;
        if matches!((class, other), (Class::Full, Class::Turned) | (Class::Turned, Class::Full)) {
            let bound = self.values[y].2;
            y = self.push(list, Do::View(View::Turn), vec![y], class, bound);
        }
        let name = self.rng.pick(&BINARY);
        let (a, b) = (self.values[x].2, self.values[y].2);
        let bound = if name == "mul" { a * b } else { a + b };
        let args = if self.rng.chance(50) && self.values[y].0 == class { vec![y, x] } else { vec![x, y] };
        self.push(list, Do::Row(row(name), vec![]), args, class, bound);
    }

    fn view(&mut self, list: &mut Vec<Instr>) {
        let x = self.pick(&Class::ALL);
        let (class, _, bound) = self.values[x];
        let of_matrix = [View::Turn, View::Turn, View::Flip(0), View::Flip(1), View::Reshape];
        let (view, to) = match class {
            Class::Full => match self.rng.below(10) {
                0 => (View::Row(self.rng.below(M - 1)), Class::Row),
                1 => (View::Col(self.rng.below(N)), Class::Col),
                2 => (View::Roll(1 + self.rng.below(N - 1)), Class::Full),
                3 => (View::Shuffle, Class::Full),
                4 => (View::Detach, Class::Full),
                5 => (View::Alias, Class::Full),
                6 => {
                    let start = self.rng.below(SLACK);
                    self.push(list, Do::View(View::Window(start)), vec![BANK], Class::Full, 1.0);
                    return;
                }
                _ => (self.rng.pick(&of_matrix), Class::Full),
            },
            Class::Turned => (self.rng.pick(&of_matrix), Class::Turned),
            _ => (View::Spread, Class::Full),
        };
        let to = match (view, to) {
            (View::Turn | View::Reshape, Class::Full) => Class::Turned,
            (View::Turn | View::Reshape, _) => Class::Full,
            (_, to) => to,
        };
        self.push(list, Do::View(view), vec![x], to, bound);
    }

    fn reduce(&mut self, list: &mut Vec<Instr>) {
        let mut x = self.full(list);
        // As with products.
        if self.rng.chance(75) {
            x = self.push(list, Do::View(View::Flip(0)), vec![x], Class::Full, self.values[x].2);
        }
        let bound = self.values[x].2;
        let name = self.rng.pick(&["sum", "sum", "sum", "mean", "mean", "mean", "amax", "var", "logsumexp"]);
        let (dim, class, count) = self.rng.pick(&[(Some(0), Class::Row, M), (Some(1), Class::Col, N), (None, Class::Scalar, M * N)]);
        let bound = match name {
            "sum" => bound * count as f64,
            "var" => bound * bound,
            "logsumexp" => bound + (count as f64).ln(),
            _ => bound,
        };
        self.push(list, Do::Reduce(name, dim), vec![x], class, bound);
    }

    /// A product, mostly apart from the rows around it, backward too: what a product fuses with makes a kernel of its own, and those take longest to compile.
    fn product(&mut self, list: &mut Vec<Instr>) {
        let apart = self.rng.chance(92);
        let flip = Do::View(View::Flip(self.rng.pick(&[0, 1])));
        let mut x = self.full(list);
        if apart {
            x = self.push(list, flip.clone(), vec![x], Class::Full, self.values[x].2);
        }
        let y = match self.rng.below(5) {
            4 => {
                let (y, z) = (self.full(list), self.full(list));
                self.push(list, Do::Sandwich, vec![x, y, z], Class::Full, 2.0)
            }
            3 => self.push(list, Do::Batched, vec![x], Class::Full, 2.0),
            how => self.push(list, Do::Linear(how), vec![x], Class::Full, 2.0),
        };
        if apart {
            self.push(list, flip, vec![y], Class::Full, 2.0);
        }
    }

    fn guest(&mut self, list: &mut Vec<Instr>, guest: Guest) {
        let mut args: Vec<usize> = (0..1 + self.rng.below(2)).map(|_| self.pick(&[Class::Full, Class::Turned, Class::Row])).collect();
        // Half of them have no part in the gradient: a guest's backward makes kernels that no other graph uses, and compiling takes the most time.
        if self.rng.chance(50) {
            args.truncate(1);
            let (class, _, bound) = self.values[args[0]];
            args[0] = self.push(list, Do::View(View::Detach), vec![args[0]], class, bound);
        }
        self.push(list, Do::Guest(guest), args, Class::Full, 1.0);
    }

    /// One instruction, and what it needs.
    fn any(&mut self, list: &mut Vec<Instr>) {
        match self.rng.below(100) {
            0..27 => self.unary(list),
            27..54 => self.binary(list),
            54..72 => self.view(list),
            72..82 => self.reduce(list),
            82..91 => self.product(list),
            91..96 => {
                let x = self.pick(&[Class::Full, Class::Turned, Class::Row]);
                let (class, _, bound) = self.values[x];
                let s = self.rng.within(0.4, 0.9);
                self.push(list, Do::Scale(s), vec![x], class, bound);
            }
            _ => {
                let name = self.rng.pick(&SOURCES);
                let bound = if name == "normal" { 6.0 } else { 1.0 };
                self.push(list, Do::Source(name), vec![], Class::Full, bound);
            }
        }
    }

    /// Inside a checkpoint: some instructions, and at the end a value that backward needs from inside, so that it must be recomputed.
    fn checkpoint(&mut self) -> Vec<Instr> {
        let mut list = Vec::new();
        for _ in 0..1 + self.rng.below(4) {
            self.any(&mut list);
        }
        let latest = (0..self.values.len()).rev().find(|&v| v != S && self.values[v].1).unwrap_or(W);
        let class = self.values[latest].0;
        // A row that stands nowhere else, so that it is not merged with an equal one: then the count of kernels tells that it was computed again.
        let inside = self.push(&mut list, Do::Row(row("cos"), vec![]), vec![latest], class, 1.0);
        self.push(&mut list, Do::Row(row("softsign"), vec![]), vec![inside], class, 1.0);
        list
    }

    fn vmap(&mut self, before: &mut Vec<Instr>) -> Vmap {
        let mapped: Vec<usize> = (0..1 + self.rng.below(2)).map(|_| self.full(before)).collect();
        let captured = self.rng.chance(60).then(|| self.pick(&[Class::Row])).filter(|&v| self.values[v].0 == Class::Row);
        // The function's own values.
        let mut inner = Draw { rng: Rng::new(self.rng.seed, 1000 + self.values.len() as u64), values: Vec::new() };
        for &v in mapped.iter().chain(&captured) {
            inner.values.push((Class::Row, self.values[v].1, self.values[v].2));
        }
        let mut body = Vec::new();
        for _ in 0..1 + inner.rng.below(4) {
            let rows: Vec<usize> = (0..inner.values.len()).filter(|&v| inner.values[v].0 == Class::Row).collect();
            let x = inner.rng.pick(&rows);
            let bound = inner.values[x].2;
            match inner.rng.below(10) {
                0..=3 => {
                    let name = inner.rng.pick(&UNARY);
                    let bound = if name == "square" { bound * bound } else { bound };
                    inner.push(&mut body, Do::Row(row(name), vec![]), vec![x], Class::Row, bound);
                }
                4..=6 => {
                    let y = inner.rng.below(inner.values.len());
                    let other = inner.values[y].2;
                    let name = inner.rng.pick(&BINARY);
                    let bound = if name == "mul" { bound * other } else { bound + other };
                    inner.push(&mut body, Do::Row(row(name), vec![]), vec![x, y], Class::Row, bound);
                }
                7 => {
                    let name = inner.rng.pick(&["mean", "amax"]);
                    inner.push(&mut body, Do::Reduce(name, None), vec![x], Class::Scalar, bound);
                }
                8 => {
                    inner.push(&mut body, Do::View(View::Flip(0)), vec![x], Class::Row, bound);
                }
                _ => {
                    let how = inner.rng.below(2);
                    inner.push(&mut body, Do::Linear(how), vec![x], Class::Row, 2.0);
                }
            }
        }
        // The result is a row that depends on the first argument, not linearly.
        let last = inner.values.len() - 1;
        let bound = inner.values[last].2;
        inner.push(&mut body, Do::Row(row("mul"), vec![]), vec![0, last], Class::Row, bound * inner.values[0].2);
        let last = inner.values.len() - 1;
        inner.push(&mut body, Do::Row(row("softsign"), vec![]), vec![last], Class::Row, 1.0);
        let gradient = inner.rng.chance(25);
        let grad = body.last().is_some_and(|i| i.grad) && !gradient;
        self.values.push((Class::Full, grad, 2.0));
        Vmap { mapped, captured, body, gradient }
    }
}

/// The `index`-th program of a seed.
pub fn draw(seed: u64, index: usize) -> Program {
    let seed = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(index as u64);
    let mut d = Draw { rng: Rng::new(seed, 0), values: Vec::new() };
    d.values = vec![
        (Class::Full, true, 1.0),
        (Class::Row, true, 1.0),
        (Class::Full, true, 1.0),
        (Class::Full, false, 1.0),
        (Class::Full, false, 1.0),
        (Class::Full, false, 1.0),
    ];
    let target = 2 + d.rng.below(29);
    let (_, calls) = &guests()[index % guests().len()];
    let mut guest = (!calls.is_empty()).then(|| calls[d.rng.below(calls.len())].clone());
    let guest_at = d.rng.below(target);
    let mut items: Vec<Item> = Vec::new();
    let mut count = 0;
    let mut scoped = Vec::new();
    while count < target || guest.is_some() {
        let mut list = Vec::new();
        let choice = d.rng.below(100);
        let mut item = None;
        if count >= guest_at && guest.is_some() {
            if let Some(g) = guest.take() {
                d.guest(&mut list, g);
            }
        } else if choice < 3 && target - count >= 3 {
            let first = d.values.len();
            let inside = d.checkpoint();
            scoped.push(first + inside.len() - 1);
            count += inside.len();
            item = Some(Item::Checkpoint(inside));
        } else if choice < 6 && target - count >= 4 {
            let v = d.vmap(&mut list);
            count += v.body.len();
            item = Some(Item::Vmap(v));
        } else {
            d.any(&mut list);
        }
        count += list.len();
        items.extend(list.into_iter().map(Item::One));
        items.extend(item);
    }
    finish(d, seed, items, scoped)
}

/// Decide what the loss is made of, what is kept and read, and how the parameters change.
fn finish(mut d: Draw, seed: u64, items: Vec<Item>, scoped: Vec<usize>) -> Program {
    let count = d.values.len();
    let mut used = vec![false; count];
    for item in &items {
        match item {
            Item::One(i) => i.args.iter().for_each(|&a| used[a] = true),
            Item::Checkpoint(list) => list.iter().flat_map(|i| &i.args).for_each(|&a| used[a] = true),
            Item::Vmap(v) => v.mapped.iter().chain(&v.captured).for_each(|&a| used[a] = true),
        }
    }
    let mut sinks: Vec<usize> = (LEAVES..count).filter(|&v| !used[v] || scoped.contains(&v)).collect();
    sinks.push(W);
    let some = |d: &mut Draw, percent: usize| -> Vec<usize> { (LEAVES..count).filter(|_| d.rng.chance(percent)).collect() };
    let (kept, reads) = (some(&mut d, 8), if d.rng.chance(25) { some(&mut d, 10) } else { Vec::new() });
    let optim = d.rng.pick(&[Optim::None, Optim::Sgd(0.0, false), Optim::Sgd(0.6, false), Optim::Sgd(0.6, true), Optim::Adam]);
    Program {
        seed,
        items,
        sinks,
        kept,
        reads,
        optim,
        keep_old: d.rng.chance(40),
        loss_first: d.rng.chance(20),
        accumulate: d.rng.chance(25),
        late: d.rng.chance(30),
        evaluate: d.rng.chance(15),
    }
}
