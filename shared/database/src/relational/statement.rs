//! A statement and its parameters, written together so that they can't disagree.

use std::borrow::Cow;

/// What is bound to a placeholder.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Param<'a> {
    Null,
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(Cow<'a, str>),
    Bytes(Cow<'a, [u8]>),
}

impl Param<'_> {
    /// The same, borrowed.
    pub(crate) fn by_ref(&self) -> Param<'_> {
        match self {
            Param::Null => Param::Null,
            Param::Int(n) => Param::Int(*n),
            Param::Uint(n) => Param::Uint(*n),
            Param::Double(x) => Param::Double(*x),
            Param::Text(text) => Param::Text(Cow::Borrowed(text)),
            Param::Bytes(bytes) => Param::Bytes(Cow::Borrowed(bytes)),
        }
    }

    /// The same, owned.
    pub(crate) fn into_owned(self) -> Param<'static> {
        match self {
            Param::Null => Param::Null,
            Param::Int(n) => Param::Int(n),
            Param::Uint(n) => Param::Uint(n),
            Param::Double(x) => Param::Double(x),
            Param::Text(text) => Param::Text(Cow::Owned(text.into_owned())),
            Param::Bytes(bytes) => Param::Bytes(Cow::Owned(bytes.into_owned())),
        }
    }

    /// About how many bytes it takes on the wire: type, length and content.
    pub(crate) fn wire_bytes(&self) -> usize {
        12 + match self {
            Param::Null | Param::Int(_) | Param::Uint(_) | Param::Double(_) => 0,
            Param::Text(text) => text.len(),
            Param::Bytes(bytes) => bytes.len(),
        }
    }
}

impl<'a> From<&'a str> for Param<'a> {
    fn from(text: &'a str) -> Self {
        Param::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Param<'_> {
    fn from(text: String) -> Self {
        Param::Text(Cow::Owned(text))
    }
}

impl<'a> From<&'a [u8]> for Param<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Param::Bytes(Cow::Borrowed(bytes))
    }
}

impl From<i64> for Param<'_> {
    fn from(number: i64) -> Self {
        Param::Int(number)
    }
}

impl From<model::Version> for Param<'_> {
    fn from(version: model::Version) -> Self {
        // 53 bits.
        Param::Int(version.get() as i64)
    }
}

impl From<model::Epoch> for Param<'_> {
    fn from(epoch: model::Epoch) -> Self {
        Param::Int(epoch.0.into())
    }
}

impl From<model::Shard> for Param<'_> {
    fn from(shard: model::Shard) -> Self {
        Param::Int(shard.0.into())
    }
}

/// SQL text with placeholders, and what is bound to them.
///
/// Nothing but quoted identifiers of the introspected schema and our own words reach the text; every value is a
/// parameter.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Statement<'a> {
    text: String,
    params: Vec<Param<'a>>,
    /// Where in the text each placeholder stands.
    marks: Vec<usize>,
}

impl<'a> Statement<'a> {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), params: Vec::new(), marks: Vec::new() }
    }

    /// Appends text.
    pub(crate) fn push(&mut self, text: &str) -> &mut Self {
        self.text.push_str(text);
        self
    }

    /// Appends a placeholder. The only place that writes one.
    pub(crate) fn bind(&mut self, param: impl Into<Param<'a>>) -> &mut Self {
        self.marks.push(self.text.len());
        self.text.push('?');
        self.params.push(param.into());
        self
    }

    /// Appends `text`, with the placeholder where it has `{}`.
    pub(crate) fn bind_in(&mut self, text: &str, param: impl Into<Param<'a>>) -> &mut Self {
        let (before, after) = text.split_once("{}").unwrap_or((text, ""));
        self.push(before).bind(param).push(after)
    }

    /// Appends one piece per item, with `separator` between them.
    pub(crate) fn list<T>(
        &mut self,
        items: impl IntoIterator<Item = T>,
        separator: &str,
        mut each: impl FnMut(&mut Self, T),
    ) -> &mut Self {
        for (at, item) in items.into_iter().enumerate() {
            if at > 0 {
                self.push(separator);
            }
            each(self, item);
        }
        self
    }

    /// The text, with a question mark for each parameter.
    #[cfg(any(feature = "mysql", feature = "sqlite"))]
    pub(crate) fn into_parts(self) -> (String, Vec<Param<'a>>) {
        (self.text, self.params)
    }

    /// The text, with each placeholder as `spell` writes it, who is given its number from 1, its parameter and what
    /// follows it.
    #[cfg(feature = "postgres")]
    pub(crate) fn into_spelled(
        self,
        mut spell: impl FnMut(&mut String, usize, &Param<'a>, &str),
    ) -> (String, Vec<Param<'a>>) {
        let mut text = String::with_capacity(self.text.len() + 8 * self.marks.len());
        let mut from = 0;
        for (at, (&mark, param)) in self.marks.iter().zip(&self.params).enumerate() {
            text.push_str(&self.text[from..mark]);
            from = mark + 1;
            spell(&mut text, at + 1, param, &self.text[from..]);
        }
        text.push_str(&self.text[from..]);
        (text, self.params)
    }
}
