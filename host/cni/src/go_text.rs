//! How Go's `fmt` and `strconv` spell things that stand in messages of the reference.

/// `%q` of a string.
pub(crate) fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    text.chars().for_each(|c| push_quoted(&mut quoted, c, '"'));
    quoted.push('"');
    quoted
}

/// `%q` of a list of strings.
pub(crate) fn quote_list<S: AsRef<str>>(texts: &[S]) -> String {
    let quoted: Vec<String> = texts.iter().map(|text| quote(text.as_ref())).collect();
    format!("[{}]", quoted.join(" "))
}

/// How `encoding/json` names the byte that it did not expect.
pub(crate) fn quote_byte(byte: u8) -> String {
    let mut quoted = String::from("'");
    push_quoted(&mut quoted, char::from(byte), '\'');
    quoted.push('\'');
    quoted
}

fn push_quoted(out: &mut String, c: char, quote: char) {
    match c {
        '\\' => out.push_str("\\\\"),
        '\u{7}' => out.push_str("\\a"),
        '\u{8}' => out.push_str("\\b"),
        '\u{b}' => out.push_str("\\v"),
        '\u{c}' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        c if c == quote => out.extend(['\\', c]),
        ' '..='~' => out.push(c),
        '\0'..='\u{7f}' => out.push_str(&format!("\\x{:02x}", u32::from(c))),
        // Rust and Go agree on what is printable up to their versions of Unicode.
        c if c.escape_debug().len() == 1 => out.push(c),
        '\u{80}'..='\u{ffff}' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
        _ => out.push_str(&format!("\\U{:08x}", u32::from(c))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_as_go_does() {
        for (text, quoted) in [
            ("", r#""""#),
            ("9.9.9", r#""9.9.9""#),
            ("a\"b\\c", r#""a\"b\\c""#),
            ("it's", r#""it's""#),
            ("\n\t\u{1}\u{7f}", r#""\n\t\x01\x7f""#),
            ("héllo", r#""héllo""#),
            ("\u{85}", r#""\u0085""#),
        ] {
            assert_eq!(quote(text), quoted);
        }
        assert_eq!(quote_list(&["0.1.0", "1.0.0"]), r#"["0.1.0" "1.0.0"]"#);
        assert_eq!(quote_list::<&str>(&[]), "[]");
        assert_eq!(quote_byte(b'\''), r"'\''");
        assert_eq!(quote_byte(b'"'), "'\"'");
        assert_eq!(quote_byte(0), r"'\x00'");
        assert_eq!(quote_byte(0xef), "'ï'");
    }
}
