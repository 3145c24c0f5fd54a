//! The two hooks, which every test and benchmark of the packet path tries.

use std::fmt;

/// Where a program meets the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// In or right behind the driver.
    Xdp,
    /// TC ingress.
    Tc,
}

impl Hook {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Xdp, Self::Tc];
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Xdp => "XDP",
            Self::Tc => "TC",
        })
    }
}
