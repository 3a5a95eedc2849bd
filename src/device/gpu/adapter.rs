//! The adapters that wgpu finds, described and in a fixed order.

use super::GpuOptions;
use crate::device::{Caps, Kind};
use crate::error::Result;
use std::sync::OnceLock;

/// What is known of an adapter before it is opened.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterInfo {
    /// The name the driver gives, e.g. `llvmpipe (LLVM 15.0.6, 256 bits)`.
    pub name: String,
    /// Who made it, in words.
    pub vendor: String,
    /// The driver and its version.
    pub driver: String,
    /// The interface: `vulkan`, `metal`, `dx12` or `gl`.
    pub backend: &'static str,
    /// Hardware or software.
    pub kind: Kind,
    /// Limits and features as far as kernels care.
    pub caps: Caps,
    /// The optional features it has that this library uses, by name.
    pub features: Vec<&'static str>,
}

impl AdapterInfo {
    /// One word for tables and file names: `llvmpipe` for `llvmpipe (LLVM 15.0.6, 256 bits)`, `NVIDIA-H100-PCIe` for `NVIDIA H100 PCIe`.
    pub fn short_name(&self) -> String {
        short_name(&self.name, self.backend)
    }

    /// With the choices that were tuned for it.
    pub(super) fn tuned(mut self, options: &GpuOptions) -> Result<AdapterInfo> {
        if let Some((_, choices)) = super::find_tuned(&self, options)? {
            self.caps.choices = choices;
        }
        Ok(self)
    }

    /// Name, backend and driver in one line.
    pub fn description(&self) -> String {
        let driver = if self.driver.is_empty() { String::new() } else { format!(", {}", self.driver) };
        format!("{} ({}{driver})", self.name, self.backend)
    }
}

/// The name up to its first parenthesis that is no trade mark, its words joined; the backend where a driver gives no name.
fn short_name(name: &str, backend: &str) -> String {
    let plain = ["(R)", "(TM)", "(tm)"].iter().fold(name.to_string(), |name, mark| name.replace(mark, ""));
    let words: Vec<&str> = plain.split('(').next().unwrap_or_default().split_whitespace().collect();
    if words.is_empty() { backend.to_string() } else { words.join("-") }
}

/// Every adapter of this machine: discrete, integrated, other, software; within a kind Vulkan, Metal, DX12, GL; then by name.
///
/// An adapter below WebGPU's default limits is left out, because no kernel is promised to run there.
pub fn adapters() -> Vec<AdapterInfo> {
    enumerate().iter().map(|(info, _)| info.clone()).collect()
}

/// The beginning of the list of [`adapters`], as far as it can be told without loading OpenGL: all of it where OpenGL might have hardware to offer.
/// Loading OpenGL makes Mesa complain on standard error where there is no desktop, so it is left alone until someone asks for it.
pub(crate) fn first_adapters() -> Vec<AdapterInfo> {
    beginning().iter().map(|(info, _)| info.clone()).collect()
}

/// An adapter with its handle.
type Found = (AdapterInfo, wgpu::Adapter);

/// The list of [`adapters`], with their handles. Looked up once a process: drivers are slow to load.
fn enumerate() -> &'static [Found] {
    static LIST: OnceLock<Vec<Found>> = OnceLock::new();
    LIST.get_or_init(|| {
        let mut list = without_gl().to_vec();
        list.extend(look_up(wgpu::Backends::GL));
        sort(&mut list);
        list
    })
}

fn without_gl() -> &'static [Found] {
    static LIST: OnceLock<Vec<Found>> = OnceLock::new();
    LIST.get_or_init(|| {
        let mut list = look_up(wgpu::Backends::all() - wgpu::Backends::GL);
        sort(&mut list);
        list
    })
}

/// On a Linux without a device node for graphics, OpenGL has software at best, which stands at the end of the list.
fn beginning() -> &'static [Found] {
    let hardware = !cfg!(target_os = "linux") || std::path::Path::new("/dev/dri").exists();
    if hardware || without_gl().is_empty() { enumerate() } else { without_gl() }
}

/// The `index`-th adapter of the list.
pub(super) fn adapter(index: usize) -> Option<&'static Found> {
    beginning().get(index).or_else(|| enumerate().get(index))
}

/// Ask Mesa to leave out the layer that reorders devices: wgrad has an order of its own, and the layer complains on standard error where there is no desktop.
/// For a program's first lines: it does nothing once there is a second thread.
#[cfg(feature = "cli")]
pub(crate) fn quiet_drivers() {
    const LAYER: &str = "NODEVICE_SELECT";
    let alone = std::fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() == 1);
    if alone && std::env::var_os(LAYER).is_none() {
        // SAFETY: this is the process's only thread, so nothing reads the environment at the same time.
        unsafe { std::env::set_var(LAYER, "1") };
    }
}

fn look_up(backends: wgpu::Backends) -> Vec<Found> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor { backends, ..wgpu::InstanceDescriptor::new_without_display_handle() });
    let found = super::scope::ready(instance.enumerate_adapters(backends));
    found.into_iter().filter(has_floor).map(|a| (describe(&a.get_info(), &a.limits(), a.features() & wanted()), a)).collect()
}

/// A stable sort: twins (two equal cards) keep the driver's order.
fn sort(list: &mut [Found]) {
    list.sort_by(|(a, _), (b, _)| (a.kind, backend_rank(a.backend), &a.name).cmp(&(b.kind, backend_rank(b.backend), &b.name)));
}

/// Whether a device with exactly the default limits can be opened.
fn has_floor(adapter: &wgpu::Adapter) -> bool {
    let (have, floor) = (adapter.limits(), wgpu::Limits::default());
    adapter.get_downlevel_capabilities().flags.contains(wgpu::DownlevelFlags::COMPUTE_SHADERS)
        && have.max_storage_buffers_per_shader_stage >= floor.max_storage_buffers_per_shader_stage
        && have.max_compute_invocations_per_workgroup >= floor.max_compute_invocations_per_workgroup
        && have.max_storage_buffer_binding_size >= floor.max_storage_buffer_binding_size
        && have.max_compute_workgroup_storage_size >= floor.max_compute_workgroup_storage_size
}

/// The optional features this library uses, with the names it shows.
const FEATURES: [(wgpu::Features, &str); 3] =
    [(wgpu::Features::SUBGROUP, "subgroups"), (wgpu::Features::SHADER_F16, "f16"), (wgpu::Features::TIMESTAMP_QUERY, "timestamps")];

/// What a device is opened with, where the adapter has it: those, and one that no kernel sees.
pub(super) fn wanted() -> wgpu::Features {
    FEATURES.iter().fold(wgpu::Features::PIPELINE_CACHE, |all, (f, _)| all | *f)
}

/// Describe an adapter, or a device with these limits and features.
pub(super) fn describe(info: &wgpu::AdapterInfo, limits: &wgpu::Limits, features: wgpu::Features) -> AdapterInfo {
    let kind = kind(info);
    let driver = [info.driver.as_str(), info.driver_info.as_str()].iter().filter(|s| !s.is_empty()).copied().collect::<Vec<_>>().join(" ");
    AdapterInfo {
        name: info.name.clone(),
        vendor: vendor(info.vendor, &info.name),
        driver,
        backend: backend(info.backend),
        kind,
        caps: Caps {
            kind,
            max_groups: limits.max_compute_workgroups_per_dimension,
            max_storage_bindings: limits.max_storage_buffers_per_shader_stage,
            // Metal allows more than kernels count: their words are of 32 bits.
            max_binding_bytes: limits.max_storage_buffer_binding_size.min(i32::MAX as u64 & !3),
            max_buffer_bytes: limits.max_buffer_size,
            max_invocations: limits.max_compute_invocations_per_workgroup,
            max_workgroup_bytes: limits.max_compute_workgroup_storage_size,
            subgroups: features.contains(wgpu::Features::SUBGROUP).then_some((info.subgroup_min_size, info.subgroup_max_size)),
            f16: features.contains(wgpu::Features::SHADER_F16),
            timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
            choices: Default::default(),
            coop: None,
            images: 0,
        },
        features: FEATURES.iter().filter(|(f, _)| features.contains(*f)).map(|(_, name)| *name).collect(),
    }
}

fn kind(info: &wgpu::AdapterInfo) -> Kind {
    match info.device_type {
        wgpu::DeviceType::DiscreteGpu => Kind::Discrete,
        wgpu::DeviceType::IntegratedGpu => Kind::Integrated,
        wgpu::DeviceType::Cpu => Kind::Software,
        // GL cannot say what it runs on, so the well-known software drivers are told by their names.
        _ if ["llvmpipe", "softpipe", "swiftshader", "lavapipe"].iter().any(|s| info.name.to_lowercase().contains(s)) => Kind::Software,
        wgpu::DeviceType::VirtualGpu | wgpu::DeviceType::Other => Kind::Other,
    }
}

fn backend(backend: wgpu::Backend) -> &'static str {
    match backend {
        wgpu::Backend::Vulkan => "vulkan",
        wgpu::Backend::Metal => "metal",
        wgpu::Backend::Dx12 => "dx12",
        wgpu::Backend::Gl => "gl",
        wgpu::Backend::BrowserWebGpu => "webgpu",
        wgpu::Backend::Noop => "noop",
    }
}

fn backend_rank(name: &str) -> usize {
    ["vulkan", "metal", "dx12", "gl"].iter().position(|b| *b == name).unwrap_or(usize::MAX)
}

/// The vendor of a PCI (or Khronos) id, in words.
fn vendor(id: u32, name: &str) -> String {
    let known = match id {
        0x1002 => "AMD",
        0x10de => "NVIDIA",
        0x8086 => "Intel",
        0x106b => "Apple",
        0x13b5 => "Arm",
        0x14e4 => "Broadcom",
        0x1010 => "Imagination",
        0x5143 => "Qualcomm",
        0x1414 => "Microsoft",
        0x1ae0 => "Google",
        0x10005 => "Mesa",
        // GL has no ids and Metal gives none: the name says it.
        0 if name.contains("Apple") => "Apple",
        0 if name.contains("llvmpipe") => "Mesa",
        0 => "unknown",
        _ => return format!("vendor {id:#06x}"),
    };
    known.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_one_word() {
        assert_eq!(short_name("llvmpipe (LLVM 15.0.6, 256 bits)", "vulkan"), "llvmpipe");
        assert_eq!(short_name("NVIDIA H100 PCIe", "vulkan"), "NVIDIA-H100-PCIe");
        assert_eq!(short_name("Intel(R) Arc(tm) A770 Graphics (DG2)", "vulkan"), "Intel-Arc-A770-Graphics");
        assert_eq!(short_name("", "gl"), "gl");
    }

    #[test]
    fn vendors_are_readable() {
        assert_eq!(vendor(0x10de, ""), "NVIDIA");
        assert_eq!(vendor(0x10005, "llvmpipe"), "Mesa");
        assert_eq!(vendor(0x1234, ""), "vendor 0x1234");
    }

    #[test]
    fn gl_on_the_processor_is_software() {
        let mut info = wgpu::AdapterInfo::new(wgpu::DeviceType::Other, wgpu::Backend::Gl);
        assert_eq!(kind(&info), Kind::Other);
        info.name = "llvmpipe (LLVM 15.0.6, 256 bits)".into();
        assert_eq!(kind(&info), Kind::Software);
    }
}
