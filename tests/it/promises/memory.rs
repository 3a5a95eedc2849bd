//! Memory by lifetime.

use super::{cpu, gpu, tensor};
use wgrad::graph::{flush, no_grad};

#[test]
fn a_forward_pass_without_gradients_holds_three_activations() {
    for device in std::iter::once(cpu()).chain(gpu()) {
        let (x, w) = (tensor(1, &[256, 256], &device), tensor(2, &[256, 256], &device));
        let activation = 256 * 256 * 4;
        let before = device.counters().bytes_in_use;
        device.reset_peak();
        let y = no_grad(|| (0..32).fold(x.clone(), |h, _| h.matmul(&w).relu()));
        flush(&device).unwrap();
        let peak = device.counters().bytes_peak - before;
        // On a GPU the plan's uniform windows, 256 bytes a launch, are no activations.
        let windows = if device.is_gpu() { 64 * 256 } else { 0 };
        println!("{}: {:.2} activations", device.short_name(), peak as f64 / activation as f64);
        assert!(peak <= 3 * activation + windows, "{device:?}: {peak} bytes are {:.2} activations", peak as f64 / activation as f64);
        drop(y);
    }
}
