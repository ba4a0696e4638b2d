#include "compiler/launch/advance_dropout.h"

#include <vector>

#include "ir/step_program.h"

namespace spion {
namespace {

constexpr int kThreads = 32;  // of a thread block, the fewest there are

}  // namespace

KernelSource advance_dropout_source(const Target& target) {
    constexpr const char* kEntry = "advance_dropout";
    std::vector<Constant> constants;
    if (target.back_end == BackEnd::kCuda) {
        constants.push_back(
            {.name = "kThreads", .value = std::int64_t{kThreads}, .comment = "of a block"});
    }
    const StepProgram program{.name = kEntry, .constants = {}};
    return specialise(target, kEntry, "train/advance_dropout", kEntry, constants, to_text(program));
}

LaunchGeometry advance_dropout_geometry() {
    return {.work_items = 1, .threads = kThreads, .shared_bytes = 0};
}

}  // namespace spion
