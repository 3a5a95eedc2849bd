//! The workloads on Meganeura. `meganeura-peer <workload>...`
//!
//! What its API leaves no choice in: labels are dense rows of zeros and a one, a convolution has no bias, and the batch is uploaded in each step.
//! The gradient of its maximum pooling is not the exact one, so of `lenet_train` only the time can be compared.

use meganeura::{Graph, NodeId, Session, build_session};
use protocol::{BATCHES, Line, class_batch, network, time, uniform};
use std::time::Instant;

const BATCH: usize = 64;
const PIXELS: usize = 28 * 28;

/// A graph under construction, and the size and fan-in of each of its parameters.
struct Net {
    graph: Graph,
    parameters: Vec<(String, usize, usize)>,
}

impl Net {
    fn parameter(&mut self, name: String, shape: &[usize], fan_in: usize) -> NodeId {
        let node = self.graph.parameter(&name, shape);
        self.parameters.push((name, shape.iter().product(), fan_in));
        node
    }

    fn linear(&mut self, x: NodeId, layer: usize, from: usize, to: usize) -> NodeId {
        let weight = self.parameter(format!("linear{layer}.weight"), &[from, to], from);
        let bias = self.parameter(format!("linear{layer}.bias"), &[to], from);
        let y = self.graph.matmul(x, weight);
        self.graph.bias_add(y, bias)
    }

    /// Linear layers with a rectifier between each two.
    fn head(&mut self, mut x: NodeId, sizes: &[usize]) -> NodeId {
        for (layer, pair) in sizes.windows(2).enumerate() {
            if layer > 0 {
                x = self.graph.relu(x);
            }
            x = self.linear(x, layer, pair[0], pair[1]);
        }
        x
    }

    /// A 5 x 5 convolution, a rectifier and the maximum of each 2 x 2 window. `image` is channels and edge.
    fn conv(&mut self, x: NodeId, layer: usize, image: (usize, usize), to: usize, padding: usize) -> NodeId {
        let (from, edge) = image;
        let weight = self.parameter(format!("conv{layer}.weight"), &[to * from * 25], from * 25);
        let side = edge as u32;
        let y = self.graph.conv2d(x, weight, BATCH as u32, from as u32, side, side, to as u32, 5, 5, 1, padding as u32);
        let y = self.graph.relu(y);
        let out = (edge + 2 * padding - 4) as u32;
        self.graph.max_pool_2d(y, BATCH as u32, to as u32, out, out, 2, 2, 2, 0)
    }
}

fn build(name: &str) -> Option<(Net, Session)> {
    let mut net = Net { graph: Graph::new(), parameters: Vec::new() };
    let x = net.graph.input("x", &[BATCH, PIXELS]);
    let labels = net.graph.input("labels", &[BATCH, 10]);
    let logits = match name {
        "mlp" => net.head(x, &[PIXELS, 256, 128, 10]),
        "lenet" => {
            let image = net.graph.reshape(x, &[BATCH * PIXELS]);
            let y = net.conv(image, 1, (1, 28), 6, 2);
            let y = net.conv(y, 2, (6, 14), 16, 0);
            let y = net.graph.reshape(y, &[BATCH, 400]);
            net.head(y, &[400, 120, 84, 10])
        }
        _ => return None,
    };
    let loss = net.graph.cross_entropy_loss(logits, labels);
    net.graph.set_outputs(vec![loss]);
    let mut session = build_session(&net.graph);
    for (n, (name, size, fan_in)) in net.parameters.iter().enumerate() {
        let scale = 2.0 / (*fan_in as f32).sqrt();
        session.set_parameter(name, &uniform(*size, 77 + n as u32).into_iter().map(|v| v * scale).collect::<Vec<_>>());
    }
    session.set_adam(1e-3, 0.9, 0.999, 1e-8);
    Some((net, session))
}

fn run(workload: &str, began: Instant) -> Option<()> {
    let (name, start) = network(workload)?;
    let (_net, session) = build(name)?;
    let session = std::cell::RefCell::new(session);
    let batches: Vec<(Vec<f32>, Vec<f32>)> = (0..if start { 1 } else { BATCHES })
        .map(|b| {
            let (x, classes) = class_batch(b, BATCH, PIXELS);
            let mut rows = vec![0.0; BATCH * 10];
            classes.iter().enumerate().for_each(|(r, c)| rows[r * 10 + c] = 1.0);
            (x, rows)
        })
        .collect();
    let mut taken = 0;
    let mut step = || {
        let (x, labels) = &batches[taken % batches.len()];
        taken += 1;
        let mut session = session.borrow_mut();
        // Its inputs are written in place, so the step before must have read them.
        session.wait();
        session.set_input("x", x);
        session.set_input("labels", labels);
        session.step();
    };
    let wait = || session.borrow_mut().wait();
    step();
    wait();
    let first = f64::from(session.borrow().read_loss());
    if start {
        let line = Line::start("meganeura", workload, began);
        let again = Instant::now();
        step();
        wait();
        line.with("second_step_ms", again.elapsed().as_secs_f64() * 1e3).with("loss", first).print();
        return Some(());
    }
    let t = time(&mut step, wait);
    let session = session.borrow();
    Line::timed("meganeura", workload, &t)
        .with("steps_per_s", 1e3 / t.median)
        .with("loss_first", first)
        .with("loss_last", f64::from(session.read_loss()))
        .with("dispatches", session.plan().dispatches.len() as f64)
        .print();
    Some(())
}

fn main() {
    let began = Instant::now();
    for workload in std::env::args().skip(1) {
        if run(&workload, began).is_none() {
            eprintln!("meganeura-peer has no workload {workload}");
            std::process::exit(2);
        }
    }
}
