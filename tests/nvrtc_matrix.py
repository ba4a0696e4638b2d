#!/usr/bin/env python3
"""The kernels under every release of NVRTC, from the packages of PyPI.

    nvrtc_matrix.py fetch RELEASE...              fetches what is not there yet; prints the libraries
    nvrtc_matrix.py check RELEASE --program P     compiles a sample; fails where one is not good
    nvrtc_matrix.py table [RELEASE...] --program P [--kernels all] [--targets 80 90]
                          [--processes N] [--rows FOLDER]   the table of docs/results.md

P is build/nvrtc_matrix, which prints a line a kernel. FOLDER keeps the lines of each release and
target that is through, so that a table that was interrupted goes on: one for each state of the
kernels. Libraries are kept in
$SPION_TEST_LIBRARIES, else $XDG_CACHE_HOME/spion-test-libraries, else below ~/.cache.
"""

import argparse
import collections
import concurrent.futures
import os
import pathlib
import subprocess
import sys
import tempfile
import zipfile

# The last build of every release that PyPI has.
BUILDS = {
    "12.1": "12.1.105",
    "12.4": "12.4.127",
    "12.5": "12.5.82",
    "12.6": "12.6.85",
    "12.8": "12.8.93",
    "12.9": "12.9.86",
    "13.0": "13.0.88",
    "13.1": "13.1.115",
    "13.2": "13.2.86",
    "13.3": "13.3.33",
    "13.4": "13.4.92",
    "13.5": "13.5.37",
}
SUPPORTED = [release for release in BUILDS if release != "12.1"]
FEWEST_OF_A_SAMPLE = 20

Row = collections.namedtuple("Row", "family arch kernel tile registers spills milliseconds refused")


def root():
    given = os.environ.get("SPION_TEST_LIBRARIES")
    if given:
        return pathlib.Path(given)
    cache = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(cache) / "spion-test-libraries"


def library(release):
    """The file of a release that was fetched, or None."""
    files = sorted((root() / f"nvrtc-{BUILDS[release]}").glob("nvidia/*/lib/libnvrtc.so.*"))
    return files[0] if files else None


def package(release):
    name = "nvidia-cuda-nvrtc-cu12" if release.startswith("12.") else "nvidia-cuda-nvrtc"
    return f"{name}=={BUILDS[release]}"


def fetch(release):
    """Downloads a wheel and unpacks it; whoever is first renames it into place."""
    if library(release):
        return library(release)
    root().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root()) as aside:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
                   "--disable-pip-version-check", "--only-binary", ":all:", "--dest", aside,
                   package(release)]
        if subprocess.run(command, check=False).returncode != 0:
            sys.exit(f"nvrtc_matrix: {package(release)} cannot be fetched from PyPI; "
                     f"see pip's message above")
        wheel, = pathlib.Path(aside).glob("*.whl")
        unpacked = pathlib.Path(aside) / "unpacked"
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(unpacked)
        try:
            unpacked.rename(root() / f"nvrtc-{BUILDS[release]}")
        except OSError:
            if not library(release):
                raise
    return library(release)


def compile_kernels(program, release, kernels, target=None):
    """What the program prints of one release, for all targets or one."""
    file = library(release)
    if file is None:
        sys.exit(f"nvrtc_matrix: NVRTC {release} is not in {root()}: "
                 f"`tests/nvrtc_matrix.py fetch {release}` gets it from PyPI")
    environment = dict(os.environ, SPION_NVRTC_LIBRARY=str(file))
    command = [program, kernels] + ([target] if target else [])
    result = subprocess.run(command, env=environment, text=True, check=False,
                            stdout=subprocess.PIPE)
    if result.returncode != 0:
        sys.exit(f"nvrtc_matrix: {program} ends with {result.returncode} under NVRTC {release}")
    return result.stdout


def rows_of(text):
    """The rows in what the program printed, in the order in which they were compiled."""
    rows = []
    for line in text.splitlines():
        family, arch, kernel, tile, registers, spills, milliseconds, refused = line.split("\t")
        rows.append(Row(family, arch, kernel, tile, int(registers), int(spills),
                        float(milliseconds), refused))
    return rows


def kept(folder, release, target, make):
    """The text that `make` makes, or that an earlier run left in the folder, if there is one."""
    if folder is None:
        return make()
    file = pathlib.Path(folder) / f"{release}-{target or 'all'}.tsv"
    if not file.exists():
        text = make()
        file.parent.mkdir(parents=True, exist_ok=True)
        aside = file.with_suffix(".part")
        aside.write_text(text)
        aside.rename(file)
    return file.read_text()


def is_good(row):
    return not row.refused and row.spills == 0 and row.registers > 0


def describe(row):
    fault = row.refused or f"{row.spills} bytes of spills, {row.registers} registers"
    return f"{row.kernel} for {row.arch}, tile {row.tile}: {fault}"


def check(program, release):
    rows = rows_of(compile_kernels(program, release, "sample"))
    bad = [row for row in rows if not is_good(row)]
    for row in bad:
        print(f"NOT GOOD with NVRTC {release}: {describe(row)}")
    print(f"NVRTC {release}: {len(rows)} kernels, {len(bad)} of them not good")
    return 1 if bad or len(rows) < FEWEST_OF_A_SAMPLE else 0


def cell(rows):
    if not rows:
        return "-"
    most = max(row.registers for row in rows)
    spills = sum(row.spills for row in rows)
    refused = sum(1 for row in rows if row.refused)
    mean = sum(row.milliseconds for row in rows) / len(rows)
    text = f"{len(rows)}: {most} / {spills} / {mean:.0f}"
    return text + (f" ({refused} refused)" if refused else "")


def group_of(row):
    """A line of the table: sm_80 and sm_90a stand for themselves."""
    return row.family, row.arch if row.arch in ("sm_80", "sm_90a") else "the others"


def table(given, releases):
    def compile_one(job):
        release, target = job
        text = kept(given.rows, release, target,
                    lambda: compile_kernels(given.program, release, given.kernels, target))
        rows = rows_of(text)
        print(f"nvrtc_matrix: {release} {target or ''}: {len(rows)} kernels", file=sys.stderr)
        return rows

    jobs = [(release, target) for release in releases for target in given.targets or [None]]
    found = collections.defaultdict(list)
    with concurrent.futures.ThreadPoolExecutor(given.processes) as pool:
        for (release, _), rows in zip(jobs, pool.map(compile_one, jobs)):
            found[release] += rows
    groups = sorted({group_of(row) for rows in found.values() for row in rows})
    print("kernels: most registers of a thread / bytes of spills, all together / mean "
          "milliseconds of processor time of a compilation\n")
    print("| kernels | target | " + " | ".join(releases) + " |")
    print("|---|---|" + "---|" * len(releases))
    for group in groups:
        cells = [cell([row for row in found[release] if group_of(row) == group])
                 for release in releases]
        print(f"| {group[0]} | {group[1]} | " + " | ".join(cells) + " |")
    bad = [(release, row) for release in releases for row in found[release] if not is_good(row)]
    for release, row in bad:
        print(f"\nNOT GOOD with NVRTC {release}: {describe(row)}")
    return 1 if bad else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["fetch", "check", "table"])
    parser.add_argument("releases", nargs="*", metavar="RELEASE")
    parser.add_argument("--program", help="build/nvrtc_matrix")
    parser.add_argument("--kernels", default="all", choices=["sample", "all", "variants"])
    parser.add_argument("--targets", nargs="*", metavar="CC", help="80, 90, ...: these only")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--rows", metavar="FOLDER")
    given = parser.parse_args()
    unknown = [release for release in given.releases if release not in BUILDS]
    if unknown:
        parser.error(f"release {unknown[0]} is not one of {', '.join(BUILDS)}")
    if given.command != "fetch" and not given.program:
        parser.error(f"{given.command} needs --program")
    releases = given.releases or SUPPORTED
    if given.command == "fetch":
        for release in releases:
            print(fetch(release))
        return 0
    if given.command == "check":
        return max(check(given.program, release) for release in releases)
    return table(given, releases)


if __name__ == "__main__":
    sys.exit(main())
