// ListOps as Long Range Arena stores it: basic_train.tsv, basic_val.tsv and basic_test.tsv, a
// header line "Source<TAB>Target", then an expression and its value a line. The expressions also
// spell out their binary tree with "(" and ")", which are dropped.
#pragma once

#include <cstdint>
#include <filesystem>

#include "train/data/dataset.h"

namespace spion {

// Throws UserError naming the file (and line) for a missing or empty file, a wrong header, a line
// that is not two columns, an unknown token, unbalanced brackets, a target that is no digit, or an
// expression of more than `max_tokens` tokens.
Split read_list_ops_tsv(const std::filesystem::path& file, std::int64_t max_tokens);

// The three files of a folder.
Dataset read_list_ops_folder(const std::filesystem::path& folder, std::int64_t max_tokens);

// Writes what the reader reads, without the optional parentheses. Throws UserError when the file
// cannot be written.
void write_list_ops_tsv(const Split& split, const std::filesystem::path& file);
void write_list_ops_folder(const Dataset& data, const std::filesystem::path& folder);

}  // namespace spion
