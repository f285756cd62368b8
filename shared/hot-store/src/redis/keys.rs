//! Every key's name. All that belongs to shard 17 carries the hash tag `{s17}`, so that in a cluster one script call
//! stays within one slot.

use bytes::Bytes;
use model::{KeyBytes, Namespace, RequestId, Shard};

use crate::RecordId;

/// Between namespace and key: a namespace holds no control characters, so no two records share a name.
pub(super) const SEPARATOR: u8 = 0;

/// The keys of one shard. The scripts rely on this: the header's key ends with `h`, and a record's key is the same with
/// `r:` and the record's name in its place; the name is also the record's member in the sorted sets. They make three more
/// from it, one per table each: `b:` and the namespace (sorted set: what the database does not have, by the lowest version
/// that it may lack), `p:` and the namespace (sorted set: what is parked, by version) and `q:`, a request's (see [`ShardKeys::request`]).
#[derive(Debug)]
pub(super) struct ShardKeys {
    /// Hash: `inc` (the incarnation for which the shard is open), `epoch`, `min` (images of a lower epoch are void),
    /// `clock`, `ckpt`; `halt` and `hrev` (see `halts`); while it is being opened `otok`, `oinc`, `oepoch`, `ostart`, `odisc`.
    /// `ix`: how many indexes were begun; none is there as long as it is missing.
    pub(super) header: String,
    /// Sorted set: what the database does not have, by version.
    pub(super) dirty: String,
    /// Sorted set: those of them that are not known to be in the log.
    pub(super) unqueued: String,
    /// Sorted set: what was dirty when an opening discarded it, by the lowest version that the database may lack.
    pub(super) aside: String,
    /// Hash: the bytes of dirty images, by namespace.
    pub(super) counts: String,
    /// What every record's key begins with.
    pub(super) record_prefix: String,
    /// What every request's key begins with.
    request_prefix: String,
    /// What the key of every set of records by what the database may lack begins with.
    behind_prefix: String,
    /// What the key of every set of parked records begins with.
    parked_prefix: String,
    /// What the key of every index's sorted set begins with.
    entries_prefix: String,
    /// What the key of every index's hash begins with.
    terms_prefix: String,
}

impl ShardKeys {
    pub(super) fn new(prefix: &str, shard: Shard) -> Self {
        let key = |suffix: &str| format!("{prefix}:{{s{shard}}}:{suffix}");
        Self {
            header: key("h"),
            dirty: key("d"),
            unqueued: key("u"),
            aside: key("g"),
            counts: key("n"),
            behind_prefix: key("b:"),
            record_prefix: key("r:"),
            request_prefix: key("q:"),
            parked_prefix: key("p:"),
            entries_prefix: key("x:"),
            terms_prefix: key("y:"),
        }
    }

    /// The sorted set of a table's records by the lowest version that the database may lack.
    pub(super) fn behind(&self, namespace: &[u8]) -> Vec<u8> {
        [self.behind_prefix.as_bytes(), namespace].concat()
    }

    /// The sorted set of a table's parked records.
    pub(super) fn parked(&self, namespace: &Namespace) -> String {
        format!("{}{namespace}", self.parked_prefix)
    }

    /// The sorted set of an index's entries: each is a term and a key.
    pub(super) fn entries(&self, namespace: &Namespace) -> String {
        format!("{}{namespace}", self.entries_prefix)
    }

    /// The hash of an index's terms, by key, and of its marker.
    pub(super) fn terms(&self, namespace: &Namespace) -> String {
        format!("{}{namespace}", self.terms_prefix)
    }

    /// The key of a record's value.
    pub(super) fn record(&self, record: &RecordId) -> Vec<u8> {
        named(&self.record_prefix, &record.namespace, record.key.as_bytes())
    }

    /// The key of a request's value: version (16 digits), epoch in which it was stored (10 digits), digest.
    pub(super) fn request(&self, namespace: &Namespace, id: &RequestId) -> Vec<u8> {
        named(&self.request_prefix, namespace, id.as_str().as_bytes())
    }
}

fn named(prefix: &str, namespace: &Namespace, key: &[u8]) -> Vec<u8> {
    let namespace = namespace.as_str().as_bytes();
    let mut name = Vec::with_capacity(prefix.len() + namespace.len() + 1 + key.len());
    name.extend_from_slice(prefix.as_bytes());
    name.extend_from_slice(namespace);
    name.push(SEPARATOR);
    name.extend_from_slice(key);
    name
}

/// A record by its name in the sorted sets; `None` if that is none of ours.
pub(super) fn record_of_name(name: &Bytes) -> Option<RecordId> {
    let at = name.iter().position(|&byte| byte == SEPARATOR)?;
    let namespace = Namespace::new(std::str::from_utf8(&name[..at]).ok()?).ok()?;
    Some(RecordId { namespace, key: KeyBytes::from_stored(name.slice(at + 1..)) })
}

/// A limit's key. Those of one database lie in one slot: a batch passes several of them.
pub(super) fn limit(prefix: &str, database: &str, name: &str) -> String {
    format!("{prefix}:{{b:{database}}}:{name}")
}

/// The key of the limit that replicas agree on for a database. No limit's name is like it.
pub(super) fn agreed(prefix: &str, database: &str) -> String {
    format!("{prefix}:{{b:{database}}}:agreed")
}

/// The index of the reports of drain replicas. A replica's own key is the same with `r:` and its incarnation at the end.
pub(super) fn reports(prefix: &str) -> String {
    format!("{prefix}:{{replicas}}:i")
}

/// The key that holds the number of shards of the installation.
pub(super) fn shard_count(prefix: &str) -> String {
    format!("{prefix}:shards")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn record(namespace: &str, key: &[u8]) -> RecordId {
        let key = KeyBytes::from_stored(Bytes::copy_from_slice(key));
        RecordId { namespace: Namespace::new(namespace).unwrap(), key }
    }

    #[test]
    fn keys_are_called_as_they_have_always_been_called() {
        let keys = ShardKeys::new("sa", Shard(17));
        assert_eq!(keys.header, "sa:{s17}:h");
        assert_eq!(keys.dirty, "sa:{s17}:d");
        assert_eq!(keys.unqueued, "sa:{s17}:u");
        assert_eq!(keys.aside, "sa:{s17}:g");
        assert_eq!(keys.record(&record("main.payments", b"\x02\x18\x01")), b"sa:{s17}:r:main.payments\0\x02\x18\x01");
        let (table, id) = (Namespace::new("main.payments").unwrap(), RequestId::new("r-1").unwrap());
        assert_eq!(keys.request(&table, &id), b"sa:{s17}:q:main.payments\0r-1");
        assert_eq!(keys.parked(&table), "sa:{s17}:p:main.payments");
        assert_eq!(keys.entries(&table), "sa:{s17}:x:main.payments");
        assert_eq!(keys.terms(&table), "sa:{s17}:y:main.payments");
        assert_eq!(limit("sa", "main", "rows:payments"), "sa:{b:main}:rows:payments");
        assert_eq!(agreed("sa", "main"), "sa:{b:main}:agreed");
        assert_eq!(reports("sa"), "sa:{replicas}:i");
        assert_eq!(shard_count("sa"), "sa:shards");
    }

    #[test]
    fn a_record_is_known_by_its_name_again() {
        let keys = ShardKeys::new("sa", Shard(0));
        for id in [record("a", b""), record("a:b", b"\0c"), record("a", b"b\0c:")] {
            let key = Bytes::from(keys.record(&id));
            assert_eq!(record_of_name(&key.slice(keys.record_prefix.len()..)), Some(id));
        }
        assert_eq!(record_of_name(&Bytes::from_static(b"no separator")), None);
    }

    #[test]
    fn no_two_records_share_a_key() {
        let keys = ShardKeys::new("sa", Shard(0));
        assert_ne!(keys.record(&record("a", b"b:c")), keys.record(&record("a:b", b"c")));
    }
}
