//! GPUs through wgpu: the only code that names it. Adapters, memory, pipelines, the engine that runs programs, and readback.

mod adapter;
mod coop;
mod disk;
mod engine;
mod first_use;
mod images;
mod memory;
mod pipeline;
mod profile;
mod program;
mod readback;
mod scope;
#[cfg(feature = "cli")]
mod stamps;
mod tuned;

pub(crate) use adapter::first_adapters;
#[cfg(feature = "cli")]
pub(crate) use adapter::quiet_drivers;
pub use adapter::{AdapterInfo, adapters};
pub use coop::matrix_units;
pub use engine::KernelCall;
pub use memory::GpuBuffer;
pub use pipeline::validate_wgsl;
pub use program::Prepared;
pub use readback::Readback;
#[cfg(feature = "cli")]
pub(crate) use stamps::Stamps;
pub use tuned::{Tuned, find_tuned, read_tuned, tuned_path, write_tuned};
/// The wgpu that this library was built with, for callers who bring their own device.
pub use wgpu;
/// A caller's buffer, under a name that other modules may use.
pub use wgpu::Buffer as CallersBuffer;

use super::{Caps, Coop, CounterValues, Counters, Device, Kind, select};
use crate::env;
use crate::error::{Error, Result};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, RwLock, Weak};

/// How a GPU is opened.
#[derive(Clone, Debug, PartialEq)]
pub struct GpuOptions {
    /// With exactly `wgpu::Limits::default()` and no features: what every device has.
    pub floor: bool,
    /// Take the adapter for this kind. Tests declare a software adapter as hardware, to see what is done on hardware only.
    pub declared_kind: Option<Kind>,
    /// Our own shaders run with bounds checks, too.
    pub validate: bool,
    /// Temporaries and outputs are filled with NaN before each run.
    pub poison: bool,
    /// Use the units for small matrices of f16, where the adapter has them and they pass a test of their results.
    pub coop: bool,
    /// Take the kernels for such units, written out in plain WGSL, with small matrices of this edge (16 or 8): for tests.
    pub emulated_coop: Option<usize>,
    /// Read buffers through images that lie over them, where that is faster and passes a test.
    pub images: bool,
    /// On hardware, a run that takes longer than this many milliseconds is split into several submits.
    pub submit_ms: u64,
    /// Compiled pipelines are kept in this folder, where the backend gives them out. The library writes no other file.
    pub pipeline_folder: Option<PathBuf>,
    /// Where tuned choices of kernels are found.
    pub tuned: Tuned,
}

impl GpuOptions {
    /// What the environment says: WGRAD_VALIDATE, WGRAD_POISON, WGRAD_COOP, WGRAD_IMAGES, WGRAD_SUBMIT_MS, WGRAD_CACHE, WGRAD_TUNED.
    pub fn from_env() -> Result<GpuOptions> {
        Ok(GpuOptions {
            floor: false,
            declared_kind: None,
            validate: env::flag("WGRAD_VALIDATE")?,
            poison: env::flag("WGRAD_POISON")?,
            coop: env::flag("WGRAD_COOP")?,
            emulated_coop: None,
            images: env::flag("WGRAD_IMAGES")?,
            submit_ms: env::number("WGRAD_SUBMIT_MS")?,
            pipeline_folder: env::cache()?,
            tuned: Tuned::from_env()?,
        })
    }
}

/// An opened GPU: one wgpu device and queue, with all that is kept for them.
pub struct Gpu {
    id: u64,
    info: AdapterInfo,
    options: GpuOptions,
    pub(crate) counters: Counters,
    /// Where it was opened; none for a caller's device.
    adapter: Option<wgpu::Adapter>,
    device: wgpu::Device,
    queue: wgpu::Queue,
    kept: Arc<scope::Kept>,
    pool: Mutex<memory::Pool>,
    cap: AtomicU64,
    pipelines: Mutex<pipeline::Pipelines>,
    /// Where compiled pipelines are kept.
    disk: OnceLock<disk::Disk>,
    binds: Mutex<pipeline::BindCache>,
    /// Temporaries hold no value between runs, so all programs share these.
    workspace: Mutex<Vec<Weak<GpuBuffer>>>,
    /// Held from the write of a run's words to its last submit: no other run may come between.
    turn: Mutex<()>,
    /// Held by every poll, alone by the one that must be alone.
    polls: RwLock<()>,
    checks: Mutex<readback::Checks>,
    /// NaN, to fill buffers from.
    poison: OnceLock<Arc<GpuBuffer>>,
    /// Whether memory without a value is filled with it.
    poisons: AtomicBool,
    /// Where the times of a run's launches go, if someone waits for them.
    timed: Mutex<Option<Vec<f64>>>,
}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Gpu({}, {})", self.id, self.info.description())
    }
}

impl Gpu {
    /// Open the adapter at `index` of [`adapters`]. `id` must be unique in the process.
    pub fn open(id: u64, index: usize, options: &GpuOptions) -> Result<Arc<Gpu>> {
        let adapter = adapter::adapter(index).filter(|_| options.coop && !options.floor);
        // A device is as good without units that give wrong results.
        let units = adapter.and_then(|(info, adapter)| {
            let proven = coop::proven(index, adapter, options);
            proven.inspect_err(|e| env::tell(1, || format!("{}: its units for small matrices are not used: {e}", info.short_name()))).ok().flatten()
        });
        let images = images::proven(index, options);
        let images = images.inspect_err(|e| env::tell(1, || format!("buffers are not read as images: {e}"))).unwrap_or(0);
        Self::open_with(id, index, options, units, images)
    }

    /// The same, with these units for small matrices, and so many buffers that a launch may read as images.
    fn open_with(id: u64, index: usize, options: &GpuOptions, units: Option<Coop>, images: u32) -> Result<Arc<Gpu>> {
        let (info, adapter) =
            adapter::adapter(index).ok_or_else(|| Error::device(format!("gpu: no adapter at position {} of {}", index + 1, adapters().len())))?;
        let (features, limits) =
            if options.floor { (wgpu::Features::empty(), wgpu::Limits::default()) } else { (adapter.features() & adapter::wanted(), adapter.limits()) };
        let (features, experimental_features) = match units {
            // SAFETY: the one experimental feature is that of small matrices. Only our own kernels use them, in the forms that the adapter names, and but for
            // the trial itself only where that found their results right.
            Some(_) => (features | coop::FEATURE, unsafe { wgpu::ExperimentalFeatures::enabled() }),
            None => (features, wgpu::ExperimentalFeatures::disabled()),
        };
        let request = wgpu::DeviceDescriptor {
            label: Some("wgrad"),
            required_features: features,
            required_limits: limits.clone(),
            experimental_features,
            // Our pool keeps what it got; blocks reserved ahead by the driver's side would only be held twice.
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            trace: wgpu::Trace::Off,
        };
        let (device, queue) =
            scope::ready(adapter.request_device(&request)).map_err(|e| Error::device(format!("{}: cannot be opened: {e}", info.description())))?;

        // The device is ours, so its stray errors and its loss are ours to keep.
        let kept = Arc::new(scope::Kept::default());
        let keep = kept.clone();
        device.on_uncaptured_error(Arc::new(move |e: wgpu::Error| keep.keep(Error::kernel(format!("gpu: an error outside of a call: {e}")))));
        let lose = kept.clone();
        device.set_device_lost_callback(move |reason, message| match reason {
            wgpu::DeviceLostReason::Destroyed => lose.lose("it was destroyed"),
            wgpu::DeviceLostReason::Unknown => lose.lose(message),
        });
        let mut info = adapter::describe(&adapter.get_info(), &limits, features).tuned(options)?;
        info.features.extend(units.map(|_| coop::NAME));
        info.caps.coop = units.or(options.emulated_coop.map(Coop::emulation));
        info.caps.images = images;
        Ok(Self::new(id, device, queue, info, options.clone(), kept, Some(adapter.clone())))
    }

    /// A caller's device. None of its handlers is replaced; a loss shows as an error of the next readback. What may be used follows from the limits and
    /// features that the caller opened it with.
    pub fn from_wgpu(id: u64, device: wgpu::Device, queue: wgpu::Queue) -> Result<Arc<Gpu>> {
        let (limits, floor) = (device.limits(), wgpu::Limits::default());
        let info = adapter::describe(&device.adapter_info(), &limits, device.features());
        for (what, have, need) in [
            ("max_storage_buffers_per_shader_stage", limits.max_storage_buffers_per_shader_stage, floor.max_storage_buffers_per_shader_stage),
            ("max_compute_invocations_per_workgroup", limits.max_compute_invocations_per_workgroup, floor.max_compute_invocations_per_workgroup),
            ("max_compute_workgroup_storage_size", limits.max_compute_workgroup_storage_size, floor.max_compute_workgroup_storage_size),
            ("max_compute_workgroup_size_x", limits.max_compute_workgroup_size_x, floor.max_compute_workgroup_size_x),
        ] {
            if have < need {
                return Err(Error::device(format!("{}: opened with {what} = {have}, {need} is needed", info.description()))
                    .help("open the device with wgpu::Limits::default() or more"));
            }
        }
        let options = GpuOptions::from_env()?;
        Ok(Self::new(id, device, queue, info.tuned(&options)?, options, Arc::default(), None))
    }

    fn new(
        id: u64,
        device: wgpu::Device,
        queue: wgpu::Queue,
        mut info: AdapterInfo,
        options: GpuOptions,
        kept: Arc<scope::Kept>,
        adapter: Option<wgpu::Adapter>,
    ) -> Arc<Gpu> {
        if let Some(kind) = options.declared_kind {
            info.kind = kind;
            info.caps.kind = kind;
        }
        let gpu = Arc::new(Gpu {
            id,
            info,
            counters: Counters::default(),
            adapter,
            device,
            queue,
            kept,
            pool: Mutex::default(),
            cap: AtomicU64::new(u64::MAX),
            pipelines: Mutex::default(),
            disk: OnceLock::new(),
            binds: Mutex::default(),
            workspace: Mutex::default(),
            turn: Mutex::default(),
            polls: RwLock::default(),
            checks: Mutex::default(),
            poison: OnceLock::new(),
            poisons: AtomicBool::new(options.poison),
            timed: Mutex::default(),
            options,
        });
        gpu.open_disk();
        gpu
    }

    /// The device's number in this process.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The adapter, and the limits and features it was opened with.
    pub fn info(&self) -> &AdapterInfo {
        &self.info
    }

    /// What kernels may count on.
    pub fn caps(&self) -> &Caps {
        &self.info.caps
    }

    /// How it was opened.
    pub fn options(&self) -> &GpuOptions {
        &self.options
    }

    /// Fill memory that holds no value with NaN before each run from now on, or do not.
    #[doc(hidden)]
    pub fn set_poison(&self, on: bool) {
        self.poisons.store(on, Relaxed);
    }

    /// What it did so far.
    pub fn counters(&self) -> CounterValues {
        self.counters.read()
    }

    /// The wgpu device, for a caller's own work next to ours.
    pub fn wgpu_device(&self) -> &wgpu::Device {
        &self.device
    }

    /// The wgpu queue.
    pub fn wgpu_queue(&self) -> &wgpu::Queue {
        &self.queue
    }

    /// Wait until all submitted work is done. Not in a browser.
    pub fn wait_idle(&self) -> Result<()> {
        self.alive()?;
        let waited = self.poll(wgpu::PollType::wait_indefinitely());
        self.alive()?;
        waited.map_err(|e| Error::internal(format!("{}: waiting failed: {e}", self.info.short_name())))
    }
}

impl Device {
    /// A caller's wgpu device and queue. Its handlers stay as they are.
    pub fn from_wgpu(device: wgpu::Device, queue: wgpu::Queue) -> Result<Device> {
        Device::Gpu(Gpu::from_wgpu(select::next_id(), device, queue)?).capped()
    }
}
