//! Log lines: to stderr, one line each, with plugin, network and attachment. The result alone goes to stdout.

use crate::guest::Guest;
use std::io::Write;

/// One line for an operator, from sandwire itself.
pub(crate) fn note(level: &str, text: &str) {
    // A closed stderr is no reason to fail a call.
    let _ = writeln!(std::io::stderr(), "sandwire: {level}: {}", plain(text));
}

/// One line of a guest, as far as its budget goes: a guest must not be able to fill the node's log.
pub(crate) fn line(guest: &mut Guest, level: &str, context: &str, message: &str) {
    let budget = guest.grant.limits.log_bytes;
    let plugin = guest.grant.plugin.clone();
    if guest.logged > budget {
        return;
    }
    guest.logged = guest.logged.saturating_add(message.len()).saturating_add(context.len()).saturating_add(32);
    if guest.logged > budget {
        note("warn", &format!("plugin={plugin} logs more than {budget} bytes: the rest is left out"));
        return;
    }
    let about = match guest.session() {
        Ok(session) => {
            let a = &session.subject.attachment;
            format!("plugin={plugin} network={} container={} interface={}", a.network, a.container_id, a.ifname)
        }
        Err(_) => format!("plugin={plugin}"),
    };
    let context = if context.is_empty() { String::new() } else { format!(" {context}:") };
    note(level, &format!("{about}{context} {message}"));
}

/// Without control characters: a guest's text must not forge lines or drive a terminal.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The end, when not even the state to undo from is there: a CNI error object on stdout, exit 1.
pub(crate) fn fatal(text: &str) -> ! {
    let error = sandwire_cni::Error::internal(text.to_owned());
    let _ = writeln!(std::io::stdout(), "{}", error.to_json());
    std::process::exit(1)
}
