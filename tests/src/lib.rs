//! What the end-to-end tests, the demo and the benchmarks share. [`lab`] builds a network of namespaces with
//! real MariaDB servers; nothing here is linked into the agent.

pub mod lab;
pub mod world;
