"""One pod's firewall objects, with and without those of 5,000 others: elements of sets and maps, which should cost the
same."""

OTHERS = 5_000
# As many at a time as one attachment may have (the host's limit for each is 1,024 changes).
EACH = 250


def address(number):
    return f"10.{100 + number // 65_000}.{number % 65_000 // 250}.{number % 250 + 2}"


def plugins():
    """(plugin, what gives its configuration for `count` addresses or ports from `first` on, in that namespace)."""

    def chained(keys):
        def config(first, count, netns):
            ips = [{"address": f"{address(first + n)}/8", "interface": 0} for n in range(count)]
            result = {"cniVersion": "1.0.0", "interfaces": [{"name": "eth0", "sandbox": netns}], "ips": ips}
            return {"prevResult": result, **keys(first, count, result)}

        return config

    def ports(first, count, result):
        # A mapping goes to the pod's first address: its ports are what there are many of.
        del result["ips"][1:]
        mapped = [{"hostPort": 20_000 + first + n, "containerPort": 80, "protocol": "tcp"} for n in range(count)]
        return {"runtimeConfig": {"portMappings": mapped}}

    def bridge(first, count, _):
        addresses = [{"address": f"{address(first + n)}/8"} for n in range(count)]
        return {"bridge": "crowded0", "ipMasq": True, "ipam": {"type": "static", "addresses": addresses}}

    yield "portmap", chained(ports)
    yield "firewall", chained(lambda *_: {})
    yield "bridge", bridge


def beside_others(bench, attach):
    """attach(title, plugin, config, container, netns): an attachment of ours."""
    for plugin, config in plugins():
        for others in (0, OTHERS):
            title = f"{plugin}{' with ipMasq' * (plugin == 'bridge')}, {others:,} others"
            filled = []
            for first in range(0, others, EACH):
                bench.say(f"{title}: {first:,} of {others:,}")
                netns = bench.netns()
                filled.append(attach(title, plugin, config(1 + first, EACH, netns), f"other{first}", netns))
                bench.meter.run("sandwire", filled[-1].add())
            netns = bench.netns()
            measured = attach(title, plugin, config(0, 1, netns), "measured", netns)
            bench.interleaved(title, {"sandwire": bench.both("sandwire", measured)}, {"max": bench.options.runs})
            for other in filled:
                bench.meter.run("sandwire", other.delete())
