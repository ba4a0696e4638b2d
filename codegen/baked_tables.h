// The walk of a program as constants of its source (Tables::kBaked), for both back ends.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "ir/tile_program.h"

namespace spion {

// What all work items have in common; -1 where they differ.
struct UniformWalk {
    int listed = -1;  // gather blocks
    int steps = -1;   // steps of streamed_rows rows; -1 too where a sample's length decides
};
UniformWalk uniform_walk(const TileProgram& program);

// "3, 1, 2", each number behind `prefix`, in lines of less than 100 columns; "0" for none, as
// tables must not be empty.
std::string table_text(std::span<const std::int32_t> table, std::string_view prefix = "");
std::string table_text(std::span<const std::int64_t> table, std::string_view prefix = "");

// Throws UserError when why_not_baked() has a reason.
void require_bakeable(const TileProgram& program);

}  // namespace spion
