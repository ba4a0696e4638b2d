// Attention through the library on the host, against the float64 reference.
#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <thread>
#include <vector>

#include "tests/api/count_allocations.h"
#include "tests/api/host_calls.h"
#include "tests/support/seed.h"

namespace spion::test {
namespace {

constexpr double kTolerance = 1e-5;  // of fp32

class ApiHost : public testing::Test {
  protected:
    static const Context& context() {
        static const Context shared = Context::host({.memory_only = true});
        return shared;
    }
    const std::uint64_t seed_ = fresh_seed();
};

TEST_F(ApiHost, RandomProblemsMeetTheReference) {
    struct Shape {
        std::int64_t length;
        int block, heads, head_dim;
        std::int64_t batch;
        double density;
        bool padding, pruned_zero;
    };
    const Shape shapes[] = {{200, 32, 2, 32, 2, 0.3, false, false},
                            {130, 16, 1, 16, 1, 0.2, true, true},
                            {257, 64, 3, 48, 2, 0.5, true, false},
                            {384, 128, 2, 64, 1, 1.0, false, true}};
    std::uint64_t seed = seed_;
    for (const Shape& shape : shapes) {
        oracle::Problem problem =
            oracle::random_problem(shape.length, shape.block, shape.heads, shape.head_dim,
                                   shape.batch, shape.density, shape.padding, seed++);
        problem.pruned_zero = shape.pruned_zero;
        const Pattern pattern = pattern_of(problem);
        const Plan plan = context().plan(attention_of(problem), {.typical = pattern});
        const oracle::Outputs outputs = run_on_host(plan, pattern, problem);
        EXPECT_EQ(oracle::faults(problem, outputs, kTolerance), "") << "L=" << shape.length;
    }
}

TEST_F(ApiHost, CausalAndGroupedHeadsMeetTheReference) {
    std::uint64_t seed = seed_;
    for (const int key_value_heads : {0, 2}) {
        for (const bool pruned_zero : {false, true}) {
            oracle::Problem problem = oracle::random_problem(150, 32, 4, 32, 2, 0.6, true, seed++);
            problem.causal = true;
            problem.pruned_zero = pruned_zero;
            problem.key_value_heads = key_value_heads;
            if (key_value_heads > 0) {
                problem.k.resize(problem.k.size() / 2);
                problem.v.resize(problem.v.size() / 2);
            }
            const Pattern pattern = pattern_of(problem);
            const Plan plan = context().plan(attention_of(problem), {.typical = pattern});
            const oracle::Outputs outputs = run_on_host(plan, pattern, problem);
            EXPECT_EQ(oracle::faults(problem, outputs, kTolerance), "");
        }
    }
}

// One plan for every pattern; the tables of another one take effect in place, at the same size.
TEST_F(ApiHost, APatternIsChangedInPlace) {
    oracle::Problem problem = oracle::random_problem(300, 32, 2, 32, 2, 0.2, false, seed_);
    const Plan plan = context().plan(attention_of(problem));
    HostMemory memory(plan, pattern_of(problem), problem.batch);
    const long compiled = context().counters().compiled;
    for (const double density : {0.2, 0.05, 1.0, 0.4}) {
        problem.bits = oracle::random_bits(300, 32, density, seed_ + 7);
        const Pattern pattern = pattern_of(problem);
        const std::vector<std::int32_t> tables = plan.tables(pattern);
        ASSERT_EQ(tables.size(), memory.tables.size());
        std::copy(tables.begin(), tables.end(), memory.tables.begin());
        HostTensors tensors(problem);
        plan.forward(forward_arguments(tensors, memory));
        plan.backward(backward_arguments(tensors, memory));
        EXPECT_EQ(oracle::faults(problem, tensors.out, kTolerance), "") << density;
    }
    EXPECT_EQ(context().counters().compiled, compiled);
}

// q, k, v as one [B, L, 3, H, D], o as [B, L, H, D].
TEST_F(ApiHost, AnyStridesWithContiguousRowsAreTaken) {
    const oracle::Problem problem = oracle::random_problem(150, 16, 2, 32, 2, 0.3, false, seed_);
    const std::int64_t B = 2, H = 2, L = 150, D = 32;
    HostTensors tensors(problem);
    std::vector<float> packed(3 * problem.q.size()), o(problem.q.size());
    const auto at = [&](std::int64_t b, std::int64_t h, std::int64_t l, std::int64_t d) {
        return static_cast<std::size_t>(((b * H + h) * L + l) * D + d);
    };
    const std::vector<float>* parts[] = {&problem.q, &problem.k, &problem.v};
    for (std::int64_t b = 0; b < B; ++b)
        for (std::int64_t h = 0; h < H; ++h)
            for (std::int64_t l = 0; l < L; ++l)
                for (std::int64_t d = 0; d < D; ++d)
                    for (std::int64_t part = 0; part < 3; ++part)
                        packed[static_cast<std::size_t>((((b * L + l) * 3 + part) * H + h) * D +
                                                        d)] = (*parts[part])[at(b, h, l, d)];
    const Pattern pattern = pattern_of(problem);
    const Plan plan = context().plan(attention_of(problem));
    HostMemory memory(plan, pattern, B);
    ForwardArguments args = forward_arguments(tensors, memory);
    spion_tensor* views[] = {&args.q, &args.k, &args.v};
    for (std::int64_t part = 0; part < 3; ++part) {
        *views[part] = tensor(packed.data() + part * H * D, DType::kFp32, {B, H, L, D},
                              {L * 3 * H * D, D, 3 * H * D, 1});
    }
    args.o = tensor(o.data(), DType::kFp32, {B, H, L, D}, {L * H * D, D, H * D, 1});
    args.lse = nullptr;  // not wanted
    plan.forward(args);
    oracle::Outputs outputs;
    for (std::int64_t b = 0; b < B; ++b)
        for (std::int64_t h = 0; h < H; ++h)
            for (std::int64_t l = 0; l < L; ++l)
                for (std::int64_t d = 0; d < D; ++d)
                    outputs.o.push_back(o[static_cast<std::size_t>(((b * L + l) * H + h) * D + d)]);
    EXPECT_EQ(oracle::faults(problem, outputs, kTolerance), "");
}

TEST_F(ApiHost, CallsAllocateNothingAndReadNoEnvironment) {
    const oracle::Problem problem = oracle::random_problem(200, 32, 2, 32, 2, 0.3, true, seed_);
    const Pattern pattern = pattern_of(problem);
    const Plan plan = context().plan(attention_of(problem));
    HostTensors tensors(problem);
    HostMemory memory(plan, pattern, problem.batch);
    const ForwardArguments forward = forward_arguments(tensors, memory);
    const BackwardArguments backward = backward_arguments(tensors, memory);
    const long before_any = allocations();
    EXPECT_GT(before_any, 0) << "the count counts";
    EXPECT_GT(looks_at_the_environment(), 0) << "a plan looks at it";
    plan.forward(forward);
    plan.backward(backward);
    const long before = allocations(), looks = looks_at_the_environment();
    for (int i = 0; i < 3; ++i) {
        plan.forward(forward);
        plan.backward(backward);
    }
    EXPECT_EQ(allocations(), before);
    EXPECT_EQ(looks_at_the_environment(), looks);
}

// Many threads on one plan, each with its own workspace: the bits of one thread alone.
TEST_F(ApiHost, ThreadsShareAPlan) {
    const oracle::Problem problem = oracle::random_problem(256, 32, 2, 32, 2, 0.3, false, seed_);
    const Pattern pattern = pattern_of(problem);
    const Plan plan = context().plan(attention_of(problem));
    const oracle::Outputs alone = run_on_host(plan, pattern, problem);
    constexpr int kThreads = 4;
    std::vector<oracle::Outputs> outputs(kThreads);
    {
        std::vector<std::jthread> threads;
        for (int i = 0; i < kThreads; ++i) {
            threads.emplace_back([&, i] {
                for (int round = 0; round < 5; ++round) {
                    const Plan own = context().plan(attention_of(problem));  // shares kernels
                    outputs[static_cast<std::size_t>(i)] = run_on_host(own, pattern, problem);
                }
            });
        }
    }
    for (const oracle::Outputs& seen : outputs) {
        EXPECT_EQ(seen.o, alone.o);
        EXPECT_EQ(seen.lse, alone.lse);
        EXPECT_EQ(seen.d_q, alone.d_q);
        EXPECT_EQ(seen.d_k, alone.d_k);
        EXPECT_EQ(seen.d_v, alone.d_v);
    }
}

TEST_F(ApiHost, DiscoversFromQAndKAsFromTheirScores) {
    const std::int64_t L = 192;
    oracle::Problem problem = oracle::random_problem(L, 32, 2, 32, 2, 1.0, false, seed_);
    problem.bits.assign(36, 1);
    const Pattern full = Pattern::full(L, 32);
    const Plan dense = context().plan(attention_of(problem), {.typical = full});
    HostTensors tensors(problem);
    HostMemory memory(dense, full, problem.batch);
    dense.forward(forward_arguments(tensors, memory));

    const Discovery discovery{.block = 32, .filter = 5, .quantile = 0.7};
    const Discoverer discoverer = context().discoverer(attention_of(problem), discovery);
    std::vector<float> sums(discoverer.sum_bytes() / sizeof(float));
    discoverer.run({.q = tensors.view(tensors.q),
                    .k = tensors.view(tensors.k),
                    .lse = tensors.out.lse.data(),
                    .sums = sums.data(),
                    .sum_bytes = discoverer.sum_bytes()});
    const Pattern streamed = discoverer.finish(sums);

    // The map itself, in float64: means over batch and heads of exp(scale q.k - lse).
    std::vector<float> scores(static_cast<std::size_t>(L * L));
    for (std::int64_t i = 0; i < L; ++i) {
        for (std::int64_t j = 0; j < L; ++j) {
            double sum = 0;
            for (std::int64_t pair = 0; pair < 4; ++pair) {
                double dot = 0;
                for (std::int64_t d = 0; d < 32; ++d) {
                    dot += double{problem.q[static_cast<std::size_t>((pair * L + i) * 32 + d)]} *
                           problem.k[static_cast<std::size_t>((pair * L + j) * 32 + d)];
                }
                sum += std::exp(dot / std::sqrt(32.0) -
                                tensors.out.lse[static_cast<std::size_t>(pair * L + i)]);
            }
            scores[static_cast<std::size_t>(i * L + j)] = static_cast<float>(sum / 4);
        }
    }
    const Pattern whole = discover_scores(discovery, L, scores);
    EXPECT_EQ(streamed.text(), whole.text());
    EXPECT_GT(whole.block_count(), 0);
    EXPECT_LT(whole.block_count(), 36);
}

}  // namespace
}  // namespace spion::test
