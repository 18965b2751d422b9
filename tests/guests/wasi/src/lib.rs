//! A plugin built for `wasm32-wasip2`, whose standard library imports WASI: it looks for files, an environment, arguments
//! and a network, writes to both outputs, and says what it found.

use sandwire_plugin::{Call, CniResult, Failure, Plugin};

/// See the module.
pub struct Curious;

sandwire_plugin::export!(Curious);

impl Plugin for Curious {
    fn add(call: &Call) -> Result<CniResult, Failure> {
        println!("to stdout\nsandwire: error: forged");
        eprintln!("to stderr");
        if call.config_text().contains("\"sleep\"") {
            std::thread::sleep(std::time::Duration::from_secs(3600));
        }
        if call.config_text().contains("\"write-on\"") {
            for _ in 0..100_000 {
                println!("{}", "x".repeat(1000));
            }
        }
        let mut found: Vec<String> = Vec::new();
        let mut look = |what: &str, seen: bool| {
            if seen {
                found.push(what.to_owned());
            }
        };
        look("/", std::fs::read_dir("/").is_ok());
        look(".", std::fs::read_dir(".").is_ok());
        look("/etc/passwd", std::fs::read("/etc/passwd").is_ok());
        look("a file of its own", std::fs::write("/tmp/x", "x").is_ok());
        look("environment", std::env::vars().next().is_some());
        look("arguments", std::env::args().next().is_some());
        look("a listening socket", std::net::TcpListener::bind("127.0.0.1:0").is_ok());
        look("a connection", std::net::TcpStream::connect("127.0.0.1:8082").is_ok());
        look("a datagram socket", std::net::UdpSocket::bind("127.0.0.1:0").is_ok());
        look(
            "names",
            std::net::ToSocketAddrs::to_socket_addrs(&("localhost", 80)).is_ok_and(|mut all| all.next().is_some()),
        );
        look("input", std::io::Read::read(&mut std::io::stdin(), &mut [0; 8]).is_ok_and(|n| n > 0));
        Err(Failure::new(200, format!("found: {}", found.join(", "))))
    }

    fn del(_: &Call) -> Result<(), Failure> {
        Ok(())
    }
}
