#!/usr/bin/env python3
"""How long do the kernels of two builds of spion take, in turns on one GPU?

    tests/compare_times.py OLD NEW [--rounds 4] [--seconds 45]

OLD and NEW are spion binaries. Every shape below is measured by `spion bench attention` of both, one
after the other, as often as there are rounds; before that all are run once, at the same time, so that
every kernel is compiled. A row is a kernel: the median of each build, NEW over OLD, and the spread of
OLD's own rounds, within which a ratio says nothing. Builds may choose different tile shapes: where
the IR of their kernels says so, the row is marked, since it compares choices and not bodies.

Exit status: 0 no kernel of equal tiles is more than 1 % and OLD's spread slower, 1 some are.
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

# A kernel of every family that sm_90a has, with the tiles that the cost model takes for it.
SHAPES = {
    'wgmma b64 D64': '--block 64 --heads 16 --batch 2 --length 8192 --head-dim 64 --pattern-random 0.1',
    'wgmma b64 D128 masked': '--block 64 --heads 16 --batch 2 --length 8192 --head-dim 128 '
                             '--pattern-random 0.1 --softmax masked',
    'wgmma b128 D64': '--block 128 --heads 16 --batch 2 --length 8192 --head-dim 64 --pattern-random 0.1',
    'wgmma b64 D32': '--block 64 --heads 2 --batch 256 --length 2048 --head-dim 32 --pattern-random 0.05',
    'wgmma packed b32 D64': '--block 32 --heads 16 --batch 2 --length 8192 --head-dim 64 '
                            '--pattern-striped 7,4 --pack 2',
    'warp items b32 D32': '--block 32 --heads 2 --batch 128 --length 1024 --head-dim 32 '
                          '--pattern-random 0.05',
    'warp items b16 D64': '--block 16 --heads 8 --batch 8 --length 2048 --head-dim 64 '
                          '--pattern-random 0.05',
    'mma.sync b64 D256': '--block 64 --heads 8 --batch 2 --length 4096 --head-dim 256 '
                         '--pattern-random 0.1',
    'mma.sync tf32 b64 D64': '--block 64 --heads 8 --batch 2 --length 4096 --head-dim 64 '
                             '--pattern-random 0.1 --dtype tf32',
}


def measure(build, shape, folder, repeat):
    """{role: milliseconds} of one run; its kernels lie below `folder`."""
    command = [str(build), 'bench', 'attention', '--device', 'cuda', '--json', '--no-dense',
               '--repeat', str(repeat), *shape.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=False,
                          env={**os.environ, 'SPION_CACHE_DIR': str(folder)})
    if done.returncode != 0:
        raise SystemExit(f'{" ".join(command)}: {done.stderr.strip()}')
    return {kernel['role']: kernel['ms'] for kernel in json.loads(done.stdout)['kernels']}


def tiles(folder):
    """{role: its shape lines} in the cache folder, with the words of either build."""
    found = {}
    for file in pathlib.Path(folder).rglob('kernel.ir'):
        text = file.read_text()
        role, shape = re.search(r'role=(\S+)', text), re.search(r'^shape.*$', text, re.M)
        if role and shape:
            words = shape[0].replace('granule=', 'gather_rows=').replace('mma_warp', 'mma_sync_tma')
            found.setdefault(role[1], set()).add(words)
    return found


def compare(builds, folder, options):
    """Prints the table; whether a kernel of equal tiles is slower."""
    caches = {(n, name): folder / str(n) / name.replace(' ', '-') for n in (0, 1) for name in SHAPES}
    with concurrent.futures.ThreadPoolExecutor(min(16, os.cpu_count())) as pool:
        list(pool.map(lambda key: measure(builds[key[0]], SHAPES[key[1]], caches[key], 1), caches))
    times = {}  # (shape, role) -> ([of OLD], [of NEW])
    end = time.monotonic() + options.seconds
    for _ in range(options.rounds):
        for name, shape in SHAPES.items():
            if time.monotonic() > end:
                break
            for n in (0, 1):
                for role, ms in measure(builds[n], shape, caches[n, name], options.repeat).items():
                    times.setdefault((name, role), ([], []))[n].append(ms)
    print('| shape | kernel | tiles | rounds | old ms | new ms | new / old | spread of old |')
    print('|---|---|---|---|---|---|---|---|')
    slower = 0
    for (name, role), (old, new) in times.items():
        if not old or not new:
            continue
        same = tiles(caches[0, name]).get(role) == tiles(caches[1, name]).get(role)
        before, after = statistics.median(old), statistics.median(new)
        spread = (max(old) - min(old)) / before
        slower += same and after / before > 1.01 + spread
        print(f'| {name} | {role.removeprefix("attention_")} | {"equal" if same else "others"} '
              f'| {len(old)} | {before:.4f} | {after:.4f} | {after / before:.3f} | {spread:.3f} |')
    return slower


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('builds', nargs=2, metavar='BUILD', help='OLD and NEW, spion binaries')
    parser.add_argument('--rounds', type=int, default=4, help='at most (default 4)')
    parser.add_argument('--seconds', type=float, default=45, help='of rounds (default 45)')
    parser.add_argument('--repeat', type=int, default=15, help='measurements of a run (default 15)')
    options = parser.parse_args()
    builds = [pathlib.Path(build).resolve() for build in options.builds]
    with tempfile.TemporaryDirectory() as folder:
        return 1 if compare(builds, pathlib.Path(folder), options) else 0


if __name__ == '__main__':
    sys.exit(main())
