//! `dhcp`: an address of the attachment's interface from a server on its network.

use crate::bindings::dhcp;
use crate::guest::Guest;
use crate::refusal::Answer;
use sandwire_kernel::{DhcpLease, DhcpOption, boot_time};

fn setting(setting: dhcp::Setting) -> DhcpOption {
    DhcpOption { code: setting.code, value: setting.value }
}

fn lease(lease: DhcpLease) -> Answer<dhcp::Lease> {
    let now = boot_time()?;
    Ok(dhcp::Lease {
        seconds: lease.left(now).unwrap_or(0),
        address: lease.address.to_string(),
        server: lease.server.to_string(),
        settings: lease
            .options
            .into_iter()
            .map(|option| dhcp::Setting { code: option.code, value: option.value })
            .collect(),
    })
}

impl dhcp::Host for Guest {
    fn acquire(&mut self, send: Vec<dhcp::Setting>, ask: Vec<u8>) -> Answer<dhcp::Lease> {
        let plugin = self.grant.plugin.clone();
        let send = send.into_iter().map(setting).collect();
        lease(self.session()?.acquire_dhcp(&plugin, send, ask)?)
    }

    fn held(&mut self) -> Answer<Option<dhcp::Lease>> {
        self.session()?.held_dhcp()?.map(lease).transpose()
    }

    fn release(&mut self) -> Answer<Option<String>> {
        Ok(self.session()?.release_dhcp()?.map(|address| address.to_string()))
    }
}
