//! x
pub mod control;
pub mod ctl;
