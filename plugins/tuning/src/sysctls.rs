//! `sysctl`: keys, values, and the allowlist of the node.

use sandwire_plugin::host::{files, sysctl};
use sandwire_plugin::{Failure, HostError, Netns, OrFail, code};

/// Regular expressions, one a line. Without the file every key is allowed.
const ALLOWLIST: &str = "/etc/cni/tuning/allowlist.conf";

/// Whether the node's allowlist has all these keys, as they stand in the configuration.
pub(crate) fn allowed(sysctls: &[(String, String)]) -> Result<(), Failure> {
    if sysctls.is_empty() {
        return Ok(());
    }
    match files::read(ALLOWLIST) {
        Ok(text) => all_match(&text, sysctls.iter().map(|(key, _)| key.as_str())),
        Err(HostError::NotFound(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn all_match<'a>(allowlist: &str, keys: impl Iterator<Item = &'a str>) -> Result<(), Failure> {
    let lines: Vec<&str> = allowlist.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    for key in keys {
        let mut found = false;
        // As the reference, only as far as a match: a wrong expression after it is nobody's concern.
        for line in &lines {
            let expression = regex_lite::Regex::new(line).map_err(|error| {
                Failure::config(["error parsing regexp: ", &error.to_string(), ": `", line, "`"].concat())
                    .with_details([ALLOWLIST, " has one regular expression a line"].concat())
            })?;
            if expression.is_match(key) {
                found = true;
                break;
            }
        }
        if !found {
            return Err(Failure::internal(
                ["Sysctl ", key, " is not allowed. Only the following sysctls are allowed: [", &lines.join(" "), "]"]
                    .concat(),
            ));
        }
    }
    Ok(())
}

/// The key below /proc/sys/net that an entry names: dots are slashes, but not those of the interface's name in place of
/// `IFNAME`.
pub(crate) fn path(key: &str, ifname: &str) -> Result<String, Failure> {
    let key = key.replace('.', "/").replacen("IFNAME", ifname, 1);
    let mut segments = key.split('/').filter(|segment| !segment.is_empty());
    let below: Vec<&str> = match segments.next() {
        Some("net") => segments.collect(),
        _ => Vec::new(),
    };
    if below.is_empty() || below.iter().any(|segment| [".", ".."].contains(segment)) {
        return Err(Failure::config(format!("invalid net sysctl key: {key:?}")));
    }
    Ok(below.join("/"))
}

/// Writes one.
pub(crate) fn set(container: &Netns, ifname: &str, key: &str, value: &str) -> Result<(), Failure> {
    let path = path(key, ifname)?;
    let missing = |error| match error {
        HostError::NotFound(_) => {
            Failure::new(code::INTERNAL, ["open /proc/sys/net/", &path, ": no such file or directory"].concat())
        }
        error => Failure::from(error).context(&["write /proc/sys/net/", &path].concat()),
    };
    let value = plain(value);
    // Nothing written is nothing changed, as long as the key is there.
    if value.is_empty() {
        return sysctl::read(container, &path).map(drop).map_err(missing);
    }
    sysctl::write(container, &path, &value).map_err(missing)
}

/// The words of a value, as any of its separators has them to the kernel.
fn plain(value: &str) -> String {
    value.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}

/// Compares one with what is there.
pub(crate) fn check(container: &Netns, ifname: &str, key: &str, value: &str) -> Result<(), Failure> {
    let path = path(key, ifname)?;
    let present = sysctl::read(container, &path).or_fail(["open /proc/sys/net/", &path].concat())?;
    if value.trim().is_empty() || same(value, &present) {
        return Ok(());
    }
    Err(Failure::internal(
        ["Error: Tuning configured value of /proc/sys/net/", &path, " is ", value, ", current value is ", &present]
            .concat(),
    ))
}

/// Whether two texts are one value to the kernel: it separates by tabs what was written with blanks, and writes numbers
/// as decimal ones. (The reference compares the texts, and then complains of what it wrote itself.)
fn same(wanted: &str, present: &str) -> bool {
    let (mut wanted, mut present) = (wanted.split_ascii_whitespace(), present.split_ascii_whitespace());
    loop {
        match (wanted.next(), present.next()) {
            (None, None) => return true,
            (Some(a), Some(b)) if a == b || number(a).is_some_and(|a| number(b) == Some(a)) => {}
            _ => return false,
        }
    }
}

/// As `simple_strtoul` with base 0 (lib/vsprintf.c).
fn number(text: &str) -> Option<i64> {
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (radix, digits) = match (digits.strip_prefix("0x").or(digits.strip_prefix("0X")), digits.strip_prefix('0')) {
        (Some(hex), _) => (16, hex),
        (None, Some(octal)) if !octal.is_empty() => (8, octal),
        _ => (10, digits),
    };
    let number = i64::from_str_radix(digits, radix).ok()?;
    Some(if negative { -number } else { number })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stay_below_net() {
        for (key, wanted) in [
            ("net.ipv4.conf.IFNAME.arp_filter", Some("ipv4/conf/eth0.7/arp_filter")),
            ("net/ipv4/ip_forward", Some("ipv4/ip_forward")),
            ("/net//ipv4/ip_forward", Some("ipv4/ip_forward")),
            // Dots can't be "..": they are separators.
            ("net/../kernel/x", Some("kernel/x")),
            ("kernel.shmmax", None),
            ("net", None),
            ("net.", None),
            ("", None),
            ("netx.a", None),
        ] {
            assert_eq!(path(key, "eth0.7").ok().as_deref(), wanted, "{key}");
        }
        assert_eq!(path("kernel.shmmax", "eth0").unwrap_err().msg, "invalid net sysctl key: \"kernel/shmmax\"");
    }

    #[test]
    fn the_allowlist_has_expressions_that_match_anywhere() {
        let keys = ["net.ipv4.conf.IFNAME.arp_filter"];
        let answer = |list: &str| all_match(list, keys.into_iter()).map_err(|failure| failure.msg);
        assert_eq!(answer("^net.ipv4.conf.IFNAME.[a-z_]*$\n"), Ok(()));
        assert_eq!(answer("\n  arp_filter  \n[wrong"), Ok(()));
        assert_eq!(
            answer("^net.ipv6\\.\n\n^x$"),
            Err("Sysctl net.ipv4.conf.IFNAME.arp_filter is not allowed. Only the following sysctls are allowed: [^net.ipv6\\. ^x$]".into())
        );
        assert!(answer("[wrong").unwrap_err().starts_with("error parsing regexp: "));
        assert!(answer("").is_err());
        assert_eq!(all_match("", [].into_iter()), Ok(()));
    }

    #[test]
    fn one_value_in_two_texts() {
        for (wanted, present) in
            [("1", "1"), ("1024 65000", "1024\t65000"), ("0x10", "16"), ("010", "8"), ("-1", "-1"), ("0", "0")]
        {
            assert!(same(wanted, present), "{wanted} {present}");
        }
        for (wanted, present) in [("1", "0"), ("1 2", "1"), ("cubic", "reno"), ("", "1"), ("0x", "0")] {
            assert!(!same(wanted, present), "{wanted} {present}");
        }
    }
}
