//! The text of `steps`.

use anyhow::{Context, Result, bail};

/// One step: what is done, and what must come of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// As written, for messages.
    pub text: String,
    /// What is done.
    pub action: Action,
    /// What must come of it; empty means success.
    pub expected: Vec<Expectation>,
}

/// A pod and one of its interfaces.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subject {
    /// As in `add a`.
    pub pod: String,
    /// CNI_IFNAME.
    pub ifname: String,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// ADD, DEL or CHECK, with `config.json` or another file.
    Call(crate::Verb, Subject, Option<String>),
    /// GC: none when the runtime doesn't say what is valid; `None` inside is JSON's null. With `config.json` or another file.
    Gc(Option<Option<Vec<Subject>>>, Option<String>),
    /// STATUS, with `config.json` or another file.
    Status(Option<String>),
    /// VERSION.
    Version,
    /// The next CHECK and DEL get this file as prevResult, or none.
    Prev(Subject, Option<String>),
    /// The namespace goes, with its path.
    NetnsGone(String),
    /// DEL is told no path.
    NetnsEmpty(String),
    /// A new namespace at the same path.
    NetnsNew(String),
    /// Shell command; in a pod or the host; must it succeed?
    Shell(Option<String>, String, bool),
    /// From a pod to an address or another pod; must it arrive?
    Ping(String, String, bool),
    /// What the scripted agent does from now on.
    Agent(crate::agent::Mode),
    /// Only look.
    Kernel,
    /// Nothing of any attachment is there.
    LeftNothing,
}

/// What must come of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expectation {
    /// Exit 0.
    Ok,
    /// This result.
    Result(String),
    /// This in the kernel and in the files.
    Kernel(String),
    /// The error in this file.
    ErrorFile(String),
    /// An error with this code.
    Code(u32),
    /// An error with this text.
    Text(String),
}

/// All steps of a text.
///
/// # Errors
/// With the step that isn't in the format.
pub fn parse(text: &str) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    for line in text.lines() {
        let line = line.trim();
        if is_shell(line) {
            steps.push(step(line).with_context(|| line.to_owned())?);
            continue;
        }
        let line = line.split('#').next().unwrap_or_default();
        for part in line.split(';').map(str::trim).filter(|part| !part.is_empty()) {
            steps.push(step(part).with_context(|| part.to_owned())?);
        }
    }
    if steps.is_empty() {
        bail!("no steps");
    }
    Ok(steps)
}

fn is_shell(line: &str) -> bool {
    ["host ", "host! ", "in ", "in! "].iter().any(|word| line.starts_with(word))
}

fn step(text: &str) -> Result<Step> {
    if is_shell(text) {
        let (word, rest) = text.split_once(' ').unwrap_or_default();
        let succeeds = !word.ends_with('!');
        let action = if word.starts_with("host") {
            Action::Shell(None, rest.to_owned(), succeeds)
        } else {
            let (pod, command) = rest.split_once(' ').context("in which pod?")?;
            Action::Shell(Some(pod.to_owned()), command.to_owned(), succeeds)
        };
        return Ok(Step { text: text.to_owned(), action, expected: Vec::new() });
    }
    let (left, right) = text.split_once("->").unwrap_or((text, ""));
    let words: Vec<&str> = left.split_whitespace().collect();
    let (words, file) = match words.as_slice() {
        [words @ .., "with", file] => (words, Some((*file).to_owned())),
        words => (words, None),
    };
    let action = match words {
        ["add", pod] => Action::Call(crate::Verb::Add, subject(pod), file),
        ["del", pod] => Action::Call(crate::Verb::Del, subject(pod), file),
        ["check", pod] => Action::Call(crate::Verb::Check, subject(pod), file),
        ["gc"] => Action::Gc(None, file),
        ["gc", "null"] => Action::Gc(Some(None), file),
        ["gc", "none"] => Action::Gc(Some(Some(Vec::new())), file),
        ["gc", valid @ ..] => Action::Gc(Some(Some(valid.iter().map(|word| subject(word)).collect())), file),
        ["status"] => Action::Status(file),
        _ if file.is_some() => bail!("only a call can be made `with` another configuration"),
        ["version"] => Action::Version,
        ["prev", "none", pod] => Action::Prev(subject(pod), None),
        ["prev", pod, file] => Action::Prev(subject(pod), Some((*file).to_owned())),
        ["netns-gone", pod] => Action::NetnsGone((*pod).to_owned()),
        ["netns-empty", pod] => Action::NetnsEmpty((*pod).to_owned()),
        ["netns-new", pod] => Action::NetnsNew((*pod).to_owned()),
        ["ping", from, to] => Action::Ping((*from).to_owned(), (*to).to_owned(), true),
        ["no-ping", from, to] => Action::Ping((*from).to_owned(), (*to).to_owned(), false),
        ["agent", mode @ ..] => Action::Agent(agent(mode)?),
        ["kernel", file] => {
            let expected = vec![Expectation::Kernel((*file).to_owned())];
            return Ok(Step { text: text.to_owned(), action: Action::Kernel, expected });
        }
        ["left", "nothing"] => Action::LeftNothing,
        _ => bail!("unknown step"),
    };
    Ok(Step { text: text.to_owned(), action, expected: expectations(right)? })
}

fn subject(word: &str) -> Subject {
    let (pod, ifname) = word.split_once('/').unwrap_or((word, "eth0"));
    Subject { pod: pod.to_owned(), ifname: ifname.to_owned() }
}

fn agent(words: &[&str]) -> Result<crate::agent::Mode> {
    use crate::agent::Mode;
    Ok(match words {
        ["ok"] => Mode::Ok,
        ["500"] => Mode::Status(500, "Malformed route target".into()),
        ["400", text @ ..] => Mode::Status(400, format!("API error: {}", text.join(" "))),
        ["html"] => Mode::Html,
        ["half"] => Mode::Half,
        ["hang"] => Mode::Hang,
        ["hang-on-post"] => Mode::HangOnPost,
        ["refuse"] => Mode::Refuse,
        ["no-peers"] => Mode::NoPeers,
        _ => bail!("unknown mode of the agent"),
    })
}

fn expectations(text: &str) -> Result<Vec<Expectation>> {
    let mut found = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        if let Some(quoted) = rest.strip_prefix('"') {
            let (inner, after) = quoted.split_once('"').context("a quote isn't closed")?;
            found.push(Expectation::Text(inner.to_owned()));
            rest = after.trim();
            continue;
        }
        let (word, after) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        rest = after.trim();
        found.push(match word {
            "ok" => Expectation::Ok,
            "code" => {
                let (number, after) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
                rest = after.trim();
                Expectation::Code(number.parse().context("code NUMBER")?)
            }
            file if file.ends_with(".txt") => Expectation::ErrorFile(file.to_owned()),
            file if file.ends_with(".json") && file.starts_with("kernel") => Expectation::Kernel(file.to_owned()),
            file if file.ends_with(".json") => Expectation::Result(file.to_owned()),
            _ => bail!("unknown expectation {word:?}"),
        });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_to_steps() {
        let steps = parse(
            "add a; add b/net1 with x.json -> result.json kernel-b.json  # more\nhost ip link; true # mine\n\
             in a cat /proc/x\nadd c -> code 7 \"no such thing\"\ngc a b/net1; gc; gc null; prev none a\nagent 400 not there",
        )
        .unwrap();
        let actions: Vec<&Action> = steps.iter().map(|step| &step.action).collect();
        assert_eq!(steps.len(), 10);
        assert_eq!(
            steps[1].expected,
            [Expectation::Result("result.json".into()), Expectation::Kernel("kernel-b.json".into())]
        );
        assert_eq!(*actions[2], Action::Shell(None, "ip link; true # mine".into(), true));
        assert_eq!(*actions[3], Action::Shell(Some("a".into()), "cat /proc/x".into(), true));
        assert_eq!(steps[4].expected, [Expectation::Code(7), Expectation::Text("no such thing".into())]);
        assert_eq!(*actions[6], Action::Gc(None, None));
        assert_eq!(*actions[7], Action::Gc(Some(None), None));
        for wrong in
            ["", "addd a", "add", "add a with", "ping a b with x.json", "add a -> fine", "add a -> \"x", "agent sleeps"]
        {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
