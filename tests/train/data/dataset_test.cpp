#include "train/data/dataset.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>

#include "ir/error.h"
#include "tests/support/seed.h"

namespace spion {
namespace {

// Sample i has i % 5 + 1 tokens, all i + 1, and label i % 10.
Split numbered_split(int samples) {
    Split split;
    for (int i = 0; i < samples; ++i) {
        const std::vector<std::uint16_t> tokens(static_cast<std::size_t>(i % 5 + 1),
                                                static_cast<std::uint16_t>(i + 1));
        split.append(tokens, i % 10);
    }
    return split;
}

TEST(MakeBatch, PadsEverySampleWithZeros) {
    const Split split = numbered_split(9);
    const std::vector<std::int64_t> samples = {7, 0, 4};
    const Batch batch = make_batch(split, samples, 6);
    EXPECT_EQ(batch.size, 3);
    EXPECT_EQ(batch.length, 6);
    EXPECT_EQ(batch.tokens, (std::vector<std::uint16_t>{8, 8, 8, 0, 0, 0,  //
                                                        1, 0, 0, 0, 0, 0,  //
                                                        5, 5, 5, 5, 5, 0}));
    EXPECT_EQ(batch.lengths, (std::vector<std::int32_t>{3, 1, 5}));
    EXPECT_EQ(batch.labels, (std::vector<std::int32_t>{7, 0, 4}));
    EXPECT_THROW(make_batch(split, samples, 4), InternalError);
}

TEST(MakeBatch, PutsTheClassTokenBeforeEverySequence) {
    const Split split = numbered_split(9);
    const std::vector<std::int64_t> samples = {7, 4};
    const Batch batch = make_batch(split, samples, 6, std::uint16_t{31});
    EXPECT_EQ(batch.tokens, (std::vector<std::uint16_t>{31, 8, 8, 8, 0, 0,  //
                                                        31, 5, 5, 5, 5, 5}));
    EXPECT_EQ(batch.lengths, (std::vector<std::int32_t>{4, 6}));
    EXPECT_THROW(make_batch(split, samples, 5, std::uint16_t{31}), InternalError);
}

TEST(ShuffledOrder, VisitsEverySampleOnceAnEpoch) {
    const auto seed = test::fresh_seed();
    SCOPED_TRACE(seed);
    const int samples = 23, batch = 5;
    ShuffledOrder order(samples, seed);
    std::vector<std::int64_t> visits;
    for (int step = 0; step < 14; ++step) {  // 70 visits: three epochs and one sample
        const auto next = order.batch(step, batch);
        ASSERT_EQ(next.size(), 5U);
        visits.insert(visits.end(), next.begin(), next.end());
    }
    std::vector<std::vector<std::int64_t>> epochs;
    for (int epoch = 0; epoch < 3; ++epoch) {
        epochs.emplace_back(visits.begin() + epoch * samples,
                            visits.begin() + (epoch + 1) * samples);
        EXPECT_EQ(std::set(epochs[epoch].begin(), epochs[epoch].end()).size(), 23U);
        EXPECT_EQ(*std::max_element(epochs[epoch].begin(), epochs[epoch].end()), samples - 1);
    }
    EXPECT_NE(epochs[0], epochs[1]);
    EXPECT_NE(epochs[1], epochs[2]);
    // Any step can be asked for again.
    EXPECT_EQ(order.batch(2, batch),
              std::vector<std::int64_t>(visits.begin() + 10, visits.begin() + 15));
    EXPECT_NE(ShuffledOrder(samples, seed + 1).batch(0, batch), order.batch(0, batch));
}

TEST(BatchStream, GivesTheBatchesOfTheShuffledOrder) {
    const Split split = numbered_split(17);
    ShuffledOrder order(split.samples(), 3);
    BatchStream stream(split, 3, 4, 8);
    for (int step = 0; step < 20; ++step) {
        const Batch batch = stream.next();
        const Batch expected = make_batch(split, order.batch(step, 4), 8);
        ASSERT_EQ(batch.tokens, expected.tokens) << step;
        ASSERT_EQ(batch.labels, expected.labels) << step;
    }
}

}  // namespace
}  // namespace spion
