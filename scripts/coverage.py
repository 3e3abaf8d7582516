#!/usr/bin/env python3
"""Tells what the simulator did not reach; `scripts/coverage` runs it.

    scripts/coverage.py [--regions] LINES REGIONS EXPLAINED

LINES and REGIONS are what llvm-cov exports, as lcov and as JSON. EXPLAINED has a paragraph for each range of lines
that nothing reaches: `path: text of one of its lines`, and indented below it why. The text may stand in the three
lines before, for what is left of a condition that always holds is only its closing brace.
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main():
    arguments = [one for one in sys.argv[1:] if one != "--regions"]
    lines, regions, explained = (Path(one).read_text() for one in arguments)
    counts = line_counts(lines)
    regions = json.loads(regions)["data"][0]
    table(counts, regions)
    unreached = [found for path in sorted(counts) for found in ranges(path, counts[path])]
    reasons = explanations(explained)
    unexplained = 0
    print("\nlines that were not reached" if unreached else "\nevery line was reached")
    for path, first, last in unreached:
        text = source(path)[max(first - 4, 0):last]
        why = [one for one in reasons if one["path"] == path and any(one["text"] in line for line in text)]
        for one in why:
            one["used"] = True
        unexplained += not why
        print(f"  {path}:{first}-{last}: {why[0]['why'] if why else 'NOT EXPLAINED'}")
    if "--regions" in sys.argv:
        print("\nregions that were not reached, on lines that were")
        for path, line, column in regions_inside(regions, counts):
            print(f"  {path}:{line}:{column}: {source(path)[line - 1][column - 1:]}")
    stale = [one for one in reasons if not one["used"]]
    for one in stale:
        print(f"explained, but reached or gone: {one['path']}: {one['text']}")
    sys.exit(1 if unexplained or stale else 0)


def relative(path):
    return str(Path(path).relative_to(ROOT))


def source(path):
    return (ROOT / path).read_text().splitlines()


def line_counts(text):
    """From a path to its lines with how often each was reached."""
    counts, path = {}, None
    for record in text.splitlines():
        kind, _, rest = record.partition(":")
        if kind == "SF":
            path = relative(rest)
            counts[path] = {}
        elif kind == "DA":
            line, count = rest.split(",")[:2]
            counts[path][int(line)] = int(count)
    return counts


def ranges(path, counts):
    """Neighbouring lines with code that were not reached, as (path, first, last)."""
    first = last = None
    for line in sorted(counts):
        if counts[line] == 0:
            first, last = first or line, line
        elif first:
            yield path, first, last
            first = None
    if first:
        yield path, first, last


def regions_inside(regions, counts):
    """Where regions begin that were not reached, on lines that were."""
    for file in regions["files"]:
        path = relative(file["filename"])
        for line, column, count, counted, begins, gap in file["segments"]:
            if counted and begins and not gap and count == 0 and counts[path].get(line):
                yield path, line, column


def table(counts, regions):
    rows = {relative(file["filename"]): file["summary"] for file in regions["files"]}
    sums = {}
    for path in sorted(rows):
        for name in (str(Path(*Path(path).parts[:2])), "all"):
            row = sums.setdefault(name, [0] * 4)
            reached = [count > 0 for count in counts[path].values()]
            numbers = sum(reached), len(reached), rows[path]["regions"]["covered"], rows[path]["regions"]["count"]
            sums[name] = [one + more for one, more in zip(row, numbers)]
    print(f"{'':14} {'lines':>20} {'regions':>22}")
    for name in sorted(sums, key=lambda name: (name == "all", name)):
        lines, of_lines, inside, of_inside = sums[name]
        print(f"{name:14} {lines:5} of {of_lines:5} {100 * lines / of_lines:5.1f} %"
              f" {inside:6} of {of_inside:5} {100 * inside / of_inside:5.1f} %")


def explanations(text):
    found = []
    for line in text.splitlines():
        if line.startswith("#") or not line.strip():
            continue
        if line.startswith(" "):
            found[-1]["why"] = f"{found[-1]['why']} {line.strip()}".strip()
            continue
        path, _, part = line.partition(": ")
        found.append({"path": path, "text": part.strip(), "why": "", "used": False})
    return found


if __name__ == "__main__":
    main()
