use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename = "main.NetConf")]
struct NetConf {
    name: String,
    mtu: u32,
    #[serde(rename = "isGateway")]
    is_gateway: bool,
    vlan: Option<i64>,
    rate: f64,
    ipam: Ipam,
    list: Vec<String>,
    sysctl: BTreeMap<String, String>,
    ranges: Vec<Vec<Range>>,
    mode: Mode,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename = "main.IPAM")]
struct Ipam {
    r#type: String,
    subnet: String,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Range {
    subnet: String,
}

#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    #[default]
    Bridge,
    Private,
}

fn read(text: &str) -> NetConf {
    from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn error<T: DeserializeOwned + fmt::Debug>(text: &str) -> String {
    from_str::<T>(text).unwrap_err().to_string()
}

#[test]
fn keys_without_case() {
    let conf = read(r#"{"ISGATEWAY": true, "Mtu": 1500, "IPAM": {"TYPE": "x"}, "other": [{}]}"#);
    assert!(conf.is_gateway);
    assert_eq!((conf.mtu, conf.ipam.r#type.as_str()), (1500, "x"));
    // The last one wins, exact or not, as the order of the text has it.
    assert_eq!(read(r#"{"mtu": 1, "MTU": 2}"#).mtu, 2);
    assert_eq!(read(r#"{"MTU": 2, "mtu": 1}"#).mtu, 1);
    // The long s and the Kelvin sign fold into ASCII.
    assert_eq!(read("{\"\u{17f}y\u{17f}ctl\": {\"a\": \"b\"}}").sysctl["a"], "b");
    // Keys of maps keep their case.
    assert_eq!(read(r#"{"sysctl": {"a": "1", "A": "2"}}"#).sysctl.len(), 2);
}

#[test]
fn exact_field_is_preferred() {
    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default)]
    struct Two {
        #[serde(rename = "id")]
        lower: u8,
        #[serde(rename = "ID")]
        upper: u8,
    }
    assert_eq!(from_str::<Two>(r#"{"ID": 2, "id": 1}"#).unwrap(), Two { lower: 1, upper: 2 });
    assert_eq!(from_str::<Two>(r#"{"Id": 3}"#).unwrap(), Two { lower: 3, upper: 0 });
}

#[test]
fn null_is_absent() {
    let text = r#"{"name": null, "mtu": null, "isGateway": null, "vlan": null, "rate": null, "ipam": null,
        "list": null, "sysctl": null, "ranges": null, "mode": null}"#;
    assert_eq!(read(text), NetConf::default());
    assert_eq!(read("null"), NetConf::default());
    assert_eq!(read(r#"{"mtu": 7, "mtu": null}"#).mtu, 7);
    assert_eq!(read(r#"{"list": ["a", null]}"#).list, ["a", ""]);
    assert_eq!(read(r#"{"sysctl": {"a": null}}"#).sysctl["a"], "");
    assert_eq!(read(r#"{"ranges": [null, [null]]}"#).ranges, [vec![], vec![Range::default()]]);
    assert_eq!(from_str::<Option<u32>>("null").unwrap(), None);
    assert_eq!(from_str::<u32>("null").unwrap(), 0);
}

#[test]
fn equal_keys_merge() {
    let conf = read(r#"{"ipam": {"type": "a", "subnet": "s"}, "IPAM": {"Type": "b"}, "list": ["x"], "list": ["y"]}"#);
    assert_eq!((conf.ipam.r#type.as_str(), conf.ipam.subnet.as_str()), ("b", "s"));
    assert_eq!(conf.list, ["y"]);
    let conf = read(r#"{"sysctl": {"a": "1", "b": "2"}, "sysctl": {"b": "3"}}"#);
    assert_eq!((conf.sysctl["a"].as_str(), conf.sysctl["b"].as_str()), ("1", "3"));
}

#[test]
fn types_that_do_not_fit() {
    for (text, message) in [
        (r#"{"mtu": "1500"}"#, "json: cannot unmarshal string into Go struct field NetConf.mtu of type int"),
        (r#"{"MTU": 1.0}"#, "json: cannot unmarshal number 1.0 into Go struct field NetConf.mtu of type int"),
        (r#"{"mtu": -5}"#, "json: cannot unmarshal number -5 into Go struct field NetConf.mtu of type uint32"),
        (
            r#"{"mtu": 4294967296}"#,
            "json: cannot unmarshal number 4294967296 into Go struct field NetConf.mtu of type uint32",
        ),
        (r#"{"name": 5}"#, "json: cannot unmarshal number into Go struct field NetConf.name of type string"),
        (
            r#"{"isGateway": "yes"}"#,
            "json: cannot unmarshal string into Go struct field NetConf.isGateway of type bool",
        ),
        (r#"{"ipam": "x"}"#, "json: cannot unmarshal string into Go struct field NetConf.ipam of type main.IPAM"),
        (
            r#"{"ipam": {"type": {}}}"#,
            "json: cannot unmarshal object into Go struct field IPAM.ipam.type of type string",
        ),
        (r#"{"vlan": true}"#, "json: cannot unmarshal bool into Go struct field NetConf.vlan of type int"),
        (r#"{"list": {}}"#, "json: cannot unmarshal object into Go struct field NetConf.list of type array"),
        (
            r#"{"ranges": [[{"subnet": 1}]]}"#,
            "json: cannot unmarshal number into Go struct field Range.ranges.subnet of type string",
        ),
        ("[]", "json: cannot unmarshal array into Go value of type main.NetConf"),
        (r#""x""#, "json: cannot unmarshal string into Go value of type main.NetConf"),
    ] {
        assert_eq!(error::<NetConf>(text), message);
    }
    assert!(error::<NetConf>(r#"{"mode": "vepa"}"#).contains("unknown variant `vepa`"));
    assert_eq!(read(r#"{"mode": "private"}"#).mode, Mode::Private);
}

/// Each message was taken from a Go program.
#[test]
fn syntax_errors_are_gos() {
    for (text, message) in [
        ("", "unexpected end of JSON input"),
        ("  {", "unexpected end of JSON input"),
        (r#"{"a"#, "unexpected end of JSON input"),
        ("tru", "invalid character ' ' in literal true (expecting 'e')"),
        ("-", "invalid character ' ' in numeric literal"),
        ("[1e", "invalid character ' ' in exponent of numeric literal"),
        (r#""\"#, "invalid character ' ' in string escape code"),
        (r#""\u12"#, "invalid character ' ' in \\u hexadecimal character escape"),
        ("{} x", "invalid character 'x' after top-level value"),
        ("{}{}", "invalid character '{' after top-level value"),
        ("{a:1}", "invalid character 'a' looking for beginning of object key string"),
        (r#"{"a":1,}"#, "invalid character '}' looking for beginning of object key string"),
        (r#"{"a" 1}"#, "invalid character '1' after object key"),
        (r#"{"a":1 "b":2}"#, "invalid character '\"' after object key:value pair"),
        ("[1 2]", "invalid character '2' after array element"),
        ("[1,]", "invalid character ']' looking for beginning of value"),
        ("'a'", r"invalid character '\'' looking for beginning of value"),
        ("trux", "invalid character 'x' in literal true (expecting 'e')"),
        ("nul ", "invalid character ' ' in literal null (expecting 'l')"),
        ("01", "invalid character '1' after top-level value"),
        ("-a", "invalid character 'a' in numeric literal"),
        ("1.x", "invalid character 'x' after decimal point in numeric literal"),
        ("1e+x", "invalid character 'x' in exponent of numeric literal"),
        ("\"a\nb\"", r"invalid character '\n' in string literal"),
        (r#""\x""#, "invalid character 'x' in string escape code"),
        (r#""\u12g4""#, "invalid character 'g' in \\u hexadecimal character escape"),
        ("\u{feff}{}", "invalid character 'ï' looking for beginning of value"),
    ] {
        assert_eq!(Json::parse(text).unwrap_err().to_string(), message, "{text:?}");
    }
}

#[test]
fn nesting_is_limited() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    Json::parse(&nested(MAX_DEPTH)).unwrap();
    let message = "invalid character '[' exceeded max depth";
    assert_eq!(Json::parse(&nested(MAX_DEPTH + 1)).unwrap_err().to_string(), message);
    assert_eq!(Json::parse(&"[".repeat(10 << 20)).unwrap_err().to_string(), message);
    let objects = r#"{"a":"#.repeat(2 << 20);
    assert_eq!(Json::parse(&objects).unwrap_err().to_string(), "invalid character '{' exceeded max depth");
    // Also where a type ignores it.
    assert_eq!(from_str::<NetConf>(&format!("{{\"x\":{}}}", nested(10_000))).unwrap_err().to_string(), message);
}

#[test]
fn many_unknown_keys_take_linear_time() {
    let members: Vec<String> = (0..200_000).map(|n| format!("\"key{n}\":{n}")).collect();
    assert_eq!(read(&format!("{{{}}}", members.join(","))), NetConf::default());
}

#[test]
fn bytes_that_are_not_text() {
    assert_eq!(from_slice::<NetConf>(b"{\"name\": \"a\xff\"}").unwrap().name, "a\u{fffd}");
}

#[test]
fn writes_as_go() {
    let value = serde_json::json!({"a": "<b>&\u{2028}", "list": [], "object": {}});
    assert_eq!(to_string(&value).unwrap(), r#"{"a":"\u003cb\u003e\u0026\u2028","list":[],"object":{}}"#);
    assert_eq!(to_string_indent(&[1, 2]).unwrap(), "[\n    1,\n    2\n]");
}

#[test]
fn looks_up_one_key() {
    let tree = Json::parse(r#"{"A": 1, "a": 2, "A": 3}"#).unwrap();
    assert_eq!(tree.get("a"), Some(&Json::Number(3.into())));
    assert_eq!(tree.get("b"), None);
    let value = serde_json::json!({"A": 1, "a": 2});
    let object = value.as_object().unwrap();
    assert_eq!(get_fold(object, "a"), Some(&2.into()));
    assert_eq!(get_fold(object, "A"), Some(&1.into()));
    let value = serde_json::json!({"runtimeconfig": 1});
    assert_eq!(get_fold(value.as_object().unwrap(), "runtimeConfig"), Some(&1.into()));
}

/// Floating numbers that are exact in binary: without `float_roundtrip` serde_json may miss others by the last bit.
fn any_float() -> impl Strategy<Value = f64> {
    any::<i32>().prop_map(|eighths| f64::from(eighths) / 8.0)
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any_float().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map("[a-zA-Z<ſ]{0,6}", inner, 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn any_conf() -> impl Strategy<Value = NetConf> {
    let words = || prop::collection::vec("[a-z<&\"]{0,6}", 0..4);
    let ipam = (".{0,6}", ".{0,6}").prop_map(|(r#type, subnet)| Ipam { r#type, subnet });
    let ranges = prop::collection::vec(words(), 0..3).prop_map(|sets| {
        sets.into_iter().map(|set| set.into_iter().map(|subnet| Range { subnet }).collect()).collect()
    });
    let mode = prop_oneof![Just(Mode::Bridge), Just(Mode::Private)];
    let sysctl = prop::collection::btree_map("[a-zA-Z./]{0,8}", ".{0,6}", 0..4);
    ((".{0,8}", any::<u32>(), any::<bool>(), any::<Option<i64>>(), any_float()), ipam, words(), sysctl, ranges, mode)
        .prop_map(|((name, mtu, is_gateway, vlan, rate), ipam, list, sysctl, ranges, mode)| NetConf {
            name,
            mtu,
            is_gateway,
            vlan,
            rate,
            ipam,
            list,
            sysctl,
            ranges,
            mode,
        })
}

proptest! {
    #[test]
    fn trees_equal_serde_jsons(value in any_json()) {
        let text = to_string(&value).unwrap();
        let tree = Json::parse(&text).unwrap();
        prop_assert_eq!(&Value::from(tree.clone()), &serde_json::from_str::<Value>(&text).unwrap());
        prop_assert_eq!(to_string(&tree).unwrap(), text);
        prop_assert_eq!(from_value::<Value>(&value).unwrap(), serde_json::from_value::<Value>(value).unwrap());
    }

    #[test]
    fn exact_keys_equal_serde_json(conf in any_conf()) {
        let text = to_string(&conf).unwrap();
        prop_assert_eq!(&from_str::<NetConf>(&text).unwrap(), &conf);
        prop_assert_eq!(&serde_json::from_str::<NetConf>(&text).unwrap(), &conf);
        let value = serde_json::to_value(&conf).unwrap();
        prop_assert_eq!(from_value::<NetConf>(&value).unwrap(), conf);
    }

    #[test]
    fn case_of_keys_does_not_matter(conf in any_conf(), upper in any::<u64>()) {
        let Json::Object(members) = Json::parse(&to_string(&conf).unwrap()).unwrap() else { panic!("no object") };
        let swap = |key: String| key.chars().enumerate().map(|(n, c)| match upper >> (n % 64) & 1 {
            1 => c.to_ascii_uppercase(),
            _ => c.to_ascii_lowercase(),
        }).collect();
        let members = members.into_iter().map(|(key, value)| (swap(key), value)).collect();
        prop_assert_eq!(Json::Object(members).decode::<NetConf>().unwrap(), conf);
    }

    #[test]
    fn any_json_is_read_or_refused(value in any_json()) {
        let _ = from_value::<NetConf>(&value);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = from_slice::<NetConf>(&bytes);
    }

    /// Whatever serde_json accepts has nothing to explain, and damage mostly has.
    #[test]
    fn damaged_text_is_read_or_refused(value in any_json(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let text = serde_json::to_string(&value).unwrap();
        prop_assert_eq!(syntax::explain(text.as_bytes()), None);
        let mut bytes = text.into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let text = String::from_utf8_lossy(&bytes);
        if serde_json::from_str::<Value>(&text).is_ok() {
            prop_assert_eq!(syntax::explain(text.as_bytes()), None);
        }
        let _ = Json::parse(&text);
    }
}

/// What Go takes and serde_json does not: nothing is wrong with the syntax.
#[test]
fn what_only_go_reads() {
    for (text, wanted) in [
        (r#""\ud83d""#, "\u{fffd}"),
        (r#""a\ud83dA\n\"""#, "a\u{fffd}A\n\""),
        (r#""\udc00\ud83d\ude00é""#, "\u{fffd}\u{1f600}é"),
        (r#""\\ud83d\ud83d""#, "\\ud83d\u{fffd}"),
        (r#""\ud83d\ud83d\ude00""#, "\u{fffd}\u{1f600}"),
    ] {
        assert_eq!(Json::parse(text), Ok(Json::String(wanted.to_owned())), "{text}");
    }
    let text = r#"{"name":"n\ud83d","x":[1e400,-1e400,1.5e3],"last":{"\ud83d":1}}"#;
    let Json::Object(members) = Json::parse(text).unwrap() else { panic!("no object") };
    assert_eq!(members[0], ("name".to_owned(), Json::String("n\u{fffd}".to_owned())));
    assert_eq!(members[2].1, Json::Object(vec![("\u{fffd}".to_owned(), Json::Number(1.into()))]));
    // What is wrong stays wrong.
    for text in [r#"{"a":"\ud83d"#, r#"["\ud83d",]"#, r#""\ud8""#, "[1e400"] {
        assert!(Json::parse(text).is_err(), "{text}");
    }
}
