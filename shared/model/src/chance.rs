//! Chance: what replicas need so as not to do the same thing at the same time, from a seed if it must be repeatable.

use std::{
    fmt,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng, seq::SliceRandom as _};

/// A source of jitter, names and orders. Clones share it. With a seed the same questions get the same answers, so a
/// simulation can be replayed.
#[derive(Clone)]
pub struct Chance(Arc<Mutex<SmallRng>>);

impl Chance {
    /// Another one in every process.
    pub fn from_os() -> Self {
        Self::of(SmallRng::from_rng(&mut rand::rng()))
    }

    /// The same one for the same seed.
    pub fn seeded(seed: u64) -> Self {
        Self::of(SmallRng::seed_from_u64(seed))
    }

    fn of(rng: SmallRng) -> Self {
        Self(Arc::new(Mutex::new(rng)))
    }

    fn rng(&self) -> MutexGuard<'_, SmallRng> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A factor within `range`; the range's start, if the range is empty.
    pub fn jitter(&self, range: Range<f64>) -> f64 {
        if range.is_empty() {
            return range.start;
        }
        self.rng().random_range(range)
    }

    /// A number that nobody else has, as far as 64 bits can say.
    pub fn token(&self) -> u64 {
        self.rng().random()
    }

    /// Brings the items into any order.
    pub fn shuffle<T>(&self, items: &mut [T]) {
        items.shuffle(&mut *self.rng());
    }
}

impl Default for Chance {
    fn default() -> Self {
        Self::from_os()
    }
}

impl fmt::Debug for Chance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Chance")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(chance: &Chance) -> (u64, u64, Vec<u32>) {
        let mut items: Vec<u32> = (0..100).collect();
        chance.shuffle(&mut items);
        (chance.token(), chance.jitter(0.5..1.0).to_bits(), items)
    }

    #[test]
    fn a_seed_decides_everything() {
        assert_eq!(answers(&Chance::seeded(7)), answers(&Chance::seeded(7)));
        assert_ne!(answers(&Chance::seeded(7)), answers(&Chance::seeded(8)));
        assert_ne!(answers(&Chance::from_os()), answers(&Chance::from_os()));
        let chance = Chance::seeded(7);
        assert_ne!(answers(&chance.clone()), answers(&chance), "clones share the source");
    }

    #[test]
    fn jitter_stays_in_its_range() {
        let chance = Chance::seeded(1);
        for _ in 0..1000 {
            let factor = chance.jitter(0.5..1.0);
            assert!((0.5..1.0).contains(&factor), "{factor}");
        }
        assert_eq!(chance.jitter(2.0..2.0).to_bits(), 2.0_f64.to_bits());
    }
}
