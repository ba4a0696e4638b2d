#include "compiler/compile_attention.h"

#include <tuple>
#include <utility>

#include "codegen/emit.h"
#include "compiler/launch/bias_gradient.h"
#include "compiler/launch/sink_gradient.h"
#include "compiler/lower.h"
#include "compiler/tune/autotune.h"

namespace spion {

std::vector<std::unique_ptr<CompiledAttention>> compile_attention(
    const Attention& attention, std::span<const BlockPattern> patterns, Device& device,
    KernelCache& cache, const CompileOptions& options, KernelFamilies families) {
    const std::vector<HeadPatterns> layers(patterns.begin(), patterns.end());
    return compile_attention(attention, std::span<const HeadPatterns>(layers), device, cache,
                             options, families);
}

std::vector<std::unique_ptr<CompiledAttention>> compile_attention(
    const Attention& attention, std::span<const HeadPatterns> patterns, Device& device,
    KernelCache& cache, const CompileOptions& options, KernelFamilies families) {
    constexpr std::size_t kLaunches = std::tuple_size_v<LayerPrograms>;
    PlanOptions planning = options;
    planning.cut_full = !options.shared;
    std::vector<LayerPrograms> programs;
    std::vector<KernelSource> sources;  // of layer i and launch n at kLaunches * i + n
    for (const HeadPatterns& pattern : patterns) {
        LayerPlan plan = plan_layer(attention, pattern, device.target(), planning, families);
        if (options.autotune) {
            autotune(plan, pattern, device, cache);
        }
        programs.push_back(lower_layer(plan, pattern));
        for (const auto& [program, kernel] : programs.back()) {
            sources.push_back(emit(program, kernel, device.target()));
        }
    }
    if (attention.sink) {
        sources.push_back(sink_gradient_source(attention, device.target()));
    }
    if (attention.relative_bias > 0) {
        sources.push_back(bias_gradient_source(attention, device.target()));
    }
    const std::vector<JitKernel> kernels = compile_kernels(sources, device, cache);
    std::vector<std::unique_ptr<CompiledAttention>> layers;
    for (std::size_t i = 0; i < patterns.size(); ++i) {
        layers.push_back(std::make_unique<CompiledAttention>(
            attention, patterns[i], std::move(programs[i]),
            std::span(kernels).subspan(i * kLaunches, kLaunches), device));
        if (attention.sink) {
            layers.back()->set_sink_gradient(kernels[patterns.size() * kLaunches]);
        }
        if (attention.relative_bias > 0) {
            layers.back()->set_bias_gradient(kernels.back());
        }
    }
    return layers;
}

}  // namespace spion
