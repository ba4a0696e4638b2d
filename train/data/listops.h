// ListOps (Yoon, Han, Moon: SPION, PAKDD 2024): prefix expressions such as "[MAX 4 3 [MIN 2 3 ] 1 0
// ]" over minimum, maximum, median (rounded down) and sum modulo 10; the label is the value, 0
// to 9.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace spion {

enum class ListOp { kMin, kMax, kMedian, kSumModulo };
constexpr int kListOpCount = 4;

// Tokens: 0 padding, 1..4 the operators in ListOp's order, 5..14 the digits, 15 "]".
constexpr std::uint16_t kListOpsFirstDigit = 1 + kListOpCount;
constexpr std::uint16_t kListOpsClose = kListOpsFirstDigit + 10;
constexpr int kListOpsTokens = kListOpsClose + 1;
constexpr int kListOpsClasses = 10;

constexpr std::uint16_t list_op_token(ListOp op) {
    return static_cast<std::uint16_t>(1 + static_cast<int>(op));
}

// "[MIN", "4", "]"; throws InternalError for a number that is no token (padding included).
std::string_view list_ops_token_text(std::uint16_t token);
// nullopt when `text` is no token.
std::optional<std::uint16_t> parse_list_ops_token(std::string_view text);

// The operator's value of one or more digits.
int apply_list_op(ListOp op, std::span<const int> digits);

// Tokens joined by blanks, as Long Range Arena writes them without the parentheses.
std::string list_ops_text(std::span<const std::uint16_t> tokens);

}  // namespace spion
