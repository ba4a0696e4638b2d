// Kernels compiled beforehand, for machines without a compiler or a folder to write to:
//     <path>/manifest.json          format number, spion's version, one record a kernel
//     <path>/<name>.<key>/          the kernel, as an entry of the cache (runtime/cache_entry.h)
// Opened read-only. A kernel is found by its whole source and target, so that one made by another
// spion, or for another device, is never taken. A bundle is code that will run: docs/versions.md
// says whom to trust.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ir/kernel_source.h"
#include "ir/target.h"

namespace spion {

// Of the manifest; others are refused.
constexpr int kBundleFormat = 1;

// 32 hex digits over the source with everything it includes, arch and features; not over the
// compiler and its options, which whoever opens a bundle need not have.
std::string bundle_key(const KernelSource& source, const Target& target);

struct BundledKernel {
    std::string key;
    std::string name;   // "attention_forward-b64-D32-bf16"
    std::string entry;  // "attention_forward"
    std::string arch;
    std::string features;
    std::string folder;         // relative to the bundle
    std::string binary_digest;  // as digest_of
    std::string compiler;
};

class Bundle {
  public:
    // Reads the manifest alone. Throws DeviceError when there is none that can be read, UserError
    // when its format is another one.
    static Bundle open(const std::filesystem::path& path);

    const std::filesystem::path& path() const { return path_; }
    const std::vector<BundledKernel>& kernels() const { return kernels_; }
    const std::string& spion_version() const { return version_; }

    // nullopt when the bundle has no such kernel. Throws DeviceError when it has one that is
    // damaged or missing.
    std::optional<KernelBinary> find(const KernelSource& source, const Target& target) const;
    // The same by a record of kernels().
    KernelBinary read(const BundledKernel& kernel) const;
    // `target` with what choices were made for: the compiler's release and the processors of the
    // target that kernels were compiled for, where the bundle has any of its arch.
    Target as_compiled_for(Target target) const;
    // "sm_90a: 6 kernels, znver4: 3 kernels", for people who find no kernel of theirs.
    std::string targets() const;

  private:
    std::filesystem::path path_;
    std::string version_;
    std::vector<BundledKernel> kernels_;
    std::vector<Target> targets_;
};

struct NewBundledKernel {
    Target target;
    KernelSource source;
    CompileRequest request;
    KernelBinary binary;
};
// Writes aside and renames. Throws UserError when `path` exists, DeviceError when it cannot be
// written.
void write_bundle(const std::filesystem::path& path, std::string_view spion_version,
                  std::span<const NewBundledKernel> kernels);

}  // namespace spion
