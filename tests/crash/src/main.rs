//! Prints the crash tables of Debian's plugins and of ours, from the same trials (`docs/reliability.md`).

use sandwire_crash::{Report, Table, compare};
use std::io::Write;

fn main() -> anyhow::Result<()> {
    let mut reports = Vec::new();
    for plan in compare::plans() {
        let report = Report::make(&plan, 2)?;
        // Each when it is there: all of them take minutes.
        writeln!(std::io::stdout(), "{}", Table::of_calls(std::slice::from_ref(&report)))?;
        writeln!(std::io::stdout(), "{}", Table::of_reports(std::slice::from_ref(&report)))?;
        reports.push(report);
    }
    writeln!(std::io::stdout(), "{}", Table::of_reports(&reports))?;
    Ok(())
}
