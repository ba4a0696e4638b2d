// What holds for every file given to the readers of arrays and patterns, shared by the fuzz targets
// and the replay.
#pragma once

#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/array_file.h"
#include "io/pattern_file.h"
#include "ir/error.h"
#include "tests/fuzz/refusal.h"

namespace spion {

// Both return "" if the property holds, else what went wrong. Any other exception passes through.

// The file is refused with a sentence, or every array in it can be read: as many elements as its
// shape says, the same one by one as all together.
inline std::string broken_array_property(std::string_view text) {
    const Bytes bytes = own(std::string(text));
    std::vector<std::string> names;
    try {
        names = array_names(bytes, "given");
    } catch (const UserError& error) {
        return refused_well(error);
    }
    names.push_back("");
    for (const std::string& name : names) {
        try {
            const Array array = parse_array(bytes, "given", name);
            const std::vector<double> values = array.values();
            if (static_cast<std::int64_t>(values.size()) != array.count()) {
                return "an array has another size than its shape";
            }
            constexpr std::size_t kTried = 100;
            for (std::size_t i = 0; i < std::min(values.size(), kTried); ++i) {
                double one = 0;
                array.read(static_cast<std::int64_t>(i), std::span(&one, 1));
                if (one != values[i] && !(std::isnan(one) && std::isnan(values[i]))) {
                    return "an element differs when it is read alone";
                }
            }
        } catch (const UserError& error) {
            if (const std::string wrong = refused_well(error); !wrong.empty()) {
                return wrong;
            }
        }
    }
    return "";
}

// The file is refused with a sentence, or its pattern survives printing and parsing.
inline std::string broken_pattern_property(std::string_view text) {
    const Bytes bytes = own(std::string(text));
    const PatternRequest requests[] = {{}, {.block = 16}, {.block = 16, .length = 72}};
    for (const PatternRequest& request : requests) {
        try {
            const FoundPattern found = parse_pattern(bytes, "given", "", request);
            const BlockPattern& pattern = found.pattern;
            if (request.length > 0 && pattern.length() != request.length) {
                return "the pattern has another length than was asked for";
            }
            if (parse_bits(pattern.to_bits(), pattern.length(), pattern.block(), "printed") !=
                pattern) {
                return "printing and parsing changed the pattern";
            }
        } catch (const UserError& error) {
            if (const std::string wrong = refused_well(error); !wrong.empty()) {
                return wrong;
            }
        }
    }
    return "";
}

}  // namespace spion
