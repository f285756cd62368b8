//! JSON in the form in which PostgreSQL keeps JSONB, so that what is read before the drain is what is read after it:
//! an object's names by length and then by bytes, the last of equal ones; a space after commas and colons; numbers
//! without exponents and with the digits after the point that they were written with; texts without needless escapes.

/// Deeper than this nobody means it, and a parser that calls itself would run out of stack.
const MAX_DEPTH: usize = 128;

/// Digits that a number may have before and after the point.
const MAX_WHOLE: i64 = 131_072;
const MAX_FRACTION: i64 = 16_383;

/// Bytes by which all numbers together may become longer than they were written: so many, and beyond that so many for
/// each byte of the document.
const MAX_GROWTH: usize = 1 << 20;
const MAX_GROWTH_PER_BYTE: usize = 16;

/// The text as the database gives it back.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn canonical(text: &str) -> Result<String, &'static str> {
    rewritten(text, Rules { max_depth: MAX_DEPTH, max_name_bytes: usize::MAX, may_hold_nul: false, number: plain })
}

/// What databases differ in that keep JSON in a form of their own.
#[derive(Clone, Copy)]
pub(crate) struct Rules {
    /// Arrays and objects in one another.
    pub(crate) max_depth: usize,
    /// The name of an object's member.
    pub(crate) max_name_bytes: usize,
    /// Whether a text may hold U+0000.
    pub(crate) may_hold_nul: bool,
    /// A number from its sign, its digits before and after the point, and its exponent.
    pub(crate) number: fn(bool, &str, &str, Option<i64>) -> Result<String, &'static str>,
}

/// The text as a database with these rules gives it back.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn rewritten(text: &str, rules: Rules) -> Result<String, &'static str> {
    let mut parser = Parser { bytes: text.as_bytes(), text, at: 0, growth: 0, rules };
    let mut out = String::with_capacity(text.len() + 16);
    parser.value(0)?.write(&mut out);
    parser.skip_space();
    if parser.at == text.len() { Ok(out) } else { Err("something stands behind the value") }
}

/// The items of an array, each as it is written, but for texts, which are written anew.
///
/// # Errors
/// What is wrong with it, or that it holds more than words, numbers and texts.
pub(crate) fn items(text: &str) -> Result<Vec<String>, &'static str> {
    const SCALARS: &str = "it holds an array or an object";
    let rules = Rules {
        max_depth: 2,
        max_name_bytes: usize::MAX,
        may_hold_nul: false,
        number: |sign, whole, fraction, exponent| Ok(as_written(sign, whole, fraction, exponent)),
    };
    let mut parser = Parser { bytes: text.as_bytes(), text, at: 0, growth: 0, rules };
    let value = parser.value(0)?;
    parser.skip_space();
    let Json::Array(items) = value else { return Err("it is another value") };
    if parser.at != text.len() {
        return Err("something stands behind the value");
    }
    items.into_iter().map(|item| if let Json::Plain(item) = item { Ok(item) } else { Err(SCALARS) }).collect()
}

fn as_written(negative: bool, whole: &str, fraction: &str, exponent: Option<i64>) -> String {
    let sign = if negative { "-" } else { "" };
    let point = if fraction.is_empty() { "" } else { "." };
    let exponent = exponent.map_or_else(String::new, |exponent| format!("e{exponent}"));
    format!("{sign}{whole}{point}{fraction}{exponent}")
}

enum Json {
    /// A word, a number or a text, as it is written.
    Plain(String),
    Array(Vec<Json>),
    /// Names as they are, sorted.
    Object(Vec<(String, Json)>),
}

impl Json {
    fn write(&self, out: &mut String) {
        match self {
            Self::Plain(text) => out.push_str(text),
            Self::Array(items) => {
                out.push('[');
                for (at, item) in items.iter().enumerate() {
                    out.push_str(if at > 0 { ", " } else { "" });
                    item.write(out);
                }
                out.push(']');
            }
            Self::Object(members) => {
                out.push('{');
                for (at, (name, value)) in members.iter().enumerate() {
                    out.push_str(if at > 0 { ", " } else { "" });
                    out.push_str(&quoted(name));
                    out.push_str(": ");
                    value.write(out);
                }
                out.push('}');
            }
        }
    }
}

pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

struct Parser<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    /// By how much numbers have become longer.
    growth: usize,
    rules: Rules,
}

impl Parser<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Whether this is what comes next; then it is behind us.
    fn took(&mut self, byte: u8) -> bool {
        self.skip_space();
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    fn value(&mut self, depth: usize) -> Result<Json, &'static str> {
        self.skip_space();
        match self.peek() {
            Some(b'{' | b'[') if depth >= self.rules.max_depth => Err("it is nested too deeply"),
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => Ok(Json::Plain(quoted(&self.string()?))),
            Some(b'-' | b'0'..=b'9') => self.number().map(Json::Plain),
            _ => {
                let word = ["true", "false", "null"].into_iter().find(|word| self.text[self.at..].starts_with(word));
                let word = word.ok_or("a value is missing")?;
                self.at += word.len();
                Ok(Json::Plain(word.to_owned()))
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<Json, &'static str> {
        self.at += 1;
        let mut items = Vec::new();
        if self.took(b']') {
            return Ok(Json::Array(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            if self.took(b']') {
                return Ok(Json::Array(items));
            }
            if !self.took(b',') {
                return Err("a comma or ] is missing");
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<Json, &'static str> {
        self.at += 1;
        let mut members: Vec<(String, Json)> = Vec::new();
        let mut done = self.took(b'}');
        while !done {
            self.skip_space();
            if self.peek() != Some(b'"') {
                return Err("a name is missing");
            }
            let name = self.string()?;
            if name.len() > self.rules.max_name_bytes {
                return Err("it holds a name that is too long");
            }
            if !self.took(b':') {
                return Err("a colon is missing");
            }
            members.push((name, self.value(depth + 1)?));
            done = self.took(b'}');
            if !done && !self.took(b',') {
                return Err("a comma or } is missing");
            }
        }
        // Of equal names the last counts. The sort keeps their order, so that is the first once it is turned round.
        members.reverse();
        members.sort_by(|(a, _), (b, _)| (a.len(), a.as_bytes()).cmp(&(b.len(), b.as_bytes())));
        members.dedup_by(|(later, _), (kept, _)| later == kept);
        Ok(Json::Object(members))
    }

    fn string(&mut self) -> Result<String, &'static str> {
        self.at += 1;
        let mut text = String::new();
        loop {
            let from = self.at;
            while self.peek().is_some_and(|b| b != b'"' && b != b'\\' && b >= b' ') {
                self.at += 1;
            }
            text.push_str(&self.text[from..self.at]);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(text);
                }
                Some(b'\\') => {
                    self.at += 1;
                    text.push(self.escaped()?);
                }
                Some(_) => return Err("a text holds a control character"),
                None => return Err("a text doesn't end"),
            }
        }
    }

    fn escaped(&mut self) -> Result<char, &'static str> {
        let escape = self.peek().ok_or("a text doesn't end")?;
        self.at += 1;
        Ok(match escape {
            b'"' | b'\\' | b'/' => char::from(escape),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                const HALF: &str = "a text holds half of a surrogate pair";
                let first = self.four_digits()?;
                let code = if (0xd800..0xdc00).contains(&first) {
                    if !self.text[self.at..].starts_with("\\u") {
                        return Err(HALF);
                    }
                    self.at += 2;
                    let second = self.four_digits()?;
                    if !(0xdc00..0xe000).contains(&second) {
                        return Err(HALF);
                    }
                    0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00)
                } else {
                    first
                };
                match char::from_u32(code) {
                    Some('\0') if !self.rules.may_hold_nul => {
                        return Err("a text holds the character U+0000, which the database can't keep");
                    }
                    Some(c) => c,
                    None => return Err(HALF),
                }
            }
            _ => return Err("a text holds an unknown escape"),
        })
    }

    fn four_digits(&mut self) -> Result<u32, &'static str> {
        let digits = self.bytes.get(self.at..self.at + 4).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        let code = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        self.at += 4;
        code.ok_or("\\u is not followed by four digits")
    }

    fn digits(&mut self) -> Result<&str, &'static str> {
        let from = self.at;
        while self.peek().is_some_and(|b| b.is_ascii_digit()) {
            self.at += 1;
        }
        if from < self.at { Ok(&self.text[from..self.at]) } else { Err("a number lacks digits") }
    }

    fn number(&mut self) -> Result<String, &'static str> {
        let from = self.at;
        let negative = self.peek() == Some(b'-');
        self.at += usize::from(negative);
        let whole = self.digits()?.to_owned();
        if whole.len() > 1 && whole.starts_with('0') {
            return Err("a number begins with a needless zero");
        }
        let mut fraction = String::new();
        if self.peek() == Some(b'.') {
            self.at += 1;
            fraction = self.digits()?.to_owned();
        }
        let mut exponent = None;
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            let sign = if self.peek() == Some(b'-') { -1 } else { 1 };
            self.at += usize::from(matches!(self.peek(), Some(b'-' | b'+')));
            // One that doesn't fit is far out of range anyway.
            let digits = self.digits()?.parse::<i64>().unwrap_or(i64::from(i32::MAX)).min(i64::from(i32::MAX));
            exponent = Some(sign * digits);
        }
        let number = (self.rules.number)(negative, &whole, &fraction, exponent)?;
        self.growth += number.len().saturating_sub(self.at - from);
        if self.growth > MAX_GROWTH + MAX_GROWTH_PER_BYTE * self.text.len() {
            return Err("its exponents stand for more than a million digits that are not written");
        }
        Ok(number)
    }
}

/// A number without its exponent. It has the digits after the point that were written, moved by the exponent.
fn plain(negative: bool, whole: &str, fraction: &str, exponent: Option<i64>) -> Result<String, &'static str> {
    let exponent = exponent.unwrap_or(0);
    const RANGE: &str = "a number is larger or finer than the database keeps";
    let digits = format!("{whole}{fraction}");
    let is_zero = digits.bytes().all(|b| b == b'0');
    let point = whole.len() as i64 + exponent;
    let scale = (fraction.len() as i64 - exponent).max(0);
    if scale > MAX_FRACTION || (!is_zero && point - leading_zeros(&digits) > MAX_WHOLE) {
        return Err(RANGE);
    }
    let digit =
        |at: i64| usize::try_from(at).ok().and_then(|at| digits.as_bytes().get(at)).map_or('0', |b| char::from(*b));
    let before: String = if is_zero { String::new() } else { (0..point).map(digit).collect() };
    let before = before.trim_start_matches('0');
    let after: String = (point..point + scale).map(digit).collect();
    let sign = if negative && !is_zero { "-" } else { "" };
    let before = if before.is_empty() { "0" } else { before };
    Ok(if scale == 0 { format!("{sign}{before}") } else { format!("{sign}{before}.{after}") })
}

fn leading_zeros(digits: &str) -> i64 {
    digits.bytes().take_while(|b| *b == b'0').count() as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn as_the_database_gives_it_back() {
        for (given, kept) in [
            (r#"{"b":1,"a":2,"aa":{},"a":3, "c":[]}"#, r#"{"a": 3, "b": 1, "c": [], "aa": {}}"#),
            ("[1,  2,{\"x\" : null}]", "[1, 2, {\"x\": null}]"),
            (r#""\u00e9\u001f\b\/\u007f\ud83c\udf89""#, "\"é\\u001f\\b/\u{7f}🎉\""),
            ("1e2", "100"),
            ("1.50e1", "15.0"),
            ("1E+3", "1000"),
            ("10e-1", "1.0"),
            ("1.50", "1.50"),
            ("-1e-3", "-0.001"),
            ("-0", "0"),
            ("-0.0", "0.0"),
            ("0e5", "0"),
            ("0.0e1", "0"),
            ("0e-3", "0.000"),
            ("12345678901234567890123", "12345678901234567890123"),
            (" true ", "true"),
        ] {
            assert_eq!(canonical(given).as_deref(), Ok(kept), "{given}");
        }
    }

    /// An exponent is a few bytes, and the digits that it stands for are up to 131,072.
    #[test]
    fn a_small_document_does_not_become_a_huge_one() {
        let of = |numbers: usize| format!("[{}]", vec!["1e131000"; numbers].join(","));
        assert_eq!(canonical(&of(7)).map(|kept| kept.len()), Ok(7 * 131_001 + 6 * 2 + 2));
        assert!(canonical(&of(9)).is_err_and(|problem| problem.contains("exponent")));
        // The same in names' places, and where nothing is left of it in the end.
        let twice = format!("{{\"a\": {}, \"a\": 1}}", of(9));
        assert!(canonical(&twice).is_err());
        let plain = format!("[{}]", vec!["1".repeat(1000); 5000].join(","));
        assert_eq!(canonical(&plain).map(|kept| kept.len()), Ok(plain.len() + 4999));
    }

    #[test]
    fn what_it_would_not_take_is_refused() {
        let deep = "[".repeat(200) + &"]".repeat(200);
        for given in [
            "",
            "nul",
            "tru",
            "01",
            "1.",
            ".5",
            "+1",
            "1e",
            "[1,]",
            "[1 2]",
            "{\"a\"}",
            "{\"a\":1,}",
            "{a:1}",
            "\"a",
            "\"\n\"",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\\ud800\"",
            "\"\\udc00\"",
            "\"\\ud800\\u0041\"",
            "\"\\u0000\"",
            "1 2",
            "1e131073",
            "1e-16384",
            "1e99999999999999999999",
            "[",
            "{",
            "\\u",
            &deep,
        ] {
            assert!(canonical(given).is_err(), "{given}");
        }
    }

    proptest! {
        #[test]
        fn what_is_canonical_stays_so(text in r#"[\[\]{}",:0-9eE.+\-a\\un tfrls]{0,24}"#) {
            if let Ok(kept) = canonical(&text) {
                prop_assert!(serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok(), "{}", text);
                prop_assert_eq!(canonical(&kept), Ok(kept));
            }
        }

        #[test]
        fn nothing_makes_it_panic(text in any::<String>()) {
            let _ = canonical(&text);
        }
    }
}
