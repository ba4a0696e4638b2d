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


def held_against(shape, name, all_ours):
    """{shape name: result}: other shapes of ours that the goal names."""
    goal = shape.goal(name)
    names = [other for other in (goal.of if goal else ()) if other not in COLUMNS]
    return {other: all_ours.get(other, {}).get(name, {"failure": NOT_RUN}) for other in names}


def judge(row, goal, flop):
    """What the goal comes to, and whether it is reached; None while that is not known."""
    ms = row["ours"].get("ms")
    others = {**row["peers"], **row["beside"]}
    times = {name: result["ms"] for name, result in others.items() if "ms" in result}
    row["goal"] = str(goal) if goal else ""
    row["goal_ms"] = goal.milliseconds(flop, times) if goal else None
    known = ms is not None and row["goal_ms"] is not None
    row["reached"] = ms <= row["goal_ms"] if known else None


def row_of(shape, blocks, name, all_ours, peers):
    """One pass of one shape, every number of the table in it."""
    flop = shapes.flop(shape, blocks, name)
    floor_ms, bound = shapes.floor(shape, blocks, name)
    row = {
        "shape": shape.name,
        "pass": name,
        "batch": shape.batch,
        "heads": shape.heads,
        "length": shape.length,
        "head_dim": shape.head_dim,
        "block": shape.block,
        "options": shape.options,
        "dense": shape.dense,
        "blocks": blocks,
        "density": blocks / shape.blocks**2,
        "floor_ms": floor_ms,
        "floor_bound": bound,
        "ours": all_ours.get(shape.name, {}).get(name, {"failure": NOT_RUN}),
        "beside": held_against(shape, name, all_ours),
        "peers": {},
    }
    ms = row["ours"].get("ms")
    if ms is not None:
        row["tflops"] = flop / ms * 1e-9
        row["times_floor"] = ms / floor_ms
    for column in filter(shape.faces, COLUMNS):
        peer = best([p for p in peers if column_of(p["setting"]) == column], name)
        if ms is not None and "ms" in peer:
            peer["times_faster"] = peer["ms"] / ms
        row["peers"][column] = peer
    judge(row, shape.goal(name), flop)
    return row


def rows_of(chosen, block_counts, ours, peers):
    return [
        row_of(
            shape,
            block_counts[shape.name],
            name,
            ours,
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


def reached_cell(row):
    if not row["goal"] or "ms" not in row["ours"]:
        return ""
    if row["reached"] is None:
        return "not known"
    return "yes" if row["reached"] else f"no ({row['ours']['ms'] / row['goal_ms']:.2f} x)"


def own_cells(row):
    if "ms" not in row["ours"]:
        return [row["ours"]["failure"].replace("|", "/"), "", ""]
    return [number(row["ours"]["ms"]), f"{row['tflops']:.0f}", f"{row['times_floor']:.2f}"]


def beside_cells(row):
    """Our other shape that the goal names, and its time over this one's."""
    for name, result in row["beside"].items():
        if "ms" not in result:
            return [f"{result['failure']} ({name})".replace("|", "/"), ""]
        ratio = f"{result['ms'] / row['ours']['ms']:.2f}" if "ms" in row["ours"] else ""
        return [f"{number(result['ms'])} ({name})", ratio]
    return ["", ""]


def column_cells(row, column):
    if column not in row["peers"]:
        return ["", ""]
    peer = row["peers"][column]
    text, ratio = peer_cells(peer, column in SEVERAL_SETTINGS)
    if column in WHOLE_MAP and not row["dense"] and "ms" in peer:
        text += " (whole map)"
    return [text, ratio]


def markdown(rows):
    """Peers that know no patterns are compared computing the whole map, so marked. Columns are those
    that a row has something in."""
    columns = [name for name in COLUMNS if any(name in row["peers"] for row in rows)]
    options, beside = (any(row[key] for row in rows) for key in ("options", "beside"))
    heading = ["B,H,L,D", "block", "density", *["options"] * options, "pass"]
    heading += ["ours ms", "TF", "x floor", "floor ms", "goal", "reached"]
    heading += ["ours beside ms", "x"] * beside
    for name in columns:
        heading += [f"{COLUMNS[name]} ms", "x"]
    lines = [heading, ["---"] * len(heading)]
    for row in rows:
        cells = [
            f"{row['shape']} {row['batch']},{row['heads']},{row['length']},{row['head_dim']}",
            "full" if row["dense"] else str(row["block"]),
            f"{row['density']:.3f}",
            *[row["options"]] * options,
            row["pass"],
            *own_cells(row),
            f"{number(row['floor_ms'])} ({row['floor_bound']})",
            row["goal"],
            reached_cell(row),
            *beside_cells(row) * beside,
        ]
        for column in columns:
            cells += column_cells(row, column)
        lines.append(cells)
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def markdowns(rows):
    """A table of the plain shapes and one of those with masks and options, where there are both."""
    masked = {shape.name for shape in shapes.MASKED_SHAPES}
    parts = ([row for row in rows if (row["shape"] in masked) == which] for which in (False, True))
    return "\n".join(markdown(part) for part in parts if part)


def markdown_of_rounds(ours):
    """Every round of ours, whose medians are in the table; nothing where there was one."""
    lines = ["| ours | forward ms | backward ms |\n|---|---|---|\n"]
    for name, result in ours.items():
        rounds = [result[key].get("rounds", []) for key in shapes.PASSES]
        if max(map(len, rounds)) > 1:
            cells = [", ".join(number(ms) for ms in one) for one in rounds]
            lines.append("| " + " | ".join([name, *cells]) + " |\n")
    return "".join(lines) if len(lines) > 1 else ""


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
