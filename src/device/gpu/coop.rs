//! Units for small matrices of f16: which an adapter says it has, and whether their results are right.
//!
//! wgpu calls them experimental, and drivers were wrong about them before; so an adapter's are used only after products through them were compared with exact ones.

use super::{Gpu, GpuOptions, adapter, select};
use crate::device::{Coop, Device};
use crate::error::{Error, Result};
use crate::graph::{MatmulPrecision, Tensor, with_matmul_precision};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

pub(super) const FEATURE: wgpu::Features = wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX;
/// Its name where a device's features are listed.
pub(super) const NAME: &str = "f16 matrices";

/// The units of the adapter at this position of [`adapters`](super::adapters) that multiply small matrices of f16: none where it has none that kernels can use.
/// Where it has some, products through them are tried, once a process.
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

/// The units of the adapter at `index`, where products through them are right. Tried once a process, on a device of its own.
pub(super) fn proven(index: usize, adapter: &wgpu::Adapter, options: &GpuOptions) -> Result<Option<Coop>> {
    /// What the trial said, by adapter. Others who ask meanwhile wait for it.
    static VERDICTS: Mutex<Option<HashMap<usize, Result<()>>>> = Mutex::new(None);
    let Some(units) = units(adapter) else { return Ok(None) };
    let mut verdicts = VERDICTS.lock().unwrap_or_else(PoisonError::into_inner);
    let verdict = verdicts.get_or_insert_default().entry(index).or_insert_with(|| {
        let options = GpuOptions { declared_kind: None, ..options.clone() };
        let trial = || try_products(&Device::Gpu(Gpu::open_with(select::next_id(), index, &options, Some(units))?));
        // On a thread of its own, for which no caller has set how it records.
        let ended = std::thread::scope(|s| s.spawn(trial).join());
        ended.unwrap_or_else(|_| Err(Error::internal("the trial panicked")))
    });
    verdict.clone().map(|()| Some(units))
}

/// Products whose every sum is a whole number that f16 and f32 hold: no rounding excuses a difference. Sizes differ from each other, and no matrix is symmetric,
/// so that rows taken for columns show. The last one is cut into large tiles.
fn try_products(device: &Device) -> Result<()> {
    let both = &[MatmulPrecision::Medium, MatmulPrecision::High][..];
    for ([m, k, n], precisions) in [([48, 80, 112], both), ([200, 33, 136], both), ([1032, 36, 1028], &both[..1])] {
        let a: Vec<f32> = (0..m * k).map(|i| ((i * 7 + i / k * 3) % 13) as f32 - 6.0).collect();
        let b: Vec<f32> = (0..k * n).map(|i| ((i * 5 + i / n * 11) % 15) as f32 - 7.0).collect();
        let mut want = vec![0f32; m * n];
        for (row, sums) in a.chunks_exact(k).zip(want.chunks_exact_mut(n)) {
            for (x, line) in row.iter().zip(b.chunks_exact(n)) {
                sums.iter_mut().zip(line).for_each(|(s, y)| *s += x * y);
            }
        }
        let (a, b) = (Tensor::new(a, [m, k], device)?, Tensor::new(b, [k, n], device)?);
        for &precision in precisions {
            let got = with_matmul_precision(precision, || a.try_matmul(&b))?.to_vec::<f32>()?;
            if let Some(i) = (0..m * n).find(|&i| got[i] != want[i]) {
                let what = format!("a product of [{m}, {k}] and [{k}, {n}], {precision:?}: element {i} is {}, not {}", got[i], want[i]);
                return Err(Error::device(what));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of kernels that are right, whatever device there is: as they are without such units, and written out for small matrices of both sizes.
    #[test]
    fn the_trial_passes_where_kernels_are_right() {
        for emulated_coop in [None, Some(16), Some(8)] {
            let options = GpuOptions { emulated_coop, coop: false, ..GpuOptions::from_env().unwrap() };
            match Device::gpu(0, &options) {
                Ok(device) => try_products(&device).unwrap(),
                Err(e) => assert!(crate::env::flag("WGRAD_ALLOW_NO_GPU").unwrap(), "{e}"),
            }
        }
    }
}
