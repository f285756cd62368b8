//! Runs the searches and says what came out.

use std::{fmt::Write as _, time::Duration};

use crate::{
    rules::Rule,
    scenarios::{self, Scenario},
    search::{Found, search},
    trace,
};

/// No single search may take longer; one that would is a surprise.
const LIMIT: Duration = Duration::from_secs(1800);

/// Which searches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bounds {
    Quick,
    All,
}

/// Runs the design in all scenarios, and takes away each rule where that shows. `false` if anything was not as it
/// must be.
pub(crate) fn run(bounds: Bounds) -> bool {
    let (mut table, mut surprises) = (String::new(), 0);
    let _ = writeln!(table, "\n{:<40} {:>10} {:>8}  outcome", "scenario", "states", "seconds");
    for scenario in scenarios::all().into_iter().filter(|it| bounds == Bounds::All || it.is_quick) {
        let found = search(&scenario, None, LIMIT);
        let outcome = outcome_of_design(&found);
        surprises += usize::from(outcome.is_err());
        let outcome = outcome.unwrap_or_else(|problem| problem);
        let seconds = found.took.as_secs_f32();
        println!("design, {}: {outcome}, {} states, {seconds:.1} s", scenario.name, found.states);
        print_trace(&found);
        let _ = writeln!(table, "{:<40} {:>10} {seconds:>8.1}  {outcome}", scenario.name, found.states);
    }
    let _ = writeln!(table, "\n{:<26} {:<34} {:>5}  caught by", "without rule", "scenario", "steps");
    for rule in Rule::ALL {
        let Some(scenario) = shown_in(*rule) else {
            println!("without {rule}: not shown here, see the crate's documentation");
            let _ = writeln!(table, "{:<26} not shown", rule.name());
            continue;
        };
        let found = search(&scenario, Some(*rule), LIMIT);
        let (steps, caught) = match &found.broken {
            Some((broken, actions)) => (actions.len(), broken.to_string()),
            None => (0, "NOT CAUGHT".to_owned()),
        };
        surprises += usize::from(found.broken.is_none());
        println!("without {rule}: {caught}, {steps} steps, {:.1} s", found.took.as_secs_f32());
        let _ = writeln!(table, "{:<26} {:<34} {steps:>5}  {caught}", rule.name(), scenario.name);
    }
    println!("{table}");
    println!("{surprises} surprises");
    surprises == 0
}

/// Prints the shortest way to what breaks without a rule.
pub(crate) fn print_trace_without(rule: Rule) -> bool {
    println!("{rule}: {}", rule.sentence());
    let Some(scenario) = shown_in(rule) else {
        println!("nothing breaks without it at these bounds; see the crate's documentation");
        return false;
    };
    let found = search(&scenario, Some(rule), LIMIT);
    println!("taken away, in the scenario {:?}:", scenario.name);
    print_trace(&found);
    found.broken.is_some()
}

/// Takes a rule away from every scenario, and says which ones notice.
pub(crate) fn hunt(rule: Rule) -> bool {
    let mut caught = false;
    for scenario in scenarios::all() {
        let found = search(&scenario, Some(rule), LIMIT);
        let outcome = outcome_of_design(&found);
        let outcome = outcome.as_ref().unwrap_or_else(|problem| problem);
        println!("{}: {outcome}, {} states, {:.1} s", scenario.name, found.states, found.took.as_secs_f32());
        caught |= found.broken.is_some();
    }
    caught
}

/// Searches one scenario of the design.
pub(crate) fn run_one(name: &str) -> bool {
    let Some(scenario) = scenarios::all().into_iter().find(|scenario| scenario.name == name) else {
        eprintln!("there is no scenario {name:?}");
        return false;
    };
    let found = search(&scenario, None, LIMIT);
    println!("{name}: {} states, {:.1} s", found.states, found.took.as_secs_f32());
    print_trace(&found);
    found.broken.is_none()
}

/// The scenario in which taking a rule away shows.
pub(crate) fn shown_in(rule: Rule) -> Option<Scenario> {
    let name = scenarios::showing(rule)?;
    scenarios::all().into_iter().find(|scenario| scenario.name == name)
}

fn outcome_of_design(found: &Found) -> Result<String, String> {
    match &found.broken {
        Some((broken, _)) => Err(format!("BROKEN: {broken}")),
        None if found.is_complete => Ok("holds".to_owned()),
        None => Err("CUT BY TIME".to_owned()),
    }
}

fn print_trace(found: &Found) {
    if let Some((broken, actions)) = &found.broken {
        for (number, told) in trace::tell(&found.protocol, actions).iter().enumerate() {
            println!("    {:>2}. {told}", number + 1);
        }
        println!("    => {broken}, here or after all has healed from here");
    }
}
