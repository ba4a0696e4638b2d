// The CUDA attention kernels, run on the host, against the definition of the operation in double.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "codegen/emit.h"
#include "compiler/launch/bias_gradient.h"
#include "tests/kernels/cuda_emulation.h"
#include "tests/kernels/emulated_cases.h"
#include "tests/kernels/emulated_kernels.h"
#include "tests/kernels/emulated_problem.h"
#include "tests/kernels/emulated_walk.h"
#include "tests/support/seed.h"

namespace spion {
namespace {

class EmulatedAttention : public testing::TestWithParam<EmulatedCase> {
  protected:
    // Everything but the walk.
    static SpionAttentionArguments arguments(Problem& problem) {
        SpionAttentionArguments args{};
        args.q = problem.q.view();
        args.k = problem.k.view();
        args.v = problem.v.view();
        args.o = problem.o.view();
        args.d_o = problem.d_o.view();
        args.d_q = problem.d_q.view();
        args.d_k = problem.d_k.view();
        args.d_v = problem.d_v.view();
        args.lse = problem.lse.data();
        args.delta = problem.delta.data();
        args.lengths = problem.c.key_padding ? problem.lengths.data() : nullptr;
        args.batch = problem.batch;
        args.starts = problem.c.varlen ? problem.starts.data() : nullptr;
        args.rows = problem.starts.back();
        args.key_rows = problem.key_starts.back();
        if (problem.c.key_starts) args.key_starts = problem.key_starts.data();
        args.dropout = &problem.dropout;
        args.alibi_slopes = problem.slopes.data();
        args.sinks = problem.sinks.data();
        args.query_spans = problem.spans.queries.data();
        args.key_spans = problem.spans.keys.data();
        args.relative_bias = problem.bias.data();
        args.d_relative_bias = problem.d_bias.data();
        return args;
    }

    void run(KernelRole role, Problem& problem, unsigned seed, bool baked = false) {
        const TileProgram program = with_walk(GetParam(), role, problem.blocks);
        SpionAttentionArguments args = arguments(problem);
        if (!baked) {
            args.order = program.order.data();
            args.offsets = program.offsets.data();
            args.gather_blocks = program.gather_blocks.data();
            args.block_row_masks = program.block_row_masks.data();
        }
        const bool of_sequences = problem.c.by_number();
        args.tiles = of_sequences ? (walks_columns(role) ? args.key_rows : args.rows) /
                                            program.stationary_rows +
                                        problem.batch
                                  : program.tiles() / item_walks(program.attention, role);
        emulation::forget_reads();
        for (Tensor* t : {&problem.q, &problem.k, &problem.v, &problem.d_o}) {
            emulation::allow_reads(t->bytes.data(), t->bytes.size());
        }
        for (std::vector<float>* t : {&problem.lse, &problem.delta}) {
            emulation::allow_reads(t->data(), t->size() * 4);
        }
        const EmittedGeometry geometry = spion::geometry(program, emulated_target());
        const std::string name = std::string(GetParam().name) + (baked ? "_baked" : "");
        const EmulatedKernel kernel = find_emulated(name, to_string(role));
        const std::int64_t batch_heads =
            of_sequences ? item_heads(program.attention, role)
                         : std::int64_t{problem.batch} * pattern_heads(program.attention, role);
        const std::int64_t blocks = batch_heads * args.tiles;
        emulation::launch(blocks, geometry.threads, geometry.shared_bytes, seed,
                          [&] { kernel(args); });
    }

    // Of a case with a bias: its gradient from what dQ's kernel has summed.
    void sum_bias_gradient(Problem& problem, unsigned seed) {
        const Attention attention = program_of(GetParam(), KernelRole::kForward).attention;
        const SpionAttentionArguments args =
            bias_gradient_arguments(attention, arguments(problem), problem.d_bias.data());
        const LaunchGeometry geometry = bias_gradient_geometry(attention);
        const EmulatedKernel kernel = find_emulated(GetParam().name, "attention_bias_gradient");
        emulation::launch(geometry.work_items, geometry.threads, geometry.shared_bytes, seed,
                          [&] { kernel(args); });
    }
};

// ||x - reference|| / ||reference||, or over `least` where that is more, or 0 where nothing differs;
// infinity if anything is not a number or infinities differ.
double relative_error(const std::vector<double>& x, const std::vector<double>& reference,
                      double least = 1e-30) {
    double difference = 0, norm = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
        if (std::isinf(reference[i]) && x[i] == reference[i]) continue;
        if (!std::isfinite(x[i]) || std::isinf(reference[i])) return kInfinite;
        difference += (x[i] - reference[i]) * (x[i] - reference[i]);
        norm += reference[i] * reference[i];
    }
    return difference == 0 ? 0 : std::sqrt(difference) / std::max(std::sqrt(norm), least);
}

double tolerance(DType dtype) {
    switch (dtype) {
        case DType::kFp32:
            return 1e-5;
        case DType::kTf32:
            return 2e-3;
        case DType::kBf16:
        case DType::kFp16:
            return 1e-2;
    }
    return 0;
}

std::vector<double> gather(Tensor& tensor, int b, int h) {
    std::vector<double> values;
    for (std::int64_t l = 0; l < tensor.positions(b); ++l) {
        for (int d = 0; d < tensor.width; ++d) values.push_back(tensor.get(b, h, l, d));
    }
    values.resize(
        static_cast<std::size_t>(tensor.length * tensor.width));  // the rest does not exist
    return values;
}

std::vector<double> gather(const std::vector<float>& rows, std::int64_t length, int pair) {
    const auto begin = rows.begin() + pair * length;
    return {begin, begin + length};
}

// What lies beyond a sequence is not defined.
std::vector<double> defined(std::vector<double> got, const std::vector<double>& want,
                            std::int64_t positions) {
    std::copy(want.begin() + positions, want.end(), got.begin() + positions);
    return got;
}

TEST_P(EmulatedAttention, ForwardAndGradientsFollowTheDefinition) {
    const EmulatedCase& c = GetParam();
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937 random(static_cast<unsigned>(seed));
    Problem problem(c, c.batch(), random);
    run(KernelRole::kForward, problem, static_cast<unsigned>(seed));
    run(KernelRole::kQueryGradient, problem, static_cast<unsigned>(seed) + 1);
    run(KernelRole::kKeyValueGradient, problem, static_cast<unsigned>(seed) + 2);
    std::vector<double> got[6], want[6];
    double least[6] = {1e-30, 1e-30, 1e-30, 1e-30, 1e-30, 1e-30};
    const auto append = [](std::vector<double>& to, const std::vector<double>& from) {
        to.insert(to.end(), from.begin(), from.end());
    };
    const int group = c.heads / problem.k.heads;
    for (int b = 0; b < problem.batch; ++b) {
        Reference sums;  // dK and dV of a group's heads so far
        for (int h = 0; h < c.heads; ++h) {
            const Reference r = problem.reference(b, h);
            const int pair = b * c.heads + h;
            append(got[0], gather(problem.o, b, h));
            append(got[1], defined(gather(problem.lse, c.length, pair), r.lse, c.positions(b)));
            append(got[2], gather(problem.d_q, b, h));
            append(got[5], defined(gather(problem.delta, c.length, pair), r.delta, c.positions(b)));
            append(want[0], r.o);
            append(want[1], r.lse);
            append(want[2], r.dq);
            append(want[5], r.delta);
            least[2] = std::hypot(least[2], std::sqrt(r.dq_terms));
            least[3] = std::hypot(least[3], std::sqrt(r.dk_terms));
            for (auto [sum, one] : {std::pair(&sums.dk, &r.dk), std::pair(&sums.dv, &r.dv)}) {
                if (h % group == 0) sum->assign(one->size(), 0.0);
                for (std::size_t n = 0; n < one->size(); ++n) (*sum)[n] += (*one)[n];
            }
            if (h % group + 1 < group) continue;
            append(got[3], gather(problem.d_k, b, h / group));
            append(got[4], gather(problem.d_v, b, h / group));
            append(want[3], sums.dk);
            append(want[4], sums.dv);
        }
    }
    const char* names[] = {"o", "lse", "dq", "dk", "dv", "delta"};
    for (int i = 0; i < 6; ++i) {
        EXPECT_LT(relative_error(got[i], want[i], least[i]), tolerance(c.dtype)) << names[i];
    }
}

using EmulatedBias = EmulatedAttention;

TEST_P(EmulatedBias, GradientFollowsTheDefinitionAndRepeatsItsBits) {
    const EmulatedCase& c = GetParam();
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937 random(static_cast<unsigned>(seed));
    Problem problem(c, c.batch(), random);
    std::vector<double> want(problem.bias.size(), 0.0);
    double terms = 0;
    for (int pair = 0; pair < problem.batch * c.heads; ++pair) {
        const Reference r = problem.reference(pair / c.heads, pair % c.heads);
        terms += r.dbias_terms;
        for (std::size_t n = 0; n < r.dbias.size(); ++n) {
            want[static_cast<std::size_t>(pair % c.heads) * r.dbias.size() + n] += r.dbias[n];
        }
    }
    const auto run_backward = [&](unsigned order) {
        std::fill(problem.d_bias.begin(), problem.d_bias.end(), std::nanf(""));
        run(KernelRole::kQueryGradient, problem, order);
        sum_bias_gradient(problem, order + 1);
    };
    run(KernelRole::kForward, problem, static_cast<unsigned>(seed));
    run_backward(static_cast<unsigned>(seed) + 1);
    const std::vector<float> first = problem.d_bias;
    const std::vector<double> got(first.begin(), first.begin() + std::ssize(problem.bias));
    EXPECT_LT(relative_error(got, want, std::sqrt(terms)), tolerance(c.dtype));
    run_backward(static_cast<unsigned>(seed) + 7);  // threads in another order
    EXPECT_EQ(std::memcmp(first.data(), problem.d_bias.data(), first.size() * sizeof(float)), 0);
}

std::vector<EmulatedCase> cases_with_bias() {
    std::vector<EmulatedCase> cases = emulated_cases();
    std::erase_if(cases, [](const EmulatedCase& c) { return c.relative_bias == 0; });
    return cases;
}

using EmulatedBaked = EmulatedAttention;

TEST_P(EmulatedBaked, GivesTheBitsOfPassedTables) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937 random(static_cast<unsigned>(seed));
    Problem passed(GetParam(), GetParam().batch(), random);
    passed.blocks = {baked_blocks(GetParam())};
    Problem baked = passed;
    for (int role = 0; role < 3; ++role) {
        run(static_cast<KernelRole>(role), passed, static_cast<unsigned>(seed), false);
        run(static_cast<KernelRole>(role), baked, static_cast<unsigned>(seed) + 1, true);
    }
    const Tensor Problem::*tensors[] = {&Problem::o, &Problem::d_q, &Problem::d_k, &Problem::d_v};
    const Tensor untouched(GetParam(), passed.batch, false, false, true);
    EXPECT_NE(baked.o.bytes, untouched.bytes);
    for (const Tensor Problem::*tensor : tensors) {
        EXPECT_TRUE((passed.*tensor).bytes == (baked.*tensor).bytes);
    }
    const auto same_bits = [](const std::vector<float>& a, const std::vector<float>& b) {
        return std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
    };
    EXPECT_TRUE(same_bits(passed.lse, baked.lse));
    EXPECT_TRUE(same_bits(passed.delta, baked.delta));
}

std::vector<EmulatedCase> cases_that_are_baked() {
    std::vector<EmulatedCase> cases = emulated_cases();
    std::erase_if(cases, [](const EmulatedCase& c) {
        return std::find(std::begin(kBakedCases), std::end(kBakedCases), std::string(c.name)) ==
               std::end(kBakedCases);
    });
    return cases;
}

std::string case_name(const testing::TestParamInfo<EmulatedCase>& info) {
    return info.param.name;
}

INSTANTIATE_TEST_SUITE_P(Cases, EmulatedAttention, testing::ValuesIn(emulated_cases()), case_name);
INSTANTIATE_TEST_SUITE_P(Cases, EmulatedBias, testing::ValuesIn(cases_with_bias()), case_name);
INSTANTIATE_TEST_SUITE_P(Cases, EmulatedBaked, testing::ValuesIn(cases_that_are_baked()),
                         case_name);

}  // namespace
}  // namespace spion
