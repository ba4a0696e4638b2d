#!/usr/bin/env python3
"""What pairs of texts can be told from without attention: a yardstick for `spion train retrieval`.

    bench/pairs_baselines.py PAIRS bag [--ngram 3] [--tokens 4096] [--cut 4000] [--steps 2500] [--batch 32]
                                       [--lr 1e-3] [--dropout 0.3] [--weight-decay 0.1] [--seed 0]
    bench/pairs_baselines.py PAIRS lsa [--ngram 3] [--cut 4000] [--width 64]

PAIRS has train.tsv and test.tsv (`spion data recipe retrieval`). `bag` is the model of `spion train` without its
layers and positions: the mean of the normed embeddings of a text's tokens, which are bytes or hashed n-grams as with
--ngram there, and the same head; needs PyTorch. `lsa` learns nothing from labels before its last step: counts of
1-grams to n-grams of bytes, weighted by inverse document frequency, cut to `width` dimensions by their singular values,
and logistic regression on a * b and |a - b|; needs scikit-learn. Both print accuracies on both files.
"""
import argparse, os, random


def read(folder, split, cut):
    """The records (label, page, page) and the pages' first `cut` bytes."""
    records, pages = [], {}
    for line in open(os.path.join(folder, split + ".tsv"), "rb"):
        label, first, second, text1, text2 = line.rstrip(b"\n").split(b"\t")
        records.append((int(label), first, second))
        pages.setdefault(first, text1[:cut])
        pages.setdefault(second, text2[:cut])
    return records, pages


def tokens(text, ngram, count):
    """As `spion train --ngram`: bytes + 1, or FNV-1a (32 bits) of the bytes from each on."""
    if ngram == 1:
        return [byte + 1 for byte in text]
    found = []
    for begin in range(len(text)):
        hashed = 2166136261
        for byte in text[begin:begin + ngram]:
            hashed = (hashed ^ byte) * 16777619 & 0xFFFFFFFF
        found.append(1 + hashed % (count - 1))
    return found


def bag(given, train, test, pages):
    import torch
    from torch.nn.functional import cross_entropy, dropout, embedding_bag

    torch.manual_seed(given.seed)
    order, draw, width, hidden = [], random.Random(given.seed), 64, 128
    count = 257 if given.ngram == 1 else given.tokens
    ids = {page: torch.tensor(tokens(text, given.ngram, count)) for page, text in pages.items()}
    table, norm = torch.nn.Embedding(count, width), torch.nn.LayerNorm(width)
    torch.nn.init.normal_(table.weight, 0, 0.5)
    head1, head2 = torch.nn.Linear(4 * width, hidden), torch.nn.Linear(hidden, 2)
    values = [p for part in (table, norm, head1, head2) for p in part.parameters()]
    optimizer = torch.optim.AdamW(values, lr=given.lr, weight_decay=given.weight_decay)

    def mean(names):
        texts = [ids[name] for name in names]
        offsets = torch.tensor([0] + [len(text) for text in texts[:-1]]).cumsum(0)
        return embedding_bag(torch.cat(texts), norm(table.weight), offsets, mode="mean")

    def logits(records, rate):
        a, b = (mean([record[i] for record in records]) for i in (1, 2))
        features = dropout(torch.cat([a, b, a * b, a - b], -1), rate)
        return head2(dropout(torch.relu(head1(features)), rate))

    def accuracy(records):
        with torch.no_grad():
            right = [(logits(part, 0).argmax(1) == torch.tensor([record[0] for record in part])).sum()
                     for part in (records[i:i + 64] for i in range(0, len(records), 64))]
        return float(sum(right)) / len(records)

    for step in range(1, given.steps + 1):
        if len(order) < given.batch:
            order = draw.sample(range(len(train)), len(train))
        batch = [train[order.pop()] for _ in range(given.batch)]
        for group in optimizer.param_groups:  # up for 100 steps, then down in a line
            group["lr"] = given.lr * min(step / 100, 1, 1.01 - (step - 100) / given.steps)
        optimizer.zero_grad()
        cross_entropy(logits(batch, given.dropout), torch.tensor([r[0] for r in batch])).backward()
        torch.nn.utils.clip_grad_norm_(values, 1)
        optimizer.step()
        if step % 500 == 0 or step == given.steps:
            print(f"step {step}: train {accuracy(train[:1024]):.3f}, test {accuracy(test):.3f}", flush=True)


def lsa(given, train, test, pages):
    import numpy as np
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler, normalize

    known = sorted({page for record in train for page in record[1:]})
    others = sorted(set(pages) - set(known))
    counts = HashingVectorizer(analyzer="char", ngram_range=(1, given.ngram), lowercase=False, norm=None,
                               alternate_sign=False, n_features=2 ** 18)
    vectors = make_pipeline(counts, TfidfTransformer(sublinear_tf=True),
                            TruncatedSVD(given.width, random_state=given.seed))
    texts = lambda names: [pages[name].decode("latin1") for name in names]
    rows = np.vstack([vectors.fit_transform(texts(known)), vectors.transform(texts(others))])
    place = {page: row for page, row in zip(known + others, normalize(rows))}

    def features(records):
        a, b = (np.array([place[record[i]] for record in records]) for i in (1, 2))
        return np.hstack([a * b, np.abs(a - b)]), [record[0] for record in records]

    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.001, max_iter=300))
    model.fit(*features(train))
    print(f"train {model.score(*features(train)):.3f}, test {model.score(*features(test)):.3f}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("pairs")
    parser.add_argument("how", choices=["bag", "lsa"])
    for name, value in (("ngram", 3), ("tokens", 4096), ("cut", 4000), ("steps", 2500), ("batch", 32),
                        ("width", 64), ("seed", 0), ("lr", 1e-3), ("dropout", 0.3), ("weight-decay", 0.1)):
        parser.add_argument("--" + name, type=type(value), default=value)
    given = parser.parse_args()
    train, pages = read(given.pairs, "train", given.cut)
    test, others = read(given.pairs, "test", given.cut)
    print(f"{len(train)} pairs of {len(pages)} texts, test {len(test)} of {len(others)}, "
          f"{len(set(pages) & set(others))} in both")
    {"bag": bag, "lsa": lsa}[given.how](given, train, test, pages | others)


if __name__ == "__main__":
    main()
