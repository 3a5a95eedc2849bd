//! Training inside an application that has a wgpu device of its own: its WGSL makes the data and uses the trained weights, and nothing passes through the host.
//!
//! Run: `cargo run --release --example embed`
//! Prints: the loss, as the application's own kernel measures it, before and after 200 steps; and that no tensor was copied to or from the host.

use anyhow::{Context, Result, ensure};
use wgrad::nn::Param;
use wgrad::optim::{Optimizer, Sgd, SgdOptions};
use wgrad::{DType, Device, Tensor, wgpu};

const N: u32 = 1024;

/// Before a step: points (x0, x1) and targets 3 x0 - 2 x1, other ones each time.
const MAKE: &str = "
@group(0) @binding(0) var<storage, read_write> x: array<vec2<f32>>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(2) var<storage, read_write> state: array<u32>;

fn hash(n: u32) -> f32 {
    var h = n * 747796405u + 2891336453u;
    h = ((h >> ((h >> 28u) + 4u)) ^ h) * 277803737u;
    return f32((h ^ (h >> 22u)) >> 8u) / 16777216.0 - 0.5;
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.x;
    state[i] += 1u;
    x[i] = vec2<f32>(hash(state[i] * 4096u + 2u * i), hash(state[i] * 4096u + 2u * i + 1u));
    y[i] = 3.0 * x[i].x - 2.0 * x[i].y;
}";

/// After a step: the error of the weights at one point.
const MEASURE: &str = "
@group(0) @binding(0) var<storage, read> w: array<f32>;
@group(0) @binding(1) var<storage, read_write> error: array<f32>;

@compute @workgroup_size(1)
fn main() {
    error[0] = abs(w[0] - 3.0) + abs(w[1] + 2.0);
}";

/// The application: its device, and how it runs its kernels.
struct App {
    device: wgpu::Device,
    queue: wgpu::Queue,
}

impl App {
    fn buffer(&self, bytes: u32, more: wgpu::BufferUsages) -> wgpu::Buffer {
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | more;
        self.device.create_buffer(&wgpu::BufferDescriptor { label: None, size: bytes.into(), usage, mapped_at_creation: false })
    }

    fn pipeline(&self, text: &str) -> wgpu::ComputePipeline {
        let module = self.device.create_shader_module(wgpu::ShaderModuleDescriptor { label: None, source: wgpu::ShaderSource::Wgsl(text.into()) });
        self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: None,
            layout: None,
            module: &module,
            entry_point: Some("main"),
            compilation_options: Default::default(),
            cache: None,
        })
    }

    fn run(&self, pipeline: &wgpu::ComputePipeline, bindings: &[wgpu::BindingResource<'_>], groups: u32) {
        let entries: Vec<_> = bindings.iter().enumerate().map(|(n, b)| wgpu::BindGroupEntry { binding: n as u32, resource: b.clone() }).collect();
        let layout = pipeline.get_bind_group_layout(0);
        let group = self.device.create_bind_group(&wgpu::BindGroupDescriptor { label: None, layout: &layout, entries: &entries });
        let mut encoder = self.device.create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(pipeline);
        pass.set_bind_group(0, &group, &[]);
        pass.dispatch_workgroups(groups, 1, 1);
        drop(pass);
        self.queue.submit([encoder.finish()]);
    }

    /// One float, for a person to look at.
    fn look(&self, buffer: &wgpu::Buffer) -> Result<f32> {
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let seen = self.device.create_buffer(&wgpu::BufferDescriptor { label: None, size: 4, usage, mapped_at_creation: false });
        let mut encoder = self.device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(buffer, 0, &seen, 0, Some(4));
        self.queue.submit([encoder.finish()]);
        seen.slice(..).map_async(wgpu::MapMode::Read, |_| ());
        self.device.poll(wgpu::PollType::wait_indefinitely())?;
        Ok(bytemuck::pod_read_unaligned(&seen.slice(..).get_mapped_range()?))
    }
}

fn main() -> Result<()> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapter = pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default())).context("no adapter")?;
    let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor::default()))?;
    let app = App { device: device.clone(), queue: queue.clone() };
    let none = wgpu::BufferUsages::empty();
    let (x, y, state, error) = (app.buffer(N * 8, none), app.buffer(N * 4, none), app.buffer(N * 4, none), app.buffer(4, none));
    let (make, measure) = (app.pipeline(MAKE), app.pipeline(MEASURE));

    let ours = Device::from_wgpu(device, queue)?;
    let w = Param::new(&Tensor::zeros([2, 1], &ours))?;
    let mut optimizer = Sgd::new(vec![w.clone()], SgdOptions { lr: 0.5, ..Default::default() })?;
    let mut errors = Vec::new();
    let mut before = ours.counters();
    for step in 0..=200 {
        app.run(&make, &[x.as_entire_binding(), y.as_entire_binding(), state.as_entire_binding()], N / 64);

        let points = Tensor::from_wgpu(x.clone(), [N as usize, 2], DType::F32, &ours)?;
        let targets = Tensor::from_wgpu(y.clone(), [N as usize, 1], DType::F32, &ours)?;
        (points.matmul(&w.tensor()) - targets).square().mean_all().backward()?;
        optimizer.step()?;
        optimizer.zero_grad();

        let weights = w.tensor().to_wgpu()?;
        let size = std::num::NonZeroU64::new(weights.size);
        let weights = wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer: &weights.buffer, offset: weights.offset, size });
        app.run(&measure, &[weights, error.as_entire_binding()], 1);
        if step % 200 == 0 {
            errors.push(app.look(&error)?);
            println!("after step {step}: the weights are off by {:.4}", errors[errors.len() - 1]);
        }
        if step == 0 {
            // What the first step sets up (the table of parameters) is behind us.
            before = ours.counters();
        }
    }
    let did = ours.counters().since(&before);
    println!("{} submits, {} uploads, {} readbacks by wgrad", did.submits, did.uploads, did.readbacks);
    ensure!(did.uploads == 0 && did.readbacks == 0, "values passed through the host");
    ensure!(errors[1] < 0.1 * errors[0], "the weights did not come nearer");
    Ok(())
}
