//! A node with a bridge, two pods on it, one on another bridge, and a machine outside.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::nft::ip;
use super::nft::run;
use super::support::{inside, new_netns};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

/// The node is the namespace of the thread that made it.
pub struct World {
    /// 10.1.2.3 and fd00:1::3 on br0.
    pub pod: OwnedFd,
    /// 10.1.2.4 and fd00:1::4 on br0.
    pub neighbour: OwnedFd,
    /// 10.1.3.3 and fd00:2::3 on br1.
    pub stranger: OwnedFd,
    /// 192.0.2.2 and 2001:db8::2, with routes back to the pods' networks.
    pub outside: OwnedFd,
}

fn sysctl(key: &str, value: &str) {
    std::fs::write(format!("/proc/sys/net/{key}"), value).unwrap();
}

fn path(netns: &OwnedFd) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), netns.as_raw_fd())
}

fn give(link: &str, addresses: &[&str]) {
    for address in addresses {
        let nodad = if address.contains(':') { " nodad" } else { "" };
        ip(&format!("address add {address} dev {link}{nodad}"));
    }
}

impl World {
    pub fn new() -> Self {
        let world = Self { pod: new_netns(), neighbour: new_netns(), stranger: new_netns(), outside: new_netns() };
        let no_dad = || sysctl("ipv6/conf/default/accept_dad", "0");
        no_dad();
        ip("link set lo up");
        for (bridge, addresses) in [("br0", ["10.1.2.1/24", "fd00:1::1/64"]), ("br1", ["10.1.3.1/24", "fd00:2::1/64"])]
        {
            ip(&format!("link add {bridge} type bridge"));
            ip(&format!("link set {bridge} up"));
            give(bridge, &addresses);
        }
        for (netns, port, bridge, addresses, gateways) in [
            (&world.pod, "veth1", "br0", ["10.1.2.3/24", "fd00:1::3/64"], ["10.1.2.1", "fd00:1::1"]),
            (&world.neighbour, "veth2", "br0", ["10.1.2.4/24", "fd00:1::4/64"], ["10.1.2.1", "fd00:1::1"]),
            (&world.stranger, "veth3", "br1", ["10.1.3.3/24", "fd00:2::3/64"], ["10.1.3.1", "fd00:2::1"]),
            (&world.outside, "out0", "", ["192.0.2.2/24", "2001:db8::2/64"], ["192.0.2.1", "2001:db8::1"]),
        ] {
            inside(netns, no_dad);
            ip(&format!("link add {port} type veth peer name eth0 netns {}", path(netns)));
            ip(&format!("link set {port} up"));
            match bridge {
                "" => give(port, &["192.0.2.1/24", "2001:db8::1/64"]),
                bridge => {
                    ip(&format!("link set {port} master {bridge}"));
                    // As the bridge plugin's "hairpinMode". With br_netfilter the bridge itself brings back what is
                    // translated to the port that it came from; without, the node does.
                    run("bridge", &["link", "set", "dev", port, "hairpin", "on"]);
                }
            }
            inside(netns, || {
                ip("link set lo up");
                ip("link set eth0 up");
                give("eth0", &addresses);
                gateways.iter().for_each(|gateway| drop(ip(&format!("route add default via {gateway}"))));
            });
        }
        sysctl("ipv4/ip_forward", "1");
        sysctl("ipv6/conf/all/forwarding", "1");
        sysctl("ipv4/conf/br0/route_localnet", "1");
        world
    }
}

pub fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), port)
}

const SOON: Duration = Duration::from_secs(2);
const NEVER: Duration = Duration::from_millis(300);

/// Answers each datagram with the address that it came from, until it has nothing to do for a while.
pub fn udp_server(netns: &OwnedFd, address: SocketAddr) -> UdpSocket {
    inside(netns, || {
        let socket = UdpSocket::bind(address).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        socket
    })
}

/// What the server at `server` sees as the source of a datagram that was sent to `to`, if its answer arrives too.
pub fn udp(
    server: &UdpSocket,
    client: impl FnOnce() -> UdpSocket + Send,
    to: SocketAddr,
    arrives: bool,
) -> Option<IpAddr> {
    let client = client();
    let limit = if arrives { SOON } else { NEVER };
    client.set_read_timeout(Some(limit)).unwrap();
    server.set_read_timeout(Some(limit)).unwrap();
    // Refused at once is a way of not arriving.
    client.send_to(b"who am I?", to).ok()?;
    let (_, source) = server.recv_from(&mut [0; 16]).ok()?;
    server.send_to(b"you", source).unwrap();
    let (_, answerer) = client.recv_from(&mut [0; 16]).ok()?;
    assert_eq!(answerer, to, "the answer comes from where the question went");
    Some(source.ip())
}

/// A client's socket in a namespace.
pub fn client(netns: &OwnedFd, to: SocketAddr) -> impl FnOnce() -> UdpSocket + Send + '_ {
    move || inside(netns, || own_client(to)())
}

/// One of the node itself.
pub fn own_client(to: SocketAddr) -> impl FnOnce() -> UdpSocket + Send {
    move || {
        let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
        UdpSocket::bind(SocketAddr::new(any, 0)).unwrap()
    }
}

pub fn tcp_server(netns: &OwnedFd, address: SocketAddr) -> TcpListener {
    inside(netns, || TcpListener::bind(address).unwrap())
}

/// What the server sees as the source of a connection to `to`; both sides speak.
pub fn tcp(server: &TcpListener, client: impl FnOnce() -> Option<TcpStream> + Send) -> Option<IpAddr> {
    std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let mut stream = client()?;
            stream.set_read_timeout(Some(SOON)).unwrap();
            stream.write_all(b"?").unwrap();
            stream.read_exact(&mut [0; 1]).ok()
        });
        server.set_nonblocking(true).unwrap();
        let started = std::time::Instant::now();
        let accepted = loop {
            match server.accept() {
                Ok((stream, source)) => break Some((stream, source)),
                Err(_) if client.is_finished() && started.elapsed() > NEVER => break None,
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        };
        let source = accepted.map(|(mut stream, source)| {
            stream.set_nonblocking(false).unwrap();
            stream.set_read_timeout(Some(SOON)).unwrap();
            stream.read_exact(&mut [0; 1]).unwrap();
            stream.write_all(b"!").unwrap();
            source.ip()
        });
        client.join().unwrap()?;
        source
    })
}

/// A TCP client in a namespace.
pub fn connect(netns: &OwnedFd, to: SocketAddr) -> impl FnOnce() -> Option<TcpStream> + Send + '_ {
    move || inside(netns, || TcpStream::connect_timeout(&to, SOON).ok())
}

/// One of the node itself.
pub fn own_connect(to: SocketAddr) -> impl FnOnce() -> Option<TcpStream> + Send {
    move || TcpStream::connect_timeout(&to, SOON).ok()
}
