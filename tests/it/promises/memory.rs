//! Memory by lifetime.

use super::{cpu, gpu, measured, tensor};
use wgrad::graph::{flush, no_grad};
use wgrad::ops::Conv2dOptions;

#[test]
fn a_forward_pass_without_gradients_holds_three_activations() {
    for device in std::iter::once(cpu()).chain(gpu()) {
        let (x, w) = (tensor(1, &[256, 256], &device), tensor(2, &[256, 256], &device));
        let activation = 256 * 256 * 4;
        // Under WGRAD_POISON the first run makes what later ones are filled from.
        tensor(3, &[4], &device).exp().to_vec::<f32>().unwrap();
        let before = device.counters().bytes_in_use;
        device.reset_peak();
        let y = no_grad(|| (0..32).fold(x.clone(), |h, _| h.matmul(&w).relu()));
        flush(&device).unwrap();
        let peak = device.counters().bytes_peak - before;
        measured(&device, format!("{:.2} activations", peak as f64 / activation as f64));
        assert!(peak <= 3 * activation, "{device:?}: {peak} bytes are {:.2} activations", peak as f64 / activation as f64);
        drop(y);
    }
}

#[test]
fn a_convolution_and_its_gradients_reserve_nothing_of_the_size_of_all_windows() {
    for device in std::iter::once(cpu()).chain(gpu()) {
        let options = Conv2dOptions { padding: [2, 2], ..Default::default() };
        let (n, c, o, size, kernel) = (8, 16, 16, 32, 5);
        let x = tensor(1, &[n, c, size, size], &device).requires_grad().unwrap();
        let w = tensor(2, &[o, c, kernel, kernel], &device).requires_grad().unwrap();
        let windows = (n * size * size * c * kernel * kernel * 4) as u64;
        let (before, calls) = (device.counters().bytes_reserved, device.counters().create_buffer);
        x.conv2d(&w, None, options).square().sum_all().backward().unwrap();
        flush(&device).unwrap();
        let (reserved, calls) = (device.counters().bytes_reserved - before, device.counters().create_buffer - calls);
        measured(&device, format!("{reserved} bytes in {calls} buffers; all windows are {windows} bytes"));
        assert_eq!(x.grad().unwrap().shape(), x.shape());
        // Together, not only each alone, they are a small part of it: the result, the gradients, and what a split sum needs.
        assert!(reserved < windows / 2, "{device:?}: {reserved} bytes reserved, all windows are {windows}");
    }
}
