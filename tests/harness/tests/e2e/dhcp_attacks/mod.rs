//! DHCP servers that lie, from whoever is on the pod's network: what they say wrong is not heard, or it is one clear error in time,
//! and nothing stays of it.

mod answers;
mod ends;

use crate::common::Bench;
use sandwire_harness::{Node, Outcome, Place, Verb};
use serde_json::{Value, json};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A bridge with an uplink to the server.
const BRIDGED: &str = "ip netns add outside
    ip link add cni0 type bridge; ip link set cni0 up
    ip link add uplink type veth peer name wire netns outside; ip link set uplink master cni0 up
    ip -n outside addr add 10.1.2.1/24 dev wire; ip -n outside addr add 10.1.2.2/24 dev wire; ip -n outside link set wire up";

const SERVER: [u8; 4] = [10, 1, 2, 1];
const ANOTHER_SERVER: [u8; 4] = [10, 1, 2, 2];
const GIVEN: [u8; 4] = [10, 1, 2, 50];

// What clients say and what they are answered (RFC 2132, section 9.6).
const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const REQUEST: u8 = 3;
const ACK: u8 = 5;
const NAK: u8 = 6;
const RELEASE: u8 = 7;

/// What a client said.
#[derive(Debug, Clone)]
struct Asked {
    kind: u8,
    xid: [u8; 4],
    mac: [u8; 6],
    /// The address that it has.
    has: [u8; 4],
    /// The address that it wants.
    wants: Option<[u8; 4]>,
    /// How many of its kind came before it.
    before: usize,
}

impl Asked {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let field = |from: usize| bytes.get(from..from + 4)?.try_into().ok();
        let (mut options, mut kind, mut wants) = (bytes.get(240..)?, None, None);
        while let [code, length, rest @ ..] = options {
            if *code == 255 {
                break;
            }
            let (value, rest) = rest.split_at_checked(usize::from(*length))?;
            match code {
                53 => kind = value.first().copied(),
                50 => wants = value.try_into().ok(),
                _ => {}
            }
            options = rest;
        }
        let (xid, mac, has) = (field(4)?, bytes.get(28..34)?.try_into().ok()?, field(12)?);
        Some(Self { kind: kind?, xid, mac, has, wants, before: 0 })
    }
}

/// An answer, good until something of it is changed.
#[derive(Debug, Clone)]
struct Reply {
    op: u8,
    xid: [u8; 4],
    address: [u8; 4],
    mac: [u8; 6],
    sname: Vec<u8>,
    file: Vec<u8>,
    cookie: [u8; 4],
    options: Vec<(u8, Vec<u8>)>,
    /// What ends them.
    tail: Vec<u8>,
}

impl Reply {
    fn to(asked: &Asked, kind: u8) -> Self {
        let options = [(53, &[kind][..]), (54, &SERVER), (51, &[0, 0, 14, 16]), (1, &[255, 255, 255, 0]), (3, &SERVER)];
        Self {
            op: 2,
            xid: asked.xid,
            address: GIVEN,
            mac: asked.mac,
            sname: Vec::new(),
            file: Vec::new(),
            cookie: [99, 130, 83, 99],
            options: options.map(|(code, value)| (code, value.to_vec())).into(),
            tail: vec![255],
        }
    }

    fn without(mut self, code: u8) -> Self {
        self.options.retain(|(other, _)| *other != code);
        self
    }

    /// One more, also where there is one of this code.
    fn with(mut self, code: u8, value: impl AsRef<[u8]>) -> Self {
        self.options.push((code, value.as_ref().to_vec()));
        self
    }

    fn set(self, code: u8, value: impl AsRef<[u8]>) -> Self {
        self.without(code).with(code, value)
    }

    fn address(self, address: [u8; 4]) -> Self {
        Self { address, ..self }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![self.op, 1, 6, 0];
        bytes.extend(self.xid);
        bytes.resize(16, 0);
        bytes.extend(self.address);
        bytes.resize(28, 0);
        bytes.extend(self.mac);
        bytes.resize(44, 0);
        bytes.extend(&self.sname);
        bytes.resize(108, 0);
        bytes.extend(&self.file);
        bytes.resize(236, 0);
        bytes.extend(self.cookie);
        for (code, value) in &self.options {
            bytes.extend([*code, u8::try_from(value.len()).unwrap()]);
            bytes.extend(value);
        }
        bytes.extend(&self.tail);
        bytes
    }
}

/// What a server says to a message.
type Script = Box<dyn FnMut(&Asked) -> Vec<Vec<u8>> + Send>;

/// A server in the namespace `outside`; it ends with this value.
struct Server {
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    heard: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    fn start(node: &Node, mut script: Script) -> Self {
        // A program that another test starts has a copy of the socket of the server before this one, until it is executed.
        let bind = || {
            let end = Instant::now() + Duration::from_secs(10);
            loop {
                match UdpSocket::bind("0.0.0.0:67") {
                    Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < end => {
                        std::thread::sleep(Duration::from_millis(2));
                    }
                    bound => return bound,
                }
            }
        };
        let socket = node.at(&Place::Netns("/run/netns/outside".into()), bind).unwrap().unwrap();
        socket.set_broadcast(true).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let (end, heard) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::<Asked>::new())));
        let (until, hears) = (end.clone(), heard.clone());
        let thread = std::thread::spawn(move || {
            let mut packet = [0; 2048];
            while !until.load(Ordering::SeqCst) {
                let Ok((length, _)) = socket.recv_from(&mut packet) else { continue };
                let Some(mut asked) = Asked::parse(&packet[..length]) else { continue };
                let mut heard = hears.lock().unwrap();
                asked.before = heard.iter().filter(|earlier| earlier.kind == asked.kind).count();
                heard.push(asked.clone());
                drop(heard);
                for answer in script(&asked) {
                    // Fails when the pod's interface went meanwhile.
                    let _ = socket.send_to(&answer, "10.1.2.255:68");
                }
            }
        });
        Self { end, thread: Some(thread), heard }
    }

    fn heard(&self, kind: u8) -> Vec<Asked> {
        self.heard.lock().unwrap().iter().filter(|asked| asked.kind == kind).cloned().collect()
    }

    /// It gets to its socket when it does.
    fn hears_release_of(&self, address: [u8; 4]) -> Result<(), String> {
        let end = Instant::now() + Duration::from_secs(5);
        while !self.heard(RELEASE).iter().any(|asked| asked.has == address) {
            if Instant::now() > end {
                return Err(format!("{} was not given back", Ipv4Addr::from(address)));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end.store(true, Ordering::SeqCst);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// The good answer to a message that has one.
fn good(asked: &Asked) -> Option<Reply> {
    match asked.kind {
        DISCOVER => Some(Reply::to(asked, OFFER)),
        REQUEST => Some(Reply::to(asked, ACK)),
        _ => None,
    }
}

fn honest() -> Script {
    all(|reply| reply)
}

/// Every answer is changed like this.
fn all(change: impl Fn(Reply) -> Reply + Send + 'static) -> Script {
    Box::new(move |asked| good(asked).map(|reply| change(reply).bytes()).into_iter().collect())
}

/// Before each good answer comes a changed one.
fn first(change: impl Fn(Reply) -> Reply + Send + 'static) -> Script {
    first_bytes(move |reply| change(reply).bytes())
}

fn first_bytes(change: impl Fn(Reply) -> Vec<u8> + Send + 'static) -> Script {
    Box::new(move |asked| good(asked).map_or_else(Vec::new, |reply| vec![change(reply.clone()), reply.bytes()]))
}

/// The same, before good answers to this kind of message alone.
fn first_to(kind: u8, change: impl Fn(Reply) -> Reply + Send + 'static) -> Script {
    Box::new(move |asked| {
        let Some(reply) = good(asked) else { return Vec::new() };
        let bad = (asked.kind == kind).then(|| change(reply.clone()).bytes());
        bad.into_iter().chain([reply.bytes()]).collect()
    })
}

/// Offers what is good, and answers requests like this.
fn request(answer: impl Fn(&Asked, Reply) -> Vec<Reply> + Send + 'static) -> Script {
    Box::new(move |asked| match (asked.kind, good(asked)) {
        (REQUEST, Some(reply)) => answer(asked, reply).iter().map(Reply::bytes).collect(),
        (_, reply) => reply.iter().map(Reply::bytes).collect(),
    })
}

/// What comes of an ADD.
enum Then {
    /// It has the address of the good answers, with this length.
    Has(u8),
    /// It fails with this text, and gives back what it had got.
    GivesBack(&'static str),
    /// It fails with this text before there is anything to give back.
    Fails(&'static str),
    /// It fails with this text, and has given back what it may have got.
    Ends(&'static str),
}

use Then::{Ends, Fails, GivesBack, Has};

struct Attack(&'static str, Script, Then);

fn network() -> Value {
    json!({"cniVersion": "1.0.0", "name": "mynet", "type": "bridge", "bridge": "cni0", "ipam": {"type": "dhcp"}})
}

/// A node whose calls wait 4 s for a server.
fn bench() -> Bench {
    bench_of(9000)
}

/// A node whose calls have so many milliseconds.
fn bench_of(deadline: u32) -> Bench {
    let mut bench = Bench::new(BRIDGED);
    crate::dhcp::deadline(&mut bench, deadline);
    bench
}

fn no_panic(outcome: &Outcome) -> Result<(), String> {
    let text = outcome.to_string();
    match ["panicked", "unreachable code", "wasm trap", "backtrace"].iter().any(|word| text.contains(word)) {
        true => Err(format!("a crash: {text}")),
        false => Ok(()),
    }
}

impl Attack {
    fn run(self, bench: &Bench) -> Result<(), String> {
        let Self(name, script, then) = self;
        let server = Server::start(&bench.node, script);
        let outcome = bench.call(false, Verb::Add, &network(), None);
        let found = then.follows(bench, &server, &outcome).and_then(|()| no_panic(&outcome));
        // Whatever went wrong must not be in the next one's way.
        bench.call(false, Verb::Del, &network(), None).done().map_err(|error| format!("{name}: {error:#}"))?;
        let left = bench.node.snapshot().unwrap().assert_same_attachments(&bench.before);
        found
            .and_then(|()| left.map_err(|error| format!("{error:#}")))
            .map_err(|why| format!("{name}: {why}\n  {outcome}"))
    }
}

impl Then {
    fn follows(self, bench: &Bench, server: &Server, outcome: &Outcome) -> Result<(), String> {
        let text = |error: anyhow::Error| format!("{error:#}");
        // The deadline, and what undoing may take on a machine that has something else to do.
        if outcome.duration > Duration::from_secs(10) {
            return Err(format!("it took {:?}", outcome.duration));
        }
        let nothing_left = || bench.node.snapshot().unwrap().assert_same_attachments(&bench.before).map_err(text);
        match self {
            Has(length) => {
                let result = outcome.result().map_err(text)?;
                if result["ips"][0]["address"] != format!("{}/{length}", Ipv4Addr::from(GIVEN)) {
                    return Err("another address".into());
                }
                bench.call(false, Verb::Check, &network(), Some(&result)).done().map_err(text)?;
                bench.call(false, Verb::Del, &network(), Some(&result)).done().map_err(text)?;
                server.hears_release_of(GIVEN)?;
                nothing_left()
            }
            GivesBack(why) => {
                failed(outcome, why)?;
                server.hears_release_of(GIVEN)?;
                nothing_left()
            }
            Fails(why) => {
                failed(outcome, why)?;
                match server.heard(RELEASE).as_slice() {
                    [] => nothing_left(),
                    released => Err(format!("gave back what it never had: {released:?}")),
                }
            }
            Ends(why) => {
                failed(outcome, why)?;
                nothing_left()
            }
        }
    }
}

/// With one error that says this: of the configuration, to be tried again, or any.
fn failed(outcome: &Outcome, why: &str) -> Result<(), String> {
    let error = outcome.error().map_err(|error| format!("{error:#}"))?;
    match [7, 11, 999].contains(&error.code) && error.text().contains(why) {
        true => Ok(()),
        false => Err(format!("wanted {why:?}")),
    }
}

/// One after the other on one node, so that what stays of one is in the next one's way, too.
fn run(attacks: Vec<Attack>) {
    let bench = bench();
    let mut wrong = Vec::new();
    for attack in attacks {
        wrong.extend(attack.run(&bench).err());
    }
    wrong.extend(Attack("an honest server after all that", honest(), Has(24)).run(&bench).err());
    assert!(wrong.is_empty(), "{} of them:\n{}", wrong.len(), wrong.join("\n"));
}
