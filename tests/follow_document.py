"""Does what a document tells its reader to do, and compares.

    follow_document.py DOCUMENT SPION ROOT [host] [gpu]

In the document, a block ```sh is run in a scratch folder, with SPION as `spion` on the path and all
blocks in one folder; the lines of a block ```text behind it must be found in what was printed, in that
order, as parts of lines. `...` stands for anything between; without it the next line must follow at
once. A block of any other language behind a line that is `FILE`: alone is written to FILE. ROOT is
the project's folder, for the files that a document says to copy. Blocks ```sh host and ```sh gpu, and what
must be printed by them, are followed where `host` or `gpu` is given: the host back end is built, there is
a GPU with CUDA's toolkit.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

BLOCK = re.compile(r"(?:^`(?P<file>[\w./-]+)`[^\n]*:\n\n)?^```(?P<language>\w*)(?: (?P<where>host|gpu))?\n(?P<text>.*?)^```$", re.M | re.S)
COPIED = re.compile(r"`(tests/[\w./-]+)` lies as `([\w./-]+)`", re.S)


def missing(wanted: str, printed: str) -> str:
    """The first line of `wanted` that is not where it should be; "" when all are."""
    lines = printed.splitlines()
    at, anywhere = 0, True
    for line in wanted.splitlines():
        if line == "...":
            anywhere = True
            continue
        places = [i for i in range(at, len(lines)) if line in lines[i]]
        if not places or (not anywhere and places[0] != at):
            return line
        at, anywhere = places[0] + 1, False
    return ""


def main() -> None:
    document, spion, root = (pathlib.Path(argument).resolve() for argument in sys.argv[1:4])
    text = document.read_text()
    scratch = pathlib.Path(tempfile.mkdtemp(prefix="follow-"))
    try:
        (scratch / "bin").mkdir()
        (scratch / "bin" / "spion").symlink_to(spion)
        work = scratch / "work"
        work.mkdir()
        for source, target in COPIED.findall(re.sub(r"\s+", " ", text)):
            shutil.copy(root / source, work / target)
        environment = dict(os.environ, PATH=f"{scratch / 'bin'}:{os.environ['PATH']}", HOME=str(scratch))
        printed, ran = "", 0
        for block in BLOCK.finditer(text):
            if block["where"] and block["where"] not in sys.argv[4:]:
                continue
            if block["language"] == "sh":
                done = subprocess.run(["bash", "-euo", "pipefail", "-c", block["text"]], cwd=work, env=environment,
                                      text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
                printed, ran = done.stdout, ran + 1
                if done.returncode != 0:
                    sys.exit(f"{document.name}: exit code {done.returncode} of\n{block['text']}\n{printed}")
            elif block["language"] == "text":
                line = missing(block["text"], printed)
                if line:
                    sys.exit(f"{document.name}: not printed where it should be: {line!r}\n--- printed:\n{printed}")
            elif block["file"]:
                (work / block["file"]).write_text(block["text"])
        if ran == 0:
            sys.exit(f"{document.name} has no block ```sh: nothing was followed")
        print(f"{document.name}: {ran} blocks followed")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main()
