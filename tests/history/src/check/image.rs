//! Whether a row that was seen can be: who wrote it, and on what.

use super::{Check, View};
use crate::{Action, Image, Part, Seen, Span, timeline::Write};

impl<'a> Check<'a> {
    /// Checks where a row comes from, and says whether the hot store can't lose it; `None` if nobody wrote it.
    pub(super) fn image(&mut self, seen: Seen, span: Span, view: View) -> Option<bool> {
        let Image { value, left, right } = seen.image;
        if let Some(earlier) = self.images.insert((value, seen.version), seen.image)
            && earlier != seen.image
        {
            self.out_of_order(format!("{span} {seen} was seen, and before with other columns, {earlier:?}"));
        }
        if let Some(base) = self.timeline.base.image
            && base.value == value
        {
            if (base, self.timeline.base.version) != (seen.image, seen.version) {
                self.out_of_order(format!("{span} {seen} was seen, which in the beginning was {base:?}"));
            }
            return Some(true);
        }
        let Some(&at) = self.timeline.by_value.get(&value) else {
            let why = if self.timeline.refused.contains(&value) { "which was refused" } else { "which nobody wrote" };
            self.phantom(format!("{span} {seen} was seen, {why}"));
            return None;
        };
        let write = &self.timeline.writes[at];
        if write.operation.span.from > span.to {
            self.phantom(format!("{span} {seen} was seen before it was written, {}", write.operation.span));
            return None;
        }
        let again = write.version != Some(seen.version);
        // A first effect that was lost with its request id may be followed by a second one. What the database has, the
        // log had, and so the request id is known.
        if again && !(view == View::Api && self.lossy(span.around(write.operation.span))) {
            self.out_of_order(format!(
                "{span} {seen} was seen, but this write took effect at another version, too: {}",
                write.operation
            ));
        }
        match write.operation.action {
            Action::Update { part, .. } if seen.image.part(part) == value => {
                if let Some(below) = self.kept(seen, part.other(), span).filter(|_| !again) {
                    self.built_on(write, seen, part.other(), span, below);
                }
            }
            Action::Update { .. } => {
                self.phantom(format!("{span} {seen} was seen, not what was written: {}", write.operation))
            }
            _ if (left, right) != (value, value) => {
                self.phantom(format!("{span} {seen} was seen, not what was written: {}", write.operation));
            }
            _ => {}
        }
        Some(write.durable && !again)
    }

    /// The write, as far as its version is known, that put there what the column holds that an update left alone.
    fn kept(&mut self, seen: Seen, kept: Part, span: Span) -> Option<Kept> {
        let value = seen.image.part(kept);
        let base = self.timeline.base;
        if base.image.is_some_and(|image| image.part(kept) == value) {
            return Some(Kept { version: base.version, what: "the row of the beginning".to_owned() });
        }
        let Some(&at) = self.timeline.by_value.get(&value) else {
            self.phantom(format!("{span} {seen} was seen, but nobody wrote {value}"));
            return None;
        };
        let write = &self.timeline.writes[at];
        if !sets(write, kept) {
            self.phantom(format!("{span} {seen} was seen, but {kept:?} was not written so: {}", write.operation));
            return None;
        }
        // An earlier attempt of it may have been lost. Of a write whose version is not known it can't be said what came
        // after it.
        let version = write.version.filter(|_| !self.lossy(write.operation.span))?;
        Some(Kept { version, what: write.operation.to_string() })
    }

    /// The column that an update left alone holds what the newest write before it had put there. Of an update that was
    /// lost and done again, that holds for the effect whose version is known, since what came before is known of that.
    fn built_on(&mut self, update: &Write<'a>, seen: Seen, kept: Part, span: Span, below: Kept) {
        let Kept { version: below, what } = below;
        let between = |version: u64| below < version && version < seen.version;
        let overlooked = self.timeline.writes.iter().find(|write| {
            write.version.is_some_and(between)
                && (write.deletes() || sets(write, kept))
                && self.stood_before(write, update)
        });
        if let Some(overlooked) = overlooked {
            let overlooked = overlooked.operation;
            self.out_of_order(format!("{span} {seen} was seen, an update of {what}, but in between was {overlooked}"));
        } else if below >= seen.version {
            self.out_of_order(format!("{span} {seen} was seen, an update of something newer: {what}"));
        }
    }

    /// Two writes at the same version: one of them must have been lost.
    pub(super) fn versions(&mut self) {
        let mut by_version: Vec<&Write<'_>> = self.timeline.writes.iter().filter(|w| w.version.is_some()).collect();
        by_version.sort_by_key(|write| write.version);
        for pair in by_version.windows(2) {
            let [a, b] = pair else { continue };
            if a.version == b.version && self.stood_before(a, b) {
                self.out_of_order(format!("two writes have one version: {} and {}", a.operation, b.operation));
            }
        }
    }

    /// A shard's epoch never falls.
    pub(super) fn epoch(&mut self, epoch: u32, span: Span) {
        let newer = self.bounds.iter().find(|bound| bound.span.is_before(span) && bound.epoch > Some(epoch)).copied();
        if let Some(newer) = newer {
            let known = newer.epoch.unwrap_or_default();
            self.out_of_order(format!("{span} epoch {epoch} was answered, after epoch {known} {}", newer.span));
        }
    }
}

/// What an update left alone.
struct Kept {
    version: u64,
    what: String,
}

fn sets(write: &Write<'_>, column: Part) -> bool {
    match write.operation.action {
        Action::Create { .. } | Action::Put { .. } => true,
        Action::Update { part, .. } => part == column,
        Action::Delete { .. } | Action::Read => false,
    }
}
