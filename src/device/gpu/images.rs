//! Buffers whose memory is an image, too, for drivers that fetch texels faster than they load from buffers.
//!
//! Mesa's llvmpipe loads from a storage buffer lane by lane, in a loop with a branch for each; texels it fetches for all lanes at once: four floats for eight
//! lanes take an eighth of the time. Its images are linear memory. So a buffer gets memory of its own there, and what a kernel only reads, it reads through an
//! image that lies over the same bytes. Vulkan says where the texels of a linear image lie; that a kernel sees in it what another wrote to the buffer is tried,
//! once a process.

use super::pipeline::Bound;
use super::{Gpu, GpuOptions, KernelCall, Kind, adapter, select};
use crate::device::{Access, Buffer, Storage};
use crate::error::{Error, Result};
use crate::kernel::{BindingText, Emit, IMAGE_ROW, find};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

const ROW_BYTES: usize = IMAGE_ROW * 16;
/// Bytes behind a buffer that an image over its last ones may reach: rows are made whole, and drivers round them up.
const SLACK: usize = 5 * ROW_BYTES;

/// Rows of an image over so many bytes. Never a power of two: llvmpipe compiles kernels anew where one is and where none is.
fn rows(bytes: usize) -> usize {
    let rows = bytes.div_ceil(ROW_BYTES).max(3);
    rows + usize::from(rows.is_power_of_two())
}

/// How many buffers a kernel may read as images on the adapter at `index`, where they show what is in the buffers. Tried once a process, on a device of its own.
pub(super) fn proven(index: usize, options: &GpuOptions) -> Result<u32> {
    /// What the trial said, by adapter. Others who ask meanwhile wait for it.
    static VERDICTS: Mutex<Option<HashMap<usize, Result<()>>>> = Mutex::new(None);
    let Some((info, adapter)) = adapter::adapter(index) else { return Ok(0) };
    let limits = adapter.limits();
    let fast = cfg!(target_os = "linux") && info.backend == "vulkan" && info.name.starts_with("llvmpipe");
    let hardware = options.declared_kind.is_some_and(|k| k != Kind::Software);
    let too_short = (limits.max_texture_dimension_2d as usize) < rows(info.caps.max_binding_bytes as usize);
    if !fast || hardware || too_short || options.floor || !options.images {
        return Ok(0);
    }
    let count = limits.max_sampled_textures_per_shader_stage;
    let mut verdicts = VERDICTS.lock().unwrap_or_else(PoisonError::into_inner);
    let verdict = verdicts.get_or_insert_default().entry(index).or_insert_with(|| {
        let options = GpuOptions { declared_kind: None, ..options.clone() };
        try_reads(&Gpu::open_with(select::next_id(), index, &options, None, count)?)
    });
    verdict.clone().map(|()| count)
}

/// Copy by a kernel that reads through an image, from what the host wrote and from what a kernel wrote, behind a buffer's beginning and over several rows.
fn try_reads(gpu: &Arc<Gpu>) -> Result<()> {
    let (begin, count) = (1 << 10, 3 * IMAGE_ROW * 4 + 12);
    let values: Vec<f32> = (0..count).map(|i| i as f32 * 0.5 - 7.0).collect();
    let fresh = || -> Result<Storage> { Ok(Storage { buffer: Buffer::Gpu(gpu.alloc(begin + count * 4)?), offset: begin, bytes: count * 4 }) };
    let [from, between, to] = [fresh()?, fresh()?, fresh()?];
    if let Buffer::Gpu(buffer) = &from.buffer {
        gpu.upload(buffer, begin, bytemuck::cast_slice(&values))?;
    }
    for (from, to) in [(&from, &between), (&between, &to)] {
        let bindings = [(from, Access::Image), (to, Access::ReadWrite)];
        let texts = ["x", "y"].iter().zip(bindings).map(|(n, (_, access))| BindingText { name: n.to_string(), element: "vec4<f32>".into(), access });
        let mut emit = Emit::new(find("place")?);
        emit.set_alias("V", "vec4<f32>");
        emit.set_hook("load", "    return x[i];");
        let text = emit.finish(&texts.collect::<Vec<_>>(), 4)?;
        let quads = (count / 4) as u32;
        gpu.run_kernel(&KernelCall { label: "images", text: &text, bindings: &bindings, words: &[quads, 0, 0, 0], grid: [quads.div_ceil(64), 1, 1] })?;
    }
    let got = gpu.read(std::slice::from_ref(&to))?.wait()?.remove(0);
    if bytemuck::cast_slice::<f32, u8>(&values) != got {
        return Err(Error::device(format!("{}: an image over a buffer does not show what is in it", gpu.info().short_name())));
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
pub(super) type Memory = std::convert::Infallible;

#[cfg(not(target_os = "linux"))]
impl Gpu {
    pub(super) fn create_with_image(&self, _: usize, _: wgpu::BufferUsages) -> Result<(wgpu::Buffer, Memory)> {
        Err(Error::internal("no buffer is an image here"))
    }

    pub(super) fn image(&self, _: &Bound<'_>) -> Result<wgpu::TextureView> {
        Err(Error::internal("no buffer is an image here"))
    }
}

#[cfg(target_os = "linux")]
pub(super) use vulkan::Memory;

#[cfg(target_os = "linux")]
mod vulkan {
    use super::{Bound, Error, Gpu, IMAGE_ROW, ROW_BYTES, Result, SLACK, rows};
    use ash::vk;
    use wgpu::hal::api::Vulkan;

    /// The memory behind a buffer.
    #[derive(Clone, Copy, Debug)]
    pub(in super::super) struct Memory {
        raw: vk::DeviceMemory,
        bytes: u64,
        /// The number of its type.
        kind: u32,
    }

    impl Gpu {
        fn vulkan<T>(&self, what: &str, f: impl FnOnce(&wgpu::hal::vulkan::Device) -> ash::prelude::VkResult<T>) -> Result<T> {
            // SAFETY: the device is one of wgpu's own; it is not destroyed, and outlives the guard.
            let hal = unsafe { self.device.as_hal::<Vulkan>() }.ok_or_else(|| Error::internal("images need Vulkan"))?;
            f(&hal).map_err(|e| {
                let what = format!("{}: {what}: {e}", self.info.short_name());
                if [vk::Result::ERROR_OUT_OF_DEVICE_MEMORY, vk::Result::ERROR_OUT_OF_HOST_MEMORY].contains(&e) {
                    Error::out_of_memory(what)
                } else {
                    Error::device(what)
                }
            })
        }

        /// A buffer of `size` bytes with memory of its own, its content undefined.
        pub(in super::super) fn create_with_image(&self, size: usize, usage: wgpu::BufferUsages) -> Result<(wgpu::Buffer, Memory)> {
            let bytes = (size.next_multiple_of(16) + SLACK) as u64;
            let (buffer, memory) = self.vulkan("a buffer", |hal| {
                let raw = hal.raw_device();
                let seen = vk::BufferUsageFlags::STORAGE_BUFFER | vk::BufferUsageFlags::UNIFORM_BUFFER;
                let copied = vk::BufferUsageFlags::TRANSFER_SRC | vk::BufferUsageFlags::TRANSFER_DST;
                let info = vk::BufferCreateInfo::default().size(size as u64).usage(seen | copied);
                // SAFETY: the device lives; the memory is of a type that the buffer allows, larger than it needs, and bound once. What fails half way is given back.
                // wgpu's buffer owns both from here on, and its usages are among those that the buffer was made with.
                unsafe {
                    let buffer = raw.create_buffer(&info, None)?;
                    let needs = raw.get_buffer_memory_requirements(buffer);
                    let (bytes, kind) = (needs.size.max(bytes), needs.memory_type_bits.trailing_zeros());
                    let info = vk::MemoryAllocateInfo::default().allocation_size(bytes).memory_type_index(kind);
                    let memory = raw.allocate_memory(&info, None).inspect_err(|_| raw.destroy_buffer(buffer, None))?;
                    if let Err(e) = raw.bind_buffer_memory(buffer, memory, 0) {
                        raw.destroy_buffer(buffer, None);
                        raw.free_memory(memory, None);
                        return Err(e);
                    }
                    Ok((wgpu::hal::vulkan::Buffer::from_raw_managed(buffer, memory, 0, bytes), Memory { raw: memory, bytes, kind }))
                }
            })?;
            let described = wgpu::BufferDescriptor { label: Some("wgrad"), size: size as u64, usage, mapped_at_creation: false };
            // SAFETY: the buffer was made by this device, as the descriptor says, and is given to wgpu once. Kernels read only what was written, as everywhere.
            Ok((unsafe { self.device.create_buffer_from_hal::<Vulkan>(buffer, &described) }, memory))
        }

        /// The image over a part of a buffer. Whoever binds it binds the buffer, too: so wgpu knows when it may be read, and for how long.
        pub(in super::super) fn image(&self, bound: &Bound<'_>) -> Result<wgpu::TextureView> {
            let memory = bound.buffer.memory().ok_or_else(|| Error::internal("a buffer without memory of its own is no image"))?;
            let (width, height) = (IMAGE_ROW as u32, rows(bound.bytes) as u32);
            let extent = wgpu::Extent3d { width, height, depth_or_array_layers: 1 };
            let texture = self.vulkan("an image over a buffer", |hal| {
                let raw = hal.raw_device();
                let info = vk::ImageCreateInfo::default()
                    .image_type(vk::ImageType::TYPE_2D)
                    .format(vk::Format::R32G32B32A32_SFLOAT)
                    .extent(vk::Extent3D { width, height, depth: 1 })
                    .mip_levels(1)
                    .array_layers(1)
                    .samples(vk::SampleCountFlags::TYPE_1)
                    .tiling(vk::ImageTiling::LINEAR)
                    .usage(vk::ImageUsageFlags::SAMPLED)
                    .initial_layout(vk::ImageLayout::PREINITIALIZED);
                let whole = vk::ImageSubresource { aspect_mask: vk::ImageAspectFlags::COLOR, mip_level: 0, array_layer: 0 };
                // SAFETY: the device and the buffer's memory live. The image lies inside of that memory and is bound to it once, or is given back. wgpu's texture
                // owns the image, not the memory.
                unsafe {
                    let image = raw.create_image(&info, None)?;
                    let (needs, lies) = (raw.get_image_memory_requirements(image), raw.get_image_subresource_layout(image, whole));
                    let offset = bound.offset as u64;
                    let linear = lies.offset == 0 && lies.row_pitch == ROW_BYTES as u64;
                    let fits = offset.is_multiple_of(needs.alignment) && offset + needs.size <= memory.bytes && needs.memory_type_bits >> memory.kind & 1 == 1;
                    let placed = if linear && fits { raw.bind_image_memory(image, memory.raw, offset) } else { Err(vk::Result::ERROR_FORMAT_NOT_SUPPORTED) };
                    placed.inspect_err(|_| raw.destroy_image(image, None))?;
                    let described = wgpu::hal::TextureDescriptor {
                        label: None,
                        size: extent,
                        mip_level_count: 1,
                        sample_count: 1,
                        dimension: wgpu::TextureDimension::D2,
                        format: wgpu::TextureFormat::Rgba32Float,
                        usage: wgpu::TextureUses::RESOURCE,
                        memory_flags: wgpu::hal::MemoryFlags::empty(),
                        view_formats: Vec::new(),
                    };
                    Ok(hal.texture_from_raw(image, &described, None, wgpu::hal::vulkan::TextureMemory::External))
                }
            })?;
            let described = wgpu::TextureDescriptor {
                label: None,
                size: extent,
                mip_level_count: 1,
                sample_count: 1,
                dimension: wgpu::TextureDimension::D2,
                format: wgpu::TextureFormat::Rgba32Float,
                usage: wgpu::TextureUsages::TEXTURE_BINDING,
                view_formats: &[],
            };
            // SAFETY: the texture was made by this device, as the descriptor says, and is given to wgpu once; what is in it was written through the buffer.
            let texture = unsafe { self.device.create_texture_from_hal::<Vulkan>(texture, &described, wgpu::TextureUses::RESOURCE) };
            Ok(texture.create_view(&wgpu::TextureViewDescriptor::default()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_stay_behind_the_buffer_by_less_than_the_slack() {
        for bytes in (16..40 * ROW_BYTES).step_by(4096 - 16) {
            let rows = rows(bytes);
            assert!(!rows.is_power_of_two() && rows * ROW_BYTES >= bytes, "{bytes}: {rows} rows");
            // llvmpipe makes them whole fours.
            assert!(rows.next_multiple_of(4) * ROW_BYTES <= bytes + SLACK, "{bytes}: {rows} rows");
        }
    }
}
