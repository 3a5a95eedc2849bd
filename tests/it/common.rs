//! What the tests share: the devices, seeded values, comparison of numbers.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use wgrad::device::Kind;
use wgrad::device::gpu::GpuOptions;
use wgrad::{Device, Error, Result};

/// A device under test, and how it is called in reports.
pub struct Tested {
    /// `cpu`, `cpu-f32`, `llvmpipe`, `floor`.
    pub name: String,
    /// The device, or why there is none.
    pub device: Result<Device>,
}

fn once(cell: &'static OnceLock<Result<Device>>, open: impl FnOnce() -> Result<Device>) -> Result<Device> {
    cell.get_or_init(open).clone()
}

/// The f64 definition.
pub fn definition() -> Device {
    static CELL: OnceLock<Result<Device>> = OnceLock::new();
    once(&CELL, || Device::cpu_with(1, true)).expect("the CPU backend opens")
}

/// The CPU backend as users have it, on two threads.
pub fn fast() -> Device {
    static CELL: OnceLock<Result<Device>> = OnceLock::new();
    once(&CELL, || Device::cpu_with(2, false)).expect("the CPU backend opens")
}

/// The first adapter.
pub fn gpu() -> Result<Device> {
    static CELL: OnceLock<Result<Device>> = OnceLock::new();
    once(&CELL, || Device::gpu(0, &GpuOptions::from_env()?))
}

/// The first adapter, opened with the limits that every device has.
pub fn floor() -> Result<Device> {
    static CELL: OnceLock<Result<Device>> = OnceLock::new();
    once(&CELL, || Device::gpu(0, &GpuOptions { floor: true, ..GpuOptions::from_env()? }))
}

/// The first adapter, taken for hardware: kernels are cut otherwise there.
pub fn hardware() -> Result<Device> {
    static CELL: OnceLock<Result<Device>> = OnceLock::new();
    once(&CELL, || Device::gpu(0, &GpuOptions { declared_kind: Some(Kind::Discrete), ..GpuOptions::from_env()? }))
}

/// Whether tests may go without an adapter, which they say.
pub fn may_lack_gpu() -> bool {
    wgrad::env::flag("WGRAD_ALLOW_NO_GPU").expect("WGRAD_ALLOW_NO_GPU is a switch")
}

/// A panic as the error that it is.
pub fn caught<T>(f: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str).or(payload.downcast_ref::<&str>().copied());
        Err(Error::invalid(format!("panicked: {}", text.unwrap_or("without a text"))))
    })
}

/// Seeded numbers for tests: splitmix64.
pub struct Draw(u64);

impl Draw {
    /// The stream that `name` and `n` stand for.
    pub fn new(name: &str, n: u64) -> Draw {
        Draw(name.bytes().fold(n.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3)))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// In `0..high`.
    pub fn below(&mut self, high: usize) -> usize {
        (self.next() % high.max(1) as u64) as usize
    }

    /// In `low..high`, and exact in f32.
    pub fn float(&mut self, low: f64, high: f64) -> f64 {
        let u = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        f64::from((low + (high - low) * u) as f32)
    }
}

/// The largest absolute value, infinities apart.
pub fn scale(values: &[f64]) -> f64 {
    values.iter().filter(|v| v.is_finite()).fold(0.0, |m, v| m.max(v.abs()))
}

/// Compare element by element: `Err` names the worst one; `Ok` gives the largest error as a share of the bound. `bound` is asked for each wanted value.
pub fn compare(got: &[f64], want: &[f64], bound: impl Fn(f64) -> f64) -> std::result::Result<f64, String> {
    if got.len() != want.len() {
        return Err(format!("{} elements, not {}", got.len(), want.len()));
    }
    let mut worst = (0.0f64, None);
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        let share = if g == w || g.is_nan() && w.is_nan() {
            0.0
        } else if !g.is_finite() || !w.is_finite() {
            f64::INFINITY
        } else {
            (g - w).abs() / bound(*w)
        };
        // A bound of 0 asks for the same bits.
        if share > worst.0 || share.is_nan() {
            worst = (if share.is_nan() { f64::INFINITY } else { share }, Some(i));
        }
    }
    match worst.1 {
        Some(i) if worst.0 > 1.0 => Err(format!("element {i} of {} is {:e}, not {:e}: {:.2} times the bound", got.len(), got[i], want[i], worst.0)),
        _ => Ok(worst.0),
    }
}
