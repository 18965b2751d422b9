//! `leases`: the addresses that are given on this node, from the lease files and what the index and the journal know of
//! them.

use crate::output::Output;
use anyhow::{Result, anyhow, bail, ensure};
use sandwire_runtime::repair::in_time;
use sandwire_runtime::stores;
use sandwire_state::journal::Attachment;
use sandwire_state::leases::Made;
use serde::Serialize;
use std::collections::HashSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

/// What is asked of leases.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    action: Option<Action>,
    /// Only those of this network
    #[arg(long, value_name = "NAME", global = true)]
    network: Option<String>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List every lease (this is what `leases` alone does)
    List,
    /// Show who holds an address
    Show {
        /// The address
        address: IpAddr,
    },
    /// Give an address back, although nobody called DEL
    Release {
        /// The address
        address: IpAddr,
        /// Don't ask
        #[arg(long)]
        yes: bool,
    },
}

/// One lease.
#[derive(Debug, Clone, Serialize)]
struct Row {
    network: String,
    address: IpAddr,
    /// None when its file has no owner, or can't be read.
    container_id: Option<String>,
    /// Empty when a release of host-local before 0.8.3 wrote it.
    interface: Option<String>,
    /// "this", "earlier", or "unknown" for native host-local's.
    boot: &'static str,
    /// By the clock of that time, RFC 3339.
    made: Option<String>,
    /// Whether the journal knows the attachment: an ADD of ours made it, and no DEL has ended it.
    attached: bool,
    state: &'static str,
    directory: PathBuf,
}

/// Lists, shows or releases.
pub(crate) fn leases(output: &Output, options: &Options) -> Result<bool> {
    let rows = rows(options.network.as_deref())?;
    match &options.action {
        None | Some(Action::List) => list(output, &rows),
        Some(Action::Show { address }) => show(output, &of_address(rows, *address)?),
        Some(Action::Release { address, yes }) => release(output, of_address(rows, *address)?, *yes),
    }
}

fn rows(network: Option<&str>) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for directory in stores::directories()? {
        let name = stores::network(&directory);
        if network.is_some_and(|network| network != name) {
            continue;
        }
        let survey = in_time(|| stores::open(&directory)?.survey())?;
        let known = stores::known(Some(&name))?;
        let known: HashSet<Attachment> = known.into_iter().map(|summary| summary.attachment).collect();
        let row = |address, state| Row {
            network: name.clone(),
            address,
            container_id: None,
            interface: None,
            boot: "unknown",
            made: None,
            attached: false,
            state,
            directory: directory.clone(),
        };
        rows.extend(survey.leases.into_iter().map(|lease| {
            let container_id = lease.owner.container_id.clone();
            let attached = known.iter().any(|attachment| {
                attachment.container_id == container_id
                    && (attachment.ifname == lease.owner.ifname || lease.owner.ifname.is_empty())
            });
            let boot = match lease.made {
                Made::ThisBoot => "this",
                Made::EarlierBoot => "earlier",
                Made::Unknown => "unknown",
            };
            Row {
                boot,
                attached,
                made: lease.written.and_then(rfc_3339),
                interface: Some(lease.owner.ifname),
                container_id: Some(lease.owner.container_id),
                ..row(lease.address, "held")
            }
        }));
        rows.extend(survey.empty.into_iter().map(|address| row(address, "without an owner")));
        rows.extend(survey.unreadable.into_iter().map(|address| row(address, "unreadable")));
    }
    rows.sort_by(|a, b| (&a.network, a.address, &a.directory).cmp(&(&b.network, b.address, &b.directory)));
    Ok(rows)
}

fn of_address(rows: Vec<Row>, address: IpAddr) -> Result<Row> {
    let mut found: Vec<Row> = rows.into_iter().filter(|row| row.address == address.to_canonical()).collect();
    let row = found.pop().ok_or_else(|| anyhow!("nobody holds {address} on this node"))?;
    if let Some(other) = found.pop() {
        bail!(
            "{address} is held in networks {:?} and {:?}; say which of them with --network",
            other.network,
            row.network
        );
    }
    Ok(row)
}

fn list(output: &Output, rows: &[Row]) -> Result<bool> {
    if output.json {
        output.json(&rows)?;
        return Ok(true);
    }
    if rows.is_empty() {
        output.line("no address is given");
        return Ok(true);
    }
    let text = |value: &Option<String>| value.clone().filter(|text| !text.is_empty()).unwrap_or_else(|| "-".into());
    output.table(
        ["NETWORK", "ADDRESS", "CONTAINER", "INTERFACE", "BOOT", "MADE", "STATE"],
        rows.iter().map(|row| {
            [
                row.network.clone(),
                row.address.to_string(),
                text(&row.container_id),
                text(&row.interface),
                row.boot.to_owned(),
                text(&row.made),
                state(row).to_owned(),
            ]
        }),
    );
    Ok(true)
}

fn state(row: &Row) -> &'static str {
    if row.attached { "attached" } else { row.state }
}

fn show(output: &Output, row: &Row) -> Result<bool> {
    if output.json {
        output.json(row)?;
    } else {
        output.line(describe(row));
    }
    Ok(true)
}

fn describe(row: &Row) -> String {
    let file = row.directory.join(row.address.to_string());
    let Some(container) = &row.container_id else {
        return format!("{} in network {:?} is {}: {}", row.address, row.network, row.state, file.display());
    };
    let interface = match row.interface.as_deref() {
        None | Some("") => "an unknown interface".to_owned(),
        Some(interface) => format!("interface {interface}"),
    };
    let made = row.made.as_ref().map(|made| format!(", made {made}")).unwrap_or_default();
    let boot = match row.boot {
        "this" => " in this boot",
        "earlier" => " in an earlier boot",
        _ => " (which boot is not known)",
    };
    let attached = match row.attached {
        true => "the journal knows it as attached",
        false => "the journal does not know it",
    };
    format!(
        "{} in network {:?} is held by container {container}, {interface}{made}{boot}; {attached}; {}",
        row.address,
        row.network,
        file.display()
    )
}

fn release(output: &Output, row: Row, yes: bool) -> Result<bool> {
    ensure!(
        row.state != "unreadable",
        "{} is no lease that can be read; look at it, and remove it by hand if it is nobody's",
        row.directory.join(row.address.to_string()).display()
    );
    if !yes {
        ensure!(!output.json, "nobody can be asked for confirmation in JSON; give --yes");
        output.line(describe(&row));
        if row.attached {
            output.warn("a container that lives may be using it: the next ADD could be given the same address");
        }
        if !output.confirmed("give it back?")? {
            bail!("not confirmed; nothing was done");
        }
    }
    // Under the store's lock, and only if it is still the one that was shown.
    let done = in_time(|| {
        let mut store = stores::open(&row.directory)?;
        match &row.container_id {
            Some(container) => {
                let owner = sandwire_state::Owner::new(container, row.interface.as_deref().unwrap_or_default());
                store.release_address(&owner, row.address)
            }
            None => Ok(store.remove_empty()?.contains(&row.address)),
        }
    })?;
    ensure!(done, "{} changed hands meanwhile; look again with: sandwirectl leases show {0}", row.address);
    if output.json {
        output.json(&row)?;
    } else {
        output.line(format_args!("{} in network {:?} is free", row.address, row.network));
    }
    Ok(true)
}

/// `2026-11-25T19:02:52Z`; none for a time before 1970.
fn rfc_3339(time: SystemTime) -> Option<String> {
    let seconds = time.duration_since(UNIX_EPOCH).ok()?.as_secs();
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days since 1 March of year 0, when leap days come last (Hinnant, "chrono-Compatible Low-Level Date Algorithms").
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    Some(format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{:02}Z", second % 60))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn times() {
        for (seconds, wanted) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_795_633_372, "2026-11-25T19:02:52Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc_3339(UNIX_EPOCH + Duration::from_secs(seconds)).as_deref(), Some(wanted));
        }
    }
}
