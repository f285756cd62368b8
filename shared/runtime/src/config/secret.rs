//! Values that must not reach a log, a dump or an error message.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

pub(super) const REDACTED: &str = "<redacted>";

/// A password or the like. It shows itself only to [`Secret::expose`].
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The secret itself: for the driver that must send it, and nobody else.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether none was given.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn shown(&self) -> &'static str {
        if self.is_empty() { "" } else { REDACTED }
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.shown())
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.shown())
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        secret_text(from).map(Self)
    }
}

/// The address of a server. User and host are shown, a password in it is not.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ConnectionUrl(String);

impl ConnectionUrl {
    /// The whole address, with its password: for the driver that connects.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What stands before `://`.
    pub fn scheme(&self) -> Option<&str> {
        self.0.split_once(':').map(|(scheme, _)| scheme)
    }

    /// Whether none was given.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<&str> for ConnectionUrl {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Display for ConnectionUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&redact_url(&self.0))
    }
}

impl fmt::Debug for ConnectionUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", redact_url(&self.0))
    }
}

impl Serialize for ConnectionUrl {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&redact_url(&self.0))
    }
}

impl<'de> Deserialize<'de> for ConnectionUrl {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        secret_text(from).map(Self)
    }
}

/// Replaces a password before the host, and those given as parameters. It rather takes too much than too little.
pub(super) fn redact_url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let (place, parameters) = match rest.rsplit_once('@') {
        // A password that was not percent-encoded may hold a slash or a question mark.
        Some((user_info, host)) => {
            let (host, parameters) = split_parameters(host);
            let user = match user_info.split_once(':') {
                Some((user, _)) => format!("{user}:{REDACTED}"),
                None => user_info.to_owned(),
            };
            (format!("{user}@{host}"), parameters)
        }
        None => {
            let (host, parameters) = split_parameters(rest);
            (host.to_owned(), parameters)
        }
    };
    let parameters: Vec<String> = parameters.into_iter().map(redact_parameter).collect();
    let mark = if parameters.is_empty() { "" } else { "?" };
    format!("{scheme}://{place}{mark}{}", parameters.join("&"))
}

fn split_parameters(text: &str) -> (&str, Vec<&str>) {
    match text.split_once('?') {
        Some((place, parameters)) => (place, parameters.split('&').collect()),
        None => (text, Vec::new()),
    }
}

fn redact_parameter(parameter: &str) -> String {
    match parameter.split_once('=') {
        Some((name, _)) if ["pass", "pwd", "secret", "token"].iter().any(|s| name.to_lowercase().contains(s)) => {
            format!("{name}={REDACTED}")
        }
        _ => parameter.to_owned(),
    }
}

/// Text, and an error that doesn't repeat what was given where it is something else: a password of digits only, written
/// without quotes, is a number to YAML.
fn secret_text<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    struct Text;

    const NOT_TEXT: &str = "this must be text: put it in quotes";

    impl de::Visitor<'_> for Text {
        type Value = String;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("text")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<String, E> {
            Ok(text.to_owned())
        }

        fn visit_bool<E: de::Error>(self, _: bool) -> Result<String, E> {
            Err(E::custom(NOT_TEXT))
        }

        fn visit_i64<E: de::Error>(self, _: i64) -> Result<String, E> {
            Err(E::custom(NOT_TEXT))
        }

        fn visit_u64<E: de::Error>(self, _: u64) -> Result<String, E> {
            Err(E::custom(NOT_TEXT))
        }

        fn visit_f64<E: de::Error>(self, _: f64) -> Result<String, E> {
            Err(E::custom(NOT_TEXT))
        }
    }

    from.deserialize_any(Text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn passwords_in_addresses_are_taken_out_and_the_rest_stays() {
        for (url, shown) in [
            ("redis://127.0.0.1:6379", "redis://127.0.0.1:6379"),
            ("redis://:hunter2@h:1/0", "redis://:<redacted>@h:1/0"),
            ("mysql://app:hunter2@h/s?ssl-mode=required", "mysql://app:<redacted>@h/s?ssl-mode=required"),
            ("mysql://app:hun/ter2?@h/s", "mysql://app:<redacted>@h/s"),
            ("mysql://app:hun@ter2@h/s", "mysql://app:<redacted>@h/s"),
            ("mysql://root@h/s", "mysql://root@h/s"),
            ("postgres://h/s?user=a&password=hunter2", "postgres://h/s?user=a&password=<redacted>"),
            ("sqlite:/tmp/a.db", "sqlite:/tmp/a.db"),
        ] {
            assert_eq!(redact_url(url), shown);
        }
    }

    #[test]
    fn an_unquoted_number_is_refused_without_repeating_it() {
        let error = serde_json::from_str::<Secret>("4711").unwrap_err().to_string();
        assert!(error.contains("in quotes") && !error.contains("4711"), "{error}");
    }

    proptest! {
        #[test]
        fn a_password_never_shows(password in "[a-z0-9/?@:#&=%]{0,12}QqQ[a-z0-9/?@:#&=%]{0,12}") {
            let url = ConnectionUrl::from(&*format!("mysql://app:{password}@host:3306/schema"));
            let secret = Secret::from(&*password);
            for shown in [
                format!("{url:?}"),
                url.to_string(),
                serde_json::to_string(&url).unwrap(),
                format!("{secret:?}"),
                serde_json::to_string(&secret).unwrap(),
            ] {
                prop_assert!(!shown.contains("QqQ"), "{shown}");
            }
            prop_assert_eq!(secret.expose(), password);
        }
    }
}
