//! Which hooks an interface gets, and why.
//!
//! Pure. XDP comes first where the driver runs it natively, and the TC program always stands behind it: it translates
//! what XDP must leave alone (packets whose checksum the sender left to its hardware, unresolved neighbours).

use std::fmt;

use super::netdev::NetDev;

/// What the config asks for an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Native XDP where it is known to be safe, TC elsewhere.
    #[default]
    Auto,
    /// Native XDP, with TC behind it.
    Xdp,
    /// XDP run by the stack, with TC behind it.
    XdpGeneric,
    /// TC only.
    Tc,
}

impl Mode {
    /// Every mode.
    pub const ALL: [Self; 4] = [Self::Auto, Self::Xdp, Self::XdpGeneric, Self::Tc];

    /// The name in the config.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Xdp => "xdp",
            Self::XdpGeneric => "xdp-generic",
            Self::Tc => "tc",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A place where a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// In the driver, before the kernel makes a packet buffer.
    XdpNative,
    /// XDP run by the stack.
    XdpGeneric,
    /// The TC ingress (TCX).
    Tc,
}

impl Hook {
    /// The name people read; for the first hook of an interface also the mode in use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::XdpNative => "xdp",
            Self::XdpGeneric => "xdp-generic",
            Self::Tc => "tc",
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The XDP hook to try for an interface; the TC hook is always taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) xdp: Option<Hook>,
    /// If the kernel refuses XDP: go on with TC alone.
    pub(super) may_fall_back: bool,
    pub(super) why: String,
}

/// Chooses by what the config says and what the interface is.
pub(super) fn choose(mode: Mode, dev: &NetDev) -> Choice {
    let configured = |xdp| Choice { xdp, may_fall_back: false, why: format!("mode = \"{mode}\"") };
    match mode {
        Mode::Xdp => configured(Some(Hook::XdpNative)),
        Mode::XdpGeneric => configured(Some(Hook::XdpGeneric)),
        Mode::Tc => configured(None),
        Mode::Auto => match unsuitable(dev) {
            Some(reason) => Choice { xdp: None, may_fall_back: false, why: reason },
            None => Choice {
                xdp: Some(Hook::XdpNative),
                may_fall_back: true,
                why: "the driver runs XDP natively".to_owned(),
            },
        },
    }
}

/// Why native XDP is not taken without being asked for.
fn unsuitable(dev: &NetDev) -> Option<String> {
    if dev.bonded {
        return Some("a port of a bond: the bond's own interface sees the packets".to_owned());
    }
    match (dev.kind.as_deref(), dev.bus.as_deref()) {
        (Some("veth"), _) => {
            Some("veth: packets carry unfinished checksums, and the far end must take redirected frames".to_owned())
        }
        (Some(kind), _) => Some(format!("{kind}: a virtual interface gains nothing from XDP")),
        (None, Some("virtio")) => Some("virtio: packets of neighbouring guests carry unfinished checksums".to_owned()),
        (None, None) => Some("no device behind the interface".to_owned()),
        (None, Some(_)) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dev(kind: Option<&str>, bus: Option<&str>) -> NetDev {
        NetDev { kind: kind.map(str::to_owned), bus: bus.map(str::to_owned), ..NetDev::default() }
    }

    #[test]
    fn auto_takes_xdp_only_on_hardware() {
        assert_eq!(choose(Mode::Auto, &dev(None, Some("pci"))).xdp, Some(Hook::XdpNative));
        for kind in ["veth", "bridge", "bond", "macvlan", "vlan", "dummy", "tun"] {
            let choice = choose(Mode::Auto, &dev(Some(kind), None));
            assert_eq!(choice.xdp, None, "{kind}");
            assert!(choice.why.starts_with(kind), "{}", choice.why);
        }
        assert_eq!(choose(Mode::Auto, &dev(None, Some("virtio"))).xdp, None);
        assert_eq!(choose(Mode::Auto, &dev(None, None)).xdp, None);
        let slave = NetDev { bonded: true, ..dev(None, Some("pci")) };
        assert_eq!(choose(Mode::Auto, &slave).xdp, None);
    }

    #[test]
    fn a_configured_mode_is_taken_or_refused_but_never_replaced() {
        let veth = dev(Some("veth"), None);
        for (mode, hook) in
            [(Mode::Xdp, Some(Hook::XdpNative)), (Mode::XdpGeneric, Some(Hook::XdpGeneric)), (Mode::Tc, None)]
        {
            let choice = choose(mode, &veth);
            assert_eq!((choice.xdp, choice.may_fall_back), (hook, false));
        }
    }
}
