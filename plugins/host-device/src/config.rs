//! The keys of the host-device plugin.

use sandwire_plugin::host::devices;
use sandwire_plugin::{Dns, Failure, HostError, Ipam, OrFail};
use serde::Deserialize;

/// Drivers of programs that drive the hardware themselves: it has no network interface then.
const OF_PROGRAMS: [&str; 3] = ["vfio-pci", "uio_pci_generic", "igb_uio"];

/// The network configuration. Defaults are the reference's.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", rename = "NetConf")]
pub(crate) struct Config {
    /// Name of the interface on the node.
    pub(crate) device: String,
    /// Its MAC.
    pub(crate) hwaddr: String,
    /// Below /sys/devices.
    #[serde(rename = "kernelpath")]
    pub(crate) kernel_path: String,
    /// On the bus of PCI.
    #[serde(rename = "pciBusID")]
    pub(crate) pci_address: String,
    #[serde(rename = "DPDKMode")]
    dpdk_mode: bool,
    runtime_config: Requested,
    pub(crate) ipam: Ipam,
    pub(crate) dns: Dns,
}

/// What a device plugin of the runtime has chosen.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Requested {
    /// An address on the bus of PCI, or a name on that of auxiliary devices.
    #[serde(rename = "deviceID")]
    device_id: String,
}

impl Config {
    /// The configuration of a network; errors have the reference's texts.
    pub(crate) fn load(text: &str) -> Result<Self, Failure> {
        sandwire_plugin::parse(text).or_fail("failed to load netconf")
    }

    /// Whether it says which interface.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let names = [&self.device, &self.hwaddr, &self.kernel_path, &self.pci_address, &self.runtime_config.device_id];
        match names.iter().any(|name| !name.is_empty()) {
            true => Ok(()),
            false => Err(Failure::config(r#"specify either "device", "hwaddr", "kernelpath" or "pciBusID""#)),
        }
    }

    /// The device that the runtime has chosen, which goes before `pciBusID`.
    pub(crate) fn device_id(&self) -> Option<&str> {
        Some(self.runtime_config.device_id.as_str()).filter(|id| !id.is_empty())
    }

    /// The hardware by its identity.
    pub(crate) fn hardware(&self) -> Option<&str> {
        self.device_id().or(Some(self.pci_address.as_str()).filter(|id| !id.is_empty()))
    }

    /// Whether a program drives the hardware: then there are only addresses to be had.
    ///
    /// # Errors
    /// When there is no such hardware, or it has no driver.
    pub(crate) fn is_a_programs(&self) -> Result<bool, Failure> {
        let Some(id) = self.hardware() else { return Ok(self.dpdk_mode) };
        match devices::driver(id) {
            Ok(driver) => Ok(OF_PROGRAMS.contains(&driver.as_str())),
            // One on the auxiliary bus needs none; whether there is one is seen when its interface is looked for.
            Err(HostError::NotFound(_)) if self.device_id().is_some() => Ok(false),
            Err(error) => Err(Failure::from(error).context("error with host device")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_the_names_is_needed() {
        for key in ["device", "hwaddr", "kernelpath", "KernelPath", "pciBusID", "PCIBUSID"] {
            Config::load(&format!(r#"{{"{key}":"x"}}"#)).unwrap().check().unwrap();
        }
        Config::load(r#"{"runtimeConfig":{"deviceID":"0000:03:00.0"}}"#).unwrap().check().unwrap();
        let none = Config::load("{}").unwrap().check().unwrap_err();
        assert_eq!(none.msg, r#"specify either "device", "hwaddr", "kernelpath" or "pciBusID""#);
    }

    #[test]
    fn the_runtimes_choice_goes_first() {
        let config =
            Config::load(r#"{"pciBusID":"0000:01:00.0","runtimeConfig":{"deviceID":"0000:03:00.0"}}"#).unwrap();
        assert_eq!(config.hardware(), Some("0000:03:00.0"));
        assert_eq!(Config::load(r#"{"pciBusID":"0000:01:00.0"}"#).unwrap().hardware(), Some("0000:01:00.0"));
        assert_eq!(Config::load(r#"{"device":"eth1"}"#).unwrap().hardware(), None);
    }

    #[test]
    fn what_can_never_be() {
        for text in [r#"{"device":1}"#, r#"{"runtimeConfig":{"deviceID":[]}}"#] {
            assert!(Config::load(text).unwrap_err().msg.starts_with("failed to load netconf: "), "{text}");
        }
    }
}
