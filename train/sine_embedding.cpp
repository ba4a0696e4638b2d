#include "train/sine_embedding.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <span>

namespace spion {
namespace {

constexpr std::int64_t kGreyValues = 256;  // the tokens of a picture

// Number `index` of `count` in the channels of `out`.
void write_sines(std::int64_t index, std::int64_t count, double deviation, std::span<float> out) {
    const std::size_t pairs = out.size() / 2;
    std::fill(out.begin(), out.end(), 0.0F);
    for (std::size_t i = 0; i < pairs; ++i) {
        const double part =
            pairs > 1 ? static_cast<double>(i) / static_cast<double>(pairs - 1) : 0.0;
        const double angle =
            static_cast<double>(index) * std::pow(static_cast<double>(count), -part);
        const double scale = std::numbers::sqrt2 * deviation;
        out[2 * i] = static_cast<float>(scale * std::sin(angle));
        out[2 * i + 1] = static_cast<float>(scale * std::cos(angle));
    }
}

}  // namespace

void place_sines(const ParameterLayout& layout, const EmbeddingStart& start,
                 std::vector<float>& values) {
    const std::int64_t channels = layout.channels(), length = layout.length();
    const auto row_of = [&](std::int64_t table, std::int64_t row) {
        return std::span(values).subspan(static_cast<std::size_t>(table + row * channels),
                                         static_cast<std::size_t>(channels));
    };
    const auto third = static_cast<std::size_t>(channels / 3);
    const std::int64_t columns = start.columns;
    for (std::int64_t p = start.before; p < length; ++p) {
        const std::span<float> row = row_of(layout.position, p);
        const std::int64_t place = p - start.before;
        if (columns == 0) {
            write_sines(place, length, start.deviation, row);
            continue;
        }
        const std::int64_t rows = (length - start.before + columns - 1) / columns;
        std::fill(row.begin(), row.end(), 0.0F);
        write_sines(place / columns, rows, start.deviation, row.first(third));
        write_sines(place % columns, columns, start.deviation, row.subspan(third, third));
    }
    if (columns == 0) return;
    for (std::int64_t grey = 0; grey < std::min(kGreyValues, layout.vocabulary()); ++grey) {
        const std::span<float> row = row_of(layout.token, grey);
        std::fill(row.begin(), row.end(), 0.0F);
        write_sines(grey, kGreyValues, start.deviation, row.subspan(2 * third));
    }
}

}  // namespace spion
