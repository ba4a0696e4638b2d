#include "tools/bench_tiers.h"

#include <fmt/core.h>

#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "codegen/emit.h"
#include "compiler/tiers.h"
#include "tools/attention_buffers.h"
#include "tools/bench_anchors.h"
#include "tools/bench_attention.h"
#include "tools/random_pattern.h"

namespace spion {
namespace {

using Json = nlohmann::ordered_json;

struct TierShape {
    std::string name;
    std::int64_t batch = 1;   // B
    int heads = 1;            // H
    std::int64_t length = 0;  // L
    int head_dim = 64;        // D
    int block = 64;
    double density = 1;
};

// The anchors, and short rows, where the reads of tables weigh most. The host has its own.
std::vector<TierShape> tier_shapes(BackEnd back_end, bool all) {
    if (back_end == BackEnd::kHost) {
        return {{"host-256", 2, 2, 256, 32, 32, 0.2}, {"host-1k", 1, 2, 1024, 32, 64, 0.1}};
    }
    std::vector<TierShape> shapes;
    for (const Anchor& anchor : anchors()) {
        if (anchor.paper || all) {
            shapes.push_back({std::string(anchor.name), anchor.batch, anchor.heads, anchor.length,
                              anchor.head_dim, anchor.block, anchor.density});
        }
    }
    shapes.push_back({"diagonal-1k", 128, 2, 1024, 32, 32, 0.031});
    shapes.push_back({"diagonal-4k", 32, 2, 4096, 32, 64, 0.016});
    shapes.push_back({"small-batch", 1, 2, 2048, 64, 64, 0.050});
    shapes.push_back({"4k-64-b64", 4, 8, 4096, 64, 64, 0.100});
    return shapes;
}

struct Tier {
    double compile_ms = 0;
    double forward_ms = 0, backward_ms = 0;
    double both() const { return forward_ms + backward_ms; }
};

struct Comparison {
    Tier passed, baked;
    std::string why_not_baked;  // then `baked` says nothing
    std::string why_not_tried;  // what training would say; "" when it tries
};

CompileOptions options_for(Tables tables) {
    CompileOptions options;
    options.tables = tables;
    return options;
}

Tier measure_tier(const Attention& attention, const BlockPattern& pattern, Tables tables,
                  AttentionBuffers& buffers, int repeat, Device& device) {
    KernelCache cache(std::nullopt);
    const auto begin = std::chrono::steady_clock::now();
    const auto layers =
        compile_attention(attention, {&pattern, 1}, device, cache, options_for(tables));
    Tier tier;
    tier.compile_ms =
        std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
    const SpionAttentionArguments arguments = buffers.arguments();
    CompiledAttention& layer = *layers.front();
    layer.forward(arguments);  // backward reads O and LSE
    tier.forward_ms = median_milliseconds(device, repeat, [&](int) { layer.forward(arguments); });
    tier.backward_ms = median_milliseconds(device, repeat, [&](int) { layer.backward(arguments); });
    return tier;
}

Comparison compare(const TierShape& shape, int repeat, Device& device) {
    const bool host = device.target().back_end == BackEnd::kHost;
    const Attention attention{.heads = shape.heads,
                              .head_dim = shape.head_dim,
                              .length = shape.length,
                              .dtype = host ? DType::kFp32 : DType::kBf16,
                              .scale = default_scale(shape.head_dim),
                              .softmax = SoftmaxKind::kPrunedZero};
    const BlockPattern pattern = random_pattern(shape.length, shape.block, shape.density, 1);
    KernelCache cache(std::nullopt);
    const TilePrograms programs = lower_layer(attention, pattern, device, cache);
    Comparison result;
    for (const TileProgram& program : programs) {
        if (result.why_not_baked.empty()) result.why_not_baked = why_not_baked(program);
    }
    result.why_not_tried = why_not_tier1(programs);
    AttentionBuffers buffers(attention, shape.batch, {}, Layout::kHeadsFirst, device);
    buffers.set_arbitrary_inputs();
    result.passed = measure_tier(attention, pattern, Tables::kPassed, buffers, repeat, device);
    if (result.why_not_baked.empty()) {
        result.baked = measure_tier(attention, pattern, Tables::kBaked, buffers, repeat, device);
    }
    return result;
}

Json tier_json(const Tier& tier) {
    return {{"compile_ms", tier.compile_ms},
            {"forward_ms", tier.forward_ms},
            {"backward_ms", tier.backward_ms}};
}

Json comparison_json(const TierShape& shape, const Comparison& result) {
    Json json{{"name", shape.name},
              {"batch", shape.batch},
              {"heads", shape.heads},
              {"length", shape.length},
              {"head_dim", shape.head_dim},
              {"block", shape.block},
              {"density", shape.density},
              {"tier0", tier_json(result.passed)},
              {"tier1", nullptr},
              {"times_faster", nullptr},
              {"tried_in_training", result.why_not_tried.empty()}};
    if (result.why_not_baked.empty()) {
        json["tier1"] = tier_json(result.baked);
        json["times_faster"] = result.passed.both() / result.baked.both();
    }
    json["why_not"] = result.why_not_baked.empty() ? result.why_not_tried : result.why_not_baked;
    return json;
}

void print_comparison(const TierShape& shape, const Comparison& result) {
    if (!result.why_not_baked.empty()) {
        fmt::print("{:<13} {:>9.4f} {:>9} {:>9.4f} {:>9} {:>7} {:>8.1f} {:>8}  {}\n", shape.name,
                   result.passed.forward_ms, "-", result.passed.backward_ms, "-", "-",
                   result.passed.compile_ms, "-", result.why_not_baked);
    } else {
        fmt::print("{:<13} {:>9.4f} {:>9.4f} {:>9.4f} {:>9.4f} {:>7.3f} {:>8.1f} {:>8.1f}  {}\n",
                   shape.name, result.passed.forward_ms, result.baked.forward_ms,
                   result.passed.backward_ms, result.baked.backward_ms,
                   result.passed.both() / result.baked.both(), result.passed.compile_ms,
                   result.baked.compile_ms,
                   result.why_not_tried.empty() ? "" : "not tried: " + result.why_not_tried);
    }
    std::fflush(stdout);  // a row takes a second
}

}  // namespace

void bench_tiers(DeviceChoice choice, int repeat, bool all, bool json) {
    const auto device = open_device(choice);
    Json rows = Json::array();
    if (!json) {
        fmt::print("{}; tier 0: tables are passed, 1: in the source; x: times faster\n",
                   device->name());
        fmt::print("{:<13} {:>9} {:>9} {:>9} {:>9} {:>7} {:>8} {:>8}\n", "", "fwd 0 ms", "fwd 1",
                   "bwd 0 ms", "bwd 1", "x", "compile0", "compile1");
    }
    for (const TierShape& shape : tier_shapes(device->target().back_end, all)) {
        const Comparison result = compare(shape, repeat, *device);
        if (json) {
            rows.push_back(comparison_json(shape, result));
        } else {
            print_comparison(shape, result);
        }
    }
    if (json) {
        fmt::print("{}\n", Json{{"device", device->name()}, {"rows", rows}}.dump(2));
    }
}

}  // namespace spion
