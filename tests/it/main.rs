//! The one integration binary: each area is a module.

#[cfg(feature = "gpu")]
mod gpu_device;
