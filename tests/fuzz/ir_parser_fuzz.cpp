// libFuzzer target: any bytes are refused with a message or read, verified and printed back.
#include "tests/fuzz/ir_property.h"
#include "tests/fuzz/refusal.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    spion::require_whole(spion::broken_property(spion::text_of(data, size)));
    return 0;
}
