// One kernel's folder in the disk cache (runtime/cache.h).
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "ir/kernel_source.h"

namespace spion {

// What an entry may hold besides the included files, which have names of their own.
constexpr const char* kManifest = "manifest.json";
constexpr const char* kEntryFiles[] = {kManifest,    "kernel.cu",    "kernel.ll", "kernel.ir",
                                       "rebuild.sh", "kernel.cubin", "kernel.o"};
// Of the folders in which entries are written before they get their names.
constexpr std::string_view kAsidePrefix = "tmp.";

// "attention_forward-b64-D32-bf16.0123...": the source's name, without characters that file systems
// or shells dislike, and the key.
std::string entry_folder_name(const std::string& name, const std::string& key);

// Whether a file that an entry names would not be one in the entry's folder or below it.
bool lies_outside(const std::string& name);

// The binary kept in `folder`, or nullopt when there is no whole and undamaged entry for `key`;
// `problem`, unless null, then says why.
std::optional<KernelBinary> read_entry(const std::filesystem::path& folder, const std::string& key,
                                       std::string* problem = nullptr);

// Writes the entry aside and renames it to `folder`, whose parent exists. An undamaged entry that
// is there by then is left in place, a damaged one is replaced. Throws std::system_error when it
// cannot be written.
void write_entry(const std::filesystem::path& folder, const std::string& key,
                 const KernelSource& source, const CompileRequest& request,
                 const KernelBinary& binary);

// Removes an entry at once for whoever looks: it is moved aside first. False: it was not there, or
// another process was faster. Throws std::system_error when it cannot be removed.
bool remove_entry(const std::filesystem::path& folder);

// Removes what write_entry left aside in `root` more than an hour ago: its process died.
void remove_abandoned(const std::filesystem::path& root) noexcept;

}  // namespace spion
