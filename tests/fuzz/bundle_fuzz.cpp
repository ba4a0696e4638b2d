// libFuzzer target: with any bytes for its manifest, a bundle is refused with a sentence, or each of
// its kernels is read or called damaged.
#include "ir/error.h"
#include "runtime/bundle.h"
#include "tests/fuzz/refusal.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace spion;
    static const FuzzFolder folder;
    folder.write("manifest.json", text_of(data, size));
    try {
        const Bundle bundle = Bundle::open(folder.path());
        require_whole(bundle.targets().empty() ? "it says nothing of its targets" : "");
        for (const BundledKernel& kernel : bundle.kernels()) {
            try {
                bundle.read(kernel);
                require_whole("it reads a kernel where none is");
            } catch (const DeviceError& error) {
                require_whole(refused_well(error));
            }
        }
    } catch (const UserError& error) {
        require_whole(refused_well(error));
    } catch (const DeviceError& error) {
        require_whole(refused_well(error));
    }
    return 0;
}
