// The order in which shares of dQ are added: complete, without deadlock however fast thread blocks
// are, and the same every time.
#include "compiler/launch/dq_schedule.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>

#include "compiler/plan/layer_roles.h"
#include "ir/error.h"
#include "tests/support/lower_planned.h"
#include "tests/support/seed.h"
#include "tools/oracle/random_pattern.h"

namespace spion {
namespace {

TileProgram program_of(std::int64_t length, int head_dim, double density, std::uint64_t seed) {
    const Attention attention{.heads = 2,
                              .head_dim = head_dim,
                              .length = length,
                              .dtype = DType::kBf16,
                              .scale = 0.1F,
                              .softmax = SoftmaxKind::kPrunedZero};
    const BlockPattern pattern = random_pattern(length, 128, density, seed);
    return lower(attention, pattern, KernelRole::kGradients, cuda_target(90));
}

// Runs the schedule for `pairs` (b, h) pairs on thread blocks that take their items as
// kernels/cuda/sm90/wgmma_pipeline.cuh does, a random block advancing at a time. Returns the steps
// that were never reached.
std::int64_t steps_left(const TileProgram& program, const DqSchedule& schedule, int sm_count,
                        int batch_heads, std::mt19937_64& random) {
    struct Block {
        std::int64_t item = -1;  // number as handed out
        int step = 0;
    };
    const std::int64_t items = std::int64_t{batch_heads} * program.tiles();
    const auto place_of = [&](std::int64_t item) {
        const std::int64_t together = std::int64_t{schedule.batch_heads_at_once} * program.tiles();
        const std::int64_t first = item / together * schedule.batch_heads_at_once;
        const std::int64_t within = item - first * program.tiles();
        const std::int64_t here =
            std::min<std::int64_t>(schedule.batch_heads_at_once, batch_heads - first);
        return std::pair(first + within % here, within / here);
    };
    std::map<std::pair<std::int64_t, std::int32_t>, std::int32_t> tickets;
    std::vector<Block> blocks(static_cast<std::size_t>(sm_count));
    std::int64_t next = 0, left = batch_heads * std::int64_t{program.offsets.back()};
    // A block that can advance does; when none can, the rest is never reached.
    for (bool moved = true; moved;) {
        moved = false;
        std::shuffle(blocks.begin(), blocks.end(), random);
        for (Block& block : blocks) {
            while (true) {
                if (block.item < 0) {
                    if (next == items) break;
                    block = {next++, 0};
                }
                const auto [batch_head, place] = place_of(block.item);
                const auto at = static_cast<std::size_t>(place);
                const std::int32_t entry = program.offsets[at] + block.step;
                if (entry == program.offsets[at + 1]) {
                    block.item = -1;
                    moved = true;
                    continue;
                }
                const auto partial = static_cast<std::size_t>(entry);
                std::int32_t& ticket = tickets[{batch_head, schedule.gather_blocks[partial]}];
                if (ticket != (schedule.tickets[partial] & ~kLastTicket)) break;
                ++ticket;
                ++block.step;
                --left;
                moved = true;
                if (random() % 3 == 0) break;
            }
        }
    }
    return left;
}

void expect_complete(const TileProgram& program, const DqSchedule& schedule) {
    ASSERT_EQ(schedule.gather_blocks.size(), program.gather_blocks.size());
    ASSERT_EQ(schedule.tickets.size(), program.gather_blocks.size());
    std::map<std::int32_t, std::set<std::int32_t>> tickets;
    std::map<std::int32_t, std::int32_t> last;
    for (int item = 0; item < program.tiles(); ++item) {
        const auto first = program.offsets[static_cast<std::size_t>(item)];
        const auto end = program.offsets[static_cast<std::size_t>(item) + 1];
        std::vector<std::int32_t> gather_blocks(schedule.gather_blocks.begin() + first,
                                                schedule.gather_blocks.begin() + end);
        for (std::int32_t i = first; i < end; ++i) {
            const auto at = static_cast<std::size_t>(i);
            const std::int32_t ticket = schedule.tickets[at] & ~kLastTicket;
            EXPECT_TRUE(tickets[schedule.gather_blocks[at]].insert(ticket).second);
            if ((schedule.tickets[at] & kLastTicket) != 0) {
                EXPECT_TRUE(last.emplace(schedule.gather_blocks[at], ticket).second);
            }
        }
        std::sort(gather_blocks.begin(), gather_blocks.end());
        EXPECT_TRUE(std::equal(gather_blocks.begin(), gather_blocks.end(),
                               program.gather_blocks.begin() + first,
                               program.gather_blocks.begin() + end));
    }
    EXPECT_EQ(last.size(), tickets.size());
    for (const auto& [gather_block, set] : tickets) {
        EXPECT_EQ(*set.begin(), 0) << gather_block;
        EXPECT_EQ(*set.rbegin() + 1, static_cast<std::int32_t>(set.size())) << gather_block;
        EXPECT_EQ(last[gather_block], *set.rbegin()) << gather_block;
    }
}

TEST(DqSchedule, IsCompleteAndNeverWaitsForEver) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    for (int round = 0; round < 40; ++round) {
        const int head_dim = random() % 2 == 0 ? 64 : 128;
        const bool is_long = round % 10 == 1;  // fewer batch-heads side by side
        const auto length =
            static_cast<std::int64_t>(is_long ? 14000 + random() % 30000 : 100 + random() % 6000);
        const double density = is_long ? 0.03
                               : round % 8 == 0
                                   ? 1.0
                                   : 0.02 + 0.001 * static_cast<double>(random() % 400);
        const int sm_count = 1 + static_cast<int>(random() % 140);
        const int batch_heads = 1 + static_cast<int>(random() % 11);
        SCOPED_TRACE(testing::Message()
                     << "L=" << length << " D=" << head_dim << " density " << density
                     << " sm_count " << sm_count << " pairs " << batch_heads);
        const TileProgram program = program_of(length, head_dim, density, random());
        const DqSchedule schedule = schedule_dq(program, sm_count);
        expect_complete(program, schedule);
        EXPECT_EQ(steps_left(program, schedule, sm_count, batch_heads, random), 0);
    }
}

TEST(DqSchedule, BatchHeadsShareTheCache) {
    EXPECT_EQ(batch_heads_at_once(1, 132), 4);
    EXPECT_EQ(batch_heads_at_once(128, 132), 4);
    EXPECT_EQ(batch_heads_at_once(256, 132), 2);
    EXPECT_EQ(batch_heads_at_once(1024, 132), 1);
    EXPECT_EQ(batch_heads_at_once(128, 3), 3);
}

TEST(DqSchedule, IsTheSameEveryTime) {
    const TileProgram program = program_of(4096, 64, 0.2, 5);
    const DqSchedule first = schedule_dq(program, 132), second = schedule_dq(program, 132);
    EXPECT_EQ(first.gather_blocks, second.gather_blocks);
    EXPECT_EQ(first.tickets, second.tickets);
}

TEST(DqSchedule, FewerThreadBlocksThanItIsMadeForMayWaitForEver) {
    // What a cooperative launch is for: the check above can fail.
    std::mt19937_64 random(7);
    std::int64_t left = 0;
    for (int round = 0; round < 10 && left == 0; ++round) {
        const TileProgram program = program_of(8192, 128, 0.3, random());
        left = steps_left(program, schedule_dq(program, 132), 2, 1, random);
    }
    EXPECT_GT(left, 0);
}

TEST(DqSchedule, FullPatternsAddInTheOrderOfWork) {
    const TileProgram program = program_of(2048, 128, 1.0, 1);
    const DqSchedule schedule = schedule_dq(program, 132);
    EXPECT_EQ(schedule.gather_blocks, program.gather_blocks);
    for (int item = 0; item < program.tiles(); ++item) {
        const auto at = static_cast<std::size_t>(program.offsets[static_cast<std::size_t>(item)]);
        EXPECT_EQ(schedule.tickets[at] & ~kLastTicket, item);
    }
}

TEST(DqSchedule, WantsTheProgramThatSumsAll) {
    TileProgram program = program_of(1024, 64, 0.5, 1);
    program.role = KernelRole::kKeyValueGradient;
    EXPECT_THROW(schedule_dq(program, 132), InternalError);
}

}  // namespace
}  // namespace spion
