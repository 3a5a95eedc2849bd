//! Memory that each thread keeps for what lives no longer than a piece of work.

use std::cell::RefCell;
use std::mem::take;

/// The bytes of a cache line: vectors that begin there are loaded at once.
const LINE: usize = 64;

/// Memory of `n` elements that begins at a cache line, of undefined content. Kept by the thread.
pub fn with_scratch<R>(n: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    thread_local! {
        static SPARE: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
    }
    // Taken out while it is used: who uses it may want some more.
    let mut memory = SPARE.with_borrow_mut(|spare| spare.pop()).unwrap_or_default();
    let most = n + LINE / size_of::<f32>();
    if memory.len() < most {
        memory = Vec::new();
        memory.resize(most, 0.0);
    }
    let start = memory.as_ptr().align_offset(LINE).min(LINE / size_of::<f32>());
    let result = f(&mut memory[start..start + n]);
    SPARE.with_borrow_mut(|spare| spare.push(take(&mut memory)));
    result
}
