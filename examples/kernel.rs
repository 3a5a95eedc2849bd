//! A kernel of the KERNELS table on a caller's own buffer, without a graph: a histogram by integer atomics.
//!
//! Run: `cargo run --release --example kernel`
//! Prints: a line for each of 16 bins of 100,000 values, and that the counts are those of the host.

use anyhow::{Context, Result, ensure};
use wgrad::device::gpu::KernelCall;
use wgrad::device::{Access, Buffer, Device, Storage};
use wgrad::kernel::{self, BindingText, Emit};
use wgrad::{rng, wgpu};

const N: u32 = 100_000;
const BINS: u32 = 16;
const GROUPS: u32 = 64;

fn main() -> Result<()> {
    // The caller's device, and a buffer of its own.
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapter = pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default())).context("no adapter")?;
    let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor::default()))?;
    let values: Vec<f32> = (0..N as usize).map(|i| rng::normal(rng::pair(7, 0, i)) as f32).collect();
    let theirs = device.create_buffer(&wgpu::BufferDescriptor {
        label: Some("samples"),
        size: u64::from(N) * 4,
        usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    queue.write_buffer(&theirs, 0, bytemuck::cast_slice(&values));

    // The same device for wgrad; the samples as they lie, and zeroed counts.
    let Device::Gpu(gpu) = Device::from_wgpu(device, queue)? else { unreachable!("made from a wgpu device") };
    let samples = Storage { buffer: Buffer::Gpu(gpu.import(theirs)), offset: 0, bytes: N as usize * 4 };
    let counts = gpu.alloc(BINS as usize * 4)?;
    gpu.upload(&counts, 0, &[0; BINS as usize * 4])?;
    let counts = Storage { buffer: Buffer::Gpu(counts), offset: 0, bytes: BINS as usize * 4 };

    // The kernel, its text with bindings written in, and its words, as the head of its file says.
    let (low, high) = (-4.0f32, 4.0f32);
    let scale = BINS as f32 / (high - low);
    let words = [N, BINS, GROUPS * 64, 0, low.to_bits(), scale.to_bits(), 0, 0];
    let binding = |name: &str, element: &str, access| BindingText { name: name.into(), element: element.into(), access };
    let bindings = [binding("x", "f32", Access::Read), binding("y", "atomic<u32>", Access::ReadWrite)];
    let text = Emit::new(kernel::find("histogram")?).finish(&bindings, words.len())?;
    gpu.run_kernel(&KernelCall {
        label: "histogram",
        text: &text,
        bindings: &[(&samples, Access::Read), (&counts, Access::ReadWrite)],
        words: &words,
        grid: [GROUPS, 1, 1],
    })?;

    let bytes = gpu.read(&[counts])?.wait()?.remove(0);
    let counted: Vec<u32> = bytemuck::pod_collect_to_vec(&bytes);
    for (bin, n) in counted.iter().enumerate() {
        println!("{:5.1} {n:6} {}", low + bin as f32 / scale, "#".repeat(*n as usize / 500));
    }
    let mut host = [0u32; BINS as usize];
    for bin in values.iter().map(|x| (x - low) * scale).filter(|at| (0.0..BINS as f32).contains(at)) {
        host[bin as usize] += 1;
    }
    ensure!(counted == host, "the host counts {host:?}");
    println!("as the host counts: {} values on {}", counted.iter().sum::<u32>(), gpu.info().short_name());
    Ok(())
}
