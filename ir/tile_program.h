// The lowered form of attention on a block pattern: which tiles are computed, from which pieces, in
// which order. Both back ends and all three kernels are generated from it.
//
// A kernel keeps one *stationary* tile and streams others past it:
//   kForward, kQueryGradient   stationary: query rows (Q, O, dO, dQ)   streamed: key rows (K, V)
//   kKeyValueGradient          stationary: key rows (K, V, dK, dV)     streamed: query rows (Q, dO)
// The streamed rows are gathered in *granules*: runs of `granule` rows that are adjacent in memory.
// One step of the inner loop takes up to streamed_rows / granule granules side by side; the last
// step of a work item may hold fewer. The order of accumulation is the order of `granules`, so the
// result is a function of the program alone: bitwise repeatable, no atomics.
// A work item with no granules is legal: it writes the defined result of an empty row.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ir/attention.h"
#include "ir/block_pattern.h"
#include "ir/target.h"

namespace spion {

enum class KernelRole { kForward, kQueryGradient, kKeyValueGradient };

// "attention_forward", "attention_query_gradient", "attention_key_value_gradient": also the entry
// symbol and the name of the body file.
std::string_view to_string(KernelRole role);

struct TileProgram {
    KernelRole role = KernelRole::kForward;
    Attention attention;
    int block = 64;            // the pattern's block edge
    int stationary_rows = 64;  // divides block or equals it; CUDA: 16 * warps
    int streamed_rows = 64;    // a multiple of granule
    int granule = 64;          // divides block
    int warps = 4;             // CUDA: warps of a thread block; host: 1
    int stages = 2;            // CUDA: streamed tiles in shared memory at once; host: 1

    // The walk, one entry a stationary tile, in the order the work is started (longest first):
    // work item w handles stationary tile order[w], which streams
    // granules[offsets[w]] .. granules[offsets[w + 1] - 1]; granule g covers streamed rows
    // [g * granule, min((g + 1) * granule, L)).
    std::vector<std::int32_t> order;     // [tiles], a permutation of 0 .. tiles-1
    std::vector<std::int32_t> offsets;   // [tiles + 1], offsets[0] == 0
    std::vector<std::int32_t> granules;  // [offsets.back()], ascending within a work item

    int tiles() const { return static_cast<int>(order.size()); }
    friend bool operator==(const TileProgram&, const TileProgram&) = default;
};

// Header lines of keyword=value facts that shape the code, then one line a work item in order
// ("tile 3: 0 1 5..9": granules, runs of three and more as first..last). With `tables` false only a
// summary of the walk.
std::string to_text(const TileProgram& program, bool tables = true);

// Throws InternalError naming the broken rule and where: sizes and divisibility as documented
// above, order a permutation, offsets monotone, granules ascending and in range, and, when a
// pattern is given, exactly its elements covered.
void verify(const TileProgram& program);
void verify(const TileProgram& program, const BlockPattern& pattern);

}  // namespace spion
