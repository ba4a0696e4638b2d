#include "train/data/split_files.h"

#include <fmt/format.h>

#include <utility>

#include "ir/error.h"

namespace spion {
namespace {

namespace fs = std::filesystem;

using Records = std::shared_ptr<RecordSamples>;

Records read_records(const fs::path& file, const TrainSettings& s, int towers, const Say& say) {
    say(fmt::format("reading {}", file.string()));
    return std::make_shared<RecordSamples>(file, record_form(file),
                                           RecordSettings{.towers = towers,
                                                          .length = s.sample_length(),
                                                          .cut = s.cut,
                                                          .labelled = true,
                                                          .tokens = text_tokens(s)});
}

// Settings' counts of what is held out, or a tenth of all for 0.
std::int64_t held_out(std::int64_t asked, std::int64_t all) {
    return asked > 0 ? asked : std::max<std::int64_t>(1, all / 10);
}

}  // namespace

std::optional<fs::path> find_split(const fs::path& folder,
                                   const std::vector<std::string_view>& prefixes,
                                   const std::vector<std::string_view>& names,
                                   const std::vector<std::string_view>& endings) {
    for (const std::string_view prefix : prefixes) {
        for (const std::string_view name : names) {
            for (const std::string_view ending : endings) {
                const fs::path file = folder / fmt::format("{}{}{}", prefix, name, ending);
                if (std::error_code ignored; fs::exists(file, ignored)) return file;
            }
        }
    }
    return std::nullopt;
}

TextTokens text_tokens(const TrainSettings& s) {
    if (s.ngram == 1) return {};
    return {.ngram = s.ngram, .count = s.vocabulary - (s.pooling == Pooling::kCls ? 1 : 0)};
}

TaskData load_records(const TrainSettings& s, int towers,
                      const std::vector<std::string_view>& prefixes, std::string_view files,
                      const Say& say) {
    const fs::path path = s.data;
    std::optional<fs::path> train = path, validation, test;
    if (std::error_code ignored; fs::is_directory(path, ignored)) {
        const std::vector<std::string_view> endings = {".tsv", ".csv", ".jsonl"};
        train = find_split(path, prefixes, {"train"}, endings);
        validation = find_split(path, prefixes, kValidationNames, endings);
        test = find_split(path, prefixes, {"test"}, endings);
    }
    if (!train) {
        throw UserError("{} holds no training file: {} takes {}", path.string(), s.task, files);
    }
    const Records records = read_records(*train, s, towers, say);
    const std::vector<std::string> names = sorted_labels(records->label_names());
    records->number_labels(names);
    const auto other = [&](const fs::path& file, std::int64_t most) {
        const Records its = read_records(file, s, towers, say);
        its->number_labels(names);
        return at_most(its, most);
    };
    TaskData data;
    data.train = records;
    if (!validation || !test) {
        const std::int64_t all = records->samples();
        data = split_at_random(records, validation ? 0 : held_out(s.samples.validation, all),
                               test ? 0 : held_out(s.samples.test, all), s.list_ops.seed,
                               train->string());
    }
    if (validation) data.validation = other(*validation, s.samples.validation);
    if (test) data.test = other(*test, s.samples.test);
    data.train = at_most(data.train, s.samples.train);
    data.classes = static_cast<int>(names.size());
    data.vocabulary = text_tokens(s).count;
    data.class_names = names;
    return data;
}

std::shared_ptr<const Samples> load_records_unlabelled(const fs::path& file, const TrainSettings& s,
                                                       int towers) {
    return std::make_shared<RecordSamples>(file, record_form(file),
                                           RecordSettings{.towers = towers,
                                                          .length = s.sample_length(),
                                                          .cut = s.cut,
                                                          .labelled = false,
                                                          .tokens = text_tokens(s)});
}

}  // namespace spion
