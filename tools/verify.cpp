// `spion verify`: the kernels generated for one attention problem, against the float64 reference.
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <limits>
#include <memory>
#include <optional>
#include <system_error>

#include "io/npy.h"
#include "ir/error.h"
#include "runtime/output.h"
#include "tools/attention_inputs.h"
#include "tools/attention_options.h"
#include "tools/command_line.h"
#include "tools/commands.h"
#include "tools/exit_codes.h"
#include "tools/oracle/attention_case.h"

namespace spion {
namespace {

struct VerifyOptions {
    AttentionOptions attention;
    std::uint64_t seed = 1;
    std::string layout = "heads_first";
    std::string dump;  // a folder, or "" for none
    TensorFiles files;
    std::optional<float> scale;  // nothing: 1/sqrt(D)
    // Flags that were given, and therefore have to agree with the tensors.
    bool heads_given = false, head_dim_given = false, batch_given = false;
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
    std::vector<std::int64_t> key_tensor = tensor;
    key_tensor[1] = a.key_value_heads();
    key_tensor[2] = a.key_value_length();
    std::vector<std::int64_t> output = tensor, value_tensor = key_tensor;
    output[3] = value_tensor[3] = a.value_head_dim();
    const auto write = [&](const char* name, const std::vector<std::int64_t>& shape,
                           const std::vector<float>& values) {
        write_npy((std::filesystem::path(folder) / name).string() + ".npy", shape, values);
    };
    write("q", tensor, report.inputs.q);
    write("k", key_tensor, report.inputs.k);
    write("v", value_tensor, report.inputs.v);
    write("do", output, report.inputs.d_o);
    write("o", output, report.outputs.o);
    write("lse", rows, report.outputs.lse);
    write("dq", tensor, report.outputs.d_q);
    write("dk", key_tensor, report.outputs.d_k);
    write("dv", value_tensor, report.outputs.d_v);
    if (problem.attention.sink) {
        write("dsinks", {problem.attention.heads}, report.outputs.d_sinks);
    }
    if (problem.attention.relative_bias > 0) {
        write("dbias", {a.heads, a.bias_entries()}, report.outputs.d_relative_bias);
    }
}

void print_report(const AttentionCase& problem, const CaseReport& report) {
    for (const TensorError& error : report.errors) {
        print_out("{:<4} relative error {:.3e}  tolerance {:.0e}  {}", error.name, error.relative,
                  error.tolerance, error.passed() ? "ok" : "FAILED");
        if (error.worst >= 0) {
            print_out("  worst at {}: got {:.7g}, wanted {:.7g}",
                      place_text(problem, error.name, error.worst), error.got, error.wanted);
        }
        print_out("\n");
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

void require_equal(const char* flag, bool given, std::int64_t value, std::int64_t tensors) {
    if (given && value != tensors) {
        throw UserError("{} is {} and the tensors have {}: leave it out", flag, value, tensors);
    }
}

// Takes B, H, L and D from the tensors; the flags that were given have to say the same.
std::shared_ptr<const AttentionInputs> take_tensors(VerifyOptions& options) {
    if (!options.files.any()) {
        return nullptr;
    }
    AttentionOptions& attention = options.attention;
    if (attention.value_dim != 0) {
        throw UserError(
            "--value-dim is {} and tensors come from files, which are all of one shape: leave it "
            "out",
            attention.value_dim);
    }
    if (attention.kv_length != 0) {
        throw UserError(
            "--kv-length is {} and tensors come from files, which are all of one shape: leave it "
            "out",
            attention.kv_length);
    }
    GivenTensors given = read_tensors(options.files);
    require_equal("--batch", options.batch_given, attention.batch, given.batch);
    require_equal("--heads", options.heads_given, attention.heads, given.heads);
    require_equal("--head-dim", options.head_dim_given, attention.head_dim, given.head_dim);
    require_equal("--length", attention.length.has_value(), attention.length.value_or(0),
                  given.length);
    constexpr std::int64_t kMost = std::numeric_limits<int>::max();
    attention.batch = given.batch;
    attention.heads = static_cast<int>(std::min(given.heads, kMost));
    attention.head_dim = static_cast<int>(std::min(given.head_dim, kMost));
    attention.length = given.length;
    return std::make_shared<const AttentionInputs>(std::move(given.tensors));
}

int verify(VerifyOptions options) {
    const Layout layout = parse_layout(options.layout);
    const auto inputs = take_tensors(options);
    HeadPatterns pattern = load_pattern(options.attention);
    const auto device = open_device(options.attention);
    Attention attention = describe_attention(options.attention, pattern.length(), device->target());
    if (options.scale) {
        attention.scale = *options.scale;
        check(attention);
    }
    const AttentionCase problem{
        .attention = attention,
        .pattern = std::move(pattern),
        .batch = options.attention.batch,
        .lengths = options.attention.lengths,
        .rules = mask_rules(options.attention, attention.length),
        .values = {},
        .seed = options.seed,
        .layout = layout,
        .packed_rows = options.attention.packed_rows,
        .inputs = inputs,
    };
    check(problem, *device);
    if (!options.dump.empty()) {
        create_folder(options.dump);
    }
    say("{}: {}\n", device->name(), to_text(problem));
    KernelCache cache(KernelCache::checked_folders());
    const CaseReport report = check_case(problem, *device, cache);
    if (!options.dump.empty()) {
        dump(options.dump, problem, report);
    }
    print_report(problem, report);
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
    command->add_option("--inputs", options->files.all,
                        "one's own tensors instead of random ones: a folder with q.npy, k.npy, "
                        "v.npy and do.npy, or an .npz or .safetensors with these names");
    command->add_option("--q", options->files.q,
                        "Q alone, of shape (B, H, L, D), (H, L, D), (L, D)");
    command->add_option("--k", options->files.k, "K alone, of the same shape");
    command->add_option("--v", options->files.v, "V alone, of the same shape");
    command->add_option("--do", options->files.d_o,
                        "dO alone, of the same shape; random where none is given");
    command->add_option("--scale", options->scale, "of Q K^T; without it, 1/sqrt(D)");
    command->callback([options, command, exit_code] {
        const auto given = [command](const char* flag) { return command->count(flag) > 0; };
        options->heads_given = given("--heads");
        options->head_dim_given = given("--head-dim");
        options->batch_given = given("--batch");
        *exit_code = verify(*options);
    });
}

}  // namespace spion
