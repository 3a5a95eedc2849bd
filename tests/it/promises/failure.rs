//! Failures are errors at the next point that can say so, and never old numbers.

use super::{cpu, devices, gpu, tensor};
use wgrad::device::gpu::Gpu;
use wgrad::{Device, ErrorKind};

fn inner(device: &Device) -> &std::sync::Arc<Gpu> {
    match device {
        Device::Gpu(gpu) => gpu,
        Device::Cpu(_) => panic!("a GPU is asked for"),
    }
}

#[test]
fn a_destroyed_device_is_an_error_of_every_read() {
    let Some(device) = gpu() else { return };
    let x = tensor(1, &[64], &device);
    let (done, pending) = (&x + 1.0, &x * 3.0);
    done.to_vec::<f32>().unwrap();
    inner(&device).wgpu_device().destroy();
    for (what, e) in [
        ("pending", pending.to_vec::<f32>().unwrap_err()),
        ("computed", done.to_vec::<f32>().unwrap_err()),
        ("flush", wgrad::graph::flush(&device).unwrap_err()),
    ] {
        assert!(matches!(e.kind(), ErrorKind::DeviceLost(_)), "{what}: {e}");
    }
    // The process goes on.
    assert_eq!((&tensor(1, &[4], &cpu()) + 1.0).numel(), 4);
}

#[test]
fn out_of_memory_at_the_cap_is_an_error_and_the_device_goes_on() {
    for device in devices() {
        let x = tensor(1, &[1 << 18], &device);
        (&x + 1.0).to_vec::<f32>().unwrap();
        device.set_memory_cap(device.counters().bytes_reserved + (3 << 20));
        let held: Vec<_> = (0..16).map(|n| &x * n as f64).collect();
        let e = wgrad::graph::flush(&device).unwrap_err();
        assert!(matches!(e.kind(), ErrorKind::OutOfMemory(_)), "{device:?}: {e}");
        assert!(e.message().contains("cap") && e.message().contains("in use"), "{device:?}: {e}");
        // What was pending stays pending: with fewer of them, or a higher cap, they are computed.
        let first = held[2].to_vec::<f32>().unwrap();
        assert_eq!(first[7], x.to_vec::<f32>().unwrap()[7] * 2.0, "{device:?}");
        device.set_memory_cap(u64::MAX);
        let last = held[15].to_vec::<f32>().unwrap();
        assert_eq!(last[7], x.to_vec::<f32>().unwrap()[7] * 15.0, "{device:?}");
    }
}

/// The variable that tells the tests below that they are the child.
const CHILD: &str = "PROMISES_CHILD";

/// Fill the device's memory until it says no; then compute with what there is.
fn take_all_memory(device: &Device) {
    let x = tensor(1, &[1 << 10], device);
    let want: Vec<f32> = x.to_vec::<f32>().unwrap().iter().map(|v| v + 1.0).collect();
    (&x + 1.0).to_vec::<f32>().unwrap();
    let mut held = Vec::new();
    let e = (0..96)
        .find_map(|n| {
            let big = wgrad::Tensor::full([25 << 20], f64::from(n), device);
            (&big + 0.0).requires_grad().map(|t| held.push(t)).err()
        })
        .expect("no allocation was refused");
    assert!(matches!(e.kind(), ErrorKind::OutOfMemory(_)), "{e}");
    assert!(e.message().contains("out of memory") && e.message().contains("in use"), "{e}");
    assert_eq!((&x + 1.0).to_vec::<f32>().unwrap(), want, "the process goes on");
}

#[test]
#[ignore = "run by out_of_memory_in_the_system_is_an_error, in a process with little memory"]
fn child_on_the_cpu() {
    if std::env::var_os(CHILD).is_some() {
        take_all_memory(&cpu());
    }
}

#[test]
#[ignore = "run by out_of_memory_in_the_system_is_an_error, in a process with little memory"]
fn child_on_the_gpu() {
    if std::env::var_os(CHILD).is_some() {
        take_all_memory(&gpu().unwrap());
    }
}

#[cfg(unix)]
#[test]
fn out_of_memory_in_the_system_is_an_error_and_the_process_goes_on() {
    let mut children = vec!["child_on_the_cpu"];
    // The limit counts what the process maps, so it says something only where the driver takes its memory from there.
    if gpu().is_some_and(|d| d.kind() == Some(wgrad::device::Kind::Software)) {
        children.push("child_on_the_gpu");
    }
    for child in children {
        let limit = if child == "child_on_the_cpu" { 1_500_000 } else { 3_000_000 };
        let out = std::process::Command::new("sh")
            .args(["-c", &format!("ulimit -v {limit} && exec \"$0\" --exact promises::failure::{child} --ignored --nocapture --test-threads=1")])
            .arg(std::env::current_exe().unwrap())
            .env(CHILD, "1")
            .output()
            .unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert!(out.status.success() && said.contains("1 passed"), "{child}: {said}");
    }
}

#[test]
fn a_label_out_of_range_is_an_error_that_names_the_operation_and_the_limit() {
    for device in devices() {
        let logits = tensor(1, &[4, 10], &device);
        for (labels, good) in [([0, 9, 3, 4], true), ([0, 10, 3, 4], false), ([0, 9, -1, 4], false), ([1, 1, 1, 1], true)] {
            let target = wgrad::Tensor::new(labels, [4], &device).unwrap();
            match logits.cross_entropy(&target).item() {
                Ok(loss) => assert!(good && loss.is_finite(), "{device:?} {labels:?}: {loss}"),
                Err(e) => {
                    assert!(!good && matches!(e.kind(), ErrorKind::Data(_)), "{device:?} {labels:?}: {e}");
                    assert_eq!(e.message(), "cross_entropy: target out of range: must be in 0..10", "{device:?}");
                }
            }
        }
    }
}

#[test]
fn a_label_out_of_range_in_training_is_the_next_reads_error() {
    for device in devices() {
        let w = wgrad::nn::Param::new(&tensor(1, &[6, 10], &device)).unwrap();
        let mut optimizer = super::sgd(vec![w.clone()], 0.1);
        let x = tensor(2, &[4, 6], &device);
        let mut step = |labels: [i32; 4]| {
            // What an earlier step left behind when it failed.
            wgrad::optim::Optimizer::zero_grad(&optimizer);
            let loss = x.matmul(&w.tensor()).cross_entropy(&wgrad::Tensor::new(labels, [4], &device)?);
            loss.backward()?;
            wgrad::optim::Optimizer::step(&mut optimizer)?;
            loss.item()
        };
        step([0, 1, 2, 3]).unwrap();
        let before = w.tensor().to_vec::<f32>().unwrap();
        let e = step([0, 1, 12, 3]).unwrap_err();
        assert_eq!(e.message(), "cross_entropy: target out of range: must be in 0..10", "{device:?}");
        // The CPU says so in time; on a GPU the step was taken.
        assert_eq!(w.tensor().to_vec::<f32>().unwrap() == before, !device.is_gpu(), "{device:?}");
        // Said once; the next step is as good as any.
        step([0, 1, 2, 3]).unwrap();
    }
}
