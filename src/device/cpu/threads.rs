//! Threads of the CPU backend. Work is cut by its shape alone, never by the number of threads, so that results do not depend on it.

use crate::error::{Error, Result};
use rayon::prelude::*;

/// A fixed pool of worker threads.
pub struct Threads {
    pool: Option<rayon::ThreadPool>,
    count: usize,
}

impl std::fmt::Debug for Threads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Threads({})", self.count)
    }
}

impl Threads {
    /// A pool of `count` threads; with one, everything runs on the caller's.
    pub fn new(count: usize) -> Result<Threads> {
        let pool = if count > 1 {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(count)
                .thread_name(|i| format!("wgrad-cpu-{i}"))
                .build()
                .map_err(|e| Error::device(format!("cpu: cannot start {count} threads: {e}")))?;
            Some(pool)
        } else {
            None
        };
        Ok(Threads { pool, count: count.max(1) })
    }

    /// How many threads there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Run `f(i)` for each `i` in `0..tasks`, in any order, on all threads. `f` decides from `i` alone what it does.
    pub fn each(&self, tasks: usize, f: impl Fn(usize) + Send + Sync) {
        match &self.pool {
            Some(pool) if tasks > 1 => pool.install(|| (0..tasks).into_par_iter().for_each(f)),
            _ => (0..tasks).for_each(f),
        }
    }

    /// Cut `out` into runs of `chunk` elements and run `f(start, run)` for each, on all threads.
    pub fn chunks<T: Send>(&self, out: &mut [T], chunk: usize, f: impl Fn(usize, &mut [T]) + Send + Sync) {
        let chunk = chunk.max(1);
        match &self.pool {
            Some(pool) if out.len() > chunk => pool.install(|| out.par_chunks_mut(chunk).enumerate().for_each(|(i, c)| f(i * chunk, c))),
            _ => out.chunks_mut(chunk).enumerate().for_each(|(i, c)| f(i * chunk, c)),
        }
    }

    /// Run `f(i, item)` for each item, in any order, on all threads.
    pub fn each_of<T: Send>(&self, items: Vec<T>, f: impl Fn(usize, T) + Send + Sync) {
        match &self.pool {
            Some(pool) if items.len() > 1 => pool.install(|| items.into_par_iter().enumerate().for_each(|(i, x)| f(i, x))),
            _ => items.into_iter().enumerate().for_each(|(i, x)| f(i, x)),
        }
    }
}
