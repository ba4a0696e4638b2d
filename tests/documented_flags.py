"""Has every flag that a document gives a command a command that takes it?

    documented_flags.py SPION ROOT

Looks at README.md, CONTRIBUTING.md, CHANGELOG.md and docs/: flags behind `spion COMMAND` must be
in that command's --help; any other must be one of some command of spion's, of a script in the tree, or of OTHERS.
"""

import pathlib
import re
import subprocess
import sys

FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
# A command with all that stands behind it in its line; in a code span also in the next one.
COMMAND = re.compile(r"\bspion ((?:[a-z]+ ?)+)([^\n`]*(?:\n(?=[^`\n]*`)[^\n`]*)?)")
OTHERS = {  # flags of programs that are not ours
    "cmake and ctest": "--build --install --list-presets --prefix --preset --test-dir",
    "compute-sanitizer and ncu": "--clock-control --section --tool",
    "torchrun": "--master-addr --nnodes --no-python --node-rank --nproc-per-node",
    "mpirun, srun and sbatch": "--gpus-per-task --host --nodes --ntasks --ntasks-per-node --signal",
}


def help_of(spion: str, path: list[str]) -> str:
    command = [spion, *path, "--help"]
    return subprocess.run(command, text=True, stdout=subprocess.PIPE, check=True).stdout


def commands_of(spion: str, path: list[str]) -> dict[str, set[str]]:
    """{"bench step": its flags}, with those of the commands below it."""
    text = help_of(spion, path)
    found = {" ".join(path): set(FLAG.findall(text))}
    if "Subcommands:" in text:
        below = text.split("Subcommands:")[1].split("Examples:")[0]
        for name in re.findall(r"^  (\w+) {2,}\S", below, re.M):
            found.update(commands_of(spion, [*path, name]))
            found[" ".join(path)] |= found[" ".join([*path, name])]
    return found


def flags_of_scripts(root: pathlib.Path) -> set[str]:
    flags = set()
    for folder in ("bench", "examples", "tests"):
        for file in (root / folder).rglob("*"):
            if file.suffix in (".py", ".sh", ".cpp") and file.name != pathlib.Path(__file__).name:
                text = file.read_text(errors="ignore")
                flags |= set(FLAG.findall(text))
                # A row of a table of settings, `("every", 20)`, is a flag of that name.
                flags |= {f"--{name}" for name in re.findall(r'^ +\("([a-z]+)", ', text, re.M)}
    return flags | set(FLAG.findall((root / "run").read_text()))


def main() -> None:
    spion, root = sys.argv[1], pathlib.Path(sys.argv[2])
    commands = commands_of(spion, [])
    known = commands[""] | flags_of_scripts(root) | set(" ".join(OTHERS.values()).split())
    wrong, checked = [], 0
    for document in [*root.glob("*.md"), *sorted((root / "docs").rglob("*.md"))]:
        text = document.read_text()
        name = document.relative_to(root)
        wrong += [f"{name}: nothing takes {flag}" for flag in sorted(set(FLAG.findall(text)) - known)]
        for words, rest in COMMAND.findall(text):
            path: list[str] = []
            for word in words.split():
                if " ".join([*path, word]) in commands:
                    path.append(word)
            if not path:
                continue
            taken = commands[" ".join(path)]
            checked += 1
            wrong += [
                f"{name}: spion {' '.join(path)} does not take {flag}"
                for flag in FLAG.findall(rest)
                if flag not in taken
            ]
    assert checked > 50, f"only {checked} commands were found in documents"
    sys.exit("\n".join(wrong) or 0)


if __name__ == "__main__":
    main()
