//! Counters: what a device did, for tests and users.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Running totals of a device. All only ever grow, except the two byte gauges.
        #[derive(Debug, Default)]
        pub struct Counters { $(pub(crate) $name: AtomicU64),* }

        /// A reading of [`Counters`].
        #[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
        pub struct CounterValues { $($(#[$doc])* pub $name: u64),* }

        impl Counters {
            /// The values now.
            pub fn read(&self) -> CounterValues { CounterValues { $($name: self.$name.load(Relaxed)),* } }
        }

        impl CounterValues {
            /// What each counter grew by since `earlier` (gauges: by how much they are higher, at least 0).
            pub fn since(&self, earlier: &CounterValues) -> CounterValues {
                CounterValues { $($name: self.$name.saturating_sub(earlier.$name)),* }
            }
            /// Names and values, in the order of declaration.
            pub fn entries(&self) -> Vec<(&'static str, u64)> { vec![$((stringify!($name), self.$name)),*] }
        }
    };
}

counters! {
    /// Nodes recorded.
    nodes,
    /// Plans built: a graph of a shape not seen before.
    plans_built,
    /// Plans replayed from the cache.
    plans_replayed,
    /// Compute pipelines created.
    pipelines,
    /// Dispatches (GPU) or host steps (CPU).
    dispatches,
    /// Queue submissions.
    submits,
    /// `create_buffer` calls (GPU) or fresh allocations (CPU).
    create_buffer,
    /// Parameter writes: the one uniform write of a plan's run.
    param_writes,
    /// Uploads of host data.
    uploads,
    /// Readbacks to the host.
    readbacks,
    /// Bytes of buffers held from the driver or the allocator, free ones included. A gauge.
    bytes_reserved,
    /// Bytes of buffers that hold a value or a temporary now. A gauge.
    bytes_in_use,
    /// The highest `bytes_in_use` since the last reset.
    bytes_peak,
    /// Pieces of a GPU plan's work done on the host.
    host_fallbacks,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Relaxed);
    }

    pub(crate) fn sub(counter: &AtomicU64, n: u64) {
        counter.fetch_sub(n, Relaxed);
    }

    /// `bytes` more are in use; keeps the peak.
    pub(crate) fn in_use(&self, bytes: u64) {
        let now = self.bytes_in_use.fetch_add(bytes, Relaxed) + bytes;
        self.bytes_peak.fetch_max(now, Relaxed);
    }

    /// Start the peak anew from what is in use now.
    pub fn reset_peak(&self) {
        self.bytes_peak.store(self.bytes_in_use.load(Relaxed), Relaxed);
    }
}
