//! Ctrl-C: the first asks the run to end, the second ends the process.

use super::Exit;
use anyhow::Context;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// A flag that Ctrl-C sets.
pub fn watch() -> anyhow::Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let set = flag.clone();
    let handler = move || {
        if set.swap(true, SeqCst) {
            std::process::exit(i32::from(Exit::Interrupted as u8));
        }
        say!("interrupted: ending after this step (again to end at once)");
    };
    ctrlc::set_handler(handler).context("cannot watch for Ctrl-C")?;
    Ok(flag)
}
