//! An interface of the node, moved into the container and back.
//!
//! Keys and messages: containernetworking/plugins, plugins/main/host-device.

mod config;

use config::Config;
use sandwire_plugin::configure::{self, Duplicates};
use sandwire_plugin::host::namespaces::{LinkInfo, Netns};
use sandwire_plugin::host::{self, devices, links};
use sandwire_plugin::{
    Attachment, Call, Check, CniResult, Failure, Gc, HostError, Interface, Link, NetworkCall, OrFail, OrGone, Plugin,
    Status, mac, verify,
};

/// What the host says of a link that has none.
const NO_MAC: &str = "00:00:00:00:00:00";

struct HostDevice;

sandwire_plugin::export!(HostDevice: check, gc, status);

impl Plugin for HostDevice {
    fn add(call: &Call) -> Result<CniResult, Failure> {
        let config = Config::load(call.config_text())?;
        config.check()?;
        let link = match config.is_a_programs()? {
            true => None,
            false => Some(take(call, &config)?),
        };
        let interface = match &link {
            Some(link) => interface(&link.info()?, call),
            None => Interface::new(call.ifname()).in_sandbox(call.sandbox()),
        };
        let mut result = CniResult::default().with_interfaces([interface]);
        if config.ipam.is_set() {
            let given = config.ipam.add(call)?;
            (result.ips, result.routes) = (given.ips, given.routes);
            result = result.with_ips_on(0);
            result.dns = config.dns;
        }
        match &link {
            Some(link) if config.ipam.is_set() => configure::apply(link, call.ifname(), &result, Duplicates::Trust)?,
            Some(link) => links::change(link, &links::Changes::up(true))
                .or_fail(["failed to set \"", call.ifname(), "\" up"].concat())?,
            None => {}
        }
        Ok(result)
    }

    /// The addresses go back also when the container is gone, or the interface never was there: where the reference leaks them,
    /// or fails.
    fn del(call: &Call) -> Result<(), Failure> {
        let returned = give_back(call);
        let released = Config::load(call.config_text()).and_then(|config| config.ipam.del(call));
        returned.and(released)
    }
}

impl Check for HostDevice {
    fn check(call: &Call) -> Result<(), Failure> {
        let config = Config::load(call.config_text())?;
        config.check()?;
        config.ipam.check(call)?;
        let mut result = call.require_prev_result()?;
        if config.is_a_programs()? {
            return Ok(());
        }
        let container = host::require_container()?;
        let (place, link, _) = verify::attached(call, &result, &container, None, "")?;
        // Addresses of other interfaces are other plugins' of the chain. An old result does not say whose they are.
        result.ips.retain(|ip| ip.interface.is_none_or(|of| of == place));
        verify::addresses(&container, &link, call.ifname(), &result.ips)?;
        verify::routes(&container, &result.routes)
    }
}

impl Status for HostDevice {
    /// That the interface is not there says nothing: a container may have it. Nor that none is named: a device plugin of the runtime
    /// chooses one for each pod.
    fn status(call: &NetworkCall) -> Result<(), Failure> {
        Config::load(call.config_text())?.ipam.status(call)
    }
}

impl Gc for HostDevice {
    fn gc(call: &NetworkCall, _: Option<&[Attachment]>) -> Result<(), Failure> {
        Config::load(call.config_text())?.ipam.gc(call)
    }
}

/// As the result shows it: a CAN bus has no MAC.
fn interface(info: &LinkInfo, call: &Call) -> Interface {
    match info.mac == NO_MAC {
        true => Interface::new(info.name.as_str()).in_sandbox(call.sandbox()),
        false => info.in_sandbox(call.sandbox()),
    }
}

/// Moves the interface into the container, under its name there.
fn take(call: &Call, config: &Config) -> Result<Link, Failure> {
    let container = host::require_container()?;
    let node = host::netns();
    let link = find(&node, config).map_err(|failure| failure.context("failed to find host device"))?;
    links::move_to(&link, &container, call.ifname()).or_fail("failed to move link")?;
    Ok(link)
}

/// The interface that the configuration names, by the first of its names that there is.
fn find(node: &Netns, config: &Config) -> Result<Link, Failure> {
    let of_hardware = |id: &str| devices::find(node, id).map_err(Failure::from);
    if !config.device.is_empty() {
        return by_name(node, &config.device);
    }
    if !config.hwaddr.is_empty() {
        return by_mac(node, &config.hwaddr);
    }
    if !config.kernel_path.is_empty() {
        if !config.kernel_path.starts_with("/sys/devices/") {
            let path = &config.kernel_path;
            return Err(Failure::config(
                ["kernel device path \"", path, "\" must be absolute and begin with /sys/devices/"].concat(),
            ));
        }
        return of_hardware(&config.kernel_path);
    }
    match (config.device_id(), config.hardware()) {
        (Some(id), _) => devices::find(node, id).map_err(|error| match error {
            HostError::NotFound(text) => {
                Failure::internal(["runtime config DeviceID ", id, " not found or unsupported: ", &text].concat())
            }
            error => Failure::from(error),
        }),
        (None, Some(id)) => of_hardware(id),
        (None, None) => Err(not_found()),
    }
}

fn not_found() -> Failure {
    Failure::internal("failed to find physical interface")
}

fn by_name(node: &Netns, name: &str) -> Result<Link, Failure> {
    node.link(name).map_err(|error| match error {
        HostError::NotFound(_) => Failure::internal(["Link not found: \"", name, "\""].concat()),
        error => Failure::from(error),
    })
}

fn by_mac(node: &Netns, wanted: &str) -> Result<Link, Failure> {
    if !mac::is_one(wanted) {
        return Err(Failure::config(
            ["failed to parse MAC address \"", wanted, "\": address ", wanted, ": invalid MAC address"].concat(),
        ));
    }
    let links = node.links().or_fail("failed to list node links")?;
    let found = links.into_iter().find(|info: &LinkInfo| mac::same(&info.mac, wanted));
    match found {
        Some(info) => node.link(&info.name).map_err(Failure::from),
        None => Err(not_found()),
    }
}

/// Moves the interface back, under the name that it had; down, as the reference leaves it.
fn give_back(call: &Call) -> Result<(), Failure> {
    let Some(container) = host::container() else { return Ok(()) };
    let context = || ["failed to move link \"", call.ifname(), "\" back"].concat();
    let Some(link) = container.link(call.ifname()).or_gone().or_fail(context())? else { return Ok(()) };
    let Some(info) = link.info().or_gone().or_fail(context())? else { return Ok(()) };
    // What did not come from the node is not ours to move: the ADD was refused because it is there.
    let Some(name) = info.fact("former-name") else { return Ok(()) };
    links::move_to(&link, &host::netns(), name).or_fail(context())
}
