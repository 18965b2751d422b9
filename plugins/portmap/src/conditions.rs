//! `conditionsV4` and `conditionsV6`: words of iptables or of nft that a rule begins with. A guest writes no rules; what
//! the host can look at is taken from them, and what it can't is refused rather than left out.

use sandwire_plugin::Failure;

/// The words as options of `firewall.port-forward`.
pub(crate) fn read(key: &str, words: &[String], is_ipv4: bool) -> Result<Vec<(String, String)>, Failure> {
    let words: Vec<&str> = words.iter().flat_map(|words| words.split_whitespace()).collect();
    let mut rest = words.as_slice();
    let mut options = Vec::new();
    while !rest.is_empty() {
        let (option, others) = iptables(rest).or_else(|| nft(rest, is_ipv4)).ok_or_else(|| {
            Failure::config(format!(
                "{key}: {:?} is no condition that can be looked at here: source and destination address, and the \
                 interface by which a packet comes in, are",
                rest.join(" ")
            ))
        })?;
        options.push(option);
        rest = others;
    }
    Ok(options)
}

type Read<'w> = Option<((String, String), &'w [&'w str])>;

fn iptables<'w>(words: &'w [&'w str]) -> Read<'w> {
    let (not, words) = match words {
        ["!", rest @ ..] => (true, rest),
        _ => (false, words),
    };
    let [flag, value, rest @ ..] = words else { return None };
    let what = match *flag {
        "-s" | "--source" | "--src" => "source",
        "-d" | "--destination" | "--dst" => "destination",
        "-i" | "--in-interface" if !value.ends_with('+') => "input",
        _ => return None,
    };
    option(what, not, value).map(|option| (option, rest))
}

fn nft<'w>(words: &'w [&'w str], is_ipv4: bool) -> Read<'w> {
    let family = if is_ipv4 { "ip" } else { "ip6" };
    let (what, words) = match words {
        [of, "saddr", rest @ ..] if *of == family => ("source", rest),
        [of, "daddr", rest @ ..] if *of == family => ("destination", rest),
        ["iif" | "iifname", rest @ ..] | ["meta", "iif" | "iifname", rest @ ..] => ("input", rest),
        _ => return None,
    };
    let (not, words) = match words {
        ["!=", rest @ ..] => (true, rest),
        ["==", rest @ ..] => (false, rest),
        _ => (false, words),
    };
    let [value, rest @ ..] = words else { return None };
    option(what, not, value.trim_matches('"')).map(|option| (option, rest))
}

/// One address, network or interface; sets, lists and patterns are none.
fn option(what: &str, not: bool, value: &str) -> Option<(String, String)> {
    let is_one = !value.is_empty() && !value.contains(|c: char| ",{}*@$".contains(c));
    is_one.then(|| ([if not { "not-" } else { "only-" }, what].concat(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(words: &[&str], is_ipv4: bool) -> Result<Vec<String>, String> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let options = read("conditionsV4", &words, is_ipv4).map_err(|failure| failure.msg)?;
        Ok(options.into_iter().map(|(key, value)| format!("{key} {value}")).collect())
    }

    #[test]
    fn both_languages_are_read() {
        let wanted = ["not-destination 192.0.2.0/24", "only-source 10.0.0.0/8", "only-input eth0"];
        assert_eq!(texts(&["!", "-d", "192.0.2.0/24", "-s", "10.0.0.0/8", "-i", "eth0"], true).unwrap(), wanted);
        let words = ["ip", "daddr", "!=", "192.0.2.0/24", "ip saddr 10.0.0.0/8", "iifname", "\"eth0\""];
        assert_eq!(texts(&words, true).unwrap(), wanted);
        assert_eq!(texts(&["ip6", "saddr", "fd00::/8"], false).unwrap(), ["only-source fd00::/8"]);
        assert!(texts(&[""], true).unwrap().is_empty());
    }

    #[test]
    fn what_can_t_be_looked_at_is_refused() {
        for words in [
            &["-m", "addrtype", "--dst-type", "LOCAL"][..],
            &["-d"],
            &["-i", "eth+"],
            &["-d", "192.0.2.1,192.0.2.2"],
            &["ip", "daddr", "{", "192.0.2.1", "}"],
            &["ip", "daddr", "@set"],
            &["ip6", "daddr", "fd00::1"],
            &["tcp", "sport", "80"],
        ] {
            let error = texts(words, true).unwrap_err();
            assert!(error.starts_with("conditionsV4: \"") && error.contains("is no condition"), "{error}");
        }
    }
}
