//! Gives addresses from ranges that the configuration names, out of a store on this node.
//!
//! Keys, defaults and messages: containernetworking/plugins, plugins/ipam/host-local; its files too, so that both can be at
//! work on one network. The store itself, with its lock and its files, is the host's (`leases`): this says which
//! addresses may be given.

mod config;
mod ranges;
mod resolv_conf;

use config::{Config, data_dir};
use ranges::{RangeSet, distinct};
use sandwire_plugin::host::files;
use sandwire_plugin::host::leases::{self, Store};
use sandwire_plugin::{
    Attachment, Call, Check, CniResult, Dns, Failure, Gc, HostError, IpConfig, NetworkCall, OrFail, Plugin, Status,
    code,
};
use std::net::IpAddr;

struct HostLocal;

sandwire_plugin::export!(HostLocal: check, gc, status);

impl Plugin for HostLocal {
    fn add(call: &Call) -> Result<CniResult, Failure> {
        let [ip] = call.args(["IP"])?;
        let config = Config::load(call.config_text(), ip)?;
        let dns = config.resolv_conf.as_deref().map(read_dns).transpose()?.unwrap_or_default();
        let store = leases::open(config.data_dir.as_deref())?;

        let mut wanted = distinct(&config.requested);
        let mut ips = Vec::new();
        for (n, set) in (0..).zip(&config.ranges) {
            let requested = wanted.iter().position(|ip| set.contains(*ip)).map(|at| wanted.remove(at));
            let given = match requested {
                Some(ip) => take(&store, n, set, ip),
                None => take_next(&store, n, set),
            };
            ips.push(given.or_fail(["failed to allocate for range ", &n.to_string()].concat())?);
        }
        if !wanted.is_empty() {
            let left: String = wanted.iter().map(|ip| format!(" {ip}")).collect();
            return Err(Failure::internal(format!("failed to allocate all requested IPs:{left}")));
        }
        Ok(CniResult { ips, routes: config.routes, dns, ..CniResult::default() })
    }

    /// Needs to know the store and nothing else: a configuration that was broken or changed since ADD must not keep the
    /// address.
    fn del(call: &Call) -> Result<(), Failure> {
        leases::open(data_dir(call.config_text()).as_deref())?.release()?;
        Ok(())
    }
}

impl Check for HostLocal {
    /// The reference takes any address (`FindByID`). Here there has to be one of each range set that the container has an
    /// address of, by prevResult: sets may have been added or changed since ADD.
    fn check(call: &Call) -> Result<(), Failure> {
        let config = Config::load(call.config_text(), None)?;
        let held = leases::open(config.data_dir.as_deref())?.held()?;
        let id = call.container_id();
        if held.is_empty() {
            return Err(Failure::internal(format!("host-local: Failed to find address added by container {id}")));
        }
        let held: Vec<IpAddr> = held.iter().filter_map(|lease| lease.address.parse().ok()).collect();
        let is_lost = |ip: &IpAddr| {
            let set = config.ranges.iter().find(|set| set.contains(*ip));
            set.is_some_and(|set| !held.iter().any(|held| set.contains(*held)))
        };
        let given = call.prev_result()?.map(|result| result.ips).unwrap_or_default();
        let lost = given.iter().map(|ip| ip.address.addr()).find(is_lost);
        lost.map_or(Ok(()), |ip| {
            Err(Failure::internal(format!("host-local: {ip} is not leased to container {id} any more")))
        })
    }
}

impl Gc for HostLocal {
    fn gc(call: &NetworkCall, valid: Option<&[Attachment]>) -> Result<(), Failure> {
        // A runtime that does not say which attachments are valid says nothing of the others.
        let Some(valid) = valid else { return Ok(()) };
        leases::open(data_dir(call.config_text()).as_deref())?.retain(valid)?;
        Ok(())
    }
}

impl Status for HostLocal {
    fn status(call: &NetworkCall) -> Result<(), Failure> {
        let config = Config::load(call.config_text(), None)?;
        let store = leases::open(config.data_dir.as_deref())?;
        for set in &config.ranges {
            let free = store.available(&set.allocatable())?;
            if free == 0 {
                return Err(Failure::new(
                    code::NOT_AVAILABLE,
                    format!("no IP addresses available in range set: {set}"),
                )
                .with_details(format!("0 of {} addresses are free", set.size())));
            }
        }
        Ok(())
    }
}

/// An address that was asked for.
fn take(store: &Store, n: u32, set: &RangeSet, ip: IpAddr) -> Result<IpConfig, Failure> {
    let address = set.address(ip).ok_or_else(|| not_available(set, ip))?;
    if address.gateway == Some(ip) {
        return Err(Failure::internal(format!("requested ip {ip} is subnet's gateway")));
    }
    match store.reserve(n, &ip.to_string()) {
        Ok(()) => Ok(address),
        Err(HostError::Exists(_) | HostError::Conflict(_)) => Err(not_available(set, ip)),
        Err(error) => Err(error.into()),
    }
}

fn not_available(set: &RangeSet, ip: IpAddr) -> Failure {
    Failure::internal(format!("requested IP address {ip} is not available in range set {set}"))
}

/// The next free one. The store's own texts are the reference's.
fn take_next(store: &Store, n: u32, set: &RangeSet) -> Result<IpConfig, Failure> {
    let given = store.reserve_next(n, &set.ranges(), &set.gateways())?;
    let known = given.parse().ok().and_then(|ip| set.address(ip));
    known.ok_or_else(|| Failure::internal(format!("the store gave {given}, which is not in range set {set}")))
}

fn read_dns(path: &str) -> Result<Dns, Failure> {
    Ok(resolv_conf::parse(&files::read(path)?))
}
