#include "compiler/report.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <regex>

#include "codegen/emit.h"
#include "ir/error.h"
#include "runtime/offline.h"

namespace spion {
namespace {

std::int64_t round_up(std::int64_t value, std::int64_t unit) {
    return (value + unit - 1) / unit * unit;
}

// Rows [index * edge, ..) of the sequence that exist.
std::int64_t rows_of(std::int64_t index, std::int64_t edge, std::int64_t length) {
    return std::clamp<std::int64_t>(length - index * edge, 0, edge);
}

// Elements of one head that work item `item` computes.
std::int64_t elements_of(const TileProgram& program, int item) {
    const std::int64_t length = stationary_length(program.attention, program.role);
    const std::int64_t streamed_rows = streamed_length(program.attention, program.role);
    const auto w = static_cast<std::size_t>(item);
    const std::int64_t tile = program.tile(item);
    const int packed = program.packed_rows();
    const int edge = program.stationary_rows / packed;
    std::int64_t elements = 0;
    for (auto at = static_cast<std::size_t>(program.offsets[w]);
         at < static_cast<std::size_t>(program.offsets[w + 1]); ++at) {
        const std::int64_t streamed =
            rows_of(program.gather_blocks[at], program.gather_rows, streamed_rows);
        for (int r = 0; r < packed; ++r) {
            const bool used =
                program.block_row_masks.empty() || (program.block_row_masks[at] >> r & 1U) != 0;
            elements += used ? streamed * rows_of(tile * packed + r, edge, length) : 0;
        }
    }
    return elements;
}

std::string occupancy_text(const Occupancy& occupancy) {
    if (occupancy.blocks == 0) {
        return fmt::format("none: an SM has not enough {} for one thread block", occupancy.limit);
    }
    return fmt::format("{} thread block{}, {} warps an SM ({:.0f} %), limited by {}",
                       occupancy.blocks, occupancy.blocks == 1 ? "" : "s", occupancy.warps,
                       100 * occupancy.fraction, occupancy.limit);
}

std::string prediction_text(const KernelReport& report) {
    const Prediction& p = report.prediction;
    return fmt::format("{:.4f} ms for {} sample{}, {:.1f} waves, bound by {}", 1e3 * p.seconds,
                       report.batch, report.batch == 1 ? "" : "s", p.waves, to_string(p.bound));
}

nlohmann::ordered_json work_json(const KernelWork& work) {
    return {{"elements", work.elements},     {"flop", work.flop},
            {"bytes", work.bytes},           {"flop_per_byte", work.flop_per_byte()},
            {"exponentials", work.elements}, {"work_items", work.work_items}};
}

nlohmann::ordered_json prediction_json(const KernelReport& report) {
    const Prediction& p = report.prediction;
    return {{"batch", report.batch},
            {"milliseconds", 1e3 * p.seconds},
            {"memory_ms", 1e3 * p.memory_seconds},
            {"cache_ms", 1e3 * p.cache_seconds},
            {"compute_ms", 1e3 * p.compute_seconds},
            {"latency_ms", 1e3 * p.latency_seconds},
            {"waves", p.waves},
            {"bound", std::string(to_string(p.bound))}};
}

}  // namespace

Occupancy occupancy(const Rates& rates, int threads, int registers, int shared_bytes) {
    constexpr int kWarp = 32, kRegisterUnit = 256, kSharedUnit = 128, kSystemShared = 1024;
    const int warps = (threads + kWarp - 1) / kWarp;
    const std::int64_t block_registers =
        std::int64_t{warps} * round_up(std::int64_t{registers} * kWarp, kRegisterUnit);
    const std::int64_t block_shared =
        round_up(std::int64_t{shared_bytes} + kSystemShared, kSharedUnit);
    const struct {
        const char* name;
        std::int64_t blocks;
    } limits[] = {
        {"registers", rates.registers / std::max<std::int64_t>(1, block_registers)},
        {"shared memory", rates.resident_shared / block_shared},
        {"threads", rates.resident_threads / (warps * kWarp)},
        {"thread blocks", rates.resident_blocks},
    };
    const auto* least =
        std::min_element(std::begin(limits), std::end(limits),
                         [](const auto& a, const auto& b) { return a.blocks < b.blocks; });
    const int blocks = static_cast<int>(least->blocks);
    return {.blocks = blocks,
            .warps = blocks * warps,
            .fraction = static_cast<double>(blocks) * warps * kWarp / rates.resident_threads,
            .limit = least->name};
}

KernelWork work_of(const TileProgram& program) {
    const Attention& attention = program.attention;
    const RoleWork role = work_of(program.role);
    const int stationary = role.loaded + role.stored;
    KernelWork work;
    for (int item = 0; item < program.tiles(); ++item) {
        work.elements += attention.heads / attention.patterns * elements_of(program, item);
    }
    const int sequences = std::max(1, attention.sequence_patterns);
    work.elements /= sequences;
    const std::int64_t rows = attention.heads * stationary_length(attention, program.role);
    const std::int64_t others = attention.heads * streamed_length(attention, program.role);
    // Every side has as many tensors of Q's dimension as of V's, but for O beside dO and dQ's Q.
    const std::int64_t row_bytes = std::int64_t{attention.head_dim + attention.value_head_dim()} *
                                   storage_bytes(attention.dtype) / 2;
    constexpr int kFloat = 4;
    work.flop = static_cast<std::int64_t>(role.products) * work.elements *
                (attention.head_dim + attention.value_head_dim());
    work.bytes = (rows * stationary + others * role.streamed) * row_bytes +
                 attention.heads * attention.length * role.statistics * kFloat;
    work.work_items = std::int64_t{pattern_heads(attention, program.role)} * program.tiles() /
                      item_walks(attention, program.role) / sequences;
    return work;
}

KernelReport report_on(const TileProgram& program, const PlannedKernel& kernel,
                       const Target& target, const std::string& name, const CompileRequest& request,
                       const KernelBinary& binary, std::int64_t batch) {
    const EmittedGeometry& emitted = kernel.plan.geometry;
    KernelReport report{.name = name,
                        .entry = request.entry,
                        .back_end = target.back_end,
                        .arch = target.arch,
                        .compiler = request.compiler,
                        .options = request.options,
                        .compile_ms = binary.compile_ms,
                        .code_bytes = code_bytes(binary.code),
                        .binary_bytes = static_cast<std::int64_t>(binary.code.size()),
                        .warnings = warnings_in(binary.log),
                        .threads = emitted.threads,
                        .registers = binary.registers,
                        .static_shared_bytes = binary.static_shared_bytes,
                        .dynamic_shared_bytes = emitted.shared_bytes,
                        .spill_bytes = binary.spill_bytes,
                        .barriers = barriers_in(binary.log),
                        .occupancy = {},
                        .work = work_of(program),
                        .batch = batch,
                        .prediction = predict(program, kernel, batch, target),
                        .rebuild = ""};
    if (target.back_end == BackEnd::kCuda) {
        report.rebuild = rebuild_command(request.arch, request.options);
        report.occupancy = occupancy(rates_of(target), report.threads, report.registers,
                                     report.static_shared_bytes + report.dynamic_shared_bytes);
    }
    return report;
}

std::string to_text(const KernelReport& report) {
    std::string text = fmt::format("{} for {}\n", report.name, report.arch);
    const auto line = [&text](std::string_view label, const std::string& value) {
        fmt::format_to(std::back_inserter(text), "  {:<15} {}\n", label, value);
    };
    line("compiler", fmt::format("{} {}", report.compiler, fmt::join(report.options, " ")));
    line("compile time", fmt::format("{:.0f} ms", report.compile_ms));
    if (report.back_end == BackEnd::kCuda) {
        line("registers", fmt::format("{} a thread, {} threads a thread block", report.registers,
                                      report.threads));
        line("shared memory", fmt::format("{} bytes static, {} dynamic", report.static_shared_bytes,
                                          report.dynamic_shared_bytes));
        line("spills", report.spill_bytes == 0 ? std::string("none")
                                               : fmt::format("{} bytes", report.spill_bytes));
        line("barriers", fmt::format("{}", report.barriers));
        line("occupancy", occupancy_text(report.occupancy));
    }
    line("code",
         fmt::format("{} bytes, of {} in the binary", report.code_bytes, report.binary_bytes));
    line("warnings",
         report.warnings.empty() ? std::string("none") : fmt::format("{}", report.warnings.size()));
    for (const std::string& warning : report.warnings) {
        line("", warning);
    }
    const KernelWork& work = report.work;
    line("work a sample",
         fmt::format("{:.4g} Mflop, {:.4g} MB at least, {:.1f} flop a byte",
                     1e-6 * static_cast<double>(work.flop), 1e-6 * static_cast<double>(work.bytes),
                     work.flop_per_byte()));
    line("", fmt::format("{:.4g} M exponentials, {} work items",
                         1e-6 * static_cast<double>(work.elements), work.work_items));
    line("predicted time", prediction_text(report));
    if (!report.rebuild.empty()) {
        line("rebuild", report.rebuild);
    }
    return text;
}

std::string to_json(const KernelReport& report) {
    nlohmann::ordered_json json{{"name", report.name},
                                {"entry", report.entry},
                                {"target", report.arch},
                                {"compiler", report.compiler},
                                {"options", report.options},
                                {"compile_ms", report.compile_ms},
                                {"code_bytes", report.code_bytes},
                                {"binary_bytes", report.binary_bytes},
                                {"warnings", report.warnings}};
    if (report.back_end == BackEnd::kCuda) {
        json["registers"] = report.registers;
        json["threads"] = report.threads;
        json["static_shared_bytes"] = report.static_shared_bytes;
        json["dynamic_shared_bytes"] = report.dynamic_shared_bytes;
        json["spill_bytes"] = report.spill_bytes;
        json["barriers"] = report.barriers;
        json["occupancy"] = {{"thread_blocks", report.occupancy.blocks},
                             {"warps", report.occupancy.warps},
                             {"fraction", report.occupancy.fraction},
                             {"limit", report.occupancy.limit}};
        json["rebuild"] = report.rebuild;
    }
    json["work_a_sample"] = work_json(report.work);
    json["predicted"] = prediction_json(report);
    return json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

int barriers_in(const std::string& log) {
    static const std::regex kBarriers("used (\\d+) barriers");
    int most = 0;
    for (std::sregex_iterator match(log.begin(), log.end(), kBarriers), end; match != end;
         ++match) {
        most = std::max(most, std::stoi((*match)[1]));
    }
    return most;
}

}  // namespace spion
