// `spion verify`: the kernels generated for one attention problem, against the float64 reference.
#include <fmt/ranges.h>

#include <cstdio>
#include <filesystem>
#include <memory>
#include <system_error>

#include "ir/error.h"
#include "runtime/output.h"
#include "tools/attention_case.h"
#include "tools/attention_options.h"
#include "tools/command_line.h"
#include "tools/commands.h"
#include "tools/exit_codes.h"
#include "tools/npy.h"

namespace spion {
namespace {

struct VerifyOptions {
    AttentionOptions attention;
    std::uint64_t seed = 1;
    std::string layout = "heads_first";
    std::string dump;  // a folder, or "" for none
};

Layout parse_layout(const std::string& name) {
    if (name == "heads_first") {
        return Layout::kHeadsFirst;
    }
    if (name == "packed") {
        return Layout::kPacked;
    }
    throw UserError("layout '{}' is not known: use heads_first or packed", name);
}

void create_folder(const std::string& folder) {
    std::error_code error;
    std::filesystem::create_directories(folder, error);
    if (error || !std::filesystem::is_directory(folder)) {
        throw UserError(
            "the folder {} for --dump cannot be made ({}); give one that can be written", folder,
            error ? error.message() : "it is a file");
    }
}

void dump(const std::string& folder, const AttentionCase& problem, const CaseReport& report) {
    const Attention& a = problem.attention;
    const std::vector<std::int64_t> rows{problem.batch, a.heads, a.length};
    std::vector<std::int64_t> tensor = rows;
    tensor.push_back(a.head_dim);
    const auto write = [&](const char* name, const std::vector<std::int64_t>& shape,
                           const std::vector<float>& values) {
        write_npy((std::filesystem::path(folder) / name).string() + ".npy", shape, values);
    };
    write("q", tensor, report.inputs.q);
    write("k", tensor, report.inputs.k);
    write("v", tensor, report.inputs.v);
    write("do", tensor, report.inputs.d_o);
    write("o", tensor, report.outputs.o);
    write("lse", rows, report.outputs.lse);
    write("dq", tensor, report.outputs.d_q);
    write("dk", tensor, report.outputs.d_k);
    write("dv", tensor, report.outputs.d_v);
}

void print_report(const CaseReport& report) {
    for (const TensorError& error : report.errors) {
        print_out("{:<4} relative error {:.3e}  tolerance {:.0e}  {}\n", error.name, error.relative,
                  error.tolerance, error.passed() ? "ok" : "FAILED");
        if (error.faulty > 0) {
            say("spion: {} has {} elements that are NaN, infinite or never written\n", error.name,
                error.faulty);
        }
    }
    print_out("repeatable: {}\n", report.repeatable ? "yes, a second run gave the same bytes"
                                                    : "NO, a second run gave other bytes");
    if (!report.in_bounds) {
        say("spion: the kernels wrote outside their outputs\n");
    }
}

int verify(const VerifyOptions& options) {
    const Layout layout = parse_layout(options.layout);
    BlockPattern pattern = load_pattern(options.attention);
    const auto device = open_device(options.attention);
    const AttentionCase problem{
        .attention = describe_attention(options.attention, pattern.length(), device->target()),
        .pattern = std::move(pattern),
        .batch = options.attention.batch,
        .lengths = options.attention.lengths,
        .seed = options.seed,
        .layout = layout,
        .packed_rows = options.attention.packed_rows,
    };
    check(problem, *device);
    if (!options.dump.empty()) {
        create_folder(options.dump);
    }
    say("{}: {}\n", device->name(), to_text(problem));
    KernelCache cache(KernelCache::checked_root());
    const CaseReport report = check_case(problem, *device, cache);
    if (!options.dump.empty()) {
        dump(options.dump, problem, report);
    }
    print_report(report);
    return report.passed() ? kDone : kNotPassed;
}

}  // namespace

void add_verify(CLI::App& app, int* exit_code) {
    const auto options = std::make_shared<VerifyOptions>();
    CLI::App* command = app.add_subcommand(
        "verify", "hold the generated kernels against a float64 reference; exit 1 above tolerance");
    add_pattern_options(*command, options->attention);
    add_attention_options(*command, options->attention);
    add_seed_option(*command, "--seed", options->seed, "seed of the random inputs");
    command
        ->add_option("--layout", options->layout,
                     "heads_first ([B,H,L,D]) or packed ([B,L,3,H,D], as training has it)")
        ->capture_default_str();
    command->add_option("--dump", options->dump,
                        "folder for q, k, v, do, o, lse, dq, dk, dv as .npy (float32)");
    command->callback([options, exit_code] { *exit_code = verify(*options); });
}

}  // namespace spion
