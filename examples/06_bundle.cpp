// Kernels compiled ahead: a bundle is made once, where there is a compiler, and opened where there is
// none. A frozen context proves that nothing is compiled. A bundle is code: open those you trust.
#include <spion/spion.h>

#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

int main() try {
    const std::filesystem::path folder =
        std::filesystem::temp_directory_path() / "spion-example-bundle";
    std::filesystem::remove_all(folder);

    const spion::Attention attention{
        .heads = 2, .head_dim = 32, .length = 512, .block = 64, .dtype = spion::DType::kFp32};
    const std::vector<spion::Attention> attentions{attention};
    const std::vector<std::string> targets{"host"};  // or "sm_90a", "sm_80", ...
    spion::write_bundle(attentions, targets, folder.string());
    std::printf("%s", spion::check_bundle(folder.string()).c_str());

    const auto context =
        spion::Context::host({.frozen = true, .memory_only = true, .bundle = folder.string()});
    const auto plan = context.plan(attention);
    std::printf("%lld kernels from the bundle, %lld compiled\n",
                static_cast<long long>(context.counters().from_bundle),
                static_cast<long long>(context.counters().compiled));
    try {
        context.plan({.heads = 2, .head_dim = 48, .length = 512, .dtype = spion::DType::kFp32});
    } catch (const spion::Frozen& frozen) {
        std::printf("refused: %s\n", frozen.what());
    }
    std::filesystem::remove_all(folder);
    return plan.origin() == spion::Origin::kBundle ? 0 : 1;
} catch (const spion::Error& error) {
    std::fprintf(stderr, "06_bundle: %s\n", error.what());
    return 1;
}
