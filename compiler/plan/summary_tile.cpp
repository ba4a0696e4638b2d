#include "compiler/plan/summary_tile.h"

#include <algorithm>

#include "codegen/emit.h"
#include "ir/error.h"

namespace spion {
namespace {

constexpr int kFewestRows = 16;  // one k-step of mma.sync on 16-bit operands

}  // namespace

int choose_summary_tile(const Attention& attention, int block, const Target& target) {
    int tile = std::min(block, 64);
    const auto shared = [&] {
        return geometry(ScoreSummaryProgram{.attention = attention, .block = block, .tile = tile},
                        target)
            .shared_bytes;
    };
    while (target.back_end == BackEnd::kCuda && shared() > target.shared_bytes_per_block) {
        if (tile == kFewestRows) {
            throw UserError(
                "no score summary for D={} {} fits: its smallest tile needs {} bytes of shared "
                "memory and {} offers {} a block, so use a smaller D or a GPU that offers more",
                attention.head_dim, to_string(attention.dtype), shared(), target.arch,
                target.shared_bytes_per_block);
        }
        tile /= 2;
    }
    return tile;
}

}  // namespace spion
