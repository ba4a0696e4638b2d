// Attention through the library on a GPU: the caller's buffers, streams, contexts and graphs.
#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "tests/api/count_allocations.h"
#include "tests/api/cuda_fixture.h"
#include "tests/api/expect_status.h"

namespace spion::test {
namespace {

TEST_F(ApiGpu, RandomProblemsMeetTheReferenceThroughEveryDoor) {
    struct Shape {
        std::int64_t length;
        int block, head_dim;
        double density;
        bool padding;
    };
    // Warps with items of their own, packed rows, wgmma, all gradients together, mma.
    const Shape shapes[] = {{1000, 32, 32, 0.2, false},   {1000, 16, 64, 0.1, true},
                            {1000, 64, 64, 0.3, false},   {1000, 128, 64, 0.5, false},
                            {1024, 128, 128, 1.0, false}, {900, 64, 128, 0.4, true},
                            {500, 64, 80, 0.4, false}};
    for (const Shape& shape : shapes) {
        SCOPED_TRACE("L=" + std::to_string(shape.length) + " block " + std::to_string(shape.block) +
                     " D=" + std::to_string(shape.head_dim));
        const oracle::Problem asked =
            problem(shape.length, shape.block, shape.head_dim, shape.density, shape.padding);
        const Plan plan = plan_of(asked);
        CudaCall call(plan, asked, stream_->get());
        call.run(stream_->get());
        stream_->wait();
        EXPECT_EQ(oracle::faults(asked, call.outputs(), kTolerance), "") << plan.explain();
        const std::vector<std::uint8_t> first = call.bytes();
        call.poison();
        call.run(nullptr);  // the legacy default stream
        SPION_TEST_CUDA(cuCtxSynchronize);
        EXPECT_TRUE(call.bytes() == first) << "another stream gave other bits";
        call.poison();
        call.run(stream_->get(), SPION_OVERLAP);
        call.run(stream_->get(), SPION_OVERLAP | SPION_KNOWN);
        stream_->wait();
        EXPECT_TRUE(call.bytes() == first) << "kernels that overlap gave other bits";
        call.poison();
        const cuda::Graph graph(*stream_, [&] { call.run(stream_->get()); });
        graph.launch(*stream_);
        graph.launch(*stream_);
        stream_->wait();
        EXPECT_TRUE(call.bytes() == first) << "a graph gave other bits";
    }
}

// The tables are overwritten between two replays of one graph.
TEST_F(ApiGpu, AReplayedGraphTakesThePatternThatIsThere) {
    for (const int block : {32, 64, 128}) {
        oracle::Problem asked = problem(1000, block, 64, 0.2);
        const Plan plan = plan_of(asked);
        CudaCall call(plan, asked, stream_->get());
        SPION_TEST_CUDA(cuCtxSynchronize);
        const cuda::Graph graph(*stream_, [&] { call.run(stream_->get()); });
        const long compiled = context().counters().compiled;
        for (const double density : {0.2, 0.7, 0.05, 1.0}) {
            asked.bits = oracle::random_bits(1000, block, density, seed_++);
            call.set_pattern(CudaCall::pattern_of(asked));
            call.poison();
            graph.launch(*stream_);
            stream_->wait();
            EXPECT_EQ(oracle::faults(asked, call.outputs(), kTolerance), "")
                << "block " << block << ", density " << density;
            const std::vector<std::uint8_t> replayed = call.bytes();
            call.poison();
            call.run(stream_->get());
            stream_->wait();
            EXPECT_TRUE(call.bytes() == replayed);
        }
        EXPECT_EQ(context().counters().compiled, compiled);
    }
}

TEST_F(ApiGpu, ThreadsAndStreamsShareAPlan) {
    for (const int block : {32, 64, 128}) {
        const oracle::Problem asked = problem(1000, block, 64, 0.3);
        const Plan plan = plan_of(asked);
        CudaCall alone(plan, asked, stream_->get());
        alone.run(stream_->get());
        stream_->wait();
        const std::vector<std::uint8_t> wanted = alone.bytes();
        std::atomic<int> different = 0;
        {
            std::vector<std::jthread> threads;
            for (int i = 0; i < 6; ++i) {
                threads.emplace_back([&] {
                    const cuda::Primary current;
                    const cuda::Stream own;
                    CudaCall call(plan, asked, own.get());
                    for (int round = 0; round < 20; ++round) call.run(own.get());
                    own.wait();
                    different += call.bytes() == wanted ? 0 : 1;
                });
            }
        }
        EXPECT_EQ(different, 0) << "block " << block;
    }
}

TEST_F(ApiGpu, CallsLeaveTheThreadsContextAndAllocateNothing) {
    const oracle::Problem asked = problem(1000, 64, 64, 0.3);
    const Plan plan = plan_of(asked);
    CudaCall call(plan, asked, stream_->get());
    call.run(stream_->get());
    const ForwardArguments forward = call.forward_arguments();
    const BackwardArguments backward = call.backward_arguments();
    const long before = allocations(), looks = looks_at_the_environment();
    for (int i = 0; i < 10; ++i) {
        plan.forward(forward, stream_->get());
        plan.backward(backward, stream_->get());
    }
    EXPECT_EQ(allocations(), before);
    EXPECT_EQ(looks_at_the_environment(), looks);
    const std::vector<std::uint8_t> wanted = call.bytes();
    call.poison();

    void* current = nullptr;
    SPION_TEST_CUDA(cuCtxSetCurrent, nullptr);
    plan.forward(forward, stream_->get());
    SPION_TEST_CUDA(cuCtxGetCurrent, &current);
    EXPECT_EQ(current, nullptr);
    void* other = nullptr;
    SPION_TEST_CUDA(cuCtxCreate_v2, &other, 0U, 0);  // and makes it current
    plan.backward(backward, stream_->get());
    SPION_TEST_CUDA(cuCtxGetCurrent, &current);
    EXPECT_EQ(current, other);
    SPION_TEST_CUDA(cuCtxDestroy_v2, other);
    SPION_TEST_CUDA(cuCtxSetCurrent, primary_->get());
    stream_->wait();
    EXPECT_TRUE(call.bytes() == wanted);
}

TEST_F(ApiGpu, RefusesWhatKernelsCannotRead) {
    const oracle::Problem asked = problem(1000, 64, 64, 0.3);
    const Plan plan = plan_of(asked);
    CudaCall call(plan, asked, stream_->get());
    const auto refuses = [&](const auto& change, const std::string& words) {
        ForwardArguments args = call.forward_arguments();
        change(args);
        expect_status<UserError>([&] { plan.forward(args, stream_->get()); }, words);
    };
    refuses([](ForwardArguments& a) { a.q.data = static_cast<char*>(a.q.data) + 8; },
            "multiple of 16 bytes");
    refuses([](ForwardArguments& a) { a.k.strides[2] = 68; }, "multiple of 16 bytes");
    refuses([](ForwardArguments& a) { a.v.dtype = SPION_FP16; }, "v is of dtype 1");
    std::vector<std::uint16_t> host(asked.q.size() + 64);
    const auto aligned = (reinterpret_cast<std::uintptr_t>(host.data()) + 15) / 16 * 16;
    refuses([&](ForwardArguments& a) { a.q.data = reinterpret_cast<void*>(aligned); },
            "an address that CUDA does not know");
    refuses([](ForwardArguments& a) { a.table_bytes -= 4; }, "tables of");
    refuses([](ForwardArguments& a) { a.workspace_bytes = 64; }, "a workspace of 64 bytes");
    expect_status<UserError>([] { Context::cuda(99); }, "GPU 99 was asked for");
}

TEST_F(ApiGpu, DiscoversFromQAndK) {
    const oracle::Problem asked = problem(512, 64, 64, 1.0);
    const Pattern full = Pattern::full(512, 64);
    const Plan dense = context().plan(cuda_attention(asked), {.typical = full});
    oracle::Problem whole = asked;
    whole.bits.assign(64, 1);
    CudaCall call(dense, whole, stream_->get());
    dense.forward(call.forward_arguments(), stream_->get());
    const Discoverer discoverer =
        context().discoverer(cuda_attention(asked), {.block = 64, .filter = 7, .quantile = 0.7});
    const cuda::Memory sums(discoverer.sum_bytes());
    const ForwardArguments args = call.forward_arguments();
    discoverer.run({.q = args.q,
                    .k = args.k,
                    .lse = args.lse,
                    .sums = static_cast<float*>(sums.data()),
                    .sum_bytes = sums.bytes()},
                   stream_->get());
    stream_->wait();
    const Pattern found = discoverer.finish(sums.read<float>());
    EXPECT_GT(found.block_count(), 0);
    EXPECT_LT(found.block_count(), 64);
}

}  // namespace
}  // namespace spion::test
