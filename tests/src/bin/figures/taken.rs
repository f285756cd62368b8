//! How long calls took.

use std::time::Duration;

use anyhow::{Context as _, Result};

/// How long calls of one kind took.
#[derive(Debug, Default)]
pub(crate) struct Taken(Vec<Duration>);

impl Taken {
    pub(crate) fn note(&mut self, taken: Duration) {
        self.0.push(taken);
    }

    /// In milliseconds.
    ///
    /// # Errors
    /// If nothing was measured.
    pub(crate) fn quantile(&mut self, share: f64) -> Result<f64> {
        self.0.sort_unstable();
        let at = ((self.0.len() as f64 * share).ceil() as usize).saturating_sub(1);
        Ok(self.0.get(at).context("nothing was measured")?.as_secs_f64() * 1000.0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_quantile_is_what_so_many_took_at_most() {
        let mut taken = Taken::default();
        assert!(taken.quantile(0.5).is_err());
        for millis in (1..=100).rev() {
            taken.note(Duration::from_millis(millis));
        }
        assert_eq!((taken.quantile(0.5).unwrap(), taken.quantile(0.99).unwrap()), (50.0, 99.0));
    }
}
