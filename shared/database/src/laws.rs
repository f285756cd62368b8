//! What must hold of any names and of any bytes whatsoever that a database gives back; see the laws of `model`. A law
//! panics where it is broken.

mod lexer;
mod names;

pub use names::identifier;

use crate::{mysql, postgres, sqlite};

/// What catalogs say of columns is understood or refused; literals are read as what they were written from.
///
/// The first byte says which database, the rest is texts with zeros between them.
pub fn described(input: &[u8]) {
    let Some((which, rest)) = input.split_first() else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    let texts: Vec<&str> = text.split('\0').collect();
    match which % 3 {
        0 => mysql::laws::described(which / 3, &texts),
        1 => postgres::laws::described(which / 3, &texts),
        _ => sqlite::laws::described(&texts),
    }
}

/// A cell is read as a value of its column's kind, or it is said why not.
///
/// The first two bytes say which database and which type.
pub fn cell(input: &[u8]) {
    let [which, ty, cell @ ..] = input else { return };
    match which % 2 {
        0 => postgres::laws::cell(*ty, cell),
        _ => sqlite::laws::cell(*ty, cell),
    }
}

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn they_hold_of_all_that_is_kept() {
        replay::replay("../..", "identifier", identifier);
        replay::replay("../..", "described", described);
        replay::replay("../..", "cell", cell);
    }

    proptest! {
        #[test]
        fn they_hold_of_whatever_chance_makes(input in prop::collection::vec(any::<u8>(), 0..100)) {
            identifier(&input);
            described(&input);
            cell(&input);
        }

        #[test]
        fn names_stay_names(names in r#"([`"'\[\]\\;#?{}$%/*\- a\u{e9}\u{1f389}]{1,8}\n){4}"#) {
            identifier(names.as_bytes());
        }

        #[test]
        fn literals_are_read_as_what_they_were(which: u8, labels in r#"[a'\\",)(\u{e9}]{0,6}(\x00[a'\\",)(]{0,6}){0,3}"#) {
            described(&[&[which][..], labels.as_bytes()].concat());
        }

        #[test]
        fn cells_are_read(which: u8, ty: u8, text in "-?[0-9]{0,4}[-:. ]?[0-9]{0,3}[-:.e+]{0,2}[0-9]{0,3}[ T0-9:.+]{0,9}") {
            cell(&[&[which, ty][..], text.as_bytes()].concat());
        }
    }
}
