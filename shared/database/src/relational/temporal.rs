//! Dates and times as the text that databases take and give.

use jiff::{Timestamp, civil, tz::TimeZone};

/// `YYYY-MM-DD HH:MM:SS[.ffffff]`.
pub(crate) fn datetime_text(at: civil::DateTime) -> String {
    let (date, time) = (at.date(), at.time());
    let text = format!("{date} {:02}:{:02}:{:02}", time.hour(), time.minute(), time.second());
    match time.subsec_nanosecond() / 1000 {
        0 => text,
        micros => format!("{text}.{micros:06}"),
    }
}

/// An instant as a date and time in UTC.
pub(crate) fn timestamp_text(at: Timestamp) -> String {
    datetime_text(TimeZone::UTC.to_datetime(at))
}

/// A civil date and time. One with an offset is none: the offset would be dropped silently.
pub(crate) fn parse_datetime(text: &str) -> Option<civil::DateTime> {
    let bytes = text.as_bytes();
    let is_dashed = matches!(bytes, [_, _, _, _, b'-', _, _, b'-', _, _, ..]);
    let is_plain = bytes.iter().skip(10).all(|b| b.is_ascii_digit() || matches!(b, b' ' | b'T' | b't' | b':' | b'.'));
    if !is_dashed || !is_plain {
        return None;
    }
    whole_micros(text.parse::<civil::DateTime>().ok()?, |at| at.subsec_nanosecond())
}

/// An instant: with an offset or Z, or without, then it is UTC.
pub(crate) fn parse_timestamp(text: &str) -> Option<Timestamp> {
    // Without the offset's own mark, digits alone would be taken for a date.
    if text.contains('-')
        && let Ok(at) = text.parse::<Timestamp>()
    {
        return whole_micros(at, |at| at.subsec_nanosecond());
    }
    let civil = parse_datetime(text)?;
    TimeZone::UTC.to_timestamp(civil).ok()
}

/// A civil date; a time behind it is not dropped silently.
pub(crate) fn parse_date(text: &str) -> Option<civil::Date> {
    (text.len() <= 10).then(|| text.parse().ok()).flatten()
}

/// Finer than microseconds can't be kept.
fn whole_micros<T: Copy>(at: T, nanos: impl Fn(T) -> i32) -> Option<T> {
    (nanos(at) % 1000 == 0).then_some(at)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_instant_reads_back_as_it_was_written(micros in -62_135_596_800_000_000_i64..253_402_207_200_000_000) {
            let at = Timestamp::from_microsecond(micros).unwrap();
            prop_assert_eq!(parse_timestamp(&timestamp_text(at)), Some(at));
            let civil = TimeZone::UTC.to_datetime(at);
            prop_assert_eq!(parse_datetime(&datetime_text(civil)), Some(civil));
        }
    }

    #[test]
    fn other_sensible_forms_are_read() {
        let at: Timestamp = "2024-02-03T04:05:06Z".parse().unwrap();
        for text in
            ["2024-02-03 04:05:06", "2024-02-03T04:05:06Z", "2024-02-03 06:05:06+02:00", "2024-02-03T04:05:06.000"]
        {
            assert_eq!(parse_timestamp(text), Some(at), "{text}");
        }
        assert_eq!(parse_datetime("2024-02-03"), Some(civil::date(2024, 2, 3).at(0, 0, 0, 0)));
    }

    #[test]
    fn what_would_lose_something_is_not_read() {
        assert_eq!(parse_date("2024-02-03 04:05:06"), None);
        assert_eq!(parse_datetime("2024-02-03 04:05:06+02:00"), None);
        assert_eq!(parse_datetime("2024-02-03 04:05:06.123456789"), None);
        for text in ["0000-00-00 00:00:00", "1706932800", "yesterday", ""] {
            assert_eq!(parse_datetime(text), None, "{text}");
            assert_eq!(parse_timestamp(text), None, "{text}");
        }
    }
}
