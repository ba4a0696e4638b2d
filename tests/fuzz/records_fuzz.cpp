// libFuzzer target: a file of records, its form chosen by the first byte, is refused with its name or
// read, and then every sample has tokens of bytes, a text's at most so many, and a label that is named.
#include "ir/error.h"
#include "tests/fuzz/refusal.h"
#include "train/data/records.h"

namespace {

using namespace spion;

void read_as(const std::filesystem::path& file, RecordForm form, const RecordSettings& settings) {
    try {
        RecordSamples samples(file, form, settings);
        samples.number_labels(sorted_labels(samples.label_names()));
        std::vector<std::uint16_t> tokens;
        for (std::int64_t i = 0; i < samples.samples(); ++i) {
            const auto label = static_cast<std::size_t>(samples.label(i));
            require_whole(label < samples.label_names().size() ? "" : "a label has no name");
            for (int tower = 0; tower < settings.towers; ++tower) {
                samples.read(i, tower, tokens);
                const bool fits = static_cast<std::int64_t>(tokens.size()) <= settings.length;
                require_whole(fits && !tokens.empty() ? "" : "a text has no fitting length");
                for (const std::uint16_t token : tokens) {
                    require_whole(token > 0 && token < settings.tokens.count ? ""
                                                                             : "no such token");
                }
            }
        }
    } catch (const UserError& error) {
        const bool named = std::string_view(error.what()).starts_with(file.string());
        require_whole(named ? refused_well(error) : "refused without the file's name");
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const FuzzFolder folder;
    constexpr RecordForm kForms[] = {RecordForm::kTsv, RecordForm::kCsv, RecordForm::kJsonLines};
    const int chosen = size > 0 ? data[0] : 0;
    const std::filesystem::path file =
        folder.write("given", text_of(data, size).substr(size > 0 ? 1 : 0));
    read_as(file, kForms[chosen % 3],
            {.towers = 1 + chosen / 3 % 2,
             .length = 64,
             .cut = chosen / 6 % 2 == 0 ? 32 : 0,
             .labelled = chosen / 12 % 2 == 0,
             .tokens = chosen / 24 % 2 == 0 ? TextTokens{} : TextTokens{.ngram = 3, .count = 48}});
    return 0;
}
