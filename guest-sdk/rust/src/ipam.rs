//! Address management by delegation: the `ipam` object of a configuration names another plugin.

use crate::host::delegate;
use crate::{Call, CniResult, Failure, NetworkCall};
use serde::Deserialize;

/// The `ipam` key. The rest of the object is the delegate's, which gets the whole configuration.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Ipam {
    /// `ipam.type`; empty means that the interface gets no addresses (layer 2 only).
    #[serde(rename = "type")]
    pub plugin: String,
}

/// For a plugin that manages addresses: results before 0.3.0 have one of each family (`ip4`, `ip6`).
///
/// # Errors
/// The reference's, when there are more at such a version.
pub fn one_of_each_family(version: &str, is_ipv4: impl IntoIterator<Item = bool>) -> Result<(), Failure> {
    let [mut v4, mut v6] = [0; 2];
    is_ipv4.into_iter().for_each(|is_ipv4| *if is_ipv4 { &mut v4 } else { &mut v6 } += 1);
    if v4.max(v6) > 1 && matches!(version, "" | "0.1.0" | "0.2.0") {
        let text = ["CNI version ", version, " does not support more than 1 address per family"].concat();
        return Err(Failure::config(text));
    }
    Ok(())
}

impl Ipam {
    /// Whether there is a plugin to ask.
    pub fn is_set(&self) -> bool {
        !self.plugin.is_empty()
    }

    /// For a plugin of this type that can't do without.
    ///
    /// # Errors
    /// The reference's text (libcni's, of a plugin without a name) when there is none.
    pub fn require(&self, plugin: &str) -> Result<(), Failure> {
        self.named().map_err(|failure| {
            failure.with_details(
                [plugin, " attaches a container by its addresses: \"ipam\" must name who gives them"].concat(),
            )
        })
    }

    fn named(&self) -> Result<(), Failure> {
        if self.is_set() {
            Ok(())
        } else {
            Err(Failure::config("no plugin name provided").with_details("\"ipam\" has no \"type\""))
        }
    }

    /// ADD of the delegate. When this attachment's ADD fails later, the host gives the addresses back.
    ///
    /// # Errors
    /// The delegate's own error, unchanged; the reference's text when it gave no address.
    pub fn add(&self, call: &Call) -> Result<CniResult, Failure> {
        self.named()?;
        Ok(crate::call::result(&delegate::add(&self.plugin, call.config_text(), &[])?)?.require_addresses()?)
    }

    /// DEL of the delegate; nothing without one.
    ///
    /// # Errors
    /// The delegate's own error, unchanged.
    pub fn del(&self, call: &Call) -> Result<(), Failure> {
        if self.is_set() { delegate::del(&self.plugin, call.config_text(), &[]) } else { Ok(()) }
    }

    /// CHECK of the delegate; nothing without one (the reference asks a plugin without a name and fails).
    ///
    /// # Errors
    /// The delegate's own error, unchanged.
    pub fn check(&self, call: &Call) -> Result<(), Failure> {
        if self.is_set() { delegate::check(&self.plugin, call.config_text(), &[]) } else { Ok(()) }
    }

    /// STATUS of the delegate; ready without one.
    ///
    /// # Errors
    /// The delegate's own error, unchanged.
    pub fn status(&self, call: &NetworkCall) -> Result<(), Failure> {
        if self.is_set() { delegate::status(&self.plugin, call.config_text(), &[]) } else { Ok(()) }
    }

    /// GC of the delegate; nothing without one.
    ///
    /// # Errors
    /// The delegate's own error, unchanged.
    pub fn gc(&self, call: &NetworkCall) -> Result<(), Failure> {
        if self.is_set() { delegate::gc(&self.plugin, call.config_text(), &[]) } else { Ok(()) }
    }
}
