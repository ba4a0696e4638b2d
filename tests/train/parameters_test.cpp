#include "train/parameters.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <span>

namespace spion {
namespace {

const ModelShape kShape = {.layers = 3,
                           .heads = 2,
                           .head_dim = 16,
                           .feed_forward = 48,
                           .vocabulary = 20,
                           .classes = 10,
                           .length = 50};

TEST(ParameterLayout, HoldsEveryParameterOnceAndApart) {
    const ParameterLayout layout(kShape);
    std::int64_t end = 0, total = 0;
    std::set<std::string> names;
    for (const ParameterInfo& parameter : layout.table()) {
        EXPECT_GE(parameter.offset, end) << parameter.name;
        EXPECT_EQ(parameter.offset % 8, 0) << parameter.name;
        EXPECT_TRUE(names.insert(parameter.name).second) << parameter.name;
        end = parameter.offset + parameter.count();
        total += parameter.count();
    }
    EXPECT_GE(layout.size(), end);
    // By hand, C = 32 and F = 48: embeddings (20 + 50) * 32; a layer 2 * 64 of norms, 96 * 33 of
    // qkv, 32 * 33, 48 * 33 and 32 * 49; final norm 64; head 48 * 33 + 10 * 49.
    EXPECT_EQ(total,
              70 * 32 + 3 * (128 + 96 * 33 + 32 * 33 + 48 * 33 + 32 * 49) + 64 + 48 * 33 + 10 * 49);
}

TEST(ParameterLayout, PutsANormsThreeVectorsSideBySide) {
    const ParameterLayout layout(kShape);
    std::vector<NormOffsets> norms = {layout.final_norm};
    for (std::size_t i = 0; i < layout.layers.size(); ++i) {
        norms.push_back(layout.layers[i].norm2);
        if (i > 0) norms.push_back(layout.layers[i].norm1);
    }
    for (const NormOffsets& norm : norms) {
        EXPECT_EQ(norm.beta, norm.gamma + 32);
        EXPECT_EQ(norm.branch_bias, norm.gamma + 64);
    }
    EXPECT_EQ(layout.feed_forward2_bias(0), layout.layers[1].norm1.branch_bias);
    EXPECT_EQ(layout.feed_forward2_bias(2), layout.final_norm.branch_bias);
}

TEST(ParameterLayout, DrawsFirstValuesLikePyTorch) {
    const ParameterLayout layout(kShape);
    const std::vector<float> values = layout.initial_values(1);
    for (const ParameterInfo& parameter : layout.table()) {
        const auto first = values.begin() + parameter.offset;
        const auto last = first + parameter.count();
        const auto [least, most] = std::minmax_element(first, last);
        double squares = 0;
        std::for_each(first, last, [&](float x) { squares += double{x} * x; });
        const double deviation = std::sqrt(squares / static_cast<double>(parameter.count()));
        if (parameter.name.ends_with("gamma")) {
            EXPECT_EQ(*least, 1.0F);
            EXPECT_EQ(*most, 1.0F);
        } else if (parameter.name.ends_with("beta")) {
            EXPECT_EQ(*least, 0.0F);
            EXPECT_EQ(*most, 0.0F);
        } else if (parameter.name == "token" || parameter.name == "position") {
            EXPECT_NEAR(deviation, 0.02, 0.002) << parameter.name;
        } else {  // fan-in 32, but 48 behind the feed-forward layers and the head's hidden layer
            const bool from_wide =
                parameter.name.find("forward2") != std::string::npos || parameter.name[4] == '2';
            const double bound = 1.0 / std::sqrt(from_wide ? 48.0 : 32.0);
            EXPECT_LE(*most, bound) << parameter.name;
            EXPECT_GE(*least, -bound) << parameter.name;
            EXPECT_GT(deviation, 0.4 * bound) << parameter.name;  // 0.577 for a uniform one
        }
    }
    EXPECT_EQ(layout.initial_values(1), values);
    EXPECT_NE(layout.initial_values(2), values);
}

TEST(ParameterLayout, DrawsTheEmbeddingWithTheDeviationAskedFor) {
    const ParameterLayout layout(kShape);
    const std::vector<float> values = layout.initial_values(1);
    const std::vector<float> wide = layout.initial_values(1, {.deviation = 0.08});
    for (const ParameterInfo& parameter : layout.table()) {
        const bool embedding = parameter.name == "token" || parameter.name == "position";
        const auto at = static_cast<std::size_t>(parameter.offset);
        EXPECT_NEAR(wide[at], (embedding ? 4 : 1) * values[at], 1e-6) << parameter.name;
    }
}

// Rows of an embedding's table, and how alike two are: their scalar product over channels [from, to).
struct Rows {
    const std::vector<float>& values;
    std::int64_t offset, channels;
    std::span<const float> row(std::int64_t index) const {
        return std::span(values).subspan(static_cast<std::size_t>(offset + index * channels),
                                         static_cast<std::size_t>(channels));
    }
    double alike(std::int64_t a, std::int64_t b, std::int64_t from, std::int64_t to) const {
        double sum = 0;
        for (auto i = static_cast<std::size_t>(from); i < static_cast<std::size_t>(to); ++i) {
            sum += double{row(a)[i]} * double{row(b)[i]};
        }
        return sum;
    }
};

TEST(SineEmbedding, OfTextsHasNearPositionsAlikeWhereverTheyAre) {
    const ParameterLayout layout(kShape);  // C = 32, L = 50
    const std::vector<float> normal = layout.initial_values(1);
    const EmbeddingStart start = {.deviation = 0.5, .sine = true, .before = 1};
    const std::vector<float> values = layout.initial_values(1, start);
    const Rows positions{values, layout.position, 32}, tokens{values, layout.token, 32};
    for (std::int64_t p = 1; p < 50; ++p) {
        EXPECT_NEAR(positions.alike(p, p, 0, 32), 0.25 * 32, 1e-5) << p;
    }
    for (std::int64_t apart = 1; apart < 20; ++apart) {
        const double first = positions.alike(1, 1 + apart, 0, 32);
        EXPECT_NEAR(positions.alike(20, 20 + apart, 0, 32), first, 1e-5) << apart;
        EXPECT_LT(first, 0.25 * 32 * (apart == 1 ? 0.95 : 0.9)) << apart;
    }
    // Position 2 is the sample's second: sin(1) and cos(1) come first, sin(1/50) and cos(1/50) last.
    const double scale = 0.5 * std::sqrt(2.0);
    EXPECT_NEAR(positions.row(2)[0], scale * std::sin(1.0), 1e-6);
    EXPECT_NEAR(positions.row(2)[1], scale * std::cos(1.0), 1e-6);
    EXPECT_NEAR(positions.row(2)[30], scale * std::sin(1.0 / 50), 1e-6);
    EXPECT_NEAR(positions.row(0)[5], 25 * normal[static_cast<std::size_t>(layout.position) + 5],
                1e-5);
    EXPECT_NEAR(tokens.row(7)[3], 25 * normal[static_cast<std::size_t>(layout.token) + 7 * 32 + 3],
                1e-5);
}

TEST(SineEmbedding, OfPicturesTellsRowsColumnsAndGreyValuesApart) {
    ModelShape shape = kShape;
    shape.head_dim = 32;  // C = 64: thirds of 21, 21 and 22
    shape.vocabulary = 300;
    shape.length = 48;
    const ParameterLayout layout(shape);
    const std::vector<float> values = layout.initial_values(1, {.sine = true, .columns = 8});
    const Rows positions{values, layout.position, 64}, tokens{values, layout.token, 64};
    const double whole = positions.alike(0, 0, 0, 21);
    EXPECT_NEAR(whole, 0.02 * 0.02 * 20, 1e-7);
    for (std::int64_t p = 0; p < 48; ++p) {
        EXPECT_NEAR(positions.alike(p, p / 8 * 8, 0, 21), whole, 1e-7) << "one row: " << p;
        EXPECT_NEAR(positions.alike(p, p % 8, 21, 42), whole, 1e-7) << "one column: " << p;
        EXPECT_EQ(positions.alike(p, p, 42, 64), 0) << p;
    }
    EXPECT_LT(positions.alike(0, 8, 0, 21), 0.95 * whole);
    EXPECT_LT(positions.alike(0, 1, 21, 42), 0.95 * whole);
    EXPECT_EQ(tokens.alike(200, 200, 0, 42), 0);
    const double grey = tokens.alike(200, 200, 42, 64);
    EXPECT_NEAR(grey, 0.02 * 0.02 * 22, 1e-7);
    EXPECT_GT(tokens.alike(200, 201, 42, 64), 0.9 * grey);
    EXPECT_LT(tokens.alike(0, 255, 42, 64), 0.6 * grey);
    EXPECT_NE(tokens.alike(256, 256, 0, 42), 0) << "no grey value";
}

}  // namespace
}  // namespace spion
