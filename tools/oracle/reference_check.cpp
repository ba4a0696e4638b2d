#include <span>
#include <utility>

#include "ir/error.h"
#include "tools/oracle/reference_attention.h"

namespace spion {

void check(const ReferenceProblem& problem) {
    const Attention& attention = problem.attention;
    const std::size_t expected = static_cast<std::size_t>(problem.batch) * attention.heads *
                                 attention.length * attention.head_dim;
    const std::size_t of_keys = static_cast<std::size_t>(problem.batch) *
                                attention.key_value_heads() * attention.key_value_length() *
                                attention.head_dim;
    const std::pair<std::span<const float>, std::size_t> tensors[] = {
        {problem.q, expected},
        {problem.k, of_keys},
        {problem.v, of_keys / attention.head_dim * attention.value_head_dim()},
        {problem.d_o, expected / attention.head_dim * attention.value_head_dim()}};
    for (const auto& [tensor, wanted] : tensors) {
        if (tensor.size() != wanted) {
            throw UserError("the reference was given a tensor of {} elements, but B*H*L*D is {}",
                            tensor.size(), wanted);
        }
    }
    if (problem.pattern.count() != attention.pattern_count()) {
        throw UserError("{} patterns were given for an attention with {}", problem.pattern.count(),
                        attention.pattern_count());
    }
    if (attention.sequence_patterns > 0 && problem.batch > attention.sequence_patterns) {
        throw UserError("a batch of {} was given for patterns of {} sequences", problem.batch,
                        attention.sequence_patterns);
    }
    if (problem.pattern.length() != attention.length ||
        problem.pattern.key_length() != attention.key_value_length()) {
        throw UserError(
            "the pattern is for {} queries and {} keys, the attention for {} and {}; give both the "
            "same lengths",
            problem.pattern.length(), problem.pattern.key_length(), attention.length,
            attention.key_value_length());
    }
    if (attention.key_padding && std::ssize(problem.lengths) != problem.batch) {
        throw UserError("{} lengths were given for a batch of {}; give one for each sample",
                        problem.lengths.size(), problem.batch);
    }
    if (attention.mask == ElementMask::kSpans) {
        if (problem.rules == nullptr) {
            throw UserError("the attention has a mask of spans, but no rules were given for it");
        }
        check(*problem.rules, problem.batch, attention.length, attention.key_value_length());
    }
    check(problem.values, attention);
}

}  // namespace spion
