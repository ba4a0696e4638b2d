#include "codegen/cuda/baked_cuda.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <limits>
#include <string_view>
#include <vector>

#include "codegen/baked_tables.h"

namespace spion {
namespace {

// The smallest type with a bit for every block row of a tile.
std::string baked_block_row_masks(const TileProgram& program) {
    const int rows = program.packed_rows();
    const std::vector<std::int64_t> bits(program.block_row_masks.begin(),
                                         program.block_row_masks.end());
    return fmt::format(
        "using BlockRowMask = unsigned {0};\nstatic __device__ const BlockRowMask kBlockRowMasks[] "
        "= {{\n"
        "    {1}}};\n",
        rows <= 8    ? "char"
        : rows <= 16 ? "short"
                     : "int",
        table_text(bits));
}

// A table's only entry is known to ptxas 13.0, whose dK/dV then serialises wgmma under a causal mask
// with a ragged edge; an entry more, which no walk reads, keeps it a load.
std::vector<std::int32_t> unfoldable(std::vector<std::int32_t> entries) {
    if (entries.size() == 1) entries.push_back(entries.front() + 1);
    return entries;
}

}  // namespace

std::string baked_cuda(const TileProgram& program) {
    const UniformWalk uniform = uniform_walk(program);
    const auto index_type = [](const std::vector<std::int32_t>& table) {
        const auto largest = std::max_element(table.begin(), table.end());
        const bool fits =
            largest == table.end() || *largest <= std::numeric_limits<std::uint16_t>::max();
        return fits ? "unsigned short" : "int";
    };
    const auto table = [&](std::string_view memory, std::string_view name,
                           const std::vector<std::int32_t>& entries) {
        return fmt::format("static {} const {} {}[] = {{\n    {}}};\n", memory, index_type(entries),
                           name, table_text(entries));
    };
    std::string text = "\n#define SPION_BAKED_TABLES\n";
    const auto add = [&](std::string_view name, int value, std::string_view comment) {
        fmt::format_to(std::back_inserter(text), "enum : int {{ {} = {} }};  // {}\n", name, value,
                       comment);
    };
    add("kTiles", program.tiles() / item_walks(program.attention, program.role),
        "work items of one (b, h)");
    add("kListed", uniform.listed, "gather blocks of every work item, -1 where they differ");
    add("kSteps", uniform.steps, "steps of every work item, -1 where they differ");
    fmt::format_to(std::back_inserter(text), "using GatherBlockIndex = {};\n",
                   index_type(program.gather_blocks));
    return text + table("__constant__", "kOrder", program.order) +
           table("__constant__", "kOffsets", program.offsets) +
           table("__device__", "kGatherBlocks", unfoldable(program.gather_blocks)) +
           (program.packed_rows() > 1 ? baked_block_row_masks(program) : "");
}

}  // namespace spion
