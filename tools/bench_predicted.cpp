#include "tools/bench_predicted.h"

#include <fmt/ranges.h>

#include <array>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "compiler/launch/compiled_attention.h"
#include "compiler/lower.h"
#include "compiler/plan/cost_model.h"
#include "compiler/plan/layer_plan.h"
#include "ir/error.h"
#include "runtime/output.h"
#include "tools/bench_attention.h"
#include "tools/oracle/random_pattern.h"

namespace spion {
namespace {

using Json = nlohmann::ordered_json;

struct Shape {
    const char* name;
    std::int64_t batch;   // B
    int heads;            // H
    std::int64_t length;  // L
    int head_dim;         // D
    int block;
    double density;
};

constexpr Shape kShapes[] = {
    {"retrieval", 32, 2, 4096, 32, 64, 0.03},
    {"listops", 256, 2, 2048, 32, 64, 0.05},
    {"image", 128, 2, 1024, 32, 32, 0.05},
    {"dense-4k-32", 32, 2, 4096, 32, 64, 1},
    {"16k-64-b32-.05", 2, 16, 16384, 64, 32, 0.05},
    {"16k-64-b32-.10", 2, 16, 16384, 64, 32, 0.10},
    {"16k-64-b64-.05", 2, 16, 16384, 64, 64, 0.05},
    {"16k-64-b64-.10", 2, 16, 16384, 64, 64, 0.10},
    {"16k-64-b128-.05", 2, 16, 16384, 64, 128, 0.05},
    {"16k-64-b128-.10", 2, 16, 16384, 64, 128, 0.10},
    {"16k-128-b32-.05", 2, 16, 16384, 128, 32, 0.05},
    {"16k-128-b32-.10", 2, 16, 16384, 128, 32, 0.10},
    {"16k-128-b64-.05", 2, 16, 16384, 128, 64, 0.05},
    {"16k-128-b64-.10", 2, 16, 16384, 128, 64, 0.10},
    {"16k-128-b128-.05", 2, 16, 16384, 128, 128, 0.05},
    {"16k-128-b128-.10", 2, 16, 16384, 128, 128, 0.10},
    {"dense-8k-64", 2, 16, 8192, 64, 128, 1},
    {"dense-8k-128", 2, 16, 8192, 128, 128, 1},
    {"2k-64-b64", 16, 8, 2048, 64, 64, 0.10},
    {"1k-64-b32", 32, 16, 1024, 64, 32, 0.20},
    {"512-32-b32", 64, 4, 512, 32, 32, 0.25},
    {"1k-32-b16", 64, 2, 1024, 32, 16, 0.05},
    {"2k-16-b64", 32, 4, 2048, 16, 64, 0.10},
    {"1k-16-b16", 64, 4, 1024, 16, 16, 0.10},
};

struct Options {
    std::string target;  // predictions alone, for this one
    std::string card;    // of the target's architecture
    int repeat = 20;
    bool json = false;
};

std::unique_ptr<Device> open_gpu() {
    try {
        return open_device(DeviceChoice::kCuda);
    } catch (const UserError& error) {
        throw UserError("{}; or give --target sm_90a (or another) for predictions alone",
                        error.what());
    }
}

// One kernel of a row.
struct Pass {
    KernelRole role;
    Prediction prediction;
    std::optional<double> milliseconds;  // measured
};
using Passes = std::array<Pass, 3>;  // by launch_of

Passes passes_of(const Shape& shape, int repeat, const Target& target, Device* device) {
    const Attention attention{.heads = shape.heads,
                              .head_dim = shape.head_dim,
                              .length = shape.length,
                              .dtype = DType::kBf16,
                              .scale = default_scale(shape.head_dim),
                              .softmax = SoftmaxKind::kPrunedZero};
    const BlockPattern pattern = random_pattern(shape.length, shape.block, shape.density, 1);
    Passes passes;
    const LayerPlan plan = plan_layer(attention, pattern, target, {.cut_full = true});
    for (std::size_t i = 0; i < passes.size(); ++i) {
        passes[i].role = plan.roles[i];
        const auto [program, kernel] = lower_launch(plan, plan.launches[i], pattern);
        passes[i].prediction = predict(program, kernel, shape.batch, target);
    }
    if (device != nullptr) {
        const auto measured = measure_kernels(attention, pattern, shape.batch, repeat, *device);
        for (std::size_t i = 0; i < passes.size(); ++i) {
            passes[i].milliseconds = measured[i].milliseconds;
        }
    }
    return passes;
}

// Forward is the first kernel, backward the other two.
struct Sum {
    double predicted = 0;
    std::optional<double> measured;
};

Sum sum_of(const Passes& passes, std::size_t first, std::size_t last) {
    Sum sum;
    for (std::size_t i = first; i <= last; ++i) {
        sum.predicted += passes[i].prediction.seconds * 1e3;
        if (passes[i].milliseconds) {
            sum.measured = sum.measured.value_or(0) + *passes[i].milliseconds;
        }
    }
    return sum;
}

std::string sum_text(const Sum& sum) {
    return sum.measured ? fmt::format("{:>9.4f} {:>9.4f} {:>6.2f}", sum.predicted, *sum.measured,
                                      sum.predicted / *sum.measured)
                        : fmt::format("{:>9.4f}", sum.predicted);
}

void print_row(const Shape& shape, const Passes& passes) {
    print_out("{:<17} {:>3} {:>2} {:>5} {:>3} {:>5} {:>7.2f} {} {}  {}, {}, {}\n", shape.name,
              shape.batch, shape.heads, shape.length, shape.head_dim, shape.block, shape.density,
              sum_text(sum_of(passes, 0, 0)), sum_text(sum_of(passes, 1, 2)),
              to_string(passes[0].prediction.bound), to_string(passes[1].prediction.bound),
              to_string(passes[2].prediction.bound));
    flush_out();  // a row takes a second
}

void print_heading(const std::string& where, bool measured) {
    print_out("{}, bf16, pruned_zero; milliseconds, ratio = predicted / measured\n", where);
    const std::string columns =
        measured ? fmt::format("{:>9} {:>9} {:>6}", "predicted", "measured", "ratio")
                 : fmt::format("{:>9}", "predicted");
    print_out("{:<17} {:>3} {:>2} {:>5} {:>3} {:>5} {:>7} {:<{}} {:<{}}\n", "", "", "", "", "", "",
              "", " forward", columns.size(), " backward", columns.size());
    print_out(
        "{:<17} {:>3} {:>2} {:>5} {:>3} {:>5} {:>7} {} {}  bound by: O, dQ, dK/dV (or delta, all "
        "three)\n",
        "shape", "B", "H", "L", "D", "block", "density", columns, columns);
}

Json row_json(const Shape& shape, const Passes& passes) {
    Json row{{"name", shape.name},      {"batch", shape.batch},       {"heads", shape.heads},
             {"length", shape.length},  {"head_dim", shape.head_dim}, {"block", shape.block},
             {"density", shape.density}};
    for (std::size_t i = 0; i < passes.size(); ++i) {
        const Prediction& prediction = passes[i].prediction;
        Json& pass = row[std::string(to_string(passes[i].role))];
        pass = {{"predicted_ms", prediction.seconds * 1e3},
                {"bound", to_string(prediction.bound)},
                {"memory_ms", prediction.memory_seconds * 1e3},
                {"l2_ms", prediction.cache_seconds * 1e3},
                {"compute_ms", prediction.compute_seconds * 1e3},
                {"latency_ms", prediction.latency_seconds * 1e3}};
        if (passes[i].milliseconds) {
            pass["measured_ms"] = *passes[i].milliseconds;
            pass["ratio"] = prediction.seconds * 1e3 / *passes[i].milliseconds;
        }
    }
    return row;
}

void bench_predicted(const Options& options) {
    if (options.repeat < 1) {
        throw UserError("--repeat is {}; give at least 1", options.repeat);
    }
    const auto device = options.target.empty() ? open_gpu() : nullptr;
    Target target = device ? device->target() : gpu_target(options.target);
    if (!options.card.empty()) {
        target.card = card_named(options.card, target);
    }
    const std::string where = device ? device->name() : target.arch;
    Json rows = Json::array();
    if (!options.json) {
        print_heading(where, device != nullptr);
    }
    for (const Shape& shape : kShapes) {
        const Passes passes = passes_of(shape, options.repeat, target, device.get());
        if (options.json) {
            rows.push_back(row_json(shape, passes));
        } else {
            print_row(shape, passes);
        }
    }
    if (options.json) {
        print_out("{}\n", Json{{device ? "device" : "target", where}, {"rows", rows}}.dump(2));
    }
}

}  // namespace

void add_bench_predicted(CLI::App& bench) {
    const auto options = std::make_shared<Options>();
    CLI::App* part = bench.add_subcommand(
        "predicted", "the cost model's predictions against measured times (needs a GPU)");
    part->add_flag("--json", options->json, "print JSON, and nothing else, on standard output");
    part->add_option("--repeat", options->repeat, "measurements that the median is taken of")
        ->capture_default_str();
    part->add_option(
        "--target", options->target,
        fmt::format("predictions alone, without a GPU: {}", fmt::join(gpu_names(), ", ")));
    part->add_option(
            "--card", options->card,
            fmt::format("with --target sm_90a, the card: {}", fmt::join(card_names(), " or ")))
        ->needs("--target");
    part->callback([options] { bench_predicted(*options); });
}

}  // namespace spion
