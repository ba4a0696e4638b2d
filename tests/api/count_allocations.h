// How often this program has called operator new so far. A test that is linked with
// count_allocations.cpp counts those of libspion.so too, whose operator new is the program's.
#pragma once

namespace spion::test {

long allocations();

}  // namespace spion::test
