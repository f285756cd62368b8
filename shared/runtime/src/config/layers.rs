//! Laying one tree of settings over another: pure functions over JSON values.

use serde_json::{Map, Value};

/// Lays `over` over `base`. Maps are merged key by key; everything else is replaced. A null says nothing: in YAML it is
/// what a key has whose values are all commented out.
pub(super) fn overlay(base: &mut Value, over: Value) {
    match (base, over) {
        (_, Value::Null) => {}
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                match base.get_mut(&key) {
                    Some(there) => overlay(there, value),
                    None => {
                        base.insert(key, value);
                    }
                }
            }
        }
        (base, over) => *base = over,
    }
}

/// Splits `a.b."c.d".0` at its dots, outside of quotes.
pub(super) fn split_path(path: &str) -> Result<Vec<String>, &'static str> {
    let mut segments = vec![String::new()];
    let mut quoted = false;
    for c in path.chars() {
        match c {
            '"' => quoted = !quoted,
            '.' if !quoted => segments.push(String::new()),
            c => {
                if let Some(last) = segments.last_mut() {
                    last.push(c);
                }
            }
        }
    }
    if quoted {
        Err("a quote is not closed")
    } else if segments.iter().any(String::is_empty) {
        Err("a part of the key is empty")
    } else {
        Ok(segments)
    }
}

/// Lays a value over what lies at a path. Missing maps on the way are made. In a list a number addresses an entry, and
/// the number after the last one appends.
pub(super) fn set(tree: &mut Value, path: &[String], value: Value) -> Result<(), String> {
    let Some((first, rest)) = path.split_first() else {
        overlay(tree, value);
        return Ok(());
    };
    match tree {
        Value::Array(entries) => {
            let length = entries.len();
            let Some(index) = first.parse::<usize>().ok().filter(|index| *index <= length) else {
                return Err(format!("{first:?} is no entry of a list that has {length}: use 0 to {length}"));
            };
            if index == length {
                entries.push(Value::Null);
            }
            set(&mut entries[index], rest, value)
        }
        Value::Object(map) => set(map.entry(first.as_str()).or_insert(Value::Null), rest, value),
        Value::Null => {
            *tree = Value::Object(Map::new());
            set(tree, path, value)
        }
        _ => Err(format!("there is nothing below it, so {first:?} can't be set")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn path(text: &str) -> Vec<String> {
        split_path(text).unwrap()
    }

    #[test]
    fn maps_merge_and_all_else_is_replaced() {
        let mut base = json!({"a": {"b": 1, "c": 2}, "list": [1, 2, 3]});
        overlay(&mut base, json!({"a": {"c": 3, "d": 4}, "list": [9]}));
        assert_eq!(base, json!({"a": {"b": 1, "c": 3, "d": 4}, "list": [9]}));
    }

    #[test]
    fn a_null_says_nothing() {
        let mut base = json!({"a": {"b": 1}});
        overlay(&mut base, json!({"a": null}));
        assert_eq!(base, json!({"a": {"b": 1}}));
    }

    #[test]
    fn paths_reach_into_maps_and_lists() {
        let mut tree = json!({"databases": []});
        set(&mut tree, &path("databases.0.name"), json!("main")).unwrap();
        set(&mut tree, &path("databases.0.pool"), json!(4)).unwrap();
        set(&mut tree, &path("tables.per_table.\"main.payments\".ttl"), json!("1h")).unwrap();
        assert_eq!(
            tree,
            json!({"databases": [{"name": "main", "pool": 4}], "tables": {"per_table": {"main.payments": {"ttl": "1h"}}}})
        );
        assert!(set(&mut tree, &path("databases.2.name"), json!("gap")).unwrap_err().contains("0 to 1"));
        assert!(set(&mut tree, &path("databases.0.name.deeper"), json!(1)).is_err());
    }

    #[test]
    fn broken_paths_are_refused() {
        for broken in ["", "a..b", ".a", "a.", "a.\"b"] {
            assert!(split_path(broken).is_err(), "{broken}");
        }
    }

    fn tree() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![any::<i32>().prop_map(Value::from), "[a-z]{0,3}".prop_map(Value::from)];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                proptest::collection::btree_map("[a-d]", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn laying_the_same_layer_twice_changes_nothing_more(base in tree(), over in tree()) {
            let mut once = base;
            overlay(&mut once, over.clone());
            let mut twice = once.clone();
            overlay(&mut twice, over);
            prop_assert_eq!(once, twice);
        }

        #[test]
        fn a_nested_map_and_a_path_mean_the_same(keys in proptest::collection::vec("[a-d]", 1..4), base in tree()) {
            prop_assume!(base.is_object());
            let nested = keys.iter().rev().fold(json!("x"), |inner, key| json!({ key.clone(): inner }));
            let mut by_map = base.clone();
            overlay(&mut by_map, nested);
            let mut by_path = base;
            if set(&mut by_path, &keys, json!("x")).is_ok() {
                prop_assert_eq!(by_map, by_path);
            }
        }
    }
}
