//! A training engine whose kernels are WGSL compute shaders.
//!
//! Modules stand in reading order, which is the order of dependency: a module uses only what stands before it.
#![warn(missing_docs)]

// What everything stands on.
pub mod error;

pub mod env;
mod files;
pub mod rng;

pub mod tensor;

pub mod format;

// Hardware.
pub mod kernel;

pub mod device;

// Tensors: three modules that name each other and count as one.
pub mod autograd;
pub mod graph;
pub mod ops;

// Learning.
pub mod nn;
pub mod optim;

pub mod data;

// Running.
pub mod train;

// Measuring.
#[cfg(feature = "cli")]
pub mod bench;

#[cfg(feature = "cli")]
pub mod cli;

pub use device::Device;
pub use error::{Error, ErrorKind, Result};
pub use graph::{MatmulPrecision, Tensor, autocast, no_grad, with_matmul_precision};
pub use ops::Generator;
pub use tensor::{DType, Data, Shape};
#[cfg(feature = "gpu")]
pub use wgpu;

/// The code in README.md is compiled and run as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
