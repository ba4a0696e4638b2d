// Matrices that scipy.sparse.save_npz wrote, as masks.
#pragma once

#include <string>

#include "io/mask.h"
#include "io/zip.h"

namespace spion {

bool is_sparse_matrix(const Zip& zip);

// CSR and BSR: a row and a column a block or an element, set where the matrix holds something other
// than 0. BSR's blocks are its storage, of whatever size scipy chose (1 to 6 unless it was told),
// and say nothing about the pattern's. Throws UserError that begins with `origin` for other formats
// and what is damaged.
FoundPattern parse_sparse_matrix(const Zip& zip, const PatternRequest& request,
                                 const std::string& origin);

}  // namespace spion
