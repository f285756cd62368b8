//! JSON in the form in which MySQL keeps it, so that what is read before the drain is what is read after it: an
//! object's names by length and then by bytes, the last of equal ones; a space after commas and colons; texts without
//! needless escapes; integers of 64 bits exactly and all other numbers as doubles, written as MySQL writes them.

use crate::jsonb::{Rules, rewritten};

/// Arrays and objects in one another.
const MAX_DEPTH: usize = 100;

/// Longer ones are error 3151 (ER_JSON_KEY_TOO_BIG): an object keeps their lengths in 16 bits.
const MAX_NAME_BYTES: usize = 65_535;

/// Digits that MySQL writes before and after the point; beyond them it writes an exponent.
const MAX_PLACES: i32 = 15;

/// The text as MySQL gives it back.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn canonical(text: &str) -> Result<String, &'static str> {
    rewritten(text, Rules { max_depth: MAX_DEPTH, max_name_bytes: MAX_NAME_BYTES, may_hold_nul: true, number })
}

/// A number without point and exponent is an integer, if it fits into 64 bits; else it is a double.
fn number(negative: bool, whole: &str, fraction: &str, exponent: Option<i64>) -> Result<String, &'static str> {
    let sign = if negative { "-" } else { "" };
    if fraction.is_empty() && exponent.is_none() {
        let signed = format!("{sign}{whole}").parse::<i64>().map(|n| n.to_string());
        if let Ok(integer) = signed.or_else(|_| format!("{sign}{whole}").parse::<u64>().map(|n| n.to_string())) {
            return Ok(integer);
        }
    }
    let fraction = if fraction.is_empty() { "0" } else { fraction };
    let text = format!("{sign}{whole}.{fraction}e{}", exponent.unwrap_or(0));
    match text.parse::<f64>() {
        Ok(double) if double.is_finite() => Ok(double_text(double)),
        _ => Err("a number is larger than a double"),
    }
}

/// The shortest digits that give the double back; a point where they look like an integer.
fn double_text(double: f64) -> String {
    let shortest = format!("{double:e}");
    let (mantissa, exponent) = shortest.split_once('e').unwrap_or((&shortest, "0"));
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |rest| ("-", rest));
    let digits = mantissa.replace('.', "");
    // How many digits stand before the point; none and zeros behind it, where it is not positive.
    let point = exponent.parse::<i32>().unwrap_or(0) + 1;
    let count = i32::try_from(digits.len()).unwrap_or(i32::MAX);
    if point <= -MAX_PLACES || (point > MAX_PLACES && point >= count) {
        return format!("{sign}{mantissa}e{exponent}");
    }
    let zeros = |many: i32| "0".repeat(usize::try_from(many).unwrap_or(0));
    if point <= 0 {
        format!("{sign}0.{}{digits}", zeros(-point))
    } else if point >= count {
        format!("{sign}{digits}{}.0", zeros(point - count))
    } else {
        let (before, after) = digits.split_at(usize::try_from(point).unwrap_or(0));
        format!("{sign}{before}.{after}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each was asked of MySQL 9.7.
    #[test]
    fn as_mysql_gives_it_back() {
        for (given, kept) in [
            ("1.0", "1.0"),
            ("100.0", "100.0"),
            ("1e5", "100000.0"),
            ("1E+2", "100.0"),
            ("1e14", "100000000000000.0"),
            ("1e15", "1e15"),
            ("1e20", "1e20"),
            ("123456789012345680.0", "1.2345678901234568e17"),
            ("1234567890123456.5", "1234567890123456.5"),
            ("0.00001", "0.00001"),
            ("0.1e-6", "0.0000001"),
            ("5e-324", "5e-324"),
            ("-5.674664918136216e+64", "-5.674664918136216e64"),
            ("-0", "0"),
            ("-0.0", "-0.0"),
            ("0.0", "0.0"),
            ("18446744073709551615", "18446744073709551615"),
            ("18446744073709551616", "1.8446744073709552e19"),
            ("-9223372036854775808", "-9223372036854775808"),
            ("-9223372036854775809", "-9.223372036854776e18"),
            ("123456.789e3", "123456789.0"),
            (r#"{"bb":1,"a":2,"b":3, "a": 4, "é":5, "":6}"#, r#"{"": 6, "a": 4, "b": 3, "bb": 1, "é": 5}"#),
            (r#""\u00e9\n\/\u0001\"\\\u007f\ud83c\udf89\u0000""#, "\"é\\n/\\u0001\\\"\\\\\u{7f}🎉\\u0000\""),
            (" [{\"x\":[]}, null,true,false] ", "[{\"x\": []}, null, true, false]"),
        ] {
            assert_eq!(canonical(given).as_deref(), Ok(kept), "{given}");
        }
        for given in ["1e400", "", "01", "1.", "{\"a\":1,}", "\"\\ud800\"", "1 2"] {
            assert!(canonical(given).is_err(), "{given}");
        }
        let named = |bytes: usize| canonical(&format!("{{\"{}\": 1}}", "é".repeat(bytes / 2) + &"x".repeat(bytes % 2)));
        assert!(named(65_535).is_ok() && named(65_536).is_err());
    }
}
