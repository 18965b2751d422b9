//! One sequence on two nodes: Debian's plugins on one, ours on the other.

use crate::generate::{Sequence, Step, kind};
use crate::look::{Fields, look};
use crate::names::{Names, flatten};
use anyhow::{Context, Result};
use sandwire_harness::{Node, Outcome, Place, Pod, Verb, versions};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A field that is not the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Seed of the sequence.
    pub seed: u64,
    /// The plugins of the network, in their order.
    pub plugins: Vec<String>,
    /// After which call: ADD, CHECK, DEL.
    pub after: &'static str,
    /// `result/ips/0/address`, `error/text`, `host link cni0/mtu`.
    pub field: String,
    /// With Debian's; none when the field is not there.
    pub native: Option<String>,
    /// With ours.
    pub ours: Option<String>,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown =
            |value: &Option<String>| value.as_ref().map_or("(not there)".to_owned(), |text| format!("{text:?}"));
        write!(f, "seed {}, {}, after {}: {}", self.seed, self.plugins.join("+"), self.after, self.field)?;
        write!(f, "\n    native {}\n    ours   {}", shown(&self.native), shown(&self.ours))
    }
}

struct Side {
    native: bool,
    node: Node,
    pods: BTreeMap<&'static str, Pod>,
    gone: BTreeSet<&'static str>,
    results: BTreeMap<&'static str, Value>,
    names: Names,
}

/// What a step came to on one side.
struct Did {
    outcome: Fields,
    failed: bool,
}

impl Did {
    /// One side failed and the other did not: that is one field.
    fn summarise(&mut self) {
        let text = self.outcome.remove("error/text");
        let outcome = text.map_or("done".to_owned(), |text| format!("failed: {text}"));
        self.outcome = Fields::from([("outcome".into(), outcome)]);
    }
}

impl Side {
    fn new(sequence: &Sequence, native: bool) -> Result<Self> {
        let node = if native { Node::new()? } else { Node::installed()? };
        let pods: BTreeMap<_, _> =
            ["a", "b"].into_iter().map(|name| Ok((name, node.pod(name)?))).collect::<Result<_>>()?;
        if sequence.has_firewall() {
            node.pod("outside")?;
        }
        node.sh(&sequence.before).context("what the sequence wants to be there")?;
        let configuration = Value::from(sequence.plugins.clone()).to_string() + &format!("{:?}", sequence.env);
        let (gone, results) = (BTreeSet::new(), BTreeMap::new());
        Ok(Self { native, node, pods, gone, results, names: Names::new(&configuration) })
    }

    fn call(
        &self,
        sequence: &Sequence,
        verb: Verb,
        pod: &str,
        plugin: &Value,
        prev: Option<&Value>,
    ) -> Result<Outcome> {
        let mut config = plugin.clone();
        if let Some(members) = config.as_object_mut() {
            members.insert("name".into(), sequence.name.clone().into());
            members.insert("cniVersion".into(), sequence.version.into());
            if let Some(prev) = prev {
                members.insert("prevResult".into(), prev.clone());
            }
        }
        let pod = self.pods.get(pod).context("no such pod")?;
        let mut call = self.node.call(kind(plugin), verb).pod(pod).ifname(sequence.ifname).config(&config);
        for (key, value) in &sequence.env {
            call = call.env(key, value);
        }
        if self.native { call.native() } else { call }.run()
    }

    fn step(&mut self, sequence: &Sequence, step: Step) -> Result<Did> {
        let (verb, pod) = match step {
            Step::Add(pod) => (Verb::Add, pod),
            Step::Check(pod) => (Verb::Check, pod),
            Step::Del(pod) => (Verb::Del, pod),
            Step::Gone(pod) => {
                if self.gone.insert(pod) {
                    self.pods.get(pod).context("no such pod")?.drop_netns(&self.node)?;
                    self.wait_for_the_end(pod)?;
                }
                return Ok(Did { outcome: Fields::new(), failed: false });
            }
        };
        self.names.forget();
        let last = self.results.get(pod).cloned();
        // libcni: prevResult goes along with CHECK and DEL from 0.4.0 on.
        let mut prev = if verb == Verb::Add || !versions::has_check(sequence.version) { None } else { last };
        let mut chain: Vec<&Value> = sequence.plugins.iter().collect();
        if verb == Verb::Del {
            chain.reverse();
        }
        let mut outcome = Fields::new();
        let mut failed = false;
        for plugin in chain {
            let called = self.call(sequence, verb, pod, plugin, prev.as_ref())?;
            if called.exit != Some(0) {
                failed = true;
                let side = if self.native { "native" } else { "ours" };
                outcome.insert("error/at".into(), kind(plugin).into());
                if let Some(panic) = called.stderr.lines().find(|line| self.native && line.starts_with("panic: ")) {
                    outcome.insert("error/text".into(), panic.to_owned());
                    break;
                }
                let error = called.error().with_context(|| format!("{side} of seed {}", sequence.seed))?;
                outcome.insert("error/code".into(), error.code.to_string());
                outcome.insert("error/text".into(), self.names.replace_in_error(&error.text()));
                break;
            }
            if verb == Verb::Add {
                prev = Some(called.result()?);
            }
        }
        match (verb, failed, prev) {
            (Verb::Add, false, Some(result)) => {
                let mut lines = BTreeMap::new();
                flatten("result", &result, &mut lines);
                outcome.extend(lines.into_iter().map(|(key, value)| (key, self.names.replace(&value))));
                self.results.insert(pod, result);
            }
            (Verb::Del, false, _) => drop(self.results.remove(pod)),
            _ => {}
        }
        Ok(Did { outcome, failed })
    }

    /// The host's end of a namespace's veth goes when the kernel gets to it (cleanup_net): then there is one for each other
    /// pod that is attached, at most.
    fn wait_for_the_end(&self, pod: &str) -> Result<()> {
        let others = self.results.keys().filter(|other| **other != pod).count();
        let script = format!(
            "for i in $(seq 200); do [ $(ip -br link | grep -c ^veth) -gt {others} ] || exit 0; sleep 0.05; done; exit 1"
        );
        self.node.sh(&script).context("the kernel keeps a veth of a namespace that is gone").map(drop)
    }

    fn look(&mut self, sequence: &Sequence) -> Result<Fields> {
        let pods: Vec<(String, Place)> = self
            .pods
            .iter()
            .filter(|(name, _)| !self.gone.contains(**name))
            .map(|(name, pod)| (format!("pod {name}"), pod.place()))
            .collect();
        let mut fields = look(&self.node, &pods, &mut self.names)?;
        if sequence.has_firewall() {
            self.traffic(sequence, &pods, &mut fields)?;
        }
        Ok(fields)
    }

    /// The MAC of the pod's interface; empty when there is none.
    fn mac(&self, sequence: &Sequence, place: &Place) -> Result<String> {
        let links = self.node.view(place, "link")?;
        let link = links.iter().find(|link| link.get("ifname") == Some(&sequence.ifname.into()));
        Ok(link.and_then(|link| link.get("address")?.as_str()).unwrap_or_default().to_owned())
    }

    /// What a firewall lets through: between pods, to another machine and from there.
    fn traffic(&self, sequence: &Sequence, pods: &[(String, Place)], fields: &mut Fields) -> Result<()> {
        let (outside, elsewhere) = Sequence::OUTSIDE;
        let mut ends =
            vec![("outside".to_owned(), Place::Netns(outside.into()), elsewhere.map(str::to_owned).to_vec())];
        for (name, place) in pods {
            let result = self.results.iter().find(|(pod, _)| name.ends_with(**pod)).map(|(_, result)| result);
            let ips = result.and_then(|result| result.get("ips")?.as_array());
            let addresses = ips.into_iter().flatten().filter_map(|ip| ip.get("address")?.as_str()?.split('/').next());
            ends.push((name.clone(), place.clone(), addresses.map(str::to_owned).collect()));
        }
        // A network can give all its pods one MAC: the bridge then takes whichever port it heard last for both of them
        // (br_fdb_update), and which pings pass is chance.
        let macs = ends.iter().map(|(_, place, _)| self.mac(sequence, place)).collect::<Result<Vec<_>>>()?;
        let alone = |mac: &String| mac.is_empty() || macs.iter().filter(|other| *other == mac).count() == 1;
        let mut alone = macs.iter().map(alone);
        ends.retain(|_| alone.next().unwrap_or(true));
        // Until duplicate address detection is over a gateway answers nobody.
        let settled = "for i in $(seq 60); do ip -6 addr show tentative | grep -q inet6 || break; sleep 0.05; done";
        if ends.iter().any(|(name, _, addresses)| name != "outside" && !addresses.is_empty()) {
            ends.iter()
                .map(|(_, place, _)| place)
                .chain([&Place::Host])
                .try_for_each(|place| self.node.sh_at(place, settled).map(drop))?;
        }
        for (from, place, own) in &ends {
            let probes: Vec<(&String, &String)> = ends
                .iter()
                .filter(|(to, ..)| to != from && !own.is_empty())
                .flat_map(|(to, _, addresses)| addresses.iter().map(move |address| (to, address)))
                .collect();
            if probes.is_empty() {
                continue;
            }
            // All at once, for what is dropped takes its time; and once more, for a busy machine may take its own.
            let ping = |address: &str| {
                let ping = |most: &str| format!("ping -n -c 1 -W {most} {address} >/dev/null 2>&1");
                format!("({} || {}) && echo {address} &\n", ping("0.2"), ping("0.6"))
            };
            let script: String = probes.iter().map(|(_, address)| ping(address)).collect();
            let answered = self.node.sh_at(place, &format!("{script}wait"))?;
            for (to, address) in probes {
                let family = if address.contains(':') { "IPv6" } else { "IPv4" };
                let passes = answered.lines().any(|line| line == address);
                fields.insert(format!("traffic {from} > {to} {family}"), passes.to_string());
            }
        }
        Ok(())
    }
}

/// Runs the sequence on two fresh nodes; every field that is not the same, the first time that it is not.
///
/// # Errors
/// When a node can't be made, or a plugin hangs or prints what is no result and no error.
pub fn run(sequence: &Sequence) -> Result<Vec<Difference>> {
    let mut native = Side::new(sequence, true)?;
    let mut ours = Side::new(sequence, false)?;
    let plugins: Vec<String> = sequence.plugins.iter().map(|plugin| kind(plugin).to_owned()).collect();
    let mut differences = Vec::new();
    let mut seen = BTreeSet::new();
    let mut steps: VecDeque<Step> = sequence.steps.iter().copied().collect();
    while let Some(step) = steps.pop_front() {
        if matches!(step, Step::Check(pod) if !native.results.contains_key(pod)) {
            // No runtime checks what it could not attach.
            continue;
        }
        let (mut theirs, mut mine) = (native.step(sequence, step)?, ours.step(sequence, step)?);
        if theirs.failed != mine.failed {
            theirs.summarise();
            mine.summarise();
        }
        let mut add = |fields: [&Fields; 2]| {
            let [theirs, mine] = fields;
            let keys: BTreeSet<&String> = theirs.keys().chain(mine.keys()).collect();
            for key in keys.into_iter().filter(|key| theirs.get(*key) != mine.get(*key)) {
                let difference = Difference {
                    seed: sequence.seed,
                    plugins: plugins.clone(),
                    after: step.name(),
                    field: key.clone(),
                    native: theirs.get(key).cloned(),
                    ours: mine.get(key).cloned(),
                };
                // What differs after one call does so after the next one too.
                if seen.insert((key.clone(), difference.native.clone(), difference.ours.clone())) {
                    differences.push(difference);
                }
            }
        };
        add([&theirs.outcome, &mine.outcome]);
        if theirs.failed != mine.failed {
            break;
        }
        match step {
            // Every runtime deletes what it could not attach (libcni, "ADD"); the reference leaves its clean-up to that call.
            Step::Add(pod) if theirs.failed => {
                steps.push_front(Step::Del(pod));
                continue;
            }
            Step::Gone(_) => continue,
            _ => {}
        }
        let (theirs, mine) = (native.look(sequence)?, ours.look(sequence)?);
        add([&theirs, &mine]);
    }
    Ok(differences)
}

/// For a reader who wants to make the calls by hand.
impl std::fmt::Display for Sequence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let list = json!({"cniVersion": self.version, "name": self.name, "plugins": self.plugins});
        writeln!(f, "seed {}: {} {:?}", self.seed, self.ifname, self.env)?;
        if !self.before.is_empty() {
            writeln!(f, "  before: {}", self.before)?;
        }
        writeln!(f, "  {list}")?;
        write!(f, "  {}", self.steps.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
    }
}
