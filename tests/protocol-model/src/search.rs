//! One exhaustive search, breadth first: so a trace that it finds is a shortest one.

use std::time::{Duration, Instant};

use stateright::{Checker as _, HasDiscoveries, Model as _};

use crate::{
    protocol::{Action, PROMISES, Protocol},
    rules::Rule,
    scenarios::Scenario,
    state::Broken,
};

/// What a search came to.
pub(crate) struct Found {
    pub(crate) protocol: Protocol,
    /// What is broken, and the steps to there.
    pub(crate) broken: Option<(Broken, Vec<Action>)>,
    pub(crate) states: usize,
    pub(crate) took: Duration,
    /// Whether all states were looked at, as far as nothing is broken.
    pub(crate) is_complete: bool,
}

/// Searches a scenario, without a rule if one is to be taken away.
pub(crate) fn search(scenario: &Scenario, without: Option<Rule>, limit: Duration) -> Found {
    let begun = Instant::now();
    let protocol = Protocol { scenario: scenario.clone(), without };
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let builder = protocol.clone().checker().threads(threads).finish_when(HasDiscoveries::Any).timeout(limit);
    let checker = builder.spawn_bfs().join();
    let broken = checker.discovery(PROMISES).and_then(|path| {
        let broken = protocol.find_broken(path.last_state())?;
        Some((broken, path.into_actions()))
    });
    let took = begun.elapsed();
    let is_complete = broken.is_some() || took < limit;
    Found { protocol, broken, states: checker.unique_state_count(), took, is_complete }
}
