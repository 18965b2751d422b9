//! CHECK of macvlan: its master, mode, queue, MAC and MTU.

use super::*;

#[test]
fn macvlan() {
    let config = json!({"name": "mynet", "type": "macvlan", "master": "m0", "mode": "private", "bcqueuelen": 200,
        "mtu": 1400, "ipam": ipam()});
    at_every_version(&config, &POD, &[]);
    at_every_version(&config, &LEASES, &[]);
    let tolerated = TOLERATED.into_iter().filter(|row| !row.host.contains("$VETH")).collect::<Vec<_>>();
    at_every_version(&config, &tolerated, &[]);
    let own = [
        host(
            "no master",
            "ip link set m0 down; ip link set m0 name m1",
            "failed to lookup master \"m0\": Link not found",
        )
        .mended("ip link set m1 name m0; ip link set m0 up"),
        host("a master that is gone", "ip link del m0", "container Interface name in prevResult: eth0 not found")
            .mended(MASTER),
        host(
            "a smaller MTU of the master",
            "ip link set m0 mtu 1300",
            "invalid MTU 1400, must be [0, master MTU(1300)]",
        )
        .mended("ip link set m0 mtu 1500"),
        pod(
            "another mode",
            "ip link set eth0 type macvlan mode bridge",
            "container macvlan mode bridge does not match expected value: private",
        ),
        pod(
            "another length of the queue",
            "ip link set eth0 type macvlan bcqueuelen 300",
            "container macvlan bcqueuelen 300 does not match expected value: 200",
        ),
        pod(
            "another MAC",
            "ip link set eth0 address 02:00:00:00:00:99",
            "doesn't match container Mac: 02:00:00:00:00:99",
        ),
        pod(
            "an interface that is no macvlan",
            "ip link del eth0; ip link add eth0 type bridge",
            "error: Container interface eth0 not of type macvlan",
        ),
        host(
            "another master",
            "ip -n pod-a link del eth0; ip link add m2 type veth peer name m2p; ip link set m2 up
             ip link add sw9 link m2 netns pod-a type macvlan mode private; ip -n pod-a link set sw9 name eth0",
            "rides on m2, not on the configured master m0",
        )
        .mended("ip link del m2"),
    ];
    let results: [Change; 2] = [
        ("no interfaces", |r| r["interfaces"] = json!([]), "sandbox in prevResult  doesn't match configured netns: "),
        (
            "an interface of another plugin",
            |r| r["interfaces"].as_array_mut().unwrap().push(json!({"name": "tun7", "sandbox": "/elsewhere"})),
            "",
        ),
    ];
    at_every_version(&config, &own, &results);
}
