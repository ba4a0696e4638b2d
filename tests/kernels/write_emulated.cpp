// write_emulated NAME OUT.cpp: the CUDA source of one emulated case, its includes unfolded, as C++
// that runs on tests/kernels/cuda_emulation.h. write_emulated table OUT.cpp: find_emulated.
#include <fmt/format.h>

#include <fstream>
#include <iostream>
#include <set>
#include <string>

#include "compiler/launch/advance_dropout.h"
#include "compiler/launch/bias_gradient.h"
#include "tests/kernels/emulated_cases.h"
#include "tests/kernels/emulated_gradients.h"
#include "tests/kernels/emulated_linears.h"
#include "tests/kernels/emulated_walk.h"

namespace {

using namespace spion;

// Replaces every #include "name" by the embedded text of that name, once.
std::string unfold(const std::string& text, const KernelSource& source,
                   std::set<std::string>& done) {
    constexpr std::string_view kDirective = "#include \"";
    std::string result;
    std::size_t from = 0;
    for (std::size_t at = text.find(kDirective); at != std::string::npos;
         at = text.find(kDirective, from)) {
        result += text.substr(from, at - from);
        const std::size_t begin = at + kDirective.size(), end = text.find('"', begin);
        const std::string name = text.substr(begin, end - begin);
        if (done.insert(name).second) {
            for (const SourceFile& file : source.includes) {
                if (file.name == name) result += unfold(file.text, source, done);
            }
        }
        from = end + 1;
    }
    return result + text.substr(from);
}

// `source` in a namespace of its own, and a function that calls its entry with our arguments.
// Include guards are of no use when text is unfolded once; common/ptx.cuh's keeps the emulation's
// words.
std::string emulated(const std::string& name, const KernelSource& source,
                     const std::string& arguments = "SpionAttentionArguments") {
    std::set<std::string> done;
    std::string text = unfold(source.text, source, done);
    for (std::size_t at; (at = text.find("#pragma once")) != std::string::npos;) {
        text.erase(at, 12);
    }
    std::string guards;
    for (const SourceFile& file : source.includes) {
        const std::size_t at = file.text.find("#ifndef SPION_");
        if (at == std::string::npos || file.name == "kernels/cuda/common/ptx.cuh") continue;
        const std::size_t begin = at + 8;
        guards += "#undef " + file.text.substr(begin, file.text.find('\n', at) - begin) + "\n";
    }
    return fmt::format(
        "namespace emulated_{0} {{\nnamespace {1}_source {{\n#define {1} {1}_of_{0}\n{2}\n"
        "#undef {1}\n{3}}}\nvoid {1}(const ::{4}& arguments) {{\n"
        "    {1}_source::{1}_of_{0}(\n"
        "        reinterpret_cast<const {1}_source::{4}&>(arguments));\n}}\n}}\n",
        name, source.entry, text, guards, arguments);
}

// The source of a kernel for sm_90a as it stands, its includes too, in a namespace of its own.
std::string write_gradients(const EmulatedCase& c) {
    const KernelSource source =
        emit(program_of(c, KernelRole::kGradients), emulated_hopper_target());
    return fmt::format(
        "#include \"tests/kernels/hopper_emulation.h\"\n"
        "#define {1} {1}_of_{0}\nnamespace emulated_{0} {{\n{2}\n"
        "void run(const SpionSm90Arguments& arguments) {{\n    {1}(arguments);\n}}\n}}\n",
        c.name, source.entry, source.text);
}

constexpr KernelRole kRoles[] = {KernelRole::kForward, KernelRole::kQueryGradient,
                                 KernelRole::kKeyValueGradient};

// The kernels of a training step; "" where `name` is none of these.
std::string write_training(const std::string& name) {
    std::string text;
    for (const EmulatedLinear& l : emulated_linears()) {
        if (name == l.name) {
            return emulated(name, fused_linear_source(l.shape, emulated_target()),
                            "SpionLinearBackwardArguments");
        }
    }
    for (const EmulatedFeedForward& f : emulated_feed_forwards()) {
        if (name == f.name) {
            return emulated(name, fused_feed_forward_source(f.shape, emulated_target()),
                            "SpionFeedForwardArguments");
        }
    }
    for (const EmulatedLayer& l : emulated_layers()) {
        if (name != l.name) continue;
        for (int i = 0; i < kFusedLayerKernels; ++i) {
            const auto kernel = static_cast<FusedLayerKernel>(i);
            constexpr const char* kArguments[kFusedLayerKernels] = {
                "SpionNormLinearArguments", "SpionNormLinearArguments", "SpionLayerEndArguments",
                "SpionLayerEndArguments",   "SpionNormMeanArguments",   "SpionNormMeanArguments"};
            text += emulated(name, fused_layer_source(kernel, l.shape, emulated_target()),
                             kArguments[i]);
        }
        return text;
    }
    for (const EmulatedEmbedding& e : emulated_embeddings()) {
        if (name != e.name) continue;
        for (int i = 0; i < kFusedEmbeddingKernels; ++i) {
            text += emulated(name,
                             fused_embedding_source(static_cast<FusedEmbeddingKernel>(i), e.shape,
                                                    emulated_target()),
                             "SpionTokenPositionArguments");
        }
        return text;
    }
    return text;
}

std::string write_case(const std::string& name) {
    std::string text =
        "#include \"tests/kernels/cuda_emulation.h\"\n"
        "#include \"kernels/attention_arguments.h\"\n"
        "#include \"kernels/train_arguments.h\"\n"
        "#include \"kernels/layer_arguments.h\"\n";
    for (const EmulatedCase& c : emulated_cases()) {
        if (name != c.name) continue;
        for (KernelRole role : kRoles) {
            text += emulated(name, emit(program_of(c, role), emulated_target()));
        }
        if (c.relative_bias > 0) {
            text += emulated(
                name, bias_gradient_source(program_of(c, kRoles[0]).attention, emulated_target()));
        }
        return text;
    }
    for (const EmulatedCase& c : emulated_cases()) {
        if (name != std::string(c.name) + "_baked") continue;
        for (KernelRole role : kRoles) {
            text += emulated(name, emit(baked_program(c, role), emulated_target()));
        }
        return text;
    }
    for (const EmulatedSummary& s : emulated_summaries()) {
        if (name == s.name) return text + emulated(name, emit(program_of(s), emulated_target()));
    }
    if (name == "dropout_state") {
        return text + "#include \"kernels/dropout_arguments.h\"\n" +
               emulated(name, advance_dropout_source(emulated_target()), "SpionDropoutAdvance");
    }
    if (const std::string of_training = write_training(name); !of_training.empty()) {
        return text + of_training;
    }
    for (const EmulatedCase& c : emulated_gradients()) {
        if (name == c.name) return write_gradients(c);
    }
    throw std::runtime_error("no emulated case is named " + name);
}

std::string write_gradients_table() {
    std::string declarations, rows;
    for (const EmulatedCase& c : emulated_gradients()) {
        declarations += fmt::format(
            "namespace emulated_{} {{ void run(const SpionSm90Arguments&); }}\n", c.name);
        rows += fmt::format("    if (name == \"{0}\") return emulated_{0}::run;\n", c.name);
    }
    return fmt::format(
        "#include \"tests/kernels/emulated_gradients.h\"\n#include \"ir/error.h\"\n{}"
        "namespace spion {{\nEmulatedGradients find_emulated_gradients(std::string_view name) {{\n"
        "{}    throw InternalError(\"no emulated gradients {{}}\", name);\n}}\n}}\n",
        declarations, rows);
}

std::string write_table() {
    std::string declarations, rows;
    const auto add = [&](std::string_view name, std::string_view entry) {
        declarations += fmt::format(
            "namespace emulated_{} {{ void {}(const SpionAttentionArguments&); }}\n", name, entry);
        rows += fmt::format("    {{\"{0}\", \"{1}\", emulated_{0}::{1}}},\n", name, entry);
    };
    for (const EmulatedCase& c : emulated_cases()) {
        for (KernelRole role : kRoles) add(c.name, to_string(role));
        if (c.relative_bias > 0) add(c.name, "attention_bias_gradient");
    }
    for (const char* name : kBakedCases) {
        for (KernelRole role : kRoles) add(std::string(name) + "_baked", to_string(role));
    }
    for (const EmulatedSummary& s : emulated_summaries()) add(s.name, "score_summary");
    return fmt::format(
        "#include \"tests/kernels/emulated_kernels.h\"\n#include \"ir/error.h\"\n{}"
        "namespace spion {{\nnamespace {{\nstruct Row {{\n    std::string_view name, entry;\n"
        "    EmulatedKernel kernel;\n}};\nconst Row kRows[] = {{\n{}}};\n}}\n"
        "EmulatedKernel find_emulated(std::string_view name, std::string_view entry) {{\n"
        "    for (const Row& row : kRows) {{\n"
        "        if (row.name == name && row.entry == entry) return row.kernel;\n    }}\n"
        "    throw InternalError(\"no emulated kernel {{}} of {{}}\", entry, name);\n}}\n}}\n",
        declarations, rows);
}

}  // namespace

int main(int count, char** arguments) {
    if (count == 2 && std::string_view(arguments[1]) == "names") {
        for (const EmulatedCase& c : emulated_cases()) std::cout << c.name << "\n";
        return 0;
    }
    if (count != 3) {
        std::cerr << "usage: write_emulated NAME|table OUT.cpp\n";
        return 2;
    }
    const std::string name = arguments[1];
    std::ofstream(arguments[2]) << (name == "table"             ? write_table()
                                    : name == "gradients_table" ? write_gradients_table()
                                                                : write_case(name));
    return 0;
}
