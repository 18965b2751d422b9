//! What native tuning has kept of an interface that it changed: a node may change over with pods running.

use sandwire_plugin::host::{self, files, links, links::Changes};
use sandwire_plugin::{HostError, log};
use serde::Deserialize;

/// The file that native tuning writes: what the interface was, of what it changed.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Kept {
    mac: String,
    promisc: Option<bool>,
    mtu: u32,
    allmulti: Option<bool>,
    #[serde(rename = "txQLen")]
    tx_queue_length: Option<u32>,
}

const SUFFIX: &str = ".json";

/// Makes the interface what it was before native tuning, if that attached it, and forgets that. What can't be restored is
/// logged, as the reference goes on: the plugin that made the interface removes it next.
pub(crate) fn restore(directory: &str, ifname: &str) {
    let text = match files::read_own(directory, SUFFIX) {
        Ok(text) => text,
        Err(HostError::NotFound(_)) => return,
        Err(error) => return complain(error),
    };
    if let Ok(kept) = sandwire_plugin::parse::<Kept>(&text)
        && let Some(link) = host::container().and_then(|netns| netns.link(ifname).ok())
    {
        for change in changes(kept) {
            if let Err(error) = links::change(&link, &change) {
                complain(error);
            }
        }
    }
    // Last: whatever ends this call, the next one finds it again.
    if let Err(error) = files::remove_own(directory, SUFFIX)
        && !matches!(error, HostError::NotFound(_))
    {
        complain(error);
    }
}

/// One message each, as what fails must not keep others from being restored.
fn changes(kept: Kept) -> Vec<Changes> {
    let none = Changes::default;
    let mut all = Vec::new();
    if kept.mtu != 0 {
        all.push(Changes { mtu: Some(kept.mtu), ..none() });
    }
    if !kept.mac.is_empty() {
        all.push(Changes { mac: Some(kept.mac), ..none() });
    }
    all.extend(kept.promisc.map(|on| Changes { promisc: Some(on), ..none() }));
    all.extend(kept.allmulti.map(|on| Changes { allmulti: Some(on), ..none() }));
    all.extend(kept.tx_queue_length.map(|length| Changes { txqlen: Some(length), ..none() }));
    all
}

fn complain(error: HostError) {
    let text = sandwire_plugin::Failure::from(error).msg;
    log!(Warn, "what native tuning has kept of the interface: {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_references_file() {
        let text = "{\n \"mac\": \"aa:bb:cc:dd:ee:ff\",\n \"promisc\": false,\n \"mtu\": 1500,\n \"allmulti\": true,\n \"txQLen\": 1000\n}";
        let changed = changes(sandwire_plugin::parse(text).unwrap());
        assert_eq!(changed.len(), 5);
        assert_eq!(changed.first().and_then(|change| change.mtu), Some(1500));
        assert_eq!(changed.last().and_then(|change| change.txqlen), Some(1000));
        assert!(changes(sandwire_plugin::parse("{}").unwrap()).is_empty());
    }
}
