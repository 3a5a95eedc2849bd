//! Units for small matrices of f16: which an adapter says it has, and whether their results are right.
//!
//! wgpu calls them experimental, and drivers were wrong about them before; so an adapter's are used only after products through them were compared with exact ones.

use super::{Gpu, GpuOptions};
use crate::device::{Coop, Device};
use crate::error::Result;
use crate::graph::{MatmulPrecision, Tensor, with_matmul_precision};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

pub(super) const FEATURE: wgpu::Features = wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX;

/// The units that kernels can use: square matrices of f16, summed in f32, by subgroups.
pub(super) fn units(adapter: &wgpu::Adapter) -> Option<Coop> {
    let needed = FEATURE | wgpu::Features::SUBGROUP | wgpu::Features::SHADER_F16;
    if !adapter.features().contains(needed) {
        return None;
    }
    let lanes = adapter.get_info().subgroup_max_size as usize;
    let has = adapter.cooperative_matrix_properties();
    let fits = |edge: u32| {
        has.iter().any(|p| {
            let square = p.m_size == edge && p.n_size == edge && p.k_size == edge;
            square && p.ab_type == wgpu::CooperativeScalarType::F16 && p.cr_type == wgpu::CooperativeScalarType::F32
        })
    };
    let edge = [16, 8].into_iter().find(|edge| fits(*edge))?;
    // Tiles are cut for 2 to 8 subgroups of 128 or 256 invocations.
    (16..=64).contains(&lanes).then_some(Coop { edge: edge as usize, lanes, emulated: false })
}

/// Whether products through the units of the adapter at `index` are right. Tried once a process, on a device of its own.
pub(super) fn right(index: usize, options: &GpuOptions) -> bool {
    static VERDICTS: Mutex<Option<HashMap<usize, bool>>> = Mutex::new(None);
    {
        // The trial opens the device itself, and must not be tried.
        let mut verdicts = VERDICTS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = verdicts.get_or_insert_default().get(&index) {
            return *known;
        }
        verdicts.get_or_insert_default().insert(index, true);
    }
    let trial =
        || -> Result<bool> { try_products(&Device::Gpu(Gpu::open(super::select::next_id(), index, &GpuOptions { declared_kind: None, ..options.clone() })?)) };
    let verdict = trial();
    if !matches!(verdict, Ok(true)) {
        crate::env::tell(1, || format!("units for small matrices are not used: {verdict:?}"));
    }
    let verdict = verdict.unwrap_or(false);
    VERDICTS.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default().insert(index, verdict);
    verdict
}

/// Products whose every sum is a whole number that f16 and f32 hold: no rounding excuses a difference. Sizes differ from each other, and no matrix is symmetric,
/// so that rows taken for columns show.
fn try_products(device: &Device) -> Result<bool> {
    for (m, k, n) in [(48, 80, 112), (200, 33, 136)] {
        let a: Vec<f32> = (0..m * k).map(|i| ((i * 7 + i / k * 3) % 13) as f32 - 6.0).collect();
        let b: Vec<f32> = (0..k * n).map(|i| ((i * 5 + i / n * 11) % 15) as f32 - 7.0).collect();
        let want: Vec<f32> = (0..m * n).map(|i| (0..k).map(|p| a[i / n * k + p] * b[p * n + i % n]).sum()).collect();
        let (a, b) = (Tensor::new(a, [m, k], device)?, Tensor::new(b, [k, n], device)?);
        for precision in [MatmulPrecision::Medium, MatmulPrecision::High] {
            if with_matmul_precision(precision, || a.try_matmul(&b))?.to_vec::<f32>()? != want {
                return Ok(false);
            }
        }
    }
    Ok(true)
}
