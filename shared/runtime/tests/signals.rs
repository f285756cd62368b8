//! Real signals to a real process: this one. The only test of its binary, since they reach the whole process.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{process::Command, time::Duration};

use runtime::{Ending, Shutdown, Signals};

fn send(signal: &str) {
    let kill = Command::new("kill").args([signal, &std::process::id().to_string()]).status().unwrap();
    assert!(kill.success());
}

#[tokio::test]
async fn the_first_signal_stops_and_the_second_ends_at_once() {
    let shutdown = Shutdown::new();
    shutdown.spawn("stuck", std::future::pending::<Result<(), std::io::Error>>());
    let signals = Signals::of_process().unwrap();
    let run = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { shutdown.run(signals, Duration::from_secs(600)).await }
    });
    send("-TERM");
    shutdown.stopping().cancelled().await;
    assert!(!shutdown.ending().is_cancelled());
    send("-INT");
    assert_eq!(run.await.unwrap(), Ending::Forced);
}
