//! Whether somebody renews what DHCP servers gave.

use super::Check;
use sandwire_kernel::{DhcpLease, DhcpRequest, boot_time};
use sandwire_policy::paths;
use sandwire_runtime::repair;
use sandwire_state::journal;
use std::path::Path;

/// One check, if there is such a lease.
pub(super) fn checks() -> Option<Check> {
    // What is wrong with the journal the checks of its directory say.
    let summaries = journal::list(Path::new(paths::JOURNAL), None).unwrap_or_default();
    let leases: Vec<DhcpLease> = summaries.iter().flat_map(repair::leased).collect();
    if leases.is_empty() {
        return None;
    }
    let now = boot_time().unwrap_or(0);
    let late = leases.iter().filter(|lease| lease.due(now) == Some(DhcpRequest::Rebind)).count();
    let what = "leases of DHCP servers";
    Some(match late {
        0 => Check::ok(what, format!("{}, all in time", leases.len())),
        late => Check::fail(
            what,
            format!("{late} of {} should have been renewed long ago, or are over", leases.len()),
            "run: sandwirectl repair, which says why; it has to be run by a timer (docs/operating.md, \"A timer for it\")",
        ),
    })
}
