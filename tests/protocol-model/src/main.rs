//! The protocol of the shard as an executable specification, checked exhaustively at small bounds.
//!
//! Read it in the order of a record's way: [`words`], [`store`], [`log`], [`database`] say what there is; [`write`],
//! [`drain`], [`reading`], [`opening`], [`purge`] say what each part does, in steps between which anything may
//! happen: a crash is a step that never comes. [`protocol`] says when each step is possible, [`checks`] what must hold
//! in every state, as it is and after everything has healed from it, [`scenarios`] within which bounds all is tried.
//! [`rules`] names each sentence of the design that the promises rest on; without any one of them a check fails.
//!
//! ```text
//! ./tests/model               everything
//! ./tests/model --quick       what takes a minute
//! ./tests/model trace RULE    the shortest way to what breaks without a rule
//! ./tests/model rules         their names and sentences
//! ```

mod checks;
mod database;
mod drain;
mod log;
mod opening;
mod protocol;
mod purge;
mod reading;
mod report;
mod rules;
mod scenarios;
mod search;
mod state;
mod store;
#[cfg(test)]
mod tests;
mod trace;
mod words;
mod write;

use std::process::ExitCode;

use report::Bounds;
use rules::Rule;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let is_right = match arguments.as_slice() {
        [] => report::run(Bounds::All),
        ["--quick"] => report::run(Bounds::Quick),
        ["rules"] => {
            Rule::ALL.iter().for_each(|rule| println!("{:<26} {}", rule.name(), rule.sentence()));
            true
        }
        ["trace", name] => match Rule::ALL.iter().find(|rule| rule.name() == *name) {
            Some(rule) => report::print_trace_without(*rule),
            None => {
                eprintln!("there is no rule {name:?}; `rules` lists them");
                false
            }
        },
        _ => {
            eprintln!("usage: ./tests/model [--quick | trace RULE | rules]");
            false
        }
    };
    if is_right { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
