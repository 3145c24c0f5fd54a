//! What the tests, the demo and the benchmarks share. [`lab`] builds a network of namespaces with real MariaDB servers,
//! [`checks`] says what must hold of an agent at work in it, [`packet`] builds and checks frames, [`prog`] runs the eBPF
//! programs on single packets, [`mod@bench`] measures what one costs, [`failover`] what a failover does,
//! [`survival`] keeps many MySQL sessions open meanwhile, [`sync_pair`] is two directors that sync, [`ward`] servers that fall ill.
//! Nothing here is linked into the agent.

pub mod bench;
pub mod chance;
pub mod checks;
pub mod failover;
pub mod health;
pub mod hook;
mod ip;
pub mod lab;
pub mod oracle;
pub mod packet;
pub mod prog;
pub mod sandbox;
pub mod sim;
pub mod survival;
pub mod sync_pair;
pub mod ward;
