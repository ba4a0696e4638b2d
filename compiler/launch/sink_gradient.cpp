#include "compiler/launch/sink_gradient.h"

#include <fmt/format.h>

#include <vector>

#include "codegen/emit.h"
#include "ir/step_program.h"

namespace spion {
namespace {

constexpr int kThreads = 512;  // of a thread block, which has a head

}  // namespace

KernelSource sink_gradient_source(const Attention& attention, const Target& target) {
    constexpr const char* kEntry = "attention_sink_gradient";
    std::vector<Constant> constants = {
        {.name = "kHeads", .value = std::int64_t{attention.heads}, .comment = "H"},
        {.name = "kLength", .value = attention.length, .comment = "L"}};
    const StepProgram program{.name = kEntry,
                              .constants = {{"kHeads", static_cast<float>(attention.heads)},
                                            {"kLength", static_cast<float>(attention.length)}}};
    if (target.back_end == BackEnd::kCuda) {
        constants.push_back(
            {.name = "kThreads", .value = std::int64_t{kThreads}, .comment = "of a block"});
    }
    return specialise(target, fmt::format("{}-h{}-L{}", kEntry, attention.heads, attention.length),
                      "train/attention_sink_gradient", kEntry, constants, to_text(program));
}

LaunchGeometry sink_gradient_geometry(const Attention& attention) {
    constexpr int kWarpSums = kThreads / 32 * static_cast<int>(sizeof(float));
    return {.work_items = attention.heads, .threads = kThreads, .shared_bytes = kWarpSums};
}

void launch_sink_gradient(const JitKernel& jit, const Attention& attention,
                          const SpionAttentionArguments& args, Device& device) {
    device.launch(*jit.kernel, sink_gradient_geometry(attention), &args, sizeof(args));
}

}  // namespace spion
