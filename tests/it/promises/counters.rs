//! Every counter has a test that makes it move.

use super::{counted, cpu, devices, tensor};
use std::collections::BTreeSet;
use wgrad::device::CounterValues;
use wgrad::{Device, Tensor};

/// The counters of which something here is asserted.
const MOVED: [&str; 14] = [
    "nodes",
    "plans_built",
    "plans_replayed",
    "pipelines",
    "dispatches",
    "submits",
    "create_buffer",
    "param_writes",
    "uploads",
    "readbacks",
    "bytes_reserved",
    "bytes_in_use",
    "bytes_peak",
    // By a user's op without a kernel: custom.rs, "work on the host is asked for and counted".
    "host_fallbacks",
];

#[test]
fn every_counter_is_named_here() {
    let all: BTreeSet<&str> = CounterValues::default().entries().into_iter().map(|(n, _)| n).collect();
    assert_eq!(all, MOVED.into_iter().collect());
}

#[test]
fn counters_move_by_what_is_done() {
    for device in devices() {
        let gpu = u64::from(device.is_gpu());
        let (x, up) = counted(&device, || tensor(1, &[1000], &device));
        assert_eq!((up.uploads, up.create_buffer, up.nodes, up.dispatches), (1, 1, 0, 0), "{device:?}: {up:?}");
        assert!(up.bytes_in_use >= 4000 && up.bytes_reserved >= up.bytes_in_use, "{device:?}: {up:?}");
        assert!(device.counters().bytes_peak >= device.counters().bytes_in_use);

        let (y, recorded) = counted(&device, || &(&x * 2.0) + 1.0);
        assert_eq!((recorded.nodes, recorded.dispatches, recorded.plans_built), (2, 0, 0), "{device:?}: {recorded:?}");

        let (_, first) = counted(&device, || y.to_vec::<f32>().unwrap());
        let want = (1, 0, gpu, 1, 1, 1, 1);
        let got = (first.plans_built, first.plans_replayed, first.pipelines, first.dispatches, first.submits, first.param_writes, first.readbacks);
        assert_eq!(got, want, "{device:?}: {first:?}");

        let z = &(&x * 3.0) + 4.0;
        let (_, second) = counted(&device, || z.to_vec::<f32>().unwrap());
        let want = (0, 1, 0, 1, 1, 1, 1);
        let got = (second.plans_built, second.plans_replayed, second.pipelines, second.dispatches, second.submits, second.param_writes, second.readbacks);
        assert_eq!(got, want, "{device:?}: {second:?}");

        // A value that exists is read by a copy: no plan, no dispatch.
        let (_, read) = counted(&device, || y.to_vec::<f32>().unwrap());
        assert_eq!((read.plans_built + read.plans_replayed, read.dispatches, read.readbacks), (0, 0, 1), "{device:?}: {read:?}");

        let held = device.counters().bytes_in_use;
        drop(y);
        assert!(device.counters().bytes_in_use < held, "{device:?}: a dropped value gives its bytes back");
        assert!(device.counters().bytes_peak >= held);
        device.reset_peak();
        assert_eq!(device.counters().bytes_peak, device.counters().bytes_in_use, "{device:?}");
    }
}

#[test]
fn a_devices_counters_are_its_own() {
    let (a, b): (Device, Device) = (cpu(), cpu());
    let before = b.counters();
    (&tensor(1, &[10], &a) + 1.0).to_vec::<f32>().unwrap();
    assert_eq!(b.counters(), before);
    Tensor::ones([3], &b).to_vec::<f32>().unwrap();
    assert_eq!(b.counters().since(&before).dispatches, 1);
}
