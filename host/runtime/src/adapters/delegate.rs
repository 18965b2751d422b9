//! `delegate`: another plugin for the same attachment.

use crate::bindings::{delegate, types};
use crate::delegation;
use crate::guest::Guest;
use sandwire_cni::{Command, Error};

type Outcome<T> = wasmtime::Result<Result<T, types::Failure>>;

fn failure(error: Error) -> types::Failure {
    types::Failure { code: error.code, msg: error.msg, details: error.details }
}

impl Guest {
    fn run(&mut self, verb: Command, plugin: &str, config: &str, extra: &[(String, String)]) -> Outcome<String> {
        let own = self.session()?.subject.attachment.ifname.clone();
        for (key, value) in extra {
            if key != "ifname" || *value != own {
                return Ok(Err(failure(Error::internal(format!(
                    "this release of sandwire can't run a delegate with {key} = {value:?}"
                )))));
            }
        }
        let answer = self.lend(|session, grant| delegation::run(session, grant, verb, plugin, config))?;
        Ok(answer.map_err(failure))
    }
}

impl delegate::Host for Guest {
    fn add(&mut self, plugin: String, config: String, extra: Vec<(String, String)>) -> Outcome<String> {
        self.run(Command::Add, &plugin, &config, &extra)
    }

    fn del(&mut self, plugin: String, config: String, extra: Vec<(String, String)>) -> Outcome<()> {
        Ok(self.run(Command::Del, &plugin, &config, &extra)?.map(|_| ()))
    }

    fn check(&mut self, plugin: String, config: String, extra: Vec<(String, String)>) -> Outcome<()> {
        Ok(self.run(Command::Check, &plugin, &config, &extra)?.map(|_| ()))
    }

    fn gc(&mut self, plugin: String, config: String, extra: Vec<(String, String)>) -> Outcome<()> {
        Ok(self.run(Command::Gc, &plugin, &config, &extra)?.map(|_| ()))
    }

    fn status(&mut self, plugin: String, config: String, extra: Vec<(String, String)>) -> Outcome<()> {
        Ok(self.run(Command::Status, &plugin, &config, &extra)?.map(|_| ()))
    }
}
