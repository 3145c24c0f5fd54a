//! The Ethernet header: addresses, up to any number of VLAN tags (IEEE 802.1Q, 802.1ad), padding.

/// A link-layer address.
pub type Mac = [u8; 6];

/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of ARP.
pub const ARP: u16 = 0x0806;
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;
/// EtherType of an inner or only VLAN tag.
pub const VLAN: u16 = 0x8100;
/// EtherType of an outer (service provider) VLAN tag.
pub const SERVICE_VLAN: u16 = 0x88a8;

/// Everything in front of the network layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ethernet {
    pub(super) src: Mac,
    pub(super) dst: Mac,
    /// EtherType and identifier of each tag, outermost first.
    pub(super) tags: Vec<(u16, u16)>,
}

impl Default for Ethernet {
    fn default() -> Self {
        Self { src: [2, 0, 0, 0, 0, 1], dst: [2, 0, 0, 0, 0, 2], tags: Vec::new() }
    }
}

impl Ethernet {
    /// The frame around `content`.
    pub(super) fn frame(&self, ether_type: u16, content: &[u8]) -> Vec<u8> {
        let mut frame = Vec::with_capacity(22 + content.len());
        frame.extend(self.dst);
        frame.extend(self.src);
        for (tag, id) in &self.tags {
            frame.extend(tag.to_be_bytes());
            frame.extend(id.to_be_bytes());
        }
        frame.extend(ether_type.to_be_bytes());
        frame.extend(content);
        frame
    }
}

/// What is done to a finished frame: padding, cutting, single bytes. In this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Finish {
    pub(super) padded: bool,
    pub(super) truncate: Option<usize>,
    pub(super) edits: Vec<(usize, u8)>,
}

impl Finish {
    /// Applies it. Padding is 0xEE, so that a test sees when it is taken for data or is overwritten.
    pub(super) fn apply(&self, mut frame: Vec<u8>) -> Vec<u8> {
        if self.padded && frame.len() < 60 {
            frame.resize(60, 0xee);
        }
        if let Some(len) = self.truncate {
            frame.truncate(len);
        }
        for &(at, value) in &self.edits {
            frame[at] = value;
        }
        frame
    }
}

/// The methods that every kind of packet has for its frame; the type has the fields `ether` and `finish`.
macro_rules! frame_methods {
    () => {
        /// Sets the link-layer addresses: sender, receiver.
        #[must_use]
        pub fn macs(mut self, src: $crate::packet::Mac, dst: $crate::packet::Mac) -> Self {
            (self.ether.src, self.ether.dst) = (src, dst);
            self
        }

        /// The link-layer addresses: sender, receiver.
        #[must_use]
        pub const fn link(&self) -> ($crate::packet::Mac, $crate::packet::Mac) {
            (self.ether.src, self.ether.dst)
        }

        /// Adds a VLAN tag inside the ones there are (IEEE 802.1Q).
        #[must_use]
        pub fn vlan(mut self, id: u16) -> Self {
            self.ether.tags.push(($crate::packet::ether::VLAN, id));
            self
        }

        /// Adds a service tag and a VLAN tag inside it (IEEE 802.1ad).
        #[must_use]
        pub fn qinq(mut self, outer: u16, inner: u16) -> Self {
            self.ether.tags.push(($crate::packet::ether::SERVICE_VLAN, outer));
            self.vlan(inner)
        }

        /// Sets the VLAN tags to those of another packet.
        #[must_use]
        pub fn tagged_as(mut self, other: &Self) -> Self {
            self.ether.tags.clone_from(&other.ether.tags);
            self
        }

        /// Takes all VLAN tags off.
        #[must_use]
        pub fn untagged(mut self) -> Self {
            self.ether.tags.clear();
            self
        }

        /// Fills a short frame up to 60 bytes, as a sending Ethernet device does.
        #[must_use]
        pub fn padded(mut self) -> Self {
            self.finish.padded = true;
            self
        }

        /// Cuts the frame to `len` bytes.
        #[must_use]
        pub fn truncate(mut self, len: usize) -> Self {
            self.finish.truncate = Some(len);
            self
        }

        /// Overwrites one byte of the finished frame.
        #[must_use]
        pub fn byte(mut self, at: usize, value: u8) -> Self {
            self.finish.edits.push((at, value));
            self
        }
    };
}
pub(super) use frame_methods;
