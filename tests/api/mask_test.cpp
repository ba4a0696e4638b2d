// Masks within blocks through the library on the host: against the float64 reference, and what is wrong
// with them in a sentence.
#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "tests/api/host_calls.h"
#include "tests/support/seed.h"

namespace spion::test {
namespace {

constexpr double kTolerance = 1e-5;  // of fp32

class ApiMask : public testing::Test {
  protected:
    static const Context& context() {
        static const Context shared = Context::host({.memory_only = true});
        return shared;
    }
    const std::uint64_t seed_ = fresh_seed();
};

// Rules are said at each call: one plan for all of them.
TEST_F(ApiMask, MasksWithinBlocksMeetTheReference) {
    oracle::Problem problem = oracle::random_problem(150, 32, 4, 32, 2, 0.6, true, seed_);
    problem.rules = oracle::Rules{};
    problem.key_value_heads = 2;
    problem.k.resize(problem.k.size() / 2);
    problem.v.resize(problem.v.size() / 2);
    const Pattern pattern = pattern_of(problem);
    for (const bool pruned_zero : {false, true}) {
        problem.pruned_zero = pruned_zero;
        const Plan plan = context().plan(attention_of(problem), {.typical = pattern});
        const long compiled = context().counters().compiled;
        for (std::uint64_t round = 0; round < 6; ++round) {
            problem.rules = oracle::random_rules(problem.length, problem.batch, seed_ + round);
            const oracle::Outputs outputs = run_on_host(plan, pattern, problem);
            EXPECT_EQ(oracle::faults(problem, outputs, kTolerance), "") << "round " << round;
        }
        EXPECT_EQ(context().counters().compiled, compiled);
    }
}

// The spans of causal rules give the bits of a plan that is causal.
TEST_F(ApiMask, CausalSpansGiveTheBitsOfACausalPlan) {
    oracle::Problem problem = oracle::random_problem(150, 32, 2, 32, 2, 0.6, false, seed_);
    problem.causal = true;
    const Pattern pattern = pattern_of(problem);
    const auto run = [&] {
        return run_on_host(context().plan(attention_of(problem)), pattern, problem);
    };
    const oracle::Outputs causal = run();
    problem.causal = false;
    problem.rules = oracle::Rules{.causal = true};
    const oracle::Outputs spans = run();
    EXPECT_EQ(spans.o, causal.o);
    EXPECT_EQ(spans.lse, causal.lse);
    EXPECT_EQ(spans.d_q, causal.d_q);
}

class ApiMaskRules : public testing::Test {
  protected:
    static void expect_status(std::int32_t status, const char* words) {
        EXPECT_EQ(status, SPION_INVALID);
        EXPECT_NE(std::string(spion_last_error()).find(words), std::string::npos)
            << spion_last_error();
    }
    void expect_refused(const char* words, std::int64_t batch = 1, std::int64_t length = 4,
                        std::size_t count = 8) {
        expect_status(spion_write_spans(&rules_, batch, length, queries_, keys_, count), words);
    }
    spion_mask_rules rules_ = SPION_MASK_RULES_INIT;
    std::int32_t queries_[8] = {}, keys_[8] = {};
};

TEST_F(ApiMaskRules, SayWhatIsWrong) {
    expect_status(spion_write_spans(nullptr, 1, 4, queries_, keys_, 8), "spion_mask_rules is null");
    expect_status(spion_write_spans(&rules_, 1, 4, nullptr, keys_, 8), "query_spans is null");
    expect_status(spion_write_spans(&rules_, 1, 4, queries_, nullptr, 8), "key_spans is null");
    expect_refused("there is room for 4 numbers of spans", 1, 4, 4);
    expect_refused("the batch is 0", 0);
    expect_refused("the length 0", 1, 0);
    rules_.window = 4;
    expect_refused("the window's sides are 0x4");
    rules_.window = SPION_WINDOW_LEFT;
    rules_.left = -1;
    expect_refused("the window reaches -1 positions");
    rules_ = SPION_MASK_RULES_INIT;
    const std::int32_t far[] = {5}, shuffled[] = {0, 2, 1, 1};
    rules_.prefixes = far;
    expect_refused("one of the prefixes is 5");
    rules_ = SPION_MASK_RULES_INIT;
    rules_.query_lengths = far;
    expect_refused("one of the query lengths is 5");
    rules_ = SPION_MASK_RULES_INIT;
    rules_.documents = shuffled;
    expect_refused("document id 1 follows 2");
}

TEST_F(ApiMaskRules, AreWrittenAsIntervals) {
    rules_.causal = 1;
    rules_.window = SPION_WINDOW_LEFT;
    rules_.left = 1;
    ASSERT_EQ(spion_write_spans(&rules_, 1, 4, queries_, keys_, 8), SPION_OK);
    EXPECT_EQ(std::vector(queries_, queries_ + 8), (std::vector{0, 1, 0, 2, 1, 3, 2, 4}));
    EXPECT_EQ(std::vector(keys_, keys_ + 8), (std::vector{0, 2, 1, 3, 2, 4, 3, 4}));
}

TEST_F(ApiMask, CallsSayWhatIsWrongWithSpans) {
    oracle::Problem problem = oracle::random_problem(40, 16, 1, 16, 1, 1.0, false, seed_);
    const Pattern pattern = pattern_of(problem);
    const auto expect_error = [&](const Plan& plan, HostTensors& tensors, const char* words) {
        HostMemory memory(plan, pattern, 1);
        try {
            plan.forward(forward_arguments(tensors, memory));
            ADD_FAILURE() << "nothing was said for " << words;
        } catch (const UserError& error) {
            EXPECT_NE(std::string(error.what()).find(words), std::string::npos) << error.what();
        }
    };
    const Plan without = context().plan(attention_of(problem));
    problem.rules = oracle::Rules{.causal = true};
    const Plan with = context().plan(attention_of(problem));
    HostTensors tensors(problem);
    expect_error(without, tensors, "made with spans = 0: pass null");
    tensors.mask->queries[7] = 41;
    expect_error(with, tensors, "query_spans of position 3 in sample 0 are 0, 41");
    tensors.mask->queries[7] = 2;
    expect_error(with, tensors, "query_spans of position 3");
    tensors.mask->queries[7] = 4;
    tensors.mask->keys[0] = -1;
    expect_error(with, tensors, "key_spans of position 0 in sample 0 are -1");
    tensors.mask.reset();
    expect_error(with, tensors, "made with spans = 1: pass both");
}

}  // namespace
}  // namespace spion::test
