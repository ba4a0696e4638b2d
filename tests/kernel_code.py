"""What compare_kernels.py compares of two binaries of a kernel: its code and its tables."""
import collections
import os
import re
import shutil
import struct
import subprocess

SECTION_DATA, SECTION_RELOCATIONS = 1, 4  # kinds of ELF sections


def sections(elf):
    """[(kind, contents)] of a 64-bit ELF file, less names: code, data, and what the linker puts into the
    host's code."""
    if elf[:5] != b'\x7fELF\x02':
        return []
    start, = struct.unpack_from('<Q', elf, 0x28)
    size, count, names_at = struct.unpack_from('<HHH', elf, 0x3A)
    headers = [struct.unpack_from('<IIQQQQIIQQ', elf, start + i * size) for i in range(count)]
    found = []
    for name, kind, flags, _, offset, length, link, target, *_ in headers:
        text = text_at(elf, headers[names_at][4] + name)
        contents = elf[offset:offset + length]
        if kind == SECTION_DATA and flags & 4:
            found.append(('code', contents))
        # .nv.constant0 is the kernel's parameters, .nv.global.init and .nv.constant3 baked tables.
        elif kind == SECTION_DATA and re.match(r'\.nv\.(constant|global\.init)|\.rodata', text):
            found.append(('data', contents))
        elif kind == SECTION_RELOCATIONS and headers[target][2] & 4 and text == '.rela.text':
            found.append(('relocations', tuple(relocations(elf, contents, headers, link))))
    return found


def text_at(elf, begin):
    return elf[begin:elf.index(b'\0', begin)].decode()


def relocations(elf, entries, headers, symbols):
    """(place in the code, kind, addend, symbol) of each: a symbol by section and value, or by name where
    it is another file's."""
    symbols_at, names = headers[symbols][4], headers[headers[symbols][6]][4]
    for place, info, addend in struct.iter_unpack('<QQq', entries):
        name, _, _, section, value, _ = struct.unpack_from('<IBBHQQ', elf,
                                                           symbols_at + 24 * (info >> 32))
        yield (place, info & 0xFFFFFFFF, addend,
               (section, value) if section else text_at(elf, names + name))


def instructions(binary):
    """Instructions without names, addresses and notes: of a cubin by nvdisasm, else None; of the host by
    the assembly text beside the object, each constant by its value."""
    if binary.suffix == '.o':
        return host_instructions(binary.with_name('kernel.s').read_text())
    program = os.environ.get('SPION_DISASSEMBLER') or shutil.which('nvdisasm')
    if not program:
        return None
    done = subprocess.run([program, '-c', str(binary)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return None
    lines = [re.sub(r'/\*.*?\*/', '', line).strip() for line in done.stdout.splitlines()]
    return [line for line in lines if line and not line.startswith(('.', '//'))]


def host_instructions(assembly):
    values = dict(re.findall(r'^(\.LCPI\w+):\n\s+\.(?:long|quad|byte|short|zero)\s+(\S+)', assembly,
                             re.M))
    lines = [line.strip() for line in assembly.splitlines() if re.match(r'\t[a-z{]', line)]
    lines = [re.sub(r'\.LCPI\w+', lambda one: f'[{values.get(one[0], "table")}]', line)
             for line in lines]
    return [re.sub(r'\.L\w+(\$local)?', '.L', line) for line in lines]


# Floating point on the host; products, floating point and exponentials on a GPU.
COMPUTES = re.compile(r'v(f[mn]|add|sub|mul|div|max|min|sqrt|rcp|rsqrt|scalef|rndscale|reduce|cvt)\w*[ps][sd]\b|'
                      r'(HMMA|HGMMA|FFMA|FMUL|FADD|FMNMX|HFMA2|HADD2|HMUL2|MUFU|F2F|F2FP)\b')


def kinds(lines):
    return [re.sub(r'^@!?U?P\w+ ', '', line).split()[0].rstrip(';') for line in lines]


def summary(texts):
    """How two lists of instructions differ, in a line."""
    sequences = [kinds(text) for text in texts]
    before, after = map(collections.Counter, sequences)
    changed = sorted(((kind, before[kind], after[kind]) for kind in before | after
                      if before[kind] != after[kind]), key=lambda one: -abs(one[1] - one[2]))
    counts = f'{len(texts[0])} and {len(texts[1])} instructions'
    if changed:
        # What computes comes first; where nothing of it differs, addresses, bounds and moves do.
        changed.sort(key=lambda one: not COMPUTES.match(one[0]))
        if not COMPUTES.match(changed[0][0]):
            old, new = ([kind for kind in sequence if COMPUTES.match(kind)] for sequence in sequences)
            counts += f', as many of each kind that computes, {"" if old == new else "not "}in the same order'
        return f'{counts}; in number differ ' + ', '.join(
            f'{kind} {old} -> {new}' for kind, old, new in changed[:12])
    plain = [[re.sub(r'(%[a-z]*|\b(?:U?R|U?P))\d+[dwb]?', r'\1', line) for line in text]
             for text in texts]
    if texts[0] == texts[1]:
        return f'{counts}, equal but for the order of tables and control bits'
    if plain[0] == plain[1]:
        return f'{counts}, equal but for the numbers of registers'
    return f'{counts}, as many of each kind in another order or with other operands'


# c[bank][register + offset], either of which may be missing; RZ is no register.
CONSTANT = re.compile(r'c\[(?P<bank>0x[0-9a-f]+)\]\[(?:(?P<register>U?R(?:Z|\d+))\+?)?'
                      r'(?P<offset>0x[0-9a-f]+)?\]')
INSTRUCTION_BYTES = 16
CONTROL_BIT = 105  # of an instruction: stalls, barriers and register reuse from here on


def constants(line):
    """The instruction without the offsets of constants, and those: [(bank, offset)]."""
    found = [(one['bank'], int(one['offset'] or '0', 16)) for one in CONSTANT.finditer(line)]
    return CONSTANT.sub(lambda one: f'c[{one["bank"]}][{(one["register"] or "").replace("RZ", "")}]',
                        line), found


def moved_constants(texts, codes):
    """{(bank, offset) in OLD: the same in NEW} when nothing else differs, else None. Of cubins."""
    controls = [[int.from_bytes(code[at:at + INSTRUCTION_BYTES], 'little') >> CONTROL_BIT
                 for code in parts for at in range(0, len(code), INSTRUCTION_BYTES)]
                for parts in codes]
    if controls[0] != controls[1] or len(texts[0]) != len(texts[1]):
        return None
    forward, backward = {}, {}
    for lines in zip(*texts):
        (before, mine), (after, others) = map(constants, lines)
        if before != after or len(mine) != len(others):
            return None
        for one, other in zip(mine, others):
            if forward.setdefault(one, other) != other or backward.setdefault(other, one) != one:
                return None
    return forward
