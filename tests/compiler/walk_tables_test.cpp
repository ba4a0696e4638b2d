// A program's walk as one block of numbers.
#include "compiler/walk_tables.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "compiler/dq_schedule.h"
#include "ir/error.h"
#include "tests/support/expect_error.h"
#include "tests/support/lower_planned.h"
#include "tools/random_pattern.h"

namespace spion {
namespace {

constexpr std::int64_t kLength = 1000;  // 63 blocks of 16, the last one ragged

Attention operation() {
    return {.heads = 2, .head_dim = 64, .length = kLength, .dtype = DType::kBf16, .scale = 1};
}

std::vector<std::int32_t> written(const TileProgram& program, const WalkTables& tables) {
    std::vector<std::int32_t> block(static_cast<std::size_t>(tables.size), -1);
    write_walk(program, tables, 132, block);
    return block;
}

bool holds(const int* table, const std::vector<std::int32_t>& values) {
    return std::equal(values.begin(), values.end(), table);
}

TEST(WalkTables, HoldTheWalkWhereTheArgumentsPoint) {
    const BlockPattern pattern = random_pattern(kLength, 16, 0.2, 3);
    for (const KernelRole role : {KernelRole::kForward, KernelRole::kKeyValueGradient}) {
        const TileShape packed{.stationary_rows = 64,
                               .streamed_rows = 64,
                               .gather_rows = 16,
                               .warps = 4,
                               .stages = 2,
                               .packed_rows = 4};
        const TileProgram program = lower(operation(), pattern, role, cuda_target(90), packed);
        const auto listed = static_cast<std::int64_t>(program.gather_blocks.size());
        const WalkTables tables = walk_tables(program, listed + 5);
        const std::vector<std::int32_t> block = written(program, tables);
        SpionAttentionArguments args = {};
        point_at(block.data(), tables, args);
        EXPECT_TRUE(holds(args.order, program.order));
        EXPECT_TRUE(holds(args.offsets, program.offsets));
        EXPECT_TRUE(holds(args.gather_blocks, program.gather_blocks));
        EXPECT_TRUE(std::equal(program.block_row_masks.begin(), program.block_row_masks.end(),
                               args.block_row_masks));
        EXPECT_EQ(block.back(), 0) << "what the walk does not need is zero";
        for (const std::int64_t at :
             {tables.order, tables.offsets, tables.gather_blocks, tables.block_row_masks}) {
            EXPECT_EQ(at % 4, 0);
        }
    }
}

TEST(WalkTables, OfGradientsTogetherAreInTheOrderOfTurns) {
    const TileProgram program = lower(operation(), random_pattern(kLength, 128, 0.4, 1),
                                      KernelRole::kGradients, cuda_target(90));
    const WalkTables tables =
        walk_tables(program, most_gather_blocks(program, std::int64_t{8} * 8));
    const std::vector<std::int32_t> block = written(program, tables);
    const DqSchedule schedule = schedule_dq(program, 132);
    EXPECT_TRUE(holds(block.data() + tables.gather_blocks, schedule.gather_blocks));
    EXPECT_TRUE(holds(block.data() + tables.tickets, schedule.tickets));
}

// The block of a plan: one size, room for every pattern of as many blocks.
TEST(WalkTables, HaveRoomForEveryPatternOfAsManyBlocks) {
    for (const int block : {16, 64, 128}) {
        for (const int stationary : {16, 64}) {
            if (stationary > block) continue;
            const TileShape shape{.stationary_rows = stationary,
                                  .streamed_rows = 64,
                                  .gather_rows = 16,
                                  .warps = stationary / 16,
                                  .stages = 2};
            for (const std::uint64_t seed : {1, 2, 3}) {
                const BlockPattern pattern = random_pattern(kLength, block, 0.1 * seed, seed);
                const TileProgram program =
                    lower(operation(), pattern, KernelRole::kForward, cuda_target(80), shape);
                const std::int64_t most = most_gather_blocks(program, pattern.block_count());
                EXPECT_GE(most, std::ssize(program.gather_blocks));
                // Ragged blocks alone have fewer.
                EXPECT_LE(most, std::ssize(program.gather_blocks) +
                                    std::int64_t{2} * pattern.rows() * (block / 16) *
                                        std::max(1, block / stationary));
            }
        }
    }
}

TEST(WalkTables, RefuseWhatDoesNotFit) {
    const TileProgram program = lower(operation(), random_pattern(kLength, 64, 0.2, 3),
                                      KernelRole::kForward, cuda_target(90));
    const auto listed = static_cast<std::int64_t>(program.gather_blocks.size());
    expect_error<InternalError>([&] { written(program, walk_tables(program, listed - 1)); },
                                "for tables of");
    const WalkTables tables = walk_tables(program, listed);
    std::vector<std::int32_t> block(static_cast<std::size_t>(tables.size) - 1);
    expect_error<InternalError>([&] { write_walk(program, tables, 132, block); }, "numbers for");
    TileProgram merged = program;
    merged.gather_rows = 128;
    expect_error<InternalError>([&] { most_gather_blocks(merged, 1); }, "depends on the pattern");
}

}  // namespace
}  // namespace spion
