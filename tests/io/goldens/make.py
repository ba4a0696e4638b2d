"""Makes the files of this folder with the libraries that people use, once:

    pip install numpy==2.4.6 scipy==1.17.1 ml_dtypes==0.6.0 safetensors==0.8.0 pillow==13.0.0
    python tests/io/goldens/make.py

The tests read what lies here and need none of these. expected.json says what each array holds,
patterns.json what each mask says, masked.json what discovery finds in masked maps, by a reference
of its own below (numpy's nan functions; SPION, section 2, for the flood fill).
"""
import json
import pathlib
import zipfile

import ml_dtypes
import numpy as np
import safetensors.numpy
import scipy.sparse
from PIL import Image

HERE = pathlib.Path(__file__).parent


def arrays():
    """Every element type and order; the values are exact in each."""
    expected = {}

    def note(name, array):
        expected[name] = {"shape": list(array.shape),
                          "values": np.asarray(array, np.float64).ravel("C").tolist()}

    def save(name, array, version=None):
        with open(HERE / name, "wb") as file:
            np.lib.format.write_array(file, array, version=version)
        note(name, array)

    values = np.array([[0, 1, -2, 3.5], [0.25, -0.5, 7, 8], [96, 0, -1, 2]])
    save("float16.npy", values.astype("<f2"))
    save("float32.npy", values.astype("<f4"))
    save("float64.npy", values.astype("<f8"))
    save("bfloat16.npy", values.astype(ml_dtypes.bfloat16))  # its descr is <V2
    save("float32-big.npy", values.astype(">f4"))
    save("float16-big.npy", values.astype(">f2"))
    save("int32-big.npy", np.round(values).astype(">i4"))
    save("float64-fortran.npy", np.asfortranarray(values))
    cube = np.arange(24, dtype="<f4").reshape(2, 3, 4)
    save("cube-fortran.npy", np.asfortranarray(cube))
    save("bool.npy", values > 1)
    for kind in "iu":
        for size in (1, 2, 4, 8):
            numbers = np.abs(np.round(values)) if kind == "u" else np.round(values)
            save(f"{kind}{size}.npy", numbers.astype(f"<{kind}{size}"))
    save("scalar.npy", np.array(2.5))
    save("format-2.npy", values, version=(2, 0))
    save("format-3.npy", values, version=(3, 0))

    # As NumPy under Python 2 wrote it: the extents are longs.
    header = "{'descr': '<f8', 'fortran_order': False, 'shape': (3L, 4L), }"
    header += " " * (-(10 + len(header) + 1) % 64) + "\n"
    (HERE / "python2.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") +
                                       header.encode() + values.tobytes())
    note("python2.npy", values)

    np.savez(HERE / "stored.npz", values)
    note("stored.npz", values)
    np.savez_compressed(HERE / "deflated.npz", scores=values.astype("<f4"), other=cube)
    note("deflated.npz:scores", values)
    note("deflated.npz:other", cube)
    with zipfile.ZipFile(HERE / "zip64.npz", "w") as archive:  # sizes in the ZIP64 field
        zipfile.ZIP64_LIMIT, limit = 1, zipfile.ZIP64_LIMIT
        with archive.open("a.npy", "w", force_zip64=True) as member:
            np.lib.format.write_array(member, values)
        archive.close()
        zipfile.ZIP64_LIMIT = limit
    note("zip64.npz:a", values)

    tensors = {"layer.q": values.astype("<f4"), "half": values.astype("<f2"),
               "brain": values.astype(ml_dtypes.bfloat16), "wide": values,
               "mask": values > 1, "count": np.round(values).astype("<i8")}
    safetensors.numpy.save_file(tensors, HERE / "tensors.safetensors", metadata={"format": "np"})
    for name, tensor in tensors.items():
        note(f"tensors.safetensors:{name}", tensor)
    safetensors.numpy.save_file({"only": cube}, HERE / "one.safetensors")
    note("one.safetensors", cube)
    (HERE / "expected.json").write_text(json.dumps(expected, indent=0) + "\n")


# 5 block rows; L = 72 in blocks of 16, the last of 8.
BITS = np.array([[1, 0, 0, 0, 1], [1, 1, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 1, 0],
                 [1, 0, 0, 1, 1]], bool)
LENGTH, BLOCK = 72, 16


def patterns():
    """One pattern in every form, a row and a column a block, or an element."""
    elements = np.kron(BITS, np.ones((BLOCK, BLOCK), bool))[:LENGTH, :LENGTH]
    np.save(HERE / "mask-blocks.npy", BITS)
    np.save(HERE / "mask-elements.npy", elements.astype(np.int8))
    np.savez_compressed(HERE / "mask-elements.npz", mask=elements)
    np.savetxt(HERE / "mask-blocks.csv", BITS.astype(int), fmt="%d", delimiter=",")
    np.savetxt(HERE / "mask-savetxt.csv", BITS.astype(float))  # its default: 1.000e+00, blanks
    Image.fromarray(BITS).save(HERE / "mask-blocks.png")
    Image.fromarray((elements * 255).astype(np.uint8)).save(HERE / "mask-elements.png")
    grey = np.repeat((BITS * 230 + 12).astype(np.uint8)[:, :, None], 3, axis=2)
    Image.fromarray(grey).save(HERE / "mask-colour.png")
    Image.fromarray((BITS * 128).astype(np.uint8)).save(HERE / "mask-grey.png")  # refused
    csr = scipy.sparse.csr_array(elements.astype(np.float32))
    scipy.sparse.save_npz(HERE / "csr.npz", csr)
    scipy.sparse.save_npz(HERE / "csr-blocks.npz", scipy.sparse.csr_matrix(BITS))
    scipy.sparse.save_npz(HERE / "bsr.npz", csr.tobsr())  # blocks of a size that scipy chose
    scipy.sparse.save_npz(HERE / "bsr-4.npz", csr.tobsr((4, 4)))
    holes = np.zeros((LENGTH, LENGTH), np.float32)  # one element a block: other blocks of 4 have
    holes[::BLOCK, ::BLOCK] = BITS                  # zeros around it
    scipy.sparse.save_npz(HERE / "bsr-holes.npz", scipy.sparse.bsr_array(holes, blocksize=(4, 4)))
    scipy.sparse.save_npz(HERE / "coo.npz", csr.tocoo())  # refused
    (HERE / "patterns.json").write_text(json.dumps(
        {"length": LENGTH, "block": BLOCK,
         "pattern": ["".join("01"[bit] for bit in row) for row in BITS.astype(int)],
         "bsr_block": list(csr.tobsr().blocksize)}, indent=0) + "\n")


def pool(scores, block, filter_edge):
    """scores: [L, L], NaN for masked -> [nb, nb], NaN for wholly masked blocks."""
    length = len(scores)
    half = filter_edge // 2
    summed = np.zeros_like(scores)
    for i in range(length):
        for j in range(length):
            steps = [f for f in range(-half, filter_edge - half)
                     if 0 <= i + f < length and 0 <= j + f < length]
            summed[i, j] = np.nansum([scores[i + f, j + f] for f in steps])
    summed[np.isnan(scores)] = np.nan
    nb = -(-length // block)
    pooled = np.full((nb, nb), np.nan)
    for i in range(nb):
        for j in range(nb):
            tile = summed[i * block:(i + 1) * block, j * block:(j + 1) * block]
            if not np.all(np.isnan(tile)):
                pooled[i, j] = np.nanmean(tile)
    return pooled


def flood_fill(pooled, threshold):
    nb = len(pooled)
    grid = np.zeros((nb + 1, nb + 1))
    grid[:nb, :nb] = np.where(np.isnan(pooled), -np.inf, pooled)
    marks = np.eye(nb, dtype=int)
    for start in [(0, k) for k in range(nb)] + [(k, 0) for k in range(nb)]:
        row, column = start
        while row < nb and column < nb:
            below, right, diagonal = (grid[row + 1, column], grid[row, column + 1],
                                      grid[row + 1, column + 1])
            if below > right and below > diagonal:
                row += 1
            elif not below > right and right > diagonal:
                column += 1
            else:
                row, column = row + 1, column + 1
            if row < nb and column < nb and grid[row, column] > threshold:
                marks[row, column] = 1
    return marks


def masked_maps():
    """Causal maps with -inf, raw scores below and above 0, and a sample with padded keys."""
    random = np.random.default_rng(20240607)
    B, H, L, block, edge, q = 2, 2, 72, 16, 5, 0.7
    scores = random.normal(size=(B, H, L, L)) * 2 - 1
    scores[:, :, :, 5:9] += 4  # a vertical stripe
    scores[:, :, np.triu_indices(L, 1)[0], np.triu_indices(L, 1)[1]] = -np.inf
    scores[1, :, :, 50:] = -np.inf
    scores[1, :, 50:, :] = -np.inf
    scores = scores.astype(np.float16)
    np.savez_compressed(HERE / "masked.npz", scores)
    values = scores.astype(np.float64)
    values[np.isneginf(values)] = np.nan

    def found(map_of):
        pooled = pool(map_of, block, edge)
        threshold = np.nanquantile(pooled, q)
        marks = flood_fill(pooled, threshold)
        return {"threshold": threshold, "pattern": ["".join(map(str, row)) for row in marks]}

    with np.errstate(all="ignore"):
        present = np.sum(~np.isnan(values), axis=(0, 1))
        mean = np.where(present > 0, np.nansum(values, axis=(0, 1)) / present, np.nan)
    result = {"block": block, "filter": edge, "quantile": q, "mean": found(mean)}
    for b in range(B):
        for h in range(H):
            result[f"{b},{h}"] = found(values[b, h])
    (HERE / "masked.json").write_text(json.dumps(result, indent=0) + "\n")


def attention():
    """q, k, v and dO of several types, and what attention makes of them: a masked softmax on blocks
    of 16 set as 10/11, scale 0.3, for `spion verify --inputs`."""
    random = np.random.default_rng(7)
    H, L, D = 2, 20, 16
    q, k, v, do = (random.normal(size=(H, L, D)).astype(np.float16) for _ in range(4))
    safetensors.numpy.save_file(
        {"q": q, "k": k.astype(np.float32), "v": v, "do": do.astype(np.float64)},
        HERE / "attention.safetensors")
    q, k, v, do = (x.astype(np.float64) for x in (q, k, v, do))
    scores = 0.3 * q @ k.transpose(0, 2, 1)
    scores[:, :16, 16:] = -np.inf
    p = np.exp(scores - scores.max(axis=2, keepdims=True))
    p /= p.sum(axis=2, keepdims=True)
    (HERE / "attention.json").write_text(json.dumps(
        {"o": (p @ v).ravel().round(9).tolist(),
         "dv": (p.transpose(0, 2, 1) @ do).ravel().round(9).tolist()}, indent=0) + "\n")


arrays()
patterns()
masked_maps()
attention()
