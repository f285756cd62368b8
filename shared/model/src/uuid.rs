//! UUIDs made for a write, as the database's own `uuid()` would.

use jiff::Timestamp;

use crate::Chance;

/// One of version 7 (RFC 9562): the milliseconds, then chance. Keys made one after the other lie side by side in an
/// index.
pub(crate) fn made_at(now: Timestamp, chance: &Chance) -> [u8; 16] {
    let millis = u128::from(now.as_millisecond().unsigned_abs()) << 80;
    let chance = (u128::from(chance.token()) << 64) | u128::from(chance.token());
    let version_and_variant = (0x7 << 76) | (0b10 << 62);
    let free = !((u128::MAX << 76) | (0b11 << 62));
    ((millis & !0 << 80) | version_and_variant | (chance & free)).to_be_bytes()
}

/// `8-4-4-4-12`, in lower case.
pub(crate) fn text_of(uuid: [u8; 16]) -> String {
    let digits = format!("{:032x}", u128::from_be_bytes(uuid));
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_uuid_says_its_version_its_variant_and_when() {
        let now: Timestamp = "2022-02-22T19:22:22Z".parse().unwrap();
        let (chance, mut seen) = (Chance::seeded(7), std::collections::BTreeSet::new());
        for _ in 0..1000 {
            let text = text_of(made_at(now, &chance));
            assert!(text.starts_with("017f22e2-79b0-7"), "{text}");
            assert!("89ab".contains(&text[19..20]) && text.len() == 36, "{text}");
            assert!(seen.insert(text));
        }
    }
}
