//! Few keys that are drawn often, and many that are drawn seldom.

/// Draws the key of rank r with a probability in proportion to 1/r^s.
#[derive(Debug, Clone)]
pub(super) struct Zipf {
    /// The probability of a key or one before it.
    up_to: Vec<f64>,
}

impl Zipf {
    pub(super) fn new(keys: usize, exponent: f64) -> Self {
        let mut sum = 0.0;
        let weights: Vec<f64> = (1..=keys).map(|rank| (rank as f64).powf(-exponent)).collect();
        let all: f64 = weights.iter().sum();
        let up_to = weights.into_iter().map(|weight| {
            sum += weight / all;
            sum
        });
        Self { up_to: up_to.collect() }
    }

    /// The key that belongs to a number between 0 and 1.
    pub(super) fn draw(&self, at: f64) -> usize {
        self.up_to.partition_point(|up_to| *up_to <= at).min(self.up_to.len().saturating_sub(1))
    }

    /// What part of all draws gives one of these keys.
    pub(super) fn share(&self, of: impl Fn(usize) -> bool) -> f64 {
        let mut before = 0.0;
        let mut share = 0.0;
        for (key, up_to) in self.up_to.iter().enumerate() {
            if of(key) {
                share += up_to - before;
            }
            before = *up_to;
        }
        share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_key_comes_twice_as_often_as_the_second_at_an_exponent_of_one() {
        let zipf = Zipf::new(100, 1.0);
        let draws = 100_000;
        let mut drawn = vec![0_u32; 100];
        for n in 0..draws {
            drawn[zipf.draw(f64::from(n) / f64::from(draws))] += 1;
        }
        let ratio = f64::from(drawn[0]) / f64::from(drawn[1]);
        assert!((1.99..2.01).contains(&ratio) && drawn.iter().all(|count| *count > 0), "{ratio}");
        assert!((zipf.share(|key| key == 0) - f64::from(drawn[0]) / f64::from(draws)).abs() < 1e-4);
        assert!((zipf.share(|_| true) - 1.0).abs() < 1e-9);
        assert_eq!(zipf.draw(1.0), 99);
    }
}
