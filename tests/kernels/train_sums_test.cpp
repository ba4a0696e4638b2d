// column_sums and sum_partials.
#include <fmt/format.h>

#include "tests/kernels/train_fixture.h"
#include "tests/support/expect_error.h"

#include "ir/error.h"

namespace spion {
namespace {

class TrainSums : public StepKernelTest {
  protected:
    Values sum_partials(const StepShape& shape, const Values& partials, std::size_t columns,
                        std::size_t stride, std::size_t offset) {
        const Buffer buffer = upload_floats(partials), out = poisoned_floats(columns);
        kernels(shape).sum_partials({.partials = buffer.as<float>() + offset,
                                     .out = out.as<float>(),
                                     .count = static_cast<long long>(partials.size() / stride),
                                     .columns = static_cast<long long>(columns),
                                     .stride = static_cast<long long>(stride)});
        return floats(out, columns);
    }
};

TEST_F(TrainSums, ColumnsMatchTheReference) {
    for (const StepShape& shape : shapes()) {
        const auto width = 3 * static_cast<std::size_t>(shape.channels);
        for (const std::size_t rows : {1UL, 256UL, static_cast<std::size_t>(uniform(2, 900))}) {
            SCOPED_TRACE(fmt::format("rows={} width={}", rows, width));
            const Values x = random_activations(rows * width);
            const auto items =
                static_cast<std::size_t>(spion_row_items(static_cast<long long>(rows)));
            const Buffer x_buffer = upload_activations(x);
            const Buffer partials = poisoned_floats(items * width);
            kernels(shape).column_sums({.x = x_buffer.data(),
                                        .partials = partials.as<float>(),
                                        .rows = static_cast<long long>(rows)});
            const Values actual = floats(partials, items * width);
            expect_near("sums", sum_rows(actual, width), sum_rows(x, width), float_tolerance());
            // An item sums its own rows and no others.
            const Values first(
                x.begin(), x.begin() + static_cast<long>(std::min<std::size_t>(rows, 256) * width));
            expect_near("the first item's sums",
                        {actual.begin(), actual.begin() + static_cast<long>(width)},
                        sum_rows(first, width), float_tolerance());
        }
    }
}

TEST_F(TrainSums, PartialsMatchTheReference) {
    const StepShape shape = shapes()[0];
    for (const std::size_t count : {1UL, 2UL, 127UL, 8192UL, std::size_t(uniform(3, 3000))}) {
        const auto columns = 8 * static_cast<std::size_t>(uniform(1, 12));
        const std::size_t before = 8 * static_cast<std::size_t>(uniform(0, 2));
        const std::size_t stride = before + columns + 8 * static_cast<std::size_t>(uniform(0, 2));
        SCOPED_TRACE(fmt::format("count={} columns={} stride={}", count, columns, stride));
        const Values partials = random_floats(count * stride);
        const Values all = sum_rows(partials, stride);
        const Values expected(all.begin() + static_cast<long>(before),
                              all.begin() + static_cast<long>(before + columns));
        const Values actual = sum_partials(shape, partials, columns, stride, before);
        expect_near("sums", actual, expected, float_tolerance());
        EXPECT_EQ(actual, sum_partials(shape, partials, columns, stride, before))
            << "not repeatable";
    }
}

TEST_F(TrainSums, SeveralInOneLaunchAreWhatEachIsAlone) {
    const StepKernels& compiled = kernels(shapes()[0]);
    for (const std::size_t sums : {2UL, static_cast<std::size_t>(kSpionMostSums)}) {
        std::vector<Buffer> partials, outs;
        std::vector<SpionPartialSum> together;
        std::vector<Values> alone;
        for (std::size_t i = 0; i < sums; ++i) {
            const auto count = static_cast<std::size_t>(uniform(1, 300));
            const auto columns = 8 * static_cast<std::size_t>(uniform(1, 12));
            const Values values = random_floats(count * columns);
            alone.push_back(sum_partials(shapes()[0], values, columns, columns, 0));
            partials.push_back(upload_floats(values));
            outs.push_back(poisoned_floats(columns));
            together.push_back({.partials = partials.back().as<float>(),
                                .out = outs.back().as<float>(),
                                .count = static_cast<long long>(count),
                                .columns = static_cast<long long>(columns),
                                .stride = static_cast<long long>(columns)});
        }
        compiled.sum_partials(together);
        for (std::size_t i = 0; i < sums; ++i) {
            EXPECT_EQ(floats(outs[i], alone[i].size()), alone[i]) << i << " of " << sums;
        }
    }
}

TEST_F(TrainSums, RefusesColumnsThatAreNoMultipleOfEight) {
    StepKernels& compiled = kernels(shapes()[0]);
    expect_error<InternalError>(
        [&] {
            compiled.sum_partials(
                {.partials = nullptr, .out = nullptr, .count = 1, .columns = 12, .stride = 16});
        },
        "sum_partials of 12 columns, 16 apart");
    expect_error<InternalError>(
        [&] { compiled.sum_partials(std::vector<SpionPartialSum>(kSpionMostSums + 1)); },
        "sum_partials of 65 sums, not 1 to 64");
    expect_error<InternalError>([&] { compiled.sum_partials(std::vector<SpionPartialSum>()); },
                                "sum_partials of 0 sums");
    expect_error<InternalError>(
        [&] { compiled.column_sums({.x = nullptr, .partials = nullptr, .rows = 0}); },
        "column_sums was launched on nothing");
}

}  // namespace
}  // namespace spion
