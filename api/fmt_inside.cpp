// The library's own copy of fmt. Debian has no archive of it, and a libfmt.so beside libspion.so
// would be one more thing to be found, of one version, at run time. Compiled with
// -fkeep-inline-functions, so that what fmt's source file would define is defined here.
#define FMT_HEADER_ONLY
#include <fmt/format.h>
