// What find_fault is made of: rules that throw BrokenRule, one at a time.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <span>
#include <utility>

#include "ir/attention.h"
#include "ir/head_patterns.h"
#include "ir/tile_program.h"
#include "ir/verify.h"

namespace spion {

constexpr int kProgram = -1;  // Fault::item of a rule about the whole program

struct BrokenRule {
    Fault fault;
};

template <typename... Args>
[[noreturn]] void broken(int item, fmt::format_string<Args...> format, Args&&... args) {
    throw BrokenRule{{.rule = fmt::format(format, std::forward<Args>(args)...), .item = item}};
}

inline std::span<const std::int32_t> gather_blocks_of(const TileProgram& program, int item) {
    return {program.gather_blocks.data() + program.offsets[item],
            program.gather_blocks.data() + program.offsets[item + 1]};
}

// The order is a permutation of the tiles, the walk's tables fit together, and classes and marks are
// what the walk says.
void verify_whole_walk(const TileProgram& program);

// The walk has every block of `patterns` and no other. `patterns` as the role walks them: transposed
// where it walks columns.
void verify_coverage(const TileProgram& program, const HeadPatterns& patterns);

}  // namespace spion
