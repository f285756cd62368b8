//! The hot store's shard: everything that one atomic call can see and change, and that a restart may roll back.

use crate::{
    log::Event,
    protocol::Protocol,
    rules::Rule,
    words::{Content, Epoch, Incarnation, KEYS, Key, Mutation, Offset, REQUESTS, Request, Seat, Seen, TABLES, Version},
};

/// What is known of an image's way to the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Stage {
    /// Dirty, and not known to be in the log.
    Unqueued,
    /// Dirty, and in the log.
    Queued,
    /// Dirty: the database refused it, and the dead letters have it.
    Parked,
    /// In the database. Only this may expire.
    Clean,
}

/// An image with its place in the dirty set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Image {
    pub(crate) is: Mutation,
    pub(crate) stage: Stage,
    /// Of a dirty image: the lowest version of the record that the database may lack.
    pub(crate) behind: Version,
}

impl Image {
    pub(crate) fn is_dirty(&self) -> bool {
        self.stage != Stage::Clean
    }
}

/// What stands in a key's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Slot {
    Empty,
    /// The database was seen to have no row. What was seen is for checks.
    Absent(Seen),
    /// A reader's token.
    Leased(u8),
    Image(Image),
}

/// Where each partition is read from.
pub(crate) type Offsets = [Offset; TABLES];

/// Where an opening begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Start {
    /// From here on request ids are put back.
    pub(crate) requests: Offsets,
    /// From here on records are.
    pub(crate) records: Offsets,
    /// There is no checkpoint, so what lies there can't be trusted.
    pub(crate) discard: bool,
}

/// An opening under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Opening {
    pub(crate) by: Seat,
    /// Tells apart two claims from one seat.
    pub(crate) token: u8,
    pub(crate) incarnation: Incarnation,
    pub(crate) start: Option<Start>,
    pub(crate) epoch: Epoch,
}

/// The shard.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Store {
    /// The incarnation for which it is open.
    pub(crate) open_for: Incarnation,
    pub(crate) epoch: Epoch,
    pub(crate) clock: Version,
    pub(crate) checkpoint: Option<Offsets>,
    pub(crate) opening: Option<Opening>,
    pub(crate) slots: [Slot; KEYS],
    /// Which version a request got, and what it asked for.
    pub(crate) requests: [Option<(Version, u8)>; REQUESTS],
}

/// What the drain says about a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Clean {
    pub(crate) key: Key,
    /// The database holds this version,
    pub(crate) version: Version,
    /// which is this, if it is not what the drain was to write.
    pub(crate) newer: Option<Content>,
}

impl Store {
    /// A store without anything.
    pub(crate) fn empty() -> Self {
        Self {
            open_for: 0,
            epoch: 0,
            clock: 0,
            checkpoint: None,
            opening: None,
            slots: [Slot::Empty; KEYS],
            requests: [None; REQUESTS],
        }
    }

    pub(crate) fn image(&self, key: Key) -> Option<Image> {
        match self.slots[key] {
            Slot::Image(image) => Some(image),
            Slot::Empty | Slot::Absent(_) | Slot::Leased(_) => None,
        }
    }

    fn remember(&mut self, request: Option<Request>) {
        if let Some(Request { id, digest, version }) = request
            && self.requests[id].is_none_or(|(known, _)| known < version)
        {
            self.requests[id] = Some((version, digest));
        }
    }

    /// Takes a record out of the unqueued set.
    pub(crate) fn mark_queued(&mut self, rules: &Protocol, key: Key, version: Version) {
        if let Slot::Image(image) = &mut self.slots[key]
            && image.stage == Stage::Unqueued
            && (image.is.version == version || !rules.on(Rule::MarkComparesVersion))
        {
            image.stage = Stage::Queued;
        }
    }

    /// The atomic write, once its preconditions hold and its version is given: the image, dirty, unqueued, without a
    /// TTL, and its request.
    pub(crate) fn write(&mut self, rules: &Protocol, is: Mutation) {
        let key = is.key;
        let behind = match self.image(key) {
            Some(image) if image.is_dirty() && rules.on(Rule::HorizonBelowOverwritten) => image.behind,
            _ => is.version,
        };
        self.clock = self.clock.max(is.version);
        self.slots[key] = if is.content.deleted && !rules.on(Rule::HotTombstone) {
            Slot::Empty
        } else {
            Slot::Image(Image { is, stage: Stage::Unqueued, behind })
        };
        if rules.on(Rule::RequestRemembered) {
            self.remember(is.request);
        }
    }

    /// The database holds `clean.version`.
    pub(crate) fn mark_clean(&mut self, rules: &Protocol, clean: Clean) {
        let Some(image) = self.image(clean.key) else {
            self.slots[clean.key] = Slot::Empty;
            return;
        };
        let held = image.is.version;
        let as_clean = Slot::Image(Image { stage: Stage::Clean, behind: 0, ..image });
        self.slots[clean.key] =
            if clean.version == held || (clean.version < held && !rules.on(Rule::CleanComparesVersion)) {
                as_clean
            } else if clean.version < held {
                let behind = if image.is_dirty() { image.behind.max(clean.version + 1) } else { 0 };
                Slot::Image(Image { behind, ..image })
            } else if !rules.on(Rule::NewerRowReplaces) {
                as_clean
            } else if let Some(content) = clean.newer {
                Slot::Image(clean_image(clean.key, clean.version, content))
            } else {
                Slot::Empty
            };
    }

    /// The dead letters have this version.
    pub(crate) fn park(&mut self, rules: &Protocol, key: Key, version: Version) {
        if let Slot::Image(image) = &mut self.slots[key]
            && image.is_dirty()
            && image.is.version == version
        {
            if rules.on(Rule::ParkedStays) {
                image.stage = Stage::Parked;
            } else {
                self.slots[key] = Slot::Empty;
            }
        }
    }

    /// Puts a record back that only the log (or the dead letters) is known to have.
    pub(crate) fn put_back_dirty(&mut self, rules: &Protocol, is: Mutation, stage: Stage) {
        match &mut self.slots[is.key] {
            Slot::Image(image) if image.is.version >= is.version && rules.on(Rule::PutBackOverLower) => {
                // Of a dirty record the database may lack this older version too.
                if image.is_dirty() {
                    image.behind = image.behind.min(is.version);
                }
            }
            slot => {
                let behind = match slot {
                    Slot::Image(image) if image.is_dirty() => image.behind.min(is.version),
                    _ => is.version,
                };
                *slot = Slot::Image(Image { is, stage, behind });
            }
        }
    }

    /// Of a dirty record the database may lack this version too, which only a note names.
    pub(crate) fn put_back_note(&mut self, (key, version): (Key, Version)) {
        if let Slot::Image(image) = &mut self.slots[key]
            && image.is_dirty()
        {
            image.behind = image.behind.min(version);
        }
    }

    /// The row is at least as new as what the log has: it goes over a lower image, and over an equal one whose mark
    /// that it is clean was lost.
    pub(crate) fn put_back_clean(&mut self, rules: &Protocol, key: Key, version: Version, content: Content) {
        let replaces = match self.slots[key] {
            Slot::Image(image) => {
                image.is.version == version || (image.is.version < version && rules.on(Rule::RowReplacesLower))
            }
            Slot::Empty | Slot::Absent(_) | Slot::Leased(_) => rules.on(Rule::RowReplacesLower),
        };
        if replaces {
            self.slots[key] = Slot::Image(clean_image(key, version, content));
        }
    }

    /// There is no row, and there was a tombstone at or above this version: what is at or below it is gone.
    pub(crate) fn put_back_gone(&mut self, key: Key, horizon: Version) {
        if self.image(key).is_some_and(|image| image.is.version <= horizon) {
            self.slots[key] = Slot::Empty;
        }
    }

    /// Puts back the requests that an event names.
    pub(crate) fn put_back_requests(&mut self, rules: &Protocol, event: &Event) {
        if rules.on(Rule::RequestsPutBack) {
            event.requests().for_each(|request| self.remember(Some(request)));
        }
    }

    /// The horizon of some keys: the database has every acked version up to it.
    pub(crate) fn horizon(&self, rules: &Protocol, keys: impl Iterator<Item = Key>, now: Version) -> Version {
        let dirty = keys.filter_map(|key| self.image(key)).filter(Image::is_dirty).map(|image| image.behind);
        let oldest = if rules.on(Rule::HorizonBelowDirty) { dirty.min() } else { None };
        oldest.map_or(now, |version| version - 1)
    }
}

fn clean_image(key: Key, version: Version, content: Content) -> Image {
    let is = Mutation { key, version, content, since: None, created: None, request: None };
    Image { is, stage: Stage::Clean, behind: 0 }
}
