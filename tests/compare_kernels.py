#!/usr/bin/env python3
"""Do two builds of spion make the same kernels?

    tests/compare_kernels.py OLD NEW                machine code, tile shapes forced
    tests/compare_kernels.py --choices OLD NEW      which tiles and sources they choose
    tests/compare_kernels.py --list                 the programs

OLD and NEW are spion binaries, or folders that an earlier run has kept with --keep FOLDER, which
then holds FOLDER/old and FOLDER/new. No GPU is needed; NVRTC is, for all targets but the host.

Machine code: every program below is compiled by both from the same IR, tile shape and walk included,
so that no chooser has a say; the host's by LLVM for the CPU at hand. Compared are the executable
sections and the baked tables of the two binaries, byte for byte, what the linker puts into the host's
code, and the registers and shared bytes of a thread. Only names and notes of the file around them may
differ. Where code differs, the kinds of instructions whose numbers differ and the first instructions
that differ are shown: the host's always, a cubin's where nvdisasm is found (on PATH or as
SPION_DISASSEMBLER).

A parameter that moves within its struct (constant bank 0), or another number of variables whose
addresses or values a kernel reads (banks 3 and 4), changes the offsets of instructions and nothing
else. Such kernels are told apart from others: their instructions are equal, control bits included,
once each offset in a constant bank of OLD has been replaced by exactly one of NEW and the other way
round. They are counted by themselves and are no difference with --offsets.

Where words of the IR have changed, --rename OLD=NEW (repeated) names what NEW has renamed, and
--back NEW=OLD what OLD does not know yet.

Exit status: 0 all equal, 1 some differ, 2 something could not be compared.
"""
import argparse
import concurrent.futures
import difflib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import compared_kernels
import kernel_code


def run(command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


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


class Offsets(str):
    """What differs, where that is nothing but the offsets of constants."""


def compare_program(program, old, new):
    """'' when both make the same code, else what differs."""
    (old_file, old_facts), (new_file, new_facts) = old.compile(program), new.compile(program)
    before, after = (kernel_code.sections(file.read_bytes()) for file in (old_file, new_file))
    if not any(kind == 'code' and code for kind, code in before):
        raise RuntimeError(f'{old_file} has no instructions')
    if before == after and old_facts == new_facts:
        return ''
    what = [f'  {line}' for line in difflib.ndiff(old_facts, new_facts) if line[0] in '+-']
    code = [[contents for kind, contents in side if kind == 'code'] for side in (before, after)]
    if code[0] == code[1]:
        return '\n'.join(['tables, addresses or facts differ, not the instructions', *what])
    what.insert(0, 'instructions differ')
    texts = kernel_code.instructions(old_file), kernel_code.instructions(new_file)
    if None not in texts:
        moved = kernel_code.moved_constants(texts, code) if program.target != 'host' else None
        if moved is not None and old_facts == new_facts:
            changed = [f'c[{bank}][{before:#x}] -> {after:#x}'
                       for (bank, before), (_, after) in sorted(moved.items()) if before != after]
            return Offsets(f'in offsets of constants alone: {", ".join(changed)}')
        shown = list(difflib.unified_diff(*texts, 'old', 'new', lineterm='', n=1))
        what += [f'  {kernel_code.summary(texts)}'] + [f'  {line}' for line in shown[:24]]
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


def compare(cases, judge, jobs, offsets_may_differ=False):
    """Prints a line a case that differs or failed; the exit status."""
    differ = failed = moved = 0
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        waiting = {pool.submit(judge, case): name for name, case in cases}
        for future in concurrent.futures.as_completed(waiting):
            try:
                what = future.result()
            except (OSError, RuntimeError, ValueError) as error:
                failed += 1
                print(f'FAILED {waiting[future]}: {error}', flush=True)
                continue
            if isinstance(what, Offsets):
                moved += 1
                if not offsets_may_differ:
                    print(f'DIFFERS {waiting[future]}: {what}', flush=True)
            elif what:
                differ += 1
                print(f'DIFFERS {waiting[future]}: {what}', flush=True)
    print(f'{len(cases)} compared: {len(cases) - differ - failed - moved} equal, {moved} but for '
          f'offsets of constants, {differ} differ, {failed} failed')
    return 2 if failed or not cases else 1 if differ or (moved and not offsets_may_differ) else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('builds', nargs='*', metavar='OLD NEW', help='spion binaries, or folders')
    parser.add_argument('--choices', action='store_true', help='compare what is chosen instead')
    parser.add_argument('--list', action='store_true', help='list the programs')
    parser.add_argument('--only', default='', help='programs whose name matches this expression')
    parser.add_argument('--keep', help='folder for what both have made')
    parser.add_argument('--rename', action='append', default=[], metavar='OLD=NEW',
                        help='word of the IR that NEW has renamed')
    parser.add_argument('--back', action='append', default=[], metavar='NEW=OLD',
                        help='word of the IR that OLD has another name for')
    parser.add_argument('--offsets', action='store_true',
                        help='kernels that differ in offsets of constants alone count as equal')
    parser.add_argument('-j', '--jobs', type=int, default=os.cpu_count(), help='at once')
    options = parser.parse_args()
    wanted = [program for program in compared_kernels.programs() if re.search(options.only, program.name)]
    if options.list:
        print('\n'.join(program.name for program in wanted))
        return 0
    if len(options.builds) != 2:
        parser.error('give OLD and NEW')
    old, new = (pathlib.Path(build).resolve() for build in options.builds)
    if options.choices:
        cases = [(' '.join(flags), flags) for flags in compared_kernels.choices()
                 if re.search(options.only, ' '.join(flags))]
        return compare(cases, lambda flags: compare_choice(flags, old, new), options.jobs)
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(options.keep or temporary)
        pair = (Build(old, folder / 'old', [one.split('=', 1) for one in options.back]),
                Build(new, folder / 'new', [one.split('=', 1) for one in options.rename]))
        return compare([(program.name, program) for program in wanted],
                       lambda program: compare_program(program, *pair), options.jobs,
                       options.offsets)


if __name__ == '__main__':
    sys.exit(main())
