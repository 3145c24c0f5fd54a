//! The names, sizes and version that the object, the agent, bpftool and the tests share.
//!
//! A change of a map's key, value or meaning raises [`ABI_VERSION`]: the agent pins under a directory of that number,
//! so an old agent and a new one never read each other's maps.

/// The version of the map layout; part of the pin directory (`…/v1`).
pub const ABI_VERSION: u32 = 1;

/// The bpffs directory below which the agent pins, unless the config names another.
pub const PIN_ROOT: &str = "/sys/fs/bpf/lb";

/// The XDP program in the object.
pub const PROG_XDP: &str = "lb_xdp";
/// The TC program in the object.
pub const PROG_TC: &str = "lb_tc";
/// The XDP program that only passes: a veth needs one at the far end to take redirected frames.
pub const PROG_XDP_PASS: &str = "lb_xdp_pass";
/// The program that tells the packet path's clock: run by the agent with `BPF_PROG_TEST_RUN`, never attached.
pub const PROG_CLOCK: &str = "lb_clock";

/// The program that keeps the ARP gate open: run by the agent with `BPF_PROG_TEST_RUN`, never attached.
pub const PROG_BEAT: &str = "lb_beat";

/// The program that writes conns of the other director: run by the agent with `BPF_PROG_TEST_RUN` over a list of
/// [`crate::replica::Request`], never attached.
pub const PROG_REPLICA: &str = "lb_replica";

/// The program that removes expired conns: run by the agent with `BPF_PROG_TEST_RUN` over a list of
/// [`crate::retire::Request`], never attached.
pub const PROG_RETIRE: &str = "lb_retire";

/// Names of the maps: at most 15 characters, the kernel cuts longer ones.
pub mod map {
    /// [`crate::service::ServiceKey`] → [`crate::service::Service`].
    pub const SERVICES: &str = "services";
    /// Backend id → [`crate::backend::Backend`].
    pub const BACKENDS: &str = "backends";
    /// Slot → [`crate::service::RingSlot`]; each service owns a region.
    pub const RINGS: &str = "rings";
    /// Service id → [`crate::service::Cursor`].
    pub const CURSORS: &str = "cursors";
    /// [`crate::conn::FlowKey`] → [`crate::conn::Conn`], established.
    pub const CONNS: &str = "conns";
    /// [`crate::conn::FlowKey`] → [`crate::conn::Conn`], while the handshake runs.
    pub const HALF_OPEN: &str = "half_open";
    /// Backend id → [`crate::stats::BackendStats`], per CPU.
    pub const STATS: &str = "stats";
    /// Backend id → [`crate::backend::Load`].
    pub const LOADS: &str = "loads";
    /// 0 → [`crate::counter::Counters`], per CPU.
    pub const COUNTERS: &str = "counters";
    /// 0 → [`crate::control::Control`].
    pub const CONTROL: &str = "control";
    /// Slot of an interface → [`crate::link::Link`].
    pub const LINKS: &str = "links";
    /// Ring buffer of [`crate::event::Event`].
    pub const EVENTS: &str = "events";

    /// Every map that is pinned.
    pub const ALL: [&str; 12] =
        [SERVICES, BACKENDS, RINGS, CURSORS, CONNS, HALF_OPEN, STATS, LOADS, COUNTERS, CONTROL, LINKS, EVENTS];
}

/// Slots of one service's region in `rings`, twice: the agent fills the half that is not in use, then switches.
pub const RING_SLOTS: u32 = 4096;
/// Bytes of the event ring buffer.
pub const EVENTS_BYTES: u32 = 4 << 20;
/// Default capacity of `services`.
pub const MAX_SERVICES: u32 = 64;
/// Default capacity of `backends` and `stats`.
pub const MAX_BACKENDS: u32 = 1024;
/// Default number of planned conns; `conns` holds two entries for each.
pub const MAX_CONNS: u32 = 100_000;
/// Default number of half-open conns; `half_open` holds two entries for each.
pub const MAX_HALF_OPEN: u32 = 65_536;
/// The most backends a service with scheduler lc or wlc may have: the packet path compares them one by one.
pub const MAX_LEAST_CONN: u32 = 64;
