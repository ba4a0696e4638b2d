#include "tools/bench_curve.h"

#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <system_error>
#include <vector>

#include "ir/error.h"
#include "runtime/atomic_file.h"
#include "runtime/output.h"
#include "tools/attention_options.h"
#include "tools/bench_attention.h"
#include "tools/curve_picture.h"
#include "tools/oracle/random_pattern.h"

namespace spion {
namespace {

using Json = nlohmann::ordered_json;

struct Options {
    AttentionOptions attention;
    std::vector<int> blocks = {32, 64, 128};
    std::vector<double> densities = {0.02, 0.04, 0.08, 0.15, 0.25, 0.4, 0.6, 0.8, 1.0};
    int repeat = 20;
    std::string svg;  // "": no picture
    bool json = false;
};

void check(const Options& options) {
    if (options.repeat < 1) {
        throw UserError("--repeat is {}; give at least 1", options.repeat);
    }
    bool dense = false;
    for (const double density : options.densities) {
        if (!(density > 0 && density <= 1)) {
            throw UserError("one of --densities is {}; give numbers above 0, at most 1", density);
        }
        dense = dense || density == 1;
    }
    if (!dense) {
        throw UserError("--densities have no 1, which is dense attention; add it");
    }
    if (!options.attention.lengths.empty()) {
        throw UserError("--lengths are given, and a curve is measured without padding; leave them");
    }
}

std::string title_of(const Attention& attention, std::int64_t batch, const std::string& device) {
    return fmt::format("{}: B={} H={} L={} D={} {}, forward and backward", device, batch,
                       attention.heads, attention.length, attention.head_dim,
                       to_string(attention.dtype));
}

CurvePoint measure(const Options& options, const Attention& attention, int block, double density,
                   Device& device) {
    const BlockPattern pattern = density == 1 ? BlockPattern::full(attention.length, block)
                                              : random_pattern(attention.length, block, density,
                                                               options.attention.pattern_seed);
    const AttentionTimes times =
        measure_attention(attention, pattern, options.attention.batch, {},
                          mask_rules(options.attention, attention.length), options.repeat, device);
    return {.block = block,
            .density = pattern.density(),
            .forward_ms = times.forward_ms,
            .backward_ms = times.backward_ms};
}

Json to_json(const std::vector<CurvePoint>& points, const Options& options, const Device& device,
             const Attention& attention) {
    Json rows = Json::array(), breaks = Json::array();
    for (const CurvePoint& point : points) {
        rows.push_back({{"block", point.block},
                        {"density", point.density},
                        {"forward_ms", point.forward_ms},
                        {"backward_ms", point.backward_ms}});
    }
    const double dense = dense_ms(points);
    for (const int block : options.blocks) {
        const std::optional<double> at = break_even(points, block, dense);
        breaks.push_back({{"block", block}, {"density", at ? Json(*at) : Json(nullptr)}});
    }
    return {{"device", device.name()},
            {"attention", to_text(attention)},
            {"batch", options.attention.batch},
            {"points", rows},
            {"dense_ms", dense},
            {"break_even", breaks}};
}

// A row takes a second.
void print_point(const CurvePoint& point) {
    print_out("{:>5} {:>9.4f} {:>11.4f} {:>11.4f} {:>11.4f}\n", point.block, point.density,
              point.forward_ms, point.backward_ms, point.both_ms());
    flush_out();
}

void print_breaks(const std::vector<CurvePoint>& points, const Options& options) {
    const double dense = dense_ms(points);
    print_out("\ndense: {:.4f} ms forward and backward\n", dense);
    for (const int block : options.blocks) {
        if (const std::optional<double> at = break_even(points, block, dense)) {
            print_out("blocks of {} are faster than that up to a density of {:.3f}\n", block, *at);
        } else {
            print_out("blocks of {} are faster than that at no density that was measured\n", block);
        }
    }
}

void bench_curve(const Options& options) {
    check(options);
    std::optional<AtomicFile> file;  // opened now, so that no measurement is lost
    const auto with_file = [&options](const auto& action) {
        try {
            action();
        } catch (const std::system_error& error) {
            throw UserError("{} cannot be written: {}; give --svg a file that can", options.svg,
                            error.code().message());
        }
    };
    if (!options.svg.empty()) {
        with_file([&] { file.emplace(options.svg); });
    }
    const auto device = open_device(options.attention);
    const Attention attention = describe_attention(
        options.attention, options.attention.length.value_or(0), device->target());
    for (const int block : options.blocks) {
        BlockPattern::full(attention.length, block);  // refuses a block before any is measured
    }
    std::vector<CurvePoint> points;
    if (!options.json) {
        print_out("{}\n{} B={}\n\n{:>5} {:>9} {:>11} {:>11} {:>11}\n", device->name(),
                  to_text(attention), options.attention.batch, "block", "density", "forward ms",
                  "backward ms", "both ms");
    }
    for (const int block : options.blocks) {
        for (const double density : options.densities) {
            points.push_back(measure(options, attention, block, density, *device));
            if (!options.json) {
                print_point(points.back());
            }
        }
    }
    if (options.json) {
        print_out("{}\n", to_json(points, options, *device, attention).dump(2));
    } else {
        print_breaks(points, options);
    }
    if (file) {
        with_file([&] {
            file->write(curve_picture(
                points, title_of(attention, options.attention.batch, device->name())));
            file->commit();
        });
    }
}

}  // namespace

void add_bench_curve(CLI::App& bench) {
    const auto options = std::make_shared<Options>();
    options->attention.heads = 8;
    options->attention.batch = 8;
    options->attention.length = 4096;
    options->attention.softmax = "masked";
    CLI::App* part = bench.add_subcommand(
        "curve", "time against density for each block, and the density where it meets dense");
    add_attention_options(*part, options->attention);
    part->remove_option(part->get_option("--block"));
    part->add_option("--blocks", options->blocks, "edges of blocks, one curve each: 32,64,128")
        ->delimiter(',');
    part->add_option("--densities", options->densities,
                     "of random patterns, 1 among them: 0.04,0.1,0.3,1")
        ->delimiter(',');
    part->add_option("--svg", options->svg, "draw the curves into this file")->type_name("FILE");
    part->add_flag("--json", options->json, "print JSON, and nothing else, on standard output");
    part->add_option("--repeat", options->repeat, "measurements that the median is taken of")
        ->capture_default_str();
    part->callback([options] { bench_curve(*options); });
}

}  // namespace spion
