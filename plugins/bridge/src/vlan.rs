//! `vlan` and `vlanTrunk`: the VLANs of a container's port.

use sandwire_plugin::Failure;
use sandwire_plugin::host::bridging::Vlan;
use serde::Deserialize;

/// An entry of `vlanTrunk`: one VLAN, a range of them, or both.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Trunk {
    #[serde(rename = "minID")]
    min: Option<i64>,
    #[serde(rename = "maxID")]
    max: Option<i64>,
    id: Option<i64>,
}

/// The VLAN that a trunk without `vlan` has for frames without a tag.
const NATIVE: u16 = 1;

/// What a VLAN id can be (0 and 4095 are reserved, IEEE 802.1Q).
const IDS: std::ops::RangeInclusive<u16> = 1..=4094;

/// A set of VLANs, by their ids.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Vlans(Vec<bool>);

impl Vlans {
    fn insert(&mut self, id: u16) {
        self.0.resize(usize::from(*IDS.end()) + 1, false);
        if let Some(member) = self.0.get_mut(usize::from(id)) {
            *member = true;
        }
    }

    fn contains(&self, id: u16) -> bool {
        self.0.get(usize::from(id)).copied().unwrap_or_default()
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The VLANs of a trunk, validated; errors have the reference's texts.
pub(crate) fn trunk(entries: &[Trunk]) -> Result<Vlans, Failure> {
    let valid = |id: i64, wrong: &str| {
        u16::try_from(id).ok().filter(|id| IDS.contains(id)).ok_or_else(|| Failure::config(wrong))
    };
    let mut vlans = Vlans::default();
    for entry in entries {
        match (entry.min, entry.max) {
            (Some(min), Some(max)) => {
                let min = valid(min, "incorrect trunk minID parameter")?;
                let max = valid(max, "incorrect trunk maxID parameter")?;
                if max < min {
                    return Err(Failure::config("minID is greater than maxID in trunk parameter"));
                }
                (min..=max).for_each(|id| vlans.insert(id));
            }
            (None, Some(_)) => {
                return Err(Failure::config("minID and maxID should be configured simultaneously, minID is missing"));
            }
            (Some(_), None) => {
                return Err(Failure::config("minID and maxID should be configured simultaneously, maxID is missing"));
            }
            (None, None) => {}
        }
        if let Some(id) = entry.id {
            vlans.insert(valid(id, "incorrect trunk id parameter")?);
        }
    }
    Ok(vlans)
}

/// The whole VLAN list that a port shall have; `None` when it stays as the bridge made it.
///
/// `present` is what it keeps (`preserveDefaultVlan`); `access` is 0 or the VLAN of frames without a tag; a trunk
/// without it has [`NATIVE`] for them. A VLAN that is both in the trunk and `vlan` stays untagged (in the reference it
/// loses that, and the port then has no VLAN for frames without a tag).
pub(crate) fn of_port(present: &[Vlan], access: u16, trunk: &Vlans) -> Option<Vec<Vlan>> {
    if access == 0 && trunk.is_empty() {
        return None;
    }
    let native = if access == 0 { NATIVE } else { access };
    let untagged = |id: u16| {
        if id == native {
            return Some(true);
        }
        if trunk.contains(id) {
            return Some(false);
        }
        present.iter().find(|range| (range.first..=range.last).contains(&id)).map(|range| range.untagged)
    };
    let mut list: Vec<Vlan> = Vec::new();
    for id in IDS {
        let Some(untagged) = untagged(id) else { continue };
        match list.last_mut() {
            Some(range) if range.last + 1 == id && range.untagged == untagged && !range.pvid && id != native => {
                range.last = id;
            }
            _ => list.push(Vlan { first: id, last: id, pvid: id == native, untagged }),
        }
    }
    Some(list)
}

/// The VLAN of frames without a tag.
pub(crate) fn access(id: u16) -> Vlan {
    Vlan { first: id, last: id, pvid: true, untagged: true }
}

/// A VLAN that a port has otherwise than it should.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    pub(crate) id: u16,
    pub(crate) wanted: &'static str,
    pub(crate) present: &'static str,
}

/// The first VLAN that differs; `exactly`: one that is not wanted must not be there.
pub(crate) fn difference(present: &[Vlan], wanted: &[Vlan], exactly: bool) -> Option<Difference> {
    IDS.map(|id| Difference { id, wanted: role(wanted, id), present: role(present, id) })
        .find(|vlan| vlan.wanted != vlan.present && (exactly || vlan.wanted != NONE))
}

const NONE: &str = "none";

/// What a VLAN is to a port, in the words of `bridge vlan`.
fn role(list: &[Vlan], id: u16) -> &'static str {
    match list.iter().find(|range| (range.first..=range.last).contains(&id)) {
        None => NONE,
        Some(Vlan { pvid: true, untagged: true, .. }) => "pvid untagged",
        Some(Vlan { pvid: true, .. }) => "pvid tagged",
        Some(Vlan { untagged: true, .. }) => "untagged",
        Some(_) => "tagged",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(json: &str) -> Result<Vlans, Failure> {
        trunk(&sandwire_plugin::go_json::from_str::<Vec<Trunk>>(json).unwrap())
    }

    fn text(list: Option<Vec<Vlan>>) -> String {
        let one = |v: &Vlan| {
            format!(
                "{}-{}{}{}",
                v.first,
                v.last,
                if v.pvid { " pvid" } else { "" },
                if v.untagged { " untagged" } else { "" }
            )
        };
        list.map_or_else(|| "unchanged".into(), |list| list.iter().map(one).collect::<Vec<_>>().join(", "))
    }

    #[test]
    fn errors_have_the_references_texts() {
        for (json, wanted) in [
            (r#"[{"minID":0,"maxID":5}]"#, "incorrect trunk minID parameter"),
            (r#"[{"minID":1,"maxID":4095}]"#, "incorrect trunk maxID parameter"),
            (r#"[{"minID":9,"maxID":5}]"#, "minID is greater than maxID in trunk parameter"),
            (r#"[{"maxID":5}]"#, "minID and maxID should be configured simultaneously, minID is missing"),
            (r#"[{"minID":5}]"#, "minID and maxID should be configured simultaneously, maxID is missing"),
            (r#"[{"id":4095}]"#, "incorrect trunk id parameter"),
        ] {
            assert_eq!(entries(json).unwrap_err().msg, wanted, "{json}");
        }
    }

    #[test]
    fn the_list_of_a_port() {
        let none = Vlans::default();
        let trunk = entries(r#"[{"minID":100,"maxID":103},{"id":7},{"id":101}]"#).unwrap();
        assert_eq!(trunk.0.iter().filter(|member| **member).count(), 5);
        let default = [Vlan { first: 1, last: 1, pvid: true, untagged: true }];
        for (present, access, trunk, wanted) in [
            (&[][..], 0, &none, "unchanged"),
            (&[], 100, &none, "100-100 pvid untagged"),
            (&default, 100, &none, "1-1 untagged, 100-100 pvid untagged"),
            (&[], 0, &trunk, "1-1 pvid untagged, 7-7, 100-103"),
            (&[], 102, &trunk, "7-7, 100-101, 102-102 pvid untagged, 103-103"),
            (&default, 7, &none, "1-1 untagged, 7-7 pvid untagged"),
        ] {
            assert_eq!(text(of_port(present, access, trunk)), wanted);
        }
    }

    #[test]
    fn the_first_difference() {
        let vlan = |first, last| Vlan { first, last, pvid: false, untagged: false };
        let wanted = [vlan(7, 9), access(100)];
        let difference = |present: &[Vlan], exactly| {
            difference(present, &wanted, exactly).map(|d| format!("{}: {}, {}", d.id, d.wanted, d.present))
        };
        assert_eq!(difference(&[vlan(7, 7), vlan(8, 9), access(100)], true), None);
        for (present, exactly, seen) in [
            (vec![vlan(7, 8), access(100)], false, Some("9: tagged, none")),
            (vec![vlan(7, 9), vlan(100, 100)], true, Some("100: pvid untagged, tagged")),
            (vec![access(1), vlan(7, 9), access(100)], true, Some("1: none, pvid untagged")),
            (vec![access(1), vlan(7, 9), access(100)], false, None),
            (vec![vlan(7, 9), Vlan { pvid: false, ..access(100) }], true, Some("100: pvid untagged, untagged")),
        ] {
            assert_eq!(difference(&present, exactly).as_deref(), seen);
        }
    }
}
