// Sequences that lie end to end, through the library on the host: against the float64 reference of
// the padded problem, with every option and mask; and what is wrong with them in a sentence.
#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "tests/api/expect_status.h"
#include "tests/api/host_calls.h"
#include "tests/support/seed.h"

namespace spion::test {
namespace {

constexpr double kTolerance = 2e-5;

class ApiSequences : public testing::Test {
  protected:
    static const Context& context() {
        static const Context shared = Context::host({.memory_only = true});
        return shared;
    }
    oracle::Problem drawn(const oracle::Options& options, std::uint64_t round) const {
        oracle::Problem shape;
        shape.heads = 4;
        shape.length = 90;
        shape.block = 32;
        shape.batch = 3;
        oracle::Problem problem = oracle::random_problem(shape, options, 0.6, seed_ + round);
        problem.cu_seqlens = oracle::random_sequences(90, 3, seed_ + round);
        return problem;
    }
    static void expect_right(const oracle::Problem& problem) {
        const Pattern pattern = pattern_of(problem);
        const Plan plan = context().plan(attention_of(problem), {.typical = pattern});
        EXPECT_EQ(oracle::faults(problem, run_on_host(plan, pattern, problem), kTolerance), "");
    }
    const std::uint64_t seed_ = fresh_seed();
};

TEST_F(ApiSequences, EachOptionMeetsTheReference) {
    const oracle::Options each[] = {
        {},
        {.key_value_heads = 2, .value_dim = 48},
        {.patterns = 4, .softcap = true, .alibi = true},
        {.key_value_heads = 2, .patterns = 2, .sinks = true, .dropout = true, .value_dim = 16},
        {.key_value_heads = 2, .dropout = true, .reach = 25}};
    std::uint64_t round = 0;
    for (const oracle::Options& options : each) {
        SCOPED_TRACE(round);
        oracle::Problem problem = drawn(options, round);
        problem.pruned_zero = round % 2 == 1;
        expect_right(problem);
        ++round;
    }
}

// One plan for all masks and lengths.
TEST_F(ApiSequences, MasksMeetTheReference) {
    for (std::uint64_t round = 0; round < 6; ++round) {
        SCOPED_TRACE(round);
        oracle::Problem problem = drawn({.key_value_heads = 2}, round);
        problem.rules = oracle::random_rules(90, 3, seed_ + round);
        expect_right(problem);
    }
    oracle::Problem empty = drawn({.key_value_heads = 2}, 7);
    empty.cu_seqlens = {0, 0, 90, 90};
    expect_right(empty);
}

class ApiSequenceErrors : public ApiSequences {
  protected:
    ApiSequenceErrors() : problem_(drawn({}, 0)) { problem_.cu_seqlens = {0, 90, 100, 150}; }
    // `change` of a call that would work.
    void refuses(const std::string& words,
                 const std::function<void(ForwardArguments&, HostTensors&)>& change) {
        const Pattern pattern = pattern_of(problem_);
        const Plan plan = context().plan(attention_of(problem_));
        HostTensors tensors(problem_);
        HostMemory memory(plan, pattern, problem_.batch);
        ForwardArguments args = forward_arguments(tensors, memory);
        plan.forward(args);
        change(args, tensors);
        expect_status<UserError>([&] { plan.forward(args); }, words);
    }
    oracle::Problem problem_;
};

TEST_F(ApiSequenceErrors, StartsAreLookedAt) {
    const auto with = [&](std::vector<std::int32_t> starts, const std::string& words) {
        refuses(words,
                [&](ForwardArguments& args, HostTensors&) { args.cu_seqlens = starts.data(); });
        refuses(words, [&](ForwardArguments& args, HostTensors&) {
            args.host_cu_seqlens = starts.data();
        });
    };
    with({1, 90, 100, 150}, "cu_seqlens[0] is 1: it must be 0");
    with({0, 90, 80, 150}, "cu_seqlens[2] is 80, below the 90 in front of it");
    with({0, 50, 149, 150},
         "sequence 1 has 99 positions by cu_seqlens, and the plan was made for "
         "at most 90");
    with({0, 90, 100, 149}, "cu_seqlens ends with 149 and the tensors have 150 rows");
}

TEST_F(ApiSequenceErrors, CallsSayWhatIsMissingOrDoesNotFit) {
    refuses("cu_seqlens is null and the plan was made with varlen: pass it",
            [](ForwardArguments& args, HostTensors&) { args.cu_seqlens = nullptr; });
    refuses("sequences is 0 and the plan was made with varlen: give their number",
            [](ForwardArguments& args, HostTensors&) { args.sequences = 0; });
    refuses("query_spans are null",
            [](ForwardArguments& args, HostTensors&) { args.query_spans = nullptr; });
    refuses("q has rank 4 and shape[1] = 4: give a tensor [H, T, D]",
            [](ForwardArguments& args, HostTensors&) { args.q.rank = 4, args.q.shape[1] = 4; });
    refuses("k has rank 3 and shape [4, 149, 32], and the plan takes [H, T, D] = [4, 150, 32]",
            [](ForwardArguments& args, HostTensors&) { args.k.shape[1] = 149; });
    refuses("v has a stride of 2 elements along D",
            [](ForwardArguments& args, HostTensors&) { args.v.strides[2] = 2; });
    refuses("o has a head stride of 0 elements",
            [](ForwardArguments& args, HostTensors&) { args.o.strides[0] = 0; });
    // Spans that were made without cu_seqlens keep keys of other sequences.
    refuses("query_spans of position 0 in sequence 1 are 0, 90, and by cu_seqlens it has 10",
            [&](ForwardArguments& args, HostTensors& tensors) {
                tensors.mask = spans({}, 3, 90);
                args.query_spans = tensors.query_spans();
                args.key_spans = tensors.key_spans();
            });
}

TEST_F(ApiSequenceErrors, OtherPlansTakeNone) {
    oracle::Problem bare = problem_;
    bare.cu_seqlens.clear();
    const Plan plan = context().plan(attention_of(bare));
    HostTensors tensors(bare);
    HostMemory memory(plan, pattern_of(bare), bare.batch);
    ForwardArguments args = forward_arguments(tensors, memory);
    args.cu_seqlens = problem_.cu_seqlens.data();
    expect_status<UserError>([&] { plan.forward(args); },
                             "cu_seqlens is given and the plan was made without varlen");
    args.cu_seqlens = nullptr;
    args.sequences = 3;
    expect_status<UserError>([&] { plan.forward(args); },
                             "sequences is 3 and host_cu_seqlens null");
    args = forward_arguments(tensors, memory);
    args.q.rank = 3;
    expect_status<UserError>([&] { plan.forward(args); }, "give a tensor [B, H, L, D]");
}

TEST_F(ApiSequenceErrors, PlansAndRulesSayWhatIsNotAllowed) {
    const auto refuses_plan = [](const Attention& attention, const std::string& words) {
        expect_status<UserError>([&] { context().plan(attention); }, words);
    };
    Attention attention = attention_of(problem_);
    attention.causal = true;
    refuses_plan(attention, "varlen and for causal: leave causal 0");
    attention.causal = false;
    attention.key_padding = true;
    refuses_plan(attention, "varlen takes mask=spans and no key padding");
    attention.key_padding = false;
    attention.key_length = 40;
    refuses_plan(attention, "as many keys as queries");
    attention.key_length = 0;
    expect_status<UserError>([&] { context().discoverer(attention, {.block = 32}); },
                             "the attention has varlen");
    const auto refuses_rules = [](const MaskRules& rules, std::int64_t keys,
                                  const std::string& words) {
        expect_status<UserError>([&] { spans(rules, 2, 90, keys); }, words);
    };
    refuses_rules({.cu_seqlens = {0, 10}}, 0, "cu_seqlens has not B + 1 numbers");
    refuses_rules({.cu_seqlens = {0, 91, 100}}, 0, "sequence 0 has 91 positions");
    refuses_rules({.cu_seqlens = {0, 20, 10}}, 0, "cu_seqlens[2] is 10, below the 20");
    refuses_rules({.cu_seqlens = {0, 20, 30}}, 40, "leave key_length 0");
}

}  // namespace
}  // namespace spion::test
