//! The KERNELS table: every hand-written shader, its text and what it is for; and the emitter that makes variants of it. Usable without a graph.

mod division;
mod emit;
mod table;
mod words;

pub use division::divisor;
pub use emit::{BindingText, Emit, joined};
pub use table::KERNELS;
pub(crate) use words::hold_words;

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
}
