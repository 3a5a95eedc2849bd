//! Pipelines, by text; bind groups, by what they bind. Both are made once and found again.

use super::Gpu;
use super::memory::GpuBuffer;
use crate::device::{Access, Counters};
use crate::error::{Error, Result};
use smallvec::SmallVec;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, MutexGuard, PoisonError};

/// A compiled kernel.
#[derive(Debug)]
pub(super) struct Pipeline {
    pub(super) id: u64,
    pub(super) raw: wgpu::ComputePipeline,
    pub(super) layout: wgpu::BindGroupLayout,
    /// How it uses its storage.
    pub(super) accesses: SmallVec<[Access; 8]>,
}

/// A pipeline that is asked for.
#[derive(Clone)]
pub(super) struct Wanted<'a> {
    /// What errors name.
    pub(super) label: &'a str,
    pub(super) text: &'a Arc<str>,
    pub(super) trusted: bool,
    pub(super) accesses: SmallVec<[Access; 8]>,
    /// Bytes of its uniform window.
    pub(super) window: usize,
}

/// What a pipeline is found by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct PipelineKey {
    text: Arc<str>,
    trusted: bool,
    accesses: SmallVec<[Access; 8]>,
}

/// All pipelines and bind group layouts of a device.
#[derive(Debug, Default)]
pub(super) struct Pipelines {
    by_text: HashMap<PipelineKey, Arc<Pipeline>>,
    layouts: HashMap<SmallVec<[Access; 8]>, (wgpu::BindGroupLayout, wgpu::PipelineLayout)>,
}

/// One binding of a bind group: which buffer, which part.
#[derive(Clone, Copy)]
pub(super) struct Bound<'a> {
    pub(super) buffer: &'a GpuBuffer,
    pub(super) offset: usize,
    pub(super) bytes: usize,
}

type BindKey = (u64, SmallVec<[(u64, u64, u64); 9]>);

/// The bind groups of all launches of a program, in order.
pub(super) type Groups = Arc<[wgpu::BindGroup]>;

/// Bind groups seen lately: each alone, and those of a whole run together, so that a loop that comes round to the same buffers looks once a run and not once a
/// launch. Two generations bound both: what was not used while a whole generation filled up is dropped.
#[derive(Debug, Default)]
pub(super) struct BindCache {
    young: HashMap<BindKey, wgpu::BindGroup>,
    old: HashMap<BindKey, wgpu::BindGroup>,
    young_runs: HashMap<RunKey, Groups>,
    old_runs: HashMap<RunKey, Groups>,
}

/// A run as far as bind groups go: the program's number, then buffer, offset and length of what stands behind each leaf and output, and of copies.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RunKey(Box<[u64]>);

impl RunKey {
    pub(super) fn new<'a>(program: u64, bound: impl Iterator<Item = &'a Bound<'a>>) -> RunKey {
        let behind = bound.flat_map(|b| [b.buffer.id(), b.offset as u64, b.bytes as u64]);
        RunKey(std::iter::once(program).chain(behind).collect())
    }
}

/// The map's own hash takes a microsecond for a key of this length; so it gets the words mixed into one.
impl std::hash::Hash for RunKey {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.iter().fold(0, |h: u64, w| (h.rotate_left(5) ^ w).wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    }
}

/// Bind groups of one generation: more than the launches of any plan we know, a few MB at most.
const GENERATION: usize = 8192;
/// Runs of one generation: more than a loop has batches of its own, in most cases.
const RUNS: usize = 256;

impl BindCache {
    fn get(&mut self, key: &BindKey) -> Option<wgpu::BindGroup> {
        if let Some(group) = self.young.get(key) {
            return Some(group.clone());
        }
        let (key, group) = self.old.remove_entry(key)?;
        self.put(key, group.clone());
        Some(group)
    }

    fn put(&mut self, key: BindKey, group: wgpu::BindGroup) {
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, group);
    }

    /// The groups of a run that was made lately.
    pub(super) fn run(&mut self, key: &RunKey) -> Option<Groups> {
        if let Some(groups) = self.young_runs.get(key) {
            return Some(groups.clone());
        }
        let (key, groups) = self.old_runs.remove_entry(key)?;
        self.put_run(key, groups.clone());
        Some(groups)
    }

    pub(super) fn put_run(&mut self, key: RunKey, groups: Groups) {
        if self.young_runs.len() >= RUNS {
            self.old_runs = std::mem::take(&mut self.young_runs);
        }
        self.young_runs.insert(key, groups);
    }

    /// Drop all that hold this buffer.
    pub(super) fn forget(&mut self, id: u64) {
        for generation in [&mut self.young_runs, &mut self.old_runs] {
            generation.retain(|key, _| key.0[1..].chunks_exact(3).all(|b| b[0] != id));
        }
        for generation in [&mut self.young, &mut self.old] {
            generation.retain(|(_, buffers), _| buffers.iter().all(|b| b.0 != id));
        }
    }

    pub(super) fn clear(&mut self) {
        *self = BindCache::default();
    }
}

impl Gpu {
    pub(super) fn binds(&self) -> MutexGuard<'_, BindCache> {
        self.binds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pipelines of these texts. Those that are new are compiled now, on several threads; they are numbered in the order in which they are asked for, and
    /// of several that fail the first one's error is given.
    pub(super) fn pipelines(self: &Arc<Self>, wanted: &[Wanted<'_>]) -> Result<Vec<Arc<Pipeline>>> {
        let key = |w: &Wanted<'_>| PipelineKey { text: w.text.clone(), trusted: w.trusted, accesses: w.accesses.clone() };
        let keys: Vec<PipelineKey> = wanted.iter().map(key).collect();
        // Held while compiling: a second thread that wants the same text waits for it rather than compile it again.
        let mut known = self.pipelines.lock().unwrap_or_else(PoisonError::into_inner);
        let mut seen: HashSet<&PipelineKey> = HashSet::new();
        let new: Vec<usize> = (0..keys.len()).filter(|&n| !known.by_text.contains_key(&keys[n]) && seen.insert(&keys[n])).collect();
        if !new.is_empty() {
            let made = self.compile(&mut known, &new.iter().map(|&n| &wanted[n]).collect::<Vec<_>>())?;
            self.disk.get().into_iter().for_each(|d| d.made(made.len()));
            new.iter().zip(&made).for_each(|(&n, p)| drop(known.by_text.insert(keys[n].clone(), p.clone())));
            let found = keys.iter().map(|k| known.by_text[k].clone()).collect();
            drop(known);
            self.use_first(new.iter().map(|&n| &wanted[n]).zip(made).collect());
            return Ok(found);
        }
        Ok(keys.iter().map(|k| known.by_text[k].clone()).collect())
    }

    fn compile(&self, known: &mut Pipelines, new: &[&Wanted<'_>]) -> Result<Vec<Arc<Pipeline>>> {
        let limit = self.info.caps.max_storage_bindings as usize;
        if let Some(w) = new.iter().find(|w| w.accesses.len() > limit) {
            return Err(Error::kernel(format!("{}: {} storage bindings, the device has {limit}", w.label, w.accesses.len())));
        }
        let mut layouts = Vec::with_capacity(new.len());
        for w in new {
            let made = match known.layouts.get(&w.accesses) {
                Some(l) => l.clone(),
                None => self.guarded(w.label, || Ok(self.create_layouts(&w.accesses)))?,
            };
            known.layouts.insert(w.accesses.clone(), made.clone());
            layouts.push(made);
        }
        let first = known.by_text.len() as u64;
        let made = spread(new.len(), |n| {
            let (w, (layout, pipeline_layout)) = (new[n], &layouts[n]);
            self.guarded(w.label, || {
                let raw = self.create_pipeline(w.label, w.text, w.trusted, pipeline_layout);
                Ok(Arc::new(Pipeline { id: first + n as u64, raw, layout: layout.clone(), accesses: w.accesses.clone() }))
            })
        });
        made.into_iter().collect()
    }

    /// The uniform window at binding 0, storage from 1 on, then the images over some of it. Written out, because a layout that wgpu derives from the shader fits that one shader only.
    fn create_layouts(&self, accesses: &[Access]) -> (wgpu::BindGroupLayout, wgpu::PipelineLayout) {
        let buffer = |ty| wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None };
        let storage = accesses.iter().map(|a| buffer(wgpu::BufferBindingType::Storage { read_only: !a.writes() }));
        let image = wgpu::BindingType::Texture {
            sample_type: wgpu::TextureSampleType::Float { filterable: false },
            view_dimension: wgpu::TextureViewDimension::D2,
            multisampled: false,
        };
        let images = accesses.iter().filter(|a| a.images()).map(|_| image);
        let entries: Vec<_> = std::iter::once(buffer(wgpu::BufferBindingType::Uniform))
            .chain(storage)
            .chain(images)
            .zip(0..)
            .map(|(ty, binding)| wgpu::BindGroupLayoutEntry { binding, visibility: wgpu::ShaderStages::COMPUTE, ty, count: None })
            .collect();
        let layout = self.device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: None, entries: &entries });
        let pipeline_layout =
            self.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor { label: None, bind_group_layouts: &[Some(&layout)], immediate_size: 0 });
        (layout, pipeline_layout)
    }

    /// The one place that compiles kernels, and counts it. Inside a scope.
    fn create_pipeline(&self, label: &str, text: &str, trusted: bool, layout: &wgpu::PipelineLayout) -> wgpu::ComputePipeline {
        Counters::add(&self.counters.pipelines, 1);
        crate::env::tell(4, || format!("pipeline {label}:\n{text}"));
        let unchecked = trusted && !self.options.validate;
        let source = wgpu::ShaderModuleDescriptor { label: Some(label), source: wgpu::ShaderSource::Wgsl(text.into()) };
        let module = if unchecked {
            // SAFETY: trusted text is composed wholly of this crate's shaders and rows; each variant is tested with checks and with guard bands around
            // its buffers, bounds its own indices, has no endless loop, and writes workgroup memory before it reads it.
            unsafe { self.device.create_shader_module_trusted(source, wgpu::ShaderRuntimeChecks::unchecked()) }
        } else {
            self.device.create_shader_module(source)
        };
        self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(label),
            layout: Some(layout),
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions { zero_initialize_workgroup_memory: !unchecked, ..Default::default() },
            cache: self.disk.get().map(|d| &d.cache),
        })
    }

    /// The bind group of these buffers: the uniform window first. Inside a scope.
    pub(super) fn bind_group(&self, cache: &mut BindCache, pipeline: &Pipeline, bound: &[Bound<'_>]) -> Result<wgpu::BindGroup> {
        let key: BindKey = (pipeline.id, bound.iter().map(|b| (b.buffer.id(), b.offset as u64, b.bytes as u64)).collect());
        if let Some(group) = cache.get(&key) {
            return Ok(group);
        }
        let seen = bound[1..].iter().zip(&pipeline.accesses).filter(|(_, a)| a.images());
        let images = seen.map(|(b, _)| b.buffer.image(b.offset, b.bytes, || self.image(b))).collect::<Result<SmallVec<[wgpu::TextureView; 8]>>>()?;
        let buffers = bound.iter().map(|b| {
            b.buffer.mark_bound();
            let size = std::num::NonZeroU64::new(b.bytes as u64);
            wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer: b.buffer.wgpu(), offset: b.offset as u64, size })
        });
        let all = buffers.chain(images.iter().map(wgpu::BindingResource::TextureView));
        let entries: SmallVec<[wgpu::BindGroupEntry<'_>; 9]> = all.zip(0..).map(|(resource, binding)| wgpu::BindGroupEntry { binding, resource }).collect();
        let group = self.device.create_bind_group(&wgpu::BindGroupDescriptor { label: None, layout: &pipeline.layout, entries: &entries });
        cache.put(key, group.clone());
        Ok(group)
    }
}

/// `f` of `0..count`, in order, on as many threads as the machine runs at once; this thread is one of them.
fn spread<T: Send>(count: usize, f: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let threads = if cfg!(target_arch = "wasm32") { 1 } else { std::thread::available_parallelism().map_or(1, usize::from).min(count) };
    let next = AtomicUsize::new(0);
    let work = || -> Vec<(usize, T)> { std::iter::from_fn(|| Some(next.fetch_add(1, Relaxed)).filter(|n| *n < count)).map(|n| (n, f(n))).collect() };
    let mut done = std::thread::scope(|s| {
        // A thread that the system refuses is one less.
        let others: Vec<_> = (1..threads).filter_map(|_| std::thread::Builder::new().spawn_scoped(s, work).ok()).collect();
        let mut done = work();
        for other in others {
            done.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        done
    });
    done.sort_unstable_by_key(|(n, _)| *n);
    done.into_iter().map(|(_, t)| t).collect()
}

/// Whether WGSL parses and validates, has a compute entry point `main`, and stays in what every device can do. The error shows file, line and a caret.
pub fn validate_wgsl(source: &str, file_name: &str) -> Result<()> {
    let module = naga::front::wgsl::parse_str(source).map_err(|e| Error::kernel(e.emit_to_string_with_path(source, file_name).trim_end().to_string()))?;
    let capabilities = naga::valid::Capabilities::SUBGROUP | naga::valid::Capabilities::SHADER_FLOAT16 | naga::valid::Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    naga::valid::Validator::new(naga::valid::ValidationFlags::all(), capabilities)
        .validate(&module)
        .map_err(|e| Error::kernel(e.emit_to_string_with_path(source, file_name).trim_end().to_string()))?;
    if !module.entry_points.iter().any(|e| e.name == "main" && e.stage == naga::ShaderStage::Compute) {
        return Err(Error::kernel(format!("{file_name}: no compute entry point named main")).help("write `@compute @workgroup_size(64) fn main(...)`"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_on_threads_comes_back_in_order() {
        assert_eq!(spread(100, |n| n * n), (0..100).map(|n| n * n).collect::<Vec<_>>());
        assert!(spread(0, |n| n).is_empty());
    }

    #[test]
    fn a_mistake_is_shown_with_file_line_and_caret() {
        let text = "@compute @workgroup_size(1)\nfn main() {\n    let x: u32 = 1.5;\n}\n";
        let e = validate_wgsl(text, "mine.wgsl").unwrap_err().to_string();
        assert!(e.contains("mine.wgsl:3:") && e.contains('^'), "{e}");
        let e = validate_wgsl("fn f( {", "mine.wgsl").unwrap_err().to_string();
        assert!(e.contains("mine.wgsl:1:") && e.contains('^'), "{e}");
        assert!(validate_wgsl("fn f() {}", "mine.wgsl").unwrap_err().to_string().contains("named main"));
        validate_wgsl("@compute @workgroup_size(1) fn main() {}", "mine.wgsl").unwrap();
    }
}
