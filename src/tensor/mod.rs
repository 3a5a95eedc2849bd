//! What a tensor is, before it is anywhere: element type, shape, strided layout, host values.

mod data;
mod dtype;
mod half;
mod layout;
mod shape;

pub use data::Data;
pub use dtype::DType;
pub use half::F16;
pub use layout::Layout;
pub use shape::{MAX_RANK, Shape, broadcast};

/// Element type and shape: what `infer` reasons about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Meta {
    /// The element type.
    pub dtype: DType,
    /// The size of each dimension.
    pub shape: Shape,
}

impl Meta {
    /// A meta of that type and shape.
    pub fn new(dtype: DType, shape: impl Into<Shape>) -> Self {
        Meta { dtype, shape: shape.into() }
    }

    /// The number of elements.
    pub fn numel(&self) -> usize {
        self.shape.numel()
    }

    /// The number of bytes of a contiguous tensor of this meta: whole words, so halves of an odd number have two bytes behind them.
    pub fn bytes(&self) -> usize {
        (self.numel() * self.dtype.size()).next_multiple_of(4)
    }
}

impl std::fmt::Display for Meta {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.dtype, self.shape)
    }
}
