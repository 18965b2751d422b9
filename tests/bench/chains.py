"""Chains of plugins, called one after the other as libcni does it, each plugin's share measured."""

import json

VERSION = "1.0.0"


def chains(bridge, number):
    """(title, plugins) of the networks that are measured, on that bridge, in subnets of their own."""
    def addresses(third):
        return {"type": "host-local", "ranges": [[{"subnet": f"10.{110 + number}.{third}.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}

    yield "macvlan", [{"type": "macvlan", "master": f"master{number}", "ipam": addresses(2)}]
    yield "full chain", [
        {"type": "bridge", "bridge": bridge, "isGateway": True, "ipMasq": True, "ipam": addresses(3)},
        {"type": "portmap", "snat": True, "runtimeConfig": {"portMappings": [{"hostPort": 18080 + number, "containerPort": 80, "protocol": "tcp"}]}},
        {"type": "bandwidth", "ingressRate": 80_000_000, "ingressBurst": 8_000_000, "egressRate": 80_000_000, "egressBurst": 8_000_000},
        {"type": "firewall"},
        {"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}, "mtu": 1400},
    ]


class Chain:
    """One pod's attachment to a network of several plugins."""

    def __init__(self, meter, cni, title, plugins, container, netns, scratch):
        self.meter, self.cni, self.title, self.plugins = meter, cni, title, plugins
        self.container, self.netns, self.scratch = container, netns, scratch
        self.result = None

    def part(self, command, plugin):
        """One plugin's call; what the meter said, and what it printed."""
        config = {"cniVersion": VERSION, "name": f"bench-{self.title.replace(' ', '-')}-{self.cni.name}", **plugin}
        if self.result is not None:
            config["prevResult"] = self.result
        path = f"{self.scratch}/{self.cni.name}-{self.container}.json"
        with open(path, "w", encoding="utf-8") as file:
            json.dump(config, file)
        call = self.cni.call(plugin["type"], command, path, self.container, self.netns)
        spent = self.meter.run(f"{self.cni.name}, {self.title}", call)
        with open(call.stdout, encoding="utf-8") as printed:
            return spent, printed.read()

    def add(self):
        """{plugin: what the meter said}, the result going from each to the next."""
        self.result, spent = None, {}
        for plugin in self.plugins:
            spent[plugin["type"]], printed = self.part("ADD", plugin)
            self.result = json.loads(printed)
        return spent

    def delete(self):
        """The same, backwards, each with the last result."""
        return {plugin["type"]: self.part("DEL", plugin)[0] for plugin in reversed(self.plugins)}


def together(parts):
    """What a whole chain took: time and CPU add up, of resident memory the largest counts."""
    times, memory, cpu = zip(*parts.values())
    return sum(times), max(memory), sum(cpu)
