//! Where wgpu's errors become ours: error scopes around every group of calls, and what a device keeps of its own failures.

use super::Gpu;
use crate::error::{Error, ErrorKind, Result};
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Failures that arrive outside of a call: kept here until a call can return them.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Why the device is gone. Once set, every call returns it.
    lost: OnceLock<String>,
    /// An error that no scope caught (on our own devices only). Returned once.
    uncaptured: Mutex<Option<Error>>,
}

impl Kept {
    pub(super) fn lose(&self, why: impl Into<String>) {
        let _ = self.lost.set(why.into());
    }

    pub(super) fn keep(&self, error: Error) {
        self.uncaptured.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }
}

/// The value of a future that is ready at once, as all of wgpu's are outside of a browser; else wait for it.
pub(super) fn ready<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => pollster::block_on(future),
    }
}

/// wgpu's text without its frame (`Validation Error\n\nCaused by:\n`).
fn tidy(description: &str) -> String {
    let text = description.split_once("Caused by:").map_or(description, |(_, t)| t);
    text.trim().to_string()
}

impl Gpu {
    /// The error of a lost device, or one that was kept.
    pub(super) fn alive(&self) -> Result<()> {
        if let Some(why) = self.kept.lost.get() {
            return Err(Error::device_lost(format!("{}: the device is lost: {why}", self.info.short_name())));
        }
        match self.kept.uncaptured.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Whether [`Gpu::alive`] has an error to tell.
    pub(super) fn troubled(&self) -> bool {
        self.kept.lost.get().is_some() || self.kept.uncaptured.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Run wgpu calls inside error scopes, on this thread. What they caught is the error of `what`, and comes before an error of `f` itself.
    /// Scopes are per thread and must not be held across an await, so `f` is plain code.
    pub(super) fn guarded<T>(&self, what: &str, f: impl FnOnce() -> Result<T>) -> Result<T> {
        self.alive()?;
        let internal = self.device.push_error_scope(wgpu::ErrorFilter::Internal);
        let memory = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let validation = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let value = f();
        let caught = [ready(validation.pop()), ready(memory.pop()), ready(internal.pop())].into_iter().flatten().next();
        // Callbacks, the one for a lost device among them, run in polls only.
        let _ = self.poll(wgpu::PollType::Poll);
        self.alive()?;
        let error = match caught {
            // Not accepted and nothing said about why: calls on a lost device fail without a word.
            None if matches!(&value, Err(e) if matches!(e.kind(), ErrorKind::DeviceLost(_))) => {
                self.kept.lose("a submission was not accepted");
                return self.alive().and(value);
            }
            None => return value,
            Some(wgpu::Error::OutOfMemory { .. }) => Error::out_of_memory(format!("{what}: the device is out of memory: {}", self.memory_use())),
            Some(wgpu::Error::Validation { description, .. } | wgpu::Error::Internal { description, .. }) => {
                Error::kernel(format!("{what}: {}", tidy(&description)))
            }
        };
        // On a lost device even good calls are refused, for the buffers that could not be made: say what really happened.
        self.quietly(|| {
            if self.submit(None).is_err() {
                self.kept.lose("calls are refused");
            }
        });
        self.alive()?;
        Err(error)
    }

    /// Poll the device. wgpu 30 panics where the driver reports the loss of the device to a poll; here that is a loss, kept as such.
    pub(super) fn poll(&self, how: wgpu::PollType) -> Result<(), wgpu::PollError> {
        let _shared = self.polls.read().unwrap_or_else(PoisonError::into_inner);
        match std::panic::catch_unwind(AssertUnwindSafe(|| self.device.poll(how))) {
            Ok(polled) => polled.map(drop),
            Err(_) => {
                self.kept.lose("the driver failed while it was waited for");
                Ok(())
            }
        }
    }

    /// Whether the submission of that number was taken, which wgpu says to a wait for it alone. This does not wait.
    pub(super) fn accepted(&self, index: &wgpu::SubmissionIndex) -> bool {
        // wgpu 30 takes it for a fault when another thread collects what ended between this wait's end and its look at the queue, and panics. So no two go
        // on at once; where another thread polls now, it or the wait for the result learns what is to be learned.
        let Ok(_alone) = self.polls.try_write() else { return true };
        let how = wgpu::PollType::Wait { submission_index: Some(index.clone()), timeout: Some(Duration::ZERO) };
        // The number is looked at first: a panic comes after. If it says that the device is lost, so will the next poll.
        !matches!(std::panic::catch_unwind(AssertUnwindSafe(|| self.device.poll(how))), Ok(Err(wgpu::PollError::WrongSubmissionIndex(..))))
    }

    /// Calls that give something back (unmap, destroy): whatever they say is no one's error, and must not reach a caller's handler.
    pub(super) fn quietly(&self, f: impl FnOnce()) {
        let internal = self.device.push_error_scope(wgpu::ErrorFilter::Internal);
        let memory = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let validation = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
        f();
        drop((validation.pop(), memory.pop(), internal.pop()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_taken_off_the_text() {
        assert_eq!(tidy("Validation Error\n\nCaused by:\n  In x\n    no\n"), "In x\n    no");
        assert_eq!(tidy("plain"), "plain");
    }
}
