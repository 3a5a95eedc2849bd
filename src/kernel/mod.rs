//! The KERNELS table: every hand-written shader, its text and what it is for; and the emitter that makes variants of it. Usable without a graph.

mod division;
mod emit;
mod table;
mod words;

pub use division::divisor;
pub use emit::{BindingText, Emit, joined};
pub use table::KERNELS;

use crate::error::{Error, Result, nearest};

/// A shader of the table.
#[derive(Debug)]
pub struct Kernel {
    /// Its name: folder and file under shaders/, joined by `_` where they differ.
    pub name: &'static str,
    /// One line: what it computes.
    pub doc: &'static str,
    /// The WGSL as it lies in shaders/.
    pub text: &'static str,
}

/// The shader of that name.
pub fn find(name: &str) -> Result<&'static Kernel> {
    KERNELS.iter().find(|k| k.name == name).ok_or_else(|| {
        let e = Error::invalid(format!("kernel: no kernel named {name}"));
        match nearest(name, KERNELS.iter().map(|k| k.name)) {
            Some(n) => e.help(format!("did you mean {n}?")),
            None => e,
        }
    })
}

/// How a launch uses a storage binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// `var<storage, read>`.
    Read,
    /// `var<storage, read_write>`.
    ReadWrite,
    /// Read through a `texture_2d<f32>` that lies where the buffer does, four floats a texel and [`IMAGE_ROW`] texels a row. It is bound behind all storage, the
    /// buffer itself, too, in its place.
    Image,
    /// Read so, once and before it is written as `var<storage, read_write>`.
    Update,
}

impl Access {
    /// Whether a shader may write there.
    pub fn writes(self) -> bool {
        matches!(self, Access::ReadWrite | Access::Update)
    }

    /// Whether a shader reads through an image.
    pub fn images(self) -> bool {
        matches!(self, Access::Image | Access::Update)
    }
}

/// Texels in a row of an image that lies over a buffer.
pub const IMAGE_ROW: usize = 1024;
