//! The decoders on arbitrary bytes: the entry point of a fuzzer, and of the tests that replay its corpus.

use crate::sync::notice::{Inbox, Notice};

use super::{Greeting, HEADER, Header, Item, Items};

/// Decodes arbitrary bytes in every way there is: as a frame's header, as what a frame says once it is opened, and as
/// an opened greeting.
///
/// # Panics
///
/// A frame whose items are sound ends with one that is not, or a notice is longer than one can be.
pub fn fuzz(bytes: &[u8]) {
    let _ = Header::read(bytes);
    let _ = Greeting::epoch(bytes);
    for body in [bytes, bytes.get(HEADER..).unwrap_or_default()] {
        let items = Items::new(body);
        let sound = items.are_sound();
        let mut inbox = Inbox::default();
        for item in items {
            assert!(item.is_ok() || !sound, "sound items, and one that is not");
            match item {
                Ok(Item::Conns(records) | Item::Activity(records)) => drop(records.count()),
                Ok(Item::Gone(records)) => drop(records.count()),
                Ok(Item::Pull(keys)) => drop(keys.count()),
                Ok(Item::Missing(missing)) => drop(missing.ranges().count()),
                Ok(Item::Digests(digests)) => drop(digests.count()),
                Ok(Item::Repair(buckets)) => drop(buckets.count()),
                Ok(Item::Notice(part)) => {
                    inbox.take(&part);
                    let length = inbox.notice().map_or(0, |notice| notice.bytes().len());
                    assert!(length <= Notice::LONGEST, "a notice of {length} bytes");
                }
                Ok(_) | Err(_) => {}
            }
        }
    }
}
