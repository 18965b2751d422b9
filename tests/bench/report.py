"""What bench.py found, as a table for people, JSON for programs and a chart (SVG)."""

import json
import os
import sys

SUBJECTS = ("sandwire", "reference", "floor")
COLOURS = {"sandwire": "#2f6fb2", "reference": "#c2703d", "floor": "#8a8a8a"}


def median(found, case, subject):
    for entry in found["cases"]:
        if entry["case"] == case and subject in entry["subjects"]:
            return entry["subjects"][subject]["median_ms"]
    sys.exit(f"bench: no measurement of {subject} for {case!r}")


def targets(found):
    """(what, figure as text, whether it is met)"""
    def faster(case, at_least):
        ratio = median(found, case, "reference") / median(found, case, "sandwire")
        return f"{case}: at least {at_least} times faster than the reference", f"{ratio:.1f}", ratio >= at_least

    over_floor = median(found, "ADD bridge, IPv4", "sandwire") / median(found, "ADD bridge, IPv4", "floor")
    rss, case = max((entry["subjects"]["sandwire"]["max_rss_kib"] / 1024, entry["case"]) for entry in found["cases"])
    yield faster("ADD bridge, IPv4", 4)
    yield "ADD bridge, IPv4: at most 2 times the floor", f"{over_floor:.2f}", over_floor <= 2
    yield faster("DEL bridge, IPv4", 5)
    yield faster("ADD bridge, IPv4, ipMasq", 10)
    yield faster("DEL bridge, IPv4, ipMasq", 10)
    yield faster("ADD full chain", 5)
    yield faster("DEL full chain", 5)
    yield f"resident memory under 6 MB (most: {case})", f"{rss:.1f}", rss < 6
    for verb in ("ADD", "DEL"):
        empty, full = (median(found, f"{verb} host-local, {n} leases", "sandwire") for n in ("0", "60,000"))
        # A quarter is what two medians of the same thing differ by on a machine that others use too.
        yield f"{verb} host-local: 60,000 leases at most 1.25 times none", f"{full / empty:.2f}", full <= 1.25 * empty


    for plugin in ("portmap", "firewall", "bridge with ipMasq"):
        alone, crowded = (median(found, f"ADD {plugin}, {n} others", "sandwire") for n in ("0", "5,000"))
        yield f"ADD {plugin}: beside 5,000 others at most 1.25 times alone", f"{crowded / alone:.2f}", crowded <= 1.25 * alone


def table(found):
    lines = [
        f"{found['runs']} runs, interleaved, whole process; kernel {found['kernel']}, {found['cpus']} CPUs, load {found['load']:.1f}",
        "median / p99 in ms; reference: containernetworking-plugins of Debian; floor: the same netlink messages in static C",
        "",
        f"{'':46}{'sandwire':>16}{'reference':>18}{'floor':>16}   faster  /floor",
    ]
    for entry in found["cases"]:
        cells = []
        for subject, width in zip(SUBJECTS, (16, 18, 16)):
            s = entry["subjects"].get(subject)
            cells.append(f"{s['median_ms']:.2f} / {s['p99_ms']:.2f}".rjust(width) if s else "".rjust(width))
        ours = entry["subjects"]["sandwire"]["median_ms"]
        ratios = [
            f"{entry['subjects']['reference']['median_ms'] / ours:.1f}x".rjust(9) if "reference" in entry["subjects"] else " " * 9,
            f"{ours / entry['subjects']['floor']['median_ms']:.2f}".rjust(8) if "floor" in entry["subjects"] else "",
        ]
        lines.append((f"{entry['case']:46}" + "".join(cells) + "".join(ratios)).rstrip())
    lines += ["", f"{'resident memory, MB (CPU, ms)':46}{'sandwire':>16}{'reference':>18}{'floor':>16}"]
    for entry in found["cases"]:
        cells = []
        for subject, width in zip(SUBJECTS, (16, 18, 16)):
            s = entry["subjects"].get(subject)
            cells.append(f"{s['max_rss_kib'] / 1024:.1f} ({s['cpu_ms']:.1f})".rjust(width) if s else "".rjust(width))
        lines.append((f"{entry['case']:46}" + "".join(cells)).rstrip())
    lines.append("")
    for entry in found["targets"]:
        lines.append(f"{'pass' if entry['met'] else 'MISS'}  {entry['target']}: {entry['figure']}")
    return "\n".join(lines)


def chart(found):
    """A bar per case and subject, scaled within the case: cases differ by a factor of a thousand."""
    row, top, left, width = 15, 74, 330, 420
    body, y = [], top
    for entry in found["cases"]:
        longest = max(s["median_ms"] for s in entry["subjects"].values())
        present = [s for s in SUBJECTS if s in entry["subjects"]]
        middle = y + row * len(present) / 2 + 4
        body.append(f'<text x="{left - 12}" y="{middle:.0f}" text-anchor="end">{entry["case"]}</text>')
        for subject in present:
            value = entry["subjects"][subject]["median_ms"]
            length = max(value / longest * width, 1)
            body.append(f'<rect x="{left}" y="{y}" width="{length:.1f}" height="{row - 3}" fill="{COLOURS[subject]}"/>')
            body.append(f'<text x="{left + length + 6:.1f}" y="{y + row - 4}" class="value">{value:.2f} ms</text>')
            y += row
        y += 12
    legend = "".join(
        f'<rect x="{left + 130 * i}" y="44" width="11" height="11" fill="{COLOURS[s]}"/><text x="{left + 130 * i + 17}" y="54">{s}</text>'
        for i, s in enumerate(SUBJECTS)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 860 {y + 10}" width="860" font-family="sans-serif" font-size="12">'
        "<style>text{fill:#222}.value{fill:#555;font-size:11px}</style>"
        f'<rect width="860" height="{y + 10}" fill="#fff"/>'
        f'<text x="20" y="28" font-size="16">One CNI call, whole process, median of {found["runs"]} (each case has its own scale)</text>'
        + legend + "".join(body) + "</svg>\n"
    )


def write(found, folder, strict):
    """Prints the table, writes bench.json, bench.txt and bench.svg; the exit status."""
    found["targets"] = [{"target": t, "figure": f, "met": m} for t, f, m in targets(found)]
    text = table(found)
    for name, content in {"bench.json": json.dumps(found, indent=2) + "\n", "bench.txt": text + "\n", "bench.svg": chart(found)}.items():
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            file.write(content)
    print(text)
    print(f"\nwritten to {os.path.relpath(folder)}: bench.json, bench.txt, bench.svg ({found['seconds']:.0f} s)")
    return 1 if strict and not all(entry["met"] for entry in found["targets"]) else 0
