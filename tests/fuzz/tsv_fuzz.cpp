// libFuzzer target: any bytes are refused with a sentence or read as ListOps of Long Range Arena,
// and what was read survives writing and reading.
#include "ir/error.h"
#include "tests/fuzz/refusal.h"
#include "train/data/lra_tsv.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace spion;
    static const FuzzFolder folder;
    const std::filesystem::path given = folder.write("given.tsv", text_of(data, size));
    Split split;
    try {
        split = read_list_ops_tsv(given, 64);
    } catch (const UserError& error) {
        const bool named = std::string_view(error.what()).find(given.string()) != std::string::npos;
        require_whole(named ? "" : "refused without the file's name");
        return 0;
    }
    const std::filesystem::path written = folder.path() / "written.tsv";
    write_list_ops_tsv(split, written);
    const Split again = read_list_ops_tsv(written, 64);
    const bool same = again.samples() == split.samples() && again.labels == split.labels;
    require_whole(same ? "" : "writing and reading changed the samples");
    return 0;
}
