// Measures the first call of a shape on a GPU: from making the plan to the end of its first forward
// call, in a fresh context, by where the kernels come from.
//     test_api_first_call [DxBLOCK ...]      default: 32x32 32x64 64x32 64x64 64x128
// Threads that compile are those that the process may use (taskset -c 0-3).
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include "tests/api/cuda_calls.h"
#include "tests/support/scratch_folder.h"

namespace spion::test {
namespace {

using Clock = std::chrono::steady_clock;

double milliseconds_since(Clock::time_point start) {
    return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

const char* name_of(Origin origin) {
    switch (origin) {
        case Origin::kMemory:
            return "memory";
        case Origin::kBundle:
            return "bundle";
        case Origin::kDisk:
            return "disk";
        case Origin::kCompiled:
            return "compiled";
    }
    return "?";
}

// The plan, and the plan with the first call.
void measure(const char* shape, const oracle::Problem& problem, const ContextOptions& options) {
    const cuda::Stream stream;
    const Clock::time_point opening = Clock::now();
    const Context context = Context::cuda(0, options);
    const double open = milliseconds_since(opening);
    const Clock::time_point start = Clock::now();
    const Plan plan = context.plan(cuda_attention(problem));
    const double planned = milliseconds_since(start);
    const CudaCall call(plan, problem, stream.get());
    stream.wait();
    const Clock::time_point calling = Clock::now();
    plan.forward(call.forward_arguments(), stream.get());
    stream.wait();
    const double called = milliseconds_since(calling);
    std::printf("%-8s %-9s plan %7.1f ms, first call %6.2f ms (context %.0f ms)\n", shape,
                name_of(plan.origin()), planned, called, open);
}

int measure_all(const std::vector<std::string>& shapes) {
    const cuda::Primary primary;
    const ScratchFolder scratch;
    for (const std::string& shape : shapes) {
        const int width = std::stoi(shape), block = std::stoi(shape.substr(shape.find('x') + 1));
        const oracle::Problem problem =
            rounded(oracle::random_problem(1024, block, 2, width, 2, 0.2, false, 1));
        const std::string cache = (scratch.path() / ("cache-" + shape)).string();
        const std::string bundle = (scratch.path() / ("bundle-" + shape)).string();
        const std::vector<Attention> attentions{cuda_attention(problem)};
        measure(shape.c_str(), problem, {.cache = cache});
        measure(shape.c_str(), problem, {.cache = cache});
        write_bundle(attentions, std::vector<std::string>{Context::cuda().target()}, bundle);
        measure(shape.c_str(), problem, {.frozen = true, .memory_only = true, .bundle = bundle});
    }
    return 0;
}

}  // namespace
}  // namespace spion::test

int main(int argc, char** argv) {
    try {
        std::vector<std::string> shapes(argv + 1, argv + argc);
        if (shapes.empty()) {
            shapes = {"32x32", "32x64", "64x32", "64x64", "64x128"};
        }
        return spion::test::measure_all(shapes);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}
