//! Which texts a database can write down, and which of them it takes for the same.

/// The characters that a column can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repertoire {
    /// All.
    Unicode,
    /// All but U+0000, as of PostgreSQL.
    WithoutNul,
    /// Those up to U+FFFF, as of MySQL's `utf8mb3`.
    Bmp,
    /// Those of MySQL's `latin1`, which is Windows' code page 1252.
    Latin1,
    /// Those up to U+007F.
    Ascii,
}

/// What code page 1252 has where ISO 8859-1 has control characters. MySQL keeps the five bytes that it leaves free as
/// those control characters.
const CP1252: &str = "€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ\u{81}\u{8d}\u{8f}\u{90}\u{9d}";

impl Repertoire {
    /// Whether a character is among them.
    pub fn contains(self, c: char) -> bool {
        match self {
            Self::Unicode => true,
            Self::WithoutNul => c != '\0',
            Self::Bmp => c <= '\u{ffff}',
            Self::Latin1 => c.is_ascii() || ('\u{a0}'..='\u{ff}').contains(&c) || CP1252.contains(c),
            Self::Ascii => c.is_ascii(),
        }
    }

    /// The bytes that a text takes that has no other characters.
    pub fn bytes_of(self, text: &str) -> usize {
        if self == Self::Latin1 { text.chars().count() } else { text.len() }
    }
}

/// Which texts compare as equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Equality {
    /// Only the same text.
    Exact,
    /// As [`Self::Exact`] among printable ASCII; of other characters we don't know.
    ExactInAscii,
    /// Printable ASCII but for the case of its letters; of other characters we don't know.
    IgnoringCase,
    /// We don't know.
    Unknown,
}

/// How a database compares the texts of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Collation {
    /// Which texts are equal, apart from spaces at the end.
    pub equality: Equality,
    /// Spaces at the end don't count.
    pub pads: bool,
}

impl Collation {
    /// Each text is equal to itself only.
    pub const BINARY: Self = Self { equality: Equality::Exact, pads: false };

    /// The one text that stands for all that are equal to this one, or `None` where only the database knows which
    /// those are.
    pub fn form_of(self, text: &str) -> Option<String> {
        let text = if self.pads { text.trim_end_matches(' ') } else { text };
        let is_known = || text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        match self.equality {
            Equality::Exact => Some(text.to_owned()),
            Equality::ExactInAscii => is_known().then(|| text.to_owned()),
            Equality::IgnoringCase => is_known().then(|| text.to_ascii_lowercase()),
            Equality::Unknown => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_have_one_form() {
        let of = |equality, pads, text: &str| Collation { equality, pads }.form_of(text);
        assert_eq!(of(Equality::Exact, false, "É a "), Some("É a ".to_owned()));
        assert_eq!(of(Equality::Exact, true, " É a  "), Some(" É a".to_owned()));
        assert_eq!(of(Equality::IgnoringCase, true, "Ab~ "), Some("ab~".to_owned()));
        assert_eq!(of(Equality::IgnoringCase, false, "Ab "), Some("ab ".to_owned()));
        assert_eq!(of(Equality::ExactInAscii, false, "Ab "), Some("Ab ".to_owned()));
        for unknown in ["é", "a\t", "\u{7f}", "a\0"] {
            assert_eq!(of(Equality::IgnoringCase, true, unknown), None, "{unknown:?}");
            assert_eq!(of(Equality::ExactInAscii, true, unknown), None, "{unknown:?}");
        }
        assert_eq!(of(Equality::Unknown, true, "a"), None);
    }

    #[test]
    fn a_repertoire_has_its_characters_and_no_others() {
        for (repertoire, has, lacks) in [
            (Repertoire::Unicode, "a\0é漢🎉", ""),
            (Repertoire::WithoutNul, "a\u{1}é漢🎉", "\0"),
            (Repertoire::Bmp, "a\0é漢\u{ffff}", "🎉"),
            (Repertoire::Latin1, "a\0éÿ\u{a0}€Ÿ\u{81}", "\u{80}\u{82}Ā漢🎉"),
            (Repertoire::Ascii, "a\0\u{7f}", "\u{80}é"),
        ] {
            assert!(has.chars().all(|c| repertoire.contains(c)), "{repertoire:?}");
            assert!(!lacks.chars().any(|c| repertoire.contains(c)), "{repertoire:?}");
        }
        assert_eq!((Repertoire::Latin1.bytes_of("é€"), Repertoire::Unicode.bytes_of("é€")), (2, 5));
    }
}
