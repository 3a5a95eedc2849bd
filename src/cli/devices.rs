//! `wgrad devices`: what can be computed on.

use super::{Exit, Run};
use crate::device::Device;
use std::io::Write;

/// List the devices: the CPU backend, then the adapters in a fixed order (discrete, integrated, other, software; within a kind Vulkan, Metal, DX12, GL).
///
/// The first column is what `--device` and WGRAD_DEVICE take.
#[derive(Debug, clap::Parser)]
#[command(name = "devices")]
pub struct Devices {}

impl Run for Devices {
    fn run(self) -> anyhow::Result<Exit> {
        let mut out = std::io::stdout().lock();
        writeln!(out, "cpu     {}", Device::cpu()?.description())?;
        #[cfg(feature = "gpu")]
        let options = crate::device::gpu::GpuOptions::from_env()?;
        #[cfg(feature = "gpu")]
        for (n, a) in crate::device::gpu::adapters().iter().enumerate() {
            let name = format!("gpu:{}", n + 1);
            let kind = format!("{:?}", a.kind).to_lowercase();
            let c = &a.caps;
            let features = if a.features.is_empty() { "none".to_string() } else { a.features.join(", ") };
            writeln!(out, "{name:7} {}", a.name)?;
            writeln!(out, "        {kind}, {}, {}, driver {}", a.vendor, a.backend, if a.driver.is_empty() { "unknown" } else { &a.driver })?;
            writeln!(
                out,
                "        buffers to {} MiB, bindings to {} MiB, {} storage bindings, {} invocations and {} KiB a workgroup, {} groups a dimension",
                c.max_buffer_bytes >> 20,
                c.max_binding_bytes >> 20,
                c.max_storage_bindings,
                c.max_invocations,
                c.max_workgroup_bytes >> 10,
                c.max_groups
            )?;
            writeln!(out, "        features used: {features}")?;
            match crate::device::gpu::find_tuned(a, &options) {
                Ok(Some((path, choices))) => writeln!(out, "        tuned: {} choices, {}", choices.len(), path.display())?,
                Ok(None) => {}
                Err(e) => writeln!(out, "        does not open with WGRAD_TUNED as it is: {e}")?,
            }
            let units = match crate::device::gpu::matrix_units(n) {
                Ok(Some(c)) => format!("{e} x {e}, their products are right", e = c.edge),
                Ok(None) => "none".to_string(),
                Err(e) => format!("not used: {e}"),
            };
            writeln!(out, "        units for small matrices of f16: {units}")?;
        }
        let (_, why) = Device::best()?;
        writeln!(out, "default {why}")?;
        Ok(Exit::Done)
    }
}
