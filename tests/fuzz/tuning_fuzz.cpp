// libFuzzer target: a tuning is a miss unless it is what would be written of what it says. Bytes are
// tried as the file and, so that more of it is read, with their digest after them.
#include <optional>

#include "compiler/tune/tuning.h"
#include "ir/sha256.h"
#include "tests/fuzz/refusal.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace spion;
    static const FuzzFolder folder;
    const std::string key(32, '0');
    const std::string given(text_of(data, size));
    for (const std::string& text : {given, given + "digest " + digest_of(given) + "\n"}) {
        const std::filesystem::path file = folder.write("tuning/" + key + ".txt", text);
        std::string problem;
        const std::optional<Tuning> tuning = read_tuning(file, key, &problem);
        require_whole(tuning.has_value() == problem.empty() ? "" : "a miss without a reason");
        const auto listed = list_tunings(folder.path());
        require_whole(listed.size() == 1 && listed[0].problem == problem ? "" : "listed otherwise");
        if (!tuning) continue;
        const std::filesystem::path again = folder.path() / "again" / "again.txt";
        write_tuning(again, key, *tuning);
        std::ifstream stream(again, std::ios::binary);
        const std::string written{std::istreambuf_iterator<char>(stream), {}};
        require_whole(written == text ? "" : "it is written as something else:\n" + written);
    }
    return 0;
}
