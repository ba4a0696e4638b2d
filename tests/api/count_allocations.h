// How often this program has called operator new and getenv so far. A test that is linked with
// count_allocations.cpp counts those of libspion.so too, whose operator new and getenv are the
// program's.
#pragma once

namespace spion::test {

long allocations();
long looks_at_the_environment();

}  // namespace spion::test
