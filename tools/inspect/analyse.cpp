#include "tools/inspect/analyse.h"
#include "tools/role_results.h"

#include <algorithm>
#include <string>

#include "codegen/emit.h"
#include "compiler/lower.h"
#include "compiler/plan/layer_plan.h"
#include "ir/error.h"
#include "train/model.h"
#include "train/settings.h"
#include "train/settings_file.h"

namespace spion::inspect {
namespace {

Attention attention_of_run(const Facts& facts, const Target& target) {
    std::vector<FileSetting> written;
    for (const auto& [name, value] : facts.settings) {
        written.push_back({.name = name, .value = value, .given = name});
    }
    const TrainSettings settings = settings_of_run(written);
    return attention_of(settings, activation_type(target, settings.precision));
}

// The kernel folder whose source is the program's, or else whose name is.
std::string kernel_of(const Facts& facts, const TileProgram& program, const Target& target) {
    const KernelSource source = emit(program, target);
    std::string by_name;
    for (const KernelFacts& kernel : facts.kernels) {
        if (kernel.source.text == source.text) {
            return kernel.name;
        }
        if (kernel.name == source.name) {
            by_name = kernel.name;
        }
    }
    return by_name;
}

Ceilings ceilings_of(const Attention& attention, const Target& target) {
    const Rates rates = rates_of(target);
    double products = rates.vector_flop;
    if (target.back_end == BackEnd::kCuda && attention.dtype == DType::kTf32) {
        products = rates.tensor32_flop;
    } else if (target.back_end == BackEnd::kCuda && attention.dtype != DType::kFp32) {
        products = rates.tensor16_flop;
    }
    return {.flop = products * rates.clock * target.sm_count,
            .memory = rates.memory_bytes,
            .cache = rates.cache_bytes};
}

RooflinePoint point_of(const std::vector<const ProgramFacts*>& programs, std::int64_t batch) {
    RooflinePoint point;
    double longest = -1;
    for (const ProgramFacts* program : programs) {
        point.flop += static_cast<double>(program->work.flop * batch);
        point.bytes += static_cast<double>(program->work.bytes * batch);
        point.seconds += program->prediction.seconds;
        if (program->prediction.seconds > longest) {
            longest = program->prediction.seconds;
            point.bound = program->prediction.bound;
        }
    }
    return point;
}

// Measured: forward, and backward as dQ and dK dV together. Otherwise one a program, predicted.
void add_points(Facts& facts, const LayerFacts& layer) {
    std::vector<const ProgramFacts*> forward, backward;
    for (const ProgramFacts& program : layer.programs) {
        (program.program.role == KernelRole::kForward ? forward : backward).push_back(&program);
    }
    const auto add = [&](RooflinePoint point, std::string_view what) {
        point.layer = layer.layer;
        point.label = fmt::format("layer {} {}", layer.layer, what);
        if (point.flop > 0 && point.seconds > 0) {
            facts.roofline.push_back(std::move(point));
        }
    };
    if (layer.forward_ms && layer.backward_ms && !forward.empty() && backward.size() == 2) {
        RooflinePoint ahead = point_of(forward, facts.batch);
        RooflinePoint back = point_of(backward, facts.batch);
        ahead.seconds = *layer.forward_ms / 1e3;
        back.seconds = *layer.backward_ms / 1e3;
        ahead.measured = back.measured = true;
        add(ahead, "forward");
        add(back, "backward");
        return;
    }
    for (const ProgramFacts& program : layer.programs) {
        add(point_of({&program}, facts.batch), results_of(program.program.role));
    }
}

}  // namespace

void add_programs(Facts& facts) {
    if (!facts.target) {
        return;
    }
    const Target& target = *facts.target;
    for (LayerFacts& layer : facts.layers) {
        if (facts.kind == FolderKind::kRun) {
            const Attention attention = attention_of_run(facts, target);
            const LayerPlan plan =
                plan_layer(attention, layer.patterns, target,
                           {.packed_rows = 1, .tables = layer.tables});  // train/phases.cpp
            for (auto& [program, planned] : lower_layer(plan, layer.patterns)) {
                std::string kernel = kernel_of(facts, program, target);
                layer.programs.push_back({.program = std::move(program),
                                          .work = {},
                                          .prediction = {},
                                          .kernel = std::move(kernel)});
            }
        }
        for (ProgramFacts& program : layer.programs) {
            program.work = work_of(program.program);
            program.prediction = predict(program.program, facts.batch, target);
            facts.ceilings = ceilings_of(program.program.attention, target);
        }
    }
    for (const LayerFacts& layer : facts.layers) {
        add_points(facts, layer);
    }
}

}  // namespace spion::inspect
