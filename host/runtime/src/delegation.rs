//! Delegates: another plugin for the same attachment, in this process when it is ours, by the child otherwise.

use crate::native::{Found, find};
use crate::session::Session;
use crate::undo::{self, Fate};
use crate::verbs;
use sandwire_cni::{CniResult, Command, Error, NetworkConfig, Version, code};
use sandwire_policy::{Grant, matches_any};
use sandwire_state::journal::Undo;

/// Deeper than any real chain of delegates (multus, flannel, bridge, host-local), and an end to a plugin that
/// delegates to itself.
const DEEPEST: usize = 4;

/// More than any real plugin runs in one call. The memory of each that has run is bounded, but what the host keeps of it goes
/// with the process only.
const MOST_RUNS: usize = 16;

/// Runs `verb` of `plugin` with `config`; ADD's answer is the result in the newest shape.
///
/// # Errors
/// The delegate's own failure, unchanged; `POLICY_DENIED`; that the plugin is not found.
pub(crate) fn run(
    mut session: Box<Session>,
    parent: &Grant,
    verb: Command,
    plugin: &str,
    config: &str,
) -> (Box<Session>, Result<String, Error>) {
    let config = match check(&session, parent, verb, plugin, config) {
        Ok(config) => config,
        Err(error) => return (session, Err(error)),
    };
    let found = match find(plugin, &session.subject.path) {
        Ok(found) => found,
        Err(error) => return (session, Err(error)),
    };
    session.depth += 1;
    session.delegated += 1;
    let depth = session.depth;
    // Whoever else answers with addresses is no address manager: the attachment does not hold them for that.
    let is_ipam = config.ipam_type.as_deref() == Some(plugin);
    let (mut session, answer) = match found {
        Found::Ours => in_process(session, verb, plugin, &config),
        Found::Native(_) => {
            let answer = native(&mut session, parent, verb, plugin, &config);
            (session, answer)
        }
    };
    session.depth = depth - 1;
    // A lease whose ADD failed has been given back, too.
    let is_given_back = (verb == Command::Del && answer.is_ok()) || (verb == Command::Add && answer.is_err());
    if is_ipam && is_given_back && session.subject.verb == Command::Add {
        session.forget_held();
    }
    if verb == Command::Add
        && is_ipam
        && let Ok(text) = &answer
        && let Ok(result) = CniResult::parse(text, Version::V110)
    {
        session.remember_result(&result);
    }
    (session, answer)
}

fn check(session: &Session, parent: &Grant, verb: Command, plugin: &str, config: &str) -> Result<NetworkConfig, Error> {
    if !parent.may_delegate(plugin, session.given.has_ipam(plugin)) {
        return Err(Error {
            code: code::POLICY_DENIED,
            msg: format!("plugin {:?} may not run plugin {plugin:?} as its delegate", parent.plugin),
            details: parent.to_allow(parent.with_delegate(plugin)),
        });
    }
    if session.depth >= DEEPEST {
        return Err(Error::internal(format!(
            "plugin {plugin:?} would be the delegate number {} in a row",
            DEEPEST + 1
        )));
    }
    if session.delegated >= MOST_RUNS {
        return Err(Error {
            code: code::LIMIT,
            msg: format!("plugin {:?} runs more than {MOST_RUNS} delegates", parent.plugin),
            details: "this is a bug of the plugin".into(),
        });
    }
    if session.only_looks() && verb != session.subject.verb {
        return Err(Error::internal(format!("{verb} of a delegate in {}", session.subject.verb)));
    }
    // Which addresses there are, which file has the leases, which host ports lead to the pod: the configuration says, and a
    // plugin that could write another one would hold whatever it likes.
    if !parent.own_addresses && !session.given.is(config) {
        return Err(Error {
            code: code::POLICY_DENIED,
            msg: format!("plugin {:?} may not run {plugin:?} with a configuration of its own", parent.plugin),
            details: format!(
                "it may hand on the one that it was given; a plugin that writes its delegates' configurations, and so decides which addresses a pod has, needs  {}",
                parent.entry("own_addresses = true")
            ),
        });
    }
    // The host's own text, not the guest's that means the same to the host: of equal keys it sees the last one, Go merges them.
    let config = if parent.own_addresses { config } else { session.given.text() };
    let config = NetworkConfig::parse(config.as_bytes(), verb)?;
    // A plugin must not reach into another network through a native delegate's own reading of the configuration.
    if config.name != session.subject.attachment.network {
        return Err(Error {
            code: code::POLICY_DENIED,
            msg: format!("plugin {:?} may not run a delegate for another network", parent.plugin),
            details: format!("it is called for {:?}, not for {:?}", session.subject.attachment.network, config.name),
        });
    }
    Ok(config)
}

fn in_process(
    session: Box<Session>,
    verb: Command,
    plugin: &str,
    config: &NetworkConfig,
) -> (Box<Session>, Result<String, Error>) {
    let grant = match session.generation.grant(plugin) {
        Ok(Some(grant)) => grant,
        Ok(None) => return (session, Err(verbs::unknown_plugin(plugin))),
        Err(error) => return (session, Err(error)),
    };
    let before = newest(&session);
    // In DEL of a parent the delegate is asked to DEL, and so on: the verb of the whole call decides what the journal
    // does, so a DEL of a delegate within ADD (a guest's own clean-up) is one whose effects need no undo.
    let (mut session, answer) = verbs::guest(session, grant, verb, config);
    if verb == Command::Add && answer.is_err() {
        // The parent may go on without it: what the delegate did must not stay until the parent's own end.
        for fate in undo::sweep(&mut session, |entry| entry.id > before) {
            if let Fate::Failed(text) | Fate::Later(text) | Fate::AgentDown(text) = fate {
                crate::log::note("error", &format!("after the failed ADD of delegate {plugin:?}: {text}"));
            }
        }
    }
    (session, answer)
}

fn newest(session: &Session) -> u64 {
    session.newest_entry()
}

fn native(
    session: &mut Session,
    parent: &Grant,
    verb: Command,
    plugin: &str,
    config: &NetworkConfig,
) -> Result<String, Error> {
    if !matches_any(&parent.native_delegates, plugin) {
        return Err(Error {
            code: code::POLICY_DENIED,
            msg: format!("plugin {:?} may not execute the native plugin {plugin:?}", parent.plugin),
            details: format!(
                "a native plugin can do anything to the node; {}",
                parent.to_allow(parent.with_native_delegate(plugin))
            ),
        });
    }
    match &session.native {
        Some(runner) => runner.permit(plugin, verb.as_str(), &session.subject.attachment.container_id)?,
        None => {
            return Err(Error::internal(format!(
                "native plugin {plugin:?} can't be executed any more: only the one that \"ipam\" names in the configuration can"
            )));
        }
    }
    let ifname = session.subject.attachment.ifname.clone();
    let text = config.text().to_owned();
    let undo = Undo::Delegate { plugin: plugin.to_owned(), config: text.clone(), ifname: ifname.clone() };
    let intent = match verb {
        Command::Add => session.intend(&parent.plugin, &undo).map_err(|e| Error::internal(e.text()))?,
        _ => None,
    };
    let deadline = session.deadline;
    let stdin = with_prev_result(text, session.prev_result.as_ref(), config.version);
    let container = session.subject.attachment.container_id.clone();
    let Some(runner) = &mut session.native else { return Err(Error::internal("the runner of native plugins is gone")) };
    let ran = runner.run(plugin, verb.as_str(), (container.as_str(), ifname.as_str()), &stdin, &deadline);
    if verb == Command::Del {
        match &ran {
            Ok(_) => session.released_delegates.push(plugin.to_owned()),
            Err(_) => session.failed_delegates.push((plugin.to_owned(), config.text().to_owned())),
        }
    }
    let stdout = ran?;
    session.done(intent, None).map_err(|e| Error::internal(e.text()))?;
    if verb == Command::Del {
        let _ = session.taken_back(|undo| matches!(undo, Undo::Delegate { plugin: name, .. } if name == plugin));
    }
    if verb != Command::Add {
        return Ok(String::new());
    }
    CniResult::parse(&stdout, config.version)?.to_json(Version::V110)
}

/// A native delegate reads prevResult where its parent does, in the configuration: CHECK of native `static` fails without.
/// Guests have it apart, so what they hand on is without.
fn with_prev_result(config: String, result: Option<&CniResult>, version: Version) -> String {
    let Some(result) = result.and_then(|result| result.to_json(version).ok()) else { return config };
    match config.split_once('{') {
        Some((_, members)) => ["{\"prevResult\":", &result, ",", members].concat(),
        None => config,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_native_delegate_gets_prev_result_in_its_configuration() {
        let result = CniResult::parse(r#"{"ips": [{"address": "10.1.2.9/24"}]}"#, Version::V110).unwrap();
        let config = r#" {"name": "net", "ipam": {"type": "static"}}"#;
        let text = with_prev_result(config.into(), Some(&result), Version::V040);
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["prevResult"]["ips"][0]["version"], "4");
        assert_eq!((&json["prevResult"]["cniVersion"], &json["name"]), (&"0.4.0".into(), &"net".into()));
        assert_eq!(with_prev_result(config.into(), None, Version::V040), config);
    }
}
