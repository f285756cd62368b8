//! A read, in the three steps that a miss takes: a lease, the database, the fill.

use crate::{
    protocol::Protocol,
    rules::Rule,
    state::State,
    store::{Image, Slot, Stage},
    words::{Content, Key, Mutation, Seat, Seen},
};

/// How far a reader has come. What was acked when it began is what it must not be older than.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Reader {
    Idle,
    Leased { key: Key, token: u8, acked: Seen },
    Loaded { key: Key, token: u8, acked: Seen, seen: Seen },
}

impl Protocol {
    /// Asks the hot store; a miss leaves a token in the key's place.
    pub(crate) fn ask(&self, s: &mut State, seat: Seat, key: Key) {
        let acked = self.newest_acked(s, key);
        match s.store.slots[key] {
            Slot::Image(image) => self.check_read(s, acked, Seen::of(image.is.version, image.is.content)),
            Slot::Absent(seen) => self.check_read(s, acked, seen),
            Slot::Empty | Slot::Leased(_) => {
                s.tokens += 1;
                s.store.slots[key] = Slot::Leased(s.tokens);
                s.readers[seat] = Reader::Leased { key, token: s.tokens, acked };
            }
        }
    }

    /// Reads the row.
    pub(crate) fn load(&self, s: &mut State, seat: Seat) {
        if let Reader::Leased { key, token, acked } = s.readers[seat] {
            s.readers[seat] = Reader::Loaded { key, token, acked, seen: s.database.see(key) };
        }
    }

    /// Fills the slot, if the token still stands there, and answers either way.
    pub(crate) fn fill(&self, s: &mut State, seat: Seat) {
        let Reader::Loaded { key, token, acked, seen } = s.readers[seat] else { return };
        s.readers[seat] = Reader::Idle;
        if self.answers(s) && (s.store.slots[key] == Slot::Leased(token) || !self.on(Rule::FillUnderLease)) {
            s.store.slots[key] = match seen.value {
                None => Slot::Absent(seen),
                Some(value) => {
                    let content = Content { value, deleted: false };
                    let is =
                        Mutation { key, version: seen.version, content, since: None, created: None, request: None };
                    Slot::Image(Image { is, stage: Stage::Clean, behind: 0 })
                }
            };
        }
        self.check_read(s, acked, seen);
    }

    /// A TTL runs out.
    pub(crate) fn expire(&self, s: &mut State, key: Key) {
        s.store.slots[key] = Slot::Empty;
    }
}
