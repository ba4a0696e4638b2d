// libFuzzer target: any bytes are refused as a checkpoint with the file's name, or are one that
// survives writing and reading.
#include "ir/error.h"
#include "tests/fuzz/refusal.h"
#include "train/checkpoint.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace spion;
    static const FuzzFolder folder;
    const std::filesystem::path file = folder.write("given.safetensors", text_of(data, size));
    Checkpoint checkpoint;
    try {
        checkpoint = read_checkpoint(file);
    } catch (const UserError& error) {
        const bool named = std::string_view(error.what()).find(file.string()) != std::string::npos;
        require_whole(named ? refused_well(error)
                            : std::string("refused without its name: ") + error.what());
        return 0;
    }
    const std::filesystem::path written = folder.path() / "written.safetensors";
    write_checkpoint(written, checkpoint);
    const Checkpoint again = read_checkpoint(written);
    const bool same =
        to_toml(again.settings) == to_toml(checkpoint.settings) &&
        again.class_names == checkpoint.class_names && again.state.step == checkpoint.state.step &&
        again.patterns == checkpoint.patterns && again.values.size() == checkpoint.values.size();
    require_whole(same ? "" : "writing and reading changed it");
    return 0;
}
