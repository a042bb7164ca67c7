#!/usr/bin/env python3
"""Write the tables of comparisons from comparisons.json, and the chart of their history.

    python3 bench-results/index.py                      # README.md, bench-results/README.md, history.svg
    python3 bench-results/index.py --check              # exit 1 where one of them is not up to date
    python3 bench-results/index.py --add bench-results/MACHINE/compare.json \\
        --machine "Zen 5, AVX-512" --file 2026-12-01-zen5.md

`--add` adds what compare.py has measured; FILE is the page that describes it.  comparisons.json
is a list with a record for each run of compare.py: date, commit, machine, precision, page, and in
`rows`, for threads and batch, the milliseconds an image of each program.  `worst_error` is the
largest relative L2 error of the features of the images that were compared.  A table stands
between `<!-- comparisons WHAT -->` and `<!-- end -->`; WHAT is a precision, for its latest record
with all settings, or `all`.
"""

import argparse
import json
import re
import sys
from pathlib import Path

from compare import ROOT, commit, write_whole

HERE = Path(__file__).resolve().parent
RECORDS = HERE / "comparisons.json"
CHART = HERE / "history.svg"
PAGES = [ROOT / "README.md", HERE / "README.md"]
PROGRAMS = {"ours": "this project", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
IN_COMPARE = {"ours": "ours", "ort": "onnxruntime", "openvino": "openvino"}
SETTINGS = [(1, 1), (1, 8), (2, 1), (2, 8)]
COLOURS = ["#1b9e77", "#d95f02", "#7570b3", "#e7298a"]


class Failure(Exception):
    pass


def ratio(row: dict) -> float:
    """Our time over that of the faster other program."""
    return row["ours"] / min(row[name] for name in PROGRAMS if name != "ours" and name in row)


def by_setting(record: dict) -> dict:
    return {(row["threads"], row["batch"]): row for row in record["rows"]}


def table(lines: list) -> str:
    head, *rest = lines
    rows = [head, ["---"] * len(head), *rest]
    return "\n".join("|" + "|".join(map(str, row)) + "|" for row in rows)


def latest(records: list, precision: str) -> str:
    """The latest record of a precision that has all settings."""
    fitting = [r for r in records if r["precision"] == precision and set(SETTINGS) <= set(by_setting(r))]
    if not fitting:
        raise Failure(f"{RECORDS}: found no record of {precision} with all of {SETTINGS}")
    record = fitting[-1]
    names = [name for name in PROGRAMS if name in record["rows"][0]]
    lines = [["threads", "batch", *(PROGRAMS[name] for name in names)]]
    for setting in SETTINGS:
        row = by_setting(record)[setting]
        times = [f"**{row[n]:.1f}**" if row[n] == min(row[m] for m in names) else f"{row[n]:.1f}" for n in names]
        lines.append([*setting, *times])
    if errors := record.get("worst_error"):
        lines.append(["worst error", "", *(f"{errors[name]:.1e}" for name in names)])
    return f"{record['machine']}, {record['date']}:\n\n{table(lines)}"


def all_of(records: list) -> str:
    """Ratios of all records, the latest first."""
    settings = [f"{threads} thread{'s' * (threads > 1)}, batch {batch}" for threads, batch in SETTINGS]
    lines = [["date", "machine", "precision", "commit", *settings, "page"]]
    for record in reversed(records):
        rows = by_setting(record)
        ratios = [f"{ratio(rows[s]):.2f}" if s in rows else "" for s in SETTINGS]
        page = record["file"]
        lines.append([record["date"], record["machine"], record["precision"], record["commit"], *ratios, f"[{page}]({page})"])
    return table(lines)


def with_tables(text: str, records: list) -> str:
    def filled(match: re.Match) -> str:
        made = all_of(records) if match[1] == "all" else latest(records, match[1])
        return f"<!-- comparisons {match[1]} -->\n{made}\n<!-- end -->"

    return re.sub(r"<!-- comparisons (\w+) -->\n.*?<!-- end -->", filled, text, flags=re.S)


def chart(records: list) -> str:
    """A line a record, a dot a setting: our time over that of the faster other program."""
    label, plot, step, top = 340, 480, 28, 62
    height = top + step * len(records) + 44
    x = lambda value: label + plot * value / 1.2
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {label + plot + 20} {height}" '
        'font-family="sans-serif" font-size="13">',
        f'<rect width="{label + plot + 20}" height="{height}" fill="#fff"/>',
        '<text x="10" y="22" font-size="16">Time over that of the faster other program, below 1 is faster</text>',
    ]
    for index, (threads, batch) in enumerate(SETTINGS):
        at = 16 + 190 * index
        parts.append(f'<circle cx="{at}" cy="42" r="5" fill="{COLOURS[index]}"/>')
        parts.append(f'<text x="{at + 10}" y="46">{threads} thread{"s" * (threads > 1)}, batch {batch}</text>')
    bottom = top + step * len(records)
    for tick in range(0, 13, 2):
        weight = 2 if tick == 10 else 0.5
        parts.append(
            f'<line x1="{x(tick / 10):.1f}" y1="{top}" x2="{x(tick / 10):.1f}" y2="{bottom}" '
            f'stroke="#888" stroke-width="{weight}"/>'
        )
        parts.append(f'<text x="{x(tick / 10):.1f}" y="{bottom + 20}" text-anchor="middle">{tick / 10:.1f}</text>')
    for line, record in enumerate(records):
        y = top + step * line + step / 2
        name = f"{record['date']}  {record['machine']}, {record['precision']} ({record['commit']})"
        parts.append(f'<text x="10" y="{y + 4:.1f}">{name}</text>')
        for setting, row in by_setting(record).items():
            index = SETTINGS.index(setting)
            cx, cy = x(ratio(row)), y + 5 * (index - 1.5)
            parts.append(f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="4" fill="{COLOURS[index]}"/>')
    return "\n".join([*parts, "</svg>", ""])


def written(records: list) -> str:
    """A line a record, and one a setting."""
    texts = []
    for record in records:
        head = ", ".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in record.items() if k != "rows")
        rows = ",\n    ".join(json.dumps(row) for row in record["rows"])
        texts.append(f'  {{{head}, "rows": [\n    {rows}\n  ]}}')
    return "[\n" + ",\n".join(texts) + "\n]\n"


def record_of(path: Path, machine: str, page: str) -> dict:
    """What compare.py has written."""
    report = json.loads(path.read_text())
    rows = []
    for result in report["results"]:
        medians = result["median_ms_per_image"].items()
        times = {IN_COMPARE[name]: round(ms, 2) for name, ms in medians if name in IN_COMPARE}
        rows.append({"threads": result["threads"], "batch": result["batch"], **times})
    record = {"date": report["date"], "commit": commit(), "machine": machine, "precision": report["precision"], "file": page}
    if report.get("errors"):
        record["worst_error"] = {IN_COMPARE[name]: round(max(e), 4) for name, e in report["errors"].items()}
    return {**record, "rows": rows}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    parser.add_argument("--add", type=Path, metavar="COMPARE.json")
    parser.add_argument("--machine", help="for --add: processor and tier, like `Zen 5, AVX-512`")
    parser.add_argument("--file", help="for --add: the page in bench-results that describes it")
    args = parser.parse_args()
    records = json.loads(RECORDS.read_text())
    contents = {}
    if args.add:
        if not args.machine or not args.file:
            parser.error("--add needs --machine and --file")
        records.append(record_of(args.add, args.machine, args.file))
        contents[RECORDS] = written(records)
    for record in records:
        if not (HERE / record["file"]).is_file():
            raise Failure(f"{RECORDS}: found page `{record['file']}`, expected a file of bench-results")
    contents |= {page: with_tables(page.read_text(), records) for page in PAGES} | {CHART: chart(records)}
    stale = [path for path, text in contents.items() if not path.is_file() or path.read_text() != text]
    for path in stale:
        if args.check:
            print(f"{path.relative_to(ROOT)}: not what bench-results/index.py writes", file=sys.stderr)
        else:
            write_whole(path, contents[path])
            print(f"wrote {path.relative_to(ROOT)}")
    return 1 if args.check and stale else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (Failure, OSError, KeyError, json.JSONDecodeError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
