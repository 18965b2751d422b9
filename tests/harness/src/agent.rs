//! A scripted BaGPipe agent: bagpipe-bgp's REST calls as `tests/lab` shows them, and the ways in which an agent fails. It makes the
//! bridge of an instance as the real one does, so that what a plugin puts on it has a place.

use crate::Node;
use anyhow::{Result, anyhow};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// How the agent answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// As bagpipe-bgp does when all is well.
    Ok,
    /// Every POST: this status, with bagpipe-bgp's JSON around the text.
    Status(u16, String),
    /// Every POST: status 200, but a page.
    Html,
    /// An answer that is cut off in its middle.
    Half,
    /// The call is read and never answered.
    Hang,
    /// So with every POST; the looking glass answers.
    HangOnPost,
    /// Nobody listens.
    Refuse,
    /// All is well but for the BGP session.
    NoPeers,
}

/// One call as the agent got it.
#[derive(Debug, Clone, PartialEq)]
pub struct Received {
    /// "POST".
    pub method: String,
    /// "/attach_localport".
    pub path: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    /// As JSON; a JSON string when it is none.
    pub body: Value,
}

impl Received {
    /// For comparison with a case's expectation.
    pub fn as_json(&self) -> Value {
        json!({"method": self.method, "path": self.path, "headers": self.headers, "body": self.body})
    }
}

#[derive(Default)]
struct State {
    calls: Vec<Received>,
    /// Instance to interface to what was attached.
    instances: BTreeMap<String, BTreeMap<String, Value>>,
    targets: BTreeMap<String, Value>,
    over: bool,
}

/// A running agent; it ends when this is dropped.
pub struct Agent {
    mode: Arc<Mutex<Mode>>,
    state: Arc<Mutex<State>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Clone)]
enum Address {
    Tcp(String),
    Unix(String),
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Agent {
    /// On a TCP port of the node, "127.0.0.1:8082".
    ///
    /// # Errors
    /// When the port is taken.
    pub fn tcp(node: &Node, address: &str) -> Result<Self> {
        Self::start(node, Address::Tcp(address.to_owned()))
    }

    /// On a unix socket of the node.
    ///
    /// # Errors
    /// When the socket can't be made.
    pub fn unix(node: &Node, path: &str) -> Result<Self> {
        Self::start(node, Address::Unix(path.to_owned()))
    }

    fn start(node: &Node, address: Address) -> Result<Self> {
        let (mode, state) = (Arc::new(Mutex::new(Mode::Ok)), Arc::new(Mutex::new(State::default())));
        let server = Server { address, mode: Arc::clone(&mode), state: Arc::clone(&state) };
        // Started by the node's thread, so that it is in the node's namespaces.
        let thread = node.within(move || {
            let listener = server.listen()?;
            anyhow::Ok(std::thread::spawn(move || server.serve(listener)))
        })??;
        Ok(Self { mode, state, thread: Some(thread) })
    }

    /// Answer so from now on. `Refuse` is in effect when this returns.
    ///
    /// # Errors
    /// When the agent's thread died.
    pub fn set(&self, mode: Mode) -> Result<()> {
        *self.mode.lock().map_err(|_| anyhow!("the agent's thread died"))? = mode;
        // The accept loop looks at the mode every few milliseconds.
        std::thread::sleep(Duration::from_millis(30));
        Ok(())
    }

    /// The calls since the last time this was asked.
    pub fn take_calls(&self) -> Vec<Received> {
        self.state.lock().map(|mut state| std::mem::take(&mut state.calls)).unwrap_or_default()
    }

    /// As if these were the calls since the last time somebody asked.
    pub(crate) fn remember_only(&self, calls: Vec<Received>) {
        if let Ok(mut state) = self.state.lock() {
            state.calls = calls;
        }
    }

    /// What is attached: instance, interface.
    pub fn attached(&self) -> Vec<(String, String)> {
        let Ok(state) = self.state.lock() else { return Vec::new() };
        let pairs = |(id, ports): (&String, &BTreeMap<String, Value>)| {
            ports.keys().map(|port| (id.clone(), port.clone())).collect::<Vec<_>>()
        };
        state.instances.iter().flat_map(pairs).collect()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Ok(mut state) = self.state.lock() {
            state.over = true;
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Server {
    address: Address,
    mode: Arc<Mutex<Mode>>,
    state: Arc<Mutex<State>>,
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

impl Server {
    fn listen(&self) -> Result<Listener> {
        Ok(match &self.address {
            Address::Tcp(address) => {
                let listener = TcpListener::bind(address)?;
                listener.set_nonblocking(true)?;
                Listener::Tcp(listener)
            }
            Address::Unix(path) => {
                let _ = std::fs::remove_file(path);
                let listener = UnixListener::bind(path)?;
                listener.set_nonblocking(true)?;
                Listener::Unix(listener)
            }
        })
    }

    fn mode(&self) -> Mode {
        self.mode.lock().map_or(Mode::Refuse, |mode| mode.clone())
    }

    fn over(&self) -> bool {
        self.state.lock().map_or(true, |state| state.over)
    }

    fn serve(&self, first: Listener) {
        let mut listener = Some(first);
        // Connections that are kept open unanswered.
        let mut hanging = Vec::new();
        while !self.over() {
            if self.mode() == Mode::Refuse {
                listener = None;
            } else if listener.is_none() {
                listener = self.listen().ok();
            }
            if !matches!(self.mode(), Mode::Hang | Mode::HangOnPost) {
                hanging.clear();
            }
            match listener.as_ref().and_then(accept) {
                Some(stream) => hanging.extend(self.answer(stream)),
                None => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    }

    /// Answer one call; the stream itself when it is to hang.
    fn answer(&self, mut stream: Box<dyn Stream>) -> Option<Box<dyn Stream>> {
        let call = receive(&mut stream)?;
        let mode = self.mode();
        if let Ok(mut state) = self.state.lock() {
            state.calls.push(call.clone());
        }
        let page = "<html>\n <head>\n  <title>500 Internal Server Error</title>\n </head>\n <body></body>\n</html>";
        let reply = match mode {
            Mode::Hang => return Some(stream),
            Mode::HangOnPost if call.method == "POST" => return Some(stream),
            Mode::Refuse => return None,
            Mode::Half => {
                let _ = stream.write_all(
                    b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\nContent-Length: 400\r\n\r\n{\"ha",
                );
                return None;
            }
            Mode::Html => ("200 OK", "text/html", page.to_owned()),
            Mode::Status(code, text) if call.method == "POST" => return send_error(&mut stream, code, &text),
            Mode::Ok | Mode::NoPeers | Mode::HangOnPost | Mode::Status(..) => match self.act(&call, &mode) {
                Ok(body) => ("200 OK", "application/json", body.to_string()),
                Err((code, text)) => return send_error(&mut stream, code, &text),
            },
        };
        send(&mut stream, reply.0, reply.1, &reply.2);
        None
    }

    fn act(&self, call: &Received, mode: &Mode) -> Result<Value, (u16, String)> {
        let Ok(mut state) = self.state.lock() else { return Err((500, "state".into())) };
        let peers = i32::from(*mode != Mode::NoPeers);
        let path: Vec<&str> = call.path.split('/').filter(|part| !part.is_empty()).collect();
        match (call.method.as_str(), path.as_slice()) {
            ("GET", ["ping"]) => Ok(json!(826_574_705_u64)),
            ("POST", ["attach_localport"]) => attach(&mut state, &call.body),
            ("POST", ["detach_localport"]) => detach(&mut state, &call.body),
            ("GET", ["looking-glass"]) => Ok(json!({"summary": {"BGP_established_peers": peers}})),
            ("GET", ["looking-glass", "summary"]) => Ok(
                json!({"BGP_established_peers": peers, "vpn_instances_count": state.instances.len(), "version": "21.0.0"}),
            ),
            ("GET", ["looking-glass", "config"]) => Ok(json!({
                "BGP": {"local_address": "192.0.2.1", "peers": ["192.0.2.254"], "my_as": 64512},
                "DATAPLANE_DRIVER_EVPN": {"dataplane_local_address": null, "dataplane_driver": "linux", "vxlan_dst_port": 4789},
            })),
            ("GET", ["looking-glass", "bgp", "peers"]) => {
                let now = if peers == 1 { "Established" } else { "Active" };
                Ok(json!([{"id": "192.0.2.254", "state": now}]))
            }
            ("GET", ["looking-glass", "vpns", "instances"]) => {
                Ok(state.instances.keys().map(|id| json!({"id": id, "name": "EVI-1"})).collect())
            }
            ("GET", ["looking-glass", "vpns", "instances", id, rest @ ..]) => {
                let instance = state.instances.get(*id).ok_or((404, "No such looking glass object".to_owned()))?;
                let targets = state.targets.get(*id).cloned().unwrap_or_default();
                match rest {
                    [] => Ok(json!({"external_instance_id": id, "instance_type": "EVI", "route_targets": targets})),
                    ["ports"] => {
                        Ok(instance.iter().map(|(port, at)| (port.clone(), json!({"endpoints": [at]}))).collect())
                    }
                    ["route_targets"] => Ok(targets),
                    ["dataplane"] => {
                        Ok(json!({"linux_bridge": device("evpn---", id), "vxlan_if": device("vxlan--", id)}))
                    }
                    _ => Err((404, "No such looking glass object".into())),
                }
            }
            ("GET" | "POST", _) => Err((404, "The resource could not be found.".into())),
            _ => Err((405, "The method is not allowed for this resource.".into())),
        }
    }
}

/// bagpipe-bgp cuts the names of its devices at 15 characters.
fn device(prefix: &str, id: &str) -> String {
    format!("{prefix}{id}").chars().take(15).collect()
}

fn text<'b>(body: &'b Value, key: &str) -> Result<&'b str, (u16, String)> {
    body.get(key).and_then(Value::as_str).ok_or_else(|| (400, format!("API error: Missing parameter: '{key}'")))
}

fn port(body: &Value) -> Result<String, (u16, String)> {
    let port = body.get("local_port").ok_or((400, "API error: Missing parameter: 'local_port'".to_owned()))?;
    let name = port.as_str().or_else(|| port.get("linuxif").and_then(Value::as_str));
    name.map(str::to_owned).ok_or((400, "API error: Mandatory key is missing in local_port".into()))
}

fn attach(state: &mut State, body: &Value) -> Result<Value, (u16, String)> {
    let (id, port) = (text(body, "vpn_instance_id")?, port(body)?);
    if text(body, "vpn_type")? != "evpn" {
        return Err((400, "API error: unknown vpn_type".into()));
    }
    let mac = text(body, "mac_address")?.to_lowercase();
    for key in ["import_rt", "export_rt"] {
        if !body.get(key).is_some_and(|targets| targets.is_array() || targets.is_string()) {
            return Err((400, format!("API error: Missing parameter: '{key}'")));
        }
    }
    let bridge = device("evpn---", id);
    if !state.instances.contains_key(id) {
        ip(&["link", "add", &bridge, "up", "type", "bridge"]);
    }
    if !ip(&["link", "set", &port, "up", "master", &bridge]) {
        return Err((500, format!("Internal Server Error: Cannot find device \"{port}\"")));
    }
    let endpoint = json!({"mac_address": mac, "ip_address": body.get("ip_address"), "direction": "both"});
    state.instances.entry(id.to_owned()).or_default().insert(port, endpoint);
    state.targets.insert(id.to_owned(), json!({"import": body["import_rt"], "export": body["export_rt"]}));
    Ok(Value::Null)
}

fn detach(state: &mut State, body: &Value) -> Result<Value, (u16, String)> {
    let (id, port) = (text(body, "vpn_instance_id")?, port(body)?);
    let Some(ports) = state.instances.get_mut(id) else {
        return Err((400, format!("API error: VPN {id} could not be found")));
    };
    if ports.remove(&port).is_none() {
        return Err((400, "API error: Endpoint not plugged yet".into()));
    }
    // Gone with the pod already, in many a DEL.
    ip(&["link", "set", &port, "nomaster"]);
    if ports.is_empty() {
        state.instances.remove(id);
        state.targets.remove(id);
        ip(&["link", "del", &device("evpn---", id)]);
    }
    Ok(Value::Null)
}

fn ip(args: &[&str]) -> bool {
    Command::new("ip").args(args).output().is_ok_and(|output| output.status.success())
}

fn accept(listener: &Listener) -> Option<Box<dyn Stream>> {
    match listener {
        Listener::Tcp(listener) => {
            let (stream, _) = listener.accept().ok()?;
            stream.set_nonblocking(false).ok()?;
            stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
            Some(Box::new(stream))
        }
        Listener::Unix(listener) => {
            let (stream, _) = listener.accept().ok()?;
            stream.set_nonblocking(false).ok()?;
            stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
            Some(Box::new(stream))
        }
    }
}

fn receive(stream: &mut Box<dyn Stream>) -> Option<Received> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.insert(name.trim().to_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let body = serde_json::from_slice(&body).unwrap_or_else(|_| String::from_utf8_lossy(&body).into_owned().into());
    Some(Received { method, path, headers, body })
}

fn send(stream: &mut Box<dyn Stream>, status: &str, kind: &str, body: &str) {
    let length = body.len();
    // By one write, as far as TCP lets it: written piece by piece, each piece is a segment, and how many system calls a
    // caller needs to read them is a matter of luck. The crash trials count those.
    let reply = format!(
        "HTTP/1.0 {status}\r\nServer: WSGIServer/0.2 CPython/3.11.2\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    // A caller that went away is its own affair.
    let _ = stream.write_all(reply.as_bytes());
}

fn send_error(stream: &mut Box<dyn Stream>, code: u16, text: &str) -> Option<Box<dyn Stream>> {
    let title = match code {
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        _ => "Internal Server Error",
    };
    let body = json!({"code": code, "title": title, "description": text}).to_string();
    send(stream, &format!("{code} {title}"), "application/json", &body);
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    /// How often `recv` must be called for an answer may not depend on who runs when.
    #[test]
    fn an_answer_comes_in_one_piece() {
        let node = Node::new().unwrap();
        let _agent = Agent::tcp(&node, "127.0.0.1:8082").unwrap();
        let answers = node.within(|| {
            let ask = |_| {
                let mut stream = TcpStream::connect("127.0.0.1:8082").unwrap();
                stream.write_all(b"GET /looking-glass HTTP/1.0\r\n\r\n").unwrap();
                let mut bytes = [0; 4096];
                let length = stream.read(&mut bytes).unwrap();
                String::from_utf8_lossy(&bytes[..length]).into_owned()
            };
            (0..50).map(ask).collect::<Vec<String>>()
        });
        for answer in answers.unwrap() {
            assert!(answer.ends_with(r#"{"summary":{"BGP_established_peers":1}}"#), "{answer}");
        }
    }
}
