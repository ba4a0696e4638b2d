#include "train/data/listops.h"

#include <algorithm>
#include <array>
#include <numeric>

#include "ir/error.h"

namespace spion {
namespace {

constexpr std::array<std::string_view, kListOpsTokens> kTokenText = {
    "", "[MIN", "[MAX", "[MED", "[SM", "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "]"};

int median(std::span<const int> digits) {
    std::vector<int> sorted(digits.begin(), digits.end());
    std::sort(sorted.begin(), sorted.end());
    const std::size_t middle = sorted.size() / 2;
    return sorted.size() % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

}  // namespace

std::string_view list_ops_token_text(std::uint16_t token) {
    if (token == 0 || token >= kListOpsTokens) throw InternalError("{} is no ListOps token", token);
    return kTokenText[token];
}

std::optional<std::uint16_t> parse_list_ops_token(std::string_view text) {
    const auto* found = std::find(kTokenText.begin() + 1, kTokenText.end(), text);
    if (found == kTokenText.end()) return std::nullopt;
    return static_cast<std::uint16_t>(found - kTokenText.begin());
}

int apply_list_op(ListOp op, std::span<const int> digits) {
    if (digits.empty()) throw InternalError("a ListOps operator without arguments");
    switch (op) {
        case ListOp::kMin:
            return *std::min_element(digits.begin(), digits.end());
        case ListOp::kMax:
            return *std::max_element(digits.begin(), digits.end());
        case ListOp::kMedian:
            return median(digits);
        case ListOp::kSumModulo:
            return std::accumulate(digits.begin(), digits.end(), 0) % 10;
    }
    throw InternalError("unknown ListOps operator {}", static_cast<int>(op));
}

std::string list_ops_text(std::span<const std::uint16_t> tokens) {
    std::string text;
    for (const std::uint16_t token : tokens) {
        if (!text.empty()) text += ' ';
        text += list_ops_token_text(token);
    }
    return text;
}

}  // namespace spion
