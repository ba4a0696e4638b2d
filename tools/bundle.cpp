// `spion bundle`: kernels for machines without a compiler.
#include <memory>
#include <string>
#include <vector>

#include "compiler/make_bundle.h"
#include "ir/error.h"
#include "runtime/offline.h"
#include "runtime/output.h"
#include "tools/attention_options.h"
#include "tools/commands.h"

namespace spion {
namespace {

struct BundleOptions {
    AttentionOptions attention;
    std::vector<std::string> targets;
    std::string out, check;
    bool key_padding = false;
};

void run_bundle(const BundleOptions& options) {
    if (!options.check.empty()) {
        write_out(check_bundle(options.check));
        return;
    }
    if (options.out.empty() || options.targets.empty()) {
        throw UserError(
            "nothing says what to bundle: give --out, --target and the operation, or --check "
            "BUNDLE");
    }
    const bool has_pattern = !options.attention.pattern_file.empty() ||
                             options.attention.pattern_density ||
                             !options.attention.pattern_striped.empty();
    if (!has_pattern && !options.attention.length) {
        throw UserError(
            "neither a length nor a typical pattern is given: give --length L, or "
            "--pattern FILE");
    }
    std::vector<BundledPlan> plans;
    for (const std::string& name : options.targets) {
        PlanRequest request{.attention = {}, .block = options.attention.block};
        if (has_pattern) {
            request.typical = load_pattern(options.attention).front();
        }
        const std::int64_t length =
            request.typical ? request.typical->length() : *options.attention.length;
        request.attention = describe_attention(options.attention, length, target_named(name));
        request.attention.key_padding = options.key_padding;
        plans.push_back({name, request});
    }
    make_bundle(plans, options.out, SPION_VERSION);
    write_out(check_bundle(options.out));
}

}  // namespace

void add_bundle(CLI::App& app, int* /*exit_code*/) {
    auto options = std::make_shared<BundleOptions>();
    options->attention.softmax = "masked";  // as the library's own default
    CLI::App* bundle = app.add_subcommand(
        "bundle", "compiles kernels for machines without a compiler into a folder");
    bundle->add_option("--out", options->out, "the folder to write, which must not exist");
    bundle->add_option("--target", options->targets,
                       "whom for: sm_80, .., sm_120, host; several may be given");
    bundle->add_option("--check", options->check,
                       "instead: reads every kernel of this bundle and lists them");
    bundle->add_flag("--key-padding", options->key_padding,
                     "calls are given the number of valid keys of each sample");
    add_pattern_options(*bundle, options->attention);
    add_operation_options(*bundle, options->attention);
    bundle->callback([options] { run_bundle(*options); });
}

}  // namespace spion
