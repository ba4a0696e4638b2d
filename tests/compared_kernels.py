"""The kernels that compare_kernels.py compares."""
import dataclasses

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
        add('host', 'vector', role, 'fp32', 16, 16, 64, 16, 1, softmax='pruned_zero')  # packed
        add('host', 'vector', role, 'fp32', 64, 32, 32, 32, 1, softmax='masked', key_padding=False)
        add('host', 'vector', role, 'fp32', 128, 64, 64, 64, 1, softmax='masked', dense=True)
        add('host', 'vector', role, 'fp32', 256, 128, 64, 64, 1, softmax='pruned_zero', key_padding=False)
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
