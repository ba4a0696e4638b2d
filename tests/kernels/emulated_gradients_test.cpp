// The fused backward of sm_90a, run on the host, several thread blocks at once, against the
// definition of the operation in double.
#include "tests/kernels/emulated_gradients.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "codegen/emit.h"
#include "compiler/launch/dq_schedule.h"
#include "tests/kernels/emulated_problem.h"
#include "tests/kernels/hopper_emulation.h"
#include "tests/support/seed.h"

namespace spion {
namespace {

class EmulatedGradientsTest : public testing::TestWithParam<EmulatedCase> {
  protected:
    static SpionTensorMap map_of(Tensor& tensor, int rows) {
        const SpionTensor view = tensor.view();
        return emulation::tensor_map({.data = view.data,
                                      .width = tensor.width,
                                      .length = tensor.length,
                                      .heads = tensor.heads,
                                      .batch = tensor.batch,
                                      .row_stride = view.row_stride * 2,
                                      .head_stride = view.head_stride * 2,
                                      .batch_stride = view.batch_stride * 2,
                                      .columns = 64,
                                      .rows = rows});
    }

    // Of `blocks` thread blocks at once. Every buffer but the counters and semaphores starts as NaN.
    static void run(Problem& problem, int blocks, unsigned seed) {
        const EmulatedCase& c = GetParam();
        const TileProgram program = with_walk(c, KernelRole::kGradients, problem.blocks);
        const DqSchedule schedule = schedule_dq(program, blocks);
        const EmittedGeometry geometry = spion::geometry(program, emulated_hopper_target());
        SpionSm90Arguments args{};
        constexpr int kGroupRows = 64;
        Tensor* const tensors[] = {&problem.k, &problem.v, &problem.q, &problem.d_o};
        for (int i = 0; i < 4; ++i) {
            args.maps[i] = map_of(*tensors[i], i < 2 ? kGroupRows : program.gather_rows);
        }
        SpionAttentionArguments& attention = args.attention;
        attention.q = problem.q.view();
        attention.k = problem.k.view();
        attention.v = problem.v.view();
        attention.o = problem.o.view();
        attention.d_o = problem.d_o.view();
        attention.d_q = problem.d_q.view();
        attention.d_k = problem.d_k.view();
        attention.d_v = problem.d_v.view();
        attention.lse = problem.lse.data();
        attention.delta = problem.delta.data();
        attention.lengths = c.key_padding ? problem.lengths.data() : nullptr;
        attention.order = program.order.data();
        attention.offsets = program.offsets.data();
        attention.gather_blocks = schedule.gather_blocks.data();
        attention.tiles = program.tiles();
        attention.batch = problem.batch;
        args.items = static_cast<unsigned>(problem.batch * c.heads * program.tiles());
        std::vector<unsigned> counters(2, 0);
        const auto query_blocks = (c.length + program.gather_rows - 1) / program.gather_rows;
        std::vector<unsigned> semaphore(
            static_cast<std::size_t>(problem.batch * c.heads * query_blocks), 0);
        std::vector<float> sums(
            semaphore.size() * static_cast<std::size_t>(program.gather_rows * geometry.tile_width),
            std::nanf(""));
        args.counters = counters.data();
        args.dq_tickets = schedule.tickets.data();
        args.dq_accum = sums.data();
        args.dq_semaphore = semaphore.data();
        args.batch_heads_at_once = static_cast<unsigned>(schedule.batch_heads_at_once);
        for (const std::vector<float>* rows : {&problem.lse, &problem.delta}) {
            emulation::allow_reads(rows->data(), rows->size() * sizeof(float));
        }
        const EmulatedGradients kernel = find_emulated_gradients(c.name);
        emulation::launch_hopper(std::min<std::int64_t>(blocks, args.items), geometry.threads,
                                 geometry.shared_bytes, seed, [&] { kernel(args); });
        emulation::forget_reads();
        EXPECT_EQ(counters, std::vector<unsigned>(2, 0));
        EXPECT_EQ(semaphore, std::vector<unsigned>(semaphore.size(), 0));
    }

    static void expect_right(Problem& problem, int blocks, unsigned seed);
};

struct Gradients {
    std::vector<double> dq, dk, dv;
};

void append(std::vector<double>& to, Tensor& tensor, int b, int h) {
    for (std::int64_t l = 0; l < tensor.length; ++l) {
        for (int d = 0; d < tensor.width; ++d) to.push_back(tensor.get(b, h, l, d));
    }
}

double distance(const std::vector<double>& got, const std::vector<double>& want, double terms) {
    double difference = 0, norm = 0;
    for (std::size_t i = 0; i < want.size(); ++i) {
        if (!std::isfinite(got[i])) return kInfinite;
        difference += (got[i] - want[i]) * (got[i] - want[i]);
        norm += want[i] * want[i];
    }
    return std::sqrt(difference / std::max({norm, terms, 1e-30}));
}

// Sets LSE and delta, which kernels before this one make, and zeros of dQ where a block row has no
// block at all; then runs the kernel twice.
void EmulatedGradientsTest::expect_right(Problem& problem, int blocks, unsigned seed) {
    const EmulatedCase& c = GetParam();
    Gradients want;
    double dq_terms = 0, dk_terms = 0;
    for (int b = 0; b < problem.batch; ++b) {
        for (int h = 0; h < c.heads; ++h) {
            const Reference r = problem.reference(b, h);
            const auto row = static_cast<std::ptrdiff_t>((b * c.heads + h) * c.length);
            std::copy(r.lse.begin(), r.lse.end(), problem.lse.begin() + row);
            std::copy(r.delta.begin(), r.delta.end(), problem.delta.begin() + row);
            want.dq.insert(want.dq.end(), r.dq.begin(), r.dq.end());
            want.dk.insert(want.dk.end(), r.dk.begin(), r.dk.end());
            want.dv.insert(want.dv.end(), r.dv.begin(), r.dv.end());
            dq_terms += r.dq_terms;
            dk_terms += r.dk_terms;
            for (std::int64_t l = 0; l < c.length; ++l) {
                const auto& row_blocks = problem.blocks[0][static_cast<std::size_t>(l / c.block)];
                if (std::find(row_blocks.begin(), row_blocks.end(), true) != row_blocks.end())
                    continue;
                for (int d = 0; d < c.head_dim; ++d) problem.d_q.set(b, h, l, d, 0.0F);
            }
        }
    }
    Problem again = problem;
    run(problem, blocks, seed);
    Gradients got;
    for (int b = 0; b < problem.batch; ++b) {
        for (int h = 0; h < c.heads; ++h) {
            append(got.dq, problem.d_q, b, h);
            append(got.dk, problem.d_k, b, h);
            append(got.dv, problem.d_v, b, h);
        }
    }
    constexpr double kTolerance = 1e-2;
    EXPECT_LT(distance(got.dq, want.dq, dq_terms), kTolerance);
    EXPECT_LT(distance(got.dk, want.dk, dk_terms), kTolerance);
    EXPECT_LT(distance(got.dv, want.dv, 0), kTolerance);
    run(again, blocks, seed + 7);  // other threads are late
    EXPECT_TRUE(again.d_q.bytes == problem.d_q.bytes);
    EXPECT_TRUE(again.d_k.bytes == problem.d_k.bytes);
    EXPECT_TRUE(again.d_v.bytes == problem.d_v.bytes);
}

TEST_P(EmulatedGradientsTest, FollowTheDefinitionAndRepeatTheirBits) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937 random(static_cast<unsigned>(seed));
    Problem problem(GetParam(), GetParam().batch(), random);
    expect_right(problem, 1 + static_cast<int>(random() % 5), static_cast<unsigned>(seed));
}

// Items of a block each: every partial dQ is the first and the last of its query block, and an item
// is over before the next one has been asked for.
TEST_P(EmulatedGradientsTest, DoSoWithABlockARow) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937 random(static_cast<unsigned>(seed));
    Problem problem(GetParam(), GetParam().batch(), random);
    for (std::size_t i = 0; i < problem.blocks[0].size(); ++i) {
        std::vector<bool>& row = problem.blocks[0][i];
        for (std::size_t j = 0; j < row.size(); ++j) row[j] = i == j;
    }
    expect_right(problem, 1 + static_cast<int>(random() % 3), static_cast<unsigned>(seed));
}

std::string case_name(const testing::TestParamInfo<EmulatedCase>& info) {
    return info.param.name;
}

INSTANTIATE_TEST_SUITE_P(Cases, EmulatedGradientsTest, testing::ValuesIn(emulated_gradients()),
                         case_name);

}  // namespace
}  // namespace spion
