//! `endpoint`: HTTP to an agent that policy names.

use crate::bindings::{endpoint, types};
use crate::endpoint::{self as http, Fault};
use crate::guest::Guest;
use crate::refusal::{Answer, Refusal};
use crate::undo;
use sandwire_policy::Endpoint;
use sandwire_state::journal::Undo;

impl Guest {
    fn endpoint_named(&self, name: &str) -> Answer<Endpoint> {
        self.grant.endpoints.get(name).cloned().ok_or_else(|| {
            let remedy = self.grant.to_allow(self.grant.with_endpoint(name));
            Refusal::not_granted(format!("call endpoint {name:?}"), remedy)
        })
    }
}

fn checked<'a>(name: &str, endpoint: &Endpoint, call: &'a endpoint::Call) -> Answer<http::Call<'a>> {
    if !http::allowed(endpoint, &call.method, &call.path) {
        return Err(Refusal::denied(format!(
            "{} {} is not among the calls that policy allows to endpoint {name:?} ({})",
            call.method,
            call.path,
            endpoint.allow.join(", ")
        )));
    }
    let call = http::Call { method: &call.method, path: &call.path, headers: &call.headers, body: &call.body };
    match http::fault(&call) {
        None => Ok(call),
        Some(fault) => Err(Refusal::denied(format!("a call to endpoint {name:?}: {fault}"))),
    }
}

impl endpoint::Host for Guest {
    fn send(
        &mut self,
        name: String,
        call: endpoint::Call,
        taken_back: Option<endpoint::Undo>,
    ) -> Answer<endpoint::Reply> {
        let plugin = self.grant.plugin.clone();
        let endpoint = self.endpoint_named(&name)?;
        let request = checked(&name, &endpoint, &call)?;
        if call.method != "GET" {
            self.session()?.may_change()?;
        }
        let intent = match taken_back {
            None => None,
            Some(back) => {
                checked(&name, &endpoint, &back.call)?;
                let undo = Undo::Call {
                    endpoint: name.clone(),
                    method: back.call.method,
                    path: back.call.path,
                    headers: back.call.headers,
                    body: back.call.body,
                    done: back.done,
                };
                self.session()?.intend(&plugin, &undo)?
            }
        };
        let session = self.session()?;
        let left = session.deadline.left();
        match http::send(&name, &endpoint, &request, left) {
            Ok(reply) => {
                session.done(intent, None)?;
                Ok(endpoint::Reply { status: reply.status, headers: reply.headers, body: reply.body })
            }
            Err(Fault::Unreachable(text)) => {
                session.never_happened(intent)?;
                Err(Refusal::Guest(types::Error::Unreachable(text)))
            }
            // The agent may have done it: the intent stays, and rollback sends the call that takes it back.
            Err(Fault::Timeout(text)) => Err(Refusal::Guest(types::Error::Timeout(text))),
            Err(Fault::Broken(text)) => Err(Refusal::other(text)),
            Err(Fault::Refused(text)) => {
                session.never_happened(intent)?;
                Err(Refusal::denied(text))
            }
        }
    }

    fn undo_all(&mut self, name: String) -> Answer<()> {
        let plugin = self.grant.plugin.clone();
        self.endpoint_named(&name)?;
        let session = self.session()?;
        session.may_change()?;
        let left = undo::sweep(session, |entry| {
            entry.plugin.rsplit('/').next() == Some(plugin.as_str())
                && matches!(&entry.undo, Undo::Call { endpoint, .. } if *endpoint == name)
        });
        for fate in left {
            crate::log::note("warn", &format!("plugin={plugin} kept for later: {fate:?}"));
        }
        Ok(())
    }
}
