// `spion bench`: how fast the generated kernels are on this machine.
#include <fmt/core.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "ir/error.h"
#include "ir/sizes.h"
#include "runtime/output.h"
#include "tools/attention_options.h"
#include "tools/bench_anchors.h"
#include "tools/bench_attention.h"
#include "tools/bench_curve.h"
#include "tools/bench_predicted.h"
#include "tools/bench_step.h"
#include "tools/bench_tiers.h"
#include "tools/commands.h"
#include "tools/oracle/random_pattern.h"
#include "tools/role_results.h"

namespace spion {
namespace {

using Json = nlohmann::ordered_json;

struct BenchOptions {
    AttentionOptions attention;
    int repeat = 20;
    bool dense = true;
    bool json = false;
    int filter = 31;                // of `summary`
    bool all = false;               // of `anchors`
    bool autotune = false;          // of `attention`
    std::string backward = "auto";  // likewise
};

double teraflops(double flop, double milliseconds) {
    return flop / milliseconds * 1e-9;
}
double gigabytes_per_second(double bytes, double milliseconds) {
    return bytes / milliseconds * 1e-6;
}

void print_pass(const char* name, double milliseconds, double flop, double bytes) {
    print_out("{:<15} {:>10.4f} {:>10.3f} {:>10.1f}\n", name, milliseconds,
              teraflops(flop, milliseconds), gigabytes_per_second(bytes, milliseconds));
}

Json pass_json(double milliseconds, double flop, double bytes) {
    return {{"ms", milliseconds},
            {"tflops", teraflops(flop, milliseconds)},
            {"gb_per_s", gigabytes_per_second(bytes, milliseconds)}};
}

Json kernels_json(const KernelTimes& kernels) {
    Json list = Json::array();
    for (const KernelTime& kernel : kernels) {
        list.push_back({{"role", to_string(kernel.role)},
                        {"ms", kernel.milliseconds},
                        {"packed_rows", kernel.packed_rows}});
    }
    return list;
}

Json times_json(const AttentionTimes& times, const AttentionWork& work) {
    return {{"forward", pass_json(times.forward_ms, work.forward_flop, work.forward_bytes)},
            {"backward", pass_json(times.backward_ms, work.backward_flop, work.backward_bytes)},
            {"kernels", kernels_json(times.kernels)},
            {"compile_cold_ms", times.compile_cold_ms},
            {"compile_cached_ms", times.compile_cached_ms},
            {"buffer_sets", times.buffer_sets}};
}

double both(const AttentionTimes& times) {
    return times.forward_ms + times.backward_ms;
}

// How many times faster than dense.
Json ratio_json(const AttentionTimes& dense, const AttentionTimes& sparse) {
    return {{"forward", dense.forward_ms / sparse.forward_ms},
            {"backward", dense.backward_ms / sparse.backward_ms},
            {"both", both(dense) / both(sparse)}};
}

// Patterns like these with every block.
HeadPatterns full_like(const HeadPatterns& pattern) {
    return HeadPatterns(std::vector<BlockPattern>(
        static_cast<std::size_t>(pattern.count()),
        BlockPattern::full(pattern.length(), pattern.key_length(), pattern.block())));
}

struct Measured {
    Attention attention;
    HeadPatterns pattern;
    std::int64_t batch;
    AttentionTimes sparse;
    std::optional<AttentionTimes> dense;
};

void print_json(const Measured& measured, const Device& device) {
    const AttentionWork work = work_of(measured.attention, measured.pattern, measured.batch);
    Json json{{"device", device.name()},
              {"batch", measured.batch},
              {"heads", measured.attention.heads},
              {"length", measured.attention.length},
              {"head_dim", measured.attention.head_dim},
              {"dtype", to_string(measured.attention.dtype)},
              {"softmax", to_string(measured.attention.softmax)},
              {"block", measured.pattern.block()},
              {"blocks", measured.pattern.block_count()},
              {"density", measured.pattern.density()}};
    json.update(times_json(measured.sparse, work));
    if (measured.dense) {
        const HeadPatterns full = full_like(measured.pattern);
        json["dense"] =
            times_json(*measured.dense, work_of(measured.attention, full, measured.batch));
        json["times_faster_than_dense"] = ratio_json(*measured.dense, measured.sparse);
    }
    print_out("{}\n", json.dump(2));
}

void print_table(const Measured& measured, const Device& device) {
    const AttentionTimes& sparse = measured.sparse;
    const AttentionWork work = work_of(measured.attention, measured.pattern, measured.batch);
    print_out("{}\n{} B={}\n{} of {} x {} blocks of {}, {}\n\n", device.name(),
              to_text(measured.attention), measured.batch, measured.pattern.block_count(),
              measured.pattern.rows(), measured.pattern.columns(), measured.pattern.block(),
              density_text(measured.pattern));
    print_out("{:<15} {:>10} {:>10} {:>10}\n", "", "ms", "TFLOP/s", "GB/s");
    print_pass("forward", sparse.forward_ms, work.forward_flop, work.forward_bytes);
    print_pass("backward", sparse.backward_ms, work.backward_flop, work.backward_bytes);
    const auto& [first, second, third] = sparse.kernels;
    print_out(
        "of that {0} {1:.4f} ms, {2} {3:.4f} ms; block rows a tile: {4} forward, {5} {0}, {6} "
        "{2}\n",
        results_of(second.role), second.milliseconds, results_of(third.role), third.milliseconds,
        first.packed_rows, second.packed_rows, third.packed_rows);
    if (measured.dense) {
        const HeadPatterns full = full_like(measured.pattern);
        const AttentionWork all = work_of(measured.attention, full, measured.batch);
        const AttentionTimes& dense = *measured.dense;
        print_pass("dense forward", dense.forward_ms, all.forward_flop, all.forward_bytes);
        print_pass("dense backward", dense.backward_ms, all.backward_flop, all.backward_bytes);
        print_out("\ntimes faster than dense: forward {:.2f}, backward {:.2f}, both {:.2f}\n",
                  dense.forward_ms / sparse.forward_ms, dense.backward_ms / sparse.backward_ms,
                  both(dense) / both(sparse));
    }
    print_out("compilation: {:.1f} ms, {:.1f} ms from the disk cache\n", sparse.compile_cold_ms,
              sparse.compile_cached_ms);
}

void check(const BenchOptions& options) {
    if (options.repeat < 1) {
        throw UserError("--repeat is {}; give at least 1", options.repeat);
    }
    const auto& lengths = options.attention.lengths;
    if (!lengths.empty() && std::ssize(lengths) != options.attention.batch) {
        throw UserError("{} lengths were given for a batch of {}; give one for each sample",
                        lengths.size(), options.attention.batch);
    }
}

// The way of the backward pass that --backward asks for; nothing: the plan's choice.
std::optional<LayerRoles> backward_roles(const std::string& way) {
    if (way == "split") {
        return kSplitBackwardRoles;
    }
    if (way == "fused") {
        return kFusedBackwardRoles;
    }
    if (way != "auto") {
        throw UserError("--backward is '{}': use auto, split or fused", way);
    }
    return std::nullopt;
}

void bench_attention(const BenchOptions& options) {
    check(options);
    HeadPatterns pattern = load_pattern(options.attention);
    const auto device = open_device(options.attention);
    const Attention attention =
        describe_attention(options.attention, pattern.length(), device->target());
    const MaskRules rules = mask_rules(options.attention, attention.length);
    const auto measure = [&](const HeadPatterns& blocks, std::optional<int> packed_rows) {
        CompileOptions compilation;
        compilation.autotune = options.autotune;
        compilation.packed_rows = packed_rows;
        compilation.roles = backward_roles(options.backward);
        return measure_attention(attention, blocks, options.attention.batch,
                                 options.attention.lengths, rules, options.repeat, *device,
                                 compilation);
    };
    Measured measured{.attention = attention,
                      .pattern = pattern,
                      .batch = options.attention.batch,
                      .sparse = measure(pattern, options.attention.packed_rows),
                      .dense = std::nullopt};
    if (options.dense) {
        measured.dense = measure(full_like(pattern), std::nullopt);
    }
    options.json ? print_json(measured, *device) : print_table(measured, *device);
}

void bench_summary(const BenchOptions& options) {
    check(options);
    const std::int64_t length = options.attention.length.value_or(0);
    check_summary_filter(options.filter, options.attention.block);
    const auto device = open_device(options.attention);
    const Attention attention = describe_attention(options.attention, length, device->target());
    const SummaryTimes times =
        measure_summary(attention, options.attention.batch, options.attention.lengths,
                        mask_rules(options.attention, length), options.attention.block,
                        options.filter, options.repeat, *device);
    if (options.json) {
        print_out("{}\n", Json{{"device", device->name()},
                               {"summary_ms", times.kernel_ms},
                               {"discovery_ms", times.discovery_ms},
                               {"dense_forward_ms", times.forward_ms}}
                              .dump(2));
        return;
    }
    print_out("{}\n{} B={} block={} filter={}\n\n", device->name(), to_text(attention),
              options.attention.batch, options.attention.block, options.filter);
    print_out("{:<34} {:>10.4f} ms\n", "score summary kernel", times.kernel_ms);
    print_out("{:<34} {:>10.4f} ms\n", "discovery with it, to the pattern", times.discovery_ms);
    print_out("{:<34} {:>10.4f} ms\n", "dense forward pass before it", times.forward_ms);
}

AttentionTimes measure_anchor(const Anchor& anchor, int repeat, Device& device) {
    const Attention attention{.heads = anchor.heads,
                              .head_dim = anchor.head_dim,
                              .length = anchor.length,
                              .dtype = DType::kBf16,
                              .scale = default_scale(anchor.head_dim),
                              .softmax = SoftmaxKind::kPrunedZero};
    const BlockPattern pattern = random_pattern(anchor.length, anchor.block, anchor.density, 1);
    return measure_attention(attention, pattern, anchor.batch, {}, {}, repeat, device);
}

Json anchor_json(const Anchor& anchor, const AttentionTimes& times) {
    return {{"name", anchor.name},
            {"forward_ms", times.forward_ms},
            {"forward_target_ms", anchor.forward_ms},
            {"backward_ms", times.backward_ms},
            {"backward_target_ms", anchor.backward_ms},
            {"compile_cold_ms", times.compile_cold_ms},
            {"compile_cached_ms", times.compile_cached_ms}};
}

void bench_anchors(const BenchOptions& options) {
    check(options);
    const auto device = open_device(DeviceChoice::kCuda);
    Json rows = Json::array();
    if (!options.json) {
        print_out("{}, bf16; target: what others reach, x: times faster than the target\n",
                  device->name());
        print_out("{:<13} {:>9} {:>7} {:>6} {:>9} {:>7} {:>6} {:>8} {:>7}\n", "", "fwd ms",
                  "target", "x", "bwd ms", "target", "x", "compile", "cached");
    }
    for (const Anchor& anchor : anchors()) {
        if (!anchor.paper && !options.all) {
            continue;
        }
        const AttentionTimes times = measure_anchor(anchor, options.repeat, *device);
        rows.push_back(anchor_json(anchor, times));
        if (!options.json) {
            print_out(
                "{:<13} {:>9.4f} {:>7.3f} {:>6.2f} {:>9.4f} {:>7.3f} {:>6.2f} {:>8.1f} {:>7.2f}\n",
                anchor.name, times.forward_ms, anchor.forward_ms,
                anchor.forward_ms / times.forward_ms, times.backward_ms, anchor.backward_ms,
                anchor.backward_ms / times.backward_ms, times.compile_cold_ms,
                times.compile_cached_ms);
            flush_out();  // a row takes a second
        }
    }
    if (options.json) {
        print_out("{}\n", Json{{"device", device->name()}, {"rows", rows}}.dump(2));
    }
}

using Run = void (*)(const BenchOptions&);

CLI::App* add_part(CLI::App& bench, const char* name, const char* meaning,
                   const std::shared_ptr<BenchOptions>& options, Run run) {
    CLI::App* part = bench.add_subcommand(name, meaning);
    part->add_flag("--json", options->json, "print JSON, and nothing else, on standard output");
    part->add_option("--repeat", options->repeat, "measurements that the median is taken of")
        ->capture_default_str();
    part->callback([options, run] { run(*options); });
    return part;
}

}  // namespace

void add_bench(CLI::App& app, int*) {
    const auto options = std::make_shared<BenchOptions>();
    CLI::App* bench = app.add_subcommand("bench", "measure the generated kernels");
    bench->require_subcommand(1);
    CLI::App* attention =
        add_part(*bench, "attention", "forward and backward on a pattern, beside the full pattern",
                 options, bench_attention);
    add_pattern_options(*attention, options->attention);
    add_attention_options(*attention, options->attention);
    attention->add_flag("--dense,!--no-dense", options->dense,
                        "measure the full pattern too (the default)");
    attention->add_option("--backward", options->backward,
                          "auto; split: dQ, then dK and dV; fused: delta, then all gradients");
    attention->add_flag("--autotune", options->autotune,
                        "take the tile shapes that are fastest on this device; they are measured "
                        "once and kept in the cache folder");
    CLI::App* summary =
        add_part(*bench, "summary", "the pooled score map of discovery", options, bench_summary);
    add_attention_options(*summary, options->attention);
    summary->add_option("--filter", options->filter, "F, edge of the diagonal filter")
        ->capture_default_str();
    CLI::App* all =
        add_part(*bench, "anchors", "the shapes that others were measured at (needs a GPU)",
                 options, bench_anchors);
    add_bench_curve(*bench);
    add_bench_predicted(*bench);
    add_bench_step(*bench);
    add_bench_tiers(*bench);
    all->add_flag("--all", options->all, "the long sequences too, not only the paper's shapes");
}

}  // namespace spion
