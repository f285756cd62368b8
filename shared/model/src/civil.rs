//! Dates and times as texts, in the one form that they have in the API. jiff reads far more than that: an offset of a civil
//! time, which it drops; weeks; a second :60, of which it makes :59. So the form comes first.

use jiff::{Timestamp, civil};

const DATE_FORM: &str = "dddd-dd-dd";
const TIME_FORM: &str = "Tdd:dd:dd";
const OFFSET_FORM: &str = "dd:dd";

/// Whether `text` has a digit for each `d` of the form and its own characters elsewhere.
fn has_form(text: &str, form: &str) -> bool {
    text.len() == form.len()
        && text.bytes().zip(form.bytes()).all(|(t, f)| if f == b'd' { t.is_ascii_digit() } else { t == f })
}

/// `YYYY-MM-DDTHH:MM:SS[.ffffff]`; `None` for anything else.
pub fn datetime(text: &str) -> Option<civil::DateTime> {
    let (whole, fraction) = match text.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (text, None),
    };
    let (day, time) = whole.split_at_checked(DATE_FORM.len())?;
    let fits = has_form(day, DATE_FORM)
        && has_form(time, TIME_FORM)
        && !time.ends_with(":60")
        && fraction.is_none_or(|f| (1..=6).contains(&f.len()) && f.bytes().all(|b| b.is_ascii_digit()));
    if fits { text.parse().ok() } else { None }
}

/// `YYYY-MM-DD`; `None` for anything else.
pub fn date(text: &str) -> Option<civil::Date> {
    if has_form(text, DATE_FORM) { text.parse().ok() } else { None }
}

/// `YYYY-MM-DDTHH:MM:SS[.ffffff]` and `Z` or an offset `+HH:MM`; `None` for anything else.
pub fn timestamp(text: &str) -> Option<Timestamp> {
    let civil = match text.strip_suffix('Z') {
        Some(civil) => civil,
        None => {
            let (before, offset) = text.split_at_checked(text.len().checked_sub(OFFSET_FORM.len())?)?;
            before.strip_suffix(['+', '-']).filter(|_| has_form(offset, OFFSET_FORM))?
        }
    };
    datetime(civil)?;
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_of_one_form() {
        for (text, is_datetime, is_date, is_timestamp) in [
            ("2024-01-31T01:02:03", true, false, false),
            ("2024-01-31T01:02:03.000001", true, false, false),
            ("2024-01-31", false, true, false),
            ("2024-01-31T01:02:03Z", false, false, true),
            ("2024-01-31T01:02:03.5-09:30", false, false, true),
            ("2024-01-31T01:02:03+05:30[Asia/Kolkata]", false, false, false),
            ("2024-01-31T01:02:03+0530", false, false, false),
            ("2024-01-31 01:02:03", false, false, false),
            ("2024-01-31T01:02:60", false, false, false),
            ("2024-01-31T01:02:60Z", false, false, false),
            ("2024-01-31T01:02:03.0000001", false, false, false),
            ("2024-01-31T01:02:03.", false, false, false),
            ("2024-W01-1", false, false, false),
            ("20240131", false, false, false),
            ("2024-02-30", false, false, false),
            ("-002024-01-31", false, false, false),
            ("", false, false, false),
            ("é", false, false, false),
        ] {
            let read = (datetime(text).is_some(), date(text).is_some(), timestamp(text).is_some());
            assert_eq!(read, (is_datetime, is_date, is_timestamp), "{text:?}");
        }
    }
}
