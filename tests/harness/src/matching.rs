//! Does what is there match what a case expects? The rules stand in `README.md`, "Results" and "The kernel and the files".

use serde_json::Value;
use std::collections::BTreeMap;

/// What `$names` stand for so far.
#[derive(Debug, Clone, Default)]
pub struct Bindings(BTreeMap<String, String>);

impl Bindings {
    /// Let `$name` stand for `value` from now on, whatever it stood for.
    pub fn set(&mut self, name: &str, value: &str) {
        self.0.insert(name.to_owned(), value.to_owned());
    }

    /// `text` with every known `$name` replaced. Longer names first, so that `$veth_a` isn't read as `$veth`.
    pub fn fill(&self, text: &str) -> String {
        let mut names: Vec<_> = self.0.iter().collect();
        names.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        names.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("${name}"), value))
    }
}

/// How lists match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lists {
    /// Same length, element by element: results.
    Exact,
    /// Each wanted one matches some that is there: what the kernel shows.
    Some,
}

/// Compare, binding names on the way; what differs, with the place, or nothing.
pub fn compare(wanted: &Value, found: &Value, lists: Lists, bindings: &mut Bindings) -> Result<(), String> {
    differ("", wanted, found, lists, bindings)
}

fn differ(at: &str, wanted: &Value, found: &Value, lists: Lists, bindings: &mut Bindings) -> Result<(), String> {
    match (wanted, found) {
        (Value::Object(wanted), Value::Object(there)) => {
            for (key, wanted) in wanted {
                if key == "*" {
                    if !anywhere(wanted, found, lists, bindings) {
                        return Err(format!("{at}: nowhere {wanted}"));
                    }
                    continue;
                }
                let found = there.get(key).unwrap_or(&Value::Null);
                differ(&format!("{at}/{key}"), wanted, found, lists, bindings)?;
            }
            Ok(())
        }
        (Value::Array(wanted), Value::Array(found)) if lists == Lists::Exact => {
            if wanted.len() != found.len() {
                return Err(format!("{at}: wanted {} elements, there are {}: {found:?}", wanted.len(), found.len()));
            }
            for (i, (wanted, found)) in wanted.iter().zip(found).enumerate() {
                differ(&format!("{at}/{i}"), wanted, found, lists, bindings)?;
            }
            Ok(())
        }
        (Value::Array(wanted), Value::Array(found)) => {
            for (i, wanted) in wanted.iter().enumerate() {
                some(wanted, found, lists, bindings).ok_or_else(|| format!("{at}/{i}: no element matches {wanted}"))?;
            }
            Ok(())
        }
        (Value::String(pattern), Value::String(text)) => string(at, pattern, text, bindings),
        (Value::String(pattern), Value::Number(number)) if pattern == "*" => {
            string(at, pattern, &number.to_string(), bindings)
        }
        (wanted, found) if wanted == found => Ok(()),
        (wanted, found) => Err(format!("{at}: wanted {wanted}, there is {found}")),
    }
}

/// The first element of `found` that matches, with the names bound that it binds.
pub fn some<'v>(wanted: &Value, found: &'v [Value], lists: Lists, bindings: &mut Bindings) -> Option<&'v Value> {
    found.iter().find(|found| {
        let mut attempt = bindings.clone();
        let fits = differ("", wanted, found, lists, &mut attempt).is_ok();
        if fits {
            *bindings = attempt;
        }
        fits
    })
}

fn anywhere(wanted: &Value, found: &Value, lists: Lists, bindings: &mut Bindings) -> bool {
    let mut attempt = bindings.clone();
    if differ("", wanted, found, lists, &mut attempt).is_ok() {
        *bindings = attempt;
        return true;
    }
    match found {
        Value::Object(map) => map.values().any(|inner| anywhere(wanted, inner, lists, bindings)),
        Value::Array(list) => list.iter().any(|inner| anywhere(wanted, inner, lists, bindings)),
        _ => false,
    }
}

fn string(at: &str, pattern: &str, text: &str, bindings: &mut Bindings) -> Result<(), String> {
    if let Some(name) = pattern.strip_prefix('$')
        && !name.is_empty()
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
        && !bindings.0.contains_key(name)
    {
        if text.is_empty() {
            return Err(format!("{at}: {pattern} would stand for an empty text"));
        }
        bindings.set(name, text);
        return Ok(());
    }
    let filled = bindings.fill(pattern);
    if at.ends_with("/mac") && filled == "*" && !is_mac(text) {
        return Err(format!("{at}: {text:?} is no MAC address"));
    }
    let fits = if filled == "*" { !text.is_empty() } else { glob(&filled, text) };
    if fits { Ok(()) } else { Err(format!("{at}: wanted {filled:?}, there is {text:?}")) }
}

fn is_mac(text: &str) -> bool {
    let parts: Vec<&str> = text.split(':').collect();
    parts.len() == 6 && parts.iter().all(|part| part.len() == 2 && u8::from_str_radix(part, 16).is_ok())
}

/// Whether `text` is `pattern`, in which `*` stands for any run of characters.
pub fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some((_, after)) =
            rest.split_once(part).filter(|_| !part.is_empty()).or(part.is_empty().then_some(("", rest)))
        else {
            return false;
        };
        rest = after;
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn patterns() {
        for (pattern, text, fits) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("a*", "ab", true),
            ("*b", "ab", true),
            ("a*c*e", "abcde", true),
            ("a*c*e", "abde", false),
            ("**", "", true),
            ("a*a", "a", false),
            ("", "", true),
            ("", "x", false),
        ] {
            assert_eq!(glob(pattern, text), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn names_are_bound_once() {
        let mut names = Bindings::default();
        let found =
            json!({"interfaces": [{"name": "veth1"}, {"name": "veth1", "mac": "0a:00:00:00:00:01", "more": 1}]});
        let wanted = json!({"interfaces": [{"name": "$v"}, {"name": "$v", "mac": "*", "sandbox": null}]});
        compare(&wanted, &found, Lists::Exact, &mut names).unwrap();
        assert_eq!(names.fill("ip link show $v"), "ip link show veth1");
        assert!(compare(&json!({"x": "$v"}), &json!({"x": "veth2"}), Lists::Exact, &mut names).is_err());
        assert!(compare(&json!([1]), &json!([1, 2]), Lists::Exact, &mut names).is_err());
        compare(&json!([2]), &json!([1, 2]), Lists::Some, &mut names).unwrap();
        compare(&json!({"*": "10.1.2.2"}), &json!({"a": [{"b": ["10.1.2.2"]}]}), Lists::Some, &mut names).unwrap();
        assert!(
            compare(&json!({"*": "10.1.2.3"}), &json!({"a": [{"b": ["10.1.2.2"]}]}), Lists::Some, &mut names).is_err()
        );
        assert!(compare(&json!({"mac": "*"}), &json!({"mac": "zz"}), Lists::Exact, &mut names).is_err());
    }
}
