//! The graph: handles, nodes, what is recorded and when it runs.
//!
//! A [`Tensor`] is a handle; what it names is an output of a node. Recording checks shapes and appends a node; nothing runs until a value is
//! read, or until `flush` or an optimizer's step asks for everything that live handles still name. See `ARCHITECTURE.md`, "What the graph promises".

mod arena;
mod autocast;
mod canon;
mod capture;
mod engine;
mod explain;
mod fuse;
#[cfg(feature = "gpu")]
mod interop;
pub mod lower;
mod memory;
mod mode;
mod node;
mod op;
mod plan;
mod record;
mod slots;
mod tensor;
mod watch;

pub(crate) use arena::Arena;
pub(crate) use autocast::without_autocast;
pub use autocast::{Autocast, autocast};
pub(crate) use capture::{Cell, Recorded, Session, asked_mode, drew, touched};
pub(crate) use engine::Engine;
#[doc(hidden)]
pub use engine::{Alternative, Planned, plan_with};
pub use engine::{flush, plan_names};
#[cfg(feature = "gpu")]
pub use interop::WgpuSlice;
pub(crate) use lower::countable;
pub use lower::launch::{Call, LaunchCtx, Operand};
pub(crate) use lower::steps::in_fours;
pub use mode::{MatmulPrecision, PlanName, grad_enabled, no_grad, plan_name, with_grad_mode, with_matmul_precision};
pub(crate) use mode::{Phase, matmul_precision, scope, with_phase, with_scope, without_cuts};
pub(crate) use node::{GradSlot, Node, NodeState, Value, next_id};
pub use op::{Arenas, Batched, Elements, Fuses, Key, Op, Saved, Saves};
#[doc(hidden)]
pub use plan::Fault;
pub use slots::Slots;
pub use tensor::{Element, Reading, Tensor};
#[doc(hidden)]
pub use watch::{Seen, Watched, watch};
