#include "compiler/plan/tile_candidates.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <random>
#include <string>

#include "codegen/cuda/warp_plan.h"
#include "compiler/plan/summary_tile.h"
#include "ir/error.h"
#include "tests/compiler/plan/plan_of.h"
#include "tests/compiler/plan/tile_cases.h"
#include "tests/support/expect_error.h"
#include "tests/support/seed.h"

namespace spion {
namespace {

using test::explain_launch;
using test::Launch;

Attention attention_for(std::int64_t length, int head_dim, DType dtype = DType::kBf16) {
    return {.heads = 2, .head_dim = head_dim, .length = length, .dtype = dtype, .scale = 1};
}

// With SPION_UPDATE_GOLDENS set the file is written first: read the difference before it is kept.
void expect_golden(const std::string& text, const std::string& name) {
    const std::string path = std::string(SPION_TEST_DATA) + "/goldens/" + name;
    if (std::getenv("SPION_UPDATE_GOLDENS") != nullptr) {
        std::ofstream(path, std::ios::binary) << text;
    }
    std::ifstream file(path, std::ios::binary);
    EXPECT_EQ(text, std::string(std::istreambuf_iterator<char>(file), {})) << name;
}

// Not by the host's, which no GPU is.
TEST(TileCandidates, RefusalsAreOfTheTargetsOwnFamily) {
    Attention attention = attention_for(1024, 192);
    attention.heads = attention.patterns = 4;
    attention.kv_heads = 2;
    for (const int capability : {80, 90}) {
        const Launch launch{attention, KernelRole::kKeyValueGradient, 64, cuda_target(capability)};
        expect_error<UserError>([&] { launch.choose(); },
                                "give one pattern a head of K and V, or one a layer");
    }
}

// The shapes that the times of kMeasured were measured with.
TEST(TileCandidates, TheMeasuredShapesWinWhereTheyWereMeasured) {
    for (const MeasuredCase& row : kMeasured) {
        for (const KernelRole role : kEveryRole) {
            const int stationary = std::min(row.block, 64);
            const int streamed = role != KernelRole::kForward && row.head_dim == 128 ? 32 : 64;
            TileShape expected{stationary, streamed, std::min(row.block, streamed), stationary / 16,
                               2};
            if (row.sm_90a && has_warp_plan(role, row.head_dim, row.block)) {
                expected = {.stationary_rows = row.block,
                            .streamed_rows = 32,
                            .gather_rows = row.block,
                            .warps = 1,
                            .stages = role == KernelRole::kForward ? 3 : 2,
                            .unit = MatrixUnit::kMmaSyncTma};
            } else if (row.sm_90a && row.block >= 64) {
                const bool pair =
                    row.head_dim == 128 && row.block == 128 && role != KernelRole::kQueryGradient;
                const int wide = pair && role == KernelRole::kForward ? 128 : 64;
                expected = {.stationary_rows = pair ? 128 : 64,
                            .streamed_rows = wide,
                            .gather_rows = std::min(row.block, wide),
                            .warps = pair ? 8 : 4,
                            .stages = row.head_dim == 128 ? 2 : 3,
                            .unit = MatrixUnit::kWgmma};
            }
            EXPECT_EQ((Launch{row.attention(), role, row.block, row.target()}.choose()), expected)
                << row.name << " " << to_string(role);
        }
    }
}

TEST(MeasuredShape, StreamsAsManyRowsAsRegistersHold) {
    const auto streamed = [](KernelRole role, DType dtype, int head_dim) {
        return Launch{attention_for(512, head_dim, dtype), role, 64, cuda_target(80)}
            .measured()
            .value()
            .streamed_rows;
    };
    for (const KernelRole role : kEveryRole) {
        EXPECT_EQ(streamed(role, DType::kBf16, 32), 64);
        EXPECT_EQ(streamed(role, DType::kFp16, 64), 64);
        EXPECT_EQ(streamed(role, DType::kFp32, 32), 64);
        EXPECT_EQ(streamed(role, DType::kTf32, 64), 32);
        EXPECT_EQ(streamed(role, DType::kFp32, 128), 32);
    }
    EXPECT_EQ(streamed(KernelRole::kForward, DType::kBf16, 128), 64);
    EXPECT_EQ(streamed(KernelRole::kQueryGradient, DType::kBf16, 128), 32);
    EXPECT_EQ(streamed(KernelRole::kKeyValueGradient, DType::kFp16, 128), 32);
}

TEST(MeasuredShape, FollowsTheBlock) {
    const auto shape = [](int block, const Target& target) {
        return Launch{attention_for(512, 64), KernelRole::kForward, block, target}
            .measured()
            .value();
    };
    EXPECT_EQ(shape(16, cuda_target(80)), (TileShape{16, 64, 16, 1, 2}));
    EXPECT_EQ(shape(32, cuda_target(80)), (TileShape{32, 64, 32, 2, 2}));
    EXPECT_EQ(shape(64, cuda_target(80)), (TileShape{64, 64, 64, 4, 2}));
    EXPECT_EQ(shape(128, cuda_target(80)), (TileShape{64, 64, 64, 4, 2}));
    EXPECT_EQ(shape(16, host_with(2)), (TileShape{16, 16, 16, 1, 1, MatrixUnit::kVector}));
    EXPECT_EQ(shape(64, host_with(2)), (TileShape{64, 64, 64, 1, 1, MatrixUnit::kVector}));
    EXPECT_EQ(shape(128, host_with(2)), (TileShape{64, 64, 64, 1, 1, MatrixUnit::kVector}));
}

// A launch of few items has gone before warps with items of their own have their tiles.
TEST(MeasuredShape, IsThatOfThreadBlocksWhereItemsAreFew) {
    const Target target = cuda_target(90);
    const auto chosen = [&](std::int64_t length, std::int64_t batch) {
        const Attention attention = attention_for(length, 64);
        const Launch launch{attention, KernelRole::kForward, 32, target};
        const auto candidates =
            tile_candidates(launch.asked(), planned_rows(length, 32), batch, kernel_families());
        return measured_among(candidates, launch.asked(), kernel_families()).value();
    };
    EXPECT_EQ(chosen(96, 1), (TileShape{32, 64, 32, 2, 2}));
    EXPECT_EQ(chosen(8192, 16), (TileShape{.stationary_rows = 32,
                                           .streamed_rows = 32,
                                           .gather_rows = 32,
                                           .warps = 1,
                                           .stages = 3,
                                           .unit = MatrixUnit::kMmaSyncTma}));
}

TEST(MeasuredShape, FitsSharedMemory) {
    Target target = cuda_target(90);
    const auto shape = [&] {
        return Launch{attention_for(512, 128, DType::kFp32), KernelRole::kKeyValueGradient, 64,
                      target}
            .measured();
    };
    // Rows of 128 * 4 bytes: 2 x 64 stationary, 2 x streamed x stages, 8 bytes of statistics.
    const auto bytes = [](int streamed, int stages) {
        return (2 * 64 + 2 * streamed * stages) * (128 * 4) + 8 * streamed * stages;
    };
    target.shared_bytes_per_block = bytes(32, 2);
    EXPECT_EQ(shape(), (TileShape{64, 32, 32, 4, 2, MatrixUnit::kFma}));
    target.shared_bytes_per_block = bytes(32, 2) - 1;
    EXPECT_EQ(shape(), (TileShape{64, 32, 32, 4, 1, MatrixUnit::kFma}));
    target.shared_bytes_per_block = bytes(32, 1) - 1;
    EXPECT_EQ(shape(), (TileShape{64, 16, 16, 4, 1, MatrixUnit::kFma}));
    target.shared_bytes_per_block = bytes(16, 1);
    EXPECT_EQ(shape(), (TileShape{64, 16, 16, 4, 1, MatrixUnit::kFma}));
    target.shared_bytes_per_block = bytes(16, 1) - 1;
    EXPECT_EQ(shape(), std::nullopt);
}

TEST(TileCandidates, EveryKnownTargetCanRunEveryShape) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    std::vector<Target> targets = {host_with(2), host_with(64, 16)};
    for (const int capability : test::known_capabilities()) {
        targets.push_back(cuda_target(capability));
    }
    for (const Target& target : targets) {
        for (const int block : {16, 32, 64, 128}) {
            const int length = pick(random, 1, 6 * block);
            for (const int head_dim : {16, 32, 48, 64, 96, 128, 160, 176, 240, 256}) {
                for (const DType dtype : kEveryDType) {
                    for (const KernelRole role : kEveryRole) {
                        const Launch launch{attention_for(length, head_dim, dtype), role, block,
                                            target};
                        const TileShape shape = launch.choose();
                        const KernelPlan plan = launch.plan_of(shape);
                        EXPECT_GE(plan.blocks, 1);
                        EXPECT_EQ(plan.problem, "");
                        if (target.back_end == BackEnd::kCuda) {
                            EXPECT_LE(plan.shared_bytes, target.shared_bytes_per_block);
                            EXPECT_EQ(shape.stationary_rows, 16 * shape.warps);
                        }
                    }
                }
            }
        }
    }
}

TEST(TileCandidates, SayWhyTheyCannotRun) {
    const Attention attention = attention_for(256, 128);
    const auto reason = [&](const TileShape& shape, const Rates& rates) -> std::string {
        const Launch launch{attention, KernelRole::kForward, 128, cuda_target(86), rates};
        for (const TileCandidate& candidate :
             tile_candidates(launch.asked(), planned_rows(256, 128), 1, kernel_families())) {
            if (candidate.shape == shape) {
                EXPECT_EQ(candidate.plan.problem.empty(), candidate.prediction.has_value());
                return candidate.plan.problem;
            }
        }
        return "not a candidate";
    };
    const Rates rates = rates_of(cuda_target(86));
    // Rows of 256 bytes: 128 of Q and 2 x 128 of K and V.
    EXPECT_EQ(reason({128, 128, 128, 8, 1}, rates), "");
    EXPECT_EQ(reason({128, 128, 128, 8, 2}, rates), "shared memory: 163840 bytes of 101376");
    Rates fewer = rates;
    fewer.registers = 32768;  // 4 warps of 32 threads with 256 each
    EXPECT_EQ(reason({64, 64, 64, 4, 1}, fewer), "");
    EXPECT_EQ(reason({128, 64, 64, 8, 1}, fewer), "registers: 65536 of 32768");
    EXPECT_EQ(reason({256, 64, 64, 16, 1}, rates), "not a candidate");
}

TEST(TileCandidates, TheWinnerIsTheMeasuredShapeUnlessAnotherIsClearlyFaster) {
    const auto candidate = [](int rows, double seconds) {
        TileCandidate one;
        one.shape = {rows, 64, 64, rows / 16, 2};
        one.plan.problem = seconds > 0 ? "" : "no";
        if (seconds > 0) {
            one.prediction = Prediction{};
            one.prediction->seconds = seconds;
        }
        return one;
    };
    const TileShape measured{64, 64, 64, 4, 2};
    const auto ranked = [&](double other, double own) {
        return rank_candidates({candidate(128, 0), candidate(32, other), candidate(64, own)},
                               measured, 3);
    };
    EXPECT_EQ(ranked(1, 1 + kMargin), (std::vector<std::size_t>{2, 1}));
    EXPECT_EQ(ranked(1, 1.001 + kMargin), (std::vector<std::size_t>{1, 2}));
    EXPECT_EQ(ranked(2, 1), (std::vector<std::size_t>{2, 1}));
    EXPECT_EQ(ranked(1, 0), (std::vector<std::size_t>{1}));
    EXPECT_TRUE(ranked(0, 0).empty());
    EXPECT_EQ(rank_candidates({candidate(32, 1), candidate(64, 1)}, std::nullopt, 1),
              (std::vector<std::size_t>{0}));
}

TEST(TileCandidates, NothingFitsSaysWhatWould) {
    Target target = cuda_target(90);
    const BlockPattern pattern = BlockPattern::full(128, 64);
    const auto choose = [&](DType dtype) {
        return Launch{attention_for(128, 128, dtype), KernelRole::kKeyValueGradient, 64, target}
            .choose();
    };
    // K, V and Q, dO of 16 rows each, LSE and delta of 16 queries.
    target.shared_bytes_per_block = 4 * 16 * 512 + 128;
    EXPECT_EQ(choose(DType::kFp32), (TileShape{16, 16, 16, 1, 1, MatrixUnit::kFma}));
    target.shared_bytes_per_block -= 1;
    expect_error<UserError>(
        [&] { choose(DType::kFp32); },
        "no attention_key_value_gradient tile for D=128 fp32 fits: the smallest needs 32896 bytes "
        "of shared memory and sm_90a offers 32895 a block, so use D=112 in fp32 or bf16 at D=128, "
        "which would fit");
    EXPECT_NO_THROW(choose(DType::kBf16));
    target.shared_bytes_per_block = 10000;
    expect_error<UserError>([&] { choose(DType::kFp16); }, "so use D=64 in fp16, which would fit");
    target.shared_bytes_per_block = 100;
    expect_error<UserError>([&] { choose(DType::kTf32); }, "so use a GPU that offers more");
    expect_error<UserError>(
        [&] { explain_launch(attention_for(128, 128), pattern, KernelRole::kForward, target); },
        "no attention_forward tile for D=128 bf16 fits");
}

TEST(SummaryTile, FitsSharedMemory) {
    const auto tile = [](int head_dim, DType dtype, int block, const Target& target) {
        return choose_summary_tile(attention_for(512, head_dim, dtype), block, target);
    };
    EXPECT_EQ(tile(64, DType::kBf16, 128, cuda_target(80)), 64);
    EXPECT_EQ(tile(256, DType::kBf16, 64, cuda_target(86)), 64);
    EXPECT_EQ(tile(256, DType::kBf16, 16, cuda_target(86)), 16);
    EXPECT_EQ(tile(256, DType::kFp32, 64, cuda_target(90)), 64);
    EXPECT_EQ(tile(256, DType::kFp32, 64, host_with(2)), 64);
    // Q and K of 64 rows of 192 * 4 bytes are 98304 bytes, of 208 * 4 106496; there are 101376.
    EXPECT_EQ(tile(192, DType::kFp32, 64, cuda_target(86)), 64);
    EXPECT_EQ(tile(208, DType::kFp32, 64, cuda_target(86)), 32);
    Target target = cuda_target(90);
    target.shared_bytes_per_block = 2 * 16 * 1024;
    EXPECT_EQ(tile(256, DType::kTf32, 64, target), 16);
    target.shared_bytes_per_block -= 1;
    expect_error<UserError>([&] { tile(256, DType::kTf32, 64, target); },
                            "no score summary for D=256 tf32 fits: its smallest tile needs 32768 "
                            "bytes of shared memory and sm_90a offers 32767");
}

// What a kernel is compiled for must not depend on the pattern: see tile_candidates.h.
TEST(TileCandidates, PlanForRowsAsOfAUniformPattern) {
    for (const std::int64_t length : {1, 100, 640, 4096}) {
        const StreamedRows rows = planned_rows(length, 64);
        const std::int64_t blocks = (length + 63) / 64;
        std::vector<std::uint8_t> bits(static_cast<std::size_t>(blocks * blocks));
        const std::int64_t a_row =
            std::min(blocks, std::max<std::int64_t>(2, (blocks * 5 + 99) / 100));
        for (std::int64_t row = 0; row < blocks; ++row) {
            for (std::int64_t n = 0; n < a_row; ++n) {
                bits[static_cast<std::size_t>(row * blocks + (row + n) % blocks)] = 1;
            }
        }
        const StreamedRows uniform =
            streamed_rows(BlockPattern(length, 64, bits), KernelRole::kForward);
        EXPECT_EQ(rows.stationary, uniform.stationary);
        EXPECT_EQ(rows.distinct, uniform.distinct);
        if (length % 64 == 0 || blocks <= 2) {
            EXPECT_EQ(rows.streamed, uniform.streamed) << length;
        }
    }
}

TEST(ExplainTiles, IsTheGoldenText) {
    const auto text = [](int capability, int head_dim, DType dtype, KernelRole role) {
        return explain_launch(attention_for(4096, head_dim, dtype),
                              random_pattern(4096, 64, 0.03, 1), role, cuda_target(capability), 32);
    };
    expect_golden(text(90, 32, DType::kBf16, KernelRole::kForward), "explain-forward-sm_90a.txt");
    expect_golden(text(86, 128, DType::kFp32, KernelRole::kKeyValueGradient),
                  "explain-key_value_gradient-sm_86.txt");
    expect_golden(explain_launch(attention_for(300, 16, DType::kFp32), BlockPattern::full(300, 128),
                                 KernelRole::kQueryGradient, host_with(2), 4),
                  "explain-query_gradient-host.txt");
}

}  // namespace
}  // namespace spion
