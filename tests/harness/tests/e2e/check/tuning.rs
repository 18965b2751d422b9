//! CHECK of tuning: each setting, and what it does not ask for.

use super::*;

#[test]
fn tuning() {
    let config = json!({"name": "mynet", "type": "tuning", "mtu": 1400, "txQLen": 77, "allmulti": true, "promisc": true,
        "mac": "C2-11-22-33-44-55",
        "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1", "net.ipv4.ip_local_port_range": "2000 3000"},
        "prevResult": {"interfaces": [{"name": "eth0", "sandbox": "/run/netns/pod-a"}],
            "ips": [{"address": "10.1.2.3/24", "interface": 0}]}});
    let rows = [
        pod(
            "another value of a sysctl",
            "echo 0 > /proc/sys/net/ipv4/conf/eth0/arp_filter",
            "Error: Tuning configured value of /proc/sys/net/ipv4/conf/eth0/arp_filter is 1, current value is 0",
        ),
        pod(
            "another value of two numbers",
            "echo 2000 3001 > /proc/sys/net/ipv4/ip_local_port_range",
            "Error: Tuning configured value of /proc/sys/net/ipv4/ip_local_port_range is 2000 3000, current value is 2000\t3001",
        ),
        pod(
            "another MAC",
            "ip link set eth0 address 02:00:00:00:00:99",
            "Error: Tuning configured Ethernet of eth0 is C2-11-22-33-44-55, current value is 02:00:00:00:00:99",
        ),
        pod(
            "another MTU",
            "ip link set eth0 mtu 1300",
            "Error: Tuning configured MTU of eth0 is 1400, current value is 1300",
        ),
        pod(
            "no promiscuous mode",
            "ip link set eth0 promisc off",
            "Error: Tuning link eth0 configured promisc is true, current value is 0",
        ),
        pod(
            "no all-multicast mode",
            "ip link set eth0 allmulticast off",
            "Error: Tuning configured all-multicast mode of eth0 is true, current value is false",
        ),
        pod(
            "another length of the queue",
            "ip link set eth0 txqueuelen 78",
            "Error: Tuning configured Transmit Queue Length of eth0 is 77, current value is 78",
        ),
        pod("another address", "ip addr add 10.77.0.1/24 dev eth0", ""),
        pod("another sysctl", "echo 1 > /proc/sys/net/ipv4/conf/eth0/arp_ignore", ""),
        host("no interface", "ip -n pod-a link del eth0", "/proc/sys/net/ipv4/conf/eth0/arp_filter").mended(TUNED),
    ];
    at_every_version(&config, &rows, &[]);
    let mut unsaid = config.clone();
    for key in ["promisc", "sysctl"] {
        unsaid.as_object_mut().unwrap().remove(key);
    }
    // Somebody captures; the reference complains.
    let capture = pod("a promiscuous interface", "ip link set eth0 promisc on", "");
    let gone = host("no interface", "ip -n pod-a link del eth0", "Cannot find container link eth0").mended(TUNED);
    at_every_version(&unsaid, &[gone, capture], &[]);
}
