//! Units for small matrices of f16: which an adapter says it has, and whether their results are right.
//!
//! wgpu calls them experimental, and drivers were wrong about them before; so an adapter's are used only after a product through them was compared with an exact one.

use super::{Gpu, GpuOptions, KernelCall, adapter, select};
use crate::device::{Access, Buffer, Coop, Storage};
use crate::error::{Error, Result};
use crate::kernel::{self, BindingText, Emit};
use std::collections::HashMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};

pub(super) const FEATURE: wgpu::Features = wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX;
/// Its name where a device's features are listed.
pub(super) const NAME: &str = "f16 matrices";

/// The units of the adapter at this position of [`adapters`](super::adapters) that multiply small matrices of f16: none where it has none that kernels can use.
/// Where it has some, a product through them is tried, once a process.
///
/// # Errors
/// Why the trial failed.
pub fn matrix_units(index: usize) -> Result<Option<Coop>> {
    let (_, adapter) = adapter::adapter(index).ok_or_else(|| Error::device(format!("gpu: no adapter at position {}", index + 1)))?;
    proven(index, adapter, &GpuOptions::from_env()?)
}

/// The units that kernels can use: square matrices of f16, summed in f32, by subgroups.
fn units(adapter: &wgpu::Adapter) -> Option<Coop> {
    let needed = FEATURE | wgpu::Features::SUBGROUP | wgpu::Features::SHADER_F16;
    if !adapter.features().contains(needed) {
        return None;
    }
    let info = adapter.get_info();
    // Metal's subgroups that have such units are of 32 lanes; wgpu reports 64 as the most of any.
    let metal = info.backend == wgpu::Backend::Metal;
    let lanes = (info.subgroup_max_size as usize).min(if metal { 32 } else { usize::MAX });
    let has = adapter.cooperative_matrix_properties();
    let fits = |edge: u32| {
        has.iter().any(|p| {
            let square = p.m_size == edge && p.n_size == edge && p.k_size == edge;
            square && p.ab_type == wgpu::CooperativeScalarType::F16 && p.cr_type == wgpu::CooperativeScalarType::F32
        })
    };
    let edge = [16, 8].into_iter().find(|edge| fits(*edge))?;
    // Tiles are cut for 2 to 8 subgroups of 128 or 256 invocations.
    (16..=64).contains(&lanes).then_some(Coop { edge: edge as usize, lanes, adds: !metal, emulated: false })
}

/// The units of the adapter at `index`, where a product through them is right. Tried once a process, on a device of its own.
pub(super) fn proven(index: usize, adapter: &wgpu::Adapter, options: &GpuOptions) -> Result<Option<Coop>> {
    /// What the trial said, by adapter. Others who ask meanwhile wait for it.
    static VERDICTS: Mutex<Option<HashMap<usize, Result<()>>>> = Mutex::new(None);
    let Some(units) = units(adapter) else { return Ok(None) };
    let mut verdicts = VERDICTS.lock().unwrap_or_else(PoisonError::into_inner);
    let verdict = verdicts.get_or_insert_default().entry(index).or_insert_with(|| {
        let options = GpuOptions { declared_kind: None, ..options.clone() };
        try_product(&Gpu::open_with(select::next_id(), index, &options, Some(units), 0)?, &units)
    });
    verdict.clone().map(|()| Some(units))
}

/// A product whose every sum is a whole number that f16 and f32 hold: no rounding excuses a difference. Sizes differ from each other and are no multiples of a small
/// matrix, and no matrix is symmetric, so that rows taken for columns show.
fn try_product(gpu: &Arc<Gpu>, units: &Coop) -> Result<()> {
    let [m, k, n] = [43usize, 70, 53];
    let a: Vec<f32> = (0..m * k).map(|i| ((i * 7 + i / k * 3) % 13) as f32 - 6.0).collect();
    let b: Vec<f32> = (0..k * n).map(|i| ((i * 5 + i / n * 11) % 15) as f32 - 7.0).collect();
    let put = |values: &[f32]| -> Result<Storage> {
        let (buffer, bytes) = (gpu.alloc(values.len() * 4)?, values.len() * 4);
        gpu.upload(&buffer, 0, bytemuck::cast_slice(values))?;
        Ok(Storage { buffer: Buffer::Gpu(buffer), offset: 0, bytes })
    };
    let [from_a, from_b, to] = [put(&a)?, put(&b)?, put(&vec![f32::NAN; m * n])?];
    let tiles = [m.div_ceil(units.edge), n.div_ceil(units.edge)];
    let mut words: Vec<u32> = [m, n, k, 0, 0, k, 1, n, 1, tiles[0], tiles[1], 1, k, 0, m * n, 1].map(|w| w as u32).to_vec();
    words.extend([1, 0, 0, 0].repeat(6));
    let bindings = [(&from_a, Access::Read), (&from_b, Access::Read), (&to, Access::ReadWrite)];
    let text = trial_text(units, words.len())?;
    gpu.run_kernel(&KernelCall { label: "small matrices", text: &text, bindings: &bindings, words: &words, grid: [(tiles[0] * tiles[1]) as u32, 1, 1] })?;
    let got = gpu.read(std::slice::from_ref(&to))?.wait()?.remove(0);
    let got = got.chunks_exact(4).map(|b| f32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
    for (i, got) in got.enumerate() {
        let want: f32 = (0..k).map(|p| a[i / n * k + p] * b[p * n + i % n]).sum();
        if got != want {
            return Err(Error::device(format!("a product of [{m}, {k}] and [{k}, {n}] is wrong: [{}, {}] is {got}, not {want}", i / n, i % n)));
        }
    }
    Ok(())
}

/// The kernel for small matrices, with a tile of one of them and of two steps of terms, which lie beside each other in a and below each other in b.
fn trial_text(units: &Coop, words: usize) -> Result<String> {
    let e = units.edge;
    let deep = 2 * e;
    let mut body = String::new();
    let _ = write!(
        body,
        "    var c = {zero};
    for (var k = begin; k < end; k += {deep}u) {{
        workgroupBarrier();
        for (var q = index; q < {all}u; q += INVOCATIONS) {{
            tile_a[q] = f16(a0(home_a(row + q / {deep}u), k + q % {deep}u, end).x);
            tile_b[q] = f16(b0(home_b(col + q % {e}u), k + q / {e}u, end).x);
        }}
        workgroupBarrier();
        let a_0 = {a_0};
        let b_0 = {b_0};
        c = {first};
        let a_1 = {a_1};
        let b_1 = {b_1};
        c = {second};
    }}
    {store}
    workgroupBarrier();
    for (var q = index; q < {fours}u; q += INVOCATIONS) {{
        let v = vec4<f32>(result[4u * q], result[4u * q + 1u], result[4u * q + 2u], result[4u * q + 3u]);
        store(row + 4u * q / {e}u, col + 4u * q % {e}u, v);
    }}",
        zero = units.zero(),
        all = e * deep,
        a_0 = units.left("0u", deep),
        b_0 = units.right("0u", e),
        first = units.multiply_add("a_0", "b_0", "c"),
        a_1 = units.left(&format!("{e}u"), deep),
        b_1 = units.right(&format!("{}u", e * e), e),
        second = units.multiply_add("a_1", "b_1", "c"),
        store = units.store("c", "0u"),
        fours = e * e / 4,
    );
    let mut emit = Emit::new(kernel::find("matmul_coop")?);
    for (name, value) in [("ROWS", e), ("COLUMNS", e), ("MEMORY_A", e * deep), ("MEMORY_B", e * deep), ("MEMORY_Y", e * e)] {
        emit.set_const(name, &format!("{value}u"));
    }
    emit.set_hook("product", &body);
    units.write_into(&mut emit);
    let binding = |name: &str, access| BindingText { name: name.into(), element: "f32".into(), access };
    emit.finish(&[binding("a", Access::Read), binding("b", Access::Read), binding("y", Access::ReadWrite)], words)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With operations on small matrices that are right: written out, as there may be no units.
    #[test]
    fn a_right_product_passes_the_trial_and_a_wrong_one_does_not() {
        for units in [16, 8].map(Coop::emulation) {
            let options = GpuOptions { emulated_coop: Some(units.edge), ..GpuOptions::from_env().unwrap() };
            match Gpu::open(select::next_id(), 0, &options) {
                Ok(gpu) => {
                    try_product(&gpu, &units).unwrap();
                    // Half of the lanes leave their elements out.
                    let e = try_product(&gpu, &Coop { lanes: units.lanes / 2, ..units }).unwrap_err().to_string();
                    assert!(e.contains("is wrong"), "{e}");
                }
                // Where there may be no adapter, there is nothing to try.
                Err(e) => assert!(crate::env::flag("WGRAD_ALLOW_NO_GPU").unwrap(), "{e}"),
            }
        }
    }

    #[test]
    fn the_trials_text_for_units_is_valid() {
        for (edge, lanes) in [(16, 32), (8, 32), (16, 64)] {
            let text = trial_text(&Coop { edge, lanes, adds: true, emulated: false }, 40).unwrap();
            let module = naga::front::wgsl::parse_str(&text).unwrap_or_else(|e| panic!("{}", e.emit_to_string(&text)));
            let all = naga::valid::Capabilities::all();
            naga::valid::Validator::new(naga::valid::ValidationFlags::all(), all).validate(&module).unwrap();
        }
    }
}
