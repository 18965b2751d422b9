use super::*;
use crate::{Environment, Interface, Invocation};
use proptest::prelude::*;

fn add(text: &str) -> Result<NetworkConfig> {
    NetworkConfig::parse(text.as_bytes(), Command::Add)
}

#[test]
fn the_article_of_2016() {
    let text = r#"{"name": "mynet", "type": "bagpipe", "importrt": "64512:90", "mtu": "1500", "isGateway": false,
        "ipam": {"type": "host-local", "subnet": "10.1.2.0/24", "routes": [{"dst": "0.0.0.0/0"}]}}"#;
    let config = add(text).unwrap();
    assert_eq!((config.name.as_str(), config.version), ("mynet", Version::V010));
    assert_eq!((config.plugin_type.as_str(), config.ipam_type.as_deref()), ("bagpipe", Some("host-local")));
    assert_eq!(config.text(), text);
    assert_eq!(config.without_prev_result(), text);
    assert_eq!(config.prev_result().unwrap(), None);
    assert_eq!(config.valid_attachments().unwrap(), None);
}

#[test]
fn refused_as_by_the_reference() {
    use Command::{Add, Check, Del, Gc, Status};
    let table = [
        (Add, "", 6, "error unmarshall network config: unexpected end of JSON input"),
        (Add, "{\"name\":\"n\"} x", 6, "error unmarshall network config: invalid character 'x' after top-level value"),
        (
            Add,
            "[1]",
            6,
            "error unmarshall network config: json: cannot unmarshal array into Go value of type struct { Name string \"json:\\\"name\\\"\" }",
        ),
        (
            Add,
            r#"{"name":1}"#,
            6,
            "error unmarshall network config: json: cannot unmarshal number into Go struct field .name of type string",
        ),
        (Add, "null", 7, "missing network name"),
        (Add, "{}", 7, "missing network name"),
        (Add, r#"{"name":"a/b"}"#, 7, "invalid characters found in network name; a/b"),
        (
            Add,
            r#"{"name":"n","cniVersion":1}"#,
            6,
            "decoding version from network config: json: cannot unmarshal number into Go struct field .cniVersion of type string",
        ),
        (
            Add,
            r#"{"name":"n","type":["x"]}"#,
            6,
            "error unmarshall network config: json: cannot unmarshal array into Go struct field NetConf.type of type string",
        ),
        (
            Del,
            r#"{"name":"n","cniVersion":"9.9.9"}"#,
            1,
            r#"incompatible CNI versions; config is "9.9.9", plugin supports ["0.1.0" "0.2.0" "0.3.0" "0.3.1" "0.4.0" "1.0.0" "1.1.0"]"#,
        ),
        (Check, r#"{"name":"n"}"#, 1, "config version does not allow CHECK"),
        (Check, r#"{"name":"n","cniVersion":"0.3.1"}"#, 1, "config version does not allow CHECK"),
        (Check, r#"{"name":"n","cniVersion":"9.9.9"}"#, 1, "plugin version does not allow CHECK"),
        (Gc, r#"{"name":"n","cniVersion":"1.0.0"}"#, 1, "config version does not allow GC"),
        (Status, r#"{"name":"n","cniVersion":"0.4.0"}"#, 1, "config version does not allow STATUS"),
        (
            Status,
            r#"{"name":"n","cniVersion":"x"}"#,
            6,
            r#"failed to convert major version part "x": strconv.Atoi: parsing "x": invalid syntax"#,
        ),
        // The name comes first.
        (Gc, r#"{"cniVersion":"1.0.0"}"#, 7, "missing network name"),
    ];
    for (command, text, code, message) in table {
        let error = NetworkConfig::parse(text.as_bytes(), command).unwrap_err();
        assert_eq!((error.code, error.to_string().as_str()), (code, message), "{command} {text}");
    }
    let text = br#"{"name":"n","cniVersion":"0.3.1"}"#;
    let error = NetworkConfig::parse_for(text, Command::Add, &[Version::V040]).unwrap_err();
    assert_eq!(error.details, r#"config is "0.3.1", plugin supports ["0.4.0"]"#);
    let error = NetworkConfig::parse(&b"[".repeat(10 << 20), Command::Add).unwrap_err();
    assert_eq!(
        (error.code, error.msg.as_str()),
        (6, "error unmarshall network config: invalid character '[' exceeded max depth")
    );
}

#[test]
fn keys_in_any_case() {
    let config = add(r#"{"NAME":"n","CNIversion":"1.0.0","Type":"t","IPAM":{"Type":"i"},"prevresult":{}}"#).unwrap();
    assert_eq!((config.name.as_str(), config.version, config.plugin_type.as_str()), ("n", Version::V100, "t"));
    assert_eq!(config.ipam_type.as_deref(), Some("i"));
    assert!(config.prev_result().unwrap().is_some());
    let text = config.without_prev_result();
    assert_eq!(text, r#"{"NAME":"n","CNIversion":"1.0.0","Type":"t","IPAM":{"Type":"i"}}"#);
}

#[test]
fn prev_result_is_cut_out_and_nothing_else() {
    let text = r#"{ "name":"n", "cniVersion":"1.0.0", "x": {"prevResult": 1.50e3, "a":1,"a":2}, "prevResult": {"ips":[]},
        "big": 123456789012345678901234567890, "k\"ey": "\u003c", "PrevResult": null }"#;
    assert_eq!(
        add(text).unwrap().without_prev_result(),
        r#"{"name":"n","cniVersion":"1.0.0","x":{"prevResult": 1.50e3, "a":1,"a":2},"big":123456789012345678901234567890,"k\"ey":"\u003c"}"#
    );
}

#[test]
fn prev_result_of_the_same_family_only() {
    let prev = |version: &str, prev: &str| {
        add(&format!(r#"{{"name":"n","cniVersion":"{version}","prevResult":{prev}}}"#)).unwrap().prev_result()
    };
    let refused = |version, text| prev(version, text).unwrap_err().to_string();
    assert_eq!(prev("1.1.0", "null").unwrap(), None);
    for (version, declared) in
        [("1.1.0", "1.0.0"), ("1.0.0", "1.1.0"), ("0.3.1", "0.4.0"), ("0.1.0", "0.2.0"), ("0.4.0", "")]
    {
        assert!(prev(version, &format!(r#"{{"cniVersion":"{declared}"}}"#)).unwrap().is_some());
    }
    let message = |list: &str, version: &str| {
        format!("could not parse prevResult: result type supports {list} but unmarshalled CNIVersion is \"{version}\"")
    };
    assert_eq!(refused("1.1.0", r#"{"cniVersion":"0.4.0"}"#), message("[1.0.0 1.1.0]", "0.4.0"));
    assert_eq!(refused("0.4.0", r#"{"CNIVersion":"1.0.0"}"#), message("[0.3.0 0.3.1 0.4.0]", "1.0.0"));
    assert_eq!(refused("0.2.0", r#"{"cniVersion":"9.9.9"}"#), message("[ 0.1.0 0.2.0]", "9.9.9"));
    assert_eq!(
        refused("1.1.0", r#""x""#),
        "could not parse prevResult: json: cannot unmarshal string into Go value of type types100.Result"
    );

    // In the newest shape, whatever it was.
    let result = prev("0.2.0", r#"{"ip4":{"ip":"10.0.0.5/24"}}"#).unwrap().unwrap();
    assert_eq!(result.addresses().map(|net| net.to_string()).collect::<Vec<_>>(), ["10.0.0.5/24"]);
    let result = prev("0.4.0", r#"{"interfaces":[{"name":"eth0"}]}"#).unwrap().unwrap();
    assert_eq!(result.interfaces, [Interface::new("eth0")]);

    let missing = add(r#"{"name":"n"}"#).unwrap().required_prev_result().unwrap_err();
    assert_eq!((missing.code, missing.msg.as_str()), (7, "required prevResult missing"));
}

#[test]
fn attachments_to_keep() {
    let valid = |rest: &str| {
        NetworkConfig::parse(format!(r#"{{"name":"n","cniVersion":"1.1.0"{rest}}}"#).as_bytes(), Command::Gc)
            .unwrap()
            .valid_attachments()
    };
    let kept = Attachment { container_id: "c1".to_owned(), ifname: "eth0".to_owned() };
    assert_eq!(valid("").unwrap(), None);
    assert_eq!(valid(r#","cni.dev/valid-attachments":null"#).unwrap(), Some(vec![]));
    assert_eq!(valid(r#","cni.dev/attachments":[]"#).unwrap(), Some(vec![]));
    assert_eq!(
        valid(r#","cni.dev/attachments":[{"containerID":"c1","ifname":"eth0"}]"#).unwrap(),
        Some(vec![kept.clone()])
    );
    assert_eq!(
        valid(r#","cni.dev/attachments":[],"cni.dev/valid-attachments":[{"containerid":"c1","IfName":"eth0"}]"#)
            .unwrap(),
        Some(vec![kept])
    );
    let error = valid(r#","cni.dev/valid-attachments":[{"containerID":1}]"#).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cni.dev/valid-attachments: json: cannot unmarshal number into Go struct field GCAttachment.containerID of type string"
    );
    valid(r#","cni.dev/valid-attachments":"all""#).unwrap_err();
}

#[test]
fn an_invocation() {
    let read = |command: &str| {
        Environment::read(|name| {
            let value = match name {
                "CNI_COMMAND" => command,
                "CNI_CONTAINERID" => "c1",
                "CNI_IFNAME" => "eth0",
                "CNI_NETNS" => "/run/netns/x",
                "CNI_PATH" => "/a:/b",
                "CNI_ARGS" => "IP=10.0.0.1",
                _ => return None,
            };
            Some(value.to_owned())
        })
        .unwrap()
        .unwrap()
    };
    let stdin = br#"{"name":"n","cniVersion":"1.1.0","type":"bridge"}"#;
    let add = Invocation::read(read("ADD"), stdin).unwrap();
    assert_eq!((add.command, add.container_id.as_str(), add.ifname.as_str()), (Command::Add, "c1", "eth0"));
    assert_eq!((add.netns.as_deref(), add.netns_override), (Some("/run/netns/x"), false));
    assert_eq!(add.path, ["/a", "/b"]);
    assert_eq!(crate::args::load(&add.args, ["IP"]).unwrap(), [Some("10.0.0.1")]);
    assert_eq!(add.config.name, "n");
    // GC is about a network: an id that a caller left in the environment means nothing.
    let gc = Invocation::read(read("GC"), stdin).unwrap();
    assert_eq!((gc.container_id.as_str(), gc.ifname.as_str()), ("", ""));
    assert_eq!(Invocation::read(read("ADD"), b"").unwrap_err().code, 6);
    assert_eq!(Invocation::read(read("VERSION"), stdin).unwrap_err().code, 999);
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = NetworkConfig::parse(&bytes, Command::Add);
    }

    #[test]
    fn any_values_are_read_or_refused(
        values in prop::array::uniform6(prop::sample::select(&[
            "null", "1", "1.5", "true", "[]", "{}", "[null]", "\"\"", "\"x\"", "\"1.1.0\"", "{\"type\":1}", "{\"type\":\"t\"}",
            "{\"cniVersion\":\"0.1.0\"}", "{\"cniVersion\":null,\"ips\":[{}]}", "[{\"containerID\":\"a\"}]",
        ][..])),
        command in prop::sample::select(&[Command::Add, Command::Del, Command::Check, Command::Gc, Command::Status][..]),
    ) {
        let keys = ["name", "cniVersion", "type", "ipam", "prevResult", "cni.dev/valid-attachments"];
        let members: Vec<String> = keys.iter().zip(&values).map(|(key, value)| format!("\"{key}\":{value}")).collect();
        if let Ok(config) = NetworkConfig::parse(format!("{{{}}}", members.join(",")).as_bytes(), command) {
            let _ = config.prev_result();
            let _ = config.valid_attachments();
            let again = NetworkConfig::parse(config.without_prev_result().as_bytes(), command).unwrap();
            prop_assert_eq!(again.prev_result().unwrap(), None);
            prop_assert_eq!((again.name, again.version), (config.name, config.version));
        }
    }
}
