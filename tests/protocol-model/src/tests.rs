//! The quick bounds, as a test: the design holds, and without a rule it does not.

use std::time::Duration;

use crate::{report, rules::Rule, scenarios, search::search};

const LIMIT: Duration = Duration::from_secs(600);

#[test]
fn the_design_holds_in_every_quick_scenario() {
    for scenario in scenarios::all().into_iter().filter(|it| it.is_quick) {
        let found = search(&scenario, None, LIMIT);
        assert_eq!(found.broken, None, "{}", scenario.name);
        assert!(found.is_complete, "{} was cut short", scenario.name);
    }
}

#[test]
fn without_any_one_rule_a_check_fails() {
    for rule in Rule::ALL {
        if let Some(scenario) = report::shown_in(*rule) {
            let found = search(&scenario, Some(*rule), LIMIT);
            assert!(found.broken.is_some(), "{rule} can be taken away from {:?} unnoticed", scenario.name);
        }
    }
}

#[test]
fn every_rule_is_shown_by_a_scenario_that_exists() {
    for rule in Rule::ALL {
        assert_eq!(report::shown_in(*rule).is_some(), scenarios::showing(*rule).is_some(), "{rule}");
    }
}
