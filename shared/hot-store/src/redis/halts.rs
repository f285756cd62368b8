//! Halts of writes in Redis: a field of the shard's header, which the script that writes looks at.

use std::collections::BTreeSet;

use model::{Namespace, Shard};

use super::{reply::Reply, scripts, store::RedisStore};
use crate::{Halt, HaltedTables, HotStoreError};

const ALL: &str = "*";
/// Before and behind each namespace, which holds no control characters.
const BOUND: char = '\0';

impl RedisStore {
    pub(super) async fn halt_shard(&self, shard: Shard, halt: &Halt) -> Result<Halt, HotStoreError> {
        let call = scripts::HALT.call(1).arg(&self.keys(shard)?.header).arg(halt.revision).arg(to_text(&halt.tables));
        halt_of(&mut self.call(shard, call).await?)
    }
}

/// A halt, as scripts answer it.
pub(super) fn halt_of(reply: &mut Reply) -> Result<Halt, HotStoreError> {
    let revision = reply.count()?;
    let text = reply.text()?.unwrap_or_default();
    let tables = from_text(&text).ok_or_else(|| reply.corrupt("a halt of writes that names no tables".to_owned()))?;
    Ok(Halt { revision, tables })
}

pub(super) fn to_text(tables: &HaltedTables) -> String {
    match tables {
        HaltedTables::All => ALL.to_owned(),
        HaltedTables::These(these) if these.is_empty() => String::new(),
        HaltedTables::These(these) => {
            let mut text = BOUND.to_string();
            for namespace in these {
                text.push_str(namespace.as_str());
                text.push(BOUND);
            }
            text
        }
    }
}

pub(super) fn from_text(text: &str) -> Option<HaltedTables> {
    if text == ALL {
        return Some(HaltedTables::All);
    }
    let names = text.split(BOUND).filter(|name| !name.is_empty());
    let these: Option<BTreeSet<Namespace>> = names.map(|name| Namespace::new(name).ok()).collect();
    these.map(HaltedTables::These)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_halt_reads_back_as_it_was_stored() {
        let these = |names: &[&str]| HaltedTables::These(names.iter().map(|n| Namespace::new(n).unwrap()).collect());
        for tables in [HaltedTables::All, these(&[]), these(&["main.a"]), these(&["main.a", "main.ab"])] {
            assert_eq!(from_text(&to_text(&tables)), Some(tables));
        }
        assert_eq!(to_text(&these(&["main.a", "main.b"])), "\0main.a\0main.b\0");
    }
}
