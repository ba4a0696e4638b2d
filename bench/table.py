"""The result as rows, as a markdown table, and as JSON. Only the standard library.

ours:  {shape name: {"forward": {"ms": ..} or {"failure": ".."}, "backward": ..}}
peers: [{"shape": name, "setting": "flex:tiles" | "sdpa:cudnn" | "fa4:blocks" | .., "forward": .., "backward": ..}]"""

import shapes

COLUMNS = {
    "flex": "FlexAttention",
    "cudnn": "cuDNN",
    "flash2": "FlashAttention-2",
    "fa4": "FlashAttention-4",
    "bsa": "cuDNN BSA",
}
SEVERAL_SETTINGS = ("flex", "fa4")  # whose cells name the fastest
WHOLE_MAP = ("cudnn", "flash2")  # whatever the pattern
NOT_RUN = "not run"


def column_of(setting):
    kind, kernel = setting.split(":")[:2]
    return kernel if kind == "sdpa" else kind


def best(results, name):
    """The fastest of several settings of one peer; without one, their failures."""
    times = [(r[name]["ms"], r["setting"]) for r in results if "ms" in r.get(name, {})]
    if times:
        ms, setting = min(times)
        return {"ms": ms, "setting": setting}
    failures = {r.get(name, {}).get("failure", NOT_RUN) for r in results}
    return {"failure": "; ".join(sorted(failures)) or NOT_RUN}


def row_of(shape, blocks, name, ours, peers):
    """One pass of one shape, every number of the table in it."""
    flop = shapes.flop(shape, blocks, name)
    floor_ms, bound = shapes.floor(shape, blocks, name)
    goal = shape.goal(name)
    row = {
        "shape": shape.name,
        "pass": name,
        "batch": shape.batch,
        "heads": shape.heads,
        "length": shape.length,
        "head_dim": shape.head_dim,
        "block": shape.block,
        "blocks": blocks,
        "density": blocks / shape.blocks**2,
        "floor_ms": floor_ms,
        "floor_bound": bound,
        "goal": str(goal),
        "goal_ms": goal.milliseconds(flop),
        "ours": ours.get(name, {"failure": NOT_RUN}),
        "peers": {},
    }
    ms = row["ours"].get("ms")
    if ms is not None:
        row["tflops"] = flop / ms * 1e-9
        row["times_floor"] = ms / floor_ms
        row["reached"] = ms <= row["goal_ms"]
    for column in COLUMNS:
        peer = best([p for p in peers if column_of(p["setting"]) == column], name)
        if ms is not None and "ms" in peer:
            peer["times_faster"] = peer["ms"] / ms
        row["peers"][column] = peer
    return row


def rows_of(chosen, block_counts, ours, peers):
    return [
        row_of(
            shape,
            block_counts[shape.name],
            name,
            ours.get(shape.name, {}),
            [p for p in peers if p["shape"] == shape.name],
        )
        for shape in chosen
        for name in shapes.PASSES
    ]


def number(ms):
    return f"{ms:.4f}" if ms < 1 else f"{ms:.3f}"


def peer_cells(peer, show_setting):
    if "ms" not in peer:
        return [peer["failure"].replace("|", "/"), ""]
    setting = f" ({':'.join(peer['setting'].split(':')[1:])})" if show_setting else ""
    ratio = f"{peer['times_faster']:.2f}" if "times_faster" in peer else ""
    return [number(peer["ms"]) + setting, ratio]


def own_cells(row):
    if "ms" not in row["ours"]:
        return [row["ours"]["failure"].replace("|", "/"), "", "", ""]
    reached = "yes" if row["reached"] else f"no ({row['ours']['ms'] / row['goal_ms']:.2f} x)"
    return [
        number(row["ours"]["ms"]),
        f"{row['tflops']:.0f}",
        f"{row['times_floor']:.2f}",
        reached,
    ]


def markdown(rows):
    """Peers that know no patterns are compared computing the whole map, so marked."""
    heading = ["B,H,L,D", "block", "density", "pass", "ours ms", "TF", "x floor"]
    heading += ["floor ms", "goal", "reached"]
    for name in COLUMNS.values():
        heading += [f"{name} ms", "x"]
    lines = [heading, ["---"] * len(heading)]
    for row in rows:
        ours, tflops, times_floor, reached = own_cells(row)
        cells = [
            f"{row['shape']} {row['batch']},{row['heads']},{row['length']},{row['head_dim']}",
            str(row["block"]) if row["density"] < 1 else "full",
            f"{row['density']:.3f}",
            row["pass"],
            ours,
            tflops,
            times_floor,
            f"{number(row['floor_ms'])} ({row['floor_bound']})",
            row["goal"],
            reached,
        ]
        for column in COLUMNS:
            text, ratio = peer_cells(row["peers"][column], column in SEVERAL_SETTINGS)
            if column in WHOLE_MAP and row["density"] < 1 and "ms" in row["peers"][column]:
                text += " (whole map)"
            cells += [text, ratio]
        lines.append(cells)
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def markdown_of_settings(peers):
    """Every setting that was tried, so that none is dropped in silence."""

    def cell(result):
        return number(result["ms"]) if "ms" in result else result.get("failure", NOT_RUN)

    lines = ["| shape | setting | forward ms | backward ms | compiled in s | buffer sets |\n"]
    lines.append("|---|---|---|---|---|---|\n")
    for peer in peers:
        seconds = sum(peer.get("compile_seconds", {}).values())
        cells = [
            peer["shape"],
            peer["setting"],
            cell(peer.get("forward", {})),
            cell(peer.get("backward", {})),
            f"{seconds:.1f}" if seconds else "",
            str(peer.get("buffer_sets", "")),
        ]
        lines.append("| " + " | ".join(text.replace("|", "/") for text in cells) + " |\n")
    return "".join(lines)
