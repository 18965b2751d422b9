//! Changes settings of the interface that an earlier plugin of the chain made: sysctls, MAC, MTU, flags, queue length.
//!
//! Keys and messages: containernetworking/plugins, plugins/meta/tuning. What ADD changes the host restores in DEL.

mod check;
mod config;
mod kept;
mod sysctls;

use config::Config;
use sandwire_plugin::host::{self, links};
use sandwire_plugin::{
    Call, CniResult, Failure, HostError, Link, Netns, NetworkCall, OrFail, Plugin, Status, host::links::Changes,
};

struct Tuning;

sandwire_plugin::export!(Tuning: check, status);

impl Plugin for Tuning {
    fn add(call: &Call) -> Result<CniResult, Failure> {
        let config = Config::of(call)?;
        sysctls::allowed(&config.sysctls)?;
        let mut result = call.require_prev_result()?;
        let container = host::require_container()?;
        for (key, value) in &config.sysctls {
            sysctls::set(&container, call.ifname(), key, value)?;
        }
        if config.changes_the_link() {
            let link = interface(&container, call.ifname())?;
            change(&link, &config)?;
            if config.mac.is_some() {
                // As the kernel writes it, whatever form the configuration has it in: the CHECK of the plugin that made
                // the interface compares.
                let mac = link.info()?.mac;
                let own = |interface: &&mut sandwire_plugin::Interface| {
                    interface.name == call.ifname() && interface.sandbox.is_some()
                };
                result.interfaces.iter_mut().filter(own).for_each(|own| own.mac = Some(mac.clone()));
            }
        }
        Ok(result)
    }

    fn del(call: &Call) -> Result<(), Failure> {
        // What this plugin's ADD did is in the host's journal. A configuration that can't be read must not keep the
        // plugins before this one from their DEL.
        kept::restore(&config::data_dir(call.config_text()), call.ifname());
        Ok(())
    }
}

impl Status for Tuning {
    fn status(call: &NetworkCall) -> Result<(), Failure> {
        sysctls::allowed(&Config::load(call.config_text(), None)?.sysctls)
    }
}

pub(crate) fn interface(container: &Netns, ifname: &str) -> Result<Link, Failure> {
    container.link(ifname).or_fail(["failed to get \"", ifname, "\""].concat())
}

/// One after the other: of a message that sets many the kernel may carry out some.
fn change(link: &Link, config: &Config) -> Result<(), Failure> {
    let none = Changes::default;
    if let Some(mac) = &config.mac {
        links::change(link, &Changes { mac: Some(mac.clone()), ..none() }).map_err(|error| match error {
            HostError::Invalid(text) => Failure::config(["invalid args ", mac, " for MAC addr: ", &text].concat()),
            error => Failure::from(error).context("failed to set the MAC address"),
        })?;
    }
    if config.promisc {
        links::change(link, &Changes { promisc: Some(true), ..none() }).or_fail("failed to set promiscuous mode")?;
    }
    if let Some(mtu) = config.mtu()? {
        links::change(link, &Changes { mtu: Some(mtu), ..none() }).or_fail("failed to set the MTU")?;
    }
    if let Some(allmulti) = config.allmulti {
        links::change(link, &Changes { allmulti: Some(allmulti), ..none() })
            .or_fail("failed to set all-multicast mode")?;
    }
    if let Some(length) = config.tx_queue_length()? {
        links::change(link, &Changes { txqlen: Some(length), ..none() })
            .or_fail("failed to set the length of the transmit queue")?;
    }
    Ok(())
}
