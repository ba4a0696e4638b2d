// `spion compile`: from a pattern to every text and binary on its way to machine code, for a target
// that need not be here.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "codegen/emit.h"
#include "codegen/kernel_families.h"
#include "compiler/lower.h"
#include "compiler/plan/layer_plan.h"
#include "compiler/report.h"
#include "ir/error.h"
#include "ir/parser.h"
#include "ir/sizes.h"
#include "runtime/atomic_file.h"
#include "runtime/disassemble.h"
#include "runtime/offline.h"
#include "runtime/output.h"
#include "tools/attention_options.h"
#include "tools/command_line.h"
#include "tools/commands.h"
#include "tools/kernel_files.h"

namespace spion {
namespace {

namespace fs = std::filesystem;

struct Request {
    std::string file;  // of IR, instead of a pattern
    AttentionOptions attention;
    bool key_padding = false;
    bool sequences = false;     // that lie end to end
    bool kv_sequences = false;  // and others of keys
    std::string target;
    std::string card;  // "": the one that the target is known by
    std::string role = "all";
    std::vector<std::string> emit{"all"};
    std::string folder;
    bool print = false;
    bool explain = false;
    std::string print_after;  // names of passes with commas, "all", or "" for none
};

// What is compiled. A kernel.ir brings a program alone, everything else an operation on a pattern.
struct Job {
    IrModule asked;  // less its programs
    std::vector<PlannedProgram> programs;
    std::optional<LayerPlan> plan;  // that they were made by, unless they came from a file
    std::string passes;             // what --print-after asks for
};

constexpr const char* kRoleNames[] = {"forward", "dq", "dkdv"};  // by launch_of

// The launches of a layer that are asked for, in order.
std::vector<std::size_t> parse_roles(const std::string& name) {
    if (name == "all") {
        return {0, 1, 2};
    }
    for (std::size_t i = 0; i < std::size(kRoleNames); ++i) {
        if (name == kRoleNames[i]) {
            return {i};
        }
    }
    throw UserError("role '{}' is not known: use {} or all", name, fmt::join(kRoleNames, ", "));
}

// plan_layer, lower_launch: the way of compile_attention (compiler/compile_attention.h), without a device.
Job lower_all(IrModule asked, const Request& options, const Target& target) {
    check_batch(*asked.attention, options.attention.batch);
    Job job;
    PassObserver observer;
    if (!options.print_after.empty()) {
        observer =
            print_after(options.print_after, [&](std::string_view text) { job.passes += text; });
    }
    const std::vector<std::size_t> launches = parse_roles(options.role);
    PlanOptions planning{.batch = options.attention.batch,
                         .packed_rows = options.attention.packed_rows,
                         .cut_full = true};
    planning.launches = {};
    for (const std::size_t launch : launches) {
        planning.launches[launch] = true;
    }
    job.plan = plan_layer(*asked.attention, *asked.pattern, target, planning);
    for (const std::size_t at : launches) {
        const LaunchPlan& launch = job.plan->launches[at];
        if (observer) {
            job.passes += fmt::format("==> {} <==\n", to_string(launch.role));
        }
        job.programs.push_back(lower_launch(*job.plan, launch, *asked.pattern, observer));
    }
    job.asked = std::move(asked);
    return job;
}

Job job_from_pattern(const Request& options, const Target& target) {
    const HeadPatterns pattern = load_pattern(options.attention);
    AttentionOptions described = options.attention;
    described.sequence_patterns = 0;  // --sequences is a flag here, and says varlen below
    Attention attention = describe_attention(described, pattern.length(), target);
    attention.key_padding = options.key_padding;
    attention.sequence_patterns = options.attention.sequence_patterns;
    if (options.sequences) {
        attention.varlen = true;
        attention.mask = ElementMask::kSpans;
    }
    if (options.kv_sequences && !options.sequences) {
        throw UserError("--kv-sequences was given without --sequences: give both");
    }
    attention.key_starts = options.kv_sequences;
    check(attention);
    return lower_all({.attention = attention, .pattern = pattern, .programs = {}}, options, target);
}

// A program from a file may be for anything. index: of the file's programs, from 0.
PlannedProgram planned_from_file(TileProgram program, std::size_t index, const std::string& file,
                                 const std::string& target_name, const Target& target) {
    if (const std::string reason = why_not_emitted(program, target); !reason.empty()) {
        throw UserError("{}: program {}, {}, cannot run on {}: {}", file, index + 1,
                        to_string(program.role), target_name, reason);
    }
    PlannedKernel kernel = plan_kernel(program, target, kernel_families());
    return {.program = std::move(program), .kernel = std::move(kernel)};
}

Job job_from_file(const Request& options, const Target& target) {
    IrModule ir =
        parse_ir(read_text_file(options.file, "the file", "a text file of IR (docs/ir.md)"),
                 options.file, Completeness::kFinished);
    if (!ir.summaries.empty() || !ir.steps.empty()) {
        throw UserError(
            "{} holds kernels besides attention, which are made by `spion train` alone: give "
            "programs of attention, or an attention with its pattern",
            options.file);
    }
    if (ir.programs.empty()) {
        if (!ir.attention || !ir.pattern) {
            throw UserError("{} holds no program, nor an attention with its pattern: give one",
                            options.file);
        }
        return lower_all(std::move(ir), options, target);
    }
    if (!options.print_after.empty()) {
        throw UserError(
            "--print-after shows how a pattern is lowered, and {} holds programs "
            "already: give an attention with its pattern",
            options.file);
    }
    const std::vector<std::size_t> launches = parse_roles(options.role);
    Job job;
    for (std::size_t i = 0; i < ir.programs.size(); ++i) {
        const std::size_t launch = launch_of(ir.programs[i].role);
        if (std::find(launches.begin(), launches.end(), launch) != launches.end()) {
            check_batch(ir.programs[i].attention, options.attention.batch);
            job.programs.push_back(planned_from_file(std::move(ir.programs[i]), i, options.file,
                                                     options.target, target));
        }
    }
    if (job.programs.empty()) {
        throw UserError("{} holds no program of role {}: name another, or all", options.file,
                        options.role);
    }
    ir.programs.clear();
    job.asked = std::move(ir);
    return job;
}

std::string explain_all(const Request& options, const Job& job) {
    if (!job.plan) {
        throw UserError(
            "--explain weighs tile shapes of a pattern, and {} holds none: give an "
            "attention with its pattern",
            options.file);
    }
    std::string text;
    for (const std::size_t launch : parse_roles(options.role)) {
        text += explain(*job.plan, job.plan->launches[launch], *job.asked.pattern) + "\n";
    }
    return text + explain_roles(*job.plan);
}

// A kernel's folder, unlike that of any before it.
std::string folder_name(const std::string& name, std::map<std::string, int>& taken) {
    const int count = ++taken[name];
    return count == 1 ? name : fmt::format("{}.{}", name, count);
}

std::vector<ShownKernel> compile_all(const Job& job, const Target& target,
                                     const std::vector<EmitKind>& kinds, std::int64_t batch) {
    const auto wants = [&](EmitKind kind) {
        return std::find(kinds.begin(), kinds.end(), kind) != kinds.end();
    };
    const bool compiles = std::any_of(kinds.begin(), kinds.end(), needs_binary);
    const auto disassembler = wants(EmitKind::kSass) ? find_disassembler() : std::nullopt;
    if (wants(EmitKind::kSass) && !disassembler) {
        say("spion: {}\n", disassembler_missing());
    }
    std::vector<ShownKernel> kernels;
    std::map<std::string, int> taken;
    for (const auto& [program, planned] : job.programs) {
        ShownKernel kernel{
            .name = {},
            .ir = job.asked.pattern ? to_text(job.asked) : "",
            .program = program,
            .source = emit(program, planned, target),
            .rebuild = target.back_end == BackEnd::kCuda ? rebuild_command(target.arch, {}) : "",
            .compiled = {},
            .report = {},
            .sass = {}};
        kernel.name = folder_name(kernel.source.name, taken);
        if (compiles) {
            const CompileRequest request = request_for(kernel.source, target);
            kernel.rebuild = rebuild_command(request);
            kernel.compiled = compile_offline(request, target.back_end);
            if (const auto note = spill_note(request, kernel.compiled->binary); !note.empty()) {
                say("spion: {}\n", note);
            }
            kernel.report = report_on(program, planned, target, kernel.name, request,
                                      kernel.compiled->binary, batch);
            if (disassembler) {
                kernel.sass = disassemble(*disassembler, kernel.compiled->binary.code);
            }
        }
        kernels.push_back(std::move(kernel));
    }
    return kernels;
}

// Writes the folder of each kernel; what was written, a line a kernel.
std::string write_folders(const std::vector<ShownKernel>& kernels,
                          const std::vector<EmitKind>& kinds, const fs::path& root) {
    std::string lines;
    for (const ShownKernel& kernel : kernels) {
        const fs::path folder = root / kernel.name;
        std::vector<KernelFile> files;
        for (const EmitKind kind : kinds) {
            const std::vector<KernelFile> more = files_of(kernel, kind);
            files.insert(files.end(), more.begin(), more.end());
        }
        std::vector<NamedBytes> whole;
        std::vector<std::string> names;
        for (const KernelFile& file : files) {
            whole.push_back({.path = folder / file.name, .bytes = file.bytes});
            names.push_back(file.name);
        }
        write_files(whole, "name a folder that can with -o");
        lines += fmt::format("{}: {}\n", folder.string(), fmt::join(names, " "));
    }
    return lines;
}

std::string printed(const std::vector<ShownKernel>& kernels, const std::vector<EmitKind>& kinds) {
    std::string text;
    for (const ShownKernel& kernel : kernels) {
        for (const EmitKind kind : kinds) {
            for (const KernelFile& file : files_of(kernel, kind)) {
                if (file.printed) {
                    text += fmt::format("==> {}/{} <==\n{}{}", kernel.name, file.name, file.bytes,
                                        file.bytes.ends_with('\n') ? "\n" : "\n\n");
                }
            }
        }
    }
    return text;
}

void run_compile(const Request& options) {
    if (options.folder.empty() && !options.print && !options.explain &&
        options.print_after.empty()) {
        throw UserError("nothing would be shown: give -o DIR, --print, --print-after or --explain");
    }
    Target target = target_named(options.target);
    if (!options.card.empty()) {
        target.card = card_named(options.card, target);
    }
    const std::vector<EmitKind> kinds =
        parse_emit_kinds(options.emit, options.target, target.back_end);
    const Job job =
        options.file.empty() ? job_from_pattern(options, target) : job_from_file(options, target);
    // stdout stays empty until nothing can go wrong any more.
    std::string out = job.passes;
    out += options.explain ? explain_all(options, job) : "";
    if (!options.folder.empty() || options.print) {
        const std::vector<ShownKernel> kernels =
            compile_all(job, target, kinds, options.attention.batch);
        if (options.print) {
            out += printed(kernels, kinds);
        }
        if (!options.folder.empty()) {
            out += write_folders(kernels, kinds, options.folder);
        }
    }
    print_out("{}", out);
}

}  // namespace

void add_compile(CLI::App& app, int* /*exit_code: errors are thrown*/) {
    CLI::App* command = app.add_subcommand(
        "compile",
        "follow a pattern to IR, source and machine code, for any target, no GPU needed");
    const auto options = std::make_shared<Request>();
    auto* file = command->add_option("file", options->file,
                                     "IR to compile instead of a pattern (docs/ir.md)");
    file->type_name("FILE.ir");
    add_pattern_options(*command, options->attention);
    add_operation_options(*command, options->attention);
    command->add_flag("--key-padding", options->key_padding,
                      "kernels that take the number of valid keys of each sample");
    command->add_flag("--sequences", options->sequences,
                      "kernels of sequences of at most L that lie end to end, nothing padded: a "
                      "launch says where each begins and which elements it keeps");
    command->add_flag("--kv-sequences", options->kv_sequences,
                      "with --sequences: keys are sequences of at most Lk of their own");
    for (const char* said_by_file :
         {"--pattern", "--pattern-random", "--pattern-seed", "--block", "--heads", "--head-dim",
          "--length", "--dtype", "--softmax", "--key-padding", "--sequences", "--kv-sequences",
          "--sequence-patterns"}) {
        file->excludes(command->get_option(said_by_file));
    }
    command
        ->add_option("--target", options->target,
                     fmt::format("one of {}", fmt::join(target_names(), ", ")))
        ->required();
    command->add_option("--card", options->card,
                        fmt::format("what predictions are for: {}; of sm_90a an H200 without it",
                                    fmt::join(card_names(), " or ")));
    command->add_option("--role", options->role, "forward, dq, dkdv or all")->capture_default_str();
    command
        ->add_option("--emit", options->emit,
                     "ir, tile, cuda, ptx, cubin, sass, llvm, asm, report or all, with commas")
        ->delimiter(',');
    command->add_option("-o,--out", options->folder, "folder that gets one folder a kernel");
    command->add_flag("--print", options->print, "print the generated texts");
    command->add_flag("--explain", options->explain,
                      "print the tile shapes that were weighed, and why one won");
    command->add_option("--print-after", options->print_after,
                        "print the program after these passes, with commas, or all");
    command->callback([options] { run_compile(*options); });
}

}  // namespace spion
