// libFuzzer target: any bytes are refused with a sentence or read as ListOps of Long Range Arena,
// and what was read survives writing and reading.
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "ir/error.h"
#include "train/data/lra_tsv.h"

namespace {

// The reader takes files; one in memory costs little.
std::filesystem::path place(const char* name) {
    return std::filesystem::path("/dev/shm") /
           ("spion-fuzz-" + std::to_string(getpid()) + "-" + name);
}

[[noreturn]] void fail(const char* what) {
    std::fprintf(stderr, "%s\n", what);
    std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const std::filesystem::path given = place("given.tsv"), written = place("written.tsv");
    std::ofstream(given, std::ios::binary)
        .write(reinterpret_cast<const char*>(data), static_cast<std::streamsize>(size));
    spion::Split split;
    try {
        split = spion::read_list_ops_tsv(given, 64);
    } catch (const spion::UserError& error) {
        const std::string message = error.what();
        if (message.find(given.string()) == std::string::npos) {
            fail("refused without the file's name");
        }
        return 0;
    }
    spion::write_list_ops_tsv(split, written);
    const spion::Split again = spion::read_list_ops_tsv(written, 64);
    if (again.samples() != split.samples() || again.labels != split.labels) {
        fail("writing and reading changed the samples");
    }
    return 0;
}
