#include "codegen/attention_constants.h"

#include <fmt/format.h>

namespace spion {

std::vector<Constant> operation_constants(const Attention& attention, Coverage blocks) {
    return {
        integer("kLength", attention.length, "L"),
        integer("kKeyLength", attention.key_value_length(), "of K and V"),
        {.name = "kScale", .value = attention.scale, .comment = "of Q K^T"},
        integer("kSoftmax", static_cast<int>(attention.softmax),
                fmt::format("{} (SpionSoftmax)", to_string(attention.softmax))),
        {.name = "kKeyPadding",
         .value = attention.key_padding,
         .comment = "lengths say which keys are valid"},
        integer("kMask", static_cast<int>(attention.mask),
                fmt::format("{} (SpionMask)", to_string(attention.mask))),
        {.name = "kBlocksAreFull",
         .value = blocks == Coverage::kFull,
         .comment = "the mask drops nothing of the walk"},
        integer("kDropped", dropped_of_256(attention), "of 256, of P"),
        {.name = "kSoftcap", .value = attention.softcap, .comment = "of scores; 0: none"},
        {.name = "kAlibi", .value = attention.alibi, .comment = "slopes of distances"},
        {.name = "kSink", .value = attention.sink, .comment = "one score more a row"},
        integer("kRelativeBias", attention.relative_bias, "R of a bias by position; 0: none"),
        {.name = "kVarlen", .value = attention.varlen, .comment = "sequences lie end to end"},
        {.name = "kKeyStarts",
         .value = attention.key_starts,
         .comment = "keys are sequences of their own"},
        {.name = "kSequencePatterns",
         .value = attention.sequence_patterns > 0,
         .comment = "each has patterns of its own"},
    };
}

}  // namespace spion
