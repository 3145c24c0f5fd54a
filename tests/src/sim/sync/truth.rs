//! What is true of every conn, whoever knows it: whether its client has it open, and where that could still be known.

use std::{collections::BTreeMap, time::Instant};

use lb_userspace::sync::Key;

/// One conn.
#[derive(Clone, Copy, Debug)]
pub struct Life {
    /// Its key.
    pub key: Key,
    /// The client has it open.
    pub open: bool,
    /// When a packet of it last came by at either director, as far as somebody can know that still.
    pub used_at: [Instant; 2],
    /// Which director has it in its table, or knows that it is over.
    pub known: [bool; 2],
    /// Which director has learnt that it is over.
    pub over: [bool; 2],
    /// No director that is alive knew it: nobody could do better.
    pub excused: bool,
}

impl Life {
    /// When a packet of it last came by anywhere.
    #[must_use]
    pub fn used(&self) -> Instant {
        self.used_at[0].max(self.used_at[1])
    }
}

/// Every conn there ever was, by its identity.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    lives: BTreeMap<u32, Life>,
}

impl Truth {
    /// A conn begins at a director; answers its identity.
    pub fn begin(&mut self, key: Key, now: Instant) -> u32 {
        let identity = self.lives.len() as u32 + 1;
        let life = Life { key, open: true, used_at: [now; 2], known: [false; 2], over: [false; 2], excused: false };
        self.lives.insert(identity, life);
        identity
    }

    /// A conn.
    #[must_use]
    pub fn get(&self, identity: u32) -> Option<&Life> {
        self.lives.get(&identity)
    }

    /// A conn, to be changed.
    pub fn get_mut(&mut self, identity: u32) -> Option<&mut Life> {
        self.lives.get_mut(&identity)
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = (u32, &Life)> {
        self.lives.iter().map(|(identity, life)| (*identity, life))
    }

    /// Those that are open.
    pub fn open(&self) -> impl Iterator<Item = (u32, &Life)> {
        self.all().filter(|(_, life)| life.open)
    }

    /// A director has lost its memory, table and all, or only what the agent knew; `keeps` tells what its table shows.
    pub fn forget(&mut self, director: usize, keeps: impl Fn(u32) -> Option<bool>) {
        for (identity, life) in &mut self.lives {
            let shown = keeps(*identity);
            life.known[director] = shown.is_some();
            if shown.is_none() {
                // What it had not told is lost.
                life.used_at[director] = life.used_at[1 - director];
            }
            let was_over = life.over[director];
            life.over[director] = shown == Some(true);
            let knew = if life.open { life.known } else { life.over };
            // An end that nobody knows of any more, or a conn that nobody has: that is nobody's fault.
            if (life.open || was_over) && !knew[0] && !knew[1] {
                life.excused = true;
            }
        }
    }
}
