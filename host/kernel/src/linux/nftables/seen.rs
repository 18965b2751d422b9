//! Reading what nf_tables answers.

use super::wire::Object;
use crate::linux::attributes::{Attributes, ip_of};
use std::net::IpAddr;

/// A big-endian number.
pub(super) fn number(attributes: Attributes<'_>, kind: u16) -> Option<u32> {
    Some(u32::from_be_bytes(*attributes.get(kind)?.first_chunk()?))
}

/// NFTA_TABLE_USE: how many chains, sets and objects a table has (`nft_use_inc(&table->use)`).
pub(super) fn table_use(object: Option<&Object>) -> Option<u32> {
    number(object?.attributes(), 3)
}

/// NFTA_CHAIN_USE: how many rules a chain has, and how many jump to it.
pub(super) fn chain_use(object: Option<&Object>) -> Option<u32> {
    number(object?.attributes(), 6)
}

/// NFTA_OBJ_USE: how many elements and rules refer to an object.
pub(super) fn counter_use(object: Option<&Object>) -> Option<u32> {
    number(object?.attributes(), 5)
}

/// An element of a set.
#[derive(Debug)]
pub(super) struct Element {
    pub(super) key: Vec<u8>,
    /// In a map of data.
    pub(super) data: Option<Vec<u8>>,
    /// "" when it has none.
    pub(super) comment: String,
}

/// The elements in one answer.
pub(super) fn elements(object: &Object) -> Vec<Element> {
    let list = object.attributes().nested(3);
    let elements = list.into_iter().flat_map(|list| list.iter().map(|(_, element)| Attributes::after(element, 0)));
    elements
        .filter_map(|element| {
            let key = element.nested(1)?.get(1)?.to_vec();
            let data = element.nested(2).and_then(|data| Some(data.get(1)?.to_vec()));
            Some(Element { key, data, comment: element.get(6).and_then(comment).unwrap_or_default() })
        })
        .collect()
}

/// The one element that was asked for.
pub(super) fn element(object: Option<&Object>) -> Option<Element> {
    elements(object?).pop()
}

/// A rule of a chain.
#[derive(Debug)]
pub(super) struct SeenRule<'a> {
    pub(super) handle: u64,
    /// "" when it has none.
    pub(super) comment: String,
    pub(super) expressions: Option<Attributes<'a>>,
}

impl SeenRule<'_> {
    /// The chain that it jumps or goes to: NFTA_IMMEDIATE_DATA, NFTA_DATA_VERDICT, NFTA_VERDICT_CHAIN.
    pub(super) fn target(&self) -> Option<String> {
        self.data_of("immediate").find_map(|data| data.nested(2)?.nested(2)?.text(2))
    }

    /// Whether it accepts: NFTA_VERDICT_CODE NF_ACCEPT.
    pub(super) fn is_accept(&self) -> bool {
        let mut codes = self.data_of("immediate").filter_map(|data| number(data.nested(2)?.nested(2)?, 1));
        codes.any(|code| code == 1)
    }

    /// The source or destination that is compared first with one whole address.
    pub(super) fn compared_address(&self) -> Option<IpAddr> {
        let payload = self.data_of("payload").next()?;
        // NFTA_PAYLOAD_BASE: the network header; NFTA_PAYLOAD_OFFSET and _LEN
        let place = (number(payload, 2)?, number(payload, 3)?, number(payload, 4)?);
        if !matches!(place, (1, 12 | 16, 4) | (1, 8 | 24, 16)) {
            return None;
        }
        let compared = self.data_of("cmp").next()?;
        // NFTA_CMP_OP: equal; NFTA_CMP_DATA
        if number(compared, 2)? != 0 { None } else { ip_of(compared.nested(3)?.get(1)?) }
    }

    /// Every whole address that it compares something with, or translates to: NFTA_CMP_DATA, NFTA_IMMEDIATE_DATA.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let compared = self.data_of("cmp").filter_map(|data| ip_of(data.nested(3)?.get(1)?));
        compared.chain(self.data_of("immediate").filter_map(|data| ip_of(data.nested(2)?.get(1)?)))
    }

    /// The text of iptables' match "comment" (struct xt_comment_info), or nft's.
    pub(super) fn any_comment(&self) -> String {
        let xt = self.data_of("match").find_map(|data| {
            // NFTA_MATCH_NAME, NFTA_MATCH_INFO
            (data.text(1)? == "comment").then(|| data.text(3))?
        });
        xt.unwrap_or_else(|| self.comment.clone())
    }

    fn data_of(&self, expression: &'static str) -> impl Iterator<Item = Attributes<'_>> {
        let list = self.expressions.into_iter().flat_map(Attributes::iter);
        list.filter_map(move |(_, bytes)| {
            let found = Attributes::after(bytes, 0);
            if found.text(1)? == expression { found.nested(2) } else { None }
        })
    }
}

pub(super) fn rule(object: &Object) -> Option<SeenRule<'_>> {
    let attributes = object.attributes();
    Some(SeenRule {
        handle: u64::from_be_bytes(*attributes.get(3)?.first_chunk()?),
        comment: attributes.get(7).and_then(comment).unwrap_or_default(),
        expressions: attributes.nested(4),
    })
}

/// The comment in user data: entries of type, length and value; the comment has type 0 (libnftnl/udata.h).
fn comment(mut data: &[u8]) -> Option<String> {
    while let Some((&[kind, length], rest)) = data.split_first_chunk() {
        let value = rest.get(..usize::from(length))?;
        if kind == 0 {
            return Some(crate::linux::socket::text_of(value));
        }
        data = rest.get(usize::from(length)..)?;
    }
    None
}
