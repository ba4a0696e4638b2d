// Pictures, a pixel a token: MNIST's and Fashion-MNIST's files, CIFAR-10's, folders of PNGs.
#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "ir/error.h"
#include "train/data/cifar.h"
#include "train/data/idx.h"
#include "train/data/lra_pickle.h"
#include "train/data/png.h"
#include "train/task.h"

namespace spion {
namespace {

namespace fs = std::filesystem;

constexpr int kPickledEdge = 32;  // of Long Range Arena's pictures

struct Splits {
    PictureSamples train, test;
};

void paper(TrainSettings& s) {
    s.steps = 10000;
    s.batch = 128;
    s.eval_every = 500;
    s.length = 1024;
    s.vocabulary = kGreyLevels;
    s.layers = 2;
    s.learning_rate = 1e-4;
    s.warmup = 175;
    s.discovery.block = 32;
    s.discovery.quantile = 0.96;
    s.discovery.density = 0.04;
    s.samples.validation = 5000;
}

// Fashion-MNIST's 28 x 28 pixels.
void demo(TrainSettings& s) {
    s.steps = 900;
    s.batch = 16;
    s.eval_every = 100;
    s.length = 784;
    s.layers = 1;
    s.learning_rate = 3e-3;
    s.warmup = 50;
    s.transition_step = 300;  // in so short a run the rule holds early, late or never
    s.samples = {.train = 20000, .validation = 256, .test = 1000};
}

void check_own(const TrainSettings& s) {
    if (s.data.empty()) {
        throw UserError(
            "--data is needed: it takes a folder of pictures, as `spion data recipe image` says "
            "how to get it");
    }
}

// `name` in the folder, or `name`.gz.
std::optional<fs::path> find(const fs::path& folder, std::string_view name) {
    for (const char* ending : {"", ".gz"}) {
        const fs::path file = folder / fmt::format("{}{}", name, ending);
        if (std::error_code ignored; fs::exists(file, ignored)) return file;
    }
    return std::nullopt;
}

std::optional<PictureSamples> find_idx(const fs::path& folder, std::string_view split) {
    const auto pictures = find(folder, fmt::format("{}-images-idx3-ubyte", split));
    const auto labels = find(folder, fmt::format("{}-labels-idx1-ubyte", split));
    if (!pictures || !labels) return std::nullopt;
    return read_idx(*pictures, *labels);
}

constexpr std::string_view kFiles =
    "a folder with {train,t10k}-{images-idx3,labels-idx1}-ubyte, gzipped or not (MNIST, "
    "Fashion-MNIST), with data_batch_{1..5} and test_batch, .bin or Python's (CIFAR-10), with "
    "train/CLASS/*.png and test/CLASS/*.png, or with image.{train,dev,test}.pickle (Long Range "
    "Arena's "
    "as others prepare it)";

Splits read_folder(const fs::path& folder) {
    std::error_code ignored;
    auto train = find_idx(folder, "train");
    auto test = find_idx(folder, "t10k");
    if (train && test) return {.train = std::move(*train), .test = std::move(*test)};
    for (const char* inner : {"", "cifar-10-batches-bin", "cifar-10-batches-py"}) {
        if (has_cifar(folder / inner)) {
            return {.train = read_cifar(folder / inner, true),
                    .test = read_cifar(folder / inner, false)};
        }
    }
    if (fs::is_directory(folder / "train", ignored) && fs::is_directory(folder / "test", ignored)) {
        std::vector<std::string> classes;
        PictureSamples first = read_png_classes(folder / "train", classes);
        return {.train = std::move(first), .test = read_png_classes(folder / "test", classes)};
    }
    throw UserError(
        "{} holds no pictures that are known: image takes {}; `spion data recipe image` says how "
        "to "
        "get them",
        folder.string(), kFiles);
}

PictureSamples read_pictures(const fs::path& file) {
    if (file.extension() == ".png") {
        PictureSamples one;
        append_png(file, 0, one);
        return one;
    }
    return read_idx_pictures(file);
}

std::shared_ptr<const Samples> framed(PictureSamples samples, const TrainSettings& s) {
    samples.border = s.border;
    if (samples.length() > s.sample_length()) {
        throw UserError(
            "{}: the pictures have {} x {} pixels and a border of {}, {} tokens, but length allows "
            "{}: raise --length",
            s.data, samples.rows, samples.columns, s.border, samples.length(), s.sample_length());
    }
    return std::make_shared<PictureSamples>(std::move(samples));
}

// The last ones of the file: MNIST's and Fashion-MNIST's are in a mixed order.
TaskData hold_out(std::shared_ptr<const Samples> train, std::int64_t validation,
                  std::string_view origin) {
    const std::int64_t count = train->samples();
    if (validation < 1 || validation >= count) {
        throw UserError(
            "{} has {} training pictures; validation-samples must leave some, and be at least 1",
            origin, count);
    }
    std::vector<std::int64_t> last(static_cast<std::size_t>(validation));
    for (std::int64_t i = 0; i < validation; ++i) {
        last[static_cast<std::size_t>(i)] = count - validation + i;
    }
    return {.train = at_most(train, count - validation),
            .validation = std::make_shared<ChosenSamples>(train, std::move(last)),
            .test = nullptr};
}

TaskData load(const TrainSettings& s, const Say& say) {
    if (auto pickled = load_lra_pickles(s, "image", 1, false, say)) {
        pickled->columns = kPickledEdge;
        return *pickled;
    }
    say(fmt::format("reading {}", s.data));
    Splits splits = read_folder(s.data);
    int classes = 0;
    for (const PictureSamples* split : {&splits.train, &splits.test}) {
        for (const int label : split->labels) classes = std::max(classes, label + 1);
    }
    const int columns = splits.train.columns + 2 * s.border;
    TaskData data = hold_out(framed(std::move(splits.train), s), s.samples.validation, s.data);
    data.train = at_most(data.train, s.samples.train);
    data.test = at_most(framed(std::move(splits.test), s), s.samples.test);
    data.classes = classes;
    data.vocabulary = kGreyLevels;
    data.columns = columns;
    return data;
}

std::shared_ptr<const Samples> load_unlabelled(const fs::path& file, const TrainSettings& s) {
    return framed(read_pictures(file), s);
}

}  // namespace

extern const Task kImageTask;
const Task kImageTask = {
    .name = "image",
    .summary = "Pictures, a pixel a token: CIFAR-10, Fashion-MNIST, MNIST, folders of PNGs",
    .files = kFiles,
    .paper = paper,
    .demo = demo,
    .check = check_own,
    .load = load,
    .load_unlabelled = load_unlabelled,
    .recipe =
        R"(Fashion-MNIST (60000 + 10000 grey pictures of 28 x 28, 10 classes, 31 MB, MIT licence), on Debian:
    apt-get install dataset-fashion-mnist
    spion train image --data /usr/share/datasets/fashion-mnist --length 784 --out RUN
    spion train image --data /usr/share/datasets/fashion-mnist --border 2 --out RUN    (1024 tokens)
MNIST has files of the same names and form.

CIFAR-10 (50000 + 10000 colour pictures of 32 x 32, turned grey): unpack cifar-10-binary.tar.gz, or
cifar-10-python.tar.gz, whose pickles are read without being run:
    spion train image --data cifar-10-batches-bin --out RUN
)"};

}  // namespace spion
