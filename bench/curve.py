"""Break-even curves: time against density for each block, beside dense attention, as SVG.

    python bench/curve.py --spion build/spion --length 4096 --heads 8 --head-dim 64 --out curve.svg

Every point is `spion bench attention --json` on a random pattern of that density. The figures are
printed as JSON lines, so that a drawing can be made again from them (--from FILE).
"""

import argparse
import json
import subprocess

DENSITIES = (0.02, 0.04, 0.08, 0.15, 0.25, 0.4, 0.6, 0.8, 1.0)
COLOURS = {16: "#b3541e", 32: "#2e7d32", 64: "#1f5fa8", 128: "#6a3d9a"}
LEFT, TOP, WIDE, HIGH = 60, 30, 520, 300


def measure(args, block, density):
    command = [args.spion, "bench", "attention", "--json", "--no-dense", "--softmax", "masked"]
    for name in ("length", "heads", "head-dim", "batch", "device", "repeat"):
        command += [f"--{name}", str(getattr(args, name.replace("-", "_")))]
    if args.dtype:
        command += ["--dtype", args.dtype]
    command += ["--block", str(block), "--pattern-random", str(density)]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    if told.returncode != 0:
        raise SystemExit(told.stderr.strip())
    result = json.loads(told.stdout)
    times = {name: result[name]["ms"] for name in ("forward", "backward")}
    return {"block": block, "density": density, **times}


def draw(points, title):
    """One curve a block, of forward and backward together; the dense line is each block's at 1."""
    total = {(p["block"], p["density"]): p["forward"] + p["backward"] for p in points}
    blocks = sorted({block for block, _ in total})
    most = max(total.values())
    dense = min(total[block, 1.0] for block in blocks)

    def place(density, ms):
        return f"{LEFT + WIDE * density:.1f},{TOP + HIGH * (1 - ms / most):.1f}"

    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDE + 90} {TOP + HIGH + 50}" '
        'font-family="sans-serif" font-size="12">',
        f'<text x="{LEFT}" y="18">{title}</text>',
        f'<rect x="{LEFT}" y="{TOP}" width="{WIDE}" height="{HIGH}" fill="none" stroke="#999"/>',
    ]
    for tenth in range(0, 11, 2):
        x = LEFT + WIDE * tenth / 10
        lines.append(
            f'<text x="{x}" y="{TOP + HIGH + 18}" text-anchor="middle">{tenth / 10}</text>'
        )
    for part in (0, 0.25, 0.5, 0.75, 1):
        y = TOP + HIGH * (1 - part)
        lines.append(f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{most * part:.3g}</text>')
    lines.append(f'<text x="{LEFT + WIDE / 2}" y="{TOP + HIGH + 40}">density; time in ms</text>')
    ends = f"{place(0, dense)} {place(1, dense)}"
    lines.append(f'<polyline points="{ends}" fill="none" stroke="#555" stroke-dasharray="5 4"/>')
    lines.append(f'<text x="{LEFT + 6}" y="{TOP + HIGH * (1 - dense / most) - 5}">dense</text>')
    for row, block in enumerate(blocks):
        of_block = sorted(density for b, density in total if b == block)
        points_of = " ".join(place(density, total[block, density]) for density in of_block)
        colour = COLOURS[block]
        lines.append(
            f'<polyline points="{points_of}" fill="none" stroke="{colour}" stroke-width="2"/>'
        )
        y = TOP + 16 * (row + 1)
        lines.append(f'<text x="{LEFT + WIDE + 8}" y="{y}" fill="{colour}">block {block}</text>')
    return "\n".join([*lines, "</svg>", ""])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--spion", default="build/spion")
    parser.add_argument("--out", required=True)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype")
    parser.add_argument("--blocks", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument("--from", dest="source", help="JSON lines of an earlier run")
    for name, value in (
        ("length", 4096),
        ("heads", 8),
        ("head-dim", 64),
        ("batch", 8),
        ("repeat", 20),
    ):
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    if args.source:
        with open(args.source, encoding="utf-8") as file:
            points = [json.loads(line) for line in file if line.startswith("{")]
    else:
        points = []
        for block in args.blocks:
            for density in DENSITIES:
                points.append(measure(args, block, density))
                print(json.dumps(points[-1]), flush=True)
    title = f"B={args.batch} H={args.heads} L={args.length} D={args.head_dim}, forward + backward"
    with open(args.out, "w", encoding="utf-8") as file:
        file.write(draw(points, title))


if __name__ == "__main__":
    main()
