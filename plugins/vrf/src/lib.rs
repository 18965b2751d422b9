//! Puts the interface into a VRF of the pod: its routes go into a table of their own, which nothing outside looks into.
//!
//! Keys and messages: containernetworking/plugins, plugins/meta/vrf.

mod config;
mod member;

use config::Config;
use sandwire_plugin::host::links::{self, Device};
use sandwire_plugin::host::namespaces::{Link, LinkInfo, Netns};
use sandwire_plugin::{Call, Check, CniResult, Failure, HostError, NetworkCall, OrFail, OrGone, Plugin, Status, host};

struct Vrf;

sandwire_plugin::export!(Vrf: check, status);

impl Plugin for Vrf {
    fn add(call: &Call) -> Result<CniResult, Failure> {
        let config = Config::load(call.config_text())?;
        let Some(result) = call.prev_result()? else {
            return Err(Failure::config("missing prevResult from earlier plugin"));
        };
        let container = host::require_container()?;
        join(&container, &config, call.ifname()).map_err(|failure| failure.context("cmdAdd failed"))?;
        Ok(result)
    }

    fn del(call: &Call) -> Result<(), Failure> {
        let config = Config::load(call.config_text());
        let (Some(container), Ok(config)) = (host::container(), config) else {
            // What this plugin's ADD did is in the host's journal.
            return Ok(());
        };
        let Some((vrf, info)) = find(&container, &config.name)? else { return Ok(()) };
        // The reference fails without the interface, and with it the DEL of the plugins before.
        if let Some(link) = container.link(call.ifname()).or_gone()?
            && link.info()?.master.as_deref() == Some(info.name.as_str())
        {
            links::set_master(&link, None).or_gone()?;
        }
        if members(&container, &info)?.is_empty() {
            links::remove(&vrf).or_gone()?;
        }
        Ok(())
    }
}

impl Check for Vrf {
    fn check(call: &Call) -> Result<(), Failure> {
        let config = Config::load(call.config_text())?;
        if call.prev_result()?.is_none() {
            return Err(Failure::config("missing prevResult from earlier plugin"));
        }
        let container = host::require_container()?;
        let Some((_, info)) = find(&container, &config.name)? else {
            return Err(Failure::internal(["VRF ", &config.name, " not found"].concat()));
        };
        match members(&container, &info)?.iter().any(|link| link.name == call.ifname()) {
            true => Ok(()),
            false => {
                Err(Failure::internal(["failed to find ", call.ifname(), " associated to vrf ", &config.name].concat()))
            }
        }
    }
}

impl Status for Vrf {
    fn status(call: &NetworkCall) -> Result<(), Failure> {
        Config::load(call.config_text()).map(|_| ())
    }
}

/// The VRF of this name, if there is one.
fn find(container: &Netns, name: &str) -> Result<Option<(Link, LinkInfo)>, Failure> {
    let link = match container.link(name) {
        Ok(link) => link,
        Err(HostError::NotFound(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let info = link.info()?;
    match info.kind.as_str() {
        "vrf" => Ok(Some((link, info))),
        _ => Err(Failure::internal(["Netlink ", name, " is not a VRF"].concat())),
    }
}

fn members(container: &Netns, vrf: &LinkInfo) -> Result<Vec<LinkInfo>, Failure> {
    let mut all = container.links().or_fail("getAssignedInterfaces: Failed to find links")?;
    all.retain(|link| link.master.as_deref() == Some(vrf.name.as_str()));
    Ok(all)
}

fn table_of(vrf: &LinkInfo) -> Option<u32> {
    vrf.fact("vrf.table").and_then(|table| table.parse().ok())
}

fn join(container: &Netns, config: &Config, ifname: &str) -> Result<(), Failure> {
    let (vrf, table) = match find(container, &config.name)? {
        Some((vrf, info)) => {
            let table = table_of(&info).unwrap_or(0);
            if config.table != 0 && config.table != table {
                return Err(Failure::config(format!(
                    "VRF {} already exist with different routing table {table}",
                    config.name
                )));
            }
            (vrf, table)
        }
        None => {
            let table = if config.table == 0 { free_table(container)? } else { config.table };
            let device = Device::new(container).named(&config.name).up();
            let vrf = links::create_vrf(&device, table).or_fail(["could not add VRF ", &config.name].concat())?;
            (vrf, table)
        }
    };
    member::add(container, &vrf, (&config.name, table), ifname)
}

/// The first that no VRF of the container has.
fn free_table(container: &Netns) -> Result<u32, Failure> {
    let all = container.links().or_fail("createVRF: Failed to find links")?;
    let taken: Vec<u32> = all.iter().filter_map(table_of).collect();
    (1..u32::MAX)
        .find(|table| !taken.contains(table))
        .ok_or_else(|| Failure::internal("findFreeRoutingTableID: Failed to find an available routing id"))
}
