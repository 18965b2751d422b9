//! What Go would say of text that is not JSON. Only asked after serde_json refused the text: it decides, this explains.

use super::MAX_DEPTH;
use crate::go_text::quote_byte;

const END: &str = "unexpected end of JSON input";

/// The message for the first byte that can't stand where it does. None when nothing is wrong with the syntax (serde_json
/// also refuses half surrogates and numbers beyond floating point).
pub(super) fn explain(text: &[u8]) -> Option<String> {
    Scanner { text, at: 0, open: Vec::new() }.scan().err()
}

/// Text with whose syntax nothing is wrong, as Go reads it: of a pair of surrogates that is half there U+FFFD; a number beyond
/// floating point, which Go looks at only where somebody wants it, as the last one that is not.
pub(super) fn tolerated(text: &str) -> String {
    let mut read = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let part = match first {
            '"' => string(rest, &mut read),
            '-' | '0'..='9' => {
                let length = rest.find(|c: char| !matches!(c, '-' | '+' | '.' | 'e' | 'E' | '0'..='9'));
                let number = rest.get(..length.unwrap_or(rest.len())).unwrap_or(rest);
                match number.parse::<f64>() {
                    Ok(value) if value.is_infinite() => read.push_str(if first == '-' { LEAST } else { MOST }),
                    _ => read.push_str(number),
                }
                number.len()
            }
            other => {
                read.push(other);
                other.len_utf8()
            }
        };
        rest = rest.get(part..).unwrap_or_default();
    }
    read
}

const MOST: &str = "1.7976931348623157e308";
const LEAST: &str = "-1.7976931348623157e308";

/// One string, with its quotes; its length in the text.
fn string(text: &str, read: &mut String) -> usize {
    let unit = |at: usize| {
        let digits = text.get(at..)?.strip_prefix("\\u")?.get(..4)?;
        u16::from_str_radix(digits, 16).ok()
    };
    read.push('"');
    let mut at = 1;
    while let Some(next) = text.get(at..).and_then(|rest| rest.chars().next()) {
        let length = match (next, unit(at)) {
            ('"', _) => {
                read.push('"');
                return at + 1;
            }
            ('\\', Some(0xd800..=0xdbff)) if unit(at + 6).is_some_and(|low| (0xdc00..=0xdfff).contains(&low)) => 12,
            ('\\', Some(0xd800..=0xdfff)) => {
                read.push('\u{fffd}');
                at += 6;
                continue;
            }
            ('\\', Some(_)) => 6,
            ('\\', None) => 2,
            (other, _) => other.len_utf8(),
        };
        read.push_str(text.get(at..at + length).unwrap_or_default());
        at += length;
    }
    at
}

/// What may come next, white space aside.
enum Next {
    Value,
    /// After `[`.
    ValueOrEnd,
    /// After `{`.
    KeyOrEnd,
    /// After a comma in an object.
    Key,
    Colon,
    /// After a value.
    CommaOrEnd,
}

struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
    /// The brackets that are still open.
    open: Vec<u8>,
}

type Scan<T> = Result<T, String>;

impl Scanner<'_> {
    fn scan(&mut self) -> Scan<()> {
        let mut next = Next::Value;
        loop {
            while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
                self.at += 1;
            }
            if matches!(next, Next::CommaOrEnd) && self.open.is_empty() {
                return match self.peek() {
                    None => Ok(()),
                    Some(byte) => Err(wrong(byte, "after top-level value")),
                };
            }
            let byte = self.take()?;
            next = match (next, byte) {
                (Next::ValueOrEnd, b']') | (Next::KeyOrEnd, b'}') => self.close(),
                (Next::Value | Next::ValueOrEnd, byte) => self.value(byte)?,
                (Next::Key | Next::KeyOrEnd, b'"') => {
                    self.string()?;
                    Next::Colon
                }
                (Next::Key | Next::KeyOrEnd, byte) => {
                    return Err(wrong(byte, "looking for beginning of object key string"));
                }
                (Next::Colon, b':') => Next::Value,
                (Next::Colon, byte) => return Err(wrong(byte, "after object key")),
                (Next::CommaOrEnd, byte) => match (self.open.last(), byte) {
                    (Some(b'{'), b',') => Next::Key,
                    (Some(b'{'), b'}') | (Some(b'['), b']') => self.close(),
                    (Some(b'{'), byte) => return Err(wrong(byte, "after object key:value pair")),
                    (_, b',') => Next::Value,
                    (_, byte) => return Err(wrong(byte, "after array element")),
                },
            };
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn take(&mut self) -> Scan<u8> {
        let byte = self.peek().ok_or(END)?;
        self.at += 1;
        Ok(byte)
    }

    /// Inside an atom: Go ends the text with a space, and it is the space that can't stand there.
    fn take_within(&mut self) -> u8 {
        let byte = self.peek().unwrap_or(b' ');
        self.at += 1;
        byte
    }

    fn close(&mut self) -> Next {
        self.open.pop();
        Next::CommaOrEnd
    }

    fn value(&mut self, first: u8) -> Scan<Next> {
        match first {
            b'{' | b'[' => {
                if self.open.len() >= MAX_DEPTH {
                    return Err(wrong(first, "exceeded max depth"));
                }
                self.open.push(first);
                return Ok(if first == b'{' { Next::KeyOrEnd } else { Next::ValueOrEnd });
            }
            b'"' => self.string()?,
            b'-' | b'0'..=b'9' => self.number(first)?,
            b't' => self.literal("true")?,
            b'f' => self.literal("false")?,
            b'n' => self.literal("null")?,
            byte => return Err(wrong(byte, "looking for beginning of value")),
        }
        Ok(Next::CommaOrEnd)
    }

    fn string(&mut self) -> Scan<()> {
        loop {
            match self.take()? {
                b'"' => return Ok(()),
                b'\\' => match self.take_within() {
                    b'u' => {
                        for _ in 0..4 {
                            let byte = self.take_within();
                            if !byte.is_ascii_hexdigit() {
                                return Err(wrong(byte, "in \\u hexadecimal character escape"));
                            }
                        }
                    }
                    b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"' => {}
                    byte => return Err(wrong(byte, "in string escape code")),
                },
                byte @ 0..0x20 => return Err(wrong(byte, "in string literal")),
                _ => {}
            }
        }
    }

    fn number(&mut self, first: u8) -> Scan<()> {
        let first = if first == b'-' { self.digit("in numeric literal")? } else { first };
        if first != b'0' {
            self.digits();
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digit("after decimal point in numeric literal")?;
            self.digits();
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digit("in exponent of numeric literal")?;
            self.digits();
        }
        Ok(())
    }

    fn digit(&mut self, place: &str) -> Scan<u8> {
        match self.take_within() {
            byte @ b'0'..=b'9' => Ok(byte),
            byte => Err(wrong(byte, place)),
        }
    }

    fn digits(&mut self) {
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
    }

    fn literal(&mut self, literal: &str) -> Scan<()> {
        for expected in literal.bytes().skip(1) {
            let byte = self.take_within();
            if byte != expected {
                return Err(wrong(byte, &format!("in literal {literal} (expecting {})", quote_byte(expected))));
            }
        }
        Ok(())
    }
}

fn wrong(byte: u8, place: &str) -> String {
    format!("invalid character {} {place}", quote_byte(byte))
}
