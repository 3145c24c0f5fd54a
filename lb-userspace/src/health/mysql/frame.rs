//! Packets: a length of three bytes, a sequence number, the payload. Nothing beyond a limit is ever waited for.

use zeroize::Zeroizing;

const HEADER: usize = 4;

/// Splits what arrives into packets and numbers what leaves.
#[derive(Debug, Default)]
pub(super) struct Framer {
    buffer: Vec<u8>,
    start: usize,
    sequence: u8,
}

impl Framer {
    /// The next packet begins a new exchange.
    pub(super) fn begin(&mut self) {
        self.sequence = 0;
    }

    /// True when something has arrived that was not asked for.
    pub(super) fn has_rest(&self) -> bool {
        self.start < self.buffer.len()
    }

    pub(super) fn receive(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.start);
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole payload, if it has arrived; one that claims to be longer than `limit` is refused at once.
    pub(super) fn next(&mut self, limit: usize) -> Result<Option<Vec<u8>>, &'static str> {
        let rest = self.buffer.get(self.start..).unwrap_or_default();
        let Some((&[a, b, c, sequence], rest)) = rest.split_first_chunk::<HEADER>() else { return Ok(None) };
        let length = u32::from_le_bytes([a, b, c, 0]) as usize;
        if sequence != self.sequence {
            return Err("a packet with a wrong sequence number");
        }
        if length > limit {
            return Err("a packet of a senseless length");
        }
        let Some(payload) = rest.get(..length) else { return Ok(None) };
        let payload = payload.to_vec();
        self.start += HEADER + length;
        self.sequence = self.sequence.wrapping_add(1);
        Ok(Some(payload))
    }

    /// Puts a packet around `payload` and appends it to `out`. Payloads of ours are short.
    pub(super) fn send(&mut self, payload: &[u8], out: &mut Zeroizing<Vec<u8>>) {
        let [a, b, c, ..] = (payload.len() as u32).to_le_bytes();
        out.extend_from_slice(&[a, b, c, self.sequence]);
        out.extend_from_slice(payload);
        self.sequence = self.sequence.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_come_out_however_they_came_in() {
        let bytes = [2, 0, 0, 0, 7, 8, 0, 0, 0, 1, 1, 0, 0, 2, 9];
        for piece in 1..=bytes.len() {
            let mut framer = Framer::default();
            let mut found = Vec::new();
            for part in bytes.chunks(piece) {
                framer.receive(part);
                while let Some(payload) = framer.next(10).unwrap() {
                    found.push(payload);
                }
            }
            assert_eq!(found, [vec![7, 8], vec![], vec![9]]);
            assert!(!framer.has_rest());
        }
    }

    #[test]
    fn a_long_packet_is_refused_by_its_header_alone() {
        let mut framer = Framer::default();
        framer.receive(&[0xff, 0xff, 0xff, 0]);
        assert_eq!(framer.next(0xff_fffe), Err("a packet of a senseless length"));
        let mut framer = Framer::default();
        framer.receive(&[0xff, 0xff, 0xff]);
        assert_eq!(framer.next(10), Ok(None));
    }

    #[test]
    fn the_sequence_must_go_on() {
        let mut framer = Framer::default();
        framer.receive(&[0, 0, 0, 1]);
        assert_eq!(framer.next(10), Err("a packet with a wrong sequence number"));
        let mut framer = Framer::default();
        framer.receive(&[0, 0, 0, 0]);
        assert_eq!(framer.next(10), Ok(Some(vec![])));
        let mut out = Zeroizing::new(Vec::new());
        framer.send(b"abc", &mut out);
        assert_eq!(out[..], *b"\x03\0\0\x01abc");
    }
}
