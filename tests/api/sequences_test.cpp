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

// Patterns of each sequence's own, in a plan with room for more, whose tables any number may be in.
TEST_F(ApiSequences, EachSequenceHasPatternsOfItsOwn) {
    for (const oracle::Options& options : {oracle::Options{},
                                           {.key_value_heads = 2, .patterns = 4},
                                           {.patterns = 4, .sinks = true}}) {
        oracle::Problem problem = oracle::with_own_patterns(drawn(options, 1), seed_);
        expect_right(problem);
        Attention attention = attention_of(problem);
        attention.sequence_patterns = 5;
        const Pattern pattern = pattern_of(problem);
        const Plan plan = context().plan(attention, {.typical = pattern});
        EXPECT_EQ(oracle::faults(problem, run_on_host(plan, pattern, problem), kTolerance), "");
    }
}

// Keys that are sequences of their own: longer and shorter ones than those of queries, none at all.
TEST_F(ApiSequences, KeysAreSequencesOfTheirOwn) {
    for (std::uint64_t round = 0; round < 4; ++round) {
        SCOPED_TRACE(round);
        const std::int64_t keys = round % 2 == 0 ? 130 : 70;
        oracle::Problem problem =
            drawn({.key_length = keys, .key_value_heads = 2, .alibi = true}, round);
        problem.key_cu_seqlens = oracle::random_sequences(keys, 3, seed_ + round + 9);
        if (round > 0) problem.rules = oracle::random_rules(90, 3, seed_ + round, keys);
        if (round > 1) problem = oracle::with_own_patterns(problem, seed_);
        expect_right(problem);
    }
    oracle::Problem equal = drawn({}, 5);
    equal.key_cu_seqlens = {0, 0, 90, 120};
    expect_right(equal);
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

TEST_F(ApiSequenceErrors, PatternsAreOfAsManySequencesAsThereAre) {
    problem_ = oracle::with_own_patterns(problem_, seed_);
    Attention attention = attention_of(problem_);
    attention.sequence_patterns = 2;
    const Plan small = context().plan(attention);
    expect_status<UserError>([&] { small.tables(pattern_of(problem_)); },
                             "the pattern has 3 patterns and the plan takes 1 of each sequence, at "
                             "most 2");
    attention.sequence_patterns = 4;
    const Plan plan = context().plan(attention);
    HostTensors tensors(problem_);
    HostMemory memory(plan, pattern_of(problem_), 3);
    ForwardArguments args = forward_arguments(tensors, memory);
    plan.forward(args);
    const Pattern all = pattern_of(problem_);
    const std::vector<Pattern> two = {all.head(0), all.head(1)};
    memory.tables = plan.tables(Pattern::from_heads(two));
    args.tables = memory.tables.data();
    expect_status<UserError>([&] { plan.forward(args); },
                             "3 sequences were given, and the tables have patterns of 2");
    const HostMemory of_two(small, Pattern::full(90, 32), 3);
    args.tables = of_two.tables.data();
    args.table_bytes = of_two.table_bytes();
    expect_status<UserError>([&] { small.forward(args); },
                             "3 sequences were given, and the plan was made with "
                             "sequence_patterns = 2");
}

TEST_F(ApiSequenceErrors, StartsOfKeysAreLookedAt) {
    problem_.key_cu_seqlens = {0, 20, 50, 90};
    const auto with = [&](std::vector<std::int32_t> starts, const std::string& words) {
        refuses(words,
                [&](ForwardArguments& args, HostTensors&) { args.key_cu_seqlens = starts.data(); });
    };
    with({0, 20, 10, 90}, "key_cu_seqlens[2] is 10, below the 20");
    with({0, 20, 50, 91}, "key_cu_seqlens ends with 91 and the tensors have 90 rows");
    with({0, 10, 50, 90},
         "query_spans of position 0 in sequence 0 are 0, 20, and by cu_seqlens it");
    refuses("key_cu_seqlens is null and the plan was made with key_starts",
            [](ForwardArguments& args, HostTensors&) { args.key_cu_seqlens = nullptr; });
    refuses("v has rank 3 and shape [4, 150, 32], and the plan takes [H, T, D] = [4, 90, 32]",
            [](ForwardArguments& args, HostTensors&) { args.v.shape[1] = 150; });
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
    refuses_plan(attention, "where keys have no starts of their own: give key_starts=true");
    attention.key_length = 0;
    attention.varlen = false;
    attention.spans = true;
    attention.key_starts = true;
    refuses_plan(attention, "give varlen=true too");
    attention.key_starts = false;
    attention.sequence_patterns = 3;
    refuses_plan(attention, "sequence_patterns 3 are not allowed with varlen=false");
    attention.sequence_patterns = 0;
    attention.varlen = true;
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
    refuses_rules({.cu_seqlens = {0, 20, 30}, .key_cu_seqlens = {0, 41, 50}}, 40,
                  "sequence 0 has 41 positions by key_cu_seqlens");
    refuses_rules({.key_cu_seqlens = {0, 20, 30}}, 40, "without those of queries: give both");
    refuses_rules({.key_cu_seqlens = {0, 20}}, 40, "key_cu_seqlens has not B + 1 numbers");
}

}  // namespace
}  // namespace spion::test
