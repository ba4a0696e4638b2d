// The maps of kernels/cuda/common/tile_layout.cuh: every chunk has a place of its own, and none of the
// access patterns that the engines rely on meets a bank conflict.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <set>
#include <utility>

#define SPION_DEVICE static inline
#include "kernels/cuda/common/tile_layout.cuh"

namespace {

// Most accesses of `bytes` bytes that fall on one bank among those the hardware serves at once:
// 128 bytes' worth of lanes, in order, equal words counted once. 1 = free of conflicts.
int conflicts(int bytes, const std::function<int(int lane)>& address) {
    const int lanes_at_once = 128 / bytes;
    int worst = 0;
    for (int first = 0; first < 32; first += lanes_at_once) {
        std::set<int> words[32];
        for (int lane = first; lane < first + lanes_at_once; ++lane) {
            for (int word = 0; word < bytes / 4; ++word) {
                const int at = address(lane) / 4 + word;
                words[at % 32].insert(at);
            }
        }
        for (const std::set<int>& bank : words) worst = std::max<int>(worst, bank.size());
    }
    return worst;
}

template <int kChunks>
void check_layout() {
    SCOPED_TRACE(testing::Message() << kChunks << " chunks a row");
    std::set<int> places;
    for (int row = 0; row < 64; ++row) {
        for (int chunk = 0; chunk < kChunks; ++chunk) {
            const int offset = chunk_offset<kChunks>(row, chunk);
            EXPECT_EQ(offset % 16, 0);
            EXPECT_EQ(offset / (16 * kChunks), row);
            EXPECT_TRUE(places.insert(offset).second);
            const int near = chunk % 2;
            EXPECT_EQ(offset_further<kChunks>(chunk_offset<kChunks>(row, near), chunk - near),
                      offset);
        }
    }
    // Rows 8 apart differ by their pitch alone, so that it can be an immediate.
    EXPECT_EQ(chunk_offset<kChunks>(13, 1) - chunk_offset<kChunks>(5, 1), 8 * 16 * kChunks);
    for (int chunk = 0; chunk < kChunks; chunk += 2) {
        const auto place = [&](int row, int more) {
            return chunk_offset<kChunks>(row, chunk + more);
        };
        EXPECT_EQ(conflicts(16,
                            [&](int lane) {
                                return chunk_offset<kChunks>(lane / kChunks, lane % kChunks);
                            }),
                  1);
        // A pair of chunks of 4 rows, as two lanes a row read them.
        EXPECT_EQ(conflicts(16, [&](int lane) { return place(lane / 2, lane % 2); }), 1);
        for (LaneChunk (*map)(int) : {lane_chunk_by_rows, lane_chunk_by_chunks}) {
            EXPECT_EQ(
                conflicts(16, [&](int lane) { return place(map(lane).row, map(lane).chunk); }), 1);
        }
    }
}

// visit(2), visit(4), .. as constants.
template <int... kHalf, typename Visit>
void each_even(std::integer_sequence<int, kHalf...>, const Visit& visit) {
    (visit(std::integral_constant<int, 2 * (kHalf + 1)>()), ...);
}

TEST(TileLayout, EveryChunkHasItsPlaceAndNoBankConflict) {
    each_even(std::make_integer_sequence<int, 32>(), [](auto chunks) { check_layout<chunks>(); });
}

// Lanes that move a tile in turns: each chunk once, and whole rows of 16 by every warp.
template <int kChunks, int kLanes>
void check_copies() {
    SCOPED_TRACE(testing::Message() << kChunks << " chunks a row, " << kLanes << " lanes");
    std::set<std::pair<int, int>> places;
    const int turns = (16 * kChunks + kLanes - 1) / kLanes;
    for (int i = 0; i < turns; ++i) {
        std::set<int> rows_of_16;
        for (int lane = 0; lane < kLanes; ++lane) {
            const int row = copied_row<kChunks, kLanes>(i, lane);
            const int chunk = copied_chunk<kChunks, kLanes>(i, lane);
            EXPECT_EQ((copied_row<kChunks, kLanes>(32, i, lane)), 32 + row);
            EXPECT_EQ(row * kChunks + chunk, i * kLanes + lane);
            EXPECT_TRUE(places.insert({row, chunk}).second);
            if (lane % 32 == 0) rows_of_16.clear();
            rows_of_16.insert(row / 16);
            EXPECT_EQ(rows_of_16.size(), 1U);
        }
        EXPECT_EQ(conflicts(16,
                            [&](int lane) {
                                return chunk_offset<kChunks>(
                                    copied_row<kChunks, kLanes>(i, lane),
                                    copied_chunk<kChunks, kLanes>(i, lane));
                            }),
                  1);
    }
    for (int number = 0; number < 16 * kChunks; ++number) {
        EXPECT_EQ(places.count({number / kChunks, number % kChunks}), 1U);
    }
}

TEST(TileLayout, LanesThatTakeTurnsMoveEveryChunkOnce) {
    each_even(std::make_integer_sequence<int, 32>(), [](auto chunks) {
        check_copies<chunks, 32>();
        check_copies<chunks, 64>();
        check_copies<chunks, 128>();
    });
}

template <int kChunks>
void check_fp32() {
    SCOPED_TRACE(testing::Message() << kChunks << " chunks a row");
    for (int chunk = 0; chunk < kChunks; chunk += 2) {
        // load_pair of an A operand or of B by rows, and load_single of B by columns.
        EXPECT_EQ(conflicts(8,
                            [&](int lane) {
                                const int g = lane / 4, t = lane % 4;
                                return chunk_offset<kChunks>(g, chunk + t / 2) + t % 2 * 8;
                            }),
                  1);
        for (int odd : {0, 1}) {
            EXPECT_EQ(conflicts(4,
                                [&](int lane) {
                                    const int g = lane / 4, t = lane % 4;
                                    return chunk_offset<kChunks>(2 * t + odd, chunk + g / 4) +
                                           g % 4 * 4;
                                }),
                      kChunks % 8 == 0 ? 1 : 2);
        }
    }
}

// Rows of 4 elements times an even number: D = 32, 48, .. 256.
TEST(TileLayout, Fp32OperandsOfWideRowsMeetTheConflictsStated) {
    each_even(std::make_integer_sequence<int, 32>(), [](auto chunks) {
        if constexpr (chunks % 4 == 0 && chunks >= 8) check_fp32<chunks>();
    });
}

TEST(TileLayout, LanesNameEveryRowOfThePieceOnce) {
    for (LaneChunk (*map)(int) : {lane_chunk_by_rows, lane_chunk_by_chunks}) {
        std::set<std::pair<int, int>> places;
        for (int lane = 0; lane < 32; ++lane) places.insert({map(lane).row, map(lane).chunk});
        EXPECT_EQ(places.size(), 32U);
        EXPECT_EQ(places.rbegin()->first, 15);
        EXPECT_EQ(places.rbegin()->second, 1);
    }
    EXPECT_EQ(lane_chunk_by_rows(8).row, 8);      // second matrix: rows 8-15 of chunk 0
    EXPECT_EQ(lane_chunk_by_chunks(8).chunk, 1);  // second matrix: rows 0-7 of chunk 1
}

}  // namespace
