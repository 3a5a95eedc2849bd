//! The model axis.
