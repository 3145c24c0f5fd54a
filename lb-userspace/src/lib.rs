//! x

pub mod config;
pub mod datapath;
