//! In which element types a model is trained.

use crate::device::Device;
use crate::error::Result;
use crate::optim::{GradScaler, GradScalerOptions};

/// In which element types a model is trained. It is judged in f32 either way: parameters are f32.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Precision {
    /// All of it in f32.
    #[default]
    F32,
    /// The model and the loss inside [`autocast`](crate::autocast) to f16, the loss scaled by a [`GradScaler`]. Steps that overflow are skipped, and what a
    /// loss that is not finite would add to an epoch's score is left out of it.
    Mixed(GradScalerOptions),
}

impl Precision {
    /// The scaler that it needs.
    pub(super) fn scaler(&self, device: &Device) -> Result<Option<GradScaler>> {
        match self {
            Precision::F32 => Ok(None),
            Precision::Mixed(options) => GradScaler::new(*options, device).map(Some),
        }
    }
}
