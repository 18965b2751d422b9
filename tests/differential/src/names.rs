//! Names and MACs that are random by design, replaced by what is the same on both sides.

use serde_json::Value;
use std::collections::BTreeMap;

/// One side's interface names, numbered in the order in which they come up.
#[derive(Debug, Default)]
pub(crate) struct Names {
    numbers: BTreeMap<String, String>,
    /// MACs that the configuration asks for: they must be equal.
    asked: Vec<String>,
}

impl Names {
    pub(crate) fn new(configuration: &str) -> Self {
        let asked = words(configuration).filter(|word| is_mac(word)).map(str::to_lowercase).collect();
        Self { asked, ..Self::default() }
    }

    /// Begins to number anew: with each call, so that a link which only one side had for a while does not matter later.
    pub(crate) fn forget(&mut self) {
        self.numbers.clear();
    }

    /// The same for an error's text: a name that is in no result is of a link that came to nothing, and gets no number.
    pub(crate) fn replace_in_error(&mut self, text: &str) -> String {
        let mut others = Self { asked: self.asked.clone(), numbers: self.numbers.clone() };
        let done = others.replace(text);
        let new = others.numbers.into_iter().filter(|(name, _)| !self.numbers.contains_key(name));
        new.fold(done, |done, (_, number)| done.replace(&number, "veth#"))
    }

    /// `text` with every random name in it replaced.
    pub(crate) fn replace(&mut self, text: &str) -> String {
        let mut done = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(start) = rest.find(|c: char| c.is_ascii_alphanumeric()) {
            let (before, from) = rest.split_at(start);
            let end = from.find(|c: char| !c.is_ascii_alphanumeric() && c != ':').unwrap_or(from.len());
            let (word, after) = from.split_at(end);
            done.push_str(before);
            let bare = word.trim_end_matches(':');
            done.push_str(&self.word(bare));
            done.push_str(word.get(bare.len()..).unwrap_or_default());
            rest = after;
        }
        done.push_str(rest);
        done
    }

    fn word(&mut self, word: &str) -> String {
        let fixed = self.asked.contains(&word.to_lowercase()) || word == "ff:ff:ff:ff:ff:ff" || word == NO_MAC;
        if fixed || !(is_mac(word) || is_veth(word)) {
            return word.to_owned();
        }
        if let Some(known) = self.numbers.get(word) {
            return known.clone();
        }
        if is_mac(word) {
            // Not numbered: which of them are equal depends on whether a bridge has one of its own or its first port's.
            return "random-mac".to_owned();
        }
        let new = format!("veth#{}", self.numbers.len() + 1);
        self.numbers.insert(word.to_owned(), new.clone());
        new
    }
}

const NO_MAC: &str = "00:00:00:00:00:00";

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != ':')
}

fn is_mac(word: &str) -> bool {
    word.len() == 17 && word.split(':').all(|part| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn is_veth(word: &str) -> bool {
    word.strip_prefix("veth").is_some_and(|hex| hex.len() == 8 && hex.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// `value` as lines, path to scalar: `ips/0/address`. Empty lists and objects are lines too.
pub(crate) fn flatten(path: &str, value: &Value, lines: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            map.iter().for_each(|(key, value)| flatten(&format!("{path}/{key}"), value, lines));
        }
        Value::Array(list) if !list.is_empty() => {
            list.iter().enumerate().for_each(|(n, value)| flatten(&format!("{path}/{n}"), value, lines));
        }
        Value::String(text) => drop(lines.insert(path.to_owned(), text.clone())),
        other => drop(lines.insert(path.to_owned(), other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_names_are_numbered() {
        let mut names = Names::new(r#"{"mac": "02:00:00:00:00:01"}"#);
        let text = "veth1a2b3c4d@veth00000000: 02:00:00:00:00:01 aa:bb:cc:dd:ee:ff veth1a2b3c4d vethfoo fd00::1";
        assert_eq!(names.replace(text), "veth#1@veth#2: 02:00:00:00:00:01 random-mac veth#1 vethfoo fd00::1");
    }
}
