//! Device memory: one pool of buffers per device, counted and capped. Storage, uniforms and temporaries share it; staging buffers have their own lists.

use super::Gpu;
use super::images::Memory;
use crate::device::{Buffer, Counters, Storage, human};
use crate::error::{Error, ErrorKind, Result};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// The alignment of slices: what uniform and storage offsets need on every device.
pub(super) const ALIGN: usize = 256;

/// What a buffer is for. One usage for everything a shader can see, so that one pool serves all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Use {
    /// Storage, uniforms, copies in both directions.
    Shader,
    /// The same, kept by a program for as long as it lives.
    Program,
    /// Read by the host.
    Staging,
    /// Filled with timestamps.
    Queries,
}

impl Use {
    fn usage(self) -> wgpu::BufferUsages {
        match self {
            Use::Shader | Use::Program => {
                wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST
            }
            Use::Staging => wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            Use::Queries => wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
        }
    }
}

/// A buffer of the driver, with the number that bind groups are cached by. Numbers are never used twice.
#[derive(Debug)]
struct Raw {
    id: u64,
    buffer: wgpu::Buffer,
    /// The memory behind it, where images can lie over it.
    memory: Option<Memory>,
    /// Those that do: offset and length of each.
    images: Mutex<Vec<(usize, usize, wgpu::TextureView)>>,
    /// Whether a cached bind group may hold it.
    bound: AtomicBool,
}

/// Free buffers, by use and size; of each list the most recently freed comes first, because caches still know it.
#[derive(Debug, Default)]
pub(super) struct Pool {
    free: HashMap<(Use, usize), Vec<Raw>>,
    next_id: u64,
}

impl Pool {
    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}

/// Where a buffer goes when its last handle is dropped.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Home {
    Pool(Use),
    Caller,
}

/// A buffer on a GPU. Given back to the device's pool when dropped; a caller's own buffer is let go.
pub struct GpuBuffer {
    /// Weak, so that what the device itself keeps (error words, the poison) does not keep the device alive.
    gpu: Weak<Gpu>,
    device: u64,
    /// `None` only while it is dropped.
    raw: Option<Raw>,
    size: usize,
    home: Home,
}

impl GpuBuffer {
    /// The wgpu buffer. It may be longer than what was asked for.
    pub fn wgpu(&self) -> &wgpu::Buffer {
        &self.raw().buffer
    }

    /// Bytes of the whole buffer.
    pub fn size(&self) -> usize {
        self.size
    }

    pub(crate) fn id(&self) -> u64 {
        self.raw().id
    }

    pub(super) fn memory(&self) -> Option<Memory> {
        self.raw().memory
    }

    /// The image over a part of it, which `make` makes where there is none yet.
    pub(super) fn image(&self, offset: usize, bytes: usize, make: impl FnOnce() -> Result<wgpu::TextureView>) -> Result<wgpu::TextureView> {
        /// More parts than any buffer has whose parts come round again.
        const MOST: usize = 256;
        let mut images = self.raw().images.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, _, view)) = images.iter().find(|(o, b, _)| (*o, *b) == (offset, bytes)) {
            return Ok(view.clone());
        }
        let view = make()?;
        if images.len() == MOST {
            images.clear();
        }
        images.push((offset, bytes, view.clone()));
        Ok(view)
    }

    pub(super) fn mark_bound(&self) {
        self.raw().bound.store(true, Ordering::Relaxed);
    }

    fn raw(&self) -> &Raw {
        self.raw.as_ref().expect("a buffer has its handle until it is dropped")
    }
}

impl std::fmt::Debug for GpuBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GpuBuffer({}, {} bytes)", self.id(), self.size)
    }
}

impl Drop for GpuBuffer {
    fn drop(&mut self) {
        let (Some(raw), Some(gpu)) = (self.raw.take(), self.gpu.upgrade()) else { return };
        match self.home {
            Home::Pool(u) => {
                Counters::sub(&gpu.counters.bytes_in_use, self.size as u64);
                gpu.pool().free.entry((u, self.size)).or_default().push(raw);
            }
            // Cached bind groups would keep the caller's memory alive.
            Home::Caller if raw.bound.into_inner() => gpu.binds().forget(raw.id),
            Home::Caller => {}
        }
    }
}

/// The size that a request is rounded up to: four steps an octave, so that at most a quarter is lost and sizes near each other share buffers.
fn class(bytes: usize, limit: usize) -> usize {
    let bytes = bytes.max(1).next_multiple_of(ALIGN);
    let step = (bytes.next_power_of_two() / 8).max(ALIGN);
    let size = bytes.next_multiple_of(step);
    // At the very top of a device's range the class may not fit where the request does.
    if size > limit { bytes.min(limit).max(4) } else { size }
}

impl Gpu {
    pub(super) fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuse to hold more than this many bytes.
    pub fn set_cap(&self, bytes: u64) {
        self.cap.store(bytes, Ordering::Relaxed);
    }

    /// The cap in bytes; `u64::MAX` where there is none.
    pub fn cap(&self) -> u64 {
        self.cap.load(Ordering::Relaxed)
    }

    pub(super) fn memory_use(&self) -> String {
        let c = self.counters.read();
        format!("{} in use, {} reserved", human(c.bytes_in_use), human(c.bytes_reserved))
    }

    /// A buffer of at least `bytes` bytes, its content undefined.
    pub fn alloc(self: &Arc<Self>, bytes: usize) -> Result<Arc<GpuBuffer>> {
        self.alloc_for(Use::Shader, bytes)
    }

    /// A buffer that a program keeps for as long as it lives. Small ones have free lists of their own: taken from those of values, one would be missing there
    /// for the loop that had freed it, and that loop would make one in the middle of its steady state.
    pub(super) fn alloc_kept(self: &Arc<Self>, bytes: usize) -> Result<Arc<GpuBuffer>> {
        const SMALL: usize = 64 << 10;
        self.alloc_for(if bytes > SMALL { Use::Shader } else { Use::Program }, bytes)
    }

    pub(super) fn alloc_for(self: &Arc<Self>, u: Use, bytes: usize) -> Result<Arc<GpuBuffer>> {
        self.alive()?;
        let caps = &self.info.caps;
        let limit = match u {
            Use::Shader | Use::Program => caps.max_binding_bytes.min(caps.max_buffer_bytes),
            Use::Staging | Use::Queries => caps.max_buffer_bytes,
        } as usize;
        if bytes > limit {
            return Err(Error::out_of_memory(format!("{}: one buffer of {bytes} bytes is asked for, the device's limit is {limit}", self.info.short_name()))
                .help("use a smaller batch, or split the tensor"));
        }
        let size = class(bytes, limit);
        let reused = self.pool().free.get_mut(&(u, size)).and_then(Vec::pop);
        let raw = match reused {
            Some(raw) => raw,
            None => self.fresh(u, size, bytes)?,
        };
        self.counters.in_use(size as u64);
        Ok(Arc::new(GpuBuffer { gpu: Arc::downgrade(self), device: self.id, raw: Some(raw), size, home: Home::Pool(u) }))
    }

    /// A new buffer from the driver, after the cap's say. Where memory is short, free buffers of other sizes are given back first.
    fn fresh(&self, u: Use, size: usize, asked: usize) -> Result<Raw> {
        self.reserve(size, asked)?;
        let short = |e: &Error| matches!(e.kind(), ErrorKind::OutOfMemory(_));
        let made = match self.create_buffer(u, size) {
            Err(e) if short(&e) && self.trim() > 0 => self.create_buffer(u, size),
            made => made,
        };
        made.map(|(buffer, memory)| Raw { id: self.pool().id(), buffer, memory, images: Mutex::default(), bound: AtomicBool::new(false) }).map_err(|e| {
            Counters::sub(&self.counters.bytes_reserved, size as u64);
            if short(&e) { self.no_memory("the device is out of memory", asked) } else { e }
        })
    }

    fn no_memory(&self, what: &str, asked: usize) -> Error {
        let cap = if self.cap() == u64::MAX { String::new() } else { format!(", cap {}", human(self.cap())) };
        let name = self.info.short_name();
        Error::out_of_memory(format!("{name}: {what}: {} asked for, {}{cap}", human(asked as u64), self.memory_use()))
            .help("use a smaller batch, drop tensors, or raise the cap where there is one")
    }

    /// Count `size` bytes as reserved, or say why not.
    fn reserve(&self, size: usize, asked: usize) -> Result<()> {
        let fits = |gpu: &Gpu| {
            let add = |held: u64| held.checked_add(size as u64).filter(|total| *total <= gpu.cap());
            gpu.counters.bytes_reserved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
        };
        if fits(self) || (self.trim() > 0 && fits(self)) {
            return Ok(());
        }
        Err(self.no_memory("the memory cap is reached", asked))
    }

    /// Give all free buffers back to the driver; how many bytes that were.
    pub fn trim(&self) -> u64 {
        let freed: Vec<((Use, usize), Vec<Raw>)> = self.pool().free.drain().collect();
        let bytes: u64 = freed.iter().map(|((_, size), list)| (size * list.len()) as u64).sum();
        if bytes == 0 {
            return 0;
        }
        self.binds().clear();
        // Destroyed, not only dropped: whoever still holds a handle to one (a bind group in use elsewhere) does not keep its memory.
        self.quietly(|| freed.iter().flat_map(|(_, list)| list).for_each(|raw| raw.buffer.destroy()));
        drop(freed);
        // The driver gets memory back only when the work that used it is done.
        let _ = self.poll(wgpu::PollType::wait_indefinitely());
        Counters::sub(&self.counters.bytes_reserved, bytes);
        bytes
    }

    /// The one place that creates buffers, and counts it.
    fn create_buffer(&self, u: Use, size: usize) -> Result<(wgpu::Buffer, Option<Memory>)> {
        self.guarded(&format!("{}: a buffer of {size} bytes", self.info.short_name()), || {
            Counters::add(&self.counters.create_buffer, 1);
            crate::env::tell(2, || format!("new buffer of {size} bytes, {u:?}"));
            if self.info.caps.images > 0 && matches!(u, Use::Shader | Use::Program) {
                return self.create_with_image(size, u.usage()).map(|(buffer, memory)| (buffer, Some(memory)));
            }
            let label = if u == Use::Staging { "wgrad staging" } else { "wgrad" };
            let described = wgpu::BufferDescriptor { label: Some(label), size: size as u64, usage: u.usage(), mapped_at_creation: false };
            Ok((self.device.create_buffer(&described), None))
        })
    }

    /// A caller's buffer as one of ours: bound and copied like any other, never pooled and not counted. What it can be used for follows from the usages
    /// it was created with: `STORAGE` to bind it, `COPY_SRC` to read it back, `COPY_DST` to upload to it.
    pub fn import(self: &Arc<Self>, buffer: wgpu::Buffer) -> Arc<GpuBuffer> {
        let size = buffer.size() as usize;
        let id = self.pool().id();
        Arc::new(GpuBuffer {
            gpu: Arc::downgrade(self),
            device: self.id,
            raw: Some(Raw { id, buffer, memory: None, images: Mutex::default(), bound: AtomicBool::new(false) }),
            size,
            home: Home::Caller,
        })
    }

    /// A caller's buffer as a value of `bytes` bytes, which it must hold and which kernels must be able to bind.
    pub(crate) fn import_value(self: &Arc<Self>, buffer: wgpu::Buffer, bytes: usize) -> Result<Storage> {
        let name = self.info.short_name();
        if buffer.size() < bytes as u64 {
            return Err(Error::shape(format!("{name}: a buffer of {} bytes does not hold {bytes}", buffer.size())));
        }
        let limit = self.info.caps.max_binding_bytes;
        if bytes as u64 > limit {
            return Err(Error::shape(format!("{name}: a value of {bytes} bytes is above the {limit} that can be bound")));
        }
        if !buffer.usage().contains(wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC) {
            return Err(Error::invalid(format!("{name}: the buffer was made for {:?}", buffer.usage())).help("make it with STORAGE and COPY_SRC at least"));
        }
        Ok(Storage { buffer: Buffer::Gpu(self.import(buffer)), offset: 0, bytes })
    }

    /// Copy host bytes into a buffer, before everything that is submitted later. Offset and length are multiples of 4.
    pub fn upload(&self, buffer: &GpuBuffer, offset: usize, bytes: &[u8]) -> Result<()> {
        if !offset.is_multiple_of(4) || !bytes.len().is_multiple_of(4) || offset + bytes.len() > buffer.size {
            return Err(Error::internal(format!("upload: {} bytes at {offset} into a buffer of {} bytes", bytes.len(), buffer.size)));
        }
        if bytes.is_empty() {
            return self.alive();
        }
        self.guarded("upload", || {
            self.write(&self.counters.uploads, buffer, offset, bytes);
            Ok(())
        })
    }

    /// The one place that writes buffers from the host, and counts it. Inside a scope.
    pub(super) fn write(&self, counter: &AtomicU64, buffer: &GpuBuffer, offset: usize, bytes: &[u8]) {
        Counters::add(counter, 1);
        self.queue.write_buffer(buffer.wgpu(), offset as u64, bytes);
    }

    /// The buffer of a storage that must live on this device.
    pub(super) fn own<'a>(&self, storage: &'a Storage, what: &str) -> Result<&'a Arc<GpuBuffer>> {
        match &storage.buffer {
            Buffer::Gpu(b) if b.device == self.id => {
                if storage.offset.checked_add(storage.bytes).is_none_or(|end| end > b.size) {
                    return Err(Error::internal(format!("{what}: bytes {}..+{} of a buffer of {} bytes", storage.offset, storage.bytes, b.size)));
                }
                Ok(b)
            }
            Buffer::Gpu(b) => Err(Error::device(format!("{what}: a buffer of device {} on device {} ({})", b.device, self.id, self.info.short_name()))),
            Buffer::Cpu(_) => Err(Error::device(format!("{what}: a buffer of the cpu on {}", self.info.short_name()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_waste_at_most_a_quarter() {
        for bytes in (1..5_000_000usize).step_by(997) {
            let size = class(bytes, usize::MAX);
            assert!(size >= bytes && size.is_multiple_of(ALIGN));
            assert!(bytes < 4 * ALIGN || size <= bytes.next_multiple_of(ALIGN) * 5 / 4, "{bytes} -> {size}");
        }
        assert_eq!(class(256 << 20, 256 << 20), 256 << 20);
        assert_eq!(class((200 << 20) + 4, 201 << 20), (200 << 20) + 256);
    }
}
