// Whether this process is a child of the one that made something.
#pragma once

namespace spion {

// How often the process was forked on the way from the one that first asked. An object that keeps
// the number of its making is of another process where the number is another.
unsigned forks();

}  // namespace spion
