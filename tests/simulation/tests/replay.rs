//! A seed decides everything: the same one gives the same run, call by call.

#![allow(clippy::unwrap_used)]

use simulation::run::run;

#[test]
fn a_seed_gives_the_same_run_twice() {
    let (mut streams, mut watches) = (0, 0);
    for seed in 0..12 {
        let (first, second) = (run(seed, true), run(seed, true));
        let differs = first.trace.iter().zip(&second.trace).position(|(a, b)| a != b);
        if let Some(at) = differs {
            let before = first.trace[at.saturating_sub(10)..at].join("\n");
            panic!("seed {seed} differs at line {at}, after\n{before}\n{}\n{}", first.trace[at], second.trace[at]);
        }
        assert_eq!(first.trace.len(), second.trace.len(), "seed {seed}");
        assert!(first.trace.len() > 100, "seed {seed} did next to nothing");
        streams += first.trace.iter().filter(|line| line.contains(": a stream of ")).count();
        watches += first.trace.iter().filter(|line| line.contains(" is told Change ")).count();
    }
    assert!(streams > 10 && watches > 20, "{streams} streams, and {watches} changes told, say little");
}

#[test]
fn another_seed_gives_another_run() {
    assert_ne!(run(1, true).trace, run(2, true).trace);
}

#[test]
fn some_seeds_find_nothing_wrong_and_do_much() {
    let mut acked = 0;
    for seed in 0..40 {
        let report = run(seed, false);
        assert!(report.failures.is_empty(), "seed {seed}: {:#?}", report.failures);
        acked += report.acked;
    }
    assert!(acked > 300, "{acked} writes of 40 runs were acknowledged");
}
