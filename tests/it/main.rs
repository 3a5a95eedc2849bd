//! The one integration test binary.

mod gpu_device;
mod smoke;
