#!/usr/bin/python3
"""A kubelet of the smallest kind: the calls of the CRI that pods' networks depend on.

    cri.py SOCKET ready                                what the runtime says of itself, as JSON
    cri.py SOCKET run NAME [--port HOST:CONTAINER[/PROTOCOL]]... [--annotation KEY=VALUE]...      prints the pod's id
    cri.py SOCKET status ID                            its state and addresses, as JSON
    cri.py SOCKET stop ID | remove ID
    cri.py SOCKET many COUNT AT_ONCE                   runs, looks at, stops and removes so many; no address twice; how long it took

Messages are written by hand from k8s.io/cri-api's runtime.v1: a field is a number, and there are few.
"""

import argparse
import concurrent.futures
import json
import sys
import time

import grpc

SECONDS = 120


def varint(number):
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def message(*fields):
    """Fields as (number, value): int, str or bytes (a message). Empty ones are left out, as proto3 does."""
    out = b""
    for number, value in fields:
        if isinstance(value, str):
            value = value.encode()
        if isinstance(value, int):
            out += varint(number << 3) + varint(value) if value else b""
        elif value:
            out += varint(number << 3 | 2) + varint(len(value)) + value
    return out


def fields(text):
    """The fields of a message: number to the list of its values."""
    found, at = {}, 0

    def number():
        nonlocal at
        value = shift = 0
        while True:
            byte = text[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(text):
        key = number()
        if key & 7 == 0:
            value = number()
        elif key & 7 == 2:
            length = number()
            value = text[at : at + length]
            at += length
        else:
            raise ValueError(f"wire type {key & 7}")
        found.setdefault(key >> 3, []).append(value)
    return found


def text_of(found, number):
    return found.get(number, [b""])[0].decode()


class Runtime:
    def __init__(self, socket):
        self.channel = grpc.insecure_channel(f"unix://{socket}")

    def call(self, method, request):
        bare = {"request_serializer": bytes, "response_deserializer": bytes}
        return fields(self.channel.unary_unary(f"/runtime.v1.RuntimeService/{method}", **bare)(request, timeout=SECONDS))

    def ready(self):
        status = fields(self.call("Status", b"")[1][0])
        conditions = {}
        for condition in map(fields, status.get(1, [])):
            conditions[text_of(condition, 1)] = {
                "status": bool(condition.get(2, [0])[0]), "reason": text_of(condition, 3), "message": text_of(condition, 4)}
        return conditions

    def run(self, name, ports=(), annotations=()):
        metadata = message((1, name), (2, f"uid-{name}"), (3, "default"))
        mappings = []
        for port in ports:
            numbers, _, protocol = port.partition("/")
            host, _, inside = numbers.partition(":")
            mappings.append((5, message((1, {"": 0, "tcp": 0, "udp": 1}[protocol]), (2, int(inside)), (3, int(host)))))
        notes = [(7, message((1, key), (2, value))) for key, _, value in (note.partition("=") for note in annotations)]
        linux = message((1, "/sandwire"))
        config = message((1, metadata), (2, name), *mappings, *notes, (8, linux))
        return text_of(self.call("RunPodSandbox", message((1, config))), 1)

    def status(self, pod):
        status = fields(self.call("PodSandboxStatus", message((1, pod)))[1][0])
        network = fields(status.get(5, [b""])[0])
        more = [text_of(fields(ip), 1) for ip in network.get(2, [])]
        return {"state": ["READY", "NOTREADY"][status.get(3, [0])[0]], "ips": [ip for ip in [text_of(network, 1), *more] if ip]}

    def stop(self, pod):
        self.call("StopPodSandbox", message((1, pod)))

    def remove(self, pod):
        self.call("RemovePodSandbox", message((1, pod)))

    def many(self, count, at_once):
        began, seconds = time.monotonic(), {}
        with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
            pods = list(pool.map(lambda n: self.run(f"many-{n}"), range(count)))
            seconds["run"] = time.monotonic() - began
            addresses = [ip for ips in pool.map(lambda pod: self.status(pod)["ips"], pods) for ip in ips]
            # As the kubelet does: more often than needed.
            for step in (self.stop, self.stop, self.remove, self.remove):
                began = time.monotonic()
                list(pool.map(step, pods))
                name = step.__name__
                seconds[name if name not in seconds else f"{name} again"] = time.monotonic() - began
        if len(set(addresses)) != len(addresses) or len(addresses) < count:
            raise SystemExit(f"{count} pods have the addresses {sorted(addresses)}")
        return f"{count} pods, {len(addresses)} addresses: " + ", ".join(f"{step} {n:.1f} s" for step, n in seconds.items())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("socket")
    parser.add_argument("verb", choices=["ready", "run", "status", "stop", "remove", "many"])
    parser.add_argument("words", nargs="*")
    parser.add_argument("--port", action="append", default=[])
    parser.add_argument("--annotation", action="append", default=[])
    arguments = parser.parse_args()
    runtime = Runtime(arguments.socket)
    try:
        match arguments.verb:
            case "run":
                answer = runtime.run(*arguments.words, arguments.port, arguments.annotation)
            case "many":
                answer = runtime.many(*map(int, arguments.words))
            case verb:
                answer = getattr(runtime, verb)(*arguments.words)
    except grpc.RpcError as error:
        raise SystemExit(f"{arguments.verb}: {error.code().name}: {error.details()}") from None
    if answer is not None:
        print(answer if isinstance(answer, str) else json.dumps(answer))


if __name__ == "__main__":
    sys.exit(main())
