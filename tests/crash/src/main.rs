//! Prints the crash tables of Debian's plugins and of ours, from the same trials (`docs/reliability.md`).

use sandwire_crash::{Report, Table, compare};
use std::io::Write;

fn main() -> anyhow::Result<()> {
    let mut reports = Vec::new();
    for plan in compare::plans() {
        let report = match Report::make(&plan, 2) {
            Ok(report) => report,
            // Of an implementation that leaves something after an undisturbed call already.
            Err(error) => {
                let gone = if plan.netns_gone { ", netns gone" } else { "" };
                writeln!(std::io::stdout(), "{}{gone}: {error:#}\n", plan.scenario.name)?;
                continue;
            }
        };
        // Each when it is there: all of them take minutes.
        writeln!(std::io::stdout(), "{}", Table::of_calls(std::slice::from_ref(&report)))?;
        writeln!(std::io::stdout(), "{}", Table::of_reports(std::slice::from_ref(&report)))?;
        reports.push(report);
    }
    writeln!(std::io::stdout(), "{}", Table::of_reports(&reports))?;
    Ok(())
}
