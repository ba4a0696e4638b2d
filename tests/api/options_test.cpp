// What an attention may have beside its pattern, through the library on the host: keys of another
// length, values of another width, changes of scores, sinks and a bias by relative position with their
// gradients, dropout and patterns of heads, against the float64 reference; and what is wrong with them in a sentence.
#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "tests/api/expect_status.h"
#include "tests/api/host_calls.h"
#include "tests/support/seed.h"

namespace spion::test {
namespace {

constexpr double kTolerance = 2e-5;  // of fp32, whose tanh and exp are a little less exact

class ApiOptions : public testing::Test {
  protected:
    static const Context& context() {
        static const Context shared = Context::host({.memory_only = true});
        return shared;
    }
    static oracle::Problem shape(int heads = 4) {
        oracle::Problem problem;
        problem.heads = heads;
        problem.length = 90;
        problem.block = 32;
        problem.batch = 2;
        return problem;
    }
    void expect_right(const oracle::Problem& problem) {
        const Pattern pattern = pattern_of(problem);
        const Plan plan = context().plan(attention_of(problem), {.typical = pattern});
        EXPECT_EQ(oracle::faults(problem, run_on_host(plan, pattern, problem), kTolerance), "");
    }
    const std::uint64_t seed_ = fresh_seed();
};

TEST_F(ApiOptions, EachMeetsTheReference) {
    const oracle::Options each[] = {
        {.key_length = 150},
        {.key_length = 40, .key_value_heads = 2},
        {.softcap = true},
        {.alibi = true},
        {.sinks = true},
        {.dropout = true},
        {.reach = 20},
        {.key_length = 150, .key_value_heads = 2, .softcap = true, .sinks = true, .reach = 200},
        {.key_value_heads = 2, .patterns = 2},
        {.key_value_heads = 2, .patterns = 4},
        {.value_dim = 56},
        {.key_length = 150, .value_dim = 16},
        {.key_value_heads = 2, .patterns = 2, .sinks = true, .dropout = true, .value_dim = 72},
        {.key_length = 150, .softcap = true, .alibi = true, .sinks = true, .dropout = true},
        {.key_value_heads = 2,
         .patterns = 2,
         .softcap = true,
         .alibi = true,
         .sinks = true,
         .dropout = true,
         .reach = 7},
        {.score = "2 * tanh(score / 2) - 0.05 * (1 + head) * fabs(q - k)"},
        {.key_length = 150,
         .key_value_heads = 2,
         .alibi = true,
         .sinks = true,
         .dropout = true,
         .reach = 9,
         .score = "q < k ? score * sigmoid(score) : max(score, 0.5) + batch"}};
    int index = 0;
    for (const oracle::Options& options : each) {
        SCOPED_TRACE(index);
        oracle::Problem problem =
            oracle::random_problem(shape(), options, 0.5, seed_ + static_cast<unsigned>(index));
        problem.causal = index % 2 == 0;
        problem.pruned_zero = index % 3 == 0;
        expect_right(problem);
        ++index;
    }
}

TEST_F(ApiOptions, MasksOfKeysOfAnotherLengthMeetTheReference) {
    for (std::uint64_t round = 0; round < 3; ++round) {
        oracle::Problem problem =
            oracle::random_problem(shape(2), {.key_length = 130}, 0.7, seed_ + round);
        problem.rules = oracle::random_rules(problem.length, problem.batch, seed_ + round, 130);
        problem.lengths = {130, 55};
        expect_right(problem);
    }
}

// The state is read by each call: another offset drops other elements, and none when it says so.
TEST_F(ApiOptions, DropoutIsWhatItsStateSays) {
    oracle::Problem problem = oracle::random_problem(shape(2), {.dropout = true}, 0.8, seed_);
    const Pattern pattern = pattern_of(problem);
    const Plan plan = context().plan(attention_of(problem));
    const oracle::Outputs first = run_on_host(plan, pattern, problem);
    EXPECT_EQ(run_on_host(plan, pattern, problem).o, first.o);
    ++problem.offset;
    const oracle::Outputs second = run_on_host(plan, pattern, problem);
    EXPECT_NE(second.o, first.o);
    EXPECT_EQ(second.lse, first.lse) << "what is dropped is in the softmax's sum";
    EXPECT_EQ(oracle::faults(problem, second, kTolerance), "");
    problem.dropout_enabled = false;
    const oracle::Outputs none = run_on_host(plan, pattern, problem);
    EXPECT_EQ(oracle::faults(problem, none, kTolerance), "");
    problem.dropout = 0;
    EXPECT_EQ(oracle::faults(problem, none, kTolerance), "");
}

// With sinks, whose kernel is another one behind those of the passes.
TEST_F(ApiOptions, TheLibraryAdvancesDropout) {
    oracle::Problem problem =
        oracle::random_problem(shape(2), {.sinks = true, .dropout = true}, 0.8, seed_);
    const Pattern pattern = pattern_of(problem);
    const Plan plan = context().plan(attention_of(problem));
    problem.offset = 0xFFFFFFFF;
    HostTensors tensors(problem);
    plan.advance_dropout(&tensors.state, 3);
    EXPECT_EQ(tensors.state.seed, problem.seed);
    EXPECT_EQ(tensors.state.offset, 2U) << "modulo 2^32";
    EXPECT_EQ(tensors.state.enabled, 1);
    plan.advance_dropout(&tensors.state);
    EXPECT_EQ(tensors.state.offset, 3U);
    HostMemory memory(plan, pattern, problem.batch);
    plan.forward(forward_arguments(tensors, memory));
    plan.backward(backward_arguments(tensors, memory));
    problem.offset = 3;
    EXPECT_EQ(oracle::faults(problem, tensors.out, kTolerance), "");

    expect_status<UserError>([&] { plan.advance_dropout(nullptr); },
                             "the state is null and the plan was made with dropout: pass it");
    auto* const odd = reinterpret_cast<DropoutState*>(reinterpret_cast<char*>(&tensors.state) + 4);
    expect_status<UserError>([&] { plan.advance_dropout(odd); }, "a multiple of 8 bytes");
    problem.dropout = 0;
    problem.sinks.clear();
    const Plan without = context().plan(attention_of(problem));
    expect_status<UserError>([&] { without.advance_dropout(&tensors.state); },
                             "the state is given and the plan was made without dropout");
    expect_status<UserError>([&] { without.advance_dropout(nullptr); }, "nothing to advance");
}

TEST_F(ApiOptions, TheGradientsOfSinksAndBiasMayBeLeftOut) {
    const oracle::Problem problem =
        oracle::random_problem(shape(2), {.sinks = true, .reach = 30}, 0.8, seed_);
    const Pattern pattern = pattern_of(problem);
    const Plan plan = context().plan(attention_of(problem));
    HostTensors tensors(problem);
    HostMemory memory(plan, pattern, problem.batch);
    plan.forward(forward_arguments(tensors, memory));
    BackwardArguments args = backward_arguments(tensors, memory);
    args.d_sinks = nullptr;
    args.d_relative_bias = nullptr;
    plan.backward(args);
    tensors.out.d_sinks.clear();
    tensors.out.d_relative_bias.clear();
    EXPECT_EQ(oracle::faults(problem, tensors.out, kTolerance), "");
}

// The sums of the bias' gradient lie in the workspace, whatever was there before.
TEST_F(ApiOptions, TheGradientOfABiasRepeatsItsBits) {
    oracle::Problem problem = oracle::random_problem(
        shape(), {.key_value_heads = 2, .dropout = true, .reach = 40}, 0.5, seed_);
    problem.lengths = {90, 13};
    const Pattern pattern = pattern_of(problem);
    const Plan plan = context().plan(attention_of(problem));
    HostTensors tensors(problem);
    HostMemory memory(plan, pattern, problem.batch);
    const std::size_t zeros = plan.workspace(problem.batch, Pass::kForward).bytes;
    ASSERT_LT(zeros, memory.bytes()) << "the backward pass has no room of its own";
    std::vector<std::vector<float>> gradients;
    for (const int byte : {0x00, 0xFF}) {
        std::memset(reinterpret_cast<char*>(memory.workspace.data()) + zeros, byte,
                    memory.bytes() - zeros);
        plan.forward(forward_arguments(tensors, memory));
        plan.backward(backward_arguments(tensors, memory));
        EXPECT_EQ(oracle::faults(problem, tensors.out, kTolerance), "");
        gradients.push_back(tensors.out.d_relative_bias);
    }
    EXPECT_EQ(gradients[0], gradients[1]);
}

TEST_F(ApiOptions, CallsSayWhatIsMissingOrTooMuch) {
    const oracle::Problem bare = oracle::random_problem(shape(2), {}, 0.8, seed_);
    const oracle::Problem full = oracle::random_problem(
        shape(2), {.alibi = true, .sinks = true, .dropout = true, .reach = 5}, 0.8, seed_);
    const Plan without = context().plan(attention_of(bare));
    const Plan with = context().plan(attention_of(full));
    HostTensors tensors(full);
    const auto refuses = [&](const Plan& plan, const std::string& words,
                             const std::function<void(ForwardArguments&)>& change) {
        HostMemory memory(plan, pattern_of(full), full.batch);
        ForwardArguments args = forward_arguments(tensors, memory);
        change(args);
        expect_status<UserError>([&] { plan.forward(args); }, words);
    };
    refuses(with, "dropout is null and the plan was made with dropout: pass it",
            [](ForwardArguments& args) { args.dropout = nullptr; });
    refuses(with, "alibi_slopes is null and the plan was made with alibi: pass it",
            [](ForwardArguments& args) { args.alibi_slopes = nullptr; });
    refuses(with, "sinks is null and the plan was made with sinks: pass it",
            [](ForwardArguments& args) { args.sinks = nullptr; });
    refuses(with, "relative_bias is null and the plan was made with relative_bias: pass it",
            [](ForwardArguments& args) { args.relative_bias = nullptr; });
    refuses(without, "sinks is given and the plan was made without sinks: pass null",
            [](ForwardArguments& args) { args.dropout = nullptr, args.alibi_slopes = nullptr; });
    refuses(without, "relative_bias is given and the plan was made without relative_bias",
            [](ForwardArguments& args) {
                args.dropout = nullptr, args.alibi_slopes = nullptr, args.sinks = nullptr;
            });
    refuses(with, "its address must be a multiple of 8 bytes", [](ForwardArguments& args) {
        args.dropout =
            reinterpret_cast<const DropoutState*>(reinterpret_cast<const char*>(args.dropout) + 4);
    });
    HostMemory memory(without, pattern_of(bare), bare.batch);
    HostTensors plain(bare);
    BackwardArguments args = backward_arguments(plain, memory);
    args.d_relative_bias = tensors.out.d_relative_bias.data();
    expect_status<UserError>(
        [&] { without.backward(args); },
        "d_relative_bias is given and the plan was made without relative_bias");
}

TEST_F(ApiOptions, ValuesOfAnotherWidthAreNamed) {
    const oracle::Problem problem = oracle::random_problem(shape(2), {.value_dim = 48}, 0.8, seed_);
    const Pattern pattern = pattern_of(problem);
    const Plan plan = context().plan(attention_of(problem));
    HostTensors tensors(problem);
    HostMemory memory(plan, pattern, problem.batch);
    ForwardArguments args = forward_arguments(tensors, memory);
    args.v.shape[3] = 32;
    expect_status<UserError>([&] { plan.forward(args); },
                             "v has rank 4 and shape [2, 2, 90, 32], and the plan takes "
                             "[B, H, L, Dv] = [2, 2, 90, 48]");
    args = forward_arguments(tensors, memory);
    args.o.shape[3] = 32;
    expect_status<UserError>([&] { plan.forward(args); }, "[B, H, L, Dv] = [2, 2, 90, 48]");
    args = forward_arguments(tensors, memory);
    args.k.shape[3] = 48;
    expect_status<UserError>([&] { plan.forward(args); }, "[B, H, L, D] = [2, 2, 90, 32]");
}

TEST_F(ApiOptions, PlansSayWhatIsNotAllowed) {
    const auto refuses = [](const Attention& attention, const std::string& words) {
        expect_status<UserError>([&] { context().plan(attention); }, words);
    };
    Attention attention{.heads = 4, .head_dim = 32, .length = 90, .dtype = DType::kFp32};
    attention.patterns = 3;
    refuses(attention, "3 patterns were given for 4 heads");
    attention.patterns = 0;
    attention.dropout = 1.0F;
    refuses(attention, "attention dropout 1 is not supported");
    attention.dropout = 0;
    attention.softcap = -1;
    refuses(attention, "softcap -1 is not allowed");
    attention.softcap = 0;
    attention.key_length = -1;
    refuses(attention, "length -1 of K and V is out of range");
    attention.key_length = 40;
    attention.block = 32;
    const Plan plan = context().plan(attention);
    expect_status<UserError>([&] { plan.tables(Pattern::full(90, 32)); },
                             "the pattern is for length 90 in blocks of 32, the plan for 90 "
                             "queries and 40 keys in blocks of 32");
    attention.value_dim = 20;
    refuses(attention, "head dimension 20 of V is not supported");
    attention.value_dim = 0;
    attention.relative_bias = 8193;
    refuses(attention, "relative_bias 8193 is not allowed: use 1 to 8192");
    attention.relative_bias = 0;
    attention.score = "score; 2";
    refuses(attention, "score 'score; 2': at column 6, ';' is not expected: use numbers, score, q");
    attention.score = "score / 2";
    attention.score_derivative = "2";
    refuses(attention, "score_derivative '2' is not the derivative of score 'score/2'");
    attention.score = "";
    refuses(attention, "score_derivative '2' was given without a score");
    attention.score_derivative = "";
    attention.key_length = 0;
    attention.patterns = 4;
    const Plan of_heads = context().plan(attention);
    expect_status<UserError>([&] { of_heads.tables(Pattern::full(90, 32)); },
                             "the pattern has 1 patterns and the plan 4: give as many");
}

TEST_F(ApiOptions, DiscoverySaysWhatItDoesNotPool) {
    const auto refuses = [](const Attention& attention, const std::string& words) {
        expect_status<UserError>([&] { context().discoverer(attention, {.block = 32}); }, words);
    };
    const Attention plain{.heads = 4, .length = 90, .block = 32, .dtype = DType::kFp32};
    const auto with = [&](auto change) {
        Attention attention = plain;
        change(attention);
        return attention;
    };
    refuses(with([](Attention& a) { a.patterns = 4; }), "patterns of its heads");
    refuses(with([](Attention& a) { a.key_length = 40; }), "keys of another length");
    refuses(with([](Attention& a) { a.relative_bias = 16; }), "leave relative_bias 0");
    refuses(with([](Attention& a) { a.score = "score / 2"; }), "leave score null");
    refuses(with([](Attention& a) { a.spans = true; }), "leave spans 0");
    refuses(with([](Attention& a) { a.spans = a.varlen = true; }), "leave varlen 0");
}

TEST_F(ApiOptions, PatternsOfHeadsAreKeptApart) {
    const oracle::Problem problem = oracle::random_problem(
        shape(), {.key_length = 150, .key_value_heads = 2, .patterns = 2}, 0.5, seed_);
    const Pattern pattern = pattern_of(problem);
    EXPECT_EQ(pattern.patterns(), 2);
    EXPECT_EQ(pattern.rows(), 3);
    EXPECT_EQ(pattern.columns(), 5);
    EXPECT_EQ(pattern.key_length(), 150);
    EXPECT_EQ(pattern.bits(), problem.bits);
    const Pattern first = pattern.head(0), second = pattern.head(1);
    EXPECT_EQ(first.block_count() + second.block_count(), pattern.block_count());
    EXPECT_EQ(pattern.text(), first.text() + "\n" + second.text());
    EXPECT_EQ(Pattern::from_heads(std::vector{first, second}).digest(), pattern.digest());
    EXPECT_NE(Pattern::from_heads(std::vector{second, first}).digest(), pattern.digest());
    expect_status<UserError>([&] { pattern.head(2); }, "head 2 was asked for");
    expect_status<UserError>(
        [&] {
            Pattern::from_heads(std::vector{first, Pattern::full(90, 32)});
        },
        "give all heads of a layer the same lengths and block");
    expect_status<UserError>([] { Pattern::from_heads({}); }, "no pattern was given");
}

}  // namespace
}  // namespace spion::test
