#include "compiler/plan/sequence_patterns.h"

#include <cstdint>
#include <utility>
#include <vector>

namespace spion {

HeadPatterns filled(const HeadPatterns& given, const Attention& attention, bool repeated) {
    if (given.count() == attention.pattern_count()) {
        return given;
    }
    std::vector<BlockPattern> patterns(given.begin(), given.end());
    const BlockPattern empty(
        given.length(), given.key_length(), given.block(),
        std::vector<std::uint8_t>(static_cast<std::size_t>(given.rows()) * given.columns()));
    for (int n = given.count(); n < attention.pattern_count(); ++n) {
        patterns.push_back(repeated ? given[n % given.count()] : empty);
    }
    return HeadPatterns(std::move(patterns));
}

}  // namespace spion
