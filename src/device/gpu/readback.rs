//! Values on their way to the host: staging buffers, mapping without blocking, and the error words that travel along.

use super::memory::{GpuBuffer, Use};
use super::pipeline::Bound;
use super::{Gpu, Prepared};
use crate::device::{Check, Counters, Storage};
use crate::error::{Error, Result};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::thread::ThreadId;
use std::time::Duration;

/// The error words of one program: its kernels OR 1 into word n where check n fails.
#[derive(Debug)]
pub(super) struct ErrorWords {
    pub(super) buffer: Arc<GpuBuffer>,
    checks: Vec<Check>,
}

impl ErrorWords {
    pub(super) fn bytes(&self) -> usize {
        self.checks.len() * 4
    }
}

/// Error words that nobody has read yet, and the threads whose runs may have set them.
type Unread = (Arc<ErrorWords>, Vec<ThreadId>);

/// Programs whose words nobody has read since they ran, and who ran them.
#[derive(Debug, Default)]
pub(super) struct Checks {
    pending: Vec<Unread>,
    /// An error that another thread's readback found first: kept for each thread that ran the program, so that no one computes on unaware.
    kept: HashMap<ThreadId, Error>,
}

impl Checks {
    pub(super) fn add(&mut self, words: &Arc<ErrorWords>, threads: &[ThreadId]) {
        match self.pending.iter_mut().find(|(w, _)| Arc::ptr_eq(w, words)) {
            Some((_, list)) => threads.iter().for_each(|t| {
                if !list.contains(t) {
                    list.push(*t);
                }
            }),
            None => self.pending.push((words.clone(), threads.to_vec())),
        }
    }
}

/// What the mapping callback leaves.
#[derive(Debug, Default)]
struct Mapped {
    state: Mutex<(Option<bool>, Option<Waker>)>,
    changed: Condvar,
}

impl Mapped {
    fn lock(&self) -> MutexGuard<'_, (Option<bool>, Option<Waker>)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, ok: bool) {
        let waker = {
            let mut state = self.lock();
            state.0 = Some(ok);
            state.1.take()
        };
        self.changed.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Copies to the host, planned: where each range goes in the staging buffer.
pub(super) struct Staged {
    buffer: Arc<GpuBuffer>,
    ranges: Vec<Range<usize>>,
    checks: Vec<(Arc<ErrorWords>, Vec<ThreadId>, Range<usize>)>,
}

impl Staged {
    /// Encode the copies.
    pub(super) fn encode(&self, encoder: &mut wgpu::CommandEncoder, reads: &[Bound<'_>]) {
        for (from, to) in reads.iter().zip(&self.ranges).filter(|(from, _)| from.bytes > 0) {
            encoder.copy_buffer_to_buffer(from.buffer.wgpu(), from.offset as u64, self.buffer.wgpu(), to.start as u64, Some(from.bytes as u64));
        }
        for (words, _, to) in &self.checks {
            encoder.copy_buffer_to_buffer(words.buffer.wgpu(), 0, self.buffer.wgpu(), to.start as u64, Some(to.len() as u64));
        }
    }
}

/// Values that are being read. [`wait`](Readback::wait) for them, or [`read`](Readback::read) them where blocking is not possible.
#[derive(Debug)]
pub struct Readback {
    gpu: Arc<Gpu>,
    buffer: Arc<GpuBuffer>,
    ranges: Vec<Range<usize>>,
    checks: Vec<(Arc<ErrorWords>, Vec<ThreadId>, Range<usize>)>,
    submission: wgpu::SubmissionIndex,
    mapped: Arc<Mapped>,
}

impl Gpu {
    pub(super) fn checks(&self) -> MutexGuard<'_, Checks> {
        self.checks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Words for a program's checks, zeroed.
    pub(super) fn error_words(self: &Arc<Self>, checks: Vec<Check>) -> Result<ErrorWords> {
        let words = ErrorWords { buffer: self.alloc_kept(checks.len() * 4)?, checks };
        self.upload(&words.buffer, 0, &vec![0; words.bytes()])?;
        Ok(words)
    }

    /// Read these ranges as they are after everything submitted so far.
    pub fn read(self: &Arc<Self>, ranges: &[Storage]) -> Result<Readback> {
        let reads = self.bounds(ranges, "read")?;
        let staged = self.stage(&reads, None)?;
        let done = self.guarded("read", || {
            let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            staged.encode(&mut encoder, &reads);
            self.submit(Some(encoder.finish()))
        });
        self.map(staged, done)
    }

    /// A staging buffer for these reads and for all pending error words, those of `program` (about to run) among them.
    pub(super) fn stage(self: &Arc<Self>, reads: &[Bound<'_>], program: Option<&Prepared>) -> Result<Staged> {
        let pending = {
            let mut checks = self.checks();
            if let Some(words) = program.and_then(|p| p.errors.as_ref()) {
                checks.add(words, &[std::thread::current().id()]);
            }
            std::mem::take(&mut checks.pending)
        };
        self.staged(reads, pending)
    }

    /// A staging buffer for these reads and these error words.
    pub(super) fn staged(self: &Arc<Self>, reads: &[Bound<'_>], mut pending: Vec<Unread>) -> Result<Staged> {
        let mut at = 0;
        let mut take = |bytes: usize| {
            at += bytes;
            at - bytes..at
        };
        let ranges = reads.iter().map(|r| take(r.bytes)).collect();
        let checks: Vec<_> = pending
            .drain(..)
            .map(|(words, threads)| {
                let range = take(words.bytes());
                (words, threads, range)
            })
            .collect();
        match self.alloc_for(Use::Staging, at) {
            Ok(buffer) => Ok(Staged { buffer, ranges, checks }),
            Err(e) => {
                self.unread(&checks);
                Err(e)
            }
        }
    }

    /// Error words that were about to be read and were not.
    fn unread(&self, list: &[(Arc<ErrorWords>, Vec<ThreadId>, Range<usize>)]) {
        let mut checks = self.checks();
        list.iter().for_each(|(words, threads, _)| checks.add(words, threads));
    }

    /// Start mapping what was submitted.
    pub(super) fn map(self: &Arc<Self>, staged: Staged, submitted: Result<wgpu::SubmissionIndex>) -> Result<Readback> {
        let mapped = Arc::new(Mapped::default());
        let started = submitted.and_then(|submission| {
            let setter = mapped.clone();
            self.guarded("readback", || {
                staged.buffer.wgpu().map_async(wgpu::MapMode::Read, .., move |r| setter.set(r.is_ok()));
                Ok(submission)
            })
        });
        match started {
            Ok(submission) => {
                Counters::add(&self.counters.readbacks, 1);
                let Staged { buffer, ranges, checks } = staged;
                Ok(Readback { gpu: self.clone(), buffer, ranges, checks, submission, mapped })
            }
            Err(e) => {
                self.unread(&staged.checks);
                Err(e)
            }
        }
    }
}

/// How often, a millisecond apart, a finished submission is asked for its mapping: another thread's poll may be the one that delivers it.
const PATIENCE: u32 = 10_000;

impl Readback {
    /// Whether the values are there already. Never blocks.
    pub fn is_ready(&self) -> bool {
        let _ = self.gpu.poll(wgpu::PollType::Poll);
        self.mapped.lock().0.is_some()
    }

    /// Wait for the values: the bytes of each range, in order. Not in a browser.
    ///
    /// # Errors
    /// A check that failed since the last read (its kernel met data it cannot use), or a lost device: then there are no values.
    pub fn wait(mut self) -> Result<Vec<Vec<u8>>> {
        for _ in 0..PATIENCE {
            if self.mapped.lock().0.is_some() {
                break;
            }
            let wait = wgpu::PollType::Wait { submission_index: Some(self.submission.clone()), timeout: None };
            self.gpu.poll(wait).map_err(|e| Error::internal(format!("readback: waiting failed: {e}")))?;
            let state = self.mapped.lock();
            if state.0.is_none() {
                drop(self.mapped.changed.wait_timeout(state, Duration::from_millis(1)));
                self.gpu.alive()?;
            }
        }
        self.finish()
    }

    /// The same without blocking. Outside of a browser it is this future that drives the device, so its task is woken until the values are there.
    pub async fn read(mut self) -> Result<Vec<Vec<u8>>> {
        std::future::poll_fn(|cx| {
            let _ = self.gpu.poll(wgpu::PollType::Poll);
            let mut state = self.mapped.lock();
            if state.0.is_some() || self.gpu.alive().is_err() {
                return Poll::Ready(());
            }
            state.1 = Some(cx.waker().clone());
            drop(state);
            if cfg!(not(target_arch = "wasm32")) {
                std::thread::yield_now();
                cx.waker().wake_by_ref();
            }
            Poll::Pending
        })
        .await;
        self.finish()
    }

    fn finish(&mut self) -> Result<Vec<Vec<u8>>> {
        self.gpu.alive()?;
        if self.mapped.lock().0 != Some(true) {
            // Mapping a valid staging buffer fails for one reason. On a caller's device this is where we learn of it.
            self.gpu.kept.lose("a readback could not be mapped");
            self.gpu.alive()?;
        }
        let me = std::thread::current().id();
        let kept = self.gpu.checks().kept.remove(&me);
        let (values, faults) = {
            let view = self.buffer.wgpu().slice(..).get_mapped_range().map_err(|e| Error::internal(format!("readback: {e}")))?;
            let values: Vec<Vec<u8>> = self.ranges.iter().map(|r| view[r.clone()].to_vec()).collect();
            let fault = |range: &Range<usize>| view[range.clone()].chunks_exact(4).position(|w| w != [0; 4]);
            (values, self.checks.iter().map(|(_, _, range)| fault(range)).collect::<Vec<_>>())
        };
        let mut first = kept;
        for ((words, threads, _), n) in std::mem::take(&mut self.checks).into_iter().zip(faults) {
            let Some(n) = n else { continue };
            let error = Error::data(words.checks[n].message.to_string());
            self.gpu.upload(&words.buffer, 0, &vec![0; words.bytes()])?;
            for thread in threads.into_iter().filter(|t| *t != me) {
                self.gpu.checks().kept.insert(thread, error.clone());
            }
            first.get_or_insert(error);
        }
        first.map_or(Ok(values), Err)
    }
}

impl Drop for Readback {
    fn drop(&mut self) {
        // What was not looked at is still to be reported.
        self.gpu.unread(&self.checks);
        // Unmapping also cancels a mapping that is under way. The buffer then goes back to the pool.
        self.gpu.quietly(|| self.buffer.wgpu().unmap());
    }
}
