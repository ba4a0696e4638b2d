#include "tools/bench_anchors.h"

namespace spion {
namespace {

// One row of the table.
constexpr Anchor row(std::string_view name, std::int64_t batch, int heads, std::int64_t length,
                     int head_dim, int block, double density, double forward_ms, double backward_ms,
                     bool paper = false) {
    return {.name = name,
            .batch = batch,
            .heads = heads,
            .length = length,
            .head_dim = head_dim,
            .block = block,
            .density = density,
            .forward_ms = forward_ms,
            .backward_ms = backward_ms,
            .paper = paper};
}

// clang-format off
//  name                B   H     L    D  block density fwd ms bwd ms
constexpr Anchor kAnchors[] = {
    row("retrieval",   32,  2,  4096,  32,  64, 0.030, 0.094, 0.286, true),
    row("listops",    256,  2,  2048,  32,  64, 0.050, 0.169, 0.666, true),
    row("image",      128,  2,  1024,  32,  32, 0.050, 0.106, 0.528, true),
    row("dense-4k",    32,  2,  4096,  32, 128, 1.000, 0.600, 1.840, true),
    row("16k-128-b128", 2, 16, 16384, 128, 128, 0.099, 1.210, 3.370),
    row("16k-64-b128",  2, 16, 16384,  64, 128, 0.099, 0.656, 2.510),
    row("16k-128-b64",  2, 16, 16384, 128,  64, 0.100, 2.210, 11.60),
    row("16k-64-b64",   2, 16, 16384,  64,  64, 0.100, 0.676, 11.30),
    row("16k-64-b32",   2, 16, 16384,  64,  32, 0.050, 1.200, 16.80),
    row("64k-128-b128", 1, 16, 65536, 128, 128, 0.050, 4.320, 12.40),
    row("64k-64-b128",  1, 16, 65536,  64, 128, 0.050, 2.320, 7.860),
    row("dense-8k-64",  2, 16,  8192,  64, 128, 1.000, 1.140, 3.280),
    row("dense-8k-128", 2, 16,  8192, 128, 128, 1.000, 1.670, 5.020),
};
// clang-format on

}  // namespace

std::span<const Anchor> anchors() {
    return kAnchors;
}

}  // namespace spion
