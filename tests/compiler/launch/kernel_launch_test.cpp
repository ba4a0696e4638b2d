// What a launch of a kernel that fetches by TMA is given: maps of its tensors, grid, counters and
// tables.
#include "compiler/launch/kernel_launch.h"

#include <gtest/gtest.h>

#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include "codegen/cuda/warp_plan.h"
#include "codegen/cuda/wgmma_plan.h"
#include "compiler/launch/dq_schedule.h"
#include "ir/error.h"
#include "tests/compiler/plan/plan_of.h"
#include "tests/support/expect_error.h"
#include "tests/support/fake_device.h"
#include "tests/support/lower_planned.h"
#include "tools/oracle/random_pattern.h"

namespace spion {
namespace {

constexpr EmittedGeometry kThreeBlocks{.threads = 256, .shared_bytes = 1024, .resident_blocks = 3};

// An H200 that writes down what it is asked for.
class WritingDevice : public test::FakeDevice {
  public:
    std::array<std::uint64_t, 16> tensor_map(const TensorBoxes& boxes) const override {
        described.push_back(boxes);
        return {described.size()};  // tells the maps apart
    }

    mutable std::vector<TensorBoxes> described;
};

// A program's launch, with its tables and its memory.
struct Launcher {
    Launcher(const TileProgram& program, const EmittedGeometry& emitted, const Target& target)
        : launch(program, emitted, target),
          hints(work_hints(program)),
          tables(walk_tables(program, static_cast<std::int64_t>(program.gather_blocks.size()))),
          block(static_cast<std::size_t>(tables.size)) {
        write_walk(program, tables, target.sm_count, block);
    }
    KernelLaunch launch;
    WorkHints hints;
    WalkTables tables;
    std::vector<std::int32_t> block;
    unsigned counters[2] = {}, dq_semaphore[1] = {};
    float dq_accum[1] = {};
};

class KernelLaunchTest : public testing::Test {
  protected:
    TileProgram program(KernelRole role) {
        const Attention attention{
            .heads = 2, .head_dim = 64, .length = 1000, .dtype = DType::kBf16, .scale = 1};
        const BlockPattern pattern = BlockPattern::full(1000, 64);
        return lower(attention, pattern, role, device_.target(),
                     test::Launch{attention, role, 64, device_.target()}.measured().value());
    }

    // [B, H, L, D] tensors one after the other, q at `memory_`.
    SpionAttentionArguments arguments(int batch) {
        SpionAttentionArguments args = {};
        args.batch = batch;
        SpionTensor* const tensors[] = {&args.q,   &args.k,   &args.v,   &args.o,
                                        &args.d_o, &args.d_q, &args.d_k, &args.d_v};
        char* data = memory_;
        for (SpionTensor* tensor : tensors) {
            *tensor = {data, 2 * 1000 * 64, 1000 * 64, 64};
            data += 64;
        }
        return args;
    }

    void launch(Launcher& launcher, const SpionAttentionArguments& args) {
        const PreparedLaunch prepared =
            launcher.launch.prepare(args, launcher.block.data(), launcher.tables,
                                    {.counters = launcher.counters,
                                     .dq_semaphore = launcher.dq_semaphore,
                                     .dq_accum = launcher.dq_accum},
                                    launcher.hints, device_);
        ASSERT_EQ(prepared.bytes(), sizeof(SpionSm90Arguments));
        ASSERT_EQ(prepared.data(), &prepared.arguments);
        launched_ = prepared.geometry;
        passed_ = prepared.arguments;
    }

    WritingDevice device_;
    LaunchGeometry launched_;
    SpionSm90Arguments passed_ = {};
    alignas(64) char memory_[1024] = {};
};

TEST_F(KernelLaunchTest, DescribesTheRolesTensorsInTheirOrder) {
    const std::vector<std::vector<int>> orders = {{0, 1, 2}, {0, 4, 3, 1, 2}, {1, 2, 0, 4}};
    for (const KernelRole role :
         {KernelRole::kForward, KernelRole::kQueryGradient, KernelRole::kKeyValueGradient}) {
        device_.described.clear();
        Launcher once(program(role), kThreeBlocks, device_.target());
        launch(once, arguments(5));
        const std::vector<int>& order = orders[static_cast<std::size_t>(role)];
        ASSERT_EQ(device_.described.size(), order.size());
        for (std::size_t i = 0; i < order.size(); ++i) {
            const TensorBoxes& boxes = device_.described[i];
            EXPECT_EQ(boxes.data, memory_ + 64 * order[i]) << to_string(role) << i;
            EXPECT_EQ(std::vector(boxes.extent, boxes.extent + 4),
                      (std::vector<std::int64_t>{64, 1000, 2, 5}));
            EXPECT_EQ(std::vector(boxes.stride, boxes.stride + 3),
                      (std::vector<std::int64_t>{128, 128000, 256000}));
            EXPECT_EQ(boxes.columns, 64);
            EXPECT_EQ(boxes.rows, 64);
            EXPECT_EQ(passed_.maps[i].words[0], i + 1);
        }
    }
}

// The tile is wider than the tensors, of which V has another dimension: what is beyond is zeros.
TEST_F(KernelLaunchTest, DescribesDimensionsAsTheyAre) {
    TileProgram padded = program(KernelRole::kQueryGradient);
    padded.attention.head_dim = 40;
    padded.attention.value_dim = 80;
    Launcher once(padded, {.resident_blocks = 1, .tile_width = 128}, device_.target());
    launch(once, arguments(5));
    std::vector<std::int64_t> widths;
    for (const TensorBoxes& boxes : device_.described) {
        widths.push_back(boxes.extent[0]);
        EXPECT_EQ(boxes.columns, 64);
    }
    EXPECT_EQ(widths, (std::vector<std::int64_t>{40, 80, 80, 40, 80}));  // q, dO, O, K, V
}

// Sequences that lie end to end: one batch of all their rows, an item a tile and one each more.
TEST_F(KernelLaunchTest, SequencesAreOneBatchOfAllTheirRows) {
    Attention attention{.heads = 2,
                        .head_dim = 64,
                        .length = 1000,
                        .dtype = DType::kBf16,
                        .scale = 1,
                        .mask = ElementMask::kSpans,
                        .varlen = true};
    const int starts[] = {0, 1000, 1003, 1300};
    for (const auto& [patterns, own] :
         std::vector<std::pair<int, int>>{{1, 0}, {2, 0}, {1, 4}, {2, 4}}) {
        attention.patterns = patterns;
        attention.sequence_patterns = own;
        const bool by_number = patterns == 1 || own > 0;
        const HeadPatterns pattern(std::vector(static_cast<std::size_t>(attention.pattern_count()),
                                               BlockPattern::full(1000, 64)));
        const TileProgram sequences = lower(
            attention, pattern, KernelRole::kForward, device_.target(),
            test::Launch{attention, KernelRole::kForward, 64, device_.target()}.measured().value());
        device_.described.clear();
        Launcher once(sequences, kThreeBlocks, device_.target());
        SpionAttentionArguments args = arguments(3);
        args.starts = starts;
        args.rows = 1300;
        launch(once, args);
        ASSERT_EQ(device_.described.size(), 3U);
        const auto* const extent = device_.described.front().extent;
        EXPECT_EQ(std::vector(extent, extent + 4), (std::vector<std::int64_t>{64, 1300, 2, 1}));
        const unsigned a_head = 1300 / sequences.stationary_rows + 3;
        const unsigned tiles = (1000 - 1) / sequences.stationary_rows + 1;
        EXPECT_EQ(passed_.items, by_number ? 2 * a_head : 3 * 2 * tiles);
        EXPECT_EQ(passed_.attention.tiles, static_cast<int>(by_number ? a_head : 2 * tiles));
        for (int item = 0; by_number && item < sequences.tiles(); ++item) {
            EXPECT_EQ(sequences.order[static_cast<std::size_t>(item)], item);
        }
    }
}

TEST_F(KernelLaunchTest, GradientsTogetherAreGivenTurnsAndRoom) {
    const Attention attention{
        .heads = 2, .head_dim = 64, .length = 1000, .dtype = DType::kBf16, .scale = 1};
    const TileProgram program = lower(attention, random_pattern(1000, 128, 0.4, 1),
                                      KernelRole::kGradients, device_.target());
    Launcher together(program, {.resident_blocks = 1}, device_.target());
    launch(together, arguments(5));
    EXPECT_EQ(device_.described.size(), 4U);
    EXPECT_EQ(device_.described[2].data, memory_);  // q
    EXPECT_EQ(device_.described[2].rows, 128);
    EXPECT_TRUE(launched_.all_at_once);
    EXPECT_FALSE(launched_.overlaps_previous);
    const DqSchedule schedule = schedule_dq(program, 132);
    EXPECT_EQ(passed_.batch_heads_at_once, static_cast<unsigned>(schedule.batch_heads_at_once));
    for (std::size_t i = 0; i < schedule.tickets.size(); ++i) {
        EXPECT_EQ(passed_.dq_tickets[i], schedule.tickets[i]);
        EXPECT_EQ(passed_.attention.gather_blocks[i], schedule.gather_blocks[i]);
    }
    EXPECT_EQ(passed_.dq_semaphore, together.dq_semaphore);
    EXPECT_EQ(passed_.dq_accum, together.dq_accum);
    constexpr std::size_t kQueryTiles = 2 * 8;  // of a sample: heads, gather blocks
    EXPECT_EQ(together.launch.bytes(5).dq_semaphore, 5 * kQueryTiles * sizeof(unsigned));
    EXPECT_EQ(together.launch.bytes(6).dq_accum, 6 * kQueryTiles * 128 * 64 * sizeof(float));
}

// Nothing of a launch is kept for the next: any thread may make it.
TEST_F(KernelLaunchTest, DescribesTensorsAnewEachTime) {
    Launcher again(program(KernelRole::kForward), kThreeBlocks, device_.target());
    SpionAttentionArguments args = arguments(5);
    launch(again, args);
    args.k.data = memory_ + 512;
    launch(again, args);
    ASSERT_EQ(device_.described.size(), 6U);
    EXPECT_EQ(device_.described[4].data, memory_ + 512);
    args.batch = 1;  // every map has B in it, and one sample has no stride
    launch(again, args);
    ASSERT_EQ(device_.described.size(), 9U);
    EXPECT_EQ(device_.described.back().extent[3], 1);
    EXPECT_EQ(device_.described.back().stride[2], 128);
    EXPECT_EQ(again.launch.bytes(5).counters, 2 * sizeof(unsigned));
    EXPECT_EQ(again.launch.bytes(5).dq_semaphore, 0U);
    EXPECT_EQ(again.launch.bytes(5).dq_accum, 0U);
}

TEST_F(KernelLaunchTest, StartsAsManyBlocksAsTheDeviceHolds) {
    Launcher some(program(KernelRole::kForward), kThreeBlocks, device_.target());
    launch(some, arguments(5));  // of 2 heads and 16 tiles
    EXPECT_EQ(launched_.work_items, 160);
    EXPECT_EQ(passed_.items, 160U);
    EXPECT_TRUE(launched_.overlaps_previous);
    EXPECT_EQ(launched_.threads, 256);
    EXPECT_EQ(passed_.counters, some.counters);
    EXPECT_EQ(passed_.attention.tiles, 16);
    EXPECT_EQ(passed_.attention.order, some.block.data());
    launch(some, arguments(3125));
    EXPECT_EQ(launched_.work_items, 3 * 132);
    EXPECT_EQ(passed_.items, 100000U);
}

// A row of 16 blocks among 15 of one: more than the average by 225 / 16, where a head has 31. 64
// MiB hold 131 heads of L = 1000, D = 64.
TEST_F(KernelLaunchTest, HandsOutLongWalksBeforeTheVeryEnd) {
    const Attention attention{
        .heads = 2, .head_dim = 64, .length = 1000, .dtype = DType::kBf16, .scale = 1};
    std::vector<std::uint8_t> bits(16 * 16);
    for (std::size_t i = 0; i < 16; ++i) bits[i] = bits[i * 16 + i] = 1;
    const KernelRole role = KernelRole::kForward;
    const TileProgram uneven =
        lower(attention, BlockPattern(1000, 64, bits), role, device_.target(),
              test::Launch{attention, role, 64, device_.target()}.measured().value());
    Launcher some(uneven, kThreeBlocks, device_.target());
    launch(some, arguments(5));  // 160 blocks: 1 + 15 * 16 * 160 / (31 * 16)
    EXPECT_EQ(passed_.lpt_heads, 10U);
    launch(some, arguments(500));
    EXPECT_EQ(passed_.lpt_heads, 131U);
    Launcher one(uneven, {.resident_blocks = 1}, device_.target());
    launch(one, arguments(40));
    EXPECT_EQ(passed_.lpt_heads,
              1U + (16U * 16U - 31U) * 132U / (16U * 31U));  // 60 of 80
    Launcher even(program(role), kThreeBlocks, device_.target());
    launch(even, arguments(500));
    EXPECT_EQ(passed_.lpt_heads, 1U);
}

TEST_F(KernelLaunchTest, RefusesWhatTheCopyEngineCannotRead) {
    Launcher strict(program(KernelRole::kForward), kThreeBlocks, device_.target());
    SpionAttentionArguments args = arguments(5);
    args.v.data = memory_ + 8;
    expect_error<UserError>([&] { launch(strict, args); }, "tensor v is at");
    args = arguments(5);
    args.q.row_stride = 68;
    expect_error<UserError>([&] { launch(strict, args); }, "multiples of 16 bytes");
    expect_error<UserError>([&] { launch(strict, arguments(1 << 26)); }, "use a smaller batch");
    launch(strict, arguments(5));  // and goes on
    EXPECT_EQ(passed_.maps[2].words[0], device_.described.size());
}

TEST_F(KernelLaunchTest, GivesWarpsTheirItems) {
    const Attention attention{
        .heads = 2, .head_dim = 64, .length = 1000, .dtype = DType::kBf16, .scale = 1};
    // Every row of 32 has itself; the keys of block 3 are wanted by all, those of 5 by eight.
    std::vector<std::uint8_t> bits;
    for (int row = 0; row < 32; ++row) {
        for (int column = 0; column < 32; ++column) {
            bits.push_back(row == column || column == 3 || (column == 5 && row < 8) ? 1 : 0);
        }
    }
    const BlockPattern pattern = BlockPattern(1000, 32, std::move(bits));
    const TileShape shape{.stationary_rows = 32,
                          .streamed_rows = 32,
                          .gather_rows = 32,
                          .warps = 1,
                          .stages = 2,
                          .unit = MatrixUnit::kMmaSyncTma};
    const TileProgram columns =
        lower(attention, pattern, KernelRole::kKeyValueGradient, device_.target(), shape);
    const EmittedGeometry emitted = geometry(columns, device_.target());
    EXPECT_EQ(emitted.items_at_once, 4);
    Launcher warps(columns, emitted, device_.target());
    launch(warps, arguments(5));
    EXPECT_EQ(launched_.work_items, 80);  // 4 items a block
    EXPECT_EQ(passed_.items, 320U);
    EXPECT_EQ(passed_.lpt_tiles, 2U);  // blocks 3 and 5; 71 gather blocks in 32 lists
    for (const TensorBoxes& boxes : device_.described) EXPECT_EQ(boxes.rows, 32);
    launch(warps, arguments(15625));
    EXPECT_EQ(launched_.work_items, emitted.resident_blocks * 132);
    EXPECT_EQ(passed_.lpt_tiles, 0U);  // every warp has hundreds of items

    const TileProgram rows =
        lower(attention, pattern, KernelRole::kForward, device_.target(), shape);
    Launcher even(rows, geometry(rows, device_.target()), device_.target());
    launch(even, arguments(5));
    EXPECT_EQ(passed_.lpt_tiles, 0U);
}

// Whatever is resident fits an SM: registers of its quarters, which warps are spread over.
TEST(WarpPlan, KeepsToRegistersAndSharedMemory) {
    int feasible = 0;
    for (const KernelRole role :
         {KernelRole::kForward, KernelRole::kQueryGradient, KernelRole::kKeyValueGradient}) {
        for (const int head_dim : {32, 64}) {
            for (const int stationary : {16, 32}) {
                if (!has_warp_plan(role, head_dim, stationary)) continue;
                for (const int stages : {2, 3, 4}) {
                    const WarpPlan plan =
                        plan_warps(role, head_dim, stationary, 32, stages, 227 * 1024);
                    ASSERT_EQ(plan.problem, "");
                    ++feasible;
                    const int producers = plan.producer_registers > 0 ? 4 : 1;
                    EXPECT_EQ(plan.threads, 32 * (plan.consumers + producers));
                    const int producing =
                        producers * std::max(plan.producer_registers,
                                             producers == 1 ? plan.consumer_registers : 0);
                    EXPECT_LE(plan.resident_blocks * 32 *
                                  (plan.consumers * plan.consumer_registers + producing),
                              65536);
                    EXPECT_EQ(plan.consumer_registers % 8, 0);
                    EXPECT_LE(plan.resident_blocks * (plan.shared_bytes + 1024), 228 * 1024);
                }
            }
        }
    }
    EXPECT_EQ(feasible, 21);
    const WarpPlan none = plan_warps(KernelRole::kQueryGradient, 64, 32, 32, 8, 227 * 1024);
    EXPECT_NE(none.problem.find("shared memory"), std::string::npos) << none.problem;
    EXPECT_FALSE(has_warp_plan(KernelRole::kForward, 128, 32));
    EXPECT_FALSE(has_warp_plan(KernelRole::kForward, 64, 64));
    EXPECT_FALSE(has_warp_plan(KernelRole::kQueryGradient, 64, 16));
    EXPECT_FALSE(has_warp_plan(KernelRole::kKeyValueGradient, 32, 32));
}

// Whatever is resident fits an SM, and a plan says why there is none.
TEST(WgmmaPlan, KeepsToRegistersAndSharedMemory) {
    int feasible = 0;
    for (const KernelRole role :
         {KernelRole::kForward, KernelRole::kQueryGradient, KernelRole::kKeyValueGradient}) {
        for (const int head_dim : {32, 64, 128}) {
            for (const int stationary : {64, 128}) {
                for (const int streamed : {64, 128}) {
                    for (const int stages : {2, 3, 4}) {
                        const CompilerRelease compiler =
                            stages == 3 ? CompilerRelease{12, 6} : kNewestNvrtc;
                        const WgmmaPlan plan = plan_wgmma(role, head_dim, stationary, streamed,
                                                          stages, 227 * 1024, compiler);
                        ASSERT_EQ(plan.resident_blocks == 0, !plan.problem.empty());
                        if (plan.resident_blocks == 0) continue;
                        ++feasible;
                        const int groups = stationary / 64;
                        EXPECT_EQ(plan.threads, 128 * (groups + 1));
                        EXPECT_LE(plan.resident_blocks * 128 *
                                      (groups * plan.consumer_registers + plan.producer_registers),
                                  65536);
                        EXPECT_EQ(plan.consumer_registers % 8, 0);
                        EXPECT_LE(plan.resident_blocks * (plan.shared_bytes + 1024), 228 * 1024);
                    }
                }
            }
        }
    }
    EXPECT_GT(feasible, 60);
    const WgmmaPlan none =
        plan_wgmma(KernelRole::kQueryGradient, 128, 128, 128, 4, 227 * 1024, kNewestNvrtc);
    EXPECT_NE(none.problem.find("shared memory"), std::string::npos) << none.problem;
    const WgmmaPlan wide =
        plan_wgmma(KernelRole::kKeyValueGradient, 128, 64, 128, 2, 227 * 1024, kNewestNvrtc);
    EXPECT_NE(wide.problem.find("registers"), std::string::npos) << wide.problem;
}

}  // namespace
}  // namespace spion
