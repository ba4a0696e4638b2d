// Pairs of documents by bytes: are they related? Both are encoded by one encoder and compared by the
// head: the ACL anthology's pairs (AAN) of Long Range Arena, and any file of pairs.
#include <fmt/format.h>

#include "ir/error.h"
#include "train/data/lra_pickle.h"
#include "train/data/split_files.h"
#include "train/task.h"

namespace spion {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kFiles =
    "a folder with new_aan_pairs.{train,eval,test}.tsv (Long Range Arena's tsv_data), or with "
    "train, validation and test as .tsv, .csv or .jsonl, or one such file: a label and two texts";

void paper(TrainSettings& s) {
    s.steps = 40000;
    s.batch = 32;
    s.eval_every = 200;
    s.length = 4096;
    s.vocabulary = 512;
    s.layers = 2;
    s.learning_rate = 3e-4;
    s.warmup = 800;
    s.discovery.block = 64;
    s.discovery.quantile = 0.99;
    s.discovery.density = 0.021;
    s.cut = 4000;
}

void demo(TrainSettings& s) {
    s.steps = 400;
    s.batch = 8;
    s.eval_every = 100;
    s.length = 1024;
    s.cut = 1000;
    s.layers = 1;
    s.learning_rate = 2e-3;
    s.warmup = 50;
    s.discovery.block = 32;
    s.discovery.quantile = 0.95;
    s.transition_step = 150;  // in so short a run the rule holds early, late or never
    s.samples.validation = 128;
    s.samples.test = 500;
}

void check_own(const TrainSettings& s) {
    if (s.data.empty()) {
        throw UserError(
            "--data is needed: it takes {}; `spion data recipe retrieval` has an example", kFiles);
    }
}

TaskData load(const TrainSettings& s, const Say& say) {
    if (auto pickled = load_lra_pickles(s, "retrieval", 2, true, say)) return *pickled;
    std::error_code ignored;
    if (fs::exists(fs::path(s.data) / "new_aan_pairs.eval.only_ids.tsv", ignored) &&
        !fs::exists(fs::path(s.data) / "new_aan_pairs.train.tsv", ignored)) {
        throw UserError(
            "{} holds the pairs by their ids only, without the papers: give the archive's folder "
            "lra_release/lra_release/tsv_data",
            s.data);
    }
    return load_records(s, 2, {"new_aan_pairs.", ""}, kFiles, say);
}

std::shared_ptr<const Samples> load_unlabelled(const fs::path& file, const TrainSettings& s) {
    return load_records_unlabelled(file, s, 2);
}

}  // namespace

extern const Task kRetrievalTask;
const Task kRetrievalTask = {
    .name = "retrieval",
    .summary = "Pairs of documents, a byte a token: AAN, or any labelled pairs",
    .files = kFiles,
    .towers = 2,
    .paper = paper,
    .demo = demo,
    .check = check_own,
    .load = load,
    .load_unlabelled = load_unlabelled,
    .recipe =
        R"(AAN (147086 + 18090 + 17437 pairs of papers): lra_release/lra_release/tsv_data/ of Long Range
Arena's archive lra_release.gz. Its texts are printed byte strings (b'...'), and are read as they
stand, as everybody does.
    spion train retrieval --data lra_release/lra_release/tsv_data --out RUN

Manual pages that refer to each other (14337 + 1032 pairs, split by page; BSD licences), on Debian:
    apt-get install freebsd-manpages
    spion data recipe retrieval | sed '1,/^--- pairs.py/d' > pairs.py && python3 pairs.py pairs
    spion train retrieval --data pairs --out RUN
`python3 pairs.py pairs 8` has all training pairs 8 times, with other unrelated ones and texts that begin
elsewhere each time, so that pages are not so easily known by heart; the test pairs are the same.
--- pairs.py
import glob, gzip, os, random, re, sys, zlib
pages, links = {}, {}
for file in sorted(glob.glob('/usr/share/man/man[2-9]/*freebsd.gz')):
    if os.path.islink(file):
        continue
    text = gzip.open(file, 'rb').read()
    if text.startswith(b'.so ') or len(text) < 400:
        continue
    name, section = re.match(r'(.*)\.(\d)freebsd\.gz$', os.path.basename(file)).groups()
    kept, refs, inside = [], [], False
    for line in text.split(b'\n'):
        if line.startswith((b'.\\"', b'\'\\"')):
            continue
        if line.startswith(b'.Sh'):
            inside = line.startswith(b'.Sh SEE ALSO')
        if not inside:
            kept.append(line)
        elif line.startswith(b'.Xr '):
            words = line.decode('latin1').split()
            if len(words) > 2:
                refs.append('%s.%s' % (words[1], words[2][:1]))
    key = '%s.%s' % (name, section)
    pages[key] = b' '.join(b'\n'.join(kept).replace(b'\t', b' ').split(b'\n')).replace(b'\r', b' ')
    links[key] = refs
linked = {tuple(sorted((a, b))) for a in links for b in links[a] if b in pages and a != b}
draw = random.Random(0)
positives = sorted(linked)
ends = [end for pair in positives for end in pair]
negatives = set()
while len(negatives) < len(positives):
    pair = tuple(sorted((draw.choice(ends), draw.choice(ends))))
    if pair[0] != pair[1] and pair not in linked:
        negatives.add(pair)
rows = [(1, pair) for pair in positives] + [(0, pair) for pair in sorted(negatives)]
draw.shuffle(rows)
is_test = lambda page: zlib.crc32(page.encode()) % 5 == 0
os.makedirs(sys.argv[1], exist_ok=True)
with open(sys.argv[1] + '/train.tsv', 'wb') as train, open(sys.argv[1] + '/test.tsv', 'wb') as test:
    for label, pair in rows:
        a, b = pair if draw.random() < .5 else pair[::-1]
        if is_test(a) == is_test(b):
            out = test if is_test(a) else train
            out.write(b'%d\t%s\t%s\t%s\t%s\n' % (label, a.encode(), b.encode(), pages[a], pages[b]))
    from_place = lambda text: text[draw.randrange(min(1000, len(text) // 2)):][:8000]
    for _ in range(1, int(sys.argv[2]) if len(sys.argv) > 2 else 1):
        for pair in positives:
            other = tuple(sorted((draw.choice(ends), draw.choice(ends))))
            while other[0] == other[1] or other in linked:
                other = tuple(sorted((draw.choice(ends), draw.choice(ends))))
            for label, (a, b) in ((1, pair), (0, other)):
                if not is_test(a) and not is_test(b):
                    a, b = draw.sample((a, b), 2)
                    train.write(b'%d\t%s\t%s\t%s\t%s\n' % (label, a.encode(), b.encode(),
                                                         from_place(pages[a]), from_place(pages[b])))
)"};

}  // namespace spion
