// libFuzzer target: a folder with any bytes in the files of a run or of compiled kernels is refused
// with a sentence or read. Lines "==== FILE" separate the files.
#include "ir/error.h"
#include "tests/fuzz/refusal.h"
#include "tools/inspect/read_run.h"

namespace {

constexpr const char* kFiles[] = {
    "config.toml",          "metrics.csv",         "device.json",         "summary.json",
    "patterns/layer0.bits", "patterns/layer0.csv", "kernels/k/kernel.ir", "kernels/k/report.json",
    "kernels/k/kernel.log", "kernel.ir",           "report.json",         "kernel.cubin"};

void write_files(const spion::FuzzFolder& folder, std::string_view text) {
    for (const char* name : kFiles) {
        std::error_code ignored;
        std::filesystem::remove(folder.path() / name, ignored);
        const std::string head = std::string("==== ") + name + "\n";
        const std::size_t at = text.find(head);
        if (at == std::string_view::npos) continue;
        const std::string_view body = text.substr(at + head.size());
        folder.write(name, body.substr(0, body.find("==== ")));
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace spion;
    static const FuzzFolder folder;
    write_files(folder, text_of(data, size));
    try {
        const inspect::Facts facts = inspect::read_folder(folder.path());
        require_whole(facts.path == folder.path().string() ? "" : "it is of another folder");
    } catch (const UserError& error) {
        // A damaged program is shown with its line.
        const std::string_view message = error.what();
        require_whole(message.ends_with('^') ? "" : refused_well(error));
    }
    return 0;
}
