//! Values in the one form in which the database gives them back.

use std::net::{IpAddr, Ipv6Addr};

use super::{Refusal, range};

/// The double that is equal to the float that the column keeps.
pub(super) fn single(x: f64) -> Result<f64, Refusal> {
    let kept = x as f32;
    if !x.is_finite() {
        Err(range("must be finite"))
    } else if kept.is_infinite() || (kept == 0.0 && x != 0.0) {
        Err(range("is outside what a float of single precision holds"))
    } else {
        Ok(f64::from(kept))
    }
}

/// A decimal without needless zeros in front; those behind the point stay.
pub(super) fn numeric(text: &str) -> Result<String, Refusal> {
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) || digits.ends_with('.') {
        return Err(range("is not a decimal of the form -?digits(.digits)?"));
    }
    let whole = whole.trim_start_matches('0');
    if whole.len() > 131_072 || fraction.len() > 16_383 {
        return Err(range("has more than 131,072 digits before or 16,383 after the point"));
    }
    let zero = whole.is_empty() && fraction.bytes().all(|b| b == b'0');
    let sign = if negative && !zero { "-" } else { "" };
    let whole = if whole.is_empty() { "0" } else { whole };
    Ok(if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") })
}

pub(super) fn without_nul(text: &str) -> Result<(), Refusal> {
    if text.contains('\0') { Err(range("holds the character U+0000, which the database can't keep")) } else { Ok(()) }
}

/// Filled up with spaces; those at the end that are too many don't count.
pub(super) fn padded(text: &str, chars: u64) -> Result<String, Refusal> {
    let text = text.trim_end_matches(' ');
    let given = text.chars().count() as u64;
    let missing = chars.checked_sub(given).and_then(|missing| usize::try_from(missing).ok());
    match missing {
        Some(missing) => Ok(format!("{text}{}", " ".repeat(missing))),
        None => Err(range(format!("has {given} characters, the column holds {chars}"))),
    }
}

/// `8-4-4-4-12` in lower case; what is given may be in upper case, without hyphens, or in braces.
pub(super) fn uuid(text: &str) -> Result<String, Refusal> {
    let refused = || range("is no UUID of the form 00000000-0000-0000-0000-000000000000");
    let inner = text.strip_prefix('{').map_or(Some(text), |rest| rest.strip_suffix('}')).ok_or_else(refused)?;
    let digits = inner.replace('-', "").to_ascii_lowercase();
    if digits.len() != 32 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(refused());
    }
    let hyphenated = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-");
    // Hyphens stand where they belong, or nowhere.
    if inner.contains('-') && !inner.eq_ignore_ascii_case(&hyphenated) { Err(refused()) } else { Ok(hyphenated) }
}

/// As PostgreSQL writes it: without the prefix's length where that is all of the address.
pub(super) fn inet(text: &str) -> Result<String, Refusal> {
    let refused = || range("is no address of a host, such as 10.0.0.1, 10.0.0.1/24 or 2001:db8::1");
    let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
    let address: IpAddr = address.parse().map_err(|_| refused())?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix {
        None => most,
        // Zeros in front PostgreSQL takes for IPv4 only.
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0')) => {
            digits.parse().ok().filter(|prefix| *prefix <= most).ok_or_else(refused)?
        }
        Some(_) => return Err(refused()),
    };
    let address = match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => v6_text(v6),
    };
    Ok(if prefix == most { address } else { format!("{address}/{prefix}") })
}

/// As PostgreSQL writes it: always with the prefix's length, behind which no bit of the address is set.
pub(super) fn cidr(text: &str) -> Result<String, Refusal> {
    let written = inet(text).map_err(|_| range("is no address of a network, such as 10.0.0.0/8 or 2001:db8::/32"))?;
    let (address, prefix) = match written.split_once('/') {
        None => return Ok(format!("{written}/{}", if written.contains(':') { 128 } else { 32 })),
        Some((address, prefix)) => (address, prefix.parse::<u32>().unwrap_or_default()),
    };
    let host_bits = match address.parse() {
        Ok(IpAddr::V4(v4)) => u32::from(v4).checked_shl(prefix).unwrap_or_default() != 0,
        Ok(IpAddr::V6(v6)) => u128::from(v6).checked_shl(prefix).unwrap_or_default() != 0,
        Err(_) => true,
    };
    if host_bits { Err(range("has bits to the right of its prefix")) } else { Ok(written) }
}

/// PostgreSQL writes the last four bytes as of IPv4 where exactly the first six groups are zero, too.
fn v6_text(address: Ipv6Addr) -> String {
    let [a, b, c, d, e, f, high, low] = address.segments();
    if [a, b, c, d, e, f] == [0; 6] && high != 0 {
        let ([h1, h2], [l1, l2]) = (high.to_be_bytes(), low.to_be_bytes());
        format!("::{h1}.{h2}.{l1}.{l2}")
    } else {
        address.to_string()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn told<T>(result: Result<T, Refusal>) -> Option<T> {
        result.ok()
    }

    #[test]
    fn a_float_is_the_double_that_the_column_gives_back() {
        assert_eq!(told(single(0.1)), Some(0.100_000_001_490_116_12));
        assert_eq!(told(single(-1.5)), Some(-1.5));
        for outside in [1e39, -1e300, 1e-60, f64::NAN, f64::INFINITY] {
            assert_eq!(told(single(outside)), None, "{outside}");
        }
    }

    #[test]
    fn a_numeric_keeps_the_digits_that_it_was_written_with() {
        for (given, expected) in [
            ("1.50", Some("1.50")),
            ("-0", Some("0")),
            ("-0.00", Some("0.00")),
            ("007", Some("7")),
            ("00.10", Some("0.10")),
            ("-12345678901234567890123456789.5", Some("-12345678901234567890123456789.5")),
            ("1.", None),
            (".5", None),
            ("1e5", None),
            ("NaN", None),
            ("", None),
        ] {
            assert_eq!(told(numeric(given)).as_deref(), expected, "{given}");
        }
        assert_eq!(told(numeric(&format!("1{}", "0".repeat(131_072)))), None);
        assert_eq!(told(numeric(&format!("0.{}", "1".repeat(16_384)))), None);
    }

    #[test]
    fn characters_are_filled_up() {
        assert_eq!(told(padded("ab", 4)).as_deref(), Some("ab  "));
        assert_eq!(told(padded("ab      ", 4)).as_deref(), Some("ab  "));
        assert_eq!(told(padded("äöüß", 4)).as_deref(), Some("äöüß"));
        assert_eq!(told(padded("abcde", 4)), None);
        assert!(without_nul("a\0b").is_err() && without_nul("ab").is_ok());
    }

    #[test]
    fn a_uuid_has_one_form() {
        let form = Some("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11");
        for given in [
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
            "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}",
            "a0eebc999c0b4ef8bb6d6bb9bd380a11",
        ] {
            assert_eq!(told(uuid(given)).as_deref(), form, "{given}");
        }
        for given in ["", "a0eebc99", "a-0eebc999c0b4ef8bb6d6bb9bd380a11", "{a0eebc999c0b4ef8bb6d6bb9bd380a11", "ä"] {
            assert_eq!(told(uuid(given)), None, "{given}");
        }
    }

    #[test]
    fn a_network_has_its_prefix_and_nothing_behind_it() {
        for (given, expected) in [
            ("10.0.0.0/8", Some("10.0.0.0/8")),
            ("10.0.0.1", Some("10.0.0.1/32")),
            ("0.0.0.0/0", Some("0.0.0.0/0")),
            ("2001:DB8::/32", Some("2001:db8::/32")),
            ("::1", Some("::1/128")),
            ("::/0", Some("::/0")),
            ("10.0.0.1/8", None),
            ("2001:db8::1/32", None),
            ("10/8", None),
            ("", None),
        ] {
            assert_eq!(told(cidr(given)).as_deref(), expected, "{given}");
        }
    }

    #[test]
    fn an_address_has_one_form() {
        for (given, expected) in [
            ("10.0.0.1", Some("10.0.0.1")),
            ("10.0.0.1/32", Some("10.0.0.1")),
            ("10.0.0.1/8", Some("10.0.0.1/8")),
            ("2001:DB8:0:0:0:0:0:1", Some("2001:db8::1")),
            ("2001:db8::1/128", Some("2001:db8::1")),
            ("::ffff:10.0.0.1", Some("::ffff:10.0.0.1")),
            ("::1:2", Some("::0.1.0.2")),
            ("::1", Some("::1")),
            ("::", Some("::")),
            ("10.0.0.1/33", None),
            ("10.0.0.1/", None),
            ("10.0.0", None),
            ("10.0.0.1/0", Some("10.0.0.1/0")),
            ("10.0.0.1/+8", None),
            ("::1/01", None),
            ("::1/99999999999", None),
            ("", None),
        ] {
            assert_eq!(told(inet(given)).as_deref(), expected, "{given}");
        }
    }
}
