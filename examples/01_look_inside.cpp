// From a pattern to the code of a GPU that need not be here: what the compiler chose, and the text of
// every stage.
//
//     01_look_inside [TARGET]      TARGET: sm_90a (default), sm_80, sm_120, host, ...
#include <spion/spion.h>

#include <cstdio>
#include <string>

int main(int count, char** arguments) try {
    const std::string target = count > 1 ? arguments[1] : "sm_90a";

    // A line a block row, 1 for each block that is computed.
    const spion::Pattern pattern = spion::Pattern::from_text(256, 64,
                                                             "1001\n"
                                                             "1101\n"
                                                             "0111\n"
                                                             "1111\n");
    std::printf("%s%.0f %% of the map, digest %s\n\n", pattern.picture().c_str(),
                100 * pattern.density(), pattern.digest().c_str());

    // On the host, attention is fp32.
    const spion::Attention attention{
        .heads = 2,
        .head_dim = 64,
        .length = 256,
        .block = 64,
        .dtype = target == "host" ? spion::DType::kFp32 : spion::DType::kBf16};
    const spion::PlanOptions options{.typical = pattern};

    std::printf("%s\n", spion::explain(attention, target, options).c_str());
    std::printf("%s\n", spion::emit(attention, target, spion::Kernel::kForward,
                                    spion::Stage::kProgram, options)
                            .c_str());
    const std::string source =
        spion::emit(attention, target, spion::Kernel::kForward, spion::Stage::kSource, options);
    std::printf("%s\n", source.substr(0, 1500).c_str());
    const std::string binary =
        spion::emit(attention, target, spion::Kernel::kForward, spion::Stage::kBinary, options);
    std::printf("... the forward kernel for %s: %zu bytes of source, %zu bytes of binary\n",
                target.c_str(), source.size(), binary.size());
    return 0;
} catch (const spion::Error& error) {
    std::fprintf(stderr, "01_look_inside: %s\n", error.what());
    return 1;
}
