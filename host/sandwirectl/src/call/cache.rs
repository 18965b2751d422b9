//! What is kept between ADD and DEL: libcni's own files (libcni/api.go, `cachedInfo`), so that either finishes what the other began.

use super::Options;
use super::network::Network;
use crate::files;
use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// One attachment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) network: String,
    pub(super) container_id: String,
    pub(super) ifname: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    kind: String,
    container_id: String,
    /// Base64: Go's form of bytes in JSON.
    config: String,
    if_name: String,
    network_name: String,
    #[serde(default)]
    netns: String,
    #[serde(default)]
    cni_args: Option<Vec<[String; 2]>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    capability_args: Option<Value>,
    #[serde(default)]
    result: Value,
}

/// A directory of results.
pub(super) struct Cache {
    directory: PathBuf,
}

impl Cache {
    pub(super) fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.directory.join(format!("{}-{}-{}", key.network, key.container_id, key.ifname))
    }

    /// Keeps the result of an ADD.
    pub(super) fn keep(
        &self,
        key: &Key,
        network: &Network,
        options: &Options,
        netns: String,
        result: &Value,
    ) -> Result<()> {
        let args: Vec<[String; 2]> = options
            .args
            .split(';')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| [name.to_owned(), value.to_owned()])
            .collect();
        let entry = Entry {
            kind: "cniCacheV1".into(),
            container_id: key.container_id.clone(),
            config: STANDARD.encode(&network.text),
            if_name: key.ifname.clone(),
            network_name: key.network.clone(),
            netns,
            cni_args: (!args.is_empty()).then_some(args),
            capability_args: options.runtime_config.clone(),
            result: result.clone(),
        };
        files::make_dir(&self.directory, 0o700)?;
        let text = serde_json::to_vec(&entry).context("could not write a result")?;
        files::replace(&self.path(key), &text, 0o600).map(|_| ())
    }

    /// The result that was kept; `None` when there is none.
    pub(super) fn result(&self, key: &Key) -> Result<Option<Value>> {
        let path = self.path(key);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("could not read {}", path.display())),
        };
        let entry: Entry =
            serde_json::from_slice(&text).with_context(|| format!("{} is no kept result", path.display()))?;
        Ok(Some(entry.result).filter(|result| !result.is_null()))
    }

    /// Forgets an attachment.
    pub(super) fn forget(&self, key: &Key) -> Result<()> {
        let path = self.path(key);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("could not remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// Every attachment of a network that is kept.
    pub(super) fn attachments(&self, network: &str) -> Result<Vec<Key>> {
        let mut keys = Vec::new();
        for entry in std::fs::read_dir(&self.directory).into_iter().flatten() {
            let path = entry.with_context(|| format!("could not read {}", self.directory.display()))?.path();
            // Not ours to judge: libcni has other kinds of files there too.
            let Some(entry) = std::fs::read(path).ok().and_then(|text| serde_json::from_slice::<Entry>(&text).ok())
            else {
                continue;
            };
            if entry.network_name == network {
                keys.push(Key { network: entry.network_name, container_id: entry.container_id, ifname: entry.if_name });
            }
        }
        Ok(keys)
    }
}
