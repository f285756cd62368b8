//! What a server makes of the text of a statement, as far as names, texts and comments go. Written from the servers'
//! manuals and from nothing of ours, since it judges what we write.

/// A piece of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// A keyword, a function, a number, or a name without quotes.
    Word(String),
    /// A name in quotes.
    Name(String),
    /// A text in quotes.
    Text(String),
    /// A comment, which may hide the rest or may be carried out.
    Comment,
    /// A placeholder.
    Mark,
    /// Any other character.
    Sign(char),
    /// Quotes or a comment that never end.
    Endless,
}

/// Makes a token of what stands in quotes.
type Make = fn(String) -> Token;

/// Whose text it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Server {
    /// MySQL or MariaDB, with these modes.
    Mysql {
        /// `ANSI_QUOTES`.
        ansi_quotes: bool,
        /// `NO_BACKSLASH_ESCAPES`.
        no_backslash_escapes: bool,
    },
    Postgres,
    Sqlite,
}

impl Server {
    fn is_mysql(self) -> bool {
        matches!(self, Self::Mysql { .. })
    }

    /// What a quote opens: a name or a text, and whether a backslash hides what follows it there.
    fn quotes(self, quote: char) -> Option<(Make, bool)> {
        match (self, quote) {
            (Self::Mysql { no_backslash_escapes, .. }, '\'') => Some((Token::Text, !no_backslash_escapes)),
            (Self::Mysql { .. }, '`') => Some((Token::Name, false)),
            (Self::Mysql { ansi_quotes: true, .. }, '"') => Some((Token::Name, false)),
            (Self::Mysql { no_backslash_escapes, .. }, '"') => Some((Token::Text, !no_backslash_escapes)),
            (Self::Postgres | Self::Sqlite, '\'') => Some((Token::Text, false)),
            (Self::Postgres | Self::Sqlite, '"') | (Self::Sqlite, '`') => Some((Token::Name, false)),
            _ => None,
        }
    }
}

/// The pieces of a text.
pub(super) fn tokens(server: Server, sql: &str) -> Vec<Token> {
    let chars: Vec<char> = sql.chars().collect();
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
    let (mut tokens, mut at) = (Vec::new(), 0);
    while let Some(&c) = chars.get(at) {
        let next = chars.get(at + 1).copied();
        let behind = chars.get(at + 2).copied();
        if c == '\0' {
            // Where a server's text ends.
            tokens.push(Token::Endless);
            return tokens;
        } else if c.is_whitespace() {
            at += 1;
        } else if let Some((make, escapes)) = server.quotes(c) {
            match quoted(&chars[at + 1..], c, escapes) {
                Some((text, length)) => {
                    tokens.push(make(text));
                    at += 1 + length;
                }
                None => {
                    tokens.push(Token::Endless);
                    return tokens;
                }
            }
        } else if c == '[' && server == Server::Sqlite {
            let length = chars[at..].iter().position(|&c| c == ']');
            let Some(length) = length else {
                tokens.push(Token::Endless);
                return tokens;
            };
            tokens.push(Token::Name(chars[at + 1..at + length].iter().collect()));
            at += length + 1;
        } else if (c == '#' && server.is_mysql())
            || (c == '-' && next == Some('-') && (!server.is_mysql() || behind.is_none_or(char::is_whitespace)))
        {
            tokens.push(Token::Comment);
            at += chars[at..].iter().take_while(|&&c| c != '\n').count();
        } else if c == '/' && next == Some('*') {
            tokens.push(Token::Comment);
            let end = chars[at + 2..].windows(2).position(|pair| pair == ['*', '/']);
            let Some(end) = end else {
                tokens.push(Token::Endless);
                return tokens;
            };
            at += end + 4;
        } else if c == '?' {
            tokens.push(Token::Mark);
            at += 1;
        } else if c == '$' && server == Server::Postgres {
            // A text between dollars. None of ours begins so.
            tokens.push(Token::Endless);
            return tokens;
        } else if is_word(c) {
            let word: String = chars[at..].iter().copied().take_while(|&c| is_word(c)).collect();
            at += word.chars().count();
            tokens.push(Token::Word(word));
        } else {
            tokens.push(Token::Sign(c));
            at += 1;
        }
    }
    tokens
}

/// What stands in quotes, and how long it is with the quote that ends it.
fn quoted(chars: &[char], quote: char, escapes: bool) -> Option<(String, usize)> {
    let (mut text, mut at) = (String::new(), 0);
    loop {
        let c = *chars.get(at)?;
        at += 1;
        if c == '\0' {
            return None;
        } else if c == '\\' && escapes {
            text.push(*chars.get(at)?);
            at += 1;
        } else if c != quote {
            text.push(c);
        } else if chars.get(at) == Some(&quote) {
            text.push(quote);
            at += 1;
        } else {
            return Some((text, at));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Server = Server::Mysql { ansi_quotes: false, no_backslash_escapes: false };

    fn name(text: &str) -> Token {
        Token::Name(text.to_owned())
    }

    fn text(text: &str) -> Token {
        Token::Text(text.to_owned())
    }

    #[test]
    fn quotes_are_what_the_server_says() {
        let ansi = Server::Mysql { ansi_quotes: true, no_backslash_escapes: true };
        for (server, sql, expected) in [
            (PLAIN, "`a``b`", vec![name("a`b")]),
            (PLAIN, "\"a\"", vec![text("a")]),
            (ansi, "\"a\"", vec![name("a")]),
            (PLAIN, r"'a\'b'", vec![text("a'b")]),
            (ansi, r"'a\'b'", vec![text(r"a\"), Token::Word("b".to_owned()), Token::Endless]),
            (Server::Postgres, "\"a\"\"b\"", vec![name("a\"b")]),
            (Server::Postgres, "`", vec![Token::Sign('`')]),
            (Server::Sqlite, "[a\"b]", vec![name("a\"b")]),
            (Server::Sqlite, "`a``b`", vec![name("a`b")]),
            (Server::Sqlite, "'a''b'", vec![text("a'b")]),
        ] {
            assert_eq!(tokens(server, sql), expected, "{server:?} {sql}");
        }
    }

    #[test]
    fn comments_and_ends_are_seen() {
        for (server, sql, expected) in [
            (PLAIN, "a -- b", vec![Token::Word("a".to_owned()), Token::Comment]),
            (PLAIN, "--a", vec![Token::Sign('-'), Token::Sign('-'), Token::Word("a".to_owned())]),
            (Server::Postgres, "--a\n?", vec![Token::Comment, Token::Mark]),
            (PLAIN, "#a", vec![Token::Comment]),
            (Server::Sqlite, "#", vec![Token::Sign('#')]),
            (PLAIN, "/*!a*/;", vec![Token::Comment, Token::Sign(';')]),
            (PLAIN, "`a", vec![Token::Endless]),
            (PLAIN, "`a\0`", vec![Token::Endless]),
            (Server::Postgres, "$$a$$", vec![Token::Endless]),
        ] {
            assert_eq!(tokens(server, sql), expected, "{server:?} {sql}");
        }
    }
}
