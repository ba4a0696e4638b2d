#include "tools/inspect/read_run.h"

#include <algorithm>
#include <charconv>
#include <sstream>
#include <string>

#include "compiler/tune/tiers.h"
#include "io/pattern_file.h"
#include "ir/error.h"
#include "ir/parser.h"
#include "runtime/measure.h"
#include "runtime/offline.h"
#include "tools/inspect/files.h"
#include "tools/inspect/read_kernels.h"
#include "tools/inspect/read_maps.h"
#include "tools/inspect/read_metrics.h"
#include "train/settings.h"
#include "train/settings_file.h"

namespace spion::inspect {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

void read_device(Facts& facts, const json& device) {
    facts.device = member<std::string>(device, "device").value_or("");
    facts.compiler = member<std::string>(device, "compiler").value_or("");
    const auto back_end = member<std::string>(device, "back_end");
    const auto arch = member<std::string>(device, "arch");
    if (!back_end || !arch) {
        return;
    }
    const Target defaults;
    const auto number = [&](const char* name, int otherwise) {
        return member<int>(device, name).value_or(otherwise);
    };
    facts.target =
        Target{.back_end = *back_end == "cuda" ? BackEnd::kCuda : BackEnd::kHost,
               .arch = *arch,
               .features = member<std::string>(device, "features").value_or(""),
               .compute_capability = number("compute_capability", 0),
               .sm_count = std::max(1, number("processors", 1)),
               .shared_bytes_per_block = number("shared_bytes_per_block", 0),
               .vector_floats = std::max(1, number("vector_floats", defaults.vector_floats)),
               .gpu = features_of(*arch)};
}

std::optional<std::pair<double, double>> evaluation(const json& summary, const char* name) {
    const auto found = summary.find(name);
    if (found == summary.end() || !found->is_object()) {
        return std::nullopt;
    }
    const auto loss = member<double>(*found, "loss");
    const auto accuracy = member<double>(*found, "accuracy");
    return loss && accuracy ? std::optional(std::pair(*loss, *accuracy)) : std::nullopt;
}

// {forward, backward} of one launch; nullopt unless both are there.
std::optional<std::pair<double, double>> launch_times(const json& times) {
    const auto forward = times.is_object() ? member<double>(times, "forward") : std::nullopt;
    const auto backward = times.is_object() ? member<double>(times, "backward") : std::nullopt;
    return forward && backward ? std::optional(std::pair(*forward, *backward)) : std::nullopt;
}

// Times of one launch a layer, into facts.layers, and their sums over a step. Needs to know of the
// transition: without one, the layers are dense.
void read_attention_times(Facts& facts, const json& summary) {
    const auto times = summary.find("attention_ms");
    if (times == summary.end() || !times->is_object()) {
        return;
    }
    facts.batch = std::max<std::int64_t>(1, member<std::int64_t>(*times, "batch").value_or(1));
    const auto layers = times->find("layers");
    if (layers == times->end() || !layers->is_array()) {
        return;
    }
    double& whole = facts.transition_step ? facts.sparse_attention_ms : facts.dense_attention_ms;
    for (const json& layer : *layers) {
        const auto launch = launch_times(layer);
        whole += launch ? launch->first + launch->second : 0;
    }
    if (const auto dense = times->find("dense"); dense != times->end()) {
        const auto launch = launch_times(*dense);
        facts.dense_attention_ms =
            launch ? static_cast<double>(layers->size()) * (launch->first + launch->second)
                   : facts.dense_attention_ms;
    }
    for (LayerFacts& layer : facts.layers) {
        const auto index = static_cast<std::size_t>(layer.layer);
        const auto launch = index < layers->size() ? launch_times((*layers)[index]) : std::nullopt;
        if (launch) {
            layer.forward_ms = launch->first;
            layer.backward_ms = launch->second;
        }
    }
}

// What became of each layer's tier 1, into facts.layers.
void read_tiers(Facts& facts, const json& summary) {
    const auto tiers = summary.find("tiers");
    if (tiers == summary.end() || !tiers->is_array()) {
        return;
    }
    for (const json& tier : *tiers) {
        const auto index = tier.is_object() ? member<int>(tier, "layer") : std::nullopt;
        for (LayerFacts& layer : facts.layers) {
            if (layer.layer != index) {
                continue;
            }
            const TierVerdict verdict{
                .layer = layer.layer,
                .taken = member<bool>(tier, "taken").value_or(false),
                .why_not = member<std::string>(tier, "why_not").value_or(""),
                .compile_ms = member<double>(tier, "compile_ms").value_or(0),
                .tier0_ms = member<double>(tier, "tier0_ms").value_or(0),
                .tier1_ms = member<double>(tier, "tier1_ms").value_or(0),
                .measurement_ms = member<double>(tier, "measurement_ms").value_or(0)};
            layer.tables = verdict.taken ? Tables::kBaked : Tables::kPassed;
            layer.tier = verdict.text();
        }
    }
}

void read_summary(Facts& facts, const json& summary) {
    facts.ended = true;
    facts.interrupted = member<bool>(summary, "interrupted").value_or(false);
    facts.steps = member<std::int64_t>(summary, "steps").value_or(facts.steps);
    facts.transition_step = member<std::int64_t>(summary, "transition_step");
    if (const auto stall = summary.find("stall_ms"); stall != summary.end() && stall->is_object()) {
        facts.stall_ms = member<double>(*stall, "total");
    }
    facts.dense_step_ms = member<double>(summary, "dense_step_ms").value_or(0);
    facts.sparse_step_ms = member<double>(summary, "sparse_step_ms").value_or(0);
    facts.validation = evaluation(summary, "validation");
    facts.test = evaluation(summary, "test");
    facts.peak_bytes = member<std::int64_t>(summary, "peak_device_bytes").value_or(0);
    if (const auto kernels = summary.find("kernels");
        kernels != summary.end() && kernels->is_object()) {
        facts.compiled = member<int>(*kernels, "compiled").value_or(0);
        facts.from_disk = member<int>(*kernels, "from_disk").value_or(0);
    }
    if (facts.device.empty()) {
        facts.device = member<std::string>(summary, "device").value_or("");
    }
    read_attention_times(facts, summary);
    read_tiers(facts, summary);
}

// What an ended run's summary would say, from its metrics.
void summarise_metrics(Facts& facts) {
    std::vector<double> dense, sparse;
    for (const Measurement& row : facts.measurements) {
        facts.steps = std::max(facts.steps, row.step);
        if (row.split == "validation") {
            facts.validation = {row.loss, row.accuracy};
        } else if (row.split == "test") {
            facts.test = {row.loss, row.accuracy};
        } else if (row.step_ms) {
            (row.phase == Phase::kDense ? dense : sparse).push_back(*row.step_ms);
        }
        if (row.phase == Phase::kSparse && row.split == "train" && !facts.transition_step) {
            facts.transition_step = row.step - 1;
        }
    }
    facts.dense_step_ms = median(dense);
    facts.sparse_step_ms = median(sparse);
}

// A layer's patterns, of one file; nothing where it is not there.
std::optional<HeadPatterns> read_layer(const fs::path& folder, int layer,
                                       const TrainSettings& settings) {
    const fs::path shared = folder / fmt::format("layer{}.bits", layer);
    if (const std::optional<std::string> bits = read_if_there(shared)) {
        return parse_bits(*bits, settings.length, settings.discovery.block, shared.string());
    }
    const fs::path heads = folder / fmt::format("layer{}.json", layer);
    if (!fs::is_regular_file(heads)) {
        return std::nullopt;
    }
    std::vector<BlockPattern> patterns;
    for (int head = 0; head < settings.heads; ++head) {
        patterns.push_back(
            open_pattern(fmt::format("{}:{}", heads.string(), head),
                         {.block = settings.discovery.block, .length = settings.length})
                .pattern);
    }
    return HeadPatterns(std::move(patterns));
}

void read_patterns(Facts& facts, const fs::path& folder, const TrainSettings& settings) {
    for (int layer = 0; layer < settings.layers; ++layer) {
        std::optional<HeadPatterns> patterns = read_layer(folder, layer, settings);
        if (!patterns) {
            continue;
        }
        LayerFacts found{.layer = layer,
                         .patterns = std::move(*patterns),
                         .pooled = {},
                         .history = {},
                         .programs = {},
                         .forward_ms = {},
                         .backward_ms = {},
                         .tables = Tables::kPassed,
                         .tier = {}};
        bool absent = false;
        for (int head = 0; head < found.patterns.count(); ++head) {
            const std::string file = found.patterns.count() == 1
                                         ? fmt::format("layer{}.csv", layer)
                                         : fmt::format("layer{}.head{}.csv", layer, head);
            found.pooled.push_back(read_pooled(folder / file, found.patterns.rows()));
            absent = absent || found.pooled.back().empty();
        }
        found.history = read_history(folder.parent_path() / "maps", layer);
        if (absent) {
            facts.absent.push_back(
                fmt::format("The pooled map of layer {} is not in patterns/.", layer));
        }
        facts.layers.push_back(std::move(found));
    }
    if (facts.layers.empty()) {
        facts.absent.push_back("There are no patterns: training has not turned sparse.");
    }
}

Facts read_run(const fs::path& folder) {
    Facts facts;
    facts.kind = FolderKind::kRun;
    const fs::path config = folder / "config.toml", metrics = folder / "metrics.csv";
    if (const auto text = read_if_there(metrics)) {
        facts.measurements = parse_metrics(*text, metrics.string());
        summarise_metrics(facts);
    } else {
        facts.absent.push_back("There is no metrics.csv: no curves.");
    }
    if (const auto device = read_json_if_there(folder / "device.json")) {
        read_device(facts, *device);
    } else {
        facts.absent.push_back(
            "There is no device.json: tile programs and the roofline need to know the device.");
    }
    if (fs::is_regular_file(config)) {
        const std::vector<FileSetting> written = read_settings_file(config);
        const TrainSettings settings = settings_of_run(written);
        for (const FileSetting& setting : written) {
            facts.settings.emplace_back(setting.name, setting.value);
        }
        facts.planned_steps = settings.steps;
        facts.batch = settings.batch;
        read_patterns(facts, folder / "patterns", settings);
    } else {
        facts.absent.push_back("There is no config.toml: settings and patterns cannot be read.");
    }
    if (const auto summary = read_json_if_there(folder / "summary.json")) {
        read_summary(facts, *summary);
    } else {
        facts.absent.push_back(
            "There is no summary.json: the run still goes on, or its process was killed.");
    }
    facts.kernels = read_kernels(folder / "kernels");
    return facts;
}

Target target_by_arch(const std::string& arch) {
    const std::vector<std::string>& names = target_names();
    const bool known = std::find(names.begin(), names.end(), arch) != names.end();
    return target_named(known ? arch : "host");
}

// A full pattern's kernels may each have cut it into blocks of their own.
bool same_patterns(const HeadPatterns& a, const HeadPatterns& b) {
    return a == b || (a.are_full() && b.are_full() && a.in_blocks_of(b.block()) == b);
}

// Programs of the same patterns are one layer.
void add_program(Facts& facts, TileProgram program, const std::string& kernel) {
    const HeadPatterns patterns = patterns_of(program);
    auto layer = std::find_if(
        facts.layers.begin(), facts.layers.end(),
        [&](const LayerFacts& known) { return same_patterns(known.patterns, patterns); });
    if (layer == facts.layers.end()) {
        facts.layers.push_back({.layer = static_cast<int>(facts.layers.size()),
                                .patterns = patterns,
                                .pooled = {},
                                .history = {},
                                .programs = {},
                                .forward_ms = {},
                                .backward_ms = {},
                                .tables = program.tables,
                                .tier = {}});
        layer = facts.layers.end() - 1;
    }
    ProgramFacts facts_of_program;
    facts_of_program.program = std::move(program);
    facts_of_program.kernel = kernel;
    layer->programs.push_back(std::move(facts_of_program));
}

Facts read_kernel_folder(const fs::path& folder) {
    Facts facts;
    facts.kind = FolderKind::kKernels;
    facts.kernels = read_kernels(folder);
    for (const KernelFacts& kernel : facts.kernels) {
        const fs::path own = is_kernel_folder(folder) ? folder : folder / kernel.name;
        const std::string arch = target_of(own);
        if (!facts.target && !arch.empty()) {
            facts.target = target_by_arch(arch);
            facts.device = arch;
        }
        if (kernel.ir.empty()) {
            facts.absent.push_back(fmt::format(
                "Kernel {} has no kernel.ir: its tile program cannot be drawn.", kernel.name));
            continue;
        }
        for (TileProgram& program : parse_ir(kernel.ir, (own / "kernel.ir").string()).programs) {
            add_program(facts, std::move(program), kernel.name);
        }
    }
    if (!facts.target) {
        facts.absent.push_back(
            "No report.json names the target: predictions and the roofline need it (spion compile "
            "--emit all).");
    }
    return facts;
}

}  // namespace

HeadPatterns patterns_of(const TileProgram& program) {
    if (program.block == BlockPattern::kFullBlock) {  // no pattern of a file has such blocks
        const Attention& attention = program.attention;
        return HeadPatterns(std::vector<BlockPattern>(
            static_cast<std::size_t>(attention.patterns),
            BlockPattern::full(attention.length, attention.key_value_length(), 128)));
    }
    const std::int64_t stays = stationary_length(program.attention, program.role);
    const std::int64_t length = streamed_length(program.attention, program.role);
    const int block = program.block;
    const auto rows = static_cast<std::size_t>((stays + block - 1) / block);
    const auto nb = static_cast<std::size_t>((length + block - 1) / block);
    std::vector<std::vector<std::uint8_t>> bits(  // of each pattern as the role walks it
        static_cast<std::size_t>(program.attention.patterns), std::vector<std::uint8_t>(rows * nb));
    for (int item = 0; item < program.tiles(); ++item) {
        const auto at = static_cast<std::size_t>(item);
        std::vector<std::uint8_t>& own = bits.at(static_cast<std::size_t>(program.pattern(item)));
        const std::int64_t first_row = program.tile(item) * program.stationary_rows / block;
        for (std::int32_t i = program.offsets[at]; i < program.offsets[at + 1]; ++i) {
            const auto g = static_cast<std::size_t>(i);
            const std::int64_t begin = std::int64_t{program.gather_blocks[g]} * program.gather_rows;
            const std::int64_t end = std::min(begin + program.gather_rows, length);
            for (int r = 0; r < program.packed_rows(); ++r) {
                const auto row = static_cast<std::size_t>(first_row + r);
                const bool used = program.block_row_masks.empty() ||
                                  ((program.block_row_masks[g] >> r) & 1U) != 0;
                if (!used || row >= rows) {
                    continue;
                }
                for (std::int64_t c = begin / block; c * block < end; ++c) {
                    own[row * nb + static_cast<std::size_t>(c)] = 1;
                }
            }
        }
    }
    std::vector<BlockPattern> patterns;
    for (std::vector<std::uint8_t>& own : bits) {
        patterns.emplace_back(stays, length, block, std::move(own));
    }
    const HeadPatterns walked(std::move(patterns));
    return walks_columns(program.role) ? walked.transpose() : walked;
}

Facts read_folder(const fs::path& folder) {
    std::error_code error;
    if (!fs::is_directory(folder, error)) {
        throw UserError("{} is no folder; give what `spion train --out` or `spion compile -o` made",
                        folder.string());
    }
    Facts facts;
    if (fs::exists(folder / "metrics.csv", error) || fs::exists(folder / "config.toml", error)) {
        facts = read_run(folder);
    } else {
        facts = read_kernel_folder(folder);
        if (facts.kernels.empty()) {
            throw UserError(
                "{} holds neither a training run (metrics.csv) nor compiled kernels "
                "(kernel.ir); give what `spion train --out` or `spion compile -o` made",
                folder.string());
        }
    }
    facts.path = folder.string();
    return facts;
}

}  // namespace spion::inspect
