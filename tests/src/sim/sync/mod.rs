//! A simulator for connection sync: two directors with model tables, clients with conns, a bad line between, a virtual
//! clock.
//!
//! Runs the real core of [`lb_userspace::sync`]; the packet path's table, its event ring and the agent's few steps are
//! models. Every conn is known to the world by an identity that it carries where the protocol carries numbers, so
//! mistaking one for another shows. What must never happen is checked at every change; see [`World::violation`].

mod agent;
mod chaos;
mod line;
mod table;
mod truth;
mod world;

pub use chaos::{Kind, chaos};
pub use line::Line;
pub use table::{Entry, Table};
pub use truth::{Life, Truth};
pub use world::{Setup, World};
