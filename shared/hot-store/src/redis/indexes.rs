//! The calls that concern indexes.

use bytes::Bytes;
use model::{Epoch, IndexId, IndexTerms, KeyBytes, Namespace, Shard, Version};

use super::{records::RECORDS_PER_CALL, reply::Reply, scripts, store::RedisStore};
use crate::{FoundInShard, HotStoreError, IndexBuild, IndexState, Indexed, Lookup};

/// Bytes of a term.
const TERM: usize = 16;

fn way(index: IndexId) -> String {
    format!("{:016x}", index.0)
}

/// What the scripts get: the way of indexing, and the terms.
pub(super) fn index_argument(terms: &IndexTerms) -> Vec<u8> {
    let mut argument = way(terms.index).into_bytes();
    argument.extend(terms.terms.iter().flat_map(|term| term.0));
    argument
}

/// From where to where the entries of a term go.
fn range(lookup: &Lookup) -> (Vec<u8>, Vec<u8>) {
    let from = match &lookup.after {
        Some(after) => [b"(", &lookup.term.0[..], after.as_bytes()].concat(),
        None => [b"[", &lookup.term.0[..]].concat(),
    };
    let to = match u128::from_be_bytes(lookup.term.0).checked_add(1) {
        Some(next) => [&b"("[..], &next.to_be_bytes()].concat(),
        None => b"+".to_vec(),
    };
    (from, to)
}

impl RedisStore {
    pub(super) async fn begin_table_index(
        &self,
        shard: Shard,
        namespace: &Namespace,
        index: IndexId,
    ) -> Result<IndexState, HotStoreError> {
        let call = scripts::BEGIN_INDEX.call(1).arg(&self.keys(shard)?.header).arg(namespace.as_str()).arg(way(index));
        let mut reply = self.call(shard, call).await?;
        let marker = reply.text()?.unwrap_or_default();
        match marker.split_at_checked(1) {
            Some(("c", _)) => Ok(IndexState::Complete),
            Some(("b", build)) => Ok(IndexState::Building(IndexBuild(build.to_owned()))),
            _ => Err(reply.corrupt(format!("marker {marker:?} of an index is not known"))),
        }
    }

    pub(super) async fn build_table_index(
        &self,
        shard: Shard,
        namespace: &Namespace,
        build: &IndexBuild,
        records: &[Indexed],
        is_last: bool,
    ) -> Result<bool, HotStoreError> {
        let keys = self.keys(shard)?;
        let mut rest = records;
        loop {
            let (part, after) = rest.split_at(rest.len().min(RECORDS_PER_CALL));
            let mut call = scripts::BUILD_INDEX.call(2 + part.len()).arg(&keys.header).arg(&keys.dirty);
            for indexed in part {
                call.push(keys.record(&indexed.record));
            }
            call.push(namespace.as_str());
            call.push(&build.0);
            call.push(u8::from(is_last && after.is_empty()));
            for indexed in part {
                call.push(indexed.version.get());
                call.push(index_argument(&indexed.terms));
            }
            if self.call(shard, call).await?.int()? != 1 {
                return Ok(false);
            }
            if after.is_empty() {
                return Ok(true);
            }
            rest = after;
        }
    }

    /// All in one pipeline on one connection, which ends with the server's life: so what the first answer says is the
    /// incarnation in which all were given.
    pub(super) async fn look_up_in(
        &self,
        shards: &[Shard],
        lookup: &Lookup,
    ) -> Result<Vec<FoundInShard>, HotStoreError> {
        let (from, to) = range(lookup);
        let mut calls = Vec::with_capacity(shards.len());
        for (at, shard) in shards.iter().enumerate() {
            let keys = self.keys(*shard)?;
            let call = scripts::LOOK_UP.call(3).arg(&keys.header);
            let call = call.arg(keys.entries(&lookup.namespace)).arg(keys.terms(&lookup.namespace));
            calls.push(call.arg(&from).arg(&to).arg(lookup.limit).arg(u8::from(at == 0)));
        }
        // Not always the same connection, or it alone would bear all of these.
        let any = Shard(u16::from(rand::random::<u8>()));
        let answers = self.link(any).call_together(&calls.iter().collect::<Vec<_>>()).await?;
        let (mut live, mut all) = (None, Vec::with_capacity(shards.len()));
        for (shard, answer) in shards.iter().zip(answers) {
            let mut reply = Reply::new(*shard, answer)?;
            live = reply.text()?.or(live);
            all.push(found(*shard, reply, live.as_deref(), lookup)?);
        }
        Ok(all)
    }
}

fn found(shard: Shard, mut reply: Reply, live: Option<&str>, lookup: &Lookup) -> Result<FoundInShard, HotStoreError> {
    let incarnation = reply.text()?;
    if live.is_none() || incarnation.as_deref() != live {
        return Err(HotStoreError::Closed { shard });
    }
    let mut number = |what: &str| -> Result<u64, HotStoreError> {
        let digits = reply.text()?;
        let digits = digits.as_deref().unwrap_or("0").parse();
        digits.map_err(|_| reply.corrupt(format!("{what} in the header is no number")))
    };
    let (epoch, clock, removed) = (number("the epoch")?, number("the clock")?, number("what was removed")?);
    let epoch = u32::try_from(epoch).map_err(|_| reply.corrupt("the epoch exceeds 32 bits".to_owned())).map(Epoch)?;
    let clock = Version::new(clock).ok_or_else(|| reply.corrupt("the clock exceeds 53 bits".to_owned()))?;
    let complete = format!("c{}{:010}", way(lookup.index), epoch.0);
    let marker = reply.text()?.unwrap_or_default();
    let is_complete = marker.get(..complete.len()) == Some(&complete);
    let mut keys = Vec::with_capacity(reply.len());
    while reply.len() > 0 {
        let entry: Bytes = reply.bytes()?.unwrap_or_default();
        if entry.len() < TERM {
            return Err(reply.corrupt("an index holds what is no entry".to_owned()));
        }
        keys.push(KeyBytes::from_stored(entry.slice(TERM..)));
    }
    Ok(FoundInShard { shard, epoch, clock, removed, keys: is_complete.then_some(keys) })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use model::Term;

    use super::*;

    #[test]
    fn the_entries_of_a_term_end_where_the_next_ones_begin() {
        let lookup = |term: u128, after: Option<&'static [u8]>| Lookup {
            namespace: Namespace::new("main.payments").unwrap(),
            index: IndexId(7),
            term: Term(term.to_be_bytes()),
            after: after.map(|key| KeyBytes::from_stored(Bytes::from_static(key))),
            limit: 1,
        };
        let term = |lead: &str, number: u128| [lead.as_bytes(), &number.to_be_bytes()].concat();
        assert_eq!(range(&lookup(255, None)), (term("[", 255), term("(", 256)));
        assert_eq!(range(&lookup(u128::MAX, None)), (term("[", u128::MAX), b"+".to_vec()));
        let after = [&term("(", 1)[..], b"key"].concat();
        assert_eq!(range(&lookup(1, Some(b"key"))), (after, term("(", 2)));
    }

    #[test]
    fn an_argument_is_the_way_and_the_terms() {
        let terms = IndexTerms { index: IndexId(0xab), terms: vec![Term([1; 16]), Term([2; 16])] };
        let argument = index_argument(&terms);
        assert_eq!(&argument[..16], b"00000000000000ab");
        assert_eq!(argument[16..], [[1; 16], [2; 16]].concat());
    }
}
