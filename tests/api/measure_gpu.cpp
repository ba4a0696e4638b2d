// Measures the library on a GPU: device time of a call in graph replay, and the CPU's time for a
// call beside a bare launch of an empty kernel with as large a parameter.
//     test_api_measure LENGTH BLOCK HEADS HEAD_DIM BATCH DENSITY
// The pattern is that of `spion bench attention --pattern-random DENSITY --pattern-seed 1
// --softmax masked`, and as many sets of tensors take turns as there, so that both read from
// memory what does not fit the L2 cache.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <vector>

#include "tests/api/count_allocations.h"
#include "tests/api/cuda_calls.h"

namespace spion::test {
namespace {

using Clock = std::chrono::steady_clock;

constexpr double kRotatedBytes = 120e6;  // twice the largest L2
constexpr std::size_t kMostSets = 32;

// The fewest microseconds a call, of several rounds of calls that do not fill the driver's queue.
template <typename Call>
double cpu_microseconds(const cuda::Stream& stream, const Call& call) {
    constexpr int kRounds = 50, kCalls = 100;
    double least = 1e9;
    for (int round = 0; round < kRounds; ++round) {
        stream.wait();
        const auto start = Clock::now();
        for (int i = 0; i < kCalls; ++i) call();
        const std::chrono::duration<double, std::micro> spent = Clock::now() - start;
        least = std::min(least, spent.count() / kCalls);
    }
    stream.wait();
    return least;
}

class Events {
  public:
    Events() {
        SPION_TEST_CUDA(cuEventCreate, &first_, 0U);
        SPION_TEST_CUDA(cuEventCreate, &second_, 0U);
    }
    template <typename Work>
    double milliseconds(const cuda::Stream& stream, const Work& work) const {
        SPION_TEST_CUDA(cuEventRecord, first_, stream.get());
        work();
        SPION_TEST_CUDA(cuEventRecord, second_, stream.get());
        SPION_TEST_CUDA(cuEventSynchronize, second_);
        float spent = 0;
        SPION_TEST_CUDA(cuEventElapsedTime, &spent, first_, second_);
        return spent;
    }

  private:
    void* first_ = nullptr;
    void* second_ = nullptr;
};

// The median of replays of a graph that makes every set's call. As long a load as bench attention
// puts on the GPU: under a longer one its clocks fall.
template <typename Enqueue>
double graph_microseconds(const cuda::Stream& stream, std::size_t sets, const Enqueue& enqueue) {
    constexpr double kReplayMs = 0.25, kWarmUpMs = 30;
    const Events events;
    enqueue(0);
    const double one = events.milliseconds(stream, [&] { enqueue(0); });
    const auto rounds = static_cast<std::size_t>(kReplayMs / (one * static_cast<double>(sets)));
    const std::size_t calls = std::clamp<std::size_t>(rounds, 1, 50) * sets;
    const cuda::Graph graph(stream, [&] {
        for (std::size_t n = 0; n < calls; ++n) enqueue(n % sets);
    });
    for (double warm = 0; warm < kWarmUpMs;) {
        warm += events.milliseconds(stream, [&] { graph.launch(stream); });
    }
    std::vector<double> all;
    for (int i = 0; i < 21; ++i) {
        graph.launch(stream);  // not timed, so that the GPU is never idle before the one that is
        all.push_back(events.milliseconds(stream, [&] { graph.launch(stream); }));
    }
    std::nth_element(all.begin(), all.begin() + 10, all.end());
    return 1e3 * all[10] / static_cast<double>(calls);
}

double bare_launch_microseconds(const cuda::Stream& stream) {
    const char* const ptx =
        ".version 8.0\n.target sm_80\n.address_size 64\n"
        ".visible .entry empty(.param .align 64 .b8 p[1152]) { ret; }\n";
    const cuda::Kernel empty(ptx, "empty");
    alignas(64) char parameter[1152] = {};
    void* parameters[] = {parameter};
    return cpu_microseconds(stream, [&] { empty.launch(132, 256, stream.get(), parameters); });
}

// LENGTH BLOCK HEADS HEAD_DIM BATCH DENSITY
oracle::Problem problem_of(char** given) {
    oracle::Problem problem;
    problem.length = std::atoll(given[1]);
    problem.block = std::atoi(given[2]);
    problem.heads = std::atoi(given[3]);
    problem.head_dim = std::atoi(given[4]);
    problem.batch = std::atoll(given[5]);
    problem.bits = oracle::random_bits(problem.length, problem.block, std::atof(given[6]), 1);
    std::mt19937 generator(1);
    std::normal_distribution<float> normal;
    for (auto* values : {&problem.q, &problem.k, &problem.v, &problem.d_o}) {
        values->resize(static_cast<std::size_t>(problem.batch * problem.heads * problem.length *
                                                problem.head_dim));
        for (std::size_t i = 0; i < values->size(); ++i) {  // few that repeat: quick to make
            (*values)[i] = i < 1000003 ? normal(generator) : (*values)[i - 1000003];
        }
    }
    return problem;
}

int measure(char** given) {
    const oracle::Problem problem = problem_of(given);
    const cuda::Primary primary;
    const cuda::Stream stream;
    const auto start = Clock::now();
    const Context context = Context::cuda(0, {.memory_only = true});
    const auto opened = Clock::now();
    const Plan plan =
        context.plan(cuda_attention(problem),
                     {.typical = CudaCall::pattern_of(problem), .batch = problem.batch});
    const std::chrono::duration<double, std::milli> opening = opened - start,
                                                    planning = Clock::now() - opened;
    std::vector<std::unique_ptr<CudaCall>> calls;
    double bytes = 0;
    do {
        calls.push_back(std::make_unique<CudaCall>(plan, problem, stream.get()));
        bytes += 4.0 * static_cast<double>(problem.q.size()) * 2;
    } while (bytes < kRotatedBytes && calls.size() < kMostSets);
    for (const auto& call : calls) call->run(stream.get());
    stream.wait();
    // Without and with SPION_OVERLAP.
    const auto forward_us = [&](std::uint64_t flags) {
        return graph_microseconds(stream, calls.size(), [&](std::size_t n) {
            plan.forward(calls[n]->forward_arguments(flags), stream.get());
        });
    };
    const auto backward_us = [&](std::uint64_t flags) {
        return graph_microseconds(stream, calls.size(), [&](std::size_t n) {
            plan.backward(calls[n]->backward_arguments(flags), stream.get());
        });
    };
    const double times[] = {forward_us(0), forward_us(SPION_OVERLAP), backward_us(0),
                            backward_us(SPION_OVERLAP)};
    const auto plain = calls[0]->forward_arguments();
    const long before = allocations();
    const double cpu_us = cpu_microseconds(stream, [&] { plan.forward(plain, stream.get()); });
    const long allocated = allocations() - before;
    std::printf(
        "%s L=%lld block=%d H=%d D=%d B=%lld density=%g sets=%zu: forward %.2f us (SPION_OVERLAP "
        "%.2f), backward %.2f us (%.2f); cpu %.2f us a forward call, bare launch %.2f us, %ld "
        "allocations; open %.0f ms, plan %.0f ms\n",
        context.device().c_str(), static_cast<long long>(problem.length), problem.block,
        problem.heads, problem.head_dim, static_cast<long long>(problem.batch), std::atof(given[6]),
        calls.size(), times[0], times[1], times[2], times[3], cpu_us,
        bare_launch_microseconds(stream), allocated, opening.count(), planning.count());
    return 0;
}

}  // namespace
}  // namespace spion::test

int main(int argc, char** argv) {
    if (argc != 7) {
        std::fprintf(stderr, "usage: %s LENGTH BLOCK HEADS HEAD_DIM BATCH DENSITY\n", argv[0]);
        return 2;
    }
    try {
        return spion::test::measure(argv);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}
