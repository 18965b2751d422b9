use super::*;

const CONTRACT: Contract<'_> = Contract {
    grantable: &[
        "leases",
        "kv",
        "files",
        "endpoint",
        "log",
        "random",
        "host-netns",
        "container-netns",
        "shared",
        "links",
        "bridging",
        "devices",
        "addresses",
        "dhcp",
        "routes",
        "configure",
        "neighbours",
        "sysctl",
        "firewall",
        "shaping",
        "conntrack",
        "wait",
        "delegate",
    ],
    free: &["types", "namespaces"],
};
const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn parse(text: &str) -> Result<PolicyFile, Faults> {
    PolicyFile::parse(&text.replace("DIGEST", DIGEST), CONTRACT)
}

/// Line and a part of the text that an operator gets.
#[test]
fn mistakes_say_where_and_what_to_write() {
    let plugin = "version = 1\n[plugins.a]\ncomponent = \"DIGEST\"\n";
    let rows: [(&str, usize, &str); 41] = [
        ("", 1, "\"version\" is missing at the top"),
        ("version = 2\n", 1, "version 2 is not known to this release, which reads version 1"),
        ("version = 1\n[tenants]\n", 2, "[tenants] arrives with a later release"),
        ("version = 1\n[plugin.a]\n", 2, "unknown key \"plugin\" at the top; did you mean \"plugins\"?"),
        ("version = 1\n[plugins.a]\nimports = []\n", 2, "\"component\" is missing in [plugins.a]"),
        ("version = 1\nversion = 1\n", 2, "duplicate key \"version\" at the top"),
        ("{P}imports = \"links\"\n", 4, "imports: invalid type: string \"links\", expected a sequence in [plugins.a]"),
        ("{P}imports = [\n  \"links\",\n  1,\n]\n", 6, "imports: invalid type: integer `1`"),
        ("{P}limits = { handles = \"7\" }\n", 4, "handles: invalid type"),
        ("{P}imports = []\na$b = 1\n", 5, "invalid unquoted key, expected letters, numbers, `-`, `_`"),
        ("version = 1\n[plugins.a\n", 2, "unclosed table"),
        (
            "{P}link = {}\n",
            4,
            "unknown key \"link\" in [plugins.a]; did you mean \"links\"?; known are: component, imports",
        ),
        ("{P}wasi = \"yes\"\n", 4, "invalid type: string \"yes\", expected a boolean in [plugins.a]"),
        ("{P}\n\nimports = [\n  \"link\",\n]\n", 7, "no interface is named \"link\"; did you mean \"links\"?"),
        ("{P}imports = [\"types\"]\n", 4, "\"types\" grants nothing and needs no grant"),
        (
            "{P}imports = [\"devices\"]\ndevices = [\"net/eth0\"]\n",
            5,
            "\"net/eth0\" can't be a device: write an address such as",
        ),
        (
            "{P}imports = [\"links\"]\ndevices = [\"*\"]\n",
            5,
            "devices has no effect in [plugins.a] without \"devices\"",
        ),
        ("{P}imports = [\"wasi:cli/stdout\"]\n", 4, "write  wasi = true  under [plugins.a]"),
        (
            "{P}sysctls = [\"ipv4/ip_forward\"]\n",
            4,
            "sysctls has no effect in [plugins.a] without \"sysctl\" or \"shared\" in its imports",
        ),
        ("{P}tap = true\n", 4, "tap has no effect in [plugins.a] without \"links\" in its imports"),
        ("{P}endpoints = []\n", 4, "endpoints has no effect in [plugins.a] without \"endpoint\""),
        (
            "{P}imports = [\"endpoint\"]\nendpoints = [\"bagpip\"]\n[endpoints.bagpipe]\naddress = \"http://127.0.0.1:1\"\nallow = [\"GET /\"]\n",
            5,
            "no [endpoints.bagpip] in this file; did you mean \"bagpipe\"?",
        ),
        ("{P}imports = [\"delegate\"]\nnative_delegates = [\"*\"]\n", 5, "delegates is missing"),
        ("{P}imports = [\"delegate\"]\ndelegates = [\"/bin/sh\"]\n", 5, "\"/bin/sh\" can't be a plugin type"),
        ("{P}imports = [\"shared\"]\nlinks = { change = [\"a/b\"] }\n", 5, "\"a/b\" can't be a link name"),
        ("{P}imports = [\"shared\"]\nlinks = { change = [\"0123456789abcdef*\"] }\n", 5, "at most 15 bytes"),
        ("{P}imports = [\"shared\"]\nlinks = { chang = [] }\n", 5, "unknown key \"chang\""),
        (
            "{P}imports = [\"sysctl\"]\nsysctls = [\"net.ipv4.ip_forward\"]\n",
            5,
            "write what stands after /proc/sys/net/",
        ),
        ("{P}imports = [\"sysctl\"]\nsysctls = [\"ipv4.ip_forward\"]\n", 5, "write it with slashes"),
        ("{P}imports = [\"sysctl\"]\nsysctls = [\"ipv4/../../kernel/x\"]\n", 5, "\"..\" segment"),
        (
            "{P}imports = [\"leases\"]\ndata_dirs = [\"run\"]\n",
            5,
            "\"run\" can't be a directory: it must be an absolute path",
        ),
        ("{P}imports = [\"files\"]\nfiles = [\"/etc/*\"]\n", 5, "a file is named whole"),
        ("{P}imports = [\"files\"]\nfiles = { x = \"/etc/../root\" }\n", 5, "\"/etc/../root\" can't be a file"),
        ("{P}limits = { memory_mib = 0 }\n", 4, "memory_mib = 0 is out of range: from 1 to 4096"),
        ("version = 1\n[limits]\ndeadline_ms = 5\n", 3, "deadline_ms = 5 is out of range: from 100 to 600000"),
        ("version = 1\n[plugins.a]\ncomponent = \"sha256:12\"\n", 3, "\"sha256:12\" is no digest"),
        ("version = 1\n[plugins.\"a/b\"]\ncomponent = \"DIGEST\"\n", 2, "\"a/b\" can't name a plugin"),
        ("version = 1\n[plugins.sandwire]\ncomponent = \"DIGEST\"\n", 2, "it is the host program itself"),
        (
            "version = 1\n[endpoints.x]\naddress = \"http://localhost:8082\"\nallow = [\"GET /\"]\n",
            3,
            "\"http://localhost:8082\" is no agent's address",
        ),
        ("version = 1\n[endpoints.x]\naddress = \"unix:run/x\"\nallow = []\n", 3, "an absolute path"),
        (
            "version = 1\n[endpoints.x]\naddress = \"unix:/run/x\"\nallow = [\"GET /a*b\", \"FETCH /\"]\n",
            4,
            "\"GET /a*b\" is no call",
        ),
    ];
    for (text, line, wanted) in rows {
        let text = text.replace("{P}", plugin);
        let Err(faults) = parse(&text) else { panic!("accepted:\n{text}") };
        let first = &faults.0[0];
        assert!(first.text.contains(wanted), "\n{text}\nwanted: {wanted}\nsaid:   {}", first.text);
        assert_eq!(first.line, line, "\n{text}\n{}", first.text);
        assert!(faults.to_string().starts_with(&format!("/etc/sandwire/policy.toml:{line}: ")), "{faults}");
    }
}

#[test]
fn every_mistake_is_told_at_once_in_the_order_of_lines() {
    let Err(faults) = parse(
        "version = 1\n[plugins.a]\ncomponent = \"x\"\nimports = [\"nope\"]\n[endpoints.e]\naddress = \"y\"\nallow = [\"z\"]\n",
    ) else {
        panic!("accepted")
    };
    assert_eq!(faults.0.iter().map(|fault| fault.line).collect::<Vec<_>>(), [3, 4, 6, 7]);
}

fn shipped() -> String {
    SHIPPED.iter().fold(HEAD.to_owned(), |text, plugin| text + &entry(plugin, DIGEST).unwrap())
}

#[test]
fn the_default_policy_is_one_and_keeps_plugins_to_their_purpose() {
    let policy = parse(&shipped()).unwrap();
    assert_eq!(policy.plugins().collect::<Vec<_>>(), SHIPPED);
    let grant = |plugin| policy.compile(plugin, "48.0.8", "x86_64-linux").unwrap();
    assert!(grant("host-local").imports.iter().all(|import| ["leases", "files", "log"].contains(&import.as_str())));
    assert!(!grant("loopback").imports.contains("host-netns"));
    assert!(grant("static").imports.is_empty());
    assert!(grant("dhcp").imports.iter().eq(["dhcp"]));
    assert!(SHIPPED.iter().all(|plugin| !grant(plugin).wasi));
    let bagpipe = grant("bagpipe");
    assert_eq!(bagpipe.endpoints["bagpipe"].address, "http://127.0.0.1:8082");
    assert_eq!(bagpipe.endpoints["bagpipe"].timeout_ms, 10_000);
    assert_eq!(bagpipe.compiled, "bagpipe-0123456789ab-48.0.8-x86_64-linux.cwasm");
    assert_eq!(bagpipe.limits, crate::Limits::default());
}

#[test]
fn limits_come_from_the_plugin_then_the_file_then_the_release() {
    let policy = parse(
        "version = 1\n[limits]\nmemory_mib = 32\nhandles = 7\n[plugins.a]\ncomponent = \"DIGEST\"\nlimits = { memory_mib = 128 }\n[plugins.b]\ncomponent = \"DIGEST\"\n",
    )
    .unwrap();
    let limits = |plugin| policy.compile(plugin, "1", "x").unwrap().limits;
    assert_eq!((limits("a").memory_bytes, limits("a").handles), (128 << 20, 7));
    assert_eq!((limits("b").memory_bytes, limits("b").deadline_ms), (32 << 20, 30_000));
}

#[test]
fn a_new_digest_changes_nothing_else_of_the_file() {
    let text = shipped();
    let other = DIGEST.replace("0123", "4567");
    let policy = parse(&text).unwrap();
    let changed = policy.with_digests(&text, &BTreeMap::from([("bridge".to_owned(), other.clone())]));
    assert_eq!(parse(&changed).unwrap().digest("bridge"), Some(other.as_str()));
    assert_eq!(parse(&changed).unwrap().digest("loopback"), Some(DIGEST));
    assert_eq!(changed.replace(&other, DIGEST), text);
}

#[test]
fn both_forms_of_files() {
    for (written, name) in [("[\"/etc/resolv.conf\"]", "/etc/resolv.conf"), ("{ dns = \"/etc/resolv.conf\" }", "dns")] {
        let text =
            format!("version = 1\n[plugins.a]\ncomponent = \"DIGEST\"\nimports = [\"files\"]\nfiles = {written}\n");
        let files = parse(&text).unwrap().compile("a", "1", "x").unwrap().files;
        assert_eq!(files.get(name).map(String::as_str), Some("/etc/resolv.conf"), "{written}");
    }
}
