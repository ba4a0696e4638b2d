// libFuzzer target: with any bytes for its manifest, a cache entry is a miss with a reason or holds
// the binary that lies in it.
#include "ir/sha256.h"
#include "runtime/cache_entry.h"
#include "runtime/cache_listing.h"
#include "tests/fuzz/refusal.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace spion;
    static const FuzzFolder folder;
    static const std::string name = "kernel.00000000000000000000000000000000";
    folder.write(name + "/kernel.cubin", "code");
    folder.write(name + "/kernel.cu", "source");
    folder.write(name + "/manifest.json", text_of(data, size));
    const std::vector<CacheEntry> entries = list_entries(folder.path());
    require_whole(entries.size() == 1 ? "" : "the entry is not listed");
    const CacheEntry& entry = entries.front();
    const auto binary = read_entry(entry.folder, entry.key);
    require_whole(binary.has_value() == entry.problem.empty() ? "" : "a miss without a reason");
    require_whole(!binary || binary->code == "code" ? "" : "it holds another binary");
    const std::string verdict = verify_entry(entry);
    require_whole(!verdict.empty() ? "" : "an entry whose key is of no source is called whole");
    return 0;
}
