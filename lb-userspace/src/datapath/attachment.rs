//! What is attached where, as the agent shows it.

use super::mode::Hook;

/// A program at a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkStatus {
    /// Where it runs.
    pub hook: Hook,
    /// The kernel's id of the link: it stays when the program is replaced. 0: a filter at clsact, which has no link.
    pub link_id: u32,
    /// The kernel's id of the program.
    pub program_id: u32,
    /// The link was there before, from an earlier agent.
    pub adopted: bool,
}

/// What became of one interface of the config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceStatus {
    /// Its name.
    pub name: String,
    /// Its index.
    pub ifindex: u32,
    /// The hook that sees its packets first: the mode in use.
    pub hook: Hook,
    /// Why this hook.
    pub why: String,
    /// Every program of ours on it.
    pub links: Vec<LinkStatus>,
}
