//! A caller's own GPU work next to ours: its buffers are tensors, and tensors are buffers to it.

use super::{bits, cpu, sgd, tensor};
use wgrad::nn::Param;
use wgrad::optim::Optimizer;
use wgrad::{DType, Device, Tensor, wgpu};

fn callers() -> Option<(wgpu::Device, wgpu::Queue, Device)> {
    super::gpu()?;
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapter = pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default())).unwrap();
    let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor::default())).unwrap();
    let ours = Device::from_wgpu(device.clone(), queue.clone()).unwrap();
    Some((device, queue, ours))
}

fn buffer(device: &wgpu::Device, bytes: u64, usage: wgpu::BufferUsages) -> wgpu::Buffer {
    device.create_buffer(&wgpu::BufferDescriptor { label: None, size: bytes, usage, mapped_at_creation: false })
}

const USAGE: wgpu::BufferUsages = wgpu::BufferUsages::STORAGE.union(wgpu::BufferUsages::COPY_SRC).union(wgpu::BufferUsages::COPY_DST);

#[test]
fn a_callers_buffer_is_a_tensor_without_a_copy() {
    let Some((device, queue, ours)) = callers() else { return };
    let theirs = buffer(&device, 400, USAGE);
    // Under WGRAD_POISON the first run uploads what later ones are filled from.
    tensor(1, &[4], &ours).exp().to_vec::<f32>().unwrap();
    for pass in 0..3 {
        let values: Vec<f32> = super::values(pass, 100);
        queue.write_buffer(&theirs, 0, bytemuck::cast_slice(&values));
        let before = ours.counters();
        let x = Tensor::from_wgpu(theirs.clone(), [20, 5], DType::F32, &ours).unwrap();
        let y = &x.t() * 2.0;
        ours.flush().unwrap();
        assert_eq!(ours.counters().since(&before).uploads, 0);
        let want: Vec<u32> = (0..100).map(|n| (values[n % 20 * 5 + n / 20] * 2.0).to_bits()).collect();
        assert_eq!(bits(&y), want, "pass {pass}");
    }
}

#[test]
fn a_callers_buffer_on_our_device_is_read_anew_in_each_run() {
    let Some(ours) = super::gpu() else { return };
    let Device::Gpu(gpu) = &ours else { panic!("a GPU was asked for") };
    let theirs = buffer(gpu.wgpu_device(), 400, USAGE);
    let x = Tensor::from_wgpu(theirs.clone(), [20, 5], DType::F32, &ours).unwrap();
    for pass in 0..3 {
        let values: Vec<f32> = super::values(pass, 100);
        gpu.wgpu_queue().write_buffer(&theirs, 0, bytemuck::cast_slice(&values));
        let want: Vec<u32> = (0..100).map(|n| (values[n % 20 * 5 + n / 20] * 2.0).to_bits()).collect();
        assert_eq!(bits(&(&x.t() * 2.0)), want, "pass {pass}");
    }
}

#[test]
fn a_tensor_is_a_buffer_of_the_caller() {
    let Some((device, queue, ours)) = callers() else { return };
    let look = |t: &Tensor| -> Vec<f32> {
        let slice = t.to_wgpu().unwrap();
        assert_eq!(slice.offset % 256, 0);
        let seen = buffer(&device, slice.size, wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST);
        let mut encoder = device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(&slice.buffer, slice.offset, &seen, 0, Some(slice.size));
        queue.submit([encoder.finish()]);
        seen.slice(..).map_async(wgpu::MapMode::Read, |r| r.unwrap());
        device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
        bytemuck::pod_collect_to_vec(&seen.slice(..).get_mapped_range().unwrap())
    };
    let x = tensor(1, &[6, 7], &ours);
    // Pending, a view, a window that begins nowhere near 256.
    for t in [&x * 3.0, x.t(), x.narrow(0, 2, 3), x.clone()] {
        assert_eq!(look(&t), t.to_vec::<f32>().unwrap());
    }
    // A parameter, whose slice begins inside of an arena.
    let params = [Param::new(&tensor(2, &[3], &ours)).unwrap(), Param::new(&tensor(3, &[5], &ours)).unwrap()];
    let mut optimizer = sgd(params.to_vec(), 0.5);
    for _ in 0..3 {
        (params[0].tensor().sum_all() * params[1].tensor().sum_all()).backward().unwrap();
        optimizer.step().unwrap();
        optimizer.zero_grad();
        for p in &params {
            assert_eq!(look(&p.tensor()), p.tensor().to_vec::<f32>().unwrap());
        }
    }
}

#[test]
fn buffers_that_do_not_fit_are_refused() {
    let Some((device, _queue, ours)) = callers() else { return };
    let refuse = |b: wgpu::Buffer, dtype: DType, on: &Device| Tensor::from_wgpu(b, [100], dtype, on).unwrap_err().message().to_string();
    assert!(refuse(buffer(&device, 396, USAGE), DType::F32, &ours).contains("a buffer of 396 bytes does not hold 400"));
    assert!(refuse(buffer(&device, 400, wgpu::BufferUsages::COPY_DST), DType::F32, &ours).contains("the buffer was made for"));
    assert!(refuse(buffer(&device, 800, USAGE), DType::F64, &ours).contains("f64 is not available"));
    assert!(refuse(buffer(&device, 400, USAGE), DType::F32, &cpu()).contains("cpu has no wgpu buffers"));
    assert!(Tensor::ones([2], &cpu()).to_wgpu().unwrap_err().message().contains("cpu has no wgpu buffers"));
}
