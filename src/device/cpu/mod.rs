//! The CPU backend: host memory, threads, and the runner of host programs.

pub mod gemm;
mod memory;
#[cfg(feature = "cli")]
pub(crate) mod peak;
mod run;
mod scratch;
mod threads;
mod view;
mod wide;

pub(crate) use memory::CpuBuffer;
pub(crate) use run::PreparedHost;
pub use scratch::with_scratch;
pub use threads::Threads;
pub use view::{CpuView, CpuViewMut};
pub use wide::{Loop, widely};

use super::counters::Counters;
use crate::error::Result;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// The CPU as a device.
#[derive(Debug)]
pub struct Cpu {
    pub(crate) id: u64,
    pub(crate) threads: Threads,
    pub(crate) counters: Counters,
    pub(crate) pool: Mutex<memory::Pool>,
    /// The memory of temporaries; also the lock under which all memory of the device is touched.
    pub(crate) workspace: Mutex<run::Workspace>,
    pub(crate) cap: AtomicU64,
    /// Run the f64 definition of every op, unfused: the reference.
    pub(crate) definition: bool,
}

impl Cpu {
    pub(crate) fn new(id: u64, threads: usize, definition: bool) -> Result<Arc<Cpu>> {
        Ok(Arc::new(Cpu {
            id,
            threads: Threads::new(threads)?,
            counters: Counters::default(),
            pool: Mutex::default(),
            workspace: Mutex::default(),
            cap: AtomicU64::new(u64::MAX),
            definition,
        }))
    }

    pub(crate) fn set_cap(&self, bytes: u64) {
        self.cap.store(bytes, Ordering::Relaxed);
    }
}
