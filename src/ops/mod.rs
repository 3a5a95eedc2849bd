//! The operations: one row or one file each, with their `Tensor` methods.

mod create;
mod custom;
mod join;
mod row_op;
pub mod rows;
mod table;
mod view;

pub use conv::Conv2dOptions;
pub use create::Generator;
pub(crate) use create::is_random;
pub use custom::CustomOp;
pub use loss::{CrossEntropy, Reduction};
pub use norm::BatchNorm;
pub use pool::{AvgPool2dOptions, MaxPool2dOptions};
pub use row_op::IntoRow;
pub use shape::PadMode;
pub use table::{Arg, Misuse, OpEntry, Order, Run, Sample};
pub(crate) use view::{contiguous_copy, detach};

use crate::error::{Error, Result};

/// Refuse two sizes of a window where one is below `least`, or more than kernels count.
fn check_window(op: &str, what: &str, v: [usize; 2], least: usize) -> Result<()> {
    if v.iter().any(|v| *v < least) {
        return Err(Error::shape(format!("{op}: {what} must be at least {least}, got {v:?}")));
    }
    if v.iter().any(|v| *v > i32::MAX as usize) {
        return Err(Error::shape(format!("{op}: {what} must be at most {}, got {v:?}", i32::MAX)));
    }
    Ok(())
}

/// One word declares the module and registers its operations: a forgotten one does not compile.
macro_rules! ops {
    ($($module:ident),* $(,)?) => {
        $(mod $module;)*

        /// Every operation that is not a row; rows are in [`rows::all`].
        pub fn all() -> Vec<&'static OpEntry> {
            let mut entries: Vec<&'static OpEntry> = view::OPS.iter().collect();
            $(entries.extend($module::OPS);)*
            entries
        }
    };
}

ops! {
    conv,
    dropout,
    index,
    loss,
    matmul,
    norm,
    pool,
    reduce,
    shape,
    softmax,
}
