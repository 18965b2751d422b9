"""Measures CNI calls of Sandwire, of the reference plugins and of the floor, each a whole process, interleaved in one run.

Runs inside bench.sh, which gives it namespaces of its own and the paths."""

import argparse
import ipaddress
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time

import report
from chains import Chain, chains, together
from crowded import beside_others

US, RS = "\x1f", "\x1e"
NETWORKS = "/var/lib/cni/networks"
VERSION = "1.0.0"  # the newest that Debian 12's plugins know
# Our DEL returns before the kernel has freed the link: its helper process waits for that, up to 20 ms under RTNL, which would
# be counted as the time of whoever comes next.
SETTLED = 0.03


class Meter:
    """meter.c, and what it said."""

    def __init__(self, path):
        self.process = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, subject, *calls):
        """Starts all calls together: (milliseconds, the largest resident memory in KiB, milliseconds of CPU of all).

        A call that fails ends the bench with what it printed."""
        self.process.stdin.write(RS.join(call.record() for call in calls) + "\n")
        self.process.stdin.flush()
        nanoseconds, *ends = self.process.stdout.readline().split()
        largest, cpu = 0, 0
        for call, end in zip(calls, ends):
            status, rss, microseconds = map(int, end.split(":"))
            if status:
                sys.exit(f"bench: {subject}: {call} ended with {status}:\n{open(call.stdout).read()}")
            largest, cpu = max(largest, rss), cpu + microseconds
        return int(nanoseconds) / 1e6, largest, cpu / 1e3


class Call:
    """One process: what it is started with."""

    def __init__(self, path, argv, env=(), stdin="/dev/null", stdout="out"):
        self.path, self.argv, self.env, self.stdin = path, argv, env, stdin
        self.stdout = f"{SCRATCH}/{stdout}"

    def record(self):
        return US.join([self.path, self.stdin, self.stdout, str(len(self.argv)), *self.argv, *self.env])

    def __str__(self):
        return " ".join([*self.env, *self.argv])


class Cni:
    """The plugins of one folder, called as a runtime calls them."""

    def __init__(self, name, folder):
        self.name, self.folder = name, folder

    def call(self, plugin, command, config, container="", netns=""):
        path = f"{self.folder}/{plugin}"
        env = [f"CNI_COMMAND={command}", f"CNI_PATH={self.folder}", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]
        if container:
            env += [f"CNI_CONTAINERID={container}", "CNI_IFNAME=eth0", f"CNI_NETNS={netns}"]
        return Call(path, [path], env, config, f"out-{self.name}-{container}")


class Attachment:
    """ADD and DEL of one pod by a chain of processes that a subject needs for it."""

    def __init__(self, cni, config, container, netns):
        self.cni, self.container, self.netns = cni, container, netns
        self.config = f"{SCRATCH}/{cni.name}-{config['name']}-{container}.json"
        self.body, self.plugin = config, config.get("bench-plugin") or config["type"]
        self.body.pop("bench-plugin", None)
        write(self.config, json.dumps(config))

    def add(self):
        return self.cni.call(self.plugin, "ADD", self.config, self.container, self.netns)

    def delete(self):
        """As runtimes do it, with the result of ADD in the configuration."""
        with open(self.add().stdout, encoding="utf-8") as printed:
            result = json.load(printed)
        path = f"{self.config}.del"
        write(path, json.dumps({**self.body, "prevResult": result}))
        return self.cni.call(self.plugin, "DEL", path, self.container, self.netns)


class Floor:
    """floor.c with the same addresses. The first pod of each subnet gets .2, as host-local gives it."""

    def __init__(self, path, variant, number, netns, bridge):
        self.path, self.netns, self.host = path, netns, f"floor{number}"
        self.masq = "1" if variant.masq else "0"
        self.addresses = []
        for subnet in variant.subnets("floor"):
            net = ipaddress.ip_network(subnet)
            self.addresses += [f"{net[2 + number]}/{net.prefixlen}", str(net[1])]
        self.bridge = bridge

    def add(self):
        return Call(self.path, ["floor", "add", self.netns, "eth0", self.host, self.bridge, self.masq, *self.addresses], stdout=f"out-{self.host}")

    def delete(self):
        return Call(self.path, ["floor", "del", self.netns, "eth0", self.masq, *self.addresses], stdout=f"out-{self.host}")


class Variant:
    """A network of the bridge cases. Each subject has its own bridge, subnets and name, so that none works for another: in the
    lease directory of one name each would find, every time, that somebody else has changed it (`host-local ..., changed by others`)."""

    BRIDGES = {"sandwire": "cni0", "reference": "refbr0", "floor": "floorbr0"}

    def __init__(self, number, title, families, masq, first=False):
        self.number, self.title, self.families, self.masq, self.first = number, title, families, masq, first

    def subnets(self, subject):
        which = list(self.BRIDGES).index(subject)
        v4, v6 = f"10.{90 + self.number}.{which}.0/24", f"fd00:{90 + self.number}:{which}::/64"
        return [v4, v6][: self.families]

    def config(self, subject):
        return {
            "cniVersion": VERSION,
            "name": f"bench-{self.number}-{subject}",
            "type": "bridge",
            "bridge": self.BRIDGES[subject],
            "isGateway": True,
            "ipMasq": self.masq,
            "ipam": {
                "type": "host-local",
                "dataDir": f"{NETWORKS}",
                "ranges": [[{"subnet": subnet}] for subnet in self.subnets(subject)],
                "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}][: self.families],
            },
        }


class Bench:
    def __init__(self, options):
        self.options = options
        self.meter = Meter(options.meter)
        self.ours = Cni("sandwire", options.sandwire)
        self.reference = Cni("reference", options.reference)
        self.cases = []  # (title, {subject: [what the meter said]})
        self.namespaces = 0

    def say(self, text):
        if sys.stderr.isatty():
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)

    def netns(self):
        self.namespaces += 1
        name = f"pod{self.namespaces}"
        subprocess.run(["ip", "netns", "add", name], check=True)
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        return f"/run/netns/{name}"

    def interleaved(self, title, steps, runs):
        """steps: {subject: {part: function that does it and gives what the meter said}}, in the order they are done."""
        times = {}
        subjects = list(steps)
        for run in range(-3, runs.get("max", 0)):
            self.say(f"{title}: {max(run + 1, 0)} of {runs['max']}")
            for turn in range(len(subjects)):
                subject = subjects[(turn + run) % len(subjects)]
                if run >= runs.get(subject, runs["max"]):
                    continue
                for part, measure in steps[subject].items():
                    spent = measure()
                    if run >= 0 and spent is not None:
                        times.setdefault(part, {}).setdefault(subject, []).append(spent)
                time.sleep(SETTLED)
        for part, by_subject in times.items():
            self.cases.append((f"{part} {title}".strip(), by_subject))

    def both(self, subject, attachment):
        return {
            "ADD": lambda: self.meter.run(subject, attachment.add()),
            "DEL": lambda: self.meter.run(subject, attachment.delete()),
        }

    def version(self):
        runs = {"max": self.options.runs}
        call = {
            "sandwire": self.ours.call("bridge", "VERSION", "/dev/null"),
            "reference": self.reference.call("bridge", "VERSION", "/dev/null"),
            "floor": Call(self.options.floor, ["floor", "version"]),
        }
        self.interleaved("", {s: {"VERSION": lambda s=s: self.meter.run(s, call[s])} for s in call}, runs)

    def pods(self, variant, number):
        return {
            "sandwire": Attachment(self.ours, variant.config("sandwire"), f"ours{number}", self.netns()),
            "reference": Attachment(self.reference, variant.config("reference"), f"theirs{number}", self.netns()),
            "floor": Floor(self.options.floor, variant, number, self.netns(), Variant.BRIDGES["floor"]),
        }

    def bridge(self, variant):
        """On a node that has a pod of the network already, but for what is called its first."""
        floor_bridge(variant)
        residents = {} if variant.first else self.pods(variant, 1)
        for subject, pod in residents.items():
            self.meter.run(subject, pod.add())
        measured = self.pods(variant, 0)
        if variant.first:
            # Its rules are there before.
            del measured["floor"]
        self.interleaved(variant.title, {s: self.both(s, a) for s, a in measured.items()}, {"max": self.options.runs})
        for subject, pod in residents.items():
            self.meter.run(subject, pod.delete())

    def together(self, variant, count=8):
        floor_bridge(variant)
        each = [self.pods(variant, number) for number in range(count)]
        pods = {subject: [pods[subject] for pods in each] for subject in each[0]}
        steps = {
            s: {
                "ADD": lambda s=s: self.meter.run(s, *[p.add() for p in pods[s]]),
                "DEL": lambda s=s: self.meter.run(s, *[p.delete() for p in pods[s]]),
            }
            for s in pods
        }
        self.interleaved(variant.title, steps, {"max": max(self.options.runs // count, 3)})

    def host_local(self, leases, foreign):
        """foreign: another pod's native host-local has changed the directory before each call that is measured."""
        title = f"host-local, {leases:,} leases" + (", changed by others" if foreign else "")
        attachments, netns = {}, self.netns()
        for cni in (self.ours, self.reference):
            name = f"leases-{cni.name}-{leases}-{int(foreign)}"
            fill(name, leases)
            config = {
                "cniVersion": VERSION, "name": name, "type": "bridge", "bench-plugin": "host-local",
                "ipam": {"type": "host-local", "subnet": "10.200.0.0/16"},
            }
            attachments[cni.name] = Attachment(cni, config, "measured", netns)
        steps = {name: self.both(name, a) for name, a in attachments.items()}
        if foreign:
            def disturb():
                """What a native host-local of another pod does between two calls of ours: ADD and DEL."""
                folder = f"{NETWORKS}/leases-sandwire-{leases}-1"
                with open(f"{folder}/last_reserved_ip.0", encoding="utf-8") as file:
                    last = file.read()
                write(f"{folder}/10.200.255.250", "foreign\r\neth0")
                write(f"{folder}/last_reserved_ip.0", last)
                os.unlink(f"{folder}/10.200.255.250")

            ours = steps["sandwire"]
            steps = {"sandwire": {"first": disturb, "ADD": ours["ADD"], "second": disturb, "DEL": ours["DEL"]}}
        # The reference reads every lease in ADD and DEL: with 60,000 of them 200 runs would take minutes.
        runs = {"max": self.options.runs}
        if leases > 10_000:
            runs["reference"] = max(self.options.runs // 10, 3)
        self.interleaved(title, steps, runs)
        for name in attachments:
            shutil.rmtree(f"{NETWORKS}/leases-{name}-{leases}-{int(foreign)}")

    def chain(self, title, ours, theirs):
        """A chain as a whole, and of one with several plugins each plugin's share."""
        pods = {
            cni.name: Chain(self.meter, cni, title, plugins, f"{cni.name}-chained", self.netns(), SCRATCH)
            for cni, plugins in ((self.ours, ours), (self.reference, theirs))
        }
        spent = {}
        for run in range(-3, self.options.runs):
            self.say(f"{title}: {max(run + 1, 0)} of {self.options.runs}")
            for subject in list(pods) if run % 2 else reversed(pods):
                for verb, parts in (("ADD", pods[subject].add()), ("DEL", pods[subject].delete())):
                    if verb == "DEL":
                        time.sleep(SETTLED)
                    if run < 0:
                        continue
                    spent.setdefault(f"{verb} {title}", {}).setdefault(subject, []).append(together(parts))
                    for plugin, said in parts.items() if len(parts) > 1 else ():
                        spent.setdefault(f"{verb} {plugin}, in the chain", {}).setdefault(subject, []).append(said)
        self.cases += spent.items()

    def plugin(self, title, kind, config, runs=None, after=None):
        """ADD and DEL of one plugin beside the native one. config(subject): its keys; after(subject): unmeasured, after DEL."""
        attachments = {}
        for cni in (self.ours, self.reference):
            netns = self.netns()
            keys = {"cniVersion": VERSION, "name": "-".join(["bench", *re.findall(r"\w+", title), cni.name]), "type": kind, **config(cni.name, netns)}
            attachments[cni.name] = Attachment(cni, keys, "measured", netns)
        steps = {name: self.both(name, a) for name, a in attachments.items()}
        for name in steps if after else ():
            steps[name]["after"] = lambda name=name: after(name)
        self.interleaved(title, steps, {"max": self.options.runs} | (runs or {}))

    def ptp(self, title, families, runs=None):
        def config(subject, _):
            which = list(Variant.BRIDGES).index(subject)
            subnets = [f"10.88.{10 * families + which}.0/24", f"fd00:88:{10 * families + which}::/64"][:families]
            routes = [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}][:families]
            return {"ipam": {"type": "host-local", "dataDir": NETWORKS, "ranges": [[{"subnet": s}] for s in subnets], "routes": routes}}

        self.plugin(title, "ptp", config, runs)

    def static(self):
        addresses = [{"address": "10.87.0.2/24", "gateway": "10.87.0.1"}, {"address": "fd00:87::2/64", "gateway": "fd00:87::1"}]
        self.plugin("static", "static", lambda *_: {"ipam": {"type": "static", "addresses": addresses}})

    def bandwidth(self):
        def config(subject, netns):
            veth = f"bw-{subject}"
            subprocess.run(["ip", "link", "add", veth, "up", "type", "veth", "peer", "name", "eth0", "netns", os.path.basename(netns)], check=True)
            rates = {"ingressRate": 100_000_000, "ingressBurst": 1_000_000, "egressRate": 100_000_000, "egressBurst": 1_000_000}
            return {**rates, "prevResult": {"cniVersion": VERSION, "interfaces": [{"name": veth}, {"name": "eth0", "sandbox": netns}],
                                            "ips": [{"address": "10.86.0.2/24", "interface": 1}]}}

        def after(subject):
            """The reference leaves these to whoever deletes the veth; its next ADD would fail."""
            for where in ("root", "ingress"):
                subprocess.run(["tc", "qdisc", "del", "dev", f"bw-{subject}", where], stderr=subprocess.DEVNULL, check=False)

        self.plugin("bandwidth, both ways", "bandwidth", config, after=after)

    def crowded(self):
        def attach(title, plugin, config, container, netns):
            keys = {"cniVersion": VERSION, "name": "bench-" + "-".join(re.findall(r"\w+", title)), "type": plugin, **config}
            return Attachment(self.ours, keys, container, netns)

        beside_others(self, attach)

    def run(self):
        o = self.options
        started = time.time()
        self.version()
        variants = [
            Variant(0, "bridge, IPv4", 1, False),
            Variant(1, "bridge, IPv4, ipMasq", 1, True),
            Variant(2, "bridge, IPv4 + IPv6", 2, False),
            Variant(3, "bridge, IPv4 + IPv6, ipMasq", 2, True),
            Variant(4, "bridge, IPv4, ipMasq, a node's first pod", 1, True, first=True),
        ]
        for variant in variants:
            self.bridge(variant)
        self.together(Variant(5, "8 at once, bridge, IPv4", 1, False))
        for number in range(2):
            subprocess.run(["ip", "link", "add", f"master{number}", "type", "veth", "peer", "name", f"wire{number}"], check=True)
            subprocess.run(["ip", "link", "set", f"master{number}", "up"], check=True)
        for (title, ours), (_, theirs) in zip(chains("chain0", 0), chains("refchain0", 1)):
            self.chain(title, ours, theirs)
        for leases in (0, 1_000, 60_000):
            self.host_local(leases, False)
        for leases in (1_000, 60_000):
            self.host_local(leases, True)
        self.ptp("ptp, IPv4", 1)
        # The reference waits for duplicate address detection.
        self.ptp("ptp, IPv4 + IPv6", 2, {"reference": max(o.runs // 40, 3)})
        self.static()
        self.bandwidth()
        self.crowded()
        self.say("")
        return {
            "cases": [
                {"case": title, "subjects": {s: summary(times) for s, times in by.items()}} for title, by in self.cases
            ],
            "seconds": round(time.time() - started, 1),
            "runs": o.runs,
            "kernel": os.uname().release,
            "cpus": os.cpu_count(),
            "load": os.getloadavg()[0],
        }


def summary(measured):
    times, memory, cpu = zip(*measured)
    ordered = sorted(times)
    return {
        "n": len(ordered),
        "median_ms": round(statistics.median(ordered), 4),
        "p99_ms": round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))], 4),
        "min_ms": round(ordered[0], 4),
        "cpu_ms": round(statistics.median(cpu), 4),
        "max_rss_kib": max(memory),
    }


def write(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def fill(network, leases):
    """Native host-local's directory with that many leases from the start of the subnet."""
    folder = f"{NETWORKS}/{network}"
    os.makedirs(folder)
    net = ipaddress.ip_network("10.200.0.0/16")
    for i in range(leases):
        write(f"{folder}/{net[2 + i]}", f"pod{i}\r\neth0")
    if leases:
        write(f"{folder}/last_reserved_ip.0", str(net[1 + leases]))


def floor_bridge(variant):
    """The bridge of the floor with the gateways, which the plugins make in their first ADD, and its nftables table."""
    bridge = Variant.BRIDGES["floor"]
    subprocess.run(["ip", "link", "add", bridge, "type", "bridge"], stderr=subprocess.DEVNULL, check=False)
    subprocess.run(["ip", "link", "set", bridge, "up"], check=True)
    for subject, name in Variant.BRIDGES.items():
        # Each variant has other gateways: bridges of the variant before go, so that no plugin finds a foreign address.
        if subject != "floor":
            subprocess.run(["ip", "link", "del", name], stderr=subprocess.DEVNULL, check=False)
    subprocess.run(["ip", "addr", "flush", "dev", bridge], check=True)
    for subnet in variant.subnets("floor"):
        net = ipaddress.ip_network(subnet)
        subprocess.run(["ip", "addr", "add", f"{net[1]}/{net.prefixlen}", "dev", bridge], check=True)
    subprocess.run(
        ["nft", "table inet floor { set pods4 { type ipv4_addr; }; set pods6 { type ipv6_addr; }; }"], check=True
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    for name, what in {
        "meter": "meter.c, compiled", "floor": "floor.c, compiled", "sandwire": "folder of our links",
        "reference": "folder of the reference plugins", "out": "folder for the results",
    }.items():
        parser.add_argument(f"--{name}", required=True, help=what)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--strict", action="store_true", help="exit 1 when a target is missed")
    options = parser.parse_args()
    SCRATCH = "/run/bench"
    os.makedirs(SCRATCH)
    sys.exit(report.write(Bench(options).run(), options.out, options.strict))
