//! nf_tables messages: numbers of linux/netfilter/{nfnetlink,nf_tables}.h, and the shapes the kernel wants them in.
//!
//! All numbers inside attributes are big-endian.

use super::attribute::{Attribute, bytes, nest, number, number64, text, write};
use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST};

pub(super) const FAMILY_INET: u8 = 1;
pub(super) const FAMILY_IPV4: u8 = 2;
pub(super) const FAMILY_BRIDGE: u8 = 7;
pub(super) const FAMILY_IPV6: u8 = 10;

const SUBSYSTEM: u16 = 10 << 8;
/// NFNL_SUBSYS_CTNETLINK: IPCTNL_MSG_CT_GET, IPCTNL_MSG_CT_DELETE.
const CONNTRACK_GET: u16 = 1 << 8 | 1;
const CONNTRACK_DELETE: u16 = 1 << 8 | 2;
const NEW_TABLE: u16 = 0;
const GET_TABLE: u16 = 1;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const GET_CHAIN: u16 = 4;
const DELETE_CHAIN: u16 = 5;
const NEW_RULE: u16 = 6;
const GET_RULE: u16 = 7;
const DELETE_RULE: u16 = 8;
const NEW_SET: u16 = 9;
const DELETE_SET: u16 = 11;
const NEW_ELEMENT: u16 = 12;
const GET_ELEMENT: u16 = 13;
const DELETE_ELEMENT: u16 = 14;
const GET_GENERATION: u16 = 16;
const NEW_OBJECT: u16 = 18;
const GET_OBJECT: u16 = 19;
const DELETE_OBJECT: u16 = 20;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;

/// NFTA_*_TABLE and NFTA_*_NAME are 1 and 2 in tables, rules, sets, elements and objects.
const TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const OBJECT_COUNTER: u32 = 1;
/// NFT_SET_OBJECT: the map's values are stateful objects.
const SET_OBJECT: u32 = 0x40;
/// NFT_SET_MAP: they are data.
const SET_MAP: u32 = 8;

/// One message, without its sequence number.
#[derive(Debug, Clone)]
pub(super) struct Message {
    kind: u16,
    flags: u16,
    family: u8,
    /// nfgenmsg's res_id: the subsystem of a batch.
    resource: u16,
    attributes: Vec<Attribute>,
    /// For errors.
    pub(super) what: What,
}

/// What a message does: "create chain postrouting of table inet sandwire". A text is made of it only for who reads it.
#[derive(Debug, Clone)]
pub(super) struct What {
    action: &'static str,
    object: Option<String>,
    place: Option<Place>,
}

impl What {
    const fn to(action: &'static str) -> Self {
        Self { action, object: None, place: None }
    }
}

impl std::fmt::Display for What {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.action)?;
        self.object.iter().try_for_each(|object| write!(f, " {object}"))?;
        self.place.iter().try_for_each(|place| write!(f, " of table {place}"))
    }
}

impl Message {
    /// All of a transaction.
    pub(super) const TRANSACTION: What = What::to("change the firewall");

    fn new(family: u8, kind: u16, flags: u16, attributes: Vec<Attribute>, what: What) -> Self {
        Self { kind: SUBSYSTEM | kind, flags, family, resource: 0, attributes, what }
    }

    /// Opens a transaction; with a generation it is refused (ERESTART) when the rules have changed since.
    pub(super) fn begin(generation: Option<u32>) -> Self {
        let attributes = generation.map(|id| number(1, id)).into_iter().collect();
        Self { kind: BATCH_BEGIN, ..Self::control(attributes) }
    }

    pub(super) fn end() -> Self {
        Self { kind: BATCH_END, ..Self::control(Vec::new()) }
    }

    fn control(attributes: Vec<Attribute>) -> Self {
        let what = Self::TRANSACTION;
        Self { kind: 0, flags: 0, family: 0, resource: 10, attributes, what }
    }

    /// The number that every transaction in this namespace raises.
    pub(super) fn generation() -> Self {
        Self::new(0, GET_GENERATION, 0, Vec::new(), What::to("ask for the generation of the firewall"))
    }

    /// For a dump: tracked connections of a family.
    pub(super) fn list_connections(family: u8, filter: Vec<Attribute>) -> Self {
        let what = What::to("list tracked connections");
        Self { kind: CONNTRACK_GET, ..Self::new(family, 0, 0, filter, what) }
    }

    pub(super) fn forget_connection(family: u8, identity: Vec<Attribute>) -> Self {
        let what = What::to("forget a tracked connection");
        Self { kind: CONNTRACK_DELETE, ..Self::new(family, 0, 0, identity, what) }
    }

    /// Appends the message as the kernel wants it.
    pub(super) fn write(&self, out: &mut Vec<u8>, extra_flags: u16, sequence: u32) {
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.kind.to_ne_bytes());
        out.extend_from_slice(&(self.flags | extra_flags | NLM_F_REQUEST).to_ne_bytes());
        out.extend_from_slice(&sequence.to_ne_bytes());
        out.extend_from_slice(&[0; 4]);
        // struct nfgenmsg: family, version 0, res_id
        out.extend_from_slice(&[self.family, 0]);
        out.extend_from_slice(&self.resource.to_be_bytes());
        write(&self.attributes, out);
        let length = out.len().wrapping_sub(start) as u32;
        if let Some(room) = out.get_mut(start..).and_then(|m| m.first_chunk_mut()) {
            *room = length.to_ne_bytes();
        }
    }
}

/// A base chain's place in the kernel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hook {
    /// "nat", "filter".
    pub(super) kind: &'static str,
    /// NF_INET_* or NF_BR_*.
    pub(super) number: u32,
    pub(super) priority: i32,
}

/// What a set's keys are: nft's number for the type, by which `nft list` prints them, and their bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeyType {
    pub(super) number: u32,
    pub(super) length: u32,
    order: u32,
}

/// nft's enum byteorder. The kernel keeps it as user data; without it nft prints an interface's name as "".
const ORDER_NONE: u32 = 0;
const ORDER_HOST: u32 = 1;
const ORDER_BIG: u32 = 2;

impl KeyType {
    pub(super) const IPV4: Self = Self { number: 7, length: 4, order: ORDER_BIG };
    pub(super) const IPV6: Self = Self { number: 8, length: 16, order: ORDER_BIG };
    pub(super) const ETHER: Self = Self { number: 9, length: 8, order: ORDER_BIG };
    pub(super) const PROTOCOL: Self = Self { number: 12, length: 4, order: ORDER_BIG };
    pub(super) const SERVICE: Self = Self { number: 13, length: 4, order: ORDER_BIG };
    pub(super) const MARK: Self = Self { number: 19, length: 4, order: ORDER_HOST };
    pub(super) const IFNAME: Self = Self { number: 41, length: 16, order: ORDER_HOST };

    /// A concatenation: nft keeps six bits for each of its types; each part begins at a multiple of four bytes.
    pub(super) const fn then(self, next: Self) -> Self {
        let number = self.number << 6 | next.number;
        Self { number, length: self.length + next.length, order: ORDER_NONE }
    }
}

/// A table, ours or another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) family: u8,
    pub(super) table: &'static str,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.family_name(), self.table)
    }
}

impl Place {
    /// As nft has it.
    pub(super) fn family_name(self) -> &'static str {
        match self.family {
            FAMILY_INET => "inet",
            FAMILY_IPV4 => "ip",
            FAMILY_IPV6 => "ip6",
            _ => "bridge",
        }
    }

    fn message(self, kind: u16, flags: u16, rest: Vec<Attribute>, action: &'static str) -> Message {
        let mut attributes = Vec::with_capacity(1 + rest.len());
        attributes.push(text(TABLE, self.table));
        attributes.extend(rest);
        Message::new(self.family, kind, flags, attributes, What { place: Some(self), ..What::to(action) })
    }

    /// One about something in the table that has a name.
    fn named(self, kind: u16, flags: u16, rest: Vec<Attribute>, (action, object): (&'static str, &str)) -> Message {
        let message = self.message(kind, flags, rest, action);
        Message { what: What { object: Some(object.to_owned()), ..message.what }, ..message }
    }

    pub(super) fn get_table(self) -> Message {
        self.message(GET_TABLE, 0, Vec::new(), "look at the header")
    }

    pub(super) fn get_chain(self, chain: &str) -> Message {
        self.message(GET_CHAIN, 0, vec![text(CHAIN_NAME, chain)], "look at a chain")
    }

    pub(super) fn get_counter(self, name: &str) -> Message {
        self.message(GET_OBJECT, 0, vec![text(2, name), number(3, OBJECT_COUNTER)], "look at a counter")
    }

    pub(super) fn get_element(self, set: &str, key: &[u8]) -> Message {
        self.element(GET_ELEMENT, 0, set, vec![key_of(key)], "look at an element of set")
    }

    /// For a dump: the rules of one chain.
    pub(super) fn list_rules(self, chain: &str) -> Message {
        self.message(GET_RULE, 0, vec![text(2, chain)], "list the rules")
    }

    /// For a dump: the elements of one set.
    pub(super) fn list_elements(self, set: &str) -> Message {
        self.message(GET_ELEMENT, 0, vec![text(2, set)], "list the elements")
    }

    /// Refused (EEXIST) when it is there already, as everything that is added here: two first containers must not
    /// both add the rules of a chain.
    pub(super) fn add_table(self) -> Message {
        self.message(NEW_TABLE, NLM_F_CREATE | NLM_F_EXCL, vec![number(2, 0)], "create the header")
    }

    pub(super) fn delete_table(self) -> Message {
        self.message(DELETE_TABLE, 0, Vec::new(), "delete all")
    }

    pub(super) fn add_chain(self, chain: &str, hook: Hook) -> Message {
        let place = vec![number(1, hook.number), number(2, hook.priority.cast_unsigned())];
        let attributes = vec![text(CHAIN_NAME, chain), text(7, hook.kind), nest(4, place)];
        self.named(NEW_CHAIN, NLM_F_CREATE | NLM_F_EXCL, attributes, ("create chain", chain))
    }

    /// A chain that is only jumped to.
    pub(super) fn add_inner_chain(self, chain: &str) -> Message {
        let name = vec![text(CHAIN_NAME, chain)];
        self.named(NEW_CHAIN, NLM_F_CREATE | NLM_F_EXCL, name, ("create chain", chain))
    }

    pub(super) fn delete_chain(self, chain: &str) -> Message {
        self.named(DELETE_CHAIN, 0, vec![text(CHAIN_NAME, chain)], ("delete chain", chain))
    }

    /// `expressions`: the contents of NFTA_RULE_EXPRESSIONS.
    pub(super) fn add_rule(self, chain: &str, expressions: Vec<Attribute>, comment: &str) -> Message {
        let attributes = vec![text(2, chain), nest(4, expressions), bytes(7, &commented(comment))];
        self.named(NEW_RULE, NLM_F_CREATE | NLM_F_APPEND, attributes, ("add a rule to chain", chain))
    }

    /// The same before all others of the chain.
    pub(super) fn add_first_rule(self, chain: &str, expressions: Vec<Attribute>, comment: Option<&str>) -> Message {
        let mut attributes = vec![text(2, chain), nest(4, expressions)];
        attributes.extend(comment.map(|comment| bytes(7, &commented(comment))));
        self.named(NEW_RULE, NLM_F_CREATE, attributes, ("add a rule to chain", chain))
    }

    pub(super) fn delete_rule(self, chain: &str, handle: u64) -> Message {
        let attributes = vec![text(2, chain), number64(3, handle)];
        self.named(DELETE_RULE, 0, attributes, ("delete a rule of chain", chain))
    }

    pub(super) fn flush_chain(self, chain: &str) -> Message {
        self.named(DELETE_RULE, 0, vec![text(2, chain)], ("delete the rules of chain", chain))
    }

    pub(super) fn add_set(self, set: &str, key: KeyType) -> Message {
        self.set(set, key, Vec::new())
    }

    /// A map whose values are counters.
    pub(super) fn add_counter_map(self, set: &str, key: KeyType) -> Message {
        self.set(set, key, vec![number(3, SET_OBJECT), number(15, OBJECT_COUNTER)])
    }

    /// A map whose values are data.
    pub(super) fn add_data_map(self, set: &str, key: KeyType, data: KeyType) -> Message {
        self.set(set, key, vec![number(3, SET_MAP), number(6, data.number), number(7, data.length)])
    }

    fn set(self, set: &str, key: KeyType, rest: Vec<Attribute>) -> Message {
        // NFTA_SET_ID is mandatory, though nothing here refers to a set by it.
        let mut attributes = vec![text(2, set), number(4, key.number), number(5, key.length), number(10, 1)];
        attributes.extend(rest);
        // NFTNL_UDATA_SET_KEYBYTEORDER: type 0, length 4, a number of the host's order.
        attributes.push(bytes(13, &[&[0, 4], &key.order.to_ne_bytes()[..]].concat()));
        self.named(NEW_SET, NLM_F_CREATE | NLM_F_EXCL, attributes, ("create set", set))
    }

    pub(super) fn delete_set(self, set: &str) -> Message {
        self.named(DELETE_SET, 0, vec![text(2, set)], ("delete set", set))
    }

    pub(super) fn add_counter(self, name: &str) -> Message {
        let zero = vec![number64(1, 0), number64(2, 0)];
        let attributes = vec![text(2, name), number(3, OBJECT_COUNTER), nest(4, zero)];
        self.named(NEW_OBJECT, NLM_F_CREATE | NLM_F_EXCL, attributes, ("create counter", name))
    }

    pub(super) fn delete_counter(self, name: &str) -> Message {
        let attributes = vec![text(2, name), number(3, OBJECT_COUNTER)];
        self.named(DELETE_OBJECT, 0, attributes, ("delete counter", name))
    }

    /// Without NLM_F_EXCL the kernel takes an element that is there as good, and keeps its old comment.
    pub(super) fn add_element(self, set: &str, key: &[u8], value: Value<'_>, comment: &str) -> Message {
        let mut attributes = vec![key_of(key), bytes(6, &commented(comment))];
        match value {
            Value::None => {}
            Value::Counter(name) => attributes.push(text(9, name)),
            Value::Data(data) => attributes.push(nest(2, vec![bytes(1, data)])),
        }
        self.element(NEW_ELEMENT, NLM_F_CREATE | NLM_F_EXCL, set, attributes, "add an element of set")
    }

    pub(super) fn delete_element(self, set: &str, key: &[u8]) -> Message {
        self.element(DELETE_ELEMENT, 0, set, vec![key_of(key)], "delete an element of set")
    }

    fn element(self, kind: u16, flags: u16, set: &str, element: Vec<Attribute>, action: &'static str) -> Message {
        let list = nest(3, vec![nest(1, element)]);
        self.named(kind, flags, vec![text(2, set), list], (action, set))
    }
}

/// What an element of a map has as its value.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'a> {
    /// It is of a set.
    None,
    /// The name of the counter.
    Counter(&'a str),
    /// The bytes.
    Data(&'a [u8]),
}

/// NFTA_SET_ELEM_KEY with NFTA_DATA_VALUE.
fn key_of(key: &[u8]) -> Attribute {
    nest(1, vec![bytes(1, key)])
}

/// Longest comment that nft takes (NFTNL_UDATA_COMMENT_MAXLEN).
pub(super) const COMMENT_MAX: usize = 128;

/// nft's form of a comment in user data, for rules and for elements: type 0, length, text with a final zero.
fn commented(comment: &str) -> Vec<u8> {
    let comment = comment.get(..COMMENT_MAX - 1).unwrap_or(comment);
    let mut data = vec![0, comment.len().wrapping_add(1) as u8];
    data.extend_from_slice(comment.as_bytes());
    data.push(0);
    data
}
