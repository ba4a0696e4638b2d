#include "compiler/launch/bias_gradient.h"

#include <fmt/format.h>

#include <vector>

#include "codegen/emit.h"
#include "ir/step_program.h"

namespace spion {
namespace {

constexpr int kThreads = 512;  // of a thread block
constexpr int kEntries = 32;   // of a head that a work item sums, a lane each

}  // namespace

std::int64_t bias_gradient_floats(const Attention& attention, std::int64_t batch) {
    const std::int64_t strips = (attention.length + SPION_BIAS_ROWS - 1) / SPION_BIAS_ROWS;
    return attention.heads * (1 + batch * strips) * attention.bias_entries();
}

KernelSource bias_gradient_source(const Attention& attention, const Target& target) {
    constexpr const char* kEntry = "attention_bias_gradient";
    std::vector<Constant> constants = {
        integer("kHeads", attention.heads, "H"), integer("kLength", attention.length, "L"),
        integer("kBiasEntries", attention.bias_entries(), "2R + 1, of a head")};
    const StepProgram program{
        .name = kEntry,
        .constants = {{"kHeads", static_cast<float>(attention.heads)},
                      {"kLength", static_cast<float>(attention.length)},
                      {"kBiasEntries", static_cast<float>(attention.bias_entries())}}};
    if (target.back_end == BackEnd::kCuda) {
        constants.push_back(integer("kThreads", kThreads, "of a block"));
    }
    return specialise(target,
                      fmt::format("{}-h{}-L{}-r{}", kEntry, attention.heads, attention.length,
                                  attention.relative_bias),
                      "train/attention_bias_gradient", kEntry, constants, to_text(program));
}

LaunchGeometry bias_gradient_geometry(const Attention& attention) {
    const int items_a_head = (attention.bias_entries() + kEntries - 1) / kEntries;
    return {.work_items = std::int64_t{attention.heads} * items_a_head,
            .threads = kThreads,
            .shared_bytes = kThreads * static_cast<int>(sizeof(float))};
}

SpionAttentionArguments bias_gradient_arguments(const Attention& attention,
                                                SpionAttentionArguments args, float* gradient) {
    args.bias_sums =
        args.d_relative_bias + std::int64_t{attention.heads} * attention.bias_entries();
    args.d_relative_bias = gradient;
    return args;
}

void launch_bias_gradient(const JitKernel& jit, const Attention& attention,
                          const SpionAttentionArguments& args, Device& device) {
    const SpionAttentionArguments own =
        bias_gradient_arguments(attention, args, args.d_relative_bias);
    device.launch(*jit.kernel, bias_gradient_geometry(attention), &own, sizeof(own));
}

}  // namespace spion
