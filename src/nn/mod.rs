//! Neural networks: modules, their parameters, layers, losses, initial values.
//!
//! A [`Module`] computes, checks shapes without running, and shows its parts; [`Sequential`] chains modules; the LAYERS table
//! ([`all_layers`]) builds them from a config's names. Names and defaults are PyTorch's.

mod attrs;
mod buffer;
pub mod init;
mod layers;
mod loss;
mod mode;
mod module;
mod param;
mod sequential;
mod state;
mod summary;
mod table;

pub use attrs::{Attr, Attrs};
pub use buffer::Buffer;
pub use layers::*;
pub use loss::{CrossEntropyLoss, MSELoss, NLLLoss};
pub use mode::Mode;
pub use module::{Module, Part, SummaryLine, Visitor};
pub use param::Param;
pub use sequential::Sequential;
pub use state::{Loaded, load, save, save_with};
pub use summary::Summary;
pub use table::{Key, KeyDefault, LayerEntry, all_layers, layer};

#[cfg(test)]
mod tests;
