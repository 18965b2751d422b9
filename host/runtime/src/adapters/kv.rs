//! `kv`: small notes of a plugin in a network.

use crate::bindings::kv::{self, Scope};
use crate::guest::Guest;
use crate::refusal::{Answer, Refusal};
use sandwire_policy::paths;
use sandwire_state::journal::Undo;
use sandwire_state::kv::Notes;
use std::path::Path;

/// Notes are small: state that grows belongs in the agent or in leases.
const LARGEST: usize = 64 << 10;

impl Guest {
    fn notes(&mut self, scope: Scope) -> Answer<Notes> {
        let plugin = self.grant.plugin.clone();
        let attachment = self.session()?.subject.attachment.clone();
        let owner = attachment.owner();
        let owner = match scope {
            Scope::Attachment => Some(&owner),
            Scope::Network => None,
        };
        Ok(Notes::open(Path::new(paths::NOTES), &plugin, &attachment.network, owner))
    }

    fn noting(&mut self, scope: Scope, key: &str, value: &str) -> Answer<Option<u64>> {
        if value.len() > LARGEST {
            return Err(Refusal::invalid(format!("a note of {} bytes: at most {LARGEST} are kept", value.len())));
        }
        let plugin = self.grant.plugin.clone();
        let session = self.session()?;
        session.may_change()?;
        match scope {
            Scope::Attachment => {
                let undo = Undo::RemoveNote { plugin: plugin.clone(), scope: "attachment".into(), key: key.to_owned() };
                session.intend(&plugin, &undo)
            }
            // A network's notes are shared by its attachments.
            Scope::Network => Ok(None),
        }
    }
}

impl kv::Host for Guest {
    fn get(&mut self, scope: Scope, key: String) -> Answer<Option<String>> {
        Ok(self.notes(scope)?.get(&key)?)
    }

    fn set(&mut self, scope: Scope, key: String, value: String) -> Answer<()> {
        let intent = self.noting(scope, &key, &value)?;
        self.notes(scope)?.set(&key, &value)?;
        self.session()?.done(intent, None)
    }

    fn swap(&mut self, scope: Scope, key: String, expected: Option<String>, value: String) -> Answer<()> {
        let intent = self.noting(scope, &key, &value)?;
        self.notes(scope)?.swap(&key, expected.as_deref(), &value)?;
        self.session()?.done(intent, None)
    }

    fn remove(&mut self, scope: Scope, key: String) -> Answer<()> {
        self.session()?.may_change()?;
        self.notes(scope)?.remove(&key)?;
        let plugin = self.grant.plugin.clone();
        match scope {
            Scope::Network => Ok(()),
            Scope::Attachment => self.session()?.taken_back(|undo| {
                matches!(undo, Undo::RemoveNote { plugin: whose, key: name, .. } if *whose == plugin && *name == key)
            }),
        }
    }

    fn keys(&mut self, scope: Scope) -> Answer<Vec<String>> {
        Ok(self.notes(scope)?.keys()?)
    }
}
