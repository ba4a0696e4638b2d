#!/usr/bin/env python3
"""Do two builds of spion make the same kernels?

    tests/compare_kernels.py OLD NEW                machine code, tile shapes forced
    tests/compare_kernels.py --choices OLD NEW      which tiles and sources they choose
    tests/compare_kernels.py --list                 the programs

OLD and NEW are spion binaries, or folders that an earlier run has kept with --keep FOLDER, which
then holds FOLDER/old and FOLDER/new. No GPU is needed; NVRTC is, for all targets but the host.

Machine code: every program below is compiled by both from the same IR, tile shape and walk included,
so that no chooser has a say. Compared are the executable sections and the baked tables of the two
binaries, byte for byte, and the registers and shared bytes of a thread. Only names and notes of the
file around them may differ. Where code differs and nvdisasm is found (on PATH or as
SPION_DISASSEMBLER), the first instructions that differ are shown. Where a NEW has renamed words of
the IR, --rename OLD=NEW (repeated) says so.

Exit status: 0 all equal, 1 some differ, 2 something could not be compared.
"""
import argparse
import concurrent.futures
import dataclasses
import difflib
import os
import pathlib
import re
import shutil
import struct
import subprocess
import sys
import tempfile

FORWARD = 'attention_forward'
QUERY = 'attention_query_gradient'
KEY_VALUE = 'attention_key_value_gradient'
DELTA = 'attention_delta'
GRADIENTS = 'attention_gradients'
ROLES = (FORWARD, QUERY, KEY_VALUE)
BY_COLUMNS = (KEY_VALUE, GRADIENTS)


@dataclasses.dataclass(frozen=True)
class Program:
    """A kernel with its tile shape; the field names are docs/ir.md's."""
    target: str
    role: str
    dtype: str
    head_dim: int
    block: int
    stationary_rows: int
    streamed_rows: int
    stages: int
    unit: str
    warps: int = 0  # 0: 16 stationary rows each
    tables: str = 'passed'
    softmax: str = 'pruned_zero'
    key_padding: bool = False
    dense: bool = False  # else a band, stripes and an empty row

    @property
    def packed_rows(self):
        return max(1, self.stationary_rows // self.block)

    @property
    def gather_rows(self):
        return min(self.block, self.streamed_rows)

    @property
    def name(self):
        return '-'.join([self.target, self.unit, self.role.removeprefix('attention_'), self.dtype,
                         f'D{self.head_dim}', f'b{self.block}',
                         f'{self.stationary_rows}x{self.streamed_rows}x{self.stages}', self.softmax]
                        + ['padding'] * self.key_padding + [self.tables] * (self.tables == 'baked')
                        + ['packed'] * (self.packed_rows > 1) + ['dense'] * self.dense)

    def uses(self, row, column):
        """Whether the block row has the block, of the pattern as the role walks it."""
        if self.role in BY_COLUMNS:
            row, column = column, row
        return self.dense or (row != 1 and (abs(row - column) <= 1 or column % 5 == 3))

    def text(self):
        length = 10 * self.block - 6  # the last block is ragged
        blocks = -(-length // self.block)
        pieces = self.block // self.gather_rows
        gather_blocks = -(-length // self.gather_rows)
        tiles = []  # (tile, [(gather_block, bits of the block rows)])
        for tile in range(-(-length // self.stationary_rows)):
            first = tile * self.stationary_rows // self.block
            rows = range(first, min(first + self.packed_rows, blocks))
            listed = [(gather_block, tuple(row in rows and self.uses(row, gather_block // pieces)
                                      for row in range(first, first + self.packed_rows)))
                      for gather_block in range(gather_blocks)]
            tiles.append((tile, [one for one in listed if any(one[1])]))
        tiles.sort(key=lambda one: -len(one[1]))
        counts = [len(walk) for _, walk in tiles]
        lines = [
            f'program role={self.role}',
            f'attention H=2 D={self.head_dim} L={length} dtype={self.dtype} scale=0.125 '
            f'softmax={self.softmax} key_padding={str(self.key_padding).lower()} dropout=0',
            f'shape block={self.block} stationary_rows={self.stationary_rows} '
            f'streamed_rows={self.streamed_rows} gather_rows={self.gather_rows} '
            f'warps={self.warps or self.stationary_rows // 16} stages={self.stages} '
            f'unit={self.unit} tables={self.tables}',
            f'walk tiles={len(tiles)} gather_blocks={sum(counts)} longest={max(counts)} '
            f'empty={counts.count(0)}']
        for tile, walk in tiles:
            shown = [f'{gather_block}' + ('/' + ''.join('01'[bit] for bit in bits)
                                     if self.packed_rows > 1 else '') for gather_block, bits in walk]
            lines.append(f'tile {tile} {row_class(walk, gather_blocks)}:' + ''.join(
                f' {one}' for one in shown))
        return '\n'.join(lines) + '\n'


def row_class(walk, gather_blocks):
    runs = sum(1 for i, (gather_block, bits) in enumerate(walk)
               if i == 0 or (gather_block, bits) != (walk[i - 1][0] + 1, walk[i - 1][1]))
    if not walk:
        return 'empty'
    if runs == 1:
        return 'dense' if len(walk) == gather_blocks else 'band'
    return 'runs' if len(walk) >= 2 * runs else 'irregular'


def programs():
    """Every family, role, dtype, head dimension, block, softmax, passed and baked, packed."""
    every = []

    def add(target, unit, role, dtype, head_dim, block, stationary, streamed, stages, **more):
        odd = len(every) % 2 == 1  # softmax and padding in turns, so that no axis multiplies
        if more.get('warps') is None and unit in ('vector', 'mma_sync_tma'):
            more['warps'] = 1
        every.append(Program(target=target, unit=unit, role=role, dtype=dtype, head_dim=head_dim,
                             block=block, stationary_rows=stationary, streamed_rows=streamed,
                             stages=stages, softmax=more.pop('softmax', 'masked' if odd else
                                                             'pruned_zero'),
                             key_padding=more.pop('key_padding', len(every) % 3 == 1), **more))

    for role in ROLES:  # mma.sync and fp32's units, thread blocks that share an item
        for dtype, head_dim, stationary, streamed in (
                ('bf16', 16, 64, 64), ('fp16', 32, 64, 64), ('bf16', 64, 64, 64),
                ('bf16', 128, 64, 32), ('fp16', 256, 64, 16), ('tf32', 32, 32, 32),
                ('tf32', 64, 64, 32), ('tf32', 144, 32, 16), ('fp32', 64, 64, 32)):
            add('sm_80', 'fma' if dtype == 'fp32' else 'mma_sync', role, dtype, head_dim, 64,
                stationary, streamed, 2 if head_dim < 256 else 1)
        for block in (16, 32, 128):
            add('sm_90a', 'mma_sync', role, 'bf16', 64, block, block, 64, 2)
        add('sm_120', 'mma_sync', role, 'bf16', 64, 32, 32, 32, 3)
        for block, dtype in ((16, 'bf16'), (32, 'fp32')):  # packed
            add('sm_80', 'fma' if dtype == 'fp32' else 'mma_sync', role, dtype, 32, block, 64, 64, 2)
        add('sm_80', 'mma_sync', role, 'bf16', 64, 32, 32, 64, 2, tables='baked')
        add('sm_80', 'mma_sync', role, 'bf16', 64, 32, 64, 32, 2, tables='baked')
    for role, head_dim, rows in ((FORWARD, 32, 16), (FORWARD, 32, 32), (FORWARD, 64, 16),
                                 (FORWARD, 64, 32), (QUERY, 32, 32), (QUERY, 64, 32),
                                 (KEY_VALUE, 64, 32)):  # a warp an item
        add('sm_90a', 'mma_sync_tma', role, 'bf16', head_dim, rows, rows, 32, 3)
        add('sm_90a', 'mma_sync_tma', role, 'fp16', head_dim, rows, rows, 32, 2,
            tables='baked' if rows == 32 else 'passed')
    for role in ROLES:  # wgmma
        for head_dim in (32, 64, 128):
            add('sm_90a', 'wgmma', role, 'bf16', head_dim, 64, 64, 64, 2)
            wide = 128 if role == FORWARD or head_dim < 128 else 64
            rows = 128 if role != QUERY or head_dim < 128 else 64
            add('sm_90a', 'wgmma', role, 'fp16', head_dim, 128, rows, wide, 2,
                dense=head_dim == 64)
        for head_dim, block in ((64, 16), (64, 32), (128, 32)):  # packed
            add('sm_90a', 'wgmma', role, 'bf16', head_dim, block, 64, 64, 2)
        add('sm_90a', 'wgmma', role, 'bf16', 64, 64, 64, 64, 3, tables='baked')
        add('sm_90a', 'wgmma', role, 'bf16', 64, 64, 64, 64, 3, tables='baked', dense=True,
            key_padding=False)
    for head_dim in (64, 128):  # all gradients together
        for softmax in ('pruned_zero', 'masked'):
            add('sm_90a', 'mma_sync', DELTA, 'bf16', head_dim, 128, 64, 64, 1, softmax=softmax)
            add('sm_90a', 'wgmma', GRADIENTS, 'bf16' if softmax == 'masked' else 'fp16', head_dim,
                128, 128, 8192 // head_dim, 2, softmax=softmax)
    for role in ROLES:  # the host
        add('host', 'vector', role, 'fp32', 64, 64, 64, 64, 1)
        add('host', 'vector', role, 'fp32', 32, 32, 128, 32, 1)  # packed
        add('host', 'vector', role, 'fp32', 48, 16, 16, 16, 1, tables='baked')
    return every


# What --choices asks both for: flags of `spion compile`.
def choices():
    every = []
    for target in ('sm_80', 'sm_90', 'sm_90a', 'sm_120', 'host'):
        for block in (16, 32, 64, 128):
            for head_dim in (32, 64, 128, 256):
                for pattern in ('0.05', '1'):
                    dtypes = {'host': ['fp32'], 'sm_90a': ['bf16', 'tf32']}.get(target, ['bf16'])
                    for dtype in dtypes:
                        every.append(['--target', target, '--block', str(block), '--head-dim',
                                      str(head_dim), '--length', '2040', '--heads', '2', '--batch',
                                      '8', '--dtype', dtype, '--pattern-random', pattern])
    for pack in ('1', '2', '4'):
        for target in ('sm_80', 'sm_90a'):
            every.append(['--target', target, '--block', '16', '--length', '1024', '--heads', '4',
                          '--pattern-striped', '9,6', '--pack', pack])
    for length in ('100', '4096'):
        every.append(['--target', 'sm_90a', '--block', '32', '--length', length, '--batch', '32',
                      '--pattern-striped', '9,6', '--softmax', 'masked', '--key-padding'])
    return every


def run(command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def sections(elf):
    """Executable sections and constant data of a 64-bit ELF file, in order, less their names."""
    if elf[:5] != b'\x7fELF\x02':
        return []
    start, = struct.unpack_from('<Q', elf, 0x28)
    size, count, names_at = struct.unpack_from('<HHH', elf, 0x3A)
    headers = [struct.unpack_from('<IIQQQQIIQQ', elf, start + i * size) for i in range(count)]
    names = headers[names_at][4]
    found = []
    for name, kind, flags, _, offset, length, *_ in headers:
        text = elf[names + name:elf.index(b'\0', names + name)].decode()
        code = bool(flags & 4) and kind == 1
        # .nv.constant0 is the kernel's parameters, .nv.global.init and .nv.constant3 baked tables.
        data = kind == 1 and re.match(r'\.nv\.(constant|global\.init)|\.rodata', text)
        if code or data:
            found.append(('code' if code else 'data', elf[offset:offset + length]))
    return found


class Build:
    """A spion binary, or what an earlier run has kept of one."""

    def __init__(self, given, folder, renames):
        self.given = pathlib.Path(given).resolve()
        self.kept = self.given.is_dir()
        self.folder = self.given if self.kept else pathlib.Path(folder)
        self.renames = renames

    def compile(self, program):
        """(binary, facts) of the program, or raises RuntimeError with what spion said."""
        out = self.folder / program.name
        if not self.kept:
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir(parents=True)
            text = program.text()
            for before, after in self.renames:
                text = text.replace(before, after)
            (out / 'asked.ir').write_text(text)
            status, _, error = run([str(self.given), 'compile', str(out / 'asked.ir'), '--target',
                                    program.target, '--emit',
                                    'asm,report' if program.target == 'host' else 'cubin,report',
                                    '-o', str(out / 'made')])
            if status != 0:
                raise RuntimeError(f'{self.given}: {error.strip()}')
        binaries = [*out.glob('made/*/kernel.cubin'), *out.glob('made/*/kernel.o')]
        if len(binaries) != 1:
            raise RuntimeError(f'{out} holds {len(binaries)} binaries, not one')
        report = (binaries[0].parent / 'report.txt').read_text()
        facts = [line.strip() for line in report.splitlines()
                 if re.match(r' *(registers|shared memory|spills|barriers) ', line)]
        return binaries[0], facts


def disassemble(binary):
    """Instructions of a cubin, without names, addresses and notes; None without nvdisasm."""
    program = os.environ.get('SPION_DISASSEMBLER') or shutil.which('nvdisasm')
    if not program or binary.suffix != '.cubin':
        return None
    status, text, _ = run([program, '-c', str(binary)])
    if status != 0:
        return None
    lines = [re.sub(r'/\*.*?\*/', '', line).strip() for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith(('.', '//'))]


def compare_program(program, old, new):
    """'' when both make the same code, else what differs."""
    (old_file, old_facts), (new_file, new_facts) = old.compile(program), new.compile(program)
    before, after = (sections(file.read_bytes()) for file in (old_file, new_file))
    if not any(kind == 'code' and code for kind, code in before):
        raise RuntimeError(f'{old_file} has no instructions')
    if before == after and old_facts == new_facts:
        return ''
    what = [f'  {line}' for line in difflib.ndiff(old_facts, new_facts) if line[0] in '+-']
    code = [[bytes_ for kind, bytes_ in side if kind == 'code'] for side in (before, after)]
    what.insert(0, 'instructions differ' if code[0] != code[1] else
                'tables or facts differ, not the instructions')
    texts = disassemble(old_file), disassemble(new_file)
    if code[0] != code[1] and None not in texts:
        shown = list(difflib.unified_diff(*texts, 'old', 'new', lineterm='', n=1))
        what.append(f'  {len(texts[0])} and {len(texts[1])} instructions, equal but for the control '
                    'bits' if not shown else '  ' + '\n  '.join(shown[:24]))
    return '\n'.join(what)


def chosen(build, flags, folder):
    """What a build chooses and says: tile programs and sources by kernel, and --explain."""
    status, text, error = run([str(build), 'compile', *flags, '--explain', '--emit', 'tile',
                               *([] if 'host' in flags else ['--emit', 'cuda']), '-o', folder])
    made = [f'exit status {status}', error.replace(str(build), 'spion'),
            text.replace(str(folder), 'FOLDER')]
    for file in sorted(pathlib.Path(folder).glob('*/kernel.*')):
        made.append(f'==> {file.relative_to(folder)} <==\n{file.read_text()}')
    # Neither where the bodies lie nor how a constant is written is a choice.
    return '\n'.join(plain_constant(line) for line in '\n'.join(made).splitlines()
                     if not line.startswith(('#include ', 'FOLDER/')))


def plain_constant(line):
    """'kName = value  // comment' of a constant's definition; any other line as it is."""
    return re.sub(r'^(?:constexpr [a-z ]+ (?P<a>k\w+) = (?P<b>.*?);|'
                  r'enum : [a-z ]+ \{ (?P<c>k\w+) = (?P<d>.*?) \};|'
                  r'#define (?P<e>k\w+) \(?(?P<f>\S+?)\)?)(?P<rest>  //.*)?$',
                  lambda m: f'{m["a"] or m["c"] or m["e"]} = {m["b"] or m["d"] or m["f"]}'
                            f'{m["rest"] or ""}', line)


def compare_choice(flags, old, new):
    with tempfile.TemporaryDirectory() as folder:
        texts = [chosen(build, flags, f'{folder}/{name}').splitlines()
                 for build, name in ((old, 'old'), (new, 'new'))]
    shown = list(difflib.unified_diff(*texts, 'old', 'new', lineterm='', n=0))
    return '' if not shown else '  ' + '\n  '.join(shown[:24])


def compare(cases, judge, jobs):
    """Prints a line a case that differs or failed; the exit status."""
    differ = failed = 0
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        waiting = {pool.submit(judge, case): name for name, case in cases}
        for future in concurrent.futures.as_completed(waiting):
            try:
                what = future.result()
            except (OSError, RuntimeError, ValueError) as error:
                failed += 1
                print(f'FAILED {waiting[future]}: {error}', flush=True)
                continue
            if what:
                differ += 1
                print(f'DIFFERS {waiting[future]}: {what}', flush=True)
    print(f'{len(cases)} compared: {len(cases) - differ - failed} equal, {differ} differ, '
          f'{failed} failed')
    return 2 if failed or not cases else 1 if differ else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('builds', nargs='*', metavar='OLD NEW', help='spion binaries, or folders')
    parser.add_argument('--choices', action='store_true', help='compare what is chosen instead')
    parser.add_argument('--list', action='store_true', help='list the programs')
    parser.add_argument('--only', default='', help='programs whose name matches this expression')
    parser.add_argument('--keep', help='folder for what both have made')
    parser.add_argument('--rename', action='append', default=[], metavar='OLD=NEW',
                        help='word of the IR that NEW has renamed')
    parser.add_argument('-j', '--jobs', type=int, default=os.cpu_count(), help='at once')
    options = parser.parse_args()
    wanted = [program for program in programs() if re.search(options.only, program.name)]
    if options.list:
        print('\n'.join(program.name for program in wanted))
        return 0
    if len(options.builds) != 2:
        parser.error('give OLD and NEW')
    old, new = (pathlib.Path(build).resolve() for build in options.builds)
    if options.choices:
        cases = [(' '.join(flags), flags) for flags in choices()
                 if re.search(options.only, ' '.join(flags))]
        return compare(cases, lambda flags: compare_choice(flags, old, new), options.jobs)
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(options.keep or temporary)
        pair = (Build(old, folder / 'old', []),
                Build(new, folder / 'new', [one.split('=', 1) for one in options.rename]))
        return compare([(program.name, program) for program in wanted],
                       lambda program: compare_program(program, *pair), options.jobs)


if __name__ == '__main__':
    sys.exit(main())
