#include "compiler/passes/classify_rows.h"

namespace spion {

TileProgram classify_rows(TileProgram program, const PassContext& /*context*/) {
    program.classes.clear();
    for (int item = 0; item < program.tiles(); ++item) {
        program.classes.push_back(row_class(program, item));
    }
    return program;
}

}  // namespace spion
