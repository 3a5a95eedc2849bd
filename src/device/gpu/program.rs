//! Programs made ready to run: pipelines found or compiled, temporaries placed in the workspace, a uniform window for each launch, words for checks.

use super::memory::{ALIGN, GpuBuffer};
use super::pipeline::{Pipeline, Wanted};
use super::readback::ErrorWords;
use super::{Gpu, Kind};
use crate::device::{Access, Binding, GpuProgram, Slot, Word};
use crate::error::{Error, Result};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// A program on its device. Run it with [`Gpu::run`].
#[derive(Debug)]
pub struct Prepared {
    /// Its number in this process: bind groups are found by it.
    pub(super) id: u64,
    pub(super) device: u64,
    pub(super) steps: Vec<Step>,
    pub(super) temporaries: Vec<(Arc<GpuBuffer>, usize)>,
    /// All uniform windows; `None` where nothing is launched.
    pub(super) uniforms: Option<Arc<GpuBuffer>>,
    /// The uniform windows' content; constants are filled in already.
    pub(super) words: Mutex<Vec<u32>>,
    /// The words that change from run to run: where, and what.
    pub(super) dynamic: Vec<(usize, Word)>,
    /// How many entries of a run's data they read.
    pub(super) data_len: usize,
    pub(super) errors: Option<Arc<ErrorWords>>,
    /// The leaves that its launches read as images.
    pub(super) image_leaves: Vec<usize>,
    pub(super) timing: Arc<Timing>,
}

/// One launch of it.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) label: Arc<str>,
    pub(super) pipeline: Arc<Pipeline>,
    pub(super) bindings: Vec<Binding>,
    pub(super) window: usize,
    pub(super) window_bytes: usize,
    pub(super) grid: [u32; 3],
    pub(super) flops: u64,
}

/// How long the device worked on a program, for the splitting of long ones.
#[derive(Debug, Default)]
pub(super) struct Timing {
    best_ns: AtomicU64,
    runs: AtomicU32,
}

/// Runs that are timed. The shortest counts: the others waited for work before them.
const TIMED_RUNS: u32 = 8;

impl Timing {
    /// Whether the next run should be timed.
    pub(super) fn wanted(&self) -> bool {
        self.runs.load(Ordering::Relaxed) < TIMED_RUNS
    }

    pub(super) fn record(&self, ns: u64) {
        let first = self.runs.fetch_add(1, Ordering::Relaxed) == 0;
        if first {
            self.best_ns.store(ns, Ordering::Relaxed);
        } else {
            self.best_ns.fetch_min(ns, Ordering::Relaxed);
        }
    }
}

/// Nanoseconds that a launch of `flops` takes on a slow GPU (200 GFLOP/s and 10 us for the launch), until a run was measured.
fn estimate_ns(flops: u64) -> u64 {
    flops / 200 + 10_000
}

/// Where a sequence of launches is cut so that no part exceeds `limit` by more than one launch's share of `total`; ends with the number of launches.
fn cuts(weights: impl ExactSizeIterator<Item = u64> + Clone, total: u64, limit: u64) -> Vec<usize> {
    let n = weights.len();
    let sum: u64 = weights.clone().sum::<u64>().max(1);
    let mut ends = Vec::new();
    let mut part = 0u128;
    for (i, w) in weights.enumerate() {
        let share = u128::from(w) * u128::from(total) / u128::from(sum);
        if part > 0 && part + share > u128::from(limit) {
            ends.push(i);
            part = 0;
        }
        part += share;
    }
    ends.push(n);
    ends
}

impl Prepared {
    /// The ends of the parts in which it is submitted: one part, except for long programs on hardware, where a desktop's watchdog would reset the GPU.
    pub(super) fn parts(&self, kind: Kind, limit_ms: u64) -> Vec<usize> {
        if kind == Kind::Software {
            return vec![self.steps.len()];
        }
        let weights = self.steps.iter().map(|s| estimate_ns(s.flops));
        let total = match self.timing.runs.load(Ordering::Relaxed) {
            0 => weights.clone().sum(),
            _ => self.timing.best_ns.load(Ordering::Relaxed),
        };
        cuts(weights, total, limit_ms.saturating_mul(1_000_000))
    }

    /// Bytes of its temporaries; other programs use the same memory.
    pub fn workspace_bytes(&self) -> usize {
        self.temporaries.iter().map(|(b, _)| b.size()).sum()
    }
}

impl Gpu {
    /// Make a program ready: everything that can fail in its kernels fails here, and names the launch.
    pub fn prepare(self: &Arc<Self>, program: GpuProgram) -> Result<Prepared> {
        let mut wanted = Vec::with_capacity(program.launches.len());
        for launch in &program.launches {
            let label = &launch.label;
            let limit = self.info.caps.max_groups;
            if launch.grid.iter().any(|g| *g == 0 || *g > limit) {
                return Err(Error::internal(format!("{label}: grid {:?}, each must be in 1..={limit}", launch.grid)));
            }
            for b in &launch.bindings {
                let wrong = match b.slot {
                    Slot::Temp(i) => i >= program.temporaries.len(),
                    Slot::Errors => program.checks.is_empty(),
                    Slot::Leaf(_) | Slot::Output(_) => false,
                };
                if wrong {
                    return Err(Error::internal(format!("{label}: binds {:?}, which the program does not have", b.slot)));
                }
            }
            let accesses = launch.bindings.iter().map(|b| b.access).collect();
            let window = window_bytes(launch.words.len());
            wanted.push(Wanted { label, text: &launch.text, trusted: launch.trusted, accesses, window });
        }
        let pipelines = self.pipelines(&wanted)?;
        let mut steps = Vec::with_capacity(program.launches.len());
        let mut words: Vec<u32> = Vec::new();
        let (mut dynamic, mut data_len) = (Vec::new(), 0);
        for (launch, pipeline) in program.launches.iter().zip(pipelines) {
            let start = words.len();
            for (i, word) in launch.words.iter().enumerate() {
                match *word {
                    Word::Const(w) => words.push(w),
                    word @ (Word::F32(n) | Word::Low(n) | Word::High(n)) => {
                        data_len = data_len.max(n + 1);
                        dynamic.push((start + i, word));
                        words.push(0);
                    }
                }
            }
            let window_bytes = window_bytes(launch.words.len());
            words.resize(start + window_bytes.next_multiple_of(ALIGN) / 4, 0);
            steps.push(Step {
                label: launch.label.clone(),
                pipeline,
                bindings: launch.bindings.clone(),
                window: start * 4,
                window_bytes,
                grid: launch.grid,
                flops: launch.flops,
            });
        }
        let uniforms = if words.is_empty() { None } else { Some(self.alloc_kept(words.len() * 4)?) };
        let errors = if program.checks.is_empty() { None } else { Some(Arc::new(self.error_words(program.checks)?)) };
        let temporaries = self.place(&program.temporaries)?;
        let bindings = program.launches.iter().flat_map(|l| &l.bindings).filter(|b| b.access == Access::Image);
        let mut image_leaves: Vec<usize> = bindings.filter_map(|b| if let Slot::Leaf(i) = b.slot { Some(i) } else { None }).collect();
        image_leaves.sort_unstable();
        image_leaves.dedup();
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let (words, timing) = (Mutex::new(words), Arc::default());
        Ok(Prepared { id, device: self.id, steps, temporaries, uniforms, words, dynamic, data_len, errors, image_leaves, timing })
    }

    /// A workspace buffer for each temporary; two of one program never share one. A buffer goes back to the pool with the last program that uses it.
    fn place(self: &Arc<Self>, sizes: &[usize]) -> Result<Vec<(Arc<GpuBuffer>, usize)>> {
        let mut workspace = self.workspace.lock().unwrap_or_else(PoisonError::into_inner);
        workspace.retain(|w| w.strong_count() > 0);
        let mut free: Vec<Arc<GpuBuffer>> = workspace.iter().filter_map(Weak::upgrade).collect();
        // The largest first, each into the smallest that holds it.
        let mut order: Vec<usize> = (0..sizes.len()).collect();
        order.sort_by_key(|&i| std::cmp::Reverse(sizes[i]));
        let mut placed: Vec<Option<(Arc<GpuBuffer>, usize)>> = vec![None; sizes.len()];
        for i in order {
            // Whole vec4s, so that shaders may read by four.
            let bytes = sizes[i].max(4).next_multiple_of(16);
            let best = (0..free.len()).filter(|&j| free[j].size() >= bytes).min_by_key(|&j| free[j].size());
            let buffer = match best {
                Some(j) => free.swap_remove(j),
                None => {
                    let buffer = self.alloc_kept(bytes)?;
                    workspace.push(Arc::downgrade(&buffer));
                    buffer
                }
            };
            placed[i] = Some((buffer, bytes));
        }
        Ok(placed.into_iter().flatten().collect())
    }
}

/// Bytes of a window of `words` words: whole vec4s, at least one.
pub(super) fn window_bytes(words: usize) -> usize {
    words.div_ceil(4).max(1) * 16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_programs_are_cut_between_launches() {
        let weights = [1u64, 1, 1, 1, 6];
        assert_eq!(cuts(weights.into_iter(), 100, 1000), [5]);
        assert_eq!(cuts(weights.into_iter(), 100, 20), [2, 4, 5]);
        assert_eq!(cuts(weights.into_iter(), 100, 1), [1, 2, 3, 4, 5]);
        assert_eq!(cuts([].into_iter(), 100, 1), [0]);
    }

    #[test]
    fn windows_are_whole_vectors() {
        assert_eq!([0, 1, 4, 5].map(window_bytes), [16, 16, 16, 32]);
    }
}
