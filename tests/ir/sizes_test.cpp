#include "ir/sizes.h"

#include <gtest/gtest.h>

#include <limits>

#include "ir/error.h"
#include "tests/support/expect_error.h"

namespace spion {
namespace {

void expect_refused(std::int64_t batch, int heads, std::int64_t length, const char* part) {
    expect_error<UserError>([&] { check_batch({.heads = heads, .length = length}, batch); }, part);
}

TEST(Sizes, BatchesArePositiveAndCountedWith32Bits) {
    expect_refused(0, 1, 16, "the batch is 0; give at least 1");
    expect_refused(-3, 1, 16, "the batch is -3; give at least 1");
    expect_refused(std::int64_t{1} << 31, 1, 1, "the batch is 2147483648; give at most 2147483647");
    expect_refused(std::numeric_limits<std::int64_t>::max(), 1, 1, "give at most");
    check_batch({.heads = 1, .length = 16}, 2147483647);
}

// 2^35 rows: each of B, H and L is allowed alone, and their product wraps or does not.
TEST(Sizes, RowsAreCountedWithoutWrapping) {
    check_batch({.heads = 1 << 15, .length = 1 << 10}, 1 << 10);
    expect_refused(1 << 10, 1 << 15, (1 << 10) + 1, "more than 34359738368 rows");
    expect_refused(1 << 16, 1 << 16, std::int64_t{1} << 31, "65536 heads of length 2147483648");
    expect_refused(2147483647, 65536, 2147483647, "give a smaller batch or shorter samples");
}

TEST(Sizes, AFilterReachesTheNeighboursOfABlock) {
    check_summary_filter(1, 16);
    check_summary_filter(33, 16);
    for (const int filter : {34, 257, 0, -1}) {
        expect_error<UserError>([&] { check_summary_filter(filter, 16); },
                                "reaches beyond the neighbours of block 16: give 1 to 33");
    }
}

}  // namespace
}  // namespace spion
