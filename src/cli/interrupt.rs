//! Ctrl-C: the first asks the run to end, the second ends the process.

use super::Exit;
use anyhow::Context;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};

/// A flag that Ctrl-C sets: one for all commands that a process runs, one after the other.
pub fn watch() -> anyhow::Result<Arc<AtomicBool>> {
    static WATCHED: Mutex<Option<Arc<AtomicBool>>> = Mutex::new(None);
    let mut watched = WATCHED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(flag) = &*watched {
        return Ok(flag.clone());
    }
    let flag = Arc::new(AtomicBool::new(false));
    let set = flag.clone();
    let handler = move || {
        if set.swap(true, SeqCst) {
            std::process::exit(i32::from(Exit::Interrupted as u8));
        }
        say!("interrupted: ending after this step (again to end at once)");
    };
    ctrlc::set_handler(handler).context("cannot watch for Ctrl-C")?;
    *watched = Some(flag.clone());
    Ok(flag)
}
