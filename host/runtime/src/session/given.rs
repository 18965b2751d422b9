//! The configuration that the running plugin was given. What stands in it is the operator's and the runtime's word; what a
//! plugin says beside it is its own.

use sandwire_cni::{NetworkConfig, go_json::Json};
use sandwire_kernel::{LinkInfo, Mac};
use sandwire_policy::matches_any;
use serde::Deserialize;
use serde_json::Value;
use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Given {
    text: String,
    /// Type of the address manager.
    ipam: Option<String>,
    /// Read when they are asked for: most calls have no use for them.
    wants: OnceCell<Wants>,
}

/// What nobody but the configuration can want.
#[derive(Debug, Default)]
struct Wants {
    force_address: bool,
    /// The bridge that it names.
    bridge: String,
    /// The link to ride on that it names.
    master: String,
    /// The link to take that it names.
    device: String,
    /// The same by its MAC.
    hwaddr: Option<Mac>,
    /// Hardware that it names: an address on a bus, a path of sysfs.
    hardware: Vec<String>,
    /// Options for DHCP servers: code, text, and the key of CNI_ARGS that may have it instead.
    provided: Vec<(u8, String, String)>,
    /// Protocol (IPPROTO_*), port of the node, the node's address or none for all of them.
    ports: Vec<(u8, u16, Option<IpAddr>)>,
}

/// The protocols that have ports, by the names that runtimes give them and by their numbers.
const PROTOCOLS: [(&str, u8); 3] = [("tcp", 6), ("udp", 17), ("sctp", 132)];

/// The options of DHCP that have names in a configuration (the reference's dhcp, `optionNameToID`). What the plugin says that they
/// are counts for nothing here.
const OPTIONS: [(&str, u8); 6] = [
    ("dhcp-client-identifier", 61),
    ("subnet-mask", 1),
    ("routers", 3),
    ("host-name", 12),
    ("user-class", 77),
    ("vendor-class-identifier", 60),
];

impl Wants {
    fn of(text: &str) -> Self {
        #[derive(Default, Deserialize)]
        #[serde(default, rename_all = "camelCase")]
        struct PortMapping {
            host_port: i64,
            protocol: String,
            #[serde(rename = "hostIP")]
            host_ip: String,
        }
        #[derive(Default, Deserialize)]
        #[serde(default, rename_all = "camelCase")]
        struct Provided {
            option: String,
            value: String,
            from_arg: String,
        }
        // What can't be read wants nothing, by itself; the plugin says what is wrong with it.
        let tree = Json::parse(text).unwrap_or(Json::Null);
        let force = tree.get("forceAddress").and_then(|value| value.clone().decode().ok());
        let text = |key: &str| match tree.get(key) {
            Some(Json::String(text)) => text.clone(),
            _ => String::new(),
        };
        let (bridge, master, device) = (text("bridge"), text("master"), text("device"));
        let hwaddr = text("hwaddr").parse().ok();
        let runtime = |key: &str| tree.get("runtimeConfig").and_then(|config| config.get(key));
        let mut hardware = vec![text("pciBusID"), text("kernelpath")];
        hardware.retain(|id| !id.is_empty());
        hardware.extend(match runtime("deviceID") {
            Some(Json::String(id)) => Some(id.clone()),
            _ => None,
        });
        let mappings = match runtime("portMappings") {
            Some(Json::Array(mappings)) => mappings.as_slice(),
            _ => &[],
        };
        let port = |mapping: &PortMapping| {
            let named = PROTOCOLS.iter().find(|(name, _)| mapping.protocol.eq_ignore_ascii_case(name));
            let address = mapping.host_ip.parse::<IpAddr>().ok().map(|address| address.to_canonical());
            Some((named?.1, u16::try_from(mapping.host_port).ok()?, address.filter(|ip| !ip.is_unspecified())))
        };
        let ports = mappings.iter().filter_map(|mapping| port(&mapping.clone().decode().ok()?)).collect();
        let provided = match tree.get("ipam").and_then(|ipam| ipam.get("provide")) {
            Some(Json::Array(provided)) => provided.as_slice(),
            _ => &[],
        };
        let code = |option: &str| {
            let named = OPTIONS.iter().find(|(name, _)| *name == option).map(|(_, code)| *code);
            named.or_else(|| option.parse().ok())
        };
        let provided = provided.iter().filter_map(|one| one.clone().decode::<Provided>().ok());
        let provided = provided.filter_map(|one| Some((code(&one.option)?, one.value, one.from_arg))).collect();
        let force_address = force.unwrap_or_default();
        Self { force_address, bridge, master, device, hwaddr, hardware, provided, ports }
    }
}

impl Given {
    /// What a plugin is called with.
    pub(crate) fn of(config: &NetworkConfig) -> Self {
        Self { text: config.without_prev_result(), ipam: config.ipam_type.clone(), wants: OnceCell::new() }
    }

    /// Whether it names this plugin as its address manager.
    pub(crate) fn has_ipam(&self, plugin: &str) -> bool {
        self.ipam.as_deref() == Some(plugin)
    }

    /// It, without prevResult.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Whether this is meant to be the same configuration, perhaps written otherwise.
    pub(crate) fn is(&self, text: &str) -> bool {
        let json = |text: &str| serde_json::from_str::<Value>(text).ok();
        self.text == text || json(&self.text).is_some_and(|own| json(text) == Some(own))
    }

    fn wants(&self) -> &Wants {
        self.wants.get_or_init(|| Wants::of(&self.text))
    }

    /// Whether it names this bridge; without a name it is the one that the reference's default is.
    pub(crate) fn has_bridge(&self, name: &str) -> bool {
        let named = self.wants().bridge.as_str();
        name == if named.is_empty() { "cni0" } else { named }
    }

    /// Whether it names this link of the node, as a bridge or as what to ride on.
    pub(crate) fn names(&self, link: &str) -> bool {
        [&self.wants().bridge, &self.wants().master].into_iter().any(|named| named == link)
    }

    /// Whether it names this link of the node as the one that the pod shall have.
    pub(crate) fn names_device(&self, link: &str) -> bool {
        self.wants().device == link
    }

    /// The same, by its name or its MAC.
    pub(crate) fn wants_link(&self, info: &LinkInfo) -> bool {
        self.names_device(&info.name) || self.wants().hwaddr.is_some_and(|mac| info.mac == Some(mac))
    }

    /// Whether what it names can have this name, as far as it says.
    pub(crate) fn wants_name(&self, link: &str) -> bool {
        let wants = self.wants();
        if wants.device.is_empty() { wants.hwaddr.is_some() } else { wants.device == link }
    }

    /// Whether it names hardware that these patterns list.
    pub(crate) fn names_hardware_of(&self, patterns: &[String]) -> bool {
        self.wants().hardware.iter().any(|id| matches_any(patterns, id))
    }

    /// The same of hardware, whose interface the pod shall have.
    pub(crate) fn names_hardware(&self, id: &str) -> bool {
        self.wants().hardware.iter().any(|named| named == id)
    }

    /// Whether it has DHCP servers told this, by itself or by the arguments of the call.
    pub(crate) fn provides_option(&self, code: u8, value: &[u8], args: &[(String, String)]) -> bool {
        let is_it = |(of, text, key): &(u8, String, String)| {
            let said = args.iter().filter(|(name, _)| name == key && !key.is_empty()).map(|(_, text)| text);
            *of == code && said.chain([text]).any(|text| text.as_bytes() == value)
        };
        self.wants().provided.iter().any(is_it)
    }

    /// Whether a foreign address of a bridge may be replaced.
    pub(crate) fn forces_address(&self) -> bool {
        self.wants().force_address
    }

    /// Whether the runtime wants this port of the node for the attachment; one without an address at any address.
    pub(crate) fn maps_port(&self, protocol: u8, host_ip: Option<IpAddr>, host_port: u16) -> bool {
        let is_it = |(of, port, address): &(u8, u16, Option<IpAddr>)| {
            (*of, *port) == (protocol, host_port) && (address.is_none() || *address == host_ip)
        };
        self.wants().ports.iter().any(is_it)
    }

    /// The ports of a protocol that it wants.
    pub(crate) fn ports(&self, protocol: u8) -> BTreeSet<u16> {
        self.wants().ports.iter().filter(|(of, ..)| *of == protocol).map(|(_, port, _)| *port).collect()
    }

    /// The same for a port whatever its address.
    pub(crate) fn has_port(&self, protocol: u8, host_port: u16) -> bool {
        self.wants().ports.iter().any(|(of, port, _)| (*of, *port) == (protocol, host_port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandwire_cni::Command;

    fn given(text: &str) -> Given {
        Given::of(&NetworkConfig::parse(text.as_bytes(), Command::Add).unwrap())
    }

    #[test]
    fn only_the_configuration_says_what_dhcp_servers_are_told() {
        let provide = r#"[{"option": "host-name", "value": "c"}, {"Option": "061", "value": "a", "fromArg": "ID"}, {"option": "dhcp-client-identifier", "value": "b"}]"#;
        let given =
            given(&format!(r#"{{"name": "n", "type": "dhcp", "ipam": {{"type": "dhcp", "PROVIDE": {provide}}}}}"#));
        let args = [("ID".to_owned(), "d".to_owned()), (String::new(), "e".to_owned())];
        for (code, text, is_it) in [
            (61, "a", true),
            (61, "b", true),
            (61, "c", false),
            (12, "c", true),
            (12, "a", false),
            (61, "d", true),
            (12, "d", false),
            (61, "e", false),
            (61, "", false),
        ] {
            assert_eq!(given.provides_option(code, text.as_bytes(), &args), is_it, "{code} {text}");
        }
        assert!(!given.provides_option(61, b"d", &[]));
    }

    #[test]
    fn a_configuration_is_the_same_however_it_is_written() {
        let given =
            given(r#"{"name": "n", "type": "bridge", "ipam": {"type": "host-local", "subnet": "10.1.0.0/24"}}"#);
        assert!(given.is(r#"{"type":"bridge","name":"n","ipam":{"subnet":"10.1.0.0/24","type":"host-local"}}"#));
        assert!(!given.is(r#"{"type":"bridge","name":"n","ipam":{"subnet":"8.8.8.0/24","type":"host-local"}}"#));
        assert!(!given.is(r#"{"type":"bridge","name":"n","ipam":{"subnet":"10.1.0.0/24","type":"host-local"},"x":1}"#));
        assert!(given.has_ipam("host-local") && !given.has_ipam("static"));
    }

    #[test]
    fn ports_are_the_runtimes() {
        let given = given(
            r#"{"name": "n", "type": "portmap", "RuntimeConfig": {"portMappings": [
                {"hostPort": 8080, "containerPort": 80, "protocol": "TCP"},
                {"hostPort": 53, "containerPort": 53, "protocol": "udp", "hostIP": "192.0.2.1"},
                {"hostPort": 54, "containerPort": 53, "protocol": "udp", "hostIP": "0.0.0.0"}]}}"#,
        );
        let address = Some("192.0.2.1".parse().unwrap());
        assert!(given.maps_port(6, None, 8080) && given.maps_port(6, address, 8080));
        assert!(given.maps_port(17, address, 53) && given.maps_port(17, None, 54));
        assert!(!given.maps_port(17, None, 53) && !given.maps_port(17, None, 8080) && !given.maps_port(6, None, 22));
        assert!(given.has_port(17, 53) && !given.has_port(6, 53));
        assert!(!given.forces_address());
    }

    #[test]
    fn what_it_takes_is_named_in_it() {
        let of = |keys: &str| given(&format!(r#"{{"name": "n", "type": "host-device", {keys}}}"#));
        let by_name = of(r#""Device": "eth7""#);
        assert!(by_name.names_device("eth7") && by_name.wants_name("eth7") && !by_name.wants_name("eth8"));
        let by_mac = of(r#""hwaddr": "02-00-00-00-07-00""#);
        assert!(by_mac.wants_name("eth8") && !by_mac.names_device("eth8"));
        let patterns = ["0000:03:*".to_owned()];
        for (keys, listed) in [
            (r#""pciBusID": "0000:03:00.0""#, true),
            (r#""pciBusID": "0000:04:00.0""#, false),
            (r#""runtimeConfig": {"deviceID": "0000:03:00.1"}"#, true),
            (r#""device": "eth7""#, false),
        ] {
            let given = of(keys);
            assert_eq!(given.names_hardware_of(&patterns), listed, "{keys}");
            assert!(!given.names_hardware("") && !given.names_hardware("0000:05:00.0"), "{keys}");
        }
    }
}
