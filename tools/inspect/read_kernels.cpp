#include "tools/inspect/read_kernels.h"

#include <algorithm>
#include <string>

#include "tools/inspect/files.h"

namespace spion::inspect {
namespace {

namespace fs = std::filesystem;

constexpr const char* kOutputs[] = {"attention.ir", "kernel.opt.ll", "kernel.ptx",
                                    "kernel.sass",  "kernel.s",      "report.txt"};

void read_report(KernelFacts& kernel, const nlohmann::json& json) {
    kernel.entry = member<std::string>(json, "entry").value_or("");
    kernel.origin = member<std::string>(json, "origin").value_or("");
    kernel.compile_ms = member<double>(json, "compile_ms");
    kernel.lookup_ms = member<double>(json, "lookup_ms");
    kernel.code_bytes = member<std::int64_t>(json, "code_bytes").value_or(kernel.code_bytes);
    kernel.registers = member<int>(json, "registers");
    kernel.spill_bytes = member<int>(json, "spill_bytes");
    kernel.shared_bytes = member<int>(json, "static_shared_bytes");
    if (const auto dynamic = member<int>(json, "dynamic_shared_bytes")) {
        kernel.shared_bytes = kernel.shared_bytes.value_or(0) + *dynamic;
    }
    if (const auto found = json.find("occupancy"); found != json.end() && found->is_object()) {
        kernel.occupancy = member<double>(*found, "fraction");
    }
    if (const auto found = json.find("predicted"); found != json.end() && found->is_object()) {
        kernel.predicted_ms = member<double>(*found, "milliseconds");
    }
    if (const auto found = json.find("warnings"); found != json.end() && found->is_array()) {
        for (const auto& warning : *found) {
            if (warning.is_string()) {
                kernel.warnings.push_back(warning.get<std::string>());
            }
        }
    }
}

bool is_include(const fs::path& path) {
    const std::string extension = path.extension().string();
    return extension == ".cuh" || extension == ".h";
}

// From the shape line of a tile program.
std::string tier_of(const std::string& ir) {
    const std::size_t shape = ir.find("\nshape ");
    const std::string line =
        shape == std::string::npos ? "" : ir.substr(shape, ir.find('\n', shape + 1) - shape);
    if (line.find(" tables=passed") != std::string::npos) {
        return "0";
    }
    return line.find(" tables=baked") != std::string::npos ? "1" : "";
}

// Of a script, the line that does the work; without its end.
std::string last_line(std::string_view text) {
    if (text.ends_with('\n')) {
        text.remove_suffix(1);
    }
    return std::string(text.substr(text.rfind('\n') + 1));  // npos + 1 is 0
}

KernelFacts read_kernel(const fs::path& folder) {
    KernelFacts kernel;
    kernel.name = folder.filename().string();
    kernel.ir = read_if_there(folder / "kernel.ir").value_or("");
    kernel.tier = tier_of(kernel.ir);
    for (const char* name : {"kernel.cu", "kernel.ll"}) {
        if (auto text = read_if_there(folder / name)) {
            kernel.source = {.name = name, .text = std::move(*text)};
        }
    }
    for (const char* name : kOutputs) {
        if (auto text = read_if_there(folder / name)) {
            kernel.outputs.push_back({.name = name, .text = std::move(*text)});
        }
    }
    for (const char* name : {"kernel.cubin", "kernel.o"}) {
        if (const auto binary = read_if_there(folder / name)) {
            kernel.binary_bytes = static_cast<std::int64_t>(binary->size());
            kernel.code_bytes = code_bytes(*binary);
        }
    }
    for (const fs::directory_entry& entry : fs::recursive_directory_iterator(folder)) {
        if (is_include(entry.path())) {
            kernel.includes.push_back({.name = entry.path().lexically_relative(folder).string(),
                                       .text = read_if_there(entry.path()).value_or("")});
        }
    }
    std::sort(kernel.includes.begin(), kernel.includes.end(),
              [](const TextFile& a, const TextFile& b) { return a.name < b.name; });
    kernel.rebuild = last_line(read_if_there(folder / "rebuild.sh").value_or(""));
    if (const auto log = read_if_there(folder / "kernel.log")) {
        kernel.warnings = warnings_in(*log);
    }
    if (const auto report = read_json_if_there(folder / "report.json")) {
        read_report(kernel, *report);
    }
    return kernel;
}

}  // namespace

bool is_kernel_folder(const fs::path& folder) {
    std::error_code ignored;
    for (const char* name : {"kernel.ir", "kernel.cu", "kernel.ll"}) {
        if (fs::is_regular_file(folder / name, ignored)) {
            return true;
        }
    }
    return false;
}

std::vector<KernelFacts> read_kernels(const fs::path& root) {
    std::vector<KernelFacts> kernels;
    if (is_kernel_folder(root)) {
        kernels.push_back(read_kernel(root));
        return kernels;
    }
    std::error_code ignored;
    for (const fs::directory_entry& entry : fs::directory_iterator(root, ignored)) {
        if (entry.is_directory(ignored) && is_kernel_folder(entry.path())) {
            kernels.push_back(read_kernel(entry.path()));
        }
    }
    std::sort(kernels.begin(), kernels.end(),
              [](const KernelFacts& a, const KernelFacts& b) { return a.name < b.name; });
    return kernels;
}

std::string target_of(const fs::path& kernel_folder) {
    const auto report = read_json_if_there(kernel_folder / "report.json");
    return report ? member<std::string>(*report, "target").value_or("") : "";
}

}  // namespace spion::inspect
