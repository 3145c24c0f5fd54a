//! What the tests share: the lab, packets that read as sentences, and the harness that runs the real eBPF programs.

pub mod lab;
pub mod packet;
pub mod prog;
pub mod sim;
