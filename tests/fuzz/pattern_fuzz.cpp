// libFuzzer target: any bytes are refused with a sentence or read as patterns.
#include "tests/fuzz/io_property.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    spion::require_whole(spion::broken_pattern_property(spion::text_of(data, size)));
    return 0;
}
