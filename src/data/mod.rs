//! Data on the host: tables, data sets, splits, augmentation, and the order in which an epoch sees its samples.

mod augment;
mod dataset;
mod draws;
mod loader;
mod split;
mod table;

pub use augment::Augment;
pub use dataset::{Dataset, Targets, Task};
pub use draws::{Draws, Generator, Purpose};
pub use loader::Loader;
pub use split::{Split, shuffle};
pub use table::Table;
