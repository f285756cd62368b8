//! Scripts cut into their statements: what is sent together is one transaction to PostgreSQL.

/// The statements of a script, without the semicolons between them.
pub(super) fn statements(script: &str) -> Vec<&str> {
    let (mut statements, mut from, mut at) = (Vec::new(), 0, 0);
    while at < script.len() {
        let rest = &script[at..];
        at += match rest.as_bytes()[0] {
            b';' => {
                statements.push(&script[from..at]);
                from = at + 1;
                1
            }
            b'\'' => {
                let is_escaped = script[..at].ends_with(['E', 'e']) && !script[..at - 1].ends_with(is_word);
                quoted(rest, b'\'', is_escaped)
            }
            b'"' => quoted(rest, b'"', false),
            b'-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
            b'/' if rest.starts_with("/*") => comment(rest),
            b'$' if !script[..at].ends_with(is_word) => dollar_quoted(rest).unwrap_or(1),
            _ => rest.chars().next().map_or(1, char::len_utf8),
        };
    }
    statements.push(&script[from..]);
    statements.retain(|statement| !statement.trim().is_empty());
    statements
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$'
}

/// How long something in quotes is. Two quotes stand for one, which looks like the end of one and the start of another.
fn quoted(text: &str, quote: u8, is_escaped: bool) -> usize {
    let bytes = text.as_bytes();
    let mut at = 1;
    while at < bytes.len() && bytes[at] != quote {
        at += if is_escaped && bytes[at] == b'\\' { 2 } else { 1 };
    }
    // An escape may be the last thing there is, or stand before a character of several bytes.
    let end = (at + 1).min(bytes.len());
    (end..=bytes.len()).find(|&end| text.is_char_boundary(end)).unwrap_or(bytes.len())
}

/// How long a comment is, with those in it.
fn comment(text: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest.starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

/// How long `$tag$ ... $tag$` is, if it is that.
fn dollar_quoted(text: &str) -> Option<usize> {
    let tag = text[1..].find('$')?;
    let (inside, opening) = (&text[1..=tag], &text[..tag + 2]);
    if inside.starts_with(|c: char| c.is_ascii_digit()) || !inside.chars().all(|c| c.is_alphanumeric() || c == '_') {
        return None;
    }
    let body = &text[opening.len()..];
    Some(body.find(opening).map_or(text.len(), |end| opening.len() + end + opening.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_semicolon_within_something_ends_nothing() {
        for whole in [
            "SELECT ';'",
            "SELECT 'it''s;'",
            "SELECT E'it\\';s'",
            "SELECT \";\"",
            "SELECT 1 -- ; not\n + 1",
            "SELECT /* ; /* ; */ ; */ 1",
            "CREATE FUNCTION f() RETURNS void AS $$ BEGIN; END; $$ LANGUAGE plpgsql",
            "DO $x$ a; $$ b; $$ c; $x$",
            "SELECT '$$;'",
        ] {
            assert_eq!(statements(whole), [whole]);
        }
        assert_eq!(statements("SELECT 1; SELECT 2;\n"), ["SELECT 1", " SELECT 2"]);
        assert_eq!(statements("SELECT a$b$ FROM t; SELECT $1;"), ["SELECT a$b$ FROM t", " SELECT $1"]);
        assert_eq!(statements("SELECT 'a\\'; SELECT 'b'"), ["SELECT 'a\\'", " SELECT 'b'"]);
        assert_eq!(statements(" ; ;"), Vec::<&str>::new());
    }

    proptest! {
        #[test]
        fn nothing_is_lost(script in "[a;'\"$/*\\\\E ä\n-]{0,40}") {
            let kept: String = statements(&script).concat();
            let plain = |text: &str| text.replace([';', ' ', '\n'], "");
            prop_assert_eq!(plain(&kept), plain(&script));
        }
    }
}
