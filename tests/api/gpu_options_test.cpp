// What an attention may have beside its pattern, through the library on a GPU: keys of another length,
// values of another width, changes of scores, sinks and a bias by relative position with their gradients,
// dropout and patterns of heads.
#include <gtest/gtest.h>

#include <span>
#include <string>
#include <vector>

#include "tests/api/cuda_fixture.h"
#include "tests/api/expect_status.h"

namespace spion::test {
namespace {

class ApiGpuOptions : public ApiGpu {
  protected:
    oracle::Problem drawn(int block, int head_dim, const oracle::Options& options) {
        oracle::Problem shape;
        shape.heads = 4;
        shape.head_dim = head_dim;
        shape.block = block;
        shape.length = 500;
        shape.batch = 2;
        return rounded(oracle::random_problem(shape, options, 0.4, seed_++));
    }
    // Warps with items of their own, wgmma, all gradients together where they can, mma.
    void expect_each_right(std::span<const oracle::Options> each) {
        const int blocks[] = {32, 64, 128, 64}, widths[] = {64, 64, 64, 80};
        for (int family = 0; family < 4; ++family) {
            for (std::size_t option = 0; option < each.size(); ++option) {
                SCOPED_TRACE("block " + std::to_string(blocks[family]) + ", D " +
                             std::to_string(widths[family]) + ", option " + std::to_string(option));
                oracle::Problem asked = drawn(blocks[family], widths[family], each[option]);
                asked.causal = option % 2 == 0;
                expect_right(asked);
            }
        }
    }
    void expect_right(const oracle::Problem& asked) {
        const Plan plan = plan_of(asked);
        CudaCall call(plan, asked, stream_->get());
        call.poison();
        call.run(stream_->get());
        stream_->wait();
        EXPECT_EQ(oracle::faults(asked, call.outputs(), kTolerance), "") << plan.explain();
        const std::vector<std::uint8_t> first = call.bytes();
        call.poison();
        const cuda::Graph graph(*stream_, [&] { call.run(stream_->get()); });
        graph.launch(*stream_);
        stream_->wait();
        EXPECT_TRUE(call.bytes() == first) << "a graph gave other bits";
    }
};

TEST_F(ApiGpuOptions, EachMeetsTheReferenceInEveryFamily) {
    const oracle::Options each[] = {
        {.key_length = 700},
        {.softcap = true},
        {.score = "2 * tanh(score / 2) - 0.05 * (1 + head) * fabs(q - k)"},
        {.alibi = true},
        {.sinks = true},
        {.dropout = true},
        {.key_value_heads = 2, .patterns = 2},
        {.patterns = 4},
        {.value_dim = 40},
        {.key_length = 700, .dropout = true, .value_dim = 128},
        {.key_length = 300, .softcap = true, .alibi = true, .sinks = true, .dropout = true},
        {.key_length = 300,
         .key_value_heads = 2,
         .softcap = true,
         .sinks = true,
         .dropout = true,
         .reach = 300}};
    expect_each_right(each);
}

TEST_F(ApiGpuOptions, ABiasMeetsTheReferenceInEveryFamily) {
    const oracle::Options each[] = {
        {.reach = 40}, {.key_length = 300, .sinks = true, .dropout = true, .reach = 400}};
    expect_each_right(each);
}

TEST_F(ApiGpuOptions, AReplayAdvancesTheStateThatItWasCapturedWith) {
    oracle::Problem asked = drawn(64, 64, {.dropout = true});
    const Plan plan = plan_of(asked);
    CudaCall call(plan, asked, stream_->get());
    SPION_TEST_CUDA(cuCtxSynchronize);
    const cuda::Graph graph(*stream_, [&] {
        call.run(stream_->get());
        plan.advance_dropout(call.state(), 5, stream_->get());
    });
    for (int step = 0; step < 3; ++step, asked.offset += 5) {
        call.poison();
        graph.launch(*stream_);
        stream_->wait();
        EXPECT_EQ(oracle::faults(asked, call.outputs(), kTolerance), "") << "step " << step;
    }
}

TEST_F(ApiGpuOptions, SequencesEndToEndMeetTheReferenceInEveryFamily) {
    const int blocks[] = {32, 64, 128, 64}, widths[] = {64, 64, 64, 80};
    const oracle::Options each[] = {{},
                                    {.key_value_heads = 2, .value_dim = 40},
                                    {.patterns = 4, .sinks = true, .dropout = true}};
    for (int family = 0; family < 4; ++family) {
        for (const oracle::Options& options : each) {
            SCOPED_TRACE("block " + std::to_string(blocks[family]));
            oracle::Problem asked = drawn(blocks[family], widths[family], options);
            asked.cu_seqlens = oracle::random_sequences(asked.length, asked.batch, seed_);
            asked.rules = oracle::random_rules(asked.length, asked.batch, seed_);
            expect_right(asked);
        }
    }
}

// Patterns of each sequence's own, and keys that are other sequences.
TEST_F(ApiGpuOptions, SequencesOfTheirOwnMeetTheReference) {
    for (const int block : {32, 64, 128}) {
        for (const bool other_keys : {false, true}) {
            SCOPED_TRACE("block " + std::to_string(block) + (other_keys ? ", other keys" : ""));
            oracle::Problem asked =
                drawn(block, 64,
                      {.key_length = other_keys ? 300 : 0, .key_value_heads = 2, .sinks = true});
            asked.cu_seqlens = oracle::random_sequences(asked.length, asked.batch, seed_);
            if (other_keys) {
                asked.key_cu_seqlens = oracle::random_sequences(300, asked.batch, seed_ + 1);
            }
            asked.rules = oracle::random_rules(asked.length, asked.batch, seed_, asked.keys());
            expect_right(oracle::with_own_patterns(asked, seed_));
        }
    }
}

TEST_F(ApiGpuOptions, StartsOfSequencesAreLookedAtWhenAsked) {
    oracle::Problem asked = drawn(64, 64, {});
    asked.cu_seqlens = {0, 500, 700};
    const Plan plan = plan_of(asked);
    const CudaCall call(plan, asked, stream_->get());
    const std::vector<std::int32_t> beyond = {0, 500, 701};
    const cuda::Memory on_device(beyond);
    ForwardArguments args = call.forward_arguments();
    args.host_cu_seqlens = beyond.data();
    const std::string words = "cu_seqlens ends with 701 and the tensors have 700 rows";
    expect_status<UserError>([&] { plan.forward(args, stream_->get()); }, words);
    args = call.forward_arguments(SPION_CHECK);
    args.cu_seqlens = static_cast<const std::int32_t*>(on_device.data());
    args.host_cu_seqlens = nullptr;
    expect_status<UserError>([&] { plan.forward(args, stream_->get()); }, words);
}

// The state lies in device memory: what is written there between two replays of a graph is what the
// next one draws from, in forward and backward alike.
TEST_F(ApiGpuOptions, AReplayDrawsWhatTheStateSays) {
    for (const int block : {32, 64, 128}) {
        oracle::Problem asked = drawn(block, 64, {.dropout = true});
        const Plan plan = plan_of(asked);
        CudaCall call(plan, asked, stream_->get());
        SPION_TEST_CUDA(cuCtxSynchronize);
        const cuda::Graph graph(*stream_, [&] { call.run(stream_->get()); });
        std::vector<std::uint8_t> last;
        for (int step = 0; step < 3; ++step) {
            ++asked.offset;
            call.set_state(asked);
            call.poison();
            graph.launch(*stream_);
            stream_->wait();
            EXPECT_EQ(oracle::faults(asked, call.outputs(), kTolerance), "") << "block " << block;
            EXPECT_FALSE(call.bytes() == last) << "a replay drew what the one before it has drawn";
            last = call.bytes();
        }
        asked.dropout_enabled = false;
        call.set_state(asked);
        graph.launch(*stream_);
        stream_->wait();
        EXPECT_EQ(oracle::faults(asked, call.outputs(), kTolerance), "") << "nothing is dropped";
    }
}

}  // namespace
}  // namespace spion::test
