//! Our words against the reference's: Debian's plugins say what they say, we must say the same, byte for byte.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use sandwire_cni::{CniResult, Environment, Family, Invocation, Result, Version, version_answer};
use serde_json::{Map, Value};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// Address manager without state or system calls: what it prints is the Go library's alone.
const REFERENCE: &str = "/usr/lib/cni/static";

/// What Debian 12's plugins (1.1.1) support.
const SUPPORTED: &[Version] =
    &[Version::V010, Version::V020, Version::V030, Version::V031, Version::V040, Version::V100];

const ADD: &[(&str, &str)] = &[
    ("CNI_COMMAND", "ADD"),
    ("CNI_CONTAINERID", "c1"),
    ("CNI_NETNS", "/run/netns/none"),
    ("CNI_IFNAME", "eth0"),
    ("CNI_PATH", "/usr/lib/cni"),
];

/// Stdout, and whether it succeeded.
fn theirs(env: &[(&str, &str)], stdin: &str) -> (String, bool) {
    assert!(
        Path::new(REFERENCE).exists(),
        "{REFERENCE} is missing; to run this test: apt-get install containernetworking-plugins"
    );
    let mut child = Command::new(REFERENCE)
        .env_clear()
        .envs(env.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // It may exit without reading.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    let output = child.wait_with_output().unwrap();
    (String::from_utf8(output.stdout).unwrap(), output.status.success())
}

fn ours(env: &[(&str, &str)], stdin: &str) -> Result<Option<Invocation>> {
    let get = |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
    let Some(env) = Environment::read(get)? else { return Ok(None) };
    Invocation::read_for(env, stdin.as_bytes(), SUPPORTED).map(Some)
}

/// `ADD` with some variables changed; "" unsets.
fn with<'a>(changes: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let kept = ADD.iter().filter(|(key, _)| !changes.iter().any(|(changed, _)| changed == key));
    kept.chain(changes).copied().filter(|(_, value)| !value.is_empty()).collect()
}

#[track_caller]
fn assert_refused_alike(env: &[(&str, &str)], stdin: &str) {
    let (theirs, success) = theirs(env, stdin);
    assert!(!success, "the reference accepts {env:?} {stdin:?}: {theirs}");
    let ours = ours(env, stdin).unwrap_err().to_json();
    assert_eq!(ours, theirs, "{env:?} {stdin:?}");
}

#[test]
fn environments() {
    let config = r#"{"cniVersion":"1.0.0","name":"n","type":"static"}"#;
    for changes in [
        &[("CNI_CONTAINERID", ""), ("CNI_NETNS", ""), ("CNI_IFNAME", ""), ("CNI_PATH", "")][..],
        &[("CNI_CONTAINERID", "")],
        &[("CNI_NETNS", "")],
        &[("CNI_IFNAME", ""), ("CNI_PATH", "")],
        &[("CNI_COMMAND", "DEL"), ("CNI_NETNS", ""), ("CNI_IFNAME", "")],
        &[("CNI_COMMAND", "CHECK"), ("CNI_NETNS", ""), ("CNI_PATH", "")],
        &[("CNI_CONTAINERID", "a/b")],
        &[("CNI_CONTAINERID", "-a")],
        &[("CNI_CONTAINERID", "a\"<b>\n")],
        &[("CNI_IFNAME", "1234567890123456")],
        &[("CNI_IFNAME", ".")],
        &[("CNI_IFNAME", "..")],
        &[("CNI_IFNAME", "a/b")],
        &[("CNI_IFNAME", "a:b")],
        &[("CNI_IFNAME", "a\u{2003}b")],
    ] {
        assert_refused_alike(&with(changes), config);
    }
    // Run by hand: no error, nothing on stdout.
    assert_eq!(theirs(&[], config), (String::new(), true));
    assert_eq!(ours(&[], config).unwrap(), None);
}

#[test]
fn configurations() {
    for config in [
        "",
        "x",
        "[1]",
        "\"x\"",
        "1",
        "null",
        "{}",
        "{\"name\":\"\"}",
        "{\"name\":1}",
        "{\"name\":{}}",
        "{\"name\":\"a/b\"}",
        "{\"name\":\"a<b\"}",
        "{\"NAME\":\"-\"}",
        "{\"name\":\"n\",\"cniVersion\":1}",
        "{\"name\":\"n\",\"cniVersion\":\"9.9.9\"}",
        "{\"name\":\"n\",\"cniVersion\":\"1.0\"}",
        "{\"name\":\"n\",\"CNIVERSION\":\"v1\\n\\\"\\u0001é\"}",
        "{\"name\":\"n\",\"cniVersion\":\"1.0.0\",\"cniversion\":\"7\"}",
        "{\"name\":\"n\"} x",
        "{\"name\":\"n\"}}",
        "{\"name\":\"n\",}",
        "{name:\"n\"}",
        "{\"name\" \"n\"}",
        "{\"name\":\"n\" \"a\"}",
        "{\"name\":'n'}",
        "{\"name\":\"n",
        "{\"name\":\"n\\x\"}",
        "{\"name\":\"n\\u12x\"}",
        "{\"name\":\"a\nb\"}",
        "{\"name\":nul}",
        "{\"name\":trve}",
        "{\"name\":falsy}",
        "{\"name\":01}",
        "{\"name\":-}",
        "{\"name\":1.}",
        "{\"name\":1.e}",
        "{\"name\":1ex}",
        "{\"name\":[1 2]}",
        "{\"name\":[1,]}",
        "\u{feff}{}",
        &"[".repeat(20_000),
    ] {
        assert_refused_alike(ADD, config);
    }
}

#[test]
fn versions_of_check() {
    let check = with(&[("CNI_COMMAND", "CHECK")]);
    for version in ["", "0.1.0", "0.3.1", "9.9.9", "x", "1.x", "1.2.3.4"] {
        assert_refused_alike(&check, &format!("{{\"name\":\"n\",\"cniVersion\":\"{version}\"}}"));
    }
}

#[test]
fn prev_results() {
    let check = with(&[("CNI_COMMAND", "CHECK")]);
    let ipam = r#"{"type":"static","addresses":[{"address":"10.0.0.5/24"}]}"#;
    for prev in [r#"{"cniVersion":"1.0.0"}"#, r#"{"cniVersion":"0.2.0"}"#, r#"{"ips":[{"address":"10.0.0.300/24"}]}"#] {
        let config = format!(r#"{{"name":"n","cniVersion":"0.4.0","ipam":{ipam},"prevResult":{prev}}}"#);
        let (theirs, success) = theirs(&check, &config);
        assert!(!success);
        let ours = ours(&check, &config).unwrap().unwrap().config.prev_result().unwrap_err();
        // Codes differ: the reference has 999 for whatever a plugin returns.
        assert!(theirs.contains(&serde_json::to_string(&ours.msg).unwrap()), "{} is not in {theirs}", ours.msg);
    }
}

#[test]
fn version_answers() {
    let (theirs, success) = theirs(&[("CNI_COMMAND", "VERSION")], "");
    assert!(success);
    // The newest version is a newer one today.
    assert_eq!(version_answer(SUPPORTED), theirs.replacen("\"1.0.0\"", "\"1.1.0\"", 1));
}

#[test]
fn results_of_all_versions() {
    let routes = r#"[{"dst":"0.0.0.0/0"},{"dst":"10.9.0.0/16","gw":"10.0.0.9"},{"dst":"::/0"}]"#;
    let dns = r#"{"nameservers":["10.0.0.2"],"domain":"<d>","search":["a&b"],"options":["x"]}"#;
    let v4 = r#"{"address":"10.0.0.5/24","gateway":"10.0.0.1"}"#;
    let v6 = r#"{"address":"FD00::5/64","gateway":"fd00::1"}"#;
    let more = r#"{"address":"10.1.0.5/16"}"#;
    for (addresses, rest, versions) in [
        (v4.to_owned(), String::new(), SUPPORTED),
        (v6.to_owned(), format!(r#","routes":{routes}"#), SUPPORTED),
        (format!("{v4},{v6}"), format!(r#","routes":{routes},"dns":{dns}"#), SUPPORTED),
        // 0.1.0 and 0.2.0 can't say this; the plugin itself refuses.
        (format!("{v4},{v6},{more}"), format!(r#","routes":{routes},"dns":{dns}"#), &SUPPORTED[2..]),
    ] {
        let print = |version: Version| {
            let ipam = format!(r#"{{"type":"static","addresses":[{addresses}]{rest}}}"#);
            let (text, success) =
                theirs(ADD, &format!(r#"{{"name":"n","type":"static","cniVersion":"{version}","ipam":{ipam}}}"#));
            assert!(success, "{text}");
            text
        };
        let result = CniResult::parse(&print(Version::V100), Version::V010).unwrap();
        for version in versions.iter().copied() {
            let theirs = print(version);
            let ours = result.to_json(version).unwrap();
            if version.family() == Family::V1x {
                // Debian's library writes 1.0.0 in the order of 0.4.0 and with an empty `dns`; later ones as we do.
                let mut theirs: Value = serde_json::from_str(&theirs).unwrap();
                if theirs["dns"] == Value::Object(Map::new()) {
                    theirs.as_object_mut().unwrap().remove("dns");
                }
                assert_eq!(serde_json::from_str::<Value>(&ours).unwrap(), theirs);
            } else {
                assert_eq!(ours, theirs);
            }
            assert_eq!(CniResult::parse(&theirs, version).unwrap().to_json(version).unwrap(), ours);
        }
    }
}
