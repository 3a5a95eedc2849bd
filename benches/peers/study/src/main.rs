//! Bare kernels, each of one size and nothing else, in every shape that was found fast on a processor: the fastest of them is the line.
//! `study-peer <matmul_N|elementwise>...`

mod shapes;

use protocol::{Line, Timing, time, uniform};
use shapes::Kernel;
use std::process::ExitCode;
use wgpu::util::DeviceExt;

struct Gpu {
    device: wgpu::Device,
    queue: wgpu::Queue,
    /// Lanes of a subgroup; 0 where there are none.
    lanes: usize,
}

impl Gpu {
    fn open() -> Result<Gpu, String> {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
        let adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::VULKAN));
        let adapter = adapters.into_iter().next().ok_or("no Vulkan adapter")?;
        let features = adapter.features() & wgpu::Features::SUBGROUP;
        let lanes = if features.is_empty() { 0 } else { adapter.get_info().subgroup_max_size as usize };
        let wanted = wgpu::DeviceDescriptor { required_features: features, required_limits: adapter.limits(), ..Default::default() };
        let (device, queue) = pollster::block_on(adapter.request_device(&wanted)).map_err(|e| e.to_string())?;
        Ok(Gpu { device, queue, lanes })
    }

    fn wait(&self) {
        self.device.poll(wgpu::PollType::wait_indefinitely()).expect("the device failed");
    }

    /// Time one kernel over `inputs` and give its output.
    fn run(&self, kernel: &Kernel, inputs: &[Vec<f32>], outputs: usize) -> (Timing, Vec<f32>) {
        let module = wgpu::ShaderModuleDescriptor { label: Some(&kernel.name), source: wgpu::ShaderSource::Wgsl(kernel.wgsl.as_str().into()) };
        let pipeline = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(&kernel.name),
            layout: None,
            module: &self.device.create_shader_module(module),
            entry_point: None,
            compilation_options: Default::default(),
            cache: None,
        });
        let size = outputs as u64 * 4;
        let mut buffers: Vec<wgpu::Buffer> = inputs
            .iter()
            .map(|v| self.device.create_buffer_init(&wgpu::util::BufferInitDescriptor { label: None, contents: bytemuck::cast_slice(v), usage: wgpu::BufferUsages::STORAGE }))
            .collect();
        let buffer = |usage| self.device.create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false });
        buffers.push(buffer(wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC));
        let entries: Vec<_> = buffers.iter().enumerate().map(|(n, b)| wgpu::BindGroupEntry { binding: n as u32, resource: b.as_entire_binding() }).collect();
        let group = wgpu::BindGroupDescriptor { label: None, layout: &pipeline.get_bind_group_layout(0), entries: &entries };
        let group = self.device.create_bind_group(&group);
        let once = || {
            let mut encoder = self.device.create_command_encoder(&Default::default());
            let mut pass = encoder.begin_compute_pass(&Default::default());
            pass.set_pipeline(&pipeline);
            pass.set_bind_group(0, &group, &[]);
            pass.dispatch_workgroups(kernel.groups[0], kernel.groups[1], 1);
            drop(pass);
            self.queue.submit([encoder.finish()]);
        };
        let timing = time(once, || self.wait());
        let read = buffer(wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ);
        let mut encoder = self.device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(&buffers[inputs.len()], 0, &read, 0, size);
        self.queue.submit([encoder.finish()]);
        read.slice(..).map_async(wgpu::MapMode::Read, |r| r.expect("the device failed"));
        self.wait();
        let view = read.slice(..).get_mapped_range().expect("just mapped");
        (timing, bytemuck::cast_slice(&view).to_vec())
    }

    /// The fastest of the kernels, those with a wrong result left out.
    fn best(&self, kernels: Vec<Kernel>, inputs: &[Vec<f32>], outputs: usize, right: impl Fn(&[f32]) -> bool) -> Option<(Timing, String)> {
        let mut best: Option<(Timing, String)> = None;
        for kernel in kernels {
            let (timing, output) = self.run(&kernel, inputs, outputs);
            if !right(&output) {
                eprintln!("{}: wrong result", kernel.name);
                continue;
            }
            eprintln!("{:<28} {:.3} ms", kernel.name, timing.median);
            if best.as_ref().is_none_or(|(b, _)| timing.median < b.median) {
                best = Some((timing, kernel.name));
            }
        }
        best
    }
}

fn close(got: f32, want: f64, terms: usize) -> bool {
    (f64::from(got) - want).abs() <= 1e-6 * (terms as f64).sqrt() * (1.0 + want.abs())
}

fn run(gpu: &Gpu, workload: &str) -> Result<(), String> {
    let none = || format!("{workload}: no kernel gave a right result");
    if let Some(n) = workload.strip_prefix("matmul_").and_then(|n| n.parse::<usize>().ok()).filter(|n| n % 64 == 0) {
        let inputs = [uniform(n * n, 1), uniform(n * n, 2)];
        let right = |c: &[f32]| {
            (0..200).all(|s| {
                let (i, j) = (s * 37 % n, (s * 101 + 13) % n);
                let want = (0..n).map(|k| f64::from(inputs[0][i * n + k]) * f64::from(inputs[1][k * n + j])).sum();
                close(c[i * n + j], want, n)
            })
        };
        let (t, name) = gpu.best(shapes::matmuls(n, gpu.lanes), &inputs, n * n, right).ok_or_else(none)?;
        eprintln!("fastest: {name}");
        Line::timed("study", workload, &t).flops(&t, 2.0 * (n as f64).powi(3)).print();
        return Ok(());
    }
    if workload == "elementwise" {
        let n = 4 << 20;
        let inputs = [uniform(n, 10)];
        let right = |y: &[f32]| inputs[0].iter().zip(y).step_by(997).all(|(x, y)| close(*y, f64::from((x * 1.5 + 0.25).max(0.0) * x), 1));
        let (t, name) = gpu.best(shapes::elementwise(n), &inputs, n, right).ok_or_else(none)?;
        eprintln!("fastest: {name}");
        Line::timed("study", workload, &t).bytes(&t, 8.0 * n as f64).print();
        return Ok(());
    }
    Err(format!("study-peer has no workload {workload}: there are matmul_N (N a multiple of 64) and elementwise"))
}

fn main() -> ExitCode {
    let done = Gpu::open().and_then(|gpu| std::env::args().skip(1).try_for_each(|workload| run(&gpu, &workload)));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}
