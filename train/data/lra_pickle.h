// Long Range Arena's tasks as others prepare them (Nystromformer, Skyformer, SPION): a pickle a split,
// a list of dicts with input_ids_0 (and input_ids_1) and label. Ids are final: nothing is added to them.
#pragma once

#include <optional>
#include <string_view>

#include "train/task.h"

namespace spion {

// Of FOLDER/{name}.{train,dev,test}.pickle or FOLDER/lra-{name}.…; nothing where there is no such
// training file. padded: zeros at a sequence's end are padding (no pixels). Throws UserError naming a
// file that is missing or damaged, holds other things, or has sequences that are longer than length.
std::optional<TaskData> load_lra_pickles(const TrainSettings& settings, std::string_view name,
                                         int towers, bool padded, const Say& say);

}  // namespace spion
