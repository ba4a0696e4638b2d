// The lowered form of attention on a block pattern: which tiles are computed, from which pieces, in
// which order. Both back ends and all kernels of attention are generated from it.
//
// A kernel keeps one *stationary* tile and streams others past it:
//   kForward, kQueryGradient   stationary: query rows (Q, O, dO, dQ)   streamed: key rows (K, V)
//   kKeyValueGradient          stationary: key rows (K, V, dK, dV)     streamed: query rows (Q, dO)
// A backward pass is kQueryGradient, which also leaves delta = rowsum(dO * O), and then
// kKeyValueGradient; or, where that is faster, kDelta and then kGradients, which sums dQ beside dK
// and dV:
//   kDelta       stationary: query rows (dO, O)           a row without gather blocks gets dQ = 0
//   kGradients   stationary: key rows (K, V, dK, dV)      streamed: query rows (Q, dO, dQ)
// The streamed rows are gathered in *gather blocks*: runs of `gather_rows` rows that are adjacent
// in memory. One step of the inner loop takes up to streamed_rows / gather_rows gather blocks side
// by side; the last step of a work item may hold fewer. The order of accumulation is the order of
// `gather_blocks`, so the result is a function of the program alone: bitwise repeatable, no
// atomics. A work item with no gather blocks is legal: it writes the defined result of an empty
// row.
//
// A stationary tile lies in one block row of the pattern, or, *packed*, covers several whole ones
// on the union of their gather blocks; `block_row_masks` then says which block row uses which
// gather block.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "ir/attention.h"
#include "ir/block_pattern.h"
#include "ir/head_patterns.h"
#include "ir/tile_shape.h"

namespace spion {

enum class KernelRole { kForward, kQueryGradient, kKeyValueGradient, kDelta, kGradients };

// The launches of a layer, in order: 0 forward, 1 and 2 backward.
constexpr std::size_t launch_of(KernelRole role) {
    return role == KernelRole::kForward                                       ? 0
           : role == KernelRole::kQueryGradient || role == KernelRole::kDelta ? 1
                                                                              : 2;
}
// Whether stationary rows are keys, so that the walk is over the transposed pattern.
constexpr bool walks_columns(KernelRole role) {
    return role == KernelRole::kKeyValueGradient || role == KernelRole::kGradients;
}

// Heads that have work items of their own: of K and V where those stay. Each of their items then
// streams the queries of every head that reads them, one after the other.
constexpr int item_heads(const Attention& attention, KernelRole role) {
    return walks_columns(role) ? attention.key_value_heads() : attention.heads;
}

// Positions of the tensors that stay, and of those that stream.
constexpr std::int64_t stationary_length(const Attention& attention, KernelRole role) {
    return walks_columns(role) ? attention.key_value_length() : attention.length;
}
constexpr std::int64_t streamed_length(const Attention& attention, KernelRole role) {
    return walks_columns(role) ? attention.length : attention.key_value_length();
}

// Patterns that the heads with work items have: of a pattern a query head, an item of dK and dV has
// those of its members.
constexpr int item_patterns(const Attention& attention, KernelRole role) {
    const int heads = item_heads(attention, role);
    return attention.patterns < heads ? attention.patterns : heads;
}
// Heads with work items that share a pattern, and the walks of an item, one after the other: 1, but
// for those members.
constexpr int pattern_heads(const Attention& attention, KernelRole role) {
    return item_heads(attention, role) / item_patterns(attention, role);
}
constexpr int item_walks(const Attention& attention, KernelRole role) {
    return attention.patterns / item_patterns(attention, role);
}

// "attention_forward", "attention_query_gradient", "attention_key_value_gradient",
// "attention_delta", "attention_gradients": also the entry symbol and the name of the body file.
std::string_view to_string(KernelRole role);

// How a kernel gets its walk: tier 0, one kernel for every pattern of a shape, or tier 1, one a
// pattern.
enum class Tables {
    kPassed,  // as arguments: SpionAttentionArguments::order, offsets, gather blocks
    kBaked,   // in the source
};

// What a work item's gather blocks look like. A run is a stretch of adjacent gather blocks that the
// same block rows use.
enum class RowClass {
    kEmpty,      // no gather block
    kDense,      // one run of all gather blocks of the sequence
    kBand,       // one run
    kRuns,       // several runs, two gather blocks or more a run on average
    kIrregular,  // anything else
};

std::string_view to_string(Tables tables);       // "passed", "baked"
std::string_view to_string(RowClass row_class);  // "empty", "dense", "band", "runs", "irregular"
// The inverse. Throw UserError that lists the allowed names.
KernelRole parse_kernel_role(std::string_view name);
Tables parse_tables(std::string_view name);
RowClass parse_row_class(std::string_view name);

struct TileProgram {
    KernelRole role = KernelRole::kForward;
    Attention attention;
    int block = 64;            // the pattern's block edge
    int stationary_rows = 64;  // divides block, or a multiple of it (packed); CUDA: 16 * warps,
                               // with kMmaSyncTma 16 or 32
    int streamed_rows = 64;    // a multiple of gather_rows
    int gather_rows = 64;      // divides block, or a multiple of it
    int warps = 4;             // CUDA: warps that multiply a work item; host: 1
    int stages = 2;            // CUDA: streamed tiles in shared memory at once; host: 1
    MatrixUnit unit = MatrixUnit::kMmaSync;
    Tables tables = Tables::kPassed;

    // The walk, one entry a stationary tile, in the order the work is started (longest first):
    // work item w handles stationary tile order[w], which streams
    // (where heads have patterns of their own there are as many tiles of each, and
    // order[w] is pattern * pattern_tiles() + tile; item_walks() entries side by side, one a
    // member, are then one item of dK and dV)
    // gather_blocks[offsets[w]] .. gather_blocks[offsets[w + 1] - 1]; gather block g covers
    // streamed rows [g * gather_rows, min((g + 1) * gather_rows, streamed length)).
    std::vector<std::int32_t> order;          // [tiles], a permutation of 0 .. tiles-1
    std::vector<std::int32_t> offsets;        // [tiles + 1], offsets[0] == 0
    std::vector<std::int32_t> gather_blocks;  // [offsets.back()], ascending within a work item
    // [gather_blocks.size()] of a packed program, else empty. Bit r: block row r of the stationary
    // tile (block row order[w] * packed_rows() + r of the pattern) uses the gather block; the
    // elements of the other block rows count as pruned.
    std::vector<std::uint32_t> block_row_masks = {};
    // [tiles], or empty while rows are not classified.
    std::vector<RowClass> classes = {};
    // [gather_blocks.size()], or empty while gather blocks are not marked: kFull where every
    // element of the tile's rows with the gather block counts, whatever the launch, else kPartial.
    std::vector<Coverage> coverages = {};

    // Block rows of a stationary tile: 1, or more when packed (at most 32).
    int packed_rows() const { return stationary_rows > block ? stationary_rows / block : 1; }
    int tiles() const { return static_cast<int>(order.size()); }  // of all patterns
    std::int64_t pattern_tiles() const {
        return (stationary_length(attention, role) + stationary_rows - 1) / stationary_rows;
    }
    // Of entry w of the walk.
    std::int64_t tile(int w) const { return order[static_cast<std::size_t>(w)] % pattern_tiles(); }
    int pattern(int w) const {
        return static_cast<int>(order[static_cast<std::size_t>(w)] / pattern_tiles());
    }
    friend bool operator==(const TileProgram&, const TileProgram&) = default;
};

TileShape shape_of(const TileProgram& program);

// What TileProgram::coverages says of entry `at` of `gather_blocks`, one of work item `item`'s. Rows
// of the tile beyond L do not count, nor does a gather block that one of its block rows does not
// use, nor one that reaches beyond L.
Coverage gather_block_coverage(const TileProgram& program, int item, std::size_t at);

// kFull when all elements of all steps count, whatever the launch: then a kernel asks for none of
// them. Of a walk that is passed the operation alone decides, of a baked one its marks.
Coverage step_coverage(const TileProgram& program);

// kFull when the walk is baked and every gather block is marked full: then the kernel has nothing of
// the element mask in it but the ends of walks and the number of kept elements.
Coverage block_coverage(const TileProgram& program);

// The class of work item `item`, computed from its gather blocks.
RowClass row_class(const TileProgram& program, int item);

// "walk tiles=5 gather_blocks=11 longest=5 empty=2 partial=3": longest and empty count gather blocks
// of work items, partial those that are not full; without the last where none is marked.
std::string walk_line(const TileProgram& program);

// The text form of docs/ir.md: header lines of keyword=value facts that shape the code, then one
// line a work item in order ("tile 3 runs: 0 1 5..9": gather blocks, runs of three and more as
// first..last; "5..9/0110" when packed: bit r of `block_row_masks` is character r; "7~" when
// partial). With `tables` false only a summary of the walk. A program that passes are still making
// prints what it has: no tiles (stationary_rows == 0), or no walk (order empty). Everything before
// "walk" shapes the code of passed tables.
std::string to_text(const TileProgram& program, bool tables = true);

// Throws InternalError naming the broken rule and where: sizes and divisibility as documented
// above, order a permutation, offsets monotone, gather blocks ascending and in range, bits and
// classes consistent, and, when a pattern is given, exactly its elements covered.
void verify(const TileProgram& program);
void verify(const TileProgram& program, const HeadPatterns& patterns);

}  // namespace spion
