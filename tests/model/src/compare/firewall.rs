//! The firewall's rules: each attachment has exactly its own.

use super::{Comparison, addresses_of};
use crate::networks::Attachment;
use crate::rules::{Lines, Ruleset, expected};
use crate::state::{Holder, State};
use std::net::IpAddr;

impl Comparison<'_> {
    pub(super) fn rules(&mut self) {
        let Some(ruled) = &self.observed.ruled else { return };
        for attachment in Attachment::all() {
            self.rules_of(&attachment, ruled);
        }
        self.found.extend(ruled.nobodys.iter().map(|line| format!("{line} is nobody's")));
        if !self.model.untidy {
            self.found
                .extend(ruled.empty.iter().map(|name| format!("{name} of the firewall is left without an element")));
        }
        for text in &ruled.spoken {
            let fine = match text.parse::<IpAddr>() {
                Ok(address) => self.model.states().any(|(attachment, state)| {
                    attachment.net.has_rules()
                        && match state {
                            State::Up(up) => addresses_of(&up.addresses).contains(&address),
                            State::Loose => true,
                            _ => false,
                        }
                }),
                Err(_) => self.may_be(text),
            };
            if !fine {
                self.found.push(format!("a rule about {text} is left"));
            }
        }
    }

    fn rules_of(&mut self, attachment: &Attachment, ruled: &Ruleset) {
        let none = Lines::new();
        let has = ruled.of.get(attachment).unwrap_or(&none);
        let (wanted, possible) = match self.model.state(attachment) {
            State::Loose => return,
            State::Up(up) => {
                let expected = expected(attachment, up);
                let mut possible = expected.own.clone();
                possible.extend(expected.contended.iter().cloned());
                let mut wanted = expected.own;
                match self.model.holder {
                    Holder::Is(holder) if holder == *attachment => wanted.extend(expected.contended),
                    Holder::Unknown => {}
                    _ => possible.clone_from(&wanted),
                }
                if up.damage.is_some() {
                    wanted.clear();
                }
                (wanted, possible)
            }
            _ => (Lines::new(), Lines::new()),
        };
        self.found.extend(wanted.difference(has).map(|line| format!("{attachment}: the firewall has no {line}")));
        self.found.extend(has.difference(&possible).map(|line| format!("{attachment}: the firewall still has {line}")));
    }
}
