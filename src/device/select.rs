//! Which device: what a user asks for, or what is best here; and why, in words.

use super::{Device, cpu};
use crate::env;
use crate::error::{Error, Result};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(feature = "gpu")]
use super::{
    Kind,
    gpu::{self, AdapterInfo, Gpu, GpuOptions},
};

/// A way to compare devices: steps a second of the caller's own work on one.
pub type Measure<'a> = &'a dyn Fn(&Device) -> Result<f64>;

/// A number for a new device, unique in the process.
pub(super) fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// What a device specification means.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Spec<'a> {
    Cpu,
    /// The n-th adapter, from 0.
    Gpu(usize),
    /// Part of an adapter's backend, name or driver.
    Text(&'a str),
    Auto,
}

impl<'a> Spec<'a> {
    fn parse(spec: &'a str) -> Result<Spec<'a>> {
        let spec = spec.trim();
        match spec.to_lowercase().as_str() {
            "" => Err(Error::device("device: the name is empty").help("use cpu, gpu, gpu:N, part of a name, or auto")),
            "cpu" => Ok(Spec::Cpu),
            "gpu" => Ok(Spec::Gpu(0)),
            "auto" => Ok(Spec::Auto),
            lower => match lower.strip_prefix("gpu:") {
                // Lines of the list are counted from 1, as a reader counts them.
                Some(n) => match n.parse::<usize>() {
                    Ok(n) if n > 0 => Ok(Spec::Gpu(n - 1)),
                    _ => Err(Error::device(format!("device: {spec}: a line of the device list is asked for, such as gpu:1"))),
                },
                None => Ok(Spec::Text(spec)),
            },
        }
    }
}

impl Device {
    /// The CPU backend of this process, with as many threads as WGRAD_THREADS says, or one a core. Always the same device, so that tensors made in different
    /// places meet; [`Device::cpu_with`] opens others.
    pub fn cpu() -> Result<Device> {
        static SHARED: OnceLock<Device> = OnceLock::new();
        if let Some(device) = SHARED.get() {
            return Ok(device.clone());
        }
        let device = Self::new_cpu()?;
        Ok(SHARED.get_or_init(|| device).clone())
    }

    fn new_cpu() -> Result<Device> {
        let threads = match env::number("WGRAD_THREADS")? {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n as usize,
        };
        Self::cpu_with(threads, false)
    }

    /// The CPU backend with this many threads. With `definition`, every op runs as its definition, unfused and in f64: the reference that tests compare with.
    pub fn cpu_with(threads: usize, definition: bool) -> Result<Device> {
        Device::Cpu(cpu::Cpu::new(next_id(), threads, definition)?).capped()
    }

    /// The `index`-th adapter of the device list, from 0.
    #[cfg(feature = "gpu")]
    pub fn gpu(index: usize, options: &GpuOptions) -> Result<Device> {
        Device::Gpu(Gpu::open(next_id(), index, options)?).capped()
    }

    /// The device that `spec` names, and a line that says which and why: `cpu`; `gpu`, the first of the device list; `gpu:N`, line N of it; or part of an
    /// adapter's backend, name or driver, in any case, of which the first in the list wins. For `auto` see [`Device::open_measured`].
    pub fn open(spec: &str) -> Result<(Device, String)> {
        Self::open_measured(spec, None)
    }

    /// As [`Device::open`], with a measure for `auto`. The faster of the CPU and the first
    /// adapter is taken, and both rates are said. Training brings such a measure; without one, `auto` is an error.
    pub fn open_measured(spec: &str, measure: Option<Measure<'_>>) -> Result<(Device, String)> {
        match Spec::parse(spec)? {
            Spec::Cpu => {
                let device = Self::cpu()?;
                let why = format!("{}: asked for", device.description());
                Ok((device, why))
            }
            Spec::Auto => {
                let measure =
                    measure.ok_or_else(|| Error::device("device: auto measures a few training steps, and there are none here").help("name a device"))?;
                Self::faster(measure)
            }
            Spec::Gpu(index) => Self::open_adapter(spec, |n, _| n == index),
            Spec::Text(text) => Self::open_adapter(spec, |_, words| words.to_lowercase().contains(&text.to_lowercase())),
        }
    }

    /// What WGRAD_DEVICE names; else a hardware GPU where there is one; else the CPU. With a line that says which and why.
    pub fn best() -> Result<(Device, String)> {
        Self::best_measured(None)
    }

    /// As [`Device::best`], with a measure for `WGRAD_DEVICE=auto`.
    pub fn best_measured(measure: Option<Measure<'_>>) -> Result<(Device, String)> {
        if let Some(spec) = env::text("WGRAD_DEVICE")? {
            let (device, why) = Self::open_measured(&spec, measure).map_err(|e| e.context("WGRAD_DEVICE"))?;
            return Ok((device, format!("{why} by WGRAD_DEVICE")));
        }
        Self::default_device()
    }

    #[cfg(feature = "gpu")]
    fn default_device() -> Result<(Device, String)> {
        let list = gpu::first_adapters();
        let no_gpu = match list.iter().position(|a| a.kind != Kind::Software) {
            Some(index) => match Self::gpu(index, &GpuOptions::from_env()?) {
                Ok(device) => {
                    let why = format!("{}: the first hardware GPU", device.description());
                    return Ok((device, why));
                }
                Err(e) => e.to_string(),
            },
            None if list.is_empty() => "no GPU here".to_string(),
            None => format!("no hardware GPU here, only {}", list.iter().map(AdapterInfo::description).collect::<Vec<_>>().join(", ")),
        };
        let device = Self::cpu()?;
        let why = format!("{}: {no_gpu}", device.description());
        Ok((device, why))
    }

    #[cfg(not(feature = "gpu"))]
    fn default_device() -> Result<(Device, String)> {
        let device = Self::cpu()?;
        let why = format!("{}: built without gpu", device.description());
        Ok((device, why))
    }

    #[cfg(feature = "gpu")]
    fn open_adapter(spec: &str, wanted: impl Fn(usize, &str) -> bool) -> Result<(Device, String)> {
        let words = |a: &AdapterInfo| format!("{} {} {}", a.backend, a.name, a.driver);
        let find = |list: &[AdapterInfo]| list.iter().enumerate().position(|(n, a)| wanted(n, &words(a)));
        let index = find(&gpu::first_adapters()).or_else(|| find(&gpu::adapters())).ok_or_else(|| {
            let list = gpu::adapters();
            let lines = list.iter().enumerate().map(|(n, a)| format!("\n  gpu:{}  {}", n + 1, a.description())).collect::<String>();
            let none = if list.is_empty() { "\n  (no GPU adapter was found)" } else { "" };
            Error::device(format!("device: {spec} is not here; there are:\n  cpu{lines}{none}"))
        })?;
        let device = Self::gpu(index, &GpuOptions::from_env()?)?;
        let why = format!("{}: asked for", device.description());
        Ok((device, why))
    }

    #[cfg(not(feature = "gpu"))]
    fn open_adapter(spec: &str, _wanted: impl Fn(usize, &str) -> bool) -> Result<(Device, String)> {
        Err(Error::device(format!("device: {spec} is not here; there are:\n  cpu")).help("this build has no gpu; build with --features gpu"))
    }

    /// The faster of the CPU and the first adapter by this measure.
    fn faster(measure: Measure<'_>) -> Result<(Device, String)> {
        let cpu = Self::cpu()?;
        let (gpu, _) = match Self::open("gpu") {
            Ok(gpu) => gpu,
            Err(e) => {
                let why = format!("{}: auto, the only one: {}", cpu.description(), e.message().lines().next().unwrap_or_default());
                return Ok((cpu, why));
            }
        };
        let (on_cpu, on_gpu) = (measure(&cpu)?, measure(&gpu)?);
        let rates = format!("auto measured {on_cpu:.1} steps/s on {}, {on_gpu:.1} steps/s on {}", cpu.short_name(), gpu.short_name());
        let device = if on_gpu > on_cpu { gpu } else { cpu };
        let why = format!("{}: {rates}", device.description());
        Ok((device, why))
    }

    /// With the cap that WGRAD_MEMORY_CAP sets.
    pub(super) fn capped(self) -> Result<Device> {
        env::check()?;
        env::tell(1, || format!("opened {}", self.description()));
        match env::number("WGRAD_MEMORY_CAP")? {
            0 => {}
            cap => self.set_memory_cap(cap),
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specifications_are_read() {
        assert_eq!(Spec::parse("CPU").unwrap(), Spec::Cpu);
        assert_eq!(Spec::parse("gpu").unwrap(), Spec::Gpu(0));
        assert_eq!(Spec::parse("gpu:2").unwrap(), Spec::Gpu(1));
        assert_eq!(Spec::parse("llvm").unwrap(), Spec::Text("llvm"));
        assert_eq!(Spec::parse("auto").unwrap(), Spec::Auto);
        for wrong in ["gpu:0", "gpu:x", "gpu:", ""] {
            assert!(Spec::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn auto_takes_the_faster_and_says_both_rates() {
        assert!(Device::open("auto").unwrap_err().message().contains("measures"));
        let (device, why) = Device::open_measured("auto", Some(&|d| Ok(if d.is_gpu() { 10.0 } else { 20.0 }))).unwrap();
        assert!(!device.is_gpu());
        assert!(why.starts_with("cpu"), "{why}");
    }
}
