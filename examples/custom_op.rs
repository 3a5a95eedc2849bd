//! An operation of your own, with its WGSL and its gradient, trained through like any other; and what a mistake in the WGSL looks like.
//!
//! Run: `cargo run --release --example custom_op` (WGRAD_DEVICE=gpu for the kernel on a software adapter)
//! Prints: the device, the error of a mistaken kernel, that the gradient agrees with finite differences, and a loss that falls.

use anyhow::{Result, ensure};
use wgrad::autograd::{GradCheck, gradcheck};
use wgrad::nn::Param;
use wgrad::ops::CustomOp;
use wgrad::optim::{Adam, AdamOptions, Optimizer};
use wgrad::{Device, Generator, Tensor};

/// snake(x) = x + sin(a x)^2 / a, from Ziyin et al., "Neural Networks Fail to Learn Periodic Functions and How to Fix It", 2020.
const SNAKE: &str = "
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 1>;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_id) lid: vec3<u32>) {
    let i = (wid.x + wid.y * groups.x) * 64u + lid.x;
    if i < u[0].x {
        let a = bitcast<f32>(u[0].y);
        let s = sin(a * x[i]);
        y[i] = x[i] + s * s / a;
    }
}
";

fn snake(text: &str) -> wgrad::Result<CustomOp> {
    let definition = |a: f64, x: f64| x + (a * x).sin().powi(2) / a;
    CustomOp::new(
        "snake",
        |x| Ok(vec![x[0]]),
        move |floats, x, y| {
            y[0].set_f64(&x[0].to_f64().iter().map(|&x| definition(floats[0], x)).collect::<Vec<_>>());
            Ok(())
        },
    )
    // d/dx = 1 + sin(2 a x)
    .gradient(|ctx, g| {
        let a = ctx.slots().floats[0];
        Ok(vec![g[0].as_ref().map(|g| g * ((ctx.input(0) * (2.0 * a)).sin() + 1.0))])
    })
    .wgsl("snake.wgsl", text)
}

fn main() -> Result<()> {
    let (device, why) = Device::best()?;
    println!("{why}");

    // A mistake is found where the operation is made.
    let mistaken = snake(&SNAKE.replace("s * s / a", "s * s / lid")).unwrap_err();
    println!("{mistaken}\n");

    let snake = snake(SNAKE)?;
    let x = Tensor::new([-1.5f64, 0.2, 0.7, 3.0], [4], &Device::cpu()?)?;
    let f = snake.clone();
    gradcheck(move |x| Ok(vec![f.apply(&[&x[0]], &[2.0])?]), &[x], &GradCheck { second: true, ..Default::default() })?;
    println!("its gradient, and its gradient's gradient, agree with finite differences");

    // One hidden layer of it learns a sine.
    let g = Generator::new(0);
    let x = &Tensor::rand([256, 1], &g, &device)? * 12.0 - 6.0;
    let y = x.sin();
    let w1 = Param::new(&(&Tensor::randn([1, 32], &g, &device)? * 0.5))?;
    let b1 = Param::new(&Tensor::zeros([32], &device))?;
    let w2 = Param::new(&(&Tensor::randn([32, 1], &g, &device)? * 0.2))?;
    let mut optimizer = Adam::new(vec![w1.clone(), b1.clone(), w2.clone()], AdamOptions { lr: 0.02, ..Default::default() })?;
    let (mut first, mut last) = (0.0, 0.0);
    for step in 0..=400 {
        let h = snake.apply(&[&(x.matmul(&w1.tensor()) + b1.tensor())], &[1.0])?;
        let loss = (h.matmul(&w2.tensor()) - &y).square().mean_all();
        loss.backward()?;
        optimizer.step()?;
        optimizer.zero_grad();
        if step % 100 == 0 {
            last = loss.item()?;
            first = if step == 0 { last } else { first };
            println!("step {step:3}  loss {last:.5}");
        }
    }
    ensure!(last < first / 5.0, "the loss fell from {first} to {last} only");
    println!("{} host fallbacks", device.counters().host_fallbacks);
    Ok(())
}
