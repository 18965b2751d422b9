//! HTTP to the agents that policy names. TCP to an IP address or a unix socket; no names are looked up, no redirects
//! followed, no proxy used: a guest's call reaches the one agent or nothing.

use sandwire_policy::Endpoint;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use ureq::unversioned::resolver::{ArrayVec, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport};

/// A call as a guest or the journal has it.
#[derive(Debug, Clone)]
pub(crate) struct Call<'a> {
    /// "GET", "POST" ...
    pub(crate) method: &'a str,
    /// Path and query.
    pub(crate) path: &'a str,
    /// Header lines.
    pub(crate) headers: &'a [(String, String)],
    /// Body.
    pub(crate) body: &'a str,
}

/// Any HTTP status is a reply.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    /// HTTP status.
    pub(crate) status: u16,
    /// Header lines that are text.
    pub(crate) headers: Vec<(String, String)>,
    /// Body, as text.
    pub(crate) body: String,
}

/// Why there is no reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Policy, or a call that is no HTTP.
    Refused(String),
    /// No connection: the agent has not seen the call.
    Unreachable(String),
    /// The agent may have seen the call.
    Timeout(String),
    /// The agent answered something that is no whole HTTP answer; it may have done what was asked.
    Broken(String),
}

impl Fault {
    /// The text.
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Refused(t) | Self::Unreachable(t) | Self::Timeout(t) | Self::Broken(t) => t,
        }
    }
}

/// Whether policy allows method and path: "POST /attach_localport" or "GET /looking-glass/*".
pub(crate) fn allowed(endpoint: &Endpoint, method: &str, path: &str) -> bool {
    let plain = path.starts_with('/')
        && path.bytes().all(|b| b.is_ascii_graphic())
        // Some servers take "\" for "/", and cut a segment at ";". What follows "#" is not sent at all.
        && !path.contains('#')
        && !path.split(['/', '?', '\\', ';']).any(|part| part == "..")
        // %2e and %2f could be a way around a path prefix in the agent.
        && !path.to_ascii_lowercase().contains("%2");
    plain
        && endpoint.allow.iter().any(|rule| {
            rule.split_once(' ').is_some_and(|(m, pattern)| {
                m == method
                    && match pattern.strip_suffix('*') {
                        Some(prefix) => path.starts_with(prefix),
                        None => path == pattern,
                    }
            })
        })
}

/// Headers about the connection and about where a message ends (RFC 9110, 7.6.1 and 10.1.1; RFC 9112, 6). With one that
/// lies, the rest of a body is the agent's next request, which no policy was asked about.
const OURS: [&str; 12] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What is wrong with the rest of a call: the message on the wire must be the one that policy was asked about.
pub(crate) fn fault(call: &Call<'_>) -> Option<String> {
    // RFC 9110, 9.3.1: servers may leave the body of a GET unread, and take it for the next request.
    if ["GET", "HEAD", "DELETE"].contains(&call.method) && !call.body.is_empty() {
        return Some(format!("{} {}: a {} has no body", call.method, call.path, call.method));
    }
    call.headers.iter().find_map(|(key, value)| {
        let token = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let plain = value.bytes().all(|b| (0x20..0x7f).contains(&b));
        if !token || !plain {
            return Some(format!("{key:?}: {value:?} is no header"));
        }
        OURS.contains(&key.to_ascii_lowercase().as_str())
            .then(|| format!("the header {key:?} is the host's own: it says where a message ends, or to whom it goes"))
    })
}

/// Sends one call and reads the whole answer, within the endpoint's time or `left`, whichever ends first.
///
/// # Errors
/// See [`Fault`].
pub(crate) fn send(name: &str, endpoint: &Endpoint, call: &Call<'_>, left: Duration) -> Result<Reply, Fault> {
    if !allowed(endpoint, call.method, call.path) {
        return Err(Fault::Refused(format!(
            "{} {} is not among the calls that policy allows to endpoint {name:?} ({})",
            call.method,
            call.path,
            endpoint.allow.join(", ")
        )));
    }
    if let Some(fault) = fault(call) {
        return Err(Fault::Refused(fault));
    }
    let timeout = Duration::from_millis(endpoint.timeout_ms).min(left).max(Duration::from_millis(1));
    let what = format!("agent {name:?} ({})", endpoint.address);
    let peer = Peer::parse(&endpoint.address).ok_or_else(|| {
        Fault::Refused(format!("{what}: the address in policy is neither http://IP:PORT nor unix:/PATH"))
    })?;
    // Connecting here, not inside of the HTTP client, tells "nothing was sent" from "something may have been".
    let stream = peer.connect(timeout).map_err(|e| Fault::Unreachable(format!("{what} can't be reached: {e}")))?;

    let config = ureq::Agent::config_builder()
        .timeout_global(Some(timeout))
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .user_agent(concat!("sandwire/", env!("CARGO_PKG_VERSION")))
        .build();
    let agent = ureq::Agent::with_parts(config, Once(std::sync::Mutex::new(Some(stream))), NoNames);
    let mut request =
        ureq::http::Request::builder().method(call.method).uri(format!("http://{}{}", peer.host(), call.path));
    // One call a connection. An agent that thinks there is another message behind this one has nobody to answer.
    request = request.header("Connection", "close");
    for (key, value) in call.headers {
        request = request.header(key, value);
    }
    let request = request.body(call.body.as_bytes()).map_err(|e| Fault::Refused(format!("no HTTP call: {e}")))?;
    let broken = |e: ureq::Error| match e {
        ureq::Error::Timeout(_) => Fault::Timeout(format!("{what} did not answer within {} ms", timeout.as_millis())),
        ureq::Error::Io(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
            Fault::Timeout(format!("{what} did not answer within {} ms", timeout.as_millis()))
        }
        // The whole call's deadline came first, or somebody ends it: signals are for nothing else here (deadline.rs).
        ureq::Error::Io(e) if e.kind() == std::io::ErrorKind::Interrupted => {
            Fault::Timeout(format!("{what} did not answer before the end of this call"))
        }
        e => Fault::Broken(format!("{what} gave no whole answer: {e}")),
    };
    let answer = agent.run(request).map_err(broken)?;
    let (head, mut body) = answer.into_parts();
    let headers = head
        .headers
        .iter()
        .filter_map(|(key, value)| Some((key.as_str().to_owned(), value.to_str().ok()?.to_owned())))
        .collect();
    let limit = u64::try_from(endpoint.answer_bytes).unwrap_or(u64::MAX);
    let body = body.with_config().limit(limit).read_to_vec().map_err(broken)?;
    // HTTP/1.0 agents end a body by closing: a length that was promised and not kept is half an answer.
    Ok(Reply { status: head.status.as_u16(), headers, body: String::from_utf8_lossy(&body).into_owned() })
}

#[derive(Debug)]
enum Peer {
    Tcp(SocketAddr),
    Unix(std::path::PathBuf),
}

impl Peer {
    fn parse(address: &str) -> Option<Self> {
        if let Some(path) = address.strip_prefix("unix:") {
            return path.starts_with('/').then(|| Self::Unix(path.into()));
        }
        let rest = address.strip_prefix("http://")?;
        Some(Self::Tcp(rest.trim_end_matches('/').parse().ok()?))
    }

    fn host(&self) -> String {
        match self {
            Self::Tcp(address) => address.to_string(),
            Self::Unix(_) => "localhost".into(),
        }
    }

    fn connect(&self, timeout: Duration) -> std::io::Result<Stream> {
        Ok(match self {
            Self::Tcp(address) => {
                let stream = TcpStream::connect_timeout(address, timeout)?;
                // One small request and its answer: waiting to fill a segment only costs time.
                stream.set_nodelay(true)?;
                Stream::Tcp(stream)
            }
            Self::Unix(path) => Stream::Unix(UnixStream::connect(path)?),
        })
    }
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn set_timeouts(&self, timeout: Option<Duration>) -> std::io::Result<()> {
        match self {
            Self::Tcp(s) => s.set_read_timeout(timeout).and_then(|()| s.set_write_timeout(timeout)),
            Self::Unix(s) => s.set_read_timeout(timeout).and_then(|()| s.set_write_timeout(timeout)),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Tcp(s) => s.read(buffer),
            Self::Unix(s) => s.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Tcp(s) => s.write(buffer),
            Self::Unix(s) => s.write(buffer),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Hands out the one connection that is open already.
#[derive(Debug)]
struct Once(std::sync::Mutex<Option<Stream>>);

impl<In: Transport> Connector<In> for Once {
    type Out = OpenStream;

    fn connect(&self, details: &ConnectionDetails<'_>, _: Option<In>) -> Result<Option<OpenStream>, ureq::Error> {
        let stream = self.0.lock().ok().and_then(|mut stream| stream.take());
        let config = details.config;
        Ok(stream.map(|stream| OpenStream {
            stream,
            buffers: LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size()),
            open: true,
        }))
    }
}

#[derive(Debug)]
struct OpenStream {
    stream: Stream,
    buffers: LazyBuffers,
    open: bool,
}

impl OpenStream {
    fn limit(&self, timeout: NextTimeout) -> Result<Instant, ureq::Error> {
        let after: Option<Duration> = timeout.not_zero().map(|t| *t);
        self.stream.set_timeouts(after)?;
        Ok(Instant::now() + after.unwrap_or(Duration::from_secs(3600)))
    }

    fn late(error: std::io::Error, until: Instant, timeout: NextTimeout) -> ureq::Error {
        let expired = Instant::now() >= until
            && matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut);
        if expired { ureq::Error::Timeout(timeout.reason) } else { ureq::Error::Io(error) }
    }
}

impl Transport for OpenStream {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        let until = self.limit(timeout)?;
        let output = self.buffers.output().get(..amount).unwrap_or_default();
        self.stream.write_all(output).map_err(|e| Self::late(e, until, timeout))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        let until = self.limit(timeout)?;
        let input = self.buffers.input_append_buf();
        let amount = self.stream.read(input).map_err(|e| Self::late(e, until, timeout))?;
        self.buffers.input_appended(amount);
        self.open = amount > 0;
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        self.open
    }
}

#[derive(Debug)]
struct NoNames;

impl Resolver for NoNames {
    fn resolve(
        &self,
        _: &ureq::http::Uri,
        _: &ureq::config::Config,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let mut addresses: ResolvedSocketAddrs = ArrayVec::from_fn(|_| SocketAddr::from(([0, 0, 0, 0], 0)));
        addresses.push(SocketAddr::from(([127, 0, 0, 1], 0)));
        Ok(addresses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_policy_allows() {
        let endpoint = Endpoint {
            address: "http://127.0.0.1:8082".into(),
            timeout_ms: 1000,
            allow: vec!["GET /looking-glass/*".into(), "POST /attach_localport".into()],
            answer_bytes: 1 << 20,
        };
        for (method, path, wanted) in [
            ("POST", "/attach_localport", true),
            ("GET", "/attach_localport", false),
            ("POST", "/attach_localport?x", false),
            ("GET", "/looking-glass/summary", true),
            ("GET", "/looking-glass/../attach_localport", false),
            ("GET", "/looking-glass/%2e%2e/attach_localport", false),
            ("GET", "/looking-glass/a\r\nX: y", false),
            ("GET", "http://example/looking-glass/", false),
        ] {
            assert_eq!(allowed(&endpoint, method, path), wanted, "{method} {path}");
        }
    }
}
