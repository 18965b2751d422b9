//! The file as it is written: keys and their kinds, no meaning yet. Values that `check` looks at carry their place.

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt;
use toml::Spanned;

pub(super) type Texts = Vec<Spanned<String>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) version: Spanned<u64>,
    #[serde(default = "yes")]
    pub(super) memory_image: bool,
    #[serde(default)]
    pub(super) endpoints: BTreeMap<Spanned<String>, Endpoint>,
    #[serde(default)]
    pub(super) limits: Limits,
    #[serde(default)]
    pub(super) plugins: BTreeMap<Spanned<String>, Plugin>,
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Endpoint {
    pub(super) address: Spanned<String>,
    pub(super) timeout_ms: Option<Spanned<u64>>,
    pub(super) allow: Spanned<Texts>,
    pub(super) answer_kib: Option<Spanned<u64>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Limits {
    pub(super) deadline_ms: Option<Spanned<u64>>,
    pub(super) memory_mib: Option<Spanned<u64>>,
    pub(super) instances: Option<Spanned<u64>>,
    pub(super) table_elements: Option<Spanned<u64>>,
    pub(super) handles: Option<Spanned<u64>>,
    pub(super) hostcall_kib: Option<Spanned<u64>>,
    pub(super) log_kib: Option<Spanned<u64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Plugin {
    pub(super) component: Spanned<String>,
    #[serde(default)]
    pub(super) imports: Texts,
    #[serde(default)]
    pub(super) wasi: bool,
    #[serde(default)]
    pub(super) links: Option<Spanned<Links>>,
    #[serde(default)]
    pub(super) sysctls: Option<Spanned<Texts>>,
    #[serde(default)]
    pub(super) endpoints: Option<Spanned<Texts>>,
    #[serde(default)]
    pub(super) delegates: Option<Spanned<Texts>>,
    #[serde(default)]
    pub(super) native_delegates: Option<Spanned<Texts>>,
    #[serde(default)]
    pub(super) own_addresses: bool,
    #[serde(default)]
    pub(super) tap: Option<Spanned<bool>>,
    #[serde(default)]
    pub(super) devices: Option<Spanned<Texts>>,
    #[serde(default)]
    pub(super) data_dirs: Option<Spanned<Texts>>,
    #[serde(default)]
    pub(super) files: Option<Spanned<Files>>,
    #[serde(default)]
    pub(super) limits: Limits,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Links {
    #[serde(default)]
    pub(super) see: Texts,
    #[serde(default, rename = "use")]
    pub(super) use_: Texts,
    #[serde(default)]
    pub(super) change: Texts,
    #[serde(default)]
    pub(super) take: Texts,
}

/// `files = ["/etc/resolv.conf"]`, or `files = { flannel-subnet = "/run/flannel/subnet.env" }`. The list form asks for a
/// file by its path.
pub(super) struct Files(pub(super) Vec<(String, Spanned<String>)>);

impl<'de> Deserialize<'de> for Files {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Files;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of paths, or a table of names and paths")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Files, A::Error> {
                let mut files = Vec::new();
                while let Some(path) = seq.next_element::<Spanned<String>>()? {
                    files.push((path.get_ref().clone(), path));
                }
                Ok(Files(files))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Files, A::Error> {
                let mut files = Vec::new();
                while let Some(entry) = map.next_entry::<String, Spanned<String>>()? {
                    files.push(entry);
                }
                Ok(Files(files))
            }
        }
        deserializer.deserialize_any(Either)
    }
}
