// A layer's pattern from its attention scores: SPION's diagonal convolution, pooling and flood fill.
// The scores here are made up: positions attend to themselves, to the one 96 before, and to the first.
#include <spion/spion.h>

#include <cstdio>
#include <vector>

int main() try {
    constexpr std::int64_t kLength = 512;
    std::vector<float> scores(kLength * kLength);  // [L, L], each row sums to 1
    for (std::int64_t query = 0; query < kLength; ++query) {
        float* const row = &scores[query * kLength];
        for (std::int64_t key = 0; key < kLength; ++key) {
            row[key] = 0.1F / kLength;
        }
        row[query] += 0.4F;
        row[query >= 96 ? query - 96 : query] += 0.3F;
        row[0] += 0.2F;
    }
    for (const double quantile : {0.98, 0.9}) {
        const spion::Pattern pattern = spion::discover_scores(
            {.block = 32, .variant = spion::Variant::kCF, .quantile = quantile}, kLength, scores);
        std::printf("blocks above the %.2f quantile: %.1f %% of the map\n%s\n", quantile,
                    100 * pattern.density(), pattern.picture().c_str());
    }
    return 0;
} catch (const spion::Error& error) {
    std::fprintf(stderr, "02_discover: %s\n", error.what());
    return 1;
}
