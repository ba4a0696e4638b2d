#include "train/data/lra_pickle.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <memory>

#include "io/bytes.h"
#include "ir/error.h"
#include "train/data/pickle.h"
#include "train/data/split_files.h"

namespace spion {
namespace {

namespace fs = std::filesystem;

// Sequences of several towers in memory, those of a sample beside each other.
struct PickledSamples final : Samples {
    int its_towers = 1;
    Split sequences;                    // [samples * towers], without labels of their own
    std::vector<std::uint16_t> labels;  // [samples]

    std::int64_t samples() const override { return static_cast<std::int64_t>(labels.size()); }
    int towers() const override { return its_towers; }
    int label(std::int64_t index) const override { return labels[static_cast<std::size_t>(index)]; }
    void read(std::int64_t index, int tower, std::vector<std::uint16_t>& out) const override {
        sequences.read(index * its_towers + tower, 0, out);
    }
};

class PickleFile {
  public:
    PickleFile(const fs::path& file, const TrainSettings& s, int towers, bool padded)
        : origin_(file.string()), length_(s.sample_length()), padded_(padded) {
        const Bytes bytes = read_bytes(origin_);
        const PickleValue list = read_pickle(bytes.view, origin_);
        samples_->its_towers = towers;
        for (const PicklePointer& sample : list.items) {
            for (int tower = 0; tower < towers; ++tower) {
                add(sample->member(fmt::format("input_ids_{}", tower), origin_));
            }
            add_label(sample->member("label", origin_));
        }
        if (samples_->samples() == 0) throw UserError("{} holds no samples", origin_);
    }
    std::shared_ptr<const Samples> samples() const { return samples_; }
    int classes() const { return classes_; }
    int vocabulary() const { return vocabulary_; }

  private:
    void add(const PickleValue& ids) {
        std::vector<std::uint16_t> tokens;
        for (const std::int64_t id : ids.integers(origin_)) {
            if (id < 0 || id > std::numeric_limits<std::uint16_t>::max()) {
                throw UserError("{} has the id {}, not one from 0 to 65535", origin_, id);
            }
            tokens.push_back(static_cast<std::uint16_t>(id));
            vocabulary_ = std::max(vocabulary_, static_cast<int>(id) + 1);
        }
        while (padded_ && !tokens.empty() && tokens.back() == kPaddingToken) tokens.pop_back();
        if (static_cast<std::int64_t>(tokens.size()) > length_) {
            throw UserError("{}: a sequence has {} tokens, but length allows {}: raise --length",
                            origin_, tokens.size(), length_);
        }
        samples_->sequences.append(tokens, 0);
    }
    void add_label(const PickleValue& label) {
        std::vector<std::int64_t> one = {label.integer};
        if (label.kind == PickleValue::Kind::kArray) one = label.integers(origin_);
        if (one.size() != 1) throw UserError("{} has {} labels of one sample", origin_, one.size());
        const std::int64_t value = one.front();
        constexpr std::int64_t kMostClasses = 1024;
        if (value < 0 || value >= kMostClasses) {
            throw UserError("{} has the label {}, not one from 0 to 1023", origin_, value);
        }
        samples_->labels.push_back(static_cast<std::uint16_t>(value));
        classes_ = std::max(classes_, static_cast<int>(value) + 1);
    }

    std::string origin_;
    std::int64_t length_;
    bool padded_;
    std::shared_ptr<PickledSamples> samples_ = std::make_shared<PickledSamples>();
    int classes_ = 0, vocabulary_ = 0;
};

}  // namespace

std::optional<TaskData> load_lra_pickles(const TrainSettings& s, std::string_view name, int towers,
                                         bool padded, const Say& say) {
    const fs::path folder = s.data;
    const std::string plain = fmt::format("{}.", name), prefixed = fmt::format("lra-{}.", name);
    const std::vector<std::string_view> prefixes = {plain, prefixed};
    const auto find = [&](const std::vector<std::string_view>& split) {
        return find_split(folder, prefixes, split, {".pickle"});
    };
    if (!find({"train"})) return std::nullopt;
    if (s.ngram > 1) {
        throw UserError(
            "ngram is {}, but {} holds tokens that are made already: leave --ngram away", s.ngram,
            folder.string());
    }
    TaskData data;
    const auto read = [&](const std::vector<std::string_view>& split) {
        const auto file = find(split);
        if (!file) {
            throw UserError("{} has {}train.pickle, but no {}{}.pickle", folder.string(), plain,
                            plain, split.front());
        }
        say(fmt::format("reading {}", file->string()));
        const PickleFile pickle(*file, s, towers, padded);
        data.classes = std::max(data.classes, pickle.classes());
        data.vocabulary = std::max(data.vocabulary, pickle.vocabulary());
        return pickle.samples();
    };
    data.train = at_most(read({"train"}), s.samples.train);
    data.validation = at_most(read({"dev"}), s.samples.validation);
    data.test = at_most(read({"test"}), s.samples.test);
    return data;
}

}  // namespace spion
