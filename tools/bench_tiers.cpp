#include "tools/bench_tiers.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <system_error>
#include <vector>

#include "codegen/emit.h"
#include "compiler/compile_attention.h"
#include "compiler/tune/tiers.h"
#include "ir/error.h"
#include "runtime/atomic_file.h"
#include "runtime/measure.h"
#include "runtime/output.h"
#include "tools/bench_anchors.h"
#include "tools/command_line.h"
#include "tools/oracle/attention_buffers.h"
#include "tools/oracle/random_pattern.h"

namespace spion {
namespace {

using Json = nlohmann::ordered_json;

struct Options {
    std::string device = "auto";
    int repeat = 20;
    bool all = false;
    bool json = false;
    std::string json_file;  // "": standard output
};

// The anchors, the paper's other shape, and short rows, where the reads of tables weigh most. The
// host has its own.
std::vector<Anchor> tier_shapes(BackEnd back_end, bool all) {
    if (back_end == BackEnd::kHost) {
        return {{"host-256", 2, 2, 256, 32, 32, 0.2}, {"host-1k", 1, 2, 1024, 32, 64, 0.1}};
    }
    std::vector<Anchor> shapes;
    for (const Anchor& anchor : anchors()) {
        if (anchor.paper || all) {
            shapes.push_back(anchor);
        }
    }
    shapes.push_back({"pathfinder", 256, 2, 1024, 32, 32, 0.050});
    shapes.push_back({"diagonal-1k", 128, 2, 1024, 32, 32, 0.031});
    shapes.push_back({"diagonal-4k", 32, 2, 4096, 32, 64, 0.016});
    shapes.push_back({"small-batch", 1, 2, 2048, 64, 64, 0.050});
    shapes.push_back({"4k-64-b64", 4, 8, 4096, 64, 64, 0.100});
    return shapes;
}

// Medians of interleaved repeats.
struct Pass {
    double tier0_ms = 0, tier1_ms = 0;
    double ratio = 1;  // tier 0's time over tier 1's
};

struct Comparison {
    std::array<double, 2> compile_ms{};  // of tier 0, 1
    Pass forward, backward, both;
    std::string why_not_baked;  // then there is no tier 1
    std::string why_not_tried;  // what training would say; "" when it tries
};

using Call = std::function<void()>;

// The two tiers in turns, so that both meet the same clocks; every other round in the other order.
Pass in_turns(Device& device, int repeat, const Call& tier0, const Call& tier1) {
    constexpr double kMeasurementMs = 2;
    constexpr int kMostCalls = 50;
    const std::array<const Call*, 2> calls = {&tier0, &tier1};
    std::array<std::vector<double>, 2> times;
    std::vector<double> ratios;
    milliseconds_a_call(device, 1, tier0);
    milliseconds_a_call(device, 1, tier1);
    const int count = calls_for(kMeasurementMs, milliseconds_a_call(device, 1, tier0), kMostCalls);
    for (int round = 0; round < repeat; ++round) {
        std::array<double, 2> spent{};
        for (int turn = 0; turn < 2; ++turn) {
            const auto tier = static_cast<std::size_t>((turn + round) % 2);
            (*calls[tier])();  // not timed: the device is busy when time starts
            spent[tier] = milliseconds_a_call(device, count, *calls[tier]);
            times[tier].push_back(spent[tier]);
        }
        ratios.push_back(spent[0] / spent[1]);
    }
    return {.tier0_ms = median(times[0]), .tier1_ms = median(times[1]), .ratio = median(ratios)};
}

std::unique_ptr<CompiledAttention> compile_tier(const Attention& attention,
                                                const BlockPattern& pattern, Tables tables,
                                                Device& device, double& milliseconds) {
    KernelCache cache(std::nullopt);
    CompileOptions options;
    options.tables = tables;
    const auto begin = std::chrono::steady_clock::now();
    auto layers = compile_attention(attention, {&pattern, 1}, device, cache, options);
    milliseconds =
        std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
    return std::move(layers.front());
}

void measure(CompiledAttention& tier0, CompiledAttention& tier1,
             const SpionAttentionArguments& arguments, int repeat, Device& device,
             Comparison& result) {
    tier0.forward(arguments);  // backward reads O and LSE
    const auto forward = [&](CompiledAttention& tier) { return [&] { tier.forward(arguments); }; };
    const auto backward = [&](CompiledAttention& tier) {
        return [&] { tier.backward(arguments); };
    };
    const auto both = [&](CompiledAttention& tier) {
        return [&] {
            tier.forward(arguments);
            tier.backward(arguments);
        };
    };
    result.forward = in_turns(device, repeat, forward(tier0), forward(tier1));
    result.backward = in_turns(device, repeat, backward(tier0), backward(tier1));
    result.both = in_turns(device, repeat, both(tier0), both(tier1));
}

Comparison compare(const Anchor& shape, int repeat, Device& device) {
    const bool host = device.target().back_end == BackEnd::kHost;
    const Attention attention{.heads = shape.heads,
                              .head_dim = shape.head_dim,
                              .length = shape.length,
                              .dtype = host ? DType::kFp32 : DType::kBf16,
                              .scale = default_scale(shape.head_dim),
                              .softmax = SoftmaxKind::kPrunedZero};
    const BlockPattern pattern = random_pattern(shape.length, shape.block, shape.density, 1);
    Comparison result;
    const auto tier0 =
        compile_tier(attention, pattern, Tables::kPassed, device, result.compile_ms[0]);
    LayerPrograms programs;
    for (std::size_t i = 0; i < programs.size(); ++i) {
        programs[i].program = tier0->part(static_cast<KernelRole>(i)).program;
        if (result.why_not_baked.empty()) {
            result.why_not_baked = why_not_baked(programs[i].program);
        }
    }
    result.why_not_tried = why_not_tier1(programs);
    if (result.why_not_baked.empty()) {
        const auto tier1 =
            compile_tier(attention, pattern, Tables::kBaked, device, result.compile_ms[1]);
        AttentionBuffers buffers(attention, shape.batch, {}, Layout::kHeadsFirst, device);
        buffers.set_arbitrary_inputs();
        measure(*tier0, *tier1, buffers.arguments(), repeat, device, result);
    }
    return result;
}

Json pass_json(const Pass& pass) {
    return {{"tier0_ms", pass.tier0_ms}, {"tier1_ms", pass.tier1_ms}, {"ratio", pass.ratio}};
}

Json comparison_json(const Anchor& shape, const Comparison& result) {
    Json json{{"name", shape.name},
              {"batch", shape.batch},
              {"heads", shape.heads},
              {"length", shape.length},
              {"head_dim", shape.head_dim},
              {"block", shape.block},
              {"density", shape.density},
              {"compile_ms", result.compile_ms},
              {"forward", nullptr},
              {"backward", nullptr},
              {"both", nullptr},
              {"tried_in_training", result.why_not_tried.empty()},
              {"why_not", result.why_not_tried}};
    if (result.why_not_baked.empty()) {
        json["forward"] = pass_json(result.forward);
        json["backward"] = pass_json(result.backward);
        json["both"] = pass_json(result.both);
    }
    return json;
}

void print_comparison(const Anchor& shape, const Comparison& result) {
    if (!result.why_not_baked.empty()) {
        print_out("{:<13} tier 1 does not exist: {}\n", shape.name, result.why_not_baked);
    } else {
        print_out("{:<13}", shape.name);
        for (const Pass& pass : {result.forward, result.backward}) {
            print_out(" {:>9.4f} {:>9.4f} {:>6.3f}", pass.tier0_ms, pass.tier1_ms, pass.ratio);
        }
        print_out(" {:>6.3f} {:>8.1f} {:>8.1f}  {}\n", result.both.ratio, result.compile_ms[0],
                  result.compile_ms[1],
                  result.why_not_tried.empty() ? "" : "not tried: " + result.why_not_tried);
    }
    flush_out();  // a row takes a second
}

void bench_tiers(const Options& options) {
    if (options.repeat < 1) {
        throw UserError("--repeat is {}; give at least 1", options.repeat);
    }
    const bool table = !options.json || !options.json_file.empty();
    std::optional<AtomicFile> file;  // opened now, so that no measurement is lost
    const auto with_file = [&options](const auto& action) {
        try {
            action();
        } catch (const std::system_error& error) {
            throw UserError("{} cannot be written: {}; give --json a file that can",
                            options.json_file, error.code().message());
        }
    };
    if (options.json && table) {
        with_file([&] { file.emplace(options.json_file); });
    }
    const auto device = open_device(parse_device_choice(options.device));
    if (table) {
        print_out("{}; tier 0: tables are passed, 1: in the source; x: times faster\n",
                  device->name());
        print_out("{:<13} {:>9} {:>9} {:>6} {:>9} {:>9} {:>6} {:>6} {:>8} {:>8}\n", "", "fwd 0 ms",
                  "fwd 1", "x", "bwd 0 ms", "bwd 1", "x", "both x", "compile0", "compile1");
    }
    Json rows = Json::array();
    for (const Anchor& shape : tier_shapes(device->target().back_end, options.all)) {
        const Comparison result = compare(shape, options.repeat, *device);
        rows.push_back(comparison_json(shape, result));
        if (table) {
            print_comparison(shape, result);
        }
    }
    const std::string text = Json{{"device", device->name()}, {"rows", rows}}.dump(2) + "\n";
    if (!table) {
        write_out(text);
    } else if (file) {
        with_file([&] {
            file->write(text);
            file->commit();
        });
    }
}

}  // namespace

void add_bench_tiers(CLI::App& bench) {
    const auto options = std::make_shared<Options>();
    CLI::App* part = bench.add_subcommand(
        "tiers", "the pattern in the source (tier 1) against the pattern as tables (tier 0)");
    CLI::Option* json =
        part->add_option("--json", options->json_file,
                         "write JSON to FILE; without FILE print it, and nothing else")
            ->expected(0, 1)
            ->type_name("FILE");
    part->add_option("--repeat", options->repeat, "rounds of both tiers that medians are taken of")
        ->capture_default_str();
    part->add_flag("--all", options->all, "the long sequences too, not only the paper's shapes");
    add_threads_option(*part);
    part->add_option("--device", options->device, "auto, cpu or cuda")->capture_default_str();
    part->callback([options, json] {
        options->json = json->count() > 0;
        bench_tiers(*options);
    });
}

}  // namespace spion
