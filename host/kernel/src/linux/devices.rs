//! Hardware by its identity: what sysfs says of it.

use super::socket::describe;
use crate::{KernelError, Outcome};
use nix::errno::Errno;
use std::fs::read_dir;
use std::io;
use std::path::{Path, PathBuf};

/// Where an identity that is no path is looked for, in this order.
const BUSES: [&str; 2] = ["/sys/bus/pci/devices", "/sys/bus/auxiliary/devices"];
const PATHS: &str = "/sys/devices/";

/// The name of the network interface of a device, the first of several. sysfs shows the interfaces of the namespace that it was
/// mounted in (`net_namespace`, net/core/net-sysfs.c): on a node that is the host's.
///
/// # Errors
/// `NotFound` without the device or without an interface, `Invalid` for what is no identity.
pub(super) fn interface(id: &str) -> Outcome<String> {
    let device = directory(id)?;
    let none = || KernelError::NotFound(format!("device {id:?} has no network interface in the host's namespace"));
    let own = device.join("net");
    let parents = if own.exists() {
        vec![own]
    } else {
        // A virtio device is a device of its own, on the one of PCI.
        names(&device, id)?
            .iter()
            .filter(|name| name.starts_with("virtio"))
            .map(|name| device.join(name).join("net"))
            .collect()
    };
    for parent in parents {
        if let Some(first) = names(&parent, id)?.into_iter().next() {
            return Ok(first);
        }
    }
    Err(none())
}

/// The driver that is bound to a device, "vfio-pci".
///
/// # Errors
/// `NotFound` without the device or without a driver, `Invalid` for what is no identity.
pub(super) fn driver(id: &str) -> Outcome<String> {
    let link = directory(id)?.join("driver");
    let target = link.read_link().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => KernelError::NotFound(format!("device {id:?} has no driver")),
        _ => unreadable(id, &error),
    })?;
    let name = target.file_name().map(|name| name.to_string_lossy().into_owned());
    name.ok_or_else(|| KernelError::Other(format!("device {id:?} has a driver without a name: {}", target.display())))
}

/// Where sysfs has the device.
fn directory(id: &str) -> Outcome<PathBuf> {
    let missing = || KernelError::NotFound(format!("device {id:?} not found"));
    if id.starts_with(PATHS) {
        let path = Path::new(id.trim_end_matches('/'));
        // Below each device there are links to others, by which a pattern would stand for all.
        return match path.canonicalize() {
            Ok(found) if found == path && found.is_dir() => Ok(found),
            Ok(_) => Err(KernelError::Invalid(format!("{id:?} is no path of a device by itself"))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(missing()),
            Err(error) => Err(unreadable(id, &error)),
        };
    }
    let is_name =
        !id.is_empty() && !id.starts_with('.') && id.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/');
    if !is_name {
        return Err(KernelError::Invalid(format!(
            "{id:?} names no device: that is an address such as \"0000:03:00.0\", a name on the auxiliary bus or a path that begins with {PATHS}"
        )));
    }
    BUSES.iter().map(|bus| Path::new(bus).join(id)).find(|path| path.is_dir()).ok_or_else(missing)
}

/// What is in a directory, sorted; nothing when it is not there.
fn names(directory: &Path, id: &str) -> Outcome<Vec<String>> {
    let entries = match read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(id, &error)),
    };
    let mut names: Vec<String> = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort_unstable();
    Ok(names)
}

fn unreadable(id: &str, error: &io::Error) -> KernelError {
    let why = error.raw_os_error().map_or_else(|| error.to_string(), |errno| describe(Errno::from_raw(errno)));
    KernelError::Other(format!("could not look at device {id:?}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_a_name_on_a_bus_or_a_path_of_sysfs() {
        for id in [
            "",
            "..",
            ".hidden",
            "a b",
            "net/eth0",
            "/etc",
            "/sys/class/net",
            "/sys/devices/../class",
            "/sys/devices/virtual/net/lo/subsystem",
        ] {
            assert!(matches!(directory(id), Err(KernelError::Invalid(_))), "{id:?}");
        }
        for id in ["ffff:ff:1f.7", "/sys/devices/not/there", "/sys/devices//a"] {
            assert!(matches!(interface(id), Err(KernelError::NotFound(_))), "{id:?}");
            assert!(matches!(driver(id), Err(KernelError::NotFound(_))), "{id:?}");
        }
    }

    /// The one device that every kernel has.
    #[test]
    fn a_path_of_sysfs_has_interfaces() {
        assert_eq!(
            interface("/sys/devices/virtual").unwrap(),
            names(Path::new("/sys/devices/virtual/net"), "").unwrap()[0]
        );
        assert_eq!(interface("/sys/devices/virtual/").unwrap(), interface("/sys/devices/virtual").unwrap());
        assert!(matches!(driver("/sys/devices/virtual"), Err(KernelError::NotFound(_))));
    }
}
