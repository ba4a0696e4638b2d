#include "codegen/baked_tables.h"

#include <fmt/format.h>

#include "codegen/emit.h"
#include "ir/error.h"

namespace spion {
namespace {

template <typename Entry>
std::string text_of(std::span<const Entry> table, std::string_view prefix) {
    constexpr std::size_t kColumns = 90;
    if (table.empty()) {
        return fmt::format("{}0", prefix);
    }
    std::string text;
    std::size_t line = 0;  // where the current one starts
    for (const Entry entry : table) {
        if (!text.empty()) {
            text += ',';
            if (text.size() - line > kColumns) {
                text += "\n   ";
                line = text.size();
            }
            text += ' ';
        }
        text += fmt::format("{}{}", prefix, entry);
    }
    return text;
}

}  // namespace

UniformWalk uniform_walk(const TileProgram& program) {
    UniformWalk uniform;
    const int a_step = program.streamed_rows / program.gather_rows;
    for (int item = 0; item < program.tiles(); ++item) {
        const auto at = static_cast<std::size_t>(item);
        const int listed = program.offsets[at + 1] - program.offsets[at];
        const int steps = (listed + a_step - 1) / a_step;
        uniform.listed = item == 0 || uniform.listed == listed ? listed : -1;
        uniform.steps = item == 0 || uniform.steps == steps ? steps : -1;
        if (uniform.steps < 0) {  // then neither are as many gather blocks listed everywhere
            return {};
        }
    }
    // Padded keys are cut off where keys stream.
    if (program.attention.key_padding && !walks_columns(program.role)) {
        uniform.steps = -1;
    }
    return uniform;
}

std::string table_text(std::span<const std::int32_t> table, std::string_view prefix) {
    return text_of(table, prefix);
}
std::string table_text(std::span<const std::int64_t> table, std::string_view prefix) {
    return text_of(table, prefix);
}

std::string why_not_baked(const TileProgram& program) {
    if (program.role == KernelRole::kGradients) {
        return "its steps get their order from the device that it is loaded on";
    }
    const auto entries =
        static_cast<std::int64_t>(program.order.size() + program.offsets.size() +
                                  program.gather_blocks.size() + program.block_row_masks.size());
    if (entries <= kMostBakedEntries) {
        return "";
    }
    return fmt::format("its tables have {} entries, and {} at most are baked", entries,
                       kMostBakedEntries);
}

void require_bakeable(const TileProgram& program) {
    if (const std::string reason = why_not_baked(program); !reason.empty()) {
        throw UserError("{} cannot have its pattern in the source: {}; pass it as tables",
                        to_string(program.role), reason);
    }
}

}  // namespace spion
