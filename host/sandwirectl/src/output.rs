//! To whom and how: text for people, JSON for programs, and what is wrong to stderr either way.

use anyhow::{Context, Result};
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;
use std::fmt::Display;
use std::io::{BufRead, IsTerminal, Write};

/// The chosen form.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    /// Machine-readable.
    pub(crate) json: bool,
}

impl Output {
    /// One line for people.
    pub(crate) fn line(self, text: impl Display) {
        // A closed pipe (`sandwirectl plugins | head -1`) is no error.
        writeln!(std::io::stdout(), "{text}").ok();
    }

    /// Something to look at.
    pub(crate) fn warn(self, text: impl Display) {
        writeln!(std::io::stderr(), "warning: {text}").ok();
    }

    /// Why the command failed: what, then why, each cause on its line.
    pub(crate) fn error(self, error: &anyhow::Error) {
        let mut stderr = std::io::stderr();
        if self.json {
            let causes: Vec<String> = error.chain().map(ToString::to_string).collect();
            writeln!(stderr, "{}", serde_json::json!({"error": causes})).ok();
            return;
        }
        writeln!(stderr, "error: {error}").ok();
        for cause in error.chain().skip(1) {
            writeln!(stderr, "  because: {cause}").ok();
        }
    }

    /// The whole answer for a program.
    pub(crate) fn json(self, value: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string_pretty(value).context("could not write JSON")?;
        writeln!(std::io::stdout(), "{text}").ok();
        Ok(())
    }

    /// A table for people.
    pub(crate) fn table<const N: usize>(self, header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
        table.set_header(header);
        for row in rows {
            table.add_row(row);
        }
        self.line(table.trim_fmt());
    }

    /// Whether whoever is at the terminal says yes.
    ///
    /// # Errors
    /// When there is none to ask or to hear from.
    pub(crate) fn confirmed(self, question: &str) -> Result<bool> {
        let mut stdout = std::io::stdout();
        write!(stdout, "{question} [y/N] ")?;
        stdout.flush()?;
        let mut answer = String::new();
        std::io::stdin().lock().read_line(&mut answer)?;
        Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
    }

    /// Whether a progress bar would be in the way.
    pub(crate) fn quiet_progress(self) -> bool {
        self.json || !std::io::stderr().is_terminal()
    }
}
