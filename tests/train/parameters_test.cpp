#include "train/parameters.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

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

}  // namespace
}  // namespace spion
