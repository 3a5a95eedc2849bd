//! Host memory: aligned blocks, the free lists they come from and go back to, and the cap.
//!
//! Every byte of a device's buffers is read and written under one lock, [`Cpu::lock`]: a run of a program, an upload and a read
//! each hold it from beginning to end. That is what the `unsafe` in this folder rests on.

use super::Cpu;
use super::run::Workspace;
use crate::device::Counters;
use crate::error::{Error, Result};
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, MutexGuard, PoisonError};

/// Alignment of every block and temporary: a cache line, and more than any element or vector type wants.
pub(super) const ALIGN: usize = 64;

/// The smallest block.
const SMALLEST: usize = 256;

/// Memory from the allocator, initialised (with zeros at first). One of 0 bytes holds none.
#[derive(Debug)]
pub(super) struct Block {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: a block owns its memory as a Box does; the pointer is not shared with anything that stays on a thread.
unsafe impl Send for Block {}
// SAFETY: a shared block gives out addresses only (`span`); turning them into references is unsafe and has its own conditions.
unsafe impl Sync for Block {}

impl Block {
    pub(super) const fn none() -> Block {
        Block { start: NonNull::dangling(), bytes: 0 }
    }

    /// `None` where the allocator has no such block.
    fn new(bytes: usize) -> Option<Block> {
        let layout = Layout::from_size_align(bytes, ALIGN).ok()?;
        if bytes == 0 {
            return Some(Block::none());
        }
        // SAFETY: the size is not zero. Zeroed, because a `&[u8]` must not see uninitialised bytes.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        Some(Block { start, bytes })
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The addresses `offset..offset + bytes`, if they lie inside.
    pub(super) fn span(&self, offset: usize, bytes: usize) -> Option<Span> {
        let end = offset.checked_add(bytes)?;
        // SAFETY: `offset <= end <= self.bytes`, so the sum stays in the allocation (or is the dangling pointer plus 0).
        (end <= self.bytes).then(|| Span { start: unsafe { self.start.add(offset) }, bytes })
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if self.bytes > 0 {
            // SAFETY: allocated in `new` with exactly this size and alignment, and given back once.
            unsafe { dealloc(self.start.as_ptr(), Layout::from_size_align_unchecked(self.bytes, ALIGN)) }
        }
    }
}

/// Addresses inside a block. It borrows nothing: whoever makes one keeps the block alive while it is used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    start: NonNull<u8>,
    bytes: usize,
}

impl Span {
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The first `bytes` of it.
    pub(super) fn first(self, bytes: usize) -> Option<Span> {
        (bytes <= self.bytes).then_some(Span { bytes, ..self })
    }

    /// Whether the two have a byte in common.
    pub(super) fn overlaps(&self, other: &Span) -> bool {
        let (a, b) = (self.start.addr().get(), other.start.addr().get());
        self.bytes > 0 && other.bytes > 0 && a < b + other.bytes && b < a + self.bytes
    }

    /// The bytes, to read.
    ///
    /// # Safety
    /// The block is alive and the device's lock held for all of `'a`, and nothing writes to these bytes in that time.
    pub(super) unsafe fn read<'a>(self) -> &'a [u8] {
        // SAFETY: in bounds by construction, initialised since allocation; the rest is the caller's promise.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.bytes) }
    }

    /// The bytes, to write.
    ///
    /// # Safety
    /// The block is alive and the device's lock held for all of `'a`, and nothing else reads or writes these bytes in that time.
    pub(super) unsafe fn write<'a>(self) -> &'a mut [u8] {
        // SAFETY: as in `read`, and exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.bytes) }
    }
}

/// Spans of which no two overlap, in the order of their addresses: one search tells whether another overlaps any.
pub(super) struct Apart(Vec<Span>);

impl Apart {
    /// `None` where two of them overlap.
    pub(super) fn new(spans: &[Span]) -> Option<Apart> {
        let mut sorted: Vec<Span> = spans.iter().copied().filter(|s| s.bytes > 0).collect();
        sorted.sort_unstable_by_key(|s| s.start);
        sorted.windows(2).all(|pair| !pair[0].overlaps(&pair[1])).then_some(Apart(sorted))
    }

    /// Whether one of them has a byte in common with `span`.
    pub(super) fn overlap(&self, span: &Span) -> bool {
        let behind = self.0.partition_point(|s| s.start <= span.start);
        self.0[behind.saturating_sub(1)..].iter().take(2).any(|s| s.overlaps(span))
    }
}

/// A buffer in host memory. Dropped, its block goes back to the device's pool.
pub struct CpuBuffer {
    block: Block,
    bytes: usize,
    device: Arc<Cpu>,
}

impl std::fmt::Debug for CpuBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CpuBuffer({} bytes at {:p})", self.bytes, self.block.start)
    }
}

impl Drop for CpuBuffer {
    fn drop(&mut self) {
        Counters::sub(&self.device.counters.bytes_in_use, self.bytes as u64);
        let block = std::mem::replace(&mut self.block, Block::none());
        self.device.pool().free.entry(block.bytes).or_default().push(block);
    }
}

/// Free blocks, by size, each list in the order in which they were freed.
///
/// A request takes blocks of its own size class only. So the classes don't disturb each other, and a loop whose steps
/// hold the same sizes at the same time allocates nothing after its first step.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    free: BTreeMap<usize, Vec<Block>>,
}

/// The size of block that serves a request: four classes between a power of two and the next, so less than 25 % is waste.
fn class(bytes: usize) -> Option<usize> {
    if bytes <= SMALLEST {
        return Some(SMALLEST);
    }
    let step = (1usize << bytes.ilog2()) / 4;
    Some(bytes.checked_add(step - 1)? / step * step)
}

impl Cpu {
    fn pool(&self) -> MutexGuard<'_, Pool> {
        // A panic while the lists are held leaves them whole: every change is one push or pop.
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The device's lock: see the head of this file. An op that uses its own device from inside its work would wait here for ever.
    pub(super) fn lock(&self) -> MutexGuard<'_, Workspace> {
        // The workspace holds no value between runs, so one that a panic left behind is as good as any.
        self.workspace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A buffer of at least `bytes` bytes, of undefined content: the most recently freed one of its size class, else a fresh one.
    pub(crate) fn alloc(self: &Arc<Self>, bytes: usize) -> Result<Arc<CpuBuffer>> {
        let size = class(bytes).ok_or_else(|| self.no_memory(bytes, "more than the address space"))?;
        let mut pool = self.pool();
        let block = match pool.free.get_mut(&size).and_then(Vec::pop) {
            Some(block) => block,
            None => self.reserve(&mut pool, size)?,
        };
        drop(pool);
        self.counters.in_use(bytes as u64);
        Ok(Arc::new(CpuBuffer { block, bytes, device: self.clone() }))
    }

    /// A block for the workspace. Blocks reserved come back through [`Cpu::release`].
    pub(super) fn reserve_block(&self, bytes: usize) -> Result<Block> {
        self.reserve(&mut self.pool(), bytes)
    }

    /// Give a block back to the allocator.
    pub(super) fn release(&self, block: Block) {
        Counters::sub(&self.counters.bytes_reserved, block.bytes as u64);
    }

    /// A fresh block, within the cap. Where there is no room, free memory is given up first. Holding the pool makes check and count one step.
    fn reserve(&self, pool: &mut Pool, bytes: usize) -> Result<Block> {
        let fits = || self.counters.bytes_reserved.load(Relaxed).saturating_add(bytes as u64) <= self.cap.load(Relaxed);
        if !fits() {
            self.trim(pool);
        }
        if !fits() {
            return Err(self.no_memory(bytes, "over the cap"));
        }
        let block = Block::new(bytes).or_else(|| {
            self.trim(pool);
            Block::new(bytes)
        });
        let block = block.ok_or_else(|| self.no_memory(bytes, "refused by the system"))?;
        Counters::add(&self.counters.create_buffer, 1);
        Counters::add(&self.counters.bytes_reserved, bytes as u64);
        Ok(block)
    }

    /// Give all memory without a value back to the allocator: the free lists and, if no program runs, the workspace.
    fn trim(&self, pool: &mut Pool) {
        for block in std::mem::take(&mut pool.free).into_values().flatten() {
            self.release(block);
        }
        if let Ok(mut workspace) = self.workspace.try_lock() {
            self.release(workspace.take());
        }
    }

    fn no_memory(&self, bytes: usize, why: &str) -> Error {
        let now = self.counters.read();
        let cap = match self.cap.load(Relaxed) {
            u64::MAX => "none".to_string(),
            cap => format!("{cap} bytes"),
        };
        let (used, reserved) = (now.bytes_in_use, now.bytes_reserved);
        Error::out_of_memory(format!("cpu: out of memory: {bytes} bytes {why}: {used} bytes in use, {reserved} bytes reserved, cap {cap}"))
            .help("use a smaller batch or checkpointing, or raise the memory cap if there is one")
    }

    /// The bytes `offset..offset + bytes` of a buffer of this device.
    pub(super) fn span(&self, buffer: &CpuBuffer, offset: usize, bytes: usize) -> Result<Span> {
        if buffer.device.id != self.id {
            return Err(Error::internal(format!("cpu: a buffer of device {} was given to device {}", buffer.device.id, self.id)));
        }
        // Checked against what was asked for, not the block: what lies behind is nobody's.
        let end = offset.checked_add(bytes).filter(|&end| end <= buffer.bytes);
        end.and_then(|_| buffer.block.span(offset, bytes))
            .ok_or_else(|| Error::internal(format!("cpu: {bytes} bytes at {offset} lie outside a buffer of {} bytes", buffer.bytes)))
    }

    /// Copy `bytes` into a buffer.
    pub(crate) fn upload(&self, buffer: &CpuBuffer, offset: usize, bytes: &[u8]) -> Result<()> {
        let span = self.span(buffer, offset, bytes.len())?;
        let _lock = self.lock();
        // SAFETY: the buffer is borrowed and the lock held, so this is the only reference to these bytes.
        unsafe { span.write() }.copy_from_slice(bytes);
        Counters::add(&self.counters.uploads, 1);
        Ok(())
    }

    /// Copy `bytes` bytes out of a buffer.
    pub(crate) fn read(&self, buffer: &CpuBuffer, offset: usize, bytes: usize) -> Result<Vec<u8>> {
        let span = self.span(buffer, offset, bytes)?;
        let mut out = Vec::new();
        out.try_reserve_exact(bytes).map_err(|_| self.no_memory(bytes, "for a readback refused by the system"))?;
        let _lock = self.lock();
        // SAFETY: the buffer is borrowed and the lock held, so nothing writes to these bytes.
        out.extend_from_slice(unsafe { span.read() });
        Counters::add(&self.counters.readbacks, 1);
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn cpu() -> Arc<Cpu> {
        Cpu::new(0, 1, false).unwrap()
    }

    #[test]
    fn classes_waste_less_than_a_quarter() {
        assert_eq!(class(0), Some(256));
        assert_eq!(class(257), Some(320));
        assert_eq!(class(usize::MAX), None);
        for bytes in (257..100_000).step_by(7) {
            let size = class(bytes).unwrap();
            assert!(size >= bytes && (size - bytes) * 4 < bytes && size.is_multiple_of(ALIGN), "{bytes} in {size}");
            assert_eq!(class(size), Some(size));
        }
    }

    #[test]
    fn a_freed_buffer_is_taken_again() {
        let cpu = cpu();
        let (a, b) = (cpu.alloc(1000).unwrap(), cpu.alloc(1000).unwrap());
        let last = b.block.start;
        drop(a);
        drop(b);
        assert_eq!(cpu.counters.read().bytes_in_use, 0);
        let c = cpu.alloc(990).unwrap();
        assert_eq!(c.block.start, last);
        assert_eq!(c.block.start.addr().get() % ALIGN, 0);
        let now = cpu.counters.read();
        assert_eq!((now.create_buffer, now.bytes_reserved, now.bytes_in_use, now.bytes_peak), (2, 2048, 990, 2000));
    }

    #[test]
    fn what_overlaps_is_found_as_pair_by_pair() {
        let cpu = cpu();
        let buffer = cpu.alloc(8).unwrap();
        let all: Vec<Span> = (0..8).flat_map(|at| (0..=8 - at).map(move |n| (at, n))).map(|(at, n)| cpu.span(&buffer, at, n).unwrap()).collect();
        for (i, a) in all.iter().enumerate() {
            for b in &all[i + 1..] {
                let apart = Apart::new(&[*b, *a]);
                assert_eq!(apart.is_none(), a.overlaps(b), "{a:?} {b:?}");
                for span in apart.iter().flat_map(|_| &all) {
                    assert_eq!(apart.as_ref().unwrap().overlap(span), span.overlaps(a) || span.overlaps(b), "{a:?} {b:?} {span:?}");
                }
            }
        }
    }

    #[test]
    fn bytes_come_back_as_uploaded() {
        let cpu = cpu();
        let b = cpu.alloc(16).unwrap();
        cpu.upload(&b, 4, &[1, 2, 3, 4]).unwrap();
        assert_eq!(cpu.read(&b, 2, 8).unwrap(), [0, 0, 1, 2, 3, 4, 0, 0]);
        assert!(cpu.upload(&b, 13, &[0; 4]).unwrap_err().message().contains("outside a buffer of 16 bytes"));
        assert!(cpu.read(&b, usize::MAX, 2).is_err());
        let now = cpu.counters.read();
        assert_eq!((now.uploads, now.readbacks), (1, 1));
    }

    #[test]
    fn the_cap_is_an_error_and_free_memory_is_given_up_first() {
        let cpu = cpu();
        cpu.set_cap(4096);
        let held = cpu.alloc(1024).unwrap();
        drop(cpu.alloc(2048).unwrap());
        let other = cpu.alloc(2560).unwrap(); // only fits once the 2048 are gone
        assert_eq!(cpu.counters.read().bytes_reserved, 3584);
        let e = cpu.alloc(1024).unwrap_err();
        assert!(matches!(e.kind(), ErrorKind::OutOfMemory(_)));
        assert!(e.message().starts_with("cpu: out of memory: 1024 bytes over the cap: 3584 bytes in use, 3584 bytes reserved, cap 4096 bytes"), "{e}");
        drop((held, other));
        assert!(cpu.alloc(4096).is_ok());
    }

    #[test]
    fn what_the_system_refuses_is_an_error() {
        let cpu = cpu();
        for bytes in [usize::MAX, isize::MAX as usize - 4096, 1 << 60] {
            assert!(matches!(cpu.alloc(bytes).unwrap_err().kind(), ErrorKind::OutOfMemory(_)));
        }
        assert_eq!(cpu.counters.read(), Default::default());
        assert!(cpu.alloc(64).is_ok());
    }
}
