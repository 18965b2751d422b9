//! resolv.conf(5), as the reference reads it.

use sandwire_plugin::Dns;

/// What it says. Lines that are comments, that are unknown, or that have no value say nothing; the last `domain` counts.
pub(crate) fn parse(text: &str) -> Dns {
    let mut dns = Dns::default();
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        let mut words = line.split_whitespace();
        let (Some(key), Some(first)) = (words.next(), words.next()) else { continue };
        let values = std::iter::once(first).chain(words).map(str::to_owned);
        match key {
            "nameserver" => dns.nameservers.push(first.to_owned()),
            "domain" => dns.domain = first.to_owned(),
            "search" => dns.search.extend(values),
            "options" => dns.options.extend(values),
            _ => {}
        }
    }
    dns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_line() {
        let dns = parse(
            "# comment\n; comment\n\n nameserver 192.0.2.1 # not a server\nnameserver 2001:db8::1\nnameserver\n\
             domain one.example\ndomain two.example three.example\nsearch a.example b.example\nsearch c.example\n\
             options ndots:5 edns0\nsortlist 1.2.3.4\n",
        );
        assert_eq!(dns.nameservers, ["192.0.2.1", "2001:db8::1"]);
        assert_eq!(dns.domain, "two.example");
        assert_eq!(dns.search, ["a.example", "b.example", "c.example"]);
        assert_eq!(dns.options, ["ndots:5", "edns0"]);
        assert!(parse("").is_empty());
    }
}
