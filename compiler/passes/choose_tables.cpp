#include "compiler/passes/choose_tables.h"

namespace spion {

TileProgram choose_tables(TileProgram program, const PassContext& context) {
    program.tables = context.tables;
    return program;
}

}  // namespace spion
