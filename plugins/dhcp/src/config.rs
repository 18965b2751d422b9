//! The configuration: what the server is told, and what it is asked for.

use crate::options::{self, PARAMETER_REQUEST_LIST, ROUTERS, SUBNET_MASK};
use sandwire_plugin::Failure;
use sandwire_plugin::host::dhcp::Setting;
use serde::Deserialize;

/// What the reference's library asks for when nobody says anything else: subnet mask, routers, domain name, its servers
/// (insomniacslk/dhcp, dhcpv4.NewDiscovery).
const ASKED_BY_LIBRARY: [u8; 4] = [SUBNET_MASK, ROUTERS, 15, 6];

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename = "NetConf")]
struct Network {
    ipam: Option<Ipam>,
}

/// `daemonSocketPath` too may be there; there is no daemon.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename = "IPAMConfig")]
struct Ipam {
    provide: Vec<Provide>,
    request: Vec<Request>,
    priority: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", rename = "ProvideOption")]
struct Provide {
    option: String,
    value: String,
    from_arg: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", rename = "RequestOption")]
struct Request {
    skip_default: bool,
    option: String,
}

/// The configuration of a call, checked.
#[derive(Debug)]
pub(crate) struct Config {
    /// Each code once.
    pub(crate) send: Vec<Setting>,
    /// Each once.
    pub(crate) ask: Vec<u8>,
    /// Of all routes.
    pub(crate) priority: Option<u32>,
}

impl Config {
    /// `args` are the pairs of CNI_ARGS; those that no option takes its value from are somebody else's.
    ///
    /// # Errors
    /// The reference's texts (dhcp/lease.go, prepareOptions).
    pub(crate) fn load(text: &str, args: &[(String, String)]) -> Result<Self, Failure> {
        let network: Network = sandwire_plugin::parse(text)?;
        let Some(ipam) = network.ipam else { return Err(Failure::config("IPAM config missing 'ipam' key")) };
        let mut send = send(&ipam.provide, args)?;
        let mut ask = ask(&ipam.request)?;
        // The list is an option too: what is provided as one counts where nothing is requested.
        let provided = send.extract_if(.., |setting| setting.code == PARAMETER_REQUEST_LIST).next();
        if ask.is_empty() {
            ask = provided.map_or_else(|| ASKED_BY_LIBRARY.to_vec(), |list| list.value);
        }
        let priority = u32::try_from(ipam.priority).map_err(|_| {
            Failure::config(format!("\"priority\" is {}; a route's is 0 (the kernel's) to {}", ipam.priority, u32::MAX))
        })?;
        Ok(Self { send, ask, priority: Some(priority).filter(|priority| *priority != 0) })
    }
}

fn send(provide: &[Provide], args: &[(String, String)]) -> Result<Vec<Setting>, Failure> {
    let mut settings: Vec<Setting> = Vec::new();
    for Provide { option, value, from_arg } in provide {
        let code = code(option)?;
        let too_long = |from: &str, value: &str| {
            Failure::config(format!("value too long for option {option:?}{from}: {value:?}"))
                .with_details(format!("it has {} bytes, an option of DHCP at most 255", value.len()))
        };
        if value.len() > 255 {
            return Err(too_long("", value));
        }
        let arg = args.iter().rfind(|(key, _)| !key.is_empty() && key == from_arg).map(|(_, value)| value);
        if let Some(arg) = arg.filter(|arg| arg.len() > 255) {
            return Err(too_long(&format!(" from CNI_ARGS {from_arg:?}"), arg));
        }
        // CNI_ARGS may set an option to nothing, a configuration can't.
        let Some(value) = arg.or(Some(value).filter(|value| !value.is_empty())) else { continue };
        settings.retain(|setting| setting.code != code);
        settings.push(Setting { code, value: value.as_bytes().to_vec() });
    }
    settings.retain(|setting| has_value(setting.code));
    Ok(settings)
}

fn ask(request: &[Request]) -> Result<Vec<u8>, Failure> {
    let named = request.iter().filter(|request| !request.option.is_empty());
    let mut codes = named.map(|request| code(&request.option)).collect::<Result<Vec<_>, _>>()?;
    if !request.iter().any(|request| request.skip_default) {
        codes.extend([ROUTERS, SUBNET_MASK]);
    }
    let mut ask = Vec::new();
    for code in codes {
        if has_value(code) && !ask.contains(&code) {
            ask.push(code);
        }
    }
    Ok(ask)
}

/// Pad and end (RFC 2132, 3.1 and 3.2) are marks in a message; the reference's library writes them by itself only.
fn has_value(code: u8) -> bool {
    !matches!(code, 0 | 255)
}

fn code(option: &str) -> Result<u8, Failure> {
    options::code(option).map_err(|why| {
        Failure::config(format!("Can not parse option {option:?}: {why}")).with_details(
            "an option is a number from 0 to 255 in quotes, or dhcp-client-identifier, subnet-mask, routers, host-name, \
             user-class or vendor-class-identifier",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The configuration with these keys in `ipam`, and CNI_ARGS.
    fn load(keys: &str, args: &[(&str, &str)]) -> Result<Config, String> {
        let args: Vec<_> = args.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        Config::load(&format!(r#"{{"name": "n", "ipam": {{"type": "dhcp" {keys}}}}}"#), &args)
            .map_err(|failure| failure.msg)
    }

    /// "code=value" of each.
    fn sent(keys: &str, args: &[(&str, &str)]) -> Vec<String> {
        let text = |setting: &Setting| format!("{}={}", setting.code, String::from_utf8_lossy(&setting.value));
        load(keys, args).unwrap().send.iter().map(text).collect()
    }

    #[test]
    fn nothing_said_asks_for_routers_and_the_mask() {
        for keys in [
            "",
            r#", "daemonSocketPath": "/x""#,
            r#", "provide": null, "request": null, "priority": null"#,
            r#", "request": []"#,
        ] {
            let config = load(keys, &[("K8S_POD_NAME", "p")]).unwrap();
            assert_eq!((config.send.len(), config.ask, config.priority), (0, vec![3, 1], None), "{keys}");
        }
    }

    #[test]
    fn provided_options() {
        let keys =
            r#", "provide": [{"option": "host-name", "fromArg": "K8S_POD_NAME"}, {"Option": "60", "VALUE": "cni"}]"#;
        let args = [("K8S_POD_NAME", "a"), ("", "x"), ("K8S_POD_NAME", "pod=1"), ("k8s_pod_name", "b")];
        assert_eq!(sent(keys, &args), ["12=pod=1", "60=cni"]);
        assert_eq!(sent(keys, &[("K8S_POD_NAME", "")]), ["12=", "60=cni"]);
        assert_eq!(sent(keys, &[]), ["60=cni"]);

        for (keys, wanted) in [
            // CNI_ARGS wins over the value beside it, and a later option over an earlier one.
            (r#"{"option": "12", "value": "v", "fromArg": "A"}"#, &["12=arg"][..]),
            (r#"{"option": "12", "value": "v", "fromArg": "B"}"#, &["12=v"]),
            (
                r#"{"option": "12", "value": "v"}, {"option": "61", "value": "id"}, {"option": "host-name", "value": "w"}"#,
                &["61=id", "12=w"],
            ),
            (r#"{"option": "12", "value": ""}, {"option": "77", "value": null}"#, &[]),
            // A part of CNI_ARGS without "=" is nobody's value.
            (r#"{"option": "12", "fromArg": ""}"#, &[]),
            (r#"{"option": "0", "value": "v"}, {"option": "255", "value": "v"}"#, &[]),
        ] {
            assert_eq!(sent(&format!(r#", "provide": [{keys}]"#), &[("A", "arg"), ("", "x")]), wanted, "{keys}");
        }
    }

    #[test]
    fn requested_options() {
        for (request, wanted) in [
            (r#"{"option": "host-name"}"#, &[12, 3, 1][..]),
            (r#"{"option": "121"}, {"option": "33"}, {"option": "121"}"#, &[121, 33, 3, 1]),
            (r#"{"option": "subnet-mask"}"#, &[1, 3]),
            (r#"{"skipDefault": true, "option": "1"}, {"option": "6"}"#, &[1, 6]),
            (r#"{"option": "6"}, {"SKIPDEFAULT": true}"#, &[6]),
            (r#"{"skipDefault": true}"#, &[1, 3, 15, 6]),
            (r#"{"option": "0"}, {"option": "255"}, {"option": "254"}"#, &[254, 3, 1]),
        ] {
            assert_eq!(load(&format!(r#", "request": [{request}]"#), &[]).unwrap().ask, wanted, "{request}");
        }
    }

    #[test]
    fn a_list_of_ones_own_counts_where_nothing_else_is_asked_for() {
        let provide = r#", "provide": [{"option": "55", "value": "abc"}]"#;
        for (request, wanted) in [("", &[3, 1][..]), (r#", "request": [{"skipDefault": true}]"#, b"abc")] {
            let config = load(&format!("{provide}{request}"), &[]).unwrap();
            assert_eq!((config.send.len(), config.ask.as_slice()), (0, wanted));
        }
    }

    #[test]
    fn priority_of_routes() {
        for (priority, wanted) in [("0", None), ("100", Some(100)), ("4294967295", Some(u32::MAX))] {
            assert_eq!(load(&format!(r#", "priority": {priority}"#), &[]).unwrap().priority, wanted);
        }
        for priority in ["-1", "4294967296"] {
            let wanted = format!("\"priority\" is {priority}; a route's is 0 (the kernel's) to 4294967295");
            assert_eq!(load(&format!(r#", "priority": {priority}"#), &[]).unwrap_err(), wanted);
        }
    }

    #[test]
    fn what_is_wrong_is_said_in_the_references_words() {
        let long = "x".repeat(256);
        for (keys, args, wanted) in [
            (
                r#", "provide": [{"option": "hostname", "value": "v"}]"#,
                "",
                r#"Can not parse option "hostname": Can not parse option: strconv.ParseUint: parsing "hostname": invalid syntax"#
                    .to_owned(),
            ),
            (
                r#", "provide": [{"value": "v"}]"#,
                "",
                r#"Can not parse option "": Can not parse option: strconv.ParseUint: parsing "": invalid syntax"#.to_owned(),
            ),
            (
                r#", "request": [{"option": "256"}]"#,
                "",
                r#"Can not parse option "256": Can not parse option: strconv.ParseUint: parsing "256": value out of range"#
                    .to_owned(),
            ),
            (
                &format!(r#", "provide": [{{"option": "host-name", "value": "{long}"}}]"#),
                "",
                format!(r#"value too long for option "host-name": "{long}""#),
            ),
            (
                r#", "provide": [{"option": "12", "value": "v", "fromArg": "A"}]"#,
                &long,
                format!(r#"value too long for option "12" from CNI_ARGS "A": "{long}""#),
            ),
        ] {
            assert_eq!(load(keys, &[("A", args)]).unwrap_err(), wanted);
        }
        let just = "x".repeat(255);
        assert_eq!(sent(r#", "provide": [{"option": "12", "fromArg": "A"}]"#, &[("A", &just)]), [format!("12={just}")]);

        let failure = |config| Config::load(config, &[]).unwrap_err();
        for config in ["{}", r#"{"ipam": null}"#] {
            assert_eq!(failure(config).msg, "IPAM config missing 'ipam' key");
        }
        for config in [
            r#"{"ipam": {"request": [{"option": 12}]}}"#,
            r#"{"ipam": {"provide": [{"option": "12", "value": 7}]}}"#,
            r#"{"ipam": {"request": "12"}}"#,
            r#"{"ipam": {"priority": "7"}}"#,
            r#"{"ipam": 3}"#,
        ] {
            assert_eq!(failure(config).code, sandwire_plugin::code::DECODE, "{config}");
        }
    }
}
