// Pathfinder: are two discs joined by a dashed contour? Long Range Arena's folders, or pictures
// generated with its parameters.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <sstream>
#include <string>
#include <vector>

#include "io/bytes.h"
#include "io/printable.h"
#include "ir/error.h"
#include "runtime/threads.h"
#include "train/data/lra_pickle.h"
#include "train/data/pathfinder_generator.h"
#include "train/data/png.h"
#include "train/task.h"

namespace spion {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kFiles =
    "a folder with imgs/*/*.png and metadata/*.npy (Long Range Arena's "
    "pathfinder32/curv_contour_length_14), or one with that level in it; without it pictures are "
    "generated";

void paper(TrainSettings& s) {
    s.steps = 50000;
    s.batch = 256;
    s.eval_every = 500;
    s.length = 1024;
    s.vocabulary = 512;
    s.layers = 2;
    s.learning_rate = 3e-4;
    s.warmup = 312;
    s.discovery.block = 32;
    s.discovery.quantile = 0.96;
    s.discovery.density = 0.05;
    s.samples = {.train = 160000, .validation = 20000, .test = 20000};
}

void demo(TrainSettings& s) {
    s.steps = 400;
    s.batch = 16;
    s.eval_every = 100;
    s.layers = 1;
    s.learning_rate = 2e-3;
    s.warmup = 50;
    s.transition_step = 150;  // in so short a run the rule holds early, late or never
    s.samples = {.train = 6000, .validation = 256, .test = 1000};
}

void check_own(const TrainSettings& s) {
    constexpr std::int64_t kPixels = std::int64_t{kPathfinderEdge} * kPathfinderEdge;
    if (s.sample_length() < kPixels && s.data.empty()) {
        throw UserError("length is {}, but generated pictures have {} pixels: raise --length",
                        s.sample_length(), kPixels);
    }
    const SampleCounts& counts = s.samples;
    if (s.data.empty() && std::min({counts.train, counts.validation, counts.test}) < 1) {
        throw UserError(
            "train-samples, validation-samples and test-samples must be 1 or more where pictures "
            "are generated");
    }
}

// The folder of the hard level, which is the one that is compared.
fs::path level_of(const fs::path& folder) {
    std::error_code ignored;
    for (const char* inner :
         {"", "curv_contour_length_14", "pathfinder32/curv_contour_length_14"}) {
        if (fs::is_directory(folder / inner / "metadata", ignored)) return folder / inner;
    }
    throw UserError("{} has no folder metadata: pathfinder takes {}", folder.string(), kFiles);
}

// metadata/<n>.npy by number, whatever order their names have.
std::vector<fs::path> metadata_of(const fs::path& level) {
    std::vector<std::pair<long, fs::path>> numbered;
    for (const fs::directory_entry& entry : fs::directory_iterator(level / "metadata")) {
        const std::string stem = entry.path().stem().string();
        long number = 0;
        const auto [end, error] = std::from_chars(stem.data(), stem.data() + stem.size(), number);
        if (error == std::errc() && end == stem.data() + stem.size()) {
            numbered.emplace_back(number, entry.path());
        }
    }
    std::sort(numbered.begin(), numbered.end());
    std::vector<fs::path> files;
    files.reserve(numbered.size());
    for (auto& [number, file] : numbered) files.push_back(std::move(file));
    return files;
}

// One line a picture: folder, file, number, label and seven parameters, whatever the name says.
void read_metadata(const fs::path& file, const fs::path& level, PictureSamples& samples,
                   std::int64_t& empty) {
    const Bytes bytes = read_bytes(file.string());
    if (bytes.view.starts_with("\x93NUMPY")) {
        throw UserError(
            "{} is an array of NumPy's: give the text that Long Range Arena's "
            "metadata is",
            file.string());
    }
    std::istringstream input{std::string(bytes.view)};
    std::string line;
    for (int number = 1; std::getline(input, line); ++number) {
        if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
        std::istringstream fields(line);
        std::string folder, name, index, label;
        if (!(fields >> folder >> name >> index >> label) || (label != "0" && label != "1")) {
            throw UserError("{}:{}: '{}' is not folder, file, number and a label of 0 or 1",
                            file.string(), number, printable(line));
        }
        const fs::path picture = level / folder / name;
        std::error_code error;
        if (fs::file_size(picture, error) == 0 && !error) {
            ++empty;  // the archive has such a one
            continue;
        }
        append_png(picture, label == "1" ? 1 : 0, samples);
    }
}

TaskData read_level(const TrainSettings& s, const Say& say) {
    const fs::path level = level_of(s.data);
    say(fmt::format("reading {}", level.string()));
    auto samples = std::make_shared<PictureSamples>();
    std::int64_t empty = 0;
    for (const fs::path& file : metadata_of(level)) read_metadata(file, level, *samples, empty);
    if (empty > 0) say(fmt::format("{} empty pictures are left out", empty));
    if (samples->samples() == 0) {
        throw UserError("{} lists no pictures: pathfinder takes {}", level.string(), kFiles);
    }
    if (samples->length() > s.sample_length()) {
        throw UserError("{}: the pictures have {} pixels, but length allows {}: raise --length",
                        level.string(), samples->length(), s.sample_length());
    }
    constexpr std::int64_t kTenth = 10;
    const std::int64_t part = std::max<std::int64_t>(1, samples->samples() / kTenth);
    TaskData data = split_at_random(samples, part, part, s.list_ops.seed, level.string());
    data.columns = samples->columns;
    data.train = at_most(data.train, s.samples.train);
    data.validation = at_most(data.validation, s.samples.validation);
    data.test = at_most(data.test, s.samples.test);
    return data;
}

TaskData load(const TrainSettings& s, const Say& say) {
    TaskData data;
    if (!s.data.empty()) {
        const char* const level = "pathfinder32-curv_contour_length_14";
        if (auto pickled = load_lra_pickles(s, level, 1, false, say)) {
            pickled->columns = kPathfinderEdge;
            return *pickled;
        }
        data = read_level(s, say);
    } else {
        say(fmt::format("generating {} + {} + {} pictures", s.samples.train, s.samples.validation,
                        s.samples.test));
        const auto split = [&](int which, std::int64_t count) {
            return std::make_shared<PictureSamples>(
                generate_pathfinder_split(s.list_ops.seed, which, count, thread_count()));
        };
        data = {.train = split(0, s.samples.train),
                .validation = split(1, s.samples.validation),
                .test = split(2, s.samples.test)};
        data.columns = kPathfinderEdge;
    }
    data.classes = 2;
    data.vocabulary = kGreyLevels;
    return data;
}

std::shared_ptr<const Samples> load_unlabelled(const fs::path& file, const TrainSettings& /*s*/) {
    auto one = std::make_shared<PictureSamples>();
    append_png(file, 0, *one);
    return one;
}

}  // namespace

extern const Task kPathfinderTask;
const Task kPathfinderTask = {
    .name = "pathfinder",
    .summary = "Pathfinder, 32 x 32: are two discs joined by a contour?",
    .files = kFiles,
    .paper = paper,
    .demo = demo,
    .check = check_own,
    .load = load,
    .load_unlabelled = load_unlabelled,
    .recipe =
        R"(Pictures are generated when no --data is given, with the published parameters, and have the
statistics of the authors' own (docs/journal.md):
    spion train pathfinder --out RUN
Long Range Arena's own (200000, of which a tenth each is held out for validation and test) are
lra_release/lra_release/pathfinder32/ of its archive lra_release.gz:
    spion train pathfinder --data lra_release/lra_release/pathfinder32 --out RUN
)"};

}  // namespace spion
