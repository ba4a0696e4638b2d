"""Holds `spion predict` against the checkpoint's numbers worked out in float64 with Python alone, for
every task, dense and sparse. With --torch also against examples/pytorch/spion_model.py, and the file
against what Python's safetensors reads of it.

    checkpoint_logits.py SPION [--torch EXAMPLE] [--without-png]

An independent reading of docs/formats.md: nothing here comes from spion or from a framework. Without
libpng spion reads no pictures of Pathfinder's, which --without-png leaves out.
"""
import argparse, array, json, math, os, random, struct, subprocess, sys, tempfile, tomllib, zlib


def read(path):
    data = open(path, "rb").read()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + size])
    notes, tensors = header.pop("__metadata__"), {}
    for name, about in header.items():
        begin, end = about["data_offsets"]
        values = array.array({"F32": "f", "U8": "B"}[about["dtype"]])
        values.frombytes(data[8 + size + begin:8 + size + end])
        rows = about["shape"]
        values = values.tolist()
        for width in rows[:0:-1]:
            values = [values[i:i + width] for i in range(0, len(values), width)]
        tensors[name] = values
    return notes, tensors


def dot(a, b):
    return sum(x * y for x, y in zip(a, b))


def linear(x, weight, bias):
    return [dot(row, x) + b for row, b in zip(weight, bias)]


def norm(x, gamma, beta):
    mean = sum(x) / len(x)
    scale = 1 / math.sqrt(sum((v - mean) ** 2 for v in x) / len(x) + 1e-5)
    return [(v - mean) * scale * g + b for v, g, b in zip(x, gamma, beta)]


def attention(x, w, s, i, valid):
    heads, dim, length, block = s["heads"], s["head-dim"], s["length"], s["block"]
    pattern = w.get(f"pattern.layer{i}")
    qkv = [linear(row, w[f"layer{i}.qkv.weight"], w[f"layer{i}.qkv.bias"]) for row in x]
    width = heads * dim
    out = []
    for row in range(length):
        o = []
        for h in range(heads):
            own = pattern[h] if pattern and s["per-head"] else pattern
            computed = [c for c in range(length) if own is None or own[row // block][c // block]]
            pruned = length - len(computed) if s["softmax"] == "pruned_zero" else 0
            part = slice(h * dim, (h + 1) * dim)
            q = qkv[row][part]
            keys = [c for c in computed if c < valid]
            scores = [dot(q, qkv[c][width:2 * width][part]) / math.sqrt(dim) for c in keys]
            p = [math.exp(score) for score in scores]
            total = sum(p) + pruned
            values = [qkv[c][2 * width:][part] for c in keys]
            o += [sum(p[n] * values[n][d] for n in range(len(keys))) / total if keys else 0.0
                  for d in range(dim)]
        out.append(linear(o, w[f"layer{i}.out.weight"], w[f"layer{i}.out.bias"]))
    return out


def pooled(tokens, w, s):
    length = s["length"]
    if s["pooling"] == "cls":
        tokens = [len(w["token"]) - 1] + tokens
    ids = tokens + [0] * (length - len(tokens))
    x = [[a + b for a, b in zip(w["token"][t], w["position"][n])] for n, t in enumerate(ids)]
    add = lambda a, b: [[u + v for u, v in zip(p, q)] for p, q in zip(a, b)]
    for i in range(s["layers"]):
        n = f"layer{i}."
        normed = [norm(r, w[n + "norm1.gamma"], w[n + "norm1.beta"]) for r in x]
        x = add(x, attention(normed, w, s, i, len(tokens)))
        branch = []
        for r in x:
            hidden = linear(norm(r, w[n + "norm2.gamma"], w[n + "norm2.beta"]),
                            w[n + "feed_forward1.weight"], w[n + "feed_forward1.bias"])
            hidden = [v / 2 * (1 + math.erf(v / math.sqrt(2))) for v in hidden]
            branch.append(linear(hidden, w[n + "feed_forward2.weight"], w[n + "feed_forward2.bias"]))
        x = add(x, branch)
    rows = [norm(r, w["final_norm.gamma"], w["final_norm.beta"]) for r in x[:len(tokens)]]
    return rows[0] if s["pooling"] == "cls" else [sum(column) / length for column in zip(*rows)]


def logits(sample, w, s):
    features = [pooled(tokens, w, s) for tokens in sample]
    f = features[0]
    if len(features) == 2:
        a, b = features
        f = a + b + [u * v for u, v in zip(a, b)] + [u - v for u, v in zip(a, b)]
    hidden = [max(0.0, v) for v in linear(f, w["head1.weight"], w["head1.bias"])]
    return linear(hidden, w["head2.weight"], w["head2.bias"])


LENGTH, EDGE = 40, 6
SMALL = ["--device", "cpu", "--layers", "2", "--heads", "2", "--head-dim", "16", "--d-model", "32",
         "--feed-forward", "24", "--block", "16", "--batch", "4", "--steps", "12", "--warmup", "2",
         "--eval-every", "4", "--lr", "0.02", "--quantile", "0.5", "--length", str(LENGTH)]


def write(name, text):
    with open(name, "wb") as file:
        file.write(text if isinstance(text, bytes) else text.encode())


def bytes_of(text):
    return [byte + 1 for byte in text.encode()]


def hashed(text, n, count):
    """Tokens of --ngram n: FNV-1a, 32 bits, of n bytes from each on."""
    data, tokens = text.encode(), []
    for i in range(len(data)):
        h = 2166136261
        for byte in data[i:i + n]:
            h = (h ^ byte) * 16777619 % 2 ** 32
        tokens.append(1 + h % (count - 1))
    return tokens


def listops(draw):
    words = "[MIN [MAX [MED [SM 0 1 2 3 4 5 6 7 8 9 ]".split()
    rows = []
    for _ in range(3):
        rows.append(["[MAX"] + [str(draw.randrange(10)) for _ in range(draw.randrange(2, 30))] + ["]"])
    write("predict.tsv", "Source\tTarget\n" + "".join(" ".join(row) + "\t1\n" for row in rows))
    more = ["--vocabulary", "17", "--min-length", "3", "--max-length", "39", "--max-depth", "3",
            "--train-samples", "40", "--validation-samples", "4", "--test-samples", "4"]
    return more, "predict.tsv", [[[1 + words.index(word) for word in row]] for row in rows]


def text(draw):
    texts = ["".join(draw.choice("ab c\u00e4") for _ in range(draw.randrange(1, 25))) for _ in range(40)]
    write("train.tsv", "".join(f"{i % 3}\t{t}\n" for i, t in enumerate(texts)))
    write("predict.jsonl", "".join(json.dumps({"text": t}) + "\n" for t in texts[:3]))
    return ["--data", "train.tsv", "--vocabulary", "258"], "predict.jsonl", [[bytes_of(t)] for t in texts[:3]]


def ngrams(draw):
    texts = ["".join(draw.choice("abc\u00e4") for _ in range(draw.randrange(1, 25))) for _ in range(40)]
    write("ngrams.tsv", "".join(f"{i % 3}\t{t}\n" for i, t in enumerate(texts)))
    write("ngrams.jsonl", "".join(json.dumps({"text": t}) + "\n" for t in texts[:3]))
    return (["--data", "ngrams.tsv", "--vocabulary", "50", "--ngram", "3", "--pooling", "cls"],
            "ngrams.jsonl", [[hashed(t, 3, 49)] for t in texts[:3]])


def retrieval(draw):
    pairs = [["".join(draw.choice("xyz") for _ in range(draw.randrange(1, 60))) for _ in range(2)]
             for _ in range(40)]
    write("pairs.csv", "".join(f"{i % 2},id,{a},{b}\n" for i, (a, b) in enumerate(pairs)))
    write("predict.csv", "".join(f"{a},{b}\n" for a, b in pairs[:3]))
    cut = [[bytes_of(t[:30]) for t in pair] for pair in pairs[:3]]
    return ["--data", "pairs.csv", "--vocabulary", "258", "--cut", "30"], "predict.csv", cut


def image(draw):
    pictures = [bytes(draw.randrange(256) for _ in range(EDGE * EDGE)) for _ in range(40)]
    for split, some in (("train", pictures), ("t10k", pictures[:3])):
        write(f"{split}-images-idx3-ubyte",
              struct.pack(">4I", 0x803, len(some), EDGE, EDGE) + b"".join(some))
        write(f"{split}-labels-idx1-ubyte",
              struct.pack(">2I", 0x801, len(some)) + bytes(i % 5 for i in range(len(some))))
    more = ["--data", ".", "--vocabulary", "256", "--validation-samples", "4"]
    return more, "t10k-images-idx3-ubyte", [[list(picture)] for picture in pictures[:3]]


def png(pixels):
    chunk = lambda kind, data: (struct.pack(">I", len(data)) + kind + data
                                + struct.pack(">I", zlib.crc32(kind + data)))
    rows = b"".join(b"\0" + pixels[i:i + EDGE] for i in range(0, EDGE * EDGE, EDGE))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">2I5B", EDGE, EDGE, 8, 0, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def pathfinder(draw):
    os.makedirs("level/imgs/0", exist_ok=True)
    os.makedirs("level/metadata", exist_ok=True)
    pictures = [bytes(draw.randrange(256) for _ in range(EDGE * EDGE)) for _ in range(40)]
    for i, picture in enumerate(pictures):
        write(f"level/imgs/0/sample_{i}.png", png(picture))
    write("level/metadata/0.npy", "".join(f"imgs/0 sample_{i}.png {i} {i % 2} 1.0 14 4 2 0.5 1 1\n"
                                          for i in range(len(pictures))))
    return ["--data", "level", "--vocabulary", "256"], "level/imgs/0/sample_0.png", [[list(pictures[0])]]


def same_as_safetensors(checkpoint, notes, tensors):
    from safetensors import safe_open
    with safe_open(checkpoint, "np") as file:
        assert file.metadata() == notes
        assert {name: file.get_tensor(name).tolist() for name in file.keys()} == tensors


def worst(expected, found):
    assert len(expected) == len(found) > 0, (len(expected), len(found))
    pairs = [(a, b) for x, y in zip(expected, found) for a, b in zip(x, y, strict=True)]
    assert max(abs(a) for a, _ in pairs) > 1e-3, "the logits say nothing"
    return max(abs(a - b) for a, b in pairs)


def check(spion, torch, task, name, flags, make=None):
    run = f"{task}-{name}"
    more, file, samples = (make or globals()[task])(random.Random(task))
    subprocess.run([spion, "train", task, "--out", run, *SMALL, *more, *flags], check=True,
                   capture_output=True)
    checkpoint = f"{run}/checkpoints/step-00000012.safetensors"
    said = subprocess.run([spion, "predict", checkpoint, file, "--device", "cpu"], check=True,
                          capture_output=True, text=True).stdout.splitlines()
    found = [json.loads(line)["logits"] for line in said]
    notes, w = read(checkpoint)
    settings = tomllib.loads(notes["settings"])
    assert ("pattern.layer1" in w) == (name != "dense")
    if name == "heads":
        assert notes["spion_checkpoint"] == "2"
        assert any(w[f"pattern.layer{i}"][0] != w[f"pattern.layer{i}"][1] for i in range(2)), run
    difference = worst([logits(sample, w, settings) for sample in samples], found)
    print(f"{run}: {difference:.1e} from Python's float64")
    assert difference < 1e-5, run
    if torch:
        same_as_safetensors(checkpoint, notes, w)
        json.dump(samples, open("samples.json", "w"))
        lines = subprocess.run([sys.executable, torch, checkpoint, "samples.json"], check=True,
                               capture_output=True, text=True).stdout.splitlines()
        difference = worst([json.loads(line) for line in lines], found)
        print(f"{run}: {difference:.1e} from PyTorch")
        assert difference < 1e-5, run


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("spion", type=os.path.abspath)
    parser.add_argument("--torch", type=os.path.abspath)
    parser.add_argument("--without-png", action="store_true")
    given = parser.parse_args()
    tasks = ["listops", "text", "retrieval", "image"] + ["pathfinder"] * (not given.without_png)
    sparse = ["--transition-step", "6"]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ.setdefault("SPION_CACHE_DIR", os.path.join(folder, "cache"))
        for task in tasks:
            check(given.spion, given.torch, task, "dense", ["--dense"])
            check(given.spion, given.torch, task, "sparse", sparse)
        check(given.spion, given.torch, "text", "masked", sparse + ["--softmax", "masked"])
        check(given.spion, given.torch, "text", "window",
              ["--pattern", "window", "--density", "0.4", "--sparse-from", "start"])
        for task in ("text", "retrieval"):
            check(given.spion, given.torch, task, "heads", sparse + ["--per-head", "--filter", "1"])
        for task in ("text", "retrieval", "listops"):
            check(given.spion, given.torch, task, "cls", sparse + ["--pooling", "cls"])
        check(given.spion, given.torch, "text", "ngrams", sparse, ngrams)
        os.chdir("/")


main()
