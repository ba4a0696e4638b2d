// One kernel's folder in the disk cache (runtime/cache.h).
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "ir/kernel_source.h"

namespace spion {

// "attention_forward-b64-D32-bf16.0123...": the source's name, without characters that file systems
// or shells dislike, and the key.
std::string entry_folder_name(const std::string& name, const std::string& key);

// The binary kept in `folder`, or nullopt when there is no whole and undamaged entry for `key`.
std::optional<KernelBinary> read_entry(const std::filesystem::path& folder, const std::string& key);

// Writes the entry aside and renames it to `folder`, whose parent exists. An undamaged entry that
// is there by then is left in place, a damaged one is replaced. Throws std::system_error when it
// cannot be written.
void write_entry(const std::filesystem::path& folder, const std::string& key,
                 const KernelSource& source, const CompileRequest& request,
                 const KernelBinary& binary);

// Removes what write_entry left aside in `root` more than an hour ago: its process died.
void remove_abandoned(const std::filesystem::path& root) noexcept;

}  // namespace spion
