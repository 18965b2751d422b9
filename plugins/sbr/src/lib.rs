//! Source-based routing: what leaves with an address of this interface leaves by it, whatever the pod's default route is.
//!
//! Keys and messages: containernetworking/plugins, plugins/meta/sbr.

mod config;
mod routing;

use config::Config;
use sandwire_plugin::host::{self, addresses, routes};
use sandwire_plugin::{
    Call, Check, CniResult, Failure, HostError, IpConfig, NetworkCall, OrFail, Plugin, Status, host::routes::Rule,
};

struct Sbr;

sandwire_plugin::export!(Sbr: check, status);

impl Plugin for Sbr {
    fn add(call: &Call) -> Result<CniResult, Failure> {
        let config = Config::load(call.config_text())?;
        let Some(result) = call.prev_result()? else {
            return Err(Failure::config("This plugin must be called as chained plugin"));
        };
        let ips = own_addresses(call.ifname(), &result)?;
        let container = host::require_container()?;
        match config.table()? {
            // Its routes are the business of whoever named it.
            Some(table) => {
                for ip in ips {
                    let rule = from(&single(ip), table);
                    routes::add_rule(&container, &rule).or_fail("failed to add rule")?;
                }
            }
            None => routing::divert(&container, call.ifname(), &ips, &config)?,
        }
        Ok(result)
    }

    fn del(call: &Call) -> Result<(), Failure> {
        // The reference makes a file where the namespace was, and fails.
        let Some(container) = host::container() else { return Ok(()) };
        // Rules that are ours the host knows, too: a configuration that can't be read must not keep the plugins before this one
        // from their DEL.
        let table = Config::load(call.config_text()).and_then(|config| config.table()).ok().flatten();
        let link = match container.link(call.ifname()) {
            Ok(link) => link,
            Err(HostError::NotFound(_)) => return Ok(()),
            Err(error) => return Err(error).or_fail(format!("Failed to get link {}", call.ifname())),
        };
        let own = addresses::get(&link).or_fail("Failed to list all addrs")?;
        let rules = routes::get_rules(&container).or_fail("Failed to list all rules to tidy")?;
        let mut failed = Ok(());
        for rule in rules.iter().filter(|rule| table.is_none_or(|table| rule.table == table)) {
            let address = |cidr: &str| cidr.split('/').next().unwrap_or_default().to_owned();
            let source = rule.src.as_deref().map(address);
            if own.iter().any(|own| Some(address(&own.cidr)) == source) {
                match routes::remove_rule(&container, rule) {
                    Ok(()) | Err(HostError::NotFound(_)) => {}
                    Err(error) => failed = Err(Failure::from(error).context("Failed to delete rule")),
                }
            }
        }
        failed
    }
}

impl Check for Sbr {
    /// The reference looks at nothing; here each address must have its rule, and a table that it leads to.
    fn check(call: &Call) -> Result<(), Failure> {
        let config = Config::load(call.config_text())?;
        let result = call.require_prev_result()?;
        let container = host::require_container()?;
        let rules = routes::get_rules(&container)?;
        for ip in own_addresses(call.ifname(), &result)? {
            let source = single(ip);
            let table = config.table()?;
            let fits = |rule: &&Rule| {
                rule.src.as_deref() == Some(source.as_str()) && table.is_none_or(|table| table == rule.table)
            };
            let Some(rule) = rules.iter().find(fits) else {
                return Err(Failure::internal(format!("no rule sends what comes from {source} to a table of its own")));
            };
            let of_family = |route: &str| route.contains(':') == source.contains(':');
            let leads_somewhere = || -> Result<bool, Failure> {
                let present = routes::get(&container, Some(rule.table))?;
                Ok(present.iter().any(|entry| of_family(&entry.route.dst)))
            };
            // A single address without a gateway has no route to copy.
            let has_routes = ip.gateway.is_some() || ip.address.prefix_len() < ip.address.max_prefix_len();
            if table.is_none() && has_routes && !leads_somewhere()? {
                return Err(Failure::internal(format!(
                    "what comes from {source} is sent to table {}, which is empty",
                    rule.table
                )));
            }
        }
        Ok(())
    }
}

impl Status for Sbr {
    fn status(call: &NetworkCall) -> Result<(), Failure> {
        let config = Config::load(call.config_text())?;
        config.table()?;
        config.gateways().map(|_| ())
    }
}

/// Those of the interface; of an old result, which does not say whose they are, all.
fn own_addresses<'a>(ifname: &str, result: &'a CniResult) -> Result<Vec<&'a IpConfig>, Failure> {
    if result.ips.is_empty() {
        return Err(Failure::internal(["No IP addresses supplied on interface: ", ifname].concat()));
    }
    let of = |place: u32| usize::try_from(place).ok().and_then(|place| result.interfaces.get(place));
    let own = |ip: &&IpConfig| ip.interface.and_then(of).is_none_or(|interface| interface.name == ifname);
    Ok(result.ips.iter().filter(own).collect())
}

/// The address alone, as a prefix.
fn single(ip: &IpConfig) -> String {
    let address = ip.address.addr();
    format!("{address}/{}", ip.address.max_prefix_len())
}

/// What comes from `source` is looked up in `table`.
fn from(source: &str, table: u32) -> Rule {
    Rule { src: Some(source.to_owned()), dst: None, table, priority: None, extra: Vec::new() }
}
